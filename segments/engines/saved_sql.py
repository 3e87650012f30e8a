"""SQL that people wrote, made safe to run: parsed, held against lists of what is allowed, and written anew.

Nothing of the text itself reaches the database. What is no SELECT, or has a node that `ALLOWED` does not name, is
refused; each table becomes a subselect over the real one with the workspace as a literal; every identifier is quoted.
It then runs as muster_query, read only and under limits (segments/saved_queries.py); row level security is the second
wall, which a caller of set_config could move: hence lists of what is allowed, not of what is forbidden.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any
from uuid import UUID

from sqlglot import exp, parse
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import ErrorLevel, ParseError, TokenError
from sqlglot.tokenizer_core import Token, TokenType

from segments.errors import SegmentError

MOST_CHARACTERS = 10_000
MOST_NODES = 3_000
MOST_WORKED = 40
"""Tables, sorts, groups and the like. Each may hold its whole work_mem at once (30 joins of a big table, or 30 windows,
do), and parsing and writing 300 joins keeps a processor busy for seconds."""
DEEPEST = 25
"""Levels of brackets; the parser takes about twenty frames of Python for each."""
MOST_NAME_CHARACTERS = 50

TABLES = {
    "profiles": """
SELECT id AS profile_id, external_id, email, phone, traits, time_zone, locale,
  COALESCE(country, seen_country) AS country, COALESCE(city, seen_city) AS city, seen_device_type AS device_type,
  seen_browser AS browser, identified, first_seen_at, last_seen_at, created_at, updated_at
FROM public.profile WHERE workspace_id = CAST('{workspace}' AS UUID) AND merged_into IS NULL AND erased_at IS NULL
""",
    "events": """
SELECT profile_id, name, occurred_at, received_at, properties, page_path, device_type, browser, country, city,
  session_id
FROM public.event WHERE workspace_id = CAST('{workspace}' AS UUID)
""",
    "profile_brands": """
SELECT profile_id, brand_id FROM public.profile_brand WHERE workspace_id = CAST('{workspace}' AS UUID)
""",
}
"""What saved SQL may read, and what each table stands for."""

COLUMNS = {
    table: tuple(parse(sql.format(workspace=UUID(int=0)), dialect=Postgres)[0].named_selects)  # type: ignore[union-attr]
    for table, sql in TABLES.items()
}

OWN_COLUMNS = frozenset(name for names in COLUMNS.values() for name in names)

FUNCTIONS: dict[type[exp.Expr], str] = {
    exp.Count: "count", exp.Sum: "sum", exp.Avg: "avg", exp.Min: "min", exp.Max: "max", exp.Stddev: "stddev",
    exp.StddevPop: "stddev_pop", exp.StddevSamp: "stddev_samp", exp.Variance: "variance",
    exp.VariancePop: "var_pop", exp.LogicalAnd: "bool_and", exp.LogicalOr: "bool_or",
    exp.PercentileCont: "percentile_cont", exp.PercentileDisc: "percentile_disc",
    exp.Coalesce: "coalesce", exp.Nullif: "nullif", exp.Greatest: "greatest", exp.Least: "least",
    exp.Lower: "lower", exp.Upper: "upper", exp.Length: "length", exp.Trim: "trim", exp.Left: "left",
    exp.Right: "right", exp.SplitPart: "split_part", exp.StrPosition: "strpos", exp.StartsWith: "starts_with",
    exp.Round: "round", exp.Floor: "floor", exp.Ceil: "ceil", exp.Abs: "abs", exp.Sign: "sign", exp.Trunc: "trunc",
    exp.Mod: "mod", exp.Extract: "extract", exp.TimestampTrunc: "date_trunc", exp.CurrentTimestamp: "now",
    exp.CurrentDate: "current_date", exp.RowNumber: "row_number", exp.Rank: "rank", exp.DenseRank: "dense_rank",
    exp.PercentRank: "percent_rank", exp.CumeDist: "cume_dist", exp.Ntile: "ntile", exp.Lag: "lag", exp.Lead: "lead",
    exp.FirstValue: "first_value", exp.LastValue: "last_value",
}  # fmt: skip
"""Those the parser knows, by what people call them."""
OTHER_FUNCTIONS = frozenset({"jsonb_typeof", "jsonb_array_length"})
"""Those it does not. No function here can make much out of little (repeat, generate_series, string_agg, ||, regular
expressions), reach a file, a setting or another query."""

STRUCTURE: frozenset[type[exp.Expr]] = frozenset({
    exp.Select, exp.Subquery, exp.With, exp.CTE, exp.Union, exp.Intersect, exp.Except, exp.From, exp.Join, exp.Where,
    exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit, exp.Offset, exp.Distinct, exp.Table, exp.TableAlias,
    exp.Alias, exp.Column, exp.Identifier, exp.Star, exp.Paren, exp.Tuple, exp.Window, exp.WindowSpec, exp.Filter,
    exp.WithinGroup, exp.Literal, exp.Boolean, exp.Null, exp.Interval, exp.Var, exp.Case, exp.If, exp.Cast,
    exp.DataType, exp.DataTypeParam, exp.Exists, exp.In, exp.Between,
    exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is, exp.NullSafeEQ,
    exp.NullSafeNEQ, exp.Like, exp.ILike, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Neg, exp.AtTimeZone,
    exp.JSONExtract, exp.JSONExtractScalar, exp.JSONBExtract, exp.JSONBExtractScalar, exp.JSONBContains,
    exp.JSONBContainsTopKey, exp.ArrayContainsAll, exp.ArrayContainedBy,
    exp.JSONPath, exp.JSONPathRoot, exp.JSONPathKey, exp.JSONPathSubscript,
})  # fmt: skip
ALLOWED = STRUCTURE | FUNCTIONS.keys() | {exp.Anonymous, exp.Lambda}
"""A lambda is what the parser takes `f(traits -> 'plan')` for; it is written as it was, and means jsonb's operator."""

