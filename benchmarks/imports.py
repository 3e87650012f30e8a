"""Rows a second of both CSV imports, on a durable PostgreSQL of its own: `make bench-imports`.

Writes 200,000 made-up people and 200,000 events of them, imports both twice (the second time adds nothing), and
prints one JSON line last: profiles_per_s, events_per_s, repeated_per_s, rows, fsync.
"""

import asyncio
import csv
import json
import random
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.embedded import start_postgres
from app.tables import MODEL_MODULES
from db.migrate import migrate
from db.transactions import close_database, open_database
from profiles import imports
from profiles.addresses import AddressHasher
from segments import everyone

ROWS = 200_000
PROFILES = {"customer": "external_id", "email": "email", "plan": "traits.plan"}
EVENTS = {
    "customer": "external_id",
    "when": "occurred_at",
    "what": "name",
    "value": "properties.value:number",
    "id": "message_id",
}


def write_files(folder: Path, now: datetime) -> tuple[Path, Path]:
    """Two CSV files of ROWS rows each, the same at every run but for the date."""
    draw = random.Random(1)
    people, events = folder / "people.csv", folder / "events.csv"
    with people.open("w", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(PROFILES)
        rows.writerows([f"c{n}", f"c{n}@example.com", draw.choice(("free", "premium"))] for n in range(ROWS))
    with events.open("w", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(EVENTS)
        for n in range(ROWS):
            at = now - timedelta(minutes=draw.randrange(365 * 24 * 60))
            rows.writerow([f"c{draw.randrange(ROWS)}", at.isoformat(), "purchase", draw.randrange(100), f"e{n}"])
    return people, events


async def main() -> None:
    now = datetime.now(UTC)
    hasher = AddressHasher(b"an address key of the benchmark, 32+ bytes")
    with tempfile.TemporaryDirectory() as scratch:
        people, events = write_files(Path(scratch), now)
        with start_postgres(Path(scratch) / "postgres") as server:
            connection = await asyncpg.connect(server.url)
            await connection.execute("CREATE DATABASE muster")
            fsync = await connection.fetchval("SHOW fsync")
            await connection.close()
            parts = urlsplit(server.url)
            owner_url = urlunsplit(parts._replace(path="/muster"))
            login_url = urlunsplit(parts._replace(netloc=f"muster:bench@{parts.hostname}:{parts.port}", path="/muster"))
            await migrate(owner_url=owner_url, login_url=login_url, model_modules=MODEL_MODULES)
            await open_database(login_url, model_modules=MODEL_MODULES)
            try:
                workspace = await everyone.create_workspace("bench", time_zone="UTC")
                seconds = []
                for _ in range(2):
                    began = perf_counter()
                    await imports.import_profiles(workspace, people, PROFILES, hasher=hasher, now=now)
                    between = perf_counter()
                    await imports.import_events(workspace, events, EVENTS, now=now)
                    seconds.append((between - began, perf_counter() - between))
            finally:
                await close_database()
    (profiles_s, events_s), again = seconds
    print(
        json.dumps(
            {
                "profiles_per_s": round(ROWS / profiles_s),
                "events_per_s": round(ROWS / events_s),
                "repeated_per_s": round(2 * ROWS / sum(again)),
                "rows": ROWS,
                "fsync": fsync,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
