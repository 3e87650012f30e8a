"""What viewers did with banners: checked, written once, and counted in the transaction that writes it.

Whoever tells of something shows the token that came with the banner (campaigns/banner_tokens.py), which names campaign,
placement and viewer: nobody can tell anything of somebody else. How counts are kept is in
docs/adr/0020-counting-banners.md.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum, auto
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, TypeAlias, assert_never
from uuid import UUID

import asyncpg

from campaigns import banner_stops
from campaigns.banner_rules import BannerRules, Limits
from campaigns.banner_stops import Stop, StopReason, day_of
from campaigns.banner_tokens import Impression, ImpressionKind
from campaigns.errors import CampaignError
from db.transactions import Connection, transaction
from profiles.contention import retried
from profiles.text import clean_choice, clean_text

MOST_EVENTS = 1000
MOST_CHARACTERS = 200
"""Of an event's id and of a session's."""
MOST_AHEAD = timedelta(days=1)
"""Clocks of phones are wrong; by more than a day they are not believed."""
LONGEST_LATE = timedelta(days=30)
"""The days that a tally tells apart must reach back so far."""
LONGEST_WINDOW = timedelta(days=30)
"""Of rotation: an app that lost its network kept a token of a window that had begun so long before."""
DAY = timedelta(days=1)

BEGIN = "SELECT ensure_month('banner_event', u.at) FROM unnest($1::timestamptz[]) AS u (at)"
CAMPAIGNS = "SELECT id, rules FROM campaign WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND channel = 'BANNER'"
PLACEMENTS = "SELECT id, limits FROM placement WHERE workspace_id = $1 AND id = ANY($2::uuid[])"
# In one order: a second transaction with the same events waits for the first, never each for the other.
INSERT_EVENTS = """
INSERT INTO banner_event (workspace_id, viewer, event_key, impression_key, token_month, kind, campaign_id, placement_id,
  content_version, occurred_at, received_at, machine)
SELECT $1, u.viewer, u.event_key, u.impression_key, u.token_month, u.kind, u.campaign_id, u.placement_id,
  u.content_version, u.occurred_at, $2, u.machine
FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::text[], $8::uuid[], $9::uuid[], $10::int[],
  $11::timestamptz[], $12::bool[]) AS u (viewer, event_key, impression_key, token_month, kind, campaign_id,
  placement_id, content_version, occurred_at, machine)
ORDER BY u.viewer, u.event_key
ON CONFLICT DO NOTHING RETURNING viewer, event_key, token_month
"""
# `days` has a bit for each of the 64 days up to last_day: whether the viewer was counted on a day is known even when
# what happened then is told after what happened later.
TALLY = """
INSERT INTO banner_tally AS t (workspace_id, subject_id, viewer, impressions, last_day, on_last_day, days)
SELECT $1, u.subject_id, u.viewer, u.impressions, $2, u.impressions, 1
FROM unnest($3::uuid[], $4::uuid[], $5::int[]) AS u (subject_id, viewer, impressions)
ORDER BY u.subject_id, u.viewer
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
"""
ADD = """
INSERT INTO banner_day AS d (workspace_id, campaign_id, placement_id, day, impressions, viewers, first_viewers, clicks,
  dismissals, hidden)
SELECT $1, u.campaign_id, u.placement_id, u.day, u.impressions, u.viewers, u.first_viewers, u.clicks, u.dismissals,
  u.hidden
FROM unnest($2::uuid[], $3::uuid[], $4::date[], $5::int[], $6::int[], $7::int[], $8::int[], $9::int[], $10::int[])
  AS u (campaign_id, placement_id, day, impressions, viewers, first_viewers, clicks, dismissals, hidden)
ORDER BY u.campaign_id, u.day, u.placement_id
ON CONFLICT (workspace_id, campaign_id, day, placement_id) DO UPDATE SET
  impressions = d.impressions + excluded.impressions, viewers = d.viewers + excluded.viewers,
  first_viewers = d.first_viewers + excluded.first_viewers, clicks = d.clicks + excluded.clicks,
  dismissals = d.dismissals + excluded.dismissals, hidden = d.hidden + excluded.hidden
