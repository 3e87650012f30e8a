"""What a condition means, person by person: slow, plain, and written apart from the engine it checks."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import assert_never

from segments.nodes import (
    All,
    Amount,
    AnyOf,
    Condition,
    Event,
    Identified,
    Not,
    Operator,
    Seen,
    Side,
    Sight,
    Trait,
    Value,
    Window,
)
from tests.segments.factories import Happened, Person


def meets(condition: Condition, person: Person, now: datetime) -> bool:
    match condition:
        case All(items):
            return all(meets(item, person, now) for item in items)
        case AnyOf(items):
            return any(meets(item, person, now) for item in items)
        case Not(item):
            return not meets(item, person, now)
        case Trait(key, operator, value):
            return compares(person.traits, key, operator, value)
        case Event():
            return performed(condition, person.events, now)
        case Seen(sight, window):
            at = person.first_seen_at if sight is Sight.FIRST else person.last_seen_at
            return at is not None and inside(at, window, now)
        case Identified(value):
            return person.identified is value
        case _:
            assert_never(condition)


def performed(event: Event, happened: Iterable[Happened], now: datetime) -> bool:
    matching = [
        one
        for one in happened
        if one.name == event.name
        and (event.window is None or inside(one.at, event.window, now))
        and all(compares(one.properties, test.property, test.operator, test.value) for test in event.where)
    ]
    if event.never:
        return not matching
    if event.count is None and event.total is None:
        return bool(matching)
    by_count = event.count is None or measures(Decimal(len(matching)), event.count)
    if event.total is None:
        return by_count
    name = event.total.property
    total = sum((number(one.properties.get(name)) or Decimal(0) for one in matching), Decimal(0))
    return by_count and measures(total, event.total.amount)


def inside(at: datetime, window: Window, now: datetime) -> bool:
    edge = now - window.duration
    return edge <= at <= now if window.side is Side.WITHIN else at < edge


def number(value: object) -> Decimal | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else Decimal(str(value))


def measures(measure: Decimal, amount: Amount) -> bool:
    limit = Decimal(str(amount.value))
    return {
        Operator.EQUALS: measure == limit,
        Operator.NOT_EQUALS: measure != limit,
        Operator.GREATER_THAN: measure > limit,
        Operator.GREATER_OR_EQUAL: measure >= limit,
        Operator.LESS_THAN: measure < limit,
        Operator.LESS_OR_EQUAL: measure <= limit,
    }[amount.operator]


def same(one: object, other: object) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and one == other
    left, right = number(one), number(other)
    return left is not None and left == right


def compares(values: Mapping[str, object], key: str, operator: Operator, wanted: Value) -> bool:
    value = values.get(key)
    if value is None:
        return operator is Operator.MISSING
    listed = wanted if isinstance(wanted, tuple) else ()
    match operator:
        case Operator.EXISTS:
            return True
        case Operator.MISSING:
            return False
        case Operator.EQUALS:
            return same(value, wanted)
        case Operator.NOT_EQUALS:
            return not same(value, wanted)
        case Operator.IN:
            return any(same(value, one) for one in listed)
        case Operator.NOT_IN:
            return not any(same(value, one) for one in listed)
        case Operator.CONTAINS:
            return isinstance(value, str | list) and wanted in value
        case Operator.STARTS_WITH:
            return isinstance(value, str) and value.startswith(str(wanted))
        case Operator.ENDS_WITH:
            return isinstance(value, str) and value.endswith(str(wanted))
        case Operator.BETWEEN:
            measure, (low, high) = number(value), (number(one) for one in listed)
            return measure is not None and low is not None and high is not None and low <= measure <= high
        case Operator.GREATER_THAN | Operator.GREATER_OR_EQUAL | Operator.LESS_THAN | Operator.LESS_OR_EQUAL if (
            isinstance(wanted, int | float)
        ):
            measure = number(value)
            return measure is not None and measures(measure, Amount(operator, wanted))
        case _:
            raise AssertionError(f"{operator} {wanted!r}")
