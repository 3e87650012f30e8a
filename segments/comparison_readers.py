"""Comparisons and times in conditions, read from JSON: which operators fit where, and which values fit them."""

from collections.abc import Set as AbstractSet
from datetime import timedelta

from profiles.text import clean_country
from segments.errors import clean
from segments.json_values import (
    MOST_TEXT_CHARACTERS,
    Path,
    instant_of,
    keys_of,
    kind_of,
    list_of,
    number_of,
    refusal,
    scalar_of,
    storable,
)
from segments.nodes import Amount, Number, Operator, Period, Scalar, Side, Span, Time, Unit, Value, Window

MOST_LISTED = 1000
MOST_STARS = 10
"""Of one pattern: every one multiplies what a comparison may cost."""
LONGEST_WINDOW = timedelta(days=3660)
"""Events older than ten years are refused when they come in."""

ANY_SCALAR = frozenset({Operator.EQUALS, Operator.NOT_EQUALS})
NUMERIC = ANY_SCALAR | {
    Operator.GREATER_THAN, Operator.GREATER_OR_EQUAL, Operator.LESS_THAN, Operator.LESS_OR_EQUAL,
}  # fmt: skip
TEXTUAL = ANY_SCALAR | {
    Operator.CONTAINS, Operator.NOT_CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH, Operator.MATCHES,
}  # fmt: skip
LISTED = frozenset({Operator.IN, Operator.NOT_IN})
BARE = frozenset({Operator.EXISTS, Operator.MISSING})
DATED = frozenset({Operator.BEFORE, Operator.AFTER})
SPANNED = frozenset({Operator.WITHIN_LAST, Operator.MORE_THAN_AGO})

OF_TRAITS = frozenset(Operator)
OF_PROPERTIES = OF_TRAITS - SPANNED
OF_TEXTS = TEXTUAL | LISTED | BARE
OF_COUNTRIES = ANY_SCALAR | LISTED | BARE
OF_PATHS = frozenset({Operator.EQUALS, Operator.STARTS_WITH, Operator.MATCHES})

TIMES = frozenset({"within", "before", "since", "until"})


def named(operators: AbstractSet[Operator]) -> str:
    """The operators as messages list them, in the order of their declaration."""
    return ", ".join(operator for operator in Operator if operator in operators)


def operator_of(json: object, path: Path, *, fitting: AbstractSet[Operator], what: str) -> Operator:
    """One of `fitting`; `what` it has to fit is named in the refusal, such as "a number"."""
    if not isinstance(json, str) or json not in set(Operator):
        raise refusal("WRONG_OPERATOR", f"There is no such operator; use one of {named(fitting)}.", path)
    operator = Operator(json)
    if operator not in fitting:
        hint = " For a moving time give the event itself a window: within or before." if operator in SPANNED else ""
        message = f"{operator} does not fit {what}; use one of {named(fitting)}.{hint}"
        raise refusal("WRONG_OPERATOR", message, path)
    return operator


def amount(node: dict[str, object], path: Path) -> Amount:
    """The comparison of a measure, of a node with `operator` and `value`."""
    operator = operator_of(node["operator"], (*path, "operator"), fitting=NUMERIC, what="a number")
    return Amount(operator, number_of(node["value"], (*path, "value")))


def count(json: object, path: Path) -> Amount:
    read = amount(keys_of(json, path, required={"operator", "value"}), path)
    if isinstance(read.value, float) or read.value < 0:
        raise refusal("INVALID_VALUE", "A count is compared with a whole number from 0 up.", (*path, "value"))
    return read


def comparison(node: dict[str, object], path: Path, *, fitting: AbstractSet[Operator], what: str) -> tuple[
    Operator, Value
]:  # fmt: skip
    """Operator and value of a node that may hold any value, once they fit each other."""
    operator = operator_of(node["operator"], (*path, "operator"), fitting=fitting, what=what)
    at = (*path, "value")
    if not has_value(node, operator, at):
        return operator, None
    json = node["value"]
    if operator in LISTED:
        return operator, listed(json, at, operator=operator)
    if operator is Operator.BETWEEN:
        return operator, bounds(json, at)
    if operator in SPANNED:
        return operator, Span(*span(json, at, what="A span"))
    value = scalar_of(json, at)
    kind, of_kind = KIND_OF[type(value)]
    if operator not in of_kind:
        message = f"{operator} does not fit {kind}; use one of {named(of_kind & fitting)}, or another value."
        raise refusal("WRONG_OPERATOR", message, (*path, "operator"))
    if operator in DATED:
        return operator, instant_of(value, at)
    return operator, of_substance(value, operator, at) if isinstance(value, str) else value


KIND_OF: dict[type, tuple[str, frozenset[Operator]]] = {
    str: ("a text", TEXTUAL | DATED),
    int: ("a number", NUMERIC),
    float: ("a number", NUMERIC),
    bool: ("true or false", ANY_SCALAR),
}


