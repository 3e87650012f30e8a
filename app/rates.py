"""How much one caller may ask for: what its operations cost a minute, and how many requests a second.

Operations are counted by their cost over all processes of the API, on Valkey; while that is away each process counts
for itself, and lets half as much pass. Requests are counted in this process only, before anything is read of them: that
costs half a microsecond and is there for fetches of banners too. A publishable key is everybody's, so that its callers
are told apart by their addresses; else one of them could use up what all of them have.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from graphql import DocumentNode, OperationType, get_operation_ast
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from starlette.types import Scope

from app.auth import Caller
from app.beside import Beside
from app.limits import FRAGMENTS, Answers, Measure
from app.problems import ApiError

logger = logging.getLogger(__name__)

CODE = "RATE_LIMITED"
SUBSCRIPTION_COST = 5
ROOT_COSTS = {OperationType.QUERY: 1, OperationType.MUTATION: 5, OperationType.SUBSCRIPTION: SUBSCRIPTION_COST}
"""Of each field of the operation itself: a change writes, and holds locks."""
FIELDS_A_POINT = 50
"""Fields below, fragments written out, that cost as much as one at the top."""
REFUSED_COST = 5
"""Of a document that cannot be executed, which is the work of reading it."""
WINDOW_S = 1.0
PATIENCE_S = 0.25
"""For Valkey's answer: nobody waits long to be let in."""
AGAIN_AFTER_S = 5.0
"""So long Valkey is not asked after it was away."""
MOST_SPENT = 10_000
"""Callers with nothing left that are remembered; the others ask Valkey again."""
PREFIX = "muster:rate"


class RateLimited(ApiError):
    """More than a caller may ask for now."""

    def __init__(self, retry_after_s: int) -> None:
        message = f"That is more than this key may ask for at once; go on in {retry_after_s} s (header Retry-After)."
        super().__init__(CODE, message)
        self.retry_after_s = retry_after_s


def cost_of(document: DocumentNode, operation_name: str | None) -> int:
    """Points of one operation of a document that is valid: by what it looks up and changes, not by requests."""
    operation = get_operation_ast(document, operation_name)
    if operation is None:
        return REFUSED_COST
    # One that is sent again and again is counted once.
    known = COSTS.of(operation)
    if not known:
        measure, roots = Measure(document), dict[str, Answers]()
        measure.selections(operation.selection_set, 1, 1, roots)
        asked = sum(one.asked for name, one in roots.items() if name != FRAGMENTS)
        known.append(asked * ROOT_COSTS[operation.operation] + measure.fields // FIELDS_A_POINT)
    return known[0]


COSTS: Beside[list[int]] = Beside(list)


def who_of(caller: Caller | None, address: str) -> str:
    """Whose points are taken: a secret key's, or those of one address that uses what everybody has."""
    if caller is None:
        return address
    who = f"{caller.workspace_id} {caller.name}"
    return who if caller.is_server else f"{who} {address}"


def address_of(scope: Scope) -> str:
    """The address a request comes from; a trusted proxy's word counts (uvicorn puts it there)."""
    client = scope.get("client")
    return client[0] if client else ""


class OperationRates:
    """What each caller's operations have cost in this minute; `most` 0: nobody counts."""

    def __init__(self, redis_url: str, most: int) -> None:
        self.most = most
        self.item = RateLimitItemPerMinute(max(most, 1))
        self.own_item = RateLimitItemPerMinute(max(most // 2, 1))
        self.storage = RedisStorage(
            f"async+{redis_url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix=PREFIX,
            socket_connect_timeout=PATIENCE_S,
        )
        self.shared = FixedWindowRateLimiter(self.storage)
        self.own = FixedWindowRateLimiter(MemoryStorage())
        self.own_used = False
        self.away_until = 0.0
        self.spent: dict[str, float] = {}
        """Until when (monotonic) those have nothing left of whom this process knows it."""

    @asynccontextmanager
    async def running(self) -> "AsyncIterator[OperationRates]":
        """Closes what it has open to Valkey at the end."""
        try:
            yield self
        finally:
            bridge: Any = self.storage.bridge
            await bridge.storage.aclose()
            if self.own_used:
                await self.own.storage.reset()

    def check(self, who: str) -> None:
        """Raises RateLimited when `who` is known to have nothing left: their document is not even read."""
        until = self.spent.get(who)
        if until is None:
            return
        left = until - time.monotonic()
        if left > 0:
            raise RateLimited(math.ceil(left))
        del self.spent[who]

    async def take(self, who: str, cost: int) -> None:
        """Take `cost` points; raises RateLimited when there are fewer left."""
        if not self.most:
            return
        self.check(who)
        limiter, item = (self.own, self.own_item) if self.is_away else (self.shared, self.item)
        if limiter is self.shared:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    left_s = await left_until(limiter, item, who, cost)
            except (StorageError, OSError, TimeoutError):
                # Once for all who waited for it.
                if not self.is_away:
                    logger.warning("rates are counted here: Valkey is away", exc_info=True)
                self.away_until = time.monotonic() + AGAIN_AFTER_S
                limiter, item = self.own, self.own_item
        if limiter is self.own:
            self.own_used = True
            left_s = await left_until(limiter, item, who, cost)
        if left_s > 0:
            self.spent.pop(who, None)
            self.spent[who] = time.monotonic() + left_s
            if len(self.spent) > MOST_SPENT:
                # Who came first: addresses may be without number, and most never come again.
                del self.spent[next(iter(self.spent))]
            raise RateLimited(math.ceil(left_s))

    @property
    def is_away(self) -> bool:
        return time.monotonic() < self.away_until


async def left_until(limiter: FixedWindowRateLimiter, item: RateLimitItemPerMinute, who: str, cost: int) -> float:
    """Take points; gives 0, or seconds until there are some again."""
    if await limiter.hit(item, who, cost=cost):
        return 0.0
    return max(1.0, (await limiter.get_window_stats(item, who)).reset_time - time.time())


class RequestRates:
    """Requests of each key from each address within this second; `most` 0: nobody counts."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.counts: dict[tuple[int, str], list[int]] = {}
        """One number each, in a list so that counting looks it up once."""
        self.ends_at = 0.0

    def admits(self, authorization: bytes | None, scope: Scope) -> bool:
        """Count one, and say whether it may be answered."""
        now = time.monotonic()
        if now >= self.ends_at:
            self.counts, self.ends_at = {}, now + WINDOW_S
        client = scope.get("client")
        # Not the header itself: it may be of 64 kB, another one each time.
        key = (hash(authorization), client[0] if client else "")
        count = self.counts.get(key)
        if count is None:
            count = self.counts[key] = [0]
        count[0] += 1
        return count[0] <= self.most or not self.most
