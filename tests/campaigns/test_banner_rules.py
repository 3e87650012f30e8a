"""Priorities, holdouts and limits of banners: what they may be, and who is held out."""

from math import sqrt
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.banner_rules import PLAIN, UNLIMITED, UNTIL_DISMISSED, BannerRules, Limits, is_held_out
from campaigns.errors import CampaignError

CAMPAIGN = str(UUID(int=7))


@given(
    st.builds(
        BannerRules,
        st.integers(0, 100),
        st.integers(0, 100),
        st.builds(Limits, st.none() | st.integers(1, 9), st.none(), st.integers(1, 9), st.booleans(), st.booleans()),
    )
)
def test_rules_are_kept_and_read_again(rules: BannerRules) -> None:
    rules.check()
    assert BannerRules.from_json(rules.to_json()) == rules
    assert Limits.from_json(rules.limits.to_json()) == rules.limits


def test_a_banner_without_rules_stops_when_it_is_dismissed_and_a_placement_does_not() -> None:
    assert BannerRules.from_json({}) == PLAIN == BannerRules(0, 0, UNTIL_DISMISSED)
    assert Limits.from_json({}) == UNLIMITED


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        (BannerRules(priority=-1), ("priority",)),
        (BannerRules(priority=101), ("priority",)),
        (BannerRules(holdout_percent=101), ("holdout_percent",)),
        (BannerRules(limits=Limits(per_session=0)), ("limits", "per_session")),
        (BannerRules(limits=Limits(per_day=10_001)), ("limits", "per_day")),
        (BannerRules(limits=Limits(lifetime=-1)), ("limits", "lifetime")),
    ],
)
def test_rules_that_mean_nothing_are_refused_at_their_field(rules: BannerRules, path: tuple[str, ...]) -> None:
    with pytest.raises(CampaignError) as refusal:
        rules.check()
    assert (refusal.value.code, refusal.value.field) == ("OUT_OF_RANGE", ("rules", *path))


@pytest.mark.parametrize("percent", [5, 50, 95])
def test_so_many_of_the_viewers_are_held_out(percent: int) -> None:
    """The bound is five standard deviations of a binomial draw."""
    viewers, rules = 20_000, BannerRules(holdout_percent=percent)
    held = sum(is_held_out(rules, viewer=f"viewer-{number}", campaign_id=CAMPAIGN) for number in range(viewers))
    expected = viewers * percent / 100
    assert abs(held - expected) <= 5 * sqrt(expected * (1 - percent / 100))


@given(st.text(max_size=20), st.integers(0, 100), st.integers(0, 100))
def test_a_larger_holdout_holds_out_those_of_a_smaller_one(viewer: str, one: int, other: int) -> None:
    small, large = BannerRules(holdout_percent=min(one, other)), BannerRules(holdout_percent=max(one, other))
    if is_held_out(small, viewer=viewer, campaign_id=CAMPAIGN):
        assert is_held_out(large, viewer=viewer, campaign_id=CAMPAIGN)
    assert not is_held_out(PLAIN, viewer=viewer, campaign_id=CAMPAIGN)
    assert is_held_out(BannerRules(holdout_percent=100), viewer=viewer, campaign_id=CAMPAIGN)


def test_holdouts_of_two_campaigns_are_of_different_people() -> None:
    rules = BannerRules(holdout_percent=50)
    both = [
        tuple(is_held_out(rules, viewer=f"viewer-{n}", campaign_id=str(UUID(int=one))) for one in (7, 8))
        for n in range(4_000)
    ]
    for pair in ((False, False), (False, True), (True, False), (True, True)):
        assert abs(both.count(pair) - 1_000) <= 5 * sqrt(4_000 * 0.25 * 0.75)
