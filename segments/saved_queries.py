"""Saved queries: SQL that people wrote, which answers profile ids and stands in conditions as one leaf.

segments/engines/saved_sql.py makes it safe; here it is kept, tried and run: as muster_query, read only, under limits.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from pyroaring import BitMap

from db.idsets import to_parameter, unpack
from db.roles import Role
from db.rows import to_model
from db.transactions import Connection, transaction, transaction_apart
from db.unset import UNSET, Unset
from profiles.text import clean_text
from segments import evaluation
from segments.engines.base import Engine, EngineError, Look
from segments.errors import SegmentError, clean
from segments.models import Evaluation, EvaluationCause, EvaluationStatus, SavedQuery
from segments.nodes import SavedSql
from segments.references import listed, lock_list
from segments.wanted import checked_description

MOST_NAME_CHARACTERS = 200
SHOWN = 20
LONGEST_PREVIEW = timedelta(seconds=5)

MOST = 100

COUNT = "SELECT count(*) FROM saved_query WHERE workspace_id = $1"
# None when the workspace has $5 already.
INSERT = f"""
INSERT INTO saved_query (workspace_id, name, description, sql) SELECT $1, $2, $3, $4 WHERE ({COUNT}) < $5 RETURNING *
"""
# Not FOR UPDATE: a definition that names it may be saved meanwhile, by whoever holds a segment's lock wanted next here.
LOCK_TO_CHANGE = """
SELECT name, description, sql FROM saved_query WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE
"""
# Whoever names it in a definition waits for this one, and then finds it gone.
LOCK_TO_DELETE = "SELECT id FROM saved_query WHERE workspace_id = $1 AND id = $2 FOR UPDATE"
UPDATE = """
UPDATE saved_query SET name = $3, description = $4, sql = $5, updated_at = $6 WHERE workspace_id = $1 AND id = $2
RETURNING *
"""
DELETE = "DELETE FROM saved_query WHERE workspace_id = $1 AND id = $2"
# Archived ones, too: what they meant stays readable.
USED_BY = """
SELECT s.name FROM segment_query q JOIN segment s ON s.workspace_id = q.workspace_id AND s.id = q.segment_id
WHERE q.workspace_id = $1 AND q.query_id = $2 ORDER BY s.name, s.id
"""
LOCK_ACTIVE_USERS = """
SELECT s.id FROM segment_query q JOIN segment s ON s.workspace_id = q.workspace_id AND s.id = q.segment_id
WHERE q.workspace_id = $1 AND q.query_id = $2 AND s.status = 'ACTIVE' ORDER BY s.id FOR NO KEY UPDATE OF s
"""
SQL_OF = "SELECT id, name, sql FROM saved_query WHERE workspace_id = $1 AND id = ANY($2::uuid[])"

# Strangers' SQL gets no parallel workers and no time to compile: it may be slow, and may not slow others down. Each of
# its tables and sorts may hold work_mem at once: see saved_sql.MOST_WORKED.
LIMITS = {
    "transaction_read_only": "on",
    "work_mem": "16MB",
    "hash_mem_multiplier": "1",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "lock_timeout": "1s",
    "plan_cache_mode": "force_custom_plan",
}
WHOLE_NUMBERS = frozenset({"int2", "int4", "int8"})


class SavedQueryNotFound(SegmentError):
    def __init__(self, *, field: tuple[str, ...] = ("id",)) -> None:
        super().__init__("NOT_FOUND", "No such saved query in this workspace; check its id.", field=field)


@dataclass(frozen=True, slots=True)
class SavedQueryInput:
    """A new saved query."""

    name: str
    sql: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class SavedQueryChanges:
    """What to change of one."""

    name: str | Unset = UNSET
    sql: str | Unset = UNSET
    description: str | Unset = UNSET


@dataclass(frozen=True, slots=True)
class Preview:
    """How many living profiles a query answers, and the first of them by id."""

    count: int
    profile_ids: list[int]


async def create(workspace_id: UUID, wanted: SavedQueryInput, *, now: datetime, most: int = MOST) -> SavedQuery:
    """The new saved query, whose SQL is allowed and fits the database.

    Raises SegmentError: SQL_NOT_ALLOWED, SQL_FAILED, NAME_TAKEN, TOO_MANY_SAVED_QUERIES when the workspace has `most`,
    and those of a bad name or description.
    """
    await try_out(workspace_id, wanted.sql, now=now)
    return await insert(workspace_id, wanted, most=most)


async def insert(workspace_id: UUID, wanted: SavedQueryInput, *, most: int = MOST) -> SavedQuery:
    """`create` with SQL that was tried out."""
    name, description = clean_name(wanted.name), checked_description(wanted.description)
    async with transaction(workspace_id) as connection:
        # One after the other, so that two who count at once do not both find room.
        await lock_list(connection, workspace_id)
        with naming():
            row = await connection.fetchrow(INSERT, workspace_id, name, description, wanted.sql, most)
        if row is None:
            message = f"A workspace has at most {most} saved queries; delete one first."
            raise SegmentError("TOO_MANY_SAVED_QUERIES", message)
        return to_model(SavedQuery, row)


async def update(
    workspace_id: UUID, query_id: UUID, wanted: SavedQueryChanges, *, now: datetime
) -> tuple[SavedQuery, list[UUID]]:
    """The saved query, changed, and the open evaluations of the active segments that use it.

    With other SQL these segments are evaluated anew; their definitions, which name the query only, stay as they are.
    Raises SavedQueryNotFound, and SegmentError as `create` does.
    """
    name = wanted.name if isinstance(wanted.name, Unset) else clean_name(wanted.name)
    description = wanted.description
    if not isinstance(description, Unset):
        description = checked_description(description)
    if not isinstance(wanted.sql, Unset):
        await try_out(workspace_id, wanted.sql, now=now)
    async with transaction(workspace_id) as connection:
        row = await connection.fetchrow(LOCK_TO_CHANGE, workspace_id, query_id)
        if row is None:
            raise SavedQueryNotFound
        sql = row["sql"] if isinstance(wanted.sql, Unset) else wanted.sql
        with naming():
            changed = await connection.fetchrow(
                UPDATE,
                workspace_id,
                query_id,
                row["name"] if isinstance(name, Unset) else name,
                row["description"] if isinstance(description, Unset) else description,
                sql,
                now,
            )
        asked = await reevaluate_users(connection, workspace_id, query_id, now=now) if sql != row["sql"] else []
        return to_model(SavedQuery, changed), asked


async def reevaluate_users(connection: Connection, workspace_id: UUID, query_id: UUID, *, now: datetime) -> list[UUID]:
    """Ask for the active segments that use the query, whose evaluations under way are of no use any more."""
    users = [row["id"] for row in await connection.fetch(LOCK_ACTIVE_USERS, workspace_id, query_id)]
    message = "A saved query of these conditions was changed; they are evaluated anew."
    await evaluation.close_open(connection, workspace_id, users, code="DEFINITION_CHANGED", message=message)
    await evaluation.request_many(connection, workspace_id, users, cause=EvaluationCause.DEFINITION, now=now)
    queued = Evaluation.filter(workspace_id=workspace_id, segment_id__in=users, status=EvaluationStatus.QUEUED)
    return [row.id for row in await queued.order_by("id")]


async def delete(workspace_id: UUID, query_id: UUID) -> None:
    """Remove a saved query that no segment uses. Raises SavedQueryNotFound, and SegmentError SAVED_QUERY_IN_USE,
    whose message names the segments."""
    async with transaction(workspace_id) as connection:
        if await connection.fetchval(LOCK_TO_DELETE, workspace_id, query_id) is None:
            raise SavedQueryNotFound
        users = [used["name"] for used in await connection.fetch(USED_BY, workspace_id, query_id)]
        if users:
            message = f"The conditions of {listed(users)} use this query; take it out of them first."
            raise SegmentError("SAVED_QUERY_IN_USE", message, field=("id",))
        await connection.execute(DELETE, workspace_id, query_id)


async def page(workspace_id: UUID, *, after: UUID | None, limit: int) -> list[SavedQuery]:
    """At most `limit` saved queries older than `after`, newest first."""
    async with transaction(workspace_id):
        found = SavedQuery.filter(workspace_id=workspace_id)
        if after is not None:
            found = found.filter(id__lt=after)
        return await found.order_by("-id").limit(limit)


async def load(workspace_id: UUID, query_ids: Collection[UUID]) -> dict[UUID, SavedQuery]:
    """Saved queries by id; ids that are not of this workspace are left out."""
    async with transaction(workspace_id):
        found = await SavedQuery.filter(workspace_id=workspace_id, id__in=list(query_ids))
    return {query.id: query for query in found}


async def preview(
    workspace_id: UUID, sql: str, *, engine: Engine, now: datetime, longest: timedelta = LONGEST_PREVIEW
) -> Preview:
    """Whom `sql` answers now: living profiles of this workspace only.

    Raises SegmentError SQL_NOT_ALLOWED, SQL_FAILED, SAVED_QUERY_TOO_SLOW (after `longest`) or ENGINE_UNAVAILABLE.
    """
    try:
        found = await answer(workspace_id, sql, what="The query", now=now, longest=longest)
        found &= await engine.universe(workspace_id=workspace_id)
    except EngineError as e:
        code = "SQL_FAILED" if e.code == "SAVED_QUERY_FAILED" else e.code
        raise SegmentError(code, e.message, field=("sql",)) from e
    return Preview(len(found), list(found[:SHOWN]))


class SavedSqlSource:
    """Answers `nodes.SavedSql`: a LeafSource. `statement_timeout` bounds each query.

    What a query finds may depend on anything, and on time in ways that nobody can follow: its segments are kept true by
    their cadence. `crossed` knows of nobody, so a live segment with such a leaf follows only whoever changes.
    """

    def __init__(self, *, statement_timeout: timedelta = timedelta(seconds=30)) -> None:
        self.statement_timeout = statement_timeout

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[SavedSql], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        """See segments/sources.py. One query a leaf, one after the other."""
        queries = await self.queries(workspace_id, leaves)
        return [
            await answer(
                workspace_id,
                query["sql"],
                what=f'The saved query "{query["name"]}"',
                now=now,
                only=only,
                longest=self.statement_timeout,
            )
            for query in queries
        ]

    async def crossed(
        self, *, workspace_id: UUID, leaves: Sequence[SavedSql], since: datetime, until: datetime
    ) -> BitMap:
        """Nobody; see the class."""
        return BitMap()

    async def looks(
        self, *, workspace_id: UUID, leaves: Sequence[SavedSql], now: datetime, profile_id: int
    ) -> list[Look]:
        """See segments/sources.py: the value, too, is whether the query answers this profile. A statement a query, and
        one for their texts."""
        answers = await self.ids(workspace_id=workspace_id, leaves=leaves, now=now, only=BitMap([profile_id]))
        return [Look(profile_id in found, profile_id in found) for found in answers]

    async def queries(self, workspace_id: UUID, leaves: Sequence[SavedSql]) -> list[asyncpg.Record]:
        """Name and SQL of each leaf's query; raises EngineError SAVED_QUERY_MISSING."""
        async with running(workspace_id, role=Role.APP, what="The saved query", longest=self.statement_timeout) as (
            connection
        ):
            rows = await connection.fetch(SQL_OF, workspace_id, [leaf.query_id for leaf in leaves])
        found = {row["id"]: row for row in rows}
        if any(leaf.query_id not in found for leaf in leaves):
            message = "A saved query of these conditions does not exist in this workspace; choose another."
            raise EngineError("SAVED_QUERY_MISSING", message)
        return [found[leaf.query_id] for leaf in leaves]


