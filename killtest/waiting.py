"""Waiting for something to come true in another process."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

Answer = TypeVar("Answer")
EVERY_S = 0.1


class WaitedInVain(Exception):
    """What must happen did not; the text says what."""


async def until(what: str, ask: Callable[[], Awaitable[Answer | None]], *, within_s: float = 180.0) -> Answer:
    """Ask ten times a second until the answer is true, and give it.

    Raises WaitedInVain: the limit is a guard, no measure.
    """
    guard = monotonic() + within_s
    while True:
        if answer := await ask():
            return answer
        if monotonic() > guard:
            raise WaitedInVain(f"waited {within_s:.0f} s for {what}")
        await asyncio.sleep(EVERY_S)
