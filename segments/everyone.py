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
