"""What the PostgreSQL engine must never do, and what it must not cost."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap
from sqlglot import exp

from db.roles import Role
from db.transactions import transaction, transaction_apart
from profiles.dates import FORM
from segments.engines import postgres, scans
from segments.engines.base import EngineError
from segments.engines.crossings import CROSSED, edges_of
from segments.engines.event_rows import of_events
from segments.engines.looked_at import looked_at
from segments.engines.postgres import PostgresEngine, side_by_side
from segments.engines.queries import Given, Statement
from segments.engines.ranks import ranked
from segments.nodes import (
    Aggregate,
    Amount,
    Attribute,
    AttributeName,
    EngineLeaf,
    Event,
    Identified,
    Operator,
    PropertyTest,
    RankBy,
    Seen,
    Side,
    Sight,
    Span,
    Total,
    Trait,
    Unit,
    Window,
)
from tests.conftest import Database
from tests.segments import strategies
from tests.segments.people import Happened, Person, bought, make_people
from tests.segments.strategies import NOW

DAY = timedelta(days=1)
THESE = settings(max_examples=60, deadline=None)


# --- the workspace and the values ---------------------------------------------------------------------------------


def tables_without_the_workspace(sql: str) -> Iterator[str]:
    """Tables in `sql` whose own SELECT does not demand `workspace_id = $1` of every row."""
    for select in sqlglot.parse_one(sql, dialect="postgres").find_all(exp.Select):
        from_ = select.args.get("from_")
        where = select.args.get("where")
        demanded = [where.this] if where else []
        while any(isinstance(one, exp.And | exp.Paren) for one in demanded):
            demanded = [part for one in demanded for part in parts_of(one)]
        bound = any(one.sql(dialect="postgres") == "workspace_id = CAST($1 AS UUID)" for one in demanded)
        if from_ is not None and isinstance(from_.this, exp.Table) and not bound:
            yield from_.this.name
        for join in select.args.get("joins") or ():
            if isinstance(join.this, exp.Table):
                yield join.this.name


def parts_of(node: exp.Expr) -> list[exp.Expr]:
    return (
        [node.left, node.right] if isinstance(node, exp.And) else [node.this if isinstance(node, exp.Paren) else node]
    )


def statements(leaves: Sequence[EngineLeaf]) -> list[Statement]:
    """All that the engine says for `leaves`."""
    asked = [*scans.of_everybody(leaves), *scans.of_some(leaves)]
    assert sorted(place for scan in asked for place in scan.places) == sorted([*range(len(leaves))] * 2)
    return [*(scan.statement for scan in asked), looked_at(leaves)]


@THESE
@given(leaves=st.lists(strategies.engine_leaves, min_size=1, max_size=6), by=strategies.rankings)
def test_no_leaf_compiles_without_its_workspace(leaves: list[EngineLeaf], by: RankBy) -> None:
    """Row level security does not stand behind muster_leaf, so this does."""
    for statement in [*statements(leaves), ranked(by, some=False), ranked(by, some=True)]:
        assert statement.arguments[0] is Given.WORKSPACE
        assert list(tables_without_the_workspace(statement.sql)) == []


def test_nor_do_the_other_questions() -> None:
    for brand_id in (None, uuid4()):
        for some in (False, True):
            statement = postgres.universe(brand_id, some=some)
            assert statement.arguments[0] is Given.WORKSPACE
            assert list(tables_without_the_workspace(statement.sql)) == []
    assert list(tables_without_the_workspace(CROSSED)) == []


def test_a_query_without_its_workspace_would_be_found() -> None:
    inside = "SELECT id FROM profile WHERE workspace_id = CAST($1 AS UUID)"
    assert list(tables_without_the_workspace(f"SELECT 1 FROM ({inside}) AS f")) == []
    for wrong in (
        "SELECT id FROM profile",
        f"{inside} OR true",
        "SELECT id FROM profile WHERE workspace_id = $2::uuid",
        f"{inside} AND id IN (SELECT profile_id FROM profile)",
    ):
        assert "profile" in list(tables_without_the_workspace(f"SELECT 1 FROM ({wrong}) AS f"))


OWN = {
    "", "null", "number", "string", "array", "count", "sum", "avg", "min", "max", "first", "last", "timestamptz",
    "0001-01-01Z", "10000-01-01Z", "1e308", "1e-307", f"^{FORM.pattern}$",
}  # fmt: skip
"""All that statements quote."""


@THESE
@given(leaves=st.lists(strategies.engine_leaves, min_size=1, max_size=6), by=strategies.rankings)
def test_no_value_gets_into_the_text(leaves: list[EngineLeaf], by: RankBy) -> None:
    for statement in [*statements(leaves), ranked(by, some=False)]:
        parsed = sqlglot.parse_one(statement.sql, dialect="postgres")
        assert {literal.this for literal in parsed.find_all(exp.Literal) if literal.is_string} <= OWN


def test_statements_for_many_leaves_stay_short_enough_to_be_kept() -> None:
    """asyncpg keeps none above 15 kB, and would have it planned every time."""
    leaves = [
        Event(f"event {at}", Amount(Operator.GREATER_THAN, at), window=Window(Side.WITHIN, at + 1, Unit.DAYS))
        for at in range(400)
    ]
    same_name = [replace(leaf, name="one") for leaf in leaves]
    for scan in [*scans.of_some(leaves), *scans.of_everybody(same_name)]:
        assert len(scan.statement.sql) <= scans.LONGEST_SQL < 15 * 1024


def test_what_a_row_is_told_apart_by_fits_into_a_number() -> None:
    """A bit for each set of property tests; the last of a bigint is its sign."""
    leaves: list[EngineLeaf] = [Event("buy", where=(PropertyTest("n", Operator.EQUALS, at),)) for at in range(150)]
    for asked in (scans.of_some(leaves), scans.of_everybody(leaves)):
        assert sorted(place for scan in asked for place in scan.places) == list(range(150))
        for scan in asked:
            assert scan.reading is not None
            assert sorted(share.flag for share in scan.reading.shares) == [1 << at for at in range(len(scan.places))]
            assert len(scan.places) <= 63


def test_leaves_share_a_scan_when_they_read_the_same_rows() -> None:
    def bought_within(days: int, **parts: Any) -> Event:
        return Event("buy", window=Window(Side.WITHIN, days, Unit.DAYS), **parts)

    dear = (PropertyTest("value", Operator.GREATER_THAN, 5),)
    leaves: list[EngineLeaf] = [
        bought_within(30),
        bought_within(14, count=Amount(Operator.GREATER_THAN, 2)),
        bought_within(7),
        bought_within(1),
        bought_within(1, where=dear),
        bought_within(90, where=dear),
        Event("view"),
        Trait("plan", Operator.EQUALS, "x"),
        Identified(True),
        Attribute(AttributeName.EXTERNAL_ID, Operator.EQUALS, "c-1"),
        Trait("renewal", Operator.WITHIN_LAST, Span(1, Unit.DAYS)),
    ]
    everybody = {scan.places for scan in scans.of_everybody(leaves)}
    # What the index answers goes along through the table only where that is about as far back.
    assert everybody == {(0, 1, 2), (4, 3), (5,), (6,), (7, 8), (9,), (10,)}
    assert {scan.places for scan in scans.of_some(leaves)} == {(0, 1, 2, 3, 4, 5, 6), (7, 8, 9), (10,)}


def test_values_are_sent_of_the_time_in_which_they_are_wanted() -> None:
    month, year = (Window(Side.WITHIN, days, Unit.DAYS) for days in (30, 365))
    spent = (Total(Aggregate.SUM, "value", Amount(Operator.GREATER_THAN, 5)),)
    some, all_of_it = Event("buy", window=month, totals=spent), Event("buy", window=year)
    for leaves, times in (((some, all_of_it), (month,)), ((some, replace(some, window=year)), ()), ((some,), ())):
        reading = of_events(leaves, some=False)
        assert [(values.property, values.times) for values in reading.values] == [("value", times)]
        assert ("FILTER" in reading.statement.sql) is bool(times)


# --- limits -------------------------------------------------------------------------------------------------------

SLOW = [Event("purchase", where=(PropertyTest("value", Operator.MATCHES, f"*{n}*x*y*z*"),)) for n in range(10)]
RUNNING = """
SELECT count(*) FROM pg_stat_activity WHERE usename = 'muster' AND state = 'active' AND query LIKE '%int4send%'
"""


async def make_many_events(workspace_id: UUID) -> list[int]:
    """Enough of them for `SLOW` to take longer than a moment."""
    events = [Happened("purchase", NOW, {"value": "x" * 2000}) for _ in range(3000)]
    return await make_people(workspace_id, *[Person(events=events)] * 3)


async def test_a_query_that_takes_too_long_is_cancelled(workspace: UUID) -> None:
    await make_many_events(workspace)
    hasty = PostgresEngine(statement_timeout=timedelta(milliseconds=1))
    with pytest.raises(EngineError) as refusal:
        await hasty.ids(workspace_id=workspace, leaves=SLOW, now=NOW)
    assert refusal.value.code == "CONDITION_TOO_SLOW"
    # The connection goes back clean: no limit of the engine's is left on it.
    async with transaction(workspace) as connection:
        for setting, value in (("statement_timeout", "0"), ("transaction_read_only", "off"), ("enable_sort", "on")):
            assert await connection.fetchval(f"SHOW {setting}") == value


async def test_whoever_stops_waiting_stops_the_query(database: Database, workspace: UUID) -> None:
    """Cancelling the task cancels the query in PostgreSQL, not only the wait for it."""
    watcher, holder = await asyncpg.connect(database.owner_url), await asyncpg.connect(database.owner_url)

    async def wait_for_running(queries: int) -> None:
        async with asyncio.timeout(30):
            while await watcher.fetchval(RUNNING) != queries:
                pass

    try:
        await make_people(workspace, Person(events=[bought(NOW)]))
        # The query waits for this lock, so that it surely runs when it is cancelled.
        lock = holder.transaction()
        await lock.start()
        await holder.execute("LOCK TABLE profile IN ACCESS EXCLUSIVE MODE")
        asking = asyncio.create_task(PostgresEngine().universe(workspace_id=workspace))
        await wait_for_running(1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await wait_for_running(0)
        await lock.rollback()
        assert len(await PostgresEngine().universe(workspace_id=workspace)) == 1
    finally:
        await watcher.close()
        await holder.close()


async def test_leaf_queries_can_write_nothing(workspace: UUID) -> None:
    async def write_as_the_application() -> None:
        async with PostgresEngine().reading(workspace, planning={}) as connection:
            await connection.execute("SELECT set_config('role', 'muster_app', true)")
            await connection.execute("UPDATE profile SET erased_at = now()")

    with pytest.raises(EngineError) as refusal:
        await write_as_the_application()
    assert "25006" in refusal.value.message  # read_only_sql_transaction


async def test_asking_inside_a_transaction_leaves_it_as_it_was(workspace: UUID) -> None:
    """Neither the engine's role and limits nor its errors become those of whoever asks, locks in hand."""
    await make_many_events(workspace)
    async with transaction(workspace) as connection:
        (id,) = [row["id"] for row in await connection.fetch("SELECT id FROM profile ORDER BY id LIMIT 1 FOR UPDATE")]
        before = await connection.fetchval("SELECT pg_backend_pid()")
        everybody = await PostgresEngine().universe(workspace_id=workspace)
        with pytest.raises(EngineError):
            await PostgresEngine(statement_timeout=timedelta(milliseconds=1)).ids(
                workspace_id=workspace, leaves=SLOW, now=NOW
            )
        assert await connection.fetchval("SELECT pg_backend_pid()") == before
        assert await connection.fetchval("SELECT current_user") == Role.APP
        assert await connection.execute("UPDATE profile SET city = 'Köln' WHERE id = $1", id) == "UPDATE 1"
    assert len(everybody) == 3
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT city FROM profile WHERE id = $1", id) == "Köln"


