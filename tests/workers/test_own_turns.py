"""Turns that a worker begins by itself (ADR 0030)."""

import asyncio
from typing import Any

import pytest

from tests.workers.worker import Worker
from workers.own_turns import Job, OwnTurns


class Held:
    """A job whose turns wait to be let go; `ids` are of those that began, in their order."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.at_once = self.most_at_once = 0
        self.go = asyncio.Event()
        self.began = asyncio.Condition()

    async def take_turn(self, context: dict[Any, Any], workspace_id: str, about: str) -> None:
        assert context["job_id"]
        self.ids.append(about)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        async with self.began:
            self.began.notify_all()
        await self.go.wait()
        self.at_once -= 1
        if about == "broken":
            raise RuntimeError("broken")

    async def until_began(self, turns: int) -> None:
        async with self.began:
            await self.began.wait_for(lambda: len(self.ids) >= turns)


def own_turns(held: Held, *, longest_s: float = 60.0) -> OwnTurns:
    return OwnTurns({"deliver": Job(held.take_turn, longest_s)}, Worker().context, most=2)


async def test_bells_become_turns_in_their_order_so_many_at_once_and_one_waits_once_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = Held()
    turns = own_turns(held)
    for about in ("broken", "b", "c", "d", "c", "d", "e"):
        turns.begin("deliver", "w", about)
    await held.until_began(2)
    assert held.ids == ["broken", "b"]
    held.go.set()
    await held.until_began(5)
    await turns.end(within_s=60)
    assert (held.ids, held.most_at_once, held.at_once) == (["broken", "b", "c", "d", "e"], 2, 0)
    assert caplog.text.count("turn failed") == 1


async def test_who_is_to_stop_begins_no_turn_and_waits_for_those_under_way() -> None:
    held = Held()
    turns = own_turns(held)
    for about in ("a", "b", "c"):
        turns.begin("deliver", "w", about)
    await held.until_began(2)
    turns.stopping.set()
    turns.begin("deliver", "w", "d")
    ending = asyncio.create_task(turns.end(within_s=60))
    await asyncio.sleep(0)
    assert not ending.done()
    held.go.set()
    await ending
    assert (held.ids, held.at_once) == (["a", "b"], 0)


async def test_a_turn_that_takes_too_long_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    turns = own_turns(held, longest_s=0.01)
    turns.begin("deliver", "w", "a")
    await turns.end(within_s=60)
    assert caplog.text.count("turn failed") == 1
