"""Who is in a segment: one bitmap for now, interval rows for history, a row of the feed, all changed at once.

The bitmap is a base and two small deltas, `(base | added) - removed`, where `added` is apart from `base` and `removed`
part of it. Rewriting 100 bitmaps of a million a second cost 489 ms and 14 MB of write-ahead log, deltas 1.4 ms and
0.03 MB. Interval rows are written for the difference only, never deleted and inserted again. Every change of members
adds one row to the feed, in the same transaction: see changes.py.

Reading members, page by page or one by one, is in members.py. EVERYONE has no rows here: see everyone.py.
"""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from asyncpg import Record
from pyroaring import BitMap

from db.idsets import unpack
from db.transactions import Connection, transaction
from db.unset import UNSET, Unset
from profiles.packing import pack_numbers
from segments import bases
from segments.bases import Stored
from segments.errors import SegmentNotFound

FOLD_ABOVE = 10_000
"""Changes kept in the deltas before they are folded into the base."""

# Connections inside transaction(workspace_id) run these: row level security is the condition on the workspace.
LOAD = """
SELECT segment_id, base_version, added, removed, evaluated_at FROM segment_membership WHERE segment_id = ANY($1)
"""
# In id order, so that two who lock several never wait for each other.
LOCK = """
SELECT segment_id, base_version, added, removed, evaluated_at FROM segment_membership
WHERE workspace_id = $1 AND segment_id = ANY($2) ORDER BY segment_id FOR UPDATE
"""
# Stands in for a row that is not there yet, so that two first writers take turns.
LOCK_SEGMENT = "SELECT id FROM segment WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE"
START = """
INSERT INTO segment_membership (workspace_id, segment_id, base, added, removed, size, evaluated_at, base_version)
VALUES ($1, $2, $3, $4, $4, $5, $6, $7)
"""
REBASE = """
UPDATE segment_membership m SET base = c.base, base_version = c.base_version, added = $3, removed = $3, size = c.size,
  evaluated_at = greatest(m.evaluated_at, $4), version = m.version + 1
FROM unnest($2::uuid[], $5::bytea[], $6::bigint[], $7::int[]) AS c (segment_id, base, base_version, size)
WHERE m.workspace_id = $1 AND m.segment_id = c.segment_id
"""
# `base` is left out, so that PostgreSQL keeps its stored value as it is.
SHIFT = """
UPDATE segment_membership m SET added = c.added, removed = c.removed, size = c.size,
  evaluated_at = greatest(m.evaluated_at, $3), version = m.version + 1
FROM unnest($2::uuid[], $4::bytea[], $5::bytea[], $6::int[]) AS c (segment_id, added, removed, size)
WHERE m.workspace_id = $1 AND m.segment_id = c.segment_id
"""
UNCHANGED = """
UPDATE segment_membership SET evaluated_at = greatest(evaluated_at, $3) WHERE workspace_id = $1 AND segment_id = $2
"""
# Each open interval by its index, whatever the statistics say of a young segment, and a segment's in one look: finding
# 2,400 among a million took 15 ms of CPU, and 29 with a look each. The segments' rows are locked, so that nobody moves
# these rows in between. People come as text, since arrays of numbers cost asyncpg a microsecond an element.
CLOSE_INTERVALS = """
UPDATE membership SET exited_at = greatest(entered_at, $2), exit_reason = $3
WHERE ctid = ANY(ARRAY(
  SELECT i.ctid FROM unnest($8::uuid[], $9::text[]) AS gone (segment_id, people)
  CROSS JOIN LATERAL (
    SELECT m.ctid FROM membership m
    WHERE m.workspace_id = $1 AND m.segment_id = gone.segment_id
      AND m.profile_id = ANY(gone.people::int[]) AND m.exited_at IS NULL OFFSET 0) AS i))
"""
# Plain where nobody can have entered at this instant before, which is the rule: looking for conflicts costs two thirds
# more (2,400 rows: 34 and 20 ms of CPU), and a first population of a million took 13.5-15.2 s with and 6.6-7.4 without
# (durable, 270 and 222 MB of write-ahead log; a busy machine). No index but the key's, which is half of it; chunks of
# 50,000 made no difference.
OPEN_INTERVALS = """
INSERT INTO membership (workspace_id, segment_id, profile_id, entered_at, reason)
SELECT $1, come.segment_id, unnest(come.people::int[]), $2, $3
FROM unnest($10::uuid[], $11::text[]) AS come (segment_id, people)
"""
# Whoever left and comes back within one instant has an interval of that instant: it goes on.
REOPEN_INTERVALS = """
INSERT INTO membership (workspace_id, segment_id, profile_id, entered_at, reason)
SELECT $1, back.segment_id, unnest(back.people::int[]), $2, $3
FROM unnest($12::uuid[], $13::text[]) AS back (segment_id, people)
ON CONFLICT (segment_id, profile_id, entered_at) DO UPDATE SET exited_at = NULL, exit_reason = NULL
"""
TELL = """
INSERT INTO membership_change (workspace_id, segment_id, at, reason, entered, exited, reranked)
SELECT $1, c.segment_id, $2, $3, c.entered, c.exited, c.reranked
FROM unnest($4::uuid[], $5::bytea[], $6::bytea[], $7::bytea[]) AS c (segment_id, entered, exited, reranked)
"""
# Nobody both leaves and comes to one segment: which is first does not matter.
RECORD = f"WITH closed AS ({CLOSE_INTERVALS}), opened AS ({OPEN_INTERVALS}), reopened AS ({REOPEN_INTERVALS})" + TELL
FORGET = """
WITH history AS (DELETE FROM membership WHERE workspace_id = $1 AND segment_id = $2),
ranks AS (DELETE FROM segment_rank WHERE workspace_id = $1 AND segment_id = $2)
DELETE FROM membership_change WHERE workspace_id = $1 AND segment_id = $2
"""
# One statement, so that all sides are of one instant whoever writes meanwhile. `first` are as many of a ranked
# segment's order as there are members: whoever follows it is to meet exactly the members.
COMPARE = """
SELECT coalesce(m.segment_id, i.segment_id) AS segment_id, m.base, m.added, m.removed, m.size, m.evaluated_at,
  i.open, s.live, s.ranking ->> 'top' AS top, first.ids AS first, ranked.people AS ranked
FROM (SELECT * FROM segment_membership WHERE workspace_id = $1) AS m
FULL JOIN (
  SELECT segment_id, string_agg(int4send(profile_id), ''::bytea) AS open FROM membership
  WHERE workspace_id = $1 AND exited_at IS NULL GROUP BY segment_id) AS i ON i.segment_id = m.segment_id
LEFT JOIN segment s ON s.workspace_id = $1 AND s.id = m.segment_id AND s.ranking IS NOT NULL
LEFT JOIN LATERAL (
  SELECT count(*)::int AS people FROM segment_rank WHERE workspace_id = $1 AND segment_id = s.id) AS ranked ON true
LEFT JOIN LATERAL (
  SELECT string_agg(int4send(best.profile_id), ''::bytea) AS ids FROM (
    SELECT profile_id FROM segment_rank WHERE workspace_id = $1 AND segment_id = s.id
    ORDER BY order_value DESC, profile_id LIMIT m.size) AS best) AS first ON true
ORDER BY 1
"""
NOBODY = BitMap()
EMPTY = NOBODY.serialize()


