"""The parts of a condition: `all`, `any` and `not` over leaves, each leaf one question about a profile.

What every engine must answer alike
- A trait or property that is missing, or null, meets no comparison, NOT_EQUALS and NOT_IN included; the `not` of such
  a comparison is true. Only MISSING finds it.
- A comparison of numbers sees JSON numbers only, one of texts JSON texts only. NOT_EQUALS and NOT_IN hold for a value
  of another type: it is there, and it is another one. Texts compare exactly, letter case included. CONTAINS holds for
  a list of texts that has the text as an item.
- `within` a duration is [now - duration, now], `before` it is earlier than now - duration. No window: whenever.
- Events that never happened count 0 and sum to 0, and so does a property that is no number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TypeAlias, assert_never

import orjson


class Operator(StrEnum):
    EQUALS = "EQUALS"
    NOT_EQUALS = "NOT_EQUALS"
    GREATER_THAN = "GREATER_THAN"
    GREATER_OR_EQUAL = "GREATER_OR_EQUAL"
    LESS_THAN = "LESS_THAN"
    LESS_OR_EQUAL = "LESS_OR_EQUAL"
    BETWEEN = "BETWEEN"
    """Both ends belong to it."""
    CONTAINS = "CONTAINS"
    STARTS_WITH = "STARTS_WITH"
    ENDS_WITH = "ENDS_WITH"
    IN = "IN"
    NOT_IN = "NOT_IN"
    EXISTS = "EXISTS"
    MISSING = "MISSING"


class Unit(StrEnum):
    MINUTES = "minutes"
    HOURS = "hours"
    DAYS = "days"
    """Of 24 hours."""
    WEEKS = "weeks"


class Side(StrEnum):
    """Which side of now - duration a window is on."""

    WITHIN = "within"
    BEFORE = "before"


class Sight(StrEnum):
    """Which sight of a profile a leaf asks about."""

    FIRST = "firstSeen"
    LAST = "lastSeen"


Number: TypeAlias = int | float
Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | tuple[Scalar, ...] | None
"""None for EXISTS and MISSING, a tuple for BETWEEN (two numbers), IN and NOT_IN."""


@dataclass(frozen=True, slots=True)
class Window:
    side: Side
    amount: int
    unit: Unit

    @property
    def duration(self) -> timedelta:
        return timedelta(**{self.unit.value: self.amount})


@dataclass(frozen=True, slots=True)
class Amount:
    """A comparison of a count or a sum with one number: the operators EQUALS to LESS_OR_EQUAL."""

    operator: Operator
    value: Number


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of a numeric property over the matching events, compared."""

    property: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class PropertyTest:
    """What an event's property must be for the event to match."""

    property: str
    operator: Operator
    value: Value = None


@dataclass(frozen=True, slots=True)
class Trait:
    key: str
    operator: Operator
    value: Value = None


@dataclass(frozen=True, slots=True)
class Event:
    """Performed (no count, no total), performed so many times, amounting to so much, or never performed."""

    name: str
    count: Amount | None = None
    total: Total | None = None
    window: Window | None = None
    where: tuple[PropertyTest, ...] = ()
    never: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    sight: Sight
    window: Window


@dataclass(frozen=True, slots=True)
class Identified:
    """False: anonymous visitors."""

    value: bool


@dataclass(frozen=True, slots=True)
class All:
    items: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    items: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    item: "Condition"


Leaf: TypeAlias = Trait | Event | Seen | Identified
Condition: TypeAlias = All | AnyOf | Not | Leaf
Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


def to_json(condition: Condition) -> dict[str, Json]:
    """The canonical JSON form of `condition`: what is stored, and what `conditions.parse` reads back as the same."""
    match condition:
        case All(items):
            return {"all": [to_json(item) for item in items]}
        case AnyOf(items):
            return {"any": [to_json(item) for item in items]}
        case Not(item):
            return {"not": to_json(item)}
        case Trait(key, operator, value):
            return {"trait": {"key": key, **comparison_json(operator, value)}}
        case Event():
            return {"event": event_json(condition)}
        case Seen(sight, window):
            return {sight.value: window_json(window)}
        case Identified(value):
            return {"identified": value}
        case _:
            assert_never(condition)


def event_json(event: Event) -> dict[str, Json]:
    out: dict[str, Json] = {"name": event.name}
    if event.never:
        out["never"] = True
    if event.count is not None:
        out["count"] = comparison_json(event.count.operator, event.count.value)
    if event.total is not None:
        amount = event.total.amount
        out["sum"] = {"property": event.total.property, **comparison_json(amount.operator, amount.value)}
    if event.window is not None:
        out |= window_json(event.window)
    if event.where:
        out["where"] = [{"property": t.property, **comparison_json(t.operator, t.value)} for t in event.where]
    return out


def comparison_json(operator: Operator, value: Value) -> dict[str, Json]:
    if value is None:
        return {"operator": operator.value}
    return {"operator": operator.value, "value": list(value) if isinstance(value, tuple) else value}


def window_json(window: Window) -> dict[str, Json]:
    return {window.side.value: {window.unit.value: window.amount}}


def key(leaf: Leaf) -> str:
    """What two leaves share exactly when they ask the same.

    Not the leaf itself: to Python True, 1 and 1.0 are equal, so `plan is true` would be answered by `plan is 1`.
    """
    return orjson.dumps(to_json(leaf)).decode()


def leaves(condition: Condition) -> Iterator[Leaf]:
    """Every leaf of `condition`, in reading order; equal ones as often as they occur."""
    match condition:
        case All(items) | AnyOf(items):
            for item in items:
                yield from leaves(item)
        case Not(item):
            yield from leaves(item)
        case Trait() | Event() | Seen() | Identified():
            yield condition
        case _:
            assert_never(condition)
