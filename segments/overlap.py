"""How much segments have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import and_, or_
from uuid import UUID

from pyroaring import BitMap

from db.transactions import transaction
from segments import everyone
from segments.asking import current_members
from segments.errors import SegmentError

FEWEST, MOST = 2, 10


@dataclass(frozen=True, slots=True)
class Pair:
    """Two segments, and how many are in both."""

    first_id: UUID
    second_id: UUID
    size: int
    share_of_first: float
    """0 to 1; 0 when the first is empty."""
    share_of_second: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """Sizes of segments and of what they have in common."""

    sizes: dict[UUID, int]
    """In the order asked."""
    pairs: list[Pair]
    """Each two once, in the order asked."""
    in_all: int
    in_any: int


async def overlap(workspace_id: UUID, segment_ids: Sequence[UUID]) -> Overlap:
    """What 2 to 10 segments have in common now, EVERYONE possibly among them.

    Raises SegmentError: INVALID_NUMBER, DUPLICATE, SegmentNotFound, and SEGMENT_NOT_EVALUATED naming the segment.
    """
    if not FEWEST <= len(segment_ids) <= MOST:
        message = f"{len(segment_ids)} segments; give {FEWEST} to {MOST}."
        raise SegmentError("INVALID_NUMBER", message, field=("ids",))
    for place, id in enumerate(segment_ids):
        if id in segment_ids[:place]:
            raise SegmentError("DUPLICATE", "This segment is named twice; name each once.", field=("ids", str(place)))
    async with transaction(workspace_id) as connection:
        named = {id: ("ids", str(place)) for place, id in enumerate(segment_ids)}
        found = await current_members(connection, workspace_id, named)
        members = {
            id: people if people is not None else await everyone.members(connection)
            for id, people in ((id, found[id]) for id in segment_ids)
        }
    return Overlap(
        sizes={id: len(people) for id, people in members.items()},
        pairs=[pair(members, first, second) for first, second in combinations(segment_ids, 2)],
        in_all=len(reduce(and_, members.values())),
        in_any=len(reduce(or_, members.values())),
    )


def pair(members: dict[UUID, BitMap], first_id: UUID, second_id: UUID) -> Pair:
    first, second = members[first_id], members[second_id]
    common = first.intersection_cardinality(second)
    return Pair(
        first_id,
        second_id,
        size=common,
        share_of_first=common / len(first) if first else 0.0,
        share_of_second=common / len(second) if second else 0.0,
    )