async def test_of_very_many_the_answer_for_everybody_is_cut(workspace: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "MOST_LOOKED_UP", 1)
    ids = await make_people(workspace, *[Person(traits={"k": 1}, events=[bought(NOW)])] * 4)
    engine, some = PostgresEngine(), BitMap(ids[:3])
    leaves: list[EngineLeaf] = [Trait("k", Operator.EQUALS, 1), Event("purchase"), Trait("k", Operator.EQUALS, 2)]
    assert await engine.ids(workspace_id=workspace, leaves=leaves, now=NOW, only=some) == [some, some, BitMap()]
    assert await engine.universe(workspace_id=workspace, only=some) == some


# --- plans --------------------------------------------------------------------------------------------------------


async def plan(workspace_id: UUID, statement: Statement, *, only: BitMap | None = None) -> str:
    """The plan under the role that runs it."""
    values = statement.values(workspace_id, now=NOW, only=only)
    async with transaction_apart(workspace_id, role=Role.LEAF, settings={}) as connection:
        return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement.sql}", *values))


async def test_counting_events_of_one_name_reads_one_index(workspace: UUID, other_workspace: UUID) -> None:
    """Row level security must not keep the name and the time from the index."""
    for tenant in (workspace, other_workspace):
        events = [Happened(name, NOW - hour * DAY / 24) for hour in range(600) for name in ("purchase", "view")]
        await make_people(tenant, *[Person(events=events)] * 8)
    leaf = Event("purchase", Amount(Operator.GREATER_OR_EQUAL, 3), window=Window(Side.WITHIN, 1, Unit.DAYS))
    (scan,) = scans.of_everybody([leaf])
    text = await plan(workspace, scan.statement)
    assert "name_occurred_at" in text, text
    assert "Seq Scan" not in text, text


