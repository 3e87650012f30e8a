"""The tree over its leaves' answers, with an engine of a few lines in memory."""

from datetime import timedelta
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from segments import tree
from segments.canonical import key, to_json
from segments.conditions import parse
from segments.nodes import (
    PAGE_VIEW,
    Aggregate,
    Amount,
    Condition,
    ContextField,
    ContextTest,
    Event,
    Leaf,
    Operator,
    Page,
    Sessions,
    Total,
)
from segments.tree import Census, NodeSize
from tests.segments import oracle, strategies
from tests.segments.people import Happened, Person
from tests.segments.strategies import NOW

NOBODY_DID = Person()
PEOPLE = {
    1: Person(traits={"plan": "x", "score": 5}, last_seen_at=NOW - timedelta(hours=2)),
    2: Person(traits={"plan": True, "score": "5"}, events=[Happened("buy", NOW - timedelta(hours=3), {"score": 0.1})]),
    3: Person(traits={"plan": 1}, identified=False, events=[Happened("buy", NOW, {"score": -1}, session_id="s")] * 2),
    4: NOBODY_DID,
    5: Person(
        events=[
            Happened("buy", NOW, {"score": 5}, session_id="s"),
            Happened("buy", NOW, {"score": -5}, session_id="t"),
            Happened(PAGE_VIEW, NOW, page_path="/a"),
        ]
    ),
    6: Person(events=[Happened("buy", NOW, {"score": "5"}), Happened(PAGE_VIEW, NOW, page_path="/b")]),
}
UNIVERSE = BitMap(PEOPLE)


def answers(condition: Condition, people: dict[int, Person] = PEOPLE) -> dict[str, BitMap]:
    """What an engine finds. It looks at events, so it must never be asked for those who have none."""
    asked = tree.questions(condition)
    for leaf in asked.values():
        assert not isinstance(leaf, Event | Sessions) or not oracle.meets(leaf, 4, NOBODY_DID, NOW)
    return {
        key: BitMap(id for id, person in people.items() if oracle.meets(leaf, id, person, NOW))
        for key, leaf in asked.items()
    }


def members(condition: Condition, people: dict[int, Person] = PEOPLE) -> set[int]:
    return set(tree.combine(condition, answers(condition, people), BitMap(people))[0])


def meant(condition: Condition, people: dict[int, Person] = PEOPLE) -> set[int]:
    return {id for id, person in people.items() if oracle.meets(condition, id, person, NOW)}


@settings(max_examples=300, deadline=None)
@given(strategies.conditions, st.lists(strategies.people, max_size=4))
def test_the_tree_means_what_its_parts_mean_together(condition: Condition, others: list[Person]) -> None:
    people = PEOPLE | dict(enumerate(others, start=7))
    assert members(condition, people) == meant(condition, people)


AMOUNTS = [Amount(operator, value) for operator, value in product(strategies.COMPARING, (0, 1, 2))]


def test_counts_and_sums_hold_for_those_without_events_as_for_zero() -> None:
    sums = [None, *(Total(Aggregate.SUM, "score", Amount(one.operator, one.value - 1)) for one in AMOUNTS)]
    for count, total in product([None, *AMOUNTS], sums):
        event = Event("buy", count=count, totals=(total,) if total else ())
        assert members(event) == meant(event), event


def test_averages_and_extremes_hold_for_nobody_without_a_number() -> None:
    others = [Aggregate.AVG, Aggregate.MIN, Aggregate.MAX]
    for aggregate, amount, count in product(others, AMOUNTS, [None, Amount(Operator.LESS_THAN, 3)]):
        event = Event(
            "buy", count=count, totals=(Total(aggregate, "score", Amount(amount.operator, amount.value - 1)),)
        )
        assert members(event) == meant(event), event
        assert not members(event) & {1, 4, 6}