TYPES = frozenset({
    exp.DType.TEXT, exp.DType.VARCHAR, exp.DType.INT, exp.DType.BIGINT, exp.DType.SMALLINT, exp.DType.DECIMAL,
    exp.DType.DOUBLE, exp.DType.FLOAT, exp.DType.BOOLEAN, exp.DType.DATE, exp.DType.TIMESTAMP,
    exp.DType.TIMESTAMPTZ, exp.DType.INTERVAL, exp.DType.UUID,
})  # fmt: skip
TYPE_NAMES = (
    "text, varchar, int, bigint, smallint, numeric, double precision, real, boolean, date, timestamp, timestamptz,"
    " interval and uuid"
)
UNITS = frozenset({
    "MICROSECOND", "MILLISECOND", "SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR", "DOW",
    "ISODOW", "DOY", "ISOYEAR", "EPOCH",
})  # fmt: skip
# The parser drops what it does not expect inside of one ('3 days ago' became 3 days), as it drops -> ''.
INTERVAL = re.compile(r"\s*([+-]?[0-9]{1,9}\s+(second|minute|hour|day|week|month|year)s?\s*)+", re.IGNORECASE)
NUMBER = re.compile(r"[0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40}")

PLAIN_PARTS: Mapping[type[exp.Expr], frozenset[str]] = {
    exp.Select: frozenset({
        "with_", "expressions", "from_", "joins", "where", "group", "having", "order", "limit", "offset", "distinct",
        "windows",
    }),
    exp.Table: frozenset({"this", "alias", "joins"}),
    exp.With: frozenset({"expressions"}),
    exp.CTE: frozenset({"this", "alias"}),
    exp.Cast: frozenset({"this", "to"}),
    exp.DataType: frozenset({"this", "expressions"}),
    exp.Column: frozenset({"this", "table"}),
    exp.Limit: frozenset({"expression"}),
    exp.Group: frozenset({"expressions"}),
    exp.Subquery: frozenset({"this", "alias", "joins", "with_"}),
    exp.Anonymous: frozenset({"this", "expressions"}),
}  # fmt: skip
"""The parts that these may have; with any other they mean more than they seem (ONLY, TABLESAMPLE, FOR UPDATE)."""

WORKED = (exp.Table, exp.Window, exp.Order, exp.Group, exp.Distinct, exp.SetOperation)

