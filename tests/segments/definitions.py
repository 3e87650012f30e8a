"""Definitions as JSON: any valid one for property tests, and those that docs/conditions.md shows."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from hypothesis import strategies as st

from segments.nodes import Aggregate, AttributeName, ContextField, Did, Operator, ScoreOf, Unit

Json = dict[str, Any]

GUIDE = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text(encoding="utf-8")
SHOWN: list[Json] = [orjson.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", GUIDE, re.M | re.S)]
"""The definitions of the guide, with ids as clients know them."""

COMPARING = [
    Operator.EQUALS, Operator.NOT_EQUALS, Operator.GREATER_THAN, Operator.GREATER_OR_EQUAL, Operator.LESS_THAN,
    Operator.LESS_OR_EQUAL,
]  # fmt: skip
PARTS = [Operator.CONTAINS, Operator.NOT_CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH, Operator.MATCHES]

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
numbers = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
instants = st.integers(-(2**31), 2**32).map(lambda second: datetime.fromtimestamp(second, UTC).isoformat())
dates = instants | st.dates().map(lambda day: day.isoformat())
uuids = st.uuids().map(str)


def among(values: Any) -> st.SearchStrategy[str]:
    return st.sampled_from([str(value) for value in values])


def compared(operators: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({"operator": among(operators), "value": values})


def some(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(required, optional=optional)


def leaf(kind: str, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return inner.map(lambda value: {kind: value})


def joined(*parts: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.tuples(*parts).map(lambda given: {name: value for part in given for name, value in part.items()})


durations = st.tuples(among(Unit), st.integers(1, 500)).map(lambda pair: {pair[0]: pair[1]})
ends = st.tuples(instants, instants).filter(lambda two: two[0] < two[1])
times = st.one_of(
    st.fixed_dictionaries({"within": durations}),
    st.fixed_dictionaries({"before": durations}),
    st.fixed_dictionaries({"since": instants}),
    st.fixed_dictionaries({"until": instants}),
    ends.map(lambda two: {"since": two[0], "until": two[1]}),
)
timed: st.SearchStrategy[Json] = st.just({}) | times
patterns = names.filter(lambda text: text.strip("*") != "" and text.count("*") <= 10)

of_texts = st.one_of(
    compared([Operator.EQUALS, Operator.NOT_EQUALS], texts),
    compared(PARTS, patterns),
    compared([Operator.IN, Operator.NOT_IN], st.lists(texts, min_size=1, max_size=5)),
    st.fixed_dictionaries({"operator": among([Operator.EXISTS, Operator.MISSING])}),
)
of_countries = st.one_of(
    compared([Operator.EQUALS, Operator.NOT_EQUALS], st.sampled_from(["DE", "at"])),
    compared([Operator.IN, Operator.NOT_IN], st.lists(st.sampled_from(["DE", "at"]), min_size=1)),
    st.fixed_dictionaries({"operator": among([Operator.EXISTS, Operator.MISSING])}),
)
of_properties = st.one_of(
    of_texts,
    compared(COMPARING, numbers),
    compared([Operator.EQUALS, Operator.NOT_EQUALS], st.booleans()),
    compared([Operator.IN, Operator.NOT_IN], st.lists(numbers, min_size=1, max_size=5)),
    compared([Operator.BETWEEN], st.lists(numbers, min_size=2, max_size=2).map(sorted)),
    compared([Operator.BEFORE, Operator.AFTER], dates),
)
of_traits = of_properties | compared([Operator.WITHIN_LAST, Operator.MORE_THAN_AGO], durations)
counts = compared(COMPARING, st.integers(0, 10**9))
aggregates = joined(st.fixed_dictionaries({"property": names}), compared(COMPARING, numbers))


def on(key: str, members: Any, country: str) -> st.SearchStrategy[Json]:
    """A comparison of one of `members`, named by `key`."""
    others = [member for member in members if member != country]
    return st.one_of(
        joined(st.fixed_dictionaries({key: among(others)}), of_texts),
        joined(st.fixed_dictionaries({key: st.just(country)}), of_countries),
    )


filters = {
    "where": st.lists(joined(st.fixed_dictionaries({"property": names}), of_properties), min_size=1, max_size=3),
    "context": st.lists(on("field", ContextField, "COUNTRY"), min_size=1, max_size=3),
}
measures = {"count": counts, "first": times, "last": times, **{str(kind): aggregates for kind in Aggregate}}
never: dict[str, Any] = {"never": st.just(True)}
paths = compared([Operator.EQUALS, Operator.STARTS_WITH, Operator.MATCHES], patterns)
shares = st.tuples(st.integers(0, 9_999), st.integers(1, 10_000)).filter(lambda two: two[0] < two[1])

LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "trait": joined(st.fixed_dictionaries({"key": names}), of_traits),
    "attribute": on("name", AttributeName, "COUNTRY"),
    "event": joined(
        some({"name": names}, measures | filters) | some({"name": names} | never, filters),
        timed,
    ),
    "page": joined(some({"path": paths}, {"count": counts}) | some({"path": paths} | never, {}), timed),
    "sessions": joined(st.fixed_dictionaries({"count": counts}), timed),
    "lastSeen": times,
    "firstSeen": times,
    "identified": st.booleans(),
    "score": st.one_of(
        some(
            {"of": among(ScoreOf), "codes": st.lists(names, min_size=1, max_size=7)},
            {"atLeast": numbers},
        ),
        some({"of": among(ScoreOf), "atLeast": numbers}, {}),
    ),
    "randomBucket": st.tuples(names, shares).map(
        lambda drawn: {"salt": drawn[0], "from": drawn[1][0] / 100, "to": drawn[1][1] / 100}
    ),
    "inSegment": uuids,
    "campaign": joined(some({"did": among(Did)}, {"campaignId": uuids}), timed),
    "savedQuery": uuids,
}


def nested(inside: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    items = st.lists(inside, min_size=1, max_size=4)
    return leaf("all", items) | leaf("any", items) | leaf("not", inside)


single: st.SearchStrategy[Json] = st.one_of(*(leaf(kind, inner) for kind, inner in LEAVES.items()))
definitions: st.SearchStrategy[Json] = st.recursive(single, nested, max_leaves=8)
