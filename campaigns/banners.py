"""Which banners a viewer sees: who may see what by the board, choice by rotation. No database, no clock."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from secrets import token_bytes
from typing import NamedTuple

from campaigns import rotation
from campaigns.banner_rules import HIGHEST_PRIORITY, is_held_out
from campaigns.banner_stops import FOREVER
from campaigns.banner_tokens import ImpressionKind
from campaigns.board import NO_STOPS, Banner, Board, Place, Stops

LONGEST_AGE = timedelta(seconds=60)
"""An answer is asked for again after that at the latest."""
MOST_PLACEMENTS = 20
UNKNOWN_WINDOW_S = 3600
"""Rotation window of a placement in which nothing is shown."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks. `key` is what rotation hashes."""

    key: str
    """`p` and the id of a profile, `a` and the random id of a visitor, `e` and the external id of somebody who has no
    profile yet."""
    profile_id: int | None
    """Whose segments and stops count; None: nobody's, only EVERYONE's banners are shown."""

    @classmethod
    def known(cls, profile_id: int) -> "Viewer":
        """Somebody whom a client token or a server named."""
        return cls(f"p{profile_id}", profile_id)

    @classmethod
    def stranger(cls) -> "Viewer":
        """A visitor who is here for the first time."""
        return cls("a" + urlsafe_b64encode(token_bytes(16)).rstrip(b"=").decode(), None)

    @property
    def id(self) -> bytes:
        """16 bytes for impressions: a profile's are its number, a visitor's their own."""
        if self.key[0] == "p":
            return int(self.key[1:]).to_bytes(16, "big")
        if self.key[0] == "a":
            return urlsafe_b64decode(self.key[1:] + "==")
        return blake2b(self.key.encode("utf-8", "replace"), digest_size=16).digest()


class Shown(NamedTuple):
    """A banner in a placement, or, HIDDEN, one that the holdout keeps away."""

    banner: Banner
    kind: ImpressionKind


@dataclass(frozen=True, slots=True)
class Candidate:
    """A banner that an app may choose by itself while it has no network."""

    banner: Banner
    kind: ImpressionKind
    """HIDDEN: the viewer is held out, so that it is never shown and gives its place to the next."""

    @property
    def priority(self) -> int:
        """What is chosen from first: of one in test above all others."""
        return HIGHEST_PRIORITY + 1 if self.kind is ImpressionKind.TEST else self.banner.rules.priority


class PlacementDecision(NamedTuple):
    placement: str
    place: Place | None
    """None: nothing is ever shown there."""
    window: int
    """Number of the rotation window."""
    shown: Sequence[Shown] = ()
    """The best first, at most as many as the placement has slots; empty: nothing to show now."""
    hidden: Sequence[Shown] = ()
    """What would be among them, were the viewer not held out."""


class BannerDecision(NamedTuple):
    placements: tuple[PlacementDecision, ...]
    good_until: datetime
    """When time alone may change something here: a start, an expiry, the end of a rotation window or of a day for which
    a banner has stopped."""


def decide(board: Board, viewer: Viewer, placements: Sequence[str], *, now: datetime) -> BannerDecision:
    """The banners of each placement, in the order asked; a viewer keeps them for a whole rotation window.

    Banners in test come first, for their testers. Then those of the highest priority of which something can be shown,
    by weight. One that holds the viewer out gives its place to the next.
    """
    made = []
    good_until = FOREVER
    for key in placements:
        choice = Choice(board.places.get(key), key, viewer, now)
        made.append(choice.decision())
        good_until = min(good_until, choice.good_until)
    return BannerDecision(tuple(made), good_until)


class Choice:
    """One placement for one viewer at one instant."""

    def __init__(self, place: Place | None, key: str, viewer: Viewer, now: datetime) -> None:
        self.place, self.key, self.viewer, self.now = place, key, viewer, now
        window_s = place.window_s if place else UNKNOWN_WINDOW_S
        self.window = int(now.timestamp()) // window_s
        self.good_until = datetime.fromtimestamp((self.window + 1) * window_s, UTC)
        """When time alone may change it."""
        if place and (edge := place.next_edge(now)):
            self.good_until = min(self.good_until, edge)

    def decision(self) -> PlacementDecision:
        """What is shown, and what would be."""
        if self.place is None:
            return PlacementDecision(self.key, None, self.window)
        slots = self.place.slots
        shown: list[Shown] = []
        if self.place.tests:
            shown += [Shown(one, ImpressionKind.TEST) for one in self.ranked(self.tests(self.place))][:slots]
        hidden: list[Shown] = []
        for level in self.levels(self.place):
            if len(shown) >= slots:
                break
            found = False
            for one in self.ranked(level):
                if len(shown) >= slots:
                    break
                if one.rules.holdout_percent and is_held_out(one.rules, viewer=self.viewer.key, campaign_id=one.id):
                    hidden.append(Shown(one, ImpressionKind.HIDDEN))
                else:
                    shown.append(Shown(one, ImpressionKind.SHOWN))
                    found = True
            if found:
                break
        return PlacementDecision(self.key, self.place, self.window, shown, hidden)

    def tests(self, place: Place) -> list[Banner]:
        """What this viewer tries out, whatever has stopped for it."""
        return [one for one in place.tests if one.is_on(self.now) and one.audience.has(self.viewer.profile_id)]

    def levels(self, place: Place) -> Iterator[list[Banner]]:
        """What this viewer may be shown, by priority, the highest first."""
        if self.has_stopped(place.stops):
            return
        now, profile_id = self.now, self.viewer.profile_id
        for level in place.levels:
            eligible = [
                one
                for one in level
                if one.is_on(now) and one.audience.has(profile_id) and not self.has_stopped(one.stops)
            ]
            if eligible:
                yield eligible

    def has_stopped(self, stops: Stops) -> bool:
        """Whether something has stopped for this viewer; takes note of when it goes on."""
        if stops is NO_STOPS or self.viewer.profile_id is None:
            return False
        end = stops.end(self.viewer.profile_id, self.now)
        if end is None:
            return False
        self.good_until = min(self.good_until, end)
        return True

    def ranked(self, eligible: Sequence[Banner]) -> Sequence[Banner]:
        """By this window's draws, the best first."""
        if len(eligible) < 2:
            # Nothing to choose from, and drawing is most of what a choice costs.
            return eligible
        return rotation.ranked(eligible, viewer=self.viewer.key, placement=self.key, window=self.window)


def candidates(place: Place, viewer: Viewer, *, now: datetime) -> list[Candidate]:
    """What a viewer may be shown in a placement now and later, as far as can be told now: those in test first, then by
    priority. Starts and expiries are the app's to heed, and the choice is (docs/rotation.md)."""
    choice = Choice(place, place.key, viewer, now)
    found = [
        Candidate(one, ImpressionKind.TEST)
        for one in place.tests
        if not one.is_over(now) and one.audience.has(viewer.profile_id)
    ]
    if choice.has_stopped(place.stops):
        return found
    for level in place.levels:
        for one in level:
            if not one.is_over(now) and one.audience.has(viewer.profile_id) and not choice.has_stopped(one.stops):
                held = is_held_out(one.rules, viewer=viewer.key, campaign_id=one.id)
                found.append(Candidate(one, ImpressionKind.HIDDEN if held else ImpressionKind.SHOWN))
    return found
