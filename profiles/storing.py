"""Writes checked patches to the profile table, a whole batch at a time.

Upsert is SELECT, then INSERT of the missing and UPDATE of the changed, never ON CONFLICT DO UPDATE: that takes an id
for every row it finds there already, and ids are bits below 2^31 (1,000 upserts a second would use them up in 25
days).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from uuid import UUID

from db.transactions import Connection
from profiles.contention import contended
from profiles.dates import moved_dates
from profiles.dating import write_dates
from profiles.errors import BrandNotFound, ProfileError
from profiles.identities import write_touched
from profiles.patches import COLUMNS, ColumnValue, Draft, Patch
from profiles.traits import Traits

MOST_ROUNDS = 20

# One by one and in the order of ids, as in identities.py, which says why.
LOCK_BY_EXTERNAL_ID = """
SELECT o.name, p.*
FROM (
  SELECT u.name, f.id FROM unnest($2::text[]) AS u (name) CROSS JOIN LATERAL (
    SELECT id FROM profile WHERE workspace_id = $1 AND external_id = u.name LIMIT 1) AS f
  ORDER BY f.id) AS o
CROSS JOIN LATERAL (
  SELECT id, external_id, merged_into, erased_at, identified, traits, email, email_hash, phone, time_zone, locale,
    country, city
  FROM profile WHERE workspace_id = $1 AND id = o.id LIMIT 1 FOR NO KEY UPDATE) AS p
"""
LOCK_BY_ID = """
SELECT p.* FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT id, external_id, merged_into, erased_at, identified, traits, email, email_hash, phone, time_zone, locale,
    country, city
  FROM profile WHERE workspace_id = $1 AND id = u.id LIMIT 1 FOR NO KEY UPDATE) AS p
"""
# ON CONFLICT is for whoever is inserted by somebody else at this moment: not returned, found in the next round.
INSERT_PROFILES = """
INSERT INTO profile (workspace_id, external_id, traits, email, email_hash, phone, time_zone, locale, country, city,
  identified, created_at, updated_at)
SELECT $1, u.external_id, u.traits, u.email, u.email_hash, u.phone, u.time_zone, u.locale, u.country, u.city,
  true, $2, $2
FROM unnest($3::text[], $4::jsonb[], $5::text[], $6::bytea[], $7::text[], $8::text[], $9::text[], $10::text[],
  $11::text[]) AS u (external_id, traits, email, email_hash, phone, time_zone, locale, country, city)
ON CONFLICT (workspace_id, external_id) DO NOTHING RETURNING external_id, id
"""
# An update, though it is spelled as an insert: all of them exist and are locked. So it looks each row up by its key;
# UPDATE ... FROM reads the whole workspace when the statistics are old. No id is used up, since ids are given.
UPDATE_PROFILES = """
INSERT INTO profile (workspace_id, updated_at, id, traits, email, email_hash, phone, time_zone, locale, country, city)
SELECT $1, $2, u.id, u.traits, u.email, u.email_hash, u.phone, u.time_zone, u.locale, u.country, u.city
FROM unnest($3::int[], $4::jsonb[], $5::text[], $6::bytea[], $7::text[], $8::text[], $9::text[], $10::text[],
  $11::text[]) AS u (id, traits, email, email_hash, phone, time_zone, locale, country, city)
ON CONFLICT (workspace_id, id) DO UPDATE SET traits = excluded.traits, email = excluded.email,
  email_hash = excluded.email_hash, phone = excluded.phone, time_zone = excluded.time_zone, locale = excluded.locale,
  country = excluded.country, city = excluded.city, identified = true, updated_at = excluded.updated_at
"""
KNOWN_BRANDS = "SELECT id FROM brand WHERE workspace_id = $1 AND id = ANY($2::uuid[])"
# The brands of these people become exactly the pairs given; answers whose brands changed.
SET_BRANDS = """
WITH wanted AS (SELECT u.profile_id, u.brand_id FROM unnest($3::int[], $4::uuid[]) AS u (profile_id, brand_id)),
gone AS (
  DELETE FROM profile_brand b WHERE b.workspace_id = $1 AND b.profile_id = ANY($2::int[])
    AND NOT EXISTS (SELECT 1 FROM wanted w WHERE w.profile_id = b.profile_id AND w.brand_id = b.brand_id)
  RETURNING b.profile_id),
come AS (
  INSERT INTO profile_brand (workspace_id, profile_id, brand_id) SELECT $1, w.profile_id, w.brand_id FROM wanted w
  ON CONFLICT DO NOTHING RETURNING profile_id)
