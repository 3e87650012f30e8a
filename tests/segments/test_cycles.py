"""Evaluations run together: leaves asked once, leases, workers that die, and the order with the pulse."""

import asyncio
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from db.transactions import transaction
from profiles.patches import ProfileInput
from segments import cycles, evaluation, leases, lifecycle, membership, pulse
from segments.engines.base import EngineError
from segments.lifecycle import SegmentChanges
from segments.models import EvaluationCause, EvaluationStatus, Segment
from segments.nodes import Trait
from segments.sources import Sources
from tests.segments import factories
from tests.segments.beats import Gate, GatedEngine, PickyEngine, asking, beat, drain, upsert, waiting
from tests.segments.factories import DAY, ON_PREMIUM, PREMIUM, SOURCES, Person, run_all
from tests.segments.interrupted import (
    AnsweringEngine,
    BrokenEngine,
    HalfWay,
    half_way,
    killed_worker,
    newest,
    request,
    reread,
)

GOLD = {"trait": {"key": "plan", "operator": "EQUALS", "value": "gold"}}
BUYERS = {"event": {"name": "purchase"}}
POISON = {"trait": {"key": "poison", "operator": "EXISTS"}}


async def status_of(segment: Segment) -> tuple[EvaluationStatus, str | None]:
    found = await newest(segment)
    return found.status, found.error_code


# --- together -----------------------------------------------------------------------------------------------------


async def test_all_that_waits_is_one_cycle_and_equal_leaves_are_asked_once(workspace: UUID, now: datetime) -> None:
    premium, gold = await factories.make_people(workspace, ON_PREMIUM, Person(traits={"plan": "gold"}))
    definitions = [PREMIUM, GOLD, {"any": [PREMIUM, GOLD]}, {"not": PREMIUM}]
    segments = [
        await factories.make_dynamic(workspace, definition, now=now, name=str(place))
        for place, definition in enumerate(definitions)
    ]
    engine = AnsweringEngine()
    ended = await cycles.run(workspace, sources=Sources(engine), now=now)
    assert set(ended or ()) == {one.id for one in segments}
    assert [len(leaves) for leaves in engine.questions] == [2]
    assert await cycles.run(workspace, sources=Sources(engine), now=now) is None
    found = [await factories.members_of(one) for one in segments]
    assert found == [{premium}, {gold}, {premium, gold}, {gold}]
    assert len({(await newest(one)).started_at for one in segments}) == 1


async def test_when_all_fail_together_each_runs_alone_and_only_the_guilty_one_fails(
    workspace: UUID, now: datetime
) -> None:
    (id,) = await factories.make_people(workspace, ON_PREMIUM)
    good, guilty = [
        await factories.make_dynamic(workspace, definition, now=now, name=name)
        for name, definition in (("good", PREMIUM), ("guilty", POISON))
    ]
    ended = await cycles.run(workspace, sources=asking(PickyEngine("CONDITION_TOO_SLOW")), now=now)
    assert set(ended or ()) == {good.id, guilty.id}
    assert await status_of(good) == (EvaluationStatus.SUCCEEDED, None)
    assert await status_of(guilty) == (EvaluationStatus.FAILED, "CONDITION_TOO_SLOW")
    assert await factories.members_of(good) == {id}
    assert await factories.members_of(guilty) is None


async def test_two_workers_share_what_waits(workspace: UUID, now: datetime) -> None:
    first = await factories.make_dynamic(workspace, now=now, name="first")
    async with half_way(workspace) as half:
        second = await factories.make_dynamic(workspace, GOLD, now=now, name="second")
        assert await cycles.run(workspace, sources=SOURCES, now=now) == [second.id]
        assert await status_of(first) == (EvaluationStatus.RUNNING, None)
    assert await half.running == [first.id]
    assert await status_of(first) == (EvaluationStatus.SUCCEEDED, None)


async def test_windows_end_at_the_databases_now(workspace: UUID, now: datetime) -> None:
    (id,) = await factories.make_people(workspace, Person(events=[factories.bought(now - timedelta(hours=1))]))
    segment = await factories.make_dynamic(
        workspace, {"event": {"name": "purchase", "within": {"hours": 2}}}, now=now + 9 * DAY
    )
    assert await cycles.run(workspace, sources=SOURCES) == [segment.id]
    assert await factories.members_of(segment) == {id}


