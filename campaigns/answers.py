"""Messages on their way: made and ready, then answered, and what the ledger is told of it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import assert_never

from campaigns.claims import Taken
from campaigns.intents import Intent
from campaigns.ledger import Result
from campaigns.models import DeliveryState
from campaigns.push_channels import Credential
from campaigns.retrying import retry_wait
from channels.base import EmailMessage, Outcome, OutcomeKind, OutcomeScope, PushMessage
from profiles.devices import Device


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class Ready:
    """A message that is made and may leave."""

    taken: Taken
    intent: Intent


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class EmailReady(Ready):
    message: EmailMessage


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class PushReady(Ready):
    message: PushMessage
    device: Device
    credential: Credential
    """What the device is reached with."""
    read_at: datetime


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class Answer:
    """What became of a message, until it is written."""

    result: Result
    bad_address: bytes | None = None
    """To be suppressed with it."""
    holds_slot: bool = True
    """False for one that was to leave in the slot of an answer before it."""
    came_at: float = field(default_factory=monotonic)


def not_begun(ready: Ready, reason: str) -> Result:
    """A message of which not one byte left: it is tried again at once, and the attempt does not count."""
    one = ready.intent
    return Result(
        one.profile_id, one.device_id, after(one), DeliveryState.DEFERRED, reason, retry_in=timedelta(0), counts=False
    )


def after(one: Intent | Taken) -> int:
    """The fence of a message once it is committed as sending."""
    return one.fence + 1


def unsent(one: Taken, state: DeliveryState, reason: str, detail: str | None = None) -> Result:
    """An outcome that needed no sending."""
    return Result(one.profile_id, one.device_id, one.fence, state, reason, detail)


def settle(one: Taken, outcome: Outcome) -> Result:
    """What the ledger says of an answer. Only what was definitely not accepted is tried again (R7)."""
    retry_in: timedelta | None = None
    provider_id = None if outcome.provider_id is None else storable(outcome.provider_id)
    match outcome.kind:
        case OutcomeKind.ACCEPTED:
            return Result(one.profile_id, one.device_id, after(one), DeliveryState.SENT, provider_id=provider_id)
        case OutcomeKind.REFUSED:
            state = DeliveryState.FAILED
        case OutcomeKind.IN_DOUBT:
            state = DeliveryState.IN_DOUBT
        case OutcomeKind.DEFERRED:
            state = DeliveryState.DEFERRED
            retry_in = retry_wait(one.attempt + 1, outcome.retry_after, outcome.first_wait)
        case _:
            assert_never(outcome.kind)
    return Result(
        one.profile_id,
        one.device_id,
        after(one),
        state,
        outcome.code,
        storable(outcome.detail),
        provider_id,
        retry_in,
        counts=retry_in is None or outcome.scope is OutcomeScope.RECIPIENT,
    )


def storable(said: str) -> str:
    """What a server has said without NUL and halves of surrogate pairs: PostgreSQL takes neither, and would refuse the
    outcomes of the whole group."""
    return said.replace("\0", "").encode("utf-8", "replace").decode()
