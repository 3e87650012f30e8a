"""What any engine must answer, leaf by leaf. Another engine is added to ENGINES and must pass all of this module."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import product
from time import monotonic
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from pyroaring import BitMap

from segments import tree
from segments.conditions import parse
from segments.engines.base import Engine
from segments.engines.packed import PackedEngine
from segments.engines.postgres import PostgresEngine
from segments.nodes import Amount, ByTrait, EngineLeaf, Operator
from tests.segments import oracle
from tests.segments.oracle_engine import OracleEngine
from tests.segments.people import Happened, Person, bought, erase, make_brand, make_people, merge

ENGINES: Mapping[str, Callable[[], Engine]] = {
    "postgres": PostgresEngine,
    "packed": lambda: PackedEngine(PostgresEngine(), fewest=0),
    "oracle": OracleEngine,
}
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR, DAY, TICK = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
ODD = "it's \"%_\\ ключ 💥"
Json = dict[str, Any]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]()


async def found(engine: Engine, workspace_id: UUID, leaf: Json, *, only: BitMap | None = None) -> set[int]:
    """Whom the engine finds for a condition of one question, which no NOT turns round."""
    (asked,) = tree.questions(parse(leaf)).values()
    leaves = [cast(EngineLeaf, asked)]
    (answer,) = await engine.ids(workspace_id=workspace_id, leaves=leaves, now=NOW, only=only)
    return set(answer)


async def check(
    engine: Engine, workspace_id: UUID, people: Sequence[Person], cases: Sequence[tuple[Json, set[int]]]
) -> None:
    """Each condition finds the people at these places: asked alone, with all others, and about some only."""
    ids = await make_people(workspace_id, *people)
    conditions = [parse(condition) for condition, _ in cases]
    leaves = {key: leaf for one in conditions for key, leaf in tree.questions(one).items()}
    asked = cast(list[EngineLeaf], list(leaves.values()))
    some = BitMap(ids[::2])
    for only in (None, some):
        together = await engine.ids(workspace_id=workspace_id, leaves=asked, now=NOW, only=only)
        apart = [await engine.ids(workspace_id=workspace_id, leaves=[leaf], now=NOW, only=only) for leaf in asked]
        assert together == [answer for (answer,) in apart]
        universe = await engine.universe(workspace_id=workspace_id, only=only)
        for condition, (json, places) in zip(conditions, cases, strict=True):
            members, _ = tree.combine(condition, dict(zip(leaves, together, strict=True)), universe)
            meant = {place for place in places if only is None or ids[place] in only}
            assert {ids.index(id) for id in members} == meant, json


def trait(operator: str, *value: Any, key: str = "k") -> Json:
    return {"trait": {"key": key, "operator": operator} | ({"value": value[0]} if value else {})}


def attribute(name: str, operator: str, *value: Any) -> Json:
    return {"attribute": {"name": name, "operator": operator} | ({"value": value[0]} if value else {})}


def event(**parts: Any) -> Json:
    return {"event": {"name": "purchase"} | parts}


def compared(operator: str, value: float) -> Json:
    return {"operator": operator, "value": value}


def at_least(value: float) -> Json:
    return compared("GREATER_OR_EQUAL", value)


# --- traits and attributes ----------------------------------------------------------------------------------------

TRAITS: Sequence[Any] = (None, "premium", "Premium", "premium plus", 5, 5.0, 7.25, "5", True, ["premium", "old"])
"""Values of the trait k of the first ten people."""
OTHERS: Sequence[Json] = ({"other": 1}, {ODD: "premium"}, {})
ALL = set(range(1, 10))
TRAIT_CASES: Sequence[tuple[Json, set[int]]] = (
    (trait("EQUALS", "premium"), {1}),
    (trait("EQUALS", 5), {4, 5}),
    (trait("EQUALS", 5.0), {4, 5}),
    (trait("EQUALS", "5"), {7}),
    (trait("EQUALS", True), {8}),
    (trait("EQUALS", ""), set()),
    (trait("NOT_EQUALS", "premium"), ALL - {1}),
    (trait("NOT_EQUALS", 5), ALL - {4, 5}),
    (trait("NOT_EQUALS", False), ALL),
    ({"not": trait("EQUALS", "premium")}, {0, *ALL, 10, 11, 12} - {1}),
    (trait("GREATER_THAN", 5), {6}),
    (trait("GREATER_OR_EQUAL", 5), {4, 5, 6}),
    (trait("LESS_THAN", 7.25), {4, 5}),
    (trait("LESS_OR_EQUAL", 7.25), {4, 5, 6}),
    (trait("LESS_THAN", -1), set()),
    (trait("BETWEEN", [5, 7.25]), {4, 5, 6}),
    (trait("BETWEEN", [5.5, 7]), set()),
    (trait("CONTAINS", "premium"), {1, 3, 9}),
    (trait("CONTAINS", "m p"), {3}),
    (trait("CONTAINS", "old"), {9}),
    (trait("CONTAINS", "%"), set()),
    (trait("NOT_CONTAINS", "premium"), ALL - {1, 3, 9}),
    (trait("STARTS_WITH", "premium"), {1, 3}),
    (trait("STARTS_WITH", "p%"), set()),
    (trait("ENDS_WITH", "plus"), {3}),
    (trait("ENDS_WITH", "remium"), {1, 2}),
    (trait("MATCHES", "*remium"), {1, 2}),
    (trait("MATCHES", "p*m*"), {1, 3}),
    (trait("MATCHES", "premium"), {1}),
    (trait("MATCHES", "p_emium%*"), set()),
    (trait("IN", ["premium", "gold"]), {1}),
    (trait("IN", [5, 7.25]), {4, 5, 6}),
    (trait("IN", [True]), {8}),
    (trait("IN", ["premium"] * 1000), {1}),
    (trait("NOT_IN", ["premium", "gold"]), ALL - {1}),
    (trait("NOT_IN", [5]), ALL - {4, 5}),
    (trait("EXISTS"), ALL),
    (trait("MISSING"), {0, 10, 11, 12}),
    (trait("EQUALS", "premium", key=ODD), {11}),
    (trait("MISSING", key=ODD), {0, *ALL, 10, 12}),
)


async def test_a_trait_is_compared_by_its_type(engine: Engine, workspace: UUID) -> None:
    """S2-14, S2-16, S2-17, S0-03, S0-04: missing and null meet no comparison, and no mix of types is an error."""
    people = [*(Person(traits={"k": value}) for value in TRAITS), *(Person(traits=traits) for traits in OTHERS)]
    await check(engine, workspace, people, TRAIT_CASES)


async def test_a_text_finds_itself_whatever_is_in_it(engine: Engine, workspace: UUID) -> None:
    odd = (ODD, "'; DROP TABLE profile; --", "{}", "null", "$1", "ａ", "e\u0301", "a\nb", "\\", "50%_\\")
    people = [Person(traits={text: text + end}, city=text + end) for text in odd for end in ("", "x")]
    cases = []
    for place, text in enumerate(odd):
        for operator, wanted in (("EQUALS", text), ("ENDS_WITH", text), ("IN", [text, "y"])):
            cases.append((trait(operator, wanted, key=text), {2 * place}))
        cases += [(trait(one, text, key=text), {2 * place, 2 * place + 1}) for one in ("CONTAINS", "STARTS_WITH")]
        cases.append((trait("MATCHES", f"{text}*", key=text), {2 * place, 2 * place + 1}))
        cases.append((attribute("CITY", "EQUALS", text), {2 * place}))
    await check(engine, workspace, people, cases)


DATES: Sequence[Any] = (
    "2026-04-30T12:00:00Z",
    "2026-04-30T11:59:59.999999Z",
    "2026-04-30",
    "2026-05-01T14:00:00+02:00",
    "2026-05-01T12:00:00.000001",
    "2026-05-02",
    "2026-02-30",
    "tomorrow",
    20260430,
    None,
    ["2026-04-30"],
    "0001-01-01T00:00+00:01",
    "1999-12-31 23:59",
)
"""Values of the trait k; a day before NOW is 2026-04-30T12:00Z."""
DATE_CASES: Sequence[tuple[Json, set[int]]] = (
    (trait("BEFORE", "2026-04-30T12:00:00Z"), {1, 2, 12}),
    (trait("BEFORE", "2026-04-30"), {12}),
    (trait("AFTER", "2026-04-30T14:00:00+02:00"), {0, 3, 4, 5}),
    (trait("AFTER", "2026-05-01T12:00:00"), {3, 4, 5}),
    (trait("AFTER", "2026-05-03"), set()),
    (trait("WITHIN_LAST", {"days": 1}), {0, 3}),
    (trait("WITHIN_LAST", {"minutes": 60 * 24}), {0, 3}),
    (trait("WITHIN_LAST", {"weeks": 1}), {0, 1, 2, 3}),
    (trait("MORE_THAN_AGO", {"hours": 24}), {1, 2, 12}),
    (trait("MORE_THAN_AGO", {"weeks": 500}), {12}),
    (trait("EQUALS", "2026-04-30"), {2}),
    ({"not": trait("WITHIN_LAST", {"days": 1})}, {1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12}),
)


async def test_a_trait_is_a_date_when_it_is_an_iso_8601_text(engine: Engine, workspace: UUID) -> None:
    """S2-18: offsets count, no offset is UTC, a date is its midnight; what is no date meets no comparison of dates."""
    await check(engine, workspace, [Person(traits={"k": value}) for value in DATES], DATE_CASES)


ATTRIBUTES = (
    Person(country="DE", city="Köln", seen_country="US", seen_city="Boston", email="a@example.com", external_id="c-1"),
    Person(seen_country="US", seen_city="Boston", seen_device_type="mobile", seen_browser="Safari", external_id="c-2"),
    Person(locale="de-DE", time_zone="Europe/Berlin", phone="+491", external_id="other", email="B@example.com"),
    Person(external_id="c_4"),
)
ATTRIBUTE_CASES: Sequence[tuple[Json, set[int]]] = (
    (attribute("COUNTRY", "EQUALS", "DE"), {0}),
    (attribute("COUNTRY", "EQUALS", "US"), {1}),
    (attribute("COUNTRY", "NOT_EQUALS", "DE"), {1}),
    (attribute("COUNTRY", "IN", ["DE", "US"]), {0, 1}),
    (attribute("COUNTRY", "NOT_IN", ["DE"]), {1}),
    (attribute("COUNTRY", "MISSING"), {2, 3}),
    (attribute("CITY", "EQUALS", "Boston"), {1}),
    (attribute("CITY", "STARTS_WITH", "Kö"), {0}),
    (attribute("CITY", "EXISTS"), {0, 1}),
    (attribute("DEVICE_TYPE", "EQUALS", "mobile"), {1}),
    (attribute("DEVICE_TYPE", "EQUALS", "Mobile"), set()),
    (attribute("BROWSER", "CONTAINS", "afa"), {1}),
    (attribute("BROWSER", "NOT_CONTAINS", "x"), {1}),
    (attribute("LOCALE", "MATCHES", "de*"), {2}),
    (attribute("TIME_ZONE", "ENDS_WITH", "/Berlin"), {2}),
    (attribute("EMAIL", "ENDS_WITH", "@example.com"), {0, 2}),
    (attribute("EMAIL", "NOT_EQUALS", "a@example.com"), {2}),
    (attribute("PHONE", "EXISTS"), {2}),
    (attribute("PHONE", "MISSING"), {0, 1, 3}),
    (attribute("EXTERNAL_ID", "EQUALS", "c-1"), {0}),
    (attribute("EXTERNAL_ID", "IN", ["c-1", "c-2", "c-3"]), {0, 1}),
    (attribute("EXTERNAL_ID", "MATCHES", "c_*"), {3}),
    (attribute("EXTERNAL_ID", "NOT_IN", ["c-1", "c-2"]), {2, 3}),
)


async def test_attributes_are_the_own_else_the_seen_ones(engine: Engine, workspace: UUID) -> None:
    """S2-10, S2-11, S2-12, S2-13: country, city, device and browser, and what identifies a person."""
    await check(engine, workspace, ATTRIBUTES, ATTRIBUTE_CASES)


async def test_scores_and_codes_are_traits_of_their_own_names(engine: Engine, workspace: UUID) -> None:
    """S0-03, S0-04."""
    people = [
        Person(traits={"icp_code": "A", "icp_score": 60, "persona_code": "P1"}),
        Person(traits={"icp_code": "B", "icp_score": 59.5, "persona_score": 80}),
        Person(traits={"icp_code": "A", "icp_score": "60"}),
    ]
    cases: Sequence[tuple[Json, set[int]]] = (
        ({"score": {"of": "ICP", "codes": ["A", "C"]}}, {0, 2}),
        ({"score": {"of": "ICP", "atLeast": 60}}, {0}),
        ({"score": {"of": "ICP", "codes": ["A", "B"], "atLeast": 59.5}}, {0, 1}),
        ({"score": {"of": "PERSONA", "atLeast": 80}}, {1}),
    )
    await check(engine, workspace, people, cases)


async def test_seen_within_and_before_part_at_the_edge(engine: Engine, workspace: UUID) -> None:
    """S2-05, S2-06, S2-18: [now - d, now] is within, earlier is before, never seen is neither."""
    times = (NOW - 7 * DAY, NOW - 7 * DAY - TICK, NOW, NOW + TICK, None)
    people = [Person(last_seen_at=at, first_seen_at=at) for at in times]
    cases: list[tuple[Json, set[int]]] = []
    for seen in ("lastSeen", "firstSeen"):
        cases.append(({seen: {"within": {"weeks": 1}}}, {0, 2}))
        cases.append(({seen: {"before": {"days": 7}}}, {1}))
        cases.append(({seen: {"since": "2026-04-24T12:00:00Z", "until": "2026-05-01T12:00:00Z"}}, {0}))
        cases.append(({seen: {"until": "2026-04-24T12:00:00Z"}}, {1}))
        cases.append(({seen: {"since": "2026-05-01T12:00:00Z"}}, {2, 3}))
        cases.append(({"not": {seen: {"within": {"weeks": 1}}}}, {1, 3, 4}))
    await check(engine, workspace, people, cases)


async def test_identified_and_anonymous(engine: Engine, workspace: UUID) -> None:
    """S2-07."""
    cases: Sequence[tuple[Json, set[int]]] = (({"identified": True}, {0}), ({"identified": False}, {1}))
    await check(engine, workspace, [Person(), Person(identified=False)], cases)


async def test_buckets_part_everybody_as_the_function_says(engine: Engine, workspace: UUID) -> None:
    ids = await make_people(workspace, *[Person()] * 200)
    for salt in ("", "autumn", ODD):
        for low, high in ((0, 100), (0, 12.5), (12.5, 50), (99.99, 100)):
            meant = {id for id in ids if low * 100 <= tree.bucket(id, salt) < high * 100}
            leaf = {"randomBucket": {"salt": salt, "from": low, "to": high}} if salt else None
            if leaf is not None:
                assert await found(engine, workspace, leaf) == meant
                assert await found(engine, workspace, leaf, only=BitMap(ids[:50])) == meant & set(ids[:50])


# --- events -------------------------------------------------------------------------------------------------------


async def test_events_are_counted_in_their_time(engine: Engine, workspace: UUID) -> None:
    """S2-04, S2-08, S2-19, S2-21: the edge itself is within; before is earlier; without a time every event counts."""
    old, recent, edge = NOW - 31 * DAY, NOW - DAY, NOW - 30 * DAY
    people = [
        Person(events=[Happened("purchase", recent)] * 3),
        Person(events=[Happened("purchase", recent)] * 2 + [Happened("purchase", old)]),
        Person(events=[Happened("purchase", edge)]),
        Person(events=[Happened("purchase", edge - TICK)]),
        Person(events=[Happened("Purchase", recent), Happened("login", recent)]),
        Person(),
        Person(events=[Happened("purchase", NOW), Happened("purchase", NOW + TICK)]),
    ]
    month = {"days": 30}
    cases: Sequence[tuple[Json, set[int]]] = (
        (event(), {0, 1, 2, 3, 6}),
        (event(never=True), {4, 5}),
        (event(within=month), {0, 1, 2, 6}),
        (event(within={"minutes": 60 * 24 * 30}), {0, 1, 2, 6}),
        (event(within={"days": 2}), {0, 1, 6}),
        (event(within=month, never=True), {3, 4, 5}),
        (event(before=month), {1, 3}),
        (event(before={"hours": 1}), {0, 1, 2, 3}),
        (event(since="2026-04-01T12:00:00Z"), {0, 1, 2, 6}),
        (event(since="2026-04-01T12:00:00Z", until="2026-04-01T12:00:00.000001Z"), {2}),
        (event(until="2026-04-01T12:00:00Z"), {1, 3}),
        (event(count=at_least(3)), {0, 1}),
        (event(count=at_least(3), within=month), {0}),
        (event(count=compared("EQUALS", 1)), {2, 3}),
        (event(count=compared("NOT_EQUALS", 3)), {2, 3, 4, 5, 6}),
        (event(count=compared("LESS_THAN", 2)), {2, 3, 4, 5}),
        (event(count=compared("LESS_OR_EQUAL", 2), within=month), {1, 2, 3, 4, 5, 6}),
        (event(count=compared("EQUALS", 0)), {4, 5}),
        (event(count=compared("GREATER_THAN", 1)), {0, 1, 6}),
        (event(name="nothing ever called so"), set()),
    )
    await check(engine, workspace, people, cases)


async def test_the_first_and_the_last_event_have_times(engine: Engine, workspace: UUID) -> None:
    """S2-19: of the matching events; what never happened has neither."""
    day, week = {"within": {"days": 1}}, {"before": {"weeks": 1}}
    people = [
        Person(events=[bought(NOW - 8 * DAY), bought(NOW - DAY)]),
        Person(events=[bought(NOW - DAY), bought(NOW)]),
        Person(events=[bought(NOW - 9 * DAY), bought(NOW - 7 * DAY - TICK)]),
        Person(events=[bought(NOW - 3 * DAY, 99)]),
        Person(),
    ]
    dear = [{"property": "value", "operator": "GREATER_THAN", "value": 50}]
    cases: Sequence[tuple[Json, set[int]]] = (
        (event(first=day), {1}),
        (event(last=day), {0, 1}),
        (event(first=week), {0, 2}),
        (event(last=week), {2}),
        (event(first=week, last=day), {0}),
        (event(first={"since": "2026-04-28T12:00:00Z", "until": "2026-04-29"}), {3}),
        (event(last=day, count=at_least(2), sum={"property": "value"} | at_least(20)), {0, 1}),
        (event(first={"within": {"weeks": 1}}, where=dear), {3}),
        (event(first=day, within={"days": 5}), {0, 1}),
    )
    await check(engine, workspace, people, cases)


async def test_totals_are_of_numbers_and_take_everything_else_for_nothing(engine: Engine, workspace: UUID) -> None:
    """S2-04: sums without a rounding error; the average, minimum and maximum of no number meet nothing."""
    amounts: list[list[Any]] = [
        [60, 40], [0.1] * 10, [100, -1], ["100"], [None, [], {}, True], [], [99.999999999999], [10, 10, 11], [1e20, 1],
    ]  # fmt: skip
    people = [Person(events=[bought(NOW, value) for value in values]) for values in amounts]

    def total(kind: str, operator: str, value: float, **parts: Any) -> Json:
        return event(**{kind: {"property": "value"} | compared(operator, value)}, **parts)

    cases: Sequence[tuple[Json, set[int]]] = (
        (total("sum", "GREATER_OR_EQUAL", 100), {0, 8}),
        (total("sum", "EQUALS", 1), {1}),
        (total("sum", "EQUALS", 31), {7}),
        (total("sum", "GREATER_OR_EQUAL", 99), {0, 2, 6, 8}),
        (total("sum", "GREATER_THAN", 1e20), {8}),
        (total("sum", "GREATER_THAN", 0, within={"minutes": 1}), {0, 1, 2, 6, 7, 8}),
        (total("sum", "LESS_THAN", 1), {3, 4, 5}),
        (total("sum", "EQUALS", 0), {3, 4, 5}),
        (total("sum", "LESS_THAN", -1), set()),
        (total("avg", "EQUALS", 50), {0}),
        (total("avg", "EQUALS", 0.1), {1}),
        (total("avg", "LESS_THAN", 49.5), {1, 7}),
        (total("avg", "GREATER_THAN", 10.333333333333332), {0, 2, 6, 7, 8}),
        (total("avg", "GREATER_THAN", 10.333333333333334), {0, 2, 6, 8}),
        (total("min", "LESS_OR_EQUAL", 0.1), {1, 2}),
        (total("min", "EQUALS", 10), {7}),
        (total("max", "GREATER_OR_EQUAL", 99.999999999999), {2, 6, 8}),
        (total("max", "LESS_THAN", 1), {1}),
        (event(sum={"property": "value"} | at_least(31), max={"property": "value"} | compared("LESS_THAN", 12)), {7}),
        (event(count=compared("LESS_THAN", 2), sum={"property": "value"} | compared("LESS_THAN", 5)), {3, 5}),
    )
    await check(engine, workspace, people, cases)


WEB = {"channel": "web", "value": 10, "tags": ["new", "sale"], "due": "2026-04-30"}
SHOP = {"channel": "shop", "value": 20, "due": "2026-04-30T12:00:00.000001+00:00"}
PROPERTY_CASES: Sequence[tuple[tuple[Any, ...], set[int]]] = (
    (("channel", "EQUALS", "web"), {0}),
    (("channel", "NOT_EQUALS", "web"), {0, 1}),
    (("channel", "IN", ["web", "app"]), {0}),
    (("channel", "NOT_IN", ["web"]), {0, 1}),
    (("channel", "STARTS_WITH", "s"), {0, 1}),
    (("channel", "ENDS_WITH", "b"), {0}),
    (("channel", "MATCHES", "*h*"), {0, 1}),
    (("channel", "CONTAINS", "op"), {0, 1}),
    (("channel", "NOT_CONTAINS", "w"), {0, 1}),
    (("channel", "EXISTS"), {0, 1}),
    (("channel", "MISSING"), {2, 3}),
    (("value", "GREATER_THAN", 15), {0, 1}),
    (("value", "LESS_THAN", 15), {0}),
    (("value", "BETWEEN", [10, 19]), {0}),
    (("value", "EQUALS", 20), {0, 1}),
    (("tags", "CONTAINS", "sale"), {0}),
    (("due", "BEFORE", "2026-04-30T12:00:00Z"), {0}),
    (("due", "AFTER", "2026-04-30T12:00:00Z"), {0, 1}),
    (("due", "AFTER", "2026-04-30T12:00:00.000002Z"), set()),
    (("due", "MISSING"), {2}),
)


async def test_totals_over_other_windows_than_counts(engine: Engine, workspace: UUID) -> None:
    """S2-16 to S2-19: conditions on one event that want values of some of its time alone, to the microsecond."""
    ten = NOW - 10 * DAY
    people = [
        Person(events=(bought(ten, 5), bought(ten - TICK, 7), bought(NOW, 1))),
        Person(events=(bought(ten - TICK, 7), bought(NOW - 40 * DAY, 50))),
        Person(events=(bought(NOW - 20 * DAY, 3), bought(NOW + TICK, 9), bought(ten + TICK))),
    ]

    def summed(value: int, **window: Any) -> Json:
        return event(sum={"property": "value"} | compared("EQUALS", value), **window)

    sixty: Json = {"within": {"days": 60}}
    period = {"since": (NOW - 20 * DAY).isoformat(), "until": ten.isoformat()}
    cases = [
        (event(count=compared("EQUALS", 2), **sixty), {1, 2}),
        (event(count=compared("EQUALS", 3), **sixty), {0}),
        (summed(6, within={"days": 10}), {0}),
        (summed(10, within={"days": 10}), {2}),
        (summed(13, within={"days": 20}), {0, 2}),
        (summed(7, **period), {0, 1}),
        (summed(3, **period), {2}),
    ]
    await check(engine, workspace, people, cases)


async def test_property_filters_choose_the_events_that_count(engine: Engine, workspace: UUID) -> None:
    """S2-14, S2-16, S2-17: every operator, dates only where the text is one."""
    people = [
        Person(events=[Happened("purchase", NOW, WEB), Happened("purchase", NOW, SHOP)]),
        Person(events=[Happened("purchase", NOW, SHOP)] * 2),
        Person(events=[Happened("purchase", NOW, {})]),
        Person(events=[Happened("purchase", NOW, {"channel": None, "value": "15", "due": "2026-02-30"})]),
        Person(events=[Happened("other", NOW, WEB)]),
    ]

    def where(*tests: tuple[Any, ...]) -> list[Json]:
        return [{"property": p, "operator": o} | ({"value": v[0]} if v else {}) for p, o, *v in tests]

    elsewhere, dear = ("channel", "NOT_EQUALS", "web"), ("value", "GREATER_THAN", 15)
    cases = [(event(where=where(test)), places) for test, places in PROPERTY_CASES]
    cases += [
        (event(where=where(elsewhere), count=at_least(2)), {1}),
        (event(where=where(elsewhere, dear), sum={"property": "value"} | at_least(20)), {0, 1}),
        (event(where=where(elsewhere), never=True), {2, 3, 4}),
    ]
    await check(engine, workspace, people, cases)


async def test_the_context_of_an_event_chooses_too(engine: Engine, workspace: UUID) -> None:
    """S2-10 to S2-13, S4-07: where and with what it happened, beside what it was."""
    at_home = Happened("purchase", NOW, WEB, device_type="desktop", browser="Firefox", country="DE", city="Köln")
    on_the_way = Happened("purchase", NOW, SHOP, device_type="mobile", country="US")
    people = [Person(events=[at_home, on_the_way]), Person(events=[on_the_way]), Person(events=[bought(NOW)])]

    def context(field: str, operator: str, *value: Any) -> list[Json]:
        return [{"field": field, "operator": operator} | ({"value": value[0]} if value else {})]

    cases: Sequence[tuple[Json, set[int]]] = (
        (event(context=context("DEVICE_TYPE", "EQUALS", "mobile")), {0, 1}),
        (event(context=context("DEVICE_TYPE", "EQUALS", "mobile"), count=at_least(2)), set()),
        (event(context=context("BROWSER", "STARTS_WITH", "Fire")), {0}),
        (event(context=context("COUNTRY", "IN", ["DE", "FR"])), {0}),
        (event(context=context("COUNTRY", "NOT_EQUALS", "US")), {0}),
        (event(context=context("CITY", "MISSING")), {0, 1, 2}),
        (event(context=context("CITY", "EXISTS")), {0}),
        (event(context=[*context("COUNTRY", "EQUALS", "US"), *context("DEVICE_TYPE", "EQUALS", "desktop")]), set()),
        (
            event(
                context=context("COUNTRY", "EQUALS", "US"),
                where=[{"property": "channel", "operator": "EQUALS", "value": "web"}],
            ),
            set(),
        ),
    )
    await check(engine, workspace, people, cases)


async def test_pages_are_told_by_path_prefix_and_pattern(engine: Engine, workspace: UUID) -> None:
    """S2-09, S4-06."""
    paths = ("/pricing", "/pricing/annual", "/docs/install", "/docs/50%", None)
    views = [Happened("page_view", NOW - DAY, page_path=path) for path in paths]
    people = [*(Person(events=[view]) for view in views), Person(events=[views[0], views[2]])]

    def page(operator: str, value: str, **parts: Any) -> Json:
        return {"page": {"path": {"operator": operator, "value": value}} | parts}

    cases: Sequence[tuple[Json, set[int]]] = (
        (page("EQUALS", "/pricing"), {0, 5}),
        (page("STARTS_WITH", "/pricing"), {0, 1, 5}),
        (page("MATCHES", "/*/install"), {2, 5}),
        (page("MATCHES", "/docs/*%"), {3}),
        (page("MATCHES", "/docs/%"), set()),
        (page("EQUALS", "/pricing", within={"hours": 1}), set()),
        (page("STARTS_WITH", "/", count=at_least(2)), {5}),
        (page("EQUALS", "/pricing", never=True), {1, 2, 3, 4}),
    )
    await check(engine, workspace, people, cases)


async def test_sessions_are_counted_once_each(engine: Engine, workspace: UUID) -> None:
    """S2-15: by their ids, over events of every name."""
    people = [
        Person(events=[Happened(name, NOW - DAY, session_id="s1") for name in ("a", "b", "b")]),
        Person(events=[Happened("a", NOW - day * DAY, session_id=f"s{day}") for day in (0, 1, 10)]),
        Person(events=[Happened("a", NOW)]),
        Person(),
    ]

    def sessions(operator: str, value: int, **parts: Any) -> Json:
        return {"sessions": {"count": compared(operator, value)} | parts}

    cases: Sequence[tuple[Json, set[int]]] = (
        (sessions("GREATER_OR_EQUAL", 1), {0, 1}),
        (sessions("GREATER_OR_EQUAL", 2), {1}),
        (sessions("EQUALS", 3), {1}),
        (sessions("EQUALS", 0), {2, 3}),
        (sessions("LESS_THAN", 2), {0, 2, 3}),
        (sessions("EQUALS", 2, within={"days": 1}), {1}),
        (sessions("EQUALS", 1, before={"days": 9}), {1}),
    )
    await check(engine, workspace, people, cases)


# --- questions as such --------------------------------------------------------------------------------------------


async def test_nobody_is_found_where_nobody_is(engine: Engine, workspace: UUID) -> None:
    leaves: Sequence[Json] = (trait("MISSING"), trait("WITHIN_LAST", {"days": 1}), event(), {"identified": True})
    for leaf in leaves:
        assert await found(engine, workspace, leaf) == set()
    assert await engine.universe(workspace_id=workspace) == BitMap()
    assert await engine.gone(workspace_id=workspace) == BitMap()
    assert await engine.profiles(workspace_id=workspace, since=monotonic()) == 0
    assert await engine.ids(workspace_id=workspace, leaves=[], now=NOW) == []
    assert await engine.crossed(workspace_id=workspace, leaves=[], since=NOW, until=NOW) == BitMap()
    ranks = await engine.ranks(workspace_id=workspace, by=ByTrait("k"), now=NOW)
    assert (list(ranks.ids), list(ranks.values)) == ([], [])


async def test_only_some_are_asked_about(engine: Engine, workspace: UUID) -> None:
    ids = await make_people(workspace, *[Person(traits={"k": 1}, events=[bought(NOW)])] * 4)
    some = BitMap(ids[:2])
    for leaf in (trait("EQUALS", 1), event(), {"identified": True}):
        assert await found(engine, workspace, leaf, only=some) == set(some)
        assert await found(engine, workspace, leaf, only=BitMap()) == set()
    assert await engine.universe(workspace_id=workspace, only=some | BitMap([2**31 - 1])) == some
    assert await engine.universe(workspace_id=workspace, only=BitMap()) == BitMap()


async def test_answers_come_in_the_order_of_the_questions(engine: Engine, workspace: UUID) -> None:
    one, two = await make_people(workspace, Person(traits={"k": 1}, events=[bought(NOW)]), Person(traits={"k": 2}))
    wanted = [trait("EQUALS", 2), event(), trait("EQUALS", 3), {"identified": True}, trait("EQUALS", 1)]
    leaves = cast(list[EngineLeaf], [parse(condition) for condition in wanted])
    answers = await engine.ids(workspace_id=workspace, leaves=leaves, now=NOW)
    assert [set(answer) for answer in answers] == [{two}, {one}, set(), {one, two}, {one}]


async def test_the_universe_is_the_living_of_the_workspace_or_of_a_brand(engine: Engine, workspace: UUID) -> None:
    ids = await make_people(workspace, *[Person()] * 4)
    brand = await make_brand(workspace, "shoes", *ids[1:])
    await erase(workspace, ids[2])
    await merge(workspace, loser=ids[3], winner=ids[1])
    assert set(await engine.universe(workspace_id=workspace)) == {ids[0], ids[1]}
    assert set(await engine.universe(workspace_id=workspace, brand_id=brand)) == {ids[1]}
    assert set(await engine.universe(workspace_id=workspace, brand_id=brand, only=BitMap(ids[:1]))) == set()
    assert set(await engine.universe(workspace_id=workspace, brand_id=uuid4())) == set()


async def test_those_who_are_gone_are_told_and_all_are_counted(
    engine: Engine, workspace: UUID, other_workspace: UUID
) -> None:
    ids = await make_people(workspace, *[Person()] * 5)
    (foreign,) = await make_people(other_workspace, Person())
    await erase(workspace, ids[2])
    await merge(workspace, loser=ids[3], winner=ids[1])
    assert set(await engine.gone(workspace_id=workspace)) == {ids[2], ids[3]}
    assert await engine.profiles(workspace_id=workspace, since=monotonic()) == 5
    await erase(other_workspace, foreign)
    assert set(await engine.gone(workspace_id=other_workspace)) == {foreign}
    assert await engine.profiles(workspace_id=other_workspace, since=monotonic()) == 1


async def test_counts_are_right_on_both_sides_of_where_they_are_counted_here_or_there(
    engine: Engine, workspace: UUID
) -> None:
    """Small counts are folded out of the ids of the events, large ones and those beside sums are grouped."""
    people = [Person(events=[bought(NOW - timedelta(hours=n), value=1) for n in range(times)]) for times in range(11)]
    ids = await make_people(workspace, *people)
    for operator, value in product(
        (Operator.GREATER_OR_EQUAL, Operator.GREATER_THAN, Operator.EQUALS), (1, 2, 7, 8, 9)
    ):
        count = {"operator": operator.value, "value": value}
        amount = Amount(operator, value)
        expected = {id for times, id in enumerate(ids) if times and oracle.measures(Fraction(times), amount)}
        assert await found(engine, workspace, event(count=count)) == expected, count
        within = event(count=count, within={"days": 3})
        assert await found(engine, workspace, within) == expected, count
        filtered = event(count=count, where=[{"property": "value", "operator": "EQUALS", "value": 1}])
        assert await found(engine, workspace, filtered) == expected, count
        beside = event(count=count, sum={"property": "value", "operator": "GREATER_THAN", "value": 0})
        assert await found(engine, workspace, beside) == expected, count


async def test_another_tenants_people_are_never_found(engine: Engine, workspace: UUID, other_workspace: UUID) -> None:
    everywhere = Person(
        traits={"k": 1, "d": "2026-05-01"}, last_seen_at=NOW, events=[Happened("purchase", NOW, session_id="s")]
    )
    (mine,) = await make_people(workspace, everywhere)
    (foreign,) = await make_people(other_workspace, everywhere)
    brand = await make_brand(other_workspace, "theirs", foreign)
    both = BitMap([mine, foreign])
    leaves: Sequence[Json] = (
        trait("EQUALS", 1),
        trait("WITHIN_LAST", {"days": 1}, key="d"),
        attribute("EXTERNAL_ID", "EXISTS"),
        event(),
        event(count=at_least(1)),
        {"lastSeen": {"within": {"days": 1}}},
        {"sessions": {"count": at_least(1)}},
        {"randomBucket": {"salt": "a", "from": 0, "to": 100}},
    )
    for leaf in leaves:
        assert await found(engine, workspace, leaf) == {mine}, leaf
        assert await found(engine, workspace, leaf, only=both) == {mine}, leaf
    assert set(await engine.universe(workspace_id=workspace, only=both)) == {mine}
    assert set(await engine.universe(workspace_id=workspace, brand_id=brand)) == set()
    ranks = await engine.ranks(workspace_id=workspace, by=ByTrait("k"), now=NOW, only=both)
    assert list(ranks.ids) == [mine]
