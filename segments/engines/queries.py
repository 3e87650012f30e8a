"""Queries for the role muster_leaf: the only place where its SQL starts.

That role reads past row level security, which would keep jsonb operators from their indexes (a trait lookup of
300,000 profiles took 0.4-0.8 ms without it and 35-130 ms with it). So `Query` binds the workspace as $1 before
anything else and gives out no table without the condition on it; a test proves both for every kind of leaf.
"""

from functools import cache
from uuid import UUID

from pyroaring import BitMap
from sqlglot import exp, select

from segments.idsets import to_parameter


class Query:
    """One query being made: its values, and where its tables come from."""

    def __init__(self, workspace_id: UUID) -> None:
        self.arguments: list[object] = [workspace_id]

    def bind(self, value: object, kind: str) -> exp.Expr:
        """The placeholder of `value`, of the SQL type `kind`. No value is ever written into the text."""
        self.arguments.append(value)
        return placeholder(len(self.arguments), kind)

    def ids_of(self, table: str, column: str, *, only: BitMap | None) -> exp.Select:
        """The profile ids in `column`, as `id`, of the workspace's rows of `table`; with `only`, those of them."""
        rows = select(exp.column(column).as_("id")).from_(table, copy=False)
        where(rows, exp.EQ(this=exp.column("workspace_id"), expression=placeholder(1, "uuid")))
        if only is not None:
            ids = exp.Any(this=exp.Paren(this=self.bind(to_parameter(only), "int[]")))
            where(rows, exp.EQ(this=exp.column(column), expression=ids))
        return rows

    def packed(self, rows: exp.Select) -> str:
        """The SQL of one value that holds the ids of `rows`, for `idsets.unpack`."""
        ids = function("string_agg", function("int4send", exp.column("id")), cast(text(""), "bytea"))
        return select(ids).from_(rows.subquery("found", copy=False), copy=False).sql(dialect="postgres", copy=False)


# sqlglot copies what it is given with every call; here each part is made for one query, so nothing is: two thirds of
# the work were copies.


def where(rows: exp.Select, demand: exp.Expr) -> None:
    """Demand more of `rows`."""
    rows.where(demand, copy=False)


def both(one: exp.Expr, other: exp.Expr) -> exp.Expr:
    return exp.and_(one, other, copy=False)


def either(one: exp.Expr, other: exp.Expr) -> exp.Expr:
    return exp.Paren(this=exp.or_(one, other, copy=False))


def negated(one: exp.Expr) -> exp.Expr:
    return exp.not_(one, copy=False)


def placeholder(number: int, kind: str) -> exp.Expr:
    return cast(exp.Parameter(this=exp.Literal.number(number)), kind)


def cast(value: exp.Expr, kind: str) -> exp.Expr:
    return exp.Cast(this=value, to=data_type(kind).copy())


@cache
def data_type(kind: str) -> exp.DataType:
    return exp.DataType.build(kind, dialect="postgres")


def function(name: str, *arguments: exp.Expr) -> exp.Expr:
    """A call of PostgreSQL's own function: sqlglot's would be rewritten between dialects."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def text(value: str) -> exp.Expr:
    """A text that is part of the query, never of its input."""
    return exp.Literal.string(value)
