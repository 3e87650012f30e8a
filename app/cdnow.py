"""CDNOW: 69,659 real purchases of 23,570 customers, as CSV files that `muster import` reads.

The data set (Fader and Hardie, purchases from January 1997 to June 1998) comes as a text file inside the package
lifetimes 0.11.3. Two things are ours and made up: the dates are shifted by whole days so that the last purchase was
yesterday, and every customer has an address `customer-<id>@example.com`, a domain reserved for examples (RFC 2606).
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

from app.administration import checked_hasher, make_key, now, open_database_of
from app.imports import Progress
from app.settings import Settings

FILE = Path("lifetimes") / "datasets" / "CDNOW_master.txt"
PROFILE_MAPPING = {"customer": "external_id", "email": "email", "cohort": "traits.cohort"}
EVENT_MAPPING = {
    "customer": "external_id",
    "when": "occurred_at",
    "what": "name",
    "cds": "properties.quantity:number",
    "dollars": "properties.value:number",
    "id": "message_id",
}


@dataclass(frozen=True, slots=True)
class Purchase:
    customer: str
    day: datetime
    cds: int
    dollars: str


@dataclass(frozen=True, slots=True)
class Files:
    """Where the CSV files are, and how many rows they have."""

    profiles: Path
    events: Path
    customers: int
    purchases: int


def read(package_folder: Path) -> Iterator[Purchase]:
    """The purchases in the order of the file: customer by customer, each in order of time.

    `package_folder` is where lifetimes was installed; it is not imported. Raises FileNotFoundError.
    """
    with (package_folder / FILE).open(encoding="ascii") as lines:
        next(lines)  # the heading
        for line in lines:
            customer, day, cds, dollars = line.split()
            yield Purchase(customer, datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC), int(cds), dollars)


def write_csv(package_folder: Path, into: Path, *, now: datetime) -> Files:
    """Write profiles.csv and purchases.csv, shifted so that the last purchase was yesterday at noon UTC."""
    purchases = list(read(package_folder))
    last = max(p.day for p in purchases)
    yesterday = now.astimezone(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
    shift = yesterday - last
    files = Files(
        profiles=into / "profiles.csv",
        events=into / "purchases.csv",
        customers=len({p.customer for p in purchases}),
        purchases=len(purchases),
    )
    with files.profiles.open("w", newline="", encoding="utf-8") as target:
        rows = csv.writer(target)
        rows.writerow(PROFILE_MAPPING)
        cohorts: dict[str, str] = {}
        for p in purchases:
            cohorts.setdefault(p.customer, f"{(p.day + shift):%Y-%m}")
        rows.writerows([one, f"customer-{one}@example.com", cohort] for one, cohort in cohorts.items())
    with files.events.open("w", newline="", encoding="utf-8") as target:
        rows = csv.writer(target)
        rows.writerow(EVENT_MAPPING)
        for place, p in enumerate(purchases):
            rows.writerow([p.customer, (p.day + shift).isoformat(), "purchase", p.cds, p.dollars, f"cdnow-{place}"])
    return files


@dataclass(frozen=True, slots=True)
class Loaded:
    """A workspace with the purchases of CDNOW, and keys to it."""

    workspace: str
    secret_key: str
    publishable_key: str
    customers: list[str]
    """External ids of some customers."""


async def load(settings: Settings, package_folder: Path, folder: Path) -> Loaded:
    """Make a workspace and import CDNOW into it, with the functions that the commands use.

    `package_folder` is where lifetimes was installed; CSV files are written to `folder`.
    """
    from profiles import imports as importing
    from segments import everyone

    began = now()
    files = write_csv(package_folder, folder, now=began)
    workspace = f"demo-{began:%Y%m%d-%H%M%S}"
    async with open_database_of(settings):
        workspace_id = await everyone.create_workspace(workspace, time_zone="UTC")
        typer.echo(f"workspace {workspace}")
        hasher = await checked_hasher(settings)
        for what in ("profiles", "events"):
            progress = Progress(what)
            if what == "profiles":
                report = await importing.import_profiles(
                    workspace_id, files.profiles, PROFILE_MAPPING, hasher=hasher, now=began, progress=progress
                )
            else:
                report = await importing.import_events(
                    workspace_id, files.events, EVENT_MAPPING, now=began, progress=progress
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
