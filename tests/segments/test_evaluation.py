"""Evaluations: asked for once, applied whole or not at all, and what they say about themselves."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from db.transactions import transaction
from segments import cycles, evaluation, lifecycle
from segments.engines.base import EngineError
from segments.engines.postgres import PostgresEngine
from segments.errors import SegmentError, SegmentNotFound
from segments.leases import Timing
from segments.models import EvaluationCause, EvaluationStatus
from segments.sources import Sources
from tests.segments import factories
from tests.segments.beats import Gate
from tests.segments.factories import DAY, ON_PREMIUM, SOURCES, Person, run_all
from tests.segments.interrupted import AnsweringEngine, BrokenEngine, newest, request, reread

BIG_SPENDERS_GONE_QUIET = {
    "all": [
        {"event": {"name": "purchase", "sum": {"property": "value", "operator": "GREATER_OR_EQUAL", "value": 100}}},
        {"not": {"event": {"name": "purchase", "within": {"days": 90}}}},
    ]
}


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
    await run_all(workspace, now=now)
    assert await factories.members_of(for_all) == {alive, of_brand}
    assert await factories.members_of(for_brand) == {of_brand}


async def test_asking_again_while_one_waits_gives_that_one(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    asked = await asyncio.gather(*(request(segment, now) for _ in range(5)))
    assert len(set(asked)) == 1
    waiting = await evaluation.find_open(workspace, segment.id)
    assert waiting is not None
    assert (waiting.id, waiting.status) == (asked[0], EvaluationStatus.QUEUED)
    assert await cycles.run(workspace, sources=SOURCES) == [segment.id]
    assert await evaluation.find_open(workspace, segment.id) is None
    assert await request(segment, now) != asked[0]


async def test_many_are_asked_for_at_once_and_none_twice(workspace: UUID, now: datetime) -> None:
    waits, done, draft = [await factories.make_dynamic(workspace, now=now, name=name) for name in "abc"]
    curated = await factories.make_static(workspace, now=now)
    await lifecycle.unpublish(workspace, draft.id, now=now)
    await run_all(workspace, now=now)
    first = await request(waits, now)
    async with transaction(workspace) as connection:
        ids = [waits.id, done.id, draft.id, curated.id, uuid4()]
        await evaluation.request_many(connection, workspace, ids, cause=EvaluationCause.BACKLOG, now=now)
    assert (await newest(waits)).id == first
    assert ((await newest(done)).status, (await newest(done)).cause) == (
        EvaluationStatus.QUEUED,
        EvaluationCause.BACKLOG,
    )
    assert (await newest(draft)).status is EvaluationStatus.FAILED
    assert await evaluation.find_open(workspace, curated.id) is None


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


async def test_one_that_takes_too_long_is_given_up(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    sources = Sources(AnsweringEngine(Gate()))
    await cycles.run(workspace, sources=sources, timing=Timing(longest=timedelta(milliseconds=300)))
    failed = await newest(segment)
    assert (failed.status, failed.error_code) == (EvaluationStatus.FAILED, "EVALUATION_TOO_SLOW")


class LateEngine(PostgresEngine):
    """Knows what happened up to a moment, and no later."""

    def __init__(self, as_of: datetime) -> None:
        super().__init__()
        self.complete_to = as_of

    async def as_of(self, *, workspace_id: UUID) -> datetime | None:
        return self.complete_to


async def test_stale_data_is_refused_and_leaves_members_alone(workspace: UUID, now: datetime) -> None:
    ids = await factories.make_people(workspace, ON_PREMIUM)
    segment, twin = [await factories.make_dynamic(workspace, now=now, name=name) for name in "ab"]
    await run_all(workspace, now=now)
    history = await factories.intervals_of(segment)
    behind = now - timedelta(minutes=11)
    await request(twin, now)
    failed = await factories.evaluate(segment, now=now, engine=LateEngine(behind))
    assert (failed.status, failed.error_code) == (EvaluationStatus.FAILED, "STALE_DATA")
    assert failed.error is not None
    assert behind.isoformat() in failed.error
    assert now.isoformat() in failed.error
    assert (await newest(twin)).error_code == "STALE_DATA"
    assert await factories.members_of(segment) == set(ids)
    assert await factories.intervals_of(segment) == history
    on_time = await factories.evaluate(segment, now=now, engine=LateEngine(now - timedelta(minutes=9)))
    assert on_time.status is EvaluationStatus.SUCCEEDED


async def test_history_is_paged_newest_first(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    done = [(await factories.evaluate(segment, now=now)).id for _ in range(3)]
    first = await evaluation.history(workspace, segment.id, after=None, limit=2)
    rest = await evaluation.history(workspace, segment.id, after=first[-1].id, limit=2)
    assert [one.id for one in (*first, *rest)] == done[::-1]
    assert (await reread(workspace, done[0])).id == done[0]


async def test_another_tenant_neither_finds_nor_runs_it(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    id = await request(segment, now)
    assert await evaluation.find(other_workspace, id) is None
    assert await cycles.run(other_workspace, sources=SOURCES) is None
    with pytest.raises(SegmentNotFound):
        await evaluation.request(other_workspace, segment.id, cause=EvaluationCause.REQUEST, now=now)
    assert (await evaluation.find_open(workspace, segment.id)) is not None
