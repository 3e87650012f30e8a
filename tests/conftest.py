"""Real servers for every test: one PostgreSQL and one Valkey a process, and a database of its own for each test."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
import redis.asyncio

from app.embedded import Server, start_postgres, start_valkey
from app.tables import MODEL_MODULES
from db.migrate import migrate
from db.transactions import across_workspaces, close_database, open_database
from profiles.addresses import AddressHasher
from tests.databases import Databases, folder_in_memory

TEMPLATE = "muster_template"
LOGIN_PASSWORD = "of-the-tests"
SERVER = {
    "autovacuum": "off",
    # All of them are looked through for each database that is copied or dropped: 23 ms of processor time, not 38.
    "shared_buffers": "32MB",
}


def pytest_collection_finish() -> None:
    """What was imported to collect the tests is no garbage to look through in each of them: a tenth of their time."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Servers:
    postgres: Server
    valkey: Server


@dataclass(frozen=True)
class Database:
    """A migrated database that this process has open as the application's login."""

    url: str
    """As the login that owns nothing."""
    owner_url: str
    """As the superuser."""
    redis_url: str


def database_url(server_url: str, name: str, *, login: str | None = None) -> str:
    """The address of another database on the same server."""
    parts = urlsplit(server_url)
    netloc = f"{login}:{LOGIN_PASSWORD}@{parts.hostname}:{parts.port}" if login else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{name}"))


async def on_server(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Started once a process; fsync is off, since nobody misses these databases."""
    with (
        folder_in_memory(tmp_path_factory.mktemp("servers")) as folder,
        start_postgres(folder / "postgres", durable=False, settings=SERVER) as postgres,
        start_valkey(folder / "valkey") as valkey,
    ):

        async def make_template() -> None:
            await on_server(postgres.url, f"CREATE DATABASE {TEMPLATE}")
            await migrate(
                owner_url=database_url(postgres.url, TEMPLATE),
                login_url=database_url(postgres.url, TEMPLATE, login="muster"),
                model_modules=MODEL_MODULES,
            )

        asyncio.run(make_template())
        yield Servers(postgres, valkey)


@pytest.fixture(scope="session")
def databases(servers: Servers) -> Iterator[Databases]:
    """Copies of the migrated template."""
    with Databases(servers.postgres.url, TEMPLATE) as made:
        yield made


@pytest.fixture
async def database(servers: Servers, databases: Databases) -> AsyncIterator[Database]:
    """A copy of the migrated template, dropped after the test."""
    name = databases.take()
    url = database_url(servers.postgres.url, name, login="muster")
    flush = redis.asyncio.from_url(servers.valkey.url)
    await flush.flushall()
    await flush.aclose()
    await open_database(url, model_modules=MODEL_MODULES)
    try:
        yield Database(url, database_url(servers.postgres.url, name), servers.valkey.url)
    finally:
        await close_database()
        databases.give_back(name)


@pytest.fixture
def lone_database(database: Database, databases: Databases) -> None:
    """Nothing is copied or dropped beside this test, since that is a transaction too: feeds wait for those that are
    older than what they tell, whichever database they are in.
    """
    databases.rest()


@pytest.fixture
async def workspace(database: Database) -> UUID:
    """A new workspace with its EVERYONE segment."""
    from segments import everyone

    return await everyone.create_workspace(f"test {uuid4().hex}", time_zone="UTC", consent_default="OPT_OUT")


@pytest.fixture
async def other_workspace(database: Database) -> UUID:
    """Another tenant."""
    from segments import everyone

    return await everyone.create_workspace(f"other {uuid4().hex}", time_zone="UTC", consent_default="OPT_OUT")


@pytest.fixture
async def now(database: Database) -> datetime:
    """The database's clock."""
    async with across_workspaces() as connection:
        instant: datetime = await connection.fetchval("SELECT now()")
    return instant


@pytest.fixture(scope="session")
def hasher() -> AddressHasher:
    return AddressHasher(b"an address key of the tests, 32+ bytes")