def test_sessions_and_pages_are_counted_from_zero() -> None:
    for count in AMOUNTS:
        for leaf in (Sessions(count), Page(Operator.STARTS_WITH, "/a", count)):
            assert members(leaf) == meant(leaf), leaf


@pytest.mark.parametrize(
    ("leaf", "asked"),
    [
        ({"event": {"name": "buy"}}, [Event("buy")]),
        ({"event": {"name": "buy", "never": True}}, [Event("buy")]),
        (
            {"event": {"name": "buy", "count": {"operator": "LESS_THAN", "value": 3}}},
            [Event("buy", count=Amount(Operator.GREATER_OR_EQUAL, 3))],
        ),
        (
            {"sessions": {"count": {"operator": "EQUALS", "value": 0}}},
            [Sessions(Amount(Operator.NOT_EQUALS, 0))],
        ),
        (
            {"page": {"path": {"operator": "EQUALS", "value": "/a"}, "never": True}},
            [Event(PAGE_VIEW, context=(ContextTest(ContextField.PAGE_PATH, Operator.EQUALS, "/a"),))],
        ),
    ],
)
def test_what_holds_for_those_without_events_is_asked_by_its_opposite(leaf: object, asked: list[Leaf]) -> None:
    assert tree.questions(parse(leaf)) == {key(one): one for one in asked}


def test_an_event_stays_one_question_when_one_of_its_measures_needs_an_event() -> None:
    """Fewer questions: the engine groups its events once."""
    below = {"operator": "LESS_THAN", "value": 3}
    together = {
        "event": {"name": "buy", "count": below, "avg": {"property": "score", "operator": "EQUALS", "value": 0}}
    }
    assert [to_json(one) for one in tree.questions(parse(together)).values()] == [together]
    apart = {"event": {"name": "buy", "count": below, "sum": {"property": "score", **below}}}
    above = {"operator": "GREATER_OR_EQUAL", "value": 3}
    assert [to_json(one) for one in tree.questions(parse(apart)).values()] == [
        {"event": {"name": "buy", "count": above}},
        {"event": {"name": "buy", "sum": {"property": "score", **above}}},
    ]


def test_a_score_is_asked_by_its_traits() -> None:
    condition = parse({"score": {"of": "PERSONA", "codes": ["cto"], "atLeast": 60}})
    assert [to_json(one) for one in tree.questions(condition).values()] == [
        {"trait": {"key": "persona_code", "operator": "IN", "value": ["cto"]}},
        {"trait": {"key": "persona_score", "operator": "GREATER_OR_EQUAL", "value": 60}},
    ]
    same = {"trait": {"key": "persona_score", "operator": "GREATER_OR_EQUAL", "value": 60}}
    assert len(tree.questions(parse({"any": [same, {"score": {"of": "PERSONA", "atLeast": 60.0}}]}))) == 1


def test_what_engines_do_not_answer_passes_through() -> None:
    id = "0198c0de-0000-7000-8000-000000000001"
    for leaf in ({"inSegment": id}, {"savedQuery": id}, {"campaign": {"did": "OPENED"}}):
        (asked,) = tree.questions(parse({"not": leaf})).values()
        assert to_json(asked) == leaf


def test_members_are_of_the_universe_only() -> None:
    condition = parse({"any": [{"trait": {"key": "plan", "operator": "EXISTS"}}, {"not": {"identified": True}}]})
    assert set(tree.combine(condition, answers(condition), BitMap([2, 4]))[0]) == {2}
    assert set(tree.combine(parse({"identified": True}), answers(parse({"identified": True})), BitMap())[0]) == set()


