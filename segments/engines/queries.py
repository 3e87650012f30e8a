"""SQL for the role muster_leaf, made of pieces: the only place where its text starts.

That role reads past row level security, which would keep jsonb operators from their indexes (a trait lookup of
300,000 profiles took 0.4-0.8 ms without it and 35-130 ms with it). So a `Query` has the workspace as $1 before
anything else and gives out no table without the condition on it; and no value gets into the text: it is bound, and the
piece of SQL is its placeholder. Tests prove both for every kind of leaf.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import assert_never
from uuid import UUID

import orjson
from pyroaring import BitMap

from db.idsets import to_parameter
from segments.nodes import Amount, Operator, Period, Side, Time, Window

PLACEHOLDER = re.compile(r"\$(\d+)::")
EARLIEST = datetime.min.replace(tzinfo=UTC)

ORDERED = {
    Operator.EQUALS: "=",
    Operator.NOT_EQUALS: "<>",
    Operator.GREATER_THAN: ">",
    Operator.GREATER_OR_EQUAL: ">=",
    Operator.LESS_THAN: "<",
    Operator.LESS_OR_EQUAL: "<=",
}


@dataclass(frozen=True, slots=True)
class Ago:
    """Now less a duration, worked out whenever the statement runs."""

    duration: timedelta


class Given(Enum):
    """Other arguments that are known when the statement runs."""

    WORKSPACE = "workspace"
    ONLY = "only"
    SINCE = "since"
    UNTIL = "until"


@dataclass(frozen=True, slots=True)
class Part:
    """The time from `since` on and before `until`."""

    since: datetime
    until: datetime


ALWAYS = Part(EARLIEST, datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and its arguments, the first of which is the workspace."""

    sql: str
    arguments: tuple[object, ...]

    def values(
        self, workspace_id: UUID, *, now: datetime | None = None, only: BitMap | None = None, part: Part | None = None
    ) -> list[object]:
        """The arguments to run it with; with `part`, about events of that time."""
        part = part or ALWAYS
        values: list[object] = []
        for argument in self.arguments:
            match argument:
                case Given.WORKSPACE:
                    values.append(workspace_id)
                case Given.ONLY:
                    assert only is not None
                    values.append(to_parameter(only))
                case Given.SINCE:
                    values.append(part.since)
                case Given.UNTIL:
                    values.append(part.until)
                case Ago(duration):
                    assert now is not None
                    values.append(earlier(now, duration))
                case tuple():
                    values.append(list(argument))
                case _:
                    values.append(argument)
        return values


def together(statements: Sequence[Statement]) -> Statement:
    """One statement of a row, which has the row of each of `statements` as a record.

    Each is planned by itself, as a scalar: a join of many would be a search for the best order.
    """
    arguments: list[object] = [Given.WORKSPACE]
    scalars = []
    for statement in statements:
        # The workspace is the first of all; the others of this statement follow those before it.
        sql = PLACEHOLDER.sub(partial(shifted, by=len(arguments) - 1), statement.sql)
        arguments += statement.arguments[1:]
        scalars.append(f"(SELECT one FROM ({sql}) AS one)")
    return Statement(f"SELECT {', '.join(scalars)}", tuple(arguments))


def shifted(found: re.Match[str], *, by: int) -> str:
    place = int(found[1])
    return f"${place if place == 1 else place + by}::"


def earlier(now: datetime, duration: timedelta) -> datetime:
    """`now` less `duration`, but not before the year 1."""
    return now - duration if now - EARLIEST > duration else EARLIEST


