"""What FCM and APNs know an app by: kept sealed, tried on request, and never shown again."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import orjson

from campaigns.errors import CampaignError
from campaigns.sealing import Sealed, Sealer
from channels.base import Outcome, OutcomeKind, PushProvider
from db.transactions import Connection, transaction
from profiles.devices import APP

MOST_APPS = 50
"""Credentials of one workspace."""
LONGEST_SECRET = 8_192
"""Letters of a secret; Google's files have 2,400. Reading a made-up key of 25,000 took 3 s, of ten times as much longer
than anybody waits."""


@dataclass(frozen=True, slots=True)
class FcmSecret:
    """A Firebase service account."""

    service_account: str = field(repr=False)
    """The JSON file whole."""


@dataclass(frozen=True, slots=True)
class ApnsSecret:
    """A key for APNs' provider tokens, and the app that it is used for."""

    p8: str = field(repr=False)
    """The file whole."""
    key_id: str
    team_id: str
    bundle_id: str
    sandbox: bool = False
    """For builds that Xcode installs; production is for TestFlight and the App Store."""


Secret = FcmSecret | ApnsSecret


@dataclass(frozen=True, slots=True)
class PushCredential:
    """What people may see of a credential."""

    app: str
    provider: PushProvider
    facts: Mapping[str, Any]
    """Which account, project, key, team and bundle it is."""
    set_at: datetime
    checked_at: datetime | None
    """When the provider was last asked about it; None: not since it was set."""
    check_code: str | None
    """ACCEPTED, or what is wrong."""
    check_detail: str | None


class PushProviders(Protocol):
    """Who knows FCM and APNs."""

    def facts(self, secret: Secret) -> dict[str, Any]:
        """What people may see of a secret. Raises ValueError, which says what to give instead and repeats nothing."""

    async def check(self, secret: Secret) -> Outcome:
        """What the provider says of the secret; ACCEPTED when notifications could be sent with it. Sends none."""


COLUMNS = "app, provider, facts, set_at, checked_at, check_code, check_detail"
SET = f"""
INSERT INTO push_credential AS c (workspace_id, app, provider, facts, sealed, key_id, set_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (workspace_id, app, provider) DO UPDATE SET facts = excluded.facts, sealed = excluded.sealed,
  key_id = excluded.key_id, set_at = excluded.set_at, checked_at = NULL, check_code = NULL, check_detail = NULL
RETURNING {COLUMNS}
"""
COUNT_OTHERS = "SELECT count(*) FROM push_credential WHERE workspace_id = $1 AND (app, provider) <> ($2, $3)"
OF_WORKSPACE = f"SELECT {COLUMNS} FROM push_credential WHERE workspace_id = $1 ORDER BY app, provider LIMIT $2"
SEALED = "SELECT sealed, key_id FROM push_credential WHERE workspace_id = $1 AND app = $2 AND provider = $3"
NOTE_CHECK = f"""
UPDATE push_credential SET checked_at = $5, check_code = $6, check_detail = $7
WHERE workspace_id = $1 AND app = $2 AND provider = $3 AND sealed = $4
RETURNING {COLUMNS}
"""
DELETE = "DELETE FROM push_credential WHERE workspace_id = $1 AND app = $2 AND provider = $3"
OTHERWISE_SEALED = """
SELECT app, provider, sealed, key_id FROM push_credential WHERE workspace_id = $1 AND key_id <> $2 FOR UPDATE
"""
RESEAL = "UPDATE push_credential SET sealed = $4, key_id = $5 WHERE workspace_id = $1 AND app = $2 AND provider = $3"


async def set_credential(
    workspace_id: UUID, secret: Secret, *, app: str, sealer: Sealer, providers: PushProviders, now: datetime
) -> PushCredential:
    """The credential, kept; it takes the place of one of the same app and provider. Raises CampaignError."""
    if not APP.fullmatch(app):
        message = "Name the app by small letters, digits, dots, hyphens and underscores, at most 63."
        raise CampaignError("INVALID_APP", message, field=("app",))
    text = secret.service_account if isinstance(secret, FcmSecret) else secret.p8
    if len(text) > LONGEST_SECRET:
        message = f"Give the file as the provider made it; at most {LONGEST_SECRET:,} letters are taken."
        raise CampaignError("TOO_LONG", message, field=("secret",))
    try:
        # In a thread: reading a key takes some 10 ms, and the first time Google's libraries take 0.6 s to import.
        facts = await asyncio.to_thread(providers.facts, secret)
    except ValueError as refusal:
        sentence = str(refusal)
        raise CampaignError("INVALID_SECRET", f"{sentence[:1].upper()}{sentence[1:]}.", field=("secret",)) from None
    provider = provider_of(secret)
    sealed = sealer.seal(written(secret), where=place(workspace_id, app, provider))
    async with transaction(workspace_id) as connection:
        if await connection.fetchval(COUNT_OTHERS, workspace_id, app, provider.value) >= MOST_APPS:
            raise CampaignError("TOO_MANY", f"At most {MOST_APPS} credentials can be kept; delete one.", field=("app",))
        row = await connection.fetchrow(SET, workspace_id, app, provider.value, facts, sealed.data, sealed.key_id, now)
    return credential_of(row)


