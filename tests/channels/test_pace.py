"""The pace, on a clock of its own."""

import pytest

from channels.pace import RatePace


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def pace(clock: Clock, rate: float, burst: int = 1) -> RatePace:
    return RatePace(rate, burst=burst, clock=clock, sleep=clock.sleep)


async def test_messages_leave_at_the_rate() -> None:
    clock = Clock()
    ten = pace(clock, 10)
    for _ in range(101):
        await ten.take()
    assert clock.now - 1_000 == pytest.approx(10.0)


async def test_a_burst_leaves_at_once_and_the_rest_at_the_rate() -> None:
    clock = Clock()
    ten = pace(clock, 10, burst=20)
    await ten.take(20)
    assert clock.now == 1_000.0
    await ten.take(10)
    assert clock.now - 1_000 == pytest.approx(1.0)


async def test_a_long_pause_earns_one_burst_and_no_more() -> None:
    clock = Clock()
    ten = pace(clock, 10, burst=5)
    await ten.take(5)
    clock.now += 3_600
    started = clock.now
    for _ in range(25):
        await ten.take()
    assert clock.now - started == pytest.approx(2.0)


async def test_more_than_the_burst_at_once_waits_as_long_as_one_by_one() -> None:
    clock = Clock()
    ten = pace(clock, 10)
    await ten.take(64)
    assert clock.now - 1_000 == pytest.approx(6.3)


async def test_a_changed_rate_holds_from_the_next_message_on() -> None:
    clock = Clock()
    one = pace(clock, 10)
    await one.take()
    one.change(2)
    await one.take()
    assert clock.now - 1_000 == pytest.approx(0.5)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_rate_or_burst_that_would_never_let_anything_through_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        RatePace(rate, burst=burst)
