"""How much segments have in common."""

from datetime import datetime
from uuid import UUID, uuid4

import pytest

from db.transactions import transaction
from segments import everyone, overlap, static
from segments.errors import SegmentError
from segments.overlap import Overlap, Pair
from tests.segments import factories
from tests.segments.factories import Person


async def listed(workspace_id: UUID, names: str, *, now: datetime) -> UUID:
    """A static segment of these people."""
    segment = await factories.make_static(workspace_id, now=now, name=f"list of {names or 'nobody'}")
    await static.add_members(workspace_id, segment.id, external_ids=list(names), now=now)
    return segment.id


async def test_sizes_pairs_and_the_whole_are_told(workspace: UUID, now: datetime) -> None:
    await factories.make_people(workspace, *(Person(external_id=name) for name in "abcdef"))
    one = await listed(workspace, "abcd", now=now)
    two = await listed(workspace, "cde", now=now)
    none = await listed(workspace, "", now=now)
    async with transaction(workspace) as connection:
        everybody = await everyone.segment_id(connection)
    assert await overlap.overlap(workspace, [one, two]) == Overlap(
        sizes={one: 4, two: 3}, pairs=[Pair(one, two, 2, 0.5, 2 / 3)], in_all=2, in_any=5
    )
    assert await overlap.overlap(workspace, [everybody, none, one]) == Overlap(
        sizes={everybody: 6, none: 0, one: 4},
        pairs=[Pair(everybody, none, 0, 0.0, 0.0), Pair(everybody, one, 4, 4 / 6, 1.0), Pair(none, one, 0, 0.0, 0.0)],
        in_all=0,
        in_any=6,
    )


async def test_a_segment_that_was_never_evaluated_is_refused_by_name(workspace: UUID, now: datetime) -> None:
    one = await listed(workspace, "", now=now)
    waiting = await factories.make_dynamic(workspace, now=now, name="Premium")
    with pytest.raises(SegmentError) as refusal:
        await overlap.overlap(workspace, [one, waiting.id])
    assert (refusal.value.code, refusal.value.field) == ("SEGMENT_NOT_EVALUATED", ("ids", "1"))
    assert "'Premium'" in refusal.value.message


async def test_two_to_ten_segments_are_compared_each_once(workspace: UUID, now: datetime) -> None:
    one = await listed(workspace, "", now=now)
    for ids, code, field in (
        ([one], "INVALID_NUMBER", ("ids",)),
        ([uuid4() for _ in range(11)], "INVALID_NUMBER", ("ids",)),
        ([one, one], "DUPLICATE", ("ids", "1")),
        ([one, uuid4()], "NOT_FOUND", ("ids", "1")),
    ):
        with pytest.raises(SegmentError) as refusal:
            await overlap.overlap(workspace, ids)
        assert (refusal.value.code, refusal.value.field) == (code, field)