async def list_credentials(workspace_id: UUID) -> list[PushCredential]:
    """All of the workspace's, by app and provider."""
    async with transaction(workspace_id) as connection:
        return [credential_of(row) for row in await connection.fetch(OF_WORKSPACE, workspace_id, MOST_APPS)]


async def test_credential(
    workspace_id: UUID, *, app: str, provider: PushProvider, sealer: Sealer, providers: PushProviders, now: datetime
) -> PushCredential:
    """The credential with what the provider says of it now. Raises CampaignError when there is none."""
    async with transaction(workspace_id) as connection:
        sealed = await find_sealed(connection, workspace_id, app, provider)
    outcome = await providers.check(opened(sealed, sealer, workspace_id, app, provider))
    code = "ACCEPTED" if outcome.kind is OutcomeKind.ACCEPTED else outcome.code
    async with transaction(workspace_id) as connection:
        row = await connection.fetchrow(
            NOTE_CHECK, workspace_id, app, provider.value, sealed.data, now, code, outcome.detail or None
        )
    if row is None:
        message = "The credential was changed while it was tested. Test it again."
        raise CampaignError("CHANGED_MEANWHILE", message, field=("app",))
    return credential_of(row)


async def open_secret(workspace_id: UUID, *, app: str, provider: PushProvider, sealer: Sealer) -> Secret:
    """What to send with. Raises CampaignError when there is no such credential, or it cannot be opened."""
    async with transaction(workspace_id) as connection:
        sealed = await find_sealed(connection, workspace_id, app, provider)
    return opened(sealed, sealer, workspace_id, app, provider)


async def delete_credential(workspace_id: UUID, *, app: str, provider: PushProvider) -> None:
    """Forget it. Raises CampaignError when there is none."""
    async with transaction(workspace_id) as connection:
        if await connection.execute(DELETE, workspace_id, app, provider.value) == "DELETE 0":
            raise NoCredential


async def reseal(workspace_id: UUID, *, sealer: Sealer) -> int:
    """How many credentials were sealed anew with the newest key; afterwards the older keys can go."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(OTHERWISE_SEALED, workspace_id, sealer.newest)
        for row in rows:  # at most MOST_APPS
            where = place(workspace_id, row["app"], PushProvider(row["provider"]))
            sealed = sealer.seal(sealer.open(Sealed(row["key_id"], row["sealed"]), where=where), where=where)
            await connection.execute(RESEAL, workspace_id, row["app"], row["provider"], sealed.data, sealed.key_id)
    return len(rows)


class NoCredential(CampaignError):
    def __init__(self) -> None:
        message = "This app has no credential for that provider; set one with pushCredentialSet."
        super().__init__("NOT_FOUND", message, field=("app",))


async def find_sealed(connection: Connection, workspace_id: UUID, app: str, provider: PushProvider) -> Sealed:
    """The sealed secret. Raises NoCredential."""
    row = await connection.fetchrow(SEALED, workspace_id, app, provider.value)
    if row is None:
        raise NoCredential
    return Sealed(row["key_id"], row["sealed"])


def opened(sealed: Sealed, sealer: Sealer, workspace_id: UUID, app: str, provider: PushProvider) -> Secret:
    kept = orjson.loads(sealer.open(sealed, where=place(workspace_id, app, provider)))
    return FcmSecret(**kept) if provider is PushProvider.FCM else ApnsSecret(**kept)


def provider_of(secret: Secret) -> PushProvider:
    return PushProvider.FCM if isinstance(secret, FcmSecret) else PushProvider.APNS


def written(secret: Secret) -> str:
    return orjson.dumps(asdict(secret)).decode()


def place(workspace_id: UUID, app: str, provider: PushProvider) -> str:
    """Whose a sealed secret is."""
    return f"push_credential/{workspace_id}/{app}/{provider}"


def credential_of(row: asyncpg.Record) -> PushCredential:
    return PushCredential(**{**row, "provider": PushProvider(row["provider"])})
