"""The API in this process, on the test's own database, called over HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import httpx2
import pytest
from starlette.applications import Starlette

from app.main import create_app
from app.pushing import Providers
from app.resources import Resources, push_hosts, segment_sources
from app.settings import Settings, load_settings
from app.wakeups import Wakeups
from campaigns.sealing import Sealer
from campaigns.tokens import Signer
from profiles import keys
from profiles.addresses import AddressHasher
from profiles.keys import Scope
from profiles.models import KeyKind
from tests.app.caller import Caller
from tests.campaigns.factories import ReadHere, ScriptedChannel, carrier
from tests.conftest import Database, on_server

ENVIRON = {
    "MUSTER_ADDRESS_KEY": "an address key of the tests, 32+ bytes",
    "MUSTER_TOKEN_KEY": "a token key of the tests, at least 32 bytes",
    "MUSTER_SECRET_KEYS": "1:a key that seals secrets in the tests of 32+",
    "MUSTER_PUBLIC_URL": "https://muster.example",
    "MUSTER_SMTP_URL": "smtp://127.0.0.1:1",
}


@pytest.fixture
def environ(database: Database) -> dict[str, str]:
    """Settings as a process would be started with in production."""
    return ENVIRON | {
        "MUSTER_ENV": "production",
        "DATABASE_URL": database.url,
        "REDIS_URL": database.redis_url,
    }


@pytest.fixture
def settings(environ: dict[str, str]) -> Settings:
    return load_settings(environ)


@asynccontextmanager
async def resources_of(settings: Settings) -> AsyncIterator[Resources]:
    """Resources on the pool that the test has open already."""
    wakeups = Wakeups(settings.redis_url)
    try:
        yield Resources(
            settings=settings,
            wakeups=wakeups,
            hasher=AddressHasher(settings.address_key.get_secret_value().encode()),
            signer=Signer(settings.token_key.get_secret_value().encode()),
            sources=segment_sources(),
            carrier=carrier(ScriptedChannel()),
            proofs=ReadHere(),
            sealer=Sealer({key_id: key.get_secret_value() for key_id, key in settings.secret_keys.items()}),
            push_providers=Providers(push_hosts(settings)),
        )
    finally:
        await wakeups.close()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Starlette]:
    """The application between start and stop, without a server."""
    app = create_app(settings, opener=resources_of)
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def client_of(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the API as `settings` say."""
    async with running(settings) as app:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="https://muster.example") as client:
            yield client


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the API, in production."""
    async with client_of(settings) as client:
        yield client


@asynccontextmanager
async def without_database(database: Database) -> AsyncIterator[None]:
    """A time in which the database lets nobody in, and whoever was in is out."""
    server_url, _, name = database.owner_url.rpartition("/")
    await on_server(
        f"{server_url}/postgres",
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    try:
        yield
    finally:
        await on_server(f"{server_url}/postgres", f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


MakeCaller = Callable[..., Awaitable[Caller]]


@pytest.fixture
def caller(http: httpx2.AsyncClient) -> MakeCaller:
    """Makes callers: `await caller(workspace, "read", "send")`, or with kind=KeyKind.PUBLISHABLE."""

    async def make(workspace_id: UUID, *scopes: str, kind: KeyKind = KeyKind.SECRET) -> Caller:
        wanted = scopes or (("ingest",) if kind is KeyKind.PUBLISHABLE else tuple(Scope))
        _, secret = await keys.create(workspace_id, name="of a test", kind=kind, scopes=wanted)
        return Caller(http, workspace_id, secret)

    return make


@pytest.fixture
async def console(caller: MakeCaller, workspace: UUID) -> Caller:
    """A secret key with every scope."""
    return await caller(workspace)


@pytest.fixture
async def foreigner(caller: MakeCaller, other_workspace: UUID) -> Caller:
    """A secret key with every scope, of another tenant."""
    return await caller(other_workspace)


@pytest.fixture
async def app_caller(caller: MakeCaller, workspace: UUID) -> Caller:
    """A publishable key: an app that nobody is signed in to."""
    return await caller(workspace, kind=KeyKind.PUBLISHABLE)
