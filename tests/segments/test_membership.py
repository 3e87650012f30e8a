"""Bitmaps and intervals: the difference only, both or neither, and proof that they agree."""

import asyncio
from collections.abc import Collection
from datetime import datetime
from uuid import UUID, uuid4

import pytest
from asyncpg import Record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from db.transactions import Connection, transaction
from segments import bases, everyone, members, membership
from segments.bases import Bases, Stored
from segments.errors import SegmentNotFound
from segments.members import Member, Place
from segments.membership import Change, Mismatch
from segments.models import Segment
from tests.segments import factories
from tests.segments.factories import DAY, Person

STORED = "SELECT base, added, removed, version, size, evaluated_at FROM segment_membership WHERE segment_id = $1"


@pytest.fixture
async def segment(workspace: UUID, now: datetime) -> Segment:
    return await factories.make_static(workspace, now=now)


async def apply(segment: Segment, *ids: int, now: datetime) -> Change:
    async with transaction(segment.workspace_id) as connection:
        return await membership.apply(
            connection,
            workspace_id=segment.workspace_id,
            segment_id=segment.id,
            members=BitMap(ids),
            reason="test",
            now=now,
        )


async def alter(segment: Segment, *, enter: set[int] = set(), leave: set[int] = set(), now: datetime) -> Change:  # noqa: B006
    async with transaction(segment.workspace_id) as connection:
        return await membership.alter(
            connection,
            workspace_id=segment.workspace_id,
            segment_id=segment.id,
            enter=BitMap(enter),
            leave=BitMap(leave),
            reason="test",
            now=now,
        )


async def stored(segment: Segment) -> Record:
    async with transaction(segment.workspace_id) as connection:
        return await connection.fetchrow(STORED, segment.id)


def bits(row: Record) -> tuple[set[int], set[int], set[int]]:
    base, added, removed = (set(BitMap.deserialize(row[column])) for column in ("base", "added", "removed"))
    return base, added, removed


async def test_applying_writes_an_interval_for_each_difference_and_nothing_else(
    segment: Segment, now: datetime
) -> None:
    await apply(segment, 1, 2, 3, now=now)
    change = await apply(segment, 2, 3, 4, now=now + DAY)
    assert change == Change(size=3, added=BitMap([4]), removed=BitMap([1]))
    assert await factories.members_of(segment) == {2, 3, 4}
    assert await factories.intervals_of(segment) == [
        (1, False, "test", "test"),
        (2, True, "test", None),
        (3, True, "test", None),
        (4, True, "test", None),
    ]
    assert await membership.verify(segment.workspace_id) == []


async def test_who_comes_back_gets_a_new_interval(segment: Segment, now: datetime) -> None:
    for day, ids in enumerate(([1], [], [1])):
        await apply(segment, *ids, now=now + day * DAY)
    assert [(id, open) for id, open, *_ in await factories.intervals_of(segment)] == [(1, False), (1, True)]


async def test_who_comes_back_within_the_same_instant_was_never_away(segment: Segment, now: datetime) -> None:
    for ids in ([1, 2], [2], [1, 2]):
        await apply(segment, *ids, now=now)
    assert [(id, open) for id, open, *_ in await factories.intervals_of(segment)] == [(1, True), (2, True)]
    assert await membership.verify(segment.workspace_id) == []


async def test_no_difference_writes_no_bitmap(segment: Segment, now: datetime) -> None:
    await apply(segment, 1, 2, now=now)
    before = await stored(segment)
    assert await apply(segment, 1, 2, now=now + DAY) == Change(size=2, added=BitMap(), removed=BitMap())
    after = await stored(segment)
    assert (after["version"], after["base"]) == (before["version"], before["base"])
    assert (before["evaluated_at"], after["evaluated_at"]) == (now, now + DAY)


async def test_small_changes_are_deltas_until_the_next_full_evaluation(segment: Segment, now: datetime) -> None:
    await apply(segment, 1, 2, 3, now=now)
    await alter(segment, enter={4, 5, 2}, leave={1, 9}, now=now)
    assert bits(await stored(segment)) == ({1, 2, 3}, {4, 5}, {1})
    await alter(segment, enter={1}, leave={4}, now=now)
    assert bits(await stored(segment)) == ({1, 2, 3}, {5}, set())
    assert await factories.members_of(segment) == {1, 2, 3, 5}
    await apply(segment, 1, 2, 5, now=now)
    assert bits(await stored(segment)) == ({1, 2, 5}, set(), set())
    assert await membership.verify(segment.workspace_id) == []


