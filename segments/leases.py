"""Who runs which evaluation: taken for a cycle under a lease that is renewed while the worker lives.

All that can be run of a workspace is taken together, so that conditions shared by several segments are asked once. An
evaluation waits while one that its segment names is run by somebody else. Whoever took it raised its `fence`, and
writes its outcome only while the fence is still his.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from graphlib import TopologicalSorter
from time import monotonic
from uuid import UUID

import asyncpg

from db.transactions import Connection, transaction
from segments.models import EvaluationStatus, SegmentStatus, SegmentType

logger = logging.getLogger(__name__)

MOST = 200
"""Evaluations of one cycle; the others make the next."""
ATTEMPTS = 5
"""Runs of one evaluation that may end without an outcome: one that kills its worker must not go on for ever."""
ATTEMPTS_TOGETHER = 2
"""After so many it is run alone, so that it takes no others with it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take."""

    lease: timedelta = timedelta(seconds=60)
    """A worker that dies leaves its evaluations to others after this long."""
    renew_every: timedelta = timedelta(seconds=15)
    look_every: timedelta = timedelta(seconds=2)
    """How soon it is noticed that an evaluation is not wanted any more."""
    longest: timedelta = timedelta(minutes=10)
    """For one cycle, and so for one evaluation."""


# Waiting, or left by a worker that is gone. SKIP LOCKED: what another worker is about to take, or somebody closes, is
# his. All of them, for they are few and which of them wait for which is decided over all.
CANDIDATES = """
SELECT e.id, e.segment_id, e.status, e.fence, s.status AS segment_status
FROM evaluation e JOIN segment s ON s.workspace_id = e.workspace_id AND s.id = e.segment_id
WHERE e.workspace_id = $1 AND (e.status = 'QUEUED' OR (e.status = 'RUNNING' AND e.lease_until < now()))
ORDER BY e.queued_at, e.id FOR UPDATE OF e SKIP LOCKED
"""
# What they name, and how that stands: evaluated before, about to be, or tried in vain since they were asked for (by
# the ids, which PostgreSQL makes in order of time: `queued_at` is by the clock of whoever asked).
NAMED = """
SELECT q.segment_id, u.id, u.name, u.type, u.status, coalesce(u.ranking ? 'top', false) AS capped,
  u.type = 'EVERYONE' OR EXISTS (SELECT FROM segment_membership m WHERE m.segment_id = u.id) AS evaluated,
  EXISTS (SELECT FROM evaluation e WHERE e.workspace_id = $1 AND e.segment_id = u.id
    AND e.status IN ('QUEUED', 'RUNNING')) AS open,
  EXISTS (SELECT FROM evaluation e WHERE e.workspace_id = $1 AND e.segment_id = u.id
    AND e.status NOT IN ('QUEUED', 'RUNNING') AND e.id > q.evaluation_id) AS tried
FROM unnest($2::uuid[], $3::uuid[]) AS q (segment_id, evaluation_id)
JOIN segment_reference r ON r.workspace_id = $1 AND r.segment_id = q.segment_id
JOIN segment u ON u.workspace_id = $1 AND u.id = r.uses_id
"""
# The definition is read here and not when it was asked for: what waited in the queue evaluates what holds now. The
# lease is by the database's clock, as whoever looks for dead workers reads it.
CLAIM = """
UPDATE evaluation e SET status = 'RUNNING', fence = fence + 1, definition_version = s.definition_version, engine = $3,
  started_at = now(), lease_until = clock_timestamp() + $4
FROM segment s
WHERE e.workspace_id = $1 AND e.id = ANY($2) AND s.workspace_id = e.workspace_id AND s.id = e.segment_id
RETURNING e.id, e.segment_id, e.fence, e.definition_version, s.definition, s.brand_id, s.ranking, s.live,
  s.change_guard, e.approved_at IS NOT NULL AS approved
"""
# The clock is read after the snapshot is taken: whatever a pulse did that the snapshot sees, it did for an earlier now.
# Should the server's clock have been set back, it is the pulse's: nobody else follows once more whom it has seen come
# over an edge.
INSTANT = """
SELECT pg_current_snapshot()::text AS snapshot,
  greatest(clock_timestamp(), (SELECT through FROM pulse_clock WHERE workspace_id = $1)) AS now
"""
# SKIP LOCKED: waiting here for one that is being concluded, with locks on others, could be waiting in a circle. It has
# another chance before its lease ends.
RENEW = """
UPDATE evaluation SET lease_until = clock_timestamp() + $4 WHERE workspace_id = $1 AND id IN (
  SELECT id FROM evaluation
  WHERE workspace_id = $1 AND status = 'RUNNING' AND (id, fence) IN (SELECT * FROM unnest($2::uuid[], $3::int[]))
  FOR UPDATE SKIP LOCKED)
