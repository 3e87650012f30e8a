"""The feed of a segment: who entered, exited and was re-ranked, in order, each once, however often it is read.

One row of membership_change tells of one change with bitmaps; a page unpacks as much of them as it needs. Rows of a
segment stand in the order in which they were written, which is that of the changes: whoever writes one holds the lock
of the segment's members until it is committed. Ids of transactions would not do, for a beat that waits for the lock is
older than the evaluation that holds it. A reader stops before the oldest transaction that is not finished all the same:
what it has not seen yet can only come later, whoever writes without the lock. So a transaction that is long open holds
up the feed, and nothing is ever missed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from uuid import UUID

from asyncpg import Record
from pyroaring import BitMap

from db.transactions import Connection, transaction
from profiles.retention import forget_rows
from segments import ranking
from segments.errors import SegmentError
from segments.ranks import value_of

KEPT = timedelta(days=30)
"""So long a reader may stay away."""
MOST_BYTES = 256 * 1024
"""Of bitmaps read at once, save the last row's."""

SEGMENT = "SELECT ranking FROM segment WHERE workspace_id = $1 AND id = $2"
# As many rows as there are changes wanted would do, since each tells of one at least, but each may be of a million
# people: by their sizes, which are known without reading them. The row of the cursor itself comes first, the
# one after it always with it.
NEXT = """
SELECT id, at, reason, entered, exited, reranked FROM (
  SELECT *, sum(bytes) OVER passed - bytes AS before, row_number() OVER passed AS place FROM (
    SELECT *, octet_length(entered) + octet_length(exited) + octet_length(reranked) AS bytes FROM membership_change
    WHERE workspace_id = $1 AND segment_id = $2 AND id >= $3
      AND xact_id < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY id LIMIT $4) AS ahead
  WINDOW passed AS (ORDER BY id)) AS sized
WHERE before < $5 OR place <= 2 ORDER BY id
"""
LAST = """
SELECT id FROM membership_change
WHERE workspace_id = $1 AND segment_id = $2 AND xact_id < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY id DESC LIMIT 1
"""
ORDER_VALUES = """
SELECT r.profile_id, r.order_value FROM unnest($3::int[]) AS p (id) CROSS JOIN LATERAL (
  SELECT profile_id, order_value FROM segment_rank
  WHERE workspace_id = $1 AND segment_id = $2 AND profile_id = p.id LIMIT 1) AS r
"""
# From the beginning of each feed up to the first row that is young enough, and never the newest row: a cursor holds
# as long as its row is there, and then nothing after it is gone.
FORGET = """
WITH boundary AS (
  SELECT old.segment_id, kept.id
  FROM (SELECT DISTINCT segment_id FROM membership_change WHERE workspace_id = $1 AND at < $2) AS old
  CROSS JOIN LATERAL (
    (SELECT id FROM membership_change
     WHERE workspace_id = $1 AND segment_id = old.segment_id AND at >= $2 ORDER BY id LIMIT 1)
    UNION ALL
    (SELECT id FROM membership_change
     WHERE workspace_id = $1 AND segment_id = old.segment_id ORDER BY id DESC LIMIT 1)
    ORDER BY id LIMIT 1) AS kept)
DELETE FROM membership_change WHERE ctid = ANY(ARRAY(
  SELECT c.ctid FROM boundary b
  JOIN membership_change c ON c.workspace_id = $1 AND c.segment_id = b.segment_id AND c.id < b.id
  ORDER BY c.segment_id, c.id LIMIT $3))
"""


class ChangeKind(StrEnum):
    """What happened to a member."""

    EXITED = "EXITED"
    ENTERED = "ENTERED"
    RERANKED = "RERANKED"
    """Stayed, while the value that the segment ranks by changed."""


KINDS = tuple(ChangeKind)
"""In the order in which they are told of one change."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a feed: after this profile, of this kind (a place in KINDS), of this row."""

    id: int
    kind: int
    profile_id: int


