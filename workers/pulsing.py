"""The pulse's loop, in every worker: a beat of each workspace that has live segments, once a second while nobody
changes and up to four times a second while people do.

Beside arq and not one of its jobs, like the tick: a queue full of work, or Valkey gone, must not let segments go stale.
All workers beat for all workspaces, and the clock's lock lets one of them do it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from time import monotonic
from uuid import UUID

from db.transactions import across_workspaces
from segments import pulse
from segments.engines.base import EngineError
from segments.engines.postgres import PostgresEngine
from segments.pulse import BATCH, Beat
from segments.settling import SMALL_BATCH
from segments.sources import Sources

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Between two looks at workspaces in which nothing happened."""
SOON_S = 0.25
"""After a beat that found people. So long an event waits for a beat, and then for those that came with it; with 100
segments a beat takes 50 ms of two processes' time however few it is about (a busy machine, 2026-11-22)."""
AT_ONCE = 3
"""Beats of a process at once, each of which takes two connections of the pool, and a third if one is free."""
LEAF_LIMIT = timedelta(seconds=5)
"""For one query of a beat, which holds locks meanwhile."""
LONGEST_BEAT_S = 60.0
SLOW_S = 1.0
LONGEST_REST_S = 60.0
SHRINK = 2
"""How much smaller the next batch is when one took too long."""

LIVE_WORKSPACES = "SELECT workspace_id FROM live_workspaces()"

BeatOnce = Callable[[UUID, int], Awaitable[Beat | None]]
"""A beat of a workspace with at most so many changes."""


class Again(Enum):
    """When a workspace is to beat again."""

    AT_ONCE = "at once"
    """Others wait already."""
    SOON = "soon"
    LATER = "later"
    """When the loop comes by."""


@dataclass(slots=True)
class Heart:
    """One workspace's pulse in this process."""

    workspace_id: UUID
    batch: int = BATCH
    beating: bool = False
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0
    """By `monotonic()`."""

    async def beat_on(
        self, beat: BeatOnce, slots: asyncio.Semaphore, stopping: asyncio.Event, *, soon_s: float = SOON_S
    ) -> None:
        """Beat until nobody changes any more; never raises. A slot is given back between two beats, so that a
        workspace with much to do takes turns with the others."""
        self.beating = True
        try:
            again = Again.AT_ONCE
            while again is not Again.LATER and not stopping.is_set():
                async with slots:
                    again = await self.beat_once(beat)
                if again is Again.SOON:
                    await pause(stopping, soon_s)
        finally:
            self.beating = False

    async def beat_once(self, beat: BeatOnce) -> Again:
        """When to beat again."""
        began = monotonic()
        try:
            async with asyncio.timeout(LONGEST_BEAT_S):
                done = await beat(self.workspace_id, self.batch)
        except Exception as e:
            return self.rest(e)
        took = monotonic() - began
        if done is not None and took > SLOW_S:
            facts = {"took_ms": round(took * 1000), "evaluated": done.evaluated, "batch": self.batch}
            logger.warning("slow pulse", extra={"workspace_id": self.workspace_id, **facts})
        self.failures = 0
        if done is None:
            # Somebody holds the clock or a segment, not for long.
            return Again.SOON
        if done.more:
            return Again.AT_ONCE
        self.batch = BATCH
        return Again.SOON if done.evaluated else Again.LATER

    def rest(self, error: Exception) -> Again:
        """What follows a failed beat, of which nothing is left: a smaller one at once, or a rest that grows."""
        slow = isinstance(error, TimeoutError) or (
            isinstance(error, EngineError) and error.code == "CONDITION_TOO_SLOW"
        )
        if slow and self.batch > SMALL_BATCH:
            self.batch = max(SMALL_BATCH, self.batch // SHRINK)
            logger.info("smaller pulse", extra={"workspace_id": self.workspace_id, "batch": self.batch})
            return Again.AT_ONCE
        self.failures += 1
        rest_s = min(LONGEST_REST_S, PAUSE_S * 2.0**self.failures)
        self.rests_until = monotonic() + rest_s
        if self.failures == 1:
            # Once: what does not go away by itself would fill the log.
            logger.error("no pulse", extra={"workspace_id": self.workspace_id}, exc_info=error)
        return Again.LATER


async def pulse_on(sources: Sources, stopping: asyncio.Event, *, pause_s: float = PAUSE_S) -> None:
    """Keep the live segments of all workspaces true until `stopping`; beats under way then end first.

    Being cancelled ends it at once: a beat is one transaction.
    """
    limited = replace(sources, engine=PostgresEngine(statement_timeout=LEAF_LIMIT))

    async def beat(workspace_id: UUID, batch: int) -> Beat | None:
        return await pulse.beat(workspace_id, sources=limited, batch=batch)

    await beat_for(live_workspaces, beat, stopping, pause_s=pause_s)


async def beat_for(
    workspaces: Callable[[], Awaitable[list[UUID]]], beat: BeatOnce, stopping: asyncio.Event, *, pause_s: float
) -> None:
    """Every `pause_s` let each of `workspaces()` beat that does not yet, or rests after a failure."""
    hearts: dict[UUID, Heart] = {}
    slots = asyncio.Semaphore(AT_ONCE)
    away = False
    async with asyncio.TaskGroup() as group:
        while not stopping.is_set():
            try:
                found = await workspaces()
                away = False
            except Exception as e:
                if not away:
                    logger.warning("no pulse: workspaces not found", exc_info=e)
                found, away = [], True
            for workspace_id in found:
                heart = hearts.setdefault(workspace_id, Heart(workspace_id))
                if not heart.beating and heart.rests_until <= monotonic():
                    heart.beating = True
                    group.create_task(heart.beat_on(beat, slots, stopping))
            hearts = {id: heart for id, heart in hearts.items() if heart.beating or away or id in found}
            await pause(stopping, pause_s)


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until `stopping`."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return


async def live_workspaces() -> list[UUID]:
    """Workspaces with live segments, or with members to be moved after a merge or an erasure."""
    async with across_workspaces() as connection:
        return [row["workspace_id"] for row in await connection.fetch(LIVE_WORKSPACES)]
