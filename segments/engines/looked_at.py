"""What leaves looked at for one profile, for people to read: each leaf's value as JSON."""

from collections.abc import Sequence
from typing import assert_never

from segments.engines.comparisons import Member
from segments.engines.event_leaves import matching
from segments.engines.profile_leaves import ATTRIBUTES, SIGHTS, bucketed
from segments.engines.queries import Query, Statement, in_time
from segments.nodes import Attribute, EngineLeaf, Event, Identified, RandomBucket, Seen, Sessions, Trait


def looked_at(leaves: Sequence[EngineLeaf]) -> Statement:
    """A statement of one row with a jsonb value for each leaf, about the one profile given when it runs."""
    query = Query()
    return query.made("SELECT " + ", ".join(f"({value_of(query, leaf)})" for leaf in leaves))


def value_of(query: Query, leaf: EngineLeaf) -> str:
    match leaf:
        case Trait(key):
            return f"SELECT {Member(query, 'traits', key).value} {query.rows_of('profile', only='id')}"
        case Attribute(name):
            return f"SELECT to_jsonb({ATTRIBUTES[name]}) {query.rows_of('profile', only='id')}"
        case Seen(sight):
            return f"SELECT to_jsonb({SIGHTS[sight]}) {query.rows_of('profile', only='id')}"
        case Identified():
            return f"SELECT to_jsonb(identified) {query.rows_of('profile', only='id')}"
        case RandomBucket(salt):
            return f"SELECT to_jsonb(bucket) FROM {bucketed(query, salt, some=True)} AS bucketed"
        case Sessions(window=time):
            demands = [] if time is None else [in_time(query, "occurred_at", time)]
            rows = query.rows_of("event", *demands, only="profile_id")
            return f"SELECT jsonb_build_object('count', count(DISTINCT session_id)) {rows}"
        case Event():
            rows = query.rows_of(
                "event", f"name = {query.bind(leaf.name, 'text')}", *matching(query, leaf), only="profile_id"
            )
            return f"SELECT jsonb_build_object({', '.join(parts_of(query, leaf))}) {rows}"
        case _:
            assert_never(leaf)


def parts_of(query: Query, event: Event) -> list[str]:
    """Keys and values: the number of matching events, and what else the leaf compares."""
    parts = ["'count'", "count(*)"]
    for total in event.totals:
        number = Member(query, "properties", total.property).number
        parts += [f"'{total.aggregate.value}'", f"{total.aggregate.value}({number})"]
    if event.first is not None:
        parts += ["'first'", "min(occurred_at)"]
    if event.last is not None:
        parts += ["'last'", "max(occurred_at)"]
    return parts
