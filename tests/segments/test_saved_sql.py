"""What saved SQL may say: what is let through means what it says, everything else is refused before a database sees it.

The hostile ones run against PostgreSQL where they are let through, in tests/segments/test_saved_queries.py.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from sqlglot import exp, parse_one
from sqlglot.dialects.postgres import Postgres

from segments.engines import saved_sql
from segments.errors import SegmentError

WORKSPACE = UUID("0198c0de-0000-7000-8000-000000000001")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)

GUIDE = (Path(__file__).parents[2] / "docs" / "saved-sql.md").read_text(encoding="utf-8")

ALLOWED = [
    *re.findall(r"^```sql\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL),
    "SELECT profile_id FROM profiles",
    "select PROFILE_ID from Profiles;",
    'SELECT "profile_id" FROM "profiles" AS "p"',
    "SELECT p.profile_id FROM profiles p WHERE p.traits ->> 'plan' = 'premium' AND p.country IN ('DE', 'AT')",
    "SELECT profile_id FROM profiles WHERE traits @> '{\"plan\": \"x\"}' AND traits ? 'plan' AND NOT identified",
    "SELECT profile_id FROM profiles WHERE (traits ->> 'seats')::numeric BETWEEN 5 AND 50 OR city ILIKE 'ber%'",
    "SELECT profile_id FROM events WHERE name = 'purchase' AND occurred_at > now() - INTERVAL '30 days'"
    " GROUP BY profile_id HAVING count(*) >= 3 AND sum((properties ->> 'value')::numeric) > 100",
    "WITH big AS (SELECT profile_id, count(*) AS times FROM events GROUP BY 1)"
    " SELECT profile_id FROM big JOIN profiles USING (profile_id) WHERE times > 3 ORDER BY times DESC LIMIT 100",
    "SELECT profile_id FROM profiles UNION SELECT profile_id FROM events EXCEPT SELECT profile_id FROM profile_brands",
    "(SELECT profile_id FROM profiles) INTERSECT (SELECT profile_id FROM events)",
    "SELECT * FROM profiles",
    "SELECT p.* FROM profiles AS p LEFT JOIN events e ON e.profile_id = p.profile_id WHERE e.profile_id IS NULL",
    "SELECT profile_id FROM profiles p WHERE EXISTS (SELECT 1 FROM events e WHERE e.profile_id = p.profile_id)",
    "SELECT who AS profile_id FROM (SELECT profile_id AS who, row_number() OVER (PARTITION BY country ORDER BY"
    " last_seen_at DESC NULLS LAST) AS place FROM profiles) AS ranked WHERE place <= 10",
    "SELECT profile_id FROM events WHERE extract(dow FROM occurred_at AT TIME ZONE 'Europe/Berlin') = 1"
    " AND date_trunc('month', occurred_at) = date_trunc('month', current_date - INTERVAL '1 month')",
    "SELECT max(profile_id) AS profile_id FROM profiles WHERE coalesce(city, '') <> '' GROUP BY lower(city)",
    "SELECT profile_id FROM events GROUP BY profile_id"
    " HAVING percentile_cont(0.5) WITHIN GROUP (ORDER BY (properties ->> 'value')::real) > 5"
    " AND count(DISTINCT name) FILTER (WHERE name LIKE 'p%') > 1",
    "SELECT CASE WHEN identified THEN profile_id END AS profile_id FROM profiles",
    "SELECT profile_id FROM profiles p WHERE jsonb_typeof(traits -> 'a' -> 'b') = 'number' OR"
    " jsonb_array_length(p.traits -> 'list') > 2 OR coalesce(traits -> 'x' = 'true', false)",
    "SELECT DISTINCT ON (country) profile_id FROM profiles ORDER BY country, first_seen_at -- the first of each",
]


@pytest.mark.parametrize("sql", ALLOWED)
def test_plain_questions_are_allowed(sql: str) -> None:
    text = saved_sql.compiled(sql, workspace_id=WORKSPACE, now=NOW)
    for table in parse_one(text, dialect=Postgres).find_all(exp.Table):
        assert table.db == "public" or table.name.startswith("cte_")
    assert text.count(str(WORKSPACE)) == text.count('"public".') > 0


HOSTILE = {
    # other statements
    "DELETE FROM profiles": "SELECT",
    "UPDATE profiles SET city = 'x'": "SELECT",
    "COPY profiles TO '/tmp/x'": "SELECT",
    "COPY (SELECT profile_id FROM profiles) TO PROGRAM 'sh'": "SELECT",
    "SET ROLE muster_app": "SELECT",
    "EXPLAIN ANALYZE SELECT profile_id FROM profiles": "SELECT",
    "DO $$ BEGIN PERFORM 1; END $$": "SELECT",
    "TABLE profiles": "SELECT",
    "VALUES (1)": "SELECT",
    "CALL f()": "SELECT",
    "; SELECT profile_id FROM profiles": "SELECT",
    "": "no SQL",
    "-- nothing": "SELECT",
    "SELECT profile_id FROM profiles; SELECT profile_id FROM events": "exactly one",
    "SELECT profile_id FROM profiles; DROP TABLE profile": "exactly one",
    "SELECT profile_id FROM profiles /* ; */ ; -- x\n COMMIT": "exactly one",
    "SELECT profile_id FROM profiles \\; COMMIT": "exactly one",
    "WITH gone AS (DELETE FROM profile RETURNING profile_id) SELECT profile_id FROM gone": "DELETE",
    "WITH gone AS (UPDATE profiles SET city = 'x' RETURNING profile_id) SELECT profile_id FROM gone": "UPDATE",
    "WITH new AS (INSERT INTO profiles VALUES (1) RETURNING profile_id) SELECT profile_id FROM new": "INSERT",
    "SELECT profile_id INTO stolen FROM profiles": "INTO",
    "SELECT profile_id FROM profiles FOR UPDATE": "LOCK",
    # functions
    "SELECT set_config('muster.workspace_id', 'x', true)::int AS profile_id": "set_config",
    "SELECT profile_id FROM profiles WHERE set_config('role', 'muster_app', true) = ''": "set_config",
    "SELECT profile_id FROM profiles WHERE SET_CONFIG('role', 'muster_app', true) = ''": "set_config",
    'SELECT profile_id FROM profiles WHERE "set_config"(\'role\', \'muster_app\', true) = \'\'': "set_config",
    "SELECT profile_id FROM profiles WHERE pg_catalog.set_config('role', 'x', true) = ''": "not allowed",
    "SELECT profile_id FROM profiles ORDER BY set_config('role', 'x', true)": "set_config",
    "SELECT profile_id FROM profiles GROUP BY profile_id, set_config('role', 'x', true)": "set_config",
    "SELECT profile_id FROM profiles LIMIT length(set_config('role', 'x', true))": "set_config",
    "SELECT profile_id FROM profiles OFFSET pg_sleep(10)::text::int": "pg_sleep",
    "SELECT count(*) FILTER (WHERE set_config('a', 'b', true) = '') AS profile_id FROM profiles": "set_config",
    "SELECT rank() OVER (ORDER BY set_config('a', 'b', true)) AS profile_id FROM profiles": "set_config",
    "SELECT rank() OVER w AS profile_id FROM profiles WINDOW w AS (ORDER BY pg_sleep(1))": "pg_sleep",
    "SELECT coalesce(NULL, set_config('a', 'b', true))::int AS profile_id": "set_config",
    "SELECT CASE WHEN true THEN set_config('a', 'b', true)::int END AS profile_id": "set_config",
    "SELECT profile_id FROM profiles WHERE city IN (SELECT set_config('a', 'b', true))": "set_config",
    "WITH a AS (WITH b AS (SELECT set_config('a', 'b', true) AS x) SELECT x FROM b) SELECT 1 AS profile_id FROM a":
        "set_config",
    "SELECT a.profile_id FROM profiles a JOIN events b ON set_config('a', 'b', true) = b.name": "set_config",
    "SELECT current_setting('muster.workspace_id')::int AS profile_id": "current_setting",
    "SELECT query_to_xml('SELECT * FROM profile', true, true, '')::text::int AS profile_id": "query_to_xml",
    "SELECT table_to_xml('profile', true, true, '')::text::int AS profile_id": "table_to_xml",
    "SELECT xmltable('/' PASSING x COLUMNS y int) AS profile_id FROM profiles": "",
    "SELECT lo_import('/etc/passwd')::int AS profile_id": "lo_import",
    "SELECT lo_get(1)::text::int AS profile_id": "lo_get",
    "SELECT pg_read_file('/etc/passwd')::int AS profile_id": "pg_read_file",
    "SELECT pg_ls_dir('.')::int AS profile_id": "pg_ls_dir",
    "SELECT pg_advisory_lock(1)::text::int AS profile_id": "pg_advisory_lock",
    "SELECT pg_terminate_backend(1)::int AS profile_id": "pg_terminate_backend",
    "SELECT dblink('dbname=muster', 'SELECT 1')::text::int AS profile_id": "dblink",
    "SELECT * FROM dblink('dbname=muster', 'SELECT 1') AS t(profile_id int)": "",
    "SELECT live_workspaces()::text::int AS profile_id": "live_workspaces",
    "SELECT nextval('profile_id_seq') AS profile_id": "nextval",
    "SELECT repeat('x', 1000000000)::int AS profile_id": "repeat",
    "SELECT lpad('x', 1000000000)::int AS profile_id": "lpad",
    "SELECT string_agg(name, '')::int AS profile_id FROM events": "string_agg",
    "SELECT array_agg(profile_id) AS profile_id FROM events": "array_agg",
    "SELECT length('a' || 'b') AS profile_id": "not allowed",
    "SELECT length(concat('a', 'b')) AS profile_id": "concat",
    "SELECT 10 ^ 100000 AS profile_id": "not allowed",
    "SELECT power(10, 100000) AS profile_id": "pow",
    "SELECT regexp_replace('a', 'b', 'c')::int AS profile_id": "regexp_replace",
    "SELECT profile_id FROM profiles WHERE city ~ '(a+)+$'": "not allowed",
    "SELECT profile_id FROM profiles WHERE city SIMILAR TO '(a+)+'": "not allowed",
    "SELECT profile_id FROM profiles WHERE substring(city FROM '(a+)+$') = 'x'": "substr",
    "SELECT current_user::int AS profile_id": "not allowed",
    "SELECT session_user::int AS profile_id": "not allowed",
    "SELECT current_database()::int AS profile_id": "current_database",
    "SELECT current_schema::int AS profile_id": "current_schema",
    "SELECT current_role::int AS profile_id": "current_role",
    "SELECT version()::int AS profile_id": "version",
    "SELECT random()::int AS profile_id": "rand",
    "SELECT (xpath('/', x))[1]::text::int AS profile_id FROM profiles": "",
    # tables
    "SELECT id AS profile_id FROM profile": "profile",
    "SELECT profile_id FROM public.profiles": "without a schema",
    "SELECT 2 AS profile_id FROM public.profile": "without a schema",
    "SELECT oid::int AS profile_id FROM pg_class": "pg_class",
    "SELECT oid::int AS profile_id FROM pg_catalog.pg_class": "without a schema",
    "SELECT 1 AS profile_id FROM information_schema.tables": "without a schema",
    "SELECT 1 AS profile_id FROM muster.public.profile": "without a schema",
    "SELECT 1 AS profile_id FROM api_key": "api_key",
    'SELECT 1 AS profile_id FROM "public.profile"': "public.profile",
    "SELECT 1 AS profile_id FROM ONLY profiles": "ONLY",
    "SELECT profile_id FROM profiles TABLESAMPLE SYSTEM (1)": "SAMPLE",
    "SELECT generate_series AS profile_id FROM generate_series(1, 1000000000)": "",
    "SELECT generate_series(1, 1000000000) AS profile_id": "generate_series",
    "SELECT unnest(ARRAY[1, 2]) AS profile_id": "",
    "SELECT x.profile_id FROM profiles p, LATERAL (SELECT p.profile_id) x": "LATERAL",
    "SELECT x.profile_id FROM profiles p CROSS JOIN LATERAL (SELECT p.profile_id) x": "LATERAL",
    "SELECT x AS profile_id FROM ROWS FROM (generate_series(1, 5)) AS x": "",
    "SELECT a AS profile_id FROM jsonb_to_recordset('[]') AS t(a int)": "",
    "WITH RECURSIVE n AS (SELECT 1 AS profile_id UNION ALL SELECT profile_id + 1 FROM n) SELECT profile_id FROM n":
        "RECURSIVE",
    "WITH profiles AS (SELECT 1 AS profile_id) SELECT profile_id FROM profiles": "table already",
    "WITH n AS MATERIALIZED (SELECT 1 AS profile_id) SELECT profile_id FROM n": "MATERIALIZED",
    # the catalogue's name, where the WITH query is out of sight
    "SELECT 1 AS profile_id FROM (WITH pg_class AS (SELECT 1 AS city) SELECT city FROM pg_class) x, pg_class y"
    " WHERE y.oid = 1": "oid",
    # columns and names
    "SELECT p.set_config AS profile_id FROM profiles p": "set_config",
    "SELECT p.to_jsonb::text::int AS profile_id FROM profiles p": "to_jsonb",
    "SELECT (p).email::int AS profile_id FROM profiles p": "not allowed",
    "SELECT p::text::int AS profile_id FROM profiles p": "no column p",
    "SELECT profiles.ctid::text::int AS profile_id FROM profiles": "ctid",
    "SELECT workspace_id::text::int AS profile_id FROM profiles": "workspace_id",
    "SELECT email_hash::text::int AS profile_id FROM profiles": "email_hash",
    "SELECT public.profiles.profile_id FROM profiles": "DB",
    f"SELECT 1 AS profile_id, 2 AS {'x' * 51}": "at most 50",
    "SELECT jsonb_typeof(secret -> 'x')::int AS profile_id FROM profiles": "no column secret",
    "SELECT jsonb_typeof((traits, city) -> 'x')::int AS profile_id FROM profiles": "",
    "SELECT jsonb_typeof(traits -> set_config('a', 'b', true))::int AS profile_id FROM profiles": "set_config",
    "SELECT jsonb_typeof(traits => 'x')::int AS profile_id FROM profiles": "not allowed",
    # types and literals
    "SELECT 'profile'::regclass::int AS profile_id": "not allowed",
    "SELECT 'pg_sleep'::regproc::int AS profile_id": "not allowed",
    "SELECT '1'::public.mine AS profile_id": "",
    "SELECT '{1}'::int[] AS profile_id": "",
    "SELECT '<x/>'::xml::text::int AS profile_id": "cast to XML",
    "SELECT CAST('1' AS name)::int AS profile_id": "cast to NAME",
    "SELECT E'\\x41'::int AS profile_id": "not allowed",
    "SELECT U&'\\0041'::int AS profile_id": "not allowed",
    "SELECT $$1$$::int AS profile_id": "not allowed",
    "SELECT $tag$1$tag$::int AS profile_id": "not allowed",
    "SELECT x'1F'::int AS profile_id": "not allowed",
    "SELECT b'1'::int AS profile_id": "not allowed",
    f"SELECT {'9' * 41} AS profile_id": "numbers",
    "SELECT 1e400000 AS profile_id": "numbers",
    "SELECT profile_id FROM profiles WHERE last_seen_at > now() - INTERVAL '3 days ago'": "interval",
    "SELECT profile_id FROM profiles WHERE last_seen_at > now() - INTERVAL '1' 'x'": "interval",
    "SELECT profile_id FROM profiles WHERE last_seen_at > now() - INTERVAL '1''; DROP TABLE profile; --'": "interval",
    "SELECT extract(secret FROM last_seen_at)::int AS profile_id FROM profiles": "unit",
    "SELECT profile_id FROM profiles WHERE date_trunc(city, last_seen_at) = now()": "unit",
    "SELECT profile_id FROM profiles WHERE traits -> '' = '1'": "one key",
    # placeholders
    "SELECT $1 AS profile_id": "not allowed",
    "SELECT :id AS profile_id": "not allowed",
    "SELECT %s AS profile_id": "",
    "SELECT ? AS profile_id": "",
    "SELECT @x AS profile_id": "",
    # answers
    "SELECT email FROM profiles": "profile_id",
    "SELECT 1": "profile_id",
    "SELECT profile_id, profile_id FROM profiles": "one column",
    "SELECT email FROM profiles UNION SELECT profile_id FROM profiles": "profile_id",
    # no SQL
    "SELECT": "",
    "SELECT profile_id FROM profiles WHERE (": "can be read",
    "SELECT 'x FROM profiles": "not closed",
    "SELECT /* profile_id FROM profiles": "",
    "SELECT profile_id FROM profiles WHERE city = 'x' AND": "can be read",
}  # fmt: skip


@pytest.mark.parametrize(("sql", "word"), HOSTILE.items())
def test_everything_else_is_refused_and_the_refusal_says_what(sql: str, word: str) -> None:
    with pytest.raises(SegmentError) as refusal:
        saved_sql.check(sql)
    assert (refusal.value.code, refusal.value.field) == ("SQL_NOT_ALLOWED", ("sql",))
    assert word.lower() in refusal.value.message.lower()
    assert refusal.value.message.endswith(".")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 4000 + "1" + ")" * 4000 + " AS profile_id",
        "SELECT " + "(" * 9000,
        "SELECT " + "abs(" * 1500 + "1" + ")" * 1500 + " AS profile_id",
        "SELECT profile_id FROM profiles WHERE " + "NOT " * 2000 + "identified",
        "SELECT " + "- " * 4000 + "1 AS profile_id",
        "SELECT profile_id FROM " + "(SELECT profile_id FROM " * 300 + "profiles" + ") x" * 300,
        "SELECT " + "CASE WHEN true THEN " * 300 + "1" + " END" * 300 + " AS profile_id",
        "SELECT '1'" + "::int" * 1900 + " AS profile_id",
        "SELECT profile_id FROM profiles WHERE traits" + " -> 'a'" * 1200 + " = '1'",
        "SELECT profile_id FROM profiles WHERE " + " AND ".join(["identified"] * 600) + " OR " + "[" * 2000,
        "SELECT " + "{" * 9000,
        "SELECT profile_id FROM profiles WHERE city = 'x" + "x" * 10_000 + "'",
        "SELECT profile_id FROM profiles WHERE profile_id IN (" + ",".join(["1"] * 4800) + ")",
    ],
    ids=lambda sql: sql[:40],
)
def test_depth_and_length_without_end_are_refused(sql: str) -> None:
    with pytest.raises(SegmentError, match=r"deep|large|most|read|simpler"):
        saved_sql.check(sql)


@pytest.mark.parametrize(
    "sql",
    [
        " UNION ".join(["SELECT profile_id FROM profiles"] * 100),
        "SELECT a.profile_id FROM events a"
        + "".join(f" JOIN events e{place} USING (profile_id)" for place in range(60)),
        "SELECT profile_id, " + ", ".join(["rank() OVER (ORDER BY city)"] * 60) + " FROM profiles",
        "SELECT 1 AS profile_id FROM events HAVING " + " < ".join(["count(DISTINCT properties)"] * 60),
    ],
    ids=lambda sql: sql[:40],
)
def test_a_query_of_many_tables_or_sorts_is_refused_for_each_takes_memory_of_its_own(sql: str) -> None:
    with pytest.raises(SegmentError, match="too large"):
        saved_sql.check(sql)


def test_what_runs_is_written_anew_from_what_was_understood() -> None:
    sql = """
        WITH Big AS (SELECT profile_id, count(*) AS "Times" FROM EVENTS e /* ' */ GROUP BY 1)
        SELECT Big.profile_id FROM big WHERE "Times" > 3 AND now() > current_date -- '; DROP
    """
    assert saved_sql.compiled(sql, workspace_id=WORKSPACE, now=NOW) == (
        'WITH "cte_big" AS (SELECT "profile_id", COUNT(*) AS "as_Times" FROM (SELECT "profile_id", "name",'
        ' "occurred_at", "received_at", "properties", "page_path", "device_type", "browser", "country", "city",'
        ' "session_id" FROM "public"."event" WHERE "workspace_id" ='
        " CAST('0198c0de-0000-7000-8000-000000000001' AS UUID)) AS \"e\" GROUP"
        ' BY 1) SELECT "big"."profile_id" FROM "cte_big" AS "big" WHERE "as_Times" > 3 AND'
        " CAST('2026-05-01T12:00:00+00:00' AS TIMESTAMPTZ) >"
        " CAST(CAST('2026-05-01T12:00:00+00:00' AS TIMESTAMPTZ) AS DATE)"
    )


def test_a_quoted_name_is_no_way_out_of_its_quotes() -> None:
    sql = 'SELECT profile_id AS "x"" FROM profile; --", profile_id FROM profiles'
    text = saved_sql.compiled(sql, workspace_id=WORKSPACE, now=NOW)
    assert text.startswith('SELECT "profile_id" AS "as_x"" FROM profile; --", "profile_id" FROM (SELECT')


@pytest.mark.parametrize(
    "text", ["it''s", "\\", "\\''", "$1", "{x}", "{workspace}", "/*", "--", "%s", "é", "a''; DROP"]
)
def test_a_text_stays_the_text_it_is(text: str) -> None:
    sql = f"SELECT profile_id FROM profiles WHERE city = '{text}' AND traits ->> '{text}' = '{text}'"
    written = saved_sql.ids_query(sql, workspace_id=WORKSPACE, now=NOW, restricted=True)
    assert f"\"city\" = '{text}' AND \"traits\" ->> '{text}' = '{text}'" in written


def test_the_refusal_of_a_function_names_those_that_are_allowed() -> None:
    with pytest.raises(SegmentError) as refusal:
        saved_sql.check("SELECT pg_sleep(1) AS profile_id")
    assert refusal.value.message == (
        "The function pg_sleep is not allowed; use " + ", ".join(saved_sql.function_names()) + "."
    )


def test_the_refusal_of_a_table_names_those_that_there_are() -> None:
    with pytest.raises(SegmentError, match="use profiles, events, profile_brands or a WITH query"):
        saved_sql.check("SELECT 1 AS profile_id FROM users")


def test_the_guide_tells_of_every_table_column_function_and_type() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", GUIDE, re.MULTILINE))
    assert {
        table: tuple(re.findall(r"`(\w+)`", row.split(" (")[0])) for table, row in rows.items()
    } == saved_sql.COLUMNS
    (functions,) = re.findall(r"^- The functions (.*?)\.$", GUIDE, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`(\w+)`", functions) == saved_sql.function_names()
    assert saved_sql.TYPE_NAMES in " ".join(GUIDE.split())
    assert f"{saved_sql.MOST_CHARACTERS:,} characters" in GUIDE


@pytest.mark.parametrize("name", saved_sql.TYPE_NAMES.replace(" and ", ", ").split(", "))
def test_every_type_of_the_guide_can_be_cast_to(name: str) -> None:
    saved_sql.check(f"SELECT profile_id FROM profiles WHERE CAST(city AS {name}) IS NOT NULL")
