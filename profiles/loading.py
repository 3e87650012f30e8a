"""Writes chunks of a file, tens of thousands of rows in a transaction: COPY into a temporary table, the rest in SQL.

COPY into a tenant's table is barred by row level security. What comes in does as `storing` and `ingestion` would do
with it (tests say so), at a third of their cost a row; they are for small batches, for which a temporary table costs
more than it saves.
"""

import re
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
from profiles.contention import contended
from profiles.dates import dates_of
from profiles.dating import find_dated_keys, write_dates
from profiles.errors import ProfileError
from profiles.identities import FIND, resolve, write_touched
from profiles.ingestion import DELETE_KEYS, INSERT_KEYS, INSERT_NEW_KEYS, until
from profiles.packing import pack, seconds_of
from profiles.patches import ColumnValue, Patch
from profiles.seen import COLUMNS, Sightings, write_seen
from profiles.storing import store

T = TypeVar("T")

MOST_ROUNDS = 20
Dates = dict[str, dict[str, datetime | None]]
"""By external id and key, as rows say; None: what is said there is no date."""

MAY_HOLD_DATE = re.compile('"[0-9]{4}-')
ANY_DATE = "SELECT EXISTS (SELECT FROM profile_date WHERE workspace_id = $1)"


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


@dataclass(frozen=True, slots=True)
class LoadedEvents:
    """How many events were new, and whose events were refused since they are erased: the ids that rows know them by."""

    created: int
    erased: frozenset[str]


# As in identities.py, which says why, nothing here depends on statistics: people are looked up one by one (LATERAL with
# LIMIT) and updated by ON CONFLICT. One UPDATE ... FROM had taken 10 minutes for what takes half a second.

CREATE_INCOMING_PROFILES = """
CREATE TEMPORARY TABLE incoming_profile (external_id text, traits jsonb, email text, email_hash bytea, phone text,
  time_zone text, locale text, country text, city text) ON COMMIT DROP
"""
CREATE_KNOWN_PROFILES = """
CREATE TEMPORARY TABLE known_profile (external_id text, id integer, odd boolean, changes boolean) ON COMMIT DROP
"""
# Odd are tombstones, whose winner it is about, erased people, who are refused, and people with so many traits that the
# bounds may be passed: below 1,000 bytes nobody has more than 120.
INSERT_KNOWN = """
INSERT INTO known_profile (external_id, id, odd, changes)
SELECT u.external_id, p.id,
  p.merged_into IS NOT NULL OR p.erased_at IS NOT NULL OR pg_column_size(p.traits) > 1000
    OR pg_column_compression(p.traits) IS NOT NULL,
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
  FROM incoming_profile u RETURNING id, external_id),
told AS (
  INSERT INTO profile_change (workspace_id, profile_ids, kind)
  SELECT $1, array_agg(id), 'touched' FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM made) AS one
  GROUP BY (place - 1) / 1000)
SELECT count(*), array_agg(id) FILTER (WHERE $3) AS ids, array_agg(external_id) FILTER (WHERE $3) AS names
FROM made
"""
INSERT_MISSING = """
WITH made AS (
  INSERT INTO profile (workspace_id, external_id, traits, email, email_hash, phone, time_zone, locale, country, city,
    identified, created_at, updated_at)
  SELECT $1, u.external_id, u.traits, u.email, u.email_hash, u.phone, u.time_zone, u.locale, u.country, u.city,
    true, $2, $2
  FROM incoming_profile u WHERE NOT EXISTS (SELECT 1 FROM known_profile k WHERE k.external_id = u.external_id)
  ON CONFLICT (workspace_id, external_id) DO NOTHING RETURNING id, external_id),
told AS (
  INSERT INTO profile_change (workspace_id, profile_ids, kind)
  SELECT $1, array_agg(id), 'touched' FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM made) AS one
  GROUP BY (place - 1) / 1000)
SELECT count(*), array_agg(id) FILTER (WHERE $3) AS ids, array_agg(external_id) FILTER (WHERE $3) AS names
FROM made
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
  WHERE profile.merged_into IS NULL AND profile.erased_at IS NULL RETURNING id, external_id),
told AS (
  INSERT INTO profile_change (workspace_id, profile_ids, kind)
  SELECT $1, array_agg(id), 'touched' FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM changed) AS one
  GROUP BY (place - 1) / 1000)
SELECT count(*), array_agg(id) FILTER (WHERE $3) AS ids, array_agg(external_id) FILTER (WHERE $3) AS names
FROM changed
"""

