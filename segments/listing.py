"""Segments as they are listed: pages, look-ups by id, sizes."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from db.keysets import ALWAYS, Direction, Key, KeyType, Listed, Order, Place, Span, statements
from db.rows import to_model
from db.transactions import transaction
from profiles.text import check_storable
from segments.errors import SegmentNotFound, clean
from segments.models import Segment, SegmentStatus, SegmentType

# Row level security keeps LIKE and lower() from any index, and a workspace has thousands of segments at most: what is
# left of them is sorted, and only the first are read whole. EVERYONE is counted nowhere, and the largest.
PAGE = """
SELECT page.key AS "page.key", s.* FROM (
SELECT s.id, {key} AS sorted, ({key})::text AS key
FROM segment s LEFT JOIN segment_membership m ON m.workspace_id = $1 AND m.segment_id = s.id
WHERE s.workspace_id = $1 AND ($2::text[] IS NULL OR s.status = ANY($2)) AND ($3::text[] IS NULL OR s.type = ANY($3))
  AND ($4::text IS NULL OR position(lower($4) IN lower(s.name)) > 0) AND ($5::uuid IS NULL OR s.brand_id = $5)
  AND ($6::timestamptz IS NULL OR s.created_at >= $6) AND ($7::timestamptz IS NULL OR s.created_at < $7)
  AND ($8::timestamptz IS NULL OR s.updated_at >= $8) AND ($9::timestamptz IS NULL OR s.updated_at < $9)
  AND ($10::text IS NULL OR ({key}, s.id) {beyond} ($10::text::{type}, $11::uuid))
ORDER BY {key} {direction}, s.id {direction} LIMIT $12) AS page
JOIN segment s ON s.workspace_id = $1 AND s.id = page.id
ORDER BY page.sorted {direction}, s.id {direction}
"""
BY_IDS = """
SELECT s.*, m.size, m.evaluated_at FROM segment s
LEFT JOIN segment_membership m ON m.workspace_id = $1 AND m.segment_id = s.id
WHERE s.workspace_id = $1 AND s.id = ANY($2)
"""
SIZES = """
SELECT segment_id, size, evaluated_at FROM segment_membership WHERE workspace_id = $1 AND segment_id = ANY($2)
UNION ALL
SELECT s.id, (SELECT count(*)::int FROM profile
  WHERE workspace_id = $1 AND merged_into IS NULL AND erased_at IS NULL), now()
FROM segment s WHERE s.workspace_id = $1 AND s.id = ANY($2) AND s.type = 'EVERYONE'
"""


@dataclass(frozen=True, slots=True)
class SizeRow:
    """How many members, and as of when. A segment without one was never evaluated, which is not size 0."""

    size: int
    evaluated_at: datetime


class SegmentField(StrEnum):
    """What segments can be ordered by."""

    NAME = "NAME"
    CREATED_AT = "CREATED_AT"
    UPDATED_AT = "UPDATED_AT"
    SIZE = "SIZE"


KEYS = {
    SegmentField.NAME: Key("lower(s.name)", KeyType.TEXT),
    # Ids are UUIDv7 and so in order of time.
    SegmentField.CREATED_AT: Key("s.id", KeyType.ID),
    SegmentField.UPDATED_AT: Key("s.updated_at", KeyType.TIME),
    SegmentField.SIZE: Key(
        "CASE WHEN s.type = 'EVERYONE' THEN 4294967296 ELSE coalesce(m.size, {last}) END", KeyType.NUMBER
    ),
}
PAGES = statements(PAGE, KEYS)
NEWEST_FIRST = Order(SegmentField.CREATED_AT, Direction.DESC)


@dataclass(frozen=True, slots=True)
class SegmentFilter:
    """Which segments are listed; None is all of them."""

    statuses: tuple[SegmentStatus, ...] | None = None
    types: tuple[SegmentType, ...] | None = None
    name: str | None = None
    """Has this in it, letter case aside."""
    brand_id: UUID | None = None
    created: Span = ALWAYS
    updated: Span = ALWAYS


ALL = SegmentFilter()


async def page(
    workspace_id: UUID,
    *,
    after: Place | None,
    limit: int,
    order: Order[SegmentField] = NEWEST_FIRST,
    only: SegmentFilter = ALL,
) -> list[Listed[Segment]]:
    """At most `limit` segments that follow `after` in an order, the newest first unless another is asked for.

    Those that were never evaluated come last in an order of sizes. Raises SegmentError UNSTORABLE_TEXT.
    """
    if only.name is not None:
        clean(check_storable, only.name, field=("name",))
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(
            PAGES[order],
            workspace_id,
            only.statuses,
            only.types,
            only.name,
            only.brand_id,
            only.created.start,
            only.created.end,
            only.updated.start,
            only.updated.end,
            after and after.key,
            after and after.id,
            limit,
        )
    return [Listed(to_model(Segment, row), Place(row["page.key"], row["id"])) for row in rows]


async def get(workspace_id: UUID, segment_id: UUID) -> Segment:
    """The segment; raises SegmentNotFound."""
    found = await load(workspace_id, [segment_id])
    if segment_id not in found:
        raise SegmentNotFound
    return found[segment_id]


async def load(workspace_id: UUID, segment_ids: Collection[UUID]) -> dict[UUID, Segment]:
    """Segments by id; ids that are not of this workspace are left out."""
    return {id: segment for id, (segment, _) in (await load_with_sizes(workspace_id, segment_ids)).items()}


async def load_with_sizes(
    workspace_id: UUID, segment_ids: Collection[UUID]
) -> dict[UUID, tuple[Segment, SizeRow | None]]:
    """`load` with their sizes, None for those never evaluated and for EVERYONE, whom `sizes` counts."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(BY_IDS, workspace_id, list(segment_ids))
    return {
        row["id"]: (
            to_model(Segment, row),
            None if row["evaluated_at"] is None else SizeRow(row["size"], row["evaluated_at"]),
        )
        for row in rows
    }


async def sizes(workspace_id: UUID, segment_ids: Collection[UUID]) -> dict[UUID, SizeRow]:
    """Sizes by segment id; those never evaluated are left out. EVERYONE is counted now."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(SIZES, workspace_id, list(segment_ids))
    return {row["segment_id"]: SizeRow(row["size"], row["evaluated_at"]) for row in rows}
