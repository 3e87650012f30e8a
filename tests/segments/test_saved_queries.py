"""Saved queries: kept, tried, run as one leaf of conditions; and what hostile SQL gets of a real database."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from pyroaring import BitMap

from db.roles import Role
from db.transactions import transaction, transaction_apart
from segments import cycles, evaluation, lifecycle, saved_queries
from segments.engines import saved_sql
from segments.engines.base import EngineError, Look
from segments.engines.postgres import PostgresEngine
from segments.errors import SegmentError
from segments.lifecycle import SegmentChanges
from segments.models import Evaluation, EvaluationCause, EvaluationStatus, SavedQuery, Segment
from segments.nodes import SavedSql
from segments.saved_queries import SavedQueryChanges, SavedQueryInput, SavedQueryNotFound, SavedSqlSource
from segments.sources import Sources
from tests.segments.factories import (
    DAY,
    Happened,
    Person,
    bought,
    erase,
    make_brand,
    make_dynamic,
    make_people,
    members_of,
    merge,
)
from tests.segments.interrupted import request, reread
from tests.segments.test_saved_sql import ALLOWED

SOURCES = Sources(PostgresEngine(), {SavedSql: SavedSqlSource()})
BUYERS = "SELECT profile_id FROM events WHERE name = 'purchase' GROUP BY profile_id"


async def answers(workspace_id: UUID, sql: str, *, now: datetime, only: BitMap | None = None) -> set[int]:
    longest = timedelta(seconds=10)
    return set(await saved_queries.answer(workspace_id, sql, what="It", now=now, longest=longest, only=only))


async def save(workspace_id: UUID, sql: str = BUYERS, *, now: datetime, name: str = "Buyers") -> SavedQuery:
    return await saved_queries.create(workspace_id, SavedQueryInput(name=name, sql=sql), now=now)


async def make_queried(query: SavedQuery, *, now: datetime, name: str = "queried") -> Segment:
    """An active segment of whom the query answers, evaluated."""
    segment = await make_dynamic(query.workspace_id, {"savedQuery": str(query.id)}, now=now, name=name)
    await run_all(query.workspace_id, now=now)
    return segment


async def run_all(workspace_id: UUID, *, now: datetime) -> None:
    while await cycles.run(workspace_id, sources=SOURCES, now=now) is not None:
        pass


async def newest(segment: Segment) -> Evaluation:
    return (await evaluation.latest(segment.workspace_id, [segment.id]))[segment.id]


async def refused(workspace_id: UUID, sql: str, *, now: datetime) -> SegmentError:
    with pytest.raises(SegmentError) as refusal:
        await saved_queries.create(workspace_id, SavedQueryInput(name="x", sql=sql), now=now)
    return refusal.value


# --- what is answered ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sql", ALLOWED)
async def test_what_is_allowed_can_be_saved_and_run(workspace: UUID, now: datetime, sql: str) -> None:
    await make_people(workspace, Person(traits={"plan": "premium", "seats": "7"}, events=[bought(now)], country="DE"))
    await save(workspace, sql, now=now)
    await answers(workspace, sql, now=now)
    await answers(workspace, sql, now=now, only=BitMap([1, 2]))


async def test_queries_see_people_their_events_and_brands(workspace: UUID, now: datetime) -> None:
    rich, poor, other = await make_people(
        workspace,
        Person(
            traits={"plan": "premium"}, events=[bought(now - DAY, 70), bought(now - 2 * DAY, 50)], seen_country="DE"
        ),
        Person(traits={"plan": "free"}, events=[bought(now - 40 * DAY, 500)], country="AT", seen_country="DE"),
        Person(identified=False, events=[Happened("login", now - DAY)]),
    )
    brand = await make_brand(workspace, "Own", poor, other)
    asked = {
        "SELECT profile_id FROM profiles WHERE traits ->> 'plan' = 'premium'": {rich},
        "SELECT profile_id FROM profiles WHERE country = 'DE'": {rich},
        "SELECT profile_id FROM profiles WHERE NOT identified": {other},
        BUYERS + " HAVING sum((properties ->> 'value')::numeric) >= 120": {rich, poor},
        "SELECT profile_id FROM events WHERE name = 'purchase' AND occurred_at > now() - INTERVAL '30 days'": {rich},
        f"SELECT profile_id FROM profile_brands WHERE brand_id = '{brand.hex}'": {poor, other},
        f"WITH buyers AS ({BUYERS}) SELECT profile_id FROM profiles EXCEPT SELECT profile_id FROM buyers": {other},
        "SELECT NULL::int AS profile_id FROM profiles": set(),
        "SELECT profile_id FROM profiles WHERE city = 'nowhere'": set(),
    }
    for sql, expected in asked.items():
        assert await answers(workspace, sql, now=now) == expected, sql
        assert await answers(workspace, sql, now=now, only=BitMap([rich, other])) == expected & {rich, other}, sql


async def test_now_is_when_the_evaluation_is(workspace: UUID, now: datetime) -> None:
    (one,) = await make_people(workspace, Person(last_seen_at=now))
    sql = "SELECT profile_id FROM profiles WHERE last_seen_at < now() - INTERVAL '10 days'"
    assert await answers(workspace, sql, now=now) == set()
    assert await answers(workspace, sql, now=now + 11 * DAY) == {one}
    sql = "SELECT profile_id FROM profiles WHERE last_seen_at::date = current_date"
    assert await answers(workspace, sql, now=now) == {one}
    assert await answers(workspace, sql, now=now + DAY) == set()


async def test_a_saved_query_is_a_leaf_like_others(workspace: UUID, now: datetime) -> None:
    buyer, premium, neither = await make_people(
        workspace, Person(events=[bought(now)]), Person(traits={"plan": "premium"}, events=[bought(now)]), Person()
    )
    query = await save(workspace, now=now)
    definition = {
        "all": [
            {"savedQuery": str(query.id)},
            {"not": {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}}},
        ]
    }
    segment = await make_dynamic(workspace, definition, now=now)
    await run_all(workspace, now=now)
    assert await members_of(segment) == {buyer}
    source = SavedSqlSource()
    leaves = [SavedSql(query.id)]
    assert await source.ids(workspace_id=workspace, leaves=leaves, now=now, only=BitMap([premium, neither])) == [
        BitMap([premium])
    ]
    for profile_id, found in ((buyer, True), (neither, False)):
        looks = await source.looks(workspace_id=workspace, leaves=leaves, now=now, profile_id=profile_id)
        assert looks == [Look(found, found)]
    assert await source.crossed(workspace_id=workspace, leaves=leaves, since=now - DAY, until=now) == BitMap()


async def test_ids_that_are_nobody_of_this_workspace_become_no_members(
    workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    (foreign,) = await make_people(other_workspace, Person())
    gone, loser, own = await make_people(workspace, Person(), Person(), Person())
    await erase(workspace, gone)
    await merge(workspace, loser=loser, winner=own)
    everyone = " UNION ".join(f"SELECT {id} AS profile_id" for id in (foreign, gone, loser, own, 2_000_000_000))
    segment = await make_queried(await save(workspace, everyone, now=now), now=now)
    assert await members_of(segment) == {own}
    shown = await saved_queries.preview(workspace, everyone, engine=PostgresEngine(), now=now)
    assert (shown.count, shown.profile_ids) == (1, [own])


async def test_a_preview_counts_all_and_shows_the_first_twenty(workspace: UUID, now: datetime) -> None:
    ids = await make_people(workspace, *[Person() for _ in range(25)])
    shown = await saved_queries.preview(workspace, "SELECT profile_id FROM profiles", engine=PostgresEngine(), now=now)
    assert (shown.count, shown.profile_ids) == (25, ids[:20])


# --- the walls ----------------------------------------------------------------------------------------------------


async def test_row_level_security_is_the_second_wall(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    """SQL that went past the compiler, or was compiled for another workspace, sees no foreign row."""
    await make_people(workspace, Person(events=[bought(now)]))
    (foreign,) = await make_people(other_workspace, Person(events=[bought(now)]))
    await make_brand(other_workspace, "Theirs", foreign)
    async with transaction_apart(workspace, role=Role.QUERY, settings=saved_queries.LIMITS) as connection:
        for table in ("profile", "event", "profile_brand"):
            rows = await connection.fetch(f"SELECT DISTINCT workspace_id FROM {table}")
            assert {row["workspace_id"] for row in rows} <= {workspace}
        for sql in ("SELECT profile_id FROM profiles", BUYERS, "SELECT profile_id FROM profile_brands"):
            theirs = saved_sql.ids_query(sql, workspace_id=other_workspace, now=now, restricted=False)
            assert await connection.fetchval(theirs) is None


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM api_key",
        "SELECT * FROM workspace",
        "SELECT * FROM segment",
        "SELECT * FROM delivery",
        "SELECT * FROM suppression",
        "SELECT email_hash FROM profile",
        "SELECT message_id FROM event",
        "SELECT * FROM live_workspaces()",
        "UPDATE profile SET city = 'x'",
        "DELETE FROM event",
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "COPY profile TO '/tmp/x'",
    ],
)
async def test_the_role_of_saved_sql_may_read_three_tables_and_no_more(workspace: UUID, statement: str) -> None:
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)):
        async with transaction_apart(workspace, role=Role.QUERY, settings=saved_queries.LIMITS) as connection:
            await connection.execute(statement)


@pytest.mark.parametrize("name", ["json_agg", "array_agg", "to_jsonb", "pg_column_size", "num_nulls"])
async def test_a_name_that_a_query_gives_makes_no_call_of_the_function_that_is_so_called(
    workspace: UUID, now: datetime, name: str
) -> None:
    """To PostgreSQL `p.json_agg` is json_agg(p) when p has no such column."""
    (one,) = await make_people(workspace, Person())
    sql = f"SELECT profile_id FROM (SELECT 1 AS profile_id, p.{name} AS {name} FROM profiles p) x WHERE {name} IS NULL"
    assert "does not exist" in (await refused(workspace, sql, now=now)).message
    sql = (
        f"SELECT x.profile_id FROM (SELECT profile_id, 5 AS {name} FROM profiles) x WHERE x.{name} = 5 ORDER BY {name}"
    )
    assert await answers(workspace, sql, now=now) == {one}


async def test_a_flood_is_stopped_by_time(workspace: UUID, now: datetime) -> None:
    await make_people(workspace, *[Person(events=[bought(now)] * 3) for _ in range(60)])
    tables = ", ".join(f"events e{number}" for number in range(12))
    floods = [
        f"SELECT e0.profile_id FROM {tables}",
        f"SELECT count(*) AS profile_id FROM {tables}",
        f"SELECT e0.profile_id FROM {tables} ORDER BY e1.occurred_at",
        "WITH " + ", ".join(
            f"t{n} AS (SELECT a.profile_id FROM {'events' if n == 0 else f't{n - 1}'} a"
            f" CROSS JOIN {'events' if n == 0 else f't{n - 1}'} b)" for n in range(12)
        ) + " SELECT profile_id FROM t11",
    ]  # fmt: skip
    for sql in floods:
        with pytest.raises(EngineError) as stopped:
            await saved_queries.answer(workspace, sql, what="It", now=now, longest=timedelta(milliseconds=300))
        assert stopped.value.code == "SAVED_QUERY_TOO_SLOW"
        assert stopped.value.message == "It took longer than 0.3 s; make it simpler, or narrow its time."


async def test_a_pattern_made_to_be_slow_is_harmless(workspace: UUID, now: datetime) -> None:
    """PostgreSQL's LIKE gives up where the rest of a text cannot match; regular expressions are not allowed."""
    await make_people(workspace, Person(traits={"long": "a" * 60_000}))
    sql = f"SELECT profile_id FROM profiles WHERE traits ->> 'long' LIKE '{'%a_' * 3000}%b'"
    assert await answers(workspace, sql, now=now) == set()


