"""What viewers did with banners, gathered from the requests that come at once: one transaction writes them all.

A request is answered when its events are committed. While a transaction is under way the next ones gather, and a moment
longer when they are few, so that a thousand apps with an event each cost little more than one with a thousand; a
request that comes alone waits for nobody. Many are written by two transactions at once: this process packs the events
of one while PostgreSQL writes those of the other.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from app.problems import ApiError
from campaigns import banner_tracking
from campaigns.banner_events import BannerEvent
from campaigns.banner_tracking import Became

WRITERS = 2
"""Transactions of one workspace at once; a third would only wait for the counts that the others change."""
MOST_AT_ONCE = 2_000
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


@dataclass(slots=True, eq=False)
class Line:
    """What waits to be written of one workspace."""

    requests: deque[Waiting] = field(default_factory=deque)
    events: int = 0
    """In all of them."""
    writers: int = 0
    """Who write it now."""


class BannerWriter:
    """Writes the banner events of this process."""

    def __init__(self) -> None:
        self.lines: dict[UUID, Line] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        """The event loop itself holds them weakly."""

    async def record(self, workspace_id: UUID, events: Sequence[BannerEvent], *, now: datetime) -> list[Became]:
        """What became of each, once they are committed. Raises ApiError BUSY, and what the database raises."""
        if not events:
            return []
        line = self.lines.setdefault(workspace_id, Line())
        if line.events > MOST_WAITING:
            raise ApiError("BUSY", "More events come in than can be written; send these again in a while.")
        mine = Waiting(events, now, asyncio.get_running_loop().create_future())
        line.requests.append(mine)
        line.events += len(events)
        if not line.writers or (line.writers < WRITERS and line.events >= ENOUGH):
            line.writers += 1
            # A task of its own: whoever asked first may be gone before it is done.
            task = asyncio.create_task(self.write(workspace_id, line))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        return await mine.became

    async def write(self, workspace_id: UUID, line: Line) -> None:
        """Write until nothing waits, or so little that another writer's next transaction has room for it."""
        wrote = False
        try:
            while line.requests:
                if wrote and line.events < ENOUGH:
                    if line.writers > 1:
                        return
                    await asyncio.sleep(GATHERED_S)
                    if not line.requests:
                        # So many came meanwhile that a second writer took them.
                        return
                wrote = True
                taken = [line.requests.popleft()]
                events = list(taken[0].events)
                while line.requests and len(events) < MOST_AT_ONCE:
                    taken.append(line.requests.popleft())
                    events += taken[-1].events
                line.events -= len(events)
                await self.write_all(workspace_id, taken, events)
        finally:
            line.writers -= 1
            if not line.writers:
                del self.lines[workspace_id]

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
