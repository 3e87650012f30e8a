"""The kill test of push notifications in its short form; `make kill-test` has the others, P-2, P-3 and P-6."""

from killtest.running import run_one
from killtest.yard import Yard


def test_workers_that_are_killed_have_no_phone_show_a_notification_twice(yard: Yard) -> None:
    """T-1 for push: nothing is lost, and what is in doubt goes again under the tag that it had."""
    verdict = run_one(yard, "P-1", short=True)
    assert verdict.breaches == []
    assert (verdict.duplicates, verdict.lost, verdict.in_doubt) == (0, 0, 0)
    assert (verdict.more["kills"], verdict.more["preparing"]) == (2, 1)
