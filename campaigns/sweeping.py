"""Taking back what dead workers held."""

from uuid import UUID

from campaigns import claims
from db.transactions import transaction


async def release(workspace_id: UUID, claim_id: int) -> bool:
    """Settle the rows of a claim whose lease has ended; False when there was nothing to do."""
    async with transaction(workspace_id) as connection:
        return await claims.release_expired(connection, workspace_id=workspace_id, claim_id=claim_id)
