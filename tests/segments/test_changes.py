"""The feed: in order, each change once, nothing missed, whoever commits first."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from db.transactions import apart, transaction
from segments import changes, membership
from segments.changes import Cursor
from segments.errors import SegmentError
from segments.membership import Change
from segments.models import Segment
from tests.segments import factories
from tests.segments.factories import DAY

pytestmark = pytest.mark.usefixtures("lone_database")

Told = tuple[str, int]


@pytest.fixture
async def segment(workspace: UUID, now: datetime) -> Segment:
    return await factories.make_static(workspace, now=now)


async def alter(
    segment: Segment, enter: set[int] | None = None, leave: set[int] | None = None, *, now: datetime
) -> None:
    async with transaction(segment.workspace_id) as connection:
        await membership.alter(
            connection,
            workspace_id=segment.workspace_id,
            segment_id=segment.id,
            enter=BitMap(enter or ()),
            leave=BitMap(leave or ()),
            reason="test",
            now=now,
        )


async def followed(segment: Segment, after: Cursor | None = None, *, limit: int = 1000) -> list[Told]:
    """Everything the feed tells from `after` on, page by page."""
    told: list[Told] = []
    while page := await changes.page(segment.workspace_id, segment.id, after=after, limit=limit):
        assert len(page) <= limit
        told += [(one.kind.value, one.profile_id) for one in page]
        after = page[-1].cursor
    return told


async def test_every_change_is_told_once_in_order_however_small_the_pages(segment: Segment, now: datetime) -> None:
    await alter(segment, {1, 2, 3}, now=now)
    await alter(segment, {5, 4}, {3, 1}, now=now + DAY)
    await alter(segment, {5}, {9}, now=now + 2 * DAY)
    async with transaction(segment.workspace_id) as connection:
        stored = await membership.locked(connection, workspace_id=segment.workspace_id, segment_ids=[segment.id])
        change = {segment.id: Change(2, BitMap(), BitMap([2]), BitMap([4, 5]))}
        await membership.shift(connection, segment.workspace_id, stored, change, reason="pulse", now=now)
    expected = [
        ("ENTERED", 1), ("ENTERED", 2), ("ENTERED", 3), ("EXITED", 1), ("EXITED", 3), ("ENTERED", 4), ("ENTERED", 5),
        ("EXITED", 2), ("RERANKED", 4), ("RERANKED", 5),
    ]  # fmt: skip
    for limit in (1, 2, 3, 100):
        assert await followed(segment, limit=limit) == expected
    first, *_, last = await changes.page(segment.workspace_id, segment.id, after=None, limit=100)
    assert (first.at, first.reason, last.at, last.reason, last.rank_value) == (now, "test", now, "pulse", None)


async def test_the_later_transaction_may_commit_first_and_nothing_is_missed_or_repeated(
    workspace: UUID, now: datetime
) -> None:
    """Two connections: what the slow one wrote first is told first, and until then nothing after it is told."""
    slow, quick = [await factories.make_static(workspace, now=now, name=name) for name in ("slow", "quick")]
    await alter(slow, {1}, now=now)
    seen = await changes.page(workspace, slow.id, after=None, limit=9)
    async with transaction(workspace) as first:
        # Two rows of one segment never overlap, since writers lock it; so the first writes the feed's row by itself.
        await first.execute(
            membership.TELL, workspace, now, "first", [slow.id], *[[BitMap(ids).serialize()] for ids in ([2], [], [])]
        )
        with apart():
            await alter(slow, {3}, now=now)
            await alter(quick, {7}, now=now)
            assert await changes.page(workspace, slow.id, after=seen[-1].cursor, limit=9) == []
            assert await changes.end(workspace, slow.id) == Cursor(seen[-1].cursor.id, *changes.END_OF_ROW)
    later = await changes.page(workspace, slow.id, after=seen[-1].cursor, limit=9)
    assert [(one.profile_id, one.reason) for one in later] == [(2, "first"), (3, "test")]
    assert await followed(quick) == [("ENTERED", 7)]


async def test_changes_are_told_in_the_order_in_which_they_were_made_whichever_transaction_is_older(
    workspace: UUID, now: datetime
) -> None:
    """As a beat that began first and waited for an evaluation: who entered before leaving is out in the end."""
    segment = await factories.make_static(workspace, now=now)
    async with transaction(workspace) as older:
        await older.fetchval("SELECT pg_current_xact_id()")
        with apart():
            await alter(segment, {1}, now=now)
        await alter(segment, leave={1}, now=now + DAY)
    for limit in (1, 9):
        assert await followed(segment, limit=limit) == [("ENTERED", 1), ("EXITED", 1)]


async def test_what_is_rolled_back_is_never_told(segment: Segment, now: datetime) -> None:
    async def alter_and_fail() -> None:
        async with transaction(segment.workspace_id):
            await alter(segment, {1}, now=now)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await alter_and_fail()
    await alter(segment, {2}, now=now)
    assert await followed(segment) == [("ENTERED", 2)]


async def test_a_change_of_very_many_is_told_in_pages(segment: Segment, now: datetime) -> None:
    many = set(range(1, 100_001, 3))
    await alter(segment, many, now=now)
    await alter(segment, {2}, now=now)
    assert await followed(segment, limit=5000) == [("ENTERED", id) for id in [*sorted(many), 2]]


async def test_pages_go_on_over_rows_that_are_too_large_to_read_together(
    segment: Segment, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MOST_BYTES", 1)
    for id in range(1, 9):
        await alter(segment, {id}, now=now)
    assert await followed(segment, limit=5) == [("ENTERED", id) for id in range(1, 9)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.frozensets(st.integers(1, 6)), st.frozensets(st.integers(1, 6))), max_size=6),
    limit=st.integers(1, 4),
)
async def test_whoever_follows_the_feed_knows_the_members(
    workspace: UUID, now: datetime, steps: list[tuple[frozenset[int], frozenset[int]]], limit: int
) -> None:
    segment = await factories.make_static(workspace, now=now, name=uuid4().hex)
    after: Cursor | None = None
    known: set[int] = set()
    for day, (enter, leave) in enumerate(steps):
        await alter(segment, set(enter), set(leave), now=now + day * DAY)
        while page := await changes.page(workspace, segment.id, after=after, limit=limit):
            for one in page:
                (known.remove if one.kind.value == "EXITED" else known.add)(one.profile_id)
            after = page[-1].cursor
        assert known == await factories.members_of(segment)


async def test_the_end_of_the_feed_is_where_news_begin(segment: Segment, now: datetime) -> None:
    assert await changes.end(segment.workspace_id, segment.id) is None
    await alter(segment, {1, 2}, now=now)
    end = await changes.end(segment.workspace_id, segment.id)
    assert await followed(segment, end) == []
    await alter(segment, {3}, now=now)
    assert await followed(segment, end) == [("ENTERED", 3)]


async def test_changes_are_kept_thirty_days_and_a_cursor_into_what_is_gone_is_refused(
    segment: Segment, now: datetime
) -> None:
    for day in range(4):
        await alter(segment, {day + 1}, now=now + day * DAY)
    first, second, third, fourth = [
        one.cursor for one in await changes.page(segment.workspace_id, segment.id, after=None, limit=9)
    ]
    assert await changes.forget(segment.workspace_id, now=now + timedelta(days=32)) == 2
    for gone in (first, second):
        with pytest.raises(SegmentError) as refusal:
            await changes.page(segment.workspace_id, segment.id, after=gone, limit=9)
        assert (refusal.value.code, refusal.value.field) == ("CURSOR_TOO_OLD", ("after",))
    assert await followed(segment, third) == [("ENTERED", 4)]
    # The newest stays for ever: whoever has read all of a quiet segment goes on from where they are.
    assert await changes.forget(segment.workspace_id, now=now + timedelta(days=400)) == 1
    assert await followed(segment, fourth) == []
    await alter(segment, {9}, now=now + timedelta(days=400))
    assert await followed(segment, fourth) == [("ENTERED", 9)]


async def test_a_row_that_looks_old_but_stands_after_a_young_one_is_kept(segment: Segment, now: datetime) -> None:
    await alter(segment, {1}, now=now)
    await alter(segment, {2}, now=now - timedelta(days=60))
    await alter(segment, {3}, now=now)
    assert await changes.forget(segment.workspace_id, now=now) == 0
    assert await followed(segment) == [("ENTERED", 1), ("ENTERED", 2), ("ENTERED", 3)]


async def test_another_tenant_is_told_nothing_and_a_deleted_segment_tells_nothing(
    segment: Segment, other_workspace: UUID, now: datetime
) -> None:
    await alter(segment, {1}, now=now)
    assert await changes.page(other_workspace, segment.id, after=None, limit=9) == []
    assert await changes.end(other_workspace, segment.id) is None
    async with transaction(segment.workspace_id) as connection:
        await membership.forget(connection, workspace_id=segment.workspace_id, segment_id=segment.id)
    assert await followed(segment) == []
