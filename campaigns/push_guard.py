"""Devices that a provider says are gone: disabled, unless the mistake may be ours.

UNREGISTERED is said of a token that the provider knows as this app's: a fact, however many there are. Of a credential
of another project, or of another environment, every token is unknown or another app's: so devices of which that is said
are disabled at the end of a turn, and not while half of the credential's last answers say so; of more than a few
answers the campaign pauses. A worker that dies forgets the devices of its turn; the next campaign finds them again.
"""

from collections import deque
from dataclasses import dataclass, field

from campaigns.push_channels import Credential
from channels.base import Outcome
from profiles.devices import GoneDevice

LOOKED_BACK = 200
"""Answers by which a credential is judged."""
LEAST_SAMPLE = 20
"""For fewer answers nothing is stopped."""
MOST_FOREIGN = 50
"""Per cent of them, from which on it may be no accident."""
FOREIGN = frozenset({"BAD_TOKEN", "OTHER_APP"})
"""What an outcome's code is when the credential, and not only the device, may be wrong."""


@dataclass(slots=True)
class TokenGuard:
    """What one process saw of the tokens of one credential in one dispatch."""

    lately: deque[bool] = field(default_factory=lambda: deque(maxlen=LOOKED_BACK))
    """Whether the token was foreign to the credential, of the last answers."""
    foreign_lately: int = 0
    """How many of them were."""
    gone: list[GoneDevice] = field(default_factory=list)
    """Unregistered, and not disabled yet."""
    foreign: list[GoneDevice] = field(default_factory=list)
    """Unknown, or another app's, and not disabled yet."""
    example: str = ""
    """The provider's words about the last of those."""

    def note(self, gone: GoneDevice | None, outcome: Outcome) -> None:
        """A device took its message, or is gone."""
        is_foreign = outcome.code in FOREIGN
        if len(self.lately) == LOOKED_BACK:
            self.foreign_lately -= self.lately[0]
        self.lately.append(is_foreign)
        self.foreign_lately += is_foreign
        if is_foreign:
            self.example = outcome.detail
        if gone is not None:
            (self.foreign if is_foreign else self.gone).append(gone)

    @property
    def per_cent(self) -> int:
        """Of the last answers, those that said that a token is foreign."""
        return 100 * self.foreign_lately // len(self.lately) if self.lately else 0

    @property
    def is_suspicious(self) -> bool:
        """Whether the credential may be wrong."""
        return self.per_cent >= MOST_FOREIGN

    @property
    def must_stop(self) -> bool:
        """Whether there are answers enough to stop for."""
        return self.is_suspicious and len(self.lately) >= LEAST_SAMPLE

    def to_disable(self) -> list[GoneDevice]:
        """The devices that are to be disabled now; none that a mistake of ours could have made look gone. They are
        answered once."""
        found = self.gone if self.is_suspicious else [*self.gone, *self.foreign]
        self.gone, self.foreign = [], []
        return found


def pause_sentence(credential: Credential, guard: TokenGuard) -> str:
    """Why the campaign pauses, for people."""
    app, provider = credential
    return (
        f"{guard.per_cent} % of the last {len(guard.lately)} devices of {provider} for the app {app!r} are said to be"
        f" no devices of that app ({guard.example}). A credential of another project, bundle id or environment does"
        " that: try it with pushCredentialTest, then resume. None of these devices was disabled."
    )
