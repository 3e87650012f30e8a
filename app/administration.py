"""What people do to one workspace at a terminal: `muster workspace`, `key`, `import` and `verify`.

They use the settings of the environment or, in development, those of the stack that `muster up` runs in the data
folder.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app import logs
from app.settings import MailboxSettings, Settings, load, load_settings
from db.errors import MusterError

if TYPE_CHECKING:
    from profiles.addresses import AddressHasher
    from profiles.imports import ImportReport

# Commands import what they work with when they run, so that `muster --help` answers at once.

workspaces = typer.Typer(
    help="Workspaces, the tenants of an installation.", no_args_is_help=True, rich_markup_mode=None
)
keys = typer.Typer(help="API keys.", no_args_is_help=True, rich_markup_mode=None)
imports = typer.Typer(help="People and events from CSV files.", no_args_is_help=True, rich_markup_mode=None)

WorkspaceName = Annotated[str, typer.Option("--workspace", help="Name of the workspace.")]
Mapped = Annotated[
    list[str],
    typer.Option("--map", metavar="COLUMN=TARGET", help="What a column becomes, e.g. plan=traits.plan; repeat it."),
]
Rejects = Annotated[Path | None, typer.Option(help="Where rejected rows are written. [default: FILE.rejects.csv]")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if a row was rejected.")]
Delimiter = Annotated[str, typer.Option(help="What stands between two columns.")]
CsvFile = Annotated[Path, typer.Argument(metavar="FILE.csv", exists=True, dir_okay=False, readable=True)]


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
    from app.resources import check_address_key
    from profiles.addresses import AddressHasher

    hasher = AddressHasher(settings.address_key.get_secret_value().encode())
    await check_address_key(hasher)
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
    scope: Annotated[list[str], typer.Option(help="read, segments, campaigns, send, admin, ingest; repeat it.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "made at the terminal",
) -> None:
    """Make a key and print it. It is shown this once: only a hash of it is kept."""
    settings = command_settings(os.environ)

    async def create() -> str:
        async with open_database_of(settings):
            return await make_key(await workspace_named(workspace), name=name, kind=kind, scopes=scope)

    typer.echo(asyncio.run(create()))


async def make_key(workspace_id: UUID, *, name: str, kind: str, scopes: list[str]) -> str:
    """The secret of a new key; `kind` in any case. Raises ProfileError."""
    from profiles import keys as stored
    from profiles.models import KeyKind
    from profiles.text import clean_choice

    chosen = clean_choice(KeyKind, kind.upper(), field=("kind",))
    return (await stored.create(workspace_id, name=name, kind=chosen, scopes=scopes))[1]


class Progress:
    """Shows on standard error how far an import is: one line that changes at a terminal, else a line a chunk."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._end = "\r" if sys.stderr.isatty() else "\n"

    def __call__(self, rows: int, accepted: int, rejected: int) -> None:
        text = f"{self._what}: {rows:,} rows, {self.rate(rows):,.0f}/s, {rejected:,} rejected"
        sys.stderr.write(f"{text:<70}{self._end}")
        sys.stderr.flush()

    def rate(self, rows: int) -> float:
        """Rows a second since the start."""
        return rows / max(time.monotonic() - self._began, 1e-6)

    def close(self) -> None:
        if self._end == "\r":
            sys.stderr.write("\n")


@imports.command("profiles")
def import_profiles(
    file: CsvFile,
    workspace: WorkspaceName,
    map_: Mapped,
    delimiter: Delimiter = ",",
    rejects: Rejects = None,
    strict: Strict = False,
) -> None:
    """Add or change people: a row each, found again by external_id, so that a second run changes nothing.

    Targets: external_id (needed), email, phone, time_zone, locale, country, city, traits.KEY, traits.KEY:number,
    traits.KEY:boolean. An empty cell changes nothing.
    """
    settings = command_settings(os.environ)
    mapping, rejects = columns(map_), rejects or reject_file(file)

    async def run() -> "ImportReport":
        from profiles import imports as importing

        async with open_database_of(settings):
            workspace_id = await workspace_named(workspace)
            hasher = await checked_hasher(settings)
            progress = Progress("profiles")
            try:
                return await importing.import_profiles(
                    workspace_id,
                    file,
                    mapping,
                    hasher=hasher,
                    now=now(),
                    progress=progress,
                    rejects=rejects,
                    delimiter=delimiter,
                )
            finally:
                progress.close()

    conclude(asyncio.run(run()), rejects, strict=strict)


@imports.command("events")
def import_events(
    file: CsvFile,
    workspace: WorkspaceName,
    map_: Mapped,
    name: Annotated[str | None, typer.Option(help="Name of all events, where no column is mapped to name.")] = None,
    time_zone: Annotated[str, typer.Option(help="Of times that have no offset.")] = "UTC",
    delimiter: Delimiter = ",",
    rejects: Rejects = None,
    strict: Strict = False,
) -> None:
    """Add what people did: a row each, once only, however often the file is imported within 35 days.

    Targets: external_id or anonymous_id (one is needed), occurred_at (needed), name, message_id, page_path,
    device_type, browser, country, city, session_id, properties.KEY, properties.KEY:number, properties.KEY:boolean.
    """
    settings = command_settings(os.environ)
    mapping, rejects = columns(map_), rejects or reject_file(file)

    async def run() -> "ImportReport":
        from profiles import imports as importing

        async with open_database_of(settings):
            progress = Progress("events")
            try:
                return await importing.import_events(
                    await workspace_named(workspace),
                    file,
                    mapping,
                    now=now(),
                    name=name,
                    time_zone=time_zone,
                    progress=progress,
                    rejects=rejects,
                    delimiter=delimiter,
                )
            finally:
                progress.close()

    conclude(asyncio.run(run()), rejects, strict=strict)


