"""Events of one name of everybody, packed: columns in the order of time, which folding.py folds as if they had just
been read.

What is kept of an event is its person, its time, which of some tests it passes and the numbers of some properties:
those that conditions asked about when the pack was made. Windows are none of it, for they move.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import orjson

from segments import canonical, conditions
from segments.engines import folding, parts
from segments.engines.event_rows import Reading, Share, of_events
from segments.engines.folding import Rows, Tally, placed
from segments.engines.json_numbers import Integers, Numbers
from segments.engines.queries import ALWAYS, Part, earlier
from segments.errors import SegmentError
from segments.nodes import Aggregate, Amount, Event, Operator, Period, Side, Total, Window

MOST_TESTS = 24
MOST_PROPERTIES = 6
"""Of a pack: each of both is looked at in every event when it is made."""
MOST_EVENTS = 6_000_000
"""Of a pack: about 70 MB."""

Column = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Reach:
    """What a pack of events of one name can answer: leaves with these demands on an event, with totals of these
    properties, about events since then; None: since the first."""

    name: str
    tests: Mapping[str, Event]
    """By `canonical.key`, for to Python a test for true and one for 1 are equal."""
    properties: tuple[str, ...]
    since: datetime | None

    def has(self, other: "Reach") -> bool:
        """Whether it can answer all that `other` can."""
        far = self.since is None or (other.since is not None and self.since <= other.since)
        return far and other.tests.keys() <= self.tests.keys() and set(other.properties) <= set(self.properties)

    def with_(self, other: "Reach") -> "Reach":
        """Both; itself alone where that would be too much."""
        tests = {**self.tests, **other.tests}
        properties = tuple(dict.fromkeys((*self.properties, *other.properties)))
        since = None if self.since is None or other.since is None else min(self.since, other.since)
        if len(tests) > MOST_TESTS or len(properties) > MOST_PROPERTIES:
            return self
        return Reach(self.name, tests, properties, since)

    @property
    def is_too_much(self) -> bool:
        return len(self.tests) > MOST_TESTS or len(self.properties) > MOST_PROPERTIES


def wanted(leaves: Sequence[Event], now: datetime) -> Reach:
    """What it takes to answer `leaves`, which are on events of one name."""
    starts = [start(leaf, now) for leaf in leaves]
    since = None if None in starts else min(one for one in starts if one is not None)
    tests = keyed(test_of(leaf) for leaf in leaves if leaf.where or leaf.context)
    properties = tuple(dict.fromkeys(total.property for leaf in leaves for total in leaf.totals))
    return Reach(leaves[0].name, tests, properties, since)


def start(leaf: Event, now: datetime) -> datetime | None:
    """Before when no event is of the leaf's; None where there is no such time."""
    match leaf.window:
        case Window(Side.WITHIN) as window:
            return earlier(now, window.duration)
        case Period(since, _):
            return since
        case _:
            return None


def test_of(leaf: Event) -> Event:
    """What the leaf demands of a single event."""
    return Event(leaf.name, where=leaf.where, context=leaf.context)


def keyed(tests: Iterable[Event]) -> dict[str, Event]:
    return {canonical.key(test): test for test in tests}


# --- making -------------------------------------------------------------------------------------------------------


def reading(reach: Reach) -> Reading:
    """The statement that reads all events of the name, with the columns of a pack."""
    bare = Event(reach.name)
    anything = Amount(Operator.GREATER_OR_EQUAL, 0)
    totals = tuple(Total(Aggregate.SUM, key, anything) for key in reach.properties)
    return of_events([replace(bare, totals=totals), *reach.tests.values()], some=False, timed=True)


def times(reach: Reach, *, profiles: int, now: datetime) -> list[Part]:
    """The parts of time of a pack, the last first."""
    since = reach.since or earlier(now, parts.ALL_TIME)
    cut = parts.parts([Event(reach.name, window=Period(since, max(now, since)))], profiles=profiles, now=now)
    return [*cut[:-1], Part(reach.since or ALWAYS.since, cut[-1].until)]


def in_order(reading: Reading, columns: Sequence[bytes | None]) -> Rows | None:
    """The events of a part by time, as they were read; None where there are none. Takes a thread of its own, as what is
    below."""
    if columns[0] is None:
        return None
    read = folding.unpacked(reading, columns, folding.EPOCH)
    assert read.times is not None
    order = np.argsort(read.times, kind="stable")
    numbers = {key: Numbers(one.units[order], one.known[order], one.decimals) for key, one in read.numbers.items()}
    flags = None if read.flags is None else read.flags[order]
    return Rows(read.people, read.place[order], read.times[order], flags, numbers, in_order=True)


