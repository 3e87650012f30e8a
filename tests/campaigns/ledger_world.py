"""A dispatch on a real database, for tests that walk its ledger one commit at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import uvloop
from pyroaring import BitMap

from app.tables import MODEL_MODULES
from db.transactions import Connection, close_database, open_database, prepare_connection, transaction
from segments import everyone
from tests.conftest import TEMPLATE, Servers, database_url, on_server

Answer = TypeVar("Answer")
PEOPLE_A_DISPATCH = 3
DISPATCHES = 100
"""So many one after the other in the same tables. What is over is looked through with what is not, and nothing vacuums
here: the ten thousandth would take many times as long as the first."""

EMPTY = "TRUNCATE profile, campaign, claim, profile_change, suppression CASCADE"
MAKE_MONTH = "SELECT ensure_month('delivery', now())"
MAKE_CAMPAIGN = """
INSERT INTO campaign (workspace_id, name, status, channel, class, topic, content, started_at)
VALUES ($1, 'News', 'PREPARING', 'EMAIL', 'MARKETING', 'marketing', '{}', now()) RETURNING id
"""
MAKE_PEOPLE = """
INSERT INTO profile (workspace_id, external_id, email, email_hash)
SELECT $1, name, name || '@example.com', sha256(name::bytea) FROM unnest($2::text[]) AS name RETURNING id
"""
MAKE_DISPATCH = """
INSERT INTO dispatch (workspace_id, campaign_id, kind, content, content_version, audience, audience_size)
VALUES ($1, $2, 'SEND', '{}', 1, $3, $4) RETURNING id
"""
# One round trip: it is asked after every step. Its rows as arrays, in the order of profiles.
LOOK = """
SELECT ARRAY(
    SELECT (profile_id, state, reason, claim_id, fence, attempt, first_attempt_at, address_hash, not_before,
      not_before <= now())
    FROM delivery WHERE dispatch_id = $1 ORDER BY profile_id) AS rows,
  c.status, c.expires_at <= now() AS expired, d.planned_at IS NOT NULL AS planned, d.planned_through, d.no_address,
  d.finished_at IS NOT NULL AS finished, d.counts, d.dirty, d.walked_through,
  ARRAY(SELECT walked_from FROM claim WHERE dispatch_id = $1 AND walked_from IS NOT NULL) AS walked_from,
  ARRAY(SELECT id FROM claim WHERE dispatch_id = $1 AND lease_until > now()) AS held,
  ARRAY(SELECT id FROM claim WHERE dispatch_id = $1 AND lease_until <= now()) AS lapsed
FROM dispatch d JOIN campaign c ON c.id = d.campaign_id WHERE d.id = $1
"""
PEOPLE = """
SELECT p.id, p.email_hash, p.merged_into,
  EXISTS (SELECT 1 FROM suppression s WHERE s.workspace_id = p.workspace_id AND s.address_hash = p.email_hash)
    AS suppressed,
  EXISTS (SELECT 1 FROM consent k WHERE k.workspace_id = p.workspace_id AND k.profile_id = p.id
    AND k.status = 'UNSUBSCRIBED') AS unsubscribed
FROM profile p WHERE p.id = ANY($1)
"""

SOMEBODY_WAITS = """
SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
  WHERE d.datname = current_database() AND NOT l.granted)
"""


class Ending(Enum):
    """How a commit ends, for the one who asked for it."""

    DONE = auto()
    LOST = auto()
    """Rolled back: the connection, the server or the worker was gone before the commit."""
    UNHEARD = auto()
    """Committed, and the worker never heard of it."""


class Unfinished(Exception):
    """Thrown into a transaction that is to be lost."""


@dataclass(frozen=True)
class Row:
    """One line of the ledger."""

    profile_id: int
    state: str
    reason: str | None
    claim_id: int | None
    fence: int
    attempt: int
    first_attempt_at: datetime | None
    address_hash: bytes | None
    not_before: datetime | None
    due: bool | None


@dataclass(frozen=True)
class Standing:
    """The campaign and its dispatch."""

    status: str
    expired: bool | None
    planned: bool
    planned_through: int
    no_address: int
    finished: bool
    counts: dict[str, int] | None
    dirty: bool
    walked_through: int
    walked_from: list[int]
    """Where the claims began to read."""
    held: list[int]
    """Claims whose lease runs."""
    lapsed: list[int]


@dataclass(frozen=True)
class Person:
    """What the last look before a message must see."""

    id: int
    email_hash: bytes | None
    merged_into: int | None
    suppressed: bool
    unsubscribed: bool


class World:
    """One workspace in a database of its own, an event loop for all steps, and a dispatch after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, workspace_id: UUID, owner: Connection) -> None:
        self.loop, self.workspace_id, self.owner = loop, workspace_id, owner
        self.dispatches = 0

    def run(self, step: Coroutine[Any, Any, Answer]) -> Answer:
        return self.loop.run_until_complete(step)

    def begin(self) -> "Stage":
        """A campaign that is being prepared for new people, nothing of whose ledger is written."""
        return self.run(self._begin())

    async def _begin(self) -> "Stage":
        if self.dispatches and self.dispatches % DISPATCHES == 0:
            await self.owner.execute(EMPTY)
        self.dispatches += 1
        names = [uuid4().hex for _ in range(PEOPLE_A_DISPATCH)]
        people = [row["id"] for row in await self.owner.fetch(MAKE_PEOPLE, self.workspace_id, names)]
        campaign_id = await self.owner.fetchval(MAKE_CAMPAIGN, self.workspace_id)
        audience = BitMap(people).serialize()
        dispatch_id = await self.owner.fetchval(MAKE_DISPATCH, self.workspace_id, campaign_id, audience, len(people))
        stage = Stage(self, campaign_id, dispatch_id, sorted(people))
        await stage.look()
        return stage


