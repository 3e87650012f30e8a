"""One pool, and transactions that belong to one workspace and one role.

Domain code writes `async with transaction(workspace_id) as connection:`; `connection` is asyncpg's own, and Tortoise
models used inside are in the same transaction. Nested use joins the outer transaction as a savepoint, unless it is
`apart`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeAlias, cast
from urllib.parse import unquote, urlsplit
from uuid import UUID

import asyncpg
import orjson
from asyncpg.transaction import Transaction, TransactionState
from tortoise import Tortoise
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import (
    BaseDBAsyncClient,
    NestedTransactionContext,
    TransactionalDBClient,
    TransactionContext,
    TransactionContextPooled,
)
from tortoise.connection import get_connections
from tortoise.exceptions import ConfigurationError
from tortoise.transactions import in_transaction

from db.roles import Role

Connection: TypeAlias = asyncpg.Connection
APP_LABEL = "muster"
MIGRATIONS = "db.migrations"

# Without statistics the planner combines indexes of which each alone finds half a table, and reads one that is still
# small from end to end, by a plan that it keeps when there are a million rows. A process that stands still in
# the middle of such a transaction (stopped, its machine paused or gone) would hold its rows for ever, and its claim,
# which the sweeper passes by as long as it is locked.
BY_KEY = (
    "; SET LOCAL plan_cache_mode = force_generic_plan"
    "; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off"
    "; SET LOCAL idle_in_transaction_session_timeout = '10s'"
)
# Goes first: after a query it would be too late.
AT_ONE_INSTANT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; "
SET_ALSO = "SELECT count(set_config(u.name, u.value, true)) FROM unnest($1::text[], $2::text[]) AS u (name, value)"

made = 0
"""Connections, see `connections_made`."""
LONGEST_WAIT_S = 30
"""For a connection of the pool beside one that the task may hold already: were all connections held by tasks that wait
for a second one, none would ever come back."""


@asynccontextmanager
async def transaction(
    workspace_id: UUID, *, role: Role = Role.APP, generic_plans: bool = False, at_one_instant: bool = False
) -> AsyncIterator[Connection]:
    """A transaction that sees and writes one workspace's rows only, as `role`.

    `at_one_instant` only reads, and all its statements see what the first one sees; not within another transaction.

    `generic_plans` plans each statement once a connection, for statements run very often that find rows by their keys
    and need no statistics.
    """
    statements = entry(role, workspace_id, generic_plans=generic_plans)
    async with begun(AT_ONE_INSTANT + statements if at_one_instant else statements) as client:
        yield raw_connection(client)


@asynccontextmanager
async def transaction_apart(
    workspace_id: UUID, *, role: Role, settings: Mapping[str, str]
) -> AsyncIterator[Connection]:
    """A transaction on a connection of its own, also inside another one, which neither its role nor its end touches.

    `settings` hold until it ends. It sees what is committed and nothing of the other transaction. Raises TimeoutError
    when no connection became free within `LONGEST_WAIT_S`.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(apart())
        async with asyncio.timeout(LONGEST_WAIT_S):
            connection = raw_connection(await stack.enter_async_context(begun(entry(role, workspace_id))))
        if settings:
            await connection.fetchval(SET_ALSO, list(settings), list(settings.values()))
        yield connection


@asynccontextmanager
async def across_workspaces() -> AsyncIterator[Connection]:
    """A transaction of no workspace, for the SECURITY DEFINER functions of db/ddl.py and nothing else.

    Any query on a tenant's table fails here, since no workspace is set.
    """
    async with begun(entry(Role.APP, None)) as client:
        yield raw_connection(client)


@asynccontextmanager
async def outside() -> AsyncIterator[Connection]:
    """A connection of the pool in no transaction, as the login, which may do nothing but call the functions of
    db/roles.py: CALLED_BY_LOGIN. Each is a transaction of its own, in one round trip in place of three; none may be
    called inside of another transaction, whose role and workspace it would change."""
    with apart():
        # The pool itself, open since open_database: Tortoise's way to it costs as much again.
        pool = cast(AsyncpgDBClient, get_connections().get("default"))._pool
        assert pool is not None
        async with pool.acquire() as connection:
            yield connection


def entry(role: Role, workspace_id: UUID | None, *, generic_plans: bool = False) -> str:
    """The statements that make a transaction one of this role and workspace, until it ends: local to it, so that the
    pool hands on a clean connection.

    Text and no parameters, for only so they go with BEGIN in one message; a round trip less in each transaction. Both
    values are of types that cannot hold a quote, which is looked at here, where the only such text is made.
    """
    if type(role) is not Role or not isinstance(workspace_id, UUID | None):
        raise TypeError("A transaction is of a Role and of a workspace's UUID.")
    workspace = "" if workspace_id is None else UUID(int=workspace_id.int)
    statements = f"SET LOCAL ROLE {role.value}; SET LOCAL muster.workspace_id = '{workspace}'"
    return statements + BY_KEY if generic_plans else statements


@contextmanager
def apart() -> Iterator[None]:
    """What begins inside is no savepoint of the transaction around it: it has a connection of its own.

    For questions to an engine while locks are held: its role and limits must not become those of the transaction. The
    pool may have no connection left, so callers bound the wait by asyncio.timeout.
    """
    connections = get_connections()
    current = connections.get("default")
    if not isinstance(current, TransactionalDBClient):
        yield
        return
    token = connections.set("default", current._parent)
    try:
        yield
    finally:
        connections.reset(token)


