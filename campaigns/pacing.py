"""How fast messages leave: a campaign's rate and a channel's, each held for all workers together.

Each rate is one instant in PostgreSQL, when the next message may leave (GCRA, ITU-T I.371). A turn moves it on for a
group of messages at once, a tenth of a second's worth, waits until the group's instant has come, and lets it go: a
round trip a group, nothing is locked meanwhile, and no two workers hold the same instant. While PostgreSQL is away
nothing leaves.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from time import monotonic
from uuid import UUID

from db.transactions import Connection, transaction

AHEAD = timedelta(seconds=1)
"""Nobody reserves later than this: what a worker that dies has reserved is lost, and only that."""
GROUPS_A_SECOND = 10
TAKEN_AHEAD_S = 2
"""Of a slow campaign so much is taken and made at once: what changes about a person meanwhile is still seen."""
USABLE_S = 0.5
"""For so long after its instant a reservation may still be used, while slots fall free one by one; then it lapses, so
that a worker that was held up sends no burst."""

LOOK = """
SELECT now() AS now, c.rate_per_s FROM dispatch d
JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id WHERE d.workspace_id = $1 AND d.id = $2
"""
# `wait` is null when others have reserved the time to come, or the campaign has no rate any more. $3: messages.
RESERVE_CAMPAIGN = """
WITH run AS (
  SELECT d.id, c.rate_per_s, make_interval(secs => $3::float8 / c.rate_per_s) AS length FROM dispatch d
  JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id WHERE d.workspace_id = $1 AND d.id = $2),
taken AS (
  UPDATE dispatch d SET next_send_at = greatest(d.next_send_at, now()) + run.length FROM run
  WHERE d.workspace_id = $1 AND d.id = $2 AND run.rate_per_s IS NOT NULL
    AND (d.next_send_at IS NULL OR d.next_send_at <= now() + $4::interval)
  RETURNING d.next_send_at - run.length - now() AS wait)
SELECT run.rate_per_s, (SELECT wait FROM taken) AS wait FROM run
"""
RESERVE_CHANNEL = "SELECT reserve_pace($1, $2, $3, $4)"


class NotYet(Exception):
    """Others have reserved the time to come."""


@dataclass(slots=True)
class Pace:
    """The rates that one turn keeps. Not to be shared between tasks."""

    workspace_id: UUID
    dispatch_id: UUID
    channel: str
    """What the channel is called, the same in all processes."""
    channel_rate: int | None
    is_test: bool
    """Keeps the channel's rate only."""
    campaign_rate: int | None = None
    left: int = 0
    """Messages that may leave now."""
    lapses_at: float = 0.0

    @property
    def rate(self) -> int | None:
        """Messages a second; None when nothing limits them."""
        rates = [rate for rate in (self.campaign_rate, self.channel_rate) if rate]
        return min(rates) if rates else None

    def takeable(self, most: int) -> int:
        """How many messages to take and make at once."""
        return most if self.rate is None else min(most, ceil(self.rate * TAKEN_AHEAD_S))

    async def look(self, connection: Connection) -> datetime:
        """Read the campaign's rate, which may change while it is sent; answers the database's time."""
        row = await connection.fetchrow(LOOK, self.workspace_id, self.dispatch_id)
        self.campaign_rate = None if row is None or self.is_test else row["rate_per_s"]
        now: datetime = row["now"]
        return now

    async def wait(self, most: int, *, may_go_on: Callable[[], bool]) -> int:
        """Wait until 1 to `most` messages may leave and answer how many; 0 when the turn is over meanwhile."""
        while may_go_on():
            if (rate := self.rate) is None:
                return most
            if free := self.free(most):
                return free
            messages = max(1, min(most, rate // GROUPS_A_SECOND))
            try:
                wait_s = await self.reserve(messages)
            except NotYet:
                await asyncio.sleep(1 / GROUPS_A_SECOND)
                continue
            await asyncio.sleep(wait_s)
            self.left, self.lapses_at = messages, monotonic() + USABLE_S
        return 0

    def free(self, most: int) -> int:
        """How many of `most` messages may leave now; 0 when `wait` has to be asked first."""
        if self.rate is None:
            return most
        return min(self.left, most) if monotonic() < self.lapses_at else 0

    def use(self, messages: int) -> None:
        """So many have left."""
        self.left = max(0, self.left - messages)

    async def reserve(self, messages: int) -> float:
        """Seconds until `messages` may leave, by both rates; raises NotYet."""
        waits = [timedelta(0)]
        async with transaction(self.workspace_id, generic_plans=True) as connection:
            if self.campaign_rate:
                row = await connection.fetchrow(RESERVE_CAMPAIGN, self.workspace_id, self.dispatch_id, messages, AHEAD)
                self.campaign_rate = row["rate_per_s"]
                if self.campaign_rate and row["wait"] is None:
                    raise NotYet
                waits.append(row["wait"] or timedelta(0))
            if self.channel_rate:
                # Raised inside, so that what was reserved of the campaign's rate is given back.
                wait = await connection.fetchval(RESERVE_CHANNEL, self.channel, messages, self.channel_rate, AHEAD)
                if wait is None:
                    raise NotYet
                waits.append(wait)
        return max(waits).total_seconds()
