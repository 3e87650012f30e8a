"""Who meets which leaves, told from columns of events: the grouping that PostgreSQL need not do.

Of 605,790 events of 400,000 people those who did it twice or more are found in 9 ms, where PostgreSQL took 320 to group
and plain Python 226. Nothing is rounded: see json_numbers.py.
"""

import operator
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from segments.engines import json_numbers
from segments.engines.event_rows import Reading, Share
from segments.engines.json_numbers import EXACT, Booleans, Integers, Numbers, Units, as_decimals
from segments.engines.queries import earlier
from segments.nodes import Aggregate, Amount, Operator, Period, Side, Time, Total, Window

COMPARES: dict[Operator, Callable[[Any, Any], Any]] = {
    Operator.EQUALS: operator.eq,
    Operator.NOT_EQUALS: operator.ne,
    Operator.GREATER_THAN: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
    Operator.LESS_THAN: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
}
LARGEST = 2**63 - 1
SPARSE = 8
"""So many times as many people as events may be between the first and the last id, to have a place for each."""
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Where PostgreSQL counts microseconds from."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Events as columns. `place` is where in `people`, which are ascending, an event's profile is."""

    people: npt.NDArray[np.uint32]
    place: Integers
    times: Integers | None
    flags: Integers | None
    numbers: dict[str, Numbers]


def fold(reading: Reading, columns: Sequence[bytes | None], now: datetime) -> list[BitMap]:
    """Who meets each leaf of `reading`, told from the columns that its statement brought; takes a thread of its own."""
    if columns[0] is None:
        return [BitMap() for _ in reading.shares]
    rows = unpacked(reading, columns)
    with localcontext(EXACT):
        return [who_meets(rows, share, now) for share in reading.shares]


def unpacked(reading: Reading, columns: Sequence[bytes | None]) -> Rows:
    ids, *others = (column or b"" for column in columns)
    people, place = placed(np.frombuffer(ids, ">u4").astype(np.int64))
    times = np.frombuffer(others.pop(0), ">i8").astype(np.int64) if reading.timed else None
    flags = np.frombuffer(others.pop(0), ">i8").astype(np.int64) if reading.flagged else None
    numbers = {key: json_numbers.read(values) for key, values in zip(reading.properties, others, strict=True)}
    return Rows(people, place, times, flags, numbers)


def placed(ids: Integers) -> tuple[npt.NDArray[np.uint32], Integers]:
    """People, ascending, and where among them each of `ids` is; not all of them need be among the ids."""
    first, last = int(ids.min()), int(ids.max())
    if last - first <= SPARSE * len(ids):
        return np.arange(first, last + 1, dtype=np.uint32), ids - first
    people, place = np.unique(ids, return_inverse=True)
    return people.astype(np.uint32), place


def who_meets(rows: Rows, share: Share, now: datetime) -> BitMap:
    """The people of whose events in `share` the leaf holds; nobody without one."""
    event = share.event
    mine = chosen(rows, share, now)
    place = rows.place if mine is None else rows.place[mine]
    counted = np.bincount(place, minlength=len(rows.people))
    met = counted > 0
    if event.count is not None:
        met &= compare(counted, event.count)
    for total in event.totals:
        met &= total_is(total, numbers_of(rows.numbers[total.property], mine), place, len(rows.people))
    for time, extreme, begin in ((event.first, np.minimum, LARGEST), (event.last, np.maximum, -LARGEST)):
        if time is not None:
            assert rows.times is not None
            at = np.full(len(rows.people), begin)
            extreme.at(at, place, rows.times if mine is None else rows.times[mine])
            met &= inside(at, time, now)
    found = array("I")
    found.frombytes(rows.people[met].tobytes())
    return BitMap(found)


def chosen(rows: Rows, share: Share, now: datetime) -> Booleans | None:
    """Which rows are the leaf's; None: all of them."""
    mine: Booleans | None = None
    if share.flag:
        assert rows.flags is not None
        mine = rows.flags & share.flag != 0
    if rows.times is not None and share.event.window is not None:
        within = inside(rows.times, share.event.window, now)
        mine = within if mine is None else mine & within
    return mine


def numbers_of(numbers: Numbers, mine: Booleans | None) -> Numbers:
    return numbers if mine is None else Numbers(numbers.units[mine], numbers.known[mine], numbers.decimals)


def total_is(total: Total, numbers: Numbers, place: Integers, people: int) -> Booleans:
    """Of which people the total over these numbers, which are of those at `place`, is as it should be."""
    place, units, decimals = place[numbers.known], numbers.units[numbers.known], numbers.decimals
    many = np.bincount(place, minlength=people)
    match total.aggregate:
        case Aggregate.SUM | Aggregate.AVG:
            if largest(units) * int(many.max(initial=0)) > LARGEST:
                units, decimals = as_decimals(units, decimals), 0
            sums = np.zeros(people, units.dtype)
            np.add.at(sums, place, units)
            if total.aggregate is Aggregate.SUM:
                return compare(sums, total.amount, decimals)
            # Without dividing, so that nothing is rounded.
            return (many > 0) & compare(sums, total.amount, decimals, times=many)
        case Aggregate.MIN | Aggregate.MAX:
            lowest = total.aggregate is Aggregate.MIN
            extremes = np.full(people, beyond(units, up=lowest), units.dtype)
            (np.minimum if lowest else np.maximum).at(extremes, place, units)
            met = many > 0
            met[met] = compare(extremes[met], total.amount, decimals)
            return met
        case _:
            assert_never(total.aggregate)


def beyond(units: Units, *, up: bool) -> Any:
    """What no unit is above, or below."""
    if units.dtype == object:
        return Decimal("Infinity" if up else "-Infinity")
    return LARGEST if up else -LARGEST


def largest(units: Units) -> int:
    """The largest absolute value; 0 where any will do."""
    return 0 if units.dtype == object else int(np.abs(units).max(initial=0))


def compare(measures: Units, amount: Amount, decimals: int = 0, times: Integers | None = None) -> Booleans:
    """Whether each measure, in parts of ten to the minus `decimals`, is as `amount` wants it, taken so many `times`."""
    # Through its text: the float 0.1 is meant as one tenth.
    numerator, denominator = (Fraction(str(amount.value)) * 10**decimals).as_integer_ratio()
    most_times = 1 if times is None else largest(times)
    if max(largest(measures), 1) * denominator > LARGEST or abs(numerator) * max(most_times, 1) > LARGEST:
        measures, times = measures.astype(object), None if times is None else times.astype(object)
    right: Any = numerator if times is None else times * numerator
    found: Booleans = COMPARES[amount.operator](measures * denominator, right).astype(np.bool_)
    return found


def inside(at: Integers, time: Time, now: datetime) -> Booleans:
    """Which instants are in `time`."""
    match time:
        case Window(Side.WITHIN):
            return (at >= micros(earlier(now, time.duration))) & (at <= micros(now))
        case Window():
            return at < micros(earlier(now, time.duration))
        case Period(since, until):
            found = np.ones(len(at), np.bool_)
            if since is not None:
                found &= at >= micros(since)
            if until is not None:
                found &= at < micros(until)
            return found
        case _:
            assert_never(time)


def micros(at: datetime) -> int:
    """An instant as PostgreSQL sends it."""
    return (at - EPOCH) // timedelta(microseconds=1)
