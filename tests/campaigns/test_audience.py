"""Included minus excluded, with merged profiles standing as their winners."""

from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from campaigns.audience import merged

IDS = st.integers(0, 50)


def test_a_merged_profile_stands_as_its_winner_through_any_number_of_merges() -> None:
    assert merged(BitMap([1, 5, 9]), {1: 2, 2: 3}) == BitMap([3, 5, 9])


def test_a_circle_of_merges_ends() -> None:
    assert len(merged(BitMap([1]), {1: 2, 2: 1})) == 1


@given(ids=st.sets(IDS), winners=st.dictionaries(IDS, IDS))
def test_no_loser_whose_winner_lives_is_left(ids: set[int], winners: dict[int, int]) -> None:
    straight = {loser: winner + 100 for loser, winner in winners.items()}
    result = merged(BitMap(ids), straight)
    assert not result & BitMap(straight)
    assert len(result) <= len(ids)
    assert result == BitMap(straight.get(one, one) for one in ids)
