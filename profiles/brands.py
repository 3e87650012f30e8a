"""Brands: an optional subdivision of a workspace's people, segments and campaigns."""

from collections.abc import Collection
from uuid import UUID

from db.rows import to_model
from db.transactions import transaction
from profiles.errors import ProfileError
from profiles.models import Brand
from profiles.text import clean_text

MOST_BRANDS = 1000

INSERT_BRAND = """
INSERT INTO brand (workspace_id, name) VALUES ($1, $2) ON CONFLICT (workspace_id, name) DO NOTHING RETURNING *
"""
# Person by person, as in profiles.py.
OF_PROFILES = """
SELECT r.profile_id, b.* FROM unnest($2::int[]) AS u (id)
CROSS JOIN LATERAL (
  SELECT profile_id, brand_id FROM profile_brand WHERE workspace_id = $1 AND profile_id = u.id OFFSET 0) AS r
JOIN brand b ON b.workspace_id = $1 AND b.id = r.brand_id ORDER BY r.profile_id, b.id
"""


async def create(workspace_id: UUID, name: str) -> Brand:
    """A new brand; raises ProfileError BRAND_EXISTS when the name is taken, TOO_MANY_BRANDS past 1,000."""
    name = clean_text(name, what="Brand name", most=200, field=("name",))
    async with transaction(workspace_id) as connection:
        if await Brand.filter(workspace_id=workspace_id).count() >= MOST_BRANDS:
            raise ProfileError("TOO_MANY_BRANDS", f"A workspace has at most {MOST_BRANDS} brands.", field=("name",))
        row = await connection.fetchrow(INSERT_BRAND, workspace_id, name)
        if row is None:
            raise ProfileError("BRAND_EXISTS", f"A brand named {name!r} exists: choose another name.", field=("name",))
        return to_model(Brand, row)


async def list_brands(workspace_id: UUID) -> list[Brand]:
    """All brands by name; at most 1,000 exist."""
    async with transaction(workspace_id):
        return await Brand.filter(workspace_id=workspace_id).order_by("name").limit(MOST_BRANDS)


async def load(workspace_id: UUID, brand_ids: Collection[UUID]) -> dict[UUID, Brand]:
    """Brands by id; ids that are not of this workspace are left out."""
    async with transaction(workspace_id):
        return {brand.id: brand for brand in await Brand.filter(workspace_id=workspace_id, id__in=list(brand_ids))}


async def of_profiles(workspace_id: UUID, profile_ids: Collection[int]) -> dict[int, list[Brand]]:
    """The brands of each of these profiles, the oldest first; those without are left out."""
    found: dict[int, list[Brand]] = {}
    async with transaction(workspace_id) as connection:
        for row in await connection.fetch(OF_PROFILES, workspace_id, list(profile_ids)):
            found.setdefault(row["profile_id"], []).append(to_model(Brand, row))
    return found
