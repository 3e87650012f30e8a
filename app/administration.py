"""What people do to workspaces at a terminal: `muster workspace`, `key`, `verify` and `reseal`.

They use the settings of the environment or, in development, those of the stack that `muster up` runs in the data
folder.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app import logs
from app.settings import MailboxSettings, Settings, load, load_settings
from db.errors import MusterError

if TYPE_CHECKING:
    from campaigns.sealing import Sealer
    from profiles.addresses import AddressHasher
    from profiles.models import ApiKey

# Commands import what they work with when they run, so that `muster --help` answers at once.

workspaces = typer.Typer(
    help="Workspaces, the tenants of an installation.", no_args_is_help=True, rich_markup_mode=None
)
keys = typer.Typer(help="API keys.", no_args_is_help=True, rich_markup_mode=None)

WorkspaceName = Annotated[str, typer.Option("--workspace", help="Name of the workspace.")]


def key_id(text: str) -> UUID:
    """The id of a key, also as the API and its audit log write it. Raises ValueError."""
    return UUID(text.removeprefix("key_"))


KeyId = Annotated[UUID, typer.Argument(parser=key_id, metavar="ID", help="As `key list` or the API shows it.")]


class NoSuchWorkspace(MusterError):
    """A name that no workspace has."""


def command_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of a command: of `environ`, or of the running stack where that names no database.

    Raises SettingsError.
    """
    from app.stack import running_settings

    place = load(MailboxSettings, environ)
    if not environ.get("DATABASE_URL") and not place.in_production:
        environ = {**running_settings(place.data_folder), **{name: text for name, text in environ.items() if text}}
    settings = load_settings(environ)
    logs.configure(form=settings.log_format, level="WARNING")
    return settings


@asynccontextmanager
async def open_database_of(settings: Settings) -> AsyncIterator[None]:
    """The database of `settings`, open in this process for the length of the block."""
    from app.tables import MODEL_MODULES
    from db.transactions import close_database, open_database

    await open_database(settings.database_url, model_modules=MODEL_MODULES, connections=2)
    try:
        yield
    finally:
        await close_database()


async def workspace_named(name: str) -> UUID:
    """The id of a workspace. Raises NoSuchWorkspace."""
    from profiles import workspaces as stored

    found = await stored.find_named(name)
    if found is None:
        raise NoSuchWorkspace(
            "NOT_FOUND",
            f"There is no workspace {name!r}; make it with: muster workspace create NAME",
            field=("workspace",),
        )
    return found


async def checked_hasher(settings: Settings) -> "AddressHasher":
    """What hashes addresses here. Raises MusterError when it is not the key of before: what it writes would be lost."""
    from app.installation import check_address_key
    from db.transactions import across_workspaces
    from profiles.addresses import AddressHasher

    hasher = AddressHasher(settings.address_key.get_secret_value().encode())
    async with across_workspaces() as connection:
        await check_address_key(connection, hasher)
    return hasher


def now() -> datetime:
    return datetime.now(UTC)


@workspaces.command("create")
def create_workspace(
    name: str,
    time_zone: Annotated[str, typer.Option(help="IANA time zone, e.g. Europe/Berlin.")] = "UTC",
    consent: Annotated[str, typer.Option(help="What holds for people who never said: OPT_OUT or OPT_IN.")] = "OPT_OUT",
) -> None:
    """Make a workspace and print its id. OPT_OUT mails people until they object, OPT_IN only after they agreed."""
    settings = command_settings(os.environ)

    async def create() -> UUID:
        from segments import everyone

        async with open_database_of(settings):
            return await everyone.create_workspace(name, time_zone=time_zone, consent_default=consent)

    typer.echo(asyncio.run(create()))


