"""Statements that answer leaves: one row, with one value of packed ids for each leaf, in the order given.

With `some` they are about the profiles given when they run, else about everybody. A statement for one leaf has its test
in WHERE, where an index may serve it; one for several tests each row for each of them (FILTER).
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from segments.engines.profile_leaves import RowLeaf, bucket_is, bucketed, date_is, profile_is
from segments.engines.queries import Query, Statement, counts, in_time, packed
from segments.nodes import RandomBucket, Sessions, Trait

L = TypeVar("L")


def of_profiles(leaves: Sequence[RowLeaf], *, some: bool) -> Statement:
    """For leaves that rows of `profile` answer."""
    return of_rows("profile", "id", leaves, profile_is, some=some)


def of_all_profiles(leaves: Sequence[RowLeaf]) -> Statement:
    """For leaves that take all rows of `profile`; the last column says how many these are, which to count apart would
    take a third as long."""
    query = Query()
    tests = [profile_is(query, leaf) for leaf in leaves]
    return query.made(f"SELECT {each('id', tests)}, count(*) {query.rows_of('profile')}")


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
        return query.made(f"SELECT {packed(column)} {query.rows_of(table, *tests, only=only)}")
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


def each(column: str, tests: Sequence[str | None]) -> str:
    return ", ".join(packed(column, test) for test in tests)