GIVEN_PREFIX = "as_"
"""The names that a query gives begin with it when it runs: where no column is so called, PostgreSQL takes
`p.name_of_a_function` for a call."""
CTE_PREFIX = "cte_"
"""Common table expressions are named with it, so that a name never reaches a table of ours or of the catalogue where
the expression itself is out of sight."""

# One packed value, as segments/engines do.
EVERYBODY = """
SELECT string_agg(int4send(answer.profile_id::int4), ''::bytea)
FROM (SELECT DISTINCT profile_id FROM ({sql}) AS query) AS answer
"""
# $1 is who is asked about.
ONLY = """
SELECT string_agg(int4send(answer.profile_id::int4), ''::bytea)
FROM (SELECT DISTINCT profile_id FROM ({sql}) AS query WHERE profile_id = ANY($1::int[])) AS answer
"""
SHAPE = "SELECT answer.profile_id FROM ({sql}) AS answer"


def ids_query(sql: str, *, workspace_id: UUID, now: datetime, restricted: bool) -> str:
    """The statement that answers the profile ids of `sql` as one value for `idsets.unpack`.

    When `restricted`, only those in its parameter $1, an int[]. Raises SegmentError like `check`.
    """
    text = compiled(sql, workspace_id=workspace_id, now=now)
    return (ONLY if restricted else EVERYBODY).format(sql=text)


def shape_query(sql: str, *, workspace_id: UUID, now: datetime) -> str:
    """A statement whose one column has the type of the profile_id that `sql` answers; raises SegmentError."""
    return SHAPE.format(sql=compiled(sql, workspace_id=workspace_id, now=now))


def compiled(sql: str, *, workspace_id: UUID, now: datetime) -> str:
    """The SELECT that `sql` means in this workspace at `now`; raises SegmentError like `check`."""
    tree = checked(sql).copy()
    for node in list(tree.find_all(exp.CurrentTimestamp, exp.CurrentDate)):
        kind = exp.DType.TIMESTAMPTZ if isinstance(node, exp.CurrentTimestamp) else exp.DType.DATE
        instant = exp.cast(exp.Literal.string(now.astimezone(UTC).isoformat()), exp.DType.TIMESTAMPTZ)
        replaced = instant if kind is exp.DType.TIMESTAMPTZ else exp.cast(instant, kind)
        node.replace(replaced)
    for table in list(tree.find_all(exp.Table)):
        if table.name in TABLES:
            body = parse(TABLES[table.name].format(workspace=workspace_id), dialect=Postgres)[0]
            alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name))
            table.replace(exp.Subquery(this=body, alias=alias, joins=table.args.get("joins")))
    return tree.sql(dialect=Postgres, identify=True, comments=False, unsupported_level=ErrorLevel.RAISE)


def check(sql: str) -> None:
    """Raises SegmentError, whose message says what is not allowed and what is, unless `sql` may be compiled.

    What it names may still not exist: only the database knows the types of what it computes.
    """
    checked(sql)


def refusal(message: str) -> SegmentError:
    return SegmentError("SQL_NOT_ALLOWED", message, field=("sql",))


@lru_cache(maxsize=256)
def checked(sql: str) -> exp.Expr:
    """The tree of `sql`, of which nothing may be changed; raises SegmentError."""
    if not sql.strip():
        raise refusal("There is no SQL here; write a SELECT that answers a column profile_id.")
    if len(sql) > MOST_CHARACTERS:
        raise refusal(f"A saved query has at most {MOST_CHARACTERS:,} characters, this one {len(sql):,}.")
    try:
        tokens = list(Postgres().tokenize(sql))
        check_tokens(tokens)
        trees = [tree for tree in Postgres().parser(error_level=ErrorLevel.IMMEDIATE).parse(tokens, sql) if tree]
        if len(trees) != 1 or not isinstance(trees[0], exp.Select | exp.SetOperation | exp.Subquery):
            raise refusal("A saved query is exactly one SELECT; WITH, UNION, INTERSECT and EXCEPT are part of one.")
        tree = trees[0]
        check_nodes(tree)
        check_answer(tree)
        name_exactly(tree)
        # Once here, so that what cannot be written is refused when it is saved.
        tree.sql(dialect=Postgres, identify=True, comments=False, unsupported_level=ErrorLevel.RAISE)
        return tree
    except ParseError as e:
        fault: dict[str, Any] = e.errors[0] if e.errors else {}
        place = f" in line {fault['line']}, column {fault['col']}" if fault.get("line") else ""
        raise refusal(f"This is no SQL that can be read{place}; check brackets, commas and quotes.") from e
    except TokenError as e:
        raise refusal("This is no SQL that can be read: a quote or a comment is not closed.") from e
    except RecursionError:
        raise too_deep() from None


