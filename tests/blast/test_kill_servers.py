"""The kill tests of `make kill-test` in their short form: servers that go away under a blast."""

from killtest.running import run_one
from killtest.yard import Yard


def test_restarts_of_postgresql_lose_nobody_and_mail_nobody_twice(yard: Yard) -> None:
    """T-3: a fast stop and an immediate one."""
    verdict = run_one(yard, "T-3", short=True)
    assert verdict.breaches == []
    assert (verdict.duplicates, verdict.lost, verdict.more["restarts"]) == (0, 0, 2)


def test_a_valkey_that_forgets_and_restarts_loses_nothing(yard: Yard) -> None:
    """T-4: FLUSHALL and five seconds without Valkey, with a schedule that falls due meanwhile."""
    verdict = run_one(yard, "T-4", short=True)
    assert verdict.breaches == []
    assert (verdict.duplicates, verdict.lost, verdict.in_doubt) == (0, 0, 0)
    assert verdict.more["mails_meanwhile"] > 0