async def test_edges_are_looked_up_in_indexes(database: Database, workspace: UUID, other_workspace: UUID) -> None:
    """Also where events of any name are wanted: by skip scan over the names, which are few.

    These tables are so small that reading all of them would be cheaper, hence the setting.
    """
    for tenant in (workspace, other_workspace):
        people = [
            Person(
                events=[
                    Happened(name, NOW - (person + 1) * DAY / 24 - hour * DAY / 2)
                    for hour in range(60)
                    for name in ("purchase", "view")
                ],
                traits={"due": "2026-05-01"},
            )
            for person in range(60)
        ]
        await make_people(tenant, *people)
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute("ANALYZE event")
    await owner.execute("ANALYZE profile_date")
    await owner.close()
    leaves: list[EngineLeaf] = [
        Event("purchase", window=Window(Side.WITHIN, 7, Unit.DAYS)),
        Seen(Sight.LAST, Window(Side.BEFORE, 7, Unit.DAYS)),
        Trait("due", Operator.WITHIN_LAST, Span(1, Unit.DAYS)),
    ]
    arguments = edges_of(leaves).arguments(workspace, since=NOW - DAY / 24, until=NOW)
    async with transaction_apart(
        workspace, role=Role.LEAF, settings=postgres.ABOUT_SOME | {"enable_seqscan": "off"}
    ) as connection:
        rows = await connection.fetch(f"EXPLAIN {CROSSED}", *arguments)
    text = "\n".join(row[0] for row in rows)
    assert "profile_id_occurred_at_idx" not in text, text
    assert "Filter: (name" not in text, text


