"""The arq jobs: each takes ids, is safe to run twice, and stops by itself in under 30 s."""

from datetime import datetime
from time import monotonic
from typing import TypedDict
from uuid import UUID

from app.resources import Resources
from campaigns import sending, waiting
from db.transactions import across_workspaces
from segments import cycles

NOW = "SELECT now()"
TURN_S = 25.0
"""A turn of sending or evaluating: under arq's job timeout, which would cancel it."""


class JobContext(TypedDict):
    resources: Resources
    under_way: set[str]
    """Campaigns that this process sends now: a second turn would only share the same slots."""
    evaluating: set[str]
    """Workspaces whose segments this process evaluates now: a second turn would find nothing that the first does not.
    """


async def deliver(ctx: JobContext, workspace_id: str, campaign_id: str) -> None:
    """Send until the campaign is done or the time is up; ring again if work is left."""
    if campaign_id in ctx["under_way"]:
        return
    ctx["under_way"].add(campaign_id)
    r = ctx["resources"]
    ids = {"workspace_id": UUID(workspace_id), "campaign_id": UUID(campaign_id)}
    try:
        now, until = await database_now(), monotonic() + TURN_S
        if await sending.prepare(**ids, carrier=r.carrier, now=now, until=until):
            await r.wakeups.deliver(**ids)  # a small ledger is written by one, and sent by all
        more = await sending.deliver(**ids, carrier=r.carrier, now=now, until=until)
    finally:
        ctx["under_way"].discard(campaign_id)
    if more:
        await r.wakeups.deliver_on(**ids)


async def database_now() -> datetime:
    """The time that all processes agree on: a worker whose clock is ahead must not let a campaign expire early."""
    async with across_workspaces() as connection:
        now: datetime = await connection.fetchval(NOW)
    return now


async def evaluate(ctx: JobContext, workspace_id: str, evaluation_id: str) -> None:
    """Evaluate all that waits in the workspace, not only what was rung for, and wake campaigns that waited for it."""
    if workspace_id in ctx["evaluating"]:
        return
    ctx["evaluating"].add(workspace_id)
    try:
        more = await evaluate_all(ctx["resources"], UUID(workspace_id), until=monotonic() + TURN_S)
    finally:
        ctx["evaluating"].discard(workspace_id)
    if more:
        await ctx["resources"].wakeups.evaluate(workspace_id=UUID(workspace_id), evaluation_id=UUID(evaluation_id))


async def evaluate_all(r: Resources, workspace_id: UUID, *, until: float) -> bool:
    """Cycle after cycle until nothing waits or `until` (monotonic seconds); True when something may still wait."""
    while monotonic() < until and not r.carrier.stopping.is_set():
        ended = await cycles.run(workspace_id, sources=r.sources, stale_after=r.settings.stale_after)
        if ended is None:
            return False
        for campaign_id in await waiting.campaigns_for(workspace_id, ended):
            await r.wakeups.deliver(workspace_id=workspace_id, campaign_id=campaign_id)
    return True
