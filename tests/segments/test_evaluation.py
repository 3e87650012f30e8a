"""Evaluations: asked for once, run under a lease, applied whole or not at all."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pyroaring import BitMap

from db.transactions import transaction
from segments import evaluation, lifecycle, membership
from segments.engines.base import Engine, EngineError
from segments.engines.postgres import PostgresEngine
from segments.errors import EvaluationNotFound, SegmentError, SegmentNotFound
from segments.lifecycle import SegmentChanges
from segments.models import EvaluationCause, EvaluationStatus, Segment
from segments.nodes import Leaf
from tests.segments import factories
from tests.segments.factories import DAY, ON_PREMIUM, Person

BIG_SPENDERS_GONE_QUIET = {
    "all": [
        {"event": {"name": "purchase", "sum": {"property": "value", "operator": "GREATER_OR_EQUAL", "value": 100}}},
        {"not": {"event": {"name": "purchase", "within": {"days": 90}}}},
    ]
}


class GatedEngine:
    """Asks PostgreSQL, but not before `gate` is set; `asked` is set when it waits there."""

    name = "gated"

    def __init__(self) -> None:
        self.gate, self.asked = asyncio.Event(), asyncio.Event()
        self.postgres = PostgresEngine()
        self.questions: list[Leaf] = []

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[Leaf], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        self.questions += leaves
        found = await self.postgres.ids(workspace_id=workspace_id, leaves=leaves, now=now, only=only)
        self.asked.set()
        await self.gate.wait()
        return found

    async def universe(self, *, workspace_id: UUID, brand_id: UUID | None = None, only: BitMap | None = None) -> BitMap:
        return await self.postgres.universe(workspace_id=workspace_id, brand_id=brand_id, only=only)


class BrokenEngine(GatedEngine):
    """Fails as it is told to."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure = failure

    async def ids(self, **_: Any) -> list[BitMap]:
        raise self.failure


async def request(segment: Segment, now: datetime) -> UUID:
    asked = await evaluation.request(segment.workspace_id, segment.id, cause=EvaluationCause.REQUEST, now=now)
    return asked.id


async def test_an_evaluation_finds_members_and_says_what_it_did(workspace: UUID, now: datetime) -> None:
    """S1-10, S2-02, S0-07."""
    lapsed, _, _ = await factories.make_people(
        workspace,
        Person(events=[factories.bought(now - 100 * DAY, 60), factories.bought(now - 200 * DAY, 40)]),
        Person(events=[factories.bought(now - 100 * DAY, 99), factories.bought(now - DAY, 1)]),
        Person(events=[factories.bought(now - 100 * DAY, 99)]),
    )
    segment = await factories.make_dynamic(workspace, BIG_SPENDERS_GONE_QUIET, now=now)
    done = await factories.evaluate(segment, now=now)

    assert await factories.members_of(segment) == {lapsed}
    assert await factories.intervals_of(segment) == [(lapsed, True, "evaluation", None)]
    assert (done.status, done.cause, done.engine) == (
        EvaluationStatus.SUCCEEDED,
        EvaluationCause.ACTIVATION,
        "postgres",
    )
    assert (done.size, done.added, done.removed, done.error_code) == (1, 1, 0, None)
    assert done.duration_ms is not None
    assert done.finished_at is not None
    assert done.lease_until is None
    assert done.nodes == [
        {"path": [], "size": 1},
        {"path": ["all", "0"], "size": 2},
        {"path": ["all", "1"], "size": 2},
        {"path": ["all", "1", "not"], "size": 1},
    ]


async def test_members_leave_when_time_passes_without_any_event(workspace: UUID, now: datetime) -> None:
    """S0-09 by a full evaluation; silence can be said by events and by last seen, and means the same here."""
    person = Person(last_seen_at=now - 89 * DAY, events=[factories.bought(now - 89 * DAY)])
    (id,) = await factories.make_people(workspace, person)
    recent = await factories.make_dynamic(
        workspace, {"event": {"name": "purchase", "within": {"days": 90}}}, now=now, name="recent"
    )
    by_event = await factories.make_dynamic(
        workspace, {"not": {"event": {"name": "purchase", "within": {"days": 90}}}}, now=now, name="by event"
    )
    by_sight = await factories.make_dynamic(workspace, {"lastSeen": {"before": {"days": 90}}}, now=now, name="by sight")
    for segment in (recent, by_event, by_sight):
        await factories.evaluate(segment, now=now)
    assert [await factories.members_of(one) for one in (recent, by_event, by_sight)] == [{id}, set(), set()]
    for segment in (recent, by_event, by_sight):
        await factories.evaluate(segment, now=now + 2 * DAY)
    assert [await factories.members_of(one) for one in (recent, by_event, by_sight)] == [set(), {id}, {id}]


