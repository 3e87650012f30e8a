"""Writes checked events, a whole batch at a time: keys, people, events, the word about it, and when they were seen.

People whom this process met lately are not locked until the very end: they are remembered, and their rows are taken
last, to move the times they were seen. If one of them was merged or erased meanwhile, all is rolled back and begins
anew. All others are looked up and their times moved at once, which costs less than doing both; hardly two batches at a
time are about the same one of those. People who have to be made, or followed to whom they were merged into, count as
remembered from then on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import NamedTuple
from uuid import UUID

import asyncpg

from db.transactions import Connection, across_workspaces, transaction
from profiles.contention import Overtaken, retried
from profiles.identities import FIND, Identities, resolve
from profiles.packing import pack, pack_numbers, seconds_of
from profiles.recent import Recent
from profiles.seen import MEET_BY_ANONYMOUS_ID, MEET_BY_EXTERNAL_ID, Sighting, meet, write_seen

ENSURE_MONTHS = "SELECT ensure_month('event', u.at) FROM unnest($1::timestamptz[]) AS u (at)"
MONTH_OF = attrgetter("year", "month")
made_months: set[tuple[int, int]] = set()
"""Months that this process knows to exist; emptied when one turns out to have been dropped."""
MET, VISITORS = Recent(), Recent()
"""People by external and by anonymous id."""

# In one order: a second batch with the same ids waits for the first, never each for the other.
INSERT_KEYS = """
INSERT INTO event_key (workspace_id, message_id, received_at)
SELECT $1, u.message_id, $2 FROM unnest(string_to_array($4, $3)) AS u (message_id)
ON CONFLICT (workspace_id, message_id) DO NOTHING RETURNING message_id
"""
# Plain, which costs half as much as looking for conflicts: the batch that has one is rolled back and comes again.
INSERT_NEW_KEYS = """
INSERT INTO event_key (workspace_id, message_id, received_at)
SELECT $1, u.message_id, $2 FROM unnest(string_to_array($4, $3)) AS u (message_id)
"""
DELETE_KEYS = "DELETE FROM event_key WHERE workspace_id = $1 AND message_id = ANY($2::text[])"
INSERT_EVENTS = """
WITH told AS (
  INSERT INTO profile_change (workspace_id, profile_ids, kind, changed_at) VALUES ($1, $5::text::int[], 'touched', $2))
INSERT INTO event (workspace_id, received_at, profile_id, occurred_at, message_id, name, properties, page_path,
  device_type, browser, country, city, session_id)
SELECT $1, $2, u.profile_id, to_timestamp(u.occurred_at), u.message_id, u.name, u.properties::jsonb, u.page_path,
  u.device_type, u.browser, u.country, u.city, u.session_id
FROM unnest($3::text::int[], $4::text::float8[], string_to_array($7, $6, ''), string_to_array($8, $6, ''),
  string_to_array($9, $6, ''), string_to_array($10, $6, ''), string_to_array($11, $6, ''),
  string_to_array($12, $6, ''), string_to_array($13, $6, ''), string_to_array($14, $6, ''),
  string_to_array($15, $6, '')) AS u (profile_id, occurred_at, message_id, name, properties, page_path, device_type,
  browser, country, city, session_id)
"""


class CleanEvent(NamedTuple):
    """A checked event whose person is not looked up yet."""

    message_id: str
    external_id: str | None
    anonymous_id: str | None
    name: str
    occurred_at: datetime
    properties: str
    """A JSON object."""
    page_path: str | None
    device_type: str | None
    browser: str | None
    country: str | None
    city: str | None
    session_id: str | None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of events: how many were new, and the message ids of those that are about erased people."""

    accepted: int = 0
    erased: frozenset[str] = frozenset()


async def ensure_months(times: Sequence[datetime]) -> None:
    """Make the months of these times, which are in UTC, unless this process knows that they exist.

    In a transaction of its own, since a new month is for every workspace and must stay when the batch that asked for
    it does not.
    """
    if not times:
        return
    first, last = MONTH_OF(min(times)), MONTH_OF(max(times))
    months = ({first} if first == last else set(map(MONTH_OF, times))) - made_months
    if months:
        async with across_workspaces() as connection:
            firsts = [datetime(year, month, 1, tzinfo=UTC) for year, month in sorted(months)]
            await connection.execute(ENSURE_MONTHS, firsts)
        made_months.update(months)


@contextmanager
def months_made() -> Iterator[None]:
    """For a transaction that writes events: raises Overtaken if one of its months turns out not to be there."""
    try:
        yield
    except asyncpg.CheckViolationError as e:
        # "No partition of relation event found for row": it was dropped since this process made or met it.
        made_months.clear()
        raise Overtaken from e


async def write(workspace_id: UUID, events: Sequence[CleanEvent], *, now: datetime) -> Written:
    """Write those of these events whose message id was never seen, and of one id the first, in one transaction.

    People who are unknown are created. Raises ProfileError CONTENDED.
    """
    by_key: dict[str, CleanEvent] = {}
    for event in events:
        by_key.setdefault(event.message_id, event)
    if not by_key:
        return Written()
    # Most batches are new as a whole; the one that is not is tried once more, key by key.
    all_new = True

    times = [event.occurred_at for event in events]

    async def once() -> Written:
        nonlocal all_new
        await ensure_months(times)
        try:
            with months_made():
                async with transaction(workspace_id, generic_plans=True) as connection:
                    fresh = await insert_keys(connection, workspace_id, by_key, now, all_new=all_new)
                    written, people = await ingest(connection, workspace_id, fresh, now)
        except asyncpg.UniqueViolationError as e:
            all_new = False
            raise Overtaken from e
        except Overtaken:
            forget(workspace_id, events)
            raise
        remember(workspace_id, people)
        return written

    return await retried(once)


