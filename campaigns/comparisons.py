"""How templates compare values: a missing one equals nothing and comes before nothing."""

from collections.abc import Callable

from campaigns.program import MISSING, Value


def truth(value: Value) -> bool:
    return value is not MISSING and bool(value)


def equal(one: Value, other: Value) -> bool:
    """Missing equals nothing, and lists and objects cannot be compared: they may be as deep as anybody likes."""
    if isinstance(one, list | dict) or isinstance(other, list | dict):
        raise TypeError
    return one is not MISSING and one == other


def ordered(holds: Callable[[Value, Value], bool]) -> Callable[[Value, Value], bool]:
    """A comparison of order; with something missing it is false."""
    return lambda one, other: one is not MISSING and other is not MISSING and holds(one, other)


def contains(one: Value, other: Value) -> bool:
    """Whether `one` is an item of a list or a part of a text."""
    if isinstance(other, str):
        return isinstance(one, str) and one in other
    if isinstance(other, list):
        return any(not isinstance(item, list | dict) and equal(one, item) for item in other)
    if other is MISSING:
        return False
    raise TypeError


COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "eq": equal,
    "ne": lambda one, other: not equal(one, other),
    "lt": ordered(lambda one, other: one < other),  # type: ignore[operator]
    "lteq": ordered(lambda one, other: one <= other),  # type: ignore[operator]
    "gt": ordered(lambda one, other: one > other),  # type: ignore[operator]
    "gteq": ordered(lambda one, other: one >= other),  # type: ignore[operator]
    "in": contains,
    "notin": lambda one, other: not contains(one, other),
}