async def answer(
    workspace_id: UUID, sql: str, *, what: str, now: datetime, longest: timedelta, only: BitMap | None = None
) -> BitMap:
    """The profile ids that `sql` answers, whoever they are; with `only`, those of them. `what` it is begins messages.

    Raises SegmentError SQL_NOT_ALLOWED (from `saved_sql`) as EngineError, like everything else that goes wrong.
    """
    try:
        # In a thread: the parser takes a stack of its own depth, and long texts their time.
        statement = await asyncio.to_thread(ids_query, sql, workspace_id, now, restricted=only is not None)
    except SegmentError as e:
        raise EngineError(e.code, f"{what} is not allowed: {e.message}") from e
    async with running(workspace_id, role=Role.QUERY, what=what, longest=longest) as connection:
        arguments = [] if only is None else [to_parameter(only)]
        return unpack(await connection.fetchval(statement, *arguments))


# The parser is 8 MB and 0.2 s of work: only processes that are asked for saved SQL load it, in these threads.
def ids_query(sql: str, workspace_id: UUID, now: datetime, *, restricted: bool) -> str:
    from segments.engines import saved_sql

    return saved_sql.ids_query(sql, workspace_id=workspace_id, now=now, restricted=restricted)


def shape_query(sql: str, workspace_id: UUID, now: datetime) -> str:
    from segments.engines import saved_sql

    return saved_sql.shape_query(sql, workspace_id=workspace_id, now=now)


