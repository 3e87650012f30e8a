"""Two profiles that turn out to be one person become one.

The winner keeps its id and gets what the loser had; the loser stays as a tombstone without data, whose `merged_into`
leads whoever asks by an old id (profiles/identities.py) to the winner.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from db.transactions import Connection, transaction
from profiles.contention import contended, retried
from profiles.dates import moved_dates
from profiles.dating import write_dates
from profiles.devices import DISABLE_SURPLUS, MOST_DEVICES, DisabledReason
from profiles.errors import ProfileErased, ProfileError, ProfileNotFound
from profiles.identities import (
    INSERT_ALIASES,
    clean_anonymous_id,
    clean_external_id,
    resolve_external,
    write_touched,
)
from profiles.traits import merged

MOST_ROUNDS = 20

# Whom an anonymous id and an external id lead to, and whom these were merged into.
FIND_BOTH = """
SELECT visitor.id, visitor.merged_into, person.id, person.merged_into FROM (SELECT) AS one
LEFT JOIN LATERAL (
  SELECT p.id, p.merged_into FROM profile_alias a CROSS JOIN LATERAL (
    SELECT id, merged_into FROM profile WHERE workspace_id = $1 AND id = a.profile_id LIMIT 1) AS p
  WHERE a.workspace_id = $1 AND a.anonymous_id = $2 LIMIT 1) AS visitor ON true
LEFT JOIN LATERAL (
  SELECT id, merged_into FROM profile WHERE workspace_id = $1 AND external_id = $3 LIMIT 1) AS person ON true
"""
FOLLOW = """
SELECT p.* FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT id, merged_into FROM profile WHERE workspace_id = $1 AND id = u.id LIMIT 1) AS p
"""
# FOR UPDATE waits for whoever is writing about these two (FOR KEY SHARE), and lets nobody begin. In the order of ids:
# two merges of the same people wait for each other in one direction only.
LOCK_BOTH = """
SELECT p.* FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT id, external_id, traits, identified, merged_into, erased_at, email, email_hash, phone, phone_hash, time_zone,
    locale, country, city, first_seen_at, last_seen_at, seen_device_type, seen_browser, seen_country, seen_city
  FROM profile WHERE workspace_id = $1 AND id = u.id LIMIT 1 FOR UPDATE) AS p
"""
# Before the winner gets anything: no two rows have one external id.
CLEAR_LOSER = """
UPDATE profile SET merged_into = $3, external_id = $4, traits = '{}', email = NULL, email_hash = NULL, phone = NULL,
  phone_hash = NULL, time_zone = NULL, locale = NULL, country = NULL, city = NULL, first_seen_at = NULL,
  last_seen_at = NULL, seen_device_type = NULL, seen_browser = NULL, seen_country = NULL, seen_city = NULL,
  updated_at = $5
WHERE workspace_id = $1 AND id = $2
"""
INHERITED = (
    "email", "email_hash", "phone", "phone_hash", "time_zone", "locale", "country", "city", "first_seen_at",
    "last_seen_at", "seen_device_type", "seen_browser", "seen_country", "seen_city",
)  # fmt: skip
"""Columns of LOCK_BOTH that fill the winner's, in the order in which FILL_WINNER takes them."""
# An address and its hash stay together. What was seen is of whoever was seen last.
FILL_WINNER = """
UPDATE profile SET external_id = coalesce(external_id, $3), traits = $4, identified = identified OR $5,
  email = CASE WHEN email IS NULL THEN $6 ELSE email END,
  email_hash = CASE WHEN email IS NULL THEN $7 ELSE email_hash END,
  phone = CASE WHEN phone IS NULL THEN $8 ELSE phone END,
  phone_hash = CASE WHEN phone IS NULL THEN $9 ELSE phone_hash END,
  time_zone = coalesce(time_zone, $10), locale = coalesce(locale, $11), country = coalesce(country, $12),
  city = coalesce(city, $13), first_seen_at = least(first_seen_at, $14), last_seen_at = greatest(last_seen_at, $15),
  seen_device_type = CASE WHEN last_seen_at < $15 THEN coalesce($16, seen_device_type)
    ELSE coalesce(seen_device_type, $16) END,
  seen_browser = CASE WHEN last_seen_at < $15 THEN coalesce($17, seen_browser) ELSE coalesce(seen_browser, $17) END,
  seen_country = CASE WHEN last_seen_at < $15 THEN coalesce($18, seen_country) ELSE coalesce(seen_country, $18) END,
  seen_city = CASE WHEN last_seen_at < $15 THEN coalesce($19, seen_city) ELSE coalesce(seen_city, $19) END,
  updated_at = $20
WHERE workspace_id = $1 AND id = $2
"""
# No chain of tombstones grows: whoever led to the loser leads to the winner. Of consents a no of either side stays a
# no; where both say the same, the later one's time and source are kept.
MOVE = """
WITH led_here AS (UPDATE profile SET merged_into = $3 WHERE workspace_id = $1 AND merged_into = $2),
events AS (UPDATE event SET profile_id = $3 WHERE workspace_id = $1 AND profile_id = $2),
devices AS (UPDATE device SET profile_id = $3 WHERE workspace_id = $1 AND profile_id = $2),
aliases AS (UPDATE profile_alias SET profile_id = $3 WHERE workspace_id = $1 AND profile_id = $2),
losers_brands AS (DELETE FROM profile_brand WHERE workspace_id = $1 AND profile_id = $2 RETURNING brand_id),
brands AS (
  INSERT INTO profile_brand (workspace_id, brand_id, profile_id) SELECT $1, brand_id, $3 FROM losers_brands
  ON CONFLICT DO NOTHING),
losers_consents AS (
  DELETE FROM consent WHERE workspace_id = $1 AND profile_id = $2 RETURNING channel, topic, status, source, changed_at),
consents AS (
  INSERT INTO consent AS c (workspace_id, profile_id, channel, topic, status, source, changed_at)
  SELECT $1, $3, channel, topic, status, source, changed_at FROM losers_consents
  ON CONFLICT (workspace_id, profile_id, channel, topic)
  DO UPDATE SET status = excluded.status, source = excluded.source, changed_at = excluded.changed_at
  WHERE CASE WHEN c.status = excluded.status THEN c.changed_at < excluded.changed_at
    ELSE excluded.status = 'UNSUBSCRIBED' END),
dates AS (DELETE FROM profile_date WHERE workspace_id = $1 AND profile_id = $2)
INSERT INTO profile_change (workspace_id, profile_id, kind, other_id, changed_at) VALUES ($1, $2, 'merged', $3, $4)
"""
NAME = """
UPDATE profile SET external_id = $3, identified = true, updated_at = $4 WHERE workspace_id = $1 AND id = $2
"""


