"""Migrations make the schema the models expect, leave filled tables whole, and may be run by two at once."""

import asyncio
import sys
from uuid import UUID, uuid4

import asyncpg
import pytest
from tortoise import Tortoise
from tortoise.migrations.autodetector import MigrationAutodetector

from app.tables import MODEL_MODULES
from db import api_records, banner_engine, ddl, delivery_engine, live_segments, packs, push_engine
from db.transactions import APP_LABEL, across_workspaces, tortoise_config, transaction
from tests.conftest import Database, Servers, database_url, on_server

PYTHON_TYPES = {
    "uuid": "UUIDField",
    "text": "TextField",
    "integer": "IntField",
    "smallint": "IntField",
    "boolean": "BooleanField",
    "timestamp with time zone": "DatetimeField",
    "jsonb": "JSONField",
    "ARRAY": "ArrayField",
}


async def test_no_migration_is_missing(database: Database) -> None:
    config = tortoise_config(database.url, model_modules=MODEL_MODULES)
    assert Tortoise.apps is not None
    assert await MigrationAutodetector(Tortoise.apps, config["apps"]).changes() == []


async def test_models_and_tables_agree(database: Database) -> None:
    """The tables are hand-written, so every model column is compared with the one in the database."""
    assert Tortoise.apps is not None
    owner = await asyncpg.connect(database.owner_url)
    try:
        rows = await owner.fetch(
            "SELECT table_name, column_name, data_type, is_nullable = 'YES' AS empty FROM information_schema.columns"
            " WHERE table_schema = 'public'"
        )
    finally:
        await owner.close()
    columns = {(r["table_name"], r["column_name"]): (r["data_type"], r["empty"]) for r in rows}
    for model in Tortoise.apps[APP_LABEL].values():
        for name, field in model._meta.fields_map.items():
            column = (model._meta.db_table, field.source_field or name)
            assert column in columns, f"{column} is not in the database"
            kind, empty = columns[column]
            assert empty == field.null, f"{column}: nullable in one place only"
            names = {cls.__name__ for cls in type(field).__mro__}
            assert PYTHON_TYPES[kind] in names, f"{column} is {kind} in the database and {type(field).__name__} here"


