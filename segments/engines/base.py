"""What an engine must answer. It knows leaves only: the tree, static members and references never depend on it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pyroaring import BitMap

from segments.nodes import Leaf


class EngineError(Exception):
    """An engine could not answer. `code` is for programs; `message` is one sentence for the segment's owner."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Engine(Protocol):
    """Answers leaves with sets of profile ids.

    nodes.py says what a leaf means. Only leaves of `tree.questions` are asked: events are performed, counted or
    summed so that a profile without any matching event never belongs to the answer.
    """

    name: str

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[Leaf], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        """The profiles that meet each leaf, in the order of `leaves`; with `only`, those of them.

        Ids of merged and erased profiles may be among them: callers intersect with `universe`. All leaves of one
        question come together, so that an engine can answer several with one scan. Raises EngineError.
        """

    async def universe(self, *, workspace_id: UUID, brand_id: UUID | None = None, only: BitMap | None = None) -> BitMap:
        """The living profiles of the workspace, or of one brand: what NOT and "never" are relative to.

        Living is neither merged nor erased. Raises EngineError.
        """
