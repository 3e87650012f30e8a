"""Live segments as their users see them: events over HTTP to the API, two worker processes, members over GraphQL."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest

from app.administration import make_key, open_database_of
from app.processes import end, launched
from app.settings import load_settings
from app.stack import DRAIN_TIMEOUT_S, Stack
from segments import everyone, membership
from tests.app.caller import Caller
from tests.blast.running import child_of, children_of, until

# What a beat does last, with everything done and nothing committed.
AT_THE_END_OF_A_BEAT = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO pulse %'
"""


@pytest.fixture(scope="module")
def workers(stack: Stack) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The stack's worker, and a second one."""
    second = subprocess.Popen(
        launched(stack.command("worker"), ends_with_us=True),
        env=stack.environ,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield [stack.processes["worker"], second]
    finally:
        end(second, [signal.SIGTERM], timeout_s=DRAIN_TIMEOUT_S)


@pytest.fixture
async def console(
    stack: Stack, workers: list[subprocess.Popen[bytes]], request: pytest.FixtureRequest
) -> AsyncIterator[Caller]:
    """A caller with every scope in a workspace of its own."""

    async def both_work() -> bool:
        return all(children_of(one) for one in workers)

    await until("two workers", both_work)
    async with open_database_of(load_settings(stack.environ)):
        workspace_id = await everyone.create_workspace(request.node.name, time_zone="UTC")
        scopes = ["read", "segments", "campaigns", "send", "admin", "ingest"]
        key = await make_key(workspace_id, name="test", kind="secret", scopes=scopes)
        async with httpx2.AsyncClient(base_url=stack.api_url, timeout=30) as http:
            yield Caller(http, workspace_id, key)


async def live_segment(console: Caller, **wanted: Any) -> str:
    """The id of a new active segment that was evaluated."""
    made = await console.data("SegmentCreate", input={"name": "live", "type": "DYNAMIC", **wanted})
    segment_id: str = made["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment_id})

    async def evaluated() -> bool:
        return (await console.data("Segment", id=segment_id))["size"] is not None

    await until("the first evaluation", evaluated)
    return segment_id


async def members_of(console: Caller, segment_id: str, **order: str) -> list[str]:
    """External ids, in the order asked for."""
    segment = await console.data("SegmentMembers", id=segment_id, first=100, **order)
    return [edge["node"]["externalId"] for edge in segment["members"]["edges"]]


async def until_members(console: Caller, segment_id: str, *external_ids: str, **order: str) -> None:
    """Wait until these are the members."""

    async def as_wanted() -> bool:
        return await members_of(console, segment_id, **order) == list(external_ids)

    await until(f"members {external_ids}", as_wanted)


async def track(console: Caller, name: str, *external_ids: str, at: datetime | None = None) -> None:
    """Post events over REST, as sites and services do."""
    events = [
        {"messageId": f"{name} {one} {at}", "name": name, "externalId": one, "occurredAt": at and at.isoformat()}
        for one in external_ids
    ]
    for start in range(0, len(events), 1000):
        body = {"events": events[start : start + 1000]}
        answer = await console.http.post("/v1/events", json=body, headers=console.all_headers())
        assert answer.status_code == 202, answer.text


async def changes_of(console: Caller, segment_id: str) -> list[tuple[str, str]]:
    """(what happened, external id) from the segment's feed."""
    segment = await console.data("SegmentChanges", id=segment_id, first=100)
    edges = segment["changes"]["edges"]
    return [(edge["node"]["kind"], edge["node"]["profile"]["externalId"]) for edge in edges]


async def test_an_event_lets_its_person_in_with_no_refresh(console: Caller) -> None:
    """S0-08, S0-22: and out of the segment of those who never did it."""
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": "ann"}, {"externalId": "bob"}]})
    buyers = await live_segment(console, definition={"event": {"name": "purchase", "within": {"days": 30}}})
    others = await live_segment(console, definition={"event": {"name": "purchase", "never": True}})
    assert (await members_of(console, buyers), await members_of(console, others)) == ([], ["ann", "bob"])
    await track(console, "purchase", "bob")
    await until_members(console, buyers, "bob")
    await until_members(console, others, "ann")


async def test_an_event_that_ages_out_removes_its_person_with_no_new_event(console: Caller) -> None:
    """S0-09."""
    recent = await live_segment(console, definition={"event": {"name": "signal", "within": {"minutes": 1}}})
    await track(console, "signal", "ann", at=datetime.now(UTC) - timedelta(seconds=40))

    async def came_and_went() -> bool:
        return await changes_of(console, recent) == [("ENTERED", "ann"), ("EXITED", "ann")]

    await until("ann to come and to go", came_and_went)
    assert await members_of(console, recent) == []


async def test_a_changed_value_moves_its_person_up_in_the_order(console: Caller) -> None:
    """S0-10, S0-11: and out goes who is the last now."""
    people = [{"externalId": name, "traits": {"value": value}} for name, value in (("ann", 30), ("bob", 20))]
    await console.data("ProfilesUpsert", input={"profiles": people})
    best = await live_segment(
        console,
        definition={"trait": {"key": "value", "operator": "EXISTS"}},
        ranking={"by": {"trait": "value"}, "top": 2},
    )
    assert await members_of(console, best, orderBy="RANK") == ["ann", "bob"]
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": "cas", "traits": {"value": 40}}]})
    await until_members(console, best, "cas", "ann", orderBy="RANK")
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": "ann", "traits": {"value": 50}}]})
    await until_members(console, best, "ann", "cas", orderBy="RANK")


async def test_a_paused_segment_keeps_its_members_while_others_move(console: Caller) -> None:
    """S0-23."""
    definition = {"event": {"name": "purchase"}}
    paused = await live_segment(console, definition=definition)
    live = await live_segment(console, definition=definition)
    await track(console, "purchase", "ann")
    await until_members(console, paused, "ann")
    await until_members(console, live, "ann")
    await console.data("SegmentPause", input={"id": paused})
    await track(console, "purchase", "bob")
    await until_members(console, live, "ann", "bob")
    assert await members_of(console, paused) == ["ann"]


async def test_workers_that_are_killed_in_the_middle_of_a_beat_lose_nothing(
    stack: Stack, workers: list[subprocess.Popen[bytes]], console: Caller
) -> None:
    """kill -9 when everything of a beat is done and nothing is committed; the next one does it all."""
    people = [f"p{n:03}" for n in range(500)]
    for start in range(0, 500, 100):
        batch = [{"externalId": one} for one in people[start : start + 100]]
        await console.data("ProfilesUpsert", input={"profiles": batch})
    buyers = await live_segment(console, definition={"event": {"name": "purchase"}})
    # Two, for within a transaction pg_stat_activity stands still.
    holder, watcher = await asyncpg.connect(stack.owner_url), await asyncpg.connect(stack.owner_url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE pulse IN EXCLUSIVE MODE")
            await track(console, "purchase", *people)

            async def at_the_end() -> bool:
                waits: int = await watcher.fetchval(AT_THE_END_OF_A_BEAT)
                return waits > 0

            await until("a beat that has only to commit", at_the_end)
            for supervisor in workers:
                os.kill(child_of(supervisor), signal.SIGKILL)
            assert (await console.data("Segment", id=buyers))["size"] == 0

        async def all_in() -> bool:
            size: int = (await console.data("Segment", id=buyers))["size"]
            return size == len(people)

        await until("everybody to be in", all_in)
        assert await membership.verify(console.workspace_id) == []
        assert await changes_of(console, buyers) == [("ENTERED", one) for one in people[:100]]
    finally:
        await holder.close()
        await watcher.close()
