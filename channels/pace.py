"""How fast: a token bucket for one process."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class RatePace:
    """Lets at most `rate` messages a second through, and `burst` at once after a pause.

    Whoever takes is served in the order of asking. The bucket is kept as one instant: when the next token would be
    free if nobody had waited (GCRA), so that a thousand waiting cost nothing. Cancelling a wait leaves its tokens
    used: the pace may be slower than asked, never faster.
    """

    def __init__(
        self,
        rate: float,
        *,
        burst: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`rate` is in messages a second. Raises ValueError unless rate and burst are positive."""
        self._check(rate, burst)
        self._rate, self._burst = rate, burst
        self._clock, self._sleep = clock, sleep
        self._next = clock() - burst / rate

    async def take(self, tokens: int = 1) -> None:
        """Wait until `tokens` more messages may leave. More than `burst` at once is allowed and waits accordingly."""
        now = self._clock()
        # A pause earns at most `burst` tokens.
        self._next = max(self._next, now - self._burst / self._rate) + tokens / self._rate
        wait_s = self._next - now
        if wait_s > 0:
            await self._sleep(wait_s)

    def change(self, rate: float) -> None:
        """Another rate from the next taker on; who already waits keeps the wait it has."""
        self._check(rate, self._burst)
        self._rate = rate

    @staticmethod
    def _check(rate: float, burst: int) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError("rate and burst must be positive")