# --- leases -------------------------------------------------------------------------------------------------------


async def test_what_a_killed_worker_left_runs_again(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        """What a killed process still does."""

    monkeypatch.setattr(leases, "let_go", nothing)
    (id,) = await factories.make_people(workspace, ON_PREMIUM)
    segments = [await factories.make_dynamic(workspace, now=now, name=name) for name in "ab"]

    async def open_ones() -> int:
        async with transaction(workspace) as connection:
            return len(await connection.fetch("SELECT evaluation_id FROM open_evaluations(false, 10)"))

    assert await open_ones() == 2
    async with half_way(workspace) as half:
        assert await open_ones() == 0
        half.running.cancel()
    assert await open_ones() == 0
    async with transaction(workspace) as connection:
        left = await connection.fetchval("SELECT max(lease_until) - now() FROM evaluation")
        assert timedelta(0) < left <= timedelta(seconds=60)
        await connection.execute("UPDATE evaluation SET lease_until = now() - interval '1 s'")
    assert await open_ones() == 2
    assert set(await run_all(workspace, now=now)) == {one.id for one in segments}
    assert [await factories.members_of(one) for one in segments] == [{id}, {id}]
    assert {(await newest(one)).fence for one in segments} == {2}


async def test_a_lease_is_renewed_while_its_worker_lives(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    timing = leases.Timing(
        lease=timedelta(milliseconds=200),
        renew_every=timedelta(milliseconds=20),
        look_every=timedelta(milliseconds=20),
    )
    async with half_way(workspace, timing=timing) as half:
        first = (await newest(segment)).lease_until
        while (await newest(segment)).lease_until == first:
            continue
    assert await half.running == [segment.id]
    assert (await newest(segment)).fence == 1


async def test_one_whose_runs_all_died_is_given_up(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    for _ in range(leases.ATTEMPTS):
        await killed_worker(workspace)
    assert await cycles.run(workspace, sources=SOURCES, now=now) == [segment.id]
    assert await status_of(segment) == (EvaluationStatus.FAILED, "EVALUATION_ABANDONED")
    assert await factories.members_of(segment) is None


async def test_one_that_kills_its_workers_takes_no_others_with_it(workspace: UUID, now: datetime) -> None:
    """Two deaths may be deployments; whoever was there both times is then run alone."""
    segments = [await factories.make_dynamic(workspace, now=now, name=name) for name in "ab"]
    await killed_worker(workspace)
    assert {(await newest(one)).fence for one in segments} == {1}
    await killed_worker(workspace)
    assert {(await newest(one)).fence for one in segments} == {2}
    first = await cycles.run(workspace, sources=SOURCES, now=now)
    second = await cycles.run(workspace, sources=SOURCES, now=now)
    assert [len(first or ()), len(second or ())] == [1, 1]
    assert {(await newest(one)).status for one in segments} == {EvaluationStatus.SUCCEEDED}


async def test_a_worker_that_lost_its_lease_applies_nothing(workspace: UUID, now: datetime) -> None:
    (early,) = await factories.make_people(workspace, ON_PREMIUM)
    segment = await factories.make_dynamic(workspace, now=now)
    slow = leases.Timing(look_every=timedelta(hours=1))
    async with half_way(workspace, timing=slow) as half:
        async with transaction(workspace) as connection:
            await connection.execute("UPDATE evaluation SET lease_until = now() - interval '1 s'")
        (late,) = await factories.make_people(workspace, ON_PREMIUM)
        assert await cycles.run(workspace, sources=SOURCES, now=now) == [segment.id]
        assert ((await newest(segment)).fence, (await newest(segment)).size) == (2, 2)
    assert await half.running == []
    assert (await newest(segment)).size == 2
    assert await factories.members_of(segment) == {early, late}
    assert await membership.verify(workspace) == []


async def test_a_worker_that_lost_its_lease_cannot_fail_it_either(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    gate = Gate()
    engine = GatedEngine(gate)
    timing = leases.Timing(look_every=timedelta(hours=1), longest=timedelta(milliseconds=500))
    lost = asyncio.create_task(cycles.run(workspace, sources=Sources(engine), now=now, timing=timing))
    await gate.reached.wait()
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE evaluation SET lease_until = now() - interval '1 s'")
    async with half_way(workspace) as half:
        await lost
        assert await status_of(segment) == (EvaluationStatus.RUNNING, None)
    assert await half.running == [segment.id]
    assert await status_of(segment) == (EvaluationStatus.SUCCEEDED, None)


# --- not wanted any more ------------------------------------------------------------------------------------------


async def test_conditions_changed_meanwhile_are_evaluated_anew_and_the_old_ones_not_applied(
    workspace: UUID, now: datetime
) -> None:
    _, gold = await factories.make_people(workspace, ON_PREMIUM, Person(traits={"plan": "gold"}))
    segment = await factories.make_dynamic(workspace, now=now)
    id = await request(segment, now)
    async with half_way(workspace) as half:
        changed = await lifecycle.update(workspace, segment.id, SegmentChanges(definition=GOLD), now=now)
        await half.engine.cancelled.wait()
        assert await half.running == []
    old = await reread(workspace, id)
    assert (old.status, old.error_code, old.definition_version) == (EvaluationStatus.FAILED, "DEFINITION_CHANGED", 1)
    assert await factories.members_of(segment) is None
    new = await newest(segment)
    assert (new.cause, new.definition_version, changed.definition_version) == (EvaluationCause.DEFINITION, 2, 2)
    await run_all(workspace, now=now)
    assert await factories.members_of(segment) == {gold}


async def test_a_paused_segments_question_is_cancelled_and_it_stands_still(workspace: UUID, now: datetime) -> None:
    """S0-23, S2-27."""
    await factories.make_people(workspace, ON_PREMIUM)
    segment = await factories.make_dynamic(workspace, now=now)
    async with half_way(workspace) as half:
        await lifecycle.pause(workspace, segment.id, now=now)
        await half.engine.cancelled.wait()
        assert await half.running == []
    assert await status_of(segment) == (EvaluationStatus.FAILED, "SEGMENT_NOT_ACTIVE")
    assert await factories.members_of(segment) is None


async def test_one_that_is_paused_in_company_is_not_applied_and_the_others_are(workspace: UUID, now: datetime) -> None:
    (id,) = await factories.make_people(workspace, ON_PREMIUM)
    paused, other = [await factories.make_dynamic(workspace, now=now, name=name) for name in "ab"]
    async with half_way(workspace) as half:
        await lifecycle.pause(workspace, paused.id, now=now)
    assert await half.running == [other.id]
    assert await factories.members_of(paused) is None
    assert await factories.members_of(other) == {id}


async def test_a_definition_changed_behind_its_back_is_not_applied(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    async with half_way(workspace) as half, transaction(workspace) as connection:
        await connection.execute("UPDATE segment SET definition_version = 7 WHERE id = $1", segment.id)
    assert await half.running == [segment.id]
    assert await status_of(segment) == (EvaluationStatus.FAILED, "DEFINITION_CHANGED")
    assert await factories.members_of(segment) is None


async def test_what_waits_evaluates_the_conditions_that_hold_when_it_runs(workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE segment SET definition_version = 7 WHERE id = $1", segment.id)
    await run_all(workspace, now=now)
    done = await newest(segment)
    assert (done.status, done.definition_version) == (EvaluationStatus.SUCCEEDED, 7)


async def test_one_queued_for_a_segment_that_stands_still_fails_before_it_begins(
    workspace: UUID, now: datetime
) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE segment SET status = 'PAUSED' WHERE id = $1", segment.id)
    assert await cycles.run(workspace, sources=asking(BrokenEngine(RuntimeError())), now=now) == [segment.id]
    assert await status_of(segment) == (EvaluationStatus.FAILED, "SEGMENT_NOT_ACTIVE")


async def test_a_segment_deleted_meanwhile_leaves_nothing(workspace: UUID, now: datetime) -> None:
    await factories.make_people(workspace, ON_PREMIUM)
    segment = await factories.make_dynamic(workspace, now=now)
    id = await request(segment, now)
    async with half_way(workspace) as half:
        await lifecycle.delete(workspace, segment.id)
    assert await half.running == []
    assert await evaluation.find(workspace, id) is None
    assert await membership.verify(workspace) == []


# --- with the pulse -----------------------------------------------------------------------------------------------


async def changed_plan(workspace: UUID, *names: str, plan: str, now: datetime) -> list[int]:
    return await upsert(workspace, *(ProfileInput(one, traits={"plan": plan}) for one in names), now=now)


async def test_a_pulse_while_leaves_are_asked_is_not_taken_back(workspace: UUID, now: datetime) -> None:
    """Evaluation begins, the pulse moves people, evaluation applies: both directions, and people never seen before."""
    ada, _ = await changed_plan(workspace, "ada", "bob", plan="premium", now=now)
    segment = await factories.make_dynamic(workspace, now=now)
    await run_all(workspace, now=now)
    await drain(workspace, now=now)
    await request(segment, now)
    async with half_way(workspace) as half:
        await changed_plan(workspace, "bob", plan="free", now=now)
        (eve,) = await changed_plan(workspace, "eve", plan="premium", now=now)
        await drain(workspace, now=now)
        assert await factories.members_of(segment) == {ada, eve}
    assert await half.running == [segment.id]
    done = await newest(segment)
    assert (done.status, done.size, done.added, done.removed) == (EvaluationStatus.SUCCEEDED, 2, 0, 0)
    assert await factories.members_of(segment) == {ada, eve}
    assert await membership.verify(workspace) == []


async def test_a_pulse_before_the_very_first_result_is_not_lost(workspace: UUID, now: datetime) -> None:
    """The segment has no members to change yet: what the pulse would have done, the evaluation does."""
    ada, bob = await changed_plan(workspace, "ada", "bob", plan="premium", now=now)
    segment = await factories.make_dynamic(workspace, now=now)
    async with half_way(workspace) as half:
        await changed_plan(workspace, "bob", plan="free", now=now)
        (eve,) = await changed_plan(workspace, "eve", plan="premium", now=now)
        await drain(workspace, now=now)
        assert await factories.members_of(segment) is None
    await half.running
    assert await factories.members_of(segment) == {ada, eve}
    assert bob not in (await factories.members_of(segment) or ())


async def test_an_evaluation_waits_for_a_beat_that_is_under_way_and_then_sees_it(
    workspace: UUID, now: datetime
) -> None:
    """The beat holds its locks and asks; the evaluation, whose leaves are older, may apply only after it."""
    await changed_plan(workspace, "ada", plan="premium", now=now)
    segment = await factories.make_dynamic(workspace, now=now)
    await run_all(workspace, now=now)
    await drain(workspace, now=now)
    await request(segment, now)
    async with half_way(workspace) as half:
        (eve,) = await changed_plan(workspace, "eve", plan="premium", now=now)
        gate = Gate()
        beating = asyncio.create_task(beat(workspace, now=now, sources=Sources(GatedEngine(gate))))
        await gate.reached.wait()
        half.go_on()
        await waits_for_a_lock(workspace, half)
        gate.opened.set()
        await beating
    assert await half.running == [segment.id]
    assert eve in (await factories.members_of(segment) or ())
    assert (await newest(segment)).size == 2


async def waits_for_a_lock(workspace: UUID, half: HalfWay) -> None:
    """Return when the evaluation stands before the beat's lock."""
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype IN ('tuple', 'transactionid'))"
    async with transaction(workspace) as connection:
        while not await connection.fetchval(waiting):
            assert not half.running.done()


async def test_a_beat_after_an_evaluation_builds_on_it(workspace: UUID, now: datetime) -> None:
    """What changed before the evaluation began is found twice and counted once."""
    segment = await factories.make_dynamic(workspace, now=now)
    await run_all(workspace, now=now)
    (ada,) = await changed_plan(workspace, "ada", plan="premium", now=now)
    await request(segment, now)
    await run_all(workspace, now=now)
    assert await factories.members_of(segment) == {ada}
    await drain(workspace, now=now)
    assert await factories.members_of(segment) == {ada}
    assert await factories.intervals_of(segment) == [(ada, True, "evaluation", None)]


async def test_a_segment_that_is_not_live_is_applied_as_found(workspace: UUID, now: datetime) -> None:
    """No beat touches it, so nothing is asked again."""
    await changed_plan(workspace, "ada", plan="premium", now=now)
    still = await factories.make_dynamic(workspace, now=now, name="still")
    await lifecycle.update(workspace, still.id, SegmentChanges(live=False), now=now)
    moving = await factories.make_dynamic(workspace, GOLD, now=now, name="moving")
    await run_all(workspace, now=now)
    await drain(workspace, now=now)
    await request(still, now)
    async with half_way(workspace) as half:
        await changed_plan(workspace, "ada", plan="gold", now=now)
        await drain(workspace, now=now)
        assert len(await factories.members_of(moving) or ()) == 1
    await half.running
    assert len(await factories.members_of(still) or ()) == 1
    assert len(half.engine.questions) == 1


async def test_people_who_cannot_be_asked_about_again_fail_the_evaluation(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither half of the truth is applied."""
    await changed_plan(workspace, "ada", plan="premium", now=now)
    segment = await factories.make_dynamic(workspace, now=now)
    await run_all(workspace, now=now)
    await drain(workspace, now=now)
    before = await factories.members_of(segment)
    await request(segment, now)
    async with half_way(workspace) as half:
        await changed_plan(workspace, "eve", plan="premium", now=now)
        await drain(workspace, now=now)

        async def refuse(*, leaves: list[Trait], **_: Any) -> None:
            raise EngineError("ENGINE_UNAVAILABLE", "It is away.")

        monkeypatch.setattr(half.engine, "ids", refuse)
    await half.running
    assert await status_of(segment) == (EvaluationStatus.FAILED, "ENGINE_UNAVAILABLE")
    assert before is not None
    assert before < (await factories.members_of(segment) or set())


async def test_changes_beats_and_evaluations_all_at_once_end_in_the_truth(workspace: UUID, now: datetime) -> None:
    """Whatever comes between what: two workers evaluate, two pulse, people change, one segment names the other."""
    chance = Random(7)
    names = [f"p{number:02}" for number in range(20)]
    ids = dict(zip(names, await changed_plan(workspace, *names, plan="free", now=now), strict=True))
    plans = dict.fromkeys(names, "free")
    premium = await factories.make_dynamic(workspace, now=now, name="premium")
    others = await factories.make_dynamic(workspace, {"not": {"inSegment": str(premium.id)}}, now=now, name="others")
    # Nobody names this one: what an evaluation changes of it makes no beat look again.
    gold = await factories.make_dynamic(workspace, GOLD, now=now, name="gold")
    segments = (premium, others, gold)
    await run_all(workspace, now=now)

    async def change(over: asyncio.Event) -> None:
        for _ in range(40):
            name, plan = chance.choice(names), chance.choice(["premium", "free", "gold"])
            plans[name] = plan
            await changed_plan(workspace, name, plan=plan, now=now)
        while await waiting(workspace):
            continue
        over.set()

    async def pulses(over: asyncio.Event) -> None:
        while not over.is_set():
            await pulse.beat(workspace, sources=SOURCES, batch=3)

    async def evaluations(over: asyncio.Event) -> None:
        while not over.is_set():
            await request(chance.choice(segments), now)
            await cycles.run(workspace, sources=SOURCES)

    over = asyncio.Event()
    await asyncio.gather(change(over), pulses(over), pulses(over), evaluations(over), evaluations(over))
    await run_all(workspace, now=now)
    for one in segments:
        await request(one, now)
    over = asyncio.Event()
    async with half_way(workspace) as last:
        await asyncio.gather(change(over), pulses(over), pulses(over))
    assert len(await last.running or ()) == 3
    await drain(workspace, now=now)
    on_premium, on_gold = ({ids[name] for name, one in plans.items() if one == plan} for plan in ("premium", "gold"))
    assert await factories.members_of(premium) == on_premium
    assert await factories.members_of(gold) == on_gold
    assert await factories.members_of(others) == set(ids.values()) - on_premium
    assert await membership.verify(workspace) == []
