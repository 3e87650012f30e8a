"""For how many workers a campaign has work: so many are rung for when somebody starts it or lets it go on."""

from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID, uuid4

from campaigns import counts, sending
from db.transactions import across_workspaces, transaction
from profiles.addresses import AddressHasher
from tests.campaigns.factories import ScriptedChannel, carrier, make_campaign, make_people

ALIVE_WITHIN = timedelta(minutes=1)


async def wanted(workspace: UUID, campaign_id: UUID) -> int:
    """Two messages being worth a worker."""
    return await counts.workers_wanted(workspace, campaign_id, alive_within=ALIVE_WITHIN, messages_a_worker=2)


async def arrive(workers: int) -> None:
    async with across_workspaces() as connection:
        for _ in range(workers):
            await connection.fetchval("SELECT worker_seen($1, $2)", uuid4(), ALIVE_WITHIN)


async def test_as_many_workers_are_wanted_as_have_work_and_live(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Before and after the ledger is written; at least one, for somebody may be about to come."""
    await make_people(workspace, [f"p{number}" for number in range(7)], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    assert await wanted(workspace, campaign.id) == 1
    await arrive(2)
    assert await wanted(workspace, campaign.id) == 2
    await arrive(3)
    assert await wanted(workspace, campaign.id) == 3
    async with transaction(workspace) as connection:
        dispatch_id: UUID = await connection.fetchval("SELECT id FROM dispatch")
    worker = carrier(ScriptedChannel())
    assert await sending.plan(workspace, dispatch_id, carrier=worker, until=monotonic() + 60)
    assert await wanted(workspace, campaign.id) == 3
    while await sending.deliver(workspace, campaign.id, carrier=worker, now=now, until=monotonic() + 60):
        pass
    assert await wanted(workspace, campaign.id) == 1