async def test_not_and_never_are_of_the_living_and_of_the_brand(workspace: UUID, now: datetime) -> None:
    """S1-02, S4-06."""
    alive, of_brand, erased, merged = await factories.make_people(workspace, *[Person()] * 4)
    brand = await factories.make_brand(workspace, "shoes", of_brand, erased)
    await factories.erase(workspace, erased)
    await factories.merge(workspace, loser=merged, winner=alive)
    never = {"event": {"name": "purchase", "never": True}}
    for_all = await factories.make_dynamic(workspace, never, now=now, name="all")
    for_brand = await factories.make_dynamic(workspace, never, now=now, name="brand", brand_id=brand)
    await factories.evaluate(for_all, now=now)
    await factories.evaluate(for_brand, now=now)
    assert await factories.members_of(for_all) == {alive, of_brand}
    assert await factories.members_of(for_brand) == {of_brand}


async def test_equal_leaves_are_asked_once(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(
        workspace, {"any": [factories.PREMIUM, {"not": {"all": [factories.PREMIUM]}}]}, now=now
    )
    engine = GatedEngine()
    engine.gate.set()
    await factories.evaluate(segment, now=now, engine=engine)
    assert len(engine.questions) == 1


async def test_asking_again_while_one_waits_gives_that_one(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    asked = await asyncio.gather(*(request(segment, now) for _ in range(5)))
    assert len(set(asked)) == 1
    waiting = await evaluation.find_open(workspace, segment.id)
    assert waiting is not None
    assert (waiting.id, waiting.status) == (asked[0], EvaluationStatus.QUEUED)
    await evaluation.run(workspace, asked[0], engine=PostgresEngine(), now=now)
    assert await evaluation.find_open(workspace, segment.id) is None
    assert await request(segment, now) != asked[0]


async def test_only_active_dynamic_segments_are_evaluated(workspace: UUID, now: datetime) -> None:
    """S0-24, S2-28: a draft is never evaluated."""

    async def refusal(segment_id: UUID) -> str:
        with pytest.raises(SegmentError) as refused:
            await evaluation.request(workspace, segment_id, cause=EvaluationCause.REQUEST, now=now)
        return refused.value.code

    dynamic = await factories.make_dynamic(workspace, now=now)
    await lifecycle.unpublish(workspace, dynamic.id, now=now)
    assert await refusal(dynamic.id) == "SEGMENT_NOT_ACTIVE"
    assert await refusal((await factories.make_static(workspace, now=now)).id) == "SEGMENT_NOT_DYNAMIC"
    with pytest.raises(SegmentNotFound):
        await evaluation.request(workspace, uuid4(), cause=EvaluationCause.REQUEST, now=now)


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (
            EngineError("CONDITION_TOO_SLOW", "A condition took longer."),
            "CONDITION_TOO_SLOW",
            "A condition took longer.",
        ),
        (RuntimeError("secret"), "ENGINE_FAILED", "The engine failed (RuntimeError); its log says more. Try again."),
    ],
)
async def test_a_failed_evaluation_leaves_members_alone_and_says_why(
    workspace: UUID, now: datetime, failure: Exception, code: str, message: str
) -> None:
    ids = await factories.make_people(workspace, ON_PREMIUM, ON_PREMIUM)
    segment = await factories.make_dynamic(workspace, now=now)
    await factories.evaluate(segment, now=now)
    history = await factories.intervals_of(segment)

    failed = await factories.evaluate(segment, now=now, engine=BrokenEngine(failure))
    assert (failed.status, failed.error_code, failed.error) == (EvaluationStatus.FAILED, code, message)
    assert failed.finished_at is not None
    assert failed.size is None
    assert await factories.members_of(segment) == set(ids)
    assert await factories.intervals_of(segment) == history


