"""Static segments: members put in and taken out by hand or from a file, by external id."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pyroaring import BitMap

from db.idsets import to_parameter, unpack
from db.transactions import Connection, transaction
from profiles import profiles
from segments import everyone, following, lifecycle, membership
from segments.bases import Stored
from segments.errors import IllegalMove, SegmentError
from segments.memberfile import COLUMN, Reject, read_rows, unknown_at
from segments.membership import Change
from segments.models import Segment, SegmentStatus, SegmentType

MOST_IDS = 10_000

FEW = 20_000
"""People up to whom each is looked up by id; for more, everybody who lives is read instead."""

# Planning `= ANY` of a million ids alone takes seconds, hence FEW.
LIVING = """
SELECT string_agg(int4send(id), ''::bytea) FROM profile
WHERE workspace_id = $1 AND id = ANY($2::int[]) AND merged_into IS NULL AND erased_at IS NULL
"""
OF_BRAND = """
SELECT string_agg(int4send(profile_id), ''::bytea) FROM profile_brand
WHERE workspace_id = $1 AND brand_id = $2 AND profile_id = ANY($3::int[])
"""


@dataclass(frozen=True, slots=True)
class MembersReport:
    """What became of a list of external ids."""

    changed: int
    """Who entered, or left."""
    unchanged: int
    """Who was in already, or was not in; and ids named twice."""
    unknown: list[str]
    """External ids of nobody alive, or of nobody of the segment's brand; nothing happened to them."""
    size: int
    """Of the segment, afterwards."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of the rows of a file."""

    rows: int
    added: int
    unchanged: int
    """Rows of those who were in already, or who were on an earlier row."""
    rejects: list[Reject]
    size: int
    """Of the segment, afterwards."""


async def add_members(
    workspace_id: UUID, segment_id: UUID, *, external_ids: Sequence[str], now: datetime
) -> MembersReport:
    """Let these people in. Those who are unknown are reported, the others enter.

    Raises SegmentNotFound, SegmentError SEGMENT_NOT_STATIC, TOO_MANY_ITEMS (above 10,000), IllegalMove when archived.
    """
    check_number(external_ids)
    async with transaction(workspace_id) as connection:
        held = await hold(connection, workspace_id, segment_id)
        known = await members_to_be(connection, held.segment, external_ids)
        change = await alter(connection, held, enter=BitMap(known.values()), reason="added", now=now)
    unknown = [one for one in dict.fromkeys(external_ids) if one not in known]
    return MembersReport(
        changed=len(change.added),
        unchanged=len(external_ids) - len(unknown) - len(change.added),
        unknown=unknown,
        size=change.size,
    )


async def remove_members(
    workspace_id: UUID, segment_id: UUID, *, external_ids: Sequence[str], now: datetime
) -> MembersReport:
    """Take these people out. Raises as `add_members` does."""
    check_number(external_ids)
    async with transaction(workspace_id) as connection:
        held = await hold(connection, workspace_id, segment_id)
        known = await profiles.find_by_external_ids(connection, external_ids)
        change = await alter(connection, held, leave=BitMap(known.values()), reason="removed", now=now)
    unknown = [one for one in dict.fromkeys(external_ids) if one not in known]
    return MembersReport(
        changed=len(change.removed),
        unchanged=len(external_ids) - len(unknown) - len(change.removed),
        unknown=unknown,
        size=change.size,
    )


async def import_members(
    workspace_id: UUID, segment_id: UUID, *, text: str, now: datetime, column: str = COLUMN
) -> ImportReport:
    """Let in whom a CSV file names by external id, in the column `column` of its header; others are rejects.

    Importing the same file again changes nothing. Raises what `add_members` raises, and SegmentError INVALID_CSV for
    a file that cannot be read at all, in which case nobody entered; TOO_MANY_ITEMS above 100,000 rows.
    """
    rows = list(read_rows(text, column))
    named = {row.value for row in rows if not isinstance(row, Reject)}
    async with transaction(workspace_id) as connection:
        held = await hold(connection, workspace_id, segment_id)
        known = await members_to_be(connection, held.segment, named)
        change = await alter(connection, held, enter=BitMap(known.values()), reason="imported", now=now)
    rejects = [row if isinstance(row, Reject) else unknown_at(row) for row in rows if row.value not in known]
    return ImportReport(
        rows=len(rows),
        added=len(change.added),
        unchanged=len(rows) - len(rejects) - len(change.added),
        rejects=rejects,
        size=change.size,
    )


# --- rules --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """A static segment that this transaction has locked with its members."""

    segment: Segment
    stored: Stored | None
    """None: it has no members yet."""


async def hold(connection: Connection, workspace_id: UUID, segment_id: UUID) -> Held:
    """The segment, locked with its members, when those may be changed by hand.

    Who is merged or erased from here on is taken out by whoever follows that (following.py), who waits for this lock:
    what is read of people under it holds.
    """
    segment = await locked_static(workspace_id, segment_id)
    return Held(segment, await membership.lock(connection, workspace_id=workspace_id, segment_id=segment_id))


async def locked_static(workspace_id: UUID, segment_id: UUID) -> Segment:
    """The segment, locked, when its members may be changed by hand."""
    segment = await lifecycle.locked(workspace_id, segment_id)
    if segment.type is not SegmentType.STATIC:
        message = "Members of a dynamic segment follow from its conditions; change those, or use a STATIC segment."
        raise SegmentError("SEGMENT_NOT_STATIC", message, field=("id",))
    if segment.status is SegmentStatus.ARCHIVED:
        raise IllegalMove("An archived segment is not changed; unpublish it first, or duplicate it.")
    return segment


async def alter(
    connection: Connection,
    held: Held,
    *,
    enter: BitMap | None = None,
    leave: BitMap | None = None,
    reason: str,
    now: datetime,
) -> Change:
    """Let some enter and some leave, and the segments that name this one follow."""
    workspace_id, segment_id = held.segment.workspace_id, held.segment.id
    change = await membership.alter(
        connection,
        workspace_id=workspace_id,
        segment_id=segment_id,
        enter=enter or BitMap(),
        leave=leave or BitMap(),
        reason=reason,
        now=now,
        stored=held.stored,
    )
    await following.follow(
        connection,
        workspace_id=workspace_id,
        segment_id=segment_id,
        changed=change.added | change.removed,
        now=now,
    )
    return change


async def members_to_be(connection: Connection, segment: Segment, external_ids: Collection[str]) -> dict[str, int]:
    """Profile ids by external id, of those who live and are of the segment's brand."""
    known = await profiles.find_by_external_ids(connection, external_ids)
    if segment.brand_id is None:
        return known
    allowed = await living(connection, segment, BitMap(known.values()))
    return {external_id: profile_id for external_id, profile_id in known.items() if profile_id in allowed}


async def living(connection: Connection, segment: Segment, people: BitMap) -> BitMap:
    """Those of `people` who live and are of the segment's brand."""
    if len(people) > FEW:
        return people & await everyone.members(connection, segment.brand_id)
    ids = to_parameter(people)
    found = unpack(await connection.fetchval(LIVING, segment.workspace_id, ids))
    if segment.brand_id is not None:
        found &= unpack(await connection.fetchval(OF_BRAND, segment.workspace_id, segment.brand_id, ids))
    return found


def check_number(external_ids: Sequence[str]) -> None:
    if len(external_ids) > MOST_IDS:
        message = f"{len(external_ids)} ids at once; send at most {MOST_IDS}, or import a file."
        raise SegmentError("TOO_MANY_ITEMS", message, field=("external_ids",))