async def test_limits_end_with_the_query(workspace: UUID, now: datetime) -> None:
    await answers(workspace, BUYERS, now=now)
    async with transaction(workspace) as connection:
        names = ["role", "statement_timeout", "transaction_read_only", "work_mem"]
        found = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
    assert found[:3] == [Role.APP.value, "0", "off"]


# --- keeping them -------------------------------------------------------------------------------------------------


async def test_what_the_database_cannot_run_is_refused_when_it_is_saved(workspace: UUID, now: datetime) -> None:
    refusals = {
        "SELECT profile_id FROM profiles WHERE occurred_at > now()": 'column "occurred_at" does not exist',
        "SELECT profile_id FROM profiles WHERE city > 5": "operator does not exist",
        "SELECT profile_id FROM profiles p JOIN events e USING (city)": 'column reference "profile_id" is ambiguous',
        "SELECT email AS profile_id FROM profiles": "answer profile ids, which are whole numbers",
        "SELECT 1.5 AS profile_id": "answer profile ids, which are whole numbers",
        "SELECT p.* FROM (SELECT city FROM profiles) p": "column answer.profile_id does not exist",
    }
    for sql, words in refusals.items():
        refusal = await refused(workspace, sql, now=now)
        assert (refusal.code, refusal.field) == ("SQL_FAILED", ("sql",)), sql
        assert words in refusal.message, sql
    assert (await refused(workspace, "DROP TABLE profile", now=now)).code == "SQL_NOT_ALLOWED"
    assert await saved_queries.page(workspace, after=None, limit=10) == []


