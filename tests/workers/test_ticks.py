"""What the clock does: everything due is found in PostgreSQL, whatever Valkey has lost."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from app.wakeups import Wakeups
from campaigns import control, sending
from campaigns.listing import get
from campaigns.models import CampaignStatus
from db.transactions import across_workspaces, transaction
from profiles import retention
from profiles.addresses import AddressHasher
from segments import evaluation, lifecycle
from segments.lifecycle import SegmentInput
from segments.models import Cadence, EvaluationCause, EvaluationStatus, SegmentType
from tests.campaigns.factories import ScriptedChannel, make_campaign, make_people
from tests.conftest import Database
from tests.segments.interrupted import killed_worker
from tests.workers.worker import RecordedBells, Worker
from workers import jobs, ticks

HOUR = timedelta(hours=1)
DAILY_BUYERS = SegmentInput(
    name="Buyers",
    type=SegmentType.DYNAMIC,
    definition={"event": {"name": "purchase", "count": {"operator": "GREATER_OR_EQUAL", "value": 1}}},
    cadence=Cadence.DAILY,
)


async def test_a_due_campaign_is_started_and_rung_for(workspace: UUID, now: datetime) -> None:
    """S3-24."""
    due = await make_campaign(workspace, now=now)
    later = await make_campaign(workspace, now=now)
    await control.schedule(workspace, due.id, at=now + HOUR, now=now)
    await control.schedule(workspace, later.id, at=now + 3 * HOUR, now=now)
    worker = Worker()
    await ticks.start_due(worker.context, now + HOUR)
    assert worker.wakeups.delivered == [due.id]
    assert (await get(workspace, due.id)).status is CampaignStatus.PREPARING
    assert (await get(workspace, later.id)).status is CampaignStatus.SCHEDULED


async def test_a_campaign_whose_bell_was_lost_is_rung_for_again(workspace: UUID, now: datetime) -> None:
    """R8."""
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    worker = Worker()
    await ticks.sweep(worker.context)
    assert worker.wakeups.delivered == [campaign.id]


async def test_a_queue_that_is_long_already_gets_no_more_bells(
    workspace: UUID, database: Database, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else campaigns that are under way for long fill it, every 4 s anew, and whoever comes new waits behind them."""
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    monkeypatch.setattr("app.wakeups.MOST_WAITING", 2)
    wakeups, behind = Wakeups(database.redis_url), []
    for _ in range(3):
        behind.append(await wakeups.is_behind())
        await wakeups.deliver_on(workspace_id=workspace, campaign_id=campaign.id)
    await wakeups.close()
    assert behind == [False, False, True]
    worker = Worker(RecordedBells(behind=True))
    await ticks.sweep(worker.context)
    assert worker.wakeups.delivered == []