@dataclass(frozen=True, slots=True)
class Change:
    """What a change of members came to: the new size, who entered, who left, who stayed at another rank."""

    size: int
    added: BitMap
    removed: BitMap
    reranked: BitMap = field(default_factory=BitMap)

    def __bool__(self) -> bool:
        """Whether anything is different."""
        return bool(self.added or self.removed or self.reranked)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A segment of which two records do not name the same people."""

    segment_id: UUID
    only_in_bitmap: int
    only_in_intervals: int
    size: int | None
    """The stored size; None when there is no bitmap at all."""
    members: int
    """Bits in the bitmap."""
    out_of_order: int = 0
    """Members who are not among the first of the order, those who are in their place, and those missing at its end."""


# --- reading ------------------------------------------------------------------------------------------------------


async def load(connection: Connection, segment_id: UUID) -> BitMap | None:
    """The current members; None for a segment that was never evaluated, and for EVERYONE."""
    return (await load_many(connection, [segment_id])).get(segment_id)


async def load_many(connection: Connection, segment_ids: Collection[UUID]) -> dict[UUID, BitMap]:
    """Current members by segment id, the caller's own copies; segments never evaluated, and EVERYONE, left out."""
    stored = await bases.read(connection, await connection.fetch(LOAD, list(segment_ids)))
    return {segment_id: one.members for segment_id, one in stored.items()}


