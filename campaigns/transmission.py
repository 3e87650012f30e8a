"""Sends one dispatch: take, make, intent, send, outcome, with a fixed number of messages under way (R2 to R5).

A slot is free only when the outcome of its message is committed, so that a kill -9 leaves at most `concurrency`
messages of a process in doubt. The outcomes of a group and the intents of the next are one commit, half of the slots
at a time: the other half is under way meanwhile.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from campaigns import claims, ledger
from campaigns.answers import Answer, Ready, not_begun, settle
from campaigns.breaker import Breaker, Pause
from campaigns.carrier import Carrier
from campaigns.intents import Intended
from campaigns.lanes import Lane
from campaigns.leases import open_lease
from campaigns.pacing import Pace
from channels.base import Outcome, OutcomeKind, OutcomeScope
from db.outages import is_passing
from db.transactions import transaction
from profiles import consent

logger = logging.getLogger(__name__)

BATCH = 500
"""Messages taken at once: enough to cost little each, and few enough to be read again by others when a turn ends."""
LULL_S = 0.03
"""After so long without enough answers for a group, those that came are written. What a group costs the ledger is half
beginning its statements, so larger ones are cheaper; a slot waits half as long for it on average."""
LOOK_AGAIN_S = 0.25
HOST_AWAY_S = 4.0
"""So long a turn with nothing under way waits for a host that is away; then the sweeper rings again. A process has few
places for jobs."""
FIRST_PATIENCE_S, LONGEST_PATIENCE_S = 0.1, 5.0
"""Between attempts to write while PostgreSQL is away."""


@dataclass(frozen=True, slots=True)
class Transmitted:
    """How a turn ended."""

    handed_over: int
    """Messages given to the channel in this turn."""
    pause: Pause | None
    """Too much went wrong, or the channel refuses everything: a person has to mend something first."""


async def transmit(
    lane: Lane, carrier: Carrier, *, breaker: Breaker, error_threshold: int | None, until: float
) -> Transmitted:
    """Send until nothing is left to take, the time is up (`until`, monotonic seconds), the channel halts, or `breaker`
    finds that too much goes wrong."""
    turn = Turn(lane, carrier, breaker, error_threshold, until)
    return await turn.go()


class Turn:
    """One job's share of a dispatch. Not to be shared between tasks.

    One loop writes: the outcomes of messages that came back and the intents of those that leave next, in one commit.
    Beside it run the messages, the taking and making of the next, the wait for the pace, and the lease.
    """

    def __init__(
        self, lane: Lane, carrier: Carrier, breaker: Breaker, error_threshold: int | None, until: float
    ) -> None:
        self.lane, self.carrier, self.until = lane, carrier, until
        self.run = run = lane.run
        self.breaker, self.error_threshold = breaker, error_threshold
        self.pace = Pace(run.workspace_id, run.dispatch_id, lane.channel, lane.rate, is_test=run.test)
        self.enough = max(1, lane.slots.size // 2)
        """Messages that are worth a commit; the other half is under way meanwhile."""
        self.ready: deque[Ready] = deque()
        self.answers: list[Answer] = []
        """Not written yet. Each holds its slot."""
        self.under_way: set[asyncio.Task[None]] = set()
        self.begun: set[tuple[int, int]] = set()
        """Profiles and devices whose message left, until its answer is written."""
        self.beside: dict[str, asyncio.Task[None]] = {}
        self.stirred = asyncio.Event()
        """Something happened that the loop may act on."""
        self.nothing_left = False
        self.left_behind: int | None = None
        """The lowest profile whose message was taken and not begun, and waits behind the walk."""
        self.settled = True
        """Whether every outcome could be written."""
        self.unheard = False
        """Whether a commit may still be under way at the server, its answer lost."""
        self.failure: Exception | None = None
        """Of what runs beside the loop, when trying again cannot help."""
        self.halted: Outcome | None = None
        self.handed_over = 0
        self.busy_at = 0.0
        """When something was under way last, or could be."""
        self.patience_s = FIRST_PATIENCE_S

    async def go(self) -> Transmitted:
        self.lease = await open_lease(self.run, self.carrier)
        heart = asyncio.create_task(self.lease.keep())
        try:
            with self.lane.slots.heard_by(self.stirred):
                await self.send_all()
        finally:
            # Also when this job is cancelled: a message that may have left must have its outcome written.
            await asyncio.shield(self.wind_down(heart))
        refused = Pause(self.halted.code, self.halted.detail) if self.halted else None
        return Transmitted(self.handed_over, self.breaker.pause or refused)

    def may_go_on(self) -> bool:
        stopped = self.halted or self.breaker.pause or self.carrier.stopping.is_set()
        return monotonic() < min(self.until, self.lease.ends) and not stopped

    # The loop

    async def send_all(self) -> None:
        """Until nothing is left to take or the turn must end; the answers still awaited are `drain`'s."""
        while self.may_go_on():
            if self.failure:
                raise self.failure
            self.stirred.clear()
            self.see_to_more()
            group = self.next_group()
            if group or self.is_worth_writing():
                await self.commit(group)
            elif self.waits_in_vain():
                return
            elif self.ready or self.beside or self.under_way or not self.nothing_left:
                await self.something()
            else:
                return

    def waits_in_vain(self) -> bool:
        """Whether the host has been away for long, and nothing that is under way can say that it is back."""
        if self.under_way or self.answers or not self.lane.gate.is_shut():
            self.busy_at = monotonic()
            return False
        return monotonic() > self.busy_at + HOST_AWAY_S

    async def drain(self) -> None:
        """Until every message under way has its answer written."""
        while self.under_way or self.answers:
            self.stirred.clear()
            if not self.is_worth_writing():
                await self.something()
                continue
            try:
                await self.commit([])
            except Exception:
                # Trying again cannot help. The rows stay `sending`, and the sweeper finds them in doubt when the lease
                # has ended.
                logger.exception("outcomes lost", extra={"dispatch_id": self.run.dispatch_id})
                self.settled = False
                self.lane.slots.give_back(self.held)
                self.answers.clear()

    async def something(self) -> None:
        """Wait until something stirs; not long, since lulls, the lease and the turn end without a sound."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LULL_S if self.answers else LOOK_AGAIN_S):
                await self.stirred.wait()

    def see_to_more(self) -> None:
        """Have the next messages made before the last ones have left, and the pace asked once they could: what lapses
        unused is lost to all workers."""
        if self.lane.gate.is_shut():
            return
        if len(self.ready) < self.pace.takeable(self.lane.slots.size) and not self.nothing_left:
            self.start("fill", self.fill)
        if self.ready and self.lane.slots.free + self.held and not self.pace.free(1):
            self.start("pace", self.reserve)

    def next_group(self) -> list[Ready]:
        """What leaves next: by the slots that are free, and those of the answers that the same commit writes.

        Empty while only few could leave and more can soon, while the host is away, and when another turn, which has no
        slot at all, is to have the next.
        """
        slots, may = self.lane.slots, self.pace.free(len(self.ready))
        if slots.are_owed_to_others(self.stirred):
            return []
        if self.ready and not slots.free + self.held and not self.under_way:
            slots.wait_for_one(self.stirred)
            return []
        slots.stop_waiting(self.stirred)
        could = min(may, slots.free + self.held)
        if may > slots.free < self.enough and self.under_way and not self.is_worth_writing():
            return []
        could = self.lane.gate.let_through(could)
        self.pace.use(could)
        # What waits is read again when nobody can tell what a lost commit did, and some of it was ready already. Twice
        # in one group it would leave twice: its row tells one intent from the next, not two copies of the same. And
        # were the commit of a copy lost, "not begun" would be written of the one that is under way.
        group: dict[tuple[int, int], Ready] = {}
        for _ in range(could):
            one = self.ready.popleft()
            if (key := (one.intent.profile_id, one.intent.device_id)) not in self.begun:
                group.setdefault(key, one)
        return list(group.values())

    @property
    def held(self) -> int:
        """Slots of the answers not written yet."""
        return sum(answer.holds_slot for answer in self.answers)

    def is_worth_writing(self) -> bool:
        """Whether enough answers are here, or no more are to be expected soon."""
        if not self.answers:
            return False
        enough = min(self.enough, len(self.answers) + len(self.under_way))
        return len(self.answers) >= enough or monotonic() >= self.answers[0].came_at + LULL_S

    async def commit(self, group: list[Ready]) -> None:
        """Write all answers and the intents of a group, and let the group go.

        While PostgreSQL is away nothing leaves, and what is known is kept until it is written (R4).
        """
        answers, held = self.answers, self.held
        more = max(0, len(group) - held)
        self.lane.slots.take(more)
        self.answers = []
        try:
            leaving = await self.write(answers, group)
        except BaseException as trouble:
            # The commit may have come through though its answer did not. None of the group has left, and that is
            # written where the intent stands; the answers are written again, which changes nothing where they stand.
            # Until then the slots stay taken: by its rows the group may be under way.
            stayed = [Answer(not_begun(one, "NOT_BEGUN"), holds_slot=place < more) for place, one in enumerate(group)]
            self.answers = [*answers, *stayed, *self.answers]
            self.unheard = True
            self.leave_behind(one.intent.profile_id for one in group)
            if not is_passing(trouble):
                raise
            await self.be_patient(trouble)
            return
        self.patience_s = FIRST_PATIENCE_S
        self.lane.slots.give_back(held + more - len(leaving))
        self.begun.difference_update((answer.result.profile_id, answer.result.device_id) for answer in answers)
        for one in leaving:
            self.begun.add((one.intent.profile_id, one.intent.device_id))
            task = asyncio.create_task(self.send(one))
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)

    async def be_patient(self, trouble: BaseException) -> None:
        """PostgreSQL is away, restarts, is full, or chose us in a deadlock: wait a little before the next attempt."""
        logger.warning(
            "PostgreSQL is away, trying again", extra={"dispatch_id": self.run.dispatch_id}, exc_info=trouble
        )
        await asyncio.sleep(self.patience_s)
        self.patience_s = min(self.patience_s * 2, LONGEST_PATIENCE_S)

    async def write(self, answers: Sequence[Answer], group: Sequence[Ready]) -> list[Ready]:
        """One transaction; answers who of the group may leave."""
        run = self.run
        bad = [answer.bad_address for answer in answers if answer.bad_address]
        intended = Intended(frozenset(), frozenset())
        async with transaction(run.workspace_id, generic_plans=True) as connection:
            if self.unheard:
                # Else its rows would be seen as they were before, and what is known of them be written nowhere.
                await claims.wait_for_intents(connection, workspace_id=run.workspace_id, claim_id=self.lease.claim_id)
            if answers:
                await ledger.record(
                    connection,
                    workspace_id=run.workspace_id,
                    dispatch_id=run.dispatch_id,
                    claim_id=self.lease.claim_id,
                    results=[answer.result for answer in answers],
                )
            if bad:
                await consent.suppress_addresses(
                    connection,
                    workspace_id=run.workspace_id,
                    address_hashes=bad,
                    reason=consent.SuppressionReason.HARD_BOUNCE,
                )
            if group:
                intended = await self.lane.intend(connection, group, claim_id=self.lease.claim_id)
        self.unheard = False
        self.leave_behind(profile_id for profile_id, _ in intended.waiting)
        return [one for one in group if (one.intent.profile_id, one.intent.device_id) in intended.leaving]

    # Beside the loop

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Have `work` done beside the loop, once at a time."""
        if name in self.beside:
            return

        async def do() -> None:
            try:
                await work()
            except Exception as trouble:
                if is_passing(trouble):
                    await self.be_patient(trouble)
                else:
                    self.failure = trouble
            finally:
                del self.beside[name]
                self.stirred.set()

        self.beside[name] = asyncio.create_task(do())

    async def fill(self) -> None:
        """Take and make some messages, or find that nothing is left to take."""
        ids = {"workspace_id": self.run.workspace_id, "dispatch_id": self.run.dispatch_id}
        try:
            async with transaction(self.run.workspace_id, generic_plans=True) as connection:
                now = await self.pace.look(connection)
                taken = await claims.take(
                    connection,
                    **ids,
                    claim_id=self.lease.claim_id,
                    lease=self.carrier.lease,
                    limit=self.pace.takeable(BATCH),
                )
            self.nothing_left = not taken
            if taken == [] and self.left_behind is not None:
                back, self.left_behind, self.nothing_left = self.left_behind, None, False
                # Apart: of a dispatch that one transaction changes twice PostgreSQL locks the campaign too, and a turn
                # that finishes has that already, and waits for the dispatch.
                async with transaction(self.run.workspace_id, generic_plans=True) as connection:
                    await claims.go_back(connection, **ids, profile_id=back)
        except BaseException:
            self.leave_behind([0])  # it may have been committed, and nobody knows what was taken
            raise
        if not taken:
            return
        unmade = await self.lane.make(taken, now=now, keep=self.keep)
        if unmade.settled:
            async with transaction(self.run.workspace_id, generic_plans=True) as connection:
                await ledger.settle_unsent(connection, dispatch_id=self.run.dispatch_id, results=unmade.settled)
        # Not before it is committed: what is left in the ledger would be counted again by whoever takes it.
        for profile_id, why in unmade.refusals if not self.run.test else ():
            self.breaker.note_unmade(profile_id, why)

    def keep(self, ready: Ready) -> None:
        """A message that may leave."""
        self.ready.append(ready)
        self.breaker.made += 1
        self.stirred.set()

    def leave_behind(self, profile_ids: Iterable[int]) -> None:
        """These were taken, and wait all the same: they are read again when nothing else is left."""
        for profile_id in profile_ids:
            self.left_behind = profile_id if self.left_behind is None else min(self.left_behind, profile_id)
            self.nothing_left = False

    async def reserve(self) -> None:
        """Wait until messages may leave by the pace."""
        await self.pace.wait(len(self.ready), may_go_on=self.may_go_on)

    async def send(self, ready: Ready) -> None:
        """Hand one message to the channel, unless the lease has ended: a process that was stopped and goes on."""
        one, outcome = ready.taken, None
        if self.lease.is_over():
            self.answer(Answer(not_begun(ready, "LEASE_ENDED")))
            return
        self.handed_over += 1
        try:
            outcome = await self.lane.send(ready)
        except (Exception, asyncio.CancelledError):
            # A channel never raises, so this is a mistake of ours; what left is unknown, and the slot must come back.
            logger.exception("channel failed", extra={"dispatch_id": self.run.dispatch_id})
            outcome = Outcome(OutcomeKind.IN_DOUBT, "CHANNEL_FAILED", "unknown", "Our own mistake; see the log.")
        self.lane.gate.saw(outcome)
        if outcome.scope is OutcomeScope.CHANNEL:
            self.halted = outcome
        if not self.run.test:
            self.lane.note(ready, outcome, self.breaker, threshold=self.error_threshold)
        self.answer(Answer(settle(one, outcome), self.lane.to_suppress(ready, outcome)))

    def answer(self, answer: Answer) -> None:
        """Keep an answer until the next commit; the loop waits no longer than a lull from the first one on."""
        self.answers.append(answer)
        if len(self.answers) == 1 or self.is_worth_writing():
            self.stirred.set()

    async def wind_down(self, heart: "asyncio.Task[None]") -> None:
        """Wait for answers, write them, leave what was taken and not begun to others."""
        beside = list(self.beside.values())
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await self.drain()
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)
        await self.lane.end(self.breaker)
        await self.lease.close(settled=self.settled)
