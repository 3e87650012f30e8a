"""Who meets which leaves, told from columns of events: the grouping that PostgreSQL need not do.

Of 605,790 events of 400,000 people those who did it twice or more are found in 9 ms, where PostgreSQL took 320 to group
and plain Python 226. Nothing is rounded: see json_numbers.py.
"""

import operator
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, TypeVar, assert_never

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from segments.engines import json_numbers
from segments.engines.event_rows import Reading, Share, Values
from segments.engines.json_numbers import EXACT, Booleans, Integers, Numbers, Units, as_decimals
from segments.engines.queries import Ago, earlier, ends_of
from segments.nodes import Aggregate, Amount, Event, Operator, Period, Side, Time, Total, Window

T = TypeVar("T", bound=np.generic)

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
    """Events as columns. `place` is where in `people`, which are ascending, an event's profile is. `in_order`: by time,
    so that those of a window stand together."""

    people: npt.NDArray[np.uint32]
    place: Integers
    times: Integers | None
    flags: Integers | None
    numbers: dict[str, Numbers]
    in_order: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some rows: of those in `stretch` the ones that are `mine`, all of them where it is None."""

    stretch: slice
    mine: Booleans | None

    def of(self, column: npt.NDArray[T]) -> npt.NDArray[T]:
        """What a column has in these rows."""
        column = column[self.stretch]
        return column if self.mine is None else column[self.mine]


@dataclass(frozen=True, slots=True)
class Measure:
    """A total over the numbers of each of some people: how many these are and what they come to, in parts of ten to
    the minus `decimals`; anything where there is none, but for sums."""

    many: Integers
    units: Units
    decimals: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What a leaf's events come to for each of `people`, ascending, all of whom have one."""

    people: npt.NDArray[np.uint32]
    counts: Integers
    measures: tuple[Measure, ...]
    """One for each of the leaf's totals."""
    first: Integers | None
    last: Integers | None


def fold(reading: Reading, columns: Sequence[bytes | None], now: datetime) -> list[Tally]:
    """A tally for each leaf of `reading`, of the columns that its statement brought; empty where there is no event.

    Takes a thread of its own, like what is below.
    """
    if columns[0] is None:
        return []
    return tallies_of(unpacked(reading, columns, now), reading.shares, now)


def tallies_of(rows: Rows, shares: Sequence[Share], now: datetime) -> list[Tally]:
    """A tally for each share, of rows of which there is one at least."""
    with localcontext(EXACT):
        return [tally(rows, share, now) for share in shares]


def merged(shares: Sequence[Share], one: list[Tally], other: list[Tally]) -> list[Tally]:
    """The tallies of both: of other events of the same leaves."""
    if not one or not other:
        return one or other
    with localcontext(EXACT):
        pairs = zip(shares, one, other, strict=True)
        return [merged_of(share.event, left, right) for share, left, right in pairs]


def who_meets(shares: Sequence[Share], tallies: list[Tally], now: datetime) -> list[BitMap]:
    """Who meets the leaf of each share, told from the tallies of all its events."""
    if not tallies:
        return [BitMap() for _ in shares]
    with localcontext(EXACT):
        return [meeting(share.event, tally, now) for share, tally in zip(shares, tallies, strict=True)]


def unpacked(reading: Reading, columns: Sequence[bytes | None], now: datetime) -> Rows:
    ids, *others = (column or b"" for column in columns)
    people, place = placed(np.frombuffer(ids, ">u4").astype(np.int64))
    times = np.frombuffer(others.pop(0), ">i8").astype(np.int64) if reading.timed else None
    flags = np.frombuffer(others.pop(0), ">i8").astype(np.int64) if reading.flagged else None
    numbers = {
        values.property: spread(json_numbers.read(column), values, times, now)
        for values, column in zip(reading.values, others, strict=True)
    }
    return Rows(people, place, times, flags, numbers)


def spread(numbers: Numbers, values: Values, times: Integers | None, now: datetime) -> Numbers:
    """A number for each event, of a column that has values for those in some time."""
    if not values.times:
        return numbers
    assert times is not None
    there = in_hull(times, values.times, now)
    units = np.zeros(len(there), numbers.units.dtype)
    known = np.zeros(len(there), np.bool_)
    units[there], known[there] = numbers.units, numbers.known
    return Numbers(units, known, numbers.decimals)


