"""What profiles are ranked by, as two packed values: ids and their measure, by ascending id."""

from typing import assert_never

from segments.engines.comparisons import Member
from segments.engines.profile_leaves import SIGHTS
from segments.engines.queries import Query, Statement, in_time
from segments.nodes import ByEvents, BySeen, ByTrait, Measure, RankBy

# Sorted below, so that the two aggregates are read in one order without sorting twice.
RANKS = """
SELECT string_agg(int4send(id), ''::bytea ORDER BY id), string_agg(float8send(value), ''::bytea ORDER BY id)
FROM ({}) AS ranked WHERE value IS NOT NULL
"""


def ranked(by: RankBy, *, some: bool) -> Statement:
    """The statement whose row is what `base.Ranks` holds, packed big-endian; NULLs when nobody has a value."""
    query = Query()
    match by:
        case ByTrait(key):
            rows = query.rows_of("profile", only="id" if some else None)
            values = f"SELECT id, {as_float(Member(query, 'traits', key).number)} AS value {rows}"
        case BySeen(sight):
            rows = query.rows_of("profile", only="id" if some else None)
            values = f"SELECT id, extract(epoch FROM {SIGHTS[sight]})::float8 AS value {rows}"
        case ByEvents():
            measure = as_float(measured(query, by))
            demands = [f"name = {query.bind(by.name, 'text')}"]
            demands += [] if by.window is None else [in_time(query, "occurred_at", by.window)]
            rows = query.rows_of("event", *demands, only="profile_id" if some else None)
            values = f"SELECT profile_id AS id, {measure} AS value {rows} GROUP BY profile_id"
        case _:
            assert_never(by)
    return query.made(RANKS.format(values))


def measured(query: Query, by: ByEvents) -> str:
    """What is made of a profile's events; NULL of no number."""
    if by.measure is Measure.COUNT:
        return "count(*)::numeric"
    assert by.property is not None
    number = Member(query, "properties", by.property).number
    match by.measure:
        case Measure.SUM | Measure.AVG | Measure.MIN | Measure.MAX:
            return f"{by.measure.lower()}({number})"
        case _:
            assert_never(by.measure)


def as_float(number: str) -> str:
    """A numeric as a double: what is beyond its range is the largest there is, what is too small is 0.

    Sums leave the range that each summand was checked for, and the cast would be an error for everybody.
    """
    beyond = f"WHEN abs({number}) > '1e308' THEN sign({number})::float8 * '1e308'"
    return f"CASE WHEN abs({number}) < '1e-307' THEN 0 {beyond} ELSE {number}::float8 END"
