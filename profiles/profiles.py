"""People: written in batches, read by id, by external id, or page by page."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg

from db.keysets import Direction, Key, KeyType, Order, statements
from db.transactions import Connection, transaction
from profiles.addresses import AddressHasher, Channel
from profiles.contention import retried
from profiles.errors import ProfileError, ProfileNotFound
from profiles.identities import clean_external_id
from profiles.patches import Patch, ProfileInput, patch_or_refusal
from profiles.storing import store
from profiles.traits import Traits

__all__ = ["Profile", "ProfileInput", "UpsertOutcome"]

MOST_INPUTS = 1000
MOST_PAGE = 1000
MOST_IDS = 2**31 - 1
MOST_MERGES = 20
"""One after the other, of one person; chains are short, and a circle must end."""

# One by one, as in identities.py, which says why. Only connections inside transaction(workspace_id) run these two: row
# level security is the condition on the workspace.
FIND_BY_EXTERNAL_ID = """
SELECT u.name, p.id, p.merged_into, p.erased_at FROM unnest($1::text[]) AS u (name) CROSS JOIN LATERAL (
  SELECT id, merged_into, erased_at FROM profile WHERE external_id = u.name LIMIT 1) AS p
"""
FIND_BY_ID = """
SELECT p.id, p.merged_into, p.erased_at FROM unnest($1::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT id, merged_into, erased_at FROM profile WHERE id = u.id LIMIT 1) AS p
"""
LOAD = """
SELECT p.* FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT id, external_id, email, phone, traits, time_zone, locale, country, city, identified, first_seen_at,
    last_seen_at, merged_into, erased_at, created_at, updated_at
  FROM profile WHERE workspace_id = $1 AND id = u.id LIMIT 1) AS p
"""
COLUMNS = """
SELECT id, external_id, email, phone, traits, time_zone, locale, country, city, identified, first_seen_at,
  last_seen_at, merged_into, erased_at, created_at, updated_at
FROM profile
"""
BY_EXTERNAL_ID = COLUMNS + "WHERE workspace_id = $1 AND external_id = $2"
PAGE = (
    COLUMNS
    + """
WHERE workspace_id = $1 AND merged_into IS NULL AND erased_at IS NULL AND id {beyond} $2 ORDER BY {key} {direction}
LIMIT $3
"""
)
# From one person of the brand to the next, by its index; OFFSET 0 keeps the planner from reading all people instead.
PAGE_OF_BRAND = """
SELECT p.* FROM (
  SELECT profile_id FROM profile_brand WHERE workspace_id = $1 AND brand_id = $4 AND profile_id {beyond} $2
  ORDER BY profile_id {direction}) AS b
CROSS JOIN LATERAL (
  SELECT id, external_id, email, phone, traits, time_zone, locale, country, city, identified, first_seen_at,
    last_seen_at, merged_into, erased_at, created_at, updated_at
  FROM profile
  WHERE workspace_id = $1 AND id = b.profile_id AND merged_into IS NULL AND erased_at IS NULL OFFSET 0) AS p
ORDER BY b.profile_id {direction} LIMIT $3
"""
# OFFSET 0 keeps the planner from walking every id in order in the hope of meeting the few that match soon.
PAGE_OF_EMAIL = """
SELECT id FROM (
  SELECT id FROM profile
  WHERE workspace_id = $1 AND email_hash = $2 AND merged_into IS NULL AND erased_at IS NULL OFFSET 0) AS mailbox
WHERE id {beyond} $3 ORDER BY {key} {direction} LIMIT $4
"""
BRANDS_OF = """
SELECT b.* FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT profile_id, brand_id FROM profile_brand WHERE workspace_id = $1 AND profile_id = u.id
  ORDER BY brand_id OFFSET 0) AS b
"""


class ProfileField(StrEnum):
    """What people can be ordered by."""

    CREATED_AT = "CREATED_AT"


# Ids are given out in order of time.
KEYS = {ProfileField.CREATED_AT: Key("id", KeyType.NUMBER)}
PAGES = statements(PAGE, KEYS)
PAGES_OF_BRAND = statements(PAGE_OF_BRAND, KEYS)
PAGES_OF_EMAIL = statements(PAGE_OF_EMAIL, KEYS)
OLDEST_FIRST = Order(ProfileField.CREATED_AT, Direction.ASC)


@dataclass(frozen=True, slots=True)
class Profile:
    """One person or visitor. A merged one names its winner in `merged_into`; an erased one has nothing left."""

    id: int
    external_id: str | None
    email: str | None
    phone: str | None
    traits: Traits
    time_zone: str | None
    locale: str | None
    country: str | None
    city: str | None
    identified: bool
    first_seen_at: datetime | None
    last_seen_at: datetime | None
    merged_into: int | None
    erased_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class UpsertOutcome:
    """What became of one input: the profile it is in, or the refusal."""

    profile_id: int | None
    created: bool
    error: ProfileError | None


async def upsert(
    workspace_id: UUID, inputs: Sequence[ProfileInput], *, hasher: AddressHasher, now: datetime
) -> list[UpsertOutcome]:
    """What became of each input, in their order; a refused one does not hold up the others.

    Inputs of one external id are applied one after the other. Sending the same again changes nothing. Many callers
    may do this at once. Raises ProfileError TOO_MANY_ITEMS above 1,000 inputs.
    """
    if len(inputs) > MOST_INPUTS:
        raise ProfileError("TOO_MANY_ITEMS", f"{len(inputs)} profiles at once: send at most {MOST_INPUTS}.")
    checked = [patch_or_refusal(one, hasher=hasher) for one in inputs]
    patches = [one for one in checked if isinstance(one, Patch)]

    async def write() -> list[UpsertOutcome]:
        async with transaction(workspace_id) as connection:
            stored = iter(await store(connection, workspace_id=workspace_id, patches=patches, now=now))
        return [
            UpsertOutcome(None, False, one)
            if isinstance(one, ProfileError)
            else UpsertOutcome((done := next(stored)).profile_id, done.created, done.error)
            for one in checked
        ]

    return await retried(write)


async def get(workspace_id: UUID, profile_id: int) -> Profile:
    """The profile; raises ProfileNotFound."""
    found = await load(workspace_id, [profile_id])
    if profile_id not in found:
        raise ProfileNotFound(field=("id",))
    return found[profile_id]


async def load(workspace_id: UUID, profile_ids: Collection[int]) -> dict[int, Profile]:
    """Profiles by id, merged and erased ones too; ids that are not of this workspace are left out."""
    async with transaction(workspace_id) as connection:
        return await fetch(connection, workspace_id, profile_ids)


async def fetch(connection: Connection, workspace_id: UUID, profile_ids: Iterable[int]) -> dict[int, Profile]:
    """Like `load`, inside a transaction."""
    # An id outside of the column's range is nobody's; asked for, it would be an error.
    possible = [profile_id for profile_id in profile_ids if 0 < profile_id <= MOST_IDS]
    return {row["id"]: profile_of(row) for row in await connection.fetch(LOAD, workspace_id, possible)}


def profile_of(row: asyncpg.Record) -> Profile:
    """A Profile of a row of LOAD or PAGE, whose columns are in its fields' order."""
    return Profile(*row)


