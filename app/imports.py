"""People and events from CSV files at a terminal: `muster import`."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.administration import WorkspaceName, checked_hasher, command_settings, now, open_database_of, workspace_named

if TYPE_CHECKING:
    from profiles.imports import ImportReport

imports = typer.Typer(help="People and events from CSV files.", no_args_is_help=True, rich_markup_mode=None)

Mapped = Annotated[
    list[str],
    typer.Option("--map", metavar="COLUMN=TARGET", help="What a column becomes, e.g. plan=traits.plan; repeat it."),
]
Rejects = Annotated[Path | None, typer.Option(help="Where rejected rows are written. [default: FILE.rejects.csv]")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if a row was rejected.")]
Delimiter = Annotated[str, typer.Option(help="What stands between two columns.")]
CsvFile = Annotated[Path, typer.Argument(metavar="FILE.csv", exists=True, dir_okay=False, readable=True)]


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
