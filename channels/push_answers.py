"""What FCM and APNs have in common: waits they ask for, silence, and their words as the ledger may keep them."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, assert_never

import orjson

from channels.base import Outcome, OutcomeKind, OutcomeScope
from channels.http2_messages import Loss, Lost, Phase

LONGEST_WAIT = timedelta(hours=6)
TOKEN = re.compile(r"[A-Za-z0-9_:-]{32,}")
"""What may be a device's token, or ours."""


def lost(answer: Lost) -> Outcome:
    """No answer: definite while the end of the request had not left, in doubt after."""
    detail = words(answer.detail)
    if answer.why is Loss.CLOSED:
        detail = "This process is shutting down."
    match answer.phase:
        case Phase.ANSWER:
            return Outcome(OutcomeKind.IN_DOUBT, answer.why, answer.phase, detail)
        case Phase.CONNECT:
            return Outcome(OutcomeKind.DEFERRED, answer.why, answer.phase, detail, scope=OutcomeScope.HOST)
        case Phase.REQUEST:
            return Outcome(OutcomeKind.DEFERRED, answer.why, answer.phase, detail)
        case Phase.QUEUE:
            return Outcome(OutcomeKind.DEFERRED, answer.why, answer.phase, detail, scope=OutcomeScope.HOST)
        case _:
            assert_never(answer.phase)


def busy(scope: OutcomeScope, detail: str, wait: timedelta | None, first_wait: timedelta | None = None) -> Outcome:
    """Later, and definitely not now."""
    return Outcome(
        OutcomeKind.DEFERRED, "TRY_LATER", Phase.ANSWER, detail, retry_after=wait, scope=scope, first_wait=first_wait
    )


def unknown(status: int, detail: str, wait: timedelta | None) -> Outcome:
    """An answer that is in no documentation."""
    if status in (502, 504):
        # Of something between us and the provider: whether it had passed the message on, it does not say.
        return Outcome(OutcomeKind.IN_DOUBT, "GATEWAY", Phase.ANSWER, detail)
    if 400 <= status < 500:
        return Outcome(OutcomeKind.REFUSED, "REFUSED", Phase.ANSWER, detail)
    if status >= 500:
        return busy(OutcomeScope.RECIPIENT, detail, wait)
    return Outcome(OutcomeKind.DEFERRED, "BAD_REPLY", Phase.ANSWER, detail, scope=OutcomeScope.HOST)


def asked_wait(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """The wait that Retry-After asks for, in seconds or until a date (RFC 9110 10.2.3); at most 6 h, never negative."""
    said = headers.get("retry-after", "").strip()
    if said.isdecimal() and said.isascii():
        return min(timedelta(seconds=int(said[:9])), LONGEST_WAIT)
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max(until - now, timedelta(0)), LONGEST_WAIT)


def body_object(body: bytes) -> dict[str, Any]:
    """An answer's body as the JSON object that it is; empty when it is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def words(text: str) -> str:
    """What a provider said, as the ledger may keep it: one line, at most 500 characters, no tokens."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[:1000])
    return TOKEN.sub("(token)", line).strip()[:500]
