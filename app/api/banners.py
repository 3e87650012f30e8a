"""Banners as apps fetch them: by placement, for a viewer, from the process's board."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_urlsafe
from typing import Annotated, Any
from uuid import UUID

from strawberry import ID

from app.api import ids
from app.api.content import BannerContent
from app.api.declare import about, argument, output, query
from app.api.ids import Kind
from app.auth import own_profile
from app.context import Context, Info
from app.problems import ApiError
from campaigns.banners import MOST_PLACEMENTS, Viewer, decide
from campaigns.board import Banner as BannerRow
from campaigns.tokens import Signer
from profiles import profiles
from profiles.keys import Scope

VIEWER_TOKEN = "viewer"
"""The purpose its signature is for."""
KNOWN_FOR = timedelta(hours=24)
"""How long a profile's viewer token spares the look-up; a merge is noticed after that at the latest."""
ANONYMOUS_FOR = timedelta(days=400)


@output
class Banner:
    """What to show in a placement."""

    id: ID = about("The campaign's id.")
    content: BannerContent = about("What it says.")
    content_version: int = about("Grows with every change of the content.")

    @classmethod
    def of(cls, row: BannerRow) -> "Banner":
        return cls(
            id=ids.encode(Kind.CAMPAIGN, row.campaign_id),
            content=BannerContent.of(row.content),
            content_version=row.content_version,
        )

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "contentVersion": self.content_version, "content": self.content.to_json()}


@output
class PlacementDecision:
    """What one placement shows now."""

    placement: str = about("The placement's key, as asked.")
    banner: Banner | None = about("The banner; null when there is nothing to show.")

    def to_json(self) -> dict[str, Any]:
        return {"placement": self.placement, "banner": self.banner.to_json() if self.banner else None}


@output
class BannerDecision:
    """What a viewer sees."""

    placements: list[PlacementDecision] = about("One for each placement, in the order asked.")
    max_age_seconds: int = about("How long this holds at most; ask again after that.")
    viewer_token: str | None = about("Keep it and send it as X-Muster-Viewer from now on; null when yours still holds.")

    def to_json(self) -> dict[str, Any]:
        """The same as JSON, for GET /v1/banners."""
        return {
            "maxAgeSeconds": self.max_age_seconds,
            "viewerToken": self.viewer_token,
            "placements": [one.to_json() for one in self.placements],
        }


@dataclass(frozen=True, slots=True)
class Sight:
    """Who looks, and the token that says so the next time; None when theirs still holds."""

    viewer: Viewer
    token: str | None


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
    ) -> BannerDecision:
        """The banner of each placement for this viewer. The same viewer keeps a banner for a rotation window."""
        return await decision(info.context, placements, external_id=external_id)


async def decision(context: Context, placements: Sequence[str], *, external_id: str | None) -> BannerDecision:
    """What the request's viewer sees; raises ApiError for none or too many placements, or a foreign profile."""
    if not 1 <= len(placements) <= MOST_PLACEMENTS:
        message = f"Ask for 1 to {MOST_PLACEMENTS} placements at once."
        raise ApiError("PLACEMENTS", message, field=("placements",))
    sight = await see(context, own_profile(context.known_caller, external_id))
    board = await context.services.boards.board(context.workspace_id, now=context.now)
    made = decide(board, sight.viewer, placements, now=context.now)
    return BannerDecision(
        placements=[
            PlacementDecision(placement=one.placement, banner=Banner.of(one.banner) if one.banner else None)
            for one in made.placements
        ],
        # Whole seconds, never beyond: at 0 the answer must not be kept.
        max_age_seconds=max(0, int(made.max_age.total_seconds())),
        viewer_token=sight.token,
    )


async def see(context: Context, external_id: str | None) -> Sight:
    """Who looks. A token of ours spares the database; without one, a profile is looked up once."""
    signer = context.resources.signer
    if context.viewer_token is not None:
        viewer = read_token(signer, context.viewer_token, context.workspace_id, external_id, now=context.now)
        if viewer is not None:
            return Sight(viewer, None)
    if external_id is None:
        viewer = Viewer(f"a{token_urlsafe(16)}", None)
        expires_at = context.now + ANONYMOUS_FOR
    else:
        profile = await profiles.find_by_external_id(context.workspace_id, external_id)
        # Somebody not known yet sees what strangers see, always the same.
        viewer = Viewer(f"p{profile.id}", profile.id) if profile else Viewer(f"e{external_id}", None)
        expires_at = context.now + KNOWN_FOR
    return Sight(viewer, write_token(signer, viewer, context.workspace_id, external_id, expires_at=expires_at))


def write_token(
    signer: Signer, viewer: Viewer, workspace_id: UUID, external_id: str | None, *, expires_at: datetime
) -> str:
    """A token that names the viewer to this workspace, as long as the same person asks."""
    claims = [workspace_id.hex, external_id, viewer.key, viewer.profile_id, int(expires_at.timestamp())]
    return signer.sign(VIEWER_TOKEN, json.dumps(claims).encode())


def read_token(
    signer: Signer, token: str, workspace_id: UUID, external_id: str | None, *, now: datetime
) -> Viewer | None:
    """Who a token names; None when it is not ours, of another workspace or person, or expired."""
    payload = signer.verify(VIEWER_TOKEN, token)
    if payload is None:
        return None
    workspace, person, key, profile_id, expires = json.loads(payload)
    if (workspace, person) != (workspace_id.hex, external_id) or datetime.fromtimestamp(expires, UTC) <= now:
        return None
    return Viewer(key, profile_id)