SELECT profile_id FROM gone UNION SELECT profile_id FROM come
"""


@dataclass(slots=True)
class Stored:
    """What became of one patch: the profile it is in, or why it is in none."""

    profile_id: int | None = None
    created: bool = False
    changed: bool = False
    error: ProfileError | None = None


async def store(connection: Connection, *, workspace_id: UUID, patches: Sequence[Patch], now: datetime) -> list[Stored]:
    """What became of each patch, in their order; patches of one person are applied one after the other.

    Many callers may do this at once, for the same people too: an external id becomes one profile.
    """
    outcomes = [Stored() for _ in patches]
    brands = await find_brands(connection, workspace_id, patches)
    waiting: list[int] = []
    for place, patch in enumerate(patches):
        if unknown := unknown_brand(patch, brands):
            outcomes[place].error = unknown
        else:
            waiting.append(place)
    touched: set[int] = set()
    for _ in range(MOST_ROUNDS):
        if not waiting:
            await write_touched(connection, workspace_id=workspace_id, profile_ids=touched)
            return outcomes
        drafts = await lock_drafts(connection, workspace_id, sorted({patches[place].external_id for place in waiting}))
        placed: dict[int, Draft] = {}
        for place in waiting:
            patch = patches[place]
            draft = drafts.get(patch.external_id)
            created = draft is None
            if draft is None:
                draft = drafts[patch.external_id] = Draft(patch.external_id)
            try:
                changed = draft.apply(patch)
            except ProfileError as refusal:
                outcomes[place].error = refusal
            else:
                outcomes[place] = Stored(created=created, changed=changed)
                placed[place] = draft
        touched |= await write_drafts(connection, workspace_id, distinct(placed.values()), now)
        waiting = []
        for place, draft in placed.items():
            outcomes[place].profile_id = draft.id
            if draft.id is None:
                outcomes[place] = Stored()
                waiting.append(place)
    raise contended()


async def find_brands(connection: Connection, workspace_id: UUID, patches: Sequence[Patch]) -> set[UUID]:
    """Those brands of `patches` that exist."""
    named = list(set(chain.from_iterable(patch.brand_ids or () for patch in patches)))
    return {row["id"] for row in await connection.fetch(KNOWN_BRANDS, workspace_id, named)} if named else set()


def unknown_brand(patch: Patch, known: set[UUID]) -> ProfileError | None:
    for at, brand_id in enumerate(patch.brand_ids or ()):
        if brand_id not in known:
            return BrandNotFound(field=("brand_ids", str(at)))
    return None


async def lock_drafts(connection: Connection, workspace_id: UUID, names: Sequence[str]) -> dict[str, Draft]:
    """Known people by external id, locked; a merged one is its winner."""
    rows = await connection.fetch(LOCK_BY_EXTERNAL_ID, workspace_id, names)
    drafts: dict[int, Draft] = {}
    # Where each name leads: its own row, or along merged_into to the winner's.
    leads: dict[str, int] = {}
    for row in rows:
        leads[row["name"]] = row["id"]
    for _ in range(MOST_ROUNDS):
        merged: dict[int, int] = {}
        for row in rows:
            if row["merged_into"] is None:
                values = {column: row[column] for column in COLUMNS}
                drafts[row["id"]] = Draft(
                    row["external_id"],
                    row["id"],
                    values,
                    row["traits"],
                    row["identified"],
                    erased=row["erased_at"] is not None,
                    traits_before=row["traits"],
                )
            else:
                merged[row["id"]] = row["merged_into"]
        if not merged:
            return {name: drafts[id] for name, id in leads.items() if id in drafts}
        leads = {name: merged.get(id, id) for name, id in leads.items()}
        rows = await connection.fetch(LOCK_BY_ID, workspace_id, sorted(set(merged.values()) - drafts.keys()))
    raise contended()


def distinct(drafts: Iterable[Draft]) -> list[Draft]:
    """Each draft once: several patches may be of one person."""
    return list({id(draft): draft for draft in drafts}.values())


async def write_drafts(connection: Connection, workspace_id: UUID, drafts: Sequence[Draft], now: datetime) -> set[int]:
    """Insert the new and update the changed; answers whom this touched. A new draft that has no id afterwards was
    inserted by somebody else meanwhile."""
    # Inserted in one order: a second writer of the same ids waits for the first, never each for the other.
    new = sorted((draft for draft in drafts if draft.id is None), key=lambda draft: draft.external_id)
    old = [draft for draft in drafts if draft.id is not None and draft.changed]
    touched = {draft.id for draft in old if draft.id is not None}
    if new:
        made = await insert(connection, workspace_id, new, now)
        for draft in new:
            draft.id = made.get(draft.external_id)
        touched.update(made.values())
    if old:
        await update(connection, workspace_id, old, now)
    await write_dates(
        connection,
        workspace_id,
        [
            (draft.id, key, at)
            for draft in (*new, *old)
            if draft.id is not None
            for key, at in moved_dates(draft.traits_before, draft.traits)
        ],
    )
    branded = {draft.id: draft.brand_ids for draft in drafts if draft.id is not None and draft.brand_ids is not None}
    if branded:
        pairs = [(profile_id, brand_id) for profile_id, brands in branded.items() for brand_id in brands]
        changed = await connection.fetch(
            SET_BRANDS, workspace_id, list(branded), [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        )
        touched |= {row["profile_id"] for row in changed}
    return touched


async def insert(connection: Connection, workspace_id: UUID, drafts: Sequence[Draft], now: datetime) -> dict[str, int]:
    """Ids of the new rows by external id; one that exists already is left out."""
    names = [draft.external_id for draft in drafts]
    rows = await connection.fetch(INSERT_PROFILES, workspace_id, now, names, *arrays(drafts))
    return {row["external_id"]: row["id"] for row in rows}


async def update(connection: Connection, workspace_id: UUID, drafts: Sequence[Draft], now: datetime) -> None:
    ids = [draft.id for draft in drafts]
    await connection.execute(UPDATE_PROFILES, workspace_id, now, ids, *arrays(drafts))


def arrays(drafts: Sequence[Draft]) -> list[list[Traits] | list[ColumnValue]]:
    """Traits and COLUMNS, each as one array."""
    return [[draft.traits for draft in drafts], *[[draft.values[column] for draft in drafts] for column in COLUMNS]]