async def find_by_external_ids(connection: Connection, external_ids: Collection[str]) -> dict[str, int]:
    """Ids of living profiles by external id, as it was asked for; unknown and erased ones are left out.

    A merged one gives its winner. `connection` is inside transaction(workspace_id).
    """
    asked: dict[str, list[str]] = {}
    for external_id in external_ids:
        try:
            asked.setdefault(clean_external_id(external_id), []).append(external_id)
        except ProfileError:
            # What can be nobody's external id is nobody's.
            continue
    rows = await connection.fetch(FIND_BY_EXTERNAL_ID, list(asked))
    leads: dict[str, int] = {row["name"]: row["id"] for row in rows}
    living: set[int] = set()
    for _ in range(MOST_MERGES):
        living |= {row["id"] for row in rows if row["merged_into"] is None and row["erased_at"] is None}
        merged = {row["id"]: row["merged_into"] for row in rows if row["merged_into"] is not None}
        if not merged:
            break
        leads = {name: merged.get(profile_id, profile_id) for name, profile_id in leads.items()}
        rows = await connection.fetch(FIND_BY_ID, sorted(set(merged.values()) - living))
    return {
        external_id: profile_id
        for name, profile_id in leads.items()
        if profile_id in living
        for external_id in asked[name]
    }


async def find_by_external_id(workspace_id: UUID, external_id: str) -> Profile | None:
    """The living profile with this external id, or the one it was merged into; None when there is none."""
    try:
        name = clean_external_id(external_id)
    except ProfileError:
        # As in find_by_external_ids.
        return None
    async with transaction(workspace_id) as connection:
        row = await connection.fetchrow(BY_EXTERNAL_ID, workspace_id, name)
        found = None if row is None else await living(connection, workspace_id, profile_of(row))
    return None if found is None or found.erased_at is not None else found


async def living(connection: Connection, workspace_id: UUID, profile: Profile) -> Profile:
    """The profile that `profile` stands for: itself, or who it was merged into; an erased one stays itself."""
    for _ in range(MOST_MERGES):
        if profile.merged_into is None:
            break
        profile = (await fetch(connection, workspace_id, [profile.merged_into]))[profile.merged_into]
    return profile


async def page(
    workspace_id: UUID,
    *,
    after: int | None,
    limit: int,
    order: Order[ProfileField] = OLDEST_FIRST,
    search: str | None = None,
    brand_id: UUID | None = None,
    hasher: AddressHasher,
) -> list[Profile]:
    """At most `limit` (1 to 1,000) living profiles that follow the id `after`, by id.

    `search` is a whole external id or a whole email address, nothing in between: those have indexes. `brand_id`: only
    people of this brand.
    """
    if not 1 <= limit <= MOST_PAGE:
        raise ProfileError("INVALID_LIMIT", f"Ask for 1 to {MOST_PAGE} profiles at a time.", field=("limit",))
    is_up = order.direction is Direction.ASC
    start = (0 if is_up else MOST_IDS) if after is None else min(max(after, 0), MOST_IDS)
    async with transaction(workspace_id) as connection:
        if search is None or not search.strip():
            if brand_id is None:
                rows = await connection.fetch(PAGES[order], workspace_id, start, limit)
            else:
                rows = await connection.fetch(PAGES_OF_BRAND[order], workspace_id, start, limit, brand_id)
            return [profile_of(row) for row in rows]
        email_hash = hasher.hash(Channel.EMAIL, search) if "@" in search and search.isprintable() else None
        rows = await connection.fetch(PAGES_OF_EMAIL[order], workspace_id, email_hash, start, limit)
        named = (await find_by_external_ids(connection, [search])).values()
        ids = {row["id"] for row in rows} | {id for id in named if (id > start if is_up else id < start)}
        if brand_id is not None:
            of_brand = await connection.fetch(BRANDS_OF, workspace_id, sorted(ids))
            ids = {row["profile_id"] for row in of_brand if row["brand_id"] == brand_id}
        found = await fetch(connection, workspace_id, ids)
        return [found[profile_id] for profile_id in sorted(found, reverse=not is_up)[:limit]]
