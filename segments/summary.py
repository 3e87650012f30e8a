"""A condition in one plain English sentence, for lists and for people who check what they built."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import assert_never
from uuid import UUID

from segments.canonical import per_cent
from segments.nodes import (
    Aggregate,
    All,
    Amount,
    AnyOf,
    Attribute,
    AttributeName,
    Condition,
    ContextField,
    Did,
    Engagement,
    Event,
    Identified,
    InSegment,
    Leaf,
    Not,
    Operator,
    Page,
    Period,
    RandomBucket,
    SavedSql,
    Scalar,
    Score,
    Seen,
    Sessions,
    Side,
    Sight,
    Span,
    Time,
    Total,
    Trait,
    Unit,
    Value,
    Window,
)

MOST_NAMED = 5
NO_NAMES: Mapping[UUID, str] = {}


def summary(condition: Condition, names: Mapping[UUID, str] = NO_NAMES) -> str:
    """E.g. "Performed purchase at least 3 times in the last 180 days, and not last seen in the last 90 days.".

    `names` are those of segments, campaigns and saved queries; without one, the id stands for it.
    """
    text = Speaker(names).said(condition, outermost=True)
    return f"{text[0].upper()}{text[1:]}."


@dataclass(frozen=True, slots=True)
class Speaker:
    """Says conditions, with the names that it knows."""

    names: Mapping[UUID, str]

    def said(self, condition: Condition, *, outermost: bool = False) -> str:
        match condition:
            case All(items):
                return self.group(items, "and", outermost=outermost)
            case AnyOf(items):
                return self.group(items, "or", outermost=outermost)
            case Not(Not(item)):
                return self.said(item, outermost=outermost)
            case Not(item):
                return self.denied(item)
            case leaf:
                return self.leaf(leaf)

    def denied(self, condition: Condition) -> str:
        """What holds when `condition` does not; of a trait, that includes that it is unknown."""
        match condition:
            case Not(item):
                return self.said(item)
            case All(items) | AnyOf(items) if len(items) == 1:
                return self.denied(items[0])
            case All() | AnyOf() | Score():
                said = self.said(condition)
                return f"not {said}" if said.startswith("(") else f"not ({said})"
            case Trait(key, operator, value):
                return f"trait {key} {comparison(operator, value, DENIED)}"
            case Attribute(name, operator, value):
                return f"{ATTRIBUTES[name]} {comparison(operator, value, DENIED)}"
            case Event(never=True) | Page(never=True):
                return self.leaf(replace(condition, never=False))
            case Sessions():
                return f"not having {self.leaf(condition).removeprefix('had ')}"
            case Identified(value):
                return self.leaf(Identified(not value))
            case leaf:
                return f"not {self.leaf(leaf)}"

    def group(self, items: tuple[Condition, ...], word: str, *, outermost: bool) -> str:
        if len(items) == 1:
            return self.said(items[0], outermost=outermost)
        parts = [self.said(item) for item in items]
        if outermost:
            return f", {word} ".join(parts)
        return f"({f' {word} '.join(parts)})"

    def name(self, id: UUID) -> str:
        return f'"{self.names[id]}"' if id in self.names else str(id)

    def leaf(self, one: Leaf) -> str:
        match one:
            case Trait(key, operator, value):
                return f"trait {key} {comparison(operator, value)}"
            case Attribute(name, operator, value):
                return f"{ATTRIBUTES[name]} {comparison(operator, value)}"
            case Event():
                return event(one)
            case Page():
                return page(one)
            case Sessions(count, window):
                return spaced("had", amount(count), counted(count, "session"), during(window))
            case Seen(sight, window):
                return spaced(SIGHTS[sight], during(window))
            case Identified(value):
                return "identified" if value else "anonymous"
            case Score(of, codes, at_least):
                parts = [f"code {comparison(Operator.IN, codes)}"] if codes else []
                parts += [] if at_least is None else [f"score is at least {scalar(at_least)}"]
                return f"{SCORES[of]} {' and '.join(parts)}"
            case RandomBucket(salt, start, end):
                return f'in the random share from {per_cent(start)} to {per_cent(end)} per cent of "{salt}"'
            case InSegment(segment_id):
                return f"in the segment {self.name(segment_id)}"
            case Engagement(did, campaign_id, window):
                campaign = "any campaign" if campaign_id is None else f"the campaign {self.name(campaign_id)}"
                return spaced(DEEDS[did], campaign, during(window))
            case SavedSql(query_id):
                return f"found by the saved query {self.name(query_id)}"
            case _:
                assert_never(one)


# --- events and pages ---------------------------------------------------------------------------------------------


def event(one: Event) -> str:
    tests = [f"{test.property} {comparison(test.operator, test.value)}" for test in one.where]
    tests += [f"{CONTEXTS[test.field]} {comparison(test.operator, test.value)}" for test in one.context]
    words = [
        f"{'never performed' if one.never else 'performed'} {one.name}",
        times(one.count),
        during(one.window),
        f"where {' and '.join(tests)}" if tests else "",
        f"with {joined([total(each) for each in one.totals], 'and')}" if one.totals else "",
    ]
    sights = [f"{which} {during(time)}" for which, time in (("first", one.first), ("last", one.last)) if time]
    return spaced(*words, f"({', '.join(sights)})" if sights else "")


def page(one: Page) -> str:
    path = {
        Operator.EQUALS: f'the page "{one.path}"',
        Operator.STARTS_WITH: f'a page whose path starts with "{one.path}"',
        Operator.MATCHES: f'a page whose path matches "{one.path}"',
    }[one.operator]
    return spaced("never viewed" if one.never else "viewed", path, times(one.count), during(one.window))


def times(count: Amount | None) -> str:
    return "" if count is None else f"{amount(count)} {counted(count, 'time')}"


def counted(count: Amount, thing: str) -> str:
    return thing if count.value == 1 else f"{thing}s"


def total(one: Total) -> str:
    return f"{AGGREGATES[one.aggregate].format(one.property)} {amount(one.amount)}"


def spaced(*words: str) -> str:
    return " ".join(word for word in words if word)


# --- times --------------------------------------------------------------------------------------------------------


def during(time: Time | None) -> str:
    """Such as "in the last 3 days"; empty for whenever."""
    match time:
        case None:
            return ""
        case Window(Side.WITHIN, count, unit):
            return f"in the last {length(count, unit) if count != 1 else unit.value[:-1]}"
        case Window(Side.BEFORE, count, unit):
            return f"more than {length(count, unit)} ago"
        case Period(since, None):
            assert since is not None
            return f"since {instant(since)}"
        case Period(None, until):
            assert until is not None
            return f"before {instant(until)}"
        case Period(since, until):
            assert since is not None
            assert until is not None
            return f"from {instant(since)} until before {instant(until)}"
        case _:
            raise AssertionError(time)


def length(count: int, unit: Unit) -> str:
    return f"{count} {unit.value if count != 1 else unit.value[:-1]}"


def instant(at: datetime) -> str:
    """A date alone when it is its midnight, as it was most likely written."""
    at = at.astimezone(UTC)
    if (at.hour, at.minute, at.second, at.microsecond) == (0, 0, 0, 0):
        return f"{at:%Y-%m-%d}".zfill(10)
    return at.isoformat(sep=" ", timespec="minutes" if not at.second and not at.microsecond else "auto")[:-6] + " UTC"


# --- comparisons --------------------------------------------------------------------------------------------------

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
    Operator.NOT_EQUALS: "is known but not",
    Operator.GREATER_THAN: "is more than",
    Operator.GREATER_OR_EQUAL: "is at least",
    Operator.LESS_THAN: "is less than",
    Operator.LESS_OR_EQUAL: "is at most",
    Operator.BETWEEN: "is between",
    Operator.CONTAINS: "contains",
    Operator.NOT_CONTAINS: "is known but does not contain",
    Operator.STARTS_WITH: "starts with",
    Operator.ENDS_WITH: "ends with",
    Operator.MATCHES: "matches",
    Operator.IN: "is one of",
    Operator.NOT_IN: "is known but none of",
    Operator.EXISTS: "is known",
    Operator.MISSING: "is unknown",
    Operator.BEFORE: "is before",
    Operator.AFTER: "is on or after",
    Operator.WITHIN_LAST: "is in the last",
    Operator.MORE_THAN_AGO: "is more than",
}

DENIED = {
    Operator.EQUALS: "is not",
    Operator.NOT_EQUALS: "is unknown or",
    Operator.GREATER_THAN: "is not more than",
    Operator.GREATER_OR_EQUAL: "is not at least",
    Operator.LESS_THAN: "is not less than",
    Operator.LESS_OR_EQUAL: "is not at most",
    Operator.BETWEEN: "is not between",
    Operator.CONTAINS: "does not contain",
    Operator.NOT_CONTAINS: "is unknown or contains",
    Operator.STARTS_WITH: "does not start with",
    Operator.ENDS_WITH: "does not end with",
    Operator.MATCHES: "does not match",
    Operator.IN: "is none of",
    Operator.NOT_IN: "is unknown or one of",
    Operator.EXISTS: "is unknown",
    Operator.MISSING: "is known",
    Operator.BEFORE: "is not before",
    Operator.AFTER: "is not on or after",
    Operator.WITHIN_LAST: "is not in the last",
    Operator.MORE_THAN_AGO: "is not more than",
}
"""What holds when COMPARISONS do not; where they say that something is known, that includes that it is not."""

ATTRIBUTES = {
    AttributeName.COUNTRY: "country",
    AttributeName.CITY: "city",
    AttributeName.DEVICE_TYPE: "device type",
    AttributeName.BROWSER: "browser",
    AttributeName.LOCALE: "locale",
    AttributeName.TIME_ZONE: "time zone",
    AttributeName.EMAIL: "email address",
    AttributeName.PHONE: "phone number",
    AttributeName.EXTERNAL_ID: "external id",
}
CONTEXTS = {
    ContextField.PAGE_PATH: "page path",
    ContextField.DEVICE_TYPE: "device type",
    ContextField.BROWSER: "browser",
    ContextField.COUNTRY: "country",
    ContextField.CITY: "city",
}
SIGHTS = {Sight.FIRST: "first seen", Sight.LAST: "last seen"}
SCORES = {"ICP": "ICP", "PERSONA": "persona"}
DEEDS = {Did.RECEIVED: "received", Did.OPENED: "opened", Did.CLICKED: "clicked in"}
AGGREGATES = {
    Aggregate.SUM: "{} totalling",
    Aggregate.AVG: "{} averaging",
    Aggregate.MIN: "the lowest {}",
    Aggregate.MAX: "the highest {}",
}


def amount(one: Amount) -> str:
    return f"{AMOUNTS[one.operator]} {scalar(one.value)}"


def comparison(operator: Operator, value: Value, words_of: Mapping[Operator, str] = COMPARISONS) -> str:
    """Operator and value in the words of COMPARISONS or DENIED."""
    words = words_of[operator]
    match value:
        case None:
            return words
        case datetime():
            return f"{words} {instant(value)}"
        case Span(count, unit) if operator is Operator.WITHIN_LAST:
            return f"{words} {length(count, unit) if count != 1 else unit.value[:-1]}"
        case Span(count, unit):
            return f"{words} {length(count, unit)} ago"
        case (low, high) if operator is Operator.BETWEEN:
            return f"{words} {scalar(low)} and {scalar(high)}"
        case (only,):
            return f"{words_of[ALONE.get(operator, operator)]} {scalar(only)}"
        case tuple():
            listed = [scalar(item) for item in value[:MOST_NAMED]]
            if len(value) > MOST_NAMED:
                listed.append(f"{len(value) - MOST_NAMED} more")
            return f"{words} {joined(listed, 'or')}"
        case _:
            return f"{words} {scalar(value)}"


ALONE = {Operator.IN: Operator.EQUALS, Operator.NOT_IN: Operator.NOT_EQUALS}


def joined(words: list[str], word: str) -> str:
    """E.g. "a, b or c"."""
    return f"{', '.join(words[:-1])} {word} {words[-1]}" if len(words) > 1 else words[0]


def scalar(value: Scalar) -> str:
    """A value as people write it: 100, not 100.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f'"{value}"' if isinstance(value, str) else str(value)
