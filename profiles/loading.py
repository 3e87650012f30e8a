"""Writes chunks of a file, tens of thousands of rows in a transaction: COPY into a temporary table, the rest in SQL.

COPY into a tenant's table is barred by row level security. What comes in does as `storing` and `ingestion` would do
with it (tests say so), at a third of their cost a row; they are for small batches, for which a temporary table costs
more than it saves.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Self, TypeVar
from uuid import UUID

import asyncpg
import orjson

from db.transactions import Connection
from profiles.errors import ProfileError
from profiles.identities import contended, resolve
from profiles.ingestion import INSERT_KEYS
from profiles.patches import ColumnValue, Patch
from profiles.storing import store

T = TypeVar("T")

MOST_ROUNDS = 20


@dataclass(slots=True)
class ProfileColumns:
    """What rows say of people, column by column; None leaves what is there.

    Traits are JSON objects as text, without nulls. `texts` holds those of email, phone, time_zone, locale, country
    and city that the rows have; hashes are of the emails, and there are none without emails.
    """

    external_ids: list[str]
    traits: list[str]
    email_hashes: list[bytes | None]
    texts: dict[str, list[str | None]]

    def take(self, places: Sequence[int]) -> Self:
        """The rows at `places`."""
        return type(self)(
            external_ids=taken(self.external_ids, places),
            traits=taken(self.traits, places),
            email_hashes=taken(self.email_hashes, places) if self.email_hashes else [],
            texts={name: taken(column, places) for name, column in self.texts.items()},
        )


@dataclass(slots=True)
class EventColumns:
    """Checked events, column by column; people are known by one kind of id, properties are JSON objects as text.

    `texts` holds `name` and those of page_path, device_type, browser, country, city and session_id that there are.
    """

    message_ids: list[str]
    people: list[str]
    times: list[datetime]
    properties: list[str]
    texts: dict[str, list[str | None]]

    def take(self, places: Sequence[int]) -> Self:
        """The rows at `places`."""
        return type(self)(
            message_ids=taken(self.message_ids, places),
            people=taken(self.people, places),
            times=taken(self.times, places),
            properties=taken(self.properties, places),
            texts={name: taken(column, places) for name, column in self.texts.items()},
        )


def taken(column: Sequence[T], places: Sequence[int]) -> list[T]:
    return [column[place] for place in places]


@dataclass(slots=True)
class Loaded:
    """Profiles created and updated, and why others were refused, by external id."""

    created: int = 0
    updated: int = 0
    refused: dict[str, ProfileError] = field(default_factory=dict)


# As in identities.py, which says why, nothing here depends on statistics: people are looked up one by one (LATERAL with
# LIMIT) and updated by ON CONFLICT. One UPDATE ... FROM had taken 10 minutes for what takes half a second.

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
FIND_ODD = """
SELECT array_agg(external_id) FILTER (WHERE odd) AS odd, count(*) FILTER (WHERE changes AND NOT odd) AS changed
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
UPDATE_CHANGED = """
WITH changed AS (
  INSERT INTO profile (workspace_id, updated_at, id, traits, email, email_hash, phone, time_zone, locale, country, city)
  SELECT $1, $2, k.id, u.traits, u.email, u.email_hash, u.phone, u.time_zone, u.locale, u.country, u.city
  FROM known_profile k JOIN incoming_profile u ON u.external_id = k.external_id
  WHERE k.changes AND NOT k.odd ORDER BY k.id
  ON CONFLICT (workspace_id, id) DO UPDATE SET traits = profile.traits || excluded.traits,
    email = coalesce(excluded.email, profile.email), email_hash = coalesce(excluded.email_hash, profile.email_hash),
    phone = coalesce(excluded.phone, profile.phone), time_zone = coalesce(excluded.time_zone, profile.time_zone),
    locale = coalesce(excluded.locale, profile.locale), country = coalesce(excluded.country, profile.country),
    city = coalesce(excluded.city, profile.city), identified = true, updated_at = excluded.updated_at
  WHERE profile.merged_into IS NULL RETURNING id),
told AS (
  INSERT INTO profile_change (workspace_id, profile_id, kind, changed_at) SELECT $1, id, 'touched', $2 FROM changed)
SELECT count(*) FROM changed
"""

