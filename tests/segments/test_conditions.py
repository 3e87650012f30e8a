"""Conditions as JSON: what is read, what is refused and where."""

import re
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings

from db.transactions import transaction
from segments.canonical import key
from segments.conditions import parse, parse_simple, read, to_json
from segments.errors import SegmentError
from segments.leaf_readers import LEAF_READERS
from segments.limits import WIDEST, Limits
from segments.nodes import AttributeName, ContextField, Did, Event, MatchMode, Operator, ScoreOf, Trait, Unit
from tests.segments import definitions, factories
from tests.segments.definitions import GUIDE, SHOWN

ID = "0198c0de-0000-7000-8000-000000000001"


def trait(operator: str, value: Any = None, **more: Any) -> dict[str, Any]:
    return {"trait": {"key": "k", "operator": operator} | ({} if value is None else {"value": value}) | more}


def event(**parts: Any) -> dict[str, Any]:
    return {"event": {"name": "purchase"} | parts}


def refused(json: object, limits: Limits | None = None) -> tuple[str, tuple[str, ...]]:
    """(code, field) of the refusal."""
    refusal = refusal_of(json, limits)
    return refusal.code, refusal.field


def refusal_of(json: object, limits: Limits | None = None) -> SegmentError:
    with pytest.raises(SegmentError) as caught:
        parse(json, field=("definition",), limits=limits)
    assert caught.value.message.endswith((".", '"."'))
    return caught.value


@settings(max_examples=500, deadline=None)
@given(definitions.definitions)
def test_what_is_written_reads_back_as_the_same(json: dict[str, Any]) -> None:
    condition = parse(json, limits=WIDEST)
    stored = orjson.loads(orjson.dumps(to_json(condition)))
    assert read(stored) == condition
    assert orjson.dumps(to_json(read(stored))) == orjson.dumps(stored)


@pytest.mark.parametrize("kind", LEAF_READERS)
def test_every_leaf_is_read_and_written(kind: str) -> None:
    @settings(max_examples=50, deadline=None)
    @given(definitions.LEAVES[kind])
    def reads_back(inner: Any) -> None:
        written = to_json(parse({kind: inner}))
        assert list(written) == [kind]
        assert to_json(parse(written)) == written

    reads_back()


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: next(iter(shown)))
def test_what_the_guide_shows_is_read(shown: dict[str, Any]) -> None:
    """Clients know ids with the prefix of their kind (tests/app/test_api_conditions.py)."""
    json = orjson.loads(re.sub(r"(seg|cmp|svq)_", "", orjson.dumps(shown).decode()))
    written = to_json(parse(json))
    assert list(written) == list(shown)
    assert to_json(parse(written)) == written


def test_the_guide_tells_of_every_leaf_operator_and_name() -> None:
    headings = {name for line in re.findall(r"^## (.+)$", GUIDE, re.M) for name in line.split(", ")}
    assert set(LEAF_READERS) | {"all", "any", "not"} <= headings
    for kind in LEAF_READERS:
        assert any(f'"{kind}"' in orjson.dumps(shown).decode() for shown in SHOWN)
    for word in [*Operator, *AttributeName, *ContextField, *Did, *ScoreOf, *Unit, *MatchMode]:
        assert f"`{word}`" in GUIDE


def test_a_definition_is_kept_in_one_form_whatever_the_order_of_its_keys() -> None:
    shuffled = {
        "event": {
            "where": [{"value": "web", "operator": "EQUALS", "property": "channel"}],
            "within": {"days": 180},
            "never": False,
            "count": {"value": 3, "operator": "GREATER_OR_EQUAL"},
            "name": "purchase",
        }
    }
    assert list(to_json(parse(shuffled))["event"]) == ["name", "count", "within", "where"]  # type: ignore[arg-type]


