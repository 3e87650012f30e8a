"""Ranked segments: a row for all who match, the first of them members, and only differences written."""

from array import array
from collections.abc import Mapping
from datetime import datetime
from math import inf
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from db.transactions import Connection, transaction
from profiles.changes import Moved
from segments import changes, members, membership, ranking, ranks
from segments.engines.base import Ranks
from segments.errors import SegmentError
from segments.members import MemberOrder, Place
from segments.models import Segment
from segments.nodes import ByTrait, Direction, Ranking
from segments.ranks import Ranked
from tests.segments import factories

pytestmark = pytest.mark.usefixtures("lone_database")

STORED = "SELECT profile_id, order_value, xmin::text AS written FROM segment_rank WHERE segment_id = $1"
SET_RANKING = "UPDATE segment SET ranking = $2 WHERE id = $1"
BY_VALUE = Ranking(ByTrait("value"))


async def ranked_segment(workspace: UUID, by: Ranking, *, now: datetime, name: str = "ranked") -> Segment:
    segment = await factories.make_dynamic(workspace, now=now, name=name)
    async with transaction(workspace) as connection:
        await connection.execute(SET_RANKING, segment.id, ranking.to_json(by))
    return segment


def values_of(values: Mapping[int, float]) -> Ranks:
    ids = sorted(values)
    return Ranks(array("I", ids), array("d", [values[id] for id in ids]))


async def replace(
    segment: Segment, matched: set[int], values: Mapping[int, float], by: Ranking, *, now: datetime
) -> Ranked:
    """What a full evaluation does."""
    keys = {"workspace_id": segment.workspace_id, "segment_id": segment.id}
    async with transaction(segment.workspace_id) as connection:
        stored = await membership.lock(connection, **keys)
        found = await ranks.replace(connection, **keys, matched=BitMap(matched), ranks=values_of(values), ranking=by)
        await membership.apply(
            connection, **keys, members=found.members, reranked=found.reranked, reason="test", now=now, stored=stored
        )
    return found


async def update(
    segment: Segment, asked: set[int], matched: set[int], values: Mapping[int, float], by: Ranking, *, now: datetime
) -> Ranked:
    """What a pulse does."""
    keys = {"workspace_id": segment.workspace_id, "segment_id": segment.id}
    async with transaction(segment.workspace_id) as connection:
        stored = await membership.lock(connection, **keys)
        assert stored is not None
        found = await ranks.update(
            connection,
            **keys,
            before=stored.members,
            asked=BitMap(asked),
            matched=BitMap(matched),
            ranks=values_of(values),
            ranking=by,
        )
        await membership.apply(
            connection, **keys, members=found.members, reranked=found.reranked, reason="test", now=now, stored=stored
        )
    return found


async def stored(segment: Segment) -> dict[int, tuple[float, str]]:
    async with transaction(segment.workspace_id) as connection:
        rows = await connection.fetch(STORED, segment.id)
    return {row["profile_id"]: (row["order_value"], row["written"]) for row in rows}


async def order_values(segment: Segment) -> dict[int, float]:
    return {id: value for id, (value, _) in (await stored(segment)).items()}


async def listed(segment: Segment, *, limit: int = 100) -> list[tuple[int, int | None, float | None]]:
    """(profile, rank, value) of the members in rank order, page by page."""
    out: list[tuple[int, int | None, float | None]] = []
    after: Place | None = None
    while page := await members.page(
        segment.workspace_id, segment.id, after=after, limit=limit, order=MemberOrder.RANK
    ):
        out += [(one.profile_id, one.rank, one.rank_value) for one in page]
        after = page[-1].place
    return out


async def test_all_who_match_are_ranked_and_the_first_are_members(workspace: UUID, now: datetime) -> None:
    by = Ranking(ByTrait("value"), top=2)
    segment = await ranked_segment(workspace, by, now=now)
    found = await replace(segment, {1, 2, 3, 4}, {1: 5.0, 2: 9.5, 3: 5.0, 99: 100.0}, by, now=now)
    assert found == Ranked(BitMap([1, 2]), BitMap())
    assert await order_values(segment) == {1: 5.0, 2: 9.5, 3: 5.0, 4: -inf}
    assert await listed(segment) == [(2, 1, 9.5), (1, 2, 5.0)]
    assert await membership.verify(workspace) == []


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_ascending_ranks_the_smallest_first_and_no_value_last(workspace: UUID, now: datetime, limit: int) -> None:
    by = Ranking(ByTrait("value"), Direction.ASC)
    segment = await ranked_segment(workspace, by, now=now)
    await replace(segment, {1, 2, 3, 4, 5}, {1: 3.0, 2: -7.0, 3: 0.0}, by, now=now)
    assert await listed(segment, limit=limit) == [(2, 1, -7.0), (3, 2, 0.0), (1, 3, 3.0), (4, 4, None), (5, 5, None)]


