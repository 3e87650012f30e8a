"""The big part of every bitmap, kept by the process that read it, so that a pulse need not read it again."""

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from secrets import randbits
from uuid import UUID

from asyncpg import Record
from pyroaring import BitMap

from db.transactions import Connection

MOST_BYTES = 64 * 2**20
"""Of bases a process keeps: 500 dense segments of a million."""

# Connections inside transaction(workspace_id) run this: row level security is the condition on the workspace.
STORED = """
SELECT segment_id, base_version, base, added, removed, evaluated_at FROM segment_membership
WHERE segment_id = ANY($1)
"""


class Bases:
    """Serialised bases by segment and version; the longest unused goes first.

    Bytes and no bitmaps: nobody can change them, and making a bitmap of a million out of them takes 18 us, where
    copying one takes 270 us (pyroaring 1.2).
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.kept: OrderedDict[tuple[UUID, int], bytes] = OrderedDict()
        self.bytes = 0

    def find(self, segment_id: UUID, version: int) -> bytes | None:
        """The base; None when it is not kept."""
        found = self.kept.get((segment_id, version))
        if found is not None:
            self.kept.move_to_end((segment_id, version))
        return found

    def keep(self, segment_id: UUID, version: int, base: bytes) -> None:
        """Remember a base; one larger than the whole is not kept."""
        key = (segment_id, version)
        if key in self.kept or len(base) > self.most_bytes:
            return
        self.kept[key] = base
        self.bytes += len(base)
        while self.bytes > self.most_bytes:
            _, oldest = self.kept.popitem(last=False)
            self.bytes -= len(oldest)


BASES = Bases()
"""Of this process. A cache and no state: what it answers, the database would answer."""


def new_version() -> int:
    """The version of a base that is about to be written.

    At random, not one higher: the base that a rolled back transaction had called version 5 must never be taken for
    the version 5 that another one writes next.
    """
    return randbits(63)


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of segment_membership, read: members are (base | added) - removed."""

    base: BitMap
    added: BitMap
    removed: BitMap
    evaluated_at: datetime
    """As of when the members are; no interval was opened later."""

    @classmethod
    def of(cls, base: bytes, row: Record) -> "Stored":
        deltas = (BitMap.deserialize(row["added"]), BitMap.deserialize(row["removed"]))
        return cls(BitMap.deserialize(base), *deltas, row["evaluated_at"])

    @property
    def members(self) -> BitMap:
        """A bitmap of the caller's own."""
        members = self.base | self.added
        members -= self.removed
        return members

    @property
    def size(self) -> int:
        """How many members there are."""
        return len(self.base) + len(self.added) - len(self.removed)

    def among(self, ids: BitMap) -> BitMap:
        """Those of `ids` who are members: for a few of a million, without putting the million together."""
        return ((self.base & ids) | (self.added & ids)) - self.removed


async def read(connection: Connection, rows: Iterable[Record]) -> dict[UUID, Stored]:
    """What is stored of the segments of `rows` (segment_id, base_version, added, removed, evaluated_at), by segment id.

    Bases that this process has not read yet are read now, with their deltas: rows that are not locked may have
    changed in between.
    """
    found: dict[UUID, Stored] = {}
    unread: list[UUID] = []
    for row in rows:
        base = BASES.find(row["segment_id"], row["base_version"])
        if base is None:
            unread.append(row["segment_id"])
        else:
            found[row["segment_id"]] = Stored.of(base, row)
    if unread:
        found |= await read_whole(connection, unread)
    return found


async def read_whole(connection: Connection, segment_ids: Collection[UUID]) -> dict[UUID, Stored]:
    """What is stored of these segments, bases and all, by segment id; those never evaluated are left out."""
    found: dict[UUID, Stored] = {}
    for row in await connection.fetch(STORED, list(segment_ids)):
        BASES.keep(row["segment_id"], row["base_version"], row["base"])
        found[row["segment_id"]] = Stored.of(row["base"], row)
    return found
