"""Real servers for every test: one PostgreSQL and one Valkey a process, and a database of its own for each test."""

import asyncio
import gc
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
import redis
from hypothesis.internal.conjecture import engine
from tortoise.apps import Apps
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

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

# Tests of ten seconds and more, by what they take.
LONG = (
    "tests/segments/test_oracle.py",
    "tests/campaigns/test_ledger_machine.py",
    "tests/app/test_api_isolation.py",
    "tests/app/test_api_fuzzing.py",
    "tests/campaigns/test_fuzzed_templates.py",
    "tests/app/test_api_server.py",
    "tests/app/test_api_subscriptions.py::test_both_ways_work_on_a_real_server",
)

# Modules of which one process runs all tests, since it starts servers for them that they share.
TOGETHER = (
    (
        "tests/blast/test_kill_people.py",
        "tests/blast/test_kill_pushes.py",
        "tests/blast/test_kill_servers.py",
        "tests/blast/test_kill_workers.py",
    ),
    ("tests/blast/test_live_segments.py", "tests/blast/test_whole_path.py"),
    ("tests/app/test_cli.py", "tests/app/test_stack.py"),
    ("tests/app/test_embedded.py",),
)


class Together(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Each test goes to the process that is free next, and those of TOGETHER to one. pytest-xdist's own groups are
    lost in silence: it notes them in a field that pytest has not read since 9.2 (Node._nodeid)."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return next((modules[0] for modules in TOGETHER if module in modules), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    # By the number of their tests, which says nothing of how long they take.
    config.option.loadscopereorder = False
    return Together(config, log)


@pytest.fixture(scope="session", autouse=True)
def short_shrinking() -> Iterator[None]:
    """Whoever waits for a failure of an example on a database waits a minute for its smallest form, not five."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "MAX_SHRINKING_SECONDS", 60)
        yield


@pytest.fixture(scope="session", autouse=True)
def models_built_once() -> Iterator[None]:
    """Tortoise builds its models' filters and queries at each start. They are the same for every database, and take
    longer than all else of opening one (10 ms, 1,400 times)."""
    build, built = Apps._build_initial_querysets, set[type]()

    def build_new(apps: Apps) -> None:
        models = set(apps.get_models_iterable())
        if not models <= built:
            build(apps)
            built.update(models)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Apps, "_build_initial_querysets", build_new)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: one that begins last keeps the suite waiting with a single process at work. Before them those
    of TOGETHER, since a group is as long as all of its tests."""
    first = (*(module for modules in TOGETHER for module in modules), *LONG)
    items.sort(key=lambda item: next((place for place, name in enumerate(first) if name in item.nodeid), len(first)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules are imported and tests made, and nearly nothing of it is garbage: to look for some took a tenth of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


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


@pytest.fixture(scope="session")
def valkey(servers: Servers) -> Iterator[redis.Redis]:
    """A connection that is kept from test to test."""
    with redis.Redis.from_url(servers.valkey.url) as client:
        yield client


@pytest.fixture
async def database(servers: Servers, databases: Databases, valkey: redis.Redis) -> AsyncIterator[Database]:
    """A copy of the migrated template, dropped after the test."""
    name = databases.take()
    url = database_url(servers.postgres.url, name, login="muster")
    valkey.flushall()
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
