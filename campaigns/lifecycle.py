"""Which moves a campaign may make, and the one place that makes them. docs/states.md draws this table."""

from datetime import datetime
from uuid import UUID

from campaigns.errors import CampaignNotFound, IllegalMove
from campaigns.models import Campaign, CampaignChannel, CampaignStatus
from db.transactions import Connection

S = CampaignStatus

MESSAGE_MOVES: dict[CampaignStatus, frozenset[CampaignStatus]] = {
    S.DRAFT: frozenset({S.PENDING_APPROVAL, S.SCHEDULED, S.PREPARING}),
    S.PENDING_APPROVAL: frozenset({S.SCHEDULED, S.PREPARING, S.DRAFT}),
    S.SCHEDULED: frozenset({S.DRAFT, S.PREPARING, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.PREPARING: frozenset({S.SENDING, S.PAUSED, S.SENT, S.CANCELLED, S.FAILED}),
    S.SENDING: frozenset({S.PAUSED, S.SENT, S.CANCELLED, S.FAILED}),
    S.PAUSED: frozenset({S.PREPARING, S.SENDING, S.SENT, S.CANCELLED, S.FAILED}),
    S.SENT: frozenset({S.SENDING}),
    S.CANCELLED: frozenset(),
    S.FAILED: frozenset(),
}
"""Email and push. PAUSED -> PREPARING while the dispatch is not fully written; SENT -> SENDING only for messages in
doubt that are to be tried again (docs/adr/0012)."""

BANNER_MOVES: dict[CampaignStatus, frozenset[CampaignStatus]] = {
    S.DRAFT: frozenset({S.PENDING_APPROVAL, S.SCHEDULED, S.ACTIVE}),
    S.PENDING_APPROVAL: frozenset({S.SCHEDULED, S.ACTIVE, S.DRAFT}),
    S.SCHEDULED: frozenset({S.DRAFT, S.ACTIVE, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.ACTIVE: frozenset({S.PAUSED, S.ENDED, S.CANCELLED}),
    S.PAUSED: frozenset({S.ACTIVE, S.ENDED, S.CANCELLED}),
    S.CANCELLED: frozenset({S.ACTIVE}),
    S.ENDED: frozenset(),
    S.FAILED: frozenset(),
}
"""A banner is shown until it ends; a cancelled one can be reactivated (S3x-15)."""

FROZEN = frozenset({S.PREPARING, S.SENDING, S.PAUSED, S.SENT, S.CANCELLED, S.FAILED, S.ENDED})
"""Content, audience and channel cannot be edited any more; before that no audience is frozen."""

ENDS = frozenset({S.SENT, S.ENDED, S.CANCELLED, S.FAILED})
"""Where a campaign comes to its end; a banner may be shown again, and a message in doubt sent, by hand."""


def moves(channel: CampaignChannel) -> dict[CampaignStatus, frozenset[CampaignStatus]]:
    """The legal moves of a channel's campaigns."""
    return BANNER_MOVES if channel is CampaignChannel.BANNER else MESSAGE_MOVES


def may_move(campaign: Campaign, to: CampaignStatus) -> bool:
    return to in moves(campaign.channel).get(campaign.status, frozenset())


def require_move(campaign: Campaign, to: CampaignStatus) -> None:
    """Raise IllegalMove, naming the moves that are open, unless this is one of them."""
    if not may_move(campaign, to):
        raise IllegalMove(campaign, to, sorted(moves(campaign.channel).get(campaign.status, frozenset())))


async def find_locked(workspace_id: UUID, campaign_id: UUID) -> Campaign | None:
    """The campaign, locked until the transaction ends: every move begins here and re-reads the state."""
    return await Campaign.filter(workspace_id=workspace_id, id=campaign_id).select_for_update().first()


async def get_locked(workspace_id: UUID, campaign_id: UUID, *, field: str = "id") -> Campaign:
    """Like `find_locked`; raises CampaignNotFound, which names `field`."""
    campaign = await find_locked(workspace_id, campaign_id)
    if campaign is None:
        raise CampaignNotFound(field=field)
    return campaign


WRITE = """
UPDATE campaign SET status = $3, status_reason = $4, status_detail = $5, updated_at = $6, started_at = $7,
  finished_at = $8, approval = $9, scheduled_at = $10, time_zone = $11, missed_policy = $12, maximum_lateness_s = $13
WHERE workspace_id = $1 AND id = $2
"""


async def move(
    connection: Connection,
    campaign: Campaign,
    to: CampaignStatus,
    *,
    now: datetime,
    reason: str | None = None,
    detail: str | None = None,
) -> Campaign:
    """Move a locked campaign and give it back as it is now; `reason` (a code) and `detail` (a sentence) say why.

    What was changed of its approval and its schedule since it was read is written with it. Raises IllegalMove, naming
    the moves that are open.
    """
    require_move(campaign, to)
    campaign.status, campaign.status_reason, campaign.status_detail = to, reason, detail
    if to in (S.PREPARING, S.ACTIVE):
        campaign.started_at = campaign.started_at or now
    campaign.finished_at = now if to in ENDS else None
    await write(connection, campaign, now=now)
    return campaign


async def write(connection: Connection, campaign: Campaign, *, now: datetime) -> None:
    """Write the state, the approval and the schedule of a campaign that this transaction locked and then read."""
    campaign.updated_at = now
    await connection.execute(
        WRITE,
        campaign.workspace_id,
        campaign.id,
        campaign.status.value,
        campaign.status_reason,
        campaign.status_detail,
        now,
        campaign.started_at,
        campaign.finished_at,
        campaign.approval,
        campaign.scheduled_at,
        campaign.time_zone,
        campaign.missed_policy.value,
        campaign.maximum_lateness_s,
    )
