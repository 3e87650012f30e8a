"""T-14: retries are polite, in numbers and on the ledger."""

import itertools
import logging
import random
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean, pstdev
from time import monotonic
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns import counts, sending, transmission
from campaigns.ledger import GIVE_UP_AFTER
from campaigns.models import DeliveryState
from campaigns.retrying import (
    FIRST_RETRY,
    LEAST_SPREAD,
    LONGEST_REST_S,
    LONGEST_RETRY,
    PROBE_S,
    HostGate,
    retry_delay,
    retry_wait,
)
from channels.base import EmailMessage, Outcome, OutcomeKind, OutcomeScope
from db.transactions import transaction
from profiles.addresses import AddressHasher
from tests.campaigns.factories import ACCEPTED, ScriptedChannel, carrier, make_campaign, make_people

LATER = Outcome(OutcomeKind.DEFERRED, "TRY_LATER", "RCPT", "450 4.2.0 later")
AWAY = Outcome(OutcomeKind.DEFERRED, "CONNECT_FAILED", "CONNECT", scope=OutcomeScope.HOST)
attempts = st.integers(1, 2_000)
draws = st.floats(0, 1)


@given(attempts, draws)
def test_a_wait_is_never_longer_than_the_exponential_of_its_attempt_and_six_hours(attempt: int, draw: float) -> None:
    wait = retry_delay(attempt, lambda: draw)
    assert timedelta(0) <= wait <= LONGEST_RETRY
    assert wait <= FIRST_RETRY * 2 ** min(attempt - 1, 20)


@given(attempts, draws)
def test_the_longest_wait_doubles_with_each_attempt(attempt: int, draw: float) -> None:
    first, second = (retry_delay(one, lambda: 1.0) for one in (attempt, attempt + 1))
    assert second == min(first * 2, LONGEST_RETRY)
    assert retry_delay(attempt, lambda: draw) == first * draw


@given(attempts, draws, st.timedeltas(timedelta(seconds=1), timedelta(hours=1)))
def test_waits_that_a_provider_has_a_rule_for_begin_there_double_and_end_at_six_hours(
    attempt: int, draw: float, first: timedelta
) -> None:
    wait = retry_wait(attempt, None, first, lambda: draw)
    floor = retry_wait(attempt, None, first, lambda: 0.0)
    assert floor <= wait <= LONGEST_RETRY
    assert retry_wait(1, None, first, lambda: 0.0) == first
    assert floor == min(first * 2.0 ** min(attempt - 1, 16), LONGEST_RETRY / 4)


def test_a_thousand_devices_that_a_push_service_sends_away_come_back_spread_out() -> None:
    """T-14, for FCM's 10 s and APNs' 15 minutes: jitter's coefficient of variation is 0.3 or more at every attempt."""
    draw = random.Random(14).random
    for first in (timedelta(seconds=10), timedelta(minutes=15)):
        for attempt in range(1, 8):
            waits = [retry_wait(attempt, None, first, draw).total_seconds() for _ in range(1_000)]
            assert pstdev(waits) / fmean(waits) >= 0.3


@given(attempts, draws, st.timedeltas(timedelta(0), timedelta(hours=6)))
def test_a_wait_that_was_asked_for_is_kept_and_spread_over_a_tenth_of_it(
    attempt: int, draw: float, asked: timedelta
) -> None:
    wait = retry_wait(attempt, asked, draw=lambda: draw)
    assert asked <= wait <= asked + max(asked / 10, LEAST_SPREAD)


def test_a_thousand_recipients_are_spread_over_the_whole_wait() -> None:
    for attempt in (1, 5, 12):
        waits = [retry_delay(attempt, random.Random(place).random).total_seconds() for place in range(1_000)]
        assert pstdev(waits) / fmean(waits) >= 0.3


MOVE_CLOCK = "UPDATE delivery SET not_before = now() WHERE state = 'deferred'"
WAITS = "SELECT attempt, extract(epoch FROM not_before - updated_at)::float AS wait_s FROM delivery"