async def test_two_migrations_at_once_apply_each_step_once(servers: Servers) -> None:
    name = f"test_{uuid4().hex}"
    await on_server(servers.postgres.url, f"CREATE DATABASE {name}")
    owner_url = database_url(servers.postgres.url, name)
    done: list[str] = []
    try:
        # Two processes in truth; Tortoise keeps one configuration a process, so two interpreters run here.
        script = (
            "import asyncio, sys; from db.migrate import migrate; from app.tables import MODEL_MODULES;"
            "asyncio.run(migrate(owner_url=sys.argv[1], login_url=sys.argv[2],"
            " model_modules=MODEL_MODULES, report=print))"
        )
        login_url = database_url(servers.postgres.url, name, login="muster")
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, owner_url, login_url, stdout=asyncio.subprocess.PIPE
            )
            for _ in range(2)
        ]
        for process in processes:
            out, _ = await process.communicate()
            assert process.returncode == 0
            done += out.decode().splitlines()
        assert [line for line in done if "done 0001_house" in line] == ["apply done 0001_house"]
    finally:
        await on_server(servers.postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


async def test_the_owner_backfills_a_filled_table(database: Database, workspace: UUID) -> None:
    """Under FORCE ROW LEVEL SECURITY an owner without a policy would say UPDATE 0 and a backfill do nothing."""
    async with across_workspaces() as connection:
        second = await connection.fetchval("SELECT create_workspace('second', 'UTC', 'OPT_OUT')")
    for one in (workspace, second):
        async with transaction(one) as connection:
            await connection.execute(
                "INSERT INTO profile (workspace_id, external_id) SELECT $1, n::text FROM generate_series(1, 50) n", one
            )
    owner = await asyncpg.connect(database.owner_url)
    try:
        await owner.execute("SET ROLE muster_owner")
        assert await owner.execute("UPDATE profile SET locale = 'en'") == "UPDATE 100"
    finally:
        await owner.close()


async def test_every_tenant_table_is_listed(database: Database) -> None:
    owner = await asyncpg.connect(database.owner_url)
    try:
        rows = await owner.fetch(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'workspace_id'"
            " JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'"
            " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition"
        )
    finally:
        await owner.close()
    assert {row["relname"] for row in rows} == {
        *ddl.TENANT_TABLES,
        *live_segments.TENANT_TABLES,
        *delivery_engine.TENANT_TABLES,
        *banner_engine.TENANT_TABLES,
        *push_engine.TENANT_TABLES,
        *api_records.TENANT_TABLES,
        *packs.TENANT_TABLES,
    }


ROWS_OF_NOW = """
WITH w AS (SELECT create_workspace('acme', 'UTC', 'OPT_OUT') AS id),
s AS (INSERT INTO segment (workspace_id, name, type, status, definition, cadence, live, ranking, change_guard)
  SELECT id, 'vip', 'DYNAMIC', 'ACTIVE', '{"identified": true}', 'DAILY', true, '{"by": {"trait": "ltv"}}', 50 FROM w
  RETURNING id, workspace_id),
p AS (INSERT INTO profile (workspace_id, external_id, traits, seen_city)
  SELECT id, 'ann', '{"since": "2024-03-01"}', 'Bern' FROM w RETURNING id, workspace_id),
e AS (INSERT INTO evaluation (workspace_id, segment_id, definition_version, status, cause, approved_at)
  SELECT workspace_id, id, 1, 'SUCCEEDED', unnest(ARRAY['CADENCE', 'DEPENDENCY', 'BACKLOG', 'GUARD']), now() FROM s),
m AS (INSERT INTO membership (workspace_id, segment_id, profile_id, entered_at, reason, exited_at)
  SELECT s.workspace_id, s.id, p.id, now() - c.age, 'pulse', c.left_at FROM s, p,
    (VALUES (interval '2 days', now() - interval '1 day'), (interval '0', NULL)) AS c (age, left_at)),
d AS (INSERT INTO profile_date (workspace_id, key, at, profile_id)
  SELECT workspace_id, 'since', '2024-03-01Z', id FROM p),
c AS (INSERT INTO profile_change (workspace_id, kind, profile_id, profile_ids, other_id)
  SELECT id, c.kind, c.one, c.several, c.other FROM w,
    (VALUES ('touched', NULL, ARRAY[7, 8], NULL), ('merged', 8, NULL, 7)) AS c (kind, one, several, other)),
l AS (INSERT INTO placement (workspace_id, key, name, content_fields, limits)
  SELECT id, 'home', 'Home', '{TITLE}', '{"lifetime": 3}' FROM w RETURNING id, workspace_id),
b AS (INSERT INTO campaign (workspace_id, name, channel, status, content, placement_id, weight, rules, test_segment_id)
  SELECT l.workspace_id, 'Sale', 'BANNER', 'ACTIVE', '{"title": "Sale"}', l.id, 10, '{"priority": 3}', s.id FROM l, s)
INSERT INTO pulse_clock (workspace_id, through) SELECT id, now() FROM w
"""


async def test_the_newest_migration_goes_down_and_up_again_with_rows_in_it(servers: Servers) -> None:
    """What the release before reads is of its kinds, and what can be made again is there again."""
    name = f"test_{uuid4().hex}"
    await on_server(servers.postgres.url, f"CREATE DATABASE {name}")
    owner_url = database_url(servers.postgres.url, name)

    async def migrated(target: str) -> None:
        script = (
            "import asyncio, sys; from db.migrate import migrate; from app.tables import MODEL_MODULES;"
            "asyncio.run(migrate(owner_url=sys.argv[1], login_url=sys.argv[2],"
            " model_modules=MODEL_MODULES, target=sys.argv[3]))"
        )
        login_url = database_url(servers.postgres.url, name, login="muster")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, owner_url, login_url, target)
        assert await process.wait() == 0

    try:
        await migrated("__latest__")
        await on_server(owner_url, ROWS_OF_NOW)
        await migrated("0001_house")
        owner = await asyncpg.connect(owner_url)
        try:
            causes = await owner.fetch("SELECT cause, count(*) FROM evaluation GROUP BY cause ORDER BY cause")
            assert [tuple(row) for row in causes] == [("CADENCE", 1), ("REQUEST", 3)]
            assert await owner.fetchval("SELECT count(id) FROM membership") == 2
            told = await owner.fetch("SELECT kind, profile_id, other_id FROM profile_change ORDER BY kind, profile_id")
            assert [tuple(row) for row in told] == [("merged", 8, 7), ("touched", 7, None), ("touched", 8, None)]
            refused = "INSERT INTO evaluation (workspace_id, segment_id, definition_version, status, cause)"
            with pytest.raises(asyncpg.CheckViolationError):
                await owner.execute(f"{refused} SELECT workspace_id, id, 1, 'FAILED', 'GUARD' FROM segment")
        finally:
            await owner.close()
        await migrated("__latest__")
        owner = await asyncpg.connect(owner_url)
        try:
            assert await owner.fetchval("SELECT live FROM segment WHERE name = 'vip'")
            assert await owner.fetchval("SELECT at::date::text FROM profile_date WHERE key = 'since'") == "2024-03-01"
            assert await owner.fetchval("SELECT count(*) FROM membership") == 2
            banner = await owner.fetchrow(
                "SELECT weight, content->>'title', rules::text, test_segment_id FROM campaign"
            )
            assert tuple(banner) == (10, "Sale", "{}", None)
            told = await owner.fetch(
                "SELECT kind, profile_id, profile_ids FROM profile_change ORDER BY kind, profile_ids"
            )
            assert [tuple(row) for row in told] == [
                ("merged", 8, None), ("touched", None, [7]), ("touched", None, [8]),
            ]  # fmt: skip
        finally:
            await owner.close()
    finally:
        await on_server(servers.postgres.url, f"DROP DATABASE {name} WITH (FORCE)")
