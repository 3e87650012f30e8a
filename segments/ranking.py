"""Rankings as JSON: read strictly, written canonically, said in one sentence.

{"by": {"trait": "lifetime_value"}, "direction": "DESC", "top": 1000}
{"by": {"events": {"name": "purchase", "measure": "SUM", "property": "value", "within": {"days": 90}}},
 "direction": "DESC"}
{"by": {"lastSeen": true}, "direction": "ASC"}
"""

from typing import assert_never

from segments import comparison_readers as comparing
from segments.canonical import time_json
from segments.comparison_readers import TIMES
from segments.json_values import Path, flag_of, keys_of, object_of, refusal
from segments.leaf_readers import named
from segments.nodes import (
    ByEvents,
    BySeen,
    ByTrait,
    Direction,
    Json,
    Measure,
    RankBy,
    Ranking,
    Sight,
)
from segments.summary import during, spaced

__all__ = ["MOST_TOP", "parse", "summary", "to_json"]

MOST_TOP = 2**31 - 1
KINDS = "Use one of trait, events, lastSeen, firstSeen."


def parse(json: object, *, field: Path = ()) -> Ranking:
    """The ranking that `json` describes; DESC, and of all, unless it says otherwise. Raises SegmentError."""
    node = keys_of(json, field, required={"by"}, optional={"direction", "top"})
    direction = node.get("direction", Direction.DESC)
    if direction not in list(Direction):
        raise refusal("INVALID_VALUE", f"A direction is {' or '.join(Direction)}.", (*field, "direction"))
    top = node.get("top")
    if "top" in node and (not isinstance(top, int) or isinstance(top, bool) or not 1 <= top <= MOST_TOP):
        raise refusal("INVALID_VALUE", "top is a whole number from 1 up; leave it out for all.", (*field, "top"))
    assert top is None or isinstance(top, int)
    return Ranking(ranked_by(node["by"], (*field, "by")), Direction(str(direction)), top)


def ranked_by(json: object, path: Path) -> RankBy:
    node = object_of(json, path)
    if len(node) != 1:
        raise refusal("INVALID_CONDITION", f"A ranking is by exactly one thing. {KINDS}", path)
    ((kind, inner),) = node.items()
    at = (*path, kind)
    match kind:
        case "trait":
            return ByTrait(named(inner, at))
        case "events":
            return by_events(inner, at)
        case Sight.LAST | Sight.FIRST:
            if not flag_of(inner, at):
                raise refusal("INVALID_VALUE", "Give true, or rank by something else.", at)
            return BySeen(Sight(kind))
        case _:
            raise refusal("UNKNOWN_CONDITION", f"There is no ranking by {kind!r}. {KINDS}", at)


def by_events(json: object, path: Path) -> ByEvents:
    node = keys_of(json, path, required={"name", "measure"}, optional={"property", *TIMES})
    if node["measure"] not in list(Measure):
        message = f"There is no such measure; use one of {', '.join(Measure)}."
        raise refusal("INVALID_VALUE", message, (*path, "measure"))
    measure = Measure(str(node["measure"]))
    if measure is Measure.COUNT and "property" in node:
        raise refusal("INVALID_VALUE", "COUNT is of events; leave the property out.", (*path, "property"))
    if measure is not Measure.COUNT and "property" not in node:
        raise refusal("MISSING_VALUE", f"property is missing; say which one {measure} is of.", (*path, "property"))
    return ByEvents(
        name=named(node["name"], (*path, "name")),
        measure=measure,
        property=named(node["property"], (*path, "property")) if "property" in node else None,
        window=comparing.time(node, path),
    )


def to_json(ranking: Ranking) -> dict[str, Json]:
    """The canonical JSON form of `ranking`: what is stored, and what `parse` reads back as the same."""
    top: dict[str, Json] = {} if ranking.top is None else {"top": ranking.top}
    return {"by": by_json(ranking.by), "direction": ranking.direction.value, **top}


def by_json(by: RankBy) -> dict[str, Json]:
    match by:
        case ByTrait(key):
            return {"trait": key}
        case ByEvents(name, measure, property, window):
            of: dict[str, Json] = {} if property is None else {"property": property}
            return {"events": {"name": name, "measure": measure.value, **of, **time_json(window)}}
        case BySeen(sight):
            return {sight.value: True}
        case _:
            assert_never(by)


def summary(ranking: Ranking) -> str:
    """E.g. "The top 100 by the highest total value over purchase in the last 90 days."."""
    count = "Ranked" if ranking.top is None else f"The top {ranking.top}"
    return f"{count} by {ordered(ranking.by, ranking.direction)}."


def ordered(by: RankBy, direction: Direction) -> str:
    superlative = "highest" if direction is Direction.DESC else "lowest"
    match by:
        case ByTrait(key):
            return f"the {superlative} trait {key}"
        case ByEvents(name, Measure.COUNT, _, window):
            often = "most" if direction is Direction.DESC else "least"
            return spaced(f"the {often} often performed {name}", during(window))
        case ByEvents(name, measure, property, window):
            return spaced(f"the {superlative} {MEASURES[measure]} {property} over {name}", during(window))
        case BySeen(sight):
            seen = "last seen" if sight is Sight.LAST else "first seen"
            return f"who was {seen} {'most recently' if direction is Direction.DESC else 'longest ago'}"
        case _:
            assert_never(by)


MEASURES = {Measure.SUM: "total", Measure.AVG: "average", Measure.MIN: "minimum", Measure.MAX: "maximum"}