CREATE_INCOMING_EVENTS = """
CREATE TEMPORARY TABLE incoming_event (message_id text, profile_id integer, name text, occurred_at timestamptz,
  properties jsonb, page_path text, device_type text, browser text, country text, city text, session_id text)
ON COMMIT DROP
"""
INSERT_ALL_KEYS = """
INSERT INTO event_key (workspace_id, message_id, received_at)
SELECT $1, u.message_id, $3 FROM unnest($2::text[]) AS u (message_id)
"""
INSERT_EVENTS = """
INSERT INTO event (workspace_id, received_at, profile_id, message_id, name, occurred_at, properties, page_path,
  device_type, browser, country, city, session_id)
SELECT $1, $2, u.profile_id, u.message_id, u.name, u.occurred_at, u.properties, u.page_path, u.device_type, u.browser,
  u.country, u.city, u.session_id
FROM incoming_event u
"""
WRITE_SEEN = """
INSERT INTO profile (workspace_id, id, first_seen_at, last_seen_at)
SELECT $1, u.profile_id, least(min(u.occurred_at), $2), least(max(u.occurred_at), $2)
FROM incoming_event u GROUP BY u.profile_id ORDER BY u.profile_id
ON CONFLICT (workspace_id, id) DO UPDATE SET first_seen_at = least(profile.first_seen_at, excluded.first_seen_at),
  last_seen_at = greatest(profile.last_seen_at, excluded.last_seen_at)
WHERE profile.first_seen_at IS NULL OR profile.first_seen_at > excluded.first_seen_at
  OR profile.last_seen_at IS NULL OR profile.last_seen_at < excluded.last_seen_at
"""
TELL = """
INSERT INTO profile_change (workspace_id, profile_id, kind, changed_at)
SELECT DISTINCT $1::uuid, u.profile_id, 'touched', $2::timestamptz FROM incoming_event u
"""


async def load_profiles(
    connection: Connection, *, workspace_id: UUID, columns: ProfileColumns, now: datetime
) -> Loaded:
    """Upsert a person for each row; several rows of one person count as one, in which the later ones win."""
    loaded = Loaded()
    if not columns.external_ids:
        return loaded
    people = one_row_a_person(columns)
    await connection.execute(CREATE_INCOMING_PROFILES)
    names = ["external_id", "traits", *people.texts, *(["email_hash"] if people.email_hashes else [])]
    hashes = [people.email_hashes] if people.email_hashes else []
    await connection.copy_records_to_table(
        "incoming_profile",
        columns=names,
        records=zip(people.external_ids, people.traits, *people.texts.values(), *hashes, strict=True),
    )
    for _ in range(MOST_ROUNDS):
        await connection.execute(CREATE_KNOWN_PROFILES)
        known = rows_of(await connection.execute(INSERT_KNOWN, workspace_id))
        missing = len(people.external_ids) - known
        made = await insert(connection, workspace_id, known, now) if missing else 0
        loaded.created += made
        if made == missing:
            await update_known(connection, workspace_id, people, now, loaded)
            return loaded
        # Somebody else made some of them at this moment: they are known in the next round.
        await connection.execute(DROP_KNOWN_PROFILES)
    raise contended()


def one_row_a_person(columns: ProfileColumns) -> ProfileColumns:
    """Rows of one person joined: what the later ones say wins over the earlier, traits key by key."""
    last = {external_id: place for place, external_id in enumerate(columns.external_ids)}
    if len(last) == len(columns.external_ids):
        return columns
    people = columns.take(list(last.values()))
    places: dict[str, list[int]] = {}
    for place, external_id in enumerate(columns.external_ids):
        places.setdefault(external_id, []).append(place)
    for row, external_id in enumerate(people.external_ids):
        if len(places[external_id]) > 1:
            mine = columns.take(places[external_id])
            traits = reduce(or_, map(orjson.loads, mine.traits))
            people.traits[row] = orjson.dumps(traits).decode()
            for name, column in mine.texts.items():
                people.texts[name][row] = last_of(column)
            if mine.email_hashes:
                people.email_hashes[row] = last_of(mine.email_hashes)
    return people


