"""Files that name the members of a static segment: CSV with a header, one column of it the external id."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO

from segments.errors import SegmentError

MOST_ROWS = 100_000
COLUMN = "external_id"


@dataclass(frozen=True, slots=True)
class Row:
    line: int
    value: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A row of a file that could not be used."""

    line: int
    """In the file; the header is on line 1."""
    value: str
    code: str
    """UNKNOWN_PROFILE, EMPTY or TOO_FEW_COLUMNS."""
    reason: str


def read_rows(text: str, column: str) -> Iterator[Row | Reject]:
    """The external ids of a CSV file, row by row; blank lines are skipped.

    Raises SegmentError INVALID_CSV for a file that cannot be read, TOO_MANY_ITEMS above 100,000 rows.
    """
    reader = csv.reader(StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if column not in header:
            message = f"The first line must name the columns, parted by commas, one of them {column!r}."
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
    reason = "Nobody has this external id, or nobody of the segment's brand; upsert the profile first."
    return Reject(row.line, row.value, "UNKNOWN_PROFILE", reason)
