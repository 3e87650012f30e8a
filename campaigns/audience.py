"""Who a campaign is for: included minus excluded segments, as one bitmap of living profiles (R1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from pyroaring import BitMap

from campaigns.errors import TargetError
from campaigns.models import Campaign
from db.rows import to_model
from db.transactions import Connection
from segments import everyone, membership
from segments.models import Segment, SegmentStatus, SegmentType

# Locked, so that none is deleted before the row that names it is there.
NAMED = "SELECT * FROM segment WHERE workspace_id = $1 AND id = ANY($2) ORDER BY id FOR KEY SHARE"
TARGETS = "SELECT segment_id, excluded FROM campaign_segment WHERE workspace_id = $1 AND campaign_id = $2"
# Each row is either deleted or written: which comes first does not matter.
REPLACE_TARGETS = """
WITH gone AS (
  DELETE FROM campaign_segment WHERE workspace_id = $1 AND campaign_id = $2 AND segment_id <> ALL($3::uuid[]))
INSERT INTO campaign_segment (workspace_id, campaign_id, segment_id, excluded)
SELECT $1, $2, t.id, t.excluded FROM unnest($3::uuid[], $4::boolean[]) AS t (id, excluded)
ON CONFLICT (workspace_id, campaign_id, segment_id) DO UPDATE SET excluded = excluded.excluded
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

    def flagged(self) -> tuple[list[UUID], list[bool]]:
        """All ids, and of each whether it is excluded."""
        return [*self.included, *self.excluded], [False] * len(self.included) + [True] * len(self.excluded)


@dataclass(frozen=True, slots=True)
class TargetedSegments:
    """Segments a campaign includes and spares."""

    included: list[Segment]
    excluded: list[Segment]

    def placed(self) -> Iterator[tuple[tuple[str, str], Segment]]:
        """All of them, each with where a campaign names it."""
        for field, segments in (("segment_ids", self.included), ("excluded_segment_ids", self.excluded)):
            for place, segment in enumerate(segments):
                yield (field, str(place)), segment


async def targets(connection: Connection, *, workspace_id: UUID, campaign_id: UUID) -> Targets:
    rows = await connection.fetch(TARGETS, workspace_id, campaign_id)
    return Targets(
        included=tuple(row["segment_id"] for row in rows if not row["excluded"]),
        excluded=tuple(row["segment_id"] for row in rows if row["excluded"]),
    )


async def segments_targeted(
    connection: Connection, *, workspace_id: UUID, campaign_ids: list[UUID]
) -> dict[UUID, TargetedSegments]:
    """Targets by campaign id, for every id asked, the oldest segment first."""
    found = {one: TargetedSegments([], []) for one in campaign_ids}
    for row in await connection.fetch(TARGETS_OF, workspace_id, campaign_ids):
        targeted = found[row["campaign_id"]]
        (targeted.excluded if row["excluded"] else targeted.included).append(to_model(Segment, row))
    return found


async def require_targets(
    connection: Connection, workspace_id: UUID, wanted: Targets, *, brand_id: UUID | None
) -> None:
    """Raise TargetError naming the first segment that is not there, given twice, or of another brand than `brand_id`
    (None: a campaign of all brands). Until the transaction ends none of them is deleted."""
    both = (*wanted.included, *wanted.excluded)
    if not both:
        return
    known = {row["id"]: to_model(Segment, row) for row in await connection.fetch(NAMED, workspace_id, both)}
    for field, ids in (("segment_ids", wanted.included), ("excluded_segment_ids", wanted.excluded)):
        for place, one in enumerate(ids):
            if one not in known:
                message = "There is no such segment in this workspace."
                raise TargetError("NOT_FOUND", message, field=(field, str(place)))
            if both.count(one) > 1:
                message = "This segment is named twice; a segment is either included or excluded, once."
                raise TargetError("DUPLICATE", message, field=(field, str(place)))
            require_brand(known[one], brand_id, field=(field, str(place)))


async def replace_targets(connection: Connection, *, workspace_id: UUID, campaign_id: UUID, wanted: Targets) -> None:
    """Write the targets of a locked campaign, which `require_targets` has looked at."""
    await connection.execute(REPLACE_TARGETS, workspace_id, campaign_id, *wanted.flagged())


def require_brand(segment: Segment, brand_id: UUID | None, *, field: tuple[str, ...]) -> None:
    """Raise TargetError when a segment of one brand is to be used by a campaign of another, or of all."""
    if segment.brand_id not in (None, brand_id):
        message = (
            f"The segment {segment.name!r} is for campaigns of its own brand; give the campaign that brand, or take a"
            " segment of all brands."
        )
        raise TargetError("OTHER_BRAND", message, field=field)


async def usable(connection: Connection, campaign: Campaign) -> TargetedSegments:
    """The segments of a campaign, the oldest first; raises TargetError unless all can be used now."""
    found = await segments_targeted(connection, workspace_id=campaign.workspace_id, campaign_ids=[campaign.id])
    require_usable(found[campaign.id], brand_id=campaign.brand_id)
    return found[campaign.id]


def require_usable(targeted: TargetedSegments, *, brand_id: UUID | None) -> None:
    """Raise TargetError unless all can be used now by a campaign of `brand_id`, or of all brands.

    An excluded segment that stands still or was never evaluated stops a start as an included one does: else the
    very people to spare would be mailed.
    """
    if not targeted.included:
        message = "Name at least one segment; the segment of type EVERYONE means everybody."
        raise TargetError("SEGMENT_MISSING", message, field=("segment_ids",))
    for field, segment in targeted.placed():
        if segment.status is not SegmentStatus.ACTIVE:
            message = f"The segment {segment.name!r} is {segment.status}; activate it, or take it out."
            raise TargetError("SEGMENT_NOT_ACTIVE", message, field=field)
        require_brand(segment, brand_id, field=field)


async def resolve(
    connection: Connection, targeted: TargetedSegments, *, workspace_id: UUID, brand_id: UUID | None
) -> BitMap:
    """The audience of usable segments at this instant; merged profiles stand as their winners.

    EVERYONE is everybody who lives now, of the brand when there is one. Raises TargetError for a segment that was never
    evaluated.
    """
    segments = [*targeted.included, *targeted.excluded]
    members = await membership.load_many(connection, [segment.id for segment in segments])
    if any(segment.type is SegmentType.EVERYONE for segment in segments):
        living, winners = await everyone.members_and_winners(connection, brand_id)
        members |= {segment.id: living for segment in segments if segment.type is SegmentType.EVERYONE}
    else:
        winners = dict(await connection.fetch(TOMBSTONES, workspace_id))
    for field, segment in targeted.placed():
        if segment.id not in members:
            message = f"The segment {segment.name!r} was never evaluated; evaluate it first, or take it out."
            raise TargetError("SEGMENT_NOT_EVALUATED", message, field=field)

    def union(some: list[Segment]) -> BitMap:
        return merged(BitMap().union(*(members[segment.id] for segment in some)), winners)

    return union(targeted.included) - union(targeted.excluded)


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
