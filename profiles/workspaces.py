"""Tenants."""

from dataclasses import dataclass
from uuid import UUID

from db.transactions import Connection, across_workspaces, transaction
from db.unset import UNSET, Unset
from profiles.errors import ProfileError, WorkspaceNotFound
from profiles.models import ConsentDefault, Workspace
from profiles.text import clean_text, clean_time_zone

CREATE = "SELECT create_workspace($1, $2, $3)"
FIND_NAMED = "SELECT workspace_named($1)"
LIST_IDS = "SELECT workspace_id FROM workspace_ids()"
LARGEST_LIMIT = 2**31 - 1


async def create(connection: Connection, name: str, *, time_zone: str, consent_default: ConsentDefault) -> UUID | None:
    """The id of a new workspace, or None when the name is taken.

    `connection` is in a transaction of `across_workspaces`, so that callers can add what belongs to a new workspace
    in the same one. Raises ProfileError for a name or time zone that cannot be kept.
    """
    workspace_id: UUID | None = await connection.fetchval(
        CREATE,
        clean_text(name, what="Workspace name", most=200, field=("name",)),
        clean_time_zone(time_zone, field=("time_zone",)),
        ConsentDefault(consent_default).value,
    )
    return workspace_id


async def find_named(name: str) -> UUID | None:
    """The id of the workspace with this name."""
    async with across_workspaces() as connection:
        workspace_id: UUID | None = await connection.fetchval(FIND_NAMED, name.strip())
    return workspace_id


async def find_by_id_or_name(text: str) -> UUID | None:
    """The id of the workspace that has this id, as a UUID is written, or else this name; None when there is none."""
    try:
        return (await get(UUID(text))).id
    except ValueError:
        return await find_named(text) if "\0" not in text else None
    except WorkspaceNotFound:
        return None


async def list_ids() -> list[UUID]:
    """The ids of all workspaces, oldest first."""
    async with across_workspaces() as connection:
        return [row["workspace_id"] for row in await connection.fetch(LIST_IDS)]


async def get(workspace_id: UUID) -> Workspace:
    """The workspace; raises WorkspaceNotFound."""
    async with transaction(workspace_id):
        workspace = await Workspace.get_or_none(id=workspace_id)
    if workspace is None:
        raise WorkspaceNotFound
    return workspace


@dataclass(frozen=True, slots=True)
class WorkspaceChanges:
    """What to change of a workspace; None leaves it as it is."""

    track_opens: bool | None = None
    """Whether mails that are sent from now on tell of their being opened."""
    track_clicks: bool | None = None
    """Whether their links tell of clicks."""
    approval_above: int | Unset | None = UNSET
    """Messages to more people than this need a second person's approval; None: none do."""


async def update(workspace_id: UUID, changes: WorkspaceChanges) -> Workspace:
    """The workspace as changed; raises WorkspaceNotFound, ProfileError OUT_OF_RANGE."""
    above = changes.approval_above
    if isinstance(above, int) and not 0 <= above <= LARGEST_LIMIT:
        message = f"Approval is needed above 0 to {LARGEST_LIMIT:,} recipients; null: never."
        raise ProfileError("OUT_OF_RANGE", message, field=("approval_above",))
    async with transaction(workspace_id):
        workspace = await Workspace.filter(id=workspace_id).select_for_update().first()
        if workspace is None:
            raise WorkspaceNotFound
        if changes.track_opens is not None:
            workspace.track_opens = changes.track_opens
        if changes.track_clicks is not None:
            workspace.track_clicks = changes.track_clicks
        if not isinstance(above, Unset):
            workspace.approval_above = above
        await workspace.save(update_fields=["track_opens", "track_clicks", "approval_above"])
    return workspace
