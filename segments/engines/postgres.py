"""The engine that asks PostgreSQL."""

import asyncio
import math
import sys
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import chain
from time import monotonic
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from pyroaring import BitMap

from db.idsets import unpack
from db.roles import Role
from db.transactions import Connection, transaction_apart
from segments.canonical import key
from segments.engines import scans
from segments.engines.base import Look, Ranks
from segments.engines.crossings import CROSSED, edges_of
from segments.engines.gathering import Gathering, Piece
from segments.engines.looked_at import looked_at
from segments.engines.parts import parts
from segments.engines.queries import Query, Statement, packed, together
from segments.engines.ranks import ranked
from segments.engines.refusals import as_engine_errors
from segments.engines.scans import Scan
from segments.nodes import EngineLeaf, RankBy

# On a standby, up to when it has replayed what was written.
AS_OF = """
SELECT CASE WHEN pg_is_in_recovery()
  THEN coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time()) END
"""

MOST_LOOKED_UP = 50_000
"""About more profiles than these the question is put about everybody: reading all is cheaper than one by one."""

# Questions about some people are answered by indexes whatever the values are: planned once a connection. About
# everybody a plan is made for the values at hand, since one for any event name and any time is wrong for most of them.
# Never compiled (jit) since that takes longer than most of them, and never sorted: planners that believe in few rows
# sort millions before they group them (page views of 180 days: 14.5 s, hashed 13.0 s).
ABOUT_SOME = {"plan_cache_mode": "force_generic_plan", "jit": "off"}
ABOUT_ALL = {"plan_cache_mode": "force_custom_plan", "jit": "off", "enable_sort": "off"}
# Of a large workspace, whose profiles are taken for 5,000 (db/ddl.py keeps no statistics of it), also in parallel.
ABOUT_MANY = ABOUT_ALL | {
    "parallel_setup_cost": "0", "min_parallel_index_scan_size": "0", "min_parallel_table_scan_size": "0",
}  # fmt: skip
# For the same reason the planner goes through an index, in one process, where the table is to be read: when a workspace
# has a quarter of all profiles or more (a trait of a million: 754 ms of one core, read in order 222 ms of each of two).
READ_IN_ORDER = """
SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_indexscan', 'off', true)
FROM pg_class WHERE oid = 'profile'::regclass AND reltuples < 4 * $1::bigint
"""

# An index of each kind: profile_merged, profile_erased.
GONE = """
SELECT string_agg(int4send(id), ''::bytea) FROM (
  SELECT id FROM profile WHERE workspace_id = $1 AND merged_into IS NOT NULL
  UNION ALL SELECT id FROM profile WHERE workspace_id = $1 AND erased_at IS NOT NULL) AS gone
"""
PROFILES = "SELECT count(*) FROM profile WHERE workspace_id = $1"

COUNTED_FOR_S = 600
"""How long the size of a workspace is good enough to choose plans by."""
NEVER = (0, -math.inf)

MOST_EXPLAINED = 500
"""Leaves whose values are in one row: it has at most 1,664 columns."""
HALVED_FROM = 200
"""People about whom two connections are asked at once, half of them each."""

Made = TypeVar("Made")


class Remembered(Generic[Made]):
    """What was made for leaves before, for the questions asked lately: making it anew costs a pulse too much."""

    def __init__(self, make: Callable[[Sequence[EngineLeaf]], Made], *, most: int = 100) -> None:
        self.make = make
        self.most = most
        self.made: OrderedDict[tuple[str, ...], Made] = OrderedDict()

    def of(self, leaves: Sequence[EngineLeaf]) -> Made:
        asked = tuple(map(key, leaves))
        if asked not in self.made:
            self.made[asked] = self.make(leaves)
            if len(self.made) > self.most:
                self.made.popitem(last=False)
        self.made.move_to_end(asked)
        return self.made[asked]


