"""The comparison of ledger and record must find what it is there for."""

from killtest.audit import Comparison, Row, Verdict, compare
from killtest.sink import Arrival

ADDRESSES = {1: "one@example.com", 2: "two@example.com", 3: "three@example.com"}


def mail(number: int, to: str) -> Arrival:
    return Arrival(f"<{number}>", to, 0.0, 0)


def row(number: int, state: str, reason: str | None = None) -> Row:
    return Row(number, state, reason, f"<{number}>")


def test_ledger_and_record_that_agree_give_nothing_to_complain_about() -> None:
    rows = [row(1, "sent"), row(2, "in_doubt"), row(3, "in_doubt")]
    record = [mail(1, "one@example.com"), mail(2, "two@example.com")]
    found = compare(rows, record, ADDRESSES, ADDRESSES)
    assert found == Comparison(0, (), (), (), (), (rows[1], rows[2]), frozenset([1, 2]))


def test_a_second_mail_to_somebody_is_a_duplicate_under_whatever_message_id() -> None:
    record = [mail(1, "one@example.com"), mail(1, "one@example.com"), Arrival("<other>", "one@example.com", 0.0, 0)]
    found = compare([row(1, "sent")], record, ADDRESSES, [1])
    assert found.duplicates == 2
    assert found.strays == ("<other>: in the record, not in the ledger",)


def test_who_was_sent_nothing_or_is_unknown_to_the_ledger_is_lost() -> None:
    found = compare([row(1, "sent"), row(2, "pending")], [], ADDRESSES, ADDRESSES)
    assert found.lost == ("<1>: sent, not in the record", "profile 2: pending at the end", "profile 3: no row")


def test_a_mail_to_somebody_else_and_one_that_was_skipped_are_strays() -> None:
    record = [mail(1, "two@example.com"), mail(3, "three@example.com")]
    found = compare([row(1, "sent"), row(3, "skipped", "UNSUBSCRIBED")], record, ADDRESSES, [1, 3])
    assert found.strays == ("<1>: in the record, not in the ledger", "<3>: in the record, skipped in the ledger")


def test_a_verdict_with_a_breach_is_not_ok() -> None:
    verdict = Verdict("T-0", recipients=2)
    verdict.count(compare([row(1, "failed", "REFUSED"), row(2, "skipped", "UNSUBSCRIBED")], [], ADDRESSES, [1, 2]))
    assert (verdict.lost, verdict.ok) == (1, False)
    assert '"ok": false' in verdict.line()
