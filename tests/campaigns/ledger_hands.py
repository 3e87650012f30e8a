"""What the model of the ledger is made of: replies of a provider, what workers hold in their hands, what people do."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto

from hypothesis import strategies as st

from campaigns.claims import Taken
from campaigns.ledger import Result
from campaigns.models import DeliveryState
from tests.campaigns.ledger_world import Ending, Person

FAR = timedelta(days=5)
"""Beyond `ledger.GIVE_UP_AFTER`."""

Held = tuple[int, int]
"""A profile id and the fence of its row, as it was read or as the intent has left it."""


class News(Enum):
    """What happens to a person."""

    UNSUBSCRIBED = auto()
    SUPPRESSED = auto()
    MOVED = auto()
    SWAPPED = auto()
    """Each of two has the other's mailbox from now on."""
    MERGED = auto()


@dataclass(frozen=True)
class Reply:
    """What the provider makes of a message, and whether the worker hears of it."""

    accepted: bool
    heard: bool
    retry_in: timedelta | None

    def result(self, held: Held) -> Result:
        state = DeliveryState.DEFERRED if self.retry_in is not None else DeliveryState.FAILED
        if self.accepted:
            state = DeliveryState.SENT
        if not self.heard:
            state = DeliveryState.IN_DOUBT
        retry_in = self.retry_in if state is DeliveryState.DEFERRED else None
        return Result(held[0], 0, held[1], state, "ANSWER", retry_in=retry_in)


ACCEPTED = Reply(accepted=True, heard=True, retry_in=None)
workers = st.integers(0, 1)
endings = st.sampled_from([Ending.DONE, Ending.DONE, Ending.DONE, Ending.LOST, Ending.UNHEARD])
places = st.integers(0, 2)
NOW, LATER = timedelta(0), timedelta(hours=1)
replies = st.builds(
    Reply,
    accepted=st.sampled_from([False, False, True]),
    heard=st.sampled_from([True, True, True, False]),
    retry_in=st.sampled_from([NOW, NOW, NOW, NOW, LATER, FAR, None]),
)


def living(people: dict[int, Person], id: int) -> Person:
    """Who this profile is by now."""
    person = people[id]
    while person.merged_into is not None:
        person = people[person.merged_into]
    return person


@dataclass
class Hands:
    """What one worker knows; nothing of it outlives the worker. It forgets nothing that it has done already, so that
    it also does what no worker should: the same thing twice."""

    claim_id: int | None = None
    taken: dict[Held, Taken] = field(default_factory=dict)
    intended: set[Held] = field(default_factory=set)
    """Asked for at least once."""
    leaving: set[Held] = field(default_factory=set)
    """The intent is committed, and the worker has heard of it."""
    away: set[Held] = field(default_factory=set)
    answered: dict[Held, Result] = field(default_factory=dict)
    written: set[Held] = field(default_factory=set)

    def stays(self, reason: str, messages: set[Held]) -> None:
        """Not one byte of these has left, so that the worker may have them again at once."""
        for id, fence in messages:
            self.answered.setdefault(
                (id, fence), Result(id, 0, fence, DeliveryState.DEFERRED, reason, retry_in=NOW, counts=False)
            )

    def forget(self, reason: str) -> None:
        """Answers of this kind, once they are written."""
        gone = {held for held, result in self.answered.items() if result.reason == reason}
        self.answered = {held: result for held, result in self.answered.items() if held not in gone}
        self.written -= gone
