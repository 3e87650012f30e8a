"""Pages of lists that can be in several orders: each goes on after the key of its last row, never after a count.

Rows inserted meanwhile neither repeat nor hide a row. A row whose key changes meanwhile moves, as it should.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Generic, TypeVar
from uuid import UUID

F = TypeVar("F", bound=StrEnum)
R = TypeVar("R")

NEVER = ("infinity", "-infinity")
LARGEST_NUMBER = 2**63 - 1


class Direction(StrEnum):
    """Which end comes first."""

    ASC = "ASC"
    DESC = "DESC"


class KeyType(StrEnum):
    """What a key is for PostgreSQL."""

    ID = "uuid"
    TEXT = "text"
    TIME = "timestamptz"
    NUMBER = "bigint"


@dataclass(frozen=True, slots=True)
class Key:
    """What a list is ordered by. Never null: `{last}` stands for what comes after all others in either direction."""

    sql: str
    type: KeyType


@dataclass(frozen=True, slots=True)
class Order(Generic[F]):
    """A field of a list, and from which end."""

    field: F
    direction: Direction

    def __str__(self) -> str:
        return f"{self.field} {self.direction}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: its key as PostgreSQL writes it, and its id, which tells rows of one key apart."""

    key: str
    id: UUID


@dataclass(frozen=True, slots=True)
class Listed(Generic[R]):
    """A row of a page, and where to go on behind it."""

    row: R
    place: Place


@dataclass(frozen=True, slots=True)
class Span:
    """From an instant up to, and without, another; None leaves that end open."""

    start: datetime | None = None
    end: datetime | None = None


ALWAYS = Span()
LAST = {
    KeyType.TIME: {Direction.ASC: "infinity", Direction.DESC: "-infinity"},
    KeyType.NUMBER: {Direction.ASC: str(LARGEST_NUMBER), Direction.DESC: "-1"},
}


def statements(pattern: str, keys: Mapping[F, Key]) -> dict[Order[F], str]:
    """A page's statement for each order, of a pattern with {key}, {type}, {beyond} and {direction}."""
    return {
        Order(field, direction): pattern.format(
            key=key.sql.format(last=LAST.get(key.type, {}).get(direction, "")),
            type=key.type.value,
            beyond=">" if direction is Direction.ASC else "<",
            direction=direction.value,
        )
        for field, key in keys.items()
        for direction in Direction
    }


def checked_key(type_: KeyType, text: object) -> str:
    """A key that came from outside, as PostgreSQL surely takes it; raises ValueError for what is none."""
    if not isinstance(text, str):
        raise ValueError
    match type_:
        case KeyType.ID:
            return str(UUID(text))
        case KeyType.TEXT:
            if "\0" in text:
                raise ValueError
            return text
        case KeyType.TIME:
            if text in NEVER:
                return text
            instant = datetime.fromisoformat(text)
            if instant.tzinfo is None:
                raise ValueError
            # PostgreSQL knows no offsets of 16 hours and more, nor of parts of a second.
            try:
                return instant.astimezone(UTC).isoformat()
            except OverflowError as fault:
                raise ValueError from fault
        case KeyType.NUMBER:
            if len(text) > 20 or not -LARGEST_NUMBER <= int(text) <= LARGEST_NUMBER:
                raise ValueError
            return str(int(text))
