"""Writes checked events, a whole batch at a time: keys, people, events, the word about it, and when they were seen.

People whom this process met lately are not locked until the very end: they are remembered, and their rows are taken
last, to move the times they were seen. If one of them was merged or erased meanwhile, all is rolled back and begins
anew. All others are looked up and their times moved at once, which costs less than doing both, by the first batch that
comes with them: other batches of this process treat them as remembered meanwhile, so as not to wait for its end. People
who have to be made, or followed to whom they were merged into, count as remembered from then on.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from db.transactions import Connection, across_workspaces, transaction
from profiles.contention import Overtaken, retried
from profiles.identities import FIND, Identities, resolve
from profiles.packing import pack, pack_numbers, pick, seconds_of
from profiles.recent import Claim, Recent
from profiles.seen import MEET_BY_ANONYMOUS_ID, MEET_BY_EXTERNAL_ID, K, Sightings, meet, write_seen

ENSURE_MONTHS = "SELECT ensure_month('event', u.at) FROM unnest($1::timestamptz[]) AS u (at)"
MONTH_OF = attrgetter("year", "month")
made_months: set[tuple[int, int]] = set()
"""Months that this process knows to exist; emptied when one turns out to have been dropped."""
MET, VISITORS = Recent(), Recent()
"""People by external and by anonymous id."""

# In one order: a second batch with the same ids waits for the first, never each for the other.
INSERT_KEYS = """
INSERT INTO event_key (workspace_id, message_id, received_at)
SELECT $1, unnest(string_to_array($4, $3)), $2
ON CONFLICT (workspace_id, message_id) DO NOTHING RETURNING message_id
"""
# Plain, which costs half as much as looking for conflicts: the batch that has one is rolled back and comes again.
INSERT_NEW_KEYS = """
INSERT INTO event_key (workspace_id, message_id, received_at)
SELECT $1, unnest(string_to_array($4, $3)), $2
"""
DELETE_KEYS = "DELETE FROM event_key WHERE workspace_id = $1 AND message_id = ANY($2::text[])"
# unnest in the list of columns and not in FROM, where its rows would be kept apart first: a quarter of reading them.
INSERT_EVENTS = """
WITH told AS (
  INSERT INTO profile_change (workspace_id, profile_ids, kind) VALUES ($1, $5::text::int[], 'touched'))
INSERT INTO event (workspace_id, received_at, profile_id, occurred_at, message_id, name, properties, page_path,
  device_type, browser, country, city, session_id)
SELECT $1, $2, u.profile_id, to_timestamp(u.occurred_at), u.message_id, u.name, u.properties::jsonb, u.page_path,
  u.device_type, u.browser, u.country, u.city, u.session_id
FROM (SELECT unnest($3::text::int[]) AS profile_id, unnest($4::text::float8[]) AS occurred_at,
  unnest(string_to_array($7, $6, '')) AS message_id, unnest(string_to_array($8, $6, '')) AS name,
  unnest(string_to_array($9, $6, '')) AS properties, unnest(string_to_array($10, $6, '')) AS page_path,
  unnest(string_to_array($11, $6, '')) AS device_type, unnest(string_to_array($12, $6, '')) AS browser,
  unnest(string_to_array($13, $6, '')) AS country, unnest(string_to_array($14, $6, '')) AS city,
  unnest(string_to_array($15, $6, '')) AS session_id) AS u
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


class Batch(NamedTuple):
    """Checked events as columns of one length, in the order of CleanEvent's fields."""

    message_ids: Sequence[str]
    external_ids: Sequence[str | None]
    anonymous_ids: Sequence[str | None]
    names: Sequence[str]
    times: Sequence[datetime]
    """In UTC."""
    properties: Sequence[str]
    page_paths: Sequence[str | None]
    device_types: Sequence[str | None]
    browsers: Sequence[str | None]
    countries: Sequence[str | None]
    cities: Sequence[str | None]
    session_ids: Sequence[str | None]

    @classmethod
    def of(cls, events: Sequence[CleanEvent]) -> "Batch":
        """These events."""
        columns: Iterable[Sequence[Any]] = zip(*events, strict=True) if events else ((),) * len(cls._fields)
        return cls(*columns)

    def take(self, places: Sequence[int]) -> "Batch":
        """The events at `places`."""
        columns: Iterable[Sequence[Any]] = (pick(column, places) for column in self)
        return Batch(*columns)


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


async def write(workspace_id: UUID, batch: Batch, *, now: datetime) -> Written:
    """Write those of these events whose message id was never seen, and of one id the first, in one transaction.

    People who are unknown are created. Raises ProfileError CONTENDED.
    """
    if not batch.message_ids:
        return Written()
    if len(set(batch.message_ids)) < len(batch.message_ids):
        first = {message_id: place for place, message_id in reversed(list(enumerate(batch.message_ids)))}
        batch = batch.take(sorted(first.values()))
    # Most batches are new as a whole; the one that is not is tried once more, key by key.
    all_new = True

    async def once() -> Written:
        nonlocal all_new
        await ensure_months(batch.times)
        try:
            with months_made(), MET.claim(workspace_id) as claim, VISITORS.claim(workspace_id) as visits:
                async with transaction(workspace_id, generic_plans=True) as connection:
                    fresh = await insert_keys(connection, workspace_id, batch, now, all_new=all_new)
                    written, people = await ingest(connection, workspace_id, fresh, now, claim, visits)
        except asyncpg.UniqueViolationError as e:
            all_new = False
            raise Overtaken from e
        except Overtaken:
            forget(workspace_id, batch)
            raise
        remember(workspace_id, people)
        return written

    return await retried(once)