"""


class BannerEventKind(StrEnum):
    """What happened to a banner."""

    IMPRESSION = "IMPRESSION"
    HIDDEN = "HIDDEN"
    """It would have been shown, were the viewer not in its holdout."""
    CLICK = "CLICK"
    DISMISS = "DISMISS"


class Became(StrEnum):
    """What became of an event."""

    ACCEPTED = auto()
    DUPLICATE = auto()
    UNKNOWN = auto()
    """There is no such banner any more."""


@lru_cache(maxsize=1024)
def month_of(second: int) -> datetime:
    """Midnight of UTC at which the month of a Unix second began; kept, as a batch has few windows and many events."""
    return datetime.fromtimestamp(second, UTC).replace(day=1, hour=0, minute=0, second=0)


Identity: TypeAlias = tuple[UUID, UUID, datetime]


@dataclass(frozen=True, slots=True)
class BannerEvent:
    """One thing that a viewer did, checked."""

    impression: Impression
    kind: BannerEventKind
    event_key: UUID
    impression_key: UUID | None
    """What impressions of one token in one session have in common; None of other kinds."""
    occurred_at: datetime
    is_by_machine: bool = False

    @property
    def token_month(self) -> datetime:
        """The month in which its token's window began: what this event has in common with its repetition."""
        return month_of(self.impression.window_start)

    @property
    def identity(self) -> Identity:
        """What makes a row of it."""
        return self.impression.viewer, self.event_key, self.token_month

    @property
    def day(self) -> date:
        """The day of UTC it counts on."""
        return self.occurred_at.date()


def clean(
    shown: Impression | None,
    *,
    kind: str,
    id: object,
    session_id: object,
    occurred_at: datetime,
    is_by_machine: bool,
    late: timedelta,
    now: datetime,
) -> BannerEvent:
    """The event, checked; `shown` is what its token says, None for a token that is not ours.

    What happened up to `late` ago is taken; a clock that is ahead counts as now. Raises CampaignError UNKNOWN_TOKEN,
    WRONG_KIND, TOO_OLD, IN_THE_FUTURE, and ProfileError for texts that cannot be kept.
    """
    if shown is None:
        message = "This token is not one that came with a banner of this workspace; send `impressionToken` as it was."
        raise CampaignError("UNKNOWN_TOKEN", message, field=("token",))
    known = clean_choice(BannerEventKind, kind, field=("kind",))
    if (known is BannerEventKind.HIDDEN) is not (shown.kind is ImpressionKind.HIDDEN):
        message = "HIDDEN is told of banners that were held back, with a token of `hidden`, and nothing else of those."
        raise CampaignError("WRONG_KIND", message, field=("kind",))
    event_key = key(clean_text(id, what="Event id", most=MOST_CHARACTERS, field=("id",)))
    begun = datetime.fromtimestamp(shown.window_start, UTC)
    if now - occurred_at > late or now - begun > late + LONGEST_WINDOW:
        message = f"This is more than {late.days} days back, or its token is: leave it out."
        raise CampaignError("TOO_OLD", message, field=("occurred_at",))
    if occurred_at - now > MOST_AHEAD:
        message = "This is more than a day ahead: check the sender's clock."
        raise CampaignError("IN_THE_FUTURE", message, field=("occurred_at",))
    impression_key = None
    match known:
        case BannerEventKind.IMPRESSION | BannerEventKind.HIDDEN:
            session = clean_text(session_id, what="Session id", most=MOST_CHARACTERS, field=("session_id",))
            of_token = f"{shown.campaign_id} {shown.placement_id} {shown.content_version} {shown.window_start} "
            impression_key = key(of_token + session)
        case BannerEventKind.CLICK | BannerEventKind.DISMISS:
            pass
        case _:
            assert_never(known)
    return BannerEvent(shown, known, event_key, impression_key, min(occurred_at, now), is_by_machine)


def key(text: str) -> UUID:
    """128 bits of a text, which nobody can make two texts have in common."""
    return UUID(bytes=blake2b(text.encode(), digest_size=16).digest())


