"""Full evaluations of dynamic segments: asked for, run under a lease, applied or explained.

An evaluation is QUEUED, then RUNNING under a lease, then SUCCEEDED or FAILED. Whoever runs it raised its `fence`, and
may write its outcome only while the fence is still his. Leaves are asked outside of the transaction that applies the
result; that one locks the segment first, then the evaluation, then the members, as everything here does.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from pyroaring import BitMap

from db.transactions import Connection, transaction
from segments import conditions, membership, tree
from segments.engines.base import Engine, EngineError
from segments.errors import EvaluationNotFound, SegmentError, SegmentNotFound
from segments.models import Evaluation, EvaluationCause, EvaluationStatus, Segment, SegmentStatus, SegmentType
from segments.nodes import Condition
from segments.tree import NodeSize

logger = logging.getLogger(__name__)

LEASE = timedelta(minutes=10)
"""How long one run may take. A worker that dies leaves its evaluation to others after this long."""

OPEN_STATUSES = (EvaluationStatus.QUEUED, EvaluationStatus.RUNNING)
ATTEMPTS = 5
"""Runs of one evaluation that may end without an outcome: one that kills its worker must not go on for ever."""

# At most one is open a segment; the caller holds the segment's lock, so that a conflict is one to be found below.
OPEN = """
INSERT INTO evaluation (workspace_id, segment_id, definition_version, status, cause, queued_at)
VALUES ($1, $2, $3, 'QUEUED', $4, $5) ON CONFLICT DO NOTHING
"""
LOCK_SEGMENT = """
SELECT type, status, name, brand_id, definition, definition_version FROM segment
WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE
"""
# The definition is read here and not when it was asked for: what waited in the queue evaluates what holds now. The
# lease is by the database's clock, as whoever looks for dead workers reads it.
CLAIM = """
UPDATE evaluation e SET status = 'RUNNING', fence = fence + 1, definition_version = s.definition_version, engine = $3,
  started_at = now(), lease_until = now() + $4
FROM segment s
WHERE e.workspace_id = $1 AND e.id = $2 AND s.workspace_id = e.workspace_id AND s.id = e.segment_id
  AND (e.status = 'QUEUED' OR (e.status = 'RUNNING' AND e.lease_until < now()))
RETURNING e.segment_id, e.fence, e.definition_version, s.definition, s.brand_id
"""
LOCK_MINE = """
SELECT id FROM evaluation WHERE workspace_id = $1 AND id = $2 AND status = 'RUNNING' AND fence = $3 FOR UPDATE
"""
SUCCEED = """
UPDATE evaluation SET status = 'SUCCEEDED', finished_at = clock_timestamp(), lease_until = NULL,
  duration_ms = extract(epoch FROM clock_timestamp() - started_at) * 1000,
  size = $3, added = $4, removed = $5, nodes = $6
WHERE workspace_id = $1 AND id = $2
"""
FAIL = """
UPDATE evaluation SET status = 'FAILED', finished_at = clock_timestamp(), lease_until = NULL,
  duration_ms = extract(epoch FROM clock_timestamp() - started_at) * 1000, error_code = $4, error = $5
WHERE workspace_id = $1 AND id = $2 AND status = 'RUNNING' AND fence = $3
"""
# Whoever runs one of these finds his fence passed and writes nothing.
CLOSE_OPEN = """
UPDATE evaluation SET status = 'FAILED', finished_at = now(), lease_until = NULL, fence = fence + 1,
  error_code = $3, error = $4
