"""Static segments: members put in and taken out by hand or from a file, by external id."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from uuid import UUID

from pyroaring import BitMap

from db.transactions import Connection, transaction
from profiles import profiles
from segments import everyone, lifecycle, membership
from segments.errors import IllegalMove, SegmentError
from segments.models import Segment, SegmentStatus, SegmentType

MOST_IDS = 10_000
MOST_ROWS = 100_000
COLUMN = "external_id"


@dataclass(frozen=True, slots=True)
class MembersReport:
    """What became of a list of external ids."""

    changed: int
    """Who entered, or left."""
    unchanged: int
    """Who was in already, or was not in; and ids named twice."""
    unknown: list[str]
    """External ids of nobody alive, or of nobody of the segment's brand; nothing happened to them."""
    size: int
    """Of the segment, afterwards."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row of a file that could not be used."""

    line: int
    """In the file; the header is on line 1."""
    value: str
    code: str
    """UNKNOWN_PROFILE, EMPTY or TOO_FEW_COLUMNS."""
    reason: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of the rows of a file."""

    rows: int
    added: int
    unchanged: int
    """Rows of those who were in already, or who were on an earlier row."""
    rejects: list[Reject]
    size: int
    """Of the segment, afterwards."""


async def add_members(
    workspace_id: UUID, segment_id: UUID, *, external_ids: Sequence[str], now: datetime
) -> MembersReport:
    """Let these people in. Those who are unknown are reported, the others enter.

    Raises SegmentNotFound, SegmentError SEGMENT_NOT_STATIC, TOO_MANY_ITEMS (above 10,000), IllegalMove when archived.
    """
    check_number(external_ids)
    async with transaction(workspace_id) as connection:
        segment = await locked_static(workspace_id, segment_id)
        known = await living(connection, segment, external_ids)
        change = await membership.alter(
            connection,
            workspace_id=workspace_id,
            segment_id=segment_id,
            enter=BitMap(known.values()),
            reason="added",
            now=now,
        )
    unknown = [one for one in dict.fromkeys(external_ids) if one not in known]
    return MembersReport(
        changed=len(change.added),
        unchanged=len(external_ids) - len(unknown) - len(change.added),
        unknown=unknown,
        size=change.size,
    )


async def remove_members(
    workspace_id: UUID, segment_id: UUID, *, external_ids: Sequence[str], now: datetime
) -> MembersReport:
    """Take these people out. Raises as `add_members` does."""
    check_number(external_ids)
    async with transaction(workspace_id) as connection:
        await locked_static(workspace_id, segment_id)
        known = await profiles.find_by_external_ids(connection, external_ids)
        change = await membership.alter(
            connection,
            workspace_id=workspace_id,
            segment_id=segment_id,
            leave=BitMap(known.values()),
            reason="removed",
            now=now,
        )
    unknown = [one for one in dict.fromkeys(external_ids) if one not in known]
    return MembersReport(
        changed=len(change.removed),
        unchanged=len(external_ids) - len(unknown) - len(change.removed),
        unknown=unknown,
        size=change.size,
    )


async def import_members(
    workspace_id: UUID, segment_id: UUID, *, text: str, now: datetime, column: str = COLUMN
) -> ImportReport:
    """Let in whom a CSV file names by external id, in the column `column` of its header; others are rejects.

    Importing the same file again changes nothing. Raises what `add_members` raises, and SegmentError INVALID_CSV for
    a file that cannot be read at all, in which case nobody entered; TOO_MANY_ITEMS above 100,000 rows.
    """
    rows = list(read_rows(text, column))
    named = {row.value for row in rows if not isinstance(row, Reject)}
    async with transaction(workspace_id) as connection:
        segment = await locked_static(workspace_id, segment_id)
        known = await living(connection, segment, named)
        change = await membership.alter(
            connection,
            workspace_id=workspace_id,
            segment_id=segment_id,
            enter=BitMap(known.values()),
            reason="imported",
            now=now,
        )
    rejects = [row if isinstance(row, Reject) else unknown_at(row) for row in rows if row.value not in known]
    return ImportReport(
        rows=len(rows),
        added=len(change.added),
        unchanged=len(rows) - len(rejects) - len(change.added),
        rejects=rejects,
        size=change.size,
    )


# --- reading a file -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    line: int
    value: str


def read_rows(text: str, column: str) -> Iterator[Row | Reject]:
    """The external ids of a CSV file, row by row; blank lines are skipped."""
    reader = csv.reader(StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if column not in header:
            message = f"The first line must name the columns, one of them {column!r}."
            raise SegmentError("INVALID_CSV", message, field=("text",))
        at = header.index(column)
        found = 0
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            found += 1
            if found > MOST_ROWS:
                message = f"Has more than {MOST_ROWS} rows; split the file."
                raise SegmentError("TOO_MANY_ITEMS", message, field=("text",))
            yield row_at(reader.line_num, row, at)
    except csv.Error as e:
        message = f"Line {reader.line_num} is no CSV ({e}); nothing was imported."
        raise SegmentError("INVALID_CSV", message, field=("text",)) from e


def row_at(line: int, row: list[str], at: int) -> Row | Reject:
    if len(row) <= at:
        return Reject(line, "", "TOO_FEW_COLUMNS", f"Has {len(row)} columns; the external id is in column {at + 1}.")
    value = row[at].strip()
    if not value:
        return Reject(line, "", "EMPTY", "Has no external id; fill it in.")
    return Row(line, value)


def unknown_at(row: Row) -> Reject:
    return Reject(
        row.line, row.value, "UNKNOWN_PROFILE", "Nobody of the segment's brand has this external id; upsert it first."
    )


# --- rules --------------------------------------------------------------------------------------------------------


async def locked_static(workspace_id: UUID, segment_id: UUID) -> Segment:
    """The segment, locked, when its members may be changed by hand."""
    segment = await lifecycle.locked(workspace_id, segment_id)
    if segment.type is not SegmentType.STATIC:
        message = "Members of a dynamic segment follow from its conditions; change those, or use a STATIC segment."
        raise SegmentError("SEGMENT_NOT_STATIC", message, field=("id",))
    if segment.status is SegmentStatus.ARCHIVED:
        raise IllegalMove("An archived segment is not changed; unpublish it first, or duplicate it.")
    return segment


async def living(connection: Connection, segment: Segment, external_ids: Sequence[str] | set[str]) -> dict[str, int]:
    """Profile ids by external id, of those who live and are of the segment's brand."""
    known = await profiles.find_by_external_ids(connection, external_ids)
    if segment.brand_id is None:
        return known
    of_brand = await everyone.members(connection, segment.brand_id)
    return {external_id: profile_id for external_id, profile_id in known.items() if profile_id in of_brand}


def check_number(external_ids: Sequence[str]) -> None:
    if len(external_ids) > MOST_IDS:
        message = f"{len(external_ids)} ids at once; send at most {MOST_IDS}, or import a file."
        raise SegmentError("TOO_MANY_ITEMS", message, field=("external_ids",))
