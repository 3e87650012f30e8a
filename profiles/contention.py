"""What to do when two transactions stood in each other's way."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

T = TypeVar("T")

MOST_TRIES = 4


async def retried(use_case: Callable[[], Awaitable[T]]) -> T:
    """What `use_case` returns, run again when PostgreSQL rolled it back to end a deadlock; at most 4 times.

    `use_case` must be one whole transaction. Writers lock rows in one order, so this is rare, but two batches that
    create the same people and then meet an upsert of others can still wait for each other.
    """
    for _ in range(MOST_TRIES - 1):
        try:
            return await use_case()
        except asyncpg.DeadlockDetectedError:
            continue
    return await use_case()
