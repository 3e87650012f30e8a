"""Turns that a worker begins by itself, without a bell that arq hears, while Valkey is away (ADR 0030)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis

from app.wakeups import VALKEY_AWAY
from workers.jobs import JobContext

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What a bell names."""

    take_turn: Callable[[dict[Any, Any], str, str], Awaitable[None]]
    """(context, workspace, about what)"""
    longest_s: float
    """A turn is cut off after it, by arq and here."""


class OwnTurns:
    """Bells that could not be rung, first come first served, each once however often it comes."""

    def __init__(self, jobs: Mapping[str, Job], context: JobContext, *, most: int) -> None:
        self.jobs, self.context, self.most = jobs, context, most
        self.stopping = context["resources"].carrier.stopping
        self.around = copy_context()
        """Not that of whoever could not ring, whose spans and log fields are no turn's."""
        self.waiting: dict[tuple[str, str, str], None] = {}
        self.running: set[asyncio.Task[None]] = set()
        """No more than `most`."""
        self.taken_over: set[asyncio.Task[None]] = set()

    def begin(self, job: str, workspace_id: str, about: str) -> None:
        """Take a turn as soon as there is room for one; none when the process is to stop: others find the work."""
        if not self.stopping.is_set():
            self.waiting[job, workspace_id, about] = None
            self._fill()

    def take_over(self, tasks: Iterable[asyncio.Task[Any]], pool: ArqRedis) -> None:
        """Let turns that arq began come to their end, and close the connections that they have."""
        task = asyncio.create_task(see_out(tasks, pool))
        self.taken_over.add(task)
        task.add_done_callback(self.taken_over.discard)

    async def end(self, *, within_s: float) -> None:
        """Wait for all that are under way; those that take longer are cut off."""
        under_way = self.running | self.taken_over
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _fill(self) -> None:
        while self.waiting and len(self.running) < self.most:
            bell = next(iter(self.waiting))
            del self.waiting[bell]
            task = asyncio.create_task(self._turn(*bell), context=self.around.copy())
            self.running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        if not self.stopping.is_set():
            self._fill()

    async def _turn(self, name: str, workspace_id: str, about: str) -> None:
        job = self.jobs[name]
        try:
            async with asyncio.timeout(job.longest_s):
                await job.take_turn({**self.context, "job_id": uuid4().hex}, workspace_id, about)
        except Exception:
            logger.exception("turn failed", extra={"job": name, "workspace_id": workspace_id, "id": about})


async def see_out(tasks: Iterable[asyncio.Task[Any]], pool: ArqRedis) -> None:
    """Wait for them, whatever becomes of them: arq cannot write down the end of a turn while Valkey is away."""
    await asyncio.gather(*tasks, return_exceptions=True)
    with suppress(*VALKEY_AWAY):
        await pool.aclose()