async def test_rows_of_a_dead_worker_are_swept(workspace: UUID, now: datetime, hasher: AddressHasher) -> None:
    await make_people(workspace, ["a", "b"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    worker = Worker()
    await jobs.deliver(worker.context, str(workspace), str(campaign.id))
    async with transaction(workspace) as connection:
        dispatch_id = await connection.fetchval("SELECT id FROM dispatch")
        claim_id = await connection.fetchval(
            "INSERT INTO claim (workspace_id, dispatch_id, owner, lease_until, walked_from)"
            " VALUES ($1, $2, $2, now() - interval '1 s', 0) RETURNING id",
            workspace,
            dispatch_id,
        )
        await connection.execute(
            "UPDATE delivery SET claim_id = $1,"
            " state = CASE WHEN email = 'a@example.com' THEN 'sending' ELSE 'pending' END"
            " FROM profile WHERE id = profile_id",
            claim_id,
        )
    await ticks.sweep(worker.context)
    async with transaction(workspace) as connection:
        states = await connection.fetch("SELECT profile_id, state FROM delivery ORDER BY profile_id")
        assert [row["state"] for row in states] == ["in_doubt", "pending"]
        walked = await connection.fetchval("SELECT walked_through FROM dispatch")
        assert walked == states[1]["profile_id"] - 1
        assert await connection.fetchval("SELECT count(*) FROM claim") == 0


async def test_a_segment_whose_time_has_come_is_evaluated_and_planned_again(workspace: UUID, now: datetime) -> None:
    """S1-04, S3-05."""
    segment = await lifecycle.create(workspace, DAILY_BUYERS, now=now)
    segment = await lifecycle.activate(workspace, segment.id, now=now)
    worker = Worker()
    await ticks.evaluate_due(worker.context, now)
    (first,) = worker.wakeups.evaluated
    await jobs.evaluate(worker.context, str(workspace), str(first))
    assert segment.next_run_at is not None
    later = Worker()
    await ticks.evaluate_due(later.context, segment.next_run_at - timedelta(seconds=1))
    assert later.wakeups.evaluated == []
    await ticks.evaluate_due(later.context, segment.next_run_at)
    (second,) = later.wakeups.evaluated
    queued = await evaluation.find(workspace, second)
    assert queued is not None
    assert (queued.status, queued.cause) == (EvaluationStatus.QUEUED, EvaluationCause.CADENCE)


async def test_a_campaign_waits_for_its_segments_and_is_rung_for_when_they_are_evaluated(
    workspace: UUID, now: datetime
) -> None:
    """S1-11, with refreshBefore."""
    segment = await lifecycle.create(workspace, DAILY_BUYERS, now=now)
    await lifecycle.activate(workspace, segment.id, now=now)
    campaign = await make_campaign(workspace, now=now, segment_ids=(segment.id,))
    await sending.start(workspace, campaign.id, now=now)
    worker = Worker()
    await jobs.deliver(worker.context, str(workspace), str(campaign.id))
    assert (await get(workspace, campaign.id)).status is CampaignStatus.PREPARING
    await ticks.evaluate_due(worker.context, now)
    (evaluation_id,) = worker.wakeups.evaluated
    await jobs.evaluate(worker.context, str(workspace), str(evaluation_id))
    assert worker.wakeups.delivered == [campaign.id]
    await jobs.deliver(worker.context, str(workspace), str(campaign.id))
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENT


async def test_one_turn_of_a_campaign_is_enough_for_a_process(workspace: UUID, now: datetime) -> None:
    """Surplus bells end at once, so that they never fill a worker's jobs."""
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    worker = Worker()
    context = worker.context
    context["under_way"].add(str(campaign.id))
    await jobs.deliver(context, str(workspace), str(campaign.id))
    assert (await get(workspace, campaign.id)).status is CampaignStatus.PREPARING


async def test_of_all_workers_one_takes_the_tick_and_time_missed_is_made_up(workspace: UUID, now: datetime) -> None:
    """R8: sweep and clean-up go by elapsed time, not by the second on the clock."""
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    first, second = Worker(), Worker()
    await ticks.tick(first.context)
    await ticks.tick(second.context)
    assert (first.wakeups.delivered, second.wakeups.delivered) == ([campaign.id], [])
    assert not await ticks.take_turn("forget", ticks.FORGET)


async def test_one_that_fails_does_not_keep_the_others_waiting(
    workspace: UUID, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await make_campaign(workspace, now=now), await make_campaign(workspace, now=now)
    acted: list[UUID] = []

    async def act(workspace_id: UUID, campaign_id: UUID) -> None:
        if campaign_id == first.id:
            raise RuntimeError("broken")
        acted.append(campaign_id)

    await ticks.for_each([(workspace, first.id), (workspace, second.id)], act)
    assert acted == [second.id]
    assert "tick failed for one" in caplog.text


async def test_an_evaluation_of_a_segment_deleted_meanwhile_is_nobodys_business(workspace: UUID, now: datetime) -> None:
    segment = await lifecycle.create(workspace, DAILY_BUYERS, now=now)
    await lifecycle.activate(workspace, segment.id, now=now)
    worker = Worker()
    await ticks.evaluate_due(worker.context, now)
    await lifecycle.delete(workspace, segment.id)
    await jobs.evaluate(worker.context, str(workspace), str(worker.wakeups.evaluated[0]))
    assert worker.wakeups.delivered == []


async def test_many_evaluations_of_a_workspace_are_one_bell_and_one_job(
    workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    for tenant in (workspace, workspace, workspace, other_workspace):
        segment = await lifecycle.create(tenant, DAILY_BUYERS, now=now)
        await lifecycle.activate(tenant, segment.id, now=now)
    worker = Worker()
    await ticks.evaluate_due(worker.context, now)
    assert len(worker.wakeups.evaluated) == 2
    await jobs.evaluate(worker.context, str(workspace), str(worker.wakeups.evaluated[0]))
    async with transaction(workspace) as connection:
        rows = await connection.fetch("SELECT status, count(*) FROM evaluation GROUP BY 1")
    assert [tuple(row) for row in rows] == [("SUCCEEDED", 3)]


async def test_what_a_killed_worker_left_is_rung_for_by_the_sweep(workspace: UUID, now: datetime) -> None:
    segment = await lifecycle.create(workspace, DAILY_BUYERS, now=now)
    await lifecycle.activate(workspace, segment.id, now=now)
    await killed_worker(workspace)
    worker = Worker()
    await ticks.sweep(worker.context)
    (rung,) = worker.wakeups.evaluated
    await jobs.evaluate(worker.context, str(workspace), str(rung))
    done = await evaluation.find(workspace, rung)
    assert done is not None
    assert (done.status, done.fence) == (EvaluationStatus.SUCCEEDED, 2)


async def test_one_turn_of_a_workspace_is_enough_for_a_process(workspace: UUID, now: datetime) -> None:
    """A turn takes whatever comes while it works; a second would only find nothing."""
    segment = await lifecycle.create(workspace, DAILY_BUYERS, now=now)
    await lifecycle.activate(workspace, segment.id, now=now)
    worker = Worker()
    worker.context["evaluating"].add(str(workspace))
    await jobs.evaluate(worker.context, str(workspace), str(segment.id))
    waiting = await evaluation.find_open(workspace, segment.id)
    assert waiting is not None
    assert waiting.status is EvaluationStatus.QUEUED


async def test_a_worker_that_is_to_stop_begins_no_cycle_and_rings_for_another(workspace: UUID, now: datetime) -> None:
    segment = await lifecycle.create(workspace, DAILY_BUYERS, now=now)
    await lifecycle.activate(workspace, segment.id, now=now)
    waiting = await evaluation.find_open(workspace, segment.id)
    assert waiting is not None
    worker = Worker()
    worker.carrier.stopping.set()
    await jobs.evaluate(worker.context, str(workspace), str(waiting.id))
    assert worker.wakeups.evaluated == [waiting.id]
    assert worker.context["evaluating"] == set()
    assert await evaluation.find_open(workspace, segment.id) is not None


async def test_a_campaign_waits_while_the_evaluation_of_its_segment_is_held(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """S1-11, with refreshBefore: it goes on when somebody has let the evaluation through and a worker has run it."""
    names = [f"p{number:03}" for number in range(120)]
    await make_people(workspace, names, hasher=hasher, now=now)
    anybody = SegmentInput(name="Anybody", type=SegmentType.DYNAMIC, definition={"identified": True})
    segment = await lifecycle.create(workspace, anybody, now=now)
    await lifecycle.activate(workspace, segment.id, now=now)
    worker = Worker()
    await ticks.evaluate_due(worker.context, now)
    await jobs.evaluate(worker.context, str(workspace), str(worker.wakeups.evaluated[0]))
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE profile SET identified = false WHERE external_id >= 'p010'")

    campaign = await make_campaign(workspace, now=now, segment_ids=(segment.id,))
    await sending.start(workspace, campaign.id, now=now + HOUR)
    held = await evaluation.find_open(workspace, segment.id)
    assert held is not None
    await jobs.evaluate(worker.context, str(workspace), str(held.id))
    assert worker.wakeups.delivered == [campaign.id]
    await jobs.deliver(worker.context, str(workspace), str(campaign.id))
    after = await evaluation.find(workspace, held.id)
    assert after is not None
    assert (after.status, after.cause, after.removed) == (EvaluationStatus.HELD, EvaluationCause.CAMPAIGN, 110)
    assert (await get(workspace, campaign.id)).status is CampaignStatus.PREPARING

    await evaluation.approve(workspace, held.id, now=now)
    await jobs.deliver(worker.context, str(workspace), str(campaign.id))
    assert (await get(workspace, campaign.id)).status is CampaignStatus.PREPARING
    worker.wakeups.delivered.clear()
    await jobs.evaluate(worker.context, str(workspace), str(held.id))
    assert worker.wakeups.delivered == [campaign.id]
    await jobs.deliver(worker.context, str(workspace), str(campaign.id))
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENT
    channel = worker.carrier.channel
    assert isinstance(channel, ScriptedChannel)
    assert channel.recipients == [f"{name}@example.com" for name in names[:10]]


async def test_a_workspace_that_fails_keeps_no_other_from_forgetting(
    workspace: UUID, other_workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[UUID] = []

    async def forget(workspace_id: UUID, *, now: datetime, audit_kept: timedelta) -> None:
        assert audit_kept == timedelta(days=365)
        forgotten.append(workspace_id)
        raise OSError

    monkeypatch.setattr(retention, "forget", forget)
    await ticks.forget(Worker().context, now)
    assert set(forgotten) == {workspace, other_workspace}


async def test_old_months_of_banner_events_are_dropped(workspace: UUID, now: datetime) -> None:
    """As many are kept as the settings say."""

    async def months() -> list[str]:
        async with across_workspaces() as connection:
            rows = await connection.fetch(
                "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'banner_event'::regclass"
            )
        return [row["name"] for row in rows]

    async with across_workspaces() as connection:
        for age in (timedelta(days=500), timedelta(days=300), timedelta(0)):
            await connection.execute("SELECT ensure_month('banner_event', $1)", now - age)
    before = sorted(await months())
    await ticks.forget(Worker().context, now)
    assert sorted(await months()) == before[1:]
    assert len(before) == 3
