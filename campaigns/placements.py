"""Named places in an app where banners appear."""

import re
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from campaigns.errors import CampaignError
from campaigns.models import Placement
from db.transactions import transaction

KEY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
LONGEST_WINDOW = timedelta(days=30)

INSERT = """
WITH made AS (
  INSERT INTO placement (workspace_id, key, name, description, rotation_window_s) VALUES ($1, $2, $3, $4, $5)
  ON CONFLICT (workspace_id, key) DO NOTHING RETURNING id)
SELECT id FROM made
"""


@dataclass(frozen=True, slots=True)
class PlacementInput:
    key: str
    name: str
    description: str = ""
    rotation_window: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PlacementChanges:
    """None leaves a field as it is."""

    name: str | None = None
    description: str | None = None
    rotation_window: timedelta | None = None


def check_window(window: timedelta) -> int:
    """Whole seconds of a rotation window; raises CampaignError beyond 1 s to 30 days."""
    seconds = int(window.total_seconds())
    if not 1 <= seconds <= LONGEST_WINDOW.total_seconds():
        message = "A rotation window is between 1 second and 30 days."
        raise CampaignError("OUT_OF_RANGE", message, field=("rotation_window_seconds",))
    return seconds


def check_name(name: str) -> str:
    if not name.strip() or len(name) > 200:
        raise CampaignError("INVALID_NAME", "Give a name of 1 to 200 characters.", field=("name",))
    return name.strip()


async def create(workspace_id: UUID, wanted: PlacementInput) -> Placement:
    """A new placement; raises CampaignError when the key is ill-formed or taken."""
    if not KEY.fullmatch(wanted.key):
        message = (
            "A placement key is 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit; for example"
            " home-top."
        )
        raise CampaignError("INVALID_KEY", message, field=("key",))
    name, seconds = check_name(wanted.name), check_window(wanted.rotation_window)
    async with transaction(workspace_id) as connection:
        made = await connection.fetchval(INSERT, workspace_id, wanted.key, name, wanted.description, seconds)
        if made is None:
            message = f"A placement with the key {wanted.key!r} exists already; update that one or choose another key."
            raise CampaignError("TAKEN", message, field=("key",))
        return await Placement.get(workspace_id=workspace_id, id=made)


async def update(workspace_id: UUID, placement_id: UUID, changes: PlacementChanges) -> Placement:
    """The placement as changed; its key stays, since apps ask by it."""
    async with transaction(workspace_id):
        placement = await Placement.filter(workspace_id=workspace_id, id=placement_id).select_for_update().first()
        if placement is None:
            raise CampaignError("NOT_FOUND", "There is no such placement in this workspace.", field=("id",))
        if changes.name is not None:
            placement.name = check_name(changes.name)
        if changes.description is not None:
            placement.description = changes.description
        if changes.rotation_window is not None:
            placement.rotation_window_s = check_window(changes.rotation_window)
        await placement.save(update_fields=["name", "description", "rotation_window_s"])
        return placement


async def list_placements(workspace_id: UUID) -> list[Placement]:
    """The workspace's placements by key, at most 100."""
    async with transaction(workspace_id):
        return await Placement.filter(workspace_id=workspace_id).order_by("key").limit(100)


async def load(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, Placement]:
    """Placements by id; unknown ids are left out. At most 100 ids."""
    async with transaction(workspace_id):
        return {p.id: p for p in await Placement.filter(workspace_id=workspace_id, id__in=ids[:100])}


async def find_by_key(workspace_id: UUID, key: str) -> Placement | None:
    async with transaction(workspace_id):
        return await Placement.filter(workspace_id=workspace_id, key=key).first()