CREATE_INCOMING_EVENTS = """
CREATE TEMPORARY TABLE incoming_event (message_id text, profile_id integer, name text, occurred_at timestamptz,
  properties jsonb, page_path text, device_type text, browser text, country text, city text, session_id text)
ON COMMIT DROP
"""
INSERT_EVENTS = """
INSERT INTO event (workspace_id, received_at, profile_id, message_id, name, occurred_at, properties, page_path,
  device_type, browser, country, city, session_id)
SELECT $1, $2, u.profile_id, u.message_id, u.name, u.occurred_at, u.properties, u.page_path, u.device_type, u.browser,
  u.country, u.city, u.session_id
FROM incoming_event u
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
    dates = await dates_said(connection, workspace_id, people)
    for _ in range(MOST_ROUNDS):
        await connection.execute(CREATE_KNOWN_PROFILES)
        known = rows_of(await connection.execute(INSERT_KNOWN, workspace_id))
        missing = len(people.external_ids) - known
        made = await insert(connection, workspace_id, known, now, dates) if missing else 0
        loaded.created += made
        if made == missing:
            await update_known(connection, workspace_id, people, now, dates, loaded)
            return loaded
        # Somebody else made some of them at this moment: they are known in the next round.
        await connection.execute(DROP_KNOWN_PROFILES)
    raise contended()


async def dates_said(connection: Connection, workspace_id: UUID, people: ProfileColumns) -> Dates:
    """What the rows say of traits that are dates, or were in this workspace so far.

    Most files have none: then no row is parsed.
    """
    told: Dates = {}
    if not await connection.fetchval(ANY_DATE, workspace_id) and not any(map(MAY_HOLD_DATE.search, people.traits)):
        return told
    traits = dict(zip(people.external_ids, map(orjson.loads, people.traits), strict=True))
    dated = {external_id: dates_of(said) for external_id, said in traits.items()}
    keys = set().union(*dated.values())
    keys |= await find_dated_keys(connection, workspace_id, list(set().union(*traits.values())))
    for external_id, said in traits.items():
        if mine := {key: dated[external_id].get(key) for key in keys & said.keys()}:
            told[external_id] = mine
    return told


async def write_said(connection: Connection, workspace_id: UUID, written: asyncpg.Record, dates: Dates) -> int:
    """Write the dates of the people in a row of INSERT_ALL, INSERT_MISSING or UPDATE_CHANGED; how many they are."""
    named = zip(written["ids"] or (), written["names"] or (), strict=True)
    await write_dates(
        connection,
        workspace_id,
        [(profile_id, key, at) for profile_id, name in named for key, at in dates.get(name, {}).items()],
    )
    count: int = written["count"]
    return count


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


async def insert(connection: Connection, workspace_id: UUID, known: int, now: datetime, dates: Dates) -> int:
    """How many of the missing people were inserted."""
    if known:
        made = await connection.fetchrow(INSERT_MISSING, workspace_id, now, bool(dates))
        return await write_said(connection, workspace_id, made, dates)
    # Plain, which costs a fifth less than looking for conflicts; one undoes it all.
    with suppress(asyncpg.UniqueViolationError):
        async with connection.transaction():
            made = await connection.fetchrow(INSERT_ALL, workspace_id, now, bool(dates))
            return await write_said(connection, workspace_id, made, dates)
    return 0


async def update_known(
    connection: Connection,
    workspace_id: UUID,
    people: ProfileColumns,
    now: datetime,
    dates: Dates,
    loaded: Loaded,
) -> None:
    """Update those who were known before and differ."""
    known = await connection.fetchrow(FIND_ODD)
    if known["changed"]:
        changed = await connection.fetchrow(UPDATE_CHANGED, workspace_id, now, bool(dates))
        loaded.updated += await write_said(connection, workspace_id, changed, dates)
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
) -> LoadedEvents:
    """Write the events with a message id that was never seen, and of one id the first, but none of erased people.

    Their months exist. Who they are about is known by anonymous ids, or by external ids; unknown people are created.
    Raises Overtaken.
    """
    events = await insert_keys(connection, workspace_id, columns, now)
    names = set(events.people)
    people = await resolve(
        connection,
        workspace_id=workspace_id,
        external_ids=() if anonymous else names,
        anonymous_ids=names if anonymous else (),
        now=now,
        look_ups=FIND,
    )
    known = people.by_anonymous_id if anonymous else people.by_external_id
    erased = frozenset(name for name, profile_id in known.items() if profile_id is None)
    if erased:
        gone = [at for at, name in enumerate(events.people) if name in erased]
        await connection.execute(DELETE_KEYS, workspace_id, taken(events.message_ids, gone))
        events = events.take([at for at, name in enumerate(events.people) if name not in erased])
    if not events.message_ids:
        return LoadedEvents(0, erased)
    profile_ids = [profile_id for name in events.people if (profile_id := known[name]) is not None]
    await connection.execute(CREATE_INCOMING_EVENTS)
    await connection.copy_records_to_table(
        "incoming_event",
        columns=["message_id", "profile_id", "occurred_at", "properties", *events.texts],
        records=zip(
            events.message_ids, profile_ids, events.times, events.properties, *events.texts.values(), strict=True
        ),
    )
    await connection.execute(INSERT_EVENTS, workspace_id, now)
    await write_touched(connection, workspace_id=workspace_id, profile_ids=set(profile_ids))
    # Last, since another batch about the same people waits from here on until the commit.
    nothing = [None] * len(profile_ids)
    seen = (events.texts.get(name, nothing) for name in COLUMNS)
    instants = until(now, seconds_of(events.times))
    await write_seen(connection, workspace_id, Sightings(profile_ids, instants, *seen))
    return LoadedEvents(len(events.message_ids), erased)


async def insert_keys(connection: Connection, workspace_id: UUID, columns: EventColumns, now: datetime) -> EventColumns:
    """The events whose message ids were not known, which they are now."""
    ids = columns.message_ids
    if len(set(ids)) == len(ids):
        # Plain at first, which costs a fifth less than looking for conflicts; most files have none.
        with suppress(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute(INSERT_NEW_KEYS, workspace_id, now, *pack(ids))
            return columns
    first: dict[str, int] = {}
    for place, message_id in enumerate(ids):
        first.setdefault(message_id, place)
    rows = await connection.fetch(INSERT_KEYS, workspace_id, now, *pack(sorted(first)))
    return columns.take(sorted(first[row["message_id"]] for row in rows))
