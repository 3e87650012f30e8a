"""The engine that asks PostgreSQL."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from pyroaring import BitMap

from db.roles import Role
from db.transactions import Connection, transaction
from segments.engines import leaves as leaf_queries
from segments.engines.base import EngineError
from segments.engines.leaves import Compiled
from segments.idsets import unpack
from segments.nodes import Leaf

# A plan made for the values at hand: one made for any event name and any window is wrong for most of them. Hashing
# a million people in 4 MB spills to disk.
LIMIT = """
SELECT set_config('transaction_read_only', 'on', true), set_config('statement_timeout', $1, true),
  set_config('work_mem', $2, true), set_config('plan_cache_mode', 'force_custom_plan', true)
"""


class PostgresEngine:
    """Runs leaf queries read-only as muster_leaf, one transaction for all leaves of a question.

    `statement_timeout` bounds each query, `work_memory` (PostgreSQL's notation) what each of its hash tables takes.
    """

    name = "postgres"

    def __init__(self, *, statement_timeout: timedelta = timedelta(seconds=30), work_memory: str = "64MB") -> None:
        self.statement_timeout = statement_timeout
        self.work_memory = work_memory

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[Leaf], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        """See engines/base.py. One query a leaf, one after the other."""
        queries = [leaf_queries.compile_leaf(leaf, workspace_id, now=now, only=only) for leaf in leaves]
        async with self.reading(workspace_id) as connection:
            return [await answer(connection, query) for query in queries]

    async def universe(self, *, workspace_id: UUID, brand_id: UUID | None = None, only: BitMap | None = None) -> BitMap:
        """See engines/base.py."""
        query = leaf_queries.universe(workspace_id, brand_id=brand_id, only=only)
        async with self.reading(workspace_id) as connection:
            return await answer(connection, query)

    @asynccontextmanager
    async def reading(self, workspace_id: UUID) -> AsyncIterator[Connection]:
        """A read-only transaction with this engine's limits; what goes wrong in it is an EngineError."""
        try:
            async with transaction(workspace_id, role=Role.LEAF) as connection:
                timeout = f"{self.statement_timeout / timedelta(milliseconds=1):.0f}ms"
                await connection.fetchrow(LIMIT, timeout, self.work_memory)
                yield connection
        except asyncpg.QueryCanceledError as e:
            seconds = f"{self.statement_timeout.total_seconds():g}"
            message = f"A condition took longer than {seconds} s; narrow its window, or ask for a longer time limit."
            raise EngineError("CONDITION_TOO_SLOW", message) from e
        except asyncpg.PostgresError as e:
            message = f"PostgreSQL could not answer a condition (SQLSTATE {e.sqlstate}); its log says why."
            raise EngineError("ENGINE_REFUSED", message) from e
        except (OSError, asyncpg.InterfaceError) as e:
            raise EngineError("ENGINE_UNAVAILABLE", "PostgreSQL could not be reached; try again.") from e


async def answer(connection: Connection, query: Compiled) -> BitMap:
    """The ids that a compiled leaf finds."""
    return unpack(await connection.fetchval(query.sql, *query.arguments))
