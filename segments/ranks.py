"""The order of ranked segments: a row for everybody who matches, not for the members alone.

So whoever comes up when somebody above goes is found without asking the engine again. order_value is the value for
DESC, its negative for ASC and -Infinity for none, so that one index serves both directions.
"""

import sys
from array import array
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf, nan
from uuid import UUID

from asyncpg import Record
from pyroaring import BitMap

from db.idsets import to_parameter, unpack
from db.transactions import Connection
from profiles.changes import Moved
from segments.engines.base import Ranks
from segments.nodes import Direction, Ranking

# Two packed values instead of a million rows: what is different is found here, and only that is sent back.
EXISTING = """
SELECT string_agg(int4send(profile_id), ''::bytea ORDER BY profile_id) AS ids,
  string_agg(float8send(order_value), ''::bytea ORDER BY profile_id) AS order_values
FROM segment_rank WHERE workspace_id = $1 AND segment_id = $2
"""
EXISTING_OF = """
SELECT string_agg(int4send(r.profile_id), ''::bytea ORDER BY r.profile_id) AS ids,
  string_agg(float8send(r.order_value), ''::bytea ORDER BY r.profile_id) AS order_values
FROM unnest($3::int[]) AS asked (id) CROSS JOIN LATERAL (
  SELECT profile_id, order_value FROM segment_rank
  WHERE workspace_id = $1 AND segment_id = $2 AND profile_id = asked.id LIMIT 1) AS r
"""
DELETE = "DELETE FROM segment_rank WHERE workspace_id = $1 AND segment_id = $2 AND profile_id = ANY($3::int[])"
WRITE = """
INSERT INTO segment_rank (workspace_id, segment_id, profile_id, order_value)
SELECT $1, $2, new.profile_id, new.order_value FROM unnest($3::int[], $4::float8[]) AS new (profile_id, order_value)
ON CONFLICT (segment_id, profile_id) DO UPDATE SET order_value = excluded.order_value
"""
TOP = """
SELECT string_agg(int4send(best.profile_id), ''::bytea) FROM (
  SELECT profile_id FROM segment_rank WHERE workspace_id = $1 AND segment_id = $2
  ORDER BY order_value DESC, profile_id LIMIT $3) AS best
"""
# Whoever stands next below a place, but for $5. In two parts, for one condition over both columns would read all who
# share a value.
NEXT_BELOW = """
SELECT profile_id FROM (
  (SELECT profile_id, order_value FROM segment_rank
   WHERE workspace_id = $1 AND segment_id = $2 AND order_value = $3 AND profile_id > $4 AND profile_id <> ALL($5::int[])
   ORDER BY profile_id LIMIT 1)
  UNION ALL
  (SELECT profile_id, order_value FROM segment_rank
   WHERE workspace_id = $1 AND segment_id = $2 AND order_value < $3 AND profile_id <> ALL($5::int[])
   ORDER BY order_value DESC, profile_id LIMIT 1)) AS below
ORDER BY order_value DESC, profile_id LIMIT 1
"""
# The winner of a merge takes the better place of the two: a loser who was a member makes its winner one.
MOVE = """
WITH given AS (
  INSERT INTO segment_rank AS own (workspace_id, segment_id, profile_id, order_value)
  SELECT r.workspace_id, r.segment_id, $4, r.order_value FROM segment_rank r
  WHERE r.workspace_id = $1 AND r.segment_id = ANY($2) AND r.profile_id = $3 AND $4::int IS NOT NULL
  ON CONFLICT (segment_id, profile_id) DO UPDATE SET order_value = excluded.order_value
    WHERE own.order_value < excluded.order_value)
DELETE FROM segment_rank WHERE workspace_id = $1 AND segment_id = ANY($2) AND profile_id = $3
"""
CLEAR = "DELETE FROM segment_rank WHERE workspace_id = $1 AND segment_id = $2"


@dataclass(frozen=True, slots=True)
class Order:
    """Profiles with their order values, by ascending profile id."""

    profiles: BitMap
    values: "array[float]"

    @classmethod
    def of(cls, row: Record) -> "Order":
        """Read a row of EXISTING."""
        values = array("d")
        values.frombytes(row["order_values"] or b"")
        if sys.byteorder == "little":
            values.byteswap()
        return cls(unpack(row["ids"]), values)

    def aligned_to(self, profiles: BitMap, *, otherwise: float = nan) -> "array[float]":
        """The values of `profiles`, by ascending id; `otherwise` for those who have none here."""
        if profiles == self.profiles:
            return self.values
        aligned = array("d", [otherwise]) * len(profiles)
        for id, value in zip(self.profiles, self.values, strict=True):
            if id in profiles:
                # How many are up to this one, rather than a dictionary of a million.
                aligned[profiles.rank(id) - 1] = value
        return aligned


@dataclass(frozen=True, slots=True)
class Ranked:
    """Who is in after the cut, and whose order value is another than it was.

    `reranked` holds whoever matched before and matches still, in or out: `membership` keeps those who were members
    and are.
    """

    members: BitMap
    reranked: BitMap


