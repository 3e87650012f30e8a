"""The table of SMTP answers, as a pure function (delivery rules of RFC 5321, 3463, 4954)."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.base import Outcome, OutcomeKind, OutcomeScope
from channels.smtp_answers import Loss, Phase, classify, lost

K, S = OutcomeKind, OutcomeScope


@pytest.mark.parametrize(
    ("phase", "code", "text", "kind", "name", "scope"),
    [
        (Phase.FINAL, 250, "2.0.0 Ok: queued as 4bXyZ", K.ACCEPTED, "ACCEPTED", S.RECIPIENT),
        (Phase.RCPT, 450, "4.2.1 mailbox busy", K.DEFERRED, "TRY_LATER", S.RECIPIENT),
        (Phase.RCPT, 451, "greylisted, come back", K.DEFERRED, "TRY_LATER", S.RECIPIENT),
        (Phase.RCPT, 452, "4.5.3 too many recipients", K.DEFERRED, "TRY_LATER", S.RECIPIENT),
        (Phase.RCPT, 452, "4.3.1 disk full", K.DEFERRED, "TRY_LATER", S.HOST),
        (Phase.MAIL, 450, "4.7.1 slow down", K.DEFERRED, "TRY_LATER", S.HOST),
        (Phase.FINAL, 451, "4.7.0 try again later", K.DEFERRED, "TRY_LATER", S.RECIPIENT),
        (Phase.RCPT, 550, "5.1.1 no such user", K.REFUSED, "BAD_ADDRESS", S.RECIPIENT),
        (Phase.RCPT, 551, "5.1.6 moved", K.REFUSED, "BAD_ADDRESS", S.RECIPIENT),
        (Phase.RCPT, 556, "5.1.10 null MX", K.REFUSED, "BAD_ADDRESS", S.RECIPIENT),
        (Phase.FINAL, 550, "5.1.1 no such user", K.REFUSED, "BAD_ADDRESS", S.RECIPIENT),
        (Phase.RCPT, 550, "5.1.8 bad sender's domain", K.REFUSED, "REFUSED", S.RECIPIENT),
        (Phase.RCPT, 550, "no such user", K.REFUSED, "REFUSED", S.RECIPIENT),
        (Phase.RCPT, 552, "5.2.2 mailbox full", K.REFUSED, "MAILBOX_REFUSED", S.RECIPIENT),
        (Phase.RCPT, 552, "over quota", K.REFUSED, "MAILBOX_REFUSED", S.RECIPIENT),
        (Phase.RCPT, 554, "5.7.1 relaying denied", K.REFUSED, "POLICY", S.RECIPIENT),
        (Phase.FINAL, 550, "5.7.26 DMARC", K.REFUSED, "POLICY", S.RECIPIENT),
        (Phase.FINAL, 552, "too big", K.REFUSED, "MESSAGE_TOO_LARGE", S.CHANNEL),
        (Phase.FINAL, 554, "5.3.4 too big", K.REFUSED, "MESSAGE_TOO_LARGE", S.CHANNEL),
        (Phase.MAIL, 552, "too big", K.REFUSED, "MESSAGE_TOO_LARGE", S.CHANNEL),
        (Phase.MAIL, 553, "5.1.8 sender domain unknown", K.DEFERRED, "SENDER_REFUSED", S.CHANNEL),
        (Phase.AUTH, 535, "5.7.8 wrong password", K.DEFERRED, "AUTHENTICATION", S.CHANNEL),
        (Phase.MAIL, 530, "5.7.0 log in first", K.DEFERRED, "AUTHENTICATION", S.CHANNEL),
        (Phase.STARTTLS, 454, "4.7.0 no TLS now", K.DEFERRED, "AUTHENTICATION", S.CHANNEL),
        (Phase.BANNER, 554, "no service", K.DEFERRED, "HOST_UNAVAILABLE", S.HOST),
        (Phase.FINAL, 354, "again?", K.IN_DOUBT, "BAD_REPLY", S.RECIPIENT),
        (Phase.RCPT, 354, "what?", K.DEFERRED, "BAD_REPLY", S.RECIPIENT),
    ],
)
def test_an_answer_means_what_the_table_says(
    phase: Phase, code: int, text: str, kind: OutcomeKind, name: str, scope: OutcomeScope
) -> None:
    outcome = classify(phase, code, text)
    assert (outcome.kind, outcome.code, outcome.scope) == (kind, name, scope)
    assert outcome.bad_address == (name == "BAD_ADDRESS")


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("text", ["", "4.3.2 closing", "5.1.1 no such user", "try again in 60 seconds"])
def test_421_is_about_the_host_in_every_phase_and_never_suppresses(phase: Phase, text: str) -> None:
    outcome = classify(phase, 421, text)
    assert (outcome.kind, outcome.scope, outcome.bad_address) == (K.DEFERRED, S.HOST, False)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("loss", Loss)
def test_silence_is_in_doubt_after_the_final_dot_and_definite_before(phase: Phase, loss: Loss) -> None:
    assert lost(phase, loss).kind is (K.IN_DOUBT if phase is Phase.FINAL else K.DEFERRED)


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("4.7.1 try again in 300 seconds", timedelta(seconds=300)),
        ("4.7.1 Greylisted, retry in 5 minutes", timedelta(minutes=5)),
        ("wait 1 hour", timedelta(hours=1)),
        ("wait 900 hours", timedelta(hours=6)),
        ("4.2.1 later", None),
    ],
)
def test_a_wait_in_words_is_understood(text: str, wait: timedelta | None) -> None:
    for phase, code in ((Phase.RCPT, 450), (Phase.RCPT, 421), (Phase.BANNER, 421), (Phase.EHLO, 450)):
        assert classify(phase, code, text).retry_after == wait


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("2.0.0 Ok: queued as 4bXyZ", "4bXyZ"),
        ("OK id=1abc-2", "1abc-2"),
        ("2.0.0 Ok", None),
    ],
)
def test_the_provider_id_is_read_from_the_last_answer(text: str, id: str | None) -> None:
    assert classify(Phase.FINAL, 250, text).provider_id == id


@given(st.sampled_from(list(Phase)), st.integers(0, 999), st.text(max_size=800))
def test_any_answer_is_an_outcome_that_keeps_the_rules(phase: Phase, code: int, text: str) -> None:
    outcome: Outcome = classify(phase, code, text)
    assert not outcome.bad_address or (outcome.kind is K.REFUSED and outcome.scope is S.RECIPIENT)
    assert (outcome.kind is not K.ACCEPTED) or (phase is Phase.FINAL and 200 <= code < 300)
    assert (outcome.kind is not K.IN_DOUBT) or phase is Phase.FINAL
    assert outcome.kind is not K.REFUSED or 500 <= code < 600
    assert len(outcome.detail) <= 500
    assert outcome.detail.isprintable()


def test_a_detail_does_not_repeat_an_address() -> None:
    detail = classify(Phase.RCPT, 550, '5.1.1 <ann@example.com>: "ann@example.com" unknown').detail
    assert detail == "550 5.1.1 <(address)>: (address) unknown"
