"""Sends one dispatch: claim, render, intent, send, outcome, with a fixed number of messages under way (R2 to R5).

A slot is free only when the outcome of its message is committed, so that a kill -9 leaves at most `concurrency`
messages of a process in doubt. Intents and outcomes are committed in groups: as many as slots fell free, as many as
answers came in, while the last commit was under way.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import assert_never
from uuid import UUID

import asyncpg

from campaigns import ledger
from campaigns.content import CompiledEmail, Recipient
from campaigns.errors import RenderError
from campaigns.ledger import Claimed, Intent, Result, SkipReason
from campaigns.models import DeliveryState
from channels.base import Channel, EmailMessage, Outcome, OutcomeKind, OutcomeScope
from db.transactions import transaction
from profiles import consent

logger = logging.getLogger(__name__)

CLAIM_BATCH = 500
"""Rows of one claim: 500 to 1,000 cost least a row (17 us), and few enough to hand back fast."""
FIRST_RETRY = timedelta(seconds=30)
LONGEST_RETRY = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Run:
    """What is sent: one dispatch, with its content compiled."""

    workspace_id: UUID
    campaign_id: UUID
    dispatch_id: UUID
    content: CompiledEmail
    envelope_sender: str
    message_id_domain: str
    consent_matters: bool
    test: bool


class Slots:
    """How many messages of this process may be under way; shared by all its jobs."""

    def __init__(self, concurrency: int) -> None:
        self.free = concurrency
        self.freed = asyncio.Event()

    async def take(self, most: int) -> int:
        """Take 1 to `most` slots, waiting until one is free."""
        while self.free == 0:
            self.freed.clear()
            await self.freed.wait()
        taken = min(self.free, most)
        self.free -= taken
        return taken

    def give_back(self, taken: int) -> None:
        """Never waits, so that nothing can come between and lose a slot."""
        self.free += taken
        self.freed.set()


@dataclass(frozen=True, slots=True)
class Carrier:
    """What a process sends with; one for its whole life."""

    channel: Channel
    owner: UUID
    """The process's boot id."""
    lease: timedelta
    slots: Slots
    unsubscribe_url: Callable[[UUID, int, UUID], str]
    """(workspace, profile, campaign) -> the link of one person's mail."""
    pace: Callable[[int], Awaitable[None]] | None = None
    """Waits until so many messages may leave; None sets no limit."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set on SIGTERM: nothing more is claimed, what is under way ends."""


@dataclass(frozen=True, slots=True)
class Transmitted:
    """How a turn ended."""

    handed_over: int
    """Messages given to the channel in this turn."""
    halted: Outcome | None
    """The answer that made it stop: the host is away, or refuses this login."""


def retry_delay(attempt: int, draw: Callable[[], float] = random.random) -> timedelta:
    """Wait before retry number `attempt` (1 = first): exponential from 30 s, full jitter, at most 6 h."""
    longest = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(attempt - 1, 16))
    return timedelta(seconds=longest.total_seconds() * draw())


async def transmit(run: Run, carrier: Carrier, *, until: float) -> Transmitted:
    """Send until nothing is left to claim, the time is up (`until`, monotonic seconds), or the channel halts."""
    turn = Turn(run, carrier, until)
    return await turn.go()