async def record(workspace_id: UUID, events: Sequence[BannerEvent], *, now: datetime) -> list[Became]:
    """What became of each: written, counted, and committed when this returns.

    An event is new once: not the id again, and of impressions not the token again in one session. Events of machines
    are kept and count nowhere; those of banners in test are not even kept. May be called for the same events by many at
    once.
    """
    real = [event for event in events if event.impression.kind is not ImpressionKind.TEST]

    async def once() -> tuple[set[Identity], set[UUID]]:
        async with transaction(workspace_id) as connection:
            rules = await rules_of(connection, workspace_id, real)
            known = {event.identity: event for event in firsts(real) if event.impression.campaign_id in rules}
            fresh = await insert(connection, workspace_id, list(known.values()), now)
            new = (known[identity] for identity in fresh)
            await count(connection, workspace_id, [one for one in new if not one.is_by_machine], rules, now)
        return fresh, set(rules)

    fresh, campaigns = await retried(once) if real else (set[Identity](), set[UUID]())
    became = []
    for event in events:
        if event.impression.kind is ImpressionKind.TEST:
            became.append(Became.ACCEPTED)
        elif event.identity in fresh:
            fresh.discard(event.identity)
            became.append(Became.ACCEPTED)
        elif event.impression.campaign_id in campaigns:
            became.append(Became.DUPLICATE)
        else:
            became.append(Became.UNKNOWN)
    return became


def firsts(events: Iterable[BannerEvent]) -> Iterable[BannerEvent]:
    """Those that no earlier one of the list makes a duplicate."""
    seen: set[Identity] = set()
    for event in events:
        viewer, _, month = event.identity
        mine = (
            {event.identity}
            if event.impression_key is None
            else {event.identity, (viewer, event.impression_key, month)}
        )
        if seen.isdisjoint(mine):
            yield event
        seen |= mine


async def rules_of(connection: Connection, workspace_id: UUID, events: Iterable[BannerEvent]) -> dict[UUID, Limits]:
    """The limits of the campaigns and placements that these events are about, by id; those that are gone left out."""
    campaigns = {event.impression.campaign_id for event in events}
    placements = {event.impression.placement_id for event in events}
    found = {
        row["id"]: BannerRules.from_json(row["rules"]).limits
        for row in await connection.fetch(CAMPAIGNS, workspace_id, list(campaigns))
    }
    rows = await connection.fetch(PLACEMENTS, workspace_id, list(placements))
    return found | {row["id"]: Limits.from_json(row["limits"]) for row in rows}


async def insert(
    connection: Connection, workspace_id: UUID, events: Sequence[BannerEvent], now: datetime
) -> set[Identity]:
    """The identities of those that were not there yet; they are now."""
    if not events:
        return set()
    await connection.execute(BEGIN, sorted({event.token_month for event in events}))
    rows = await connection.fetch(
        INSERT_EVENTS,
        workspace_id,
        now,
        [event.impression.viewer for event in events],
        [event.event_key for event in events],
        [event.impression_key for event in events],
        [event.token_month for event in events],
        [event.kind.value for event in events],
        [event.impression.campaign_id for event in events],
        [event.impression.placement_id for event in events],
        [event.impression.content_version for event in events],
        [event.occurred_at for event in events],
        [event.is_by_machine for event in events],
    )
    return {(row["viewer"], row["event_key"], row["token_month"]) for row in rows}


class Place(NamedTuple):
    """Where counts are kept."""

    campaign_id: UUID
    placement_id: UUID
    day: date


@dataclass(slots=True)
class Added:
    """What is added to the counts of one place."""

    impressions: int = 0
    viewers: int = 0
    first_viewers: int = 0
    clicks: int = 0
    dismissals: int = 0
    hidden: int = 0

    def tell(self, kind: BannerEventKind) -> None:
        """One event more."""
        match kind:
            case BannerEventKind.IMPRESSION:
                self.impressions += 1
            case BannerEventKind.HIDDEN:
                self.hidden += 1
            case BannerEventKind.CLICK:
                self.clicks += 1
            case BannerEventKind.DISMISS:
                self.dismissals += 1
            case _:
                assert_never(kind)


