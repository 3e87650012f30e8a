"""What the clock does, once a second by one of the workers: read in PostgreSQL what is due, and act or ring.

Nothing is parked in Redis: schedules, queued evaluations, dead workers' rows and open campaigns are all found here
again after any loss (R8).
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from campaigns import banner_retention, banner_stops, control, sweeping
from db.transactions import across_workspaces
from profiles import retention
from segments import changes, packs, pulse, schedule
from workers.jobs import JobContext, database_now

logger = logging.getLogger(__name__)

MOST = 500
"""Things one look takes up; the rest follows a second later, or on the next page."""
TICK = timedelta(seconds=0.9)
SWEEP = timedelta(seconds=4)
FORGET = timedelta(hours=1)

TAKE_TURN = "SELECT take_turn($1, $2)"
DUE_SEGMENTS = "SELECT workspace_id, segment_id FROM due_segments($1, $2)"
OPEN_EVALUATIONS = "SELECT workspace_id, evaluation_id FROM open_evaluations($1, $2)"
DUE_CAMPAIGNS = "SELECT workspace_id, campaign_id FROM due_campaigns($1, $2)"
EXPIRED_CLAIMS = "SELECT workspace_id, claim_id FROM expired_claims($1)"
OPEN_CAMPAIGNS = "SELECT workspace_id, campaign_id FROM open_campaigns($1, $2)"
WORKSPACES = "SELECT workspace_id FROM workspace_ids()"


async def tick(ctx: JobContext) -> None:
    """Every worker calls this each second, and one of them acts: due schedules and evaluations; every four seconds what
    dead workers left and lost bells; every hour what is old."""
    if not await take_turn("tick", TICK):
        return
    now = await database_now()
    await start_due(ctx, now)
    await evaluate_due(ctx, now)
    if await take_turn("sweep", SWEEP):
        await sweep(ctx)
    if await take_turn("forget", FORGET):
        await forget(ctx, now)


async def take_turn(what: str, pause: timedelta) -> bool:
    """Whether it is this process that does `what` now."""
    async with across_workspaces() as connection:
        taken: bool = await connection.fetchval(TAKE_TURN, what, pause)
    return taken


async def start_due(ctx: JobContext, now: datetime) -> None:
    """Campaigns to start, find late, or let expire."""

    async def act(workspace_id: UUID, campaign_id: UUID) -> None:
        if await control.act_on_time(workspace_id, campaign_id, now=now):
            await ctx["resources"].wakeups.deliver(workspace_id=workspace_id, campaign_id=campaign_id)

    await for_each(await found(DUE_CAMPAIGNS, now, MOST), act)


async def evaluate_due(ctx: JobContext, now: datetime) -> None:
    """Segments whose cadence has come are queued, and evaluations just queued are rung for."""

    async def request(workspace_id: UUID, segment_id: UUID) -> None:
        await schedule.request_due(workspace_id, segment_id, now=now)

    await for_each(await found(DUE_SEGMENTS, now, MOST), request)
    await ring_evaluations(ctx, fresh=True)


async def ring_evaluations(ctx: JobContext, *, fresh: bool) -> None:
    """One bell a workspace: whoever hears it takes all that waits there. `fresh`: for those just queued."""

    async def ring(workspace_id: UUID, evaluation_id: UUID) -> None:
        await ctx["resources"].wakeups.evaluate(workspace_id=workspace_id, evaluation_id=evaluation_id)

    first = dict(reversed(await found(OPEN_EVALUATIONS, fresh, MOST)))
    await for_each(list(first.items()), ring)


async def sweep(ctx: JobContext) -> None:
    """Rows of dead workers go back or into doubt; everything with work left is rung for, once, unless the workers are
    behind with the bells that they have."""
    wakeups = ctx["resources"].wakeups

    async def release(workspace_id: UUID, claim_id: int) -> None:
        await sweeping.release(workspace_id, claim_id)

    async def ring_campaign(workspace_id: UUID, campaign_id: UUID) -> None:
        await wakeups.deliver_on(workspace_id=workspace_id, campaign_id=campaign_id)

    await for_each(await found(EXPIRED_CLAIMS, MOST), release)
    if await wakeups.is_behind():
        return
    await ring_evaluations(ctx, fresh=False)
    after = UUID(int=0)
    while page := await found(OPEN_CAMPAIGNS, after, MOST):
        await for_each(page, ring_campaign)
        after = page[-1][1]


async def forget(ctx: JobContext, now: datetime) -> None:
    """Drop what is past its time: months of banner events, and the rest workspace by workspace."""
    settings = ctx["resources"].settings
    audit_kept = timedelta(days=settings.audit_days)
    try:
        await banner_retention.drop_months(settings.banner_event_months, now=now)
    except Exception:
        # Somebody wrote for long: an hour later it is tried again.
        logger.exception("months of banner events not dropped")
    async with across_workspaces() as connection:
        ids = [row["workspace_id"] for row in await connection.fetch(WORKSPACES)]

    async def forget_all(workspace_id: UUID, _: None) -> None:
        await retention.forget(workspace_id, now=now, audit_kept=audit_kept)
        await pulse.forget(workspace_id, now=now)
        await packs.forget(workspace_id, now=now)
        await changes.forget(workspace_id, now=now)
        await banner_stops.forget(workspace_id, now=now)

    await for_each([(workspace_id, None) for workspace_id in ids], forget_all)


async def found(query: str, *arguments: object) -> list[tuple[UUID, Any]]:
    """(workspace, id) pairs of one of the cross-workspace functions."""

    async with across_workspaces() as connection:
        return [(row[0], row[1]) for row in await connection.fetch(query, *arguments)]


async def for_each(pairs: list[tuple[UUID, Any]], act: Callable[[UUID, Any], Awaitable[None]]) -> None:
    """Act on each; one that fails is logged and does not keep the others waiting."""
    for workspace_id, one in pairs:
        try:
            await act(workspace_id, one)
        except Exception:
            logger.exception("tick failed for one", extra={"workspace_id": workspace_id, "id": one})