async def insert_keys(
    connection: Connection, workspace_id: UUID, batch: Batch, now: datetime, *, all_new: bool
) -> Batch:
    """Those events, of different ids each, whose message ids were not known, which they are now. Raises
    UniqueViolationError if `all_new` was promised and is not so."""
    keys = sorted(batch.message_ids)
    if all_new:
        await connection.execute(INSERT_NEW_KEYS, workspace_id, now, *pack(keys))
        return batch
    rows = await connection.fetch(INSERT_KEYS, workspace_id, now, *pack(keys))
    fresh = {row["message_id"] for row in rows}
    return batch.take([place for place, message_id in enumerate(batch.message_ids) if message_id in fresh])


async def ingest(
    connection: Connection, workspace_id: UUID, batch: Batch, now: datetime, claim: Claim, visits: Claim
) -> tuple[Written, Identities]:
    """Write events whose keys are written; also whom they are about. Raises Overtaken."""
    if not batch.message_ids:
        return Written(), Identities()
    instants: Sequence[float] = seconds_of(batch.times)
    seen_at = until(now, instants)
    external_ids, anonymous_ids = names_of(batch)
    known, visitors = MET.recall(workspace_id, external_ids), VISITORS.recall(workspace_id, anonymous_ids)
    # Both before anything is waited for, so that nobody waits for who comes later.
    mine = claim.take(external_ids - known.keys(), known)
    visiting = visits.take(anonymous_ids - visitors.keys(), visitors)
    met = Identities(
        {**await meet(connection, MEET_BY_EXTERNAL_ID, about(mine, batch.external_ids, batch, seen_at))},
        {**await meet(connection, MEET_BY_ANONYMOUS_ID, about(visiting, batch.anonymous_ids, batch, seen_at))},
    )
    unmet = await resolve(
        connection,
        workspace_id=workspace_id,
        external_ids=external_ids - known.keys() - met.by_external_id.keys(),
        anonymous_ids=anonymous_ids - visitors.keys() - met.by_anonymous_id.keys(),
        now=now,
        look_ups=FIND,
    )
    people = Identities(
        {**known, **met.by_external_id, **unmet.by_external_id},
        {**visitors, **met.by_anonymous_id, **unmet.by_anonymous_id},
    )
    # Each has one of the two names, and no id is 0.
    by_external_id: Mapping[Any, int | None] = people.by_external_id
    by_anonymous_id: Mapping[Any, int | None] = people.by_anonymous_id
    ids = zip(map(by_external_id.get, batch.external_ids), map(by_anonymous_id.get, batch.anonymous_ids), strict=True)
    found = [known or visitor for known, visitor in ids]
    erased: frozenset[str] = frozenset()
    if None in found:
        erased = frozenset(one for one, id in zip(batch.message_ids, found, strict=True) if id is None)
        await connection.execute(DELETE_KEYS, workspace_id, sorted(erased))
        kept = [place for place, id in enumerate(found) if id is not None]
        if not kept:
            return Written(erased=erased), people
        batch, instants, seen_at = batch.take(kept), pick(instants, kept), pick(seen_at, kept)
    profile_ids = [id for id in found if id is not None]
    message_ids, _, _, names, _, *texts = batch
    numbers = (pack_numbers(profile_ids), pack_numbers(instants), pack_numbers(sorted(set(profile_ids))))
    await connection.execute(INSERT_EVENTS, workspace_id, now, *numbers, *pack(message_ids, names, *texts))
    # Those met above are left out, by the name they were met by: under another one they have told something else.
    called = enumerate(zip(batch.external_ids, batch.anonymous_ids, strict=True))
    others = [at for at, (one, other) in called if one not in met.by_external_id and other not in met.by_anonymous_id]
    await claim.turn()
    await visits.turn()
    await write_seen(connection, workspace_id, sightings(others, profile_ids, batch, seen_at))
    return Written(len(message_ids), erased), people


def about(
    people: Container[K | None], named: Sequence[K | None], batch: Batch, instants: Sequence[float]
) -> Sightings[K]:
    """What the events tell that are about `people`; `named` says whom each is about."""
    return sightings([place for place, who in enumerate(named) if who in people], named, batch, instants)


def sightings(
    places: Sequence[int], named: Sequence[K | None], batch: Batch, instants: Sequence[float]
) -> Sightings[K]:
    """What the events at `places` tell of those whom `named` names there."""
    columns: Iterable[Sequence[Any]] = (
        named, instants, batch.device_types, batch.browsers, batch.countries, batch.cities
    )  # fmt: skip
    return Sightings(*(pick(column, places) for column in columns))


def until(now: datetime, instants: Sequence[float]) -> Sequence[float]:
    """The instants, none past `now`: the clocks of phones may be ahead."""
    latest = now.timestamp()
    return instants if max(instants, default=latest) <= latest else [at if at < latest else latest for at in instants]


def names_of(batch: Batch) -> tuple[set[str], set[str]]:
    """External and anonymous ids."""
    external_ids, anonymous_ids = set[Any](batch.external_ids), set[Any](batch.anonymous_ids)
    return external_ids - {None}, anonymous_ids - {None}


def remember(workspace_id: UUID, people: Identities) -> None:
    """Of what is committed, those who live."""
    for recent, found in ((MET, people.by_external_id), (VISITORS, people.by_anonymous_id)):
        recent.remember(workspace_id, {name: id for name, id in found.items() if id is not None})


def forget(workspace_id: UUID, batch: Batch) -> None:
    """Look all of them up the next time."""
    for recent, names in zip((MET, VISITORS), names_of(batch), strict=True):
        recent.forget(workspace_id, names)
