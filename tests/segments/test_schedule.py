"""When segments run: calendars in a time zone, clocks that change, and the small spread."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from db.transactions import transaction
from segments import evaluation, lifecycle, schedule
from segments.errors import SegmentError
from segments.lifecycle import SegmentChanges
from segments.models import Cadence, EvaluationCause, Segment
from tests.segments import factories
from tests.segments.factories import DAY

NO_JITTER = UUID(int=0)
HOUR = timedelta(hours=1)


def runs(
    cadence: Cadence, after: str, number: int, *, zone: str = "UTC", cron: str | None = None, id: UUID = NO_JITTER
) -> list[str]:
    """The next `number` runs after a local time, as local times."""
    found, instant = [], datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    for _ in range(number):
        following = schedule.next_run(cadence, cron=cron, time_zone=zone, segment_id=id, after=instant)
        assert following is not None
        assert following.tzinfo is UTC
        found.append(following.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes"))
        instant = following
    return found


@pytest.mark.parametrize(
    ("cadence", "expected"),
    [
        (Cadence.HOURLY, ["2026-01-14T11:00", "2026-01-14T12:00"]),
        (Cadence.DAILY, ["2026-01-15T00:00", "2026-01-16T00:00"]),
        (Cadence.WEEKLY, ["2026-01-19T00:00", "2026-01-26T00:00"]),
        (Cadence.MONTHLY, ["2026-02-01T00:00", "2026-03-01T00:00"]),
        (Cadence.QUARTERLY, ["2026-04-01T00:00", "2026-07-01T00:00"]),
        (Cadence.YEARLY, ["2027-01-01T00:00", "2028-01-01T00:00"]),
    ],
)
def test_a_cadence_runs_at_the_start_of_its_period(cadence: Cadence, expected: list[str]) -> None:
    """S1-04 to S1-08."""
    assert runs(cadence, "2026-01-14T10:30", 2) == [f"{one}+00:00" for one in expected]


def test_never_is_never_scheduled() -> None:
    """S1-03."""
    now = datetime.now(UTC)
    assert schedule.next_run(Cadence.NEVER, cron=None, time_zone="UTC", segment_id=uuid4(), after=now) is None


def test_a_day_begins_at_midnight_of_its_zone_on_both_sides_of_a_clock_change() -> None:
    assert runs(Cadence.DAILY, "2026-03-28T12:00", 3, zone="Europe/Berlin") == [
        "2026-03-29T00:00+01:00",
        "2026-03-30T00:00+02:00",
        "2026-03-31T00:00+02:00",
    ]


def test_a_time_that_the_clock_skips_runs_right_after_the_gap_and_once() -> None:
    assert runs(Cadence.CRON, "2026-03-28T12:00", 2, zone="Europe/Berlin", cron="30 2 * * *") == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]


def test_a_midnight_that_does_not_exist_still_has_its_run() -> None:
    assert runs(Cadence.DAILY, "2026-04-23T12:00", 2, zone="Africa/Cairo")[0] == "2026-04-24T01:00+03:00"


def test_a_time_that_comes_twice_runs_once() -> None:
    assert runs(Cadence.CRON, "2026-10-24T12:00", 2, zone="Europe/Berlin", cron="30 2 * * *") == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
    ]


def test_every_hour_means_every_hour_while_clocks_change() -> None:
    for after in ("2026-03-28T23:30", "2026-10-24T23:30"):
        found = [datetime.fromisoformat(one) for one in runs(Cadence.HOURLY, after, 8, zone="Europe/Berlin")]
        assert {later - sooner for sooner, later in pairwise(found)} == {HOUR}


def test_a_cron_expression_runs_on_its_days() -> None:
    assert runs(Cadence.CRON, "2026-05-01T07:00", 2, zone="Asia/Tokyo", cron="30 6 * * MON-FRI") == [
        "2026-05-04T06:30+09:00",
        "2026-05-05T06:30+09:00",
    ]


@settings(max_examples=200, deadline=None)
@given(
    id=st.uuids(version=4),
    cadence=st.sampled_from([one for one in Cadence if one is not Cadence.NEVER]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    after=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_the_next_run_is_later_fixed_and_near_its_calendar(
    id: UUID, cadence: Cadence, zone: str, after: datetime
) -> None:
    cron = "0 */6 * * *" if cadence is Cadence.CRON else None

    def next_run(of: UUID) -> datetime:
        found = schedule.next_run(cadence, cron=cron, time_zone=zone, segment_id=of, after=after)
        assert found is not None
        return found

    spread = schedule.jitter(id, cadence)
    assert timedelta(0) <= spread < HOUR
    assert next_run(id) == next_run(id) > after
    # What is spread is a run of the calendar itself: nothing is skipped and nothing runs twice.
    calendar = schedule.next_run(
        cadence, cron=cron, time_zone=zone, segment_id=NO_JITTER, after=next_run(id) - spread - timedelta(seconds=1)
    )
    assert calendar == next_run(id) - spread


# --- by a moving clock, in zones whose clocks are changed in odd ways ---------------------------------------------

ODD_ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # by half an hour
    "Africa/Casablanca",  # back for Ramadan
    "Pacific/Apia",  # without a 30 December 2011
    "Africa/Cairo",  # at midnight
    "America/Havana",  # back to midnight
    "America/Scoresbysund",
    "Antarctica/Troll",  # by two hours
]
ODD_YEARS = [*((zone, 2025) for zone in ODD_ZONES), ("Pacific/Apia", 2011)]
STEP = timedelta(minutes=30)
"""Clocks are changed on the half hour."""


def walk(cadence: Cadence, zone: str, start: datetime, days: int, *, cron: str | None = None) -> list[datetime]:
    """All runs in so many days, each asked for at the one before."""
    found, at = [], start
    while at <= start + days * DAY:
        following = schedule.next_run(cadence, cron=cron, time_zone=zone, segment_id=NO_JITTER, after=at)
        assert following is not None
        assert following > at
        found.append(following)
        at = following
    return found[:-1]


def changes(zone: str, year: int) -> list[datetime]:
    """Two days before each change of the clocks in a year."""
    clock, start = ZoneInfo(zone), datetime(year, 1, 3, tzinfo=UTC)
    noons = [start + number * DAY for number in range(360)]
    offsets = [one.astimezone(clock).utcoffset() for one in noons]
    return [noon - 2 * DAY for noon, (before, after) in zip(noons, pairwise(offsets), strict=False) if before != after]


def shown(zone: str, start: datetime, days: int) -> list[tuple[datetime, datetime]]:
    """(instant, what a clock of the zone shows) every half hour after `start`."""
    clock = ZoneInfo(zone)
    instants = [start + number * STEP for number in range(1, days * 48 + 1)]
    return [(one, one.astimezone(clock).replace(tzinfo=None)) for one in instants]


def first_of_each_day(zone: str, start: datetime, days: int) -> list[datetime]:
    """The first instant of every date of the zone that begins after `start`."""
    first: dict[object, datetime] = {}
    for instant, local in shown(zone, start, days):
        first.setdefault(local.date(), instant)
    return [one for one in first.values() if one != start + STEP or first_is_midnight(zone, one)]


def first_is_midnight(zone: str, instant: datetime) -> bool:
    return instant.astimezone(ZoneInfo(zone)).date() != (instant - STEP).astimezone(ZoneInfo(zone)).date()


PERIODS: dict[Cadence, Callable[[datetime], bool]] = {
    Cadence.DAILY: lambda _: True,
    Cadence.WEEKLY: lambda local: local.weekday() == 0,
    Cadence.MONTHLY: lambda local: local.day == 1,
    Cadence.QUARTERLY: lambda local: local.day == 1 and local.month in (1, 4, 7, 10),
    Cadence.YEARLY: lambda local: local.day == 1 and local.month == 1,
}


@pytest.mark.parametrize(("zone", "year"), ODD_YEARS)
def test_every_period_has_its_run_once_at_its_very_beginning(zone: str, year: int) -> None:
    """S1-04 to S1-08, through every change of the clocks of a year; nothing is skipped and nothing runs twice."""
    start = datetime(year, 1, 1, tzinfo=UTC)
    days = first_of_each_day(zone, start, 400)
    for cadence, begins in PERIODS.items():
        expected = [one for one in days if begins(one.astimezone(ZoneInfo(zone)))]
        assert walk(cadence, zone, start, 400) == expected


@pytest.mark.parametrize(("zone", "year"), ODD_YEARS)
def test_every_hour_that_a_clock_shows_has_its_run(zone: str, year: int) -> None:
    """Repeated hours twice, for they take place twice; those skipped, when the clock has skipped them."""
    for start in changes(zone, year):
        moments = shown(zone, start, 5)
        expected = [
            one for (one, now), (_, before) in zip(moments[1:], moments, strict=False) if to_the_hour(before, now)
        ]
        assert [one for one in walk(Cadence.HOURLY, zone, start, 5) if one > start + STEP] == expected


def to_the_hour(before: datetime, now: datetime) -> bool:
    """Whether a clock came to a full hour, or jumped over one, half an hour after it showed `before`."""
    jumped = now - before > STEP and now.replace(minute=0) > before
    return now.minute == 0 or jumped


@pytest.mark.parametrize("zone", ODD_ZONES)
@pytest.mark.parametrize("cron", ["30 2 * * *", "0 0 * * *", "30 1 * * MON-FRI", "0 */6 * * *", "30 23 28-31 * *"])
def test_a_cron_time_runs_once_on_each_of_its_days(zone: str, cron: str) -> None:
    """Spring's gap and autumn's repetition: the times of the calendar, each when a clock first shows or passes it."""
    for start in [*changes(zone, 2011), *changes(zone, 2025)]:
        (_, latest), *moments = shown(zone, start, 10)
        times = list(islice(CronSim(cron, latest), 100))
        expected: list[datetime] = []
        for instant, now in moments:
            if any(latest < one <= now for one in times):
                expected.append(instant)
            latest = max(now, latest)
        assert [
            one for one in walk(Cadence.CRON, zone, start + STEP, 10, cron=cron) if one <= moments[-1][0]
        ] == expected


@settings(max_examples=100, deadline=None)
@given(
    zone=st.sampled_from(ODD_ZONES),
    cron=st.sampled_from(["0 * * * *", "*/20 * * * *", "15 2 * * *", "0 */5 * * *", "45 0 1 * *"]),
    after=st.datetimes(datetime(2010, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    sooner=st.timedeltas(timedelta(0), timedelta(days=3)),
)
def test_the_next_run_is_the_same_whenever_it_is_asked_for(
    zone: str, cron: str, after: datetime, sooner: timedelta
) -> None:
    """Between two runs there is none: whoever asks earlier comes to the same ones."""

    def following(at: datetime) -> datetime:
        found = schedule.next_run(Cadence.CRON, cron=cron, time_zone=zone, segment_id=NO_JITTER, after=at)
        assert found is not None
        return found

    expected, at = following(after), after - sooner
    while (at := following(at)) <= after:
        continue
    assert at == expected


def test_segments_of_one_cadence_are_spread() -> None:
    spread = {schedule.jitter(uuid4(), Cadence.DAILY) for _ in range(200)}
    assert len(spread) > 100
    assert max(spread) - min(spread) > timedelta(minutes=30)
    assert max(schedule.jitter(uuid4(), Cadence.CRON) for _ in range(200)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "daily",
        "* * * *",
        "0 0 * * * *",
        "61 * * * *",
        "0 0 31 2 *",
        "0 0 30 2 *",
        "* * * * \0",
        "1," * 200 + "1 * * * *",
    ],
)
def test_a_cron_expression_that_never_runs_is_refused(expression: str) -> None:
    with pytest.raises(SegmentError) as refusal:
        schedule.clean_cron(expression)
    assert (refusal.value.code, refusal.value.field) == ("INVALID_CRON", ("cron",))


# --- what is due --------------------------------------------------------------------------------------------------


@pytest.fixture
async def daily(workspace: UUID, now: datetime) -> Segment:
    """An active segment that was evaluated once and is evaluated daily."""
    segment = await factories.make_dynamic(workspace, now=now)
    await lifecycle.update(workspace, segment.id, SegmentChanges(cadence=Cadence.DAILY), now=now)
    await factories.evaluate(segment, now=now)
    return segment


async def due(segment: Segment, at: datetime) -> list[UUID]:
    async with transaction(segment.workspace_id) as connection:
        rows = await connection.fetch("SELECT segment_id FROM due_segments($1, 10)", at)
    return [row[0] for row in rows]


async def next_run_of(segment: Segment) -> datetime | None:
    async with transaction(segment.workspace_id):
        return (await Segment.get(id=segment.id)).next_run_at


async def test_a_segment_is_due_when_its_time_comes_and_once(daily: Segment, now: datetime) -> None:
    """S3-05, S1-04."""
    at = await next_run_of(daily)
    assert at is not None
    assert now < at <= now + DAY + HOUR
    assert await due(daily, at - timedelta(seconds=1)) == []
    assert await schedule.request_due(daily.workspace_id, daily.id, now=at - timedelta(seconds=1)) is None
    assert await due(daily, at) == [daily.id]

    asked = await schedule.request_due(daily.workspace_id, daily.id, now=at)
    assert asked is not None
    assert asked.cause is EvaluationCause.CADENCE
    assert await next_run_of(daily) == at + DAY
    assert await due(daily, at) == []
    assert await schedule.request_due(daily.workspace_id, daily.id, now=at) is None


async def test_runs_missed_while_nobody_looked_are_made_up_for_by_one(daily: Segment, now: datetime) -> None:
    at = await next_run_of(daily)
    assert at is not None
    assert await schedule.request_due(daily.workspace_id, daily.id, now=at + 10 * DAY) is not None
    assert await next_run_of(daily) == at + 11 * DAY
    assert len(await evaluation.history(daily.workspace_id, daily.id, after=None, limit=9)) == 2


async def test_one_that_still_runs_is_not_asked_for_twice(daily: Segment, now: datetime) -> None:
    at = await next_run_of(daily)
    assert at is not None
    first = await schedule.request_due(daily.workspace_id, daily.id, now=at)
    second = await schedule.request_due(daily.workspace_id, daily.id, now=at + DAY)
    assert first is not None
    assert second is not None
    assert first.id == second.id


async def test_a_paused_segment_is_not_scheduled_and_comes_back_with_its_next_run(
    daily: Segment, now: datetime
) -> None:
    await lifecycle.pause(daily.workspace_id, daily.id, now=now)
    assert await next_run_of(daily) is None
    assert await schedule.request_due(daily.workspace_id, daily.id, now=now + 9 * DAY) is None
    await lifecycle.activate(daily.workspace_id, daily.id, now=now + 9 * DAY)
    following = await next_run_of(daily)
    assert following is not None
    assert following > now + 9 * DAY
