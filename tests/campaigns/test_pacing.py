"""Rates that hold for all workers together: reserved in PostgreSQL, a group at a time."""

import asyncio
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from campaigns import drafts, pacing, sending
from campaigns.wanted import CampaignChanges
from db.transactions import transaction
from profiles.addresses import AddressHasher
from tests.campaigns.factories import ReadHere, ScriptedChannel, carrier, make_campaign, make_people

NAMES = [f"p{place:03}" for place in range(30)]
TENTH = timedelta(milliseconds=100)
DISPATCH = "SELECT id, planned_at, next_send_at FROM dispatch"
LAST_SENT = "SELECT max(sent_at) FROM delivery"
READ = """
SELECT count(*) FROM delivery d JOIN dispatch r ON d.dispatch_id = r.id AND d.profile_id <= r.walked_through
WHERE d.state = 'pending'
"""
SENT = "SELECT count(*) FROM delivery WHERE state = 'sent'"


async def fetch(workspace_id: UUID, query: str) -> Any:
    async with transaction(workspace_id) as connection:
        return await connection.fetchrow(query)


async def started(
    workspace_id: UUID, people: int, *, now: datetime, hasher: AddressHasher, **wanted: Any
) -> tuple[UUID, ScriptedChannel]:
    await make_people(workspace_id, NAMES[:people], hasher=hasher, now=now)
    campaign = await make_campaign(workspace_id, now=now, **wanted)
    await sending.start(workspace_id, campaign.id, now=now)
    return campaign.id, ScriptedChannel()


async def test_a_campaigns_instants_lie_apart_by_its_rate(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await started(workspace, 3, now=now, hasher=hasher, rate_per_s=10)
    dispatch = await fetch(workspace, DISPATCH)
    async with transaction(workspace) as connection:  # in which now() stands still

        async def reserve(messages: int) -> timedelta | None:
            row = await connection.fetchrow(pacing.RESERVE_CAMPAIGN, workspace, dispatch["id"], messages, pacing.AHEAD)
            wait: timedelta | None = row["wait"]
            return wait

        assert [await reserve(messages) for messages in (1, 2, 5, 3)] == [0 * TENTH, TENTH, 3 * TENTH, 8 * TENTH]
        # 1.1 s are reserved: nobody queues up further ahead than a second.
        assert await reserve(1) is None


async def test_a_channels_instants_lie_apart_by_its_rate_whoever_asks(workspace: UUID, other_workspace: UUID) -> None:
    async with transaction(workspace) as connection:
        waits = [
            await connection.fetchval(pacing.RESERVE_CHANNEL, "EMAIL", messages, 20, pacing.AHEAD)
            for messages in (2, 2, 18)
        ]
        assert waits == [0 * TENTH, TENTH, 2 * TENTH]
        assert await connection.fetchval(pacing.RESERVE_CHANNEL, "EMAIL", 1, 20, pacing.AHEAD) is None
        assert await connection.fetchval(pacing.RESERVE_CHANNEL, "PUSH", 1, 20, pacing.AHEAD) == 0 * TENTH
    async with transaction(other_workspace) as connection:
        assert await connection.fetchval(pacing.RESERVE_CHANNEL, "EMAIL", 1, 20, pacing.AHEAD) is None


async def test_two_workers_together_keep_a_campaigns_rate(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """T-14: the last of 12 messages at 20 a second leaves no earlier than 0.55 s after the first could."""
    campaign_id, channel = await started(workspace, 12, now=now, hasher=hasher, rate_per_s=20)
    await asyncio.gather(
        *(
            sending.deliver(workspace, campaign_id, carrier=carrier(channel), now=now, until=monotonic() + 60)
            for _ in range(2)
        )
    )
    assert channel.recipients == [f"{name}@example.com" for name in NAMES[:12]]
    dispatch, last = await fetch(workspace, DISPATCH), await fetch(workspace, LAST_SENT)
    assert last["max"] - dispatch["planned_at"] >= 11 * TENTH / 2
    assert dispatch["next_send_at"] - dispatch["planned_at"] >= 12 * TENTH / 2


async def test_the_channels_rate_holds_for_campaigns_without_one(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    campaign_id, channel = await started(workspace, 8, now=now, hasher=hasher)
    paced = carrier(channel, channel_rate=20)
    await sending.deliver(workspace, campaign_id, carrier=paced, now=now, until=monotonic() + 60)
    assert len(channel.received) == 8
    dispatch, last = await fetch(workspace, DISPATCH), await fetch(workspace, LAST_SENT)
    assert dispatch["next_send_at"] is None
    assert last["max"] - dispatch["planned_at"] >= 6 * TENTH / 2


async def test_a_slow_campaign_holds_few_messages_and_goes_faster_when_it_is_told_to(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    campaign_id, channel = await started(workspace, 30, now=now, hasher=hasher, rate_per_s=1)
    job = asyncio.create_task(
        sending.deliver(workspace, campaign_id, carrier=carrier(channel), now=now, until=monotonic() + 20)
    )
    await channel.until_received(2)
    assert (await fetch(workspace, READ))["count"] <= 4
    await drafts.update(workspace, campaign_id, CampaignChanges(rate_per_s=None), proofs=ReadHere(), now=now)
    # At the old rate 30 messages would take longer than this turn.
    assert await job is False
    assert (await fetch(workspace, SENT))["count"] == 30