@keys.command("create")
def create_key(
    workspace: WorkspaceName,
    kind: Annotated[str, typer.Option(help="secret (servers, people) or publishable (apps, web pages).")],
    role: Annotated[str | None, typer.Option(help="VIEWER, MARKETER, SENDER or ADMIN; or name scopes.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, segments, campaigns, send, admin, ingest; repeat it.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "made at the terminal",
    days: Annotated[int | None, typer.Option(help="How many days it opens; no end if left out.", min=1)] = None,
) -> None:
    """Make a key with a role or with scopes and print it. It is shown this once: only a hash of it is kept."""
    settings = command_settings(os.environ)
    expires_at = now() + timedelta(days=days) if days else None

    async def create() -> str:
        async with open_database_of(settings):
            from profiles.keys import scopes_wanted

            scopes = scopes_wanted(role and role.upper(), scope or ())
            workspace_id = await workspace_named(workspace)
            return await make_key(workspace_id, name=name, kind=kind, scopes=scopes, expires_at=expires_at)

    typer.echo(asyncio.run(create()))


@keys.command("list")
def list_keys(workspace: WorkspaceName) -> None:
    """Show the keys of a workspace, newest first: id, beginning, kind, state, role or scopes, last use and name."""
    settings = command_settings(os.environ)
    from profiles.keys import role_of

    async def found() -> "list[ApiKey]":
        from profiles import keys as stored

        async with open_database_of(settings):
            return await stored.list_keys(await workspace_named(workspace))

    at = now()
    for key in asyncio.run(found()):
        used = f"used {key.last_used_at:%Y-%m-%d %H:%M}Z" if key.last_used_at else "never used"
        typer.echo(
            f"{key.id}  {key.prefix}  {key.kind.lower():11}  {state_of(key, at):29}  "
            f"{role_of(key.scopes) or ','.join(key.scopes)}  {used}  {key.name}"
        )


def state_of(key: "ApiKey", at: datetime) -> str:
    """Whether a key opens anything at that instant, in a few words."""
    if key.revoked_at:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}Z"
    if key.expires_at is None:
        return "live"
    return f"{'live until' if key.expires_at > at else 'expired'} {key.expires_at:%Y-%m-%d %H:%M}Z"


@keys.command("rotate")
def rotate_key(
    id: KeyId,
    workspace: WorkspaceName,
    hours: Annotated[float, typer.Option(help="How long the old key still opens, 0 to 720 hours.", min=0)] = 24.0,
    days: Annotated[int | None, typer.Option(help="How many days the new one opens.", min=1)] = None,
) -> None:
    """Make a key in another's place, and print it. Both open the same until the old one ends; give the new one to
    whoever uses it, and see in `key list` whether anybody still uses the old one."""
    settings = command_settings(os.environ)
    expires_at = now() + timedelta(days=days) if days else None

    async def rotate() -> "tuple[ApiKey, ApiKey, str]":
        from profiles import keys as stored

        async with open_database_of(settings):
            return await stored.rotate(
                await workspace_named(workspace),
                id,
                now=now(),
                overlap=timedelta(hours=hours),
                expires_at=expires_at,
            )

    _, old, secret = asyncio.run(rotate())
    typer.echo(secret)
    typer.echo(f"{old.prefix} {state_of(old, now())}", err=True)


@keys.command("revoke")
def revoke_key(id: KeyId, workspace: WorkspaceName) -> None:
    """End a key: within seconds it opens nothing any more, for good; the last one with the scope admin too. Revoking it
    again changes nothing."""
    settings = command_settings(os.environ)

    async def revoke() -> "ApiKey":
        from profiles import keys as stored

        async with open_database_of(settings):
            return await stored.revoke(await workspace_named(workspace), id, now=now())

    key = asyncio.run(revoke())
    typer.echo(f"{key.prefix} {state_of(key, now())}")


async def make_key(
    workspace_id: UUID, *, name: str, kind: str, scopes: list[str], expires_at: datetime | None = None
) -> str:
    """The secret of a new key; `kind` in any case. Raises ProfileError."""
    from profiles import keys as stored
    from profiles.models import KeyKind
    from profiles.text import clean_choice

    chosen = clean_choice(KeyKind, kind.upper(), field=("kind",))
    return (await stored.create(workspace_id, name=name, kind=chosen, scopes=scopes, expires_at=expires_at))[1]


def verify(
    workspace: Annotated[str | None, typer.Option("--workspace", help="Only this one; all if left out.")] = None,
) -> None:
    """Compare what is kept twice: bitmaps with interval rows, stored counts with the ledger and
    with what was told of banners. Exit 1 if they differ."""
    settings = command_settings(os.environ)
    wrong = asyncio.run(differences(settings, workspace))
    for sentence in wrong:
        typer.echo(sentence)
    if wrong:
        sys.exit(1)
    typer.echo("Bitmaps and intervals agree, and so do counts and ledger.")


async def differences(settings: Settings, workspace: str | None) -> list[str]:
    """A sentence for each segment, dispatch or banner that disagrees with itself."""
    from campaigns import banner_counts, banner_retention, tallies
    from profiles import workspaces as stored
    from segments import membership

    wrong = []
    since = banner_retention.complete_since(settings.banner_event_months, now=datetime.now(UTC))
    async with open_database_of(settings):
        for workspace_id in [await workspace_named(workspace)] if workspace else await stored.list_ids():
            wrong += [
                f"workspace {workspace_id}, segment {found.segment_id}: {found.only_in_bitmap} only in the bitmap, "
                f"{found.only_in_intervals} only in the intervals; size {found.size}, members {found.members}"
                for found in await membership.verify(workspace_id)
            ]
            wrong += [f"workspace {workspace_id}, {sentence}" for sentence in await tallies.verify(workspace_id)]
            told = await banner_counts.verify(workspace_id, since=since)
            wrong += [f"workspace {workspace_id}, {sentence}" for sentence in told]
    return wrong


def reseal() -> None:
    """Seal every push credential with the first of MUSTER_SECRET_KEYS; the other keys can go afterwards."""
    from app.resources import sealer_of

    settings = command_settings(os.environ)

    async def work() -> int:
        async with open_database_of(settings):
            return await resealed_everywhere(sealer_of(settings))

    resealed = asyncio.run(work())
    newest = next(iter(settings.secret_keys))
    typer.echo(f"{resealed:,} credentials were sealed anew; all are sealed with the key {newest} now.")


async def resealed_everywhere(sealer: "Sealer") -> int:
    """How many credentials of all workspaces had another key than the newest, with which they are sealed now.

    Raises CampaignError for one that cannot be opened.
    """
    from campaigns import push_credentials
    from profiles import workspaces as stored

    return sum([await push_credentials.reseal(one, sealer=sealer) for one in await stored.list_ids()])
