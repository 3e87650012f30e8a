"""Waiting no longer than one means to, also for what takes its time to be cancelled, and doing without PostgreSQL."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncpg
from tortoise.exceptions import BaseORMException

from db.outages import is_passing

Answer = TypeVar("Answer")

# The fifth is what asyncpg 0.32 says of a connection that the server is just closing.
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    BaseORMException,
)
"""What is raised while PostgreSQL is away."""
CLOSED = re.compile("clos(ed|ing)$")
"""What asyncpg's InterfaceError says of connections and pools that are gone. All else it says is that we use one
wrongly: two statements at once, or with too few values."""
LINGERING: set[asyncio.Task[Any]] = set()
"""Given up and not ended yet; the event loop itself holds tasks weakly."""


def is_away(trouble: BaseException | None) -> bool:
    """Whether the trouble is that PostgreSQL is away, and no fault of ours that looks alike."""
    if isinstance(trouble, BaseORMException):
        # Tortoise's words around asyncpg's error.
        trouble = trouble.__cause__
    match trouble:
        case None:
            return False
        case asyncpg.InternalClientError():
            return True
        case asyncpg.TransactionRollbackError() | asyncpg.QueryCanceledError():
            # It was there: who met whom in a deadlock, or what took too long, is to be looked at.
            return False
        case asyncpg.InterfaceError():
            return CLOSED.search(str(trouble)) is not None
        case OSError():
            # One that names a file is about that file.
            return trouble.filename is None
    return is_passing(trouble)


async def within(seconds: float, step: Coroutine[Any, Any, Answer]) -> Answer:
    """What `step` answers; raises TimeoutError after so long, whatever `step` does about being cancelled.

    asyncio.timeout waits for the end of what it cancels. A transaction ends with a ROLLBACK, and a server that hangs
    does not answer that either: a health check would hang with it.
    """
    task = asyncio.create_task(step)
    LINGERING.add(task)
    task.add_done_callback(forget)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        task.cancel()  # does nothing to one that has ended
    if not done:
        raise TimeoutError
    return task.result()


def forget(task: asyncio.Task[Any]) -> None:
    """Its end is nobody's business any more, an error neither."""
    LINGERING.discard(task)
    if not task.cancelled():
        task.exception()