async def insert_keys(
    connection: Connection, workspace_id: UUID, by_key: dict[str, CleanEvent], now: datetime, *, all_new: bool
) -> list[CleanEvent]:
    """Those events whose message ids were not known, which they are now. Raises UniqueViolationError if `all_new` was
    promised and is not so."""
    keys = sorted(by_key)
    if all_new:
        await connection.execute(INSERT_NEW_KEYS, workspace_id, now, *pack(keys))
        return [by_key[key] for key in keys]
    rows = await connection.fetch(INSERT_KEYS, workspace_id, now, *pack(keys))
    return [by_key[row["message_id"]] for row in rows]


async def ingest(
    connection: Connection, workspace_id: UUID, events: Sequence[CleanEvent], now: datetime
) -> tuple[Written, Identities]:
    """Write events whose keys are written; also whom they are about. Raises Overtaken."""
    if not events:
        return Written(), Identities()
    instants = seconds_of([event.occurred_at for event in events])
    people, met = await resolve_people(connection, workspace_id, events, instants, now)
    found = [
        people.by_external_id[external_id] if external_id is not None else people.by_anonymous_id[anonymous_id or ""]
        for _, external_id, anonymous_id, *_ in events
    ]
    erased: frozenset[str] = frozenset()
    if None in found:
        erased = frozenset(event.message_id for event, id in zip(events, found, strict=True) if id is None)
        await connection.execute(DELETE_KEYS, workspace_id, sorted(erased))
        kept = [place for place, id in enumerate(found) if id is not None]
        if not kept:
            return Written(erased=erased), people
        events, instants = [events[place] for place in kept], [instants[place] for place in kept]
    profile_ids = [id for id in found if id is not None]
    ids, external_ids, anonymous_ids, names, _, *texts = zip(*events, strict=True)
    numbers = (pack_numbers(profile_ids), pack_numbers(instants), pack_numbers(sorted(set(profile_ids))))
    await connection.execute(INSERT_EVENTS, workspace_id, now, *numbers, *pack(ids, names, *texts))
    # Those met above are left out, by the name they were met by: under another one they have told something else.
    _, _, device_types, browsers, countries, cities, _ = texts
    sightings = zip(profile_ids, until(now, instants), device_types, browsers, countries, cities, strict=True)
    strangers = [
        external_id in met.by_external_id if external_id is not None else anonymous_id in met.by_anonymous_id
        for external_id, anonymous_id in zip(external_ids, anonymous_ids, strict=True)
    ]
    await write_seen(
        connection,
        workspace_id,
        [sighting for sighting, stranger in zip(sightings, strangers, strict=True) if not stranger],
    )
    return Written(len(events), erased), people


async def resolve_people(
    connection: Connection, workspace_id: UUID, events: Sequence[CleanEvent], instants: Sequence[float], now: datetime
) -> tuple[Identities, Identities]:
    """Whom these events are about, and those of them whose times are moved already: people whom this process does not
    remember, and who were found as they were looked up."""
    external_ids, anonymous_ids = names_of(events)
    known = MET.recall(workspace_id, external_ids)
    visitors = VISITORS.recall(workspace_id, anonymous_ids)
    by_external_id: list[Sighting[str]] = []
    by_anonymous_id: list[Sighting[str]] = []
    if len(known) < len(external_ids) or len(visitors) < len(anonymous_ids):
        for event, at in zip(events, until(now, instants), strict=True):
            _, external_id, anonymous_id, *_ = event
            if external_id is not None:
                if external_id not in known:
                    by_external_id.append((external_id, at, *event[7:11]))
            elif anonymous_id is not None and anonymous_id not in visitors:
                by_anonymous_id.append((anonymous_id, at, *event[7:11]))
    met = Identities(
        {**await meet(connection, MEET_BY_EXTERNAL_ID, by_external_id)},
        {**await meet(connection, MEET_BY_ANONYMOUS_ID, by_anonymous_id)},
    )
    people = await resolve(
        connection,
        workspace_id=workspace_id,
        external_ids=external_ids - known.keys() - met.by_external_id.keys(),
        anonymous_ids=anonymous_ids - visitors.keys() - met.by_anonymous_id.keys(),
        now=now,
        look_ups=FIND,
    )
    everybody = Identities(
        {**known, **met.by_external_id, **people.by_external_id},
        {**visitors, **met.by_anonymous_id, **people.by_anonymous_id},
    )
    return everybody, met


def until(now: datetime, instants: Sequence[float]) -> list[float]:
    """The instants, none past `now`: the clocks of phones may be ahead."""
    latest = now.timestamp()
    return [at if at < latest else latest for at in instants]


def names_of(events: Sequence[CleanEvent]) -> tuple[set[str], set[str]]:
    """External and anonymous ids."""
    return (
        {event.external_id for event in events if event.external_id is not None},
        {event.anonymous_id for event in events if event.anonymous_id is not None},
    )


def remember(workspace_id: UUID, people: Identities) -> None:
    """Of what is committed, those who live."""
    for recent, found in ((MET, people.by_external_id), (VISITORS, people.by_anonymous_id)):
        recent.remember(workspace_id, {name: id for name, id in found.items() if id is not None})


def forget(workspace_id: UUID, events: Sequence[CleanEvent]) -> None:
    """Look all of them up the next time."""
    for recent, names in zip((MET, VISITORS), names_of(events), strict=True):
        recent.forget(workspace_id, names)
