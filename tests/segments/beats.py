"""Beats of the pulse as tests need them, and engines that wait or fail on purpose."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from pyroaring import BitMap

from db.transactions import transaction
from profiles import erasing, events, merging, profiles
from profiles.addresses import AddressHasher
from profiles.events import EventInput
from profiles.profiles import ProfileInput
from segments import membership, pulse
from segments.engines.base import EngineError
from segments.engines.postgres import PostgresEngine
from segments.models import Segment
from segments.nodes import Trait
from segments.pulse import Beat
from segments.sources import Sources
from tests.segments.factories import SOURCES, make_static, run_all

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

Json = dict[str, object]

ON_PREMIUM: Json = {"plan": "premium"}

HASHER = AddressHasher(b"an address key of the tests, 32+ bytes")
WAITING = """
SELECT kind, unnest(coalesce(profile_ids, ARRAY[profile_id])) AS profile_id FROM profile_change
WHERE workspace_id = $1 ORDER BY seq
"""
PULSES = "SELECT evaluated FROM pulse WHERE workspace_id = $1 ORDER BY id"
CLOCK = "SELECT through FROM pulse_clock WHERE workspace_id = $1"
EVALUATIONS = """
SELECT segment_id, cause, status FROM evaluation WHERE workspace_id = $1 AND status IN ('QUEUED', 'RUNNING') ORDER BY id
"""


def event(**given: object) -> Json:
    return {"event": {"name": "purchase", **given}}


def trait(key: str, operator: str, value: object = None) -> Json:
    return {"trait": {"key": key, "operator": operator, **({} if value is None else {"value": value})}}


def in_segment(segment: Segment) -> Json:
    return {"inSegment": str(segment.id)}


BOUGHT = event(within={"days": 30})
NEVER_BOUGHT = event(never=True)


async def settled(workspace_id: UUID, *, now: datetime) -> None:
    """Every segment evaluated, the clock at `now`, and nobody waiting."""
    await run_all(workspace_id, now=now)
    await drain(workspace_id, now=now)


async def drain(workspace_id: UUID, *, now: datetime) -> None:
    """Beat until nobody waits."""
    while (await beat(workspace_id, now=now)).more:
        continue


async def beat(workspace_id: UUID, *, now: datetime, sources: Sources = SOURCES, batch: int = pulse.BATCH) -> Beat:
    """A beat that nothing was in the way of."""
    done = await pulse.beat(workspace_id, sources=sources, batch=batch, now=now)
    assert done is not None
    return done


async def track(workspace_id: UUID, name: str, *external_ids: str, at: datetime, now: datetime | None = None) -> None:
    """An event of this name of each of these people, taken in at `now`, by default when it occurred."""
    inputs = [EventInput(uuid4().hex, name, external_id=one, occurred_at=at) for one in external_ids]
    report = await events.track(workspace_id, inputs, now=now or at)
    assert report.accepted == len(inputs)


async def upsert(workspace_id: UUID, *inputs: ProfileInput, now: datetime) -> list[int]:
    """The ids of these people, as they are now."""
    outcomes = await profiles.upsert(workspace_id, inputs, hasher=HASHER, now=now)
    assert [one.error for one in outcomes] == [None] * len(inputs)
    return [one.profile_id for one in outcomes if one.profile_id is not None]


async def named(workspace_id: UUID, *external_ids: str, now: datetime) -> list[int]:
    """The ids of new people without traits."""
    return await upsert(workspace_id, *(ProfileInput(one) for one in external_ids), now=now)


async def merge(workspace_id: UUID, *, loser: int, winner: int, now: datetime) -> None:
    assert (await merging.merge(workspace_id, loser_id=loser, winner_id=winner, now=now)).merged


async def erase(workspace_id: UUID, profile_id: int, *, now: datetime) -> None:
    async with transaction(workspace_id) as connection:
        await erasing.erase(connection, workspace_id=workspace_id, profile_id=profile_id, now=now)


async def static_with(workspace_id: UUID, *profile_ids: int, now: datetime, name: str = "curated") -> Segment:
    """A static segment of these people."""
    segment = await make_static(workspace_id, now=now, name=name)
    async with transaction(workspace_id) as connection:
        await membership.alter(
            connection,
            workspace_id=workspace_id,
            segment_id=segment.id,
            enter=BitMap(profile_ids),
            reason="added",
            now=now,
        )
    return segment


async def rows(workspace_id: UUID, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    async with transaction(workspace_id) as connection:
        return [tuple(row) for row in await connection.fetch(query, workspace_id, *arguments)]


async def waiting(workspace_id: UUID) -> list[tuple[str, int]]:
    """(kind, profile id) of the changes that nobody has acted on."""
    return [(kind, id) for kind, id in await rows(workspace_id, WAITING)]


async def evaluated(workspace_id: UUID) -> list[set[int]]:
    """Whom each beat asked about, of those that asked about anybody."""
    return [set(BitMap.deserialize(packed)) for (packed,) in await rows(workspace_id, PULSES)]


async def clock(workspace_id: UUID) -> datetime:
    [(through,)] = await rows(workspace_id, CLOCK)
    assert isinstance(through, datetime)
    return through


async def asked_for(workspace_id: UUID) -> list[tuple[UUID, str]]:
    """(segment, cause) of the full evaluations that wait or run."""
    return [(id, cause) for id, cause, _ in await rows(workspace_id, EVALUATIONS)]


async def status_of_newest(segment: Segment, status: str) -> None:
    """Make the segment's newest evaluation look like this."""
    change = """
    UPDATE evaluation SET status = $2 WHERE workspace_id = $1 AND id = (
      SELECT id FROM evaluation WHERE segment_id = $3 ORDER BY id DESC LIMIT 1)
    """
    async with transaction(segment.workspace_id) as connection:
        await connection.execute(change, segment.workspace_id, status, segment.id)