def placed(ids: Integers) -> tuple[npt.NDArray[np.uint32], Integers]:
    """People, ascending, and where among them each of `ids` is; not all of them need be among the ids."""
    if not len(ids):
        return np.zeros(0, np.uint32), ids
    first, last = int(ids.min()), int(ids.max())
    if last - first <= SPARSE * len(ids):
        return np.arange(first, last + 1, dtype=np.uint32), ids - first
    people, place = np.unique(ids, return_inverse=True)
    return people.astype(np.uint32), place


def tally(rows: Rows, share: Share, now: datetime) -> Tally:
    """What the events of one leaf come to."""
    event, size = share.event, len(rows.people)
    mine = chosen(rows, share, now)
    place = mine.of(rows.place)
    counts = np.bincount(place, minlength=size)
    there = np.flatnonzero(counts > 0)
    measures = []
    for total in event.totals:
        numbers = rows.numbers[total.property]
        known, units = mine.of(numbers.known), mine.of(numbers.units)
        numbered = place
        if not known.all():
            numbered, units = place[known], units[known]
        measures.append(measured(total.aggregate, numbered, units, numbers.decimals, size, there))
    times = None if rows.times is None else mine.of(rows.times)
    first = None if event.first is None else extreme(np.minimum, place, times, size, there)
    last = None if event.last is None else extreme(np.maximum, place, times, size, there)
    return Tally(rows.people[there], counts[there], tuple(measures), first, last)


def merged_of(event: Event, one: Tally, other: Tally) -> Tally:
    """See `merged`."""
    if not len(one.people) or not len(other.people):
        return one if len(one.people) else other
    people, place = placed(np.concatenate((one.people, other.people)).astype(np.int64))
    size = len(people)

    def added(left: Integers, right: Integers) -> npt.NDArray[Any]:
        # Numbers of events: exact as floats, whose integers are so up to 2^53.
        return np.bincount(place, weights=np.concatenate((left, right)), minlength=size)

    counts = added(one.counts, other.counts)
    there = np.flatnonzero(counts > 0)
    measures = []
    for total, left, right in zip(event.totals, one.measures, other.measures, strict=True):
        left, right = alike(left, right)
        known = np.concatenate((left.many, right.many)) > 0
        units = np.concatenate((left.units, right.units))[known]
        measure = measured(total.aggregate, place[known], units, left.decimals, size, there)
        measures.append(replace(measure, many=added(left.many, right.many)[there].astype(np.int64)))
    first = None if event.first is None else extreme(np.minimum, place, both(one.first, other.first), size, there)
    last = None if event.last is None else extreme(np.maximum, place, both(one.last, other.last), size, there)
    return Tally(people[there], counts[there].astype(np.int64), tuple(measures), first, last)


def alike(one: Measure, other: Measure) -> tuple[Measure, Measure]:
    """Both in the same parts, or as Decimals."""
    decimals = max(one.decimals, other.decimals)
    scaled = []
    for measure in (one, other):
        known = measure.many > 0
        factor = 10 ** (decimals - measure.decimals)
        if measure.units.dtype == object or largest(measure.units[known]) * factor > LARGEST:
            break
        scaled.append(Measure(measure.many, np.where(known, measure.units, 0) * factor, decimals))
    if len(scaled) == 2:
        return scaled[0], scaled[1]
    one, other = (Measure(part.many, as_decimals(part.units, part.decimals), 0) for part in (one, other))
    return one, other


def both(one: Integers | None, other: Integers | None) -> Integers:
    assert one is not None
    assert other is not None
    return np.concatenate((one, other))


def extreme(choose: np.ufunc, place: Integers, times: Integers | None, size: int, there: Integers) -> Integers:
    """The first or the last time at each of the places `there`."""
    assert times is not None
    found = np.full(size, LARGEST if choose is np.minimum else -LARGEST)
    choose.at(found, place, times)
    return found[there]


