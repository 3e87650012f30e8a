"""Segments, brand and sender of a campaign that is written or started while somebody else changes them."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from campaigns import drafts, sending
from campaigns.errors import CampaignError, TargetError
from campaigns.listing import get
from campaigns.models import CampaignStatus
from campaigns.senders import SenderInput, create
from campaigns.wanted import CampaignChanges
from db.transactions import apart, transaction
from profiles import brands
from profiles.addresses import AddressHasher
from segments import evaluation
from segments import lifecycle as segment_lifecycle
from segments.lifecycle import SegmentInput
from segments.models import EvaluationStatus, SegmentType
from tests.campaigns.factories import ReadHere, ScriptedChannel, make_campaign, make_people
from tests.campaigns.test_races import somebody_waits
from tests.campaigns.test_sending import deliver_all, make_static
from tests.segments.factories import PREMIUM, run_all


async def written(workspace_id: UUID, segment_id: UUID, now: datetime) -> Any:
    return await make_campaign(workspace_id, now=now, segment_ids=(segment_id,))


async def changed(workspace_id: UUID, segment_id: UUID, now: datetime) -> Any:
    with apart():
        campaign = await make_campaign(workspace_id, now=now)
    changes = CampaignChanges(segment_ids=(segment_id,))
    return await drafts.update(workspace_id, campaign.id, changes, proofs=ReadHere(), now=now)


@pytest.mark.parametrize("write", [written, changed])
async def test_a_segment_that_is_deleted_meanwhile_is_no_target(
    workspace: UUID, now: datetime, write: Callable[[UUID, UUID, datetime], Coroutine[Any, Any, Any]]
) -> None:
    segment = await make_static(workspace, "going", [], now=now)
    async with transaction(workspace):
        await segment_lifecycle.delete(workspace, segment)
        with apart():
            writing = asyncio.create_task(write(workspace, segment, now))
            while not await somebody_waits(workspace):
                pass
    with pytest.raises(TargetError) as refusal:
        await writing
    assert (refusal.value.code, refusal.value.field) == ("NOT_FOUND", ("segment_ids", "0"))


async def test_a_campaign_whose_segment_is_paused_while_it_starts_has_failed(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Neither waits for the other; what was asked for meanwhile keeps nobody from evaluating the segment later."""
    await make_people(workspace, ["ada"], hasher=hasher, now=now)
    wanted = SegmentInput(name="dynamic", type=SegmentType.DYNAMIC, definition=PREMIUM)
    segment = await segment_lifecycle.create(workspace, wanted, now=now)
    await segment_lifecycle.activate(workspace, segment.id, now=now)
    await run_all(workspace, now=now)
    campaign = await make_campaign(workspace, now=now, segment_ids=(segment.id,))
    later = now + timedelta(minutes=1)
    async with transaction(workspace):
        assert (await sending.start(workspace, campaign.id, now=later)).status is CampaignStatus.PREPARING
        with apart():
            await segment_lifecycle.pause(workspace, segment.id, now=now)
    await deliver_all(workspace, campaign.id, ScriptedChannel(), later)
    found = await get(workspace, campaign.id)
    assert (found.status, found.status_reason) == (CampaignStatus.FAILED, "SEGMENT_NOT_ACTIVE")
    await run_all(workspace, now=now)
    newest = (await evaluation.latest(workspace, [segment.id]))[segment.id]
    assert (newest.status, newest.error_code) == (EvaluationStatus.FAILED, "SEGMENT_NOT_ACTIVE")
    await segment_lifecycle.activate(workspace, segment.id, now=now)
    await run_all(workspace, now=now)
    assert (await evaluation.latest(workspace, [segment.id]))[segment.id].status is EvaluationStatus.SUCCEEDED


async def test_another_brand_is_none_of_the_sender_that_stays(workspace: UUID, now: datetime) -> None:
    mine, other = await brands.create(workspace, "Mine"), await brands.create(workspace, "Other")
    ours = SenderInput(from_name="M", from_address="m@mine.example", postal_address="2 Main St", brand_id=mine.id)
    sender = await create(workspace, ours)
    campaign = await make_campaign(workspace, now=now, brand_id=mine.id, sender_id=sender.id)
    with pytest.raises(CampaignError) as refusal:
        await drafts.update(workspace, campaign.id, CampaignChanges(brand_id=other.id), proofs=ReadHere(), now=now)
    assert (refusal.value.code, refusal.value.field) == ("OTHER_BRAND", ("sender_id",))
