"""What the clock does: everything due is found in PostgreSQL, whatever Valkey has lost."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

import pytest

from app.resources import Resources
from campaigns import control, sending
from campaigns.listing import get
from campaigns.models import CampaignStatus
from campaigns.transmission import Carrier
from db.transactions import transaction
from profiles.addresses import AddressHasher
from segments import evaluation, lifecycle
from segments.engines.postgres import PostgresEngine
from segments.lifecycle import SegmentInput
from segments.models import Cadence, EvaluationCause, EvaluationStatus, SegmentType
from tests.campaigns.factories import ScriptedChannel, carrier, make_campaign, make_people
from workers import jobs, ticks
from workers.jobs import JobContext

HOUR = timedelta(hours=1)
DAILY_BUYERS = SegmentInput(
    name="Buyers",
    type=SegmentType.DYNAMIC,
    definition={"event": {"name": "purchase", "count": {"operator": "GREATER_OR_EQUAL", "value": 1}}},
    cadence=Cadence.DAILY,
)


@dataclass
class RecordedBells:
    """In place of Wakeups: remembers who was rung for."""

    delivered: list[UUID] = field(default_factory=list)
    evaluated: list[UUID] = field(default_factory=list)

    async def deliver(self, *, workspace_id: UUID, campaign_id: UUID) -> None:
        self.delivered.append(campaign_id)

    async def deliver_on(self, *, workspace_id: UUID, campaign_id: UUID) -> None:
        self.delivered.append(campaign_id)

    async def evaluate(self, *, workspace_id: UUID, evaluation_id: UUID) -> None:
        self.evaluated.append(evaluation_id)


@dataclass
class Worker:
    """The part of a worker's resources that jobs and ticks use."""

    wakeups: RecordedBells = field(default_factory=RecordedBells)
    carrier: Carrier = field(default_factory=lambda: carrier(ScriptedChannel()))
    engine: PostgresEngine = field(default_factory=PostgresEngine)

    @property
    def context(self) -> JobContext:
        return JobContext(resources=cast(Resources, self), under_way=set())


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


async def test_rows_of_a_dead_worker_are_swept(workspace: UUID, now: datetime, hasher: AddressHasher) -> None:
    await make_people(workspace, ["a", "b"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    worker = Worker()
    await jobs.deliver(worker.context, str(workspace), str(campaign.id))
    async with transaction(workspace) as connection:
        dispatch_id = await connection.fetchval("SELECT id FROM dispatch")
        claim_id = await connection.fetchval(
            "INSERT INTO claim (workspace_id, dispatch_id, owner, lease_until)"
            " VALUES ($1, $2, $2, now() - interval '1 s') RETURNING id",
            workspace,
            dispatch_id,
        )
        await connection.execute("UPDATE delivery SET state = 'claimed', claim_id = $1", claim_id)
    await ticks.sweep(worker.context)
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT array_agg(DISTINCT state) FROM delivery") == ["pending"]
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
