"""Who enters and who leaves live segments, of the people whom a beat of the pulse asks about."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from pyroaring import BitMap

from db.transactions import Connection
from segments import finding, guard, ranks, references
from segments.bases import Stored
from segments.engines.base import EngineError, Ranks
from segments.finding import Found
from segments.live import LiveSegment
from segments.membership import Change
from segments.sources import Sources

logger = logging.getLogger(__name__)

SMALL_BATCH = 500
"""With no more than this a question that takes too long is the fault of who asks it, and not of how many."""


@dataclass(slots=True)
class Course:
    """A beat under way: what it knows, and what it comes to."""

    workspace_id: UUID
    sources: Sources
    now: datetime
    batch: int
    ids: BitMap
    """Whom it asks about."""
    stored: Mapping[UUID, Stored] = field(default_factory=dict)
    """The members of the segments it keeps true, before it; locked."""
    changes: dict[UUID, Change] = field(default_factory=dict)
    unanswered: set[UUID] = field(default_factory=set)
    """Segments whose conditions the engine did not answer."""
    guarded: set[UUID] = field(default_factory=set)
    """Segments that would have lost too many."""


async def settle(connection: Connection, course: Course, segments: Mapping[UUID, LiveSegment]) -> None:
    """Work out the change of each segment into `course.changes`, each after those that it names. Writes ranks.

    Those that name a capped segment wait for its cut, which lets people in and out that nobody asked about; these
    are then asked about too.
    """
    named = {id for one in segments.values() for id in one.uses}
    members = await references.members(connection, course.workspace_id, named - segments.keys())
    known = {id: members.get(id, BitMap()) for id in named - segments.keys()}
    pending = dict(segments)
    while pending:
        together = {id: pending.pop(id) for id in ready_now(pending)}
        found = await find(course, together, known)
        for id, one in found.items():
            change = await changed(connection, course, together[id], one.members)
            if change is not None:
                course.changes[id] = change
        for id in together.keys() & named:
            known[id] = members_after(course, id)
        for id in found.keys() & course.changes.keys():
            course.ids |= course.changes[id].added | course.changes[id].removed


def members_after(course: Course, segment_id: UUID) -> BitMap:
    """The members that a segment is to have after the beat."""
    before, change = course.stored[segment_id].members, course.changes.get(segment_id)
    return before if change is None else (before | change.added) - change.removed


def ready_now(pending: Mapping[UUID, LiveSegment]) -> list[UUID]:
    """Those that can be found together: all but those that name a capped one of them, directly or not."""
    blocked: set[UUID] = set()
    for id in finding.in_order({id: one.wanted for id, one in pending.items()}):
        for used in pending[id].uses & pending.keys():
            order = pending[used].parsed.ranking
            if used in blocked or (order is not None and order.top is not None):
                blocked.add(id)
    return [id for id in pending if id not in blocked]


async def find(
    course: Course, segments: Mapping[UUID, LiveSegment], known: Mapping[UUID, BitMap | None]
) -> dict[UUID, Found]:
    """Who of `course.ids` meets the conditions of each; those unanswered and those guarded are noted and left out.

    Left out, a segment keeps its members, and whoever names it is found by those.
    """
    members = dict(known)
    wanted = dict(segments)
    while True:
        found = await answers(course, wanted, members)
        guarded = {id for id in found if is_guarded(course, wanted[id], found[id].members)}
        course.guarded |= guarded
        out = (wanted.keys() - found.keys()) | guarded
        for id in out:
            members[id] = course.stored[id].members
            del wanted[id]
        if not any(one.uses & guarded for one in wanted.values()):
            return {id: found[id] for id in wanted}


async def answers(
    course: Course, segments: Mapping[UUID, LiveSegment], members: Mapping[UUID, BitMap | None]
) -> dict[UUID, Found]:
    """What the engine finds; when it cannot answer them together, each is asked alone and some are left out."""
    wanted = {id: one.wanted for id, one in segments.items()}

    async def ask(some: list[UUID], known: Mapping[UUID, BitMap | None]) -> dict[UUID, Found]:
        return await finding.find(
            {id: wanted[id] for id in some},
            sources=course.sources,
            workspace_id=course.workspace_id,
            now=course.now,
            members=known,
            only=course.ids,
            sized=False,
        )

    try:
        return await ask(list(wanted), members)
    except EngineError as e:
        require_alone(e)
        if e.code == "CONDITION_TOO_SLOW" and course.batch > SMALL_BATCH:
            raise
    found: dict[UUID, Found] = {}
    known = dict(members)
    for id in finding.in_order(wanted):
        try:
            found |= await ask([id], known)
        except EngineError as e:
            note_unanswered(course, id, e)
        known[id] = found[id].members if id in found else course.stored[id].members
    return found


def is_guarded(course: Course, segment: LiveSegment, found: BitMap) -> bool:
    """Whether so many would leave at once that a full evaluation should look, and a person."""
    if segment.change_guard is None:
        return False
    before = course.stored[segment.id]
    leaving = before.among(course.ids) - found
    return guard.holds(segment.change_guard, before=before.size, removed=len(leaving))


async def changed(connection: Connection, course: Course, segment: LiveSegment, found: BitMap) -> Change | None:
    """The change that a segment is to make; None when its ranking could not be answered. Writes the ranks."""
    before = course.stored[segment.id]
    reranked = BitMap()
    if segment.parsed.ranking is None:
        current = before.among(course.ids)
        added, removed = found - current, current - found
    else:
        order = await ranks_of(course, segment, found)
        if order is None:
            return None
        members = before.members
        ranked = await ranks.update(
            connection,
            workspace_id=course.workspace_id,
            segment_id=segment.id,
            before=members,
            asked=course.ids,
            matched=found,
            ranks=order,
            ranking=segment.parsed.ranking,
        )
        added, removed = ranked.members - members, members - ranked.members
        reranked = ranked.reranked & members & ranked.members
    return Change(before.size + len(added) - len(removed), added, removed, reranked)


async def ranks_of(course: Course, segment: LiveSegment, found: BitMap) -> Ranks | None:
    """The values that order those who match; None when the engine did not answer."""
    assert segment.parsed.ranking is not None
    try:
        return await course.sources.engine.ranks(
            workspace_id=course.workspace_id, by=segment.parsed.ranking.by, now=course.now, only=found
        )
    except EngineError as e:
        require_alone(e)
        note_unanswered(course, segment.id, e)
        return None


def require_alone(error: EngineError) -> None:
    """Raise it again when it is nobody's fault in particular."""
    if error.code == "ENGINE_UNAVAILABLE":
        raise error


def note_unanswered(course: Course, segment_id: UUID, error: EngineError) -> None:
    """A segment that cannot be answered holds up no other: a full evaluation is asked for, and says why it fails."""
    require_alone(error)
    course.unanswered.add(segment_id)
    logger.warning("pulse leaves a segment out", extra={"segment_id": segment_id, "code": error.code}, exc_info=error)
