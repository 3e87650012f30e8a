"""The pulse when things go wrong, or are too many: nothing is lost, and nobody holds up the others."""

import asyncio
from datetime import datetime
from uuid import UUID

import asyncpg
import pytest

from db.transactions import transaction
from profiles.profiles import ProfileInput
from segments import evaluation, lifecycle, pulse
from segments.engines.base import EngineError
from segments.lifecycle import SegmentChanges
from segments.pulse import Beat
from tests.segments.beats import (
    BOUGHT,
    DAY,
    HOUR,
    MINUTE,
    ON_PREMIUM,
    SECOND,
    Gate,
    GatedEngine,
    PickyEngine,
    asked_for,
    asking,
    beat,
    clock,
    evaluated,
    in_segment,
    merge,
    named,
    settled,
    static_with,
    track,
    trait,
    upsert,
    waiting,
)
from tests.segments.factories import PREMIUM, SOURCES, make_dynamic, members_of, run_all

# --- nothing is lost ----------------------------------------------------------------------------------------------


async def test_a_beat_that_is_cancelled_leaves_everything_to_the_next(workspace: UUID, now: datetime) -> None:
    premium = await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    gate = Gate()
    cut_off = asyncio.create_task(beat(workspace, now=now + 2 * SECOND, sources=asking(GatedEngine(gate))))
    await gate.reached_by(cut_off)
    cut_off.cancel()
    await asyncio.gather(cut_off, return_exceptions=True)
    assert (await waiting(workspace), await clock(workspace)) == ([("touched", ann)], now)
    assert await beat(workspace, now=now + 3 * SECOND) == Beat(evaluated=1, entered=1)
    assert await members_of(premium) == {ann}