def content(reach: Reach, rows: Rows) -> bytes | None:
    """A part as it is kept; None where its numbers are too long for that."""
    assert rows.times is not None
    kept: dict[str, Column] = {
        "ids": rows.people[rows.place].astype("<u4"),
        "first": rows.times[:1],
        "times": narrow(np.diff(rows.times)),
    }
    if rows.flags is not None:
        kept["flags"] = narrow(rows.flags)
    decimals = []
    for place, key in enumerate(reach.properties):
        numbers = rows.numbers[key]
        if numbers.units.dtype == object:
            return None
        decimals.append(numbers.decimals)
        kept[f"units {place}"] = narrow(np.where(numbers.known, numbers.units, 0))
        kept[f"known {place}"] = np.packbits(numbers.known)
    head = orjson.dumps({"columns": [[key, one.dtype.str, len(one)] for key, one in kept.items()], "of": decimals})
    return b"\n".join((head, b"".join(one.tobytes() for one in kept.values())))


def narrow(numbers: Integers) -> Column:
    """The same numbers in as few bytes as they all fit in."""
    low, high = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    kinds = ("<u1", "<u2", "<u4") if low >= 0 else ("<i1", "<i2", "<i4")
    for kind in kinds:
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return numbers.astype(kind)
    return numbers.astype("<i8")


def facts(reach: Reach, read: Sequence[Part], now: datetime) -> dict[str, Any]:
    """What is to be known of a pack before it is read; `reach_of` reads it."""
    return {
        "now": now.isoformat(),
        "tests": [canonical.to_json(test) for test in reach.tests.values()],
        "properties": list(reach.properties),
        "since": None if reach.since is None else reach.since.isoformat(),
        "until": [part.until.isoformat() for part in read],
        "flags": [share.flag for share in reading(reach).shares[1:]],
    }


# --- answering ----------------------------------------------------------------------------------------------------


def reach_of(name: str, facts: Mapping[str, Any]) -> Reach | None:
    """What a pack can answer; None when it was made by a release that knew other conditions."""
    try:
        tests = [conditions.read(one) for one in facts["tests"]]
    except SegmentError:
        return None
    events = keyed(test for test in tests if isinstance(test, Event))
    since = facts["since"] and datetime.fromisoformat(facts["since"])
    return Reach(name, events, tuple(facts["properties"]), since)


def reach_again(name: str, facts: Mapping[str, Any], now: datetime) -> Reach | None:
    """The same of a pack that goes as far back from `now` as this one did when it was made; else those that are made
    in place of one another would go back ever further."""
    reach = reach_of(name, facts)
    if reach is None or reach.since is None:
        return reach
    return replace(reach, since=reach.since + max(now - datetime.fromisoformat(facts["now"]), timedelta()))


def shares(reach: Reach, facts: Mapping[str, Any], leaves: Sequence[Event]) -> list[Share]:
    """What each leaf takes of the rows of a pack."""
    flags = dict(zip(reach.tests, facts["flags"], strict=True))
    return [Share(leaf, flags[canonical.key(test_of(leaf))] if leaf.where or leaf.context else 0) for leaf in leaves]


def places(facts: Mapping[str, Any], since: datetime | None) -> list[int]:
    """The parts that have events of `since` or later."""
    ends = [datetime.fromisoformat(one) for one in facts["until"]]
    return [place for place, end in enumerate(ends) if since is None or end > since]


def tallied(shares: Sequence[Share], rows: Rows | None, known: list[Tally], now: datetime) -> list[Tally]:
    """`known` with what a part adds."""
    return known if rows is None else folding.merged(shares, known, folding.tallies_of(rows, shares, now))


def rows(reach: Reach, content: bytes) -> Rows | None:
    """A part as it was when it was kept; None where there are no events."""
    if not content:
        return None
    head, _, body = content.partition(b"\n")
    said = orjson.loads(head)
    kept = dict(columns_of(said["columns"], body))
    people, place = placed(kept["ids"].astype(np.int64))
    times = np.cumsum(np.concatenate((kept["first"], kept["times"].astype(np.int64))))
    numbers = {}
    for at, (key, decimals) in enumerate(zip(reach.properties, said["of"], strict=True)):
        known = np.unpackbits(kept[f"known {at}"], count=len(times)).astype(np.bool_)
        numbers[key] = Numbers(kept[f"units {at}"].astype(np.int64), known, decimals)
    flags = kept.get("flags")
    return Rows(people, place, times, None if flags is None else flags.astype(np.int64), numbers, in_order=True)


def columns_of(said: Sequence[tuple[str, str, int]], body: bytes) -> Iterator[tuple[str, Column]]:
    start = 0
    for key, kind, length in said:
        yield key, np.frombuffer(body, kind, length, start)
        start += length * np.dtype(kind).itemsize
