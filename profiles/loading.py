"""Writes chunks of a file, tens of thousands of rows in a transaction: COPY into a temporary table, the rest in SQL.

COPY into a tenant's table is barred by row level security. What comes in does as `storing` and `ingestion` would do
with it (tests say so), at a third of their cost a row; they are for small batches, for which a temporary table costs
more than it saves.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
import orjson

from db.transactions import Connection
from profiles.errors import ProfileError
from profiles.identities import contended, resolve
from profiles.patches import COLUMNS, Patch
from profiles.storing import store

MOST_ROUNDS = 20


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


# Nothing here may depend on the planner's idea of how many rows a workspace has: during an import it is old, and
# one wrong nested loop took 10 minutes for what takes 100 ms. So people are looked up one by one (LATERAL with LIMIT
# is never turned into another join) or by arrays of ids (an index takes the whole array).

CREATE_INCOMING_PROFILES = """
CREATE TEMPORARY TABLE incoming_profile (external_id text, traits jsonb, email text, email_hash bytea, phone text,
  time_zone text, locale text, country text, city text) ON COMMIT DROP
"""
CREATE_KNOWN_PROFILES = """
CREATE TEMPORARY TABLE known_profile (external_id text, id integer, odd boolean, changes boolean) ON COMMIT DROP
"""
# Odd are tombstones, whose winner it is about, and people with so many traits that the bounds may be passed: below
# 1,000 bytes nobody has more than 120.
INSERT_KNOWN = """
INSERT INTO known_profile (external_id, id, odd, changes)
SELECT u.external_id, p.id,
  p.merged_into IS NOT NULL OR pg_column_size(p.traits) > 1000 OR pg_column_compression(p.traits) IS NOT NULL,
  NOT p.identified OR p.traits || u.traits <> p.traits
    OR u.email <> coalesce(p.email, '') OR u.email_hash <> coalesce(p.email_hash, '')
    OR u.phone <> coalesce(p.phone, '') OR u.time_zone <> coalesce(p.time_zone, '')
    OR u.locale <> coalesce(p.locale, '') OR u.country <> coalesce(p.country, '') OR u.city <> coalesce(p.city, '')
FROM incoming_profile u CROSS JOIN LATERAL (
  SELECT * FROM profile WHERE workspace_id = $1 AND external_id = u.external_id LIMIT 1) AS p
"""
DROP_KNOWN_PROFILES = "DROP TABLE known_profile"
LIST_KNOWN = """
SELECT array_agg(external_id) FILTER (WHERE odd) AS odd, array_agg(id) FILTER (WHERE changes AND NOT odd) AS changed
FROM known_profile
"""
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
  FROM incoming_profile u WHERE NOT EXISTS (SELECT 1 FROM known_profile k WHERE k.external_id = u.external_id)
  ON CONFLICT (workspace_id, external_id) DO NOTHING RETURNING id),
told AS (
  INSERT INTO profile_change (workspace_id, profile_id, kind, changed_at) SELECT $1, id, 'touched', $2 FROM made)
SELECT count(*) FROM made
"""
INDEX_INCOMING = "CREATE INDEX incoming_profile_external_id ON incoming_profile (external_id)"
UPDATE_CHANGED = """
WITH changed AS (
  UPDATE profile p SET identified = true, updated_at = $2,
    (traits, email, email_hash, phone, time_zone, locale, country, city) = (
      SELECT p.traits || u.traits, coalesce(u.email, p.email), coalesce(u.email_hash, p.email_hash),
        coalesce(u.phone, p.phone), coalesce(u.time_zone, p.time_zone), coalesce(u.locale, p.locale),
        coalesce(u.country, p.country), coalesce(u.city, p.city)
      FROM incoming_profile u WHERE u.external_id = p.external_id)
  WHERE p.workspace_id = $1 AND p.id = ANY($3::int[]) AND p.merged_into IS NULL RETURNING p.id),
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
CREATE TEMPORARY TABLE incoming_seen (id integer PRIMARY KEY, earliest timestamptz, latest timestamptz) ON COMMIT DROP
"""
INSERT_SEEN = """
INSERT INTO incoming_seen (id, earliest, latest)
SELECT p.id, least(min(u.occurred_at), $1), least(max(u.occurred_at), $1)
FROM incoming_event u JOIN incoming_person p ON p.person = u.person GROUP BY p.id
"""
WRITE_SEEN = """
UPDATE profile p SET first_seen_at = least(p.first_seen_at, s.earliest),
  last_seen_at = greatest(p.last_seen_at, s.latest)
FROM incoming_seen s
WHERE p.workspace_id = $1 AND p.id = ANY($2::int[]) AND s.id = p.id
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
    if not people:
        return loaded
    await connection.execute(CREATE_INCOMING_PROFILES)
    await connection.copy_records_to_table("incoming_profile", records=people.values())
    for _ in range(MOST_ROUNDS):
        await connection.execute(CREATE_KNOWN_PROFILES)
        known = rows_of(await connection.execute(INSERT_KNOWN, workspace_id))
        missing = len(people) - known
        made = await insert(connection, workspace_id, known, now) if missing else 0
        loaded.created += made
        if made == missing:
            await update_known(connection, workspace_id, people, now, loaded)
            return loaded
        # Somebody else made some of them at this moment: they are known in the next round.
        await connection.execute(DROP_KNOWN_PROFILES)
    raise contended()


async def insert(connection: Connection, workspace_id: UUID, known: int, now: datetime) -> int:
    """How many of the missing people were inserted."""
    made: int = 0
    if known:
        made = await connection.fetchval(INSERT_MISSING, workspace_id, now)
    else:
        # Plain, which costs a fifth less than looking for conflicts; one undoes it all.
        with suppress(asyncpg.UniqueViolationError):
            async with connection.transaction():
                made = await connection.fetchval(INSERT_ALL, workspace_id, now)
    return made


async def update_known(
    connection: Connection, workspace_id: UUID, people: Mapping[str, ProfileRow], now: datetime, loaded: Loaded
) -> None:
    """Update those who were known before and differ."""
    known = await connection.fetchrow(LIST_KNOWN)
    if known["changed"]:
        await connection.execute(INDEX_INCOMING)
        loaded.updated += await connection.fetchval(UPDATE_CHANGED, workspace_id, now, known["changed"])
    if known["odd"]:
        odd = [people[external_id] for external_id in known["odd"]]
        stored = await store(connection, workspace_id=workspace_id, patches=list(map(patch_of, odd)), now=now)
        for row, done in zip(odd, stored, strict=True):
            loaded.created += done.created
            loaded.updated += done.changed and not done.created
            if done.error is not None:
                loaded.refused[row.external_id] = done.error


def rows_of(status: str) -> int:
    """How many rows a statement changed, of its status: "INSERT 0 5" is 5."""
    return int(status.rpartition(" ")[2])


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
    await connection.execute(WRITE_SEEN, workspace_id, sorted(set(known.values())))
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
        repeated = rows_of(await connection.execute(INSERT_MISSING_KEYS, workspace_id, now))
        return {row["person"] for row in await connection.fetch(LIST_PEOPLE)}, len(rows) - repeated
