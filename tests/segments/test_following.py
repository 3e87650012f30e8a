"""What a change of members outside the pulse brings with it, and who takes the place of whom."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from pyroaring import BitMap

from db.transactions import transaction
from profiles.changes import Moved
from profiles.profiles import ProfileInput
from segments import evaluation, following, lifecycle, static
from segments.bases import Stored
from segments.following import replaced
from segments.lifecycle import SegmentChanges
from segments.membership import Change
from segments.models import Segment
from tests.segments.beats import (
    ON_PREMIUM,
    SECOND,
    Gate,
    GatedEngine,
    asked_for,
    beat,
    evaluated,
    in_segment,
    named,
    settled,
    static_with,
    trait,
    upsert,
    waiting,
)
from tests.segments.factories import PREMIUM, evaluate, make_dynamic, members_of, run_all
from tests.segments.interrupted import request, reread

WAITING = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND locktype IN ('tuple', 'transactionid')"


async def follow(segment: Segment, *changed: int, now: datetime) -> None:
    async with transaction(segment.workspace_id) as connection:
        await following.follow(
            connection,
            workspace_id=segment.workspace_id,
            segment_id=segment.id,
            changed=BitMap(changed),
            now=now,
        )


# --- segments that name the changed one ---------------------------------------------------------------------------


async def test_live_segments_follow_a_static_one_with_the_next_beat(workspace: UUID, now: datetime) -> None:
    [ann, bob] = await named(workspace, "ann", "bob", now=now)
    curated = await static_with(workspace, ann, now=now)
    rest = await make_dynamic(workspace, {"not": in_segment(curated)}, now=now)
    await settled(workspace, now=now)
    assert await members_of(rest) == {bob}
    await static.add_members(workspace, curated.id, external_ids=["bob"], now=now + SECOND)
    await static.remove_members(workspace, curated.id, external_ids=["ann"], now=now + SECOND)
    assert await waiting(workspace) == [("touched", bob), ("touched", ann)]
    await beat(workspace, now=now + 2 * SECOND)
    assert await members_of(rest) == {ann}


async def test_live_segments_follow_a_full_evaluation_of_one_that_is_not_live(workspace: UUID, now: datetime) -> None:
    premium = await make_dynamic(workspace, PREMIUM, now=now, name="premium")
    await lifecycle.update(workspace, premium.id, SegmentChanges(live=False), now=now)
    rest = await make_dynamic(workspace, {"not": in_segment(premium)}, now=now, name="rest")
    [ann] = await named(workspace, "ann", now=now)
    await settled(workspace, now=now)
    assert await members_of(rest) == {ann}
    await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    await beat(workspace, now=now + SECOND)
    assert await members_of(rest) == {ann}
    await evaluate(premium, now=now + 2 * SECOND)
    await beat(workspace, now=now + 3 * SECOND)
    assert (await members_of(premium), await members_of(rest)) == ({ann}, set())


async def test_nobody_is_told_of_a_segment_that_no_live_one_names(workspace: UUID, now: datetime) -> None:
    """Nor of one that is named by those that go by a cadence of their own."""
    [ann] = await named(workspace, "ann", now=now)
    curated = await static_with(workspace, ann, now=now)
    still = await make_dynamic(workspace, in_segment(curated), now=now, name="still")
    await lifecycle.update(workspace, still.id, SegmentChanges(live=False), now=now)
    paused = await make_dynamic(workspace, in_segment(curated), now=now, name="paused")
    await make_dynamic(workspace, PREMIUM, now=now, name="live")
    await settled(workspace, now=now)
    await lifecycle.pause(workspace, paused.id, now=now)
    await follow(curated, ann, now=now)
    assert (await waiting(workspace), await asked_for(workspace)) == ([], [])


async def test_more_than_are_followed_one_by_one_are_left_to_an_evaluation(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MOST_FOLLOWED", 1)
    curated = await static_with(workspace, now=now)
    dependent = await make_dynamic(workspace, in_segment(curated), now=now)
    await settled(workspace, now=now)
    await follow(curated, 1, 2, now=now)
    assert await waiting(workspace) == []
    assert await asked_for(workspace) == [(dependent.id, "DEPENDENCY")]
    assert (await evaluated(workspace))[-1] == {1, 2}


async def test_an_evaluation_that_began_before_a_large_change_counts_it_in(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for while it runs, so no other one follows it."""
    monkeypatch.setattr(following, "MOST_FOLLOWED", 1)
    [ann, bob] = await named(workspace, "ann", "bob", now=now)
    curated = await static_with(workspace, now=now)
    dependent = await make_dynamic(workspace, {"all": [in_segment(curated), {"identified": True}]}, now=now)
    gate = Gate()
    running = asyncio.create_task(run_all(workspace, now=now, engine=GatedEngine(gate)))
    await gate.reached_by(running)
    await static.add_members(workspace, curated.id, external_ids=["ann", "bob"], now=now + SECOND)
    gate.opened.set()
    await running
    assert await members_of(dependent) == {ann, bob}


