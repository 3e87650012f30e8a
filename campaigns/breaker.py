"""Stops a campaign by itself when too much goes wrong: refusals above its threshold, messages that cannot be made.

Each process judges what it has seen itself since the campaign was started or resumed: it needs no counts, and what was
refused before a person said "go on" does not count against it.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime

from campaigns.errors import RenderError
from campaigns.push_channels import Credential
from campaigns.push_guard import TokenGuard, pause_sentence
from campaigns.reasons import PauseReason, explain
from channels.base import Outcome, OutcomeKind, OutcomeScope
from profiles.devices import GoneDevice

LEAST_SAMPLE = 100
"""Below this a share says little: with 20 messages one bad address would be 5 %."""
RENDER_THRESHOLD = 1
"""Per cent of messages that may fail to be made (reference: hardening of user templates)."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a campaign pauses by itself."""

    reason: str
    """A PauseReason, or a channel's code."""
    detail: str
    """A sentence for people, with the numbers and an example."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An example of what went wrong."""

    profile_id: int
    code: str
    words: str


class Breaker:
    """What one process saw of one dispatch since `since`: when it was started or last resumed."""

    def __init__(self, since: datetime | None) -> None:
        self.since = since
        self.made = 0
        self.unmade = 0
        self.answered = 0
        """Messages that were taken or refused; what is to be tried again, and what says nothing of them, is not."""
        self.refused: Counter[str] = Counter()
        self.last: dict[str, Failure] = {}
        self.tokens: defaultdict[Credential, TokenGuard] = defaultdict(TokenGuard)
        """What was heard of devices, by the credential that they were sent to with."""
        self.pause: Pause | None = None

    def note_unmade(self, profile_id: int, refusal: RenderError) -> None:
        """A message could not be made."""
        self.unmade += 1
        self.last[refusal.code] = Failure(profile_id, refusal.code, refusal.message)
        tried = self.made + self.unmade
        if tried >= LEAST_SAMPLE and self.unmade * 100 > RENDER_THRESHOLD * tried:
            self.pause = Pause(PauseReason.RENDER_FAILURES, self.unmade_sentence(self.last[refusal.code]))

    def note_answer(self, profile_id: int, outcome: Outcome, *, threshold: int | None) -> None:
        """The channel answered about a message; `threshold` in per cent, None: never pause."""
        if outcome.scope is not OutcomeScope.RECIPIENT:
            return
        if outcome.kind is OutcomeKind.ACCEPTED:
            self.answered += 1
        elif outcome.kind is OutcomeKind.REFUSED:
            self.answered += 1
            self.refused[outcome.code] += 1
            self.last[outcome.code] = Failure(profile_id, outcome.code, outcome.detail)
        if threshold is None or not self.refused or self.answered < LEAST_SAMPLE:
            return
        if self.refused.total() * 100 > threshold * self.answered:
            self.pause = Pause(PauseReason.ERROR_THRESHOLD, self.refused_sentence(threshold))

    def note_token(self, credential: Credential, gone: GoneDevice | None, outcome: Outcome) -> None:
        """A device took its push notification, or is gone."""
        guard = self.tokens[credential]
        guard.note(gone, outcome)
        if guard.must_stop and self.pause is None:
            self.pause = Pause(PauseReason.TOKENS_GONE, pause_sentence(credential, guard))

    def unmade_sentence(self, example: Failure) -> str:
        tried = self.made + self.unmade
        return (
            f"{self.unmade} of {tried} messages could not be made, more than {RENDER_THRESHOLD} %. For example profile"
            f" {example.profile_id}: {example.words} Resume to leave such recipients out, or cancel and send a copy"
            " that is mended."
        )

    def refused_sentence(self, threshold: int) -> str:
        refused = self.refused.total()
        code, most = self.refused.most_common(1)[0]
        example = self.last[code]
        return (
            f"{refused} of {self.answered} messages were refused ({100 * refused / self.answered:.1f} %, the threshold"
            f" is {threshold} %), {most} of them {code}: {explain(code)} For example profile {example.profile_id}:"
            f" {example.words or 'no words were given.'}"
        )
