"""One fetch of banners: who asks, what the board decides, and what goes into an answer, whichever way it was asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.auth import Caller, own_profile
from app.boards import Kept
from app.context import Services
from app.problems import ApiError
from app.viewers import Sight, see
from campaigns import banners, locales
from campaigns.banner_content import BannerFace, filled, locale_of, localized
from campaigns.banner_stops import day_of
from campaigns.banner_tokens import Impression, ImpressionKind, ImpressionTokens
from campaigns.banners import LONGEST_AGE, MOST_PLACEMENTS, BannerDecision, Candidate, PlacementDecision, Viewer
from campaigns.board import Banner, Place

LOCALE_CLAIM = "locale"
"""The claim of a client token that says its person's language."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a fetch wants."""

    placements: tuple[str, ...]
    external_id: str | None = None
    locale: str | None = None
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """What a viewer gets."""

    workspace_id: UUID
    viewer: Viewer
    locales: Sequence[str]
    claims: Mapping[str, object]
    sight: Sight
    kept: Kept
    decision: BannerDecision
    now: datetime
    tokens: ImpressionTokens

    @property
    def good_until(self) -> datetime:
        """When time alone may change what the viewer gets."""
        return min(self.decision.good_until, self.sight.expires_at)

    @property
    def max_age_s(self) -> int:
        """How many whole seconds it holds at most; at 0 it must not be kept."""
        left = min(LONGEST_AGE, self.good_until - self.now)
        return max(0, int(left.total_seconds()))

    def locale_of(self, banner: Banner) -> str | None:
        """Which of its languages this viewer sees it in; None: its own."""
        return locale_of(banner.content, self.locales)

    def face(self, banner: Banner) -> BannerFace:
        """What this viewer sees of it."""
        face = localized(banner.content, self.locale_of(banner))
        return filled(face, banner.content.variables, self.claims)

    def impression_token(self, place: Place, window: int, banner: Banner, kind: ImpressionKind) -> str:
        """What proves that it was shown."""
        return self.tokens.make(
            self.workspace_id,
            Impression(
                campaign=banner.campaign_id.bytes,
                placement=place.id.bytes,
                content_version=banner.content_version,
                viewer=self.viewer.id,
                profile_id=self.viewer.profile_id,
                window_start=window * place.window_s,
                kind=kind,
            ),
        )

    def hidden_tokens(self, decision: PlacementDecision) -> list[str]:
        """What proves that banners were held back."""
        if decision.place is None:
            return []
        place, window = decision.place, decision.window
        return [self.impression_token(place, window, one.banner, one.kind) for one in decision.hidden]

    def candidates(self, place: Place) -> list[Candidate]:
        """What an app may choose from by itself."""
        return banners.candidates(place, self.viewer, now=self.now)


async def serve(
    services: Services,
    caller: Caller,
    asked: Asked,
    *,
    viewer_token: str | None,
    accept_language: str | None,
    now: datetime,
) -> Served:
    """What the caller's viewer gets.

    Raises ApiError PLACEMENTS for none or too many of them, FORBIDDEN for a foreign profile, UNAVAILABLE while nothing
    can be told.
    """
    if not 1 <= len(asked.placements) <= MOST_PLACEMENTS:
        message = f"Ask for 1 to {MOST_PLACEMENTS} placements at once."
        raise ApiError("PLACEMENTS", message, field=("placements",))
    external_id = own_profile(caller, asked.external_id)
    kept = await services.boards.kept_of(caller.workspace_id, now=now)
    sight = await see(
        services.viewer_tokens,
        caller.workspace_id,
        external_id,
        viewer_token,
        merged=kept.reader.merged,
        away=kept.away,
        now=now,
    )
    # The board, or who looks, may have been waited for.
    now = services.clock()
    decision = banners.decide(kept.board, sight.viewer, asked.placements, now=now)
    if asked.offline:
        # An app may choose from banners too that were not looked at for this, and some come back the next day.
        next_day = day_of(now) + timedelta(days=1)
        decision = decision._replace(good_until=min(decision.good_until, next_day))
    return Served(
        workspace_id=caller.workspace_id,
        viewer=sight.viewer,
        locales=wanted_locales(asked, caller, accept_language),
        claims=caller.claims,
        sight=sight,
        kept=kept,
        decision=decision,
        now=now,
        tokens=services.impression_tokens,
    )


def wanted_locales(asked: Asked, caller: Caller, accept_language: str | None) -> tuple[str, ...]:
    """The languages to look for, the best first: as asked, else as claimed, else as the browser says."""
    if asked.locale:
        return (asked.locale,)
    claimed = caller.claims.get(LOCALE_CLAIM)
    if isinstance(claimed, str) and claimed:
        return (claimed,)
    return locales.accepted(accept_language) if accept_language else ()
