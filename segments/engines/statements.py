"""Statements that answer leaves: one row, with one value of packed ids for each leaf, in the order given.

With `some` they are about the profiles given when they run, else about everybody. A statement for one leaf has its test
in WHERE, where an index may serve it; one for several tests each row for each of them (FILTER).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, assert_never

from segments.engines.comparisons import Member
from segments.engines.event_leaves import CONTEXT, Aggregates, event_is, matching
from segments.engines.profile_leaves import RowLeaf, bucket_is, bucketed, date_is, is_looked_up, profile_is
from segments.engines.queries import Query, Statement, all_of, counts, in_time, packed
from segments.nodes import Event, Period, RandomBucket, Sessions, Side, Time, Trait, Window

L = TypeVar("L")


def of_profiles(leaves: Sequence[RowLeaf], *, some: bool) -> Statement:
    """For leaves that rows of `profile` answer."""
    return of_rows("profile", "id", leaves, profile_is, some=some)


def of_dates(leaves: Sequence[Trait], *, some: bool) -> Statement:
    """For date traits."""
    return of_rows("profile_date", "profile_id", leaves, date_is, some=some)


def of_rows(
    table: str, column: str, leaves: Sequence[L], is_met: Callable[[Query, L], str], *, some: bool
) -> Statement:
    query = Query()
    tests = [is_met(query, leaf) for leaf in leaves]
    only = column if some else None
    if len(tests) == 1:
        (test,) = tests if some or table != "profile" or is_looked_up(leaves[0]) else map(half, tests)
        return query.made(f"SELECT {packed(column)} {query.rows_of(table, test, only=only)}")
    return query.made(f"SELECT {each(column, tests)} {query.rows_of(table, only=only)}")


def of_buckets(leaves: Sequence[RandomBucket], *, some: bool) -> Statement:
    """For buckets of one salt."""
    query = Query()
    table = bucketed(query, leaves[0].salt, some=some)
    return query.made(f"SELECT {each('id', [bucket_is(query, leaf) for leaf in leaves])} FROM {table} AS bucketed")


def of_sessions(leaves: Sequence[Sessions], *, some: bool) -> Statement:
    """For numbers of sessions in one time."""
    query = Query()
    time = leaves[0].window
    demands = ["session_id IS NOT NULL", *([] if time is None else [in_time(query, "occurred_at", time)])]
    rows = query.rows_of("event", *demands, only="profile_id" if some else None)
    # DISTINCT below and not inside count(): that would sort all events, and never in parallel.
    different = f"SELECT DISTINCT profile_id, session_id {rows}"
    counted = f"SELECT profile_id, count(*) AS sessions FROM ({different}) AS d GROUP BY profile_id"
    wanted = [counts(query, "sessions", leaf.count) for leaf in leaves]
    return query.made(f"SELECT {each('profile_id', wanted)} FROM ({counted}) AS counted")


def of_performed(leaves: Sequence[Event]) -> Statement:
    """The profile of each of everybody's events of one name, once for every event: to be counted by folding.py.

    Not grouped: for 400,000 events that took 320 ms instead of 155, in one process.
    """
    query = Query()
    matches = [all_of(matching(query, event)) for event in leaves]
    rows, left = restricted(query, leaves, matches)
    return query.made(f"SELECT {', '.join(packed('profile_id', match) for match in left)} {rows}")


def of_measured(leaves: Sequence[Event]) -> Statement:
    """For everybody's events of one name of which something is counted or summed."""
    query = Query()
    matches = [all_of(matching(query, event)) for event in leaves]
    rows, left = restricted(query, leaves, matches)
    values = values_of(leaves)
    tests = {match: f"b{at}" for at, match in enumerate(dict.fromkeys(filter(None, left)))}
    if values or tests:
        # Told below OFFSET 0: by the workers of a parallel scan, once, and so that what is grouped, and goes to disk
        # when there are many groups, has no properties in it.
        columns = ["profile_id", "occurred_at", *(f"{match} AS {name}" for match, name in tests.items())]
        rows = f"FROM (SELECT {', '.join([*columns, *selected(query, values)])} {rows} OFFSET 0) AS rows"
        left = [match and tests[match] for match in left]
    aggregates = Aggregates(values)
    demands = [event_is(query, event, aggregates, match) for event, match in zip(leaves, left, strict=True)]
    measured = f"SELECT {', '.join(('profile_id', *aggregates.columns))} {rows} GROUP BY profile_id"
    return query.made(f"SELECT {each('profile_id', demands)} FROM ({measured}) AS measured")


