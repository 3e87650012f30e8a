"""EVERYONE: the segment that each workspace has from its first moment, and that keeps no member rows."""

from uuid import UUID

from pyroaring import BitMap

from db.idsets import unpack
from db.transactions import Connection, across_workspaces, transaction
from profiles import workspaces
from profiles.models import ConsentDefault
from profiles.text import clean_choice
from segments.errors import SegmentError

CREATE = """
INSERT INTO segment (workspace_id, name, description, type, status)
VALUES ($1, 'Everyone', 'All profiles, anonymous visitors included.', 'EVERYONE', 'ACTIVE')
"""
# Connections inside transaction(workspace_id) run these: row level security is the condition on the workspace.
FIND = "SELECT id FROM segment WHERE type = 'EVERYONE'"
MEMBERS = """
SELECT string_agg(int4send(id), ''::bytea) FROM profile WHERE merged_into IS NULL AND erased_at IS NULL
"""
MEMBERS_OF_BRAND = """
SELECT string_agg(int4send(p.id), ''::bytea) FROM profile_brand b
JOIN profile p ON p.workspace_id = b.workspace_id AND p.id = b.profile_id
WHERE b.brand_id = $1 AND p.merged_into IS NULL AND p.erased_at IS NULL
"""
# Tombstones are few beside the living.
AND_WINNERS = """
SELECT living.ids, gone.losers, gone.winners FROM ({members}) AS living (ids), (
  SELECT coalesce(array_agg(id), '{{}}') AS losers, coalesce(array_agg(merged_into), '{{}}') AS winners
  FROM profile WHERE merged_into IS NOT NULL) AS gone
"""
MEMBERS_AND_WINNERS = AND_WINNERS.format(members=MEMBERS)
MEMBERS_OF_BRAND_AND_WINNERS = AND_WINNERS.format(members=MEMBERS_OF_BRAND)


async def create_workspace(name: str, *, time_zone: str, consent_default: str = ConsentDefault.OPT_OUT) -> UUID:
    """The id of a new workspace with its EVERYONE segment.

    Raises SegmentError WORKSPACE_EXISTS when the name is taken, ProfileError for values that cannot be kept.
    """
    default = clean_choice(ConsentDefault, consent_default, field=("consent_default",))
    async with across_workspaces() as connection:
        workspace_id = await workspaces.create(connection, name, time_zone=time_zone, consent_default=default)
        if workspace_id is None:
            message = f"A workspace named {name.strip()!r} exists; choose another name."
            raise SegmentError("WORKSPACE_EXISTS", message, field=("name",))
        async with transaction(workspace_id) as inside:
            await inside.execute(CREATE, workspace_id)
    return workspace_id


async def segment_id(connection: Connection) -> UUID:
    """The id of the workspace's EVERYONE segment."""
    found: UUID = await connection.fetchval(FIND)
    return found


async def members(connection: Connection, brand_id: UUID | None = None) -> BitMap:
    """All who live now, neither merged nor erased; of a brand when one is given."""
    if brand_id is None:
        return unpack(await connection.fetchval(MEMBERS))
    return unpack(await connection.fetchval(MEMBERS_OF_BRAND, brand_id))


async def members_and_winners(connection: Connection, brand_id: UUID | None) -> tuple[BitMap, dict[int, int]]:
    """`members`, and whom each merged profile of the workspace was merged into, as of the same instant."""
    asked = (MEMBERS_AND_WINNERS,) if brand_id is None else (MEMBERS_OF_BRAND_AND_WINNERS, brand_id)
    (found,) = await connection.fetch(*asked)
    return unpack(found["ids"]), dict(zip(found["losers"], found["winners"], strict=True))
