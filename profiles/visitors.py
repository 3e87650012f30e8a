"""Visitors: people who are known by an anonymous id only."""

from uuid import UUID

from db.transactions import transaction

# An alias leads to a living profile: merging moves it.
IS_IDENTIFIED = """
SELECT p.identified FROM profile_alias a
CROSS JOIN LATERAL (SELECT identified FROM profile WHERE workspace_id = $1 AND id = a.profile_id LIMIT 1) AS p
WHERE a.workspace_id = $1 AND a.anonymous_id = $2
"""


async def is_identified(workspace_id: UUID, anonymous_id: str) -> bool:
    """Whether this anonymous id is by now a name of somebody known by an id of the customer's; unknown ones are not."""
    async with transaction(workspace_id, generic_plans=True) as connection:
        return bool(await connection.fetchval(IS_IDENTIFIED, workspace_id, anonymous_id))