async def verify(workspace_id: UUID) -> list[Mismatch]:
    """The segments whose bitmap, size, open intervals and order disagree; empty when all is well.

    The members of a ranked segment are the first of its order. A live one has as many as its cut allows. One whose
    order is still to be found, since it was ranked a moment ago, is not asked about it.
    """
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(COMPARE, workspace_id)
    return [found for row in rows if (found := mismatch(row)) is not None]


def mismatch(row: Record) -> Mismatch | None:
    """What is wrong with a segment; None when nothing is."""
    base: bytes | None = row["base"]
    members = NOBODY if base is None else Stored.of(base, row).members
    intervals = unpack(row["open"])
    out_of_order = 0
    if row["ranked"]:
        out_of_order = len(members ^ unpack(row["first"]))
        if row["live"]:
            cut = row["ranked"] if row["top"] is None else min(int(row["top"]), row["ranked"])
            out_of_order += abs(cut - len(members))
    if members == intervals and row["size"] == len(members) and not out_of_order:
        return None
    return Mismatch(
        segment_id=row["segment_id"],
        only_in_bitmap=len(members - intervals),
        only_in_intervals=len(intervals - members),
        size=row["size"],
        members=len(members),
        out_of_order=out_of_order,
    )


# --- changing -----------------------------------------------------------------------------------------------------


async def apply(
    connection: Connection,
    *,
    workspace_id: UUID,
    segment_id: UUID,
    members: BitMap,
    reranked: BitMap = NOBODY,
    reason: str,
    now: datetime,
    stored: Stored | Unset | None = UNSET,
) -> Change:
    """Make `members` the members, with an interval opened or closed at `now` for each difference.

    `reranked`: those whose rank is another; who was in before and still is counts. Takes the lock of the segment's
    members, so that changes of one segment follow one another; `stored` is what `lock` answered to a caller who did.
    Folds the deltas. An empty difference only moves `evaluated_at`. Raises SegmentNotFound.
    """
    if isinstance(stored, Unset):
        stored = await lock(connection, workspace_id=workspace_id, segment_id=segment_id)
    before = stored.members if stored else NOBODY
    change = Change(len(members), members - before, before - members, reranked & before & members)
    if stored is None:
        start = (members.serialize(), EMPTY, len(members), now, bases.new_version())
        await connection.execute(START, workspace_id, segment_id, *start)
    elif change.added or change.removed:
        await rebase(connection, workspace_id, {segment_id: members}, now=now)
    else:
        await connection.execute(UNCHANGED, workspace_id, segment_id, now)
    before_now = stored is None or stored.evaluated_at < now
    await record(
        connection,
        workspace_id,
        {segment_id: change},
        unopened={segment_id} if before_now else set(),
        reason=reason,
        now=now,
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
    stored: Stored | Unset | None = UNSET,
) -> Change:
    """Let some enter and some leave; the others stay. Who is in both leaves. Writes deltas while they are small.

    Those who are in already, or were never in, are no change. A segment without members so far gets its first.
    `stored` is what `lock` answered to a caller who did. Raises SegmentNotFound.
    """
    if isinstance(stored, Unset):
        stored = await lock(connection, workspace_id=workspace_id, segment_id=segment_id)
    if stored is None:
        members = enter - leave
        return await apply(
            connection,
            workspace_id=workspace_id,
            segment_id=segment_id,
            members=members,
            reason=reason,
            now=now,
            stored=None,
        )
    change = difference(stored, enter=enter, leave=leave)
    await shift(connection, workspace_id, {segment_id: stored}, {segment_id: change}, reason=reason, now=now)
    if not change:
        await connection.execute(UNCHANGED, workspace_id, segment_id, now)
    return change


async def forget(connection: Connection, *, workspace_id: UUID, segment_id: UUID) -> None:
    """Delete the history, the feed and the ranks of a segment that is deleted."""
    await connection.execute(FORGET, workspace_id, segment_id)


# --- rows ---------------------------------------------------------------------------------------------------------


