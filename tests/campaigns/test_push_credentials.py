"""Push credentials: kept sealed, shown never again, tried against local providers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.administration import resealed_everywhere
from app.pushing import Providers, PushHosts
from app.pushproviders import Apns, Fcm, apns_error, fcm_error
from app.pushsink import PushSink
from campaigns import push_credentials
from campaigns.errors import CampaignError
from campaigns.push_credentials import ApnsSecret, FcmSecret, PushCredential, Secret
from campaigns.sealing import Sealer
from channels.base import PushProvider
from tests.channels.pushing import NOW, p8, service_account_json
from tests.conftest import Database

SEALER = Sealer({"2026": "k" * 32})
FACTS: dict[PushProvider, dict[str, Any]] = {
    PushProvider.FCM: {"project_id": "shop-test", "client_email": "push@shop-test.iam.gserviceaccount.com"},
    PushProvider.APNS: {
        "key_id": "ABC1234567",
        "team_id": "TEAM123456",
        "bundle_id": "com.example.shop",
        "sandbox": True,
    },
}


def secret(provider: PushProvider) -> Secret:
    if provider is PushProvider.FCM:
        return FcmSecret(service_account_json())
    return ApnsSecret(p8(), "ABC1234567", "TEAM123456", "com.example.shop", sandbox=True)


@asynccontextmanager
async def providers() -> AsyncIterator[tuple[Providers, PushSink, PushSink]]:
    """Local FCM and APNs. The sandbox only: who asks production fails."""
    async with PushSink(Fcm()) as fcm, PushSink(Apns()) as apns:
        yield Providers(PushHosts(fcm.url, f"{fcm.url}/token", "http://127.0.0.1:1", apns.url)), fcm, apns


async def keep(workspace: UUID, wanted: Secret, *, app: str = "default", sealer: Sealer = SEALER) -> PushCredential:
    return await push_credentials.set_credential(
        workspace, wanted, app=app, sealer=sealer, providers=Providers(PushHosts()), now=NOW
    )


@pytest.mark.parametrize("provider", PushProvider)
async def test_a_credential_is_kept_sealed_and_only_its_facts_are_shown(
    database: Database, workspace: UUID, provider: PushProvider
) -> None:
    """T-26: nothing in the database says the secret."""
    made = await keep(workspace, secret(provider))
    assert made == PushCredential("default", provider, FACTS[provider], NOW, None, None, None)
    assert await push_credentials.list_credentials(workspace) == [made]
    opened = await push_credentials.open_secret(workspace, app="default", provider=provider, sealer=SEALER)
    assert opened == secret(provider)
    assert "PRIVATE KEY" not in repr(opened)
    owner = await asyncpg.connect(database.owner_url)
    try:
        row = await owner.fetchval("SELECT to_jsonb(c)::text || encode(sealed, 'escape') FROM push_credential c")
    finally:
        await owner.close()
    assert "PRIVATE KEY" not in row
    assert p8().splitlines()[1] not in row


@pytest.mark.parametrize("provider", PushProvider)
async def test_a_credential_is_tried_against_its_provider(workspace: UUID, provider: PushProvider) -> None:
    await keep(workspace, secret(provider))
    async with providers() as (known, fcm, apns):

        async def tried(minutes: int) -> PushCredential:
            return await push_credentials.test_credential(
                workspace,
                app="default",
                provider=provider,
                sealer=SEALER,
                providers=known,
                now=NOW + timedelta(minutes=minutes),
            )

        good = await tried(1)
        # FCM's own token endpoint stands at the same server, and its answer comes first.
        fcm.answer = lambda push: Fcm()(push) if push.path == "/token" else fcm_error(403, "PERMISSION_DENIED")
        apns.answer = lambda push: apns_error(403, "InvalidProviderToken")
        bad = await tried(2)
    assert (good.checked_at, good.check_code, good.check_detail) == (NOW + timedelta(minutes=1), "ACCEPTED", None)
    assert (bad.checked_at, bad.check_code) == (NOW + timedelta(minutes=2), "AUTHENTICATION")
    assert await push_credentials.list_credentials(workspace) == [bad]


async def test_a_new_secret_takes_the_place_of_the_old_and_has_not_been_tried(workspace: UUID) -> None:
    await keep(workspace, secret(PushProvider.APNS))
    async with providers() as (known, _, _):
        await push_credentials.test_credential(
            workspace, app="default", provider=PushProvider.APNS, sealer=SEALER, providers=known, now=NOW
        )
    other = await keep(workspace, replace(ApnsSecret(p8(), "ABC1234567", "TEAM123456", "com.example.other")))
    assert await push_credentials.list_credentials(workspace) == [other]
    assert (other.checked_at, other.facts["bundle_id"]) == (None, "com.example.other")


async def test_apps_have_credentials_of_their_own_and_workspaces_too(workspace: UUID, other_workspace: UUID) -> None:
    await keep(workspace, secret(PushProvider.FCM), app="shop")
    await keep(workspace, secret(PushProvider.FCM), app="club")
    listed = await push_credentials.list_credentials(workspace)
    assert [(one.app, one.provider) for one in listed] == [("club", PushProvider.FCM), ("shop", PushProvider.FCM)]
    assert await push_credentials.list_credentials(other_workspace) == []
    await push_credentials.delete_credential(workspace, app="club", provider=PushProvider.FCM)
    for app, place in (("club", workspace), ("shop", other_workspace)):
        with pytest.raises(CampaignError, match="pushCredentialSet"):
            await push_credentials.open_secret(place, app=app, provider=PushProvider.FCM, sealer=SEALER)
        with pytest.raises(CampaignError, match="pushCredentialSet"):
            await push_credentials.delete_credential(place, app=app, provider=PushProvider.FCM)


async def test_keys_are_changed_one_after_the_other(workspace: UUID) -> None:
    await keep(workspace, secret(PushProvider.APNS))
    both = Sealer({"2027": "n" * 32, "2026": "k" * 32})
    assert await push_credentials.reseal(workspace, sealer=both) == 1
    assert await push_credentials.reseal(workspace, sealer=both) == 0
    newest = Sealer({"2027": "n" * 32})
    opened = await push_credentials.open_secret(workspace, app="default", provider=PushProvider.APNS, sealer=newest)
    assert opened == secret(PushProvider.APNS)
    for sealer, code in ((SEALER, "KEY_UNKNOWN"), (Sealer({"2027": "x" * 32}), "SECRET_DAMAGED")):
        with pytest.raises(CampaignError) as refusal:
            await push_credentials.open_secret(workspace, app="default", provider=PushProvider.APNS, sealer=sealer)
        assert refusal.value.code == code


async def test_a_row_copied_to_somebody_else_opens_nothing(
    database: Database, workspace: UUID, other_workspace: UUID
) -> None:
    await keep(workspace, secret(PushProvider.APNS))
    owner = await asyncpg.connect(database.owner_url)
    try:
        await owner.execute("SET ROLE muster_owner")
        await owner.execute("UPDATE push_credential SET workspace_id = $1", other_workspace)
    finally:
        await owner.close()
    with pytest.raises(CampaignError, match="cannot be opened"):
        await push_credentials.open_secret(other_workspace, app="default", provider=PushProvider.APNS, sealer=SEALER)


@pytest.mark.parametrize(
    ("wanted", "app", "code", "field"),
    [
        (FcmSecret("{}"), "default", "INVALID_SECRET", ("secret",)),
        (ApnsSecret("-----BEGIN PRIVATE KEY-----", "ABC1234567", "TEAM123456", "com.x"), "default", "INVALID_SECRET",
         ("secret",)),
        (FcmSecret("{}"), "My App", "INVALID_APP", ("app",)),
    ],
    ids=["no account", "half a key", "no name"],
)  # fmt: skip
async def test_what_cannot_be_one_is_refused(
    workspace: UUID, wanted: Secret, app: str, code: str, field: tuple[str, ...]
) -> None:
    with pytest.raises(CampaignError) as refusal:
        await keep(workspace, wanted, app=app)
    assert (refusal.value.code, refusal.value.field) == (code, field)
    assert await push_credentials.list_credentials(workspace) == []


async def test_a_command_seals_all_anew_so_that_the_old_key_can_go(workspace: UUID) -> None:
    await keep(workspace, secret(PushProvider.FCM))
    both = Sealer({"2027": "n" * 32, "2026": "k" * 32})
    assert [await resealed_everywhere(both) for _ in range(2)] == [1, 0]
    newest = Sealer({"2027": "n" * 32})
    opened = await push_credentials.open_secret(workspace, app="default", provider=PushProvider.FCM, sealer=newest)
    assert opened == secret(PushProvider.FCM)
