"""What viewers do with banners, as apps tell it: read from a token and checked, one event at a time.

Thousands come a second, so that ids and keys are bytes here and nothing of an event is made twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple, Self

from campaigns.banner_tokens import Impression, ImpressionKind
from campaigns.errors import CampaignError
from profiles.text import clean_choice, clean_text, is_plain

MOST_EVENTS = 1000
MOST_CHARACTERS = 200
"""Of an event's id and of a session's."""
MOST_AHEAD = timedelta(days=1)
"""Clocks of phones are wrong; by more than a day they are not believed."""
LONGEST_LATE = timedelta(days=30)
"""The days that a tally tells apart must reach back so far."""
LONGEST_WINDOW = timedelta(days=30)
"""Of rotation: an app that lost its network kept a token of a window that had begun so long before."""
VERSION_AND_WINDOW = Struct(">II")


class BannerEventKind(StrEnum):
    """What happened to a banner."""

    IMPRESSION = "IMPRESSION"
    HIDDEN = "HIDDEN"
    """It would have been shown, were the viewer not in its holdout."""
    CLICK = "CLICK"
    DISMISS = "DISMISS"


KINDS: Mapping[str, BannerEventKind] = {kind.value: kind for kind in BannerEventKind}
SEEN = (BannerEventKind.IMPRESSION, BannerEventKind.HIDDEN)
"""Told once a token and session; the others as often as they happen."""


class BannerEvent(NamedTuple):
    """One thing that a viewer did, checked."""

    shown: Impression
    kind: BannerEventKind
    event_key: bytes
    """128 bits of the app's own id."""
    impression_key: bytes | None
    """128 bits that impressions of one token in one session have in common; None of other kinds."""
    occurred_at: datetime
    """Aware, in UTC."""
    is_by_machine: bool = False

    @property
    def identity(self) -> bytes:
        """What its repetition has in common with it."""
        return self.shown.viewer + self.event_key

    @property
    def token_month(self) -> datetime:
        """The month in which its token's window began, by which events are kept."""
        return month_of(self.shown.window_start)

    @property
    def day(self) -> date:
        """The day of UTC it counts on."""
        return self.occurred_at.date()


@lru_cache(maxsize=1024)
def month_of(second: int) -> datetime:
    """Midnight of UTC at which the month of a Unix second began; kept, as a batch has few windows and many events."""
    return datetime.fromtimestamp(second, UTC).replace(day=1, hour=0, minute=0, second=0)


@dataclass(frozen=True, slots=True)
class Span:
    """What times are believed of the events of one request."""

    now: datetime
    late: timedelta
    earliest: datetime
    latest: datetime
    earliest_window: float
    """Unix seconds."""

    @classmethod
    def of(cls, now: datetime, *, late: timedelta) -> Self:
        """Whatever happened up to `late` before `now`, and was shown in a window of `LONGEST_WINDOW`."""
        return cls(now, late, now - late, now + MOST_AHEAD, (now - late - LONGEST_WINDOW).timestamp())


def clean(
    shown: Impression | None,
    *,
    kind: str,
    id: object,
    session_id: object,
    occurred_at: datetime,
    is_by_machine: bool,
    span: Span,
) -> BannerEvent:
    """The event, checked; `shown` is what its token says, None for a token that is not ours.

    A clock that is ahead counts as now. Raises CampaignError UNKNOWN_TOKEN, WRONG_KIND, TOO_OLD, IN_THE_FUTURE, and
    ProfileError for texts that cannot be kept.
    """
    if shown is None:
        message = "This token is not one that came with a banner of this workspace; send `impressionToken` as it was."
        raise CampaignError("UNKNOWN_TOKEN", message, field=("token",))
    known = KINDS.get(kind) or clean_choice(BannerEventKind, kind, field=("kind",))
    if (known is BannerEventKind.HIDDEN) is not (shown.kind is ImpressionKind.HIDDEN):
        message = "HIDDEN is told of banners that were held back, with a token of `hidden`, and nothing else of those."
        raise CampaignError("WRONG_KIND", message, field=("kind",))
    if not is_plain(id, MOST_CHARACTERS):
        id = clean_text(id, what="Event id", most=MOST_CHARACTERS, field=("id",))
    if occurred_at < span.earliest or shown.window_start < span.earliest_window:
        message = f"This is more than {span.late.days} days back, or its token is: leave it out."
        raise CampaignError("TOO_OLD", message, field=("occurred_at",))
    if occurred_at > span.latest:
        message = "This is more than a day ahead: check the sender's clock."
        raise CampaignError("IN_THE_FUTURE", message, field=("occurred_at",))
    impression_key = None
    if known in SEEN:
        if not is_plain(session_id, MOST_CHARACTERS):
            session_id = clean_text(session_id, what="Session id", most=MOST_CHARACTERS, field=("session_id",))
        of_token = shown.campaign + shown.placement + VERSION_AND_WINDOW.pack(shown.content_version, shown.window_start)
        impression_key = key(of_token + session_id.encode())
    return BannerEvent(shown, known, key(id.encode()), impression_key, min(occurred_at, span.now), is_by_machine)


def key(text: bytes) -> bytes:
    """128 bits of a text, which nobody can make two texts have in common."""
    return blake2b(text, digest_size=16).digest()
