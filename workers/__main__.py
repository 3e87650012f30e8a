"""`python -m workers`: one arq worker process. `muster worker` starts and restarts it."""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, timedelta

import asyncpg
import uvloop
from arq import Worker, cron
from arq.worker import func

from app import logs
from app.resources import Resources, open_resources
from app.settings import Settings, SettingsError, load_settings
from app.wakeups import QUEUE, connect, decode, encode
from db.transactions import across_workspaces
from segments.evaluation import LEASE
from workers.jobs import deliver, evaluate
from workers.ticks import tick

logger = logging.getLogger(__name__)

MOST_JOBS = 20
"""Jobs of a process at once; what they send at once is limited by its slots, whatever their number."""
JOB_TIMEOUT_S = 60
"""Above a turn (25 s) and the wait for its last answers; arq starts a dead worker's jobs again after it and 10 s."""
SEEN = "SELECT worker_seen($1, $2)"
GONE = "SELECT worker_gone($1)"
ALIVE_WITHIN = timedelta(minutes=1)
ANNOUNCE_EVERY_S = 15.0


async def main(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT: then nothing more is claimed, messages under way end, claims go back (R9)."""
    async with open_resources(settings) as resources:
        announcing = asyncio.create_task(announce(resources))
        pool = await connect(settings.redis_url)
        worker = Worker(
            functions=[func(deliver, max_tries=1), func(evaluate, max_tries=1, timeout=LEASE)],  # type: ignore[arg-type]
            cron_jobs=[cron(tick, second=set(range(60)), timeout=30, max_tries=1, unique=True)],  # type: ignore[arg-type]
            queue_name=QUEUE,
            redis_pool=pool,
            max_jobs=MOST_JOBS,
            poll_delay=0.05,  # arq's default of 0.5 s does 200 jobs a second
            keep_result=0,
            job_timeout=JOB_TIMEOUT_S,
            job_completion_wait=JOB_TIMEOUT_S,
            health_check_interval=10,
            retry_jobs=False,
            ctx={"resources": resources},
            job_serializer=encode,
            job_deserializer=decode,
            timezone=UTC,
            log_results=False,
        )
        worker.on_stop = lambda _signal: resources.carrier.stopping.set()
        try:
            with suppress(asyncio.CancelledError):  # how arq ends after a signal
                await worker.async_run()
        finally:
            await worker.close()
            announcing.cancel()
            await leave(resources)


async def announce(resources: Resources) -> None:
    """Count among the workers alive, for as long as the event loop turns."""
    while True:
        try:
            async with across_workspaces() as connection:
                await connection.fetchval(SEEN, resources.carrier.owner, ALIVE_WITHIN)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            logger.warning("not announced: PostgreSQL is away", exc_info=True)
        await asyncio.sleep(ANNOUNCE_EVERY_S)


async def leave(resources: Resources) -> None:
    async with across_workspaces() as connection:
        await connection.execute(GONE, resources.carrier.owner)


def run(environ: Mapping[str, str]) -> int:
    try:
        settings = load_settings(environ)
    except SettingsError as refusal:
        sys.stderr.write(f"{refusal}\n")
        return 2
    logs.configure(form=settings.log_format, level=settings.log_level)
    uvloop.run(main(settings))
    return 0


if __name__ == "__main__":
    sys.exit(run(os.environ))