END_OF_ROW = (len(KINDS) - 1, 2**31 - 1)


@dataclass(frozen=True, slots=True)
class MemberChange:
    """One profile entered, exited or was re-ranked."""

    kind: ChangeKind
    profile_id: int
    at: datetime
    reason: str
    cursor: Cursor
    rank_value: float | None = None
    """What the segment ranks the profile by now; None for those who exited, and where there is none."""


async def page(workspace_id: UUID, segment_id: UUID, *, after: Cursor | None, limit: int) -> list[MemberChange]:
    """At most `limit` changes that follow `after`, in order; from the oldest that is kept when None.

    Empty means nothing new yet: ask again with the same cursor. Raises SegmentError CURSOR_TOO_OLD when changes after
    it are forgotten.
    """
    found: list[MemberChange] = []
    async with transaction(workspace_id) as connection:
        segment = await connection.fetchrow(SEGMENT, workspace_id, segment_id)
        if segment is None:
            return []
        place = after
        while len(found) < limit:
            start = 0 if place is None else place.id
            rows = await connection.fetch(NEXT, workspace_id, segment_id, start, limit + 1, MOST_BYTES)
            if place is not None and (not rows or rows[0]["id"] != start):
                raise too_old()
            more = list(islice(unpacked(rows, place), limit - len(found)))
            if not more:
                break
            found += more
            place = more[-1].cursor
        if segment["ranking"] is None:
            return found
        direction = ranking.parse(segment["ranking"]).direction
        values = await order_values(connection, workspace_id, segment_id, found)
    known = {profile_id: value_of(value, direction) for profile_id, value in values.items()}
    return [
        one if one.kind is ChangeKind.EXITED else replace(one, rank_value=known.get(one.profile_id)) for one in found
    ]


async def end(workspace_id: UUID, segment_id: UUID) -> Cursor | None:
    """Where the feed ends now; None when nothing was ever told.

    Take it, then read the members, then follow the feed from it: nothing is missed in between.
    """
    async with transaction(workspace_id) as connection:
        last = await connection.fetchval(LAST, workspace_id, segment_id)
    return None if last is None else Cursor(last, *END_OF_ROW)


async def forget(workspace_id: UUID, *, now: datetime) -> int:
    """Rows deleted: those older than 30 days, save the newest of each segment. At most a million a call."""
    return await forget_rows(FORGET, workspace_id, now - KEPT)


def unpacked(rows: Sequence[Record], after: Cursor | None) -> Iterator[MemberChange]:
    """The changes that `rows` tell, in order, without those up to `after`."""
    for row in rows:
        start = after if after is not None and after.id == row["id"] else None
        for place, kind in enumerate(KINDS):
            if start is not None and place < start.kind:
                continue
            first = start.profile_id + 1 if start is not None and place == start.kind else 0
            # Into the middle of a million without walking there.
            for profile_id in BitMap.deserialize(row[kind.value.lower()]).iter_equal_or_larger(first):
                cursor = Cursor(row["id"], place, profile_id)
                yield MemberChange(kind, profile_id, row["at"], row["reason"], cursor)


async def order_values(
    connection: Connection, workspace_id: UUID, segment_id: UUID, found: Sequence[MemberChange]
) -> dict[int, float]:
    """Order values by profile, of those who are in."""
    ids = [one.profile_id for one in found if one.kind is not ChangeKind.EXITED]
    rows = await connection.fetch(ORDER_VALUES, workspace_id, segment_id, ids)
    return {row["profile_id"]: row["order_value"] for row in rows}


def too_old() -> SegmentError:
    message = (
        f"Changes after this cursor are forgotten; they are kept {KEPT.days} days. Take the end of the feed"
        " (changesEnd), read the members anew, then follow the feed from that end."
    )
    return SegmentError("CURSOR_TOO_OLD", message, field=("after",))
