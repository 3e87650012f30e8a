"""Who is in a segment: one bitmap for now, interval rows for history, both changed in one transaction.

The bitmap is a base and two small deltas, `(base | added) - removed`, where `added` is apart from `base` and `removed`
part of it. Rewriting 100 bitmaps of a million a second cost 489 ms and 14 MB of write-ahead log, deltas 1.4 ms and
0.03 MB. Interval rows are written for the difference only, never deleted and inserted again.

EVERYONE has no rows here: see everyone.py.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from asyncpg import Record
from pyroaring import BitMap

from db.transactions import Connection, transaction
from segments.errors import SegmentNotFound
from segments.idsets import to_parameter, unpack

FOLD_ABOVE = 10_000
"""Changes kept in the deltas before they are folded into the base."""

LOAD = "SELECT segment_id, base, added, removed FROM segment_membership WHERE segment_id = ANY($1)"
LOCK = """
SELECT base, added, removed, size FROM segment_membership WHERE workspace_id = $1 AND segment_id = $2 FOR UPDATE
"""
# Stands in for a row that is not there yet, so that two first writers take turns.
LOCK_SEGMENT = "SELECT id FROM segment WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE"
START = """
INSERT INTO segment_membership (workspace_id, segment_id, base, added, removed, size, evaluated_at)
VALUES ($1, $2, $3, $4, $4, $5, $6)
"""
REBASE = """
UPDATE segment_membership SET base = $3, added = $4, removed = $4, size = $5, evaluated_at = $6, version = version + 1
WHERE workspace_id = $1 AND segment_id = $2
"""
# `base` is left out, so that PostgreSQL keeps its stored value as it is.
SHIFT = """
UPDATE segment_membership SET added = $3, removed = $4, size = $5, evaluated_at = $6, version = version + 1
WHERE workspace_id = $1 AND segment_id = $2
"""
UNCHANGED = "UPDATE segment_membership SET evaluated_at = $3 WHERE workspace_id = $1 AND segment_id = $2"
CLOSE_INTERVALS = """
UPDATE membership SET exited_at = $4, exit_reason = $5
WHERE workspace_id = $1 AND segment_id = $2 AND profile_id = ANY($3::int[]) AND exited_at IS NULL
"""
OPEN_INTERVALS = """
INSERT INTO membership (workspace_id, segment_id, profile_id, entered_at, reason)
SELECT $1, $2, entered.id, $4, $5 FROM unnest($3::int[]) AS entered (id)
"""
# By the open intervals, an index row each, rather than by reading a whole bitmap for one bit.
IS_MEMBER = """
SELECT EXISTS (SELECT FROM membership WHERE workspace_id = $1 AND segment_id = $2 AND profile_id = $3
    AND exited_at IS NULL)
  OR EXISTS (SELECT FROM segment s JOIN profile p ON p.workspace_id = s.workspace_id AND p.id = $3
    WHERE s.workspace_id = $1 AND s.id = $2 AND s.type = 'EVERYONE' AND p.merged_into IS NULL AND p.erased_at IS NULL)
"""
SEGMENTS_OF = """
SELECT profile_id, segment_id, entered_at FROM membership
WHERE workspace_id = $1 AND profile_id = ANY($2::int[]) AND exited_at IS NULL
"""
PAGE = """
SELECT profile_id, entered_at FROM membership
WHERE workspace_id = $1 AND segment_id = $2 AND profile_id > $3 AND exited_at IS NULL ORDER BY profile_id LIMIT $4
"""
FORGET = "DELETE FROM membership WHERE workspace_id = $1 AND segment_id = $2"
# One statement, so that both sides are of one instant whoever writes meanwhile.
COMPARE = """
SELECT coalesce(m.segment_id, i.segment_id) AS segment_id, m.base, m.added, m.removed, m.size, i.open
FROM (SELECT * FROM segment_membership WHERE workspace_id = $1) AS m
FULL JOIN (
  SELECT segment_id, string_agg(int4send(profile_id), ''::bytea) AS open FROM membership
  WHERE workspace_id = $1 AND exited_at IS NULL GROUP BY segment_id) AS i ON i.segment_id = m.segment_id
ORDER BY 1
"""
NOBODY = BitMap()


@dataclass(frozen=True, slots=True)
class Change:
    """What a change of members came to: the new size, who entered and who left."""

    size: int
    added: BitMap
    removed: BitMap


@dataclass(frozen=True, slots=True)
class Member:
    """A current member, and since when."""

    profile_id: int
    entered_at: datetime


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A segment whose bitmap and open intervals are not the same people."""

    segment_id: UUID
    only_in_bitmap: int
    only_in_intervals: int
    size: int | None
    """The stored size; None when there is no bitmap at all."""
    members: int
    """Bits in the bitmap."""


# --- reading ------------------------------------------------------------------------------------------------------


async def load(connection: Connection, segment_id: UUID) -> BitMap | None:
    """The current members; None for a segment that was never evaluated, and for EVERYONE."""
    return (await load_many(connection, [segment_id])).get(segment_id)


async def load_many(connection: Connection, segment_ids: Collection[UUID]) -> dict[UUID, BitMap]:
    """Current members by segment id; segments that were never evaluated, and EVERYONE, are left out."""
    rows = await connection.fetch(LOAD, list(segment_ids))
    return {row["segment_id"]: Stored.of(row).members for row in rows}


async def is_member(workspace_id: UUID, segment_id: UUID, *, profile_id: int) -> bool:
    """Whether the profile is in the segment now, whatever the segment's status; of EVERYONE, whether it lives.

    False for a profile or segment that does not exist.
    """
    async with transaction(workspace_id) as connection:
        found: bool = await connection.fetchval(IS_MEMBER, workspace_id, segment_id, profile_id)
    return found


