"""A worker process whose Valkey is away works on, and hears bells again when it is back (ADR 0030)."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import UUID, uuid4

import pytest
import redis.asyncio
import uvloop
from arq import Worker
from arq.connections import ArqRedis

from app import wakeups
from app.embedded import Server, start_valkey
from app.wakeups import QUEUE, Wakeups
from campaigns import sending
from campaigns.models import Campaign
from db.transactions import transaction
from profiles.addresses import AddressHasher
from segments import evaluation, lifecycle
from segments.lifecycle import SegmentInput
from segments.models import SegmentType
from tests.blast.running import until
from tests.campaigns.factories import make_campaign, make_people
from tests.conftest import Database
from tests.servers import Gate, ScriptedSmtp
from tests.workers.running import is_sent, make_due, worker
from workers import hearing
from workers.jobs import JobContext
from workers.own_turns import Job, OwnTurns

WENT, CAME = "Valkey is away", "Valkey is back"


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Server]:
    """One that the test may kill; started again in its folder it has the same address."""
    if os.geteuid() == 0:
        tmp_path.chmod(0o711)
    with start_valkey(tmp_path / "valkey") as server:
        yield server


async def is_evaluated(workspace: UUID) -> None:
    """Have a new segment evaluated for the first time."""
    now = datetime.now(UTC)
    wanted = SegmentInput(name=f"New {uuid4()}", type=SegmentType.DYNAMIC, definition={"identified": True})
    segment = await lifecycle.activate(workspace, (await lifecycle.create(workspace, wanted, now=now)).id, now=now)

    async def ask() -> bool:
        return await evaluation.find_open(workspace, segment.id) is None

    await until("the first evaluation", ask)


async def states(campaign: Campaign) -> dict[str, int]:
    """Messages by their state."""
    async with transaction(campaign.workspace_id) as connection:
        rows = await connection.fetch(
            "SELECT v.state, count(*) FROM delivery v JOIN dispatch d ON d.id = v.dispatch_id"
            " WHERE d.campaign_id = $1 GROUP BY 1",
            campaign.id,
        )
    return {row["state"]: row["count"] for row in rows}


async def hears_bells(redis_url: str) -> None:
    """Ring for nothing, and wait until a worker has taken the bell: nothing but arq's loop does."""
    valkey = redis.asyncio.from_url(redis_url)
    # Bells of turns that were under way when Valkey went: arq could not take them out.
    left_over = set(await valkey.zrange(QUEUE, 0, -1))
    bells = Wakeups(redis_url)
    await bells.evaluate(workspace_id=uuid4(), evaluation_id=uuid4())
    assert not bells.is_away
    await bells.close()

    async def ask() -> bool:
        return set(await valkey.zrange(QUEUE, 0, -1)) <= left_over

    try:
        await until("somebody to hear the bell", ask)
    finally:
        await valkey.aclose()


async def test_a_worker_that_starts_without_valkey_does_what_is_due_and_hears_bells_later(
    workspace: UUID, database: Database, own_valkey: Server, hasher: AddressHasher, tmp_path: Path
) -> None:
    own_valkey.stop()
    await make_people(workspace, [f"p{n}" for n in range(5)], hasher=hasher, now=datetime.now(UTC))
    campaign = await make_due(workspace)
    async with ScriptedSmtp() as mails, worker(database, own_valkey.url, mails.port, tmp_path) as running:
        await is_sent(workspace, campaign)
        await is_evaluated(workspace)
        await running.lacks(["valkey"])
        assert (await states(campaign), len(mails.received)) == ({"sent": 5}, 5)
        assert (running.said(WENT), running.said(CAME)) == (1, 0)
        with start_valkey(own_valkey.folder):
            await running.lacks([])
            await hears_bells(own_valkey.url)
            assert (running.said(WENT), running.said(CAME)) == (1, 1)


async def test_a_worker_whose_valkey_is_killed_ends_its_turn_and_takes_others(
    workspace: UUID, database: Database, own_valkey: Server, hasher: AddressHasher, tmp_path: Path
) -> None:
    await make_people(workspace, [f"p{n:02}" for n in range(60)], hasher=hasher, now=datetime.now(UTC))
    async with ScriptedSmtp() as mails, worker(database, own_valkey.url, mails.port, tmp_path) as running:
        await running.lacks([])
        under_way = await make_due(workspace, rate_per_s=10)

        async def some_arrived() -> bool:
            return len(mails.received) > 5

        await until("the first mails", some_arrived)
        own_valkey.process.kill()
        own_valkey.stop()
        assert len(mails.received) < 60
        await is_sent(workspace, under_way)
        await is_sent(workspace, await make_due(workspace))
        await is_evaluated(workspace)
        await running.lacks(["valkey"])
        assert (await states(under_way), len(mails.received)) == ({"sent": 60}, 120)
        with start_valkey(own_valkey.folder):
            await running.lacks([])
            await hears_bells(own_valkey.url)
        assert (running.said("turn failed"), running.said("CancelledError")) == (0, 0), "the turn was cut off"


