"""T-1, T-2, T-5, T-6: what becomes of a blast when the processes that send it are killed, stopped and held."""

import os
import signal
from collections.abc import Callable
from random import Random
from time import monotonic, time
from uuid import UUID

from killtest.audit import Comparison, Verdict
from killtest.blasts import Blast, Blasts, blast
from killtest.forms import Form
from killtest.settling import settle_in_doubt
from killtest.waiting import WaitedInVain, until
from killtest.witness import CLAIMS_OF, IN_TRANSACTION, OWNERS, READ, SENDING, WHO_PLANS, Standing
from killtest.yard import Worker, Yard

MOVES_WITHIN_S = 45.0
"""Lease (20 s), sweep (4 s), tick, and some."""
PREPARING_SHARE = 0.1
"""Of the kills, those that hit a worker while it writes the ledger; one at least."""


async def killed(yard: Yard, form: Form, *, name: str = "T-1", over: Blasts = blast) -> Verdict:
    """T-1: kill -9 of random workers, some while PREPARING; afterwards evidence settles every row in doubt."""
    verdict = Verdict(name, form.people, bound=form.blows * yard.settings.concurrency)
    draw = Random(f"{name} {yard.settings.seed}")
    preparing = max(1, round(form.blows * PREPARING_SHARE))
    async with over(yard, name, form.people) as one:
        await one.draft(ratePerSecond=form.rate)
        await one.begin()
        await kill_planners(one, preparing, form)
        await one.reached("SENDING", lambda found: found.status == "SENDING")
        whole = await kill_senders(one, verdict, form.blows - preparing, form, draw)
        await one.hasten()
        await one.finished()
        found = await end_of(one, verdict)
        verdict.more |= {"kills": form.blows, "preparing": preparing, "supervisors_too": whole}
        verdict.require(verdict.in_doubt <= verdict.bound, f"{verdict.in_doubt} in doubt")
        await settle_in_doubt(one, found, verdict)
    return verdict


async def kill_planners(one: Blast, kills: int, form: Form) -> None:
    """Kill workers in the middle of the statement that writes the ledger, which is held up until they are dead."""
    yard = one.yard
    for number in range(kills):
        async with one.witness.planning_held():
            if number == 0:
                for _ in range(form.workers):
                    yard.start_worker()

            async def planner() -> Worker | None:
                await one.standing()
                rows = await one.witness.rows(WHO_PLANS)
                return yard.worker_at(rows[0]["client_port"]) if rows else None

            (await until("a worker that writes the ledger", planner)).kill()


async def kill_senders(one: Blast, verdict: Verdict, kills: int, form: Form, draw: Random) -> int:
    """Kill random workers at random points of the blast; how many of them with their supervisors."""
    yard, whole_ones = one.yard, 0
    points = sorted(form.point(draw.uniform(0.0, form.blows)) for _ in range(kills))
    for point in points:
        found = await one.reached("the next kill", is_past(point))
        verdict.require(not found.finished, "the blast was over before the last kill")

        async def some_sender() -> Worker | None:
            await one.standing()
            return yard.some_sender(draw)

        victim = await until("a worker to kill", some_sender)
        whole = draw.random() < 0.5
        victim.kill(whole=whole)
        if whole:
            whole_ones += 1
            yard.bury(victim)
            yard.start_worker()
    return whole_ones


def is_past(point: float) -> Callable[[Standing], bool]:
    """Whether so many messages are settled and some are on their way, so that a blow hits something; or it is too late
    for one, which the caller has to look at."""
    return lambda found: found.finished or (found.settled >= point and found.states.get("sending", 0) > 0)


async def stopped(yard: Yard, form: Form, *, name: str = "T-2", over: Blasts = blast) -> Verdict:
    """T-2: rolling SIGTERMs, as a deployment sends them: nothing is in doubt, and every worker ends in time."""
    verdict = Verdict(name, form.people, bound=0)
    in_time_s = yard.settings.send_timeout_s + 5
    longest = 0.0
    draw = Random(f"{name} {yard.settings.seed}")
    async with over(yard, name, form.people) as one:
        known: frozenset[UUID] = frozenset()
        for _ in range(form.workers):
            yard.start_worker()
        known |= await one.workers_announced(form.workers)
        await one.draft(ratePerSecond=form.rate)
        await one.begin()
        for blow in range(form.blows):
            found = await one.reached("the next SIGTERM", is_past(form.point(blow)))
            verdict.require(not found.finished, f"the blast was over before SIGTERM {blow + 1}")
            leaving = draw.choice(yard.workers)
            began = monotonic()
            leaving.process.terminate()
            await has_ended(leaving)
            longest = max(longest, monotonic() - began)
            verdict.require(leaving.process.returncode == 0, f"a worker ended with {leaving.process.returncode}")
            yard.bury(leaving)
            yard.start_worker()
            known |= await one.workers_announced(1, besides=known)
        await one.hasten()
        await one.finished()
        await end_of(one, verdict)
    verdict.more |= {"sigterms": form.blows, "longest_exit_s": round(longest, 1), "exit_bound_s": in_time_s}
    verdict.require(longest <= in_time_s, f"a worker took {longest:.1f} s to end")
    verdict.require(verdict.in_doubt == 0, f"{verdict.in_doubt} in doubt")
    return verdict