WHERE workspace_id = $1 AND segment_id = $2 AND status IN ('QUEUED', 'RUNNING')
"""


NEWEST = """
SELECT newest.id FROM unnest($2::uuid[]) AS wanted (segment_id) CROSS JOIN LATERAL (
  SELECT e.id FROM evaluation e WHERE e.workspace_id = $1 AND e.segment_id = wanted.segment_id
  ORDER BY e.id DESC LIMIT 1) AS newest
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An evaluation under lease, with what it is to evaluate."""

    segment_id: UUID
    fence: int
    definition_version: int
    definition: object
    brand_id: UUID | None


@dataclass(frozen=True, slots=True)
class Found:
    """Who meets a condition, and how many meet each of its parts."""

    members: BitMap
    nodes: list[NodeSize]


# --- asking and reading -------------------------------------------------------------------------------------------


async def request(workspace_id: UUID, segment_id: UUID, *, cause: EvaluationCause, now: datetime) -> Evaluation:
    """The evaluation that will bring the segment up to date: a new one, or the one that is open already.

    Raises SegmentNotFound, SegmentError SEGMENT_NOT_DYNAMIC or SEGMENT_NOT_ACTIVE.
    """
    async with transaction(workspace_id) as connection:
        row = await connection.fetchrow(LOCK_SEGMENT, workspace_id, segment_id)
        if row is None:
            raise SegmentNotFound
        if row["type"] != SegmentType.DYNAMIC:
            message = f"The segment {row['name']!r} is {row['type']}; only dynamic ones are evaluated."
            raise SegmentError("SEGMENT_NOT_DYNAMIC", message, field=("id",))
        if row["status"] != SegmentStatus.ACTIVE:
            message = f"The segment {row['name']!r} is {row['status']}; activate it first."
            raise SegmentError("SEGMENT_NOT_ACTIVE", message, field=("id",))
        await connection.execute(OPEN, workspace_id, segment_id, row["definition_version"], cause.value, now)
        return await Evaluation.get(workspace_id=workspace_id, segment_id=segment_id, status__in=OPEN_STATUSES)


async def find_open(workspace_id: UUID, segment_id: UUID) -> Evaluation | None:
    """The segment's evaluation that waits or runs; None when there is none."""
    async with transaction(workspace_id):
        return await Evaluation.get_or_none(workspace_id=workspace_id, segment_id=segment_id, status__in=OPEN_STATUSES)


async def close_open(connection: Connection, segment: Segment, *, code: str, message: str) -> None:
    """Fail the segment's open evaluation, if there is one, because what it would find is not wanted any more.

    The caller holds the segment's lock.
    """
    await connection.execute(CLOSE_OPEN, segment.workspace_id, segment.id, code, message)


async def find(workspace_id: UUID, evaluation_id: UUID) -> Evaluation | None:
    """The evaluation; None when there is none."""
    async with transaction(workspace_id):
        return await Evaluation.get_or_none(workspace_id=workspace_id, id=evaluation_id)


async def load(workspace_id: UUID, evaluation_ids: Collection[UUID]) -> dict[UUID, Evaluation]:
    """Evaluations by id; unknown ids are left out."""
    async with transaction(workspace_id):
        return {e.id: e for e in await Evaluation.filter(workspace_id=workspace_id, id__in=list(evaluation_ids))}


async def latest(workspace_id: UUID, segment_ids: Collection[UUID]) -> dict[UUID, Evaluation]:
    """The newest evaluation of each segment, by segment id; segments never evaluated are left out."""
    async with transaction(workspace_id) as connection:
        newest = [row["id"] for row in await connection.fetch(NEWEST, workspace_id, list(segment_ids))]
        return {e.segment_id: e for e in await Evaluation.filter(workspace_id=workspace_id, id__in=newest)}


async def history(workspace_id: UUID, segment_id: UUID, *, after: UUID | None, limit: int) -> list[Evaluation]:
    """At most `limit` evaluations of a segment, newest first, those older than `after`."""
    async with transaction(workspace_id):
        of_segment = Evaluation.filter(workspace_id=workspace_id, segment_id=segment_id)
        if after is not None:
            of_segment = of_segment.filter(id__lt=after)
        return await of_segment.order_by("-id").limit(limit)


# --- running ------------------------------------------------------------------------------------------------------


async def run(
    workspace_id: UUID, evaluation_id: UUID, *, engine: Engine, now: datetime, lease: timedelta = LEASE
) -> Evaluation:
    """Evaluate, apply, and answer the evaluation as it then is; windows end at `now`.

    Safe to call twice and by many: one that another runs, or that is finished, is answered as it is. Failures are
    recorded with code and sentence and leave the members as they were. Takes at most `lease`. Raises
    EvaluationNotFound; errors of the connection itself pass, and the lease then runs out.
    """
    claimed = await claim(workspace_id, evaluation_id, engine=engine, lease=lease)
    if claimed is not None:
        try:
            async with asyncio.timeout(lease.total_seconds()):
                found = await find_members(
                    conditions.parse(claimed.definition, field=("definition",)),
                    engine=engine,
                    workspace_id=workspace_id,
                    brand_id=claimed.brand_id,
                    now=now,
                )
        except Exception as e:
            # Every failure belongs to this evaluation: left open, it would be tried again for ever.
            code, message = explained(e, lease=lease)
            logger.warning(
                "segment evaluation failed",
                extra={"evaluation_id": evaluation_id, "segment_id": claimed.segment_id, "code": code},
                exc_info=e,
            )
            await fail(workspace_id, evaluation_id, claimed, code=code, message=message)
        else:
            await conclude(workspace_id, evaluation_id, claimed, found, now=now)
    evaluation = await find(workspace_id, evaluation_id)
    if evaluation is None:
        raise EvaluationNotFound
    return evaluation


