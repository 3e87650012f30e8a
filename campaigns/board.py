"""The board: a process's picture of one workspace's live banners, so that a fetch asks no database.

Read afresh every second or so (app/boards.py); correct within 2 s of a change. What a banner may say no to (expiry,
start) is checked again at the instant of the fetch, so those are exact to the second.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pyroaring import BitMap

from campaigns.audience import Targets, targets_of
from campaigns.content import BannerContent, content_from_json
from campaigns.models import Campaign, CampaignChannel, CampaignStatus, Placement
from db.transactions import transaction
from segments import everyone, membership
from segments.models import Segment, SegmentStatus, SegmentType


@dataclass(frozen=True, slots=True)
class Banner:
    """One live banner."""

    campaign_id: UUID
    placement: str
    content: BannerContent
    content_version: int
    weight: int
    expires_at: datetime | None
    for_everyone: bool
    """Whether it includes EVERYONE of the workspace: only then anonymous strangers see it."""
    included: BitMap
    excluded: BitMap

    def is_for(self, profile_id: int | None) -> bool:
        """Whether a profile (None: a visitor nobody knows) is targeted."""
        if profile_id is None:
            return self.for_everyone
        return (self.for_everyone or profile_id in self.included) and profile_id not in self.excluded


@dataclass(frozen=True, slots=True)
class Board:
    """Live banners by placement key, and the rotation window of each placement in seconds."""

    workspace_id: UUID
    banners: dict[str, tuple[Banner, ...]]
    windows_s: dict[str, int]
    made_at: datetime


async def load_board(workspace_id: UUID, *, now: datetime) -> Board:
    """Read a workspace's live banners with the bitmaps of the segments they name.

    A segment that is not ACTIVE now is left out, so that a live banner never counts a paused segment; one that was
    to be spared and is paused hides the banner from everybody, for safety.
    """
    async with transaction(workspace_id) as connection:
        live = await Campaign.filter(
            workspace_id=workspace_id, channel=CampaignChannel.BANNER, status=CampaignStatus.ACTIVE
        ).order_by("id")
        named_places = [c.placement_id for c in live]
        placements = {p.id: p for p in await Placement.filter(workspace_id=workspace_id, id__in=named_places)}
        targets = await targets_of(connection, workspace_id=workspace_id, campaign_ids=[c.id for c in live])
        named = {one for t in targets.values() for one in (*t.included, *t.excluded)}
        segments = {s.id: s for s in await Segment.filter(workspace_id=workspace_id, id__in=list(named))}
        active = {one: s for one, s in segments.items() if s.status is SegmentStatus.ACTIVE}
        members = await membership.load_many(connection, list(active))
        brands: dict[UUID, BitMap] = {}
        for campaign in live:
            if campaign.brand_id and campaign.brand_id not in brands:
                brands[campaign.brand_id] = await everyone.members(connection, campaign.brand_id)
    banners: dict[str, tuple[Banner, ...]] = {}
    for campaign in live:
        assert campaign.placement_id is not None
        key = placements[campaign.placement_id].key
        banner = banner_of(campaign, key, targets[campaign.id], active, members, brands)
        if banner is not None:
            banners[banner.placement] = (*banners.get(banner.placement, ()), banner)
    windows = {p.key: p.rotation_window_s for p in placements.values()}
    return Board(workspace_id, banners, windows, now)


def banner_of(
    campaign: Campaign,
    placement: str,
    targets: Targets,
    active: dict[UUID, Segment],
    members: dict[UUID, BitMap],
    brands: dict[UUID, BitMap],
) -> Banner | None:
    """A campaign as the board shows it; None when nobody can see it now."""
    included, excluded, for_everyone = BitMap(), BitMap(), False
    for one in targets.included:
        if one not in active:
            continue
        if active[one].type is not SegmentType.EVERYONE:
            included |= members.get(one, BitMap())
        elif campaign.brand_id:
            included |= brands[campaign.brand_id]
        else:
            for_everyone = True
    for one in targets.excluded:
        if one not in active or active[one].type is SegmentType.EVERYONE or one not in members:
            return None
        excluded |= members[one]
    content = content_from_json(campaign.channel, campaign.content)
    assert isinstance(content, BannerContent)
    assert campaign.weight is not None
    return Banner(
        campaign_id=campaign.id,
        placement=placement,
        content=content,
        content_version=campaign.content_version,
        weight=campaign.weight,
        expires_at=campaign.expires_at,
        for_everyone=for_everyone,
        included=included,
        excluded=excluded,
    )
