"""Long windows read part by part."""

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segments.engines import parts
from segments.engines.postgres import PostgresEngine
from segments.engines.queries import ALWAYS
from segments.nodes import Aggregate, Amount, EngineLeaf, Event, Operator, Side, Total, Unit, Window
from tests.segments import oracle, strategies
from tests.segments.people import Happened, Person, make_people
from tests.segments.strategies import NOW

DAY = timedelta(days=1)


@settings(max_examples=200, deadline=None)
@given(windows=st.lists(st.none() | strategies.times, min_size=1, max_size=3), profiles=st.integers(0, 10**9))
def test_parts_are_all_of_the_time_and_none_of_it_twice(windows: list[object], profiles: int) -> None:
    leaves = [Event("buy", window=window) for window in windows]  # type: ignore[arg-type]
    found = parts.parts(leaves, profiles=profiles, now=NOW)
    assert (found[0].until, found[-1].since) == (ALWAYS.until, ALWAYS.since)
    assert [one.since for one in found[:-1]] == [one.until for one in found[1:]]


def test_there_are_more_of_them_the_longer_the_time_and_the_more_people() -> None:
    def number(days: int, profiles: int) -> int:
        leaf = Event("buy", window=Window(Side.WITHIN, days, Unit.DAYS))
        return len(parts.parts([leaf], profiles=profiles, now=NOW))

    assert [number(60, 1_000_000), number(180, 1_000_000), number(180, 10_000_000), number(365, 100_000)] == [
        1,
        4,
        40,
        1,
    ]


async def test_what_is_read_in_parts_is_what_is_read_at_once(workspace: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    people = [
        Person(events=[Happened("buy", NOW - hour * DAY / 24 * person, {"n": hour * 0.1 - 1}) for hour in range(40)])
        for person in range(1, 6)
    ]
    ids = await make_people(workspace, *people)
    measures = [
        {"count": Amount(Operator.LESS_THAN, 30)},
        *(
            {"totals": (Total(aggregate, "n", Amount(Operator.GREATER_THAN, limit)),)}
            for aggregate, limit in zip(Aggregate, (20, 0.5, -0.95, 2.5), strict=True)
        ),
        {"first": Window(Side.WITHIN, 90, Unit.HOURS)},
        {"last": Window(Side.BEFORE, 0, Unit.HOURS)},
    ]
    windows = (None, Window(Side.WITHIN, 4, Unit.DAYS), Window(Side.BEFORE, 1, Unit.DAYS))
    leaves: list[EngineLeaf] = [
        Event("buy", window=window, **measure)  # type: ignore[arg-type]
        for window in windows
        for measure in measures
    ]
    expected = [
        {id for id, person in zip(ids, people, strict=True) if oracle.meets(leaf, id, person, NOW)} for leaf in leaves
    ]
    for longest in (parts.LONGEST, timedelta(days=40), timedelta(days=200)):
        monkeypatch.setattr(parts, "LONGEST", longest)
        answers = await PostgresEngine().ids(workspace_id=workspace, leaves=leaves, now=NOW)
        assert [set(answer) for answer in answers] == expected
