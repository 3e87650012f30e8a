"""Reading campaigns: one, many by id, and pages, newest first."""

from collections.abc import Collection
from uuid import UUID

from campaigns.audience import Targets, targets_of
from campaigns.errors import CampaignNotFound
from campaigns.models import Campaign, CampaignChannel, CampaignStatus, Dispatch
from db.transactions import Connection, transaction

USING = """
SELECT c.name FROM campaign c WHERE c.workspace_id = $1 AND c.id IN (
  SELECT t.campaign_id FROM campaign_segment t WHERE t.workspace_id = $1 AND t.segment_id = $2
  UNION SELECT b.id FROM campaign b WHERE b.workspace_id = $1 AND b.test_segment_id = $2)
ORDER BY c.id DESC LIMIT 100
"""

AMONG = "SELECT id FROM campaign WHERE workspace_id = $1 AND id = ANY($2)"

MOST = 100
"""Ids of one look-up, and a page; one more row tells whether there is a next page."""


async def get(workspace_id: UUID, campaign_id: UUID) -> Campaign:
    """Raises CampaignNotFound."""
    async with transaction(workspace_id):
        campaign = await Campaign.filter(workspace_id=workspace_id, id=campaign_id).first()
    if campaign is None:
        raise CampaignNotFound()
    return campaign


async def load(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, Campaign]:
    """Campaigns by id; unknown ids are left out. At most 100 ids."""
    async with transaction(workspace_id):
        return {c.id: c for c in await Campaign.filter(workspace_id=workspace_id, id__in=ids[:MOST])}


async def names_using(connection: Connection, workspace_id: UUID, segment_id: UUID) -> list[str]:
    """Names of at most 100 campaigns that include or exclude a segment, or are tested by it, the newest first."""
    return [row["name"] for row in await connection.fetch(USING, workspace_id, segment_id)]


async def among(connection: Connection, workspace_id: UUID, ids: Collection[UUID]) -> set[UUID]:
    """Those of `ids`, however many, that are campaigns of this workspace."""
    return {row["id"] for row in await connection.fetch(AMONG, workspace_id, list(ids))}


async def load_targets(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, Targets]:
    """Segment ids of each campaign asked."""
    async with transaction(workspace_id) as connection:
        return await targets_of(connection, workspace_id=workspace_id, campaign_ids=ids[:MOST])


async def load_dispatches(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, Dispatch]:
    """Dispatches by id; unknown ids are left out. At most 100 ids."""
    async with transaction(workspace_id):
        return {d.id: d for d in await Dispatch.filter(workspace_id=workspace_id, id__in=ids[:MOST])}


async def page(
    workspace_id: UUID,
    *,
    limit: int,
    after: UUID | None = None,
    status: CampaignStatus | None = None,
    channel: CampaignChannel | None = None,
    name: str | None = None,
) -> list[Campaign]:
    """Up to `limit` (101 at most) campaigns made before `after`, newest first; ids are UUIDv7 and so in order of time.

    `name` matches anywhere, whatever the case.
    """
    found = Campaign.filter(workspace_id=workspace_id)
    if after is not None:
        found = found.filter(id__lt=after)
    if status is not None:
        found = found.filter(status=status)
    if channel is not None:
        found = found.filter(channel=channel)
    if name:
        found = found.filter(name__icontains=name)
    async with transaction(workspace_id):
        return await found.order_by("-id").limit(min(limit, MOST + 1))