async def segments_of_profiles(workspace_id: UUID, profile_ids: Collection[int]) -> dict[int, dict[UUID, datetime]]:
    """The segments each profile is in now and since when, by profile id; EVERYONE, and those in none, left out."""
    found: dict[int, dict[UUID, datetime]] = {}
    async with transaction(workspace_id) as connection:
        for row in await connection.fetch(SEGMENTS_OF, workspace_id, list(profile_ids)):
            found.setdefault(row["profile_id"], {})[row["segment_id"]] = row["entered_at"]
    return found


async def page(workspace_id: UUID, segment_id: UUID, *, after: int | None, limit: int) -> list[Member]:
    """At most `limit` current members with a profile id above `after`, by profile id; none of EVERYONE."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(PAGE, workspace_id, segment_id, after or 0, limit)
    return [Member(*row) for row in rows]


async def verify(workspace_id: UUID) -> list[Mismatch]:
    """The segments whose bitmap, size and open intervals disagree; empty when all is well."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(COMPARE, workspace_id)
    found = []
    for row in rows:
        members = Stored.of(row).members if row["base"] is not None else NOBODY
        intervals = unpack(row["open"])
        if members != intervals or row["size"] != len(members):
            found.append(
                Mismatch(
                    segment_id=row["segment_id"],
                    only_in_bitmap=len(members - intervals),
                    only_in_intervals=len(intervals - members),
                    size=row["size"],
                    members=len(members),
                )
            )
    return found


# --- changing -----------------------------------------------------------------------------------------------------


async def apply(
    connection: Connection, *, workspace_id: UUID, segment_id: UUID, members: BitMap, reason: str, now: datetime
) -> Change:
    """Make `members` the members, with an interval opened or closed at `now` for each difference.

    Takes the lock of the segment's members, so that changes of one segment follow one another. Folds the deltas. An
    empty difference only moves `evaluated_at`.
    """
    stored = await lock(connection, workspace_id=workspace_id, segment_id=segment_id)
    before = stored.members if stored else NOBODY
    change = Change(size=len(members), added=members - before, removed=before - members)
    await save(
        connection, stored, change, workspace_id=workspace_id, segment_id=segment_id, reason=reason, now=now, fold=True
    )
    return change


async def alter(
    connection: Connection,
    *,
    workspace_id: UUID,
    segment_id: UUID,
    enter: BitMap = NOBODY,
    leave: BitMap = NOBODY,
    reason: str,
    now: datetime,
) -> Change:
    """Let some enter and some leave; the others stay. Who is in both leaves. Writes deltas while they are small.

    Those who are in already, or were never in, are no change.
    """
    stored = await lock(connection, workspace_id=workspace_id, segment_id=segment_id)
    before = stored.members if stored else NOBODY
    added, removed = enter - before - leave, leave & before
    change = Change(size=len(before) + len(added) - len(removed), added=added, removed=removed)
    await save(
        connection, stored, change, workspace_id=workspace_id, segment_id=segment_id, reason=reason, now=now, fold=False
    )
    return change


async def forget(connection: Connection, *, workspace_id: UUID, segment_id: UUID) -> None:
    """Delete the history of a segment that is deleted.

    Reads the whole table: deleting is rare, and an index over closed intervals would be paid by everyone who enters.
    """
    await connection.execute(FORGET, workspace_id, segment_id)


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of segment_membership, read."""

    base: BitMap
    added: BitMap
    removed: BitMap

    @classmethod
    def of(cls, row: Record) -> "Stored":
        return cls(*(BitMap.deserialize(row[column]) for column in ("base", "added", "removed")))

    @property
    def members(self) -> BitMap:
        return (self.base | self.added) - self.removed


async def lock(connection: Connection, *, workspace_id: UUID, segment_id: UUID) -> Stored | None:
    """The stored members, locked until the end of the transaction; None when there are none yet.

    Raises SegmentNotFound.
    """
    row = await connection.fetchrow(LOCK, workspace_id, segment_id)
    if row is None:
        if await connection.fetchval(LOCK_SEGMENT, workspace_id, segment_id) is None:
            raise SegmentNotFound
        row = await connection.fetchrow(LOCK, workspace_id, segment_id)
    return Stored.of(row) if row else None


async def save(
    connection: Connection,
    stored: Stored | None,
    change: Change,
    *,
    workspace_id: UUID,
    segment_id: UUID,
    reason: str,
    now: datetime,
    fold: bool,
) -> None:
    """Write a difference from `stored`: the bitmap, or its deltas, and the intervals."""
    nobody = NOBODY.serialize()
    if stored is None:
        values = (change.added.serialize(), nobody, change.size, now)
        await connection.execute(START, workspace_id, segment_id, *values)
    elif not change.added and not change.removed:
        await connection.execute(UNCHANGED, workspace_id, segment_id, now)
    else:
        members = (stored.members | change.added) - change.removed
        added, removed = members - stored.base, stored.base - members
        if fold or len(added) + len(removed) > FOLD_ABOVE:
            values = (members.serialize(), nobody, change.size, now)
            await connection.execute(REBASE, workspace_id, segment_id, *values)
        else:
            values = (added.serialize(), removed.serialize(), change.size, now)
            await connection.execute(SHIFT, workspace_id, segment_id, *values)
    if change.removed:
        left = to_parameter(change.removed)
        await connection.execute(CLOSE_INTERVALS, workspace_id, segment_id, left, now, reason)
    if change.added:
        entered = to_parameter(change.added)
        await connection.execute(OPEN_INTERVALS, workspace_id, segment_id, entered, now, reason)
