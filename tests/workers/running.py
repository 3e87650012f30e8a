"""`python -m workers` as a process of its own, and campaigns for it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from app.probe import missing_of_worker
from campaigns import control
from campaigns.listing import get
from campaigns.models import Campaign, CampaignStatus
from tests.blast.running import until
from tests.campaigns.factories import make_campaign
from tests.conftest import Database
from tests.contract.test_docs import ROOT
from tests.workers.test_readiness import HOST, free_port
from tests.workers.worker import ENVIRON


class Running:
    """One `python -m workers`, without the supervisor that would hide that it ended."""

    def __init__(self, database: Database, redis_url: str, smtp_port: int, log: Path) -> None:
        self.port, self.log = free_port(), log
        environ = {
            "DATABASE_URL": database.url,
            "REDIS_URL": redis_url,
            "MUSTER_SMTP_URL": f"smtp://{HOST}:{smtp_port}",
            "MUSTER_WORKER_PORT": str(self.port),
        }
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers"],
                env=os.environ | ENVIRON | environ,
                cwd=ROOT,
                stdout=file,
                stderr=file,
            )

    async def lacks(self, missing: list[str]) -> None:
        """Wait until that is what it says; it must not end."""

        async def ask() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return await asyncio.to_thread(missing_of_worker, HOST, self.port) == missing

        await until(f"missing: {missing}", ask)

    async def ended(self) -> int:
        """Its exit code."""
        return await asyncio.to_thread(self.process.wait, 60)

    def said(self, words: str) -> int:
        return self.log.read_text().count(words)


@asynccontextmanager
async def worker(database: Database, redis_url: str, smtp_port: int, folder: Path) -> AsyncIterator[Running]:
    running = Running(database, redis_url, smtp_port, folder / "worker.log")
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


async def make_due(workspace: UUID, **wanted: object) -> Campaign:
    """A campaign whose time has come."""
    now = datetime.now(UTC)
    campaign = await make_campaign(workspace, now=now, **wanted)
    return await control.schedule(workspace, campaign.id, at=now, now=now - timedelta(seconds=5))


async def is_sent(workspace: UUID, campaign: Campaign) -> None:
    async def ask() -> bool:
        return (await get(workspace, campaign.id)).status is CampaignStatus.SENT

    await until("the end of the campaign", ask)
