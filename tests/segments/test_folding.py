"""Counting who is how often among ids, against plain counting."""

from array import array
from collections import Counter
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from segments.engines import folding
from segments.nodes import Amount
from tests.segments import oracle, strategies

# Few enough people that many of them are in one slice again and again, and in many slices.
IDS = st.lists(st.integers(min_value=1, max_value=60) | st.just(2**31 - 1), max_size=3 * folding.SLICE)
AMOUNTS = st.builds(
    Amount,
    st.sampled_from(strategies.COMPARING),
    st.integers(min_value=-1, max_value=folding.MOST_COUNTED - 1) | st.sampled_from([0.5, 2.5, -0.5, 7.5]),
)


@settings(max_examples=500, deadline=None)
@given(ids=IDS, amount=AMOUNTS)
def test_as_often_means_what_counting_one_by_one_means(ids: list[int], amount: Amount) -> None:
    counted = Counter(ids)
    assert folding.may_fold(amount)
    found = folding.as_often(array("I", ids), amount)
    assert set(found) == {id for id, times in counted.items() if oracle.measures(Fraction(times), amount)}


def test_large_counts_are_left_to_the_database() -> None:
    """Each number up to the limit is a bitmap of its own."""
    for operator in strategies.COMPARING:
        assert not folding.may_fold(Amount(operator, folding.MOST_COUNTED))
        assert not folding.may_fold(Amount(operator, 10**40))


@settings(max_examples=200, deadline=None)
@given(ids=IDS)
def test_layers_are_of_those_who_are_there_so_often_or_more(ids: list[int]) -> None:
    counted = Counter(ids)
    for times, layer in enumerate(folding.layers(array("I", ids), 4), start=1):
        assert set(layer) == {id for id, found in counted.items() if found >= times}
