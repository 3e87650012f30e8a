"""A package writes its own tables and reads those of packages below it; every SQL constant is parsed to prove it."""

import ast
import re
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

ROOT = Path(__file__).parents[2]
ORDER = ("db", "profiles", "segments", "campaigns", "app", "workers")
OWNERS = {
    "profiles": {
        "workspace", "brand", "api_key", "profile", "profile_brand", "profile_alias", "profile_change", "device",
        "consent", "suppression", "event", "event_key", "profile_date", "request", "audit_entry",
    },
    "segments": {
        "segment", "evaluation", "segment_membership", "membership", "saved_query", "segment_reference",
        "segment_query", "segment_rank", "membership_change", "pulse_clock", "pulse", "pack", "pack_part",
    },
    "campaigns": {
        "sender", "placement", "campaign", "campaign_segment", "dispatch", "delivery", "claim", "delivery_event",
        "link", "in_doubt_resolution", "banner_stop", "banner_event", "banner_tally", "banner_day", "push_credential",
    },
}  # fmt: skip
OWNER = {table: package for package, tables in OWNERS.items() for table in tables}
LOOKS_LIKE_SQL = re.compile(r"^\s*(WITH|SELECT|INSERT|UPDATE|DELETE|COPY|CREATE|MERGE|TRUNCATE)\b")


def sql_constants(package: str) -> list[tuple[str, str]]:
    """(where, text) of every module-level string of a package that is SQL."""
    found = []
    for file in sorted((ROOT / package).rglob("*.py")):
        module = ast.parse(file.read_text())
        values: dict[str, str] = {}
        for statement in module.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                text = folded(statement.value, values)
                if text is not None:
                    name = statement.targets[0].id
                    values[name] = text
                    if LOOKS_LIKE_SQL.match(re.sub(r"--.*", "", text).lstrip()):
                        found.append((f"{file.relative_to(ROOT)}:{name}", text))
    return found


def folded(node: ast.expr, values: dict[str, str]) -> str | None:
    """The text of a constant expression: a literal, a name of one, or their sum."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            return values.get(name)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = folded(left, values), folded(right, values)
            return first + second if first is not None and second is not None else None
        case ast.JoinedStr(values=parts):
            return "".join(str(p.value) if isinstance(p, ast.Constant) else "x" for p in parts)
        case _:
            return None


def tables(text: str) -> tuple[set[str], set[str]]:
    """(tables read, tables written) of one statement."""
    tree = sqlglot.parse_one(text, dialect="postgres")
    made_here = {cte.alias for cte in tree.find_all(exp.CTE)}
    named = {t.name for t in tree.find_all(exp.Table)} - made_here
    written: set[str] = set()
    for node in tree.find_all(exp.Insert, exp.Update, exp.Delete):
        target = node.this.find(exp.Table) if node.this is not None else None
        if target is not None:
            written.add(target.name)
    return named, written - made_here


def trespasses(package: str, text: str) -> list[str]:
    """What a statement of the package does with tables that it may not."""
    if "{" in text:  # a pattern filled in elsewhere: its names are checked there
        return []
    try:
        named, written = tables(text)
    except sqlglot.ParseError:
        # What sqlglot cannot parse is held to the same rule by its words.
        named, written = set(re.findall(r"\b(?:FROM|JOIN|INTO|UPDATE)\s+(?:ONLY\s+)?([a-z_]+)", text)), set()
    above = {table for table in named & OWNER.keys() if ORDER.index(OWNER[table]) > ORDER.index(package)}
    others = {table for table in written & OWNER.keys() if OWNER[table] != package}
    return [
        *(f"reads {table} of the layer above" for table in sorted(above)),
        *(f"writes {table}, which belongs to {OWNER[table]}" for table in sorted(others)),
    ]


@pytest.mark.parametrize(
    ("package", "least"), [("profiles", 60), ("segments", 60), ("campaigns", 60), ("app", 5), ("workers", 10)]
)
def test_a_statement_touches_only_tables_its_package_may(package: str, least: int) -> None:
    constants = sql_constants(package)
    assert len(constants) > least
    assert {where: wrong for where, text in constants if (wrong := trespasses(package, text))} == {}


def test_every_table_has_one_owner() -> None:
    from db import api_records, banner_engine, ddl, delivery_engine, live_segments, packs, push_engine

    assert set(OWNER) == {
        "workspace",
        *ddl.TENANT_TABLES,
        *live_segments.TENANT_TABLES,
        *delivery_engine.TENANT_TABLES,
        *banner_engine.TENANT_TABLES,
        *push_engine.TENANT_TABLES,
        *api_records.TENANT_TABLES,
        *packs.TENANT_TABLES,
    }


def test_a_statement_on_a_higher_table_would_be_found() -> None:
    named, written = tables("WITH a AS (SELECT 1) INSERT INTO delivery SELECT profile_id FROM membership, a")
    assert written == {"delivery"}
    assert "membership" in named
    assert trespasses("segments", "INSERT INTO delivery SELECT FROM profile") == [
        "reads delivery of the layer above",
        "writes delivery, which belongs to campaigns",
    ]
