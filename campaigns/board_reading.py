"""Reading boards: one reader a workspace and process, that reads what has changed since it last looked.

A look costs a handful of statements over short rows (campaigns, placements and segments that are named), whatever the
number of people: contents are read once a version, bitmaps only when their version is another one, stops only those
written since.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from time import perf_counter
from uuid import UUID

from asyncpg import Record
from pyroaring import BitMap

from campaigns import banner_stops
from campaigns.banner_content import BannerContent
from campaigns.banner_rules import BannerRules, Limits
from campaigns.banner_stops import FOREVER, Stop
from campaigns.board import NO_STOPS, NOBODY, Audience, Banner, Board, Members, Place, Stops
from campaigns.models import CampaignStatus
from db.idsets import unpack
from db.transactions import Connection, transaction
from segments import everyone
from segments.models import SegmentStatus, SegmentType

MERGES_COUNT_FOR = timedelta(hours=25)
"""Longer than a viewer token names a profile without another look."""
COMMITTED_WITHIN = timedelta(minutes=1)
"""A merge is written with the time at which its request came; longer it does not take to be committed."""
SHARE_FOR_BRANDS = 50
"""Brands keep no bitmaps: reading one's members again waits for so many times what it took the last time."""

# What is shown, will be, or is tried out; the condition is that of the index campaign_shown. A draft without testers
# is nobody's.
SHOWN = """
SELECT c.id, c.brand_id, c.status, c.placement_id, c.weight, c.content_version, c.scheduled_at, c.maximum_lateness_s,
  c.expires_at, c.rules, c.test_segment_id, t.included, t.excluded,
  p.key, p.rotation_window_s, p.slots, p.limits
FROM campaign c JOIN placement p ON p.workspace_id = $1 AND p.id = c.placement_id CROSS JOIN LATERAL (
  SELECT array_agg(s.segment_id ORDER BY s.segment_id) FILTER (WHERE NOT s.excluded) AS included,
    array_agg(s.segment_id ORDER BY s.segment_id) FILTER (WHERE s.excluded) AS excluded
  FROM campaign_segment s WHERE s.workspace_id = $1 AND s.campaign_id = c.id) AS t
WHERE c.workspace_id = $1 AND c.channel = 'BANNER' AND c.status IN ('DRAFT', 'PENDING_APPROVAL', 'SCHEDULED', 'ACTIVE')
  AND (c.status IN ('SCHEDULED', 'ACTIVE') OR c.test_segment_id IS NOT NULL)
ORDER BY c.id
"""
CONTENTS = "SELECT id, content_version, content FROM campaign WHERE workspace_id = $1 AND id = ANY($2)"
# The last row tells who was merged since: a question of its own would be one more way to the database and back.
SEGMENTS_AND_MERGED = """
SELECT s.id, s.type, s.status, m.version, m.base_version, NULL::bytea AS merged
FROM segment s LEFT JOIN segment_membership m ON m.workspace_id = $1 AND m.segment_id = s.id
WHERE s.workspace_id = $1 AND s.id = ANY($2)
UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, (
  SELECT string_agg(int4send(id), ''::bytea) FROM profile
  WHERE workspace_id = $1 AND merged_into IS NOT NULL AND updated_at > $3)
ORDER BY 1
"""
# A base that is known is not even fetched from where PostgreSQL keeps what is large.
MEMBERS = """
SELECT m.segment_id, m.version, m.base_version, m.added, m.removed,
  CASE WHEN m.base_version IS DISTINCT FROM known.base_version THEN m.base END AS base
FROM unnest($2::uuid[], $3::bigint[]) AS known (segment_id, base_version)
JOIN segment_membership m ON m.workspace_id = $1 AND m.segment_id = known.segment_id
"""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A board as it is now, and what is different from before."""

    board: Board
    replaced: bool
    """Whether banners or placements are different: then anybody may see something else."""
    touched: BitMap
    """Otherwise, who may: those who entered or left a segment, and those for whom something has stopped."""


@dataclass(slots=True)
class Known:
    """Members of a segment as they were read."""

    version: int
    base_version: int
    members: Members


@dataclass(slots=True)
class KnownBrand:
    """Members of a brand as they were read, which took so long."""

    members: BitMap
    read_at: datetime
    took: timedelta


@dataclass(slots=True)
class BoardReader:
    """What this process knows of one workspace's banners. One task at a time refreshes it."""

    workspace_id: UUID
    board: Board = field(init=False)
    merged: BitMap = field(default_factory=BitMap)
    """Profiles that were merged into others lately."""
    shown: list[Record] = field(default_factory=list)
    states: list[tuple[UUID, str, str, bool]] = field(default_factory=list)
    contents: dict[tuple[UUID, int], BannerContent] = field(default_factory=dict)
    segments: dict[UUID, Known] = field(default_factory=dict)
    brands: dict[UUID, KnownBrand] = field(default_factory=dict)
    stops: dict[Stop, BitMap] = field(default_factory=dict)
    stops_of: frozenset[UUID] = frozenset()
    """Campaigns and placements whose stops are known, up to `last_stop`."""
    last_stop: int = 0
    merged_at: datetime | None = None

    def __post_init__(self) -> None:
        self.board = Board(self.workspace_id)

    async def refresh(self, *, now: datetime) -> Refreshed:
        """The board as it is. Raises what the database raises, and then the last board still stands."""
        # One instant: a content that changes between two statements would not fit its campaign. Most readings are three
        # statements in it; what has changed is asked for beside them.
        async with transaction(self.workspace_id, at_one_instant=True) as connection:
            shown = await connection.fetch(SHOWN, self.workspace_id)
            since = now - MERGES_COUNT_FOR if self.merged_at is None else self.merged_at - COMMITTED_WITHIN
            *rows, last_row = await connection.fetch(
                SEGMENTS_AND_MERGED, self.workspace_id, list(segments_of(shown)), since
            )
            contents = await self.read_contents(connection, shown)
            segments, states, moved = await self.read_segments(connection, rows)
            brands, joined = await self.read_brands(connection, shown, now=now)
            stops, stopped, last = await self.read_stops(connection, shown, now=now)
        # Nothing awaits from here on: a refresh that was cut short has changed nothing.
        merged = unpack(last_row["merged"]) - self.merged
        replaced = (shown, states) != (self.shown, self.states)
        different = replaced or moved or joined or stopped or stops.keys() != self.stops.keys()
        self.shown, self.states, self.contents = shown, states, contents
        self.segments, self.brands, self.stops, self.last_stop = segments, brands, stops, last
        self.stops_of = subjects_of(shown)
        self.merged |= merged
        self.merged_at = now
        if different:
            self.board = self.put_together(now=now)
        return Refreshed(self.board, replaced, moved | joined | stopped | merged)

    async def read_contents(
        self, connection: Connection, shown: Sequence[Record]
    ) -> dict[tuple[UUID, int], BannerContent]:
        """Contents of what is shown, by campaign and version; those known are not read again."""
        wanted = {(row["id"], row["content_version"]) for row in shown}
        found = {key: content for key, content in self.contents.items() if key in wanted}
        if missing := [campaign_id for campaign_id, version in wanted if (campaign_id, version) not in found]:
            for row in await connection.fetch(CONTENTS, self.workspace_id, missing):
                found[row["id"], row["content_version"]] = BannerContent.from_json(row["content"])
        return found

    async def read_segments(
        self, connection: Connection, rows: Sequence[Record]
    ) -> tuple[dict[UUID, Known], list[tuple[UUID, str, str, bool]], BitMap]:
        """Members of what is named, the segments' types and states, and who entered or left."""
        states = [(row["id"], row["type"], row["status"], row["version"] is not None) for row in rows]
        named = {row["id"] for row in rows}
        found = {one: known for one, known in self.segments.items() if one in named}
        moved = BitMap()
        stale = [
            row["id"]
            for row in rows
            if row["version"] is not None
            and ((known := found.get(row["id"])) is None or (known.version, known.base_version) != tuple(row)[3:5])
        ]
        if stale:
            bases = [found[one].base_version if one in found else None for one in stale]
            for row in await connection.fetch(MEMBERS, self.workspace_id, stale, bases):
                before = found.get(row["segment_id"])
                members = members_of(row, before)
                # One that is new here comes with a banner that is new, and that replaces the board.
                if before is not None:
                    moved |= before.members.everybody() ^ members.everybody()
                found[row["segment_id"]] = Known(row["version"], row["base_version"], members)
        return found, states, moved

    async def read_brands(
        self, connection: Connection, shown: Sequence[Record], *, now: datetime
    ) -> tuple[dict[UUID, KnownBrand], BitMap]:
        """Members of the brands of what is shown, and who joined or left one."""
        wanted = {row["brand_id"] for row in shown if row["brand_id"]}
        found = {one: known for one, known in self.brands.items() if one in wanted}
        joined = BitMap()
        for brand_id in sorted(wanted):
            known = found.get(brand_id)
            if known is not None and now < known.read_at + known.took * SHARE_FOR_BRANDS:
                continue
            began = perf_counter()
            members = await everyone.members(connection, brand_id)
            if known is not None:
                joined |= known.members ^ members
            found[brand_id] = KnownBrand(members, now, timedelta(seconds=perf_counter() - began))
        return found, joined

    async def read_stops(
        self, connection: Connection, shown: Sequence[Record], *, now: datetime
    ) -> tuple[dict[Stop, BitMap], BitMap, int]:
        """Stops of what is shown and where, who was stopped since, and the seq to go on after."""
        wanted = subjects_of(shown)
        found = {stop: people for stop, people in self.stops.items() if stop.subject_id in wanted and now < stop.until}
        after = {one: self.last_stop if one in self.stops_of else 0 for one in wanted}
        more, last = await banner_stops.read(connection, self.workspace_id, after, now=now)
        stopped = BitMap()
        for stop, people in more.items():
            found[stop] = found.get(stop, NOBODY) | people
            if stop.subject_id in self.stops_of:
                stopped |= people
        return found, stopped, max(last, self.last_stop)

    def put_together(self, *, now: datetime) -> Board:
        """The board of what is known."""
        active = {one: SegmentType(type) for one, type, status, _ in self.states if status == SegmentStatus.ACTIVE}
        stops: dict[UUID, list[tuple[Stop, BitMap]]] = defaultdict(list)
        for stop, people in self.stops.items():
            stops[stop.subject_id].append((stop, people))
        rows: dict[UUID, Record] = {}
        banners: dict[UUID, list[Banner]] = defaultdict(list)
        for row in self.shown:
            rows[row["placement_id"]] = row
            banners[row["placement_id"]] += self.banners_of(row, active, stops[row["id"]], now=now)
        places = {}
        for placement_id, row in rows.items():
            limits = Limits.from_json(row["limits"])
            places[row["key"]] = Place.of(
                banners[placement_id],
                id=placement_id,
                key=row["key"],
                window_s=row["rotation_window_s"],
                slots=row["slots"],
                limits=limits,
                stops=stops_of(stops[placement_id], limits, now=now),
            )
        return Board(self.workspace_id, places)

    def banners_of(
        self,
        row: Record,
        active: Mapping[UUID, SegmentType],
        stops: Sequence[tuple[Stop, BitMap]],
        *,
        now: datetime,
    ) -> list[Banner]:
        """A campaign as the board has it: tried out, shown or to be shown; nothing when it is for nobody now."""
        rules, status = BannerRules.from_json(row["rules"]), CampaignStatus(row["status"])
        banner = Banner(
            campaign_id=row["id"],
            id=row["id"].hex,
            placement=row["key"],
            content=self.contents[row["id"], row["content_version"]],
            content_version=row["content_version"],
            weight=row["weight"],
            rules=rules,
            audience=Audience(),
            stops=stops_of(stops, rules.limits, now=now),
            expires_at=row["expires_at"],
        )
        found = []
        starts_at = row["scheduled_at"] if status is CampaignStatus.SCHEDULED else None
        if status is not CampaignStatus.ACTIVE and (testers := self.testers_of(row, active)) is not None:
            ends = [at for at in (row["expires_at"], starts_at) if at is not None]
            found.append(replace(banner, audience=testers, in_test=True, expires_at=min(ends, default=None)))
        audience = self.audience_of(row, active)
        if status is CampaignStatus.ACTIVE and audience is not None:
            found.append(replace(banner, audience=audience))
        if starts_at is not None and audience is not None:
            # To the second, and before a worker has made it ACTIVE; not when none has for so long that it is too late.
            late = starts_at + timedelta(seconds=row["maximum_lateness_s"])
            ends = [at for at in (row["expires_at"], late) if at is not None]
            found.append(replace(banner, audience=audience, starts_at=starts_at, expires_at=min(ends)))
        return found

    def testers_of(self, row: Record, active: Mapping[UUID, SegmentType]) -> Audience | None:
        """Who tries a banner out before it goes live; None: nobody."""
        segment_id = row["test_segment_id"]
        if active.get(segment_id, SegmentType.EVERYONE) is SegmentType.EVERYONE or segment_id not in self.segments:
            return None
        return Audience(included=(self.segments[segment_id].members,))

    def audience_of(self, row: Record, active: Mapping[UUID, SegmentType]) -> Audience | None:
        """Whom a banner is for; None: nobody can be told to be.

        An included segment that is not ACTIVE now is left out, so that a live banner never counts a paused segment; one
        that was to be spared and cannot be told hides the banner from everybody, for safety.
        """
        everybody, included = False, []
        for one in row["included"] or ():
            if active.get(one) is not SegmentType.EVERYONE:
                if one in active and one in self.segments:
                    included.append(self.segments[one].members)
            elif row["brand_id"]:
                included.append(Members(self.brands[row["brand_id"]].members))
            else:
                everybody = True
        excluded = []
        for one in row["excluded"] or ():
            if active.get(one, SegmentType.EVERYONE) is SegmentType.EVERYONE or one not in self.segments:
                return None
            excluded.append(self.segments[one].members)
        return Audience(everybody, tuple(included), tuple(excluded))