class PostgresEngine:
    """Asks read-only as muster_leaf, on a connection of its own also while its caller is in a transaction.

    `statement_timeout` bounds each query, `work_memory` (PostgreSQL's notation) what each of its hash tables takes:
    a million people hashed in 4 MB spill to disk.
    """

    name = "postgres"

    def __init__(self, *, statement_timeout: timedelta = timedelta(seconds=60), work_memory: str = "64MB") -> None:
        self.statement_timeout = statement_timeout
        self.work_memory = work_memory
        self.counted: dict[UUID, tuple[int, float]] = {}
        """How many people each workspace had when it was last counted here, and when, for the choice of plans."""
        self.of_everybody = Remembered(scans.of_everybody)
        self.of_some = Remembered(scans.of_some)

    async def as_of(self, *, workspace_id: UUID) -> datetime | None:
        """See engines/base.py: None on a primary."""
        async with self.reading(workspace_id, planning=ABOUT_SOME) as connection:
            at: datetime | None = await connection.fetchval(AS_OF)
        return at

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        """See engines/base.py.

        A few statements, in two transactions at once where there is much to do: about everybody grouping is done by one
        process, so that a second one may do another meanwhile, and some people are asked about by halves.
        """
        if only is not None and len(only) > MOST_LOOKED_UP:
            answers = await self.ids(workspace_id=workspace_id, leaves=leaves, now=now)
            return [answer & only for answer in answers]
        if not leaves or (only is not None and not only):
            return [BitMap() for _ in leaves]
        asked = self.of_everybody.of(leaves) if only is None else self.of_some.of(leaves)
        if only is None and monotonic() > self.counted.get(workspace_id, NEVER)[1] + COUNTED_FOR_S:
            await self.profiles(workspace_id=workspace_id, since=monotonic())
        pieces = list(self.pieces(workspace_id, asked, now, only))
        gathering = Gathering(len(leaves), now, pieces)
        waiting = iter(pieces)

        async def answer(began: asyncio.Event) -> None:
            folding: asyncio.Task[None] | None = None
            async with self.reading(workspace_id, planning=self.planning(workspace_id, only)) as connection:
                began.set()
                for piece in waiting:
                    scan = piece.scan
                    if scan.of_all_profiles:
                        await connection.execute(READ_IN_ORDER, self.size(workspace_id))
                    values = scan.statement.values(workspace_id, now=now, only=piece.only, part=piece.part)
                    at = monotonic()
                    row = await only_row(connection, scan.statement, values)
                    if scan.of_all_profiles:
                        *row, profiles = row
                        self.counted[workspace_id] = profiles, at
                    # Folded while the next one is asked, and no two of them wait for it.
                    if folding is not None:
                        await folding
                    folding = asyncio.create_task(gathering.add(piece, row))
            if folding is not None:
                await folding

        some_at_once = only is not None and len(only) >= HALVED_FROM
        if some_at_once or (len(asked) > 1 and self.planning(workspace_id, only) is ABOUT_MANY):
            await side_by_side(answer, answer)
        else:
            await answer(asyncio.Event())
        return gathering.found

    def pieces(self, workspace_id: UUID, asked: Sequence[Scan], now: datetime, only: BitMap | None) -> Iterable[Piece]:
        """What is asked one by one."""
        for half, some in enumerate(halves(only)):
            for scan in asked:
                if scan.reading is None or only is not None:
                    yield Piece(scan, half, some)
                else:
                    leaves = [share.event for share in scan.reading.shares]
                    for part in parts(leaves, profiles=self.size(workspace_id), now=now):
                        yield Piece(scan, half, some, part)

    async def universe(self, *, workspace_id: UUID, brand_id: UUID | None = None, only: BitMap | None = None) -> BitMap:
        """See engines/base.py."""
        if only is not None and len(only) > MOST_LOOKED_UP:
            return only & await self.universe(workspace_id=workspace_id, brand_id=brand_id)
        statement = universe(brand_id, some=only is not None)
        async with self.reading(workspace_id, planning=self.planning(workspace_id, only)) as connection:
            (ids,) = await only_row(connection, statement, statement.values(workspace_id, only=only))
        return unpack(ids)

    async def gone(self, *, workspace_id: UUID) -> BitMap:
        """See engines/base.py. An index of nobody else."""
        async with self.reading(workspace_id, planning=ABOUT_SOME) as connection:
            return unpack(await connection.fetchval(GONE, workspace_id))

    async def profiles(self, *, workspace_id: UUID, since: float) -> int:
        """See engines/base.py. Whoever read all profiles has counted them. Kept for the choice of plans."""
        profiles, at = self.counted.get(workspace_id, NEVER)
        if at < since:
            at = monotonic()
            async with self.reading(workspace_id, planning=self.planning(workspace_id, None)) as connection:
                ((profiles,),) = await connection.fetch(PROFILES, workspace_id)
            self.counted[workspace_id] = profiles, at
        return int(profiles)

    async def crossed(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], since: datetime, until: datetime
    ) -> BitMap:
        """See engines/base.py. One statement, an index range for each edge."""
        edges = edges_of(leaves)
        if not edges:
            return BitMap()
        async with self.reading(workspace_id, planning=ABOUT_SOME) as connection:
            arguments = edges.arguments(workspace_id, since=since, until=until)
            return unpack(await connection.fetchval(CROSSED, *arguments))

    async def ranks(self, *, workspace_id: UUID, by: RankBy, now: datetime, only: BitMap | None = None) -> Ranks:
        """See engines/base.py."""
        statement = ranked(by, some=only is not None)
        async with self.reading(workspace_id, planning=self.planning(workspace_id, only)) as connection:
            values = statement.values(workspace_id, now=now, only=only)
            ids, measures = await only_row(connection, statement, values)
        return Ranks(from_network("I", ids), from_network("d", measures))

    async def looks(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], now: datetime, profile_id: int
    ) -> list[Look]:
        """See engines/base.py. One statement: the ones of `ids`, read as there, and one for the values."""
        if not leaves:
            return []
        only = BitMap([profile_id])
        pieces = list(self.pieces(workspace_id, self.of_some.of(leaves), now, only))
        looking = [looked_at(leaves[at : at + MOST_EXPLAINED]) for at in range(0, len(leaves), MOST_EXPLAINED)]
        statement = together([*(piece.scan.statement for piece in pieces), *looking])
        async with self.reading(workspace_id, planning=ABOUT_SOME) as connection:
            given = statement.values(workspace_id, now=now, only=only)
            rows = await only_row(connection, statement, given)
        gathering = Gathering(len(leaves), now, pieces)
        for piece, row in zip(pieces, rows, strict=False):
            await gathering.add(piece, row)
        values = chain.from_iterable(rows[len(pieces) :])
        return [Look(profile_id in ids, value) for ids, value in zip(gathering.found, values, strict=True)]

    def planning(self, workspace_id: UUID, only: BitMap | None) -> Mapping[str, str]:
        """How questions about these people are planned; None: about everybody."""
        if only is not None:
            return ABOUT_SOME
        return ABOUT_MANY if self.size(workspace_id) > MOST_LOOKED_UP else ABOUT_ALL

    def size(self, workspace_id: UUID) -> int:
        """How many people the workspace had when it was last counted; 0 when it never was."""
        return self.counted.get(workspace_id, NEVER)[0]

    @asynccontextmanager
    async def reading(self, workspace_id: UUID, *, planning: Mapping[str, str]) -> AsyncIterator[Connection]:
        """A read-only transaction with this engine's limits; what goes wrong in it is an EngineError."""
        limits = {
            "transaction_read_only": "on",
            "statement_timeout": f"{self.statement_timeout / timedelta(milliseconds=1):.0f}ms",
            "work_mem": self.work_memory,
        }
        seconds = f"{self.statement_timeout.total_seconds():g}"
        too_slow = f"A condition took longer than {seconds} s; narrow its window, or ask for a longer time limit."
        with as_engine_errors(too_slow=too_slow):
            async with transaction_apart(workspace_id, role=Role.LEAF, settings=limits | dict(planning)) as connection:
                yield connection