def too_deep() -> SegmentError:
    return refusal("The query is nested too deep; take parts of it into WITH, or make it simpler.")


def check_tokens(tokens: list[Token]) -> None:
    """What the parser must not even see: other statements, which it would take for text, and depth without end."""
    kinds = [token.token_type for token in tokens]
    while kinds and kinds[-1] is TokenType.SEMICOLON:
        kinds.pop()
    if not kinds or kinds[0] not in (TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN):
        raise refusal("A saved query is a SELECT, or begins with WITH; nothing else is allowed.")
    if TokenType.SEMICOLON in kinds:
        raise refusal("A saved query is exactly one SELECT; remove what follows the semicolon.")
    depth = 0
    for kind in kinds:
        depth += (kind in OPENING) - (kind in CLOSING)
        if depth > DEEPEST:
            raise too_deep()
    for token, following in pairwise(tokens):
        if following.token_type is not TokenType.STRING:
            continue
        if token.token_type is TokenType.INTERVAL and not INTERVAL.fullmatch(following.text):
            raise refusal("Write an interval like INTERVAL '30 days', in seconds to years.")
        if token.token_type in (TokenType.ARROW, TokenType.DARROW) and not following.text:
            raise refusal("Give -> and ->> the name of one key, such as traits ->> 'plan'.")


OPENING = (TokenType.L_PAREN, TokenType.CASE, TokenType.L_BRACKET, TokenType.L_BRACE)
CLOSING = (TokenType.R_PAREN, TokenType.END, TokenType.R_BRACKET, TokenType.R_BRACE)


# --- what is allowed ----------------------------------------------------------------------------------------------


def check_nodes(tree: exp.Expr) -> None:
    """Raises SegmentError for the first node that is not allowed."""
    expressions = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    for name in expressions & TABLES.keys():
        raise refusal(f"{name} is a table already; give the WITH query another name.")
    columns = known_columns(tree)
    worked = 0
    for count, node in enumerate(tree.walk(), start=1):
        worked += isinstance(node, WORKED)
        if count > MOST_NODES or worked > MOST_WORKED:
            raise refusal("The query is too large; make it simpler, or two of it.")
        check_node(node, expressions, columns)


def check_node(node: exp.Expr, expressions: set[str], columns: set[str]) -> None:
    if type(node) not in ALLOWED:
        raise not_allowed(node)
    if isinstance(node, exp.Table) and node.db:
        raise refusal(f"Name tables without a schema; there are {', '.join(TABLES)}.")
    parts = PLAIN_PARTS.get(type(node))
    if parts is not None:
        for part, value in node.args.items():
            if value and part not in parts:
                raise refusal(f"{part.strip('_').upper()} is not allowed in {type(node).__name__.upper()} here.")
    match node:
        case exp.Anonymous():
            if not isinstance(node.this, str) or node.this.lower() not in OTHER_FUNCTIONS:
                raise not_allowed(node)
        case exp.Table():
            if not isinstance(node.this, exp.Identifier) or node.name.lower() not in TABLES.keys() | expressions:
                raise refusal(
                    f"There is no table {node.name or 'of this kind'}; use {', '.join(TABLES)} or a WITH query."
                )
        case exp.Column() if isinstance(node.this, exp.Identifier):
            check_column(node.this, columns)
        case exp.Lambda():
            if len(node.expressions) != 1 or not isinstance(node.expressions[0], exp.Identifier):
                raise not_allowed(node)
            check_column(node.expressions[0], columns)
        case exp.DataType():
            if node.this not in TYPES:
                raise refusal(f"A cast to {node.sql(dialect=Postgres)} is not allowed; use {TYPE_NAMES}.")
        case exp.Var():
            if str(node.this).upper().removesuffix("S") not in UNITS:
                raise refusal(f"There is no unit {node.name}; use one of {', '.join(sorted(UNITS))}.")
        case exp.Literal(is_string=False):
            if not NUMBER.fullmatch(str(node.this)):
                raise refusal("Write numbers like 12 or 12.5.")
        case exp.Identifier():
            if len(node.name) > MOST_NAME_CHARACTERS or "\0" in node.name:
                raise refusal(f"Names have at most {MOST_NAME_CHARACTERS} characters.")
        case exp.JSONPath():
            if len(node.expressions) != 2:
                raise refusal("Give -> and ->> the name of one key, such as traits ->> 'plan'.")
        case exp.Interval():
            if not isinstance(node.this, exp.Literal):
                raise refusal("Write an interval like INTERVAL '30 days', in seconds to years.")