@settings(max_examples=500, deadline=None)
@given(strategies.conditions, st.lists(strategies.people, max_size=4), st.sets(st.sampled_from(sorted(PEOPLE))))
def test_a_counted_universe_gives_what_a_listed_one_gives(
    condition: Condition, others: list[Person], gone: set[int]
) -> None:
    """But for whoever is everybody but some: that takes the list, and the plan says so."""
    people = PEOPLE | dict(enumerate(others, start=7))
    universe = BitMap(people.keys() - gone)
    plan = tree.plan(condition)
    listed = plan.combine(answers(condition, people), universe)
    assert set(listed[0]) == meant(condition, people) - gone
    if not plan.lists_everybody:
        size = len(universe) if plan.counts_everybody else 0
        assert plan.combine(answers(condition, people), Census(BitMap(gone), size)) == listed


def test_everybody_is_listed_or_counted_for_those_conditions_only_that_say_so() -> None:
    bought = {"event": {"name": "buy"}}
    rarely = {"event": {"name": "buy", "count": {"operator": "LESS_THAN", "value": 3}}}
    for definition, listed, counted in (
        (bought, False, False),
        ({"all": [bought, {"identified": True}]}, False, False),
        ({"all": [bought, {"not": {"identified": True}}]}, False, True),
        ({"all": [bought, rarely]}, False, True),
        ({"any": [bought, rarely]}, True, True),
        ({"not": {"not": bought}}, False, True),
        ({"not": {"any": [bought, {"not": {"identified": True}}]}}, False, True),
        ({"all": [{"not": bought}, {"not": {"identified": True}}]}, True, True),
    ):
        plan = tree.plan(parse(definition))
        assert (plan.lists_everybody, plan.counts_everybody) == (listed, counted), definition


def test_the_size_of_every_node_is_told_in_reading_order() -> None:
    condition = parse(
        {"all": [
            {"any": [{"trait": {"key": "plan", "operator": "EXISTS"}}, {"identified": False}]},
            {"not": {"event": {"name": "buy", "count": {"operator": "LESS_THAN", "value": 2}}}},
        ]}
    )  # fmt: skip
    found, sizes = tree.combine(condition, answers(condition), UNIVERSE)
    assert set(found) == {3}
    assert sizes == [
        NodeSize((), 1),
        NodeSize(("all", "0"), 3),
        NodeSize(("all", "0", "any", "0"), 3),
        NodeSize(("all", "0", "any", "1"), 1),
        NodeSize(("all", "1"), 2),
        NodeSize(("all", "1", "not"), 4),
    ]


def test_equal_leaves_are_asked_once_and_leaves_equal_to_python_only_apart() -> None:
    same = {"trait": {"key": "plan", "operator": "EQUALS", "value": "x"}}
    assert len(tree.questions(parse({"any": [same, {"not": same}, {"all": [same]}]}))) == 1
    one, true = ({"trait": {"key": "plan", "operator": "EQUALS", "value": value}} for value in (1, True))
    condition = parse({"all": [one, {"not": true}]})
    assert len(tree.questions(condition)) == 2
    assert members(condition) == {3}


def test_never_and_performed_share_one_question() -> None:
    never = {"event": {"name": "buy", "never": True}}
    assert len(tree.questions(parse({"any": [never, {"event": {"name": "buy"}}]}))) == 1


def test_what_was_given_is_not_changed() -> None:
    condition = parse({"all": [{"identified": True}, {"not": {"identified": True}}]})
    found, universe = answers(condition), BitMap(UNIVERSE)
    before = {key: BitMap(ids) for key, ids in found.items()}
    result, _ = tree.combine(parse({"identified": True}), found, universe)
    result.clear()
    tree.combine(condition, found, universe)
    assert (found, universe) == (before, UNIVERSE)


def test_every_comparison_of_an_amount_has_its_opposite() -> None:
    for operator, value, measure in product(strategies.COMPARING, (-1, 0, 1), (-1, 0, 1)):
        amount = Amount(operator, value)
        held = oracle.measures(Fraction(measure), amount)
        assert oracle.measures(Fraction(measure), tree.opposite(amount)) is not held
    assert tree.holds_for_none(Amount(Operator.LESS_THAN, 1))