async def test_a_definition_that_no_longer_reads_fails_the_evaluation(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE segment SET definition = $2 WHERE id = $1", segment.id, {"old": 1})
    failed = await factories.evaluate(segment, now=now)
    assert (failed.status, failed.error_code) == (EvaluationStatus.FAILED, "UNKNOWN_CONDITION")
    assert await factories.members_of(segment) is None


async def test_one_that_takes_longer_than_its_lease_is_given_up(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    failed = await evaluation.run(
        workspace, await request(segment, now), engine=GatedEngine(), now=now, lease=timedelta(milliseconds=50)
    )
    assert (failed.status, failed.error_code) == (EvaluationStatus.FAILED, "EVALUATION_TOO_SLOW")


async def test_what_another_runs_or_has_finished_is_left_to_it(workspace: UUID, now: datetime) -> None:
    await factories.make_people(workspace, ON_PREMIUM)
    segment = await factories.make_dynamic(workspace, now=now)
    id, engine, broken = await request(segment, now), GatedEngine(), BrokenEngine(RuntimeError())
    first = asyncio.create_task(evaluation.run(workspace, id, engine=engine, now=now))
    await engine.asked.wait()
    second = await evaluation.run(workspace, id, engine=broken, now=now)
    assert second.status is EvaluationStatus.RUNNING
    engine.gate.set()
    assert (await first).status is EvaluationStatus.SUCCEEDED
    again = await evaluation.run(workspace, id, engine=broken, now=now)
    assert (again.status, again.fence) == (EvaluationStatus.SUCCEEDED, 1)
    with pytest.raises(EvaluationNotFound):
        await evaluation.run(workspace, uuid4(), engine=engine, now=now)


async def end_lease(workspace_id: UUID, evaluation_id: UUID) -> None:
    sql = "UPDATE evaluation SET lease_until = now() - interval '1 s' WHERE id = $1"
    async with transaction(workspace_id) as connection:
        await connection.execute(sql, evaluation_id)


async def test_a_worker_that_lost_its_lease_applies_nothing(workspace: UUID, now: datetime) -> None:
    (early,) = await factories.make_people(workspace, ON_PREMIUM)
    segment = await factories.make_dynamic(workspace, now=now)
    id, slow = await request(segment, now), GatedEngine()
    lost = asyncio.create_task(evaluation.run(workspace, id, engine=slow, now=now))
    await slow.asked.wait()
    await end_lease(workspace, id)
    (late,) = await factories.make_people(workspace, ON_PREMIUM)
    taken = await evaluation.run(workspace, id, engine=PostgresEngine(), now=now)
    assert (taken.status, taken.fence, taken.size) == (EvaluationStatus.SUCCEEDED, 2, 2)
    slow.gate.set()
    assert (await lost).size == 2
    assert await factories.members_of(segment) == {early, late}
    assert await membership.verify(workspace) == []


async def test_a_worker_that_lost_its_lease_cannot_fail_it_either(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    id, slow, second = await request(segment, now), GatedEngine(), GatedEngine()
    lost = asyncio.create_task(evaluation.run(workspace, id, engine=slow, now=now, lease=timedelta(milliseconds=200)))
    await slow.asked.wait()
    await end_lease(workspace, id)
    other = asyncio.create_task(evaluation.run(workspace, id, engine=second, now=now))
    await second.asked.wait()
    assert (await lost).status is EvaluationStatus.RUNNING
    second.gate.set()
    assert (await other).status is EvaluationStatus.SUCCEEDED


async def test_one_that_kills_its_workers_is_given_up(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    id = await request(segment, now)
    for _ in range(evaluation.ATTEMPTS):
        engine = GatedEngine()
        killed = asyncio.create_task(evaluation.run(workspace, id, engine=engine, now=now))
        await engine.asked.wait()
        killed.cancel()
        await asyncio.gather(killed, return_exceptions=True)
        await end_lease(workspace, id)
    given_up = await evaluation.run(workspace, id, engine=PostgresEngine(), now=now)
    assert (given_up.status, given_up.error_code) == (EvaluationStatus.FAILED, "EVALUATION_ABANDONED")
    assert await factories.members_of(segment) is None


async def test_conditions_changed_meanwhile_are_evaluated_anew_and_the_old_ones_not_applied(
    workspace: UUID, now: datetime
) -> None:
    _, gold = await factories.make_people(workspace, ON_PREMIUM, Person(traits={"plan": "gold"}))
    segment = await factories.make_dynamic(workspace, now=now)
    id, engine = await request(segment, now), GatedEngine()
    running = asyncio.create_task(evaluation.run(workspace, id, engine=engine, now=now))
    await engine.asked.wait()
    definition = {"trait": {"key": "plan", "operator": "EQUALS", "value": "gold"}}
    changed = await lifecycle.update(workspace, segment.id, SegmentChanges(definition=definition), now=now)
    engine.gate.set()

    old = await running
    assert (old.status, old.error_code, old.definition_version) == (EvaluationStatus.FAILED, "DEFINITION_CHANGED", 1)
    assert await factories.members_of(segment) is None
    new = await evaluation.find_open(workspace, segment.id)
    assert new is not None
    assert (new.cause, new.definition_version, changed.definition_version) == (EvaluationCause.DEFINITION, 2, 2)
    await evaluation.run(workspace, new.id, engine=PostgresEngine(), now=now)
    assert await factories.members_of(segment) == {gold}


async def test_a_definition_changed_behind_its_back_is_not_applied(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    id, engine = await request(segment, now), GatedEngine()
    running = asyncio.create_task(evaluation.run(workspace, id, engine=engine, now=now))
    await engine.asked.wait()
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE segment SET definition_version = 7 WHERE id = $1", segment.id)
    engine.gate.set()
    old = await running
    assert (old.status, old.error_code) == (EvaluationStatus.FAILED, "DEFINITION_CHANGED")
    assert await factories.members_of(segment) is None


async def test_what_waits_evaluates_the_conditions_that_hold_when_it_runs(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    id = await request(segment, now)
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE segment SET definition_version = 7 WHERE id = $1", segment.id)
    done = await evaluation.run(workspace, id, engine=PostgresEngine(), now=now)
    assert (done.status, done.definition_version) == (EvaluationStatus.SUCCEEDED, 7)


async def test_a_segment_paused_meanwhile_stands_still(workspace: UUID, now: datetime) -> None:
    """S0-23, S2-27."""
    await factories.make_people(workspace, ON_PREMIUM)
    segment = await factories.make_dynamic(workspace, now=now)
    id, engine = await request(segment, now), GatedEngine()
    running = asyncio.create_task(evaluation.run(workspace, id, engine=engine, now=now))
    await engine.asked.wait()
    await lifecycle.pause(workspace, segment.id, now=now)
    engine.gate.set()
    stopped = await running
    assert (stopped.status, stopped.error_code) == (EvaluationStatus.FAILED, "SEGMENT_NOT_ACTIVE")
    assert await factories.members_of(segment) is None


async def test_a_segment_deleted_meanwhile_leaves_nothing(workspace: UUID, now: datetime) -> None:
    await factories.make_people(workspace, ON_PREMIUM)
    segment = await factories.make_dynamic(workspace, now=now)
    id, engine = await request(segment, now), GatedEngine()
    running = asyncio.create_task(evaluation.run(workspace, id, engine=engine, now=now))
    await engine.asked.wait()
    await lifecycle.delete(workspace, segment.id)
    engine.gate.set()
    with pytest.raises(EvaluationNotFound):
        await running
    assert await membership.verify(workspace) == []


async def test_what_dead_workers_left_is_found_again(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    id, engine = await request(segment, now), GatedEngine()

    async def open_ones() -> list[UUID]:
        async with transaction(workspace) as connection:
            rows = await connection.fetch("SELECT evaluation_id FROM open_evaluations(false, 10)")
        return [row[0] for row in rows]

    assert await open_ones() == [id]
    killed = asyncio.create_task(evaluation.run(workspace, id, engine=engine, now=now))
    await engine.asked.wait()
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    assert await open_ones() == []
    await end_lease(workspace, id)
    assert await open_ones() == [id]


async def test_history_is_paged_newest_first(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    done = [(await factories.evaluate(segment, now=now)).id for _ in range(3)]
    first = await evaluation.history(workspace, segment.id, after=None, limit=2)
    rest = await evaluation.history(workspace, segment.id, after=first[-1].id, limit=2)
    assert [one.id for one in (*first, *rest)] == done[::-1]
    found = await evaluation.find(workspace, done[0])
    assert found is not None
    assert found.id == done[0]


async def test_another_tenant_neither_finds_nor_runs_it(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    id = await request(segment, now)
    engine: Engine = PostgresEngine()
    assert await evaluation.find(other_workspace, id) is None
    with pytest.raises(EvaluationNotFound):
        await evaluation.run(other_workspace, id, engine=engine, now=now)
    with pytest.raises(SegmentNotFound):
        await evaluation.request(other_workspace, segment.id, cause=EvaluationCause.REQUEST, now=now)
    assert (await evaluation.find_open(workspace, segment.id)) is not None