def halves(only: BitMap | None) -> list[BitMap | None]:
    """The people to ask about, in two parts where they are many."""
    if only is None or len(only) < HALVED_FROM:
        return [only]
    middle = len(only) // 2
    return [only[:middle], only[middle:]]


async def side_by_side(*works: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Do `works` at once until one that set its event has ended, and all others that set theirs; what one of these
    raises is raised.

    One that waits for a connection still when another has done everything is not waited for, and one that failed to
    get any leaves all to the others.
    """
    events = [asyncio.Event() for _ in works]
    tasks = {asyncio.ensure_future(work(event)): event for work, event in zip(works, events, strict=True)}
    ended, waiting = set[asyncio.Task[None]](), set(tasks)
    try:
        while waiting and not any(tasks[task].is_set() for task in ended):
            ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in tasks if tasks[task].is_set()] or tasks:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def only_row(connection: Connection, statement: Statement, values: Sequence[object]) -> Sequence[Any]:
    """The one row of `statement`.

    By fetch and not fetchrow, which asks for at most one row: PostgreSQL starts no parallel workers then (page views of
    30 days, 600,000 of a million people: 320 ms of one core with, 122 ms of each of two without).
    """
    (row,) = await connection.fetch(statement.sql, *values)
    return cast(Sequence[Any], row)


def universe(brand_id: UUID | None, *, some: bool) -> Statement:
    """The statement of the living profiles of the workspace, or of a brand."""
    query = Query()
    demands = ["merged_into IS NULL", "erased_at IS NULL"]
    if brand_id is not None:
        of_brand = query.rows_of("profile_brand", f"brand_id = {query.bind(brand_id, 'uuid')}")
        demands.append(f"id IN (SELECT profile_id {of_brand})")
    return query.made(f"SELECT {packed('id')} {query.rows_of('profile', *demands, only='id' if some else None)}")


def from_network(kind: str, data: bytes | None) -> "array[Any]":
    """Numbers sent big-endian, as an array of this type code."""
    numbers = array(kind)
    numbers.frombytes(data or b"")
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
