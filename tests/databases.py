"""Databases for the tests, made and dropped beside them: to copy the template takes longer than most tests."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import asyncpg

MEMORY = Path("/dev/shm")
ROOM = 4 * 1024**3
"""Bytes that must be free there: the servers of the tests keep some hundred megabytes, most of it log."""


@contextmanager
def folder_in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder of a file system in memory that is gone afterwards; where there is none, or no room, `otherwise`.

    A copy of a database is a thousand small files, three times as fast to write there (75 ms, not 225).
    """
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM:
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="muster-tests-", dir=MEMORY, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        folder.chmod(0o711)  # PostgreSQL may have to run as nobody, who must pass here
        yield folder


class Databases:
    """Copies of a template on one server. One is always ready; those given back are dropped while the next test runs.

    `with Databases(url, "template") as databases`. It works in a thread of its own, on one connection.
    """

    def __init__(self, server_url: str, template: str) -> None:
        self._url, self._template = server_url, template
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="databases")
        self._pending: set[Future[Any]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._turn = asyncio.Lock()
        self._connection: asyncpg.Connection = self._begin(asyncpg.connect(self._url)).result()
        self._next = self._begin(self._make())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in [*self._pending, self._begin(self._connection.close())]:
            one.exception()  # the server goes with all that is left on it
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def take(self) -> str:
        """The name of a new database."""
        name: str = self._next.result()
        self._next = self._begin(self._make())
        return name

    def give_back(self, name: str) -> None:
        """Drop a database, whoever is still connected to it; returns at once."""
        self._begin(self._execute(f"DROP DATABASE {name} WITH (FORCE)"))

    def rest(self) -> None:
        """Wait until nothing is being made or dropped; after a `take`, nothing will be before the next."""
        for one in list(self._pending):
            one.exception()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        begun = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._pending.add(begun)
        begun.add_done_callback(self._pending.discard)
        return begun

    async def _make(self) -> str:
        name = f"test_{uuid4().hex}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY file_copy")
        return name

    async def _execute(self, statement: str) -> None:
        async with self._turn:
            await self._connection.execute(statement)
