"""Schedules, expiry, lateness and banners' lives, with a clock that the test moves."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from campaigns import control, drafts, placements, sending
from campaigns.banner_content import BannerContent, BannerFace
from campaigns.errors import CampaignError, IllegalMove
from campaigns.listing import get
from campaigns.models import Campaign, CampaignStatus, MissedPolicy
from campaigns.placements import PlacementInput
from campaigns.wanted import CampaignChanges
from segments import lifecycle as segment_lifecycle
from segments.lifecycle import SegmentInput
from segments.models import SegmentType
from tests.campaigns.factories import ReadHere, make_campaign

S = CampaignStatus
HOUR = timedelta(hours=1)


async def make_banner(workspace_id: UUID, *, now: datetime, **wanted: object) -> Campaign:
    placement = await placements.find_by_key(workspace_id, "home") or await placements.create(
        workspace_id, PlacementInput(key="home", name="Home")
    )
    return await make_campaign(
        workspace_id,
        now=now,
        sender_id=None,
        content=BannerContent(BannerFace("Sale", "Today")),
        placement_id=placement.id,
        weight=10,
        **wanted,
    )


async def test_a_scheduled_campaign_starts_when_its_time_has_come(workspace: UUID, now: datetime) -> None:
    """S3-24."""
    campaign = await make_campaign(workspace, now=now)
    scheduled = await control.schedule(workspace, campaign.id, at=now + HOUR, now=now, time_zone="Europe/Berlin")
    assert (scheduled.status, scheduled.scheduled_at, scheduled.time_zone) == (
        S.SCHEDULED,
        now + HOUR,
        "Europe/Berlin",
    )
    assert await control.act_on_time(workspace, campaign.id, now=now + HOUR - timedelta(seconds=1)) is None
    started = await control.act_on_time(workspace, campaign.id, now=now + HOUR)
    assert started is not None
    assert started.status is S.PREPARING
    assert await control.act_on_time(workspace, campaign.id, now=now + HOUR) is None


@pytest.mark.parametrize(
    ("policy", "status", "reason"),
    [
        (MissedPolicy.SEND, S.PREPARING, None),
        (MissedPolicy.SKIP, S.CANCELLED, "MISSED"),
        (MissedPolicy.HOLD, S.PAUSED, "MISSED"),
    ],
)
async def test_a_late_schedule_follows_its_policy(
    workspace: UUID, now: datetime, policy: MissedPolicy, status: S, reason: str | None
) -> None:
    """R11."""
    campaign = await make_campaign(workspace, now=now)
    await control.schedule(
        workspace, campaign.id, at=now + HOUR, now=now, missed_policy=policy, maximum_lateness=timedelta(minutes=5)
    )
    found = await control.act_on_time(workspace, campaign.id, now=now + HOUR + timedelta(minutes=6))
    assert found is not None
    assert (found.status, found.status_reason) == (status, reason)


async def test_a_held_late_campaign_can_be_resumed(workspace: UUID, now: datetime) -> None:
    campaign = await make_campaign(workspace, now=now)
    await control.schedule(workspace, campaign.id, at=now + HOUR, now=now, missed_policy=MissedPolicy.HOLD)
    await control.act_on_time(workspace, campaign.id, now=now + 3 * HOUR)
    assert (await control.resume(workspace, campaign.id, now=now + 3 * HOUR)).status is S.PREPARING


async def test_a_campaign_that_expired_before_its_start_has_failed(workspace: UUID, now: datetime) -> None:
    campaign = await make_campaign(workspace, now=now, expires_at=now + 2 * HOUR)
    await control.schedule(workspace, campaign.id, at=now + HOUR, now=now)
    found = await control.act_on_time(workspace, campaign.id, now=now + 3 * HOUR)
    assert found is not None
    assert (found.status, found.status_reason) == (S.FAILED, "EXPIRED")


async def test_what_stands_in_the_way_of_a_due_start_is_written_on_the_campaign(workspace: UUID, now: datetime) -> None:
    segment = await segment_lifecycle.create(workspace, SegmentInput(name="VIPs", type=SegmentType.STATIC), now=now)
    await segment_lifecycle.activate(workspace, segment.id, now=now)
    campaign = await make_campaign(workspace, now=now, segment_ids=(segment.id,))
    await control.schedule(workspace, campaign.id, at=now + HOUR, now=now)
    await segment_lifecycle.pause(workspace, segment.id, now=now)
    found = await control.act_on_time(workspace, campaign.id, now=now + HOUR)
    assert found is not None
    assert (found.status, found.status_reason) == (S.FAILED, "SEGMENT_NOT_ACTIVE")


async def test_schedules_that_make_no_sense_are_refused_by_field(workspace: UUID, now: datetime) -> None:
    campaign = await make_campaign(workspace, now=now, expires_at=now + HOUR)
    cases = [
        ({"at": now - HOUR}, "IN_THE_PAST", ("at",)),
        ({"at": now + 2 * HOUR}, "EXPIRES_BEFORE_START", ("at",)),
        ({"at": now + HOUR / 2, "time_zone": "Mars/Olympus"}, "UNKNOWN_TIME_ZONE", ("time_zone",)),
        ({"at": now + HOUR / 2, "maximum_lateness": timedelta(days=99)}, "OUT_OF_RANGE", ("maximum_lateness_seconds",)),
    ]
    for arguments, code, field in cases:
        with pytest.raises(CampaignError) as refusal:
            await control.schedule(workspace, campaign.id, now=now, **arguments)  # type: ignore[arg-type]
        assert (refusal.value.code, refusal.value.field) == (code, field)
    assert (await get(workspace, campaign.id)).status is S.DRAFT


async def test_a_schedule_is_taken_back(workspace: UUID, now: datetime) -> None:
    campaign = await make_campaign(workspace, now=now)
    await control.schedule(workspace, campaign.id, at=now + HOUR, now=now)
    back = await control.unschedule(workspace, campaign.id, now=now)
    assert (back.status, back.scheduled_at) == (S.DRAFT, None)
    assert await control.act_on_time(workspace, campaign.id, now=now + 2 * HOUR) is None


async def test_content_is_frozen_once_sending_has_begun(workspace: UUID, now: datetime) -> None:
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    with pytest.raises(CampaignError) as refusal:
        await drafts.update(workspace, campaign.id, CampaignChanges(topic="other"), proofs=ReadHere(), now=now)
    assert (refusal.value.code, refusal.value.field) == ("FROZEN", ("topic",))
    renamed = await drafts.update(workspace, campaign.id, CampaignChanges(name="Renamed"), proofs=ReadHere(), now=now)
    assert renamed.name == "Renamed"


async def test_a_banner_lives_until_it_expires(workspace: UUID, now: datetime) -> None:
    """S3-13, S3-25."""
    banner = await make_banner(workspace, now=now, expires_at=now + HOUR)
    assert (await sending.start(workspace, banner.id, now=now)).status is S.ACTIVE
    ended = await control.act_on_time(workspace, banner.id, now=now + HOUR)
    assert ended is not None
    assert (ended.status, ended.status_reason) == (S.ENDED, "EXPIRED")


async def test_a_cancelled_banner_is_reactivated_and_an_email_is_not(workspace: UUID, now: datetime) -> None:
    """S3x-15."""
    banner = await make_banner(workspace, now=now)
    await sending.start(workspace, banner.id, now=now)
    await control.cancel(workspace, banner.id, now=now)
    assert (await control.reactivate(workspace, banner.id, now=now)).status is S.ACTIVE
    email = await make_campaign(workspace, now=now)
    await sending.start(workspace, email.id, now=now)
    await control.cancel(workspace, email.id, now=now)
    with pytest.raises(CampaignError):
        await control.reactivate(workspace, email.id, now=now)


async def test_only_a_draft_that_was_never_sent_can_be_deleted(workspace: UUID, now: datetime) -> None:
    campaign = await make_campaign(workspace, now=now)
    copy = await drafts.duplicate(workspace, campaign.id, now=now)
    assert copy.name == "Copy of News"
    await drafts.delete(workspace, copy.id)
    await sending.start(workspace, campaign.id, now=now)
    with pytest.raises(CampaignError):
        await drafts.delete(workspace, campaign.id)
    with pytest.raises(IllegalMove):
        await control.schedule(workspace, campaign.id, at=now + HOUR, now=now)