class Turn:
    """One job's share of a dispatch. Not to be shared between tasks."""

    def __init__(self, run: Run, carrier: Carrier, until: float) -> None:
        self.run, self.carrier, self.until = run, carrier, until
        self.outcomes: asyncio.Queue[tuple[Result, bytes | None] | None] = asyncio.Queue()
        self.ready: deque[tuple[Claimed, Intent, bytes]] = deque()
        self.under_way: set[asyncio.Task[None]] = set()
        self.halted: Outcome | None = None
        self.handed_over = 0
        self.lease_ends = 0.0
        self.claim_id = 0

    async def go(self) -> Transmitted:
        run, carrier = self.run, self.carrier
        began = monotonic()
        async with transaction(run.workspace_id, generic_plans=True) as connection:
            self.claim_id = await ledger.open_claim(
                connection,
                workspace_id=run.workspace_id,
                dispatch_id=run.dispatch_id,
                owner=carrier.owner,
                lease=carrier.lease,
            )
        self.lease_ends = began + carrier.lease.total_seconds()
        heart = asyncio.create_task(self.keep_lease())
        recorder = asyncio.create_task(self.record_outcomes())
        try:
            while self.may_go_on() and await self.fill():
                await self.send_group()
        finally:
            # Also when this job is cancelled: a message that may have left must have its outcome written.
            await asyncio.shield(self.wind_down(heart, recorder))
        return Transmitted(self.handed_over, self.halted)

    def may_go_on(self) -> bool:
        return monotonic() < min(self.until, self.lease_ends) and not self.halted and not self.carrier.stopping.is_set()

    async def fill(self) -> bool:
        """Claim and render until there is something to send; False when nothing is left to claim."""
        while not self.ready:
            async with transaction(self.run.workspace_id, generic_plans=True) as connection:
                claimed = await ledger.claim(
                    connection,
                    workspace_id=self.run.workspace_id,
                    dispatch_id=self.run.dispatch_id,
                    claim_id=self.claim_id,
                    limit=CLAIM_BATCH,
                )
                now: datetime = await connection.fetchval("SELECT now()")
            if not claimed:
                return False
            await self.render(claimed, now)
        return True

    async def render(self, claimed: list[Claimed], now: datetime) -> None:
        """Make the messages; a person whose message cannot be made is settled alone."""
        settled: list[Result] = []
        for place, one in enumerate(claimed):
            if place % 50 == 49:
                await asyncio.sleep(0)  # 50 messages are about 3 ms; heartbeats and answers come between
            if one.email is None:
                settled.append(result(one, DeliveryState.SKIPPED, SkipReason.NO_ADDRESS))
                continue
            sent_at = one.first_attempt_at or now.replace(microsecond=0)
            message_id = one.message_id or f"<{self.key_of(one)}@{self.run.message_id_domain}>"
            try:
                data = self.run.content.render(
                    Recipient.of(one),
                    message_id=message_id,
                    sent_at=sent_at,
                    unsubscribe_url=self.carrier.unsubscribe_url(
                        self.run.workspace_id, one.profile_id, self.run.campaign_id
                    ),
                    delivery_key=self.key_of(one),
                    test=self.run.test,
                )
            except RenderError as refusal:
                settled.append(result(one, DeliveryState.FAILED, refusal.code, refusal.message))
                continue
            intent = Intent(one.profile_id, one.device_id, one.fence, message_id, sent_at, one.email_hash)
            self.ready.append((one, intent, data))
        if settled:
            async with transaction(self.run.workspace_id, generic_plans=True) as connection:
                await ledger.record(
                    connection,
                    workspace_id=self.run.workspace_id,
                    dispatch_id=self.run.dispatch_id,
                    results=settled,
                    found_in=ledger.BEFORE_INTENT,
                )

    async def send_group(self) -> None:
        """Commit the intents of as many messages as slots are free, then let them go."""
        if self.carrier.pace:
            await self.carrier.pace(1)
        # The slots are taken before the commit: from its first moment on these rows could be in doubt.
        taken = await self.carrier.slots.take(1 if self.carrier.pace else len(self.ready))
        leaving: set[tuple[int, int]] = set()
        try:
            if not self.may_go_on():
                return
            group = [self.ready.popleft() for _ in range(taken)]
            async with transaction(self.run.workspace_id, generic_plans=True) as connection:
                found = await ledger.intend(
                    connection,
                    workspace_id=self.run.workspace_id,
                    dispatch_id=self.run.dispatch_id,
                    claim_id=self.claim_id,
                    ready=[intent for _, intent, _ in group],
                    consent_matters=self.run.consent_matters,
                    test=self.run.test,
                )
            # Only now: when the commit fails nothing leaves, and every slot comes back.
            leaving = found
        finally:
            self.carrier.slots.give_back(taken - len(leaving))
        for one, _, data in group:
            if (one.profile_id, one.device_id) in leaving and one.email is not None:
                task = asyncio.create_task(self.send(one, data, one.email))
                self.under_way.add(task)
                task.add_done_callback(self.under_way.discard)

    async def send(self, one: Claimed, data: bytes, address: str) -> None:
        self.handed_over += 1
        message = EmailMessage(sender=self.run.envelope_sender, recipient=address, data=data, key=self.key_of(one))
        try:
            outcome = await self.carrier.channel.send(message)
        except Exception:
            # A channel never raises, so this is a mistake of ours; what left is unknown, and the slot must come back.
            logger.exception("channel failed", extra={"dispatch_id": self.run.dispatch_id})
            outcome = Outcome(OutcomeKind.IN_DOUBT, "CHANNEL_FAILED", "unknown", "Our own mistake; see the log.")
        if outcome.scope is OutcomeScope.CHANNEL or (outcome.scope is OutcomeScope.HOST and not self.halted):
            self.halted = outcome
        bad_address = one.email_hash if outcome.bad_address else None
        self.outcomes.put_nowait((settle(one, outcome), bad_address))

    def key_of(self, one: Claimed) -> str:
        """What names a message everywhere: dispatch, profile, device."""
        return f"{self.run.dispatch_id.hex}.{one.profile_id}.{one.device_id}"

    async def record_outcomes(self) -> None:
        """Write outcomes as they come, as many at once as wait; a slot is free again after the commit."""
        while True:
            waiting = [await self.outcomes.get()]
            while not self.outcomes.empty():
                waiting.append(self.outcomes.get_nowait())
            results = [one for one in waiting if one is not None]
            if results:
                try:
                    await until_written(partial(self.write, results))
                except Exception:
                    # Not for want of PostgreSQL: trying again cannot help. The rows stay `sending`, and the sweeper
                    # finds them in doubt when the lease has ended.
                    logger.exception("outcomes lost", extra={"dispatch_id": self.run.dispatch_id})
                finally:
                    self.carrier.slots.give_back(len(results))
            if None in waiting:
                return

    async def write(self, results: list[tuple[Result, bytes | None]]) -> None:
        run = self.run
        bad = [bad_address for _, bad_address in results if bad_address]
        async with transaction(run.workspace_id, generic_plans=True) as connection:
            await ledger.record(
                connection,
                workspace_id=run.workspace_id,
                dispatch_id=run.dispatch_id,
                results=[one for one, _ in results],
            )
            if bad:
                await consent.suppress_addresses(
                    connection,
                    workspace_id=run.workspace_id,
                    address_hashes=bad,
                    reason=consent.SuppressionReason.HARD_BOUNCE,
                )

    async def keep_lease(self) -> None:
        """Prolong the lease four times in its length. The local end is counted from before the question was put, so
        that this process never believes in a lease longer than the database does (R5)."""
        length = self.carrier.lease.total_seconds()
        while True:
            await asyncio.sleep(length / 4)
            asked = monotonic()
            try:
                async with transaction(self.run.workspace_id, generic_plans=True) as connection:
                    alive = await ledger.extend_claim(
                        connection,
                        workspace_id=self.run.workspace_id,
                        claim_id=self.claim_id,
                        lease=self.carrier.lease,
                    )
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                logger.warning("lease not prolonged", extra={"dispatch_id": self.run.dispatch_id}, exc_info=True)
                continue
            self.lease_ends = asked + length if alive else 0.0
            if not alive:
                return

    async def wind_down(self, heart: "asyncio.Task[None]", recorder: "asyncio.Task[None]") -> None:
        """Wait for answers, write them, give back what was claimed and not begun."""
        if self.under_way:
            await asyncio.wait(self.under_way)
        self.outcomes.put_nowait(None)
        await recorder
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)
        async with transaction(self.run.workspace_id, generic_plans=True) as connection:
            await ledger.close_claim(
                connection,
                workspace_id=self.run.workspace_id,
                dispatch_id=self.run.dispatch_id,
                claim_id=self.claim_id,
            )


