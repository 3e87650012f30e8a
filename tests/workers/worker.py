"""A worker without a queue: its jobs and ticks are called by tests, and its bells are remembered."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import cast
from uuid import UUID

from app.resources import Resources, segment_sources
from app.settings import Settings, load_settings
from campaigns.carrier import Carrier
from db.transactions import across_workspaces
from segments.sources import Sources
from tests.campaigns.factories import ScriptedChannel, carrier
from workers import jobs, ticks
from workers.jobs import JobContext

WAITING = "SELECT workspace_id, evaluation_id FROM open_evaluations(false, 500)"
ENVIRON = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "REDIS_URL": "redis://127.0.0.1:1",
    "MUSTER_ADDRESS_KEY": "an address key of the tests, 32+ bytes",
    "MUSTER_TOKEN_KEY": "a token key of the tests, at least 32 bytes",
    "MUSTER_SECRET_KEYS": "1:a key that seals secrets in the tests of 32+",
}


@dataclass
class RecordedBells:
    """In place of Wakeups: remembers who was rung for."""

    delivered: list[UUID] = field(default_factory=list)
    evaluated: list[UUID] = field(default_factory=list)
    behind: bool = False

    async def is_behind(self) -> bool:
        return self.behind

    async def deliver(self, *, workspace_id: UUID, campaign_id: UUID) -> None:
        self.delivered.append(campaign_id)

    async def deliver_on(self, *, workspace_id: UUID, campaign_id: UUID) -> None:
        self.delivered.append(campaign_id)

    async def evaluate(self, *, workspace_id: UUID, evaluation_id: UUID) -> None:
        self.evaluated.append(evaluation_id)


@dataclass
class Worker:
    """The part of a worker's resources that jobs and ticks use."""

    wakeups: RecordedBells = field(default_factory=RecordedBells)
    carrier: Carrier = field(default_factory=lambda: carrier(ScriptedChannel()))
    sources: Sources = field(default_factory=segment_sources)
    settings: Settings = field(default_factory=lambda: load_settings(ENVIRON))
    context: JobContext = field(init=False)

    def __post_init__(self) -> None:
        self.context = JobContext(resources=cast(Resources, self), under_way=set(), evaluating=set())

    async def evaluate_due(self, at: datetime) -> None:
        """What a worker does of evaluations when it is `at`: the clock's part, then the jobs that were rung for."""
        self.wakeups.evaluated.clear()
        await ticks.evaluate_due(self.context, at)
        async with across_workspaces() as connection:
            waiting = await connection.fetch(WAITING)
        for row in waiting:
            await jobs.evaluate(self.context, str(row["workspace_id"]), str(row["evaluation_id"]))
