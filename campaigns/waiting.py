"""Campaigns that wait in PREPARING for the evaluation of a segment."""

from collections.abc import Collection
from uuid import UUID

from db.transactions import transaction

WAITING = """
SELECT DISTINCT c.id FROM campaign c JOIN campaign_segment t ON t.workspace_id = c.workspace_id AND t.campaign_id = c.id
WHERE c.workspace_id = $1 AND t.segment_id = ANY($2) AND c.status = 'PREPARING' ORDER BY c.id LIMIT 100
"""


async def campaigns_for(workspace_id: UUID, segment_ids: Collection[UUID]) -> list[UUID]:
    """Ids of campaigns to wake when these were evaluated, oldest first, at most 100; the sweeper finds more."""
    async with transaction(workspace_id) as connection:
        return [row["id"] for row in await connection.fetch(WAITING, workspace_id, list(segment_ids))]
