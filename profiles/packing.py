"""Columns as one parameter each, for statements that take a thousand rows at a time.

asyncpg asks of each element of an array whether it is an array itself, by way of two abstract classes: 35 such calls an
event, a quarter of the API's time for it. A text that PostgreSQL splits has no elements to ask.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from secrets import token_hex
from typing import TypeVar

import orjson

T = TypeVar("T")

SEPARATOR = "\x1f"
"""ASCII's unit separator, which hardly any text holds; if one does, a longer one is taken."""


def pack(*columns: Sequence[str | None]) -> list[str]:
    """The separator, and then each column as a text for `string_to_array(column, separator, '')`.

    None and the empty text both come out as NULL. Of one row that is NULL, no element comes out: unnest it beside a
    column that has none.
    """
    separator = SEPARATOR
    while True:
        packed = [joined(separator, column) for column in columns]
        if all(text.count(separator) < max(len(column), 1) for text, column in zip(packed, columns, strict=True)):
            return [separator, *packed]
        separator = SEPARATOR + token_hex(8)


def joined(separator: str, column: Sequence[str | None]) -> str:
    """The texts with `separator` between them; None as the empty text."""
    try:
        return separator.join(column)  # type: ignore[arg-type]
    except TypeError:
        # Looked at only then: most columns hold no None, and to look at each text costs more than to join them.
        return separator.join([text or "" for text in column])


def pick(column: Sequence[T], places: Sequence[int]) -> Sequence[T]:
    """The elements at `places`, in that order."""
    if len(places) < 2:
        return [column[place] for place in places]
    # Without a step of Python each.
    found: tuple[T, ...] = itemgetter(*places)(column)
    return found


def pack_numbers(numbers: Sequence[int] | Sequence[float]) -> str:
    """The numbers as a text for `column::text::int[]`, or float8[]."""
    return "{" + orjson.dumps(numbers)[1:-1].decode() + "}"


def pack_words(words: Iterable[str]) -> str:
    """Words of plain letters as a text for `column::text::text[]`, or bool[] of t and f."""
    return "{" + ",".join(words) + "}"


def pack_ids(ids: Iterable[bytes | None]) -> str:
    """The 16 bytes of each id as a text for `column::text::uuid[]`; None comes out as NULL."""
    return "{" + ",".join(["NULL" if one is None else one.hex() for one in ids]) + "}"


def seconds_of(instants: Sequence[datetime]) -> list[float]:
    """Seconds since 1970, of which PostgreSQL's to_timestamp makes the same instants again."""
    return list(map(datetime.timestamp, instants))
