"""The boards of this process: one a workspace, read again when older than a second."""

import asyncio
import logging
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from campaigns.board import Board, load_board

logger = logging.getLogger(__name__)

OLDEST = timedelta(seconds=1)
OLDEST_WITHOUT_DATABASE = timedelta(hours=1)
"""While PostgreSQL is away the last picture is shown, for as long as this; expiries in it still hold."""


class Boards:
    """Boards by workspace; many fetches at once wait for one reading."""

    def __init__(self) -> None:
        self.kept: dict[UUID, Board] = {}
        self.reading: dict[UUID, asyncio.Lock] = {}

    async def board(self, workspace_id: UUID, *, now: datetime) -> Board:
        """The workspace's board, at most a second old."""
        kept = self.kept.get(workspace_id)
        if kept is not None and now - kept.made_at < OLDEST:
            return kept
        async with self.reading.setdefault(workspace_id, asyncio.Lock()):
            kept = self.kept.get(workspace_id)
            if kept is None or now - kept.made_at >= OLDEST:
                try:
                    kept = self.kept[workspace_id] = await load_board(workspace_id, now=now)
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    if kept is None or now - kept.made_at > OLDEST_WITHOUT_DATABASE:
                        raise
                    logger.warning("board not read again: PostgreSQL is away", exc_info=True)
        return kept
