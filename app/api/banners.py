"""Banners as apps fetch them: by placement, for a viewer, from the process's board (app/serving.py)."""

from datetime import datetime
from typing import Annotated

from strawberry import ID

from app.api import ids
from app.api.banner_content import BannerFace
from app.api.banner_rules import BannerLimits
from app.api.declare import about, argument, output, query
from app.api.ids import Kind
from app.context import Info
from app.serving import Asked, Served, serve
from campaigns import banners, board
from campaigns.banner_tokens import ImpressionKind
from campaigns.banners import MOST_PLACEMENTS
from profiles.keys import Scope

LIMITS = (
    "How often one viewer is to see it. The server keeps to them for profiles, but for `perSession`; apps keep to that,"
    " and to all of them for visitors who have no profile."
)


@output
class Banner:
    """What to show in a placement."""

    id: ID = about("The campaign's id.")
    content_version: int = about("Grows with every change of the content.")
    content: BannerFace = about("What it says.")
    in_test: bool = about("Whether it is only tried out, by this viewer among others.")
    limits: BannerLimits = about(LIMITS)
    impression_token: str = about("Send it with every event about this banner: it proves who was shown what.")

    @classmethod
    def of(cls, served: Served, row: board.Banner, token: str) -> "Banner":
        return cls(
            id=ids.encode(Kind.CAMPAIGN, row.campaign_id),
            content_version=row.content_version,
            content=BannerFace.of(served.face(row)),
            in_test=row.in_test,
            limits=BannerLimits.of(row.rules.limits),
            impression_token=token,
        )


@output
class BannerCandidate:
    """A banner that an app may show while it has no network."""

    weight: int = about("Its weight, 1 to 100.")
    priority: int = about(
        "Only banners of the highest priority that are to be shown are chosen from; 101 of one that is tried out."
    )
    held: bool = about(
        "Whether this viewer is held out: never show it, and report it as HIDDEN where it would have been."
    )
    starts_at: datetime | None = about("Not before this instant.")
    expires_at: datetime | None = about("Not at this instant any more.")
    banner: Banner = about("The banner.")


@output
class BannerRotation:
    """What an app needs to choose by itself, as docs/rotation.md says; the viewer's key is `viewer` of the answer."""

    window_seconds: int = about("Length of a rotation window.")
    window: int = about("Number of the window that is now: Unix seconds divided by its length, rounded down.")
    slots: int = about("How many banners are shown at once.")
    candidates: list[BannerCandidate] = about("What may be shown to this viewer, now or later.")

    @classmethod
    def of(cls, served: Served, place: board.Place, window: int) -> "BannerRotation":
        return cls(
            window_seconds=place.window_s,
            window=window,
            slots=place.slots,
            candidates=[
                BannerCandidate(
                    weight=one.banner.weight,
                    priority=one.priority,
                    held=one.kind is ImpressionKind.HIDDEN,
                    starts_at=one.banner.starts_at,
                    expires_at=one.banner.expires_at,
                    banner=Banner.of(served, one.banner, served.impression_token(place, window, one.banner, one.kind)),
                )
                for one in served.candidates(place)
            ],
        )


@output
class PlacementDecision:
    """What one placement shows now."""

    placement: str = about("The placement's key, as asked.")
    banner: Banner | None = about("The banner; null when there is nothing to show.")
    further: list[Banner] = about("What the placement shows beside it, if it shows several at once, the best first.")
    hidden: list[str] = about("Impression tokens of banners that this viewer is held out of: report them as HIDDEN.")
    limits: BannerLimits | None = about(f"{LIMITS} Null where there is no such placement.")
    rotation: BannerRotation | None = about("What to choose from without a network; null unless `offline` is asked.")

    @classmethod
    def of(cls, served: Served, row: banners.PlacementDecision, *, offline: bool) -> "PlacementDecision":
        place, shown, rotation = row.place, [], None
        if place is not None:
            shown = [
                Banner.of(served, one.banner, served.impression_token(place, row.window, one.banner, one.kind))
                for one in row.shown
            ]
            rotation = BannerRotation.of(served, place, row.window) if offline else None
        return cls(
            placement=row.placement,
            banner=shown[0] if shown else None,
            further=shown[1:],
            hidden=served.hidden_tokens(row),
            limits=BannerLimits.of(place.limits) if place else None,
            rotation=rotation,
        )


@output
class BannerDecision:
    """What a viewer sees."""

    max_age_seconds: int = about("How long this holds at most; ask again after that.")
    viewer_token: str | None = about("Keep it and send it as X-Muster-Viewer from now on; null when yours still holds.")
    viewer: str = about("The key that rotation hashes; of a visitor also the anonymousId to send with events.")
    placements: list[PlacementDecision] = about("One for each placement, in the order asked.")


@output
class BannerQueries:
    @query(needs=Scope.READ, from_apps=True)
    async def banners(
        self,
        info: Info,
        placements: Annotated[list[str], argument(f"Keys of placements, at most {MOST_PLACEMENTS}.")],
        external_id: Annotated[
            str | None, argument("Whom it is for: servers may name anybody, apps leave it out and send a client token.")
        ] = None,
        locale: Annotated[
            str | None,
            argument("The language to show, such as pt-BR; left out: the client token's claim, then Accept-Language."),
        ] = None,
        offline: Annotated[bool, argument("Whether to answer `rotation` too, for choosing without a network.")] = False,
    ) -> BannerDecision:
        """The banners of each placement for this viewer. The same viewer keeps a banner for a rotation window."""
        context = info.context
        asked = Asked(tuple(placements), external_id=external_id, locale=locale, offline=offline)
        served = await serve(
            context.services,
            context.known_caller,
            asked,
            viewer_token=context.viewer_token,
            accept_language=context.accept_language,
            now=context.now,
        )
        return BannerDecision(
            max_age_seconds=served.max_age_s,
            viewer_token=served.sight.token,
            viewer=served.viewer.key,
            placements=[PlacementDecision.of(served, one, offline=offline) for one in served.decision.placements],
        )
