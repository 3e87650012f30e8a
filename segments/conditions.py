"""Conditions as JSON: read strictly, written canonically, said in one sentence.

The JSON is what `segment.definition` holds and what the API's SegmentConditionInput looks like, e.g.
    {"all": [{"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}},
             {"event": {"name": "purchase", "count": {"operator": "GREATER_OR_EQUAL", "value": 3},
                        "sum": {"property": "value", "operator": "GREATER_OR_EQUAL", "value": 100},
                        "within": {"days": 180},
                        "where": [{"property": "channel", "operator": "EQUALS", "value": "web"}]}},
             {"not": {"lastSeen": {"before": {"weeks": 2}}}}]}
docs/conditions.md shows every leaf.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from segments.canonical import to_json
from segments.json_values import Path, list_of, object_of, refusal
from segments.leaf_readers import LEAF_READERS
from segments.limits import WIDEST, Limits
from segments.nodes import All, AnyOf, Condition, MatchMode, Not
from segments.summary import summary

__all__ = ["parse", "parse_simple", "read", "summary", "to_json"]

MOST_SIMPLE = 10
KINDS = f"Use one of all, any, not, {', '.join(LEAF_READERS)}."


def parse(json: object, *, field: Path = (), limits: Limits | None = None) -> Condition:
    """The condition that `json` describes, within `limits`.

    Strict: an unknown key, a null, a second key beside `all` or an operator that does not fit its value is refused.
    Raises SegmentError; its field is the path from `field` to the place, e.g. ("definition", "all", "1", "event",
    "count", "value").
    """
    return Reader(limits or Limits()).condition(json, field, level=1)


def read(stored: object) -> Condition:
    """The condition of a definition that was stored, whatever the limits were then."""
    return parse(stored, field=("definition",), limits=WIDEST)


def parse_simple(match: MatchMode, items: object, *, field: Path = (), limits: Limits | None = None) -> Condition:
    """The condition of the simple builder: at most 10 leaves, or `not` of leaves, under one ALL or ANY.

    Raises SegmentError like `parse`, and TOO_MANY_CONDITIONS or NOT_SIMPLE; `items` stands at `field`.
    """
    if isinstance(items, Sequence) and len(items) > MOST_SIMPLE:
        message = (
            f"A simple segment has at most {MOST_SIMPLE} conditions, these are {len(items)}; remove some, or give a "
            "nested definition."
        )
        raise refusal("TOO_MANY_CONDITIONS", message, (*field, str(MOST_SIMPLE)))
    reader = Reader(limits or Limits())
    read_items = []
    for place, item in enumerate(list_of(items, field, most=MOST_SIMPLE)):
        one = reader.condition(item, (*field, str(place)), level=2)
        if isinstance(one.item if isinstance(one, Not) else one, All | AnyOf | Not):
            message = (
                "A simple segment has conditions, or not of one, side by side; for groups give a nested definition."
            )
            raise refusal("NOT_SIMPLE", message, (*field, str(place)))
        read_items.append(one)
    return All(tuple(read_items)) if match is MatchMode.ALL else AnyOf(tuple(read_items))


@dataclass(slots=True)
class Reader:
    """Reads one definition, counting its leaves."""

    limits: Limits
    seen: int = field(default=0, init=False)

    def condition(self, json: object, path: Path, *, level: int) -> Condition:
        if level > self.limits.depth:
            message = f"Conditions are nested more than {self.limits.depth} deep; flatten them."
            raise refusal("TOO_DEEP", message, path)
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
                    for place, item in enumerate(list_of(inner, at, most=self.limits.leaves))
                )
                return All(items) if kind == "all" else AnyOf(items)
            case "not":
                return Not(self.condition(inner, at, level=level + 1))
        read_leaf = LEAF_READERS.get(kind)
        if read_leaf is None:
            raise refusal("UNKNOWN_CONDITION", f"There is no condition {kind!r}. {KINDS}", at)
        self.seen += 1
        if self.seen > self.limits.leaves:
            raise refusal("TOO_MANY_CONDITIONS", f"More than {self.limits.leaves} conditions; use fewer.", path)
        return read_leaf(inner, at)
