"""Named places in an app where banners appear."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

from campaigns import banner_checks, banner_stops
from campaigns.banner_content import BannerContent, BannerField
from campaigns.banner_rules import UNLIMITED, BannerRules, Limits
from campaigns.errors import CampaignError
from campaigns.models import Placement
from campaigns.rotation import shares
from db.rows import to_model
from db.transactions import Connection, transaction
from db.unset import UNSET, Unset
from profiles.errors import ProfileError
from profiles.text import check_storable

KEY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
LONGEST_WINDOW = timedelta(days=30)
MOST_SLOTS = 10
LONGEST_DESCRIPTION = 2_000
MOST_PLACEMENTS = 500
"""Of one workspace; all are listed at once."""
NAMED = 5
"""Campaigns that a refusal names."""

COUNT = "SELECT count(*) FROM placement WHERE workspace_id = $1"
INSERT = """
INSERT INTO placement (workspace_id, key, name, description, rotation_window_s, content_fields, link_schemes, slots,
  limits)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (workspace_id, key) DO NOTHING RETURNING *
"""
UPDATE = """
UPDATE placement SET name = $3, description = $4, rotation_window_s = $5, content_fields = $6, link_schemes = $7,
  slots = $8, limits = $9
WHERE workspace_id = $1 AND id = $2 RETURNING *
"""
DELETE = "DELETE FROM placement WHERE workspace_id = $1 AND id = $2"
FOR_SHARE = "SELECT content_fields, link_schemes FROM placement WHERE workspace_id = $1 AND id = $2 FOR SHARE"
USED_BY = "SELECT name FROM campaign WHERE workspace_id = $1 AND placement_id = $2 ORDER BY id DESC"
# A cancelled one is looked at when it is reactivated. By pages: nobody says how many banners a placement has.
OPEN_CONTENTS = """
SELECT id, name, content FROM campaign
WHERE workspace_id = $1 AND placement_id = $2 AND id > $3
  AND status IN ('DRAFT', 'PENDING_APPROVAL', 'SCHEDULED', 'ACTIVE', 'PAUSED')
ORDER BY id LIMIT 500
"""
LIVE = """
SELECT placement_id, id, weight, rules FROM campaign
WHERE workspace_id = $1 AND placement_id = ANY($2) AND channel = 'BANNER' AND status = 'ACTIVE'
  AND (expires_at IS NULL OR expires_at > $3)
ORDER BY placement_id, id
"""


@dataclass(frozen=True, slots=True)
class PlacementInput:
    key: str
    name: str
    description: str = ""
    rotation_window: timedelta = timedelta(hours=1)
    content_fields: tuple[BannerField, ...] | None = None
    """What banners here may have; None: everything."""
    link_schemes: tuple[str, ...] = ()
    """With what their links may begin beside https:, such as myapp."""
    slots: int = 1
    """Banners shown at once."""
    limits: Limits = UNLIMITED
    """How often one viewer sees banners here, whichever."""


@dataclass(frozen=True, slots=True)
class PlacementChanges:
    """What to change; UNSET leaves a field as it is."""

    name: str | Unset = UNSET
    description: str | Unset = UNSET
    rotation_window: timedelta | Unset = UNSET
    content_fields: tuple[BannerField, ...] | Unset | None = UNSET
    link_schemes: tuple[str, ...] | Unset = UNSET
    slots: int | Unset = UNSET
    limits: Limits | Unset = UNSET

    def given(self) -> dict[str, Any]:
        """The fields that are to change."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if not isinstance(value, Unset)}


@dataclass(frozen=True, slots=True)
class Share:
    """A live banner's part of its placement."""

    campaign_id: UUID
    weight: int
    priority: int
    share: Fraction
    """Of the viewers for whom nothing of a higher priority is there; exact."""