async def test_a_thousand_refused_for_now_wait_ever_longer_and_none_is_tried_after_the_expiry(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """T-14, S3-25: each round the clock is moved to the retry by moving the retry to the clock."""
    await make_people(workspace, [f"p{place}" for place in range(1_000)], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now, expires_at=now + timedelta(days=2))
    channel = ScriptedChannel(lambda message: LATER)
    sender = carrier(channel, concurrency=64)
    await sending.start(workspace, campaign.id, now=now)
    for attempt in range(1, 4):
        await sending.deliver(workspace, campaign.id, carrier=sender, now=now, until=monotonic() + 60)
        assert len(channel.received) == 1_000 * attempt
        async with transaction(workspace) as connection:
            rows = await connection.fetch(WAITS)
            await connection.execute(MOVE_CLOCK)
        waits = [row["wait_s"] for row in rows]
        longest = FIRST_RETRY.total_seconds() * 2 ** (attempt - 1)
        assert {row["attempt"] for row in rows} == {attempt}
        assert 0 <= min(waits) < max(waits) <= longest
        assert fmean(waits) == pytest.approx(longest / 2, rel=0.2)
        assert pstdev(waits) / fmean(waits) >= 0.3
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE campaign SET expires_at = now()")
    await sending.deliver(workspace, campaign.id, carrier=sender, now=now + timedelta(days=3), until=monotonic() + 60)
    assert len(channel.received) == 3_000
    progress = (await counts.of_campaigns(workspace, [campaign.id]))[campaign.id]
    assert (progress.failed + progress.skipped, progress.deferred) == (1_000, 0)
    assert progress.finished_at is not None


async def test_whoever_was_deferred_for_four_days_has_failed(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """RFC 5321 4.5.4.1: the give-up time is 4 to 5 days."""
    await make_people(workspace, ["a"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    channel = ScriptedChannel(lambda message: LATER)
    await sending.start(workspace, campaign.id, now=now)
    for _ in range(2):
        await sending.deliver(workspace, campaign.id, carrier=carrier(channel), now=now, until=monotonic() + 60)
        async with transaction(workspace) as connection:
            await connection.execute(MOVE_CLOCK)
            await connection.execute(
                "UPDATE delivery SET first_attempt_at = first_attempt_at - $1::interval", GIVE_UP_AFTER
            )
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT state FROM delivery") == DeliveryState.FAILED
    assert len(channel.received) == 2


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def shut_for(gate: HostGate, clock: Clock) -> float:
    """Move the clock, a tenth of a second at a time, to where the gate is no longer shut; how far that was."""
    began = clock.now
    while gate.is_shut():
        clock.now += 0.1
    return clock.now - began


def test_a_host_that_is_away_is_left_alone_for_longer_and_longer() -> None:
    clock = Clock()
    gate = HostGate(clock=clock, draw=lambda: 1.0)
    assert gate.let_through(64) == 64
    for _ in range(64):
        gate.saw(AWAY)  # all that were under way: one failure
    rests = []
    for _ in range(12):
        assert gate.let_through(64) == 0
        rests.append(shut_for(gate, clock))
        assert gate.let_through(64) == 1
        assert gate.let_through(64) == 0  # one at a time finds out
        gate.saw(AWAY)
    assert rests[0] == pytest.approx(1, abs=0.2)
    assert all(later == pytest.approx(min(2 * earlier, LONGEST_REST_S), abs=1) for earlier, later in pairwise(rests))
    shut_for(gate, clock)
    assert gate.let_through(64) == 1
    gate.saw(ACCEPTED)
    assert gate.let_through(64) == 64


def test_a_log_says_that_a_host_is_away_and_that_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """Once a failure, not once a message; what the host said may hold anything, and is not in it."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    gate = HostGate(clock=clock, draw=lambda: 1.0)
    for _ in range(8):
        gate.saw(AWAY)
    clock.now += 5
    assert gate.let_through(64) == 1
    gate.saw(AWAY)
    for _ in range(8):
        gate.saw(ACCEPTED)
    lines = [(one.levelname, one.message, getattr(one, "code", None)) for one in caplog.records]
    away = ("WARNING", "provider is away, nothing goes there for a while", "CONNECT_FAILED")
    assert lines == [away, away, ("INFO", "provider is back", None)]


def test_a_probe_that_is_never_answered_is_followed_by_another() -> None:
    clock = Clock()
    gate = HostGate(clock=clock)
    gate.saw(AWAY)
    shut_for(gate, clock)
    assert gate.let_through(64) == 1
    assert shut_for(gate, clock) == pytest.approx(PROBE_S, abs=0.2)
    assert gate.let_through(64) == 1


def test_a_host_is_left_alone_for_as_long_as_it_asks() -> None:
    clock = Clock()
    gate = HostGate(clock=clock)
    asked = timedelta(minutes=2)
    gate.saw(Outcome(OutcomeKind.DEFERRED, "SERVER_CLOSING", "RCPT", retry_after=asked, scope=OutcomeScope.HOST))
    assert shut_for(gate, clock) == pytest.approx(asked.total_seconds(), abs=0.2)


async def test_a_host_that_comes_back_gets_everything_and_little_before(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """The attempts that found it away are nobody's: the recipients' waits do not grow with them."""
    await make_people(workspace, [f"p{place}" for place in range(50)], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    seconds = itertools.count(step=100)  # each look at the clock finds it 100 s on
    failing = 11

    def answer(message: EmailMessage) -> Outcome:
        return AWAY if len(channel.received) <= failing else ACCEPTED

    channel = ScriptedChannel(answer)
    sender = carrier(channel, concurrency=8, gate=HostGate(clock=lambda: next(seconds)))
    await sending.start(workspace, campaign.id, now=now)
    await sending.deliver(workspace, campaign.id, carrier=sender, now=now, until=monotonic() + 60)
    progress = (await counts.of_campaigns(workspace, [campaign.id]))[campaign.id]
    assert (progress.sent, progress.deferred, progress.failed) == (50 - failing, failing, 0)
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT array_agg(DISTINCT attempt ORDER BY attempt) FROM delivery") == [0, 1]
        await connection.execute(MOVE_CLOCK)
    await sending.deliver(workspace, campaign.id, carrier=sender, now=now, until=monotonic() + 60)
    assert len(set(channel.recipients)) == 50
    assert len(channel.received) == 50 + failing


async def test_a_turn_does_not_wait_for_a_host_that_stays_away(
    workspace: UUID, now: datetime, hasher: AddressHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep the place of a job; nothing is lost, and the sweeper rings for what is left."""
    monkeypatch.setattr(transmission, "HOST_AWAY_S", 0.0)
    await make_people(workspace, [f"p{place}" for place in range(50)], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    away = carrier(ScriptedChannel(lambda message: AWAY), concurrency=8, gate=HostGate(clock=lambda: 1.0))
    out_of_time = await sending.deliver(workspace, campaign.id, carrier=away, now=now, until=monotonic() + 60)
    assert out_of_time is False
    progress = (await counts.of_campaigns(workspace, [campaign.id]))[campaign.id]
    assert (progress.sent, progress.deferred, progress.pending) == (0, 8, 42)
