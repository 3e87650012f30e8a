"""What a condition means, person by person: slow, plain, and written apart from the engine it checks."""

from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from typing import assert_never

from profiles.dates import read_date
from segments.nodes import (
    PAGE_VIEW,
    Aggregate,
    All,
    Amount,
    AnyOf,
    Attribute,
    AttributeName,
    Condition,
    ContextField,
    ContextTest,
    Event,
    Identified,
    Not,
    Operator,
    Page,
    Period,
    RandomBucket,
    Score,
    ScoreOf,
    Seen,
    Sessions,
    Side,
    Sight,
    Span,
    Time,
    Total,
    Trait,
    Value,
)
from segments.tree import bucket
from tests.segments.people import Happened, Person


def meets(condition: Condition, profile_id: int, person: Person, now: datetime) -> bool:
    match condition:
        case All(items):
            return all(meets(item, profile_id, person, now) for item in items)
        case AnyOf(items):
            return any(meets(item, profile_id, person, now) for item in items)
        case Not(item):
            return not meets(item, profile_id, person, now)
        case Trait(key, operator, value):
            return compares(person.traits.get(key), operator, value, now)
        case Attribute(name, operator, value):
            return compares(attribute(person, name), operator, value, now)
        case Event():
            return performed(condition, person.events, now)
        case Page(operator, path, count, window, never):
            viewed = ContextTest(ContextField.PAGE_PATH, operator, path)
            return performed(Event(PAGE_VIEW, count, (), window, None, None, (), (viewed,), never), person.events, now)
        case Sessions(count, window):
            return measures(Fraction(len(sessions(person.events, window, now))), count)
        case Seen(sight, window):
            return inside(person.first_seen_at if sight is Sight.FIRST else person.last_seen_at, window, now)
        case Identified(value):
            return person.identified is value
        case Score(of, codes, at_least):
            fit = "icp" if of is ScoreOf.ICP else "persona"
            score = number(person.traits.get(f"{fit}_score"))
            return (not codes or person.traits.get(f"{fit}_code") in codes) and (
                at_least is None or (score is not None and score >= Fraction(str(at_least)))
            )
        case RandomBucket(salt, start, end):
            return start <= bucket(profile_id, salt) < end
        case _:
            raise AssertionError(f"nobody knows {condition}")


def attribute(person: Person, name: AttributeName) -> str | None:
    match name:
        case AttributeName.COUNTRY:
            return person.country if person.country is not None else person.seen_country
        case AttributeName.CITY:
            return person.city if person.city is not None else person.seen_city
        case AttributeName.DEVICE_TYPE:
            return person.seen_device_type
        case AttributeName.BROWSER:
            return person.seen_browser
        case AttributeName.LOCALE:
            return person.locale
        case AttributeName.TIME_ZONE:
            return person.time_zone
        case AttributeName.EMAIL:
            return person.email
        case AttributeName.PHONE:
            return person.phone
        case AttributeName.EXTERNAL_ID:
            return person.external_id
        case _:
            assert_never(name)


# --- events -------------------------------------------------------------------------------------------------------


def matching(event: Event, happened: Iterable[Happened], now: datetime) -> list[Happened]:
    return [
        one
        for one in happened
        if one.name == event.name
        and (event.window is None or inside(one.at, event.window, now))
        and all(compares(one.properties.get(test.property), test.operator, test.value, now) for test in event.where)
        and all(compares(context(one, test.field), test.operator, test.value, now) for test in event.context)
    ]


def context(happened: Happened, field: ContextField) -> str | None:
    return {
        ContextField.PAGE_PATH: happened.page_path,
        ContextField.DEVICE_TYPE: happened.device_type,
        ContextField.BROWSER: happened.browser,
        ContextField.COUNTRY: happened.country,
        ContextField.CITY: happened.city,
    }[field]


def performed(event: Event, happened: Iterable[Happened], now: datetime) -> bool:
    found = matching(event, happened, now)
    if event.never:
        return not found
    asked = event.count is not None or event.totals or event.first is not None or event.last is not None
    if not asked and not found:
        return False
    if event.count is not None and not measures(Fraction(len(found)), event.count):
        return False
    if not all(totals(found, total) for total in event.totals):
        return False
    times = sorted(one.at for one in found)
    first, last = (times[0], times[-1]) if times else (None, None)
    return (event.first is None or inside(first, event.first, now)) and (
        event.last is None or inside(last, event.last, now)
    )


def numbers(found: Iterable[Happened], key: str) -> list[Fraction]:
    return [value for one in found if (value := number(one.properties.get(key))) is not None]


def totals(found: Iterable[Happened], total: Total) -> bool:
    of = numbers(found, total.property)
    if total.aggregate is Aggregate.SUM:
        return measures(sum(of, Fraction()), total.amount)
    if not of:
        return False
    if total.aggregate is Aggregate.AVG:
        return measures(sum(of, Fraction()) / len(of), total.amount)
    return measures(min(of) if total.aggregate is Aggregate.MIN else max(of), total.amount)


def sessions(happened: Iterable[Happened], time: Time | None, now: datetime) -> set[str]:
    return {
        one.session_id for one in happened if one.session_id is not None and (time is None or inside(one.at, time, now))
    }


def inside(at: datetime | None, time: Time, now: datetime) -> bool:
    if at is None:
        return False
    if isinstance(time, Period):
        return (time.since is None or time.since <= at) and (time.until is None or at < time.until)
    edge = now - time.duration
    return edge <= at <= now if time.side is Side.WITHIN else at < edge


# --- comparisons --------------------------------------------------------------------------------------------------


def number(value: object) -> Fraction | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else Fraction(str(value))


def measures(measure: Fraction, amount: Amount) -> bool:
    limit = Fraction(str(amount.value))
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


def contains(value: object, part: object) -> bool:
    return part in value if isinstance(value, list) else isinstance(value, str) and str(part) in value


def fits(text: str, pattern: str) -> bool:
    """Whether a pattern with * for any characters is of all of `text`: the first part at the start, the last at the
    end, the others as early as they come."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *middle, last = others
    if not text.startswith(first):
        return False
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - len(last) >= at and text.endswith(last)


def compares(value: object, operator: Operator, wanted: Value, now: datetime) -> bool:
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
            return contains(value, wanted)
        case Operator.NOT_CONTAINS:
            return not contains(value, wanted)
        case Operator.STARTS_WITH:
            return isinstance(value, str) and value.startswith(str(wanted))
        case Operator.ENDS_WITH:
            return isinstance(value, str) and value.endswith(str(wanted))
        case Operator.MATCHES:
            return isinstance(value, str) and fits(value, str(wanted))
        case Operator.BETWEEN:
            measure, (low, high) = number(value), (number(one) for one in listed)
            return measure is not None and low is not None and high is not None and low <= measure <= high
        case Operator.BEFORE | Operator.AFTER | Operator.WITHIN_LAST | Operator.MORE_THAN_AGO:
            return dated(read_date(value), operator, wanted, now)
        case _:
            measure = number(value)
            assert isinstance(wanted, int | float)
            return measure is not None and measures(measure, Amount(operator, wanted))


def dated(at: datetime | None, operator: Operator, wanted: Value, now: datetime) -> bool:
    if at is None:
        return False
    match operator, wanted:
        case Operator.BEFORE, datetime():
            return at < wanted
        case Operator.AFTER, datetime():
            return at >= wanted
        case Operator.WITHIN_LAST, Span():
            return now - wanted.duration <= at <= now
        case Operator.MORE_THAN_AGO, Span():
            return at < now - wanted.duration
        case _:
            raise AssertionError(f"{operator} {wanted!r}")