"""
STILL_MINE = """
SELECT id FROM evaluation
WHERE workspace_id = $1 AND status = 'RUNNING' AND (id, fence) IN (SELECT * FROM unnest($2::uuid[], $3::int[]))
"""
# For one that cannot be concluded as things stand; it is taken again at once.
GIVE_BACK = """
UPDATE evaluation SET status = 'QUEUED', lease_until = NULL, started_at = NULL
WHERE workspace_id = $1 AND id = $2 AND status = 'RUNNING' AND fence = $3
"""
# Not given back: one that is cancelled again and again counts its runs as if its workers had died.
LET_GO = """
UPDATE evaluation SET lease_until = clock_timestamp()
WHERE workspace_id = $1 AND status = 'RUNNING' AND (id, fence) IN (SELECT * FROM unnest($2::uuid[], $3::int[]))
"""
FAIL = """
UPDATE evaluation SET status = 'FAILED', finished_at = clock_timestamp(), lease_until = NULL,
  duration_ms = extract(epoch FROM clock_timestamp() - started_at) * 1000, error_code = $4, error = $5
WHERE workspace_id = $1 AND id = $2 AND fence = $3 AND status IN ('QUEUED', 'RUNNING')
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An evaluation under lease, with what it is to evaluate."""

    id: UUID
    segment_id: UUID
    fence: int
    definition_version: int
    definition: object
    brand_id: UUID | None
    ranking: object
    live: bool
    change_guard: int | None
    approved: bool


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment of the database."""

    snapshot: str
    """Which transactions were over (pg_snapshot)."""
    now: datetime


@dataclass(frozen=True, slots=True)
class Taken:
    """What a worker took, and what he found on the way."""

    claimed: list[Claimed]
    instant: Instant
    refused: list[UUID]
    """Segments whose evaluation failed before it began."""
    missing: set[UUID]
    """Segments to be evaluated first, which nobody asked for yet; nothing is claimed then."""


@dataclass(frozen=True, slots=True)
class Named:
    """A segment that one of the candidates names."""

    id: UUID
    name: str
    evaluated: bool
    open: bool
    tried: bool
    evaluable: bool
    capped: bool
    """Its members are the first of those who match, and known when they are applied: never in the same cycle."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which candidates (by segment) to take, what to ask for first, and which fail, with code and sentence."""

    take: list[UUID] = field(default_factory=list)
    missing: set[UUID] = field(default_factory=set)
    refused: dict[UUID, tuple[str, str]] = field(default_factory=dict)


# --- taking -------------------------------------------------------------------------------------------------------


async def take(workspace_id: UUID, *, engine: str, timing: Timing) -> Taken | None:
    """Take what can be run now, at most 200 in one transaction; None when there is nothing to do."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(CANDIDATES, workspace_id)
        if not rows:
            return None
        candidates = {row["segment_id"]: row for row in rows}
        named = await names(connection, workspace_id, list(candidates), [row["id"] for row in rows])
        plan = planned(candidates, named)
        for segment_id, (code, message) in plan.refused.items():
            row = candidates[segment_id]
            await connection.execute(FAIL, workspace_id, row["id"], row["fence"], code, message)
        claimed: list[Claimed] = []
        if plan.take and not plan.missing:
            ids = [candidates[segment_id]["id"] for segment_id in plan.take]
            claimed = [Claimed(**row) for row in await connection.fetch(CLAIM, workspace_id, ids, engine, timing.lease)]
        if not claimed and not plan.refused and not plan.missing:
            return None
        instant = Instant(**await connection.fetchrow(INSTANT, workspace_id))
    return Taken(claimed=claimed, instant=instant, refused=list(plan.refused), missing=plan.missing)


async def names(
    connection: Connection, workspace_id: UUID, segment_ids: list[UUID], evaluation_ids: list[UUID]
) -> dict[UUID, list[Named]]:
    """The segments that each of `segment_ids` names, whose evaluations are `evaluation_ids`; if it names any."""
    found: dict[UUID, list[Named]] = {}
    for row in await connection.fetch(NAMED, workspace_id, segment_ids, evaluation_ids):
        evaluable = row["type"] == SegmentType.DYNAMIC and row["status"] == SegmentStatus.ACTIVE
        found.setdefault(row["segment_id"], []).append(
            Named(
                id=row["id"],
                name=row["name"],
                evaluated=row["evaluated"],
                open=row["open"],
                tried=row["tried"],
                evaluable=evaluable,
                capped=row["capped"],
            )
        )
    return found


def planned(candidates: Mapping[UUID, asyncpg.Record], named: Mapping[UUID, list[Named]]) -> Plan:
    """What to do about the candidates, by segment. Each is taken after those that it names."""
    plan = Plan()
    for segment_id, row in candidates.items():
        if row["segment_status"] != SegmentStatus.ACTIVE:
            message = f"The segment became {row['segment_status']} before it was evaluated; activate it to evaluate it."
            plan.refused[segment_id] = ("SEGMENT_NOT_ACTIVE", message)
        elif row["fence"] >= ATTEMPTS and row["status"] == EvaluationStatus.RUNNING:
            message = f"It was started {row['fence']} times and no worker finished it; their logs say why."
            plan.refused[segment_id] = ("EVALUATION_ABANDONED", message)
    for segment_id in candidates.keys() - plan.refused.keys():
        for one in named.get(segment_id, ()):
            if one.evaluated or one.open:
                continue
            if one.evaluable and not one.tried:
                plan.missing.add(one.id)
            else:
                plan.refused[segment_id] = not_evaluated(one.name)
    suspects = {
        segment_id
        for segment_id, row in candidates.items()
        if row["status"] == EvaluationStatus.RUNNING and row["fence"] >= ATTEMPTS_TOGETHER
    }
    together = in_turn(candidates.keys() - plan.refused.keys() - suspects, named)
    plan.take.extend(together[:MOST])
    for suspect in sorted(suspects - plan.refused.keys()):
        if not plan.take:
            plan.take.extend(in_turn({suspect}, named))
    return plan


def in_turn(segment_ids: Collection[UUID], named: Mapping[UUID, list[Named]]) -> list[UUID]:
    """Those of `segment_ids` that wait for none besides these, each after those that it names."""
    ready = set(segment_ids)

    def waits(one: Named) -> bool:
        return one.open and (one.capped or one.id not in ready)

    def waiting() -> set[UUID]:
        return {id for id in ready if any(waits(one) for one in named.get(id, ()))}

    while blocked := waiting():
        ready -= blocked
    graph = {id: {one.id for one in named.get(id, ())} & ready for id in sorted(ready)}
    return list(TopologicalSorter(graph).static_order())


def not_evaluated(name: str) -> tuple[str, str]:
    """Code and sentence for a segment that names one without members to go by."""
    return "REFERENCE_NOT_EVALUATED", (
        f"It names the segment {name!r}, which was never evaluated; activate and evaluate that one first."
    )


# --- holding ------------------------------------------------------------------------------------------------------


class Lost(Exception):
    """None of the evaluations that were worked on is this worker's any more."""


