"""Writes chunks of a file, tens of thousands of rows in a transaction: COPY into a temporary table, the rest in SQL.

COPY into a tenant's table is barred by row level security. What comes in does as `storing` and `ingestion` would do
with it (tests say so), at a third of their cost a row; they are for small batches, for which a temporary table costs
more than it saves.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
import orjson

from db.transactions import Connection
from profiles.errors import ProfileError
from profiles.identities import resolve
from profiles.patches import COLUMNS, Patch
from profiles.storing import store


class ProfileRow(NamedTuple):
    """What a row says of a person; None leaves what is there. Traits are JSON text, and none of them is null."""

    external_id: str
    traits: str
    email: str | None
    email_hash: bytes | None
    phone: str | None
    time_zone: str | None
    locale: str | None
    country: str | None
    city: str | None


class EventRow(NamedTuple):
    """A checked event of somebody known by `person`; properties are JSON text."""

    message_id: str
    person: str
    name: str
    occurred_at: datetime
    properties: str
    page_path: str | None
    device_type: str | None
    browser: str | None
    country: str | None
    city: str | None
    session_id: str | None


@dataclass(slots=True)
class Loaded:
    """Profiles created and updated, and why others were refused, by external id."""

    created: int = 0
    updated: int = 0
    refused: dict[str, ProfileError] = field(default_factory=dict)


# A temporary table has no statistics: the planner would rather read all of `profile` than look up 20,000 rows of it.
LOOK_UP_ONLY = "SELECT set_config('enable_hashjoin', $1, true), set_config('enable_mergejoin', $1, true)"

CREATE_INCOMING_PROFILES = """
CREATE TEMPORARY TABLE incoming_profile (external_id text, traits jsonb, email text, email_hash bytea, phone text,
  time_zone text, locale text, country text, city text) ON COMMIT DROP
"""
# Odd are tombstones, whose winner it is about, and people with so many traits that the bounds may be passed: below
# 1,000 bytes nobody has more than 120.
FIND_KNOWN = """
SELECT count(*) AS known, array_agg(u.external_id) FILTER (WHERE p.merged_into IS NOT NULL
  OR pg_column_size(p.traits) > 1000 OR pg_column_compression(p.traits) IS NOT NULL) AS odd
FROM incoming_profile u JOIN profile p ON p.workspace_id = $1 AND p.external_id = u.external_id
"""
REMOVE_ODD = "DELETE FROM incoming_profile WHERE external_id = ANY($1::text[])"
INSERT_ALL = """
WITH made AS (
  INSERT INTO profile (workspace_id, external_id, traits, email, email_hash, phone, time_zone, locale, country, city,
    identified, created_at, updated_at)
  SELECT $1, u.external_id, u.traits, u.email, u.email_hash, u.phone, u.time_zone, u.locale, u.country, u.city,
    true, $2, $2
  FROM incoming_profile u RETURNING id),
told AS (
  INSERT INTO profile_change (workspace_id, profile_id, kind, changed_at) SELECT $1, id, 'touched', $2 FROM made)
SELECT count(*) FROM made
"""
INSERT_MISSING = """
WITH made AS (
  INSERT INTO profile (workspace_id, external_id, traits, email, email_hash, phone, time_zone, locale, country, city,
    identified, created_at, updated_at)
  SELECT $1, u.external_id, u.traits, u.email, u.email_hash, u.phone, u.time_zone, u.locale, u.country, u.city,
    true, $2, $2
  FROM incoming_profile u
  WHERE NOT EXISTS (SELECT 1 FROM profile p WHERE p.workspace_id = $1 AND p.external_id = u.external_id)
  ON CONFLICT (workspace_id, external_id) DO NOTHING RETURNING id),
told AS (
  INSERT INTO profile_change (workspace_id, profile_id, kind, changed_at) SELECT $1, id, 'touched', $2 FROM made)
