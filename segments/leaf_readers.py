"""The leaves of conditions, read from JSON. docs/conditions.md shows each."""

from collections.abc import Callable
from decimal import Decimal

from segments import comparison_readers as comparing
from segments.comparison_readers import TIMES
from segments.json_values import (
    MOST_TEXT_CHARACTERS,
    Path,
    flag_of,
    keys_of,
    list_of,
    number_of,
    refusal,
    text_of,
    uuid_of,
)
from segments.nodes import (
    Aggregate,
    Attribute,
    AttributeName,
    ContextField,
    ContextTest,
    Did,
    Engagement,
    Event,
    Identified,
    InSegment,
    Leaf,
    Page,
    PropertyTest,
    RandomBucket,
    SavedSql,
    Score,
    ScoreOf,
    Seen,
    Sessions,
    Sight,
    Total,
    Trait,
)

MOST_TESTS = 10
MOST_CODES = 100
MOST_KEY_CHARACTERS = 200


def named(json: object, path: Path) -> str:
    """A name of a trait, an event, a property or a salt."""
    return text_of(json, path, most=MOST_KEY_CHARACTERS)


def trait(json: object, path: Path) -> Trait:
    node = keys_of(json, path, required={"key", "operator"}, optional={"value"})
    operator, value = comparing.comparison(node, path, fitting=comparing.OF_TRAITS, what="a trait")
    return Trait(named(node["key"], (*path, "key")), operator, value)


def attribute(json: object, path: Path) -> Attribute:
    node = keys_of(json, path, required={"name", "operator"}, optional={"value"})
    if node["name"] not in list(AttributeName):
        message = f"There is no such attribute; use one of {', '.join(AttributeName)}."
        raise refusal("INVALID_VALUE", message, (*path, "name"))
    name = AttributeName(str(node["name"]))
    country = name is AttributeName.COUNTRY
    operator, value = comparing.text_comparison(node, path, what=name.value, country=country)
    return Attribute(name, operator, value)


def event(json: object, path: Path) -> Event:
    measures = ("count", *Aggregate, "first", "last")
    node = keys_of(json, path, required={"name"}, optional={"never", "where", "context", *measures, *TIMES})
    tests = list_of(node["where"], (*path, "where"), most=MOST_TESTS) if "where" in node else []
    contexts = list_of(node["context"], (*path, "context"), most=MOST_TESTS) if "context" in node else []
    return Event(
        name=named(node["name"], (*path, "name")),
        never=never(node, path, measures, what="An event that was never performed"),
        count=comparing.count(node["count"], (*path, "count")) if "count" in node else None,
        totals=tuple(total(kind, node[kind], (*path, kind.value)) for kind in Aggregate if kind in node),
        window=comparing.time(node, path),
        first=comparing.some_time(node["first"], (*path, "first")) if "first" in node else None,
        last=comparing.some_time(node["last"], (*path, "last")) if "last" in node else None,
        where=tuple(property_test(test, (*path, "where", str(place))) for place, test in enumerate(tests)),
        context=tuple(context_test(test, (*path, "context", str(place))) for place, test in enumerate(contexts)),
    )


def never(node: dict[str, object], path: Path, measures: tuple[str, ...], *, what: str) -> bool:
    """Whether a node says `never`, which goes with none of `measures`."""
    if "never" not in node or not flag_of(node["never"], (*path, "never")):
        return False
    for other in measures:
        if other in node:
            message = f"{what} has no {other}; leave one of the two out."
            raise refusal("INVALID_CONDITION", message, (*path, other))
    return True


def total(kind: Aggregate, json: object, path: Path) -> Total:
    node = keys_of(json, path, required={"property", "operator", "value"})
    return Total(kind, named(node["property"], (*path, "property")), comparing.amount(node, path))


def property_test(json: object, path: Path) -> PropertyTest:
    node = keys_of(json, path, required={"property", "operator"}, optional={"value"})
    operator, value = comparing.comparison(node, path, fitting=comparing.OF_PROPERTIES, what="the property of an event")
    return PropertyTest(named(node["property"], (*path, "property")), operator, value)


