"""The end of a dispatch: what will not be sent any more is settled; when no row is open it is counted and closed."""

from datetime import datetime
from time import monotonic
from uuid import UUID

from campaigns import ledger, lifecycle, tallies
from campaigns.models import Campaign, CampaignStatus, Dispatch, DispatchKind
from campaigns.reasons import SkipReason
from db.transactions import transaction

S = CampaignStatus

CLOSE_BATCH = 10_000
NOW = "SELECT now()"
# One that was cancelled before all was written stays unplanned: its rows are not everybody.
FINISH_DISPATCH = "UPDATE dispatch SET finished_at = $3 WHERE workspace_id = $1 AND id = $2"


async def close_rest(workspace_id: UUID, campaign_id: UUID, dispatch_id: UUID, *, now: datetime, until: float) -> None:
    """Settle what will not be sent any more because the campaign was cancelled or has expired."""
    while monotonic() < until:
        async with transaction(workspace_id) as connection:
            campaign = await Campaign.get(workspace_id=workspace_id, id=campaign_id)
            if campaign.status is S.CANCELLED:
                reason = SkipReason.CANCELLED
            elif campaign.expires_at and campaign.expires_at <= now and campaign.status is not S.PAUSED:
                reason = SkipReason.EXPIRED
            else:
                return
            closed = await ledger.close_pending(
                connection, workspace_id=workspace_id, dispatch_id=dispatch_id, reason=reason, limit=CLOSE_BATCH
            )
            if closed == 0:
                return


async def finish(workspace_id: UUID, campaign_id: UUID, dispatch_id: UUID) -> bool:
    """Close a dispatch that has no open row, store its counts, and its campaign is SENT (R6). False when some are."""
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        dispatch = await Dispatch.filter(workspace_id=workspace_id, id=dispatch_id).select_for_update().first()
        if dispatch is None or dispatch.finished_at is not None:
            return dispatch is not None
        if dispatch.kind is DispatchKind.SEND and campaign.status not in (S.SENDING, S.CANCELLED):
            return False  # paused: its last row may be settled, but whether it goes on is a person's to say
        if dispatch.planned_at is None and campaign.status is not S.CANCELLED:
            return False
        if await ledger.has_open(connection, workspace_id=workspace_id, dispatch_id=dispatch_id):
            return False
        await tallies.count(connection, workspace_id, [dispatch_id], final=True)
        now: datetime = await connection.fetchval(NOW)  # a turn may be long: its end is not its beginning
        await connection.execute(FINISH_DISPATCH, workspace_id, dispatch_id, now)
        if dispatch.kind is DispatchKind.SEND and campaign.status is S.SENDING:
            await lifecycle.move(connection, campaign, S.SENT, now=now)
        return True


async def give_up(workspace_id: UUID, campaign_id: UUID, dispatch_id: UUID, *, reason: SkipReason) -> bool:
    """Settle all that has not left of a test send, at most 100 messages, and finish it; True."""
    async with transaction(workspace_id) as connection:
        await ledger.close_pending(
            connection, workspace_id=workspace_id, dispatch_id=dispatch_id, reason=reason, limit=CLOSE_BATCH
        )
    await finish(workspace_id, campaign_id, dispatch_id)
    return True
