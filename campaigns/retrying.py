"""When to try again: a recipient whose message was deferred, and a host that is away (RFC 5321 4.5.4.1)."""

import logging
import random
from collections.abc import Callable
from datetime import timedelta
from time import monotonic

from channels.base import Outcome, OutcomeKind, OutcomeScope

logger = logging.getLogger(__name__)

FIRST_RETRY = timedelta(seconds=30)
LONGEST_RETRY = timedelta(hours=6)
SPREAD = 3
"""Of a first wait that a provider has a rule for, how much more it may be: so much that a crowd comes back apart."""
LEAST_SPREAD = timedelta(seconds=5)
"""Over which retries are spread that a server asked for at the same moment."""
FIRST_REST_S, LONGEST_REST_S = 1.0, 300.0
PROBE_S = 10.0
"""After so long without an answer to a probe another one goes."""

Draw = Callable[[], float]
"""A number from 0 to 1, evenly spread."""


def retry_delay(attempt: int, draw: Draw = random.random) -> timedelta:
    """Wait before retry number `attempt` (1 = first): exponential from 30 s, full jitter, at most 6 h."""
    longest = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(attempt - 1, 16))
    return longest * draw()


def retry_wait(
    attempt: int, asked: timedelta | None, first: timedelta | None = None, draw: Draw = random.random
) -> timedelta:
    """Like `retry_delay`; when the server asked for a wait that one, and up to a tenth (at least 5 s) more, so that not
    all whom it asked come back at the same moment.

    `first` is the least wait before the first retry that the provider has a rule for; twice that before the second ...
    """
    if asked is None and first is not None:
        return min(LONGEST_RETRY / (1 + SPREAD), first * 2.0 ** min(attempt - 1, 16)) * (1 + SPREAD * draw())
    if asked is None:
        return retry_delay(attempt, draw)
    return asked + max(asked / 10, LEAST_SPREAD) * draw()


class HostGate:
    """Keeps a process from a host that is away: a circuit breaker, one for all its turns.

    After a failure that is about the host nothing goes there for a while, which grows from a second to five minutes;
    then one message at a time finds out, and the first that is taken or refused on its own account opens the gate.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic, draw: Draw = random.random) -> None:
        self._clock, self._draw = clock, draw
        self._failures = 0
        """In a row."""
        self._shut_until = 0.0
        self._probing = False

    def is_shut(self) -> bool:
        """Whether nothing may go now."""
        return self._failures > 0 and self._clock() < self._shut_until

    def is_open(self) -> bool:
        """Whether the last that is known of the host is good."""
        return self._failures == 0

    def shut_for(self) -> timedelta:
        """How long nothing may go yet."""
        return timedelta(seconds=max(0.0, self._shut_until - self._clock()))

    def let_through(self, most: int) -> int:
        """How many of `most` messages may go now; who asks sends them, else a probe is lost until the next."""
        if self._failures == 0 or most == 0:
            return most
        if self.is_shut():
            return 0
        self._probing, self._shut_until = True, self._clock() + PROBE_S
        return 1

    def saw(self, outcome: Outcome) -> None:
        """Learn from an answer."""
        if outcome.scope is OutcomeScope.HOST and outcome.kind is OutcomeKind.DEFERRED:
            # The others under way when the host went away fail with it: that is one failure, not sixty-four.
            if self._probing or not self.is_shut():
                self._failures += 1
                self._probing = False
                rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(self._failures - 1, 16))
                asked_s = outcome.retry_after.total_seconds() if outcome.retry_after else 0.0
                pause_s = max(asked_s, rest_s * (0.5 + self._draw() / 2))
                self._shut_until = self._clock() + pause_s
                facts = {"code": outcome.code, "phase": outcome.phase, "pause_s": round(pause_s, 1)}
                logger.warning("provider is away, nothing goes there for a while", extra=facts)
        elif outcome.scope is OutcomeScope.RECIPIENT and outcome.kind in (OutcomeKind.ACCEPTED, OutcomeKind.REFUSED):
            if self._failures:
                logger.info("provider is back")
            self._failures, self._probing = 0, False
