"""What viewers did with banners: written once, and counted in the transaction that writes it.

Whoever tells of something shows the token that came with the banner (campaigns/banner_tokens.py), which names campaign,
placement and viewer: nobody can tell anything of somebody else. How counts are kept is in
docs/adr/0020-counting-banners.md.

Beginning statements is most of what a small batch costs, so that there are three whatever its length, and a column is
one text, of which asyncpg asks nothing element by element (profiles/packing.py).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum, auto
from uuid import UUID

import asyncpg

from campaigns import banner_stops
from campaigns.banner_events import LONGEST_LATE, LONGEST_WINDOW, BannerEvent, BannerEventKind, month_of
from campaigns.banner_rules import BannerRules, Limits
from campaigns.banner_stops import Stop, StopReason, day_of
from campaigns.banner_tokens import ImpressionKind
from db.transactions import Connection, transaction
from profiles.contention import retried
from profiles.packing import pack_ids, pack_numbers, pack_words, seconds_of

DAY = timedelta(days=1)
STOPPING = {BannerEventKind.CLICK: StopReason.CLICKED, BannerEventKind.DISMISS: StopReason.DISMISSED}

# `ready` comes first: partitions of the months, and a lock because of ids. An id is looked for in other months as well
# (INSERT_EVENTS), where no key keeps two transactions apart that bring it at once: whoever brings events of an earlier
# month is alone meanwhile. Nearly all events are of this month, and those hold each other up by nothing. Sequential
# scans are out: a table that was empty when its plan was made may have a million rows a minute later.
BEGIN = """
WITH ready AS MATERIALIZED (
  SELECT set_config('enable_seqscan', 'off', true),
    CASE WHEN $5 THEN pg_advisory_xact_lock(hashtextextended('banner_event ' || $1::uuid::text, 0))
      ELSE pg_advisory_xact_lock_shared(hashtextextended('banner_event ' || $1::uuid::text, 0)) END AS locked,
    (SELECT count(ensure_month('banner_event', u.at)) FROM unnest($4::timestamptz[]) AS u (at)) AS months
)
SELECT true AS is_campaign, c.id, c.rules AS kept FROM ready CROSS JOIN campaign c
WHERE c.workspace_id = $1 AND c.id = ANY($2::text::uuid[]) AND c.channel = 'BANNER'
UNION ALL
SELECT false, p.id, p.limits FROM placement p WHERE p.workspace_id = $1 AND p.id = ANY($3::text::uuid[])
"""
# In one order: a second transaction with the same events waits for the first, never each for the other. Answers with
# the places of those that were not there yet.
INSERT_EVENTS = """
WITH told AS MATERIALIZED (
  SELECT u.*, date_trunc('month', to_timestamp(u.window_start), 'UTC') AS token_month
  FROM unnest($3::text::uuid[], $4::text::uuid[], $5::text::uuid[], $6::text::bigint[], $7::text::text[],
    $8::text::uuid[], $9::text::uuid[], $10::text::int[], $11::text::float8[], $12::text::bool[]) WITH ORDINALITY
    AS u (viewer, event_key, impression_key, window_start, kind, campaign_id, placement_id, content_version,
      occurred_at, machine, place)
), fresh AS (
  INSERT INTO banner_event (workspace_id, viewer, event_key, impression_key, token_month, kind, campaign_id,
    placement_id, content_version, occurred_at, received_at, machine)
  SELECT $1, t.viewer, t.event_key, t.impression_key, t.token_month, t.kind, t.campaign_id, t.placement_id,
    t.content_version, to_timestamp(t.occurred_at), $2, t.machine
  FROM told t
  WHERE (SELECT true FROM banner_event e
    WHERE e.workspace_id = $1 AND e.viewer = t.viewer AND e.event_key = t.event_key AND e.token_month >= $13
      AND e.token_month <> t.token_month LIMIT 1) IS NULL
  ORDER BY t.viewer, t.event_key
  ON CONFLICT DO NOTHING RETURNING viewer, event_key
)
SELECT array_agg(t.place::int - 1) FROM told t JOIN fresh f ON f.viewer = t.viewer AND f.event_key = t.event_key
"""
# Of one day: what was seen is tallied by viewer, and whether that made a viewer a new one is added to the counts with
# the rest. `days` has a bit for each of the 64 days up to last_day, so that this is known also when what happened then
# is told after what happened later. Answers with the tallies of those subjects that have limits.
COUNT = """
WITH seen AS MATERIALIZED (
  SELECT u.subject_id, u.viewer, u.placement_id, u.impressions
  FROM unnest($3::text::uuid[], $4::text::uuid[], $5::text::uuid[], $6::text::int[])
    AS u (subject_id, viewer, placement_id, impressions)
), tallied AS (
  INSERT INTO banner_tally AS t (workspace_id, subject_id, viewer, impressions, last_day, on_last_day, days)
  SELECT $1, s.subject_id, s.viewer, s.impressions, $2, s.impressions, 1 FROM seen s ORDER BY s.subject_id, s.viewer
  ON CONFLICT (workspace_id, subject_id, viewer) DO UPDATE SET
    impressions = t.impressions + excluded.impressions,
    last_day = greatest(t.last_day, $2),
    on_last_day = CASE WHEN t.last_day < $2 THEN 0 ELSE t.on_last_day END
      + CASE WHEN t.last_day > $2 THEN 0 ELSE excluded.impressions END,
    days = CASE
      WHEN t.last_day - $2 BETWEEN 0 AND 63 THEN t.days | (1::bigint << (t.last_day - $2))
      WHEN t.last_day > $2 THEN t.days
      WHEN $2 - t.last_day < 64 THEN (t.days << ($2 - t.last_day)) | 1
      ELSE 1 END
  RETURNING new.subject_id, new.viewer, new.impressions, new.last_day, new.on_last_day,
    old.viewer IS NULL AS is_first,
    CASE
      WHEN old.viewer IS NULL OR old.last_day < $2 THEN true
      WHEN old.last_day - $2 < 64 THEN (old.days >> (old.last_day - $2)) & 1 = 0
      ELSE false END AS is_first_of_day
), added AS (
  INSERT INTO banner_day AS d (workspace_id, campaign_id, placement_id, day, impressions, viewers, first_viewers,
    clicks, dismissals, hidden)
  SELECT $1, c.campaign_id, c.placement_id, $2, sum(c.impressions), sum(c.viewers), sum(c.first_viewers),
    sum(c.clicks), sum(c.dismissals), sum(c.hidden)
  FROM (
    SELECT u.campaign_id, u.placement_id, u.impressions, 0 AS viewers, 0 AS first_viewers, u.clicks, u.dismissals,
      u.hidden
    FROM unnest($7::text::uuid[], $8::text::uuid[], $9::text::int[], $10::text::int[], $11::text::int[],
      $12::text::int[]) AS u (campaign_id, placement_id, impressions, hidden, clicks, dismissals)
    UNION ALL
    SELECT s.subject_id, s.placement_id, 0, t.is_first_of_day::int, t.is_first::int, 0, 0, 0
    FROM tallied t JOIN seen s ON s.subject_id = t.subject_id AND s.viewer = t.viewer
    WHERE s.placement_id IS NOT NULL
  ) AS c
  GROUP BY c.campaign_id, c.placement_id ORDER BY c.campaign_id, c.placement_id
  ON CONFLICT (workspace_id, campaign_id, day, placement_id) DO UPDATE SET
    impressions = d.impressions + excluded.impressions, viewers = d.viewers + excluded.viewers,
    first_viewers = d.first_viewers + excluded.first_viewers, clicks = d.clicks + excluded.clicks,
    dismissals = d.dismissals + excluded.dismissals, hidden = d.hidden + excluded.hidden
)
SELECT subject_id, viewer, impressions, last_day, on_last_day FROM tallied WHERE subject_id = ANY($13::text::uuid[])
"""


class Became(StrEnum):
    """What became of an event."""

    ACCEPTED = auto()
    DUPLICATE = auto()
    UNKNOWN = auto()
    """There is no such banner any more."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """Campaigns and placements that events are about, by the 16 bytes of their ids."""

    campaigns: frozenset[bytes]
    """Those that there are."""
    limits: Mapping[bytes, Limits]
    """Of campaigns and placements whose tallies may stop them."""


@dataclass(slots=True)
class DayCounts:
    """What is added to the counts of one day of UTC."""

    told: dict[tuple[bytes, bytes, BannerEventKind], int] = field(default_factory=dict)
    """Events by campaign, placement and kind."""
    times: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    """Impressions by subject (a campaign, or a placement with limits) and viewer."""
    places: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)
    """Where a viewer of a campaign, by both, saw it first: there they count."""


async def record(workspace_id: UUID, events: Sequence[BannerEvent], *, now: datetime) -> list[Became]:
    """What became of each: written, counted, and committed when this returns.

    An event is new once: not the id again, and of impressions not the token again in one session. Events of machines
    are kept and count nowhere; those of banners in test are not even kept. May be called for the same events by many at
    once.
    """
    real = [event for event in events if event.shown.kind is not ImpressionKind.TEST]
    tries = 0

    async def once() -> tuple[set[int], frozenset[bytes]]:
        nonlocal tries
        tries += 1
        async with transaction(workspace_id, generic_plans=True) as connection:
            # Rows are locked in one order within a day, not across days, and two may each wait for the other: whom
            # PostgreSQL ended because of that goes on alone, and is not ended again.
            subjects = await begin(connection, workspace_id, real, now, alone=tries > 1)
            known = [event for event in firsts(real) if event.shown.campaign in subjects.campaigns]
            fresh = await insert(connection, workspace_id, known, now)
            people = [event for event in fresh if not event.is_by_machine]
            await count(connection, workspace_id, people, subjects.limits, now)
        return set(map(id, fresh)), subjects.campaigns

    fresh, campaigns = await retried(once) if real else (set[int](), frozenset[bytes]())
    became = []
    for event in events:
        if event.shown.kind is ImpressionKind.TEST or id(event) in fresh:
            became.append(Became.ACCEPTED)
            # Named twice in the list it is a duplicate of itself.
            fresh.discard(id(event))
        elif event.shown.campaign in campaigns:
            became.append(Became.DUPLICATE)
        else:
            became.append(Became.UNKNOWN)
    return became


def firsts(events: Iterable[BannerEvent]) -> Iterable[BannerEvent]:
    """Those that no earlier one of the list makes a duplicate."""
    seen: set[bytes] = set()
    add = seen.add
    for event in events:
        shown, _, event_key, impression_key, _, _ = event
        identity, is_new = shown.viewer + event_key, True
        if identity in seen:
            is_new = False
        else:
            add(identity)
        if impression_key is not None:
            # One byte longer than an identity, so that neither is taken for the other.
            of_impression = shown.viewer + impression_key + b"i"
            if of_impression in seen:
                is_new = False
            else:
                add(of_impression)
        if is_new:
            yield event


async def begin(
    connection: Connection, workspace_id: UUID, events: Sequence[BannerEvent], now: datetime, *, alone: bool
) -> Subjects:
    """Make room for these events, and keep all others out if `alone`; what they are about, those that are gone left
    out."""
    months = {month_of(window) for window in {event.shown.window_start for event in events}}
    rows = await connection.fetch(
        BEGIN,
        workspace_id,
        pack_ids({event.shown.campaign for event in events}),
        pack_ids({event.shown.placement for event in events}),
        sorted(months),
        alone or min(months) < month_of(int(now.timestamp())),
    )
    limits = {
        row["id"].bytes: BannerRules.from_json(row["kept"]).limits
        if row["is_campaign"]
        else Limits.from_json(row["kept"])
        for row in rows
    }
    return Subjects(
        frozenset(row["id"].bytes for row in rows if row["is_campaign"]),
        {one: kept for one, kept in limits.items() if kept.per_day is not None or kept.lifetime is not None},
    )


async def insert(
    connection: Connection, workspace_id: UUID, events: Sequence[BannerEvent], now: datetime
) -> list[BannerEvent]:
    """Those that were not there yet; they are now."""
    if not events:
        return []
    shown, kinds, event_keys, impression_keys, instants, machines = zip(*events, strict=True)
    campaigns, placements, viewers, _, versions, windows, _ = zip(*shown, strict=True)
    places = await connection.fetchval(
        INSERT_EVENTS,
        workspace_id,
        now,
        pack_ids(viewers),
        pack_ids(event_keys),
        pack_ids(impression_keys),
        pack_numbers(windows),
        pack_words(kinds),
        pack_ids(campaigns),
        pack_ids(placements),
        pack_numbers(versions),
        pack_numbers(seconds_of(instants)),
        pack_words(["t" if one else "f" for one in machines]),
        month_of(int((now - LONGEST_LATE - LONGEST_WINDOW).timestamp())),
    )
    return [events[place] for place in sorted(places or ())]


async def count(
    connection: Connection,
    workspace_id: UUID,
    events: Sequence[BannerEvent],
    limits: Mapping[bytes, Limits],
    now: datetime,
) -> None:
    """Add new events to the tallies and counts, and write down for whom a banner has stopped."""
    stops = stopped_at_once(events)
    profiles = {event.shown.viewer: event.shown.profile_id for event in events}
    # A statement a day, since none may change a row twice.
    for day, counts in sorted(by_day(events, limits).items()):
        for row in await add(connection, workspace_id, day, counts, limits):
            profile_id = profiles[row["viewer"].bytes]
            if profile_id is not None:
                stops |= {(stop, profile_id) for stop in reached(row, limits[row["subject_id"].bytes], now)}
    await banner_stops.write(connection, workspace_id, stops)


def by_day(events: Iterable[BannerEvent], limits: Mapping[bytes, Limits]) -> dict[date, DayCounts]:
    """What events add to the counts of their days."""
    days: defaultdict[date, DayCounts] = defaultdict(DayCounts)
    for (campaign, placement, viewer, *_), kind, _, _, occurred_at, _ in events:
        counts = days[occurred_at.date()]
        told, times = counts.told, counts.times
        what = campaign, placement, kind
        told[what] = told.get(what, 0) + 1
        if kind is BannerEventKind.IMPRESSION:
            who = campaign, viewer
            if who in times:
                times[who] += 1
            else:
                times[who] = 1
                counts.places[who] = placement
            if placement in limits:
                where = placement, viewer
                times[where] = times.get(where, 0) + 1
    return days


async def add(
    connection: Connection, workspace_id: UUID, day: date, counts: DayCounts, limits: Mapping[bytes, Limits]
) -> list[asyncpg.Record]:
    """Add to the tallies and counts of a day; the tallies as they are now of what has limits, rows of COUNT."""
    where = list({(campaign, placement) for campaign, placement, _ in counts.told})
    told = [pack_numbers([counts.told.get((*one, kind), 0) for one in where]) for kind in BannerEventKind]
    rows: list[asyncpg.Record] = await connection.fetch(
        COUNT,
        workspace_id,
        day,
        pack_ids(subject for subject, _ in counts.times),
        pack_ids(viewer for _, viewer in counts.times),
        pack_ids(map(counts.places.get, counts.times)),
        pack_numbers(list(counts.times.values())),
        pack_ids(campaign for campaign, _ in where),
        pack_ids(placement for _, placement in where),
        *told,
        pack_ids(limits),
    )
    return rows


def stopped_at_once(events: Iterable[BannerEvent]) -> set[tuple[Stop, int]]:
    """What clicks and dismissals stop, for which profile."""
    return {
        (Stop(UUID(bytes=subject), STOPPING[event.kind]), event.shown.profile_id)
        for event in events
        if event.kind in STOPPING and event.shown.profile_id is not None
        for subject in (event.shown.campaign, event.shown.placement)
    }


def reached(row: asyncpg.Record, limits: Limits, now: datetime) -> Iterable[Stop]:
    """What a viewer's tally of a banner or placement stops."""
    if limits.lifetime is not None and row["impressions"] >= limits.lifetime:
        yield Stop(row["subject_id"], StopReason.LIFETIME, limits.lifetime)
    today = day_of(now)
    if limits.per_day is not None and row["last_day"] == today.date() and row["on_last_day"] >= limits.per_day:
        yield Stop(row["subject_id"], StopReason.PER_DAY, limits.per_day, today + DAY)
