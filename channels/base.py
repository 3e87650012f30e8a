"""What every channel takes and answers: the port that campaigns sends through."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeVar

import idna


class OutcomeKind(StrEnum):
    """What became of one message. The list is closed: whoever matches on it ends in assert_never."""

    ACCEPTED = "ACCEPTED"
    """The provider said that it has it."""
    DEFERRED = "DEFERRED"
    """Definitely not accepted, and may be tried again: the provider said "later", or was lost before it had the whole
    message (RFC 5321 4.2.1: 4yz)."""
    REFUSED = "REFUSED"
    """Definitely not accepted, and must not be tried again as it is (5yz)."""
    IN_DOUBT = "IN_DOUBT"
    """The whole message left and the answer was lost (RFC 1047). Nobody can know; it must not go again by itself."""


class OutcomeScope(StrEnum):
    """Whom the answer is about; anything but RECIPIENT says nothing about this recipient."""

    RECIPIENT = "RECIPIENT"
    HOST = "HOST"
    """The provider is away or wants us to slow down: the others would fare the same, wait before the next."""
    CHANNEL = "CHANNEL"
    """A person has to mend something first: a wrong login, a sender that may not send, a message too large."""


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class Outcome:
    """What the provider answered about one message."""

    kind: OutcomeKind
    code: str
    """For programs, stable: BAD_ADDRESS, TRY_LATER, CONNECTION_LOST ..."""
    phase: str
    """How far the conversation had come, in the channel's own words."""
    detail: str = ""
    """The provider's words, at most 500 characters; addresses in it are blanked."""
    provider_id: str | None = None
    """What the provider calls the message, if it said."""
    retry_after: timedelta | None = None
    """How long the provider asks to wait, if it said."""
    scope: OutcomeScope = OutcomeScope.RECIPIENT
    bad_address: bool = False
    """The address can never work: suppress it, and of a device send to this token no more."""
    gone_at: datetime | None = None
    """Since when the provider knows that; a device that registered after it may be there all the same."""
    first_wait: timedelta | None = None
    """How long the first of ever longer waits is to be at least, where the provider has a rule but said nothing."""


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class EmailMessage:
    """One finished email for one recipient."""

    sender: str
    """Envelope sender: where bounces go."""
    recipient: str
    data: bytes
    """The message as RFC 5322 has it: lines end with CRLF, and CR and LF occur nowhere else."""
    key: str
    """What the caller calls this message; for logs."""


class PushProvider(StrEnum):
    """Who hands a push notification to the device."""

    FCM = "FCM"
    APNS = "APNS"


class PushType(StrEnum):
    """What a push notification is to the platform, in APNs' words; FCM has all of it in the payload."""

    ALERT = "alert"
    BACKGROUND = "background"


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class PushMessage:
    """One finished push notification for one device."""

    provider: PushProvider
    token: str
    payload: bytes
    """A JSON object in UTF-8: to APNs as it is, to FCM a `message` that lacks its token only."""
    key: str
    """What the caller calls this message; for logs."""
    message_id: str
    """A UUID, what APNs is to call it; the same at every attempt. FCM gives names of its own, for it this is empty."""
    push_type: PushType = PushType.ALERT
    urgent: bool = True
    """To be shown at once (apns-priority 10), not when it suits the battery (5)."""
    expires_at: datetime | None = None
    """Until when APNs keeps it for a device that is off; None: it tries once and keeps nothing. FCM's is in the
    payload, as are its collapse key and tag."""
    collapse_id: str | None = None
    """At most 64 bytes; a later one with the same takes its place on the screen."""
    replaceable: bool = False
    """Whether a second copy would take the place of the first, and the campaign lets it go again when in doubt."""


M = TypeVar("M", EmailMessage, PushMessage, contravariant=True)


class Channel(Protocol[M]):
    """A provider of one kind. One object serves a whole process, from many tasks at once."""

    @property
    def concurrency(self) -> int:
        """How many messages may be under way at once without waiting for each other."""

    async def send(self, message: M) -> Outcome:
        """Hand one message to the provider and say what it answered.

        Never raises for an answer or a lost connection; both are Outcomes. In doubt means the
        message may have been accepted: the caller must not send it again on its own.
        """

    async def largest_message(self) -> int | None:
        """The largest finished message in bytes that the provider takes; None when it sets no limit, or cannot be
        asked now. For a look before a campaign starts: never raises, and may take as long as a connection takes."""

    async def close(self) -> None:
        """Let go of all connections. What is under way ends first; what comes later is deferred."""


class Evidence(StrEnum):
    """What a provider's own record says of one message."""

    SENT = "SENT"
    NOT_SENT = "NOT_SENT"
    """The record is complete, and the message is not in it."""
    UNKNOWN = "UNKNOWN"


class Reconciler(Protocol):
    """Looks messages up in what a provider has recorded: its log, its API, a relay's queue."""

    async def find(self, message_id: str) -> Evidence:
        """What became of the message with this Message-ID, given with its angle brackets.

        NOT_SENT only when the record would have it: on that word it is sent again. Raises OSError when the record
        cannot be read.
        """


def wire_address(address: str) -> str:
    """An email address with its domain as the wire has it, in A-labels (RFC 5890); the local part is left alone.

    Raises ValueError for a domain that cannot be written so, and for anything that could end a command or a header
    line: control characters, spaces, angle brackets.
    """
    if _PLAIN.fullmatch(address):
        return address
    if "@" not in address or not address.isprintable() or not _FORBIDDEN.isdisjoint(address):
        raise ValueError("not an email address")
    if address.isascii():
        return address
    local, at, domain = address.rpartition("@")
    try:
        return f"{local}{at}{idna.encode(domain, uts46=True).decode()}"
    except idna.IDNAError as error:
        raise ValueError("not an email address") from error


_PLAIN = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")
"""Nearly every address; the rest is looked at more closely."""
_FORBIDDEN = frozenset(' <>"(),:;[\\]')
"""Not in an address without quotes (RFC 5321 4.1.2, dot-string); isprintable() keeps out controls and separators."""
