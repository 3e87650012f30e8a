"""Columns of events against the oracle, without a database: every measure, exactly."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from struct import pack
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segments.engines import event_rows, folding, json_numbers, packed_events
from segments.engines.event_rows import Reading, Share
from segments.engines.folding import Tally
from segments.nodes import Aggregate, Amount, Event, Time, Total
from tests.segments import oracle, strategies
from tests.segments.people import Happened
from tests.segments.strategies import NOW

PROPERTIES = ("k", "l")
IDS = st.integers(1, 6) | st.sampled_from((1000, 2**31 - 1))
# What fits into 64 bits in parts of its last decimal, what does not, what does not together, and what is no number.
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.decimals(-100, 100, places=2).map(float),
    st.sampled_from(
        (2**62, -(2**62), 2**63 - 1, 10**17, -(10**17), 0.1, 0.2, 0.3, 1e20, 1e300, 5e-324, -1e-7, 0.30000000000000004)
    ),
)
OTHERS = st.sampled_from((None, True, "5", "-1.5", "", "a.b", "1", [1.5], {"a": 2.5}, "x\ny\x01z"))
EVENTS = st.tuples(
    IDS,
    st.builds(
        Happened,
        st.just("buy"),
        st.sampled_from([NOW - edge for edge in (*strategies.EDGES, timedelta(microseconds=1))]),
        st.dictionaries(st.sampled_from(PROPERTIES), NUMBERS | OTHERS, max_size=2),
    ),
)
LIMITS = st.builds(Amount, st.sampled_from(strategies.COMPARING), NUMBERS)
COUNTS = st.integers(-1, 4) | st.sampled_from((0.5, 1e40))
LEAVES = st.builds(
    Event,
    st.just("buy"),
    count=st.none()
    | st.builds(Amount, st.sampled_from(strategies.COMPARING), st.integers(-1, 4) | st.sampled_from((0.5, 1e40))),
    totals=st.lists(
        st.builds(Total, st.sampled_from(Aggregate), st.sampled_from(PROPERTIES), LIMITS),
        max_size=2,
        unique_by=lambda total: total.aggregate,
    ).map(tuple),
    window=st.none() | strategies.times,
    first=st.none() | strategies.times,
    last=st.none() | strategies.times,
)


def as_sent(value: Any) -> bytes:
    """As jsonb_send writes it: numbers are plain digits."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return b"\x01" + format(Decimal(str(value)), "f").encode()
    return b"\x01" + orjson.dumps(value)


def columns(reading: Reading, events: list[tuple[int, Happened]]) -> list[bytes | None]:
    """What PostgreSQL answers `reading` with, all flags set that `flags` gives."""
    if not events:
        return [None] * (1 + reading.timed + reading.flagged + len(reading.values))
    found = [b"".join(pack(">i", id) for id, _ in events)]
    if reading.timed:
        found.append(b"".join(pack(">q", folding.micros(one.at)) for _, one in events))
    if reading.flagged:
        found.append(b"".join(pack(">q", id % 4) for id, _ in events))
    for values in reading.values:
        sent = [one for _, one in events if not values.times or within(one.at, values.times)]
        found.append(b"".join(as_sent(one.properties.get(values.property)) for one in sent))
    return list(found)


def within(at: datetime, times: Sequence[Time]) -> bool:
    """Whether PostgreSQL sends the value of an event of this time."""
    return bool(folding.in_hull(np.array([folding.micros(at)]), times, NOW)[0])


def meant(leaf: Event, events: list[tuple[int, Happened]]) -> set[int]:
    """Never who has no matching event: see engines/base.py."""
    people: dict[int, list[Happened]] = {}
    for id, one in events:
        people.setdefault(id, []).append(one)
    return {id for id, mine in people.items() if oracle.matching(leaf, mine, NOW) and oracle.performed(leaf, mine, NOW)}


@settings(max_examples=400, deadline=None)
@given(events=st.lists(EVENTS, max_size=30), leaves=st.lists(LEAVES, min_size=1, max_size=3))
def test_columns_are_folded_to_whom_the_oracle_finds(events: list[tuple[int, Happened]], leaves: list[Event]) -> None:
    """S2-16 to S2-19 where they are counted, summed and dated."""
    reading = event_rows.of_events(leaves, some=False)
    if not reading.timed and leaves[0].window is not None:
        # The statement has seen to it.
        events = [one for one in events if oracle.inside(one[1].at, leaves[0].window, NOW)]
    whole = folding.fold(reading, columns(reading, events), NOW)
    split = [[one for at, one in enumerate(events) if at % 3 == part] for part in range(3)]
    merged: list[Tally] = []
    for part in split:
        merged = folding.merged(reading.shares, merged, folding.fold(reading, columns(reading, part), NOW))
    expected = [meant(leaf, events) for leaf in leaves]
    for tallies in (whole, merged, of_packs(reading.shares, split)):
        assert [set(one) for one in folding.who_meets(reading.shares, tallies, NOW)] == expected


def of_packs(shares: Sequence[Share], split: Sequence[list[tuple[int, Happened]]]) -> list[Tally]:
    """Tallies of the same events from the parts of a pack, each in the order of time, as they are kept and read."""
    reach = packed_events.wanted([share.event for share in shares], NOW)
    reading = packed_events.reading(reach)
    tallies: list[Tally] = []
    for part in split:
        rows = packed_events.in_order(reading, columns(reading, part))
        kept = b"" if rows is None else packed_events.content(reach, rows)
        # What cannot be kept is folded as it was read.
        read = rows if kept is None else packed_events.rows(reach, kept)
        tallies = packed_events.tallied(shares, read, tallies, NOW)
    return tallies


def test_each_leaf_takes_the_rows_with_its_flag() -> None:
    events = [(id, Happened("buy", NOW)) for id in (1, 2, 3, 4, 6)]
    reading = event_rows.of_events([Event("buy"), Event("buy")], some=False)
    reading = replace(reading, shares=(Share(Event("buy"), 1), Share(Event("buy"), 2), Share(Event("buy"))))
    found = folding.who_meets(reading.shares, folding.fold(reading, columns(reading, events), NOW), NOW)
    assert [set(one) for one in found] == [{1, 3}, {2, 3, 6}, {1, 2, 3, 4, 6}]


@settings(max_examples=200, deadline=None)
@given(values=st.lists(NUMBERS | OTHERS, max_size=40))
@pytest.mark.parametrize("together", [1, 3, 1 << 17])
def test_numbers_are_read_as_they_are(values: list[Any], together: int) -> None:
    before = json_numbers.TOGETHER
    json_numbers.TOGETHER = together
    try:
        numbers = json_numbers.read(b"".join(map(as_sent, values)))
    finally:
        json_numbers.TOGETHER = before
    read = [
        Decimal(unit).scaleb(-numbers.decimals, json_numbers.EXACT) if known else None
        for unit, known in zip(numbers.units.tolist(), numbers.known.tolist(), strict=True)
    ]
    assert read == [None if oracle.number(one) is None else Decimal(str(one)) for one in values]
