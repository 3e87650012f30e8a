"""The board: a process's picture of what a workspace's banners may show, so that a fetch asks no database.

Read afresh every second and at each notice (app/boards.py), what changed only (campaigns/board_reading.py). What may
say no at an instant (expiry, start, the end of a limit's day) is looked at when somebody fetches, so that those are
exact to the second.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from uuid import UUID

from pyroaring import BitMap

from campaigns.banner_content import BannerContent
from campaigns.banner_rules import BannerRules, Limits
from campaigns.banner_stops import FOREVER

NOBODY = BitMap()
NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Members:
    """Who is in a segment: a base and its two small deltas, as segments keep them."""

    base: BitMap
    added: BitMap = NOBODY
    removed: BitMap = NOBODY

    def __contains__(self, profile_id: int) -> bool:
        # NOBODY is not asked: most segments have no deltas, and this is asked some twenty times a fetch.
        removed, added = self.removed, self.added
        if profile_id in self.base or (added is not NOBODY and profile_id in added):
            return removed is NOBODY or profile_id not in removed
        return False

    def everybody(self) -> BitMap:
        """A bitmap of the caller's own."""
        return (self.base | self.added) - self.removed


@dataclass(frozen=True, slots=True)
class Stops:
    """For whom a banner, or all of a placement, has stopped."""

    for_good: tuple[BitMap, ...] = ()
    until: tuple[tuple[datetime, BitMap], ...] = ()
    """Those who have had enough for a day, with its end."""

    def end(self, profile_id: int, now: datetime) -> datetime | None:
        """Until when it has stopped for somebody, FOREVER for good; None when it has not."""
        for ids in self.for_good:
            if profile_id in ids:
                return FOREVER
        for end, ids in self.until:
            if end > now and profile_id in ids:
                return end
        return None


NO_STOPS = Stops()


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a banner is for."""

    everyone: bool = False
    """EVERYONE of the workspace: only then strangers see it."""
    included: tuple[Members, ...] = ()
    excluded: tuple[Members, ...] = ()

    def has(self, profile_id: int | None) -> bool:
        """Whether a profile (None: a visitor nobody knows) is among them."""
        if profile_id is None:
            return self.everyone
        # A loop: asked of every banner in every fetch, where `any` would cost as much again as the bitmaps.
        if not self.everyone:
            for one in self.included:
                if profile_id in one:
                    break
            else:
                return False
        return not (self.excluded and any(profile_id in one for one in self.excluded))


@dataclass(frozen=True, slots=True, eq=False)
class Banner:
    """A banner that is shown, is about to be, or is tried out."""

    campaign_id: UUID
    id: str
    """The campaign's, as rotation hashes it."""
    placement: str
    content: BannerContent
    content_version: int
    weight: int
    rules: BannerRules
    audience: Audience
    """In a test: the members of its test segment."""
    stops: Stops = NO_STOPS
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    in_test: bool = False

    def is_on(self, now: datetime) -> bool:
        """Whether its time has come and is not over."""
        return (self.starts_at is None or self.starts_at <= now) and not self.is_over(now)

    def is_over(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A placement with all banners that may be shown in it."""

    id: UUID
    key: str
    window_s: int
    slots: int = 1
    limits: Limits = NO_LIMITS
    stops: Stops = NO_STOPS
    tests: tuple[Banner, ...] = ()
    levels: tuple[tuple[Banner, ...], ...] = ()
    """By priority, the highest first."""
    edges: tuple[datetime, ...] = ()
    """Instants at which a banner starts or expires, in order."""

    @classmethod
    def of(
        cls,
        banners: Iterable[Banner],
        *,
        id: UUID,
        key: str,
        window_s: int,
        slots: int = 1,
        limits: Limits = NO_LIMITS,
        stops: Stops = NO_STOPS,
    ) -> "Place":
        """A placement of these banners; those of weight 0 are never shown."""
        banners = sorted((one for one in banners if one.weight > 0), key=lambda one: (-one.rules.priority, one.id))
        shown = [one for one in banners if not one.in_test]
        return cls(
            id=id,
            key=key,
            window_s=window_s,
            slots=slots,
            limits=limits,
            stops=stops,
            tests=tuple(one for one in banners if one.in_test),
            levels=tuple(tuple(level) for _, level in groupby(shown, key=lambda one: one.rules.priority)),
            edges=tuple(sorted({at for one in banners for at in (one.starts_at, one.expires_at) if at is not None})),
        )

    def next_edge(self, now: datetime) -> datetime | None:
        """When a banner here starts or expires next."""
        at = bisect_right(self.edges, now)
        return self.edges[at] if at < len(self.edges) else None


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """A workspace's placements by key: those in which something is or will be shown."""

    workspace_id: UUID
    places: Mapping[str, Place] = field(default_factory=dict)

    @classmethod
    def of(cls, workspace_id: UUID, banners: Iterable[Banner], *, window_s: int = 3600) -> "Board":
        """A board of banners alone, in placements of one window and one slot each."""
        by_place: dict[str, list[Banner]] = defaultdict(list)
        for one in banners:
            by_place[one.placement].append(one)
        places = {
            key: Place.of(found, id=UUID(int=place), key=key, window_s=window_s)
            for place, (key, found) in enumerate(by_place.items())
        }
        return cls(workspace_id, places)
