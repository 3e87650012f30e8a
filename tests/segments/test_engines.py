"""What any engine must answer, leaf by leaf, and what the PostgreSQL one must never do."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlglot
from hypothesis import given, settings
from pyroaring import BitMap
from sqlglot import exp

from db.roles import Role
from db.transactions import transaction
from segments import tree
from segments.conditions import parse
from segments.engines import leaves as leaf_queries
from segments.engines.base import Engine, EngineError
from segments.engines.postgres import PostgresEngine
from segments.nodes import Event, Leaf
from tests.segments import factories, strategies
from tests.segments.factories import DAY, Happened, Person

ENGINES = {"postgres": PostgresEngine}
ODD = "it's \"%_\\ ключ 💥"


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Every engine there is: another one is added to ENGINES and must pass all that uses this fixture."""
    made: Engine = ENGINES[request.param]()
    return made


async def found(
    engine: Engine, workspace_id: UUID, leaf: dict[str, Any], *, now: datetime, only: BitMap | None = None
) -> set[int]:
    """Whom the engine finds for a leaf that needs no tree."""
    (asked,) = tree.questions(parse(leaf)).values()
    (answer,) = await engine.ids(workspace_id=workspace_id, leaves=[asked], now=now, only=only)
    return set(answer)


def trait(operator: str, *value: Any, key: str = "k") -> dict[str, Any]:
    return {"trait": {"key": key, "operator": operator} | ({"value": value[0]} if value else {})}


def event(**parts: Any) -> dict[str, Any]:
    return {"event": {"name": "purchase"} | parts}


def at_least(value: float) -> dict[str, Any]:
    return {"operator": "GREATER_OR_EQUAL", "value": value}


TRAITS: Sequence[Any] = (None, "premium", "Premium", "premium plus", 5, 5.0, 7.25, "5", True, ["premium", "old"])
"""Values of the trait k of ten people, by place."""


TRAIT_CASES: Sequence[tuple[dict[str, Any], set[int]]] = (
    (trait("EQUALS", "premium"), {1}),
    (trait("EQUALS", 5), {4, 5}),
    (trait("EQUALS", 5.0), {4, 5}),
    (trait("EQUALS", "5"), {7}),
    (trait("EQUALS", True), {8}),
    (trait("EQUALS", ""), set()),
    (trait("NOT_EQUALS", "premium"), {2, 3, 4, 5, 6, 7, 8, 9}),
    (trait("NOT_EQUALS", 5), {1, 2, 3, 6, 7, 8, 9}),
    (trait("GREATER_THAN", 5), {6}),
    (trait("GREATER_OR_EQUAL", 5), {4, 5, 6}),
    (trait("LESS_THAN", 7.25), {4, 5}),
    (trait("LESS_OR_EQUAL", 7.25), {4, 5, 6}),
    (trait("LESS_THAN", -1), set()),
    (trait("BETWEEN", [5, 7.25]), {4, 5, 6}),
    (trait("BETWEEN", [5.5, 7]), set()),
    (trait("CONTAINS", "premium"), {1, 3, 9}),
    (trait("CONTAINS", "m p"), {3}),
    (trait("CONTAINS", "old"), {9}),
    (trait("CONTAINS", "%"), set()),
    (trait("STARTS_WITH", "premium"), {1, 3}),
    (trait("STARTS_WITH", "p%"), set()),
    (trait("ENDS_WITH", "plus"), {3}),
    (trait("ENDS_WITH", "remium"), {1, 2}),
    (trait("IN", ["premium", "gold"]), {1}),
    (trait("IN", [5, 7.25]), {4, 5, 6}),
    (trait("IN", [True]), {8}),
    (trait("IN", ["premium"] * 1000), {1}),
    (trait("NOT_IN", ["premium", "gold"]), {2, 3, 4, 5, 6, 7, 8, 9}),
    (trait("EXISTS"), {1, 2, 3, 4, 5, 6, 7, 8, 9}),
    (trait("MISSING"), {0, 10, 11, 12}),
    (trait("EQUALS", "premium", key=ODD), {11}),
    (trait("MISSING", key=ODD), {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12}),
)
"""Leaves, and the places of those who meet them. Places 10 to 12 have no trait k, and 11 has one of an odd name."""


