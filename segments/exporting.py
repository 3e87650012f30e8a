"""Members as CSV, page by page: a million people pass through without being held.

RFC 4180 in UTF-8, with a header. Each page is a transaction of its own, so that nothing is held up while somebody reads
slowly; who enters or leaves meanwhile is in the file or not, and nobody is in it twice. Spreadsheet programs run texts
that begin with = + - @ as formulas, even out of a file of plain data, so such texts get a leading apostrophe; numbers,
-7.5 and +49 30 123456 among them, cannot do anything and stay as they are.
"""

import csv
import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from io import StringIO
from uuid import UUID

import orjson

from db.transactions import transaction
from profiles import profiles
from profiles.profiles import Profile
from segments import listing
from segments.errors import SegmentError
from segments.members import START, Member, MemberOrder, read_page

PAGE = 1000
MOST_COLUMNS = 100
ALWAYS = ("profile_id", "external_id", "entered_at", "rank_value")
ATTRIBUTES = (
    "email", "phone", "time_zone", "locale", "country", "city", "identified", "first_seen_at", "last_seen_at",
    "created_at", "updated_at",
)  # fmt: skip
TRAIT = "traits."
FORMULA = re.compile(r"[=+\-@\t\r\n]")
NUMBER = re.compile(r"[+-]?[0-9]+([ .][0-9]+)*")


async def export(
    workspace_id: UUID, segment_id: UUID, *, columns: Sequence[str] = (), id_of: Callable[[int], str] = str
) -> AsyncIterator[str]:
    """The text of the file in parts, the header first, then a part for each 1,000 members by profile.

    `columns` follow profile_id, external_id, entered_at and rank_value: attributes of profiles, and traits as
    `traits.plan`. `id_of` writes profile ids. Raises, before there is any part: SegmentNotFound, SegmentError
    UNKNOWN_COLUMN, TOO_MANY_ITEMS.
    """
    check_columns(columns)
    await listing.get(workspace_id, segment_id)
    return parts(workspace_id, segment_id, columns, id_of)


async def parts(
    workspace_id: UUID, segment_id: UUID, columns: Sequence[str], id_of: Callable[[int], str]
) -> AsyncIterator[str]:
    """See `export`. Nothing is open while a part is being sent: whoever goes away leaves nothing behind."""
    yield text_of([[*ALWAYS, *columns]])
    after = START
    while True:
        async with transaction(workspace_id) as connection:
            members = await read_page(
                connection, workspace_id, segment_id, after=after, limit=PAGE, order=MemberOrder.ID, as_of=None
            )
            people = await profiles.fetch(connection, workspace_id, [one.profile_id for one in members])
        if not members:
            return
        after = members[-1].place
        known = [(one, people[one.profile_id]) for one in members if one.profile_id in people]
        yield text_of([row(member, person, columns, id_of) for member, person in known if person.erased_at is None])


def check_columns(columns: Sequence[str]) -> None:
    """Raises SegmentError for columns there are not, are named twice, or are too many."""
    if len(columns) > MOST_COLUMNS:
        message = f"{len(columns)} columns; ask for at most {MOST_COLUMNS}."
        raise SegmentError("TOO_MANY_ITEMS", message, field=("columns",))
    seen = set(ALWAYS)
    for column in columns:
        if column in seen:
            message = f"{column!r} is there already; name each column once."
            raise SegmentError("DUPLICATE_COLUMN", message, field=("columns",))
        seen.add(column)
        if column not in ATTRIBUTES and not (column.startswith(TRAIT) and column != TRAIT):
            message = f"There is no column {column!r}; there are {', '.join(ATTRIBUTES)}, and traits.<key>."
            raise SegmentError("UNKNOWN_COLUMN", message, field=("columns",))


def row(member: Member, person: Profile, columns: Sequence[str], id_of: Callable[[int], str]) -> list[str]:
    """The cells of one member."""
    fixed: list[object] = [id_of(member.profile_id), person.external_id, member.entered_at, member.rank_value]
    return [cell(value) for value in [*fixed, *(value_of(person, column) for column in columns)]]


def value_of(person: Profile, column: str) -> object:
    """What a profile has in a column; None for nothing."""
    if column.startswith(TRAIT):
        return person.traits.get(column.removeprefix(TRAIT))
    value: object = getattr(person, column)
    return value


def cell(value: object) -> str:
    """A value as text that no spreadsheet runs; empty for None.

    >>> [cell(value) for value in ("=1+1", "+4930123", "-x", 2.5, True, ["a"], None)]
    ["'=1+1", '+4930123', "'-x", '2.5', 'true', '["a"]', '']
    """
    match value:
        case None:
            return ""
        case str():
            return "'" + value if FORMULA.match(value) and not NUMBER.fullmatch(value) else value
        case datetime():
            return value.isoformat()
        case _:
            return orjson.dumps(value).decode()


def text_of(rows: Sequence[Sequence[str]]) -> str:
    """Rows as CSV."""
    out = StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue()
