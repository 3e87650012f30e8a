"""The kill tests of `make kill-test` in their short form: people, clocks and segments that move during a blast."""

from killtest.running import run_one
from killtest.steering import SKEWS_S
from killtest.yard import Yard


def test_after_a_pause_or_a_cancel_no_more_leaves_than_was_under_way(yard: Yard) -> None:
    """T-7: through the API, at random."""
    verdict = run_one(yard, "T-7", short=True)
    assert verdict.breaches == []
    assert (verdict.duplicates, verdict.lost, verdict.in_doubt) == (0, 0, 0)
    assert verdict.more["cancelled"] > 0


def test_four_schedulers_with_wrong_clocks_start_a_campaign_once_and_on_time(yard: Yard) -> None:
    """T-8: up to five minutes off, and campaigns found late do what their policy says."""
    verdict = run_one(yard, "T-8", short=True)
    assert verdict.breaches == []
    assert verdict.more["clocks_off_by_s"] == list(SKEWS_S)
    assert verdict.more["missed"] == {"SEND": "SENT", "SKIP": "CANCELLED", "HOLD": "PAUSED"}


def test_a_blast_goes_to_the_segment_as_it_was_without_those_who_left_us(yard: Yard) -> None:
    """T-9: members join and leave, unsubscribe and are erased meanwhile."""
    verdict = run_one(yard, "T-9", short=True)
    assert verdict.breaches == []
    assert (verdict.duplicates, verdict.lost, verdict.in_doubt) == (0, 0, 0)
    assert verdict.more["skipped"] >= verdict.more["gone_before_intent"] > 0
