"""The engine against the oracle: trees, histories and odd values that nobody would think of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from pyroaring import BitMap

from segments import evaluation
from segments.engines.base import Engine
from segments.engines.postgres import PostgresEngine
from segments.nodes import Condition
from tests.segments import factories, oracle, strategies
from tests.segments.factories import Happened, Person

EDGES = tuple(timedelta(hours=hours) for hours in (0, 1, 2, 3, 24, 48, 72, 168, 336, 504))
"""Window lengths of the strategies: instants on an edge, and a microsecond to either side, are what goes wrong."""


@dataclass(frozen=True)
class World:
    """People in the database, and the same in memory; the living only."""

    workspace_id: UUID
    now: datetime
    living: dict[int, Person]
    everybody: BitMap


def some_instant(random: Random, now: datetime) -> datetime:
    near = now - random.choice(EDGES) + timedelta(microseconds=random.choice((-1, 0, 1)))
    return random.choice((near, now - timedelta(minutes=random.randrange(60 * 24 * 40)), now + timedelta(hours=1)))


def some_values(random: Random) -> dict[str, object]:
    keys = random.sample(strategies.KEYS, random.randrange(len(strategies.KEYS) + 1))
    return {key: random.choice(strategies.VALUES) for key in keys}


def some_person(random: Random, now: datetime) -> Person:
    return Person(
        traits=some_values(random),
        identified=random.random() < 0.6,
        first_seen_at=random.choice((None, some_instant(random, now))),
        last_seen_at=random.choice((None, some_instant(random, now))),
        events=[
            Happened(random.choice(strategies.NAMES), some_instant(random, now), some_values(random))
            for _ in range(random.choice((0, 0, 1, 2, 3, 6)))
        ],
    )


@pytest.fixture
async def world(workspace: UUID, other_workspace: UUID, now: datetime) -> World:
    """A hundred people, eight of them merged or erased, beside another tenant's."""
    random = Random(20)
    await factories.make_people(other_workspace, *(some_person(random, now) for _ in range(30)))
    people: Sequence[Person] = [some_person(random, now) for _ in range(100)]
    ids = await factories.make_people(workspace, *people)
    for dead in ids[:4]:
        await factories.erase(workspace, dead)
    for loser in ids[4:8]:
        await factories.merge(workspace, loser=loser, winner=ids[8])
    return World(workspace, now, dict(zip(ids[8:], people[8:], strict=True)), BitMap(ids))


@pytest.fixture
def engine() -> Engine:
    return PostgresEngine()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condition=strategies.conditions)
async def test_the_engine_finds_whom_the_oracle_finds(world: World, engine: Engine, condition: Condition) -> None:
    found = await evaluation.find_members(
        condition, engine=engine, workspace_id=world.workspace_id, brand_id=None, now=world.now
    )
    meant = {id for id, person in world.living.items() if oracle.meets(condition, person, world.now)}
    assert set(found.members) == meant
    assert found.nodes[0].size == len(meant)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condition=strategies.conditions)
async def test_asked_of_some_the_engine_finds_the_same_among_them(
    world: World, engine: Engine, condition: Condition
) -> None:
    some = BitMap(list(world.everybody)[::3])
    found = await evaluation.find_members(
        condition, engine=engine, workspace_id=world.workspace_id, brand_id=None, now=world.now, only=some
    )
    meant = {id for id, person in world.living.items() if id in some and oracle.meets(condition, person, world.now)}
    assert set(found.members) == meant
