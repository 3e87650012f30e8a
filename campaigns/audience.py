"""Who a campaign is for: included minus excluded segments, as one bitmap of living profiles (R1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from pyroaring import BitMap

from campaigns.errors import TargetError
from campaigns.models import Campaign
from db.rows import to_model
from db.transactions import Connection
from segments import everyone, membership
from segments.models import Segment, SegmentStatus, SegmentType

TARGETS = "SELECT segment_id, excluded FROM campaign_segment WHERE workspace_id = $1 AND campaign_id = $2"
WITH_TARGETS = """
SELECT c.*, ARRAY(SELECT t.segment_id FROM campaign_segment t
    WHERE t.workspace_id = $1 AND t.campaign_id = $2 AND NOT t.excluded) AS included,
  ARRAY(SELECT t.segment_id FROM campaign_segment t
    WHERE t.workspace_id = $1 AND t.campaign_id = $2 AND t.excluded) AS excluded
FROM campaign c WHERE c.workspace_id = $1 AND c.id = $2
"""
CLEAR_TARGETS = "DELETE FROM campaign_segment WHERE workspace_id = $1 AND campaign_id = $2"
ADD_TARGETS = """
INSERT INTO campaign_segment (workspace_id, campaign_id, segment_id, excluded)
SELECT $1, $2, t.id, t.excluded FROM unnest($3::uuid[], $4::boolean[]) AS t (id, excluded)
"""
TARGETS_OF = """
SELECT t.campaign_id, t.excluded, s.* FROM campaign_segment t
JOIN segment s ON s.workspace_id = $1 AND s.id = t.segment_id
WHERE t.workspace_id = $1 AND t.campaign_id = ANY($2) ORDER BY s.id
"""
# Tombstones are few, so all of them are read rather than the audience sent to the database.
TOMBSTONES = "SELECT id, merged_into FROM profile WHERE workspace_id = $1 AND merged_into IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Targets:
    """Segment ids a campaign includes and spares."""

    included: tuple[UUID, ...]
    excluded: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class TargetedSegments:
    """Segments a campaign includes and spares."""

    included: list[Segment]
    excluded: list[Segment]


async def targets(connection: Connection, *, workspace_id: UUID, campaign_id: UUID) -> Targets:
    rows = await connection.fetch(TARGETS, workspace_id, campaign_id)
    return Targets(
        included=tuple(row["segment_id"] for row in rows if not row["excluded"]),
        excluded=tuple(row["segment_id"] for row in rows if row["excluded"]),
    )


async def find_with_targets(
    connection: Connection, *, workspace_id: UUID, campaign_id: UUID
) -> tuple[Campaign, Targets] | None:
    """A campaign and whom it goes to; None when there is none."""
    row = await connection.fetchrow(WITH_TARGETS, workspace_id, campaign_id)
    if row is None:
        return None
    return to_model(Campaign, row), Targets(tuple(row["included"]), tuple(row["excluded"]))


async def segments_targeted(
    connection: Connection, *, workspace_id: UUID, campaign_ids: list[UUID]
) -> dict[UUID, TargetedSegments]:
    """Targets by campaign id, for every id asked, the oldest segment first."""
    found = {one: TargetedSegments([], []) for one in campaign_ids}
    for row in await connection.fetch(TARGETS_OF, workspace_id, campaign_ids):
        targeted = found[row["campaign_id"]]
        (targeted.excluded if row["excluded"] else targeted.included).append(to_model(Segment, row))
    return found


async def save_targets(
    connection: Connection,
    *,
    workspace_id: UUID,
    campaign_id: UUID,
    brand_id: UUID | None,
    wanted: Targets,
    copied: bool = False,
) -> None:
    """Replace the targets of a campaign of `brand_id`, or of all brands; raises TargetError naming the first segment
    that is not there, given twice, or of another brand.

    `copied`: from another campaign, where nobody could mend a segment that came to another brand since; a start does
    refuse it.
    """
    both = (*wanted.included, *wanted.excluded)
    known = {one.id: one for one in await Segment.filter(workspace_id=workspace_id, id__in=list(both))}
    for field, ids in (("segment_ids", wanted.included), ("excluded_segment_ids", wanted.excluded)):
        for place, one in enumerate(ids):
            if one not in known:
                message = "There is no such segment in this workspace."
                raise TargetError("NOT_FOUND", message, field=(field, str(place)))
            if both.count(one) > 1:
                message = "This segment is named twice; a segment is either included or excluded, once."
                raise TargetError("DUPLICATE", message, field=(field, str(place)))
            if not copied:
                require_brand(known[one], brand_id, field=(field, str(place)))
    await connection.execute(CLEAR_TARGETS, workspace_id, campaign_id)
    flags = [False] * len(wanted.included) + [True] * len(wanted.excluded)
    await connection.execute(ADD_TARGETS, workspace_id, campaign_id, list(both), flags)


def require_brand(segment: Segment, brand_id: UUID | None, *, field: tuple[str, ...]) -> None:
    """Raise TargetError when a segment of one brand is to be used by a campaign of another, or of all."""
    if segment.brand_id not in (None, brand_id):
        message = (
            f"The segment {segment.name!r} is for campaigns of its own brand; give the campaign that brand, or take a"
            " segment of all brands."
        )
        raise TargetError("OTHER_BRAND", message, field=field)


async def targeted_segments(
    workspace_id: UUID, wanted: Targets, *, brand_id: UUID | None
) -> tuple[list[Segment], list[Segment]]:
    """The included and the excluded segments, in the order given; raises TargetError unless all can be used now by a
    campaign of `brand_id`, or of all brands.

    An excluded segment that stands still or was never evaluated stops a start as an included one does: else the
    very people to spare would be mailed.
    """
    if not wanted.included:
        message = "Name at least one segment; the segment of type EVERYONE means everybody."
        raise TargetError("SEGMENT_MISSING", message, field=("segment_ids",))
    ids = [*wanted.included, *wanted.excluded]
    segments = {s.id: s for s in await Segment.filter(workspace_id=workspace_id, id__in=ids)}
    for one in ids:
        if segments[one].status is not SegmentStatus.ACTIVE:
            message = f"The segment {segments[one].name!r} is {segments[one].status}; activate it, or take it out."
            raise TargetError("SEGMENT_NOT_ACTIVE", message, field=field_of(wanted, one))
        require_brand(segments[one], brand_id, field=field_of(wanted, one))
    return [segments[one] for one in wanted.included], [segments[one] for one in wanted.excluded]


def field_of(wanted: Targets, segment_id: UUID) -> tuple[str, ...]:
    """Where in the input a segment was named."""
    if segment_id in wanted.included:
        return ("segment_ids", str(wanted.included.index(segment_id)))
    return ("excluded_segment_ids", str(wanted.excluded.index(segment_id)))


async def resolve(connection: Connection, *, workspace_id: UUID, brand_id: UUID | None, wanted: Targets) -> BitMap:
    """The audience at this instant; merged profiles stand as their winners.

    EVERYONE is everybody who lives now, of the brand when there is one. Raises TargetError.
    """
    included, excluded = await targeted_segments(workspace_id, wanted, brand_id=brand_id)
    members = await membership.load_many(connection, [*wanted.included, *wanted.excluded])

    living = BitMap()
    if any(segment.type is SegmentType.EVERYONE for segment in (*included, *excluded)):
        living, winners = await everyone.members_and_winners(connection, brand_id)
    else:
        winners = dict(await connection.fetch(TOMBSTONES, workspace_id))

    def union(segments: Sequence[Segment]) -> BitMap:
        ids = BitMap()
        for segment in segments:
            if segment.type is SegmentType.EVERYONE:
                ids |= living
            elif segment.id in members:
                ids |= members[segment.id]
            else:
                message = f"The segment {segment.name!r} was never evaluated; evaluate it first, or take it out."
                raise TargetError("SEGMENT_NOT_EVALUATED", message, field=field_of(wanted, segment.id))
        return ids

    return merged(union(included), winners) - merged(union(excluded), winners)


def merged(ids: BitMap, winners: dict[int, int]) -> BitMap:
    """`ids` with every merged profile replaced by the one it went into, through any number of merges."""
    losers = ids & BitMap(winners)
    resolved = ids - losers
    for loser in losers:
        winner, seen = winners[loser], {loser}
        while winner in winners and winner not in seen:
            seen.add(winner)
            winner = winners[winner]
        resolved.add(winner)
    return resolved
