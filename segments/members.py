"""Reading who is in: pages in order of profile or rank, as of any instant; and whether somebody is, for experiments."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import inf
from uuid import UUID

from db.rows import to_model
from db.transactions import Connection, outside, transaction
from profiles.errors import ProfileError
from profiles.identities import clean_external_id
from segments import ranking
from segments.errors import SegmentError, SegmentNotFound
from segments.models import Segment, SegmentType
from segments.nodes import Direction
from segments.ranks import value_of

MOST_PEOPLE = 1000
"""Asked about at once."""
MOST_SEGMENTS = 100
MOST_MERGES = 20
"""One after the other, of one person; a circle must end."""

CHECK = "SELECT segment_id, members FROM members_among($1, $2, $3, $4)"
# Segment by segment, of which there are few: an index by profile would be paid by everybody who enters.
SEGMENTS_OF = """
SELECT p.id AS profile_id, m.entered_at, g.* FROM unnest($2::int[]) AS p (id)
CROSS JOIN (SELECT segment_id FROM segment_membership WHERE workspace_id = $1 AND size > 0) AS s
CROSS JOIN LATERAL (
  SELECT entered_at FROM membership
  WHERE workspace_id = $1 AND segment_id = s.segment_id AND profile_id = p.id AND exited_at IS NULL LIMIT 1) AS m
JOIN segment g ON g.workspace_id = $1 AND g.id = s.segment_id ORDER BY p.id, g.id
"""
# Beats and evaluations date intervals by this clock; whose "now" is ahead of it by less than a minute means now.
KIND = """
SELECT type, ranking, $3::timestamptz > clock_timestamp() + interval '1 minute' AS ahead
FROM segment WHERE workspace_id = $1 AND id = $2
"""
PAGE = """
SELECT m.profile_id, m.entered_at, r.order_value FROM (
  SELECT profile_id, entered_at FROM membership
  WHERE workspace_id = $1 AND segment_id = $2 AND profile_id > $3 AND exited_at IS NULL
  ORDER BY profile_id LIMIT $4) AS m
LEFT JOIN LATERAL (
  SELECT order_value FROM segment_rank
  WHERE workspace_id = $1 AND segment_id = $2 AND profile_id = m.profile_id LIMIT 1) AS r ON true
ORDER BY m.profile_id
"""
# At most one interval of a profile holds an instant.
PAGE_AS_OF = """
SELECT profile_id, entered_at, NULL::float8 AS order_value FROM membership
WHERE workspace_id = $1 AND segment_id = $2 AND profile_id > $3 AND entered_at <= $5
  AND (exited_at IS NULL OR exited_at > $5)
ORDER BY profile_id LIMIT $4
"""
PAGE_OF_EVERYONE = """
SELECT id AS profile_id, created_at AS entered_at, NULL::float8 AS order_value FROM profile
WHERE workspace_id = $1 AND id > $2 AND merged_into IS NULL AND erased_at IS NULL
  AND ($4::timestamptz IS NULL OR created_at <= $4)
ORDER BY id LIMIT $3
"""
# Members are the first of the order, so the first who is none ends the list, however many match and are cut off. In
# two parts, for one condition over both columns would read all who share a value from the beginning.
PAGE_BY_RANK = """
SELECT r.profile_id, m.entered_at, r.order_value FROM (
  (SELECT profile_id, order_value FROM segment_rank
   WHERE workspace_id = $1 AND segment_id = $2 AND order_value = $3 AND profile_id > $4
   ORDER BY profile_id LIMIT $5)
  UNION ALL
  (SELECT profile_id, order_value FROM segment_rank
   WHERE workspace_id = $1 AND segment_id = $2 AND order_value < $3
   ORDER BY order_value DESC, profile_id LIMIT $5)
  ORDER BY order_value DESC, profile_id LIMIT $5) AS r
CROSS JOIN LATERAL (
  SELECT entered_at FROM membership
  WHERE workspace_id = $1 AND segment_id = $2 AND profile_id = r.profile_id AND exited_at IS NULL LIMIT 1) AS m
ORDER BY r.order_value DESC, r.profile_id
"""


class MemberOrder(StrEnum):
    """In which order members are listed."""

    ID = "ID"
    """As their profiles were made."""
    RANK = "RANK"
    """As the segment ranks them, the first first."""


@dataclass(frozen=True, slots=True)
class Entered:
    """A segment that somebody is in, and since when."""

    segment: Segment
    entered_at: datetime


@dataclass(frozen=True, slots=True)
class Member:
    """A member, since when, and where in the order."""

    profile_id: int
    entered_at: datetime
    rank: int | None = None
    """The place from 1, in rank order only."""
    rank_value: float | None = None
    """What the segment ranks by; None when it is not ranked, or has no value for this profile."""
    order_value: float | None = None
    """What the rank order goes by; None when the segment is not ranked."""

    @property
    def place(self) -> "Place":
        return Place(self.profile_id, self.order_value, self.rank or 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended and the next one goes on."""

    profile_id: int
    order_value: float | None = None
    rank: int = 0


START = Place(0, inf)


# --- pages --------------------------------------------------------------------------------------------------------


async def page(
    workspace_id: UUID,
    segment_id: UUID,
    *,
    after: Place | None,
    limit: int,
    order: MemberOrder = MemberOrder.ID,
    as_of: datetime | None = None,
) -> list[Member]:
    """At most `limit` members that follow `after`: those of now, or of the instant `as_of`.

    Of EVERYONE all who live now, each since its profile was made, and no history of who lived then. Empty for a
    segment that does not exist or was never evaluated, and in rank order until its ranking was evaluated. Raises
    SegmentError NOT_RANKED, RANK_IS_OF_NOW for ranks of another instant, and AS_OF_AHEAD for one that is to come.
    """
    async with transaction(workspace_id) as connection:
        return await read_page(
            connection, workspace_id, segment_id, after=after or START, limit=limit, order=order, as_of=as_of
        )