class Query:
    """One statement being made: its arguments, and where its tables come from."""

    def __init__(self) -> None:
        self.arguments: list[object] = [Given.WORKSPACE]
        self.placeholders: dict[tuple[str, str], str] = {}

    def bind(self, value: object, kind: str) -> str:
        """The placeholder of `value`, of the SQL type `kind`: equal values share one. A tuple is an array."""
        # repr and not the value: to Python 1, 1.0 and True are equal.
        known = (repr(value), kind)
        if known not in self.placeholders:
            self.arguments.append(value)
            self.placeholders[known] = f"${len(self.arguments)}::{kind}"
        return self.placeholders[known]

    def ago(self, duration: timedelta) -> str:
        """The placeholder of now less `duration`."""
        return self.bind(Ago(duration), "timestamptz")

    @property
    def now(self) -> str:
        """The placeholder of now."""
        return self.ago(timedelta())

    def json(self, value: object) -> str:
        """The placeholder of a JSON value: as text, which the connection's jsonb codec passes on as it is."""
        return self.bind(orjson.dumps(value).decode(), "jsonb")

    def rows_of(self, table: str, *demands: str, only: str | None = None) -> str:
        """FROM and WHERE: the workspace's rows of `table` that meet all of `demands`.

        `only` is its column of profile ids when the statement is about some profiles.
        """
        asked = [] if only is None else [f"{only} = ANY({self.bind(Given.ONLY, 'int[]')})"]
        return f"FROM {table} WHERE " + " AND ".join(("workspace_id = $1::uuid", *asked, *demands))

    def made(self, sql: str) -> Statement:
        return Statement(sql, tuple(self.arguments))


def packed(column: str, demand: str | None = None) -> str:
    """The ids in a column as one value for `idsets.unpack`; with `demand`, those of rows that meet it."""
    ids = joined(f"int4send({column})")
    return ids if demand is None else f"{ids} FILTER (WHERE {demand})"


def joined(column: str) -> str:
    """The bytes of a column, one after the other; NULL of no row.

    No separator, which costs a tenth of the whole even when it is empty.
    """
    return f"string_agg({column}, NULL)"


def all_of(tests: Sequence[str]) -> str | None:
    """One test out of several; None out of none."""
    return " AND ".join(tests) or None


def half(test: str) -> str:
    """`test`, of which the planner believes that half of the rows pass it.

    It takes tests of jsonb to be true of a two hundredth, and then has one process do what many rows need.
    """
    return f"CASE WHEN {test} THEN true END"


def in_time(query: Query, instant: str, time: Time) -> str:
    """Whether an instant, which is a piece of SQL, is in `time`; never true of NULL."""
    match time:
        case Window(Side.WITHIN):
            return f"{instant} >= {query.ago(time.duration)} AND {instant} <= {query.now}"
        case Window():
            return f"{instant} < {query.ago(time.duration)}"
        case Period(since, until):
            tests = [] if since is None else [f"{instant} >= {query.bind(since, 'timestamptz')}"]
            if until is not None:
                tests.append(f"{instant} < {query.bind(until, 'timestamptz')}")
            return " AND ".join(tests)
        case _:
            assert_never(time)


def hull(query: Query, times: Sequence[Time | None]) -> list[str]:
    """What holds of every `occurred_at` that is in one of `times`, as far as an index can use it."""
    ends = [ends_of(time) for time in times]
    tests = []
    for place, compared, extreme in ((0, ">=", "least"), (1, "<=", "greatest")):
        # Bound when it is known that the statement uses them: PostgreSQL refuses an argument that it does not.
        if all(pair[place] is not None for pair in ends):
            values = list(dict.fromkeys(query.bind(pair[place], "timestamptz") for pair in ends))
            value = values[0] if len(values) == 1 else f"{extreme}({', '.join(values)})"
            tests.append(f"occurred_at {compared} {value}")
    return tests


def ends_of(time: Time | None) -> tuple[Ago | datetime | None, Ago | datetime | None]:
    """The first and the last instant in `time`, as they are bound; None: there is none."""
    match time:
        case None:
            return None, None
        case Window(Side.WITHIN):
            return Ago(time.duration), Ago(timedelta())
        case Window():
            return None, Ago(time.duration)
        case Period(since, until):
            return since, until
        case _:
            assert_never(time)


def counts(query: Query, count: str, amount: Amount) -> str:
    """Whether a count, which is a piece of SQL, is as `amount` wants it."""
    whole = isinstance(amount.value, int) and abs(amount.value) < 2**63
    limit = query.bind(amount.value, "bigint") if whole else numeric(query, amount)
    return f"{count} {ORDERED[amount.operator]} {limit}"


def numeric(query: Query, amount: Amount) -> str:
    # Through its text: the float 0.1 is meant as one tenth, which numeric can say.
    return query.bind(Decimal(str(amount.value)), "numeric")
