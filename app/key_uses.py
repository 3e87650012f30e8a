"""Which keys were used, and when: gathered by each process and written by it now and then, all of them at once."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from uuid import UUID

from app.patience import UNREACHABLE, within
from profiles import keys

logger = logging.getLogger(__name__)

WRITTEN_EVERY_S = 20.0
"""`lastUsedAt` is kept to the minute, so that of three writes two find nothing to do."""
PATIENCE_S = 5.0


class KeyUses:
    """The keys that this process saw in use since it wrote them down, however many requests each of them made."""

    def __init__(self) -> None:
        self.used: dict[UUID, datetime] = {}

    def note(self, key_id: UUID, now: datetime) -> None:
        """That a key opens something now."""
        self.used[key_id] = now

    async def write(self) -> None:
        """Write them down; what cannot be written is kept for the next time."""
        used, self.used = self.used, {}
        if not used:
            return
        try:
            await within(PATIENCE_S, keys.keep_uses(used))
        except UNREACHABLE:
            self.used = used | self.used
            logger.warning("last uses of keys not written", extra={"keys": len(used)}, exc_info=True)

    @asynccontextmanager
    async def running(self) -> "AsyncIterator[KeyUses]":
        """Writes every so often until the block ends, and then once more."""

        async def write_always() -> None:
            while True:
                await asyncio.sleep(WRITTEN_EVERY_S)
                await self.write()

        task = asyncio.create_task(write_always())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.write()
