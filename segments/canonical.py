"""Conditions as JSON in their one canonical form: what is stored, compared and shared.

docs/conditions.md shows it; segments/conditions.py reads it.
"""

from datetime import UTC, datetime
from typing import assert_never

import orjson

from segments.nodes import (
    All,
    Amount,
    AnyOf,
    Attribute,
    Condition,
    Engagement,
    Event,
    Identified,
    InSegment,
    Json,
    Leaf,
    Not,
    Number,
    Operator,
    Page,
    Period,
    RandomBucket,
    SavedSql,
    Score,
    Seen,
    Sessions,
    Span,
    Time,
    Trait,
    Value,
    Window,
)


def to_json(condition: Condition) -> dict[str, Json]:
    """The canonical JSON form of `condition`: what is stored, and what `conditions.parse` reads back as the same."""
    match condition:
        case All(items):
            return {"all": [to_json(item) for item in items]}
        case AnyOf(items):
            return {"any": [to_json(item) for item in items]}
        case Not(item):
            return {"not": to_json(item)}
        case Trait(key, operator, value):
            return {"trait": {"key": key, **comparison_json(operator, value)}}
        case Attribute(name, operator, value):
            return {"attribute": {"name": name.value, **comparison_json(operator, value)}}
        case Event():
            return {"event": event_json(condition)}
        case Page():
            return {"page": page_json(condition)}
        case Sessions(count, window):
            return {"sessions": {"count": amount_json(count), **time_json(window)}}
        case Seen(sight, window):
            return {sight.value: time_json(window)}
        case Identified(value):
            return {"identified": value}
        case Score(of, codes, at_least):
            floor: dict[str, Json] = {} if at_least is None else {"atLeast": at_least}
            return {"score": {"of": of.value, **({"codes": list(codes)} if codes else {}), **floor}}
        case RandomBucket(salt, start, end):
            return {"randomBucket": {"salt": salt, "from": per_cent(start), "to": per_cent(end)}}
        case InSegment(segment_id):
            return {"inSegment": str(segment_id)}
        case Engagement(did, campaign_id, window):
            campaign: dict[str, Json] = {} if campaign_id is None else {"campaignId": str(campaign_id)}
            return {"campaign": {"did": did.value, **campaign, **time_json(window)}}
        case SavedSql(query_id):
            return {"savedQuery": str(query_id)}
        case _:
            assert_never(condition)


def event_json(event: Event) -> dict[str, Json]:
    out: dict[str, Json] = {"name": event.name}
    if event.never:
        out["never"] = True
    if event.count is not None:
        out["count"] = amount_json(event.count)
    for total in event.totals:
        out[total.aggregate.value] = {"property": total.property, **amount_json(total.amount)}
    out |= time_json(event.window)
    if event.first is not None:
        out["first"] = time_json(event.first)
    if event.last is not None:
        out["last"] = time_json(event.last)
    if event.where:
        out["where"] = [{"property": t.property, **comparison_json(t.operator, t.value)} for t in event.where]
    if event.context:
        out["context"] = [{"field": t.field.value, **comparison_json(t.operator, t.value)} for t in event.context]
    return out


def page_json(page: Page) -> dict[str, Json]:
    out: dict[str, Json] = {"path": {"operator": page.operator.value, "value": page.path}}
    if page.never:
        out["never"] = True
    if page.count is not None:
        out["count"] = amount_json(page.count)
    return out | time_json(page.window)


def amount_json(amount: Amount) -> dict[str, Json]:
    return {"operator": amount.operator.value, "value": amount.value}


def comparison_json(operator: Operator, value: Value) -> dict[str, Json]:
    match value:
        case None:
            return {"operator": operator.value}
        case tuple():
            return {"operator": operator.value, "value": list(value)}
        case datetime():
            return {"operator": operator.value, "value": instant_json(value)}
        case Span(amount, unit):
            return {"operator": operator.value, "value": {unit.value: amount}}
        case _:
            return {"operator": operator.value, "value": value}


def time_json(time: Time | None) -> dict[str, Json]:
    match time:
        case None:
            return {}
        case Window(side, amount, unit):
            return {side.value: {unit.value: amount}}
        case Period(since, until):
            ends = {"since": since, "until": until}
            return {name: instant_json(at) for name, at in ends.items() if at is not None}
        case _:
            assert_never(time)


def instant_json(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def per_cent(hundredths: int) -> Number:
    return hundredths // 100 if hundredths % 100 == 0 else hundredths / 100


def key(leaf: Leaf) -> str:
    """What two leaves share exactly when they ask the same.

    Not the leaf itself: to Python True, 1 and 1.0 are equal, so `plan is true` would be answered by `plan is 1`.
    """
    return orjson.dumps(to_json(leaf)).decode()
