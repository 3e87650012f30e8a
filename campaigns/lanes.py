"""How the messages of a dispatch leave: what a turn of sending does otherwise for mail than for push notifications."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol, cast

from campaigns import intents, making
from campaigns.answers import EmailReady, Ready
from campaigns.breaker import Breaker
from campaigns.carrier import Carrier, EmailRun, Run, Slots
from campaigns.claims import Taken
from campaigns.intents import Intended
from campaigns.making import Unmade
from campaigns.models import CampaignChannel
from channels.base import Outcome
from db.transactions import Connection

Keep = Callable[[Ready], None]


class Gate(Protocol):
    """Keeps messages from providers that are away, as `campaigns.retrying.HostGate` does for one."""

    def is_shut(self) -> bool:
        """Whether nothing may go now."""

    def let_through(self, most: int) -> int:
        """How many of `most` messages may go now."""

    def saw(self, outcome: Outcome) -> None:
        """Learn from an answer."""


class Lane(Protocol):
    """The way out for one dispatch. Made for one turn."""

    @property
    def run(self) -> Run: ...
    @property
    def channel(self) -> CampaignChannel: ...
    @property
    def slots(self) -> Slots: ...
    @property
    def gate(self) -> Gate: ...
    @property
    def rate(self) -> int | None:
        """Messages a second of all workers together; None sets no limit."""

    async def make(self, taken: Sequence[Taken], *, now: datetime, keep: Keep) -> Unmade:
        """Give each message to `keep` as soon as it is made; answers whose could not be."""

    async def intend(self, connection: Connection, group: Sequence[Ready], *, claim_id: int) -> Intended:
        """Commit the intent to send and say which may leave now: the last look."""

    async def send(self, ready: Ready) -> Outcome:
        """Hand one message to its provider; see `channels.base.Channel.send`."""

    def note(self, ready: Ready, outcome: Outcome, breaker: Breaker, *, threshold: int | None) -> None:
        """Have the breaker judge by an answer."""

    def to_suppress(self, ready: Ready, outcome: Outcome) -> bytes | None:
        """The hash of a mail address that is never to be written to again."""

    async def end(self, breaker: Breaker) -> None:
        """The turn is over, and all of its answers are written."""


class EmailLane:
    """Mail leaves by the process's one channel."""

    channel = CampaignChannel.EMAIL

    def __init__(self, run: EmailRun, carrier: Carrier) -> None:
        self.run, self.carrier = run, carrier
        self.slots, self.gate, self.rate = carrier.slots, carrier.gate, carrier.channel_rate

    async def make(self, taken: Sequence[Taken], *, now: datetime, keep: Keep) -> Unmade:
        return await making.make(self.run, self.carrier, taken, now=now, keep=keep)

    async def intend(self, connection: Connection, group: Sequence[Ready], *, claim_id: int) -> Intended:
        return await intents.intend(
            connection,
            intents.MAIL,
            workspace_id=self.run.workspace_id,
            campaign_id=self.run.campaign_id,
            dispatch_id=self.run.dispatch_id,
            claim_id=claim_id,
            ready=[one.intent for one in group],
            consent_matters=self.run.consent_matters,
            test=self.run.test,
        )

    async def send(self, ready: Ready) -> Outcome:
        return await self.carrier.channel.send(cast(EmailReady, ready).message)

    def note(self, ready: Ready, outcome: Outcome, breaker: Breaker, *, threshold: int | None) -> None:
        breaker.note_answer(ready.taken.profile_id, outcome, threshold=threshold)

    def to_suppress(self, ready: Ready, outcome: Outcome) -> bytes | None:
        return ready.taken.email_hash if outcome.bad_address else None

    async def end(self, breaker: Breaker) -> None:
        return None
