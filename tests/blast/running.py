"""Processes that tests wait for and kill."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


async def until(what: str, ask: Callable[[], Awaitable[Any]], *, within_s: int = 90) -> Any:
    """Ask another process, ten times a second, until it says something true."""
    for _ in range(within_s * 10):
        if answer := await ask():
            return answer
        await asyncio.sleep(0.1)
    raise AssertionError(f"waited {within_s} s for {what}")


def child_of(supervisor: subprocess.Popen[bytes]) -> int:
    """The process that works: the child of `muster worker`."""
    (child, *_) = children_of(supervisor)
    return child


def children_of(supervisor: subprocess.Popen[bytes]) -> list[int]:
    """Its children; none while it starts, or rests after one that died."""
    return [int(one) for one in Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()]
