"""Hears bells: arq's loop, begun again with a new connection whenever Valkey went (ADR 0030)."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC

from arq import Worker
from arq.connections import ArqRedis
from arq.worker import func

from app.wakeups import QUEUE, VALKEY_AWAY, connect, decode, encode
from workers.jobs import JobContext
from workers.own_turns import Job, OwnTurns

AGAIN_AFTER_S = 2.0
"""Valkey is tried again."""
MISSED_AFTER_S = 1.0
"""A loop that has not ended by then is told once more."""


async def hear_on(jobs: Mapping[str, Job], context: JobContext, own_turns: OwnTurns, *, most: int) -> None:
    """Take a turn for each bell, `most` at once, until told to stop. Turns then under way are `own_turns`'s to end."""
    resources = context["resources"]
    stopping = resources.carrier.stopping
    while not stopping.is_set():
        try:
            pool = await connect(resources.settings.redis_url)
            resources.wakeups.found()
            await hear(arq_worker(jobs, context, pool, most=most), stopping, own_turns)
        except VALKEY_AWAY as error:
            resources.wakeups.lost(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_AFTER_S):
                    await stopping.wait()


async def hear(worker: Worker, stopping: asyncio.Event, own_turns: OwnTurns) -> None:
    """Listen until told to stop; raises VALKEY_AWAY when Valkey goes. No turn is cut off by either."""
    told = asyncio.create_task(stopping.wait())
    listening = asyncio.create_task(worker.async_run())
    try:
        await asyncio.wait({told, listening}, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()
    finally:
        told.cancel()
        while not listening.done():
            # Once may be missed: asyncio.wait_for of Python 3.11, by which redis-py sends, loses it as an answer comes.
            listening.cancel()
            await asyncio.wait({listening}, timeout=MISSED_AFTER_S)
        await asyncio.gather(told, listening, return_exceptions=True)
        # Not Worker.close: it raises what the first turn raises, which is that Valkey is away, and leaves the others.
        own_turns.take_over(worker.tasks.values(), worker.pool)


def arq_worker(jobs: Mapping[str, Job], context: JobContext, pool: ArqRedis, *, most: int) -> Worker:
    """A new one for each connection: one whose loop broke off has lost count of its jobs."""
    return Worker(
        functions=[
            func(job.take_turn, name=name, max_tries=1, timeout=job.longest_s)  # type: ignore[arg-type]
            for name, job in jobs.items()
        ],
        queue_name=QUEUE,
        redis_pool=pool,
        max_jobs=most,
        poll_delay=0.05,  # arq's default of 0.5 s does 200 jobs a second
        keep_result=0,
        handle_signals=False,
        health_check_interval=10,
        retry_jobs=False,
        ctx=dict(context),
        job_serializer=encode,
        job_deserializer=decode,
        timezone=UTC,
        log_results=False,
    )
