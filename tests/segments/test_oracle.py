"""The engine against the oracle: trees, histories and odd values that nobody would think of.

MUSTER_ORACLE_EXAMPLES says how many (`make test-long`: 10,000).
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from db.transactions import transaction
from profiles.identities import write_touched
from segments import explain, tree
from segments.engines.base import Engine
from segments.engines.packed import PackedEngine
from segments.engines.postgres import PostgresEngine
from segments.nodes import Condition, EngineLeaf, RankBy
from segments.sources import Sources
from tests.segments import oracle, oracle_engine, strategies
from tests.segments.people import Person, change_people, make_people
from tests.segments.strategies import NOW

EXAMPLES = int(os.environ.get("MUSTER_ORACLE_EXAMPLES", "1000"))
ALL = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=set(Phase) - {Phase.explain},  # hundreds of runs more of what failed
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
SOME = settings(ALL, max_examples=EXAMPLES // 5)
EXTERNAL_IDS = ("x", "xy", "Mobile", "mobile", "DE")


@pytest.fixture
def engine() -> Engine:
    return PostgresEngine()


async def ask(
    engine: Engine, workspace_id: UUID, conditions: Sequence[Condition], *, now: datetime, only: BitMap | None = None
) -> list[set[int]]:
    """Who meets each of `conditions`, all of whose leaves are asked together."""
    asked = {key: leaf for condition in conditions for key, leaf in tree.questions(condition).items()}
    leaves = cast(list[EngineLeaf], list(asked.values()))
    answers = await engine.ids(workspace_id=workspace_id, leaves=leaves, now=now, only=only)
    found = dict(zip(asked, answers, strict=True))
    universe = await engine.universe(workspace_id=workspace_id, only=only)
    return [set(tree.combine(condition, found, universe)[0]) for condition in conditions]


@ALL
@given(
    people=st.lists(strategies.people, min_size=1, max_size=5),
    conditions=st.lists(strategies.conditions, min_size=1, max_size=4),
    asked=st.integers(0, 31),
)
async def test_the_engine_finds_whom_the_oracle_finds(
    workspace: UUID, engine: Engine, people: list[Person], conditions: list[Condition], asked: int
) -> None:
    """Of everybody, and of some."""
    tenant, known = await settle(people)
    meant = [{id for id, person in known.items() if oracle.meets(one, id, person, NOW)} for one in conditions]
    assert await ask(engine, tenant, conditions, now=NOW) == meant
    some = BitMap(id for place, id in enumerate(known) if asked >> place & 1)
    assert await ask(engine, tenant, conditions, now=NOW, only=some) == [one & set(some) for one in meant]


@SOME
@given(
    people=st.lists(strategies.people, min_size=1, max_size=4),
    changes=st.lists(st.none() | strategies.changes, min_size=4, max_size=4),
    more=st.lists(strategies.people, max_size=1),
    conditions=st.lists(strategies.conditions, min_size=1, max_size=4),
    passed=st.sampled_from((timedelta(), timedelta(microseconds=1), timedelta(hours=1), timedelta(days=2))),
)
async def test_packs_find_whom_the_oracle_finds_when_people_have_changed_and_time_has_passed(
    workspace: UUID,
    people: list[Person],
    changes: list[Person | None],
    more: list[Person],
    conditions: list[Condition],
    passed: timedelta,
) -> None:
    """Who changed has other traits and more events, some of them late."""
    engine, now = PackedEngine(PostgresEngine(), fewest=0), NOW + passed
    tenant, known = await settle(people)
    meant = [{id for id, person in known.items() if oracle.meets(one, id, person, NOW)} for one in conditions]
    assert await ask(engine, tenant, conditions, now=NOW) == meant
    changed = {id: change for id, change in zip(known, changes, strict=False) if change is not None}
    await change_people(tenant, changed)
    for id, change in changed.items():
        known[id] = replace(known[id], traits=change.traits, events=[*known[id].events, *change.events])
    named = [replace(person, external_id="who came") for person in more]
    came = dict(zip(await make_people(tenant, *named), named, strict=True))
    async with transaction(tenant) as connection:
        await write_touched(connection, workspace_id=tenant, profile_ids=came.keys())
    known |= came
    meant = [{id for id, person in known.items() if oracle.meets(one, id, person, now)} for one in conditions]
    assert await ask(engine, tenant, conditions, now=now) == meant


@SOME
@given(
    people=st.lists(strategies.people, min_size=1, max_size=5),
    leaves=st.lists(strategies.engine_leaves, min_size=1, max_size=4),
    passed=st.sampled_from((timedelta(microseconds=1), timedelta(seconds=1), timedelta(hours=3), timedelta(days=2))),
)
async def test_whoever_time_alone_moves_has_crossed_an_edge(
    workspace: UUID, engine: Engine, people: list[Person], leaves: list[EngineLeaf], passed: timedelta
) -> None:
    tenant, known = await settle([seen_by_events(person) for person in people])
    crossed = await engine.crossed(workspace_id=tenant, leaves=leaves, since=NOW - passed, until=NOW)
    assert oracle_engine.differing(leaves, known, NOW - passed, NOW) - crossed == BitMap()


@SOME
@given(
    people=st.lists(strategies.people, min_size=1, max_size=5),
    by=strategies.rankings,
    leaves=st.lists(strategies.engine_leaves, min_size=1, max_size=4),
    condition=strategies.conditions,
    asked=st.integers(0, 31),
)
async def test_ranks_looks_and_explanations_are_those_of_the_oracle(
    workspace: UUID,
    engine: Engine,
    people: list[Person],
    by: RankBy,
    leaves: list[EngineLeaf],
    condition: Condition,
    asked: int,
) -> None:
    tenant, known = await settle(people)
    ranks = await engine.ranks(workspace_id=tenant, by=by, now=NOW)
    assert dict(zip(ranks.ids, ranks.values, strict=True)) == pytest.approx(oracle_engine.ranking(by, known, NOW))
    assert list(ranks.ids) == sorted(ranks.ids)
    some = BitMap(id for place, id in enumerate(known) if asked >> place & 1)
    of_some = await engine.ranks(workspace_id=tenant, by=by, now=NOW, only=some)
    among = [(id, value) for id, value in zip(ranks.ids, ranks.values, strict=True) if id in some]
    assert list(zip(of_some.ids, of_some.values, strict=True)) == among
    id, person = next(iter(known.items()))
    looks = await engine.looks(workspace_id=tenant, leaves=leaves, now=NOW, profile_id=id)
    assert [look.value for look in looks] == [oracle_engine.value(leaf, id, person, NOW) for leaf in leaves]
    # Not the oracle's here: among these leaves are some that a profile without events meets, which no engine is asked.
    found = await engine.ids(workspace_id=tenant, leaves=leaves, now=NOW, only=BitMap([id]))
    assert [look.matches for look in looks] == [id in ids for ids in found]
    nodes = await explain.verdicts(tenant, condition, id, inside={}, sources=Sources(engine), now=NOW)
    assert [node.matches for node in nodes] == [oracle.meets(node.condition, id, person, NOW) for node in nodes]


async def settle(people: Sequence[Person]) -> tuple[UUID, dict[int, Person]]:
    """A workspace of these people, and who they are there. Nothing needs its row, and nobody else is in it."""
    tenant = uuid4()
    named = [replace(person, external_id=name) for person, name in zip(people, EXTERNAL_IDS, strict=False)]
    return tenant, dict(zip(await make_people(tenant, *named), named, strict=True))


def seen_by_events(person: Person) -> Person:
    """Last and first seen when an event occurred, or came in if its clock was ahead, as ingestion writes it."""
    sights = [min(event.at, event.received_at or event.at) for event in person.events]
    return replace(person, first_seen_at=min(sights, default=None), last_seen_at=max(sights, default=None))
