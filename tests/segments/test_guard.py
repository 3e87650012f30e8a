"""The change guard: an evaluation that would empty a segment waits until somebody lets it through."""

from datetime import datetime
from uuid import UUID

import pytest

from db.transactions import transaction
from profiles.patches import ProfileInput
from segments import cycles, evaluation, guard, lifecycle, membership
from segments.errors import EvaluationNotFound, SegmentError
from segments.lifecycle import SegmentChanges
from segments.models import Evaluation, EvaluationStatus, Segment
from tests.segments import factories
from tests.segments.beats import drain, upsert
from tests.segments.factories import ON_PREMIUM, SOURCES, run_all
from tests.segments.interrupted import half_way, newest, request

NO_MORE_PLANS = "UPDATE profile SET traits = '{}' WHERE id = ANY($1::int[])"


async def lose_plans(workspace: UUID, ids: list[int]) -> None:
    """What an integration does that stops to send a trait."""
    async with transaction(workspace) as connection:
        await connection.execute(NO_MORE_PLANS, ids)


@pytest.fixture
async def people(workspace: UUID) -> list[int]:
    return await factories.make_people(workspace, *[ON_PREMIUM] * 150)


@pytest.fixture
async def segment(workspace: UUID, people: list[int], now: datetime) -> Segment:
    """With 150 members, and the guard at 50 %."""
    made = await factories.make_dynamic(workspace, now=now)
    await run_all(workspace, now=now)
    return made


async def held(segment: Segment, people: list[int], *, now: datetime) -> Evaluation:
    """An evaluation that would remove 120 of 150."""
    await lose_plans(segment.workspace_id, people[:120])
    found = await factories.evaluate(segment, now=now)
    assert found.status is EvaluationStatus.HELD
    return found


@pytest.mark.parametrize(
    ("per_cent", "before", "removed", "is_held"),
    [
        (50, 200, 101, True),
        (50, 200, 100, False),
        (1, 9_900, 100, True),
        (1, 10_000, 100, False),
        (50, 150, 99, False),
        (100, 1000, 1000, False),
        (99, 1000, 1000, True),
        (None, 1000, 1000, False),
    ],
)
def test_more_than_a_share_and_at_least_a_hundred_people_are_held(
    per_cent: int | None, before: int, removed: int, is_held: bool
) -> None:
    assert guard.holds(per_cent, before=before, removed=removed) is is_held


async def test_one_that_would_remove_most_members_is_held_and_says_what_it_would_do(
    segment: Segment, people: list[int], now: datetime
) -> None:
    history = await factories.intervals_of(segment)
    found = await held(segment, people, now=now)
    assert (found.size, found.added, found.removed) == (30, 0, 120)
    assert found.error_code == "CHANGE_GUARD"
    assert found.error is not None
    assert "120 of 150 members" in found.error
    assert "50 %" in found.error
    assert found.nodes == [{"path": [], "size": 30}]
    assert await factories.members_of(segment) == set(people)
    assert await factories.intervals_of(segment) == history


async def test_an_approved_one_runs_anew_on_the_data_of_then(
    segment: Segment, people: list[int], now: datetime
) -> None:
    found = await held(segment, people, now=now)
    await lose_plans(segment.workspace_id, people[120:130])
    approved = await evaluation.approve(segment.workspace_id, found.id, now=now)
    assert (approved.id, approved.status, approved.approved_at) == (found.id, EvaluationStatus.QUEUED, now)
    assert (approved.size, approved.error_code, approved.finished_at) == (None, None, None)
    assert await factories.members_of(segment) == set(people)
    assert await run_all(segment.workspace_id, now=now) == [segment.id]
    done = await newest(segment)
    assert (done.status, done.size, done.removed) == (EvaluationStatus.SUCCEEDED, 20, 130)
    assert await factories.members_of(segment) == set(people[130:])
    assert await membership.verify(segment.workspace_id) == []