async def read_page(
    connection: Connection,
    workspace_id: UUID,
    segment_id: UUID,
    *,
    after: Place,
    limit: int,
    order: MemberOrder,
    as_of: datetime | None,
) -> list[Member]:
    """See `page`."""
    kind = await connection.fetchrow(KIND, workspace_id, segment_id, as_of)
    if kind is None:
        return []
    if as_of is not None and kind["ahead"]:
        message = (
            f"{as_of.isoformat()} is still to come, and nobody knows who will be in; leave it out for who is in now."
        )
        raise SegmentError("AS_OF_AHEAD", message, field=("as_of",))
    direction = None if kind["ranking"] is None else ranking.parse(kind["ranking"]).direction
    if order is MemberOrder.RANK:
        check_rank_order(direction, as_of)
        best = (after.order_value, after.profile_id, limit)
        rows = await connection.fetch(PAGE_BY_RANK, workspace_id, segment_id, *best)
    elif kind["type"] == SegmentType.EVERYONE:
        rows = await connection.fetch(PAGE_OF_EVERYONE, workspace_id, after.profile_id, limit, as_of)
    elif as_of is not None:
        rows = await connection.fetch(PAGE_AS_OF, workspace_id, segment_id, after.profile_id, limit, as_of)
    else:
        rows = await connection.fetch(PAGE, workspace_id, segment_id, after.profile_id, limit)
    return [
        Member(
            profile_id=row["profile_id"],
            entered_at=row["entered_at"],
            rank=after.rank + place if order is MemberOrder.RANK else None,
            rank_value=None if direction is None else value_of(row["order_value"], direction),
            order_value=row["order_value"],
        )
        for place, row in enumerate(rows, start=1)
    ]


def check_rank_order(direction: Direction | None, as_of: datetime | None) -> None:
    """Raises SegmentError when members cannot be listed by rank."""
    if direction is None:
        message = "This segment has no ranking; give it one, or list its members by ID."
        raise SegmentError("NOT_RANKED", message, field=("order_by",))
    if as_of is not None:
        message = "Ranks are of now; list the members of another instant by ID."
        raise SegmentError("RANK_IS_OF_NOW", message, field=("as_of",))


async def segments_of_profiles(workspace_id: UUID, profile_ids: Collection[int]) -> dict[int, list[Entered]]:
    """The segments each profile is in now, the oldest first, by profile id; EVERYONE, and those in none, left out."""
    found: dict[int, list[Entered]] = {}
    async with transaction(workspace_id) as connection:
        for row in await connection.fetch(SEGMENTS_OF, workspace_id, list(profile_ids)):
            found.setdefault(row["profile_id"], []).append(Entered(to_model(Segment, row), row["entered_at"]))
    return found


# --- checks -------------------------------------------------------------------------------------------------------


async def is_member(workspace_id: UUID, segment_id: UUID, *, external_id: str) -> bool:
    """Whether the person is in the segment now, whatever the segment's status; of EVERYONE, whether they live.

    Whoever was merged is whom they were merged into. False for people who are unknown. Raises SegmentNotFound.
    """
    return (await are_members(workspace_id, segment_id, external_ids=[external_id]))[external_id]


async def are_members(workspace_id: UUID, segment_id: UUID, *, external_ids: Sequence[str]) -> dict[str, bool]:
    """`is_member` of many people, by external id. Raises SegmentNotFound, SegmentError TOO_MANY_ITEMS above 1,000."""
    if len(external_ids) > MOST_PEOPLE:
        message = f"{len(external_ids)} people at once; ask about at most {MOST_PEOPLE}."
        raise SegmentError("TOO_MANY_ITEMS", message, field=("external_ids",))
    found = await check(workspace_id, [segment_id], external_ids)
    if segment_id not in found:
        raise SegmentNotFound(field=("segment_id",))
    return {external_id: external_id in found[segment_id] for external_id in external_ids}


async def member_of(workspace_id: UUID, external_id: str, *, segment_ids: Sequence[UUID]) -> dict[UUID, bool]:
    """`is_member` of one person in many segments, by segment: every flag of a page at once.

    Raises SegmentNotFound, SegmentError TOO_MANY_ITEMS above 100.
    """
    if len(segment_ids) > MOST_SEGMENTS:
        message = f"{len(segment_ids)} segments at once; ask about at most {MOST_SEGMENTS}."
        raise SegmentError("TOO_MANY_ITEMS", message, field=("segment_ids",))
    found = await check(workspace_id, segment_ids, [external_id])
    for place, segment_id in enumerate(segment_ids):
        if segment_id not in found:
            raise SegmentNotFound(field=("segment_ids", str(place)))
    return {segment_id: external_id in found[segment_id] for segment_id in segment_ids}


async def check(workspace_id: UUID, segment_ids: Sequence[UUID], external_ids: Sequence[str]) -> dict[UUID, set[str]]:
    """Who of `external_ids` is in each segment that exists, in one statement."""
    names = [clean_or_none(external_id) for external_id in external_ids]
    async with outside() as connection:
        rows = await connection.fetch(CHECK, workspace_id, list(set(segment_ids)), names, MOST_MERGES)
    return {row["segment_id"]: {external_ids[place - 1] for place in row["members"]} for row in rows}


def clean_or_none(external_id: str) -> str | None:
    """The external id as it would be stored; None for a text that can be nobody's."""
    try:
        return clean_external_id(external_id)
    except ProfileError:
        return None