def check_column(name: exp.Identifier, columns: set[str]) -> None:
    if name.name.lower() not in columns:
        known = "; ".join(f"{table} has {', '.join(names)}" for table, names in COLUMNS.items())
        raise refusal(f"There is no column {name.name}: {known}. Give what you compute a name with AS.")


def not_allowed(node: exp.Expr) -> SegmentError:
    if isinstance(node, exp.Func):
        name = node.name if isinstance(node, exp.Anonymous) else node.sql(dialect=Postgres).partition("(")[0]
        return refusal(f"The function {name.lower()} is not allowed; use {', '.join(function_names())}.")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).upper()
    return refusal(f"{words} is not allowed in a saved query; docs/saved-sql.md lists what is.")


def function_names() -> list[str]:
    return sorted({*FUNCTIONS.values(), *OTHER_FUNCTIONS})


def known_columns(tree: exp.Expr) -> set[str]:
    """Names that columns may have: those of the tables, and those that the query itself gives."""
    return {*OWN_COLUMNS, *given_names(tree)}


def given_names(tree: exp.Expr) -> Iterator[str]:
    for alias in tree.find_all(exp.Alias):
        yield alias.alias.lower()
    for table in tree.find_all(exp.TableAlias):
        yield from (column.name.lower() for column in table.columns)


def check_answer(tree: exp.Expr) -> None:
    """Raises SegmentError unless the query answers one column profile_id, as far as can be seen."""
    query = tree.unnest()
    while isinstance(query, exp.SetOperation):
        query = query.this.unnest()
    names = [name.lower() for name in query.named_selects] if isinstance(query, exp.Select) else []
    if "*" in names or any(isinstance(column, exp.Column) and column.is_star for column in query.expressions):
        return
    if names.count("profile_id") != 1:
        raise refusal("A saved query answers one column named profile_id; select it, or name one with AS profile_id.")


def name_exactly(tree: exp.Expr) -> None:
    """Fold names as PostgreSQL does and quote them, and name WITH queries, and what queries compute, so that they mean
    nothing else."""
    for identifier in tree.find_all(exp.Identifier):
        if not identifier.args.get("quoted"):
            identifier.set("this", identifier.name.lower())
            identifier.set("quoted", True)
        if names_column(identifier) and identifier.name not in OWN_COLUMNS:
            identifier.set("this", GIVEN_PREFIX + identifier.name)
    for cte in tree.find_all(exp.CTE):
        cte.args["alias"].this.set("this", CTE_PREFIX + cte.alias)
    for table in tree.find_all(exp.Table):
        if table.name not in TABLES:
            if not table.args.get("alias"):
                table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
            table.this.set("this", CTE_PREFIX + table.name)


def names_column(identifier: exp.Identifier) -> bool:
    """Whether it names a column, not a table, a WITH query or a window."""
    match identifier.parent:
        case exp.Column() | exp.TableAlias():
            return identifier.arg_key == ("this" if isinstance(identifier.parent, exp.Column) else "columns")
        case exp.Alias() | exp.Join() | exp.Lambda():
            return True
        case _:
            return False
