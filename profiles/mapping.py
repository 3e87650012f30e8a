"""Says which column of a CSV file becomes what: {"customer": "external_id", "plan": "traits.plan:text"}."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import assert_never

from profiles.errors import ProfileError
from profiles.text import clean_text
from profiles.traits import MOST_INTEGER, MOST_KEY_CHARACTERS, MOST_KEYS


class ValueType(StrEnum):
    """What the text of a cell is, after the colon of a target: "traits.age:number"."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a column goes: a column of the table, or a key of its JSON object."""

    index: int
    """Of the column in the file."""
    column: str
    name: str
    """Of the target, or the key inside of `traits.` or `properties.`."""
    inside: bool
    type: ValueType


TRUE, FALSE = frozenset({"true", "yes", "1", "t", "y"}), frozenset({"false", "no", "0", "f", "n"})


def parse_mapping(
    mapping: Mapping[str, str], header: Sequence[str], *, single: Sequence[str], prefix: str
) -> list[Target]:
    """The targets of `mapping`, in its order.

    `single` are the targets that stand by themselves, `prefix` is "traits." or "properties.". Raises ProfileError
    under the field ("mapping", column): MISSING_COLUMN, AMBIGUOUS_COLUMN, UNKNOWN_TARGET, DUPLICATE_TARGET.
    """
    targets: list[Target] = []
    seen: dict[tuple[bool, str], str] = {}
    for column, text in mapping.items():
        field = ("mapping", column)
        name, inside, kind = parse_target(text, single=single, prefix=prefix, field=field)
        if (other := seen.setdefault((inside, name), column)) != column:
            raise ProfileError("DUPLICATE_TARGET", f"{text} has {other} already: map one column to it.", field=field)
        targets.append(Target(find_column(column.strip(), header, field=field), column, name, inside, kind))
    if sum(target.inside for target in targets) > MOST_KEYS:
        raise ProfileError("TOO_MANY_KEYS", f"Map at most {MOST_KEYS} columns to {prefix}…", field=("mapping",))
    return targets


def find_column(column: str, header: Sequence[str], *, field: tuple[str, ...]) -> int:
    """The place of `column` in the file."""
    match header.count(column):
        case 0:
            listed = ", ".join(name or "(no name)" for name in header[:50])
            hint = " Is the delimiter right?" if len(header) == 1 else ""
            raise ProfileError(
                "MISSING_COLUMN", f"The file has no column {column!r}, it has: {listed}.{hint}", field=field
            )
        case 1:
            return header.index(column)
        case _:
            raise ProfileError("AMBIGUOUS_COLUMN", f"The file has {column!r} more than once: rename one.", field=field)


def parse_target(
    text: str, *, single: Sequence[str], prefix: str, field: tuple[str, ...]
) -> tuple[str, bool, ValueType]:
    """Name, whether it is a key inside of the JSON object, and type of the value."""
    text = text.strip()
    if text in single:
        return text, False, ValueType.TEXT
    if text.startswith(prefix):
        key, colon, kind = text.removeprefix(prefix).rpartition(":")
        if not colon:
            key, kind = kind, ValueType.TEXT
        if kind not in list(ValueType):
            raise ProfileError(
                "UNKNOWN_TARGET", f"{kind!r} is no type: use {', '.join(ValueType)} after the colon.", field=field
            )
        return clean_text(key, what="Key", most=MOST_KEY_CHARACTERS, field=field), True, ValueType(kind)
    raise ProfileError(
        "UNKNOWN_TARGET", f"{text!r} is nothing to map to: use {', '.join(single)}, or {prefix}<key>.", field=field
    )


def converter_of(kind: ValueType) -> Callable[[str], str | int | float | bool]:
    """What turns the text of a cell into a value of this type; raises ProfileError INVALID_VALUE."""
    match kind:
        case ValueType.TEXT:
            return str
        case ValueType.NUMBER:
            return to_number
        case ValueType.BOOLEAN:
            return to_boolean
        case _:
            assert_never(kind)


def to_number(text: str) -> int | float:
    """Of "12" the int 12, of "12.50" the float 12.5; raises ProfileError INVALID_VALUE."""
    try:
        # int() and float() take digits of every script and underscores too: in a file that is more likely a mistake.
        if text.isascii() and "_" not in text:
            if text.lstrip("+-").isdigit():
                if abs(whole := int(text)) <= MOST_INTEGER:
                    return whole
            elif isfinite(number := float(text)):
                return number
    except ValueError:
        pass
    raise ProfileError("INVALID_VALUE", f"{text[:50]!r} is no number: write it as 12 or 12.5, up to 64 bits.")


def to_boolean(text: str) -> bool:
    """Raises ProfileError INVALID_VALUE."""
    small = text.lower()
    if small in TRUE:
        return True
    if small in FALSE:
        return False
    raise ProfileError("INVALID_VALUE", f"{text[:50]!r} is no boolean: write true or false.")