async def test_a_trait_is_compared_by_its_type(engine: Engine, workspace: UUID, now: datetime) -> None:
    """S2-14, S2-16, S2-17, S0-03, S0-04: missing and null meet no comparison, and no mix of types is an error."""
    people = [Person(traits={"k": value}) for value in TRAITS]
    odd = [Person(traits={"other": 1}), Person(traits={ODD: "premium"}), Person()]
    ids = await factories.make_people(workspace, *people, *odd)
    for leaf, places in TRAIT_CASES:
        assert {ids.index(id) for id in await found(engine, workspace, leaf, now=now)} == places, leaf


async def test_a_text_finds_itself_whatever_is_in_it(engine: Engine, workspace: UUID, now: datetime) -> None:
    for value in (ODD, "'; DROP TABLE profile; --", "{}", "null", "$1", "ａ", "e\u0301"):
        same, other = Person(traits={value: value}), Person(traits={value: value + "x"})
        (id, _) = await factories.make_people(workspace, same, other)
        for operator, wanted in (("EQUALS", value), ("ENDS_WITH", value), ("IN", [value, "y"])):
            assert await found(engine, workspace, trait(operator, wanted, key=value), now=now) == {id}, value


async def test_seen_within_and_before_part_at_the_edge(engine: Engine, workspace: UUID, now: datetime) -> None:
    """S2-05, S2-06, S2-18: [now - d, now] is within, earlier is before, never seen is neither."""
    times = (now - 7 * DAY, now - 7 * DAY - timedelta(microseconds=1), now, now + timedelta(seconds=1), None)
    ids = await factories.make_people(workspace, *(Person(last_seen_at=at, first_seen_at=at) for at in times))
    for seen in ("lastSeen", "firstSeen"):
        assert await found(engine, workspace, {seen: {"within": {"weeks": 1}}}, now=now) == {ids[0], ids[2]}
        assert await found(engine, workspace, {seen: {"before": {"days": 7}}}, now=now) == {ids[1]}


async def test_identified_and_anonymous(engine: Engine, workspace: UUID, now: datetime) -> None:
    """S2-07."""
    known, visitor = await factories.make_people(workspace, Person(), Person(identified=False))
    assert await found(engine, workspace, {"identified": True}, now=now) == {known}
    assert await found(engine, workspace, {"identified": False}, now=now) == {visitor}


async def test_events_are_counted_in_their_window(engine: Engine, workspace: UUID, now: datetime) -> None:
    """S2-04, S2-19, S2-21: the edge itself is within; before is earlier; without a window every event counts."""
    old, recent = now - 31 * DAY, now - DAY
    ids = await factories.make_people(
        workspace,
        Person(events=[Happened("purchase", recent)] * 3),
        Person(events=[Happened("purchase", recent)] * 2 + [Happened("purchase", old)]),
        Person(events=[Happened("purchase", now - 30 * DAY)]),
        Person(events=[Happened("purchase", old)]),
        Person(events=[Happened("Purchase", recent), Happened("login", recent)]),
        Person(),
    )

    async def places(**parts: Any) -> set[int]:
        return {ids.index(id) for id in await found(engine, workspace, event(**parts), now=now)}

    month = {"days": 30}
    assert await places() == {0, 1, 2, 3}
    assert await places(within=month) == {0, 1, 2}
    assert await places(before=month) == {1, 3}
    assert await places(count=at_least(3)) == {0, 1}
    assert await places(count=at_least(3), within=month) == {0}
    assert await places(count={"operator": "EQUALS", "value": 1}) == {2, 3}
    assert await places(count={"operator": "GREATER_THAN", "value": 2}, within={"minutes": 60 * 24 * 30}) == {0}


async def test_a_sum_adds_numbers_and_takes_everything_else_for_nothing(
    engine: Engine, workspace: UUID, now: datetime
) -> None:
    amounts: list[list[Any]] = [[60, 40], [0.1] * 10, [100, -1], ["100"], [None, [], {}, True], [], [99.999999999999]]
    ids = await factories.make_people(
        workspace, *(Person(events=[factories.bought(now, value) for value in values]) for values in amounts)
    )

    async def places(operator: str, value: float, **parts: Any) -> set[int]:
        total = {"property": "value", "operator": operator, "value": value}
        return {ids.index(id) for id in await found(engine, workspace, event(sum=total, **parts), now=now)}

    assert await places("GREATER_OR_EQUAL", 100) == {0}
    assert await places("EQUALS", 1) == {1}
    assert await places("GREATER_OR_EQUAL", 99) == {0, 2, 6}
    assert await places("GREATER_THAN", 0, within={"minutes": 1}) == {0, 1, 2, 6}
    assert await places("LESS_THAN", -1) == set()


