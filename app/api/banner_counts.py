"""How often banners were seen, clicked and dismissed, as clients see it."""

from datetime import UTC, date, timedelta
from typing import Annotated, TypeAlias
from uuid import UUID

import strawberry

from app.api.declare import about, argument, looked_up, output, resolved
from app.api.placements import Placement
from app.context import Info
from app.problems import ApiError
from campaigns import banner_counts
from campaigns.banner_counts import BannerCounts as CountsRow
from campaigns.banner_counts import BannerDay

Day: TypeAlias = date
"""Within a class that has a field `date`."""
MOST_DAYS = 366
LATELY = timedelta(days=29)

CLICKS = "How often its link was followed."
CLICK_RATE = "Clicks of one impression; null without impressions."
DISMISSALS = "How often it was sent away."
HIDDEN = "Impressions that there would have been, were their viewers not held out."


@output
class BannerDayCounts:
    """What viewers did with a banner in one placement on one day of UTC."""

    date: Day = about("The day.")
    placement_key: strawberry.Private[UUID]
    impressions: int = about("How often it was seen.")
    unique_viewers: int = about("By how many that day.")
    clicks: int = about(CLICKS)
    click_rate: float | None = about(CLICK_RATE)
    dismissals: int = about(DISMISSALS)
    hidden: int = about(HIDDEN)

    @classmethod
    def of(cls, row: BannerDay) -> "BannerDayCounts":
        return cls(
            date=row.day,
            placement_key=row.placement_id,
            impressions=row.counts.impressions,
            unique_viewers=row.counts.unique_viewers,
            clicks=row.counts.clicks,
            click_rate=row.counts.click_rate,
            dismissals=row.counts.dismissals,
            hidden=row.counts.hidden,
        )

    @looked_up
    async def placement(self, info: Info) -> Placement | None:
        """Where; null when the placement was deleted since."""
        row = await info.context.loaders.placements.load(self.placement_key)
        return Placement.of(row) if row else None


@output
class BannerCounts:
    """What viewers did with a banner since ever. Machines are left out, and so is what testers saw."""

    campaign_key: strawberry.Private[UUID]
    impressions: int = about("How often it was seen: once for each token in each session.")
    unique_viewers: int = about("By how many: profiles, and strangers' devices.")
    clicks: int = about(CLICKS)
    click_rate: float | None = about(CLICK_RATE)
    dismissals: int = about(DISMISSALS)
    hidden: int = about(HIDDEN)

    @classmethod
    def of(cls, campaign_key: UUID, row: CountsRow) -> "BannerCounts":
        return cls(
            campaign_key=campaign_key,
            impressions=row.impressions,
            unique_viewers=row.unique_viewers,
            clicks=row.clicks,
            click_rate=row.click_rate,
            dismissals=row.dismissals,
            hidden=row.hidden,
        )

    @resolved
    async def days(
        self,
        info: Info,
        first: Annotated[date | None, argument("The first day, of UTC; left out: 29 days before the last.")] = None,
        last: Annotated[date | None, argument(f"The last day, of {MOST_DAYS} at most; left out: today.")] = None,
    ) -> list[BannerDayCounts]:
        """By day and placement, oldest first; those without anything are left out."""
        until = last or info.context.now.astimezone(UTC).date()
        since = first or until - min(LATELY, until - date.min)
        if not timedelta(0) <= until - since < timedelta(days=MOST_DAYS):
            raise ApiError("OUT_OF_RANGE", f"Ask for 1 to {MOST_DAYS} days at once.", field=("first",))
        rows = await banner_counts.days(info.context.workspace_id, self.campaign_key, first=since, last=until)
        return [BannerDayCounts.of(row) for row in rows]