async def until_written(write: Callable[[], Awaitable[None]]) -> None:
    """Run `write` until it commits: an outcome that is known must not be lost while PostgreSQL is away (R4).

    What trying again cannot mend is raised.
    """
    wait_s = 0.1
    while True:
        try:
            return await write()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as trouble:
            if not is_passing(trouble):
                raise
            logger.warning("outcomes not written yet, trying again", exc_info=True)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 5.0)


def is_passing(trouble: Exception) -> bool:
    """Whether the same statement may succeed later: the server is away, restarts, is full, or chose us in a deadlock
    (SQLSTATE classes 08, 40, 53 and 57; PostgreSQL manual, appendix A)."""
    if isinstance(trouble, asyncpg.PostgresError):
        return str(trouble.sqlstate)[:2] in ("08", "40", "53", "57")
    return not isinstance(trouble, (asyncpg.DataError, ValueError))


def result(one: Claimed, state: DeliveryState, reason: str, detail: str | None = None) -> Result:
    """An outcome that needed no sending."""
    return Result(one.profile_id, one.device_id, one.fence, state, reason, detail)


def settle(one: Claimed, outcome: Outcome) -> Result:
    """What the ledger says of an answer. Only what was definitely not accepted is tried again (R7)."""
    retry_in: timedelta | None = None
    match outcome.kind:
        case OutcomeKind.ACCEPTED:
            return Result(one.profile_id, one.device_id, one.fence, DeliveryState.SENT, provider_id=outcome.provider_id)
        case OutcomeKind.REFUSED:
            state = DeliveryState.FAILED
        case OutcomeKind.IN_DOUBT:
            state = DeliveryState.IN_DOUBT
        case OutcomeKind.DEFERRED:
            state = DeliveryState.DEFERRED
            asked = outcome.retry_after
            retry_in = asked if asked is not None else retry_delay(one.attempt + 1)
        case _:
            assert_never(outcome.kind)
    # PostgreSQL takes neither NUL nor half a surrogate pair, whatever a server has said.
    detail = outcome.detail.replace("\0", "").encode("utf-8", "replace").decode()
    return Result(one.profile_id, one.device_id, one.fence, state, outcome.code, detail, outcome.provider_id, retry_in)
