"""Guesses about who opened a mail or followed a link."""

from datetime import UTC, datetime, timedelta

import pytest

from campaigns.machines import MOST_RESPONSES, Judgement, Response, Visit, judge

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = AT - timedelta(hours=1)
SECOND = timedelta(seconds=1)
BROWSER = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile/15E148"
PERSON = Visit("GET", BROWSER)
NEW = Judgement(is_by_machine=False, is_new=True, also_by_machine=())


@pytest.mark.parametrize(
    ("visit", "by_program"),
    [
        (PERSON, False),
        (
            Visit("GET", "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"),
            False,
        ),
        (Visit("GET", "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"), False),
        (Visit("GET", "Mozilla/4.0 (compatible; ms-office; MSOffice 16)"), False),
        (Visit("GET", "Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 20) AppleWebKit/537.36 Chrome/96.0 Mobile"), False),
        (Visit("GET", "okhttp/4.12.0"), False),
        (Visit("HEAD", BROWSER), True),
        (Visit("GET", BROWSER, "prefetch;prerender"), True),
        (Visit("GET", BROWSER, "Prefetch"), True),
        (Visit("GET", ""), True),
        (Visit("GET", " Mozilla/5.0 "), True),
        (Visit("GET", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"), True),
        (Visit("GET", "Mozilla/5.0 (compatible; proofpoint-urldefense)"), True),
        (Visit("GET", "curl/8.5.0"), True),
        (Visit("GET", "python-requests/2.32"), True),
    ],
)
def test_programs_say_who_they_are(visit: Visit, by_program: bool) -> None:
    assert visit.is_by_program is by_program
    assert judge(visit, link_id=1, at=AT, sent_at=LONG_AGO, earlier=[]).is_by_machine is by_program


@pytest.mark.parametrize(
    ("sent_at", "by_machine"), [(None, True), (AT, True), (AT - 2 * SECOND, False), (AT + SECOND, True)]
)
def test_nobody_answers_a_mail_that_has_just_left(sent_at: datetime | None, by_machine: bool) -> None:
    assert judge(PERSON, link_id=1, at=AT, sent_at=sent_at, earlier=[]).is_by_machine is by_machine


def test_two_links_in_one_second_are_a_machines_the_first_one_too() -> None:
    earlier = [
        Response(7, 2, AT - SECOND, False),
        Response(8, 3, AT - SECOND / 2, True),
        Response(9, 4, AT - 2 * SECOND, False),
        Response(10, 1, AT - 30 * SECOND, False),
    ]
    assert judge(PERSON, link_id=1, at=AT, sent_at=LONG_AGO, earlier=earlier) == Judgement(True, True, (7,))
    assert judge(PERSON, link_id=1, at=AT, sent_at=LONG_AGO, earlier=earlier[2:]) == NEW


def test_the_same_again_within_ten_seconds_is_the_same() -> None:
    earlier = [Response(7, 1, AT - 10 * SECOND, False)]
    assert judge(PERSON, link_id=1, at=AT, sent_at=LONG_AGO, earlier=earlier) == Judgement(False, False, ())
    assert judge(PERSON, link_id=1, at=AT + SECOND, sent_at=LONG_AGO, earlier=earlier) == NEW
    # A filter that was there before does not hide the person who comes after it.
    assert judge(PERSON, link_id=1, at=AT, sent_at=LONG_AGO, earlier=[Response(7, 1, AT - 5 * SECOND, True)]) == NEW


def test_so_many_are_kept_of_one_message_people_and_machines_apart() -> None:
    machines = [Response(n, 1, AT - n * 60 * SECOND, True) for n in range(1, MOST_RESPONSES + 1)]
    people = [Response(n, 1, AT - n * 60 * SECOND, False) for n in range(1, MOST_RESPONSES + 1)]
    robot = Visit("HEAD", "")
    assert judge(PERSON, link_id=1, at=AT, sent_at=LONG_AGO, earlier=machines) == NEW
    assert judge(robot, link_id=1, at=AT, sent_at=LONG_AGO, earlier=people).is_new
    assert not judge(PERSON, link_id=1, at=AT, sent_at=LONG_AGO, earlier=people).is_new
    assert not judge(robot, link_id=1, at=AT, sent_at=LONG_AGO, earlier=machines).is_new