class Entered(Transaction):  # type: ignore[misc]  # asyncpg has no types
    """asyncpg's transaction, which says BEGIN and the statements of `entry` in one message."""

    def __init__(self, connection: Connection, entry: str) -> None:
        # The connection itself, as the pool's `transaction()` has it.
        super().__init__(connection._con, None, False, False)
        self._entry = entry

    async def start(self) -> None:
        connection = self._connection
        if connection._top_xact is not None:
            # A savepoint, in which they hold as long as those around it.
            await super().start()
            await connection.execute(self._entry)
            return
        # As asyncpg 0.32 has it, but for the text. If it fails, giving the connection back to the pool rolls back.
        connection._top_xact = self
        self._state = TransactionState.FAILED
        await connection.execute(f"BEGIN; {self._entry}")
        self._state = TransactionState.STARTED


class Client(TransactionWrapper):
    """Tortoise's transaction, begun as `Entered`."""

    def __init__(self, parent: AsyncpgDBClient, entry: str) -> None:
        super().__init__(parent)
        self._entry = entry

    async def begin(self) -> None:
        self.transaction = Entered(self._connection, self._entry)
        await self.transaction.start()


def context_of(entry: str) -> TransactionContext:
    """What Tortoise's in_transaction gives, with `entry`."""
    current = cast(AsyncpgDBClient, get_connections().get("default"))
    client = Client(current, entry)
    if isinstance(current, TransactionalDBClient):
        return NestedTransactionContext(client)
    return TransactionContextPooled(client, current._pool_init_lock)


@asynccontextmanager
async def begun(entry: str) -> AsyncIterator[BaseDBAsyncClient]:
    """Like Tortoise's in_transaction, safe from being cancelled while it says BEGIN.

    There Tortoise 1.1.9 keeps the connection out of the pool and the transaction current in its task: what the task
    did next would be savepoints of a transaction that nobody commits. tests/db/test_cancellation.py shows it.
    """
    context = context_of(entry)
    try:
        client = await context.__aenter__()
    except BaseException as e:
        if isinstance(context, TransactionContextPooled) and hasattr(context, "token"):
            # No rollback of its own: it does not know of a transaction yet. Giving the connection back rolls back.
            context.client._finalized = True
            await context.__aexit__(type(e), e, e.__traceback__)
        raise
    async with AsyncExitStack() as stack:
        stack.push_async_exit(context)
        yield client


def raw_connection(client: BaseDBAsyncClient) -> Connection:
    """asyncpg's connection under a Tortoise transaction.

    Not `client.acquire_connection()`: that holds the transaction's lock, and a model used meanwhile would wait for
    itself. One task uses a transaction, so nothing needs the lock.
    """
    connection: Connection = client._connection
    return connection


def tortoise_config(url: str, *, model_modules: list[str], connections: int = 10) -> dict[str, Any]:
    """Tortoise's configuration for `url` (postgres://login:password@host:port/database)."""
    parts = urlsplit(url)
    return {
        "connections": {
            "default": {
                "engine": "tortoise.backends.asyncpg",
                "credentials": {
                    "host": unquote(parts.hostname or "127.0.0.1"),
                    "port": parts.port or 5432,
                    "user": unquote(parts.username or ""),
                    "password": unquote(parts.password) if parts.password else None,
                    "database": parts.path.lstrip("/"),
                    "minsize": 1,
                    "maxsize": connections,
                    "init": prepare_connection,
                    "reset": keep_as_it_is,
                    "server_settings": {"application_name": "muster", "timezone": "UTC"},
                },
            }
        },
        "apps": {
            APP_LABEL: {"models": model_modules, "default_connection": "default", "migrations": MIGRATIONS},
        },
        "use_tz": True,
        "timezone": "UTC",
    }


async def open_database(url: str, *, model_modules: list[str], connections: int = 10) -> None:
    """Open this process's pool; raises OSError or asyncpg.PostgresError when the server cannot be reached."""
    # Requests and jobs run in tasks that do not inherit the opener's context; without the global fallback every
    # request fails with "No TortoiseContext is currently active" (seen with Tortoise 1.1.9 under uvicorn).
    await Tortoise.init(
        config=tortoise_config(url, model_modules=model_modules, connections=connections),
        _enable_global_fallback=True,
    )
    async with in_transaction():
        pass


async def close_database() -> None:
    """Close the pool of `open_database`."""
    await Tortoise.close_connections()


def connections_made() -> int:
    """How many connections this process has opened to date. Another number: it may be another database by now, behind
    the same address, such as one restored from a backup."""
    return made


def pool_use() -> tuple[int, int]:
    """Connections of the pool, and how many of them nobody uses now; (0, 0) before it is open."""
    try:
        pool = cast(AsyncpgDBClient, get_connections().get("default"))._pool
    except (ConfigurationError, RuntimeError):
        return 0, 0
    return (pool.get_size(), pool.get_idle_size()) if pool is not None else (0, 0)


async def prepare_connection(connection: Connection) -> None:
    """Give a new connection a binary jsonb codec: the text one cannot be used by COPY."""
    global made
    made += 1
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=encode_jsonb, decoder=decode_jsonb, format="binary"
    )


def encode_jsonb(value: Any) -> bytes:
    """jsonb's binary form: version 1, then text. Tortoise passes text that is encoded already."""
    return b"\x01" + (value.encode() if isinstance(value, str) else orjson.dumps(value))


def decode_jsonb(data: bytes) -> Any:
    return orjson.loads(data[1:])


async def keep_as_it_is(connection: Connection) -> None:
    """Instead of asyncpg's reset, which costs a round trip a query (203-257 us -> 125-134 us without).

    Right only while everything set on a pooled connection is local to its transaction: SET LOCAL, transaction
    locks, temporary tables ON COMMIT DROP; never LISTEN, session locks or SET.
    """