@dataclass(frozen=True, slots=True)
class Merged:
    """The living profile of the person, and whether this call made one of two."""

    profile_id: int
    merged: bool


async def merge(workspace_id: UUID, *, loser_id: int, winner_id: int, now: datetime) -> Merged:
    """One profile of two: events, devices, consents, brands and anonymous ids of the loser become the winner's.

    Where both know something, the winner's holds; an UNSUBSCRIBED of either stays. The loser's external id goes to a
    winner that has none, and else stays where it is and leads to the winner. A profile that was merged before stands
    for the one it is in now, so that merging again changes nothing. Raises ProfileNotFound, and ProfileError
    SAME_PROFILE, ERASED, or TOO_MANY_KEYS and TOO_LARGE when the traits of both do not fit one profile.
    """
    if loser_id == winner_id:
        raise ProfileError("SAME_PROFILE", "A profile cannot be merged into itself: give two.", field=("loser_id",))

    async def once() -> Merged:
        async with transaction(workspace_id) as connection:
            for _ in range(MOST_ROUNDS):
                loser, winner = await find_living(connection, workspace_id, loser_id=loser_id, winner_id=winner_id)
                if loser == winner:
                    return Merged(winner, False)
                rows = await lock(connection, workspace_id, (loser, winner))
                if all(row["merged_into"] is None for row in rows.values()):
                    refuse_erased(rows[loser], field="loser_id")
                    refuse_erased(rows[winner], field="winner_id")
                    await unite(connection, workspace_id, rows[loser], rows[winner], now)
                    return Merged(winner, True)
        raise contended()

    return await retried(once)


async def identify(workspace_id: UUID, *, anonymous_id: str, external_id: str, now: datetime) -> Merged:
    """From now on this visitor is this person, and what the visitor did is the person's.

    An unknown visitor becomes another name of the person's; a known one is merged into the person's profile, or is
    given the external id where nobody has it yet. An unknown person is created. Doing it again changes nothing.
    Raises ProfileError ALIAS_TAKEN when the visitor was identified as somebody else before, ERASED, or what `merge`
    raises.
    """
    anonymous_id, external_id = clean_anonymous_id(anonymous_id), clean_external_id(external_id)

    async def once() -> Merged:
        async with transaction(workspace_id) as connection:
            for _ in range(MOST_ROUNDS):
                done = await try_identify(connection, workspace_id, anonymous_id, external_id, now)
                if done is not None:
                    return done
        raise contended()

    return await retried(once)