# --- two connections at once --------------------------------------------------------------------------------------


async def test_work_that_never_got_a_connection_is_not_waited_for() -> None:
    done: list[str] = []

    async def does_all(began: asyncio.Event) -> None:
        began.set()
        done.append("all")

    async def waits_for_ever(began: asyncio.Event) -> None:
        await asyncio.Event().wait()

    await side_by_side(waits_for_ever, does_all)
    assert done == ["all"]


async def test_work_that_began_is_waited_for_and_its_failure_is_raised() -> None:
    last = asyncio.Event()

    async def ends_first(began: asyncio.Event) -> None:
        began.set()
        last.set()

    async def fails_later(began: asyncio.Event) -> None:
        began.set()
        await last.wait()
        raise EngineError("CONDITION_TOO_SLOW", "too slow")

    with pytest.raises(EngineError):
        await side_by_side(fails_later, ends_first)


async def test_work_that_fails_to_get_a_connection_leaves_all_to_the_other() -> None:
    """A pool that stays full for longer than anybody waits costs the second connection, not the answer."""
    done: list[str] = []
    failed = asyncio.Event()

    async def gets_none(began: asyncio.Event) -> None:
        failed.set()
        raise EngineError("ENGINE_UNAVAILABLE", "no connection became free")

    async def does_all(began: asyncio.Event) -> None:
        began.set()
        await failed.wait()
        for _ in range(3):  # the other is seen to have failed
            await asyncio.sleep(0)
        done.append("all")

    await side_by_side(gets_none, does_all)
    assert done == ["all"]
    with pytest.raises(EngineError):
        await side_by_side(gets_none, gets_none)
