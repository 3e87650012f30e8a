"""Leaves that a row of `profile` answers, and date traits, which `profile_date` does."""

from datetime import datetime
from typing import TypeAlias, assert_never

from segments.engines.comparisons import Member, member_is, text_is
from segments.engines.queries import Query, in_time
from segments.nodes import (
    Attribute,
    AttributeName,
    Identified,
    Operator,
    RandomBucket,
    Seen,
    Side,
    Sight,
    Span,
    Trait,
    Window,
)
from segments.tree import BUCKETS, MASK, MIX_FACTOR, salt_seeds

RowLeaf: TypeAlias = Trait | Attribute | Seen | Identified

ATTRIBUTES = {
    AttributeName.COUNTRY: "coalesce(country, seen_country)",
    AttributeName.CITY: "coalesce(city, seen_city)",
    AttributeName.DEVICE_TYPE: "seen_device_type",
    AttributeName.BROWSER: "seen_browser",
    AttributeName.LOCALE: "locale",
    AttributeName.TIME_ZONE: "time_zone",
    AttributeName.EMAIL: "email",
    AttributeName.PHONE: "phone",
    AttributeName.EXTERNAL_ID: "external_id",
}
SIGHTS = {Sight.FIRST: "first_seen_at", Sight.LAST: "last_seen_at"}
DATED = frozenset({Operator.BEFORE, Operator.AFTER, Operator.WITHIN_LAST, Operator.MORE_THAN_AGO})
LOOKED_UP = frozenset({Operator.EQUALS, Operator.IN})


def is_dated(leaf: Trait) -> bool:
    """Whether `leaf` compares a trait as a date."""
    return leaf.operator in DATED


def is_looked_up(leaf: object) -> bool:
    """Whether a unique key leads to the few rows of `profile` that a leaf wants."""
    return isinstance(leaf, Attribute) and leaf.name is AttributeName.EXTERNAL_ID and leaf.operator in LOOKED_UP


def profile_is(query: Query, leaf: RowLeaf) -> str:
    """Whether a row of `profile` meets `leaf`, which compares no date."""
    match leaf:
        case Trait(key, operator, value):
            return member_is(Member(query, "traits", key), operator, value)
        case Attribute(name, operator, value):
            return text_is(query, ATTRIBUTES[name], operator, value)
        case Seen(sight, time):
            return in_time(query, SIGHTS[sight], time)
        case Identified(value):
            return f"identified = {query.bind(value, 'boolean')}"
        case _:
            assert_never(leaf)


def bucket_is(query: Query, leaf: RandomBucket) -> str:
    """Whether a row of `bucketed` meets `leaf`, of the same salt."""
    return f"bucket >= {query.bind(leaf.start, 'bigint')} AND bucket < {query.bind(leaf.end, 'bigint')}"


def bucketed(query: Query, salt: str, *, some: bool) -> str:
    """The living profiles with their tree.bucket, as a table of `id` and `bucket`.

    Worked out in bigint, each step in a subquery of its own: OFFSET 0 keeps PostgreSQL from putting one into the other,
    where every step names the one before twice and the last would be worked out 64 times.
    """
    living = ("merged_into IS NULL", "erased_at IS NULL")
    table = f"(SELECT id, id::bigint AS x {query.rows_of('profile', *living, only='id' if some else None)} OFFSET 0)"
    for seed in salt_seeds(salt):
        table = f"(SELECT id, x # {query.bind(seed, 'bigint')} AS x FROM {table} AS s OFFSET 0)"
        for _ in range(2):
            table = f"(SELECT id, (((x >> 16) # x) * {MIX_FACTOR}) & {MASK} AS x FROM {table} AS s OFFSET 0)"
        table = f"(SELECT id, (x >> 16) # x AS x FROM {table} AS s OFFSET 0)"
    return f"(SELECT id, x % {BUCKETS} AS bucket FROM {table} AS s OFFSET 0)"


def date_is(query: Query, leaf: Trait) -> str:
    """Whether a row of `profile_date` meets `leaf`."""
    key = f"key = {query.bind(leaf.key, 'text')}"
    match leaf.operator, leaf.value:
        case Operator.BEFORE, datetime() as instant:
            return f"{key} AND at < {query.bind(instant, 'timestamptz')}"
        case Operator.AFTER, datetime() as instant:
            return f"{key} AND at >= {query.bind(instant, 'timestamptz')}"
        case Operator.WITHIN_LAST, Span(amount, unit):
            return f"{key} AND {in_time(query, 'at', Window(Side.WITHIN, amount, unit))}"
        case Operator.MORE_THAN_AGO, Span(amount, unit):
            return f"{key} AND {in_time(query, 'at', Window(Side.BEFORE, amount, unit))}"
        case _:
            raise ValueError(f"{leaf.operator} does not fit its value")