async def count(
    connection: Connection,
    workspace_id: UUID,
    events: Sequence[BannerEvent],
    rules: Mapping[UUID, Limits],
    now: datetime,
) -> None:
    """Add new events to the tallies and counts, and write down for whom a banner has stopped."""
    if not events:
        return
    added: defaultdict[Place, Added] = defaultdict(Added)
    profiles: dict[UUID, int] = {}
    for event in events:
        shown = event.impression
        added[Place(shown.campaign_id, shown.placement_id, event.day)].tell(event.kind)
        if shown.profile_id is not None:
            profiles[shown.viewer] = shown.profile_id
    stops = stopped_at_once(events)
    seen = [event for event in events if event.kind is BannerEventKind.IMPRESSION]
    where = {(one.impression.campaign_id, one.impression.viewer, one.day): one.impression for one in reversed(seen)}
    for day, tallied in (await tally(connection, workspace_id, seen, rules)).items():
        for row in tallied:
            shown_at = where.get((row["subject_id"], row["viewer"], day))
            if shown_at is not None:
                counts = added[Place(shown_at.campaign_id, shown_at.placement_id, day)]
                counts.viewers += row["is_first_of_day"]
                counts.first_viewers += row["is_first"]
            if (profile_id := profiles.get(row["viewer"])) is not None and row["subject_id"] in rules:
                stops |= {(stop, profile_id) for stop in reached(row, rules[row["subject_id"]], now)}
    await add(connection, workspace_id, added)
    await banner_stops.write(connection, workspace_id, stops)


def stopped_at_once(events: Iterable[BannerEvent]) -> set[tuple[Stop, int]]:
    """What clicks and dismissals stop, for which profile."""
    reasons = {BannerEventKind.CLICK: StopReason.CLICKED, BannerEventKind.DISMISS: StopReason.DISMISSED}
    return {
        (Stop(subject_id, reasons[event.kind]), event.impression.profile_id)
        for event in events
        if event.kind in reasons and event.impression.profile_id is not None
        for subject_id in (event.impression.campaign_id, event.impression.placement_id)
    }


def reached(row: asyncpg.Record, limits: Limits, now: datetime) -> Iterable[Stop]:
    """What a viewer's tally of a banner or placement stops."""
    if limits.lifetime is not None and row["impressions"] >= limits.lifetime:
        yield Stop(row["subject_id"], StopReason.LIFETIME, limits.lifetime)
    today = day_of(now)
    if limits.per_day is not None and row["last_day"] == today.date() and row["on_last_day"] >= limits.per_day:
        yield Stop(row["subject_id"], StopReason.PER_DAY, limits.per_day, today + DAY)


async def tally(
    connection: Connection, workspace_id: UUID, seen: Collection[BannerEvent], rules: Mapping[UUID, Limits]
) -> dict[date, list[asyncpg.Record]]:
    """The tallies of banners, and of placements with a limit, by the day that was added to them; rows of TALLY."""
    times: defaultdict[date, Counter[tuple[UUID, UUID]]] = defaultdict(Counter)
    for event in seen:
        shown = event.impression
        times[event.day][shown.campaign_id, shown.viewer] += 1
        limits = rules.get(shown.placement_id)
        if limits is not None and (limits.per_day is not None or limits.lifetime is not None):
            times[event.day][shown.placement_id, shown.viewer] += 1
    tallies = {}
    # A statement a day, since none may change a row twice.
    for day, of_day in sorted(times.items()):
        subjects, viewers = zip(*of_day, strict=True)
        tallies[day] = await connection.fetch(TALLY, workspace_id, day, subjects, viewers, list(of_day.values()))
    return tallies


async def add(connection: Connection, workspace_id: UUID, added: Mapping[Place, Added]) -> None:
    """Add to the counts of each day."""
    counts = list(added.values())
    await connection.execute(
        ADD,
        workspace_id,
        [place.campaign_id for place in added],
        [place.placement_id for place in added],
        [place.day for place in added],
        [one.impressions for one in counts],
        [one.viewers for one in counts],
        [one.first_viewers for one in counts],
        [one.clicks for one in counts],
        [one.dismissals for one in counts],
        [one.hidden for one in counts],
    )