async def claim(workspace_id: UUID, evaluation_id: UUID, *, engine: Engine, lease: timedelta) -> Claimed | None:
    """Take an evaluation that waits or whose worker is gone; None when there is none to take."""
    async with transaction(workspace_id) as connection:
        row = await connection.fetchrow(CLAIM, workspace_id, evaluation_id, engine.name, lease)
    if row is None:
        return None
    claimed = Claimed(row["segment_id"], row["fence"], row["definition_version"], row["definition"], row["brand_id"])
    if claimed.fence > ATTEMPTS:
        message = f"It was started {ATTEMPTS} times and no worker finished it; their logs say why."
        await fail(workspace_id, evaluation_id, claimed, code="EVALUATION_ABANDONED", message=message)
        return None
    return claimed


async def find_members(
    condition: Condition,
    *,
    engine: Engine,
    workspace_id: UUID,
    brand_id: UUID | None,
    now: datetime,
    only: BitMap | None = None,
) -> Found:
    """Who meets `condition` now, of the workspace or of a brand; with `only`, of those. Equal leaves are asked once.

    Raises EngineError.
    """
    asked = tree.questions(condition)
    answers = await engine.ids(workspace_id=workspace_id, leaves=list(asked.values()), now=now, only=only)
    # After the leaves: who was merged or erased while they ran is not let in by them.
    universe = await engine.universe(workspace_id=workspace_id, brand_id=brand_id, only=only)
    found: Mapping[str, BitMap] = dict(zip(asked, answers, strict=True))
    return Found(*tree.combine(condition, found, universe))


def explained(error: Exception, *, lease: timedelta) -> tuple[str, str]:
    """Code and sentence for the segment's owner."""
    match error:
        case EngineError() | SegmentError():
            return error.code, error.message
        case TimeoutError():
            minutes = f"{lease / timedelta(minutes=1):g}"
            return "EVALUATION_TOO_SLOW", f"Evaluating took longer than {minutes} minutes; use fewer conditions."
        case _:
            return "ENGINE_FAILED", f"The engine failed ({type(error).__name__}); its log says more. Try again."


async def conclude(workspace_id: UUID, evaluation_id: UUID, claimed: Claimed, found: Found, *, now: datetime) -> None:
    """Apply what was found and finish the evaluation, in one transaction; or say why it is not wanted any more."""
    async with transaction(workspace_id) as connection:
        segment = await connection.fetchrow(LOCK_SEGMENT, workspace_id, claimed.segment_id)
        if await connection.fetchval(LOCK_MINE, workspace_id, evaluation_id, claimed.fence) is None:
            # Somebody else runs it, or closed it, and recorded why.
            logger.info("segment evaluation lost its lease", extra={"evaluation_id": evaluation_id})
            return
        if segment["status"] != SegmentStatus.ACTIVE:
            message = f"The segment became {segment['status']} while it was evaluated."
            await fail(workspace_id, evaluation_id, claimed, code="SEGMENT_NOT_ACTIVE", message=message)
            return
        if segment["definition_version"] != claimed.definition_version:
            message = "The conditions were changed while they were evaluated; evaluate again."
            await fail(workspace_id, evaluation_id, claimed, code="DEFINITION_CHANGED", message=message)
            return
        change = await membership.apply(
            connection,
            workspace_id=workspace_id,
            segment_id=claimed.segment_id,
            members=found.members,
            reason="evaluation",
            now=now,
        )
        nodes = [{"path": list(node.path), "size": node.size} for node in found.nodes]
        sizes = (change.size, len(change.added), len(change.removed))
        await connection.execute(SUCCEED, workspace_id, evaluation_id, *sizes, nodes)


async def fail(workspace_id: UUID, evaluation_id: UUID, claimed: Claimed, *, code: str, message: str) -> None:
    """Record why an evaluation came to nothing, unless somebody else has taken it."""
    async with transaction(workspace_id) as connection:
        await connection.execute(FAIL, workspace_id, evaluation_id, claimed.fence, code, message)