def meeting(event: Event, tally: Tally, now: datetime) -> BitMap:
    """The people whose tally is as the leaf wants it."""
    met = np.ones(len(tally.people), np.bool_)
    if event.count is not None:
        met &= compare(tally.counts, event.count)
    for total, measure in zip(event.totals, tally.measures, strict=True):
        met &= total_is(total, measure)
    for time, at in ((event.first, tally.first), (event.last, tally.last)):
        if time is not None:
            assert at is not None
            met &= inside(at, time, now)
    found = array("I")
    found.frombytes(tally.people[met].tobytes())
    return BitMap(found)


def chosen(rows: Rows, share: Share, now: datetime) -> Chosen:
    """Which rows are the leaf's."""
    stretch = slice(None)
    mine: Booleans | None = None
    if rows.times is not None and share.event.window is not None:
        if rows.in_order:
            first, after = bounds(share.event.window, now)
            stretch = slice(reached(rows.times, first), reached(rows.times, after))
        else:
            mine = inside(rows.times, share.event.window, now)
    if share.flag:
        assert rows.flags is not None
        flagged = rows.flags[stretch] & share.flag != 0
        mine = flagged if mine is None else mine & flagged
    return Chosen(stretch, mine)


def reached(times: Integers, at: int | None) -> int | None:
    """Where in ascending times the first is that is not before `at`."""
    return None if at is None else int(np.searchsorted(times, at))


def measured(aggregate: Aggregate, place: Integers, units: Units, decimals: int, size: int, there: Integers) -> Measure:
    """The total at each of the places `there`, of numbers at `place`."""
    many = np.bincount(place, minlength=size)
    if aggregate is Aggregate.SUM or aggregate is Aggregate.AVG:
        if largest(units) * int(many.max(initial=0)) > LARGEST:
            units, decimals = as_decimals(units, decimals), 0
        totals = np.zeros(size, units.dtype)
        np.add.at(totals, place, units)
    else:
        lowest = aggregate is Aggregate.MIN
        totals = np.full(size, beyond(units, up=lowest), units.dtype)
        (np.minimum if lowest else np.maximum).at(totals, place, units)
    return Measure(many[there], totals[there], decimals)


def total_is(total: Total, measure: Measure) -> Booleans:
    """Whose total is as it should be."""
    match total.aggregate:
        case Aggregate.SUM:
            return compare(measure.units, total.amount, measure.decimals)
        case Aggregate.AVG | Aggregate.MIN | Aggregate.MAX:
            met = measure.many > 0
            # Without dividing, so that nothing is rounded.
            times = measure.many[met] if total.aggregate is Aggregate.AVG else None
            met[met] = compare(measure.units[met], total.amount, measure.decimals, times)
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
    first, after = bounds(time, now)
    found = np.ones(len(at), np.bool_)
    if first is not None:
        found &= at >= first
    if after is not None:
        found &= at < after
    return found


def bounds(time: Time, now: datetime) -> tuple[int | None, int | None]:
    """The first instant in `time`, and the first one after it; None where there is none."""
    match time:
        case Window(Side.WITHIN):
            return micros(earlier(now, time.duration)), micros(now) + 1
        case Window():
            return None, micros(earlier(now, time.duration))
        case Period(since, until):
            return (None if since is None else micros(since)), (None if until is None else micros(until))
        case _:
            assert_never(time)


def in_hull(at: Integers, times: Sequence[Time], now: datetime) -> Booleans:
    """Which instants `queries.hull` lets pass."""
    firsts, lasts = (instants(ends, now) for ends in zip(*map(ends_of, times), strict=True))
    found = np.ones(len(at), np.bool_)
    if firsts:
        found &= at >= min(firsts)
    if lasts:
        found &= at <= max(lasts)
    return found


def instants(ends: Iterable[Ago | datetime | None], now: datetime) -> list[int]:
    """Ends of times as PostgreSQL sends them; empty when one of the times has no such end."""
    found: list[int] = []
    for end in ends:
        if end is None:
            return []
        found.append(micros(earlier(now, end.duration) if isinstance(end, Ago) else end))
    return found


def micros(at: datetime) -> int:
    """An instant as PostgreSQL sends it."""
    return (at - EPOCH) // timedelta(microseconds=1)
