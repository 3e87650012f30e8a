"""The boards of this process: one a workspace, read again every second and at each notice.

A fetch is answered from memory. It waits only for a board that is not there yet, or that was read too long ago to be
sure of, which happens when this process was held up; never for a database that is known to be away.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

from pyroaring import BitMap

from app.patience import UNREACHABLE, within
from app.problems import ApiError
from app.wakeups import Wakeups
from campaigns.board import Board
from campaigns.board_reading import BoardReader, Refreshed

logger = logging.getLogger(__name__)

EVERY_S = 1.0
"""A board is read again so long after the last reading began."""
OLDEST_S = 1.8
"""A fetch waits for a new reading when the last began longer ago: what is answered is less than 2 s behind."""
IDLE_AFTER_S = 600.0
"""Of workspaces nobody fetched from for so long, boards are read once a minute, to have them if PostgreSQL goes."""
IDLE_EVERY_S = 60.0
FORGOTTEN_AFTER_S = 86_400.0
OLDEST_WITHOUT_DATABASE = timedelta(hours=1)
"""While PostgreSQL is away the last board is shown, for as long as this; starts and expiries in it still hold."""
PATIENCE_S = 5.0
"""For one reading."""
READ_AT_ONCE = 4
"""Boards, so that they never take all connections."""
CHANGES_KEPT = 120
"""Readings of which is known whom they touched; answers made before them are made again."""


Clock = Callable[[], datetime]


@dataclass(slots=True, eq=False)
class Kept:
    """A workspace's board with what answers made from it need to know."""

    reader: BoardReader
    asked_at: float
    """Monotonic, as the others."""
    began_at: float = -float("inf")
    """When the last reading that succeeded began."""
    tried_at: float = -float("inf")
    """When the last reading began."""
    away: bool = False
    """Whether the last reading failed."""
    number: int = 0
    """Of the last change."""
    valid_from: int = 0
    """Answers made before the change of this number are worth nothing."""
    changes: "deque[tuple[int, BitMap]]" = field(default_factory=lambda: deque(maxlen=CHANGES_KEPT))
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def board(self) -> Board:
        """As it was read last."""
        return self.reader.board

    @property
    def was_read(self) -> bool:
        """Whether there is a board at all."""
        return self.began_at > -float("inf")

    def is_due(self, at: float) -> bool:
        """Whether it is time to read it again."""
        every_s = EVERY_S if at - self.asked_at < IDLE_AFTER_S else IDLE_EVERY_S
        # A little earlier than a second is a second: rounds begin a moment apart.
        return at - self.tried_at >= every_s * 0.9

    def is_current(self) -> bool:
        """Whether a fetch may be answered from the board as it is, without waiting; notes that somebody fetches."""
        self.asked_at = at = monotonic()
        return at - self.began_at < OLDEST_S or (self.away and self.is_young)

    @property
    def is_young(self) -> bool:
        """Whether the board may be shown without a database."""
        return monotonic() - self.began_at < OLDEST_WITHOUT_DATABASE.total_seconds()

    def take(self, read: Refreshed) -> None:
        """Note what a reading brought."""
        if not read.replaced and not read.touched:
            return
        self.number += 1
        if len(self.changes) == CHANGES_KEPT:
            self.valid_from = max(self.valid_from, self.changes[0][0])
        self.changes.append((self.number, read.touched))
        if read.replaced:
            self.valid_from = self.number

    def holds(self, made_at: int, profile_id: int | None) -> bool:
        """Whether an answer to somebody, made at the change of this number, would still be the same."""
        if made_at == self.number:
            return True
        if made_at < self.valid_from:
            return False
        if profile_id is None:
            return True
        return not any(number > made_at and profile_id in touched for number, touched in self.changes)


class Boards:
    """Boards by workspace; many fetches at once wait for one reading."""

    def __init__(self) -> None:
        self.kept: dict[UUID, Kept] = {}
        self.noticed: set[UUID] = set()
        self.bell = asyncio.Event()

    @asynccontextmanager
    async def running(self, wakeups: Wakeups, clock: Clock) -> AsyncIterator["Boards"]:
        """Keeps them true for the length of the block."""
        tasks = [asyncio.create_task(self.keep_reading(clock)), asyncio.create_task(self.listen(wakeups))]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def keep_reading(self, clock: Clock) -> None:
        """Read boards again, every second and when something is said to have changed; until cancelled."""
        places = asyncio.Semaphore(READ_AT_ONCE)
        while True:
            self.bell.clear()
            noticed, self.noticed = self.noticed, set()
            began_at = monotonic()

            async def refresh(kept: Kept) -> None:
                async with places, kept.reading:
                    try:
                        await self.read(kept, now=clock())
                    except Exception:
                        # One workspace's trouble is not the others'; whoever fetches from it is told.
                        logger.exception("board not read again")

            due = [kept for one, kept in self.kept.items() if one in noticed or kept.is_due(began_at)]
            await asyncio.gather(*map(refresh, due))
            for one in [one for one, kept in self.kept.items() if began_at - kept.asked_at > FORGOTTEN_AFTER_S]:
                # Nobody keeps it true any more: nothing that was answered from it is answered again.
                self.kept.pop(one).began_at = -float("inf")
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S - (monotonic() - began_at)):
                    await self.bell.wait()

    async def listen(self, wakeups: Wakeups) -> None:
        """Have boards read again that somebody says have changed; until cancelled."""
        async for workspace_id in wakeups.changed_boards():
            self.noticed.add(workspace_id)
            self.bell.set()

    async def kept_of(self, workspace_id: UUID, *, now: datetime) -> Kept:
        """The workspace's board, as it was less than 2 s ago; the last one there was while PostgreSQL is away.

        Raises ApiError UNAVAILABLE when there is none that is young enough to be shown.
        """
        kept = self.kept.get(workspace_id)
        if kept is None:
            kept = self.kept[workspace_id] = Kept(BoardReader(workspace_id), monotonic())
        if not kept.is_current():
            asked_at = kept.asked_at
            async with kept.reading:
                # Whoever waited for the same reading takes what it brought, also that PostgreSQL is away: were each to
                # try by itself, a server that hangs would hold them up one after the other.
                is_away = kept.away and (kept.tried_at >= asked_at or kept.is_young)
                if kept.began_at < asked_at and not is_away:
                    await self.read(kept, now=now)
        if not kept.is_young:
            message = "Banners cannot be told now, since the database is away; ask again later."
            raise ApiError("UNAVAILABLE", message)
        return kept

    async def read(self, kept: Kept, *, now: datetime) -> None:
        """Read a board; while PostgreSQL is away nothing changes. The caller holds `kept.reading`."""
        kept.tried_at = began_at = monotonic()
        try:
            kept.take(await within(PATIENCE_S, kept.reader.refresh(now=now)))
        except UNREACHABLE:
            if not kept.away:
                logger.warning("board not read again: PostgreSQL is away", exc_info=True)
            kept.away = True
        else:
            kept.began_at, kept.away = began_at, False

    @property
    def oldest_s(self) -> float | None:
        """Seconds since the oldest board was read that there is; None when there is none."""
        at = monotonic()
        return max((at - one.began_at for one in self.kept.values() if one.was_read), default=None)
