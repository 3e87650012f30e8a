"""Segments that are evaluated before a campaign's audience is frozen: whose evaluation is awaited, and asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from campaigns.audience import TargetedSegments
from campaigns.errors import TargetError
from campaigns.models import Campaign
from db.transactions import Connection
from segments import evaluation
from segments.models import EvaluationCause, EvaluationStatus, SegmentType

# The newest evaluation of each dynamic segment since its campaign was started, or one under way.
REFRESHES = """
SELECT c.id, s.id, s.name, e.status, e.error FROM campaign c
JOIN campaign_segment t ON t.workspace_id = c.workspace_id AND t.campaign_id = c.id
JOIN segment s ON s.workspace_id = c.workspace_id AND s.id = t.segment_id AND s.type = 'DYNAMIC'
LEFT JOIN LATERAL (
  SELECT status, error FROM evaluation WHERE workspace_id = c.workspace_id AND segment_id = s.id
    AND (queued_at >= c.started_at OR status IN ('QUEUED', 'RUNNING')) ORDER BY id DESC LIMIT 1) e ON true
WHERE c.workspace_id = $1 AND c.id = ANY($2) AND c.refresh_before AND NOT EXISTS (
  SELECT FROM dispatch d WHERE d.workspace_id = c.workspace_id AND d.campaign_id = c.id AND d.kind = 'SEND')
ORDER BY s.id
"""


@dataclass(frozen=True, slots=True)
class Refresh:
    """A dynamic segment of a campaign that was started, and how far its evaluation is."""

    campaign_id: UUID
    segment_id: UUID
    segment_name: str
    status: EvaluationStatus | None
    """None: nobody has asked for one."""
    error: str | None


async def of_campaigns(connection: Connection, workspace_id: UUID, campaign_ids: Sequence[UUID]) -> list[Refresh]:
    """What these campaigns wait for or have waited for; of one whose audience is frozen nothing."""
    return [
        Refresh(campaign_id, segment_id, name, status and EvaluationStatus(status), error)
        for campaign_id, segment_id, name, status, error in await connection.fetch(
            REFRESHES, workspace_id, list(campaign_ids)
        )
    ]


async def is_fresh(connection: Connection, campaign: Campaign, targeted: TargetedSegments, *, now: datetime) -> bool:
    """Whether every dynamic segment was evaluated since the campaign started; asks for those that were not.

    Raises TargetError when an evaluation failed.
    """
    if not campaign.refresh_before or all(one.type is not SegmentType.DYNAMIC for _, one in targeted.placed()):
        return True
    refreshes = await of_campaigns(connection, campaign.workspace_id, [campaign.id])
    for one in refreshes:
        if one.status is EvaluationStatus.FAILED:
            message = f"The segment {one.segment_name!r} could not be evaluated: {one.error}"
            raise TargetError("EVALUATION_FAILED", message, field=("segment_ids",))
    if unasked := [one.segment_id for one in refreshes if one.status is None]:
        await evaluation.request_many(
            connection, campaign.workspace_id, unasked, cause=EvaluationCause.CAMPAIGN, now=now
        )
    return all(one.status is EvaluationStatus.SUCCEEDED for one in refreshes)