def context_test(json: object, path: Path) -> ContextTest:
    node = keys_of(json, path, required={"field", "operator"}, optional={"value"})
    if node["field"] not in list(ContextField):
        message = f"There is no such field; use one of {', '.join(ContextField)}."
        raise refusal("INVALID_VALUE", message, (*path, "field"))
    field = ContextField(str(node["field"]))
    country = field is ContextField.COUNTRY
    operator, value = comparing.text_comparison(node, path, what=field.value, country=country)
    return ContextTest(field, operator, value)


def page(json: object, path: Path) -> Page:
    node = keys_of(json, path, required={"path"}, optional={"count", "never", *TIMES})
    at = (*path, "path")
    inner = keys_of(node["path"], at, required={"operator", "value"})
    operator = comparing.operator_of(
        inner["operator"], (*at, "operator"), fitting=comparing.OF_PATHS, what="the path of a page"
    )
    text = text_of(inner["value"], (*at, "value"), most=MOST_TEXT_CHARACTERS)
    return Page(
        operator=operator,
        path=comparing.of_substance(text, operator, (*at, "value")),
        never=never(node, path, ("count",), what="A page that was never viewed"),
        count=comparing.count(node["count"], (*path, "count")) if "count" in node else None,
        window=comparing.time(node, path),
    )


def sessions(json: object, path: Path) -> Sessions:
    node = keys_of(json, path, required={"count"}, optional=TIMES)
    return Sessions(comparing.count(node["count"], (*path, "count")), comparing.time(node, path))


def seen(sight: Sight) -> Callable[[object, Path], Seen]:
    def read(json: object, path: Path) -> Seen:
        return Seen(sight, comparing.some_time(json, path))

    return read


def identified(json: object, path: Path) -> Identified:
    return Identified(flag_of(json, path))


def score(json: object, path: Path) -> Score:
    node = keys_of(json, path, required={"of"}, optional={"codes", "atLeast"})
    if node["of"] not in list(ScoreOf):
        raise refusal("INVALID_VALUE", f"A score is one of {', '.join(ScoreOf)}.", (*path, "of"))
    if len(node) == 1:
        raise refusal("MISSING_VALUE", "Give codes, atLeast or both.", path)
    codes = list_of(node["codes"], (*path, "codes"), most=MOST_CODES) if "codes" in node else []
    return Score(
        of=ScoreOf(str(node["of"])),
        codes=tuple(named(code, (*path, "codes", str(place))) for place, code in enumerate(codes)),
        at_least=number_of(node["atLeast"], (*path, "atLeast")) if "atLeast" in node else None,
    )


def random_bucket(json: object, path: Path) -> RandomBucket:
    node = keys_of(json, path, required={"salt", "from", "to"})
    start, end = (hundredths(node[name], (*path, name)) for name in ("from", "to"))
    if start >= end:
        raise refusal("INVALID_VALUE", "Nobody is between these two; from is below to.", (*path, "to"))
    return RandomBucket(named(node["salt"], (*path, "salt")), start, end)


def hundredths(json: object, path: Path) -> int:
    """Hundredths of a per cent, of a number of per cent."""
    exact = Decimal(repr(number_of(json, path))) * 100
    if exact != exact.to_integral_value() or not 0 <= exact <= 100_00:
        raise refusal("INVALID_VALUE", "Give per cent: 0 to 100, with at most two decimals.", path)
    return int(exact)


def in_segment(json: object, path: Path) -> InSegment:
    return InSegment(uuid_of(json, path))


def campaign(json: object, path: Path) -> Engagement:
    node = keys_of(json, path, required={"did"}, optional={"campaignId", *TIMES})
    if node["did"] not in list(Did):
        raise refusal("INVALID_VALUE", f"There is no such deed; use one of {', '.join(Did)}.", (*path, "did"))
    return Engagement(
        did=Did(str(node["did"])),
        campaign_id=uuid_of(node["campaignId"], (*path, "campaignId")) if "campaignId" in node else None,
        window=comparing.time(node, path),
    )


def saved_query(json: object, path: Path) -> SavedSql:
    return SavedSql(uuid_of(json, path))


LEAF_READERS: dict[str, Callable[[object, Path], Leaf]] = {
    "trait": trait,
    "attribute": attribute,
    "event": event,
    "page": page,
    "sessions": sessions,
    "lastSeen": seen(Sight.LAST),
    "firstSeen": seen(Sight.FIRST),
    "identified": identified,
    "score": score,
    "randomBucket": random_bucket,
    "inSegment": in_segment,
    "campaign": campaign,
    "savedQuery": saved_query,
}
