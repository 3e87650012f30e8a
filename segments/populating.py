"""Static segments changed as sets: by what a query finds, by another segment."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never
from uuid import UUID

from pyroaring import BitMap

from db.transactions import transaction
from segments import everyone
from segments.asking import current_members, find_now, within
from segments.errors import SegmentError
from segments.json_values import Path
from segments.nodes import Condition
from segments.sources import Sources
from segments.static import alter, hold, living, locked_static

LIMIT = timedelta(seconds=60)


class PopulateMode(StrEnum):
    ADD = "ADD"
    """Whom the query finds enters."""
    REMOVE = "REMOVE"
    """Whom the query finds leaves."""
    REPLACE = "REPLACE"
    """Whom the query finds is a member afterwards, and nobody else."""


@dataclass(frozen=True, slots=True)
class PopulateReport:
    """What a set did to a segment."""

    found: int
    """Whom the query found, or the other segment has."""
    added: int
    removed: int
    size: int
    """Of the segment, afterwards."""


async def populate(
    workspace_id: UUID,
    segment_id: UUID,
    condition: Condition,
    *,
    mode: PopulateMode,
    sources: Sources,
    now: datetime,
    limit: timedelta = LIMIT,
    field: Path = ("definition",),
) -> PopulateReport:
    """Change a static segment once by whom `condition` finds now, of the segment's brand when it has one.

    `field` is where the condition stands in the input. All or nothing; members stay as they are afterwards, whatever
    becomes true of them. Raises what `static.add_members` and `asking.find_now` raise, POPULATE_TOO_SLOW after `limit`,
    SEGMENT_CHANGED when the segment got another brand meanwhile.
    """
    async with within(limit, code="POPULATE_TOO_SLOW", mend="narrow the windows, or use fewer conditions"):
        async with transaction(workspace_id):
            brand_id = (await locked_static(workspace_id, segment_id)).brand_id
        # Nothing is locked while the query runs.
        found = (
            await find_now(workspace_id, condition, brand_id=brand_id, sources=sources, now=now, field=field)
        ).members
        async with transaction(workspace_id) as connection:
            held = await hold(connection, workspace_id, segment_id)
            segment = held.segment
            if segment.brand_id != brand_id:
                message = "The segment got another brand while the query ran; ask again."
                raise SegmentError("SEGMENT_CHANGED", message, field=("id",))
            match mode:
                case PopulateMode.ADD:
                    enter, leave, reason = await living(connection, segment, found), BitMap(), "populated"
                case PopulateMode.REMOVE:
                    enter, leave, reason = BitMap(), found, "depopulated"
                case PopulateMode.REPLACE:
                    enter, reason = await living(connection, segment, found), "populated"
                    leave = (held.stored.members if held.stored else BitMap()) - enter
                case _:
                    assert_never(mode)
            change = await alter(connection, held, enter=enter, leave=leave, reason=reason, now=now)
    return PopulateReport(len(found), len(change.added), len(change.removed), change.size)


async def subtract(workspace_id: UUID, segment_id: UUID, *, other_id: UUID, now: datetime) -> PopulateReport:
    """Take whoever is in the other segment now out of a static one.

    Raises what `static.remove_members` raises; for the other one SegmentNotFound, SEGMENT_NOT_EVALUATED, and
    SAME_SEGMENT when it is the same.
    """
    if other_id == segment_id:
        message = "A segment less itself is empty; remove its members, or name another segment."
        raise SegmentError("SAME_SEGMENT", message, field=("other_id",))
    async with transaction(workspace_id) as connection:
        held = await hold(connection, workspace_id, segment_id)
        others = (await current_members(connection, workspace_id, {other_id: ("other_id",)}))[other_id]
        if others is None:
            others = await everyone.members(connection)
        change = await alter(connection, held, leave=others, reason="subtracted", now=now)
    return PopulateReport(len(others), 0, len(change.removed), change.size)
