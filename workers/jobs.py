"""The arq jobs: each takes ids, is safe to run twice, and stops by itself in under 30 s."""

from datetime import UTC, datetime
from time import monotonic
from typing import TypedDict
from uuid import UUID

from app.resources import Resources
from campaigns import sending, waiting
from segments import evaluation
from segments.errors import EvaluationNotFound

TURN_S = 25.0
"""A turn of sending: under arq's job timeout, which would cancel it."""


class JobContext(TypedDict):
    resources: Resources
    under_way: set[str]
    """Campaigns that this process sends now: a second turn would only share the same slots."""


async def deliver(ctx: JobContext, workspace_id: str, campaign_id: str) -> None:
    """Send until the campaign is done or the time is up; ring again if work is left."""
    if campaign_id in ctx["under_way"]:
        return
    ctx["under_way"].add(campaign_id)
    r = ctx["resources"]
    ids = {"workspace_id": UUID(workspace_id), "campaign_id": UUID(campaign_id)}
    try:
        more = await sending.deliver(**ids, carrier=r.carrier, now=datetime.now(UTC), until=monotonic() + TURN_S)
    finally:
        ctx["under_way"].discard(campaign_id)
    if more:
        await r.wakeups.deliver_on(**ids)


async def evaluate(ctx: JobContext, workspace_id: str, evaluation_id: str) -> None:
    """Evaluate one segment, then wake the campaigns that waited for it."""
    r = ctx["resources"]
    try:
        done = await evaluation.run(UUID(workspace_id), UUID(evaluation_id), engine=r.engine, now=datetime.now(UTC))
    except EvaluationNotFound:
        return  # its segment was deleted while the bell rang
    for campaign_id in await waiting.campaigns_for(UUID(workspace_id), done.segment_id):
        await r.wakeups.deliver(workspace_id=UUID(workspace_id), campaign_id=campaign_id)