def last_of(column: Sequence[T | None]) -> T | None:
    """The last that says something."""
    return next((value for value in reversed(column) if value is not None), None)


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
    connection: Connection, workspace_id: UUID, people: ProfileColumns, now: datetime, loaded: Loaded
) -> None:
    """Update those who were known before and differ."""
    known = await connection.fetchrow(FIND_ODD)
    if known["changed"]:
        loaded.updated += await connection.fetchval(UPDATE_CHANGED, workspace_id, now)
    if known["odd"]:
        odd = set(known["odd"])
        patches = [patch_of(people, row) for row, name in enumerate(people.external_ids) if name in odd]
        stored = await store(connection, workspace_id=workspace_id, patches=patches, now=now)
        for patch, done in zip(patches, stored, strict=True):
            loaded.created += done.created
            loaded.updated += done.changed and not done.created
            if done.error is not None:
                loaded.refused[patch.external_id] = done.error


def patch_of(people: ProfileColumns, row: int) -> Patch:
    values: dict[str, ColumnValue] = {}
    for name, column in people.texts.items():
        if column[row] is not None:
            values[name] = column[row]
    if people.email_hashes and people.email_hashes[row] is not None:
        values["email_hash"] = people.email_hashes[row]
    return Patch(people.external_ids[row], values, orjson.loads(people.traits[row]))


def rows_of(status: str) -> int:
    """How many rows a statement changed, of its status: "INSERT 0 5" is 5."""
    return int(status.rpartition(" ")[2])


async def load_events(
    connection: Connection, *, workspace_id: UUID, columns: EventColumns, anonymous: bool, now: datetime
) -> int:
    """How many events were written: those with a message id that was never seen, and of one id the first.

    Their months exist. Who they are about is known by anonymous ids, or by external ids; unknown people are created.
    """
    events = await insert_keys(connection, workspace_id, columns, now)
    if not events.message_ids:
        return 0
    names = set(events.people)
    people = await resolve(
        connection,
        workspace_id=workspace_id,
        external_ids=() if anonymous else names,
        anonymous_ids=names if anonymous else (),
        now=now,
    )
    known = people.by_anonymous_id if anonymous else people.by_external_id
    profile_ids = map(known.__getitem__, events.people)
    await connection.execute(CREATE_INCOMING_EVENTS)
    await connection.copy_records_to_table(
        "incoming_event",
        columns=["message_id", "profile_id", "occurred_at", "properties", *events.texts],
        records=zip(
            events.message_ids, profile_ids, events.times, events.properties, *events.texts.values(), strict=True
        ),
    )
    await connection.execute(INSERT_EVENTS, workspace_id, now)
    await connection.execute(TELL, workspace_id, now)
    # Last, since another batch about the same people waits from here on until the commit.
    await connection.execute(WRITE_SEEN, workspace_id, now)
    return len(events.message_ids)


async def insert_keys(connection: Connection, workspace_id: UUID, columns: EventColumns, now: datetime) -> EventColumns:
    """The events whose message ids were not known, which they are now."""
    ids = columns.message_ids
    if len(set(ids)) == len(ids):
        # Plain at first, which costs a fifth less than looking for conflicts; most files have none.
        with suppress(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute(INSERT_ALL_KEYS, workspace_id, ids, now)
            return columns
    first: dict[str, int] = {}
    for place, message_id in enumerate(ids):
        first.setdefault(message_id, place)
    rows = await connection.fetch(INSERT_KEYS, workspace_id, sorted(first), now)
    return columns.take(sorted(first[row["message_id"]] for row in rows))