def test_a_place_deep_inside_is_named_by_its_path() -> None:
    json = {"all": [trait("EXISTS"), event(count={"operator": "GREATER_OR_EQUAL", "value": "3"})]}
    assert refused(json) == ("INVALID_VALUE", ("definition", "all", "1", "event", "count", "value"))


@pytest.mark.parametrize(
    ("json", "code", "path"),
    [
        (None, "INVALID_CONDITION", ""),
        ([], "INVALID_CONDITION", ""),
        ({}, "INVALID_CONDITION", ""),
        ({"all": [trait("EXISTS")], "any": [trait("EXISTS")]}, "INVALID_CONDITION", ""),
        ({"every": []}, "UNKNOWN_CONDITION", "every"),
        ({"all": []}, "INVALID_VALUE", "all"),
        ({"all": {"0": trait("EXISTS")}}, "INVALID_VALUE", "all"),
        ({"not": [trait("EXISTS")]}, "INVALID_CONDITION", "not"),
        ({"identified": "yes"}, "INVALID_VALUE", "identified"),
        ({"trait": {"operator": "EXISTS"}}, "MISSING_VALUE", "trait key"),
        ({"trait": {"key": "", "operator": "EXISTS"}}, "INVALID_VALUE", "trait key"),
        ({"trait": {"key": "k" * 201, "operator": "EXISTS"}}, "INVALID_VALUE", "trait key"),
        ({"trait": {"key": "a\0b", "operator": "EXISTS"}}, "UNSTORABLE_TEXT", "trait key"),
        (trait("EXISTS", note="x"), "UNKNOWN_KEY", "trait note"),
        (trait("LIKE", "x"), "WRONG_OPERATOR", "trait operator"),
        (trait("EXISTS", "x"), "INVALID_VALUE", "trait value"),
        (trait("EQUALS"), "MISSING_VALUE", "trait value"),
        ({"trait": {"key": "k", "operator": "EQUALS", "value": None}}, "INVALID_VALUE", "trait value"),
        (trait("EQUALS", ["x"]), "INVALID_VALUE", "trait value"),
        (trait("EQUALS", float("inf")), "INVALID_VALUE", "trait value"),
        (trait("EQUALS", 2**64), "INVALID_VALUE", "trait value"),
        (trait("EQUALS", "\ud800"), "UNSTORABLE_TEXT", "trait value"),
        (trait("CONTAINS", ""), "INVALID_VALUE", "trait value"),
        (trait("IN", []), "INVALID_VALUE", "trait value"),
        (trait("IN", "x"), "INVALID_VALUE", "trait value"),
        (trait("IN", ["x", 1]), "INVALID_VALUE", "trait value"),
        (trait("IN", ["x"] * 1001), "INVALID_VALUE", "trait value"),
        (trait("BETWEEN", [1]), "INVALID_VALUE", "trait value"),
        (trait("BETWEEN", [2, 1]), "INVALID_VALUE", "trait value"),
        (trait("BETWEEN", [1, "2"]), "INVALID_VALUE", "trait value 1"),
        ({"event": {}}, "MISSING_VALUE", "event name"),
        (event(count=3), "INVALID_CONDITION", "event count"),
        (event(count={"operator": "GREATER_OR_EQUAL", "value": -1}), "INVALID_VALUE", "event count value"),
        (event(count={"operator": "GREATER_OR_EQUAL", "value": 1.5}), "INVALID_VALUE", "event count value"),
        (event(count={"operator": "CONTAINS", "value": 1}), "WRONG_OPERATOR", "event count operator"),
        (event(sum={"operator": "EQUALS", "value": 1}), "MISSING_VALUE", "event sum property"),
        (event(sum={"property": "p", "operator": "BETWEEN", "value": 1}), "WRONG_OPERATOR", "event sum operator"),
        (event(never=True, count={"operator": "EQUALS", "value": 1}), "INVALID_CONDITION", "event count"),
        (event(never=1), "INVALID_VALUE", "event never"),
        (event(within={"days": 1}, before={"days": 2}), "INVALID_CONDITION", "event before"),
        (event(within={"days": 0}), "INVALID_WINDOW", "event within days"),
        (event(within={"days": 1.5}), "INVALID_WINDOW", "event within days"),
        (event(within={"days": True}), "INVALID_VALUE", "event within days"),
        (event(within={"days": 3661}), "INVALID_WINDOW", "event within days"),
        (event(within={"minutes": 10**17}), "INVALID_WINDOW", "event within minutes"),
        (event(within={"months": 1}), "INVALID_WINDOW", "event within"),
        (event(within={"days": 1, "hours": 1}), "INVALID_WINDOW", "event within"),
        (event(where=[]), "INVALID_VALUE", "event where"),
        (event(where=[{"property": "p", "operator": "GREATER_THAN", "value": "x"}]), "WRONG_OPERATOR",
         "event where 0 operator"),
        ({"lastSeen": {}}, "INVALID_CONDITION", "lastSeen"),
        ({"lastSeen": {"within": {"days": 1}, "before": {"days": 1}}}, "INVALID_CONDITION", "lastSeen before"),
        (trait("NOT_CONTAINS", ""), "INVALID_VALUE", "trait value"),
        (trait("MATCHES", "**"), "INVALID_VALUE", "trait value"),
        (trait("MATCHES", "*a" * 11), "INVALID_VALUE", "trait value"),
        (trait("BEFORE", "soon"), "INVALID_DATE", "trait value"),
        (trait("AFTER", "2026-02-30"), "INVALID_DATE", "trait value"),
        (trait("WITHIN_LAST", 3), "INVALID_WINDOW", "trait value"),
        (trait("WITHIN_LAST", {"days": 0}), "INVALID_WINDOW", "trait value days"),
        (trait("MORE_THAN_AGO", {"months": 1}), "INVALID_WINDOW", "trait value"),
        ({"attribute": {"name": "AGE", "operator": "EXISTS"}}, "INVALID_VALUE", "attribute name"),
        ({"attribute": {"name": ["CITY"], "operator": "EXISTS"}}, "INVALID_VALUE", "attribute name"),
        ({"attribute": {"name": "CITY", "operator": "EQUALS", "value": 5}}, "INVALID_VALUE", "attribute value"),
        ({"attribute": {"name": "CITY", "operator": "IN", "value": ["x", 5]}}, "INVALID_VALUE", "attribute value 1"),
        ({"attribute": {"name": "COUNTRY", "operator": "EQUALS", "value": "Germany"}}, "UNKNOWN_COUNTRY",
         "attribute value"),
        ({"attribute": {"name": "COUNTRY", "operator": "IN", "value": ["DE", "XX"]}}, "UNKNOWN_COUNTRY",
         "attribute value 1"),
        (event(since="2026-01-02", until="2026-01-01"), "INVALID_WINDOW", "event until"),
        (event(since="yesterday"), "INVALID_DATE", "event since"),
        (event(within={"days": 1}, until="2026-01-01"), "INVALID_CONDITION", "event until"),
        (event(first={}), "INVALID_CONDITION", "event first"),
        (event(last={"within": {"days": 1}, "count": 1}), "UNKNOWN_KEY", "event last count"),
        (event(never=True, last={"within": {"days": 1}}), "INVALID_CONDITION", "event last"),
        (event(never=True, max={"property": "p", "operator": "EQUALS", "value": 1}), "INVALID_CONDITION", "event max"),
        (event(avg={"property": "p", "operator": "EXISTS", "value": 1}), "WRONG_OPERATOR", "event avg operator"),
        (event(context=[{"field": "AGE", "operator": "EXISTS"}]), "INVALID_VALUE", "event context 0 field"),
        ({"page": {}}, "MISSING_VALUE", "page path"),
        ({"page": {"path": "/x"}}, "INVALID_CONDITION", "page path"),
        ({"page": {"path": {"operator": "EQUALS", "value": ""}}}, "INVALID_VALUE", "page path value"),
        ({"sessions": {}}, "MISSING_VALUE", "sessions count"),
        ({"score": {"of": "ICP"}}, "MISSING_VALUE", "score"),
        ({"score": {"of": "CREDIT", "atLeast": 1}}, "INVALID_VALUE", "score of"),
        ({"score": {"of": "ICP", "codes": [""]}}, "INVALID_VALUE", "score codes 0"),
        ({"randomBucket": {"salt": "s", "from": 0, "to": 0}}, "INVALID_VALUE", "randomBucket to"),
        ({"randomBucket": {"salt": "s", "from": 0, "to": 100.01}}, "INVALID_VALUE", "randomBucket to"),
        ({"randomBucket": {"salt": "s", "from": 0.001, "to": 1}}, "INVALID_VALUE", "randomBucket from"),
        ({"inSegment": "everyone"}, "INVALID_ID", "inSegment"),
        ({"inSegment": None}, "INVALID_ID", "inSegment"),
        ({"campaign": {"did": "FORWARDED"}}, "INVALID_VALUE", "campaign did"),
        ({"campaign": {"did": "OPENED", "campaignId": 5}}, "INVALID_ID", "campaign campaignId"),
        ({"savedQuery": {"id": ID}}, "INVALID_ID", "savedQuery"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_where_it_is(json: object, code: str, path: str) -> None:
    assert refused(json) == (code, ("definition", *path.split()))


TEXT_OPERATORS = "EQUALS, NOT_EQUALS, CONTAINS, NOT_CONTAINS, STARTS_WITH, ENDS_WITH, MATCHES"


@pytest.mark.parametrize(
    ("operator", "value", "message"),
    [
        *[
            (
                operator,
                "text",
                f"{operator} does not fit a text; use one of {TEXT_OPERATORS}, BEFORE, AFTER, or another",
            )
            for operator in ("GREATER_THAN", "GREATER_OR_EQUAL", "LESS_THAN", "LESS_OR_EQUAL")
        ],
        *[
            (operator, 5, f"{operator} does not fit a number; use one of EQUALS, NOT_EQUALS, GREATER_THAN, ")
            for operator in ("CONTAINS", "NOT_CONTAINS", "STARTS_WITH", "ENDS_WITH", "MATCHES", "BEFORE", "AFTER")
        ],
        *[
            (operator, True, f"{operator} does not fit true or false; use one of EQUALS, NOT_EQUALS, or another")
            for operator in ("GREATER_THAN", "LESS_OR_EQUAL", "CONTAINS", "BEFORE")
        ],
    ],
)
def test_an_operator_that_does_not_fit_the_type_is_refused_and_those_that_fit_are_named(
    operator: str, value: object, message: str
) -> None:
    """S2-20."""
    refusal = refusal_of(trait(operator, value))
    assert (refusal.code, refusal.field) == ("WRONG_OPERATOR", ("definition", "trait", "operator"))
    assert refusal.message.startswith(message)


@pytest.mark.parametrize(
    ("json", "field", "message"),
    [
        (
            {"attribute": {"name": "CITY", "operator": "GREATER_THAN", "value": 5}},
            "attribute operator",
            f"GREATER_THAN does not fit CITY; use one of {TEXT_OPERATORS}, IN, NOT_IN, EXISTS, MISSING.",
        ),
        (
            {"attribute": {"name": "COUNTRY", "operator": "STARTS_WITH", "value": "D"}},
            "attribute operator",
            "STARTS_WITH does not fit COUNTRY; use one of EQUALS, NOT_EQUALS, IN, NOT_IN, EXISTS, MISSING.",
        ),
        (
            event(context=[{"field": "COUNTRY", "operator": "MATCHES", "value": "D*"}]),
            "event context 0 operator",
            "MATCHES does not fit COUNTRY; use one of EQUALS, NOT_EQUALS, IN, NOT_IN, EXISTS, MISSING.",
        ),
        (
            {"page": {"path": {"operator": "CONTAINS", "value": "x"}}},
            "page path operator",
            "CONTAINS does not fit the path of a page; use one of EQUALS, STARTS_WITH, MATCHES.",
        ),
        (
            {"sessions": {"count": {"operator": "BETWEEN", "value": 5}}},
            "sessions count operator",
            "BETWEEN does not fit a number; use one of EQUALS, NOT_EQUALS, GREATER_THAN, GREATER_OR_EQUAL, LESS_THAN,"
            " LESS_OR_EQUAL.",
        ),
    ],
)
def test_an_operator_that_does_not_fit_the_place_is_refused_and_those_that_fit_are_named(
    json: object, field: str, message: str
) -> None:
    """S2-20."""
    refusal = refusal_of(json)
    assert (refusal.code, refusal.field) == ("WRONG_OPERATOR", ("definition", *field.split()))
    assert refusal.message == message


@pytest.mark.parametrize("operator", ["WITHIN_LAST", "MORE_THAN_AGO"])
def test_a_moving_date_of_an_events_property_is_refused_with_a_hint_to_the_events_window(operator: str) -> None:
    refusal = refusal_of(event(where=[{"property": "due", "operator": operator, "value": {"days": 3}}]))
    assert (refusal.code, refusal.field) == ("WRONG_OPERATOR", ("definition", "event", "where", "0", "operator"))
    assert refusal.message.endswith("For a moving time give the event itself a window: within or before.")


def test_countries_are_kept_as_codes_in_capitals() -> None:
    json = {"attribute": {"name": "COUNTRY", "operator": "IN", "value": ["de", "AT"]}}
    assert to_json(parse(json)) == {"attribute": {"name": "COUNTRY", "operator": "IN", "value": ["DE", "AT"]}}
    json = event(context=[{"field": "COUNTRY", "operator": "EQUALS", "value": "de"}])
    assert to_json(parse(json)) == event(context=[{"field": "COUNTRY", "operator": "EQUALS", "value": "DE"}])


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2026-01-31T09:30", "2026-01-31T09:30:00Z"),
        ("2026-01-31T09:30:00.250+01:00", "2026-01-31T08:30:00.250000Z"),
    ],
)
def test_dates_are_kept_as_instants_in_utc(written: str, kept: str) -> None:
    assert to_json(parse(trait("BEFORE", written))) == trait("BEFORE", kept)
    assert to_json(parse({"lastSeen": {"since": written}})) == {"lastSeen": {"since": kept}}


@pytest.mark.parametrize(("written", "kept"), [(100.0, 100), (0.5, 0.5), (-0.0, 0), (2.0**53, 2**53), (1e20, 1e20)])
def test_a_whole_number_is_kept_as_one_however_it_is_written(written: float, kept: float) -> None:
    assert orjson.dumps(to_json(parse(trait("EQUALS", written)))) == orjson.dumps(trait("EQUALS", kept))


@pytest.mark.parametrize("value", [1e19, -1e19, 1.25e19, 2.0**63])
async def test_a_number_of_more_than_63_bits_is_still_read_once_it_was_stored(
    workspace: UUID, now: datetime, value: float
) -> None:
    """jsonb answers 1e19 as 10000000000000000000."""
    segment = await factories.make_dynamic(workspace, trait("GREATER_THAN", value), now=now)
    async with transaction(workspace) as connection:
        stored = await connection.fetchval("SELECT definition FROM segment WHERE id = $1", segment.id)
    assert read(stored) == Trait("k", Operator.GREATER_THAN, value)


def test_shares_are_hundredths_of_a_per_cent() -> None:
    json = {"randomBucket": {"salt": "s", "from": 0.29, "to": 33.33}}
    assert to_json(parse(json)) == json
    whole = {"randomBucket": {"salt": "s", "from": 0.0, "to": 100.0}}
    assert orjson.dumps(to_json(parse(whole))) == b'{"randomBucket":{"salt":"s","from":0,"to":100}}'


def test_depth_and_leaves_are_limited() -> None:
    deep: dict[str, Any] = trait("EXISTS")
    for _ in range(7):
        deep = {"not": deep}
    parse(deep)
    assert refused({"not": deep}) == ("TOO_DEEP", ("definition", *["not"] * 8))
    parse({"any": [trait("EXISTS")] * 100})
    wide = {"any": [{"all": [trait("EXISTS")] * 60}, {"all": [trait("EXISTS")] * 41}]}
    assert refused(wide) == ("TOO_MANY_CONDITIONS", ("definition", "any", "1", "all", "40"))
    assert refused({"all": [trait("EXISTS")] * 3}, Limits(leaves=2))[0] == "INVALID_VALUE"
    assert refused({"not": {"not": trait("EXISTS")}}, Limits(depth=2))[0] == "TOO_DEEP"


def test_what_was_stored_under_wider_limits_is_still_read() -> None:
    deep: dict[str, Any] = {"all": [trait("EXISTS")] * 101}
    for _ in range(10):
        deep = {"not": deep}
    assert to_json(read(deep)) == deep


def test_a_definition_nested_thousands_deep_is_refused_like_any_other() -> None:
    deep: dict[str, Any] = trait("EXISTS")
    for _ in range(100_000):
        deep = {"not": deep}
    assert refused(deep)[0] == "TOO_DEEP"


def test_a_simple_definition_is_the_same_json_under_one_all_or_any() -> None:
    """S2-02, S2-03."""
    items = [trait("EQUALS", "premium"), {"not": {"lastSeen": {"before": {"weeks": 2}}}}]
    assert to_json(parse_simple(MatchMode.ALL, items)) == {"all": items}
    assert to_json(parse_simple(MatchMode.ANY, items)) == {"any": items}


@pytest.mark.parametrize(
    ("items", "code", "path"),
    [
        ([], "INVALID_VALUE", ""),
        ([{"all": [trait("EXISTS")]}], "NOT_SIMPLE", "0"),
        ([trait("EXISTS"), {"not": {"any": [trait("EXISTS")]}}], "NOT_SIMPLE", "1"),
        ([{"not": {"not": trait("EXISTS")}}], "NOT_SIMPLE", "0"),
        ([trait("EXISTS"), trait("LIKE", "x")], "WRONG_OPERATOR", "1 trait operator"),
        ([trait("EXISTS")] * 11, "TOO_MANY_CONDITIONS", "10"),
    ],
)
def test_what_is_not_simple_is_refused(items: object, code: str, path: str) -> None:
    """S2-01: the 11th condition."""
    with pytest.raises(SegmentError) as refusal:
        parse_simple(MatchMode.ALL, items, field=("conditions",))
    assert (refusal.value.code, refusal.value.field) == (code, ("conditions", *path.split()))


def test_the_eleventh_condition_is_refused_with_what_to_do() -> None:
    """S2-01."""
    parse_simple(MatchMode.ANY, [trait("EXISTS")] * 10)
    with pytest.raises(SegmentError) as refusal:
        parse_simple(MatchMode.ANY, [trait("EXISTS")] * 11)
    assert refusal.value.message == (
        "A simple segment has at most 10 conditions, these are 11; remove some, or give a nested definition."
    )


def test_leaves_that_python_takes_for_equal_ask_different_questions() -> None:
    one, true = Trait("k", Operator.EQUALS, 1), Trait("k", Operator.EQUALS, True)
    assert one == true
    assert key(one) != key(true)
    assert key(Event("purchase")) == key(Event("purchase"))