class Hold:
    """The evaluations of one cycle that are still this worker's."""

    def __init__(self, claimed: Collection[Claimed]) -> None:
        self.fences = {one.id: one.fence for one in claimed}
        self.changed = asyncio.Event()

    def keep(self, ids: Collection[UUID]) -> None:
        """Only these are mine any more."""
        lost = self.fences.keys() - set(ids)
        for id in lost:
            del self.fences[id]
        if lost:
            self.changed.set()

    def drop(self, id: UUID) -> None:
        """One is settled."""
        self.fences.pop(id, None)

    async def until_lost(self, ids: Collection[UUID]) -> None:
        """Return when none of `ids` is mine."""
        while self.fences.keys() & set(ids):
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def held(workspace_id: UUID, claimed: Collection[Claimed], timing: Timing) -> AsyncIterator[Hold]:
    """Renew the leases while the body runs, and notice what was closed, deleted or taken over meanwhile."""
    hold = Hold(claimed)
    beating = asyncio.create_task(beat(workspace_id, hold, timing))
    try:
        yield hold
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def beat(workspace_id: UUID, hold: Hold, timing: Timing) -> None:
    """One statement for the whole cycle, every now and then; most of them only look."""
    renewed = monotonic()
    while True:
        await asyncio.sleep(timing.look_every.total_seconds())
        ids, fences = list(hold.fences), list(hold.fences.values())
        due = monotonic() - renewed >= timing.renew_every.total_seconds()
        try:
            async with transaction(workspace_id) as connection:
                if due:
                    await connection.execute(RENEW, workspace_id, ids, fences, timing.lease)
                rows = await connection.fetch(STILL_MINE, workspace_id, ids, fences)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            logger.warning("leases of evaluations not renewed: PostgreSQL is away", exc_info=True)
            continue
        except Exception:
            # Ended here, leases would run out under a worker that lives.
            logger.exception("leases of evaluations not renewed")
            continue
        if due:
            renewed = monotonic()
        gone = set(ids) - {row["id"] for row in rows}
        hold.keep(hold.fences.keys() - gone)


# --- settling without a result ------------------------------------------------------------------------------------


async def fail(workspace_id: UUID, one: Claimed, *, code: str, message: str) -> None:
    """Record why an evaluation came to nothing, unless somebody else has taken it."""
    logger.info("segment evaluation failed", extra={"evaluation_id": one.id, "code": code})
    async with transaction(workspace_id) as connection:
        await connection.execute(FAIL, workspace_id, one.id, one.fence, code, message)


async def give_back(workspace_id: UUID, one: Claimed) -> None:
    """Let it be taken again, unless somebody else has."""
    async with transaction(workspace_id) as connection:
        await connection.execute(GIVE_BACK, workspace_id, one.id, one.fence)


async def let_go(workspace_id: UUID, hold: Hold) -> None:
    """Leave what is still held to other workers, who need not wait until its lease is over."""
    async with transaction(workspace_id) as connection:
        await connection.execute(LET_GO, workspace_id, list(hold.fences), list(hold.fences.values()))