class Stage:
    """A dispatch as the last look found it."""

    def __init__(self, world: World, campaign_id: UUID, dispatch_id: UUID, people: list[int]) -> None:
        self.world, self.campaign_id, self.dispatch_id, self.people = world, campaign_id, dispatch_id, people
        self.path = (world.workspace_id, campaign_id, dispatch_id)
        self.ids = {"workspace_id": world.workspace_id, "dispatch_id": dispatch_id}
        self.rows: dict[int, Row] = {}
        self.claims: dict[int, bool] = {}
        """By claim id whether its lease runs."""
        self.standing: Standing

    async def look(self) -> None:
        """Read the ledger as it is now."""
        rows, *standing = await self.world.owner.fetchrow(LOOK, self.dispatch_id)
        self.rows = {row[0]: Row(*row) for row in rows}
        self.standing = Standing(*standing)
        self.claims = dict.fromkeys(self.standing.held, True) | dict.fromkeys(self.standing.lapsed, False)

    async def find_people(self) -> dict[int, Person]:
        return {row["id"]: Person(**row) for row in await self.world.owner.fetch(PEOPLE, self.people)}

    def commit(self, step: Callable[[Connection], Awaitable[Answer]], ending: Ending = Ending.DONE) -> Answer | None:
        """Run `step` in one transaction that ends so, then look; what it answered, if the worker is to hear it."""
        return self.world.run(self._commit(step, ending))

    async def _commit(self, step: Callable[[Connection], Awaitable[Answer]], ending: Ending) -> Answer | None:
        answer = await self._end(step, ending)
        await self.look()
        return answer

    async def _end(self, step: Callable[[Connection], Awaitable[Answer]], ending: Ending) -> Answer | None:
        answer: Answer | None = None
        try:
            async with transaction(self.world.workspace_id, generic_plans=True) as connection:
                answer = await step(connection)
                if ending is Ending.LOST:
                    raise Unfinished
        except Unfinished:
            pass
        return answer if ending is Ending.DONE else None

    def commit_both(self, step: Callable[[Connection], Awaitable[object]], first: Ending, second: Ending) -> None:
        """Run `step` twice at once: the first has done all but to end when the second begins, and ends when the second
        has, or waits for it. Then look."""
        self.world.run(self._commit_both(step, first, second))

    async def _commit_both(
        self, step: Callable[[Connection], Awaitable[object]], first: Ending, second: Ending
    ) -> None:
        done, may_end = asyncio.Event(), asyncio.Event()

        async def hold(connection: Connection) -> None:
            await step(connection)
            done.set()
            await may_end.wait()

        one = asyncio.create_task(self._end(hold, first))
        await done.wait()
        other = asyncio.create_task(self._end(step, second))
        while not other.done() and not await self.world.owner.fetchval(SOMEBODY_WAITS):
            pass
        may_end.set()
        await asyncio.gather(one, other)
        await self.look()

    def change(self, statement: str, *arguments: object) -> None:
        """What happens outside: time passes, somebody moves."""

        async def change() -> None:
            await self.world.owner.execute(statement, *arguments)
            await self.look()

        self.world.run(change())


@contextmanager
def open_world(servers: Servers) -> Iterator[World]:
    """A database made and dropped again, opened by an event loop of its own."""
    name = f"test_{uuid4().hex}"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def make() -> World:
            await on_server(servers.postgres.url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
            url = database_url(servers.postgres.url, name, login="muster")
            await open_database(url, model_modules=MODEL_MODULES, connections=2)
            owner = await asyncpg.connect(database_url(servers.postgres.url, name))
            await prepare_connection(owner)
            await owner.execute(MAKE_MONTH)
            workspace_id = await everyone.create_workspace("ledger", time_zone="UTC", consent_default="OPT_OUT")
            return World(runner.get_loop(), workspace_id, owner)

        async def end(world: World) -> None:
            await world.owner.close()
            await close_database()
            await on_server(servers.postgres.url, f"DROP DATABASE {name} WITH (FORCE)")

        world = runner.run(make())
        try:
            yield world
        finally:
            runner.run(end(world))
