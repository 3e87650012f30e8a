"""Where the benchmarks' people are kept: one database a size, on a durable server in a folder that outlives the run.

`python -m benchmarks.databases --profiles 1000000` makes one ahead of time (a million takes some minutes). The folder
is `.data/bench`, or MUSTER_BENCH_DIR; MUSTER_BENCH_SERVER is the superuser's URL of a server that already runs.
"""

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg

from app.embedded import start_postgres
from app.stack import with_database, with_login
from app.tables import MODEL_MODULES
from benchmarks import people
from db.migrate import migrate
from db.transactions import close_database, open_database
from segments import everyone

LOGIN = "muster_bench"
PASSWORD = "muster_bench"  # the server listens on 127.0.0.1 and its data are made up
SIZES = (100_000, 300_000, 1_000_000)

STAMP = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1"


@dataclass(frozen=True, slots=True)
class Bench:
    """A database of made-up people."""

    owner_url: str
    """The superuser's."""
    login_url: str
    """What the processes of Muster use."""
    workspace_id: UUID
    profiles: int
    events: int
    now: datetime
    """The instant the data end at, and windows with them: kept with the data, so that no window drifts."""


def folder() -> Path:
    """Where the server's data are."""
    chosen = os.environ.get("MUSTER_BENCH_DIR")
    return Path(chosen) if chosen else Path(__file__).resolve().parent.parent / ".data" / "bench"


@contextmanager
def running_server() -> Iterator[str]:
    """The superuser's URL of the server, for the length of the block. Raises CannotStart."""
    given = os.environ.get("MUSTER_BENCH_SERVER")
    if given:
        yield given
        return
    place = folder()
    # PostgreSQL may have to run as nobody, who must pass here.
    for path in (place.parent, place):
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
    with start_postgres(place / "postgres", settings=server_settings()) as server:
        yield server.url


def server_settings() -> dict[str, str]:
    """As a server of this size would be run that has the machine to itself: a quarter of its memory for shared buffers,
    8 GB at most, and checkpoints not by the minute. Durability is as always."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "shared_buffers": f"{min(memory // 4, 8192)}MB",
        "effective_cache_size": f"{memory * 3 // 4}MB",
        "max_wal_size": "8GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
    }


async def prepare(server_url: str, *, profiles: int) -> Bench:
    """The database with so many people, made if it is not there and brought to the newest schema if it is."""
    name = f"bench_{profiles}"
    owner_url = with_database(server_url, name)
    login_url = with_login(owner_url, LOGIN, PASSWORD)
    server = await asyncpg.connect(server_url)
    try:
        stamp = json.loads(await server.fetchval(STAMP, name) or "{}")
        if stamp.get("version") != people.DATA_VERSION:
            await server.execute(f"DROP DATABASE IF EXISTS {name} (FORCE)")
            await server.execute(f"CREATE DATABASE {name}")
            stamp = {}
        await migrate(owner_url=owner_url, login_url=login_url, model_modules=MODEL_MODULES)
        if not stamp:
            # A whole day, so that the months of a run tomorrow are those of today.
            now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            workspace_id = await make(owner_url, login_url, profiles=profiles, now=now)
            stamp = {"version": people.DATA_VERSION, "now": now.isoformat(), "workspace_id": str(workspace_id)}
            await server.execute(f"COMMENT ON DATABASE {name} IS '{json.dumps(stamp)}'")
    finally:
        await server.close()
    return Bench(
        owner_url=owner_url,
        login_url=login_url,
        workspace_id=UUID(stamp["workspace_id"]),
        profiles=profiles,
        events=profiles * people.EVENTS_A_PROFILE,
        now=datetime.fromisoformat(stamp["now"]),
    )


async def make(owner_url: str, login_url: str, *, profiles: int, now: datetime) -> UUID:
    """Fill an empty database; the id of its workspace."""
    async with pool(login_url):
        workspace_id = await everyone.create_workspace(f"bench {profiles}", time_zone="UTC")
    owner = await asyncpg.connect(owner_url)
    try:
        await people.load(owner, workspace_id=workspace_id, profiles=profiles, now=now)
    finally:
        await owner.close()
    return workspace_id


@asynccontextmanager
async def pool(login_url: str) -> AsyncIterator[None]:
    """This process's pool, as API and worker have one."""
    await open_database(login_url, model_modules=MODEL_MODULES)
    try:
        yield
    finally:
        await close_database()


def main() -> None:
    """Make or find the databases asked for and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, action="append", help="one size; all of them if left out")
    chosen = parser.parse_args().profiles or list(SIZES)
    with running_server() as url:
        for profiles in chosen:
            print(asyncio.run(prepare(url, profiles=profiles)))


if __name__ == "__main__":
    main()
