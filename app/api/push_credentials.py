"""What FCM and APNs know an app by. Secrets go in and never come out."""

from datetime import datetime

from strawberry import Maybe

from app.api.declare import about, input_type, mutation, one_of, output, query
from app.api.enums import Provider
from app.api.payloads import Payload
from app.context import Info
from campaigns import push_credentials
from campaigns.push_credentials import ApnsSecret, FcmSecret
from channels.base import PushProvider
from profiles.devices import DEFAULT_APP
from profiles.keys import Scope

APP = "The app, by the name that its devices register with."


@output
class PushCredential:
    """What is kept of a credential; its secret stays sealed."""

    app: str = about(APP)
    provider: Provider = about("Who takes it.")
    project_id: str | None = about("Of FCM: the project.")
    client_email: str | None = about("Of FCM: the service account.")
    key_id: str | None = about("Of APNs: the key's id.")
    team_id: str | None = about("Of APNs: the team.")
    bundle_id: str | None = about("Of APNs: the app's bundle id.")
    sandbox: bool | None = about("Of APNs: whether it is for builds that Xcode installs.")
    set_at: datetime = about("When it was set.")
    checked_at: datetime | None = about("When the provider was last asked; null: not since it was set.")
    check_code: str | None = about("What the provider said: ACCEPTED, or what is wrong.")
    check_detail: str | None = about("What the provider said about what is wrong.")

    @classmethod
    def of(cls, row: push_credentials.PushCredential) -> "PushCredential":
        facts = row.facts
        return cls(
            app=row.app,
            provider=Provider(row.provider),
            project_id=facts.get("project_id"),
            client_email=facts.get("client_email"),
            key_id=facts.get("key_id"),
            team_id=facts.get("team_id"),
            bundle_id=facts.get("bundle_id"),
            sandbox=facts.get("sandbox"),
            set_at=row.set_at,
            checked_at=row.checked_at,
            check_code=row.check_code,
            check_detail=row.check_detail,
        )


@input_type
class FcmCredentialInput:
    """A Firebase service account."""

    service_account: str = about("The JSON file that Google makes, whole.")


@input_type
class ApnsCredentialInput:
    """A key for APNs, and the app that it is used for."""

    p8: str = about("The .p8 file, whole.")
    key_id: str = about("The key's id, ten letters and digits.")
    team_id: str = about("The team's id, ten letters and digits.")
    bundle_id: str = about("The app's bundle id, such as com.example.shop.")
    sandbox: bool = about(
        "For builds that Xcode installs; those of TestFlight and the App Store need production.", default=False
    )


@one_of
class PushSecretInput:
    """What a provider knows the app by; which one is given decides the provider."""

    fcm: Maybe[FcmCredentialInput] = about("For FCM.")
    apns: Maybe[ApnsCredentialInput] = about("For APNs.")


@input_type
class PushCredentialSetInput:
    """A credential; it takes the place of one of the same app and provider."""

    secret: PushSecretInput = about("The secret itself; nobody can read it again.")
    app: str = about(APP, default=DEFAULT_APP)


@output
class PushCredentialSetPayload(Payload):
    """The credential."""

    credential: PushCredential | None = about("What is kept; null when it was refused.", default=None)


@input_type
class PushCredentialTestInput:
    """Which credential to test."""

    provider: Provider = about("Who takes it.")
    app: str = about(APP, default=DEFAULT_APP)


@output
class PushCredentialTestPayload(Payload):
    """The credential, with what the provider says of it."""

    credential: PushCredential | None = about("The credential; null when there is none.", default=None)


@input_type
class PushCredentialDeleteInput:
    """Which credential to forget."""

    provider: Provider = about("Who takes it.")
    app: str = about(APP, default=DEFAULT_APP)


@output
class PushCredentialDeletePayload(Payload):
    """Whether it is gone."""

    deleted: bool = about("False when there was none.", default=False)


@output
class PushCredentialQueries:
    @query(needs=Scope.ADMIN)
    async def push_credentials(self, info: Info) -> list[PushCredential]:
        """What FCM and APNs know the workspace's apps by: facts only, by app and provider; at most 50."""
        rows = await push_credentials.list_credentials(info.context.workspace_id)
        return [PushCredential.of(row) for row in rows]


@output
class PushCredentialMutations:
    @mutation(needs=Scope.ADMIN)
    async def push_credential_set(self, info: Info, input: PushCredentialSetInput) -> PushCredentialSetPayload:
        """Keep what a provider knows an app by, sealed. Try it with pushCredentialTest."""
        resources = info.context.resources
        row = await push_credentials.set_credential(
            info.context.workspace_id,
            to_secret(input.secret),
            app=input.app,
            sealer=resources.sealer,
            providers=resources.push_providers,
            now=info.context.now,
        )
        return PushCredentialSetPayload(credential=PushCredential.of(row))

    @mutation(needs=Scope.ADMIN)
    async def push_credential_test(self, info: Info, input: PushCredentialTestInput) -> PushCredentialTestPayload:
        """Ask the provider whether a credential works; nothing is shown to anybody."""
        resources = info.context.resources
        row = await push_credentials.test_credential(
            info.context.workspace_id,
            app=input.app,
            provider=PushProvider(input.provider),
            sealer=resources.sealer,
            providers=resources.push_providers,
            now=info.context.now,
        )
        return PushCredentialTestPayload(credential=PushCredential.of(row))

    @mutation(needs=Scope.ADMIN)
    async def push_credential_delete(self, info: Info, input: PushCredentialDeleteInput) -> PushCredentialDeletePayload:
        """Forget a credential: nothing more is sent with it."""
        await push_credentials.delete_credential(
            info.context.workspace_id, app=input.app, provider=PushProvider(input.provider)
        )
        return PushCredentialDeletePayload(deleted=True)


def to_secret(wanted: PushSecretInput) -> push_credentials.Secret:
    """The use case's secret."""
    if wanted.fcm is not None:
        return FcmSecret(wanted.fcm.value.service_account)
    assert wanted.apns is not None  # GraphQL has made sure that exactly one is given
    given = wanted.apns.value
    return ApnsSecret(given.p8, given.key_id, given.team_id, given.bundle_id, given.sandbox)
