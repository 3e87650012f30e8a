"""A condition in one plain English sentence, for lists and for people who check what they built."""

from typing import assert_never

from segments.nodes import (
    All,
    Amount,
    AnyOf,
    Condition,
    Event,
    Identified,
    Leaf,
    Not,
    Operator,
    PropertyTest,
    Scalar,
    Seen,
    Side,
    Sight,
    Trait,
    Value,
    Window,
)

MOST_NAMED = 5


def summary(condition: Condition) -> str:
    """E.g. "Performed purchase at least 3 times in the last 180 days, and not last seen in the last 90 days."."""
    text = said(condition, outermost=True)
    return f"{text[0].upper()}{text[1:]}."


def said(condition: Condition, *, outermost: bool = False) -> str:
    match condition:
        case All(items):
            return group(items, "and", outermost=outermost)
        case AnyOf(items):
            return group(items, "or", outermost=outermost)
        case Not(item):
            return f"not {said(item)}"
        case Trait() | Event() | Seen() | Identified():
            return leaf(condition)
        case _:
            assert_never(condition)


def group(items: tuple[Condition, ...], word: str, *, outermost: bool) -> str:
    if len(items) == 1:
        return said(items[0], outermost=outermost)
    parts = [said(item) for item in items]
    if outermost:
        return f", {word} ".join(parts)
    return f"({f' {word} '.join(parts)})"


def leaf(one: Leaf) -> str:
    match one:
        case Trait(key, operator, value):
            return f"trait {key} {comparison(operator, value)}"
        case Event():
            return event(one)
        case Seen(sight, window):
            return f"{'first' if sight is Sight.FIRST else 'last'} seen {span(window)}"
        case Identified(value):
            return "identified" if value else "anonymous"
        case _:
            assert_never(one)


def event(one: Event) -> str:
    words = [f"{'never performed' if one.never else 'performed'} {one.name}"]
    if one.count is not None:
        times = "time" if one.count.value == 1 else "times"
        words.append(f"{amount(one.count)} {times}")
    if one.window is not None:
        words.append(span(one.window))
    if one.where:
        words.append("where " + " and ".join(property_test(test) for test in one.where))
    if one.total is not None:
        words.append(f"with {one.total.property} amounting to {amount(one.total.amount)}")
    return " ".join(words)


def property_test(test: PropertyTest) -> str:
    return f"{test.property} {comparison(test.operator, test.value)}"


def span(window: Window) -> str:
    unit = window.unit.value if window.amount != 1 else window.unit.value[:-1]
    number = "" if window.amount == 1 and window.side is Side.WITHIN else f"{window.amount} "
    match window.side:
        case Side.WITHIN:
            return f"in the last {number}{unit}"
        case Side.BEFORE:
            return f"more than {number}{unit} ago"
        case _:
            assert_never(window.side)


AMOUNTS = {
    Operator.EQUALS: "exactly",
    Operator.NOT_EQUALS: "any number but",
    Operator.GREATER_THAN: "more than",
    Operator.GREATER_OR_EQUAL: "at least",
    Operator.LESS_THAN: "less than",
    Operator.LESS_OR_EQUAL: "at most",
}

COMPARISONS = {
    Operator.EQUALS: "is",
    Operator.NOT_EQUALS: "is something else than",
    Operator.GREATER_THAN: "is more than",
    Operator.GREATER_OR_EQUAL: "is at least",
    Operator.LESS_THAN: "is less than",
    Operator.LESS_OR_EQUAL: "is at most",
    Operator.BETWEEN: "is between",
    Operator.CONTAINS: "contains",
    Operator.STARTS_WITH: "starts with",
    Operator.ENDS_WITH: "ends with",
    Operator.IN: "is one of",
    Operator.NOT_IN: "is something else than",
    Operator.EXISTS: "is known",
    Operator.MISSING: "is unknown",
}


def amount(one: Amount) -> str:
    return f"{AMOUNTS[one.operator]} {scalar(one.value)}"


def comparison(operator: Operator, value: Value) -> str:
    words = COMPARISONS[operator]
    if value is None:
        return words
    if not isinstance(value, tuple):
        return f"{words} {scalar(value)}"
    if operator is Operator.BETWEEN:
        return f"{words} {scalar(value[0])} and {scalar(value[1])}"
    named = [scalar(item) for item in value[:MOST_NAMED]]
    if len(value) > MOST_NAMED:
        named.append(f"{len(value) - MOST_NAMED} more")
    last = named.pop()
    return f"{words} {', '.join(named)} or {last}" if named else f"{words} {last}"


def scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
