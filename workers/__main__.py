"""`python -m workers`: one worker process, which hears bells by arq. `muster worker` starts and restarts it."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import chain, repeat

import asyncpg
import uvloop

from app import logs, metrics
from app.resources import Resources, open_resources, segment_sources
from app.settings import Settings, SettingsError, load_settings
from app.wakeups import ALIVE_WITHIN
from db.transactions import across_workspaces
from segments.leases import Timing
from workers.hearing import hear_on
from workers.jobs import TURN_S, JobContext, deliver, evaluate
from workers.own_turns import Job, OwnTurns
from workers.pulsing import pulse_on
from workers.readiness import Readiness, answering
from workers.ticks import sweep, tick
from workers.turns import told

logger = logging.getLogger(__name__)

MOST_JOBS = 20
"""Turns of a process at once, of those that it heard bells for and of its own each; what they send at once is limited
by its slots, whatever their number."""
AFTER_TURN_S = 15.0
"""For what a turn does after its last answer, beside MUSTER_SEND_TIMEOUT_S for that answer."""
EVALUATE_TIMEOUT_S = Timing().longest.total_seconds() + TURN_S + 60
"""Above a turn at whose end the longest cycle begins."""
SEEN = "SELECT worker_seen($1, $2)"
GONE = "SELECT worker_gone($1)"


async def main(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT: then nothing more is taken, messages under way end, claims go back (R9)."""
    # A turn that is cut off leaves its messages in doubt: whoever stops waits for the longest one.
    longest_s = TURN_S + settings.send_timeout.total_seconds() + AFTER_TURN_S
    jobs = {"deliver": Job(told(deliver), longest_s), "evaluate": Job(told(evaluate), EVALUATE_TIMEOUT_S)}
    async with open_resources(settings) as opened, AsyncExitStack() as stack:
        resources = replace(opened, sources=segment_sources(packed=True))
        context = JobContext(resources=resources, under_way=set(), evaluating=set())
        readiness = Readiness({"database": partial(announce, resources), "valkey": resources.wakeups.reach})
        if settings.worker_port:
            numbers = partial(metrics_for, resources)
            stack.enter_context(
                answering(readiness, host=settings.api_host, port=settings.worker_port, metrics=numbers)
            )
        own_turns = OwnTurns(jobs, context, most=MOST_JOBS)
        resources.wakeups.here = own_turns.begin
        beside = [
            asyncio.create_task(readiness.look_on()),
            asyncio.create_task(tick_on(context)),
            asyncio.create_task(pulse_on(resources.sources, resources.carrier.stopping)),
        ]
        # Modules live as long as the process, and the thousands of messages on their way are no garbage: the usual
        # settings look through them at every 700 new objects.
        gc.collect()
        gc.freeze()
        gc.set_threshold(5_000, 20, 20)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, resources.carrier.stopping.set)
        try:
            await hear_on(jobs, context, own_turns, most=MOST_JOBS)
        finally:
            resources.carrier.stopping.set()
            await own_turns.end(within_s=longest_s)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await leave(resources)


def metrics_for(resources: Resources, authorization: str, address: str) -> bytes | None:
    """The numbers of this process; None for who may not see them. Called by another thread."""
    if not metrics.may_scrape(resources.settings, authorization, address):
        return None
    metrics.note_away(resources.carrier)
    return metrics.text()


async def tick_on(context: JobContext) -> None:
    """The clock, once a second. Beside arq and not one of its jobs: a queue full of work, or Valkey gone, must not
    hold up a schedule. At first it sweeps, for a process that starts may follow one that died with work in hand."""
    for look in chain((sweep,), repeat(tick)):
        try:
            await look(context)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            logger.warning("no tick: PostgreSQL is away", exc_info=True)
        except Exception:
            # Ended here, the clock would stand still in a process that looks alive.
            logger.exception("tick failed")
        await asyncio.sleep(1.0)


async def announce(resources: Resources) -> None:
    """Count among the workers alive for the next seconds. Raises what PostgreSQL says when it cannot be reached."""
    try:
        async with across_workspaces() as connection:
            await connection.fetchval(SEEN, resources.carrier.owner, ALIVE_WITHIN)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        logger.warning("not announced: PostgreSQL is away", exc_info=True)
        raise


async def leave(resources: Resources) -> None:
    """Count among the living no more; the others find out by themselves when PostgreSQL is away."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
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
