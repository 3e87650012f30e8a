"""The pulse's loop: every workspace in its turn, whatever fails, until the worker is told to stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from profiles.profiles import ProfileInput
from segments import pulse
from segments.engines.base import EngineError
from segments.pulse import BATCH, Beat
from segments.settling import SMALL_BATCH
from tests.segments.beats import ON_PREMIUM, Gate, settled, upsert
from tests.segments.factories import PREMIUM, SOURCES, make_dynamic, members_of
from workers import pulsing
from workers.pulsing import AT_ONCE, Again, BeatOnce, Heart, beat_for, live_workspaces, pulse_on

SOON_S = 0.001
NOTHING = Beat()
MORE = Beat(evaluated=5, more=True)
FEW = Beat(evaluated=5)


class Beats:
    """In place of `pulse.beat`: says what it was told to say, then nothing more to do; remembers who asked."""

    def __init__(self, *answers: Beat | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[UUID, int]] = []
        self.times: dict[int, asyncio.Event] = {}

    async def __call__(self, workspace_id: UUID, batch: int) -> Beat | None:
        self.asked.append((workspace_id, batch))
        self.times.setdefault(len(self.asked), asyncio.Event()).set()
        answer = self.answers.pop(0) if self.answers else NOTHING
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def until(self, times: int) -> None:
        """Wait until it was asked so often."""
        await self.times.setdefault(times, asyncio.Event()).wait()


def always(*workspace_ids: UUID) -> Callable[[], Awaitable[list[UUID]]]:
    async def found() -> list[UUID]:
        return list(workspace_ids)

    return found


@asynccontextmanager
async def looping(workspaces: Callable[[], Awaitable[list[UUID]]], beat: BeatOnce) -> AsyncIterator[None]:
    """The loop, stopped as SIGTERM stops it when the block ends."""
    stopping = asyncio.Event()
    task = asyncio.create_task(beat_for(workspaces, beat, stopping, pause_s=SOON_S))
    try:
        yield
    finally:
        stopping.set()
        await task


async def test_a_worker_beats_for_every_workspace_again_and_again() -> None:
    first, second = uuid4(), uuid4()
    beats = Beats()
    async with looping(always(first, second), beats):
        await beats.until(6)
    assert {id for id, _ in beats.asked} == {first, second}


async def test_a_beat_follows_at_once_while_others_wait() -> None:
    workspace_id = uuid4()
    beats = Beats(MORE, MORE, NOTHING)
    heart = Heart(workspace_id)
    await heart.beat_on(beats, asyncio.Semaphore(1), asyncio.Event())
    assert beats.asked == [(workspace_id, BATCH)] * 3


async def test_a_beat_follows_soon_as_long_as_people_change() -> None:
    """And then only when the loop comes by: a beat that finds nobody is not repeated."""
    workspace_id = uuid4()
    beats = Beats(FEW, FEW, NOTHING)
    await Heart(workspace_id).beat_on(beats, asyncio.Semaphore(1), asyncio.Event(), soon_s=SOON_S)
    assert beats.asked == [(workspace_id, BATCH)] * 3


async def test_whoever_waits_for_the_next_beat_is_woken_to_end() -> None:
    stopping = asyncio.Event()
    beats = Beats(FEW)
    task = asyncio.create_task(Heart(uuid4()).beat_on(beats, asyncio.Semaphore(1), stopping, soon_s=3600.0))
    await beats.until(1)
    stopping.set()
    await task
    assert len(beats.asked) == 1


async def test_a_workspace_with_much_to_do_takes_turns_with_others() -> None:
    """Even when there is one slot for all."""
    busy, quiet = uuid4(), uuid4()
    asked: list[UUID] = []

    async def beat(workspace_id: UUID, batch: int) -> Beat | None:
        asked.append(workspace_id)
        await asyncio.sleep(0)
        return MORE if workspace_id == busy and asked.count(busy) < 5 else NOTHING

    slots, stopping = asyncio.Semaphore(1), asyncio.Event()
    await asyncio.gather(*(Heart(id).beat_on(beat, slots, stopping) for id in (busy, quiet)))
    assert asked.index(quiet) == 1


async def test_a_slow_workspace_holds_up_no_other_and_is_not_asked_twice() -> None:
    slow, quick = uuid4(), uuid4()
    gate, done = Gate(), asyncio.Event()
    asked: list[UUID] = []

    async def beat(workspace_id: UUID, batch: int) -> Beat | None:
        asked.append(workspace_id)
        if workspace_id == slow:
            await gate.wait()
        elif asked.count(quick) == 5:
            done.set()
        return NOTHING

    async with looping(always(slow, quick), beat):
        await gate.reached.wait()
        await done.wait()
        assert asked.count(slow) == 1
        gate.opened.set()


async def test_no_more_beats_run_at_once_than_the_pool_has_room_for() -> None:
    running: set[UUID] = set()
    most, gate = 0, Gate()

    async def beat(workspace_id: UUID, batch: int) -> Beat | None:
        nonlocal most
        running.add(workspace_id)
        most = max(most, len(running))
        if len(running) == AT_ONCE:
            gate.reached.set()
        await gate.opened.wait()
        running.discard(workspace_id)
        return NOTHING

    async with looping(always(*(uuid4() for _ in range(AT_ONCE * 3))), beat):
        await gate.reached.wait()
        gate.opened.set()
    assert most == AT_ONCE


async def test_a_failure_is_logged_once_and_the_workspace_rests_ever_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heart = Heart(uuid4())
    beats = Beats(*(RuntimeError("broken") for _ in range(3)))
    rests = []
    for _ in range(3):
        assert Again.LATER is await heart.beat_once(beats)
        rests.append(heart.rests_until)
    assert rests == sorted(rests)
    assert caplog.text.count("no pulse") == 1
    assert await heart.beat_once(beats) is Again.LATER
    assert heart.failures == 0


async def test_one_workspace_that_fails_does_not_keep_the_others_waiting() -> None:
    broken, sound = uuid4(), uuid4()
    done = asyncio.Event()
    asked: list[UUID] = []

    async def beat(workspace_id: UUID, batch: int) -> Beat | None:
        asked.append(workspace_id)
        if workspace_id == broken:
            raise RuntimeError("broken")
        if asked.count(sound) == 5:
            done.set()
        return NOTHING

    async with looping(always(broken, sound), beat):
        await done.wait()
    assert asked.count(broken) == 1


async def test_what_takes_too_long_is_tried_with_smaller_batches_and_then_the_whole_again() -> None:
    heart = Heart(uuid4())
    slow = EngineError("CONDITION_TOO_SLOW", "Took too long.")
    beats = Beats(slow, TimeoutError(), MORE, NOTHING)
    await heart.beat_on(beats, asyncio.Semaphore(1), asyncio.Event())
    assert [batch for _, batch in beats.asked] == [BATCH, BATCH // 2, SMALL_BATCH, SMALL_BATCH]
    assert (heart.batch, heart.failures) == (BATCH, 0)


async def test_what_takes_too_long_even_for_few_rests() -> None:
    heart = Heart(uuid4(), batch=SMALL_BATCH)
    assert Again.LATER is await heart.beat_once(Beats(TimeoutError()))
    assert heart.failures == 1


async def test_a_slow_beat_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(pulsing, "SLOW_S", 0.0)
    await Heart(uuid4()).beat_once(Beats(NOTHING))
    assert "slow pulse" in caplog.text


async def test_the_loop_outlives_postgresql(caplog: pytest.LogCaptureFixture) -> None:
    """Away for three looks, logged once; then it is there again."""
    workspace_id = uuid4()
    away = 3
    beats = Beats()

    async def found() -> list[UUID]:
        nonlocal away
        away -= 1
        if away >= 0:
            raise ConnectionRefusedError
        return [workspace_id]

    async with looping(found, beats):
        await beats.until(1)
    assert caplog.text.count("workspaces not found") == 1


async def test_the_loop_ends_when_told_to_after_the_beat_under_way() -> None:
    gate, stopping = Gate(), asyncio.Event()

    async def beat(workspace_id: UUID, batch: int) -> Beat | None:
        await gate.wait()
        return MORE

    task = asyncio.create_task(beat_for(always(uuid4()), beat, stopping, pause_s=60.0))
    await gate.reached.wait()
    stopping.set()
    gate.opened.set()
    await task


async def test_workers_keep_segments_true(
    workspace: UUID, other_workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them, as two processes would; and a workspace without live segments is nobody's work."""
    heard = asyncio.Event()
    asked: set[UUID] = set()

    async def overheard(workspace_id: UUID, **rest: Any) -> Beat | None:
        asked.add(workspace_id)
        done = await pulse.beat(workspace_id, **rest)
        if done is not None and done.entered:
            heard.set()
        return done

    monkeypatch.setattr(pulsing, "pulse", SimpleNamespace(beat=overheard))
    premium = await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    assert await live_workspaces() == [workspace]
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now)
    stopping = asyncio.Event()
    workers = [asyncio.create_task(pulse_on(SOURCES, stopping, pause_s=SOON_S)) for _ in range(2)]
    async with asyncio.timeout(60):
        await heard.wait()
    stopping.set()
    await asyncio.gather(*workers)
    assert (await members_of(premium), asked) == ({ann}, {workspace})