async def test_a_worker_whose_valkey_hangs_takes_its_turns_and_hears_bells_when_it_goes_on(
    workspace: UUID, database: Database, own_valkey: Server, hasher: AddressHasher, tmp_path: Path
) -> None:
    await make_people(workspace, ["a", "b"], hasher=hasher, now=datetime.now(UTC))
    async with Gate(own_valkey.port) as gate, ScriptedSmtp() as mails:
        behind = own_valkey.url.replace(f":{own_valkey.port}/", f":{gate.port}/")
        async with worker(database, behind, mails.port, tmp_path) as running:
            await running.lacks([])
            gate.shut()
            await is_sent(workspace, await make_due(workspace))
            gate.open()
            await hears_bells(own_valkey.url)


async def test_a_worker_told_to_stop_without_valkey_waits_for_its_answers(
    workspace: UUID, database: Database, own_valkey: Server, hasher: AddressHasher, tmp_path: Path
) -> None:
    own_valkey.stop()
    now = datetime.now(UTC)
    await make_people(workspace, [f"p{n:03}" for n in range(200)], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now, rate_per_s=20)
    await sending.start(workspace, campaign.id, now=now)
    async with (
        ScriptedSmtp() as mails,
        Gate(mails.port) as gate,
        worker(database, own_valkey.url, gate.port, tmp_path) as running,
    ):

        async def some_arrived() -> bool:
            return bool(mails.received)

        async def many_wait() -> bool:
            return (await states(campaign)).get("sending", 0) > 10

        await until("the first mail", some_arrived)
        gate.shut()
        await until("messages that wait for their answers", many_wait)
        running.process.send_signal(signal.SIGTERM)
        gate.open()
        assert await running.ended() == 0
        found = await states(campaign)
        assert found.keys() == {"sent", "pending"}, "nothing is sent any more, and nothing is in doubt"
        assert found["sent"] == len(mails.received)


async def test_who_listens_to_a_valkey_that_hangs_is_told_so(
    own_valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "PATIENCE_S", 0.5)
    async with Gate(own_valkey.port) as gate:
        pool = await wakeups.connect(own_valkey.url.replace(f":{own_valkey.port}/", f":{gate.port}/"))
        await pool.ping()
        gate.shut()
        with pytest.raises(redis.exceptions.TimeoutError):
            await pool.ping()
        await pool.aclose()


def test_a_connection_that_ended_just_before_a_command_is_a_valkey_that_went(
    own_valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of that uvloop, on which all processes run, says RuntimeError."""
    pools: list[ArqRedis] = []
    turns: list[str] = []

    async def recorded(url: str) -> ArqRedis:
        pools.append(await wakeups.connect(url))
        return pools[-1]

    async def take_turn(context: object, workspace_id: str, about: str) -> None:
        turns.append(about)

    async def end_idle_connections(pool: ArqRedis) -> None:
        connections = pool.connection_pool

        async def ask() -> bool:
            return bool(connections._available_connections) and not connections._in_use_connections

        await until("a connection that nobody uses", ask)
        for connection in connections._available_connections:
            assert connection._writer is not None
            connection._writer.transport.abort()

    async def lives_on() -> None:
        bells, stopping = Wakeups(own_valkey.url), asyncio.Event()
        carrier, settings = SimpleNamespace(stopping=stopping), SimpleNamespace(redis_url=own_valkey.url)
        resources = SimpleNamespace(carrier=carrier, settings=settings, wakeups=bells)
        context = cast(JobContext, {"resources": resources})
        jobs = {"evaluate": Job(take_turn, 60.0)}
        own_turns = OwnTurns(jobs, context, most=2)
        bells.here = own_turns.begin
        listening = asyncio.create_task(hearing.hear_on(jobs, context, own_turns, most=2))

        async def is_listening_anew() -> bool:
            # Again, for redis-py may have noticed in time.
            for connection in pools[0].connection_pool._available_connections:
                if connection._writer is not None:
                    connection._writer.transport.abort()
            return listening.done() or len(pools) > 1

        async def both_turns() -> bool:
            return len(turns) == 2

        await bells.reach()
        assert bells.redis is not None
        await end_idle_connections(bells.redis)
        await bells.ring("evaluate", "w", "not rung for")
        await until("the pool of arq", lambda: asyncio.sleep(0, bool(pools)))
        await until("a new connection", is_listening_anew)
        await bells.reach()
        await bells.ring("evaluate", "w", "rung for")
        await until("both turns", both_turns)
        stopping.set()
        await listening
        await own_turns.end(within_s=60)
        await bells.close()

    monkeypatch.setattr(hearing, "connect", recorded)
    monkeypatch.setattr(hearing, "AGAIN_AFTER_S", 0.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(lives_on())
    assert turns == ["not rung for", "rung for"]


async def test_who_stops_does_not_wait_for_a_loop_that_missed_it() -> None:
    began = asyncio.Event()

    async def misses_the_first() -> None:
        began.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    stopping, taken_over = asyncio.Event(), list[object]()
    own_turns = SimpleNamespace(take_over=lambda tasks, pool: taken_over.append(pool))
    arq = SimpleNamespace(async_run=misses_the_first, tasks={}, pool="pool")
    hearing_on = asyncio.create_task(hearing.hear(cast(Worker, arq), stopping, cast(OwnTurns, own_turns)))
    await began.wait()
    stopping.set()
    async with asyncio.timeout(30):
        await hearing_on
    assert taken_over == ["pool"]
