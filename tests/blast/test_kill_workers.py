"""The kill tests of `make kill-test` in their short form: workers that die, stop and come back."""

from killtest.audit import Verdict
from killtest.running import run_one
from killtest.yard import Yard


def kept(verdict: Verdict) -> bool:
    """Whether the test found no breach, and nobody who got two mails or none."""
    assert verdict.breaches == []
    return (verdict.duplicates, verdict.lost) == (0, 0)


def test_workers_that_are_killed_lose_nobody_and_mail_nobody_twice(yard: Yard) -> None:
    """T-1, S3-22: one of the kills comes while the ledger is written; the rows in doubt are settled by evidence."""
    verdict = run_one(yard, "T-1", short=True)
    assert kept(verdict)
    assert verdict.in_doubt <= verdict.bound == 2 * 64
    assert (verdict.more["kills"], verdict.more["preparing"]) == (2, 1)


def test_workers_that_are_stopped_in_turn_leave_nothing_in_doubt(yard: Yard) -> None:
    """T-2, R9: SIGTERM, as a deployment sends it."""
    verdict = run_one(yard, "T-2", short=True)
    assert kept(verdict)
    assert verdict.in_doubt == 0


def test_the_rows_of_a_killed_worker_are_taken_over(yard: Yard) -> None:
    """T-5: within 45 s, here with a lease of 5 s."""
    verdict = run_one(yard, "T-5", short=True)
    assert kept(verdict)
    assert verdict.more["held"] > 0


def test_a_worker_that_was_stopped_sends_nothing_that_it_had_only_read(yard: Yard) -> None:
    """T-6: SIGSTOP beyond its lease, others finish, SIGCONT."""
    verdict = run_one(yard, "T-6", short=True)
    assert kept(verdict)
    assert verdict.more["read_when_stopped"] > 0
