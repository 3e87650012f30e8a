"""The pulse: keeps live segments true between full evaluations, a beat about once a second.

A beat asks about those who changed since the last one, and about those who came over an edge of time: an event that
leaves a window changes its person's answer, though nothing happens. It is one transaction, with the deletion of the
rows that it acts on, so a beat that is killed never was. docs/adr/0009-the-pulse.md says why it locks as it does.
"""

import logging
from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from pyroaring import BitMap

from db.transactions import Connection, transaction
from profiles import changes
from profiles.changes import Moved
from segments import evaluation, following, live, membership, packs
from segments.engines.base import EngineError
from segments.live import LiveSegment, LiveSegments
from segments.membership import Change
from segments.models import EvaluationCause
from segments.settling import Course, note_unanswered, require_alone, settle
from segments.sources import Sources

logger = logging.getLogger(__name__)

BATCH = 2_000
"""Changed people of one beat: half a second's work or so, during which its segments are locked."""
MOST_FOLLOWED = 100_000
"""People waiting, or over an edge of time, above which evaluating everything is less work."""
MOST_DROPPED = 1_000_000
"""People whose word one transaction deletes when everything is evaluated: a few seconds of a beat."""
LONGEST_GAP = timedelta(hours=1)
"""So far back edges are followed; after a longer rest everything is evaluated."""
KEPT = timedelta(hours=1)
"""So long it is known whom a beat re-evaluated: longer than any evaluation runs."""

# The lock is what makes one pulser a workspace. Whoever finds it taken leaves the beat to the other.
LOCK_CLOCK = """
SELECT through, coalesce($2, clock_timestamp()) AS now FROM pulse_clock WHERE workspace_id = $1
FOR UPDATE SKIP LOCKED
"""
# Nothing was to be followed before the first beat: every live segment is evaluated when it becomes one.
START_CLOCK = """
INSERT INTO pulse_clock (workspace_id, through) VALUES ($1, coalesce($2, clock_timestamp())) ON CONFLICT DO NOTHING
"""
# Shorter than PostgreSQL waits before it looks for deadlocks: should two ever wait for each other, it is always the
# beat that gives way, and nobody's request fails for it.
PATIENCE = "SELECT set_config('lock_timeout', '500ms', true)"
MOVE_CLOCK = "UPDATE pulse_clock SET through = $2 WHERE workspace_id = $1"
# Full evaluations that are under way ask for these people again before they conclude.
SAVE = """
WITH clock AS (UPDATE pulse_clock SET through = $2 WHERE workspace_id = $1)
INSERT INTO pulse (workspace_id, at, evaluated) VALUES ($1, $2, $3)
"""


@dataclass(frozen=True, slots=True)
class Beat:
    """What one beat did: people asked about, and moves over all segments."""

    evaluated: int = 0
    entered: int = 0
    exited: int = 0
    reranked: int = 0
    more: bool = False
    """Whether others wait; beat again at once."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The time that a beat is about: (through, now]."""

    through: datetime
    now: datetime


async def beat(workspace_id: UUID, *, sources: Sources, batch: int = BATCH, now: datetime | None = None) -> Beat | None:
    """Bring the workspace's live segments up to date with up to `batch` changes; windows end at `now`, by default the
    database's clock.

    None when nothing was done because another beat of this workspace is under way, or somebody holds one of its
    segments for longer than half a second. Members of static segments, and of those that stand still, follow merges
    and erasures too. Raises EngineError when the engine is away, or when it took too long and a batch of at most
    `settling.SMALL_BATCH` could be answered; whatever is raised, nothing happened.
    """
    try:
        async with transaction(workspace_id) as connection:
            clock = await start(connection, workspace_id, now)
            return None if clock is None else await follow(connection, workspace_id, clock, sources, batch)
    except asyncpg.LockNotAvailableError:
        logger.info("no beat: a segment is being changed", extra={"workspace_id": workspace_id})
        return None


async def forget(workspace_id: UUID, *, now: datetime) -> None:
    """Delete the notes of whom a beat re-evaluated more than an hour ago."""
    await packs.forget_pulses(workspace_id, before=now - KEPT)


# --- one beat -----------------------------------------------------------------------------------------------------


async def start(connection: Connection, workspace_id: UUID, now: datetime | None) -> Clock | None:
    """The clock, locked; None when another beat holds it."""
    row = await connection.fetchrow(LOCK_CLOCK, workspace_id, now)
    if row is None:
        await connection.execute(START_CLOCK, workspace_id, now)
        row = await connection.fetchrow(LOCK_CLOCK, workspace_id, now)
    # A server's clock may be set back; time that was followed is not followed again.
    return None if row is None else Clock(row["through"], max(row["now"], row["through"]))


async def follow(connection: Connection, workspace_id: UUID, clock: Clock, sources: Sources, batch: int) -> Beat:
    """Find out whether there is anything to do, and do it."""
    course = Course(workspace_id, sources, clock.now, batch, ids=BitMap())
    segments = await live.read(connection, workspace_id, now=clock.now)
    course.ids = await crossed(course, segments, since=max(clock.through, clock.now - LONGEST_GAP))
    waiting = await changes.waiting(connection, workspace_id, most=MOST_FOLLOWED + 1)
    if segments and (clock.now - clock.through > LONGEST_GAP or waiting.touched + len(course.ids) > MOST_FOLLOWED):
        return await evaluate_all(connection, course, more=waiting.moved)
    touched = bool(segments) and waiting.touched > 0
    if not (course.ids or touched or waiting.moved):
        await connection.execute(MOVE_CLOCK, workspace_id, clock.now)
        await request(connection, course, course.unanswered | segments.to_retry, EvaluationCause.BACKLOG)
        return Beat()
    return await follow_people(connection, course, touched=touched, moved=waiting.moved)