async def test_only_what_is_different_is_written(workspace: UUID, now: datetime) -> None:
    segment = await ranked_segment(workspace, BY_VALUE, now=now)
    await replace(segment, {1, 2, 3, 4}, {1: 1.0, 2: 2.0, 3: 3.0}, BY_VALUE, now=now)
    before = await stored(segment)
    found = await replace(segment, {1, 2, 4, 5}, {1: 1.0, 2: 8.0, 5: 2.0}, BY_VALUE, now=now)
    assert found == Ranked(BitMap([1, 2, 4, 5]), BitMap([2]))
    after = await stored(segment)
    assert {id for id in after if after[id] == before.get(id)} == {1, 4}
    assert await order_values(segment) == {1: 1.0, 2: 8.0, 4: -inf, 5: 2.0}


async def test_a_change_of_rank_is_told_of_members_only(workspace: UUID, now: datetime) -> None:
    by = Ranking(ByTrait("value"), top=2)
    segment = await ranked_segment(workspace, by, now=now)
    await replace(segment, {1, 2, 3, 4}, {1: 9.0, 2: 8.0, 3: 7.0, 4: 6.0}, by, now=now)
    await update(segment, {1, 4}, {1, 4}, {1: 10.0, 4: 6.5}, by, now=now)
    # 4 rises over 2, who falls out; 1 stays with another value, 3 never was in.
    await update(segment, {1, 3, 4}, {1, 3, 4}, {1: 11.0, 3: 7.5, 4: 9.9}, by, now=now)
    told = await changes.page(workspace, segment.id, after=None, limit=100)
    assert [(one.kind.value, one.profile_id, one.rank_value) for one in told] == [
        ("ENTERED", 1, 11.0), ("ENTERED", 2, 8.0), ("RERANKED", 1, 11.0), ("EXITED", 2, None), ("ENTERED", 4, 9.9),
        ("RERANKED", 1, 11.0),
    ]  # fmt: skip
    assert await membership.verify(workspace) == []


async def test_whoever_is_next_comes_up_when_a_member_stops_matching(workspace: UUID, now: datetime) -> None:
    by = Ranking(ByTrait("value"), top=2)
    segment = await ranked_segment(workspace, by, now=now)
    await replace(segment, {1, 2, 3}, {1: 9.0, 2: 8.0, 3: 7.0}, by, now=now)
    assert await update(segment, {1}, set(), {}, by, now=now) == Ranked(BitMap([2, 3]), BitMap())
    assert await listed(segment) == [(2, 1, 8.0), (3, 2, 7.0)]


async def test_a_pulse_that_finds_nothing_new_leaves_the_members(workspace: UUID, now: datetime) -> None:
    by = Ranking(ByTrait("value"), top=1)
    segment = await ranked_segment(workspace, by, now=now)
    await replace(segment, {1, 2}, {1: 9.0, 2: 8.0}, by, now=now)
    assert await update(segment, {2, 3}, {2}, {2: 8.0}, by, now=now) == Ranked(BitMap([1]), BitMap())


