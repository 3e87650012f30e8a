"""The tree over its leaves' answers, with an engine of a few lines in memory."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product

from hypothesis import given, settings
from pyroaring import BitMap

from segments import tree
from segments.conditions import parse
from segments.nodes import Amount, Condition, Event, Operator, Total
from segments.tree import NodeSize
from tests.segments import oracle, strategies
from tests.segments.factories import Happened, Person

NOW = datetime(2026, 5, 1, tzinfo=UTC)
NOBODY_DID = Person()
PEOPLE = {
    1: Person(traits={"plan": "x", "score": 5}, last_seen_at=NOW - timedelta(hours=2)),
    2: Person(traits={"plan": True, "score": "5"}, events=[Happened("buy", NOW - timedelta(hours=3), {"score": 0.1})]),
    3: Person(traits={"plan": 1}, identified=False, events=[Happened("buy", NOW, {"score": -1})] * 2),
    4: NOBODY_DID,
    5: Person(events=[Happened("buy", NOW, {"score": 5}), Happened("buy", NOW, {"score": -5})]),
}
UNIVERSE = BitMap(PEOPLE)


def answers(condition: Condition) -> dict[str, BitMap]:
    """What an engine finds. It looks at events, so it must never be asked for those who have none."""
    asked = tree.questions(condition)
    for leaf in asked.values():
        assert not isinstance(leaf, Event) or not oracle.meets(leaf, NOBODY_DID, NOW)
    return {
        key: BitMap(id for id, person in PEOPLE.items() if oracle.meets(leaf, person, NOW))
        for key, leaf in asked.items()
    }


def members(condition: Condition) -> set[int]:
    return set(tree.combine(condition, answers(condition), UNIVERSE)[0])


def meant(condition: Condition) -> set[int]:
    return {id for id, person in PEOPLE.items() if oracle.meets(condition, person, NOW)}


@settings(max_examples=300, deadline=None)
@given(strategies.conditions)
def test_the_tree_means_what_its_parts_mean_together(condition: Condition) -> None:
    assert members(condition) == meant(condition)


def test_counts_and_sums_hold_for_those_without_events_as_for_zero() -> None:
    amounts = [Amount(operator, value) for operator, value in product(strategies.COMPARING, (0, 1, 2))]
    totals = [None, *(Total("score", Amount(a.operator, a.value - 1)) for a in amounts)]
    for count, total in product([None, *amounts], totals):
        event = Event("buy", count=count, total=total)
        assert members(event) == meant(event), event


def test_members_are_of_the_universe_only() -> None:
    condition = parse({"any": [{"trait": {"key": "plan", "operator": "EXISTS"}}, {"not": {"identified": True}}]})
    assert set(tree.combine(condition, answers(condition), BitMap([2, 4]))[0]) == {2}
    assert set(tree.combine(parse({"identified": True}), answers(parse({"identified": True})), BitMap())[0]) == set()


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
        NodeSize(("all", "1", "not"), 3),
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
        held = oracle.measures(Decimal(measure), amount)
        assert oracle.measures(Decimal(measure), tree.opposite(amount)) is not held
    assert tree.holds_for_none(Amount(Operator.LESS_THAN, 1))