def text_comparison(node: dict[str, object], path: Path, *, what: str, country: bool) -> tuple[Operator, Value]:
    """Operator and value of a node that is compared with texts only; with `country`, with codes of countries."""
    fitting = OF_COUNTRIES if country else OF_TEXTS
    operator = operator_of(node["operator"], (*path, "operator"), fitting=fitting, what=what)
    at = (*path, "value")
    if not has_value(node, operator, at):
        return operator, None
    if operator not in LISTED:
        return operator, of_substance(compared(node["value"], at, country=country), operator, at)
    items = list_of(node["value"], at, most=MOST_LISTED)
    return operator, tuple(compared(item, (*at, str(place)), country=country) for place, item in enumerate(items))


def has_value(node: dict[str, object], operator: Operator, path: Path) -> bool:
    """Whether `operator` takes a value, once the node agrees."""
    if operator in BARE:
        if "value" in node:
            raise refusal("INVALID_VALUE", f"{operator} takes no value; leave it out.", path)
        return False
    if "value" not in node:
        raise refusal("MISSING_VALUE", f"{operator} needs a value to compare with.", path)
    return True


def compared(json: object, path: Path, *, country: bool) -> str:
    """A text to compare with; a country's code in capitals."""
    if not isinstance(json, str) or len(json) > MOST_TEXT_CHARACTERS:
        message = f"Expected a text of at most {MOST_TEXT_CHARACTERS} characters, not {kind_of(json)}."
        raise refusal("INVALID_VALUE", message, path)
    return clean(clean_country, json, field=path) if country else storable(json, path)


def of_substance(text: str, operator: Operator, path: Path) -> str:
    """`text`, unless comparing with it by `operator` would be true of every text, or cost too much."""
    if operator in ANY_SCALAR:
        return text
    if not text.strip("*") if operator is Operator.MATCHES else not text:
        message = f"{operator} needs at least one character{' beside *' if operator is Operator.MATCHES else ''}"
        raise refusal("INVALID_VALUE", f"{message}, or it would be true of all; EXISTS asks for any.", path)
    if operator is Operator.MATCHES and text.count("*") > MOST_STARS:
        raise refusal("INVALID_VALUE", f"A pattern has at most {MOST_STARS} times *.", path)
    return text


def listed(json: object, path: Path, *, operator: Operator) -> tuple[Scalar, ...]:
    items = list_of(json, path, most=MOST_LISTED)
    values = tuple(scalar_of(item, (*path, str(place))) for place, item in enumerate(items))
    if len({KIND_OF[type(value)][0] for value in values}) > 1:
        raise refusal("INVALID_VALUE", f"{operator} takes texts or numbers, not both in one list.", path)
    return values


def bounds(json: object, path: Path) -> tuple[Number, Number]:
    items = list_of(json, path, most=2)
    if len(items) != 2:
        raise refusal("INVALID_VALUE", "BETWEEN takes a list of two numbers, the lower one first.", path)
    low, high = (number_of(item, (*path, str(place))) for place, item in enumerate(items))
    if low > high:
        raise refusal("INVALID_VALUE", "The lower number comes first; nothing is between these two.", path)
    return low, high


# --- times --------------------------------------------------------------------------------------------------------


def span(json: object, path: Path, *, what: str) -> tuple[int, Unit]:
    """How many of which unit; `what` it is of is named in refusals, such as "A window"."""
    if not isinstance(json, dict) or len(json) != 1 or not json.keys() <= set(Unit):
        message = f'{what} is one of {", ".join(Unit)} and how many, such as {{"days": 30}}.'
        raise refusal("INVALID_WINDOW", message, path)
    ((unit, number),) = json.items()
    value = number_of(number, (*path, unit))
    if isinstance(value, float) or value < 1 or value > LONGEST_WINDOW / timedelta(**{unit: 1}):
        message = f"{what} is a whole number from 1 up, and at most {LONGEST_WINDOW.days} days long."
        raise refusal("INVALID_WINDOW", message, (*path, unit))
    return value, Unit(unit)


def time(node: dict[str, object], path: Path) -> Time | None:
    """The time that a node gives by within, before, since and until; None when it gives none."""
    given = [name for name in ("within", "before", "since", "until") if name in node]
    if not given:
        return None
    if given[0] in set(Side):
        if len(given) > 1:
            message = f"There is one time, {given[0]} or {given[1]}; for both use two conditions under all."
            raise refusal("INVALID_CONDITION", message, (*path, given[1]))
        side = Side(given[0])
        return Window(side, *span(node[side], (*path, side.value), what="A window"))
    since, until = (instant_of(node[end], (*path, end)) if end in node else None for end in ("since", "until"))
    if since is not None and until is not None and since >= until:
        raise refusal("INVALID_WINDOW", "Nothing is between these two; since comes before until.", (*path, "until"))
    return Period(since, until)


def some_time(json: object, path: Path) -> Time:
    """The time of an object that has nothing else."""
    read = time(keys_of(json, path, required=set(), optional=TIMES), path)
    if read is None:
        message = 'Give a time: within or before a duration, such as {"days": 30}, or since and until an instant.'
        raise refusal("INVALID_CONDITION", message, path)
    return read