async def test_property_filters_choose_the_events_that_count(engine: Engine, workspace: UUID, now: datetime) -> None:
    web, shop = {"channel": "web", "value": 10}, {"channel": "shop", "value": 20}
    ids = await factories.make_people(
        workspace,
        Person(events=[Happened("purchase", now, web), Happened("purchase", now, shop)]),
        Person(events=[Happened("purchase", now, shop)] * 2),
        Person(events=[Happened("purchase", now, {})]),
    )
    on_web = [{"property": "channel", "operator": "EQUALS", "value": "web"}]
    assert await found(engine, workspace, event(where=on_web), now=now) == {ids[0]}
    elsewhere = [{"property": "channel", "operator": "NOT_EQUALS", "value": "web"}]
    assert await found(engine, workspace, event(where=elsewhere), now=now) == {ids[0], ids[1]}
    assert await found(engine, workspace, event(where=elsewhere, count=at_least(2)), now=now) == {ids[1]}
    dear = [{"property": "value", "operator": "GREATER_THAN", "value": 15}]
    spent = {"property": "value", "operator": "GREATER_OR_EQUAL", "value": 20}
    assert await found(engine, workspace, event(where=[*elsewhere, *dear], sum=spent), now=now) == {ids[0], ids[1]}


async def test_only_some_are_asked_about(engine: Engine, workspace: UUID, now: datetime) -> None:
    ids = await factories.make_people(workspace, *[Person(traits={"k": 1}, events=[factories.bought(now)])] * 4)
    some = BitMap(ids[:2])
    for leaf in (trait("EQUALS", 1), event(), {"identified": True}):
        assert await found(engine, workspace, leaf, now=now, only=some) == set(some)
        assert await found(engine, workspace, leaf, now=now, only=BitMap()) == set()
    assert await engine.universe(workspace_id=workspace, only=some) == some


async def test_answers_come_in_the_order_of_the_questions(engine: Engine, workspace: UUID, now: datetime) -> None:
    one, two = await factories.make_people(workspace, Person(traits={"k": 1}), Person(traits={"k": 2}))
    leaves = [*tree.questions(parse({"any": [trait("EQUALS", 2), trait("EQUALS", 3), trait("EQUALS", 1)]})).values()]
    answers = await engine.ids(workspace_id=workspace, leaves=leaves, now=now)
    assert [set(answer) for answer in answers] == [{two}, set(), {one}]
    assert await engine.ids(workspace_id=workspace, leaves=[], now=now) == []


async def test_the_universe_is_the_living_of_the_workspace_or_of_a_brand(engine: Engine, workspace: UUID) -> None:
    ids = await factories.make_people(workspace, *[Person()] * 4)
    brand = await factories.make_brand(workspace, "shoes", *ids[1:])
    await factories.erase(workspace, ids[2])
    await factories.merge(workspace, loser=ids[3], winner=ids[1])
    assert set(await engine.universe(workspace_id=workspace)) == {ids[0], ids[1]}
    assert set(await engine.universe(workspace_id=workspace, brand_id=brand)) == {ids[1]}
    assert set(await engine.universe(workspace_id=workspace, brand_id=uuid4())) == set()