async def test_only_a_held_one_is_approved_and_once(
    segment: Segment, people: list[int], other_workspace: UUID, now: datetime
) -> None:
    workspace = segment.workspace_id
    with pytest.raises(SegmentError) as refusal:
        await evaluation.approve(workspace, (await newest(segment)).id, now=now)
    assert refusal.value.code == "ILLEGAL_MOVE"
    found = await held(segment, people, now=now)
    with pytest.raises(EvaluationNotFound):
        await evaluation.approve(other_workspace, found.id, now=now)
    open_one = await request(segment, now)
    with pytest.raises(SegmentError) as refusal:
        await evaluation.approve(workspace, found.id, now=now)
    assert refusal.value.code == "EVALUATION_OPEN"
    assert open_one != found.id


async def test_a_later_one_that_succeeds_supersedes(segment: Segment, people: list[int], now: datetime) -> None:
    found = await held(segment, people, now=now)
    async with transaction(segment.workspace_id) as connection:
        await connection.execute("""UPDATE profile SET traits = '{"plan": "premium"}'""")
    assert (await factories.evaluate(segment, now=now)).status is EvaluationStatus.SUCCEEDED
    superseded = await evaluation.find(segment.workspace_id, found.id)
    assert superseded is not None
    assert (superseded.status, superseded.error_code) == (EvaluationStatus.FAILED, "SUPERSEDED")
    with pytest.raises(SegmentError):
        await evaluation.approve(segment.workspace_id, found.id, now=now)


async def test_a_later_one_that_is_held_as_well_takes_the_place(
    segment: Segment, people: list[int], now: datetime
) -> None:
    first = await held(segment, people, now=now)
    second = await factories.evaluate(segment, now=now)
    assert (second.status, second.removed) == (EvaluationStatus.HELD, 120)
    before = await evaluation.find(segment.workspace_id, first.id)
    assert before is not None
    assert (before.status, before.error_code) == (EvaluationStatus.FAILED, "SUPERSEDED")


@pytest.mark.parametrize("per_cent", [None, 90])
async def test_a_wider_guard_lets_it_through(
    segment: Segment, people: list[int], now: datetime, per_cent: int | None
) -> None:
    await lifecycle.update(segment.workspace_id, segment.id, SegmentChanges(change_guard=per_cent), now=now)
    await lose_plans(segment.workspace_id, people[:120])
    done = await factories.evaluate(segment, now=now)
    assert (done.status, done.removed) == (EvaluationStatus.SUCCEEDED, 120)


async def test_a_held_one_ends_when_its_segment_changes(segment: Segment, people: list[int], now: datetime) -> None:
    """What it found is about conditions that hold no more, or a segment that stands still."""
    workspace = segment.workspace_id
    found = await held(segment, people, now=now)
    gold = {"trait": {"key": "plan", "operator": "EQUALS", "value": "gold"}}
    await lifecycle.update(workspace, segment.id, SegmentChanges(definition=gold), now=now)
    ended = await evaluation.find(workspace, found.id)
    assert ended is not None
    assert (ended.status, ended.error_code) == (EvaluationStatus.FAILED, "DEFINITION_CHANGED")
    await run_all(workspace, now=now)
    again = await newest(segment)
    assert (again.status, again.removed) == (EvaluationStatus.HELD, 150)
    await lifecycle.pause(workspace, segment.id, now=now)
    assert (await newest(segment)).error_code == "SEGMENT_NOT_ACTIVE"


async def test_nobody_is_moved_one_by_one_while_one_is_held(segment: Segment, people: list[int], now: datetime) -> None:
    """Else the pulse would do little by little what a person was to look at."""
    await drain(segment.workspace_id, now=now)
    await held(segment, people, now=now)
    await upsert(segment.workspace_id, ProfileInput("eve", traits={"plan": "premium"}), now=now)
    await drain(segment.workspace_id, now=now)
    assert await factories.members_of(segment) == set(people)


async def test_a_worker_that_lost_its_lease_holds_nothing(segment: Segment, people: list[int], now: datetime) -> None:
    workspace = segment.workspace_id
    await lose_plans(workspace, people[:120])
    id = await request(segment, now)
    async with half_way(workspace):
        async with transaction(workspace) as connection:
            await connection.execute("UPDATE evaluation SET lease_until = now() - interval '1 s' WHERE id = $1", id)
        async with half_way(workspace) as second:
            second.go_on()
            await second.running
        fence = (await newest(segment)).fence
    assert ((await newest(segment)).fence, (await newest(segment)).status) == (fence, EvaluationStatus.HELD)
    assert await cycles.run(workspace, sources=SOURCES, now=now) is None