async def try_identify(
    connection: Connection, workspace_id: UUID, anonymous_id: str, external_id: str, now: datetime
) -> Merged | None:
    """What became of it; None when somebody else changed one of the two meanwhile, and nothing was written."""
    names = (anonymous_id, external_id)
    visitor, person = await find_both(connection, workspace_id, *names)
    rows = await lock(connection, workspace_id, [id for id in (visitor, person) if id is not None])
    if await find_both(connection, workspace_id, *names) != (visitor, person):
        return None
    for id, name in ((visitor, "anonymous_id"), (person, "external_id")):
        if id is not None:
            refuse_erased(rows[id], field=name)
    if visitor is None:
        return await name_visitor(connection, workspace_id, anonymous_id, external_id, person, now)
    if visitor == person:
        return Merged(visitor, False)
    if rows[visitor]["identified"]:
        raise ProfileError(
            "ALIAS_TAKEN",
            "This anonymous id belongs to another person: give each visitor an id of its own, and a new one after "
            "signing out. Use profileMerge if the two really are one person.",
            field=("anonymous_id",),
        )
    if person is not None:
        await unite(connection, workspace_id, rows[visitor], rows[person], now)
        return Merged(person, True)
    try:
        async with connection.transaction():
            await connection.execute(NAME, workspace_id, visitor, external_id, now)
    except asyncpg.UniqueViolationError:
        return None
    await write_touched(connection, workspace_id=workspace_id, profile_ids=[visitor])
    return Merged(visitor, False)


async def find_both(
    connection: Connection, workspace_id: UUID, anonymous_id: str, external_id: str
) -> tuple[int | None, int | None]:
    """The living profiles that these two ids lead to now; None where nobody has the id."""
    visitor, visitor_into, person, person_into = await connection.fetchrow(
        FIND_BOTH, workspace_id, anonymous_id, external_id
    )
    if visitor_into is not None:
        (visitor,) = await find_living(connection, workspace_id, anonymous_id=visitor_into)
    if person_into is not None:
        (person,) = await find_living(connection, workspace_id, external_id=person_into)
    return visitor, person


async def name_visitor(
    connection: Connection,
    workspace_id: UUID,
    anonymous_id: str,
    external_id: str,
    person: int | None,
    now: datetime,
) -> Merged | None:
    """Give the person, created when there is none, an anonymous id that nobody has; None when it has been taken."""
    if person is None:
        person = (await resolve_external(connection, workspace_id, [external_id], now))[external_id]
        if person is None:
            return None
    if not await connection.fetch(INSERT_ALIASES, workspace_id, [anonymous_id], [person], now):
        return None
    await write_touched(connection, workspace_id=workspace_id, profile_ids=[person])
    return Merged(person, False)


async def find_living(connection: Connection, workspace_id: UUID, **profile_ids: int) -> list[int]:
    """The ids at the end of the tombstones that lead from each of `profile_ids`, by the field that names it; nothing is
    locked. Raises ProfileNotFound."""
    for _ in range(MOST_ROUNDS):
        # An id outside of the column's range is nobody's; asked for, it would be an error.
        asked = [id for id in profile_ids.values() if 0 < id < 2**31]
        merged_into = dict(await connection.fetch(FOLLOW, workspace_id, asked))
        for field, id in profile_ids.items():
            if id not in merged_into:
                raise ProfileNotFound(field=(field,))
        if not any(merged_into.values()):
            return list(profile_ids.values())
        profile_ids = {field: merged_into[id] or id for field, id in profile_ids.items()}
    raise contended()


async def lock(connection: Connection, workspace_id: UUID, profile_ids: Sequence[int]) -> dict[int, asyncpg.Record]:
    """Rows of LOCK_BOTH by id, locked until the transaction ends."""
    rows = await connection.fetch(LOCK_BOTH, workspace_id, sorted(profile_ids))
    return {row["id"]: row for row in rows}


def refuse_erased(row: asyncpg.Record, *, field: str) -> None:
    """Raises ProfileErased."""
    if row["erased_at"] is not None:
        raise ProfileErased(field=(field,))


async def unite(
    connection: Connection, workspace_id: UUID, loser: asyncpg.Record, winner: asyncpg.Record, now: datetime
) -> None:
    """Move everything; both are rows of LOCK_BOTH, living and locked."""
    traits = merged(loser["traits"], winner["traits"])
    mine = (workspace_id, loser["id"], winner["id"])
    moves_name = winner["external_id"] is None
    await connection.execute(CLEAR_LOSER, *mine, None if moves_name else loser["external_id"], now)
    await connection.execute(
        FILL_WINNER,
        workspace_id,
        winner["id"],
        loser["external_id"] if moves_name else None,
        traits,
        loser["identified"],
        *(loser[column] for column in INHERITED),
        now,
    )
    await connection.execute(MOVE, *mine, now)
    await connection.execute(
        DISABLE_SURPLUS, workspace_id, winner["id"], now, MOST_DEVICES, DisabledReason.SURPLUS.value
    )
    dates = [(winner["id"], key, at) for key, at in moved_dates(winner["traits"], traits)]
    await write_dates(connection, workspace_id, dates)
    await write_touched(connection, workspace_id=workspace_id, profile_ids=[winner["id"]])
