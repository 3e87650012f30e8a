"""What to do when two transactions stood in each other's way."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from profiles.errors import ProfileError

T = TypeVar("T")

MOST_TRIES = 5


class Overtaken(Exception):
    """Somebody else changed what this transaction was built on: it must be rolled back and run again."""


async def retried(use_case: Callable[[], Awaitable[T]]) -> T:
    """What `use_case` returns, run again when PostgreSQL ended it because of a deadlock, or when it was Overtaken.

    `use_case` must be one whole transaction. Writers lock rows in one order, so this is rare, but two batches that
    create the same people and then meet an upsert of others can still wait for each other. Raises ProfileError
    CONTENDED after five tries.
    """
    for _ in range(MOST_TRIES):
        try:
            return await use_case()
        except (asyncpg.DeadlockDetectedError, Overtaken):
            continue
    raise contended()


def contended() -> ProfileError:
    return ProfileError("CONTENDED", "Others were changing the same profiles all the while: send this again.")
