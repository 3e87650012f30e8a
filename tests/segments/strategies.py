"""Any condition, from a small vocabulary so that conditions and people meet."""

from hypothesis import strategies as st

from segments.nodes import (
    All,
    Amount,
    AnyOf,
    Condition,
    Event,
    Identified,
    Leaf,
    Not,
    Operator,
    PropertyTest,
    Scalar,
    Seen,
    Side,
    Sight,
    Total,
    Trait,
    Unit,
    Window,
)

KEYS = ("plan", "score", "ключ", "a'b\"c")
TEXTS = ("x", "X", "xy", "yx", "%", "_", "\\", "é", "5", "ß", "a'b", "true")
NUMBERS = (0, 1, -1, 5, 5.0, 0.1, 0.2, 0.3, 2**53 + 1, -0.5, 1e20)
SCALARS: tuple[Scalar, ...] = (*TEXTS, "", *NUMBERS, True, False)
VALUES: tuple[object, ...] = (*SCALARS, None, ["x", "yx"], [], {"x": 1}, ["5"])
"""What traits and properties are in these tests; None is a JSON null."""
NAMES = ("buy", "view", "Buy")

COMPARING = (
    Operator.EQUALS, Operator.NOT_EQUALS, Operator.GREATER_THAN, Operator.GREATER_OR_EQUAL, Operator.LESS_THAN,
    Operator.LESS_OR_EQUAL,
)  # fmt: skip

keys = st.sampled_from(KEYS)
numbers = st.sampled_from(NUMBERS)
comparisons = st.one_of(
    st.tuples(st.sampled_from((Operator.EXISTS, Operator.MISSING)), st.none()),
    st.tuples(st.sampled_from((Operator.EQUALS, Operator.NOT_EQUALS)), st.sampled_from(SCALARS)),
    st.tuples(st.sampled_from(COMPARING), numbers),
    st.tuples(st.sampled_from((Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH)), st.sampled_from(TEXTS)),
    st.tuples(
        st.sampled_from((Operator.IN, Operator.NOT_IN)),
        st.one_of(
            st.lists(st.sampled_from((*TEXTS, "")), min_size=1, max_size=12).map(tuple),
            st.lists(numbers, min_size=1, max_size=12).map(tuple),
            st.lists(st.booleans(), min_size=1, max_size=2).map(tuple),
        ),
    ),
    st.tuples(st.just(Operator.BETWEEN), st.tuples(numbers, numbers).map(lambda two: tuple(sorted(two)))),
)
windows = st.builds(
    Window,
    st.sampled_from(Side),
    st.sampled_from((1, 2, 3, 24, 48)),
    st.sampled_from((Unit.HOURS, Unit.DAYS, Unit.WEEKS)),
)
traits = st.builds(lambda key, pair: Trait(key, *pair), keys, comparisons)
tests = st.builds(lambda key, pair: PropertyTest(key, *pair), keys, comparisons)
counts = st.builds(Amount, st.sampled_from(COMPARING), st.integers(0, 4))
totals = st.builds(Total, keys, st.builds(Amount, st.sampled_from(COMPARING), numbers))
events = st.one_of(
    st.builds(
        Event,
        name=st.sampled_from(NAMES),
        count=st.none() | counts,
        total=st.none() | totals,
        window=st.none() | windows,
        where=st.lists(tests, max_size=2).map(tuple),
        never=st.just(False),
    ),
    st.builds(
        Event,
        name=st.sampled_from(NAMES),
        window=st.none() | windows,
        where=st.lists(tests, max_size=1).map(tuple),
        never=st.just(True),
    ),
)
leaves: st.SearchStrategy[Leaf] = st.one_of(
    traits, events, st.builds(Seen, st.sampled_from(Sight), windows), st.builds(Identified, st.booleans())
)


def nested(inside: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    some = st.lists(inside, min_size=1, max_size=4).map(tuple)
    return st.one_of(st.builds(All, some), st.builds(AnyOf, some), st.builds(Not, inside))


conditions: st.SearchStrategy[Condition] = st.recursive(leaves, nested, max_leaves=8)
