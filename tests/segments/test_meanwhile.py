"""What happens to people and segments while an evaluation is under way, or when it came to nothing."""

import asyncio
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from pyroaring import BitMap

from db.transactions import transaction
from profiles import profiles
from segments import concluding, cycles, following, lifecycle, membership, pulse, static
from segments.concluding import Again, Result
from segments.engines.base import EngineError
from segments.engines.postgres import PostgresEngine
from segments.engines.refusals import as_engine_errors
from segments.leases import Claimed, Instant
from segments.lifecycle import SegmentChanges
from segments.models import EvaluationStatus, Segment
from segments.nodes import Ranking
from segments.pulse import Beat
from segments.sources import Sources
from tests.segments.beats import (
    BOUGHT,
    HOUR,
    MINUTE,
    SECOND,
    Gate,
    asked_for,
    beat,
    drain,
    erase,
    in_segment,
    merge,
    named,
    settled,
    static_with,
    track,
    trait,
    waiting,
)
from tests.segments.factories import PREMIUM, SOURCES, make_dynamic, members_of, run_all
from tests.segments.interrupted import BrokenEngine, half_way, newest, request

NAMELESS = trait("name", "MISSING")


class LivingEngine(PostgresEngine):
    """Waits at a gate, once, with those who live in hand: the last thing that is asked for an evaluation."""

    def __init__(self, workspace_id: UUID, gate: Gate) -> None:
        super().__init__()
        self.counted[workspace_id] = 0, monotonic()  # otherwise that comes first
        self.gate: Gate | None = gate

    async def universe(self, **asked: Any) -> BitMap:
        found = await super().universe(**asked)
        await self.wait()
        return found

    async def gone(self, **asked: Any) -> BitMap:
        found = await super().gone(**asked)
        await self.wait()
        return found

    async def wait(self) -> None:
        if self.gate is not None:
            gate, self.gate = self.gate, None
            await gate.wait()


async def at_rest(workspace: UUID, definition: object, *, now: datetime) -> Segment:
    """An active segment that is not live, its first evaluation asked for."""
    segment = await make_dynamic(workspace, definition, now=now, name="at rest")
    return await lifecycle.update(workspace, segment.id, SegmentChanges(live=False), now=now)


# --- people who are no more ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
async def test_who_is_merged_or_erased_meanwhile_is_not_let_into_a_segment_that_is_not_live(
    workspace: UUID, now: datetime, first: bool
) -> None:
    """The beat moved the members of before, and nobody will speak of these people again."""
    segment = await at_rest(workspace, NAMELESS, now=now)
    if not first:
        await settled(workspace, now=now)
        await request(segment, now)
    loser, winner, gone, ann = await named(workspace, "loser", "winner", "gone", "ann", now=now)
    gate = Gate()
    running = asyncio.create_task(cycles.run(workspace, sources=Sources(LivingEngine(workspace, gate)), now=now))
    await gate.reached_by(running)
    await merge(workspace, loser=loser, winner=winner, now=now)
    await erase(workspace, gone, now=now)
    await beat(workspace, now=now)
    assert [kind for kind, _ in await waiting(workspace) if kind != "touched"] == []
    gate.opened.set()
    assert await running == [segment.id]
    assert await members_of(segment) == {winner, ann}
    assert await membership.verify(workspace) == []


async def test_merges_wait_for_a_segment_that_gets_its_first_members(workspace: UUID, now: datetime) -> None:
    """Nobody sees yet that it has members: only its lock says so."""
    loser, winner = await named(workspace, "loser", "winner", now=now)
    segment = await at_rest(workspace, NAMELESS, now=now)
    await merge(workspace, loser=loser, winner=winner, now=now)
    gate = Gate()

    async def populate() -> None:
        async with transaction(workspace) as connection:
            await connection.fetchrow(concluding.LOCK_SEGMENT, workspace, segment.id)
            await membership.apply(
                connection,
                workspace_id=workspace,
                segment_id=segment.id,
                members=BitMap([loser]),
                reason="evaluation",
                now=now,
            )
            await gate.wait()

    populating = asyncio.create_task(populate())
    await gate.reached_by(populating)
    assert await pulse.beat(workspace, sources=SOURCES, now=now) is None
    gate.opened.set()
    await populating
    await beat(workspace, now=now)
    assert await members_of(segment) == {winner}


