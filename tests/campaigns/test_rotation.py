"""Rotation by weight (S3-14), as docs/rotation.md specifies it."""

import re
from fractions import Fraction
from math import sqrt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.rotation import Weighted, choose, draw, shares

DOCUMENT = Path(__file__).parents[2] / "docs" / "rotation.md"
IDS = [f"0192f0c100007000800000000000000{last}" for last in "abc"]

banners = st.lists(
    st.builds(Weighted, st.uuids().map(str), st.integers(0, 100)), max_size=8, unique_by=lambda one: one.id
)


def counted(eligible: list[Weighted], viewers: int, window: int = 7) -> dict[str | None, int]:
    found: dict[str | None, int] = {}
    for number in range(viewers):
        one = choose(eligible, viewer=f"viewer-{number}", placement="home-top", window=window)
        found[one] = found.get(one, 0) + 1
    return found


@pytest.mark.parametrize("weights", [(10, 10, 80), (1, 1, 1), (100, 1, 50)])
def test_banners_are_shown_in_proportion_to_their_weights(weights: tuple[int, ...]) -> None:
    """S3-14: 10/10/80 becomes 10 %, 10 %, 80 %. The bound is five standard deviations of a binomial draw."""
    viewers = 20_000
    eligible = [Weighted(id, weight) for id, weight in zip(IDS, weights, strict=True)]
    found = counted(eligible, viewers)
    for id, share in zip(IDS, shares(weights), strict=True):
        expected = viewers * float(share)
        assert abs(found[id] - expected) <= 5 * sqrt(expected * (1 - float(share)))


def test_shares_are_exact() -> None:
    assert shares([10, 10, 80]) == [Fraction(1, 10), Fraction(1, 10), Fraction(4, 5)]
    assert shares([1, 1, 1]) == [Fraction(1, 3)] * 3
    assert shares([0, 0]) == [0, 0]


@given(banners, st.text(max_size=20), st.integers(0, 10**6), st.data())
def test_taking_a_banner_away_moves_only_its_own_viewers(
    eligible: list[Weighted], viewer: str, window: int, data: st.DataObject
) -> None:
    shown = choose(eligible, viewer=viewer, placement="p", window=window)
    others = [one for one in eligible if one.id != shown]
    if others:
        gone = data.draw(st.sampled_from(others))
        rest = [one for one in eligible if one is not gone]
        assert choose(rest, viewer=viewer, placement="p", window=window) == shown


@given(banners, st.text(max_size=20), st.integers(0, 10**6))
def test_the_choice_does_not_depend_on_the_order(eligible: list[Weighted], viewer: str, window: int) -> None:
    shuffled = sorted(eligible, key=lambda one: one.id[::-1])
    first = choose(eligible, viewer=viewer, placement="p", window=window)
    assert choose(shuffled, viewer=viewer, placement="p", window=window) == first


@given(banners, st.text(max_size=20), st.integers(0, 10**6))
def test_a_banner_of_weight_0_is_never_shown(eligible: list[Weighted], viewer: str, window: int) -> None:
    shown = choose(eligible, viewer=viewer, placement="p", window=window)
    assert shown in {one.id for one in eligible if one.weight > 0} or (
        shown is None and all(one.weight == 0 for one in eligible)
    )


@given(banners, st.text(max_size=20))
def test_a_banner_that_gains_weight_keeps_its_viewers(eligible: list[Weighted], viewer: str) -> None:
    shown = choose(eligible, viewer=viewer, placement="p", window=0)
    heavier = [Weighted(one.id, one.weight + 5) if one.id == shown else one for one in eligible]
    assert choose(heavier, viewer=viewer, placement="p", window=0) == shown


def test_a_new_window_draws_anew() -> None:
    eligible = [Weighted(id, 1) for id in IDS]
    seen = {choose(eligible, viewer="anna", placement="p", window=window) for window in range(20)}
    assert seen == set(IDS)


def test_the_document_and_the_code_agree_on_every_test_vector() -> None:
    rows = re.findall(
        r"^\| (\S+) \| `(\S+)` \| (\d+) \| (\S+) \| (\S+) \| (\S+) \| ([abc]) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert len(rows) == 6
    eligible = [Weighted(id, weight) for id, weight in zip(IDS, (10, 10, 80), strict=True)]
    for written, placement, number, *draws, shown in rows:
        viewer, window = "" if written == "(empty)" else written.strip("`"), int(number)
        made = [draw(viewer=viewer, placement=placement, window=window, id=id) for id in IDS]
        assert made == [float(one) for one in draws]
        assert choose(eligible, viewer=viewer, placement=placement, window=window) == IDS["abc".index(shown)]
