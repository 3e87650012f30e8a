"""What comes together of the answers to one question: the ids of each leaf, tallies where they are told from events."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pyroaring import BitMap

from db.idsets import unpack
from segments.engines.event_rows import Reading
from segments.engines.queries import Part
from segments.engines.scans import Scan

if TYPE_CHECKING:
    # Brings numpy, 10 MB that a process without answers to fold need not have: imported in the threads that fold.
    from segments.engines.folding import Tally


@dataclass(frozen=True, slots=True)
class Piece:
    """What is asked by one statement: a scan, of one half of the people or of all, and of one part of the time."""

    scan: Scan
    half: int
    only: BitMap | None
    part: Part | None = None

    @property
    def whole(self) -> tuple[tuple[int, ...], int]:
        """What pieces have in common that differ in the part of the time alone."""
        return self.scan.places, self.half


class Gathering:
    """Of `leaves` leaves at `now`, whose answers come by `pieces`."""

    def __init__(self, leaves: int, now: datetime, pieces: Sequence[Piece]) -> None:
        self.found = [BitMap() for _ in range(leaves)]
        self.now = now
        self.missing = Counter(piece.whole for piece in pieces)
        self.tallies: dict[tuple[tuple[int, ...], int], list[Tally]] = {}
        """Of those of which pieces are missing still."""
        self.lock = asyncio.Lock()
        """One answer is folded at a time: it takes several times its own memory."""

    async def add(self, piece: Piece, row: Sequence[Any]) -> None:
        """Take in what the statement of `piece` answered."""
        reading = piece.scan.reading
        if reading is None:
            self.note(piece, map(unpack, row))
            return
        async with self.lock:
            tallies = await asyncio.to_thread(fold_more, reading, self.tallies.pop(piece.whole, []), row, self.now)
            self.missing[piece.whole] -= 1
            if self.missing[piece.whole]:
                self.tallies[piece.whole] = tallies
            else:
                self.note(piece, await asyncio.to_thread(who_meets, reading, tallies, self.now))

    def note(self, piece: Piece, answers: Iterable[BitMap]) -> None:
        for place, ids in zip(piece.scan.places, answers, strict=True):
            self.found[place] |= ids


def fold_more(reading: Reading, known: "list[Tally]", row: Sequence[Any], now: datetime) -> "list[Tally]":
    from segments.engines import folding

    return folding.merged(reading.shares, known, folding.fold(reading, row, now))


def who_meets(reading: Reading, tallies: "list[Tally]", now: datetime) -> list[BitMap]:
    from segments.engines import folding

    return folding.who_meets(reading.shares, tallies, now)