async def lock(connection: Connection, *, workspace_id: UUID, segment_id: UUID) -> Stored | None:
    """The stored members, locked until the end of the transaction; None when there are none yet.

    Raises SegmentNotFound.
    """
    found = await locked(connection, workspace_id=workspace_id, segment_ids=[segment_id])
    if not found:
        if await connection.fetchval(LOCK_SEGMENT, workspace_id, segment_id) is None:
            raise SegmentNotFound
        found = await locked(connection, workspace_id=workspace_id, segment_ids=[segment_id])
    return found.get(segment_id)


async def locked(connection: Connection, *, workspace_id: UUID, segment_ids: Collection[UUID]) -> dict[UUID, Stored]:
    """The stored members of each, locked in id order until the end of the transaction; those never evaluated left out.

    Bases that this process has read before are not read again.
    """
    return await bases.read(connection, await connection.fetch(LOCK, workspace_id, list(segment_ids)))


def difference(stored: Stored, *, enter: BitMap, leave: BitMap) -> Change:
    """What entering and leaving come to for those who are members now."""
    before = stored.among(enter | leave)
    added, removed = enter - before - leave, leave & before
    return Change(stored.size + len(added) - len(removed), added, removed)


async def shift(
    connection: Connection,
    workspace_id: UUID,
    stored: Mapping[UUID, Stored],
    changes: Mapping[UUID, Change],
    *,
    reason: str,
    now: datetime,
) -> None:
    """Write differences from `stored` (of `locked`), as deltas while they are small, with intervals and feed.

    A handful of statements for any number of segments: what a pulse does. Segments that change by nothing are not
    written at all; one that changes by ranks alone tells of them in the feed.
    """
    small: dict[UUID, tuple[bytes, bytes, int]] = {}
    large: dict[UUID, BitMap] = {}
    for id, change in changes.items():
        if not change.added and not change.removed:
            continue
        one = stored[id]
        # Out of the deltas alone: a pulse has no use for a copy of each whole bitmap.
        added = (one.added | (change.added - one.base)) - change.removed
        removed = (one.removed - change.added) | (change.removed & one.base)
        if len(added) + len(removed) > FOLD_ABOVE:
            large[id] = (one.base | added) - removed
        else:
            small[id] = (added.serialize(), removed.serialize(), change.size)
    if small:
        deltas = [list(column) for column in zip(*small.values(), strict=True)]
        await connection.execute(SHIFT, workspace_id, list(small), now, *deltas)
    if large:
        await rebase(connection, workspace_id, large, now=now)
    unopened = {id for id in changes if stored[id].evaluated_at < now}
    await record(connection, workspace_id, changes, unopened=unopened, reason=reason, now=now)


async def rebase(connection: Connection, workspace_id: UUID, members: Mapping[UUID, BitMap], *, now: datetime) -> None:
    """Write whole bitmaps, without deltas."""
    await connection.execute(
        REBASE,
        workspace_id,
        list(members),
        EMPTY,
        now,
        [one.serialize() for one in members.values()],
        [bases.new_version() for _ in members],
        [len(one) for one in members.values()],
    )


async def record(
    connection: Connection,
    workspace_id: UUID,
    changes: Mapping[UUID, Change],
    *,
    unopened: Set[UUID],
    reason: str,
    now: datetime,
) -> None:
    """Close and open intervals at `now`, and add to the feed, for whatever is different.

    `unopened`: the segments that nobody can have entered at `now` before.
    """
    changes = {id: change for id, change in changes.items() if change}
    if not changes:
        return
    left = {id: change.removed for id, change in changes.items()}
    came = {id: change.added for id, change in changes.items()}
    opened = {id: some for id, some in came.items() if id in unopened}
    reopened = {id: some for id, some in came.items() if id not in unopened}
    rows = [(one.added.serialize(), one.removed.serialize(), one.reranked.serialize()) for one in changes.values()]
    bitmaps = [list(column) for column in zip(*rows, strict=True)]
    await connection.execute(
        RECORD,
        workspace_id,
        now,
        reason,
        list(changes),
        *bitmaps,
        *together(left),
        *together(opened),
        *together(reopened),
    )


def together(people: Mapping[UUID, BitMap]) -> tuple[list[UUID], list[str]]:
    """Segments with somebody, and the people of each, ascending."""
    some = {id: pack_numbers(ids.to_array().tolist()) for id, ids in people.items() if ids}
    return list(some), list(some.values())
