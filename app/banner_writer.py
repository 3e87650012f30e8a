"""What viewers did with banners, gathered from the requests that come at once: one transaction writes them all.

A request is answered when its events are committed. While a transaction is under way the next ones gather, and a moment
longer when they are few, so that a thousand apps with an event each cost little more than one with a thousand; a
request that comes alone waits for nobody.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from app.problems import ApiError
from campaigns import banner_tracking
from campaigns.banner_events import BannerEvent
from campaigns.banner_tracking import Became

MOST_AT_ONCE = 5_000
"""Events of one transaction, beyond those of its last request."""
MOST_WAITING = 50_000
"""Events of one workspace; more are sent away, to come again."""
GATHERED_S = 0.01
"""So long those wait for others that came while a transaction was under way."""
ENOUGH = 500
"""Events that wait for no others: what a transaction costs by itself is little beside theirs."""
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InternalClientError,
)
"""Faults of the server or of the way to it, which are no request's own."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The events of a request, and where their fate is told."""

    events: Sequence[BannerEvent]
    now: datetime
    became: "asyncio.Future[list[Became]]"


class BannerWriter:
    """Writes the banner events of this process, a workspace's one transaction after the other."""

    def __init__(self) -> None:
        self.waiting: defaultdict[UUID, deque[Waiting]] = defaultdict(deque)
        self.events_waiting: Counter[UUID] = Counter()
        self.writing: dict[UUID, asyncio.Task[None]] = {}

    async def record(self, workspace_id: UUID, events: Sequence[BannerEvent], *, now: datetime) -> list[Became]:
        """What became of each, once they are committed. Raises ApiError BUSY, and what the database raises."""
        if not events:
            return []
        queue = self.waiting[workspace_id]
        if self.events_waiting[workspace_id] > MOST_WAITING:
            raise ApiError("BUSY", "More events come in than can be written; send these again in a while.")
        mine = Waiting(events, now, asyncio.get_running_loop().create_future())
        queue.append(mine)
        self.events_waiting[workspace_id] += len(events)
        if workspace_id not in self.writing:
            # A task of its own: whoever asked first may be gone before it is done.
            self.writing[workspace_id] = asyncio.create_task(self.write(workspace_id, queue))
        return await mine.became

    async def write(self, workspace_id: UUID, queue: deque[Waiting]) -> None:
        """Write until nothing waits."""
        wrote = False
        try:
            while queue:
                if wrote and self.events_waiting[workspace_id] < ENOUGH:
                    await asyncio.sleep(GATHERED_S)
                wrote = True
                taken = [queue.popleft()]
                events = list(taken[0].events)
                while queue and len(events) < MOST_AT_ONCE:
                    taken.append(queue.popleft())
                    events += taken[-1].events
                self.events_waiting[workspace_id] -= len(events)
                await self.write_all(workspace_id, taken, events)
        finally:
            del self.writing[workspace_id], self.waiting[workspace_id], self.events_waiting[workspace_id]

    async def write_all(self, workspace_id: UUID, taken: Sequence[Waiting], events: Sequence[BannerEvent]) -> None:
        """Write the events of several requests, and tell each of them. What fails for one is written for the others."""
        try:
            became = iter(await banner_tracking.record(workspace_id, events, now=max(one.now for one in taken)))
        except Exception as fault:
            if len(taken) > 1 and not isinstance(fault, AWAY):
                # Somebody's events cannot be written, and those of the others can.
                for one in taken:
                    await self.write_all(workspace_id, [one], one.events)
                return
            # Whatever it is, it is each request's: its answer says what is to be done.
            for one in taken:
                if not one.became.done():
                    one.became.set_exception(fault)
            return
        for one in taken:
            mine = [next(became) for _ in one.events]
            if not one.became.done():
                one.became.set_result(mine)
