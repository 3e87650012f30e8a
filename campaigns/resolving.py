"""Messages in doubt that somebody knows more about: settled as sent, or tried again (docs/adr/0012).

A row in doubt leaves that state by nothing but its own worker's late answer, a person's word, or a provider's record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from campaigns import lifecycle, reasons
from campaigns.errors import CampaignError
from campaigns.models import Campaign, CampaignStatus, DeliveryState
from db.transactions import Connection, transaction
from profiles.identities import write_touched
from profiles.keys import Actor

S = CampaignStatus


class Resolution(StrEnum):
    """What is to become of messages in doubt."""

    SENT = "SENT"
    RETRY = "RETRY"


@dataclass(frozen=True, slots=True)
class Resolved:
    """Who settled messages in doubt, when, and how many."""

    campaign_id: UUID
    resolved_as: Resolution
    messages: int
    resolved_by: str
    resolved_at: datetime


FIND_DISPATCH = (
    "SELECT id FROM dispatch WHERE workspace_id = $1 AND campaign_id = $2 AND kind = 'SEND' FOR NO KEY UPDATE"
)
# $4: the rows meant, by profile and fence, or null for all; one that its own worker settles meanwhile is left alone.
# The fence stays: an answer of the worker that was lost finds the row in another state, and after the next intent under
# another fence. A message is taken to have left when it came into doubt. Answers who they were for, a row a message.
SETTLE = """
WITH meant AS (SELECT m.* FROM unnest($4::int[], $5::bigint[], $6::int[]) AS m (profile_id, device_id, fence)),
settled AS (
  UPDATE delivery d SET state = $3, reason = $7, detail = $8, updated_at = now(), not_before = NULL,
    sent_at = CASE WHEN $3 = 'sent' THEN d.updated_at END
  WHERE d.workspace_id = $1 AND d.dispatch_id = $2 AND d.doubtful AND ($4::int[] IS NULL OR EXISTS (
    SELECT 1 FROM meant WHERE meant.profile_id = d.profile_id AND meant.device_id = d.device_id
      AND meant.fence = d.fence))
  RETURNING d.profile_id),
recounted AS (
  UPDATE dispatch SET dirty = true WHERE workspace_id = $1 AND id = $2 AND finished_at IS NOT NULL AND $3 = 'sent'
    AND EXISTS (SELECT FROM settled))
SELECT settled.profile_id, coalesce(p.merged_into, p.id) AS person_id
FROM settled JOIN profile p ON p.workspace_id = $1 AND p.id = settled.profile_id
"""
# A finished one goes on like one that was paused: its rest was no silence, and what went wrong before counts no more.
# Workers read it again from the first of these messages on ($3).
REOPEN = """
UPDATE dispatch SET finished_at = NULL, counted_at = NULL, dirty = false, heartbeat_at = now(),
  resumed_at = CASE WHEN finished_at IS NULL THEN resumed_at ELSE now() END,
  walked_through = least(walked_through, $3 - 1)
WHERE workspace_id = $1 AND id = $2
"""
NOTE = """
INSERT INTO in_doubt_resolution (workspace_id, campaign_id, resolved_as, messages, resolved_by, resolved_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""
NOTES = """
SELECT campaign_id, resolved_as, messages, resolved_by, resolved_at FROM in_doubt_resolution
WHERE workspace_id = $1 AND campaign_id = $2 ORDER BY id DESC LIMIT 100
"""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A message in doubt, as it was when somebody looked."""

    profile_id: int
    device_id: int
    fence: int


async def resolve(
    workspace_id: UUID, campaign_id: UUID, *, resolved_as: Resolution, by: Actor | None, now: datetime
) -> tuple[Campaign, Resolved]:
    """Settle every message of a campaign that is in doubt, on a person's word; test sends are left alone.

    `by`: that person. RETRY sends them again, the same Message-ID and all: who had it gets it
    twice. A campaign that was SENT is SENDING again until they are through. Raises CampaignNotFound, and CampaignError
    when nothing is in doubt or nothing of the campaign may be sent any more.
    """
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id, field="campaign_id")
        if resolved_as is Resolution.RETRY:
            refuse_retry(campaign, now=now)
        messages = await settle(connection, campaign, resolved_as=resolved_as, reason=reasons.RESOLVED_BY_HAND, now=now)
        if not messages:
            message = "No message of this campaign is in doubt; there is nothing to resolve."
            raise CampaignError("NOT_IN_DOUBT", message, field=("campaign_id",))
        resolved_by = by.label if by else "somebody without a key"
        return campaign, await note(connection, campaign, resolved_as, messages, resolved_by=resolved_by, now=now)


def refuse_retry(campaign: Campaign, *, now: datetime) -> None:
    """Raise CampaignError when a message that goes back to pending would only be skipped."""
    if campaign.status not in (S.SENDING, S.PAUSED, S.SENT):
        message = f"The campaign is {campaign.status} and sends nothing any more; resolve as SENT, or leave the doubt."
        raise CampaignError("ILLEGAL_MOVE", message, field=("campaign_id",))
    if campaign.expires_at and campaign.expires_at <= now:
        message = f"The campaign expired at {campaign.expires_at.isoformat()}; move expiresAt into the future first."
        raise CampaignError("EXPIRED", message, field=("campaign_id",))


async def settle(
    connection: Connection,
    campaign: Campaign,
    *,
    resolved_as: Resolution,
    reason: str,
    now: datetime,
    meant: Sequence[Doubt] | None = None,
) -> int:
    """Move rows in doubt of a locked campaign (`meant`, or all) and what depends on them; answers how many."""
    dispatch_id = await connection.fetchval(FIND_DISPATCH, campaign.workspace_id, campaign.id)
    sent = resolved_as is Resolution.SENT
    rows = await connection.fetch(
        SETTLE,
        campaign.workspace_id,
        dispatch_id,
        DeliveryState.SENT if sent else DeliveryState.PENDING,
        None if meant is None else [one.profile_id for one in meant],
        None if meant is None else [one.device_id for one in meant],
        None if meant is None else [one.fence for one in meant],
        reason if sent else None,
        reasons.explain(reason) if sent else None,
    )
    if not rows:
        return 0
    if sent:
        # Live segments look for what was sent in the last moments, and this was sent before.
        people = {row["person_id"] for row in rows}
        await write_touched(connection, workspace_id=campaign.workspace_id, profile_ids=people)
        return len(rows)
    await connection.execute(REOPEN, campaign.workspace_id, dispatch_id, min(row["profile_id"] for row in rows))
    if campaign.status is S.SENT:
        await lifecycle.move(connection, campaign, S.SENDING, now=now)
    return len(rows)


async def note(
    connection: Connection,
    campaign: Campaign,
    resolved_as: Resolution,
    messages: int,
    *,
    resolved_by: str,
    now: datetime,
) -> Resolved:
    """Keep who settled how many."""
    await connection.execute(NOTE, campaign.workspace_id, campaign.id, resolved_as.value, messages, resolved_by, now)
    return Resolved(campaign.id, resolved_as, messages, resolved_by, now)


async def resolutions(workspace_id: UUID, campaign_id: UUID) -> list[Resolved]:
    """What was settled of a campaign, newest first, at most 100."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(NOTES, workspace_id, campaign_id)
    return [Resolved(**{**row, "resolved_as": Resolution(row["resolved_as"])}) for row in rows]