SELECT count(*) FROM made
"""
UPDATE_CHANGED = """
WITH changed AS (
  UPDATE profile p SET traits = p.traits || u.traits, email = coalesce(u.email, p.email),
    email_hash = coalesce(u.email_hash, p.email_hash), phone = coalesce(u.phone, p.phone),
    time_zone = coalesce(u.time_zone, p.time_zone), locale = coalesce(u.locale, p.locale),
    country = coalesce(u.country, p.country), city = coalesce(u.city, p.city), identified = true, updated_at = $2
  FROM incoming_profile u
  WHERE p.workspace_id = $1 AND p.external_id = u.external_id AND p.merged_into IS NULL
    AND (p.traits || u.traits <> p.traits OR NOT p.identified
      OR (u.email, u.email_hash) IS DISTINCT FROM (p.email, p.email_hash) AND u.email IS NOT NULL
      OR u.phone IS DISTINCT FROM p.phone AND u.phone IS NOT NULL
      OR u.time_zone IS DISTINCT FROM p.time_zone AND u.time_zone IS NOT NULL
      OR u.locale IS DISTINCT FROM p.locale AND u.locale IS NOT NULL
      OR u.country IS DISTINCT FROM p.country AND u.country IS NOT NULL
      OR u.city IS DISTINCT FROM p.city AND u.city IS NOT NULL)
  RETURNING p.id),
told AS (
  INSERT INTO profile_change (workspace_id, profile_id, kind, changed_at) SELECT $1, id, 'touched', $2 FROM changed)
SELECT count(*) FROM changed
"""

CREATE_INCOMING_EVENTS = """
CREATE TEMPORARY TABLE incoming_event (message_id text, person text, name text, occurred_at timestamptz,
  properties jsonb, page_path text, device_type text, browser text, country text, city text, session_id text)
ON COMMIT DROP
"""
CREATE_INCOMING_PEOPLE = "CREATE TEMPORARY TABLE incoming_person (person text, id integer) ON COMMIT DROP"
INSERT_ALL_KEYS = """
INSERT INTO event_key (workspace_id, message_id, received_at) SELECT $1, u.message_id, $2 FROM incoming_event u
"""
INSERT_MISSING_KEYS = """
WITH fresh AS (
  INSERT INTO event_key (workspace_id, message_id, received_at) SELECT $1, u.message_id, $2 FROM incoming_event u
  ON CONFLICT (workspace_id, message_id) DO NOTHING RETURNING message_id)
DELETE FROM incoming_event u WHERE NOT EXISTS (SELECT 1 FROM fresh f WHERE f.message_id = u.message_id)
"""
LIST_PEOPLE = "SELECT DISTINCT person FROM incoming_event"
INSERT_EVENTS = """
INSERT INTO event (workspace_id, received_at, profile_id, message_id, name, occurred_at, properties, page_path,
  device_type, browser, country, city, session_id)
SELECT $1, $2, p.id, u.message_id, u.name, u.occurred_at, u.properties, u.page_path, u.device_type, u.browser,
  u.country, u.city, u.session_id
FROM incoming_event u JOIN incoming_person p ON p.person = u.person
"""
CREATE_INCOMING_SEEN = """
CREATE TEMPORARY TABLE incoming_seen (id integer, earliest timestamptz, latest timestamptz) ON COMMIT DROP
"""
# In the order of their ids: so they are then locked, as other writers do.
INSERT_SEEN = """
INSERT INTO incoming_seen (id, earliest, latest)
SELECT p.id, least(min(u.occurred_at), $1), least(max(u.occurred_at), $1)
FROM incoming_event u JOIN incoming_person p ON p.person = u.person GROUP BY p.id ORDER BY p.id
"""
WRITE_SEEN = """
UPDATE profile p SET first_seen_at = least(p.first_seen_at, s.earliest),
  last_seen_at = greatest(p.last_seen_at, s.latest)
FROM incoming_seen s
WHERE p.workspace_id = $1 AND p.id = s.id
  AND (p.first_seen_at IS NULL OR p.first_seen_at > s.earliest OR p.last_seen_at IS NULL OR p.last_seen_at < s.latest)