async def test_nothing_follows_from_no_change(workspace: UUID, now: datetime) -> None:
    curated = await static_with(workspace, now=now)
    await make_dynamic(workspace, in_segment(curated), now=now)
    await settled(workspace, now=now)
    await follow(curated, now=now)
    assert await waiting(workspace) == []


async def test_a_live_segment_follows_through_another_live_one(workspace: UUID, now: datetime) -> None:
    [ann] = await upsert(workspace, ProfileInput("ann", traits={"vip": True}), now=now)
    curated = await static_with(workspace, now=now)
    vips = await make_dynamic(workspace, {"all": [in_segment(curated), trait("vip", "EQUALS", True)]}, now=now)
    rest = await make_dynamic(workspace, {"not": in_segment(vips)}, now=now, name="rest")
    await settled(workspace, now=now)
    assert (await members_of(vips), await members_of(rest)) == (set(), {ann})
    await static.add_members(workspace, curated.id, external_ids=["ann"], now=now + SECOND)
    await beat(workspace, now=now + 2 * SECOND)
    assert (await members_of(vips), await members_of(rest)) == ({ann}, set())


async def test_evaluations_are_held_and_closed_in_one_order(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two segments that name one segment and use one query; the evaluation of the first of them is the younger."""
    [ann] = await named(workspace, "ann", now=now)
    curated = await static_with(workspace, now=now)
    users = [await make_dynamic(workspace, in_segment(curated), now=now, name=name) for name in ("one", "other")]
    first, second = sorted(users, key=lambda one: one.id)
    await settled(workspace, now=now)
    older, younger = await request(second, now), await request(first, now)
    monkeypatch.setattr(following, "MOST_FOLLOWED", 0)
    gate = Gate()

    async def hold() -> None:
        async with transaction(workspace) as connection:
            await connection.fetchval(evaluation.LOCK, workspace, older)
            await gate.wait()

    async def close() -> None:
        async with transaction(workspace) as connection:
            await evaluation.close_open(connection, workspace, [first.id, second.id], code="CHANGED", message="It was.")

    holding = asyncio.create_task(hold())
    await gate.reached_by(holding)
    waiting_in_turn = []
    for one in (follow(curated, ann, now=now), close()):
        waiting_in_turn.append(asyncio.create_task(one))
        await wait_for_locks(workspace, waiting_in_turn)
    gate.opened.set()
    await asyncio.gather(holding, *waiting_in_turn)
    assert [(await reread(workspace, id)).error_code for id in (older, younger)] == ["CHANGED"] * 2


async def wait_for_locks(workspace_id: UUID, tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Return when each of them stands before a lock."""
    async with transaction(workspace_id) as connection:
        while await connection.fetchval(WAITING) < len(tasks):
            assert not any(task.done() for task in tasks)


# --- who takes whose place ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moved", "added", "removed"),
    [
        ([Moved(1, 9)], [9], [1]),
        ([Moved(1, 2)], [], [1]),
        ([Moved(8, 9)], [], []),
        ([Moved(1, None)], [], [1]),
        ([Moved(1, 9), Moved(9, 10)], [10], [1]),
        ([Moved(1, 9), Moved(9, None)], [], [1]),
        ([Moved(8, 1)], [], []),
        ([Moved(1, 9), Moved(2, 9), Moved(3, 9)], [9], [1, 2, 3]),
    ],
    ids=["winner enters", "winner is in", "loser is not in", "erased", "chain", "winner erased", "into member", "many"],
)
def test_the_winner_of_a_merge_takes_the_place_of_the_loser(
    moved: list[Moved], added: list[int], removed: list[int]
) -> None:
    """Members are 1, 2 and 3, kept as a base and deltas."""
    stored = Stored(BitMap([1, 2, 5]), BitMap([3]), BitMap([5]), datetime.now(UTC))
    size = 3 + len(added) - len(removed)
    assert replaced(stored, moved) == Change(size, BitMap(added), BitMap(removed))