async def test_a_beat_whose_connection_dies_leaves_everything_to_the_next(
    workspace: UUID, now: datetime, database_owner: asyncpg.Connection
) -> None:
    """What a killed process leaves: the server rolls its transaction back."""
    premium = await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    gate = Gate()
    cut_off = asyncio.create_task(beat(workspace, now=now + 2 * SECOND, sources=asking(GatedEngine(gate))))
    await gate.reached_by(cut_off)
    killed = await database_owner.fetch(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    assert killed == [(True,)]
    gate.opened.set()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await cut_off
    assert await waiting(workspace) == [("touched", ann)]
    assert await beat(workspace, now=now + 3 * SECOND) == Beat(evaluated=1, entered=1)
    assert await members_of(premium) == {ann}


@pytest.fixture
async def database_owner(request: pytest.FixtureRequest, workspace: UUID) -> object:
    from tests.conftest import Database

    database: Database = request.getfixturevalue("database")
    connection = await asyncpg.connect(database.owner_url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_of_two_beats_at_once_one_does_the_work(workspace: UUID, now: datetime) -> None:
    premium = await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    gate = Gate()
    first = asyncio.create_task(beat(workspace, now=now + 2 * SECOND, sources=asking(GatedEngine(gate))))
    await gate.reached_by(first)
    assert await pulse.beat(workspace, sources=SOURCES, now=now + 2 * SECOND) is None
    gate.opened.set()
    assert await first == Beat(evaluated=1, entered=1)
    assert await members_of(premium) == {ann}


async def test_a_beat_gives_way_to_whoever_holds_a_segment(workspace: UUID, now: datetime) -> None:
    segment = await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    gate = Gate()

    async def hold() -> None:
        async with transaction(workspace) as connection:
            await connection.fetch(evaluation.LOCK_SEGMENT, workspace, segment.id)
            await gate.wait()

    holding = asyncio.create_task(hold())
    await gate.reached_by(holding)
    assert await pulse.beat(workspace, sources=SOURCES, now=now + 2 * SECOND) is None
    gate.opened.set()
    await holding
    assert await waiting(workspace) == [("touched", ann)]
    assert await beat(workspace, now=now + 3 * SECOND) == Beat(evaluated=1, entered=1)


async def test_changes_are_taken_a_batch_at_a_time_oldest_first(workspace: UUID, now: datetime) -> None:
    premium = await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    inputs = [ProfileInput(name, traits=ON_PREMIUM) for name in ("ann", "bob", "cas")]
    [ann, bob, cas] = [(await upsert(workspace, one, now=now + SECOND))[0] for one in inputs]
    assert await beat(workspace, now=now + 2 * SECOND, batch=2) == Beat(evaluated=2, entered=2, more=True)
    assert await members_of(premium) == {ann, bob}
    assert await beat(workspace, now=now + 2 * SECOND, batch=2) == Beat(evaluated=1, entered=1)
    assert await members_of(premium) == {ann, bob, cas}


async def test_a_backlog_is_asked_about_once_though_its_events_came_over_the_edge_that_is_now(
    workspace: UUID, now: datetime
) -> None:
    """Who waits for his turn is left out until then; whom time alone moves is not."""
    buyers = await make_dynamic(workspace, BOUGHT, now=now)
    ids = await named(workspace, "ann", "bob", "eve", now=now)
    await track(workspace, "purchase", "eve", at=now - 30 * DAY + SECOND)
    await settled(workspace, now=now)
    for name in ("ann", "bob"):
        await track(workspace, "purchase", name, at=now + SECOND)
    later = now + 2 * SECOND
    assert await beat(workspace, now=later, batch=1) == Beat(evaluated=2, entered=1, exited=1, more=True)
    assert (await evaluated(workspace))[-1] == {ids[0], ids[2]}
    assert await beat(workspace, now=later, batch=1) == Beat(evaluated=1, entered=1, more=True)
    assert await beat(workspace, now=later, batch=1) == Beat()
    assert await members_of(buyers) == {ids[0], ids[1]}


# --- too many, too much -------------------------------------------------------------------------------------------


async def test_a_beat_that_would_empty_a_segment_asks_for_an_evaluation_instead(workspace: UUID, now: datetime) -> None:
    """The guard; a segment that names the guarded one goes by the members that stay."""
    people = [f"p{n}" for n in range(150)]
    ids = set(await upsert(workspace, *(ProfileInput(one, traits=ON_PREMIUM) for one in people), now=now))
    premium = await make_dynamic(workspace, PREMIUM, now=now, name="premium")
    rest = await make_dynamic(workspace, {"not": in_segment(premium)}, now=now, name="rest")
    await settled(workspace, now=now)
    basic = [ProfileInput(one, traits={"plan": "basic"}) for one in people[:120]]
    await upsert(workspace, *basic, now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=120)
    assert (await members_of(premium), await members_of(rest)) == (ids, set())
    assert await asked_for(workspace) == [(premium.id, "GUARD")]


async def test_a_few_may_always_leave_and_so_may_all_without_a_guard(workspace: UUID, now: datetime) -> None:
    people = [f"p{n}" for n in range(120)]
    await upsert(workspace, *(ProfileInput(one, traits=ON_PREMIUM) for one in people), now=now)
    unguarded = await make_dynamic(workspace, PREMIUM, now=now, name="unguarded")
    await lifecycle.update(workspace, unguarded.id, SegmentChanges(change_guard=None), now=now)
    await settled(workspace, now=now)
    basic = [ProfileInput(one, traits={"plan": "basic"}) for one in people]
    await upsert(workspace, *basic, now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=120, exited=120)
    assert await members_of(unguarded) == set()


async def test_after_a_long_rest_everything_is_evaluated(
    workspace: UUID, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    buyers = await make_dynamic(workspace, BOUGHT, now=now)
    await settled(workspace, now=now)
    [ann] = await named(workspace, "ann", now=now + SECOND)
    later = now + HOUR + SECOND
    assert await beat(workspace, now=later) == Beat(evaluated=1)
    assert await asked_for(workspace) == [(buyers.id, "BACKLOG")]
    assert (await waiting(workspace), await clock(workspace), await evaluated(workspace)) == ([], later, [{ann}])
    assert "pulse left behind" in caplog.text


async def test_when_too_many_wait_everything_is_evaluated(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "MOST_FOLLOWED", 3)
    premium = await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    ids = await named(workspace, "a", "b", "c", "d", now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=4)
    assert await asked_for(workspace) == [(premium.id, "BACKLOG")]
    assert (await waiting(workspace), await evaluated(workspace)) == ([], [set(ids)])


async def test_merges_are_followed_after_a_backlog(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "MOST_FOLLOWED", 3)
    [loser, winner] = await named(workspace, "loser", "winner", now=now)
    curated = await static_with(workspace, loser, now=now)
    await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    await merge(workspace, loser=loser, winner=winner, now=now + SECOND)
    await named(workspace, "a", "b", "c", now=now + SECOND)
    assert (await beat(workspace, now=now + 2 * SECOND)).more
    assert await members_of(curated) == {loser}
    await beat(workspace, now=now + 2 * SECOND)
    assert await members_of(curated) == {winner}


POISON = trait("poison", "EQUALS", "yes")


@pytest.mark.parametrize("of_crossings", [False, True])
async def test_a_segment_that_nobody_can_answer_holds_up_no_other(
    workspace: UUID, now: datetime, of_crossings: bool
) -> None:
    premium = await make_dynamic(workspace, PREMIUM, now=now, name="premium")
    poison = await make_dynamic(workspace, POISON, now=now, name="poison")
    rest = await make_dynamic(workspace, {"not": in_segment(poison)}, now=now, name="rest")
    await settled(workspace, now=now)
    picky = PickyEngine(of_crossings=of_crossings)
    [ann] = await upsert(workspace, ProfileInput("ann", traits={**ON_PREMIUM, "poison": "yes"}), now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND, sources=asking(picky)) == Beat(evaluated=1, entered=2)
    assert [await members_of(one) for one in (premium, poison, rest)] == [{ann}, set(), {ann}]
    assert await asked_for(workspace) == [(poison.id, "BACKLOG")]
    # Its evaluation fails and says why. From then on it stands still, and is not even asked about, until it is retried.
    await run_all(workspace, now=now + 3 * SECOND, engine=picky)
    assert await asked_for(workspace) == []
    await upsert(workspace, ProfileInput("bob", traits=ON_PREMIUM), now=now + 4 * SECOND)
    assert (await beat(workspace, now=now + 5 * SECOND, sources=asking(picky))).entered == 2
    assert await asked_for(workspace) == []
    await beat(workspace, now=now + 11 * MINUTE, sources=asking(picky))
    assert await asked_for(workspace) == [(poison.id, "BACKLOG")]
    await run_all(workspace, now=now + 11 * MINUTE)
    assert await members_of(poison) == {ann}


async def test_a_definition_that_cannot_be_read_holds_up_no_other(workspace: UUID, now: datetime) -> None:
    """One that another release wrote, say: its evaluation says what is wrong with it."""
    premium = await make_dynamic(workspace, PREMIUM, now=now, name="premium")
    unreadable = await make_dynamic(workspace, PREMIUM, now=now, name="unreadable")
    await settled(workspace, now=now)
    async with transaction(workspace) as connection:
        rewrite = "UPDATE segment SET definition = $2, definition_version = 2 WHERE id = $1"
        await connection.execute(rewrite, unreadable.id, {"horoscope": "aries"})
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=1, entered=1)
    assert (await members_of(premium), await members_of(unreadable)) == ({ann}, set())
    assert await asked_for(workspace) == [(unreadable.id, "BACKLOG")]
    await run_all(workspace, now=now + 2 * SECOND)
    assert await beat(workspace, now=now + 3 * SECOND) == Beat()
    assert await asked_for(workspace) == []


async def test_what_takes_too_long_for_many_is_raised_and_then_asked_for_few(workspace: UUID, now: datetime) -> None:
    """Whoever beats makes the batch smaller; when that does not help, each segment is asked alone."""
    premium = await make_dynamic(workspace, PREMIUM, now=now, name="premium")
    poison = await make_dynamic(workspace, POISON, now=now, name="poison")
    await settled(workspace, now=now)
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    slow = asking(PickyEngine("CONDITION_TOO_SLOW"))
    with pytest.raises(EngineError, match="No answer"):
        await beat(workspace, now=now + 2 * SECOND, sources=slow)
    assert await waiting(workspace) == [("touched", ann)]
    assert await beat(workspace, now=now + 2 * SECOND, sources=slow, batch=500) == Beat(evaluated=1, entered=1)
    assert await members_of(premium) == {ann}
    assert await asked_for(workspace) == [(poison.id, "BACKLOG")]


async def test_an_engine_that_is_away_is_nobodys_fault(workspace: UUID, now: datetime) -> None:
    await make_dynamic(workspace, POISON, now=now)
    await settled(workspace, now=now)
    await named(workspace, "ann", now=now + SECOND)
    with pytest.raises(EngineError, match="No answer"):
        await beat(workspace, now=now + 2 * SECOND, sources=asking(PickyEngine("ENGINE_UNAVAILABLE")))
    assert await asked_for(workspace) == []


async def test_notes_of_whom_beats_asked_about_are_forgotten_after_an_hour(workspace: UUID, now: datetime) -> None:
    await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    await named(workspace, "ann", now=now + SECOND)
    await beat(workspace, now=now + 2 * SECOND)
    await pulse.forget(workspace, now=now + HOUR)
    assert len(await evaluated(workspace)) == 1
    await pulse.forget(workspace, now=now + HOUR + 3 * SECOND)
    assert await evaluated(workspace) == []


async def test_another_workspace_is_another_pulse(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    here = await make_dynamic(workspace, PREMIUM, now=now)
    there = await make_dynamic(other_workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    await settled(other_workspace, now=now)
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    assert await beat(other_workspace, now=now + 2 * SECOND) == Beat()
    await beat(workspace, now=now + 2 * SECOND)
    assert (await members_of(here), await members_of(there)) == ({ann}, set())
