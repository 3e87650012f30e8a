"""How campaigns stand, without what they say: for whoever looks every second."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from campaigns import refreshing
from campaigns.models import CampaignStatus
from campaigns.reasons import PREPARING, PrepareReason
from db.transactions import transaction
from segments.models import EvaluationStatus
from segments.references import listed

# Not the models: the content of each would come along.
STATUSES = "SELECT id, status, status_reason, status_detail FROM campaign WHERE workspace_id = $1 AND id = ANY($2)"
WAITING = frozenset({CampaignStatus.DRAFT, CampaignStatus.PENDING_APPROVAL, CampaignStatus.SCHEDULED})
"""Before the first message."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a campaign is, and why."""

    status: CampaignStatus
    reason: str | None
    detail: str | None


async def of_campaigns(workspace_id: UUID, campaign_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """Campaigns by id; unknown ids are left out. One in PREPARING says which evaluations of segments it awaits."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(STATUSES, workspace_id, list(campaign_ids))
        found = {
            row["id"]: Standing(CampaignStatus(row["status"]), row["status_reason"], row["status_detail"])
            for row in rows
        }
        preparing = [id for id, standing in found.items() if standing.status is CampaignStatus.PREPARING]
        return found | (await awaiting(workspace_id, preparing) if preparing else {})


async def awaiting(workspace_id: UUID, campaign_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """Those of these campaigns in PREPARING that await evaluations of segments, by id, and which."""
    awaited: dict[UUID, dict[bool, list[str]]] = {}
    async with transaction(workspace_id) as connection:
        for one in await refreshing.of_campaigns(connection, workspace_id, campaign_ids):
            if one.status is not EvaluationStatus.SUCCEEDED:
                held = one.status is EvaluationStatus.HELD
                awaited.setdefault(one.campaign_id, {}).setdefault(held, []).append(one.segment_name)
    found = {}
    for id, names in awaited.items():
        # A held one is what somebody can do something about.
        reason = PrepareReason.EVALUATION_HELD if True in names else PrepareReason.AWAITS_EVALUATION
        detail = f"{PREPARING[reason]} It is about {listed(sorted(names.get(True) or names[False]))}."
        found[id] = Standing(CampaignStatus.PREPARING, reason, detail)
    return found
