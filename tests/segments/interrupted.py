"""Evaluations that are interrupted half-way: engines that answer and then wait, and workers that are killed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pyroaring import BitMap

from db.transactions import transaction
from segments import cycles, evaluation
from segments.engines.postgres import PostgresEngine
from segments.leases import Timing
from segments.models import Evaluation, EvaluationCause, Segment
from segments.sources import Sources
from tests.segments.beats import Gate

QUICK = Timing(look_every=timedelta(milliseconds=5))
"""Notices at once what is not wanted any more."""


class AnsweringEngine(PostgresEngine):
    """Counts the leaves it is asked, and waits at a gate, once, with its answer in hand."""

    name = "answering"

    def __init__(self, gate: Gate | None = None) -> None:
        super().__init__()
        self.gate = gate
        self.questions: list[Sequence[Any]] = []
        self.cancelled = asyncio.Event()

    async def ids(self, *, leaves: Sequence[Any], **rest: Any) -> list[BitMap]:
        self.questions.append(leaves)
        found = await super().ids(leaves=leaves, **rest)
        if self.gate is not None:
            gate, self.gate = self.gate, None
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return found


class BrokenEngine(PostgresEngine):
    """Fails as it is told to."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure = failure

    async def ids(self, **_: Any) -> list[BitMap]:
        raise self.failure


@dataclass(frozen=True)
class HalfWay:
    """A cycle whose leaves are answered; it goes on when told to."""

    running: "asyncio.Task[list[UUID] | None]"
    engine: AnsweringEngine
    gate: Gate

    def go_on(self) -> None:
        self.gate.opened.set()


@asynccontextmanager
async def half_way(
    workspace_id: UUID, *, now: datetime | None = None, timing: Timing = QUICK
) -> AsyncIterator[HalfWay]:
    """A cycle that goes on, and ends, when the body does."""
    gate = Gate()
    engine = AnsweringEngine(gate)
    running = asyncio.create_task(cycles.run(workspace_id, sources=Sources(engine), now=now, timing=timing))
    await gate.reached.wait()
    try:
        yield HalfWay(running, engine, gate)
    finally:
        gate.opened.set()
        await asyncio.gather(running, return_exceptions=True)


async def killed_worker(workspace_id: UUID) -> None:
    """Somebody takes what waits and dies; the leases are over."""
    async with half_way(workspace_id) as half:
        half.running.cancel()
    async with transaction(workspace_id) as connection:
        await connection.execute(
            "UPDATE evaluation SET lease_until = now() - interval '1 s' WHERE status = 'RUNNING' AND workspace_id = $1",
            workspace_id,
        )


async def request(segment: Segment, now: datetime) -> UUID:
    """The id of the segment's open evaluation."""
    asked = await evaluation.request(segment.workspace_id, segment.id, cause=EvaluationCause.REQUEST, now=now)
    return asked.id


async def reread(workspace_id: UUID, evaluation_id: UUID) -> Evaluation:
    found = await evaluation.find(workspace_id, evaluation_id)
    assert found is not None
    return found


async def newest(segment: Segment) -> Evaluation:
    return (await evaluation.latest(segment.workspace_id, [segment.id]))[segment.id]
