"""How often banners were seen, clicked and dismissed: sums of what tracking counted. Machines and tests never count."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

import asyncpg

from db.transactions import transaction

OF_CAMPAIGNS = """
SELECT campaign_id, sum(impressions)::bigint AS impressions, sum(first_viewers)::bigint AS viewers,
  sum(clicks)::bigint AS clicks, sum(dismissals)::bigint AS dismissals, sum(hidden)::bigint AS hidden
FROM banner_day WHERE workspace_id = $1 AND campaign_id = ANY($2::uuid[]) GROUP BY campaign_id
"""
DAYS = """
SELECT day, placement_id, impressions, viewers, clicks, dismissals, hidden FROM banner_day
WHERE workspace_id = $1 AND campaign_id = $2 AND day BETWEEN $3 AND $4 ORDER BY day, placement_id
"""
# Counts are kept by adding; what they must be is told by the events. Of one campaign, by day.
RECOUNT = """
SELECT e.placement_id, (e.occurred_at AT TIME ZONE 'UTC')::date AS day,
  count(*) FILTER (WHERE e.kind = 'IMPRESSION') AS impressions,
  count(DISTINCT e.viewer) FILTER (WHERE e.kind = 'IMPRESSION') AS viewers,
  count(*) FILTER (WHERE e.kind = 'CLICK') AS clicks, count(*) FILTER (WHERE e.kind = 'DISMISS') AS dismissals,
  count(*) FILTER (WHERE e.kind = 'HIDDEN') AS hidden
FROM banner_event e
WHERE e.workspace_id = $1 AND e.campaign_id = $2 AND NOT e.machine
  AND e.occurred_at >= $3::date::timestamp AT TIME ZONE 'UTC'
GROUP BY e.placement_id, day ORDER BY day, e.placement_id
"""
COUNTED = "SELECT DISTINCT campaign_id FROM banner_day WHERE workspace_id = $1 ORDER BY campaign_id"


@dataclass(frozen=True, slots=True)
class BannerCounts:
    """What viewers did with a banner."""

    impressions: int = 0
    unique_viewers: int = 0
    """Each viewer once: a profile, or a stranger's device."""
    clicks: int = 0
    dismissals: int = 0
    hidden: int = 0
    """Impressions that there would have been, were their viewers not held out."""

    @property
    def click_rate(self) -> float | None:
        """Clicks of an impression; None without impressions."""
        return self.clicks / self.impressions if self.impressions else None


@dataclass(frozen=True, slots=True)
class BannerDay:
    """The counts of one placement on one day of UTC; there, viewers are those of that day."""

    day: date
    placement_id: UUID
    counts: BannerCounts

    @classmethod
    def of(cls, row: asyncpg.Record) -> "BannerDay":
        counts = (row["impressions"], row["viewers"], row["clicks"], row["dismissals"], row["hidden"])
        return cls(row["day"], row["placement_id"], BannerCounts(*counts))


async def of_campaigns(workspace_id: UUID, campaign_ids: Sequence[UUID]) -> dict[UUID, BannerCounts]:
    """Counts since ever by campaign id; of those nobody told anything about, none."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(OF_CAMPAIGNS, workspace_id, campaign_ids)
    return {
        row["campaign_id"]: BannerCounts(
            row["impressions"], row["viewers"], row["clicks"], row["dismissals"], row["hidden"]
        )
        for row in rows
    }


async def days(workspace_id: UUID, campaign_id: UUID, *, first: date, last: date) -> list[BannerDay]:
    """Counts by day and placement, oldest first; days without anything are left out."""
    async with transaction(workspace_id) as connection:
        return [BannerDay.of(row) for row in await connection.fetch(DAYS, workspace_id, campaign_id, first, last)]


async def verify(workspace_id: UUID, *, since: date = date.min) -> list[str]:
    """Sentences about campaigns whose counts of the days from `since` on are not those of their events; empty when all
    agree. Reads every event there is."""
    wrong = []
    async with transaction(workspace_id) as connection:
        for (campaign_id,) in await connection.fetch(COUNTED, workspace_id):
            kept = await connection.fetch(DAYS, workspace_id, campaign_id, since, date.max)
            told = await connection.fetch(RECOUNT, workspace_id, campaign_id, since)
            if list(map(BannerDay.of, kept)) != list(map(BannerDay.of, told)):
                wrong.append(f"banner {campaign_id}: its counts are not those of its events")
    return wrong