async def create(workspace_id: UUID, wanted: PlacementInput) -> Placement:
    """A new placement; raises CampaignError, naming the field, for a key that is taken and for what is wrong."""
    if not KEY.fullmatch(wanted.key):
        message = (
            "A placement key is 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit; for example"
            " home-top."
        )
        raise CampaignError("INVALID_KEY", message, field=("key",))
    values = columns(wanted)
    async with transaction(workspace_id) as connection:
        if await connection.fetchval(COUNT, workspace_id) >= MOST_PLACEMENTS:
            message = f"A workspace has at most {MOST_PLACEMENTS} placements; delete one that is not used."
            raise CampaignError("TOO_MANY", message, field=("key",))
        row = await connection.fetchrow(INSERT, workspace_id, wanted.key, *values)
        if row is None:
            message = f"A placement with the key {wanted.key!r} exists already; update that one or choose another key."
            raise CampaignError("TAKEN", message, field=("key",))
        return to_model(Placement, row)


async def update(workspace_id: UUID, placement_id: UUID, changes: PlacementChanges, *, now: datetime) -> Placement:
    """The placement as changed; its key stays, since apps ask by it.

    Raises CampaignError: also when a banner that is open there shows what it would no longer allow.
    """
    given = changes.given()
    async with transaction(workspace_id) as connection:
        placement = await get_locked(workspace_id, placement_id)
        before = as_input(placement)
        wanted = PlacementInput(**{name: given.get(name, getattr(before, name)) for name in PlacementInput.__slots__})
        values = columns(wanted)
        if {"content_fields", "link_schemes"} & given.keys():
            schemes = banner_checks.clean_schemes(wanted.link_schemes)
            await require_all_allowed(connection, placement, allowed=wanted.content_fields, link_schemes=schemes)
        row = await connection.fetchrow(UPDATE, workspace_id, placement_id, *values)
        if wanted.limits != before.limits:
            await banner_stops.restate(connection, workspace_id, placement_id, wanted.limits, now=now)
        return to_model(Placement, row)


async def delete(workspace_id: UUID, placement_id: UUID) -> None:
    """Delete a placement that no campaign names, not even one that has ended. Raises CampaignError naming some."""
    async with transaction(workspace_id) as connection:
        await get_locked(workspace_id, placement_id)
        names = [row["name"] for row in await connection.fetch(USED_BY, workspace_id, placement_id)]
        if names:
            message = f"Campaigns use this placement: {listed(names)}; move them to another one, or delete them."
            raise CampaignError("PLACEMENT_IN_USE", message, field=("id",))
        await connection.execute(DELETE, workspace_id, placement_id)


async def get_locked(workspace_id: UUID, placement_id: UUID) -> Placement:
    """The placement, locked against others who change it or put a banner there; raises CampaignError NOT_FOUND."""
    placement = await Placement.filter(workspace_id=workspace_id, id=placement_id).select_for_update().first()
    if placement is None:
        raise CampaignError("NOT_FOUND", "There is no such placement in this workspace.", field=("id",))
    return placement


def as_input(placement: Placement) -> PlacementInput:
    """A placement as the input that would make it."""
    return PlacementInput(
        key=placement.key,
        name=placement.name,
        description=placement.description,
        rotation_window=timedelta(seconds=placement.rotation_window_s),
        content_fields=None if placement.content_fields is None else tuple(map(BannerField, placement.content_fields)),
        link_schemes=tuple(placement.link_schemes),
        slots=placement.slots,
        limits=Limits.from_json(placement.limits),
    )


def columns(wanted: PlacementInput) -> list[Any]:
    """What the table keeps of a placement but for its key, in the order of INSERT; raises CampaignError."""
    if not wanted.name.strip() or len(wanted.name) > 200:
        raise CampaignError("INVALID_NAME", "Give a name of 1 to 200 characters.", field=("name",))
    if len(wanted.description) > LONGEST_DESCRIPTION:
        message = f"A description has at most {LONGEST_DESCRIPTION:,} characters."
        raise CampaignError("TOO_LONG", message, field=("description",))
    for name in ("name", "description"):
        try:
            check_storable(getattr(wanted, name), field=(name,))
        except ProfileError as refusal:
            raise CampaignError(refusal.code, refusal.message, field=refusal.field) from refusal
    seconds = int(wanted.rotation_window.total_seconds())
    if not 1 <= seconds <= LONGEST_WINDOW.total_seconds():
        message = "A rotation window is between 1 second and 30 days."
        raise CampaignError("OUT_OF_RANGE", message, field=("rotation_window_seconds",))
    if wanted.content_fields == ():
        message = "Allow at least one field; null allows all."
        raise CampaignError("EMPTY", message, field=("content_fields",))
    if not 1 <= wanted.slots <= MOST_SLOTS:
        raise CampaignError("OUT_OF_RANGE", f"A placement shows 1 to {MOST_SLOTS} banners.", field=("slots",))
    wanted.limits.check(field=("limits",))
    fields = None if wanted.content_fields is None else [one for one in BannerField if one in wanted.content_fields]
    schemes = banner_checks.clean_schemes(wanted.link_schemes)
    return [
        wanted.name.strip(), wanted.description, seconds, fields, schemes, wanted.slots, wanted.limits.to_json(),
    ]  # fmt: skip