async def taken_over(yard: Yard, form: Form) -> Verdict:
    """T-5: the rows of a killed worker are taken over within 45 s: one that dies for good, supervisor and all."""
    verdict = Verdict("T-5", form.people, bound=yard.settings.concurrency)
    async with blast(yard, "T-5", form.people) as one:
        boots: dict[UUID, Worker] = {}
        for _ in range(2):
            worker = yard.start_worker()
            (boot,) = await one.workers_announced(1, besides=frozenset(boots))
            boots[boot] = worker
        await one.draft(ratePerSecond=form.rate)
        await one.begin()

        async def at_work() -> tuple[UUID, UUID] | None:
            found = await one.standing()
            for owner in boots:
                if found.dispatch_id and await one.witness.rows(SENDING, found.dispatch_id, owner):
                    return found.dispatch_id, owner
            return None

        dispatch_id, owner = await until("a worker at work", at_work)
        victim = boots[owner]
        held = len(await one.witness.rows(SENDING, dispatch_id, owner))
        victim.kill(whole=True)
        began = monotonic()
        yard.bury(victim)

        async def moved() -> bool:
            await one.standing()
            left: int = await one.witness.value(CLAIMS_OF, owner)
            return left == 0

        await until("the rows of the dead worker to move", moved)
        took = monotonic() - began
        await one.hasten()
        await one.finished()
        found = await end_of(one, verdict)
        verdict.more |= {"held": held, "moved_after_s": round(took, 1), "moved_bound_s": MOVES_WITHIN_S}
        verdict.require(took <= MOVES_WITHIN_S, f"the rows moved after {took:.1f} s")
        verdict.require(held > 0, "the dead worker held nothing")
        verdict.require(verdict.in_doubt <= verdict.bound, f"{verdict.in_doubt} in doubt")
        await settle_in_doubt(one, found, verdict)
    return verdict


async def held_up(yard: Yard, form: Form, *, name: str = "T-6", over: Blasts = blast) -> Verdict:
    """T-6: a worker is stopped beyond its lease, others finish its rows, and it is continued: it sends none of those.

    What it had committed as `sending` when it was stopped may leave once, and is sent or in doubt, never twice.
    """
    verdict = Verdict(name, form.people * form.blows, bound=form.blows * yard.settings.concurrency)
    stopped_in_transaction, held, late = 0, 0, 0
    for number in range(form.blows):
        async with over(yard, name, form.people) as one:
            victim, owner, dispatch_id = await alone_at_work(one, form)
            sender, inside = await stop(one, victim, in_transaction=number % 2 == 1)
            stopped_in_transaction += inside
            read = {row["profile_id"] for row in await one.witness.rows(READ, dispatch_id, owner)}
            sending = {row["profile_id"] for row in await one.witness.rows(SENDING, dispatch_id, owner)}
            held += len(read)
            await one.hasten()
            yard.start_worker()
            await one.finished()
            before = len(one.arrivals(dispatch_id))
            os.kill(sender, signal.SIGCONT)
            continued_at = time()
            # It drains: whatever it would still do, it does before it ends.
            victim.process.terminate()
            await has_ended(victim)
            yard.bury(victim)
            after = one.arrivals(dispatch_id)[before:]
            whose = {address: id for id, address in one.addresses.items()}
            began = {whose[mail.recipient] for mail in after if mail.at >= continued_at}
            late += len(began)
            verdict.require(not began & read, f"{len(began & read)} rows only read were sent after the lease")
            verdict.require(began <= sending, "mails of rows that the stopped worker did not hold as sending")
            found = await end_of(one, verdict)
            await settle_in_doubt(one, found, verdict)
    verdict.more |= {
        "stops": form.blows,
        "stopped_in_transaction": stopped_in_transaction,
        "read_when_stopped": held,
        "left_late": late,
    }
    verdict.require(verdict.in_doubt <= verdict.bound, f"{verdict.in_doubt} in doubt")
    return verdict


async def stop(one: Blast, victim: Worker, *, in_transaction: bool) -> tuple[int, bool]:
    """SIGSTOP; the process id, and whether it stands in the middle of a transaction. With `in_transaction` it is let go
    and stopped again until it does."""
    while True:
        sender = victim.working()
        assert sender is not None
        os.kill(sender, signal.SIGSTOP)
        ports = [row["client_port"] for row in await one.witness.rows(IN_TRANSACTION)]
        inside = any(one.yard.worker_at(port) is victim for port in ports)
        if inside or not in_transaction:
            return sender, inside
        os.kill(sender, signal.SIGCONT)
        standing = await one.standing()
        if standing.finished:
            raise WaitedInVain("the blast was over before its worker could be stopped in a transaction")


async def has_ended(worker: Worker) -> None:
    """Come back when a worker is gone, supervisor and all."""

    async def ended() -> bool:
        return worker.process.poll() is not None

    await until("the end of a worker", ended)


async def alone_at_work(one: Blast, form: Form) -> tuple[Worker, UUID, UUID]:
    """Start one worker and the campaign; it, its boot id and the dispatch, once it is in the middle of it."""
    worker = one.yard.start_worker()
    await one.draft(ratePerSecond=form.rate)
    await one.begin()

    def is_at_work(found: Standing) -> bool:
        return all(found.states.get(state, 0) > 0 for state in ("pending", "sending", "sent"))

    found = await one.reached("a worker at work", is_at_work)
    ((owner,),) = await one.witness.rows(OWNERS)
    assert found.dispatch_id is not None
    return worker, owner, found.dispatch_id


async def end_of(one: Blast, verdict: Verdict) -> Comparison:
    """Both witnesses at the end of a blast, added to the verdict."""
    standing = await one.standing()
    verdict.require(standing.status == "SENT", f"the campaign is {standing.status}")
    assert standing.dispatch_id is not None
    found = await one.compared(standing.dispatch_id)
    verdict.count(found)
    return found
