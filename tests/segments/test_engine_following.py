"""What any engine must answer beside leaves: whom time moves, in which order members stand, and why somebody is in.

Goes on from test_engines.py, with the same engines.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from pyroaring import BitMap

from segments import tree
from segments.conditions import parse
from segments.engines.base import Engine
from segments.nodes import ByEvents, BySeen, ByTrait, EngineLeaf, Measure, RankBy, Side, Sight, Unit, Window
from tests.segments.people import Happened, Person, bought, make_people
from tests.segments.test_engines import ENGINES, HOUR, NOW, Json, compared, event, trait

DAY, SECOND, TICK = timedelta(days=1), timedelta(seconds=1), timedelta(microseconds=1)
WEEK = Window(Side.WITHIN, 1, Unit.WEEKS)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]()


# --- whom time moves ----------------------------------------------------------------------------------------------

IN = {"within": {"days": 7}}
OUT = {"before": {"days": 7}}
FIXED = {"since": "2026-04-24T12:00:00Z"}
EDGE = NOW - 7 * DAY
"""Seven days ago; the edge comes from a second before."""
CROSSING: Sequence[tuple[Json, Person, bool]] = (
    (event(**IN), Person(events=[bought(EDGE - TICK)]), True),
    (event(**IN), Person(events=[bought(EDGE - SECOND)]), True),
    (event(**IN), Person(events=[bought(EDGE - SECOND - HOUR)]), False),
    (event(**IN), Person(events=[bought(EDGE + HOUR)]), False),
    (event(**IN), Person(events=[bought(NOW)]), True),
    (event(**IN), Person(events=[Happened("other", NOW)]), False),
    (event(**OUT), Person(events=[bought(EDGE - TICK)]), True),
    (event(**OUT), Person(events=[bought(NOW)]), False),
    (event(**FIXED), Person(events=[bought(EDGE - TICK)]), False),
    (event(), Person(events=[bought(NOW)]), False),
    (event(first=IN), Person(events=[bought(EDGE - TICK)]), True),
    (event(last=OUT), Person(events=[bought(EDGE - TICK)]), True),
    (event(count=compared("LESS_THAN", 3), **IN), Person(events=[bought(EDGE - TICK)] * 3), True),
    (event(never=True, **IN), Person(events=[bought(EDGE - TICK)]), True),
    ({"sessions": {"count": compared("EQUALS", 1)} | IN}, Person(events=[Happened("x", EDGE - TICK)]), True),
    ({"lastSeen": IN}, Person(last_seen_at=EDGE - TICK, events=[Happened("x", EDGE - TICK)]), True),
    ({"firstSeen": OUT}, Person(first_seen_at=EDGE - TICK, events=[Happened("x", EDGE - TICK)]), True),
    (
        {"lastSeen": IN},
        Person(last_seen_at=EDGE - TICK, events=[Happened("x", EDGE + HOUR, received_at=EDGE - TICK)]),
        True,
    ),
    ({"lastSeen": {"since": "2026-04-24"}}, Person(last_seen_at=EDGE, events=[Happened("x", EDGE)]), False),
    (trait("WITHIN_LAST", {"weeks": 1}), Person(traits={"k": "2026-04-24T11:59:59.999999Z"}), True),
    (trait("WITHIN_LAST", {"weeks": 1}), Person(traits={"k": "2026-05-01T12:00:00Z"}), True),
    (trait("MORE_THAN_AGO", {"days": 7}), Person(traits={"k": "2026-04-24T13:59:59.5+02:00"}), True),
    (trait("MORE_THAN_AGO", {"days": 7}), Person(traits={"k": "2026-04-24"}), False),
    (trait("WITHIN_LAST", {"weeks": 1}), Person(traits={"other": "2026-04-24T11:59:59.999999Z"}), False),
    (trait("BEFORE", "2026-05-01T12:00:00Z"), Person(traits={"k": "2026-05-01"}), False),
    ({"identified": True}, Person(events=[bought(NOW)]), False),
)


def asked(json: Json) -> list[EngineLeaf]:
    """The questions of a condition."""
    return cast(list[EngineLeaf], list(tree.questions(parse(json)).values()))


async def test_whoever_time_alone_can_move_is_told(engine: Engine, workspace: UUID) -> None:
    """S0-09, S2-21: windows move with no event; both ends of the way belong to it, and much further nothing does."""
    people = [person for _, person, _ in CROSSING]
    ids = await make_people(workspace, *people)
    for (json, _, moved), id in zip(CROSSING, ids, strict=True):
        leaves = asked(json)
        crossed = await engine.crossed(workspace_id=workspace, leaves=leaves, since=NOW - SECOND, until=NOW)
        before, after = [
            (await engine.ids(workspace_id=workspace, leaves=leaves, now=now, only=BitMap([id])))[0]
            for now in (NOW - SECOND, NOW)
        ]
        assert id in crossed or before == after, json
        assert id not in crossed or moved, json
        # The oracle tells those who move, an engine also those who only touched an edge.
        assert id in crossed or not moved or engine.name == "oracle", json


async def test_all_edges_are_followed_together(engine: Engine, workspace: UUID) -> None:
    ids = await make_people(workspace, *(person for _, person, _ in CROSSING))
    leaves = [leaf for json, _, _ in CROSSING for leaf in asked(json)]
    together = await engine.crossed(workspace_id=workspace, leaves=leaves, since=NOW - SECOND, until=NOW)
    apart = [
        await engine.crossed(workspace_id=workspace, leaves=[leaf], since=NOW - SECOND, until=NOW) for leaf in leaves
    ]
    assert together == BitMap.union(*apart) <= BitMap(ids)


async def test_each_name_has_edges_of_its_own(engine: Engine, workspace: UUID) -> None:
    """S2-21: of events and of dates, whatever other names are followed with them."""
    days = {"a": 30, "b": 1, "c": 7}
    windows = [parse({"event": {"name": name, "within": {"days": back}}}) for name, back in days.items()]
    dated: list[Json] = [
        {"trait": {"key": name, "operator": "MORE_THAN_AGO", "value": {"days": back}}} for name, back in days.items()
    ]
    gone = NOW - SECOND / 2
    people = [
        *(Person(events=[Happened(name, gone - back * DAY)]) for name, back in days.items()),
        *(Person(traits={name: (gone - back * DAY).isoformat()}) for name, back in days.items()),
    ]
    ids = await make_people(workspace, *people)
    leaves = cast(list[EngineLeaf], [*windows, *map(parse, dated)])
    crossed = await engine.crossed(workspace_id=workspace, leaves=leaves, since=NOW - SECOND, until=NOW)
    assert crossed == BitMap(ids)


# --- ranks --------------------------------------------------------------------------------------------------------

RANKED = (
    Person(traits={"score": 5}, last_seen_at=NOW, events=[bought(NOW, 10), bought(NOW - 10 * DAY, 20.5)]),
    Person(traits={"score": -0.25}, first_seen_at=NOW - DAY, events=[bought(NOW, "a lot"), bought(NOW, 3)]),
    Person(traits={"score": "7"}, events=[bought(NOW, None)]),
    Person(traits={"score": None}),
    Person(traits={"score": 1e308}, events=[bought(NOW, 1e308), bought(NOW, 1e308)]),
    Person(traits={"score": 5e-324}, events=[Happened("view", NOW)]),
)
RANKINGS: Sequence[tuple[RankBy, dict[int, float]]] = (
    (ByTrait("score"), {0: 5, 1: -0.25, 4: 1e308, 5: 0}),
    (ByTrait("missing"), {}),
    (ByEvents("purchase", Measure.COUNT), {0: 2, 1: 2, 2: 1, 4: 2}),
    (ByEvents("purchase", Measure.COUNT, window=WEEK), {0: 1, 1: 2, 2: 1, 4: 2}),
    (ByEvents("purchase", Measure.SUM, "value"), {0: 30.5, 1: 3, 4: 1e308}),
    (ByEvents("purchase", Measure.AVG, "value"), {0: 15.25, 1: 3, 4: 1e308}),
    (ByEvents("purchase", Measure.MIN, "value"), {0: 10, 1: 3, 4: 1e308}),
    (ByEvents("purchase", Measure.MAX, "value", WEEK), {0: 10, 1: 3, 4: 1e308}),
    (BySeen(Sight.LAST), {0: NOW.timestamp()}),
    (BySeen(Sight.FIRST), {1: (NOW - DAY).timestamp()}),
)


async def test_everybody_who_has_a_value_is_ranked_by_it(engine: Engine, workspace: UUID) -> None:
    """By ascending id; who has none is left out; what no double can hold is the largest there is."""
    ids = await make_people(workspace, *RANKED)
    for by, meant in RANKINGS:
        for only in (None, BitMap(ids[1::2])):
            ranks = await engine.ranks(workspace_id=workspace, by=by, now=NOW, only=only)
            expected = {ids[place]: value for place, value in meant.items() if only is None or ids[place] in only}
            assert list(ranks.ids) == list(expected), by
            assert list(ranks.values) == pytest.approx(list(expected.values())), by


# --- values -------------------------------------------------------------------------------------------------------


async def test_every_leaf_says_what_it_looked_at(engine: Engine, workspace: UUID) -> None:
    person = Person(
        traits={"k": "2026-04-30", "list": ["a"], "n": 5.5},
        seen_country="DE",
        last_seen_at=NOW,
        events=[bought(NOW, 10), bought(NOW - 10 * DAY, 2.5), Happened("view", NOW, session_id="s")],
    )
    id, nobody = await make_people(workspace, person, Person(identified=False))
    value = {"property": "value"}
    cases: Sequence[tuple[Json, Any, Any]] = (
        (trait("WITHIN_LAST", {"days": 1}), "2026-04-30", None),
        (trait("CONTAINS", "b", key="list"), ["a"], None),
        (trait("LESS_THAN", 5, key="n"), 5.5, None),
        ({"attribute": {"name": "COUNTRY", "operator": "EQUALS", "value": "US"}}, "DE", None),
        ({"identified": True}, True, False),
        ({"lastSeen": IN}, NOW.isoformat(), None),
        ({"firstSeen": IN}, None, None),
        (event(), {"count": 2}, {"count": 0}),
        (event(**IN), {"count": 1}, {"count": 0}),
        (event(sum=value | compared("EQUALS", 1)), {"count": 2, "sum": 12.5}, {"count": 0, "sum": None}),
        (
            event(avg=value | compared("EQUALS", 1), max=value | compared("EQUALS", 1)),
            {"count": 2, "avg": 6.25, "max": 10},
            {"count": 0, "avg": None, "max": None},
        ),
        (
            event(first=IN, last=IN),
            {"count": 2, "first": (NOW - 10 * DAY).isoformat(), "last": NOW.isoformat()},
            {"count": 0, "first": None, "last": None},
        ),
        ({"sessions": {"count": compared("EQUALS", 1)}}, {"count": 1}, {"count": 0}),
    )
    leaves = [cast(EngineLeaf, parse(json)) for json, _, _ in cases]
    for profile_id, meant in ((id, [one for _, one, _ in cases]), (nobody, [one for _, _, one in cases])):
        looks = await engine.looks(workspace_id=workspace, leaves=leaves, now=NOW, profile_id=profile_id)
        assert [look.value for look in looks] == meant
        found = await engine.ids(workspace_id=workspace, leaves=leaves, now=NOW, only=BitMap([profile_id]))
        assert [look.matches for look in looks] == [profile_id in ids for ids in found]
    assert await engine.looks(workspace_id=workspace, leaves=[], now=NOW, profile_id=id) == []


async def test_an_engine_says_how_far_its_data_reach(engine: Engine, workspace: UUID) -> None:
    """Both of these are never behind."""
    assert await engine.as_of(workspace_id=workspace) is None