async def try_out(workspace_id: UUID, sql: str, *, now: datetime) -> None:
    """Raises SegmentError SQL_NOT_ALLOWED or SQL_FAILED unless the database could run `sql` and get whole numbers."""
    statement = await asyncio.to_thread(shape_query, sql, workspace_id, now)
    try:
        async with running(workspace_id, role=Role.QUERY, what="The query", longest=LONGEST_PREVIEW) as connection:
            (column,) = (await connection.prepare(statement)).get_attributes()
    except EngineError as e:
        code = "SQL_FAILED" if e.code == "SAVED_QUERY_FAILED" else e.code
        raise SegmentError(code, e.message, field=("sql",)) from e
    if column.type.name not in WHOLE_NUMBERS:
        message = f"profile_id is of the type {column.type.name} here; answer profile ids, which are whole numbers."
        raise SegmentError("SQL_FAILED", message, field=("sql",))


@asynccontextmanager
async def running(workspace_id: UUID, *, role: Role, what: str, longest: timedelta) -> AsyncIterator[Connection]:
    """A read-only transaction of its own under `LIMITS`; what goes wrong in it is an EngineError."""
    limits = LIMITS | {"statement_timeout": f"{longest / timedelta(milliseconds=1):.0f}ms"}
    try:
        async with transaction_apart(workspace_id, role=role, settings=limits) as connection:
            yield connection
    except asyncpg.QueryCanceledError as e:
        message = f"{what} took longer than {longest.total_seconds():g} s; make it simpler, or narrow its time."
        raise EngineError("SAVED_QUERY_TOO_SLOW", message) from e
    except asyncpg.PostgresError as e:
        raise EngineError("SAVED_QUERY_FAILED", f"{what} cannot be run: {e.args[0]}.") from e
    except (OSError, asyncpg.InterfaceError) as e:
        raise EngineError("ENGINE_UNAVAILABLE", "PostgreSQL could not be reached; try again.") from e


@contextmanager
def naming() -> Iterator[None]:
    """Turns the refusal of a name that another query has into ours."""
    try:
        yield
    except asyncpg.UniqueViolationError as e:
        message = "Another saved query has this name; choose another."
        raise SegmentError("NAME_TAKEN", message, field=("name",)) from e


def clean_name(name: str) -> str:
    return clean(clean_text, name, field=("name",), what="Name", most=MOST_NAME_CHARACTERS)