async def test_the_first_are_read_anew_only_when_somebody_may_have_come_over_the_cut(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = Ranking(ByTrait("value"), top=2)
    segment = await ranked_segment(workspace, by, now=now)
    values = {1: 9.0, 2: 8.0, 3: 5.0, 4: 4.0}
    await replace(segment, set(values), values, by, now=now)
    reads: list[int] = []
    read = ranks.top

    async def counted(connection: Connection, workspace_id: UUID, segment_id: UUID, most: int) -> BitMap:
        reads.append(most)
        return await read(connection, workspace_id, segment_id, most)

    monkeypatch.setattr(ranks, "top", counted)
    # Members rise, others rise below them, fall, go and come.
    for moved in ({1: 10.0}, {3: 7.0, 4: 7.5}, {4: 1.0}, {4: None}, {5: 8.0}, {1: 11.0, 6: 7.9}):
        found = {id: value for id, value in moved.items() if value is not None}
        assert (await update(segment, set(moved), set(found), found, by, now=now)).members == BitMap([1, 2])
    assert reads == []
    # A member falls; somebody rises over one who does not move, and over one who rises too.
    assert (await update(segment, {2}, {2}, {2: 7.95}, by, now=now)).members == BitMap([1, 5])
    assert (await update(segment, {6}, {6}, {6: 8.1}, by, now=now)).members == BitMap([1, 6])
    assert (await update(segment, {2, 6}, {2, 6}, {2: 8.3, 6: 8.2}, by, now=now)).members == BitMap([1, 2])
    assert reads == [2, 2, 2]
    assert await membership.verify(workspace) == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    top=st.none() | st.integers(1, 4),
    direction=st.sampled_from(Direction),
    steps=st.lists(
        st.tuples(
            st.booleans(),
            st.dictionaries(st.integers(1, 8), st.none() | st.none() | st.sampled_from([0.0, -1.5, 2.0, 3.0])),
            st.frozensets(st.integers(1, 8)),
        ),
        min_size=1,
        max_size=5,
    ),
)
async def test_members_are_the_first_of_the_order_after_any_history(
    workspace: UUID,
    now: datetime,
    top: int | None,
    direction: Direction,
    steps: list[tuple[bool, dict[int, float | None], frozenset[int]]],
) -> None:
    by = Ranking(ByTrait("value"), direction, top)
    segment = await ranked_segment(workspace, by, now=now, name=uuid4().hex)
    truth: dict[int, float | None] = {}
    for place, (full, matched, asked) in enumerate(steps):
        values = {id: value for id, value in matched.items() if value is not None}
        if full or place == 0:
            truth = dict(matched)
            await replace(segment, set(matched), values, by, now=now)
        else:
            found = {id: value for id, value in matched.items() if id in asked}
            truth = {id: value for id, value in truth.items() if id not in asked} | found
            await update(segment, set(asked), set(found), values, by, now=now)
    sign = 1 if direction is Direction.DESC else -1
    order = sorted(truth, key=lambda one: (inf if truth[one] is None else -sign * (truth[one] or 0.0), one))[:top]
    assert await listed(segment, limit=2) == [(id, place, truth[id]) for place, id in enumerate(order, start=1)]
    assert await membership.verify(workspace) == []
    async with transaction(workspace) as connection:
        await connection.execute("DELETE FROM evaluation WHERE segment_id = $1", segment.id)
        await connection.execute("DELETE FROM segment WHERE id = $1", segment.id)
        await membership.forget(connection, workspace_id=workspace, segment_id=segment.id)


async def test_a_winner_takes_the_better_place_and_the_erased_have_none(workspace: UUID, now: datetime) -> None:
    segment = await ranked_segment(workspace, BY_VALUE, now=now)
    await replace(segment, {1, 2, 3, 4}, {1: 9.0, 2: 1.0, 3: 5.0, 4: 2.0}, BY_VALUE, now=now)
    async with transaction(workspace) as connection:
        moved = [Moved(1, 2), Moved(3, 7), Moved(4, None), Moved(55, 3)]
        await ranks.move(connection, workspace_id=workspace, segment_ids=[segment.id], moved=moved)
    assert await order_values(segment) == {2: 9.0, 7: 5.0}


async def test_clearing_forgets_one_segments_order(workspace: UUID, now: datetime) -> None:
    one, other = [await ranked_segment(workspace, BY_VALUE, now=now, name=name) for name in ("one", "other")]
    for segment in (one, other):
        await replace(segment, {1}, {1: 1.0}, BY_VALUE, now=now)
    async with transaction(workspace) as connection:
        await ranks.clear(connection, workspace_id=workspace, segment_id=one.id)
    assert (await order_values(one), await order_values(other)) == ({}, {1: 1.0})


async def test_ranks_are_of_ranked_segments_and_of_now(workspace: UUID, now: datetime) -> None:
    plain = await factories.make_static(workspace, now=now, name="plain")
    ranked = await ranked_segment(workspace, BY_VALUE, now=now)
    for segment, as_of, code in ((plain, None, "NOT_RANKED"), (ranked, now, "RANK_IS_OF_NOW")):
        with pytest.raises(SegmentError) as refusal:
            await members.page(workspace, segment.id, after=None, limit=9, order=MemberOrder.RANK, as_of=as_of)
        assert refusal.value.code == code


async def test_verify_tells_of_members_who_are_not_the_first(workspace: UUID, now: datetime) -> None:
    by = Ranking(ByTrait("value"), top=2)
    segment = await ranked_segment(workspace, by, now=now)
    await replace(segment, {1, 2, 3}, {1: 9.0, 2: 8.0, 3: 7.0}, by, now=now)
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE segment_rank SET order_value = 10 WHERE profile_id = 3")
    (found,) = await membership.verify(workspace)
    assert (found.segment_id, found.out_of_order, found.only_in_bitmap) == (segment.id, 2, 0)
