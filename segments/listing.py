"""Segments as they are listed: pages, look-ups by id, sizes."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.transactions import transaction
from profiles.text import check_storable
from segments.errors import SegmentNotFound, clean
from segments.models import Segment, SegmentStatus, SegmentType

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


async def page(
    workspace_id: UUID,
    *,
    after: UUID | None,
    limit: int,
    status: SegmentStatus | None = None,
    type_: SegmentType | None = None,
    name: str | None = None,
) -> list[Segment]:
    """At most `limit` segments older than `after`, newest first; EVERYONE, the oldest, comes last.

    `name`: only those whose name has this in it, letter case aside. Raises SegmentError UNSTORABLE_TEXT.
    """
    if name is not None:
        clean(check_storable, name, field=("name",))
    async with transaction(workspace_id):
        found = Segment.filter(workspace_id=workspace_id)
        if after is not None:
            found = found.filter(id__lt=after)
        if status is not None:
            found = found.filter(status=status)
        if type_ is not None:
            found = found.filter(type=type_)
        if name:
            found = found.filter(name__icontains=name)
        return await found.order_by("-id").limit(limit)


async def get(workspace_id: UUID, segment_id: UUID) -> Segment:
    """The segment; raises SegmentNotFound."""
    found = await load(workspace_id, [segment_id])
    if segment_id not in found:
        raise SegmentNotFound
    return found[segment_id]


async def load(workspace_id: UUID, segment_ids: Collection[UUID]) -> dict[UUID, Segment]:
    """Segments by id; ids that are not of this workspace are left out."""
    async with transaction(workspace_id):
        found = await Segment.filter(workspace_id=workspace_id, id__in=list(segment_ids))
    return {segment.id: segment for segment in found}


async def sizes(workspace_id: UUID, segment_ids: Collection[UUID]) -> dict[UUID, SizeRow]:
    """Sizes by segment id; those never evaluated are left out. EVERYONE is counted now."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(SIZES, workspace_id, list(segment_ids))
    return {row["segment_id"]: SizeRow(row["size"], row["evaluated_at"]) for row in rows}
