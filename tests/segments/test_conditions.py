"""Conditions as JSON: what is read, what is refused and where, and what they say."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from segments import conditions
from segments.conditions import parse, summary, to_json
from segments.errors import SegmentError
from segments.nodes import Condition, Event, Operator, Trait, key
from tests.segments import strategies


def trait(operator: str, value: Any = None, **more: Any) -> dict[str, Any]:
    return {"trait": {"key": "k", "operator": operator} | ({} if value is None else {"value": value}) | more}


def event(**parts: Any) -> dict[str, Any]:
    return {"event": {"name": "purchase"} | parts}


def refused(json: object, **limits: int) -> tuple[str, tuple[str, ...]]:
    """(code, field) of the refusal."""
    with pytest.raises(SegmentError) as refusal:
        parse(json, field=("definition",), **limits)
    assert refusal.value.message.endswith((".", '"."'))
    return refusal.value.code, refusal.value.field


def within_depth(condition: Condition) -> bool:
    return depth_of(to_json(condition)) <= conditions.DEPTH


def depth_of(json: Any) -> int:
    match json:
        case {"all": list(items)} | {"any": list(items)}:
            return 1 + max(depth_of(item) for item in items)
        case {"not": item}:
            return 1 + depth_of(item)
        case _:
            return 1


@settings(max_examples=300, deadline=None)
@given(strategies.conditions.filter(within_depth))
def test_what_is_written_reads_back_as_the_same(condition: Condition) -> None:
    json = to_json(condition)
    stored = orjson.loads(orjson.dumps(json))
    assert orjson.dumps(to_json(parse(stored))) == orjson.dumps(json)
    assert parse(stored) == condition


@settings(max_examples=200, deadline=None)
@given(strategies.conditions)
def test_every_condition_can_be_said_in_one_sentence(condition: Condition) -> None:
    said = summary(condition)
    assert said.endswith(".")
    assert said[0] == said[0].upper()


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
        (trait("EQUALS", 2**63), "INVALID_VALUE", "trait value"),
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
        ({"lastSeen": {"within": {"days": 1}, "before": {"days": 1}}}, "INVALID_CONDITION", "lastSeen"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_where_it_is(json: object, code: str, path: str) -> None:
    assert refused(json) == (code, ("definition", *path.split()))


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        *[(operator, "text") for operator in ("GREATER_THAN", "GREATER_OR_EQUAL", "LESS_THAN", "LESS_OR_EQUAL")],
        *[(operator, 5) for operator in ("CONTAINS", "STARTS_WITH", "ENDS_WITH")],
        *[(operator, True) for operator in ("GREATER_THAN", "LESS_OR_EQUAL", "CONTAINS")],
    ],
)
def test_an_operator_that_does_not_fit_the_type_is_refused(operator: str, value: object) -> None:
    """S2-20."""
    assert refused(trait(operator, value)) == ("WRONG_OPERATOR", ("definition", "trait", "operator"))


def test_depth_and_leaves_are_limited() -> None:
    deep: dict[str, Any] = trait("EXISTS")
    for _ in range(7):
        deep = {"not": deep}
    parse(deep)
    assert refused({"not": deep}) == ("TOO_DEEP", ("definition", *["not"] * 8))
    parse({"any": [trait("EXISTS")] * 100})
    wide = {"any": [{"all": [trait("EXISTS")] * 60}, {"all": [trait("EXISTS")] * 41}]}
    assert refused(wide) == ("TOO_MANY_CONDITIONS", ("definition", "any", "1", "all", "40"))
    assert refused({"all": [trait("EXISTS")] * 3}, leaves=2)[0] == "INVALID_VALUE"


def test_a_definition_nested_thousands_deep_is_refused_like_any_other() -> None:
    deep: dict[str, Any] = trait("EXISTS")
    for _ in range(100_000):
        deep = {"not": deep}
    assert refused(deep)[0] == "TOO_DEEP"


def test_leaves_that_python_takes_for_equal_ask_different_questions() -> None:
    one, true = Trait("k", Operator.EQUALS, 1), Trait("k", Operator.EQUALS, True)
    assert one == true
    assert key(one) != key(true)
    assert key(Event("purchase")) == key(Event("purchase"))


@pytest.mark.parametrize(
    ("json", "said"),
    [
        (
            {"all": [
                event(count={"operator": "GREATER_OR_EQUAL", "value": 3}, within={"days": 180}),
                {"not": {"lastSeen": {"within": {"weeks": 1}}}},
            ]},
            "Performed purchase at least 3 times in the last 180 days, and not last seen in the last week.",
        ),
        (
            {"any": [trait("EQUALS", "premium"), {"all": [trait("BETWEEN", [1, 2]), {"identified": False}]}]},
            'Trait k is "premium", or (trait k is between 1 and 2 and anonymous).',
        ),
        (event(never=True, before={"days": 1}), "Never performed purchase more than 1 day ago."),
        (
            event(
                sum={"property": "value", "operator": "LESS_THAN", "value": 100},
                where=[{"property": "web", "operator": "EQUALS", "value": True}],
            ),
            "Performed purchase where web is true with value amounting to less than 100.",
        ),
        (
            {"not": {"any": [{"identified": True}, trait("IN", list("abcdefg"))]}},
            'Not (identified or trait k is one of "a", "b", "c", "d", "e" or 2 more).',
        ),
    ],
)  # fmt: skip
def test_a_condition_is_said_in_plain_english(json: object, said: str) -> None:
    assert summary(parse(json)) == said
