"""What is read of everybody, and what is not."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from pyroaring import BitMap

from segments import finding
from segments.conditions import parse
from segments.engines.postgres import PostgresEngine
from segments.finding import Wanted
from segments.nodes import SavedSql
from segments.saved_queries import SavedQueryInput, SavedSqlSource, create
from segments.sources import Sources
from tests.segments.factories import ON_PREMIUM, PREMIUM, Person, bought, erase, make_brand, make_people, merge

BOUGHT = {"event": {"name": "purchase"}}


class WatchedEngine(PostgresEngine):
    """Says how it was asked about everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def universe(self, **asked: Any) -> BitMap:
        self.asked.append("universe" if asked.get("brand_id") is None else "brand")
        return await super().universe(**asked)

    async def gone(self, **asked: Any) -> BitMap:
        self.asked.append("gone")
        return await super().gone(**asked)

    async def profiles(self, **asked: Any) -> int:
        self.asked.append("profiles")
        return await super().profiles(**asked)


async def find(
    workspace: UUID,
    definition: object,
    *,
    now: datetime,
    engine: PostgresEngine | None = None,
    brand_id: UUID | None = None,
    members: dict[UUID, BitMap | None] | None = None,
) -> tuple[set[int], list[int]]:
    """Who meets it, and the sizes of its nodes."""
    id = uuid4()
    sources = Sources(engine or PostgresEngine(), {SavedSql: SavedSqlSource()})
    found = await finding.find(
        {id: Wanted(parse(definition), brand_id)},
        sources=sources,
        workspace_id=workspace,
        now=now,
        members=members or {},
    )
    return set(found[id].members), [node.size for node in found[id].nodes]


async def test_everybody_is_listed_only_for_a_condition_that_everybody_but_some_meet(
    workspace: UUID, now: datetime
) -> None:
    (one, other) = await make_people(workspace, ON_PREMIUM, Person(events=[bought(now)]))
    brand = await make_brand(workspace, "shoes", other)
    everyone = uuid4()
    for definition, expected, asked in (
        (PREMIUM, {one}, ["gone"]),
        ({"all": [PREMIUM, {"not": BOUGHT}]}, {one}, ["gone", "profiles"]),
        ({"not": BOUGHT}, {one}, ["universe"]),
        ({"all": [{"inSegment": str(everyone)}, BOUGHT]}, {other}, ["universe"]),
    ):
        engine = WatchedEngine()
        engine.counted[workspace] = 2, float("inf")  # not to be counted for the choice of plans
        found, _ = await find(workspace, definition, now=now, engine=engine, members={everyone: None})
        assert (found, engine.asked) == (expected, asked), definition
    engine = WatchedEngine()
    engine.counted[workspace] = 2, float("inf")
    assert await find(workspace, BOUGHT, now=now, engine=engine, brand_id=brand) == ({other}, [1])
    assert engine.asked == ["brand"]


async def test_whoever_is_gone_is_in_no_answer_and_no_size(workspace: UUID, now: datetime) -> None:
    person = Person(traits={"plan": "premium"}, events=[bought(now)])
    ids = await make_people(workspace, *[person] * 4, Person())
    await erase(workspace, ids[0])
    await merge(workspace, loser=ids[1], winner=ids[2])
    # A static segment may still have their ids: it follows a moment later.
    named = uuid4()
    members: dict[UUID, BitMap | None] = {named: BitMap(ids)}
    condition = {"all": [{"inSegment": str(named)}, {"not": {"event": {"name": "refund"}}}, PREMIUM]}
    found, sizes = await find(workspace, condition, now=now, members=members)
    assert found == {ids[2], ids[3]}
    assert sizes == [2, 3, 3, 0, 2]


@pytest.mark.parametrize("part", [{}, {"beside": PREMIUM}])
async def test_a_saved_query_names_nobody_of_another_workspace(
    workspace: UUID, other_workspace: UUID, now: datetime, part: dict[str, object]
) -> None:
    """It may select any number: only a list of those who live here keeps foreign ids out."""
    mine = await make_people(workspace, ON_PREMIUM, ON_PREMIUM)
    (foreign,) = await make_people(other_workspace, ON_PREMIUM)
    sql = f"SELECT profile_id + {foreign - mine[0]} AS profile_id FROM profiles UNION ALL SELECT {mine[1]}"
    query = await create(workspace, SavedQueryInput(name="Odd", sql=sql), now=now)
    saved: dict[str, object] = {"savedQuery": str(query.id)}
    definition = {"any": [saved, {"all": [saved, part["beside"]]}]} if part else saved
    found, _ = await find(workspace, definition, now=now)
    assert found == {mine[1]}