async def test_many_small_changes_are_folded_into_the_base(segment: Segment, now: datetime) -> None:
    change = await alter(segment, enter=set(range(1, membership.FOLD_ABOVE + 2)), now=now)
    base, added, removed = bits(await stored(segment))
    assert (len(base), added, removed) == (change.size, set(), set())
    assert change.size == membership.FOLD_ABOVE + 1


async def test_who_is_to_enter_and_to_leave_is_not_in(segment: Segment, now: datetime) -> None:
    await apply(segment, 1, now=now)
    change = await alter(segment, enter={1, 2}, leave={1, 2}, now=now)
    assert change == Change(size=0, added=BitMap(), removed=BitMap([1]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.frozensets(st.integers(1, 12)), st.frozensets(st.integers(1, 12))), max_size=6
    )
)
async def test_bitmap_and_intervals_agree_after_any_history(
    workspace: UUID, now: datetime, steps: list[tuple[bool, frozenset[int], frozenset[int]]]
) -> None:
    segment = await factories.make_static(workspace, now=now, name=uuid4().hex)
    expected: set[int] = set()
    for full, some, others in steps:
        if full:
            await apply(segment, *some, now=now)
            expected = set(some)
        else:
            await alter(segment, enter=set(some), leave=set(others), now=now)
            expected = (expected | some) - others
    assert await factories.members_of(segment) == expected
    assert {id for id, open, *_ in await factories.intervals_of(segment) if open} == expected
    assert await membership.verify(workspace) == []
    async with transaction(workspace) as connection:
        await connection.execute("DELETE FROM segment WHERE id = $1", segment.id)
        await connection.execute("DELETE FROM membership WHERE segment_id = $1", segment.id)


async def test_what_fails_half_way_leaves_bitmap_and_intervals_as_they_were(segment: Segment, now: datetime) -> None:
    await apply(segment, 1, now=now)

    async def apply_and_fail() -> None:
        async with transaction(segment.workspace_id):
            await apply(segment, 2, now=now)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await apply_and_fail()
    assert await factories.members_of(segment) == {1}
    assert [id for id, open, *_ in await factories.intervals_of(segment) if open] == [1]


