"""Random buckets: even, independent between salts, and the same for ever."""

from collections import Counter
from functools import cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments.tree import BUCKETS, MASK, bucket, mix, salt_seeds

PEOPLE = range(1, 50_001)


@pytest.mark.parametrize(
    ("profile_id", "salt", "expected"),
    [
        (1, "experiment-7", 2352),
        (2, "experiment-7", 2597),
        (2**31 - 1, "experiment-7", 6905),
        (1, "", 4548),
        (1, "é", 5510),
    ],
)
def test_a_bucket_is_for_ever(profile_id: int, salt: str, expected: int) -> None:
    assert bucket(profile_id, salt) == expected


@given(st.integers(0, MASK), st.integers(0, MASK))
def test_mixing_loses_nothing_and_stays_within_32_bits(one: int, other: int) -> None:
    assert 0 <= mix(one) <= MASK
    assert (mix(one) == mix(other)) is (one == other)


def chi_squared(observed: Counter[int] | Counter[tuple[int, int]], cells: int) -> float:
    """How far counts in `cells` are from even; about `cells` for chance."""
    expected = observed.total() / cells
    return sum((count - expected) ** 2 / expected for count in observed.values()) + (cells - len(observed)) * expected


@cache
def drawn(salt: str) -> list[int]:
    """The bucket of everybody, in the order of ids."""
    return [bucket(id, salt) for id in PEOPLE]


@pytest.mark.parametrize("salt", ["a", "b", "experiment-7", "ключ", ""])
def test_people_with_ids_in_a_row_are_spread_evenly(salt: str) -> None:
    """Chi squared of 100 cells has a mean of 99 and a deviation of 14; the figures are fixed, so 5 deviations."""
    assert chi_squared(Counter(one // 100 for one in drawn(salt)), 100) < 99 + 5 * 14
    assert chi_squared(Counter(one % 100 for one in drawn(salt)), 100) < 99 + 5 * 14


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("experiment-7", "experiment-8"), ("", " "), ("a", "aa")])
def test_two_salts_draw_independently(one: str, other: str) -> None:
    pairs = Counter((first // 1000, second // 1000) for first, second in zip(drawn(one), drawn(other), strict=True))
    assert chi_squared(pairs, 100) < 99 + 5 * 14


def test_the_bucket_is_what_sql_makes_with_integers_of_64_bits() -> None:
    """No intermediate result needs more than 63 bits."""
    assert (MASK * 0x45D9F3B).bit_length() <= 63
    assert all(0 <= seed <= MASK for seed in salt_seeds("x"))
    assert all(0 <= bucket(id, salt) < BUCKETS for id, salt in product((0, 1, 2**31 - 1), ("", "x")))