async def replace(
    connection: Connection,
    *,
    workspace_id: UUID,
    segment_id: UUID,
    matched: BitMap,
    ranks: Ranks,
    ranking: Ranking,
) -> Ranked:
    """Make `matched` those who are ranked, by their values in `ranks`: what a full evaluation found.

    The caller holds the lock of the segment's members. Values of people who do not match are ignored.
    """
    existing = Order.of(await connection.fetchrow(EXISTING, workspace_id, segment_id))
    changed = await write(connection, workspace_id, segment_id, existing, ordered(matched, ranks, ranking.direction))
    members = matched if ranking.top is None else await top(connection, workspace_id, segment_id, ranking.top)
    return Ranked(members, changed)


async def update(
    connection: Connection,
    *,
    workspace_id: UUID,
    segment_id: UUID,
    before: BitMap,
    asked: BitMap,
    matched: BitMap,
    ranks: Ranks,
    ranking: Ranking,
) -> Ranked:
    """Like `replace` for `asked` alone, of whom `matched` match: what a pulse found. `before` are the members so far.

    The caller holds the lock of the segment's members.
    """
    rows = await connection.fetchrow(EXISTING_OF, workspace_id, segment_id, to_parameter(asked))
    existing, wanted = Order.of(rows), ordered(matched & asked, ranks, ranking.direction)
    changed = await write(connection, workspace_id, segment_id, existing, wanted)
    if ranking.top is None:
        members = (before - asked) | wanted.profiles
    elif len(before) < ranking.top or await crosses_cut(
        connection, workspace_id, segment_id, before=before, asked=asked, existing=existing, wanted=wanted
    ):
        members = await top(connection, workspace_id, segment_id, ranking.top)
    else:
        members = before
    return Ranked(members, changed)


async def crosses_cut(
    connection: Connection,
    workspace_id: UUID,
    segment_id: UUID,
    *,
    before: BitMap,
    asked: BitMap,
    existing: Order,
    wanted: Order,
) -> bool:
    """Whether others may be among the first, of whom there were enough, now that `wanted` is written over `existing`.

    Most beats move people far from the cut, and reading 10,000 of 200,000 anew took 48 ms, 100,000 of them 525 ms (a
    busy machine, 2026-11-22), where this reads one row: when no member went or fell, the members still stand together,
    and whoever is next below the best of those who rose tells whether that one is above any of them.
    """
    if (before & asked) - wanted.profiles:
        return True
    risen: list[tuple[float, int]] = []
    # No comparison with NaN holds: who is new has risen, and a member without a place has fallen.
    values_before = existing.aligned_to(wanted.profiles)
    for id, old, new in zip(to_parameter(wanted.profiles), values_before, wanted.values, strict=True):
        if id in before:
            if not new >= old:
                return True
        elif not new <= old:
            risen.append((-new, id))
    if not risen:
        return False
    value, best = min(risen)
    others = [id for _, id in risen]
    below = await connection.fetchval(NEXT_BELOW, workspace_id, segment_id, -value, best, others)
    return below is not None and below in before


async def clear(connection: Connection, *, workspace_id: UUID, segment_id: UUID) -> None:
    """Forget the order of a segment that is not ranked any more."""
    await connection.execute(CLEAR, workspace_id, segment_id)


async def move(
    connection: Connection, *, workspace_id: UUID, segment_ids: Collection[UUID], moved: Iterable[Moved]
) -> None:
    """Take those who were merged or erased out of the order of these segments, each winner in the loser's place.

    The caller holds the locks of the segments' members.
    """
    for one in moved:
        await connection.execute(MOVE, workspace_id, list(segment_ids), one.profile_id, one.winner_id)


async def write(connection: Connection, workspace_id: UUID, segment_id: UUID, existing: Order, wanted: Order) -> BitMap:
    """Write the differences of two orders; answers the profiles of both that have another value."""
    gone = existing.profiles - wanted.profiles
    if gone:
        await connection.execute(DELETE, workspace_id, segment_id, to_parameter(gone))
    # Nothing equals NaN, so those who are new are different.
    before = existing.aligned_to(wanted.profiles)
    different = [
        (id, new)
        for id, old, new in zip(to_parameter(wanted.profiles), before, wanted.values, strict=True)
        if old != new
    ]
    if not different:
        return BitMap()
    ids, values = zip(*different, strict=True)
    await connection.execute(WRITE, workspace_id, segment_id, ids, values)
    return BitMap(ids) & existing.profiles


async def top(connection: Connection, workspace_id: UUID, segment_id: UUID, most: int) -> BitMap:
    """The first `most` of a segment's order."""
    return unpack(await connection.fetchval(TOP, workspace_id, segment_id, most))


def ordered(matched: BitMap, ranks: Ranks, direction: Direction) -> Order:
    """Everybody of `matched`, each with the value that orders them."""
    sign = 1.0 if direction is Direction.DESC else -1.0
    known = Order(BitMap(ranks.ids), array("d", [sign * value for value in ranks.values]))
    return Order(matched, known.aligned_to(matched, otherwise=-inf))


def value_of(order_value: float | None, direction: Direction) -> float | None:
    """The value behind an order value; None for none."""
    if order_value is None or order_value == -inf:
        return None
    return order_value if direction is Direction.DESC else 0.0 - order_value
