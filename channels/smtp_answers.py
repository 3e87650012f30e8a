"""What an SMTP server's answer means, as one pure table (RFC 5321 4.2, RFC 3463, RFC 1047)."""

import re
from datetime import timedelta
from enum import StrEnum
from typing import assert_never

from channels.base import Outcome, OutcomeKind, OutcomeScope


class Phase(StrEnum):
    """How far the conversation had come when the answer, or the silence, came."""

    CONNECT = "CONNECT"
    BANNER = "BANNER"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BODY = "BODY"
    """The message was leaving, its final dot had not left."""
    FINAL = "FINAL"
    """The final dot had left, or may have."""


class Loss(StrEnum):
    """How a conversation ended without an answer."""

    CONNECTION_LOST = "CONNECTION_LOST"
    TIMEOUT = "TIMEOUT"
    BAD_REPLY = "BAD_REPLY"
    """What came was no SMTP reply; whatever follows cannot be trusted either."""


AUTHENTICATION = frozenset((454, 530, 534, 535, 538))
"""RFC 4954 6, RFC 3207 4: about our login or TLS, whatever the phase."""
SENDERS_OWN = frozenset(("5.1.7", "5.1.8"))
"""The 5.1.x codes that speak of the sender's address, not the recipient's (RFC 3463 3.2)."""
LONGEST_WAIT = timedelta(hours=6)

ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?!\S)")
WAIT = re.compile(r"\b(\d{1,5})\s*(second|sec|minute|min|hour)s?\b", re.IGNORECASE)
ADDRESS = re.compile(r"[^\s<>]+@[^\s<>]+")
QUEUED_AS = re.compile(r"\b(?:queued as|id=)\s*<?([^\s<>]{1,200})", re.IGNORECASE)
SECONDS = {"s": 1, "m": 60, "h": 3600}


def classify(phase: Phase, code: int, text: str) -> Outcome:
    """What a reply to `phase` means for the message; `text` is the reply without its code, lines joined by spaces.

    Asked of any reply that is not the one hoped for, and of every reply to the final dot.
    """
    if phase is Phase.FINAL and 200 <= code < 300:
        found = QUEUED_AS.search(text)
        return Outcome(OutcomeKind.ACCEPTED, "ACCEPTED", phase, provider_id=found[1] if found else None)
    if not 400 <= code < 600:
        return lost(phase, Loss.BAD_REPLY, words(code, text))
    detail = words(code, text)
    if code == 421:
        wait = asked_wait(text)
        return Outcome(OutcomeKind.DEFERRED, "SERVER_CLOSING", phase, detail, retry_after=wait, scope=OutcomeScope.HOST)
    if code in AUTHENTICATION or phase is Phase.AUTH:
        return Outcome(OutcomeKind.DEFERRED, "AUTHENTICATION", phase, detail, scope=OutcomeScope.CHANNEL)
    match phase:
        case Phase.CONNECT | Phase.BANNER | Phase.EHLO | Phase.STARTTLS:
            wait = asked_wait(text)
            return Outcome(
                OutcomeKind.DEFERRED, "HOST_UNAVAILABLE", phase, detail, retry_after=wait, scope=OutcomeScope.HOST
            )
        case Phase.MAIL | Phase.RCPT | Phase.DATA | Phase.BODY | Phase.FINAL:
            return later(phase, text, detail) if code < 500 else never(phase, code, text, detail)
        case _:
            assert_never(phase)


def later(phase: Phase, text: str, detail: str) -> Outcome:
    """A 4yz reply. Before RCPT, and where the mail system itself is short of something (4.3.x), it says nothing about
    the recipient."""
    system = phase is Phase.MAIL or enhanced(text).startswith("4.3.")
    return Outcome(
        OutcomeKind.DEFERRED,
        "TRY_LATER",
        phase,
        detail,
        retry_after=asked_wait(text),
        scope=OutcomeScope.HOST if system else OutcomeScope.RECIPIENT,
    )


def never(phase: Phase, code: int, text: str, detail: str) -> Outcome:
    """A 5yz reply."""
    status = enhanced(text)
    # A 552 to RCPT is the mailbox's quota, to MAIL or to the message its size, unless the enhanced code says which.
    if status in ("5.3.4", "5.2.3") or (code == 552 and phase is not Phase.RCPT and not status.startswith("5.2.")):
        return Outcome(OutcomeKind.REFUSED, "MESSAGE_TOO_LARGE", phase, detail, scope=OutcomeScope.CHANNEL)
    if phase is Phase.MAIL:
        # Nobody's mail leaves under this sender until a person acts; failing the recipients for it would lose them.
        return Outcome(OutcomeKind.DEFERRED, "SENDER_REFUSED", phase, detail, scope=OutcomeScope.CHANNEL)
    if status.startswith("5.1.") and status not in SENDERS_OWN:
        return Outcome(OutcomeKind.REFUSED, "BAD_ADDRESS", phase, detail, bad_address=True)
    if status.startswith("5.2.") or code == 552:
        return Outcome(OutcomeKind.REFUSED, "MAILBOX_REFUSED", phase, detail)
    if status.startswith("5.7."):
        return Outcome(OutcomeKind.REFUSED, "POLICY", phase, detail)
    # Without an enhanced code a 550 may mean "no such user" or "not from you"; suppressing on a guess loses people.
    return Outcome(OutcomeKind.REFUSED, "REFUSED", phase, detail)


def lost(phase: Phase, why: Loss, detail: str = "") -> Outcome:
    """No answer: definite before the final dot has left, in doubt after (RFC 1047)."""
    match phase:
        case Phase.FINAL:
            return Outcome(OutcomeKind.IN_DOUBT, why, phase, detail)
        case Phase.RCPT | Phase.DATA | Phase.BODY:
            return Outcome(OutcomeKind.DEFERRED, why, phase, detail)
        case Phase.CONNECT | Phase.BANNER | Phase.EHLO | Phase.STARTTLS | Phase.AUTH | Phase.MAIL:
            return Outcome(OutcomeKind.DEFERRED, why, phase, detail, scope=OutcomeScope.HOST)
        case _:
            assert_never(phase)


def enhanced(text: str) -> str:
    """The enhanced status code at the beginning of a reply's text (RFC 2034), else ''."""
    found = ENHANCED.match(text)
    return found[0] if found else ""


def asked_wait(text: str) -> timedelta | None:
    """The wait a server asks for in words ("try again in 300 seconds"), at most 6 h."""
    found = WAIT.search(text)
    if found is None:
        return None
    return min(timedelta(seconds=int(found[1]) * SECONDS[found[2][0].lower()]), LONGEST_WAIT)


def words(code: int, text: str) -> str:
    """A reply as the ledger may keep it: one line, at most 500 characters, without addresses.

    Servers like to repeat the recipient; the ledger must not hold an address that erasure would miss.
    """
    line = "".join(letter if letter.isprintable() else " " for letter in text[:1000])
    return f"{code} {ADDRESS.sub('(address)', line)}".strip()[:500]
