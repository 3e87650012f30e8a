"""T-3 and T-4: a blast while PostgreSQL and Valkey are restarted under it."""

import signal
from collections.abc import Iterable
from datetime import timedelta
from itertools import pairwise
from random import Random
from time import monotonic, time
from uuid import UUID

import redis.asyncio

from killtest.audit import Verdict
from killtest.blasts import Blast, Blasts, blast
from killtest.deaths import end_of, is_past
from killtest.forms import Form
from killtest.settling import settle_in_doubt
from killtest.waiting import until
from killtest.witness import NOW
from killtest.yard import Yard

LONGEST_STALL_S = 60.0
LONG_BLOW = 1
"""The one at which Valkey stays away for longer, counted from 0."""
LONGEST_STALL_WITHOUT_VALKEY_S = 10.0


async def postgres_restarted(yard: Yard, form: Form, *, name: str = "T-3", over: Blasts = blast) -> Verdict:
    """T-3: PostgreSQL is stopped, fast and immediate by turns, and started again.

    In doubt may be what a worker had told PostgreSQL to commit as `sending` when the answer was lost: it sends none of
    that, and cannot know whether it was committed.
    """
    verdict = Verdict(name, form.people, bound=form.blows * form.workers * yard.settings.concurrency)
    draw = Random(f"{name} {yard.settings.seed}")
    async with over(yard, name, form.people) as one:
        await begin_with_workers(one, form)
        for blow in range(form.blows):
            await next_blow(one, verdict, blow, form)
            yard.restart_postgres(signal.SIGQUIT if blow % 2 else signal.SIGINT, away_s=draw.uniform(0.0, 1.5))
        await one.hasten()
        standing = await one.finished()
        await all_working(yard)
        found = await end_of(one, verdict)
        verdict.more |= {"restarts": form.blows, "longest_stall_s": longest_stall(one, [standing.dispatch_id])}
        verdict.require(verdict.in_doubt <= verdict.bound, f"{verdict.in_doubt} in doubt")
        await settle_in_doubt(one, found, verdict)
    return verdict


async def valkey_lost(yard: Yard, form: Form) -> Verdict:
    """T-4: FLUSHALL and restarts of Valkey by turns, one of which takes long, with a schedule that falls due meanwhile.

    No worker ends of it, and messages leave while it is away.
    """
    verdict = Verdict("T-4", form.people * 2)
    draw = Random(f"T-4 {yard.settings.seed}")
    async with blast(yard, "T-4", form.people) as one:
        await one.draft(ratePerSecond=form.rate)
        at = await one.witness.value(NOW) + timedelta(seconds=5)
        await one.console.send("CampaignSchedule", input={"id": one.campaign, "at": at.isoformat()})
        scheduled = one.campaign
        await begin_with_workers(one, form)
        blasted = one.campaign
        children = [worker.working() for worker in yard.workers]
        gone = back = 0.0
        for blow in range(form.blows):
            await next_blow(one, verdict, blow, form)
            if blow == LONG_BLOW:
                gone = time()
                yard.restart_valkey(away_s=form.away_s)
                back = time()
            elif blow % 2:
                yard.restart_valkey(away_s=draw.uniform(0.0, 2.0))
            else:
                await flush(yard)
        await one.hasten()
        dispatches = []
        for campaign in (blasted, scheduled):
            one.campaign = campaign
            dispatches.append((await one.finished()).dispatch_id)
            await end_of(one, verdict)
        back_after_s = await all_working(yard)
        verdict.require([worker.working() for worker in yard.workers] == children, "a worker ended")
        stall = longest_stall(one, dispatches)
        meanwhile = [at for at in mailed_at(one, dispatches) if gone < at < back]
        stall_without = longest_gap([gone, *meanwhile, back])
    verdict.more |= {"blows": form.blows, "longest_stall_s": stall, "stall_bound_s": LONGEST_STALL_S}
    verdict.more["workers_back_after_s"] = round(back_after_s, 1)
    verdict.more |= {"away_s": round(back - gone, 1), "mails_meanwhile": len(meanwhile)}
    verdict.more |= {"stall_meanwhile_s": stall_without, "stall_meanwhile_bound_s": LONGEST_STALL_WITHOUT_VALKEY_S}
    verdict.require(stall <= LONGEST_STALL_S, f"nothing was sent for {stall} s")
    verdict.require(len(meanwhile) > 0, "nothing was sent without Valkey")
    verdict.require(stall_without < LONGEST_STALL_WITHOUT_VALKEY_S, f"without Valkey nothing for {stall_without} s")
    verdict.require(verdict.in_doubt == 0, f"{verdict.in_doubt} in doubt")
    return verdict


async def begin_with_workers(one: Blast, form: Form) -> None:
    """Start the workers, then the campaign."""
    for _ in range(form.workers):
        one.yard.start_worker()
    await one.workers_announced(form.workers)
    await one.draft(ratePerSecond=form.rate)
    await one.begin()


async def next_blow(one: Blast, verdict: Verdict, blow: int, form: Form) -> None:
    """Come back when it is time for blow number `blow`, counted from 0: they are spread evenly."""
    found = await one.reached("the next blow", is_past(form.point(blow + 0.5)))
    verdict.require(not found.finished, f"the blast was over before blow {blow + 1}")


async def all_working(yard: Yard) -> float:
    """Wait until each supervisor that was started has a child that works again; the seconds it took."""
    began = monotonic()

    async def ask() -> bool:
        return all(worker.working() is not None for worker in yard.workers)

    await until("all workers to be back", ask, within_s=LONGEST_STALL_S)
    return monotonic() - began


async def flush(yard: Yard) -> None:
    """Forget everything that Valkey knows."""
    valkey = redis.asyncio.from_url(yard.stack.environ["REDIS_URL"])
    await valkey.flushall()
    await valkey.aclose()


def longest_stall(one: Blast, dispatches: Iterable[UUID | None]) -> float:
    """The longest time without a mail between the first of all these dispatches and the last, in seconds."""
    return longest_gap(mailed_at(one, dispatches))


def mailed_at(one: Blast, dispatches: Iterable[UUID | None]) -> list[float]:
    """When the mails of all these dispatches arrived, in that order."""
    return sorted(mail.at for dispatch in dispatches if dispatch for mail in one.arrivals(dispatch))


def longest_gap(times: Iterable[float]) -> float:
    """Between two that follow each other, in seconds."""
    return round(max((later - earlier for earlier, later in pairwise(times)), default=0.0), 1)
