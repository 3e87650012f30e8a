"""How campaigns stand, without what they say: for whoever looks every second."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from campaigns.models import CampaignStatus
from db.transactions import transaction

# Not the models: the content of each would come along.
STATUSES = "SELECT id, status, status_reason, status_detail FROM campaign WHERE workspace_id = $1 AND id = ANY($2)"
WAITING = frozenset({CampaignStatus.DRAFT, CampaignStatus.PENDING_APPROVAL, CampaignStatus.SCHEDULED})
"""Before the first message."""
OVER = frozenset({CampaignStatus.SENT, CampaignStatus.ENDED, CampaignStatus.CANCELLED, CampaignStatus.FAILED})
"""Where a campaign comes to its end; a banner may be shown again, and a message in doubt sent, by hand."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a campaign is, and why."""

    status: CampaignStatus
    reason: str | None
    detail: str | None


async def of_campaigns(workspace_id: UUID, campaign_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """Campaigns by id; unknown ids are left out."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(STATUSES, workspace_id, list(campaign_ids))
    return {
        row["id"]: Standing(CampaignStatus(row["status"]), row["status_reason"], row["status_detail"]) for row in rows
    }