def restricted(query: Query, leaves: Sequence[Event], matches: Sequence[str | None]) -> tuple[str, list[str | None]]:
    """FROM and WHERE for the rows that any of the leaves needs, and what each of them still has to demand of those."""
    name = f"name = {query.bind(leaves[0].name, 'text')}"
    different = sorted({match or "true" for match in matches})
    left: list[str | None] = [None] * len(matches) if len(different) == 1 else list(matches)
    filtered = [bool(event.where or event.context) for event in leaves]
    if len(different) == 1 and not any(filtered):
        return query.rows_of("event", name, *different), left
    demands = [name, *hull(query, [event.window for event in leaves])]
    if all(filtered):
        demands.append(half(" OR ".join(different)))
    return query.rows_of("event", *demands), left


def half(test: str) -> str:
    """`test`, of which the planner believes that half of the rows pass it.

    It takes tests of jsonb to be true of a two hundredth, and then has one process do what many rows need.
    """
    return f"CASE WHEN {test} THEN true END"


def values_of(leaves: Sequence[Event]) -> dict[str, str]:
    """The columns for the properties that are summed, by their keys."""
    keys = dict.fromkeys(total.property for event in leaves for total in event.totals)
    return {key: f"v{at}" for at, key in enumerate(keys)}


def selected(query: Query, values: Mapping[str, str]) -> list[str]:
    return [f"{Member(query, 'properties', key).value} AS {column}" for key, column in values.items()]


def hull(query: Query, times: Sequence[Time | None]) -> list[str]:
    """What holds of every instant that is in one of `times`, as far as an index can use it."""
    ends = [ends_of(query, time) for time in times]
    tests = []
    if lower := [low for low, _ in ends if low is not None] if all(low for low, _ in ends) else []:
        tests.append(f"occurred_at >= {extreme('least', lower)}")
    if upper := [high for _, high in ends if high is not None] if all(high for _, high in ends) else []:
        tests.append(f"occurred_at <= {extreme('greatest', upper)}")
    return tests


def extreme(function: str, values: Sequence[str]) -> str:
    different = tuple(dict.fromkeys(values))
    return different[0] if len(different) == 1 else f"{function}({', '.join(different)})"


def ends_of(query: Query, time: Time | None) -> tuple[str | None, str | None]:
    """The first and the last instant in `time`; None: there is none."""
    match time:
        case None:
            return None, None
        case Window(Side.WITHIN):
            return query.ago(time.duration), query.now
        case Window():
            return None, query.ago(time.duration)
        case Period(since, until):
            first, last = (None if at is None else query.bind(at, "timestamptz") for at in (since, until))
            return first, last
        case _:
            assert_never(time)


def of_some_events(leaves: Sequence[Event]) -> Statement:
    """For events of any names of some profiles, which are read once for all leaves.

    Names become numbers before anything is filtered: a row is tested for every leaf, and comparing texts each time
    took as long as reading the rows. OFFSET 0 keeps it so.
    """
    query = Query()
    names = tuple(dict.fromkeys(event.name for event in leaves))
    known = query.bind(names, "text[]")
    demands = [f"name = ANY({known})", *hull(query, [event.window for event in leaves])]
    values = values_of(leaves)
    columns = ["profile_id", "occurred_at", *columns_of(leaves), *selected(query, values)]
    columns.append(f"array_position({known}, name) AS named")
    rows = f"SELECT {', '.join(columns)} {query.rows_of('event', *demands, only='profile_id')} OFFSET 0"
    aggregates = Aggregates(values)
    wanted = []
    for event in leaves:
        match = " AND ".join((f"named = {names.index(event.name) + 1}", *matching(query, event)))
        wanted.append(event_is(query, event, aggregates, match))
    measured = f"SELECT {', '.join(('profile_id', *aggregates.columns))} FROM ({rows}) AS rows GROUP BY profile_id"
    return query.made(f"SELECT {each('profile_id', wanted)} FROM ({measured}) AS measured")


def columns_of(leaves: Sequence[Event]) -> list[str]:
    """What the tests of the leaves look at beside name and time."""
    used = dict.fromkeys(CONTEXT[test.field] for event in leaves for test in event.context)
    return [*used, *(["properties"] if any(event.where for event in leaves) else [])]


def each(column: str, tests: Sequence[str | None]) -> str:
    return ", ".join(packed(column, test) for test in tests)