async def test_first_writers_of_a_segment_take_turns(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    await asyncio.gather(*(alter(segment, enter={id}, now=now) for id in range(1, 9)))
    assert await factories.members_of(segment) == set(range(1, 9))
    assert await membership.verify(workspace) == []


async def test_a_segment_that_is_not_there_has_no_members_to_change(workspace: UUID, now: datetime) -> None:
    async with transaction(workspace) as connection:
        assert await membership.load(connection, uuid4()) is None
        with pytest.raises(SegmentNotFound):
            await membership.lock(connection, workspace_id=workspace, segment_id=uuid4())


async def test_never_evaluated_is_not_empty(workspace: UUID, now: datetime) -> None:
    """S2-25."""
    dynamic, static = await factories.make_dynamic(workspace, now=now), await factories.make_static(workspace, now=now)
    async with transaction(workspace) as connection:
        loaded = await membership.load_many(connection, [dynamic.id, static.id, await everyone.segment_id(connection)])
    assert loaded == {static.id: BitMap()}


async def test_members_are_paged_by_profile_id(segment: Segment, now: datetime) -> None:
    await apply(segment, 5, 3, 9, now=now)
    await apply(segment, 3, 9, 11, now=now + DAY)

    async def page(after: int | None, limit: int) -> list[Member]:
        return await members.page(
            segment.workspace_id, segment.id, after=None if after is None else Place(after), limit=limit
        )

    assert await page(None, 2) == [Member(3, now), Member(9, now)]
    assert await page(9, 2) == [Member(11, now + DAY)]
    assert await page(11, 2) == []


async def test_a_profile_knows_its_segments_and_a_segment_its_profiles(workspace: UUID, now: datetime) -> None:
    """S3-28: only members are in, whatever the size of the segment."""
    people = [Person(external_id=name) for name in ("one", "two", "dead")]
    one, two, dead = await factories.make_people(workspace, *people)
    await factories.erase(workspace, dead)
    first, second = [await factories.make_static(workspace, now=now, name=name) for name in ("first", "second")]
    await apply(first, one, two, now=now)
    await apply(second, one, now=now + DAY)
    await apply(first, one, now=now)

    entered = await members.segments_of_profiles(workspace, [one, two, 2**31 - 1])
    assert {
        profile_id: [(each.segment.name, each.entered_at) for each in of_one] for profile_id, of_one in entered.items()
    } == {one: [("first", now), ("second", now + DAY)]}
    assert await members.is_member(workspace, first.id, external_id="one")
    assert not await members.is_member(workspace, first.id, external_id="two")
    with pytest.raises(SegmentNotFound):
        await members.is_member(workspace, uuid4(), external_id="one")
    async with transaction(workspace) as connection:
        everybody = await everyone.segment_id(connection)
    assert await members.is_member(workspace, everybody, external_id="two")
    assert not await members.is_member(workspace, everybody, external_id="dead")


async def test_another_tenant_sees_no_members(segment: Segment, other_workspace: UUID, now: datetime) -> None:
    (one,) = await factories.make_people(segment.workspace_id, Person())
    await apply(segment, one, now=now)
    async with transaction(other_workspace) as connection:
        assert await membership.load(connection, segment.id) is None
    assert await members.page(other_workspace, segment.id, after=None, limit=9) == []
    with pytest.raises(SegmentNotFound):
        await members.is_member(other_workspace, segment.id, external_id="one")
    assert await members.segments_of_profiles(other_workspace, [one]) == {}
    assert await membership.verify(other_workspace) == []


async def test_verify_tells_what_disagrees(segment: Segment, now: datetime) -> None:
    await apply(segment, 1, 2, 3, now=now)
    orphan = uuid4()
    async with transaction(segment.workspace_id) as connection:
        await connection.execute("UPDATE membership SET exited_at = now() WHERE profile_id IN (1, 2)")
        await connection.execute(
            "INSERT INTO membership (workspace_id, segment_id, profile_id, entered_at, reason)"
            " VALUES ($1, $2, 4, now(), 'x'), ($1, $3, 5, now(), 'x')",
            segment.workspace_id,
            segment.id,
            orphan,
        )
    assert {one.segment_id: one for one in await membership.verify(segment.workspace_id)} == {
        segment.id: Mismatch(segment.id, only_in_bitmap=2, only_in_intervals=1, size=3, members=3),
        orphan: Mismatch(orphan, only_in_bitmap=0, only_in_intervals=1, size=None, members=0),
    }
    async with transaction(segment.workspace_id) as connection:
        await connection.execute("DELETE FROM membership")
        await connection.execute("UPDATE segment_membership SET base = $1, size = 7", BitMap().serialize())
    assert await membership.verify(segment.workspace_id) == [
        Mismatch(segment.id, only_in_bitmap=0, only_in_intervals=0, size=7, members=0)
    ]


async def test_a_base_of_a_transaction_that_was_rolled_back_is_never_taken_for_a_later_one(
    segment: Segment, now: datetime
) -> None:
    await apply(segment, 1, 2, now=now)

    async def apply_read_and_fail() -> None:
        async with transaction(segment.workspace_id) as connection:
            await apply(segment, 3, now=now + DAY)
            assert await membership.load(connection, segment.id) == BitMap([3])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await apply_read_and_fail()
    assert await factories.members_of(segment) == {1, 2}
    await apply(segment, 4, now=now + DAY)
    assert await factories.members_of(segment) == {4}


async def test_a_base_is_read_once_and_what_is_handed_out_is_the_callers_own(
    segment: Segment, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply(segment, 1, 2, now=now)
    read: list[UUID] = []
    monkeypatch.setattr(bases, "BASES", Bases())

    async def reading(connection: Connection, segment_ids: Collection[UUID]) -> dict[UUID, Stored]:
        read.extend(segment_ids)
        return await whole(connection, segment_ids)

    whole = bases.read_whole
    monkeypatch.setattr(bases, "read_whole", reading)
    async with transaction(segment.workspace_id) as connection:
        for _ in range(2):
            members = await membership.load(connection, segment.id)
            assert members == BitMap([1, 2])
            members.add(77)
        await alter(segment, enter={5}, now=now)
        assert await membership.load(connection, segment.id) == BitMap([1, 2, 5])
        assert read == [segment.id]
        await apply(segment, 6, now=now)
        assert await membership.load(connection, segment.id) == BitMap([6])
        assert read == [segment.id, segment.id]


def test_bases_are_kept_up_to_so_many_bytes_the_latest_used_longest() -> None:
    kept = Bases(most_bytes=10)
    one, two, three, four = (uuid4() for _ in range(4))
    kept.keep(one, 1, b"aaaa")
    kept.keep(two, 1, b"bbbb")
    assert kept.find(one, 1) == b"aaaa"
    kept.keep(three, 1, b"cccc")
    kept.keep(four, 1, b"far too long")
    assert [kept.find(*key) for key in ((one, 1), (one, 2), (two, 1), (three, 1), (four, 1))] == [
        b"aaaa", None, None, b"cccc", None,
    ]  # fmt: skip
    assert kept.bytes == 8


@pytest.mark.parametrize("again", [False, True])
async def test_whoever_comes_back_within_one_instant_goes_on(segment: Segment, now: datetime, again: bool) -> None:
    """Though intervals are written without looking for such where there can be none."""
    await apply(segment, *([1, 2, 3] if again else []), now=now)
    await apply(segment, now=now)
    change = await alter(segment, enter={1, 2, 3, 4}, now=now if again else now + DAY)
    assert change == Change(size=4, added=BitMap([1, 2, 3, 4]), removed=BitMap())
    assert await factories.intervals_of(segment) == [(id, True, "test", None) for id in (1, 2, 3, 4)]
    assert await membership.verify(segment.workspace_id) == []


async def test_many_segments_change_in_one_go_and_those_that_stay_are_not_written(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "FOLD_ABOVE", 3)
    small, large, quiet, ranked = segments = [
        await factories.make_static(workspace, now=now, name=name) for name in ("small", "large", "quiet", "ranked")
    ]
    for one in segments:
        await apply(one, 1, 2, now=now)
    before = {one.id: await stored(one) for one in segments}
    async with transaction(workspace) as connection:
        rows = await membership.locked(connection, workspace_id=workspace, segment_ids=[one.id for one in segments])
        changes = {
            small.id: Change(2, BitMap([3]), BitMap([1])),
            large.id: Change(6, BitMap([3, 4, 5, 6]), BitMap()),
            quiet.id: Change(2, BitMap(), BitMap()),
            ranked.id: Change(2, BitMap(), BitMap(), BitMap([2])),
        }
        await membership.shift(connection, workspace, rows, changes, reason="pulse", now=now + DAY)
        told = await connection.fetch("SELECT segment_id FROM membership_change WHERE reason = 'pulse'")
    assert [await factories.members_of(one) for one in segments] == [{2, 3}, {1, 2, 3, 4, 5, 6}, {1, 2}, {1, 2}]
    assert bits(await stored(small)) == ({1, 2}, {3}, {1})
    assert bits(await stored(large)) == ({1, 2, 3, 4, 5, 6}, set(), set())
    assert [await stored(one) == before[one.id] for one in segments] == [False, False, True, True]
    assert {row["segment_id"] for row in told} == {small.id, large.id, ranked.id}
    assert await membership.verify(workspace) == []


async def test_a_person_who_was_merged_is_asked_about_by_either_id(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_static(workspace, now=now)
    names = ["first", "second", "third"]
    one, two, three = await factories.make_people(workspace, *(Person(external_id=name) for name in names))
    await factories.merge(workspace, loser=one, winner=two)
    await factories.merge(workspace, loser=two, winner=three)
    await apply(segment, three, now=now)
    asked = [*names, " first ", "\0", "\ud800"]
    assert await members.are_members(workspace, segment.id, external_ids=asked) == {
        "first": True, "second": True, "third": True, " first ": True, "\0": False, "\ud800": False,
    }  # fmt: skip