async def test_merges_and_erasures_wait_for_members_who_are_changed_by_hand(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read under the lock holds until it is written, and whoever is gone since then leaves afterwards."""
    loser, winner, gone, ann = await named(workspace, "loser", "winner", "gone", "ann", now=now)
    segment = await static_with(workspace, loser, now=now)
    gate = Gate()
    find = profiles.find_by_external_ids

    async def find_and_wait(*given: Any) -> dict[str, int]:
        found = await find(*given)
        await gate.wait()
        return found

    monkeypatch.setattr(profiles, "find_by_external_ids", find_and_wait)
    adding = asyncio.create_task(static.add_members(workspace, segment.id, external_ids=["ann", "gone"], now=now))
    await gate.reached_by(adding)
    await merge(workspace, loser=loser, winner=winner, now=now)
    await erase(workspace, gone, now=now)
    assert await pulse.beat(workspace, sources=SOURCES, now=now) is None
    gate.opened.set()
    assert (await adding).changed == 2
    await beat(workspace, now=now)
    assert await members_of(segment) == {winner, ann}
    assert await membership.verify(workspace) == []


# --- what an evaluation owes --------------------------------------------------------------------------------------


async def test_a_live_segment_whose_evaluation_failed_beats_on_and_is_evaluated_again_later(
    workspace: UUID, now: datetime
) -> None:
    """Whatever was asked for while it was open was left to it: a backlog, people of a segment that it names."""
    buyers = await make_dynamic(workspace, BOUGHT, now=now)
    await settled(workspace, now=now)
    await request(buyers, now)
    await run_all(workspace, now=now, engine=BrokenEngine(EngineError("ENGINE_REFUSED", "No answer.")))
    assert (await newest(buyers)).status is EvaluationStatus.FAILED
    [ann] = await named(workspace, "ann", now=now)
    await track(workspace, "purchase", "ann", at=now)
    await drain(workspace, now=now + MINUTE)
    assert (await members_of(buyers), await asked_for(workspace)) == ({ann}, [])
    await beat(workspace, now=now + 11 * MINUTE)
    assert await asked_for(workspace) == [(buyers.id, "BACKLOG")]


async def test_a_cycle_keeps_up_with_the_pulse_before_it_locks_the_next_segment(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom beats evaluated between two segments is not asked about under the lock of the second, which stops beats."""
    monkeypatch.setattr(cycles, "MOST_LATE", 0)
    first = await make_dynamic(workspace, PREMIUM, now=now, name="first")
    second = await make_dynamic(workspace, BOUGHT, now=now, name="second")
    [ann] = await named(workspace, "ann", now=now)
    await settled(workspace, now=now)
    for segment in (first, second):
        await request(segment, now)
    conclude, concluded = concluding.conclude, list[UUID]()

    async def never(only: BitMap, instant: Instant) -> Result:
        raise AssertionError(f"asked about {list(only)} under the lock")

    async def conclude_and_beat(
        workspace_id: UUID, claimed: Claimed, result: Result, *, order: Ranking | None, again: Again
    ) -> bool | None:
        done = await conclude(workspace_id, claimed, result, order=order, again=never)
        concluded.append(claimed.segment_id)
        if len(concluded) == 1:
            await track(workspace, "purchase", "ann", at=now)
            await beat(workspace, now=now)
        return done

    monkeypatch.setattr(concluding, "conclude", conclude_and_beat)
    assert await run_all(workspace, now=now) == concluded
    assert set(concluded) == {first.id, second.id}
    assert [(await newest(one)).status for one in (first, second)] == [EvaluationStatus.SUCCEEDED] * 2
    assert (await members_of(second), await membership.verify(workspace)) == ({ann}, [])


async def test_an_evaluation_is_not_begun_while_what_it_names_is_being_changed_by_many(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would read the members of before, and could end before the change is there to be asked about."""
    monkeypatch.setattr(following, "MOST_FOLLOWED", 1)
    ann, bob = await named(workspace, "ann", "bob", now=now)
    curated = await static_with(workspace, now=now)
    dependent = await make_dynamic(workspace, in_segment(curated), now=now)
    gate = Gate()

    async def change() -> None:
        async with transaction(workspace) as connection:
            both = BitMap([ann, bob])
            id = curated.id
            await membership.alter(
                connection, workspace_id=workspace, segment_id=id, enter=both, reason="added", now=now
            )
            await following.follow(connection, workspace_id=workspace, segment_id=id, changed=both, now=now)
            await gate.wait()

    changing = asyncio.create_task(change())
    await gate.reached_by(changing)
    assert await cycles.run(workspace, sources=SOURCES, now=now) is None
    gate.opened.set()
    await changing
    await run_all(workspace, now=now)
    assert await members_of(dependent) == {ann, bob}


async def test_what_a_stopped_worker_evaluates_is_evaluated_by_the_next_at_once(workspace: UUID, now: datetime) -> None:
    """Nobody has to wait until its lease is over."""
    segment = await make_dynamic(workspace, PREMIUM, now=now)
    async with half_way(workspace) as half:
        half.running.cancel()
    assert await run_all(workspace, now=now) == [segment.id]


# --- time and numbers ---------------------------------------------------------------------------------------------


async def test_an_evaluation_is_of_no_earlier_time_than_the_pulse_has_followed(workspace: UUID, now: datetime) -> None:
    """The server's clock was set back: who went over an edge is not put back, for no beat would follow it again."""
    await named(workspace, "ann", now=now)
    await track(workspace, "purchase", "ann", at=now)
    buyers = await make_dynamic(workspace, {"event": {"name": "purchase", "within": {"minutes": 30}}}, now=now)
    await settled(workspace, now=now)
    await beat(workspace, now=now + HOUR)
    assert await members_of(buyers) == set()
    await request(buyers, now)
    assert await cycles.run(workspace, sources=SOURCES) == [buyers.id]
    assert await members_of(buyers) == set()


async def test_a_backlog_is_dropped_a_part_at_a_time(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of changes in one transaction would take longer than a beat may, each time anew."""
    monkeypatch.setattr(pulse, "MOST_FOLLOWED", 2)
    monkeypatch.setattr(pulse, "MOST_DROPPED", 3)
    premium = await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    await named(workspace, "a", "b", "c", now=now)
    await named(workspace, "d", now=now)
    assert await beat(workspace, now=now + SECOND) == Beat(evaluated=3, more=True)
    assert (await asked_for(workspace), len(await waiting(workspace))) == ([(premium.id, "BACKLOG")], 1)
    assert await beat(workspace, now=now + SECOND) == Beat(evaluated=1)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (asyncpg.QueryCanceledError(), "CONDITION_TOO_SLOW"),
        (asyncpg.UndefinedColumnError(), "ENGINE_REFUSED"),
        (asyncpg.ConnectionDoesNotExistError(), "ENGINE_UNAVAILABLE"),
        (asyncpg.AdminShutdownError(), "ENGINE_UNAVAILABLE"),
        (asyncpg.CannotConnectNowError(), "ENGINE_UNAVAILABLE"),
        (asyncpg.TooManyConnectionsError(), "ENGINE_UNAVAILABLE"),
        (asyncpg.InterfaceError("closed"), "ENGINE_UNAVAILABLE"),
        (ConnectionResetError(), "ENGINE_UNAVAILABLE"),
        (TimeoutError(), "ENGINE_UNAVAILABLE"),
    ],
)
def test_a_server_that_goes_away_is_no_fault_of_a_condition(failure: Exception, code: str) -> None:
    """A beat would otherwise ask for a full evaluation of every segment."""
    with pytest.raises(EngineError) as refused, as_engine_errors(too_slow="Slow."):
        raise failure
    assert refused.value.code == code
