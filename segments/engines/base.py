"""What an engine must answer. It knows leaves only: the tree, static members and references never depend on it."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pyroaring import BitMap

from segments.nodes import EngineLeaf, Json, RankBy


class EngineError(Exception):
    """An engine could not answer. `code` is for programs; `message` is one sentence for the segment's owner."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Ranks:
    """Values by profile, as two arrays of one length: ids (array of "I") and values (array of "d"), by ascending id.
    Who has no value is left out."""

    ids: "array[int]"
    values: "array[float]"


@dataclass(frozen=True, slots=True)
class Look:
    """What a leaf makes of one profile."""

    matches: bool
    value: Json
    """What it looked at, for people to read: a trait's or attribute's value, {"count", "sum" ...} of the matching
    events, an instant as a text in ISO 8601; None for what the profile does not have."""


class Engine(Protocol):
    """Answers leaves with sets of profile ids.

    nodes.py says what a leaf means. Only leaves of `tree.questions` are asked: events are performed, counted or
    summed so that a profile without any matching event never belongs to the answer.
    """

    name: str

    async def as_of(self, *, workspace_id: UUID) -> datetime | None:
        """Up to when this engine's data is complete; None when it is never behind. Raises EngineError."""

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        """The profiles that meet each leaf, in the order of `leaves`; with `only`, those of them.

        Ids of merged and erased profiles may be among them: callers intersect with `universe`. All leaves of one
        question come together, so that an engine can answer several with one scan. Raises EngineError.
        """

    async def universe(self, *, workspace_id: UUID, brand_id: UUID | None = None, only: BitMap | None = None) -> BitMap:
        """The living profiles of the workspace, or of one brand: what NOT and "never" are relative to.

        Living is neither merged nor erased. Raises EngineError.
        """

    async def gone(self, *, workspace_id: UUID) -> BitMap:
        """Whom `ids` may answer with and who is not of the universe: merged or erased. Raises EngineError.

        Few beside the living, so that a question whose answer is small need not read the universe.
        """

    async def profiles(self, *, workspace_id: UUID, since: float) -> int:
        """How many profiles the workspace has, gone ones too, or had at any moment after `since` by time.monotonic().
        Raises EngineError.
        """

    async def crossed(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], since: datetime, until: datetime
    ) -> BitMap:
        """Profiles with an event, a date trait or a sight that came over a moving edge of one of `leaves` while now
        went from `since` to `until`; more are allowed, fewer are not. Empty when no leaf has a moving edge.

        Edges are now - duration of each window and span, and now itself (events that were ahead of it). Raises
        EngineError.
        """

    async def ranks(self, *, workspace_id: UUID, by: RankBy, now: datetime, only: BitMap | None = None) -> Ranks:
        """The value of everybody who has one; with `only`, of those. Raises EngineError."""

    async def looks(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], now: datetime, profile_id: int
    ) -> list[Look]:
        """What each leaf makes of this profile, in the order of `leaves`; it matches exactly where `ids` has it.
        Raises EngineError.
        """
