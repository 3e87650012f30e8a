"""How many subscriptions each caller may have open."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.auth import Caller
from app.problems import ApiError

MOST_A_CALLER = 100
"""Subscriptions of one key, or of one person, in this process."""


class Shares:
    """How many subscriptions each caller has open."""

    def __init__(self, most: int = MOST_A_CALLER) -> None:
        self.most = most
        self.open: Counter[object] = Counter()

    @contextmanager
    def taken(self, caller: Caller) -> Iterator[None]:
        """One more, as long as the block lasts; raises ApiError TOO_MANY_SUBSCRIPTIONS."""
        who = (caller.workspace_id, caller.name)
        if self.open[who] >= self.most:
            message = f"A key has at most {self.most} subscriptions open at once; end some of them."
            raise ApiError("TOO_MANY_SUBSCRIPTIONS", message)
        self.open[who] += 1
        try:
            yield
        finally:
            self.open[who] -= 1
            if not self.open[who]:
                del self.open[who]
