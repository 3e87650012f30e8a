"""From the ids that others use for people to profile ids: found, followed through merges, made when unknown.

A merged profile stays as a tombstone whose `merged_into` names the winner; whoever asks for it gets the winner.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from db.transactions import Connection
from profiles.contention import contended
from profiles.text import clean_text

MOST_ID_CHARACTERS = 200
MOST_ROUNDS = 20

# People are looked up one by one: LATERAL with LIMIT is never turned into another join, whatever the statistics say.
# With those of before a workspace had people, `external_id = ANY($2)` read the whole workspace instead and compared
# every row with every element: 20,000 of 100,000 people took 86 s, and 0.17 s one by one (2025-11-22).
FIND_BY_EXTERNAL_ID = """
SELECT u.name, p.id, p.merged_into, p.erased_at FROM unnest($2::text[]) AS u (name) CROSS JOIN LATERAL (
  SELECT id, merged_into, erased_at FROM profile WHERE workspace_id = $1 AND external_id = u.name LIMIT 1) AS p
"""
FIND_BY_ANONYMOUS_ID = """
SELECT u.name, p.id, p.merged_into, p.erased_at FROM unnest($2::text[]) AS u (name)
CROSS JOIN LATERAL (
  SELECT profile_id FROM profile_alias WHERE workspace_id = $1 AND anonymous_id = u.name LIMIT 1) AS a
CROSS JOIN LATERAL (
  SELECT id, merged_into, erased_at FROM profile WHERE workspace_id = $1 AND id = a.profile_id LIMIT 1) AS p
"""
FIND_BY_ID = """
SELECT p.id, p.merged_into, p.erased_at FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT id, merged_into, erased_at FROM profile WHERE workspace_id = $1 AND id = u.id LIMIT 1) AS p
"""
# FOR KEY SHARE: a merge or an erasure (FOR UPDATE) waits until what is being written about the person is in, and the
# other way round; other writers are not held up. In the order of ids, so that two batches never wait for each other.
HOLD_BY_EXTERNAL_ID = """
SELECT o.name, p.id, p.merged_into, p.erased_at
FROM (
  SELECT u.name, f.id FROM unnest($2::text[]) AS u (name) CROSS JOIN LATERAL (
    SELECT id FROM profile WHERE workspace_id = $1 AND external_id = u.name LIMIT 1) AS f
  ORDER BY f.id) AS o
CROSS JOIN LATERAL (
  SELECT id, merged_into, erased_at FROM profile WHERE workspace_id = $1 AND id = o.id LIMIT 1 FOR KEY SHARE) AS p
"""
HOLD_BY_ANONYMOUS_ID = """
SELECT o.name, p.id, p.merged_into, p.erased_at
FROM (
  SELECT u.name, f.id FROM unnest($2::text[]) AS u (name) CROSS JOIN LATERAL (
    SELECT profile_id AS id FROM profile_alias WHERE workspace_id = $1 AND anonymous_id = u.name LIMIT 1) AS f
  ORDER BY f.id) AS o
CROSS JOIN LATERAL (
  SELECT id, merged_into, erased_at FROM profile WHERE workspace_id = $1 AND id = o.id LIMIT 1 FOR KEY SHARE) AS p
"""
HOLD_BY_ID = """
SELECT p.id, p.merged_into, p.erased_at FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT id, merged_into, erased_at FROM profile WHERE workspace_id = $1 AND id = u.id LIMIT 1 FOR KEY SHARE) AS p
"""
# Only the missing are inserted: ON CONFLICT takes an id for every row it then drops. It is here for the one that
# somebody else inserts at the same moment; the caller then finds that one.
INSERT_IDENTIFIED = """
INSERT INTO profile (workspace_id, external_id, identified, created_at, updated_at)
SELECT $1, u.name, true, $3, $3 FROM unnest($2::text[]) AS u (name)
ON CONFLICT (workspace_id, external_id) DO NOTHING RETURNING external_id AS name, id, merged_into
"""
INSERT_ANONYMOUS = """
INSERT INTO profile (workspace_id, identified, created_at, updated_at)
SELECT $1, false, $3, $3 FROM generate_series(1, $2) RETURNING id
"""
INSERT_ALIASES = """
INSERT INTO profile_alias (workspace_id, anonymous_id, profile_id, created_at)
SELECT $1, u.name, u.id, $4 FROM unnest($2::text[], $3::int[]) AS u (name, id)
ON CONFLICT (workspace_id, anonymous_id) DO NOTHING RETURNING anonymous_id AS name, profile_id AS id
"""
DELETE_UNUSED = "DELETE FROM profile WHERE workspace_id = $1 AND id = ANY($2::int[])"
# A row for a thousand people: whoever acts on it takes it whole. Its time is the transaction's, whatever the caller's
# now is: word that an import of hours wrote at its end is not forgotten as if it had come at its beginning.
WRITE_TOUCHED = """
INSERT INTO profile_change (workspace_id, profile_ids, kind)
SELECT $1, array_agg(u.id ORDER BY u.place), 'touched' FROM unnest($2::int[]) WITH ORDINALITY AS u (id, place)
GROUP BY (u.place - 1) / 1000 ORDER BY (u.place - 1) / 1000
"""


@dataclass(frozen=True, slots=True)
class LookUps:
    """The statements that look people up."""

    by_external_id: str
    by_anonymous_id: str
    by_id: str


FIND = LookUps(FIND_BY_EXTERNAL_ID, FIND_BY_ANONYMOUS_ID, FIND_BY_ID)
"""Locks nobody: for who looks again, at the end of the transaction, whether the people were merged meanwhile."""
HOLD = LookUps(HOLD_BY_EXTERNAL_ID, HOLD_BY_ANONYMOUS_ID, HOLD_BY_ID)
"""Locks them FOR KEY SHARE until the transaction ends."""


@dataclass(slots=True)
class Identities:
    """Profile ids by what others call them; None for people who were erased."""

    by_external_id: dict[str, int | None] = field(default_factory=dict)
    by_anonymous_id: dict[str, int | None] = field(default_factory=dict)


def clean_external_id(value: object, *, field: tuple[str, ...] = ("external_id",)) -> str:
    """A customer's own id for a person; raises ProfileError."""
    return clean_text(value, what="External id", most=MOST_ID_CHARACTERS, field=field)