async def require_shows(connection: Connection, workspace_id: UUID, placement_id: UUID, content: BannerContent) -> None:
    """Raise CampaignError unless a placement is there and allows all that a banner says.

    Until the transaction ends the placement cannot be deleted, nor allow less.
    """
    row = await connection.fetchrow(FOR_SHARE, workspace_id, placement_id)
    if row is None:
        raise CampaignError("NOT_FOUND", "There is no such placement in this workspace.", field=("placement_id",))
    banner_checks.require_allowed(content, allowed=row["content_fields"], link_schemes=row["link_schemes"])


async def require_all_allowed(
    connection: Connection, placement: Placement, *, allowed: Sequence[str] | None, link_schemes: Sequence[str]
) -> None:
    """Raise CampaignError, naming campaigns, unless all that is open in a placement fits what it is to allow."""
    refused: list[str] = []
    why: CampaignError | None = None
    after = UUID(int=0)
    while rows := await connection.fetch(OPEN_CONTENTS, placement.workspace_id, placement.id, after):
        after = rows[-1]["id"]
        for row in rows:
            try:
                banner_checks.require_allowed(
                    BannerContent.from_json(row["content"]), allowed=allowed, link_schemes=link_schemes
                )
            except CampaignError as refusal:
                refused.append(row["name"])
                why = why or refusal
    if why is not None:
        field = "content_fields" if why.code == "FIELD_NOT_ALLOWED" else "link_schemes"
        message = (
            f"Campaigns show here what would no longer be allowed: {listed(refused)}; change or cancel them first."
        )
        raise CampaignError("PLACEMENT_IN_USE", message, field=(field,))


def listed(names: Sequence[str]) -> str:
    """Names of campaigns for a refusal: 'a', 'b' and 3 more."""
    shown = ", ".join(repr(name) for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


async def list_placements(workspace_id: UUID) -> list[Placement]:
    """The workspace's placements by key, all of them."""
    async with transaction(workspace_id):
        return await Placement.filter(workspace_id=workspace_id).order_by("key").limit(MOST_PLACEMENTS)


async def load(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, Placement]:
    """Placements by id; unknown ids are left out. At most 100 ids."""
    async with transaction(workspace_id):
        return {p.id: p for p in await Placement.filter(workspace_id=workspace_id, id__in=ids[:100])}


async def find_by_key(workspace_id: UUID, key: str) -> Placement | None:
    """None when there is none of this key."""
    async with transaction(workspace_id):
        return await Placement.filter(workspace_id=workspace_id, key=key).first()


async def rotations(workspace_id: UUID, placement_ids: list[UUID], *, now: datetime) -> dict[UUID, list[Share]]:
    """What is live in each placement asked, the highest priority first and then the oldest; empty lists for none."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(LIVE, workspace_id, placement_ids, now)
    levels: dict[tuple[UUID, int], list[tuple[UUID, int]]] = {}
    for row in rows:
        priority = BannerRules.from_json(row["rules"]).priority
        levels.setdefault((row["placement_id"], priority), []).append((row["id"], row["weight"]))
    found: dict[UUID, list[Share]] = {one: [] for one in placement_ids}
    for (placement_id, priority), banners in sorted(levels.items(), key=lambda level: -level[0][1]):
        parts = shares(weight for _, weight in banners)
        found[placement_id] += [
            Share(one, weight, priority, share) for (one, weight), share in zip(banners, parts, strict=True)
        ]
    return found