def segments_of(shown: Iterable[Record]) -> set[UUID]:
    """The segments that say who sees something."""
    asked = ((*(row["included"] or ()), *(row["excluded"] or ()), row["test_segment_id"]) for row in shown)
    return {one for named in asked for one in named if one is not None}


def subjects_of(shown: Iterable[Record]) -> frozenset[UUID]:
    """What something can stop of: campaigns and their placements."""
    return frozenset(row[name] for row in shown for name in ("id", "placement_id"))


def members_of(row: Record, before: Known | None) -> Members:
    """What MEMBERS answered, on the base that is known already where it is the same."""
    if row["base"] is None:
        assert before is not None  # only what is known is left out
        base = before.members.base
    else:
        base = BitMap.deserialize(row["base"])
    added, removed = BitMap.deserialize(row["added"]), BitMap.deserialize(row["removed"])
    return Members(base, added or NOBODY, removed or NOBODY)


def stops_of(found: Iterable[tuple[Stop, BitMap]], limits: Limits, *, now: datetime) -> Stops:
    """Those stops that hold under `limits`."""
    holding = [(stop, people) for stop, people in found if stop.holds(limits, now=now)]
    if not holding:
        return NO_STOPS
    return Stops(
        for_good=tuple(people for stop, people in holding if stop.until == FOREVER),
        until=tuple((stop.until, people) for stop, people in holding if stop.until != FOREVER),
    )