async def test_another_tenants_people_are_never_found(
    engine: Engine, workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    everywhere = Person(traits={"k": 1}, last_seen_at=now, events=[factories.bought(now)])
    (mine,) = await factories.make_people(workspace, everywhere)
    (foreign,) = await factories.make_people(other_workspace, everywhere)
    brand = await factories.make_brand(other_workspace, "theirs", foreign)
    both = BitMap([mine, foreign])
    for leaf in (trait("EQUALS", 1), event(), event(count=at_least(1)), {"lastSeen": {"within": {"days": 1}}}):
        assert await found(engine, workspace, leaf, now=now) == {mine}
        assert await found(engine, workspace, leaf, now=now, only=both) == {mine}
    assert set(await engine.universe(workspace_id=workspace, only=both)) == {mine}
    assert set(await engine.universe(workspace_id=workspace, brand_id=brand)) == set()


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def tables_without_the_workspace(sql: str) -> Iterator[str]:
    """Tables in `sql` whose own SELECT does not demand `workspace_id = $1` of every row."""
    for select in sqlglot.parse_one(sql, dialect="postgres").find_all(exp.Select):
        from_ = select.args.get("from_")
        where = select.args.get("where")
        demanded = [where.this] if where else []
        while any(isinstance(one, exp.And | exp.Paren) for one in demanded):
            demanded = [part for one in demanded for part in parts_of(one)]
        bound = any(one.sql(dialect="postgres") == "workspace_id = CAST($1 AS UUID)" for one in demanded)
        assert from_ is not None
        assert not select.args.get("joins")
        if isinstance(from_.this, exp.Table) and not bound:
            yield from_.this.name


def parts_of(node: exp.Expr) -> list[exp.Expr]:
    return (
        [node.left, node.right] if isinstance(node, exp.And) else [node.this if isinstance(node, exp.Paren) else node]
    )


@settings(max_examples=100, deadline=None)
@given(leaf=strategies.leaves)
def test_no_leaf_compiles_without_its_workspace(leaf: Leaf) -> None:
    """Row level security does not stand behind muster_leaf, so this does."""
    workspace_id, now = uuid4(), datetime.fromisoformat("2026-05-01T00:00:00+00:00")
    for only in (None, BitMap([1])):
        compiled = leaf_queries.compile_leaf(leaf, workspace_id, now=now, only=only)
        assert compiled.arguments[0] == workspace_id
        assert list(tables_without_the_workspace(compiled.sql)) == []


def test_nor_does_the_universe() -> None:
    workspace_id = uuid4()
    for brand_id in (None, uuid4()):
        compiled = leaf_queries.universe(workspace_id, brand_id=brand_id, only=BitMap([1]))
        assert compiled.arguments[0] == workspace_id
        assert list(tables_without_the_workspace(compiled.sql)) == []


def test_a_query_without_its_workspace_would_be_found() -> None:
    inside = "SELECT id FROM profile WHERE workspace_id = CAST($1 AS UUID)"
    assert list(tables_without_the_workspace(f"SELECT 1 FROM ({inside}) AS f")) == []
    for wrong in (
        "SELECT id FROM profile",
        f"{inside} OR true",
        "SELECT id FROM profile WHERE workspace_id = $2::uuid",
    ):
        assert list(tables_without_the_workspace(f"SELECT 1 FROM ({wrong}) AS f")) == ["profile"]


async def test_a_query_that_takes_too_long_is_cancelled(workspace: UUID, now: datetime) -> None:
    events = [Happened("purchase", now, {"value": "x" * 200}) for _ in range(3000)]
    await factories.make_people(workspace, *[Person(events=events)] * 5)
    hasty = PostgresEngine(statement_timeout=timedelta(milliseconds=1))
    with pytest.raises(EngineError) as refusal:
        await hasty.ids(workspace_id=workspace, leaves=[Event("purchase")] * 50, now=now)
    assert refusal.value.code == "CONDITION_TOO_SLOW"
    # The connection goes back clean: no limit of the engine's is left on it.
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "0"
        assert await connection.fetchval("SHOW transaction_read_only") == "off"


async def test_leaf_queries_can_write_nothing(workspace: UUID) -> None:
    async def write_as_the_application() -> None:
        async with PostgresEngine().reading(workspace) as connection:
            await connection.execute("SELECT set_config('role', 'muster_app', true)")
            await connection.execute("UPDATE profile SET erased_at = now()")

    with pytest.raises(EngineError) as refusal:
        await write_as_the_application()
    assert "25006" in refusal.value.message  # read_only_sql_transaction


async def test_counting_events_of_one_name_reads_one_index(
    workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    """The plan under the role that runs it: row level security must not keep the name and the time from the index."""
    for tenant in (workspace, other_workspace):
        events = [Happened(name, now - hour * DAY / 24, {}) for hour in range(600) for name in ("purchase", "view")]
        await factories.make_people(tenant, *[Person(events=events)] * 8)
    leaf = parse(event(count=at_least(3), within={"days": 1}))
    assert isinstance(leaf, Event)
    query = leaf_queries.compile_leaf(leaf, workspace, now=now, only=None)
    async with transaction(workspace, role=Role.LEAF) as connection:
        plan = await connection.fetch(f"EXPLAIN {query.sql}", *query.arguments)
    text = "\n".join(row[0] for row in plan)
    assert "name_occurred_at" in text, text
    assert "Seq Scan" not in text, text