"""
TELL = """
INSERT INTO profile_change (workspace_id, profile_id, kind, changed_at) SELECT $1, id, 'touched', $2 FROM incoming_seen
"""


async def load_profiles(
    connection: Connection, *, workspace_id: UUID, rows: Sequence[ProfileRow], now: datetime
) -> Loaded:
    """Upsert a person for each row; several rows of one person count as one, in which the later ones win."""
    people = rows_by_person(rows)
    loaded = Loaded()
    await connection.execute(CREATE_INCOMING_PROFILES)
    await connection.copy_records_to_table("incoming_profile", records=people.values())
    await connection.execute(LOOK_UP_ONLY, "off")
    found = await connection.fetchrow(FIND_KNOWN, workspace_id)
    if found["odd"]:
        await connection.execute(REMOVE_ODD, found["odd"])
        await store_odd(connection, workspace_id, [people[name] for name in found["odd"]], now, loaded)
    if found["known"]:
        loaded.created += await connection.fetchval(INSERT_MISSING, workspace_id, now)
        loaded.updated += await connection.fetchval(UPDATE_CHANGED, workspace_id, now)
    else:
        try:
            async with connection.transaction():
                loaded.created += await connection.fetchval(INSERT_ALL, workspace_id, now)
        except asyncpg.UniqueViolationError:
            # Somebody else is making one of them at this moment.
            loaded.created += await connection.fetchval(INSERT_MISSING, workspace_id, now)
            loaded.updated += await connection.fetchval(UPDATE_CHANGED, workspace_id, now)
    await connection.execute(LOOK_UP_ONLY, "on")
    return loaded


def rows_by_person(rows: Sequence[ProfileRow]) -> dict[str, ProfileRow]:
    """One row a person: what the later ones say wins over the earlier, traits key by key."""
    people = {row.external_id: row for row in rows}
    if len(people) == len(rows):
        return people
    people = {}
    for row in rows:
        earlier = people.get(row.external_id)
        people[row.external_id] = row if earlier is None else joined(earlier, row)
    return people


def joined(earlier: ProfileRow, later: ProfileRow) -> ProfileRow:
    traits = orjson.dumps(orjson.loads(earlier.traits) | orjson.loads(later.traits)).decode()
    rest = (old if new is None else new for old, new in zip(earlier[2:], later[2:], strict=True))
    return ProfileRow(later.external_id, traits, *rest)  # type: ignore[arg-type]


async def store_odd(
    connection: Connection, workspace_id: UUID, rows: Sequence[ProfileRow], now: datetime, loaded: Loaded
) -> None:
    """Store these one by one in memory, where merges and bounds are looked at."""
    patches = [patch_of(row) for row in rows]
    for row, done in zip(
        rows, await store(connection, workspace_id=workspace_id, patches=patches, now=now), strict=True
    ):
        if done.error is not None:
            loaded.refused[row.external_id] = done.error
        loaded.created += done.created
        loaded.updated += done.changed and not done.created


def patch_of(row: ProfileRow) -> Patch:
    values = {column: value for column, value in zip(COLUMNS, row[2:], strict=True) if value is not None}
    return Patch(row.external_id, values, orjson.loads(row.traits))


async def load_events(
    connection: Connection, *, workspace_id: UUID, rows: Sequence[EventRow], anonymous: bool, now: datetime
) -> int:
    """How many events were written: those with a message id that was never seen, and of one id the first.

    Their months exist. Who they are about is known by anonymous ids, or by external ids; unknown people are created.
    """
    by_key: dict[str, EventRow] = {}
    for row in rows:
        by_key.setdefault(row.message_id, row)
    await connection.execute(CREATE_INCOMING_EVENTS)
    await connection.copy_records_to_table("incoming_event", records=by_key.values())
    names, fresh = await insert_keys(connection, workspace_id, by_key.values(), now)
    if not names:
        return 0
    people = await resolve(
        connection,
        workspace_id=workspace_id,
        external_ids=() if anonymous else names,
        anonymous_ids=names if anonymous else (),
        now=now,
    )
    known = people.by_anonymous_id if anonymous else people.by_external_id
    await connection.execute(CREATE_INCOMING_PEOPLE)
    await connection.copy_records_to_table("incoming_person", records=known.items())
    await connection.execute(INSERT_EVENTS, workspace_id, now)
    await connection.execute(CREATE_INCOMING_SEEN)
    await connection.execute(INSERT_SEEN, now)
    await connection.execute(LOOK_UP_ONLY, "off")
    await connection.execute(WRITE_SEEN, workspace_id)
    await connection.execute(LOOK_UP_ONLY, "on")
    await connection.execute(TELL, workspace_id, now)
    return fresh


async def insert_keys(
    connection: Connection, workspace_id: UUID, rows: Collection[EventRow], now: datetime
) -> tuple[set[str], int]:
    """Who the fresh events are about, and how many these are; the others are no longer in incoming_event."""
    try:
        # Plain at first: looking for conflicts takes half as long again, and most files have none.
        async with connection.transaction():
            await connection.execute(INSERT_ALL_KEYS, workspace_id, now)
        return {row.person for row in rows}, len(rows)
    except asyncpg.UniqueViolationError:
        status: str = await connection.execute(INSERT_MISSING_KEYS, workspace_id, now)
        people = {row["person"] for row in await connection.fetch(LIST_PEOPLE)}
        return people, len(rows) - int(status.removeprefix("DELETE "))
