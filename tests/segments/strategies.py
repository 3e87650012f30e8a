"""Any condition and anybody, from a small vocabulary so that the two meet."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from segments.nodes import (
    PAGE_VIEW,
    Aggregate,
    All,
    Amount,
    AnyOf,
    Attribute,
    AttributeName,
    ByEvents,
    BySeen,
    ByTrait,
    Condition,
    ContextField,
    ContextTest,
    EngineLeaf,
    Event,
    Identified,
    Leaf,
    Measure,
    Not,
    Operator,
    Page,
    Period,
    PropertyTest,
    RandomBucket,
    RankBy,
    Scalar,
    Score,
    ScoreOf,
    Seen,
    Sessions,
    Side,
    Sight,
    Span,
    Total,
    Trait,
    Unit,
    Window,
)
from tests.segments.people import Happened, Person

NOW = datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC)
"""When these conditions are asked; a microsecond to either side of an edge is what goes wrong."""
HOURS = (1, 2, 24, 48, 168, 336)
EDGES = tuple(timedelta(hours=hours) for hours in (0, *HOURS))
DATES = (
    "2026-05-01T12:30:15.123456Z", "2026-05-01T12:30:15.123457Z", "2026-04-30T14:30:15.123456+02:00",
    "2026-04-30 12:30:15.123455", "2026-04-24", "2026-04-24T00:00:00Z", "2026-04-23T23:30-00:30", "2026-02-30",
    "0001-01-01T00:00+00:01", "9999-12-31T23:59-00:01", "2026-04-24 ", "tomorrow", "20260424",
)  # fmt: skip
INSTANTS = (
    NOW, datetime(2026, 4, 24, tzinfo=UTC), datetime(2026, 4, 30, 12, 30, 15, 123456, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC),
)  # fmt: skip

KEYS = ("plan", "score", "ключ", "a'b\"c", "icp_code", "icp_score")
TEXTS = ("x", "X", "xy", "yx", "%", "_", "\\", "é", "5", "ß", "a'b", "true", "/a/b", "x\ny")
PATTERNS = ("x*", "*x", "*x*y*", "/a/*", "x", "%*", "*_", "\\*", "*\n*", "?")
NUMBERS = (0, 1, -1, 5, 5.0, 0.1, 0.2, 0.3, 2**53 + 1, -0.5, 1e20)
SCALARS: tuple[Scalar, ...] = (*TEXTS, "", *NUMBERS, True, False)
VALUES: tuple[object, ...] = (*SCALARS, *DATES, None, ["x", "yx"], [], {"x": 1}, ["5"], [["x"]])
"""What traits and properties are in these tests; None is a JSON null."""
NAMES = ("buy", "view", "Buy", PAGE_VIEW)
WORDS = ("mobile", "Mobile", "x", "xy", "DE", "")
"""What texts beside traits are."""

COMPARING = (
    Operator.EQUALS, Operator.NOT_EQUALS, Operator.GREATER_THAN, Operator.GREATER_OR_EQUAL, Operator.LESS_THAN,
    Operator.LESS_OR_EQUAL,
)  # fmt: skip
ON_TEXTS = (Operator.CONTAINS, Operator.NOT_CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH)
LISTED = st.sampled_from((Operator.IN, Operator.NOT_IN))


def some(values: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=1, max_size=most).map(tuple)


def perhaps(values: Sequence[str]) -> st.SearchStrategy[str | None]:
    """One of them, and as often None, in one draw: an example costs as much as it has draws."""
    return st.sampled_from([*[None] * len(values), *values])


# --- conditions ---------------------------------------------------------------------------------------------------

keys = st.sampled_from(KEYS)
numbers = st.sampled_from(NUMBERS)
spans = st.builds(Span, st.sampled_from((1, 2, 24)), st.sampled_from(Unit))
bare = st.tuples(st.sampled_from((Operator.EXISTS, Operator.MISSING)), st.none())
texts = st.one_of(
    st.tuples(st.sampled_from((Operator.EQUALS, Operator.NOT_EQUALS, *ON_TEXTS)), st.sampled_from(TEXTS)),
    st.tuples(st.just(Operator.MATCHES), st.sampled_from(PATTERNS)),
    st.tuples(LISTED, some(st.sampled_from((*TEXTS, "")), 12)),
)
of_properties = st.one_of(
    bare,
    texts,
    st.tuples(st.sampled_from((Operator.EQUALS, Operator.NOT_EQUALS)), st.sampled_from(SCALARS)),
    st.tuples(st.sampled_from(COMPARING), numbers),
    st.tuples(LISTED, st.one_of(some(numbers, 12), some(st.booleans(), 2))),
    st.tuples(st.just(Operator.BETWEEN), st.tuples(numbers, numbers).map(lambda two: tuple(sorted(two)))),
    st.tuples(st.sampled_from((Operator.BEFORE, Operator.AFTER)), st.sampled_from(INSTANTS)),
)
of_traits = st.one_of(of_properties, st.tuples(st.sampled_from((Operator.WITHIN_LAST, Operator.MORE_THAN_AGO)), spans))
of_words = st.one_of(
    bare,
    st.tuples(st.sampled_from((Operator.EQUALS, Operator.NOT_EQUALS, *ON_TEXTS)), st.sampled_from(WORDS)),
    st.tuples(st.just(Operator.MATCHES), st.sampled_from(PATTERNS)),
    st.tuples(LISTED, some(st.sampled_from(WORDS), 4)),
)
# One edge of each example comes up again and again, so that times meet it; by chance hardly any did: no one of 300
# examples told "before" from "before or at".
the_hours = st.shared(st.sampled_from(HOURS), key="hours")
edges = st.one_of(the_hours.map(lambda hours: timedelta(hours=hours)), st.sampled_from(EDGES))
windows = st.one_of(
    st.builds(Window, st.sampled_from(Side), the_hours, st.just(Unit.HOURS)),
    st.builds(Window, st.sampled_from(Side), st.sampled_from(HOURS), st.just(Unit.HOURS)),
    st.builds(Window, st.sampled_from(Side), st.sampled_from((1, 2)), st.sampled_from((Unit.DAYS, Unit.WEEKS))),
)
instants = edges.map(lambda edge: NOW - edge)
periods = st.tuples(st.none() | instants, st.none() | instants).filter(any).map(lambda ends: Period(*ends))
times = st.one_of(windows, windows, periods)
counts = st.builds(Amount, st.sampled_from(COMPARING), st.integers(0, 4))
amounts = st.builds(Amount, st.sampled_from(COMPARING), numbers)
totals = st.lists(
    st.builds(Total, st.sampled_from(Aggregate), keys, amounts), max_size=2, unique_by=lambda total: total.aggregate
).map(tuple)
tests = st.builds(lambda key, pair: PropertyTest(key, *pair), keys, of_properties)
contexts = st.builds(lambda field, pair: ContextTest(field, *pair), st.sampled_from(ContextField), of_words)
filters: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(NAMES),
    "window": st.none() | times,
    "where": st.lists(tests, max_size=2).map(tuple),
    "context": st.lists(contexts, max_size=1).map(tuple),
}
events = st.builds(
    Event,
    **filters,
    count=st.none() | counts,
    totals=totals,
    first=st.none() | st.none() | times,
    last=st.none() | st.none() | times,
)
sessions = st.builds(Sessions, counts, st.none() | times)
buckets = st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)).map(sorted).filter(lambda ends: ends[0] < ends[1])
rows = st.one_of(
    st.builds(lambda key, pair: Trait(key, *pair), keys, of_traits),
    st.builds(lambda key, pair: Trait(key, *pair), keys, of_traits),
    st.builds(lambda name, pair: Attribute(name, *pair), st.sampled_from(AttributeName), of_words),
    st.builds(Seen, st.sampled_from(Sight), times),
    st.builds(Identified, st.booleans()),
    st.builds(lambda salt, ends: RandomBucket(salt, *ends), st.sampled_from(("", "a", "ß")), buckets),
)
engine_leaves: st.SearchStrategy[EngineLeaf] = st.one_of(events, rows, sessions)
leaves: st.SearchStrategy[Leaf] = st.one_of(
    events,
    rows,
    sessions,
    st.builds(Event, **filters, never=st.just(True)),
    st.builds(
        Page,
        st.sampled_from((Operator.EQUALS, Operator.STARTS_WITH, Operator.MATCHES)),
        st.sampled_from((*WORDS, "x*")),
        st.none() | counts,
        st.none() | times,
    ),
    st.builds(Score, st.just(ScoreOf.ICP), some(st.sampled_from(TEXTS), 3), st.none() | numbers),
)


def nested(inside: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    items = st.lists(inside, min_size=1, max_size=4).map(tuple)
    return st.one_of(st.builds(All, items), st.builds(AnyOf, items), st.builds(Not, inside))


conditions: st.SearchStrategy[Condition] = st.recursive(leaves, nested, max_leaves=6)
rankings: st.SearchStrategy[RankBy] = st.one_of(
    st.builds(ByTrait, keys),
    st.builds(BySeen, st.sampled_from(Sight)),
    st.builds(ByEvents, st.sampled_from(NAMES), st.sampled_from(Measure), keys, st.none() | times),
)

# --- people -------------------------------------------------------------------------------------------------------

moments = st.one_of(
    st.builds(lambda edge, beside: NOW - edge + timedelta(microseconds=beside), edges, st.integers(-1, 1)),
    st.integers(-60, 60 * 24 * 20).map(lambda minutes: NOW - timedelta(minutes=minutes)),
)
members = st.dictionaries(keys, st.sampled_from(VALUES), max_size=3)
words = perhaps(WORDS)
happenings = st.builds(
    Happened,
    st.sampled_from(NAMES),
    moments,
    members,
    page_path=words,
    device_type=words,
    country=words,
    session_id=perhaps(("s1", "s2", "")),
    received_at=st.none() | moments,
)
people = st.builds(
    Person,
    traits=members,
    identified=st.booleans(),
    first_seen_at=st.none() | moments,
    last_seen_at=st.none() | moments,
    events=st.lists(happenings, max_size=5),
    email=words,
    country=words,
    seen_country=words,
    city=words,
    seen_city=words,
    seen_browser=words,
)
changes = st.builds(
    Person,
    traits=st.dictionaries(keys, st.sampled_from([one for one in VALUES if one not in DATES]), max_size=3),
    events=st.lists(happenings, max_size=3),
)
"""What people are changed to: not into other dates, and never into other sights."""
