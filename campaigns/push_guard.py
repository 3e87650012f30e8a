"""Devices that a provider says are gone: disabled, unless so many are at once that the mistake must be ours.

A credential of another project, or of the sandbox, makes every token look wrong. So devices are disabled at the end of
a turn, and not at all while half of a credential's last answers say that the device is gone: then the campaign pauses.
A worker that dies forgets the devices of its turn; the next campaign finds them again.
"""

from collections import deque
from dataclasses import dataclass, field

from channels.base import PushProvider
from profiles.devices import GoneDevice

LOOKED_BACK = 200
"""Answers by which a credential is judged."""
LEAST_SAMPLE = 20
"""Of fewer answers the share says nothing."""
MOST_GONE = 50
"""Per cent of them, above which it is no accident."""


@dataclass(slots=True)
class TokenGuard:
    """What one process saw of the tokens of one credential in one dispatch."""

    lately: deque[bool] = field(default_factory=lambda: deque(maxlen=LOOKED_BACK))
    """Whether the device was gone, of the last answers."""
    gone: list[GoneDevice] = field(default_factory=list)
    """Not disabled yet."""

    def note(self, gone: GoneDevice | None) -> None:
        """A device took its message, or is gone."""
        self.lately.append(gone is not None)
        if gone is not None:
            self.gone.append(gone)

    @property
    def per_cent(self) -> int:
        """Of the last answers, those that said that a device is gone."""
        return 100 * sum(self.lately) // len(self.lately) if self.lately else 0

    @property
    def is_suspicious(self) -> bool:
        return len(self.lately) >= LEAST_SAMPLE and self.per_cent >= MOST_GONE

    @property
    def is_full(self) -> bool:
        """Whether there are answers enough to stop for."""
        return len(self.lately) == LOOKED_BACK

    def to_disable(self) -> list[GoneDevice]:
        """The devices that are to be disabled now; none that a mistake of ours could have made look gone. They are
        answered once."""
        found, self.gone = self.gone, []
        return [] if self.is_suspicious else found


Credential = tuple[str, PushProvider]


def pause_sentence(credential: Credential, guard: TokenGuard, example: str) -> str:
    """Why the campaign pauses, for people."""
    app, provider = credential
    return (
        f"{guard.per_cent} % of the last {len(guard.lately)} devices of {provider} for the app {app!r} are said to be"
        f" gone ({example}). A credential of another project, bundle id or environment does that: try it with"
        " pushCredentialTest, then resume. None of these devices was disabled."
    )