@dataclass
class Gate:
    """A place where somebody waits until he is let through."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> None:
        self.reached.set()
        await self.opened.wait()

    async def reached_by(self, task: "asyncio.Task[Any]") -> None:
        """Wait until `task` stands at the gate; when it ends before, that is an error, and its own if it has one."""
        standing = asyncio.create_task(self.reached.wait())
        await asyncio.wait({standing, task}, return_when=asyncio.FIRST_COMPLETED)
        standing.cancel()
        if not self.reached.is_set():
            raise AssertionError(f"never came to the gate: {await task}")


class GatedEngine(PostgresEngine):
    """Waits at a gate, once, before it says who meets conditions."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate: Gate | None = gate

    async def ids(self, *, leaves: Sequence[Any], **rest: Any) -> list[BitMap]:
        if self.gate is not None:
            gate, self.gate = self.gate, None
            await gate.wait()
        return await super().ids(leaves=leaves, **rest)


class PickyEngine(PostgresEngine):
    """Answers no question that has the trait "poison" in it, about who meets conditions or who crosses edges."""

    def __init__(self, code: str = "ENGINE_REFUSED", *, of_crossings: bool = False) -> None:
        super().__init__()
        self.code = code
        self.of_crossings = of_crossings

    def refuse(self, leaves: Sequence[Any]) -> None:
        if any(isinstance(leaf, Trait) and leaf.key == "poison" for leaf in leaves):
            raise EngineError(self.code, "No answer.")

    async def ids(self, *, leaves: Sequence[Any], **rest: Any) -> list[BitMap]:
        self.refuse(leaves)
        return await super().ids(leaves=leaves, **rest)

    async def crossed(self, *, leaves: Sequence[Any], **rest: Any) -> BitMap:
        if self.of_crossings:
            self.refuse(leaves)
        return await super().crossed(leaves=leaves, **rest)


def asking(engine: PostgresEngine) -> Sources:
    return Sources(engine)
