"""Conditions as JSON: read strictly, written canonically, said in one sentence.

The JSON is what `segment.definition` holds and what the API's SegmentConditionInput looks like, e.g.
    {"all": [{"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}},
             {"event": {"name": "purchase", "count": {"operator": "GREATER_OR_EQUAL", "value": 3},
                        "sum": {"property": "value", "operator": "GREATER_OR_EQUAL", "value": 100},
                        "within": {"days": 180},
                        "where": [{"property": "channel", "operator": "EQUALS", "value": "web"}]}},
             {"not": {"lastSeen": {"before": {"weeks": 2}}}}]}
Other leaves: {"event": {"name": "login", "never": true}}, {"firstSeen": ...}, {"identified": true}.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from math import isfinite

from profiles.text import check_storable
from segments.errors import SegmentError, clean
from segments.nodes import (
    All,
    Amount,
    AnyOf,
    Condition,
    Event,
    Identified,
    Json,
    Leaf,
    Not,
    Number,
    Operator,
    PropertyTest,
    Scalar,
    Seen,
    Side,
    Sight,
    Total,
    Trait,
    Unit,
    Value,
    Window,
    to_json,
)
from segments.summary import summary

__all__ = [
    "DEPTH", "LEAVES", "All", "Amount", "AnyOf", "Condition", "Event", "Identified", "Json", "Leaf", "Not", "Operator",
    "PropertyTest", "Seen", "Side", "Sight", "Total", "Trait", "Unit", "Window", "parse", "summary", "to_json",
]  # fmt: skip

DEPTH = 8
LEAVES = 100
MOST_TESTS = 10
MOST_LISTED = 1000
MOST_KEY_CHARACTERS = 200
MOST_TEXT_CHARACTERS = 1000
LONGEST_WINDOW = timedelta(days=3660)
"""Events older than ten years are refused when they come in."""
MOST_INTEGER = 2**63 - 1

ANY_SCALAR = frozenset({Operator.EQUALS, Operator.NOT_EQUALS})
NUMERIC = ANY_SCALAR | {
    Operator.GREATER_THAN, Operator.GREATER_OR_EQUAL, Operator.LESS_THAN, Operator.LESS_OR_EQUAL,
}  # fmt: skip
TEXTUAL = ANY_SCALAR | {Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH}
LISTED = frozenset({Operator.IN, Operator.NOT_IN})
BARE = frozenset({Operator.EXISTS, Operator.MISSING})

Path = tuple[str, ...]


def parse(json: object, *, field: Path = (), depth: int = DEPTH, leaves: int = LEAVES) -> Condition:
    """The condition that `json` describes; at most `depth` levels and `leaves` leaves.

    Strict: an unknown key, a null, a second key beside `all` or an operator that does not fit its value is refused.
    Raises SegmentError; its field is the path from `field` to the place, e.g. ("definition", "all", "1", "event",
    "count", "value").
    """
    return Reader(depth=depth, leaves=leaves).condition(json, field, level=1)


@dataclass(slots=True)
class Reader:
    """Reads one definition, counting its leaves."""

    depth: int
    leaves: int
    seen: int = field(default=0, init=False)

    def condition(self, json: object, path: Path, *, level: int) -> Condition:
        if level > self.depth:
            raise refusal("TOO_DEEP", f"Conditions are nested more than {self.depth} deep; flatten them.", path)
        node = object_of(json, path)
        if len(node) != 1:
            named = ", ".join(sorted(node)) or "nothing"
            raise refusal("INVALID_CONDITION", f"A condition has exactly one key, this one has {named}. {KINDS}", path)
        ((kind, inner),) = node.items()
        at = (*path, kind)
        match kind:
            case "all" | "any":
                items = tuple(
                    self.condition(item, (*at, str(place)), level=level + 1)
                    for place, item in enumerate(list_of(inner, at, most=self.leaves))
                )
                return All(items) if kind == "all" else AnyOf(items)
            case "not":
                return Not(self.condition(inner, at, level=level + 1))
        read = LEAF_READERS.get(kind)
        if read is None:
            raise refusal("UNKNOWN_CONDITION", f"There is no condition {kind!r}. {KINDS}", at)
        self.seen += 1
        if self.seen > self.leaves:
            raise refusal("TOO_MANY_CONDITIONS", f"More than {self.leaves} conditions; use fewer.", path)
        return read(inner, at)


# --- leaves -------------------------------------------------------------------------------------------------------


def trait(json: object, path: Path) -> Trait:
    node = keys_of(json, path, required={"key", "operator"}, optional={"value"})
    operator, value = comparison(node, path)
    return Trait(text_of(node["key"], (*path, "key"), most=MOST_KEY_CHARACTERS), operator, value)


def event(json: object, path: Path) -> Event:
    optional = {"count", "sum", "within", "before", "where", "never"}
    node = keys_of(json, path, required={"name"}, optional=optional)
    never = "never" in node and flag_of(node["never"], (*path, "never"))
    for other in ("count", "sum"):
        if never and other in node:
            message = f"An event that was never performed has no {other}; leave one of the two out."
            raise refusal("INVALID_CONDITION", message, (*path, other))
    if "within" in node and "before" in node:
        message = "An event has one window, within or before; for both use two conditions under all."
        raise refusal("INVALID_CONDITION", message, (*path, "before"))
    tests = list_of(node["where"], (*path, "where"), most=MOST_TESTS) if "where" in node else []
    return Event(
        name=text_of(node["name"], (*path, "name"), most=MOST_KEY_CHARACTERS),
        count=count(node["count"], (*path, "count")) if "count" in node else None,
        total=total(node["sum"], (*path, "sum")) if "sum" in node else None,
        window=window(node, path) if "within" in node or "before" in node else None,
        where=tuple(property_test(test, (*path, "where", str(place))) for place, test in enumerate(tests)),
        never=never,
    )


def seen(sight: Sight) -> Callable[[object, Path], Seen]:
    def read(json: object, path: Path) -> Seen:
        node = keys_of(json, path, required=set(), optional={"within", "before"})
        if len(node) != 1:
            raise refusal("INVALID_CONDITION", f"{sight.value} needs either within or before, not both.", path)
        return Seen(sight, window(node, path))

    return read


def identified(json: object, path: Path) -> Identified:
    return Identified(flag_of(json, path))


LEAF_READERS: dict[str, Callable[[object, Path], Leaf]] = {
    "trait": trait,
    "event": event,
    "lastSeen": seen(Sight.LAST),
    "firstSeen": seen(Sight.FIRST),
    "identified": identified,
}
KINDS = f"Use one of all, any, not, {', '.join(LEAF_READERS)}."


# --- parts of leaves ----------------------------------------------------------------------------------------------


def count(json: object, path: Path) -> Amount:
    node = keys_of(json, path, required={"operator", "value"})
    value = number_of(node["value"], (*path, "value"))
    if isinstance(value, float) or value < 0:
        raise refusal("INVALID_VALUE", "A count is compared with a whole number from 0 up.", (*path, "value"))
    return Amount(amount_operator(node["operator"], path), value)


def total(json: object, path: Path) -> Total:
    node = keys_of(json, path, required={"property", "operator", "value"})
    name = text_of(node["property"], (*path, "property"), most=MOST_KEY_CHARACTERS)
    value = number_of(node["value"], (*path, "value"))
    return Total(name, Amount(amount_operator(node["operator"], path), value))


def amount_operator(json: object, path: Path) -> Operator:
    operator = operator_of(json, (*path, "operator"))
    if operator not in NUMERIC:
        message = f"{operator} does not fit a number; use one of {', '.join(sorted(NUMERIC))}."
        raise refusal("WRONG_OPERATOR", message, (*path, "operator"))
    return operator


def property_test(json: object, path: Path) -> PropertyTest:
    node = keys_of(json, path, required={"property", "operator"}, optional={"value"})
    operator, value = comparison(node, path)
    return PropertyTest(text_of(node["property"], (*path, "property"), most=MOST_KEY_CHARACTERS), operator, value)


def window(node: dict[str, object], path: Path) -> Window:
    """The window of a node that has `within` or `before`."""
    side = Side.WITHIN if "within" in node else Side.BEFORE
    at = (*path, side.value)
    spans = object_of(node[side.value], at)
    if len(spans) != 1 or not spans.keys() <= set(Unit):
        message = f'A window is one of {", ".join(Unit)} and how many, such as {{"days": 30}}.'
        raise refusal("INVALID_WINDOW", message, at)
    ((unit, amount),) = spans.items()
    value = number_of(amount, (*at, unit))
    if isinstance(value, float) or value < 1 or value > LONGEST_WINDOW / timedelta(**{unit: 1}):
        message = f"A window is a whole number from 1 up, and at most {LONGEST_WINDOW.days} days long."
        raise refusal("INVALID_WINDOW", message, (*at, unit))
    return Window(side, value, Unit(unit))


def comparison(node: dict[str, object], path: Path) -> tuple[Operator, Value]:
    """Operator and value of a node, once they fit each other."""
    operator = operator_of(node["operator"], (*path, "operator"))
    at = (*path, "value")
    if operator in BARE:
        if "value" in node:
            raise refusal("INVALID_VALUE", f"{operator} takes no value; leave it out.", at)
        return operator, None
    if "value" not in node:
        raise refusal("MISSING_VALUE", f"{operator} needs a value to compare with.", at)
    if operator in LISTED:
        return operator, listed(node["value"], at, operator=operator)
    if operator is Operator.BETWEEN:
        return operator, bounds(node["value"], at)
    value = scalar_of(node["value"], at)
    kind, fitting = KIND_OF[type(value)]
    if operator not in fitting:
        message = f"{operator} does not fit {kind}; use one of {', '.join(sorted(fitting))}, or another value."
        raise refusal("WRONG_OPERATOR", message, (*path, "operator"))
    if value == "" and operator not in ANY_SCALAR:
        raise refusal("INVALID_VALUE", f"{operator} needs at least one character, or it would be true of all.", at)
    return operator, value


KIND_OF: dict[type, tuple[str, frozenset[Operator]]] = {
    str: ("a text", TEXTUAL),
    int: ("a number", NUMERIC),
    float: ("a number", NUMERIC),
    bool: ("true or false", ANY_SCALAR),
}


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


# --- JSON values --------------------------------------------------------------------------------------------------


def refusal(code: str, message: str, path: Path) -> SegmentError:
    return SegmentError(code, message, field=path)


def object_of(json: object, path: Path) -> dict[str, object]:
    if not isinstance(json, dict) or not all(isinstance(name, str) for name in json):
        raise refusal("INVALID_CONDITION", f"Expected an object with named parts, not {kind_of(json)}.", path)
    return json


def keys_of(
    json: object, path: Path, *, required: AbstractSet[str], optional: AbstractSet[str] = frozenset()
) -> dict[str, object]:
    """An object that has all `required` keys and no other than these and the `optional` ones."""
    node = object_of(json, path)
    known = required | optional
    for name in node.keys() - known:
        message = f"There is no {name!r} here; known are {', '.join(sorted(known))}."
        raise refusal("UNKNOWN_KEY", message, (*path, name))
    for name in sorted(required - node.keys()):
        raise refusal("MISSING_VALUE", f"{name} is missing; give it.", (*path, name))
    return node


def list_of(json: object, path: Path, *, most: int) -> list[object]:
    if not isinstance(json, list) or not 1 <= len(json) <= most:
        raise refusal("INVALID_VALUE", f"Expected a list of 1 to {most} items, not {kind_of(json)}.", path)
    return json


def operator_of(json: object, path: Path) -> Operator:
    if not isinstance(json, str) or json not in set(Operator):
        raise refusal("WRONG_OPERATOR", f"There is no such operator; use one of {', '.join(Operator)}.", path)
    return Operator(json)


def text_of(json: object, path: Path, *, most: int) -> str:
    if not isinstance(json, str) or not 1 <= len(json) <= most:
        raise refusal("INVALID_VALUE", f"Expected a text of 1 to {most} characters, not {kind_of(json)}.", path)
    return storable(json, path)


def storable(text: str, path: Path) -> str:
    clean(check_storable, text, field=path)
    return text


def flag_of(json: object, path: Path) -> bool:
    if not isinstance(json, bool):
        raise refusal("INVALID_VALUE", f"Expected true or false, not {kind_of(json)}.", path)
    return json


def number_of(json: object, path: Path) -> Number:
    value = scalar_of(json, path)
    if isinstance(value, bool | str):
        raise refusal("INVALID_VALUE", f"Expected a number, not {kind_of(json)}.", path)
    return value


def scalar_of(json: object, path: Path) -> Scalar:
    """A text, a number or a boolean that PostgreSQL can hold in JSON."""
    if isinstance(json, str):
        if len(json) > MOST_TEXT_CHARACTERS:
            raise refusal("INVALID_VALUE", f"Texts have at most {MOST_TEXT_CHARACTERS} characters here.", path)
        return storable(json, path)
    if isinstance(json, bool):
        return json
    if isinstance(json, int) and abs(json) <= MOST_INTEGER:
        return json
    if isinstance(json, float) and isfinite(json):
        return json
    raise refusal("INVALID_VALUE", f"Expected a text, a number of 64 bits or a boolean, not {kind_of(json)}.", path)


def kind_of(json: object) -> str:
    """What a JSON value is, for messages; values themselves are not repeated."""
    match json:
        case None:
            return "null (leave it out instead)"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case "":
            return "an empty text"
        case str():
            return f"a text of {len(json)} characters"
        case list():
            return f"a list of {len(json)}"
        case dict():
            return "an object"
        case _:
            return type(json).__name__