async def crossed(course: Course, segments: LiveSegments, *, since: datetime) -> BitMap:
    """Who came over an edge of time, in any live segment; segments that the engine cannot answer for are noted."""
    watched = [*segments.beating.values(), *segments.standing.values()]

    async def ask(some: list[LiveSegment]) -> BitMap:
        leaves = live.moving_leaves(some)
        if not leaves or since >= course.now:
            return BitMap()
        return await course.sources.crossed(
            workspace_id=course.workspace_id, leaves=leaves, since=since, until=course.now
        )

    try:
        return await ask(watched)
    except EngineError as e:
        require_alone(e)
    found = BitMap()
    for one in watched:
        try:
            found |= await ask([one])
        except EngineError as e:
            note_unanswered(course, one.id, e)
    return found


async def evaluate_all(connection: Connection, course: Course, *, more: bool) -> Beat:
    """Leave it to full evaluations: they begin after this is committed, and so see everything that waited.

    One that began before waits for the locks, and then finds in `pulse` whom to ask about again. What is left of a
    very long queue is the next beat's.
    """
    segments = await locked(connection, course)
    touched = await changes.take_touched(connection, course.workspace_id, most=MOST_DROPPED)
    course.ids |= touched.profile_ids
    asked = segments.beating.keys() | segments.to_retry
    logger.warning(
        "pulse left behind: full evaluations asked for",
        extra={"workspace_id": course.workspace_id, "segments": len(asked), "profiles": len(course.ids)},
    )
    await request(connection, course, asked, EvaluationCause.BACKLOG)
    await save(connection, course)
    return Beat(evaluated=len(course.ids), more=more or touched.counted >= MOST_DROPPED)


async def follow_people(connection: Connection, course: Course, *, touched: bool, moved: bool) -> Beat:
    """Ask about those over an edge of time, and up to a batch of those who changed, and let them enter and leave.

    Locks first, rows after: a full evaluation that concludes meanwhile either waits and then finds these people in
    `pulse`, or has concluded, and the rows that it left are still here.
    """
    # A merge moves members of all segments, also of one that gets its first at this moment.
    segments = await locked(connection, course, all_segments=moved)
    beating = {id: one for id, one in segments.beating.items() if id not in course.unanswered}
    to_lock = await following.segments_with_members(connection, course.workspace_id) if moved else list(beating)
    stored = await membership.locked(connection, workspace_id=course.workspace_id, segment_ids=to_lock)
    more = False
    gone: list[Moved] = []
    if touched:
        taken = await changes.take_touched(connection, course.workspace_id, most=course.batch)
        more = taken.counted >= course.batch
        if more:
            # Whoever came over an edge and waits all the same is asked about everything when his turn comes. Without
            # this a backlog is asked about twice: its events came over the edge that is now.
            course.ids -= await changes.people_waiting(connection, course.workspace_id)
        course.ids |= taken.profile_ids
    if moved:
        gone = await changes.take_moved(connection, course.workspace_id, most=course.batch)
        more = more or len(gone) == course.batch
        course.ids |= following.concerned(gone)
    # First those that nobody asks about: live segments may name them.
    moves = await move_members(connection, course, stored.keys() - beating.keys(), gone)
    # Those never evaluated have no members to change; their evaluation is on its way.
    course.stored = {id: one for id, one in stored.items() if id in beating}
    if course.ids:
        await settle(connection, course, {id: beating[id] for id in course.stored})
    await membership.shift(
        connection, course.workspace_id, course.stored, course.changes, reason="pulse", now=course.now
    )
    moves += await move_members(connection, course, course.stored.keys() - course.changes.keys(), gone)
    await request(connection, course, course.unanswered | segments.to_retry, EvaluationCause.BACKLOG)
    await request(connection, course, course.guarded, EvaluationCause.GUARD)
    await save(connection, course)
    moves += course.changes.values()
    return Beat(
        evaluated=len(course.ids),
        entered=sum(len(one.added) for one in moves),
        exited=sum(len(one.removed) for one in moves),
        reranked=sum(len(one.reranked) for one in moves),
        more=more,
    )


async def locked(connection: Connection, course: Course, *, all_segments: bool = False) -> LiveSegments:
    """The live segments, which nobody redefines or applies an evaluation to until the beat ends; nor, if so wanted, to
    any other."""
    await connection.execute(PATIENCE)
    ids = await live.lock(connection, course.workspace_id, all_segments=all_segments)
    segments = await live.read(connection, course.workspace_id, now=course.now)
    # One that became live in between is not locked. Its evaluation is on its way.
    return replace(segments, beating={id: one for id, one in segments.beating.items() if id in ids})


async def move_members(
    connection: Connection, course: Course, segment_ids: Set[UUID], gone: list[Moved]
) -> list[Change]:
    """Let members who were merged or erased leave segments that nobody asks about now."""
    if not gone or not segment_ids:
        return []
    return await following.move_members(
        connection, workspace_id=course.workspace_id, segment_ids=segment_ids, moved=gone, now=course.now
    )


async def request(connection: Connection, course: Course, segment_ids: set[UUID], cause: EvaluationCause) -> None:
    """Ask for full evaluations of these segments, if there are any."""
    if segment_ids:
        await evaluation.request_many(connection, course.workspace_id, segment_ids, cause=cause, now=course.now)


async def save(connection: Connection, course: Course) -> None:
    """Move the clock, and tell evaluations under way who was asked about."""
    await connection.execute(SAVE, course.workspace_id, course.now, course.ids.serialize())