def clean_anonymous_id(value: object, *, field: tuple[str, ...] = ("anonymous_id",)) -> str:
    """An id that an app or page made up for a visitor; raises ProfileError."""
    return clean_text(value, what="Anonymous id", most=MOST_ID_CHARACTERS, field=field)


async def resolve(
    connection: Connection,
    *,
    workspace_id: UUID,
    external_ids: Collection[str],
    anonymous_ids: Collection[str],
    now: datetime,
    look_ups: LookUps = HOLD,
) -> Identities:
    """Profile ids of all these people; a merged one gives its winner.

    Unknown external ids become identified profiles, unknown anonymous ids anonymous ones with an alias. The ids must
    be clean.
    """
    found = Identities()
    if external_ids:
        names = sorted(set(external_ids))
        found.by_external_id = await resolve_external(connection, workspace_id, names, now, look_ups)
    if anonymous_ids:
        names = sorted(set(anonymous_ids))
        found.by_anonymous_id = await resolve_anonymous(connection, workspace_id, names, now, look_ups)
    return found


async def resolve_external(
    connection: Connection, workspace_id: UUID, names: Sequence[str], now: datetime, look_ups: LookUps = HOLD
) -> dict[str, int | None]:
    """Profile ids by external id, None for erased people; `names` sorted, each once."""
    known: dict[str, int | None] = {}
    for _ in range(MOST_ROUNDS):
        missing = [name for name in names if name not in known]
        if not missing:
            return known
        rows = await connection.fetch(look_ups.by_external_id, workspace_id, missing)
        known |= await follow(connection, workspace_id, rows, look_ups)
        if missing := [name for name in missing if name not in known]:
            made = await connection.fetch(INSERT_IDENTIFIED, workspace_id, missing, now)
            known |= {row["name"]: row["id"] for row in made}
    raise contended()


async def resolve_anonymous(
    connection: Connection, workspace_id: UUID, names: Sequence[str], now: datetime, look_ups: LookUps = HOLD
) -> dict[str, int | None]:
    """Profile ids by anonymous id, None for erased people; `names` sorted, each once."""
    known: dict[str, int | None] = {}
    for _ in range(MOST_ROUNDS):
        missing = [name for name in names if name not in known]
        if not missing:
            return known
        rows = await connection.fetch(look_ups.by_anonymous_id, workspace_id, missing)
        known |= await follow(connection, workspace_id, rows, look_ups)
        if missing := [name for name in missing if name not in known]:
            made = [row["id"] for row in await connection.fetch(INSERT_ANONYMOUS, workspace_id, len(missing), now)]
            aliases = await connection.fetch(INSERT_ALIASES, workspace_id, missing, made, now)
            known |= {row["name"]: row["id"] for row in aliases}
            if unused := set(made).difference(row["id"] for row in aliases):
                await connection.execute(DELETE_UNUSED, workspace_id, list(unused))
    raise contended()


async def follow(
    connection: Connection, workspace_id: UUID, rows: Sequence[asyncpg.Record], look_ups: LookUps
) -> dict[str, int | None]:
    """Living profile ids by name, of rows (name, id, merged_into, erased_at); None for erased people.

    A tombstone that leads nowhere (its winner was deleted by hand) is left out.
    """
    known: dict[str, int | None] = {}
    merged: dict[str, int] = {}
    for name, profile_id, merged_into, erased_at in rows:
        if merged_into is not None:
            merged[name] = merged_into
        else:
            known[name] = profile_id if erased_at is None else None
    for _ in range(MOST_ROUNDS):
        if not merged:
            return known
        winners = {
            row["id"]: row for row in await connection.fetch(look_ups.by_id, workspace_id, sorted(set(merged.values())))
        }
        for name, profile_id in list(merged.items()):
            del merged[name]
            if (winner := winners.get(profile_id)) is None:
                continue
            if winner["merged_into"] is not None:
                merged[name] = winner["merged_into"]
            else:
                known[name] = profile_id if winner["erased_at"] is None else None
    raise contended()


async def hold_living(connection: Connection, workspace_id: UUID, profile_id: int) -> int | None:
    """The id of this profile, or of the one it was merged into, locked FOR KEY SHARE; None when nobody is left."""
    id: int | None = profile_id
    # An id outside of the column's range is nobody's; asked for, it would be an error.
    while id is not None and 0 < id < 2**31:
        row = await connection.fetchrow(HOLD_BY_ID, workspace_id, [id])
        if row is None or row["erased_at"] is not None:
            return None
        if row["merged_into"] is None:
            return id
        id = row["merged_into"]
    return None


async def write_touched(connection: Connection, *, workspace_id: UUID, profile_ids: Collection[int]) -> None:
    """Tell the packages above that these people changed, in the transaction that changed them."""
    if profile_ids:
        await connection.execute(WRITE_TOUCHED, workspace_id, sorted(profile_ids))
