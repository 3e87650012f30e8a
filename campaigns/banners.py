"""Which banner a viewer sees: eligibility by the board, choice by rotation. No database, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from campaigns import rotation
from campaigns.board import Banner, Board
from campaigns.rotation import Weighted

LONGEST_AGE = timedelta(seconds=60)
MOST_PLACEMENTS = 20


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks: a profile, or an anonymous visitor (profile_id None). `key` is what rotation hashes."""

    key: str
    profile_id: int | None


@dataclass(frozen=True, slots=True)
class PlacementDecision:
    placement: str
    banner: Banner | None
    """None: nothing to show here now."""


@dataclass(frozen=True, slots=True)
class BannerDecision:
    placements: tuple[PlacementDecision, ...]
    max_age: timedelta
    """How long the answer holds at most: never past an expiry or the end of a rotation window, and at most 60 s."""


def decide(board: Board, viewer: Viewer, placements: Sequence[str], *, now: datetime) -> BannerDecision:
    """The banner of each placement, in the order asked; the same viewer keeps it for a whole rotation window."""
    ages = [LONGEST_AGE]
    decisions = []
    for key in placements:
        window_s = board.windows_s.get(key, 3600)
        window = int(now.timestamp()) // window_s
        ages.append(timedelta(seconds=(window + 1) * window_s - now.timestamp()))
        live = [b for b in board.banners.get(key, ()) if b.expires_at is None or b.expires_at > now]
        eligible = {b.campaign_id: b for b in live if b.is_for(viewer.profile_id)}
        ages += [b.expires_at - now for b in eligible.values() if b.expires_at]
        chosen = rotation.choose(
            [Weighted(str(one), b.weight) for one, b in eligible.items()],
            viewer=viewer.key,
            placement=key,
            window=window,
        )
        banner = next((b for one, b in eligible.items() if str(one) == chosen), None)
        decisions.append(PlacementDecision(key, banner))
    return BannerDecision(tuple(decisions), min(ages))