def columns(mapped: list[str]) -> dict[str, str]:
    """Target by column, out of COLUMN=TARGET; a column's name may hold the sign itself. Raises BadParameter."""
    mapping = {}
    for text in mapped:
        column, sign, target = text.rpartition("=")
        if not sign or not column or not target:
            raise typer.BadParameter(f"{text!r} is not COLUMN=TARGET", param_hint="--map")
        if column in mapping:
            raise typer.BadParameter(f"column {column!r} is mapped twice", param_hint="--map")
        mapping[column] = target
    return mapping


def reject_file(file: Path) -> Path:
    """Beside the imported file: people.csv has people.rejects.csv."""
    return file.with_name(f"{file.stem}.rejects.csv")


def conclude(report: "ImportReport", rejects: Path, *, strict: bool) -> None:
    """Say what became of the rows; exit 1 for rejects if that is asked for."""
    typer.echo(
        f"{report.rows:,} rows: {report.created:,} new, {report.updated:,} changed, {report.repeated:,} known already, "
        f"{report.rejected:,} rejected"
    )
    if report.rejected:
        typer.echo(f"Rejected rows, with line and reason: {rejects}")
        if strict:
            sys.exit(1)


def verify(
    workspace: Annotated[str | None, typer.Option("--workspace", help="Only this one; all if left out.")] = None,
) -> None:
    """Compare what is kept twice: bitmaps with interval rows, stored counts with the ledger. Exit 1 if they differ."""
    settings = command_settings(os.environ)
    wrong = asyncio.run(differences(settings, workspace))
    for sentence in wrong:
        typer.echo(sentence)
    if wrong:
        sys.exit(1)
    typer.echo("Bitmaps and intervals agree, and so do counts and ledger.")


async def differences(settings: Settings, workspace: str | None) -> list[str]:
    """A sentence for each segment or dispatch that disagrees with itself."""
    from campaigns import counts
    from profiles import workspaces as stored
    from segments import membership

    wrong = []
    async with open_database_of(settings):
        for workspace_id in [await workspace_named(workspace)] if workspace else await stored.list_ids():
            wrong += [
                f"workspace {workspace_id}, segment {found.segment_id}: {found.only_in_bitmap} only in the bitmap, "
                f"{found.only_in_intervals} only in the intervals; size {found.size}, members {found.members}"
                for found in await membership.verify(workspace_id)
            ]
            wrong += [f"workspace {workspace_id}, {sentence}" for sentence in await counts.verify(workspace_id)]
    return wrong


# --- the demo's data ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """A workspace with the purchases of CDNOW, and keys to it."""

    workspace: str
    secret_key: str
    publishable_key: str
    customers: list[str]
    """External ids of some customers."""


async def load_cdnow(settings: Settings, package_folder: Path, folder: Path) -> Loaded:
    """Make a workspace and import CDNOW into it, with the functions that the commands use.

    `package_folder` is where lifetimes was installed; CSV files are written to `folder`.
    """
    from app import cdnow
    from profiles import imports as importing
    from segments import everyone

    began = now()
    files = cdnow.write_csv(package_folder, folder, now=began)
    workspace = f"demo-{began:%Y%m%d-%H%M%S}"
    async with open_database_of(settings):
        workspace_id = await everyone.create_workspace(workspace, time_zone="UTC")
        typer.echo(f"workspace {workspace}")
        hasher = await checked_hasher(settings)
        for what in ("profiles", "events"):
            progress = Progress(what)
            if what == "profiles":
                report = await importing.import_profiles(
                    workspace_id, files.profiles, cdnow.PROFILE_MAPPING, hasher=hasher, now=began, progress=progress
                )
            else:
                report = await importing.import_events(
                    workspace_id, files.events, cdnow.EVENT_MAPPING, now=began, progress=progress
                )
            progress.close()
            typer.echo(
                f"{report.created:,} {what} imported at {progress.rate(report.rows):,.0f} rows/s, "
                f"{report.rejected:,} rejected"
            )
        secret = await make_key(
            workspace_id,
            name="demo, console",
            kind="secret",
            scopes=["read", "segments", "campaigns", "send", "admin", "ingest"],
        )
        publishable = await make_key(workspace_id, name="demo, app", kind="publishable", scopes=["ingest"])
    with files.profiles.open(encoding="utf-8") as rows:
        next(rows)
        customers = [row.split(",", 1)[0] for row, _ in zip(rows, range(100), strict=False)]
    return Loaded(workspace, secret, publishable, customers)
