"""Full evaluations of dynamic segments: asked for, read, let through. cycles.py runs them.

An evaluation is QUEUED, then RUNNING under a lease, then SUCCEEDED, HELD or FAILED. A held one waits for a person, who
lets it run again; everything else that is asked for meanwhile runs beside it.
"""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from db.rows import to_model
from db.transactions import Connection, transaction
from segments.errors import EvaluationNotFound, IllegalMove, SegmentError, SegmentNotFound
from segments.models import Evaluation, EvaluationCause, EvaluationStatus, Segment, SegmentStatus, SegmentType

OPEN_STATUSES = (EvaluationStatus.QUEUED, EvaluationStatus.RUNNING)

# At most one is open a segment; the caller holds the segment's lock, so that a conflict is one to be found below.
OPEN = """
INSERT INTO evaluation (workspace_id, segment_id, definition_version, status, cause, queued_at)
VALUES ($1, $2, $3, 'QUEUED', $4, $5) ON CONFLICT DO NOTHING RETURNING *
"""
# No lock on the segments: whoever asks holds that of another one, and a pulse may hold all of them. One that stops
# being active meanwhile is refused when its evaluation is claimed.
OPEN_MANY = """
INSERT INTO evaluation (workspace_id, segment_id, definition_version, status, cause, queued_at)
SELECT workspace_id, id, definition_version, 'QUEUED', $3, $4 FROM segment
WHERE workspace_id = $1 AND id = ANY($2) AND type = 'DYNAMIC' AND status = 'ACTIVE' ORDER BY id
ON CONFLICT DO NOTHING
"""
LOCK_SEGMENT = """
SELECT type, status, name, definition_version FROM segment WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE
"""
# Whoever runs one of these finds his fence passed and writes nothing. Locked in the order of ids, as by whoever holds
# several of them (following.py): those of segments that use one saved query may be held at once. The statuses are said
# as by the indexes of those that are not over: together they have none, and all that ever was would be read.
CLOSE_OPEN = """
UPDATE evaluation SET status = 'FAILED', finished_at = now(), lease_until = NULL, fence = fence + 1,
  error_code = $3, error = $4
WHERE workspace_id = $1 AND id = ANY(ARRAY(
  SELECT id FROM evaluation
  WHERE workspace_id = $1 AND segment_id = ANY($2) AND (status IN ('QUEUED', 'RUNNING') OR status = 'HELD')
  ORDER BY id FOR NO KEY UPDATE))
"""
SEGMENT_OF = "SELECT segment_id FROM evaluation WHERE workspace_id = $1 AND id = $2"
LOCK = "SELECT status FROM evaluation WHERE workspace_id = $1 AND id = $2 FOR UPDATE"
IS_OPEN = """
SELECT EXISTS (SELECT FROM evaluation
  WHERE workspace_id = $1 AND segment_id = $2 AND status IN ('QUEUED', 'RUNNING'))
"""
APPROVE = """
UPDATE evaluation SET status = 'QUEUED', approved_at = $3, started_at = NULL, finished_at = NULL, duration_ms = NULL,
  size = NULL, added = NULL, removed = NULL, nodes = NULL, error_code = NULL, error = NULL
WHERE workspace_id = $1 AND id = $2 RETURNING *
"""
NEWEST = """
SELECT newest.* FROM unnest($2::uuid[]) AS wanted (segment_id) CROSS JOIN LATERAL (
  SELECT e.* FROM evaluation e WHERE e.workspace_id = $1 AND e.segment_id = wanted.segment_id
  ORDER BY e.id DESC LIMIT 1) AS newest
"""


# --- asking -------------------------------------------------------------------------------------------------------


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
        made = await connection.fetchrow(OPEN, workspace_id, segment_id, row["definition_version"], cause.value, now)
        if made is not None:
            return to_model(Evaluation, made)
        return await Evaluation.get(workspace_id=workspace_id, segment_id=segment_id, status__in=OPEN_STATUSES)


async def request_for(connection: Connection, segment: Segment, *, cause: EvaluationCause, now: datetime) -> None:
    """`request` for a dynamic segment that is active and that this transaction has locked."""
    await connection.execute(OPEN, segment.workspace_id, segment.id, segment.definition_version, cause.value, now)


async def request_many(
    connection: Connection,
    workspace_id: UUID,
    segment_ids: Collection[UUID],
    *,
    cause: EvaluationCause,
    now: datetime,
) -> None:
    """Ask for those of the segments that are dynamic, active and not asked for already; locks none of them."""
    await connection.execute(OPEN_MANY, workspace_id, list(segment_ids), cause.value, now)


async def close_open(
    connection: Connection, workspace_id: UUID, segment_ids: Collection[UUID], *, code: str, message: str
) -> None:
    """Fail the open and held evaluations of segments, because what they would find is not wanted any more.

    The caller holds the segments' locks.
    """
    await connection.execute(CLOSE_OPEN, workspace_id, list(segment_ids), code, message)


async def approve(workspace_id: UUID, evaluation_id: UUID, *, now: datetime) -> Evaluation:
    """Let a held evaluation through: it is queued again, runs on the data of then, and is not held.

    Raises EvaluationNotFound, IllegalMove, and EVALUATION_OPEN while another evaluation of the segment is under way.
    """
    async with transaction(workspace_id) as connection:
        segment_id = await connection.fetchval(SEGMENT_OF, workspace_id, evaluation_id)
        segment = await connection.fetchrow(LOCK_SEGMENT, workspace_id, segment_id)
        status = await connection.fetchval(LOCK, workspace_id, evaluation_id)
        if segment is None or status is None:
            raise EvaluationNotFound
        if status != EvaluationStatus.HELD:
            raise IllegalMove(f"The evaluation is {status}; only one that is HELD is approved.")
        if await connection.fetchval(IS_OPEN, workspace_id, segment_id):
            message = f"Another evaluation of {segment['name']!r} is under way; wait for what it comes to."
            raise SegmentError("EVALUATION_OPEN", message, field=("id",))
        return to_model(Evaluation, await connection.fetchrow(APPROVE, workspace_id, evaluation_id, now))


# --- reading ------------------------------------------------------------------------------------------------------


async def find_open(workspace_id: UUID, segment_id: UUID) -> Evaluation | None:
    """The segment's evaluation that waits or runs; None when there is none."""
    async with transaction(workspace_id):
        return await Evaluation.get_or_none(workspace_id=workspace_id, segment_id=segment_id, status__in=OPEN_STATUSES)


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
        rows = await connection.fetch(NEWEST, workspace_id, list(segment_ids))
    return {row["segment_id"]: to_model(Evaluation, row) for row in rows}


async def history(workspace_id: UUID, segment_id: UUID, *, after: UUID | None, limit: int) -> list[Evaluation]:
    """At most `limit` evaluations of a segment, newest first, those older than `after`."""
    async with transaction(workspace_id):
        of_segment = Evaluation.filter(workspace_id=workspace_id, segment_id=segment_id)
        if after is not None:
            of_segment = of_segment.filter(id__lt=after)
        return await of_segment.order_by("-id").limit(limit)