async def test_names_are_taken_once_a_workspace(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    one = await save(workspace, now=now)
    await save(other_workspace, now=now)
    second = await save(workspace, now=now, name="Others")
    assert (await refused_name(workspace, "Buyers", now=now)) == ("NAME_TAKEN", ("name",))
    assert (await refused_name(workspace, " ", now=now)) == ("BLANK", ("name",))
    with pytest.raises(SegmentError, match="Another saved query has this name"):
        await saved_queries.update(workspace, second.id, SavedQueryChanges(name="Buyers"), now=now)
    found = await saved_queries.page(workspace, after=None, limit=10)
    assert [row.id for row in found] == [second.id, one.id]
    assert [row.id for row in await saved_queries.page(workspace, after=second.id, limit=10)] == [one.id]


async def refused_name(workspace_id: UUID, name: str, *, now: datetime) -> tuple[str, tuple[str, ...]]:
    with pytest.raises(SegmentError) as refusal:
        await save(workspace_id, now=now, name=name)
    return refusal.value.code, refusal.value.field


async def test_the_limit_holds_for_many_who_save_at_once(workspace: UUID) -> None:
    wanted = [SavedQueryInput(name=str(number), sql=BUYERS) for number in range(6)]
    results = await asyncio.gather(
        *(saved_queries.insert(workspace, one, most=3) for one in wanted), return_exceptions=True
    )
    assert [one.code for one in results if isinstance(one, SegmentError)] == ["TOO_MANY_SAVED_QUERIES"] * 3
    assert len(await saved_queries.page(workspace, after=None, limit=10)) == 3


async def test_queries_of_other_workspaces_are_not_found(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    theirs = await save(other_workspace, now=now)
    for missing in (theirs.id, uuid4()):
        with pytest.raises(SavedQueryNotFound):
            await saved_queries.update(workspace, missing, SavedQueryChanges(name="Mine"), now=now)
        with pytest.raises(SavedQueryNotFound):
            await saved_queries.delete(workspace, missing)
        with pytest.raises(EngineError, match="does not exist in this workspace"):
            await SavedSqlSource().ids(workspace_id=workspace, leaves=[SavedSql(missing)], now=now)
    assert await saved_queries.load(workspace, [theirs.id]) == {}


async def test_a_query_in_use_cannot_be_deleted_and_the_segments_are_named(workspace: UUID, now: datetime) -> None:
    query = await save(workspace, now=now)
    segment = await make_queried(query, now=now, name="Regulars")
    with pytest.raises(SegmentError) as refusal:
        await saved_queries.delete(workspace, query.id)
    assert (refusal.value.code, refusal.value.field) == ("SAVED_QUERY_IN_USE", ("id",))
    assert "'Regulars'" in refusal.value.message
    other = {"trait": {"key": "plan", "operator": "EXISTS"}}
    await lifecycle.update(workspace, segment.id, SegmentChanges(definition=other), now=now)
    await saved_queries.delete(workspace, query.id)
    assert await saved_queries.load(workspace, [query.id]) == {}


async def test_other_sql_evaluates_active_segments_anew_and_leaves_their_definitions_alone(
    workspace: UUID, now: datetime
) -> None:
    buyer, visitor = await make_people(workspace, Person(events=[bought(now)]), Person(events=[Happened("visit", now)]))
    query = await save(workspace, now=now)
    segment = await make_queried(query, now=now)
    paused = await make_queried(query, now=now, name="paused")
    await lifecycle.pause(workspace, paused.id, now=now)
    assert await members_of(segment) == {buyer}
    before = await request(segment, now)
    sql = BUYERS.replace("purchase", "visit")
    changed, asked = await saved_queries.update(
        workspace, query.id, SavedQueryChanges(sql=sql, description="Who visited"), now=now
    )
    assert (changed.sql, changed.description, changed.name) == (sql, "Who visited", "Buyers")
    queued = await newest(segment)
    assert [queued.id] == asked
    closed = await reread(workspace, before)
    assert (closed.status, closed.error_code) == (EvaluationStatus.FAILED, "DEFINITION_CHANGED")
    assert (queued.status, queued.cause) == (EvaluationStatus.QUEUED, EvaluationCause.DEFINITION)
    await run_all(workspace, now=now)
    assert await members_of(segment) == {visitor}
    assert (await newest(segment)).definition_version == segment.definition_version == 1
    assert await members_of(paused) == {buyer}
    _, asked = await saved_queries.update(workspace, query.id, SavedQueryChanges(sql=sql, name="Visitors"), now=now)
    assert asked == []


async def test_a_query_that_breaks_fails_the_evaluation_and_leaves_members_alone(
    workspace: UUID, now: datetime
) -> None:
    (one,) = await make_people(workspace, Person(traits={"seats": "7"}))
    query = await save(workspace, "SELECT profile_id FROM profiles WHERE (traits ->> 'seats')::int > 5", now=now)
    segment = await make_queried(query, now=now)
    assert await members_of(segment) == {one}
    await make_people(workspace, Person(traits={"seats": "many"}))
    await evaluation.request(workspace, segment.id, cause=EvaluationCause.REQUEST, now=now)
    await run_all(workspace, now=now)
    failed = await newest(segment)
    assert (failed.status, failed.error_code) == (EvaluationStatus.FAILED, "SAVED_QUERY_FAILED")
    assert failed.error == ('The saved query "Buyers" cannot be run: invalid input syntax for type integer: "many".')
    assert await members_of(segment) == {one}


async def test_a_query_that_is_too_slow_fails_the_evaluation_and_leaves_members_alone(
    workspace: UUID, now: datetime
) -> None:
    ids = await make_people(workspace, *[Person(events=[bought(now)] * 3) for _ in range(40)])
    query = await save(workspace, now=now)
    segment = await make_queried(query, now=now)
    flood = "SELECT e0.profile_id FROM " + ", ".join(f"events e{number}" for number in range(12))
    await saved_queries.update(workspace, query.id, SavedQueryChanges(sql=flood), now=now)
    hurried = Sources(PostgresEngine(), {SavedSql: SavedSqlSource(statement_timeout=timedelta(milliseconds=200))})
    while await cycles.run(workspace, sources=hurried, now=now) is not None:
        pass
    failed = await newest(segment)
    assert (failed.status, failed.error_code) == (EvaluationStatus.FAILED, "SAVED_QUERY_TOO_SLOW")
    assert await members_of(segment) == set(ids)


async def test_sql_that_the_rules_no_longer_allow_fails_the_evaluation(workspace: UUID, now: datetime) -> None:
    """As after an upgrade that allows less."""
    query = await save(workspace, now=now)
    segment = await make_queried(query, now=now)
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE saved_query SET sql = 'SELECT pg_sleep(1) AS profile_id'")
    await evaluation.request(workspace, segment.id, cause=EvaluationCause.REQUEST, now=now)
    await run_all(workspace, now=now)
    failed = await newest(segment)
    assert (failed.status, failed.error_code) == (EvaluationStatus.FAILED, "SQL_NOT_ALLOWED")
    assert failed.error is not None
    assert failed.error.startswith('The saved query "Buyers" is not allowed: The function pg_sleep is not allowed')
