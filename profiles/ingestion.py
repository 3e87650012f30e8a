"""Writes checked events, a whole batch at a time: keys, people, events, when they were seen, and the word about it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import NamedTuple
from uuid import UUID

from db.transactions import Connection, across_workspaces
from profiles.identities import resolve, write_touched
from profiles.traits import JsonValue

ENSURE_MONTHS = "SELECT ensure_month('event', u.at) FROM unnest($1::timestamptz[]) AS u (at)"
MONTH_OF = attrgetter("year", "month")

# In one order: a second batch with the same ids waits for the first, never each for the other.
INSERT_KEYS = """
INSERT INTO event_key (workspace_id, message_id, received_at)
SELECT $1, u.message_id, $3 FROM unnest($2::text[]) AS u (message_id)
ON CONFLICT (workspace_id, message_id) DO NOTHING RETURNING message_id
"""
INSERT_EVENTS = """
INSERT INTO event (workspace_id, received_at, profile_id, message_id, name, occurred_at, properties, page_path,
  device_type, browser, country, city, session_id)
SELECT $1, $2, u.profile_id, u.message_id, u.name, u.occurred_at, u.properties, u.page_path, u.device_type, u.browser,
  u.country, u.city, u.session_id
FROM unnest($3::int[], $4::text[], $5::text[], $6::timestamptz[], $7::jsonb[], $8::text[], $9::text[], $10::text[],
  $11::text[], $12::text[], $13::text[]) AS u (profile_id, message_id, name, occurred_at, properties, page_path,
  device_type, browser, country, city, session_id)
"""
# An update, though it is spelled as an insert: all of them exist and are locked. So it looks each row up by its key, in
# the order given; UPDATE ... FROM reads the whole workspace when the statistics are old, in no order.
WRITE_SEEN = """
INSERT INTO profile (workspace_id, id, first_seen_at, last_seen_at)
SELECT $1, u.id, u.earliest, u.latest FROM unnest($2::int[], $3::timestamptz[], $4::timestamptz[])
  AS u (id, earliest, latest)
ON CONFLICT (workspace_id, id) DO UPDATE SET first_seen_at = least(profile.first_seen_at, excluded.first_seen_at),
  last_seen_at = greatest(profile.last_seen_at, excluded.last_seen_at)
WHERE profile.first_seen_at IS NULL OR profile.first_seen_at > excluded.first_seen_at
  OR profile.last_seen_at IS NULL OR profile.last_seen_at < excluded.last_seen_at
"""


class CleanEvent(NamedTuple):
    """A checked event whose person is not looked up yet."""

    message_id: str
    external_id: str | None
    anonymous_id: str | None
    name: str
    occurred_at: datetime
    properties: dict[str, JsonValue]
    page_path: str | None
    device_type: str | None
    browser: str | None
    country: str | None
    city: str | None
    session_id: str | None


async def ensure_months(times: Iterable[datetime]) -> None:
    """Make the months of these times, which are in UTC; each once, in a transaction of their own.

    Of their own, since a new month is for every workspace and must stay when the batch that asked for it does not.
    """
    months = sorted(set(map(MONTH_OF, times)))
    if months:
        async with across_workspaces() as connection:
            await connection.execute(ENSURE_MONTHS, [datetime(year, month, 1, tzinfo=UTC) for year, month in months])


async def ingest(connection: Connection, *, workspace_id: UUID, events: Sequence[CleanEvent], now: datetime) -> int:
    """How many events were written: those with a message id that was never seen, and of one id the first.

    Times are in UTC, and their months exist. People who are unknown are created; all of them are locked FOR KEY SHARE
    until the transaction ends.
    """
    by_key: dict[str, CleanEvent] = {}
    for event in events:
        by_key.setdefault(event.message_id, event)
    rows = await connection.fetch(INSERT_KEYS, workspace_id, sorted(by_key), now)
    fresh = [by_key[row["message_id"]] for row in rows]
    if not fresh:
        return 0
    profile_ids = await resolve_people(connection, workspace_id, fresh, now)
    await write_events(connection, workspace_id, profile_ids, fresh, now)
    await write_seen(connection, workspace_id, profile_ids, fresh, now)
    await write_touched(connection, workspace_id=workspace_id, profile_ids=set(profile_ids), now=now)
    return len(fresh)


async def resolve_people(
    connection: Connection, workspace_id: UUID, events: Sequence[CleanEvent], now: datetime
) -> list[int]:
    """The profile id of each event, in their order."""
    people = await resolve(
        connection,
        workspace_id=workspace_id,
        external_ids={event.external_id for event in events if event.external_id is not None},
        anonymous_ids={event.anonymous_id for event in events if event.anonymous_id is not None},
        now=now,
    )
    return [
        people.by_external_id[event.external_id]
        if event.external_id is not None
        else people.by_anonymous_id[event.anonymous_id or ""]
        for event in events
    ]


async def write_events(
    connection: Connection,
    workspace_id: UUID,
    profile_ids: Sequence[int],
    events: Sequence[CleanEvent],
    now: datetime,
) -> None:
    records = [
        (profile_id, event.message_id, *event[3:]) for profile_id, event in zip(profile_ids, events, strict=True)
    ]
    columns = (list(column) for column in zip(*records, strict=True))
    await connection.execute(INSERT_EVENTS, workspace_id, now, *columns)


async def write_seen(
    connection: Connection,
    workspace_id: UUID,
    profile_ids: Sequence[int],
    events: Sequence[CleanEvent],
    now: datetime,
) -> None:
    """Move each person's first and last time apart as far as these events reach, but not past now."""
    earliest: dict[int, datetime] = {}
    latest: dict[int, datetime] = {}
    for profile_id, event in zip(profile_ids, events, strict=True):
        at = min(event.occurred_at, now)
        if profile_id not in earliest:
            earliest[profile_id] = latest[profile_id] = at
        elif at < earliest[profile_id]:
            earliest[profile_id] = at
        elif at > latest[profile_id]:
            latest[profile_id] = at
    # In one order: a second batch about the same people waits for the first, never each for the other.
    ids = sorted(earliest)
    await connection.execute(WRITE_SEEN, workspace_id, ids, [earliest[id] for id in ids], [latest[id] for id in ids])
