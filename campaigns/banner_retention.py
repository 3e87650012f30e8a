"""How long single banner events are kept: whole months of all workspaces are dropped, and what was counted stays."""

from datetime import date, datetime

from campaigns.banner_events import LONGEST_LATE, LONGEST_WINDOW
from db.transactions import across_workspaces

DROP = "SELECT drop_banner_months($1)"


async def drop_months(months: int, *, now: datetime) -> int:
    """Drop the months of tokens that ended more than `months` before this one; how many there were.

    Raises asyncpg.LockNotAvailableError when others write for so long that they would have to wait.
    """
    async with across_workspaces() as connection:
        dropped: int = await connection.fetchval(DROP, first_kept(months, now))
    return dropped


def complete_since(months: int, *, now: datetime) -> date:
    """The first day of UTC of which no event can have been dropped: whatever happened from then on was told with a
    token of a month that is kept."""
    return (first_kept(months, now) + LONGEST_LATE + LONGEST_WINDOW).date()


def first_kept(months: int, now: datetime) -> datetime:
    """Midnight of UTC at which the first month began that is kept."""
    year, month = divmod(now.year * 12 + now.month - 1 - months, 12)
    return now.replace(year=year, month=month + 1, day=1, hour=0, minute=0, second=0, microsecond=0)
