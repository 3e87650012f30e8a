"""What conditions say in plain English."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings

from segments.conditions import parse, summary
from tests.segments import definitions

SEGMENT, CAMPAIGN, QUERY = (UUID(f"0198c0de-0000-7000-8000-00000000000{last}") for last in "123")
NAMES = {SEGMENT: "Regulars", CAMPAIGN: "Spring sale", QUERY: "Big spenders"}


def trait(operator: str, *value: Any) -> dict[str, Any]:
    return {"trait": {"key": "plan", "operator": operator} | ({"value": value[0]} if value else {})}


def event(**parts: Any) -> dict[str, Any]:
    return {"event": {"name": "purchase"} | parts}


def compared(operator: str, value: float, **more: Any) -> dict[str, Any]:
    return {"operator": operator, "value": value} | more


AT_LEAST_3 = compared("GREATER_OR_EQUAL", 3)

SAID: list[tuple[dict[str, Any], str]] = [
    (trait("EQUALS", "premium"), 'Trait plan is "premium".'),
    (trait("EQUALS", True), "Trait plan is true."),
    (trait("EQUALS", 100.0), "Trait plan is 100."),
    (trait("NOT_EQUALS", "premium"), 'Trait plan is known but not "premium".'),
    (trait("GREATER_THAN", 1.5), "Trait plan is more than 1.5."),
    (trait("GREATER_OR_EQUAL", 5), "Trait plan is at least 5."),
    (trait("LESS_THAN", 5), "Trait plan is less than 5."),
    (trait("LESS_OR_EQUAL", 5), "Trait plan is at most 5."),
    (trait("BETWEEN", [1, 2.0]), "Trait plan is between 1 and 2."),
    (trait("CONTAINS", "x"), 'Trait plan contains "x".'),
    (trait("NOT_CONTAINS", "x"), 'Trait plan is known but does not contain "x".'),
    (trait("STARTS_WITH", "x"), 'Trait plan starts with "x".'),
    (trait("ENDS_WITH", "x"), 'Trait plan ends with "x".'),
    (trait("MATCHES", "a*z"), 'Trait plan matches "a*z".'),
    (trait("IN", ["a"]), 'Trait plan is "a".'),
    (trait("IN", ["a", "b", "c"]), 'Trait plan is one of "a", "b" or "c".'),
    (trait("IN", list("abcdefg")), 'Trait plan is one of "a", "b", "c", "d", "e" or 2 more.'),
    (trait("NOT_IN", ["a", "b"]), 'Trait plan is known but none of "a" or "b".'),
    (trait("EXISTS"), "Trait plan is known."),
    (trait("MISSING"), "Trait plan is unknown."),
    (trait("BEFORE", "2026-01-31"), "Trait plan is before 2026-01-31."),
    (trait("AFTER", "2026-01-31T09:30:00+01:00"), "Trait plan is on or after 2026-01-31 08:30 UTC."),
    (trait("AFTER", "2026-01-31T09:30:05Z"), "Trait plan is on or after 2026-01-31 09:30:05 UTC."),
    (trait("WITHIN_LAST", {"days": 3}), "Trait plan is in the last 3 days."),
    (trait("WITHIN_LAST", {"weeks": 1}), "Trait plan is in the last week."),
    (trait("MORE_THAN_AGO", {"hours": 1}), "Trait plan is more than 1 hour ago."),
    ({"not": trait("EQUALS", "premium")}, 'Trait plan is not "premium".'),
    ({"not": trait("NOT_EQUALS", "premium")}, 'Trait plan is unknown or "premium".'),
    ({"not": trait("IN", ["a", "b"])}, 'Trait plan is none of "a" or "b".'),
    ({"not": trait("NOT_IN", ["a", "b"])}, 'Trait plan is unknown or one of "a" or "b".'),
    ({"not": trait("CONTAINS", "x")}, 'Trait plan does not contain "x".'),
    ({"not": trait("WITHIN_LAST", {"days": 3})}, "Trait plan is not in the last 3 days."),
    ({"not": trait("EXISTS")}, "Trait plan is unknown."),
    ({"attribute": {"name": "COUNTRY", "operator": "IN", "value": ["de", "at"]}}, 'Country is one of "DE" or "AT".'),
    ({"attribute": {"name": "DEVICE_TYPE", "operator": "EQUALS", "value": "mobile"}}, 'Device type is "mobile".'),
    ({"not": {"attribute": {"name": "EMAIL", "operator": "EXISTS"}}}, "Email address is unknown."),
    (event(), "Performed purchase."),
    (event(never=True), "Never performed purchase."),
    (event(never=True, within={"days": 90}), "Never performed purchase in the last 90 days."),
    ({"not": event(never=True)}, "Performed purchase."),
    ({"not": event(count=AT_LEAST_3)}, "Not performed purchase at least 3 times."),
    (event(count=compared("EQUALS", 1)), "Performed purchase exactly 1 time."),
    (event(count=compared("NOT_EQUALS", 2)), "Performed purchase any number but 2 times."),
    (event(count=AT_LEAST_3, within={"days": 180}), "Performed purchase at least 3 times in the last 180 days."),
    (event(before={"days": 1}), "Performed purchase more than 1 day ago."),
    (event(since="2026-01-01"), "Performed purchase since 2026-01-01."),
    (event(until="2026-04-01"), "Performed purchase before 2026-04-01."),
    (
        event(since="2026-01-01", until="2026-04-01"),
        "Performed purchase from 2026-01-01 until before 2026-04-01.",
    ),
    (
        event(
            sum=compared("LESS_THAN", 100.0, property="value"),
            where=[{"property": "web", "operator": "EQUALS", "value": True}],
        ),
        "Performed purchase where web is true with value totalling less than 100.",
    ),
    (
        event(
            avg=compared("GREATER_THAN", 49.5, property="value"),
            min=compared("GREATER_OR_EQUAL", 1, property="items"),
            max=compared("LESS_OR_EQUAL", 20, property="items"),
        ),
        "Performed purchase with value averaging more than 49.5, the lowest items at least 1 and the highest items at"
        " most 20.",
    ),
    (
        event(first={"before": {"days": 30}}, last={"within": {"weeks": 1}}),
        "Performed purchase (first more than 30 days ago, last in the last week).",
    ),
    (
        event(context=[{"field": "PAGE_PATH", "operator": "STARTS_WITH", "value": "/shop"}]),
        'Performed purchase where page path starts with "/shop".',
    ),
    (
        {"page": {"path": {"operator": "EQUALS", "value": "/"}, "count": AT_LEAST_3, "within": {"weeks": 2}}},
        'Viewed the page "/" at least 3 times in the last 2 weeks.',
    ),
    (
        {"page": {"path": {"operator": "STARTS_WITH", "value": "/docs"}, "never": True}},
        'Never viewed a page whose path starts with "/docs".',
    ),
    (
        {"not": {"page": {"path": {"operator": "MATCHES", "value": "/*/x"}}}},
        'Not viewed a page whose path matches "/*/x".',
    ),
    ({"sessions": {"count": AT_LEAST_3, "within": {"days": 30}}}, "Had at least 3 sessions in the last 30 days."),
    ({"sessions": {"count": compared("EQUALS", 1)}}, "Had exactly 1 session."),
    ({"not": {"sessions": {"count": AT_LEAST_3}}}, "Not having at least 3 sessions."),
    ({"lastSeen": {"within": {"hours": 48}}}, "Last seen in the last 48 hours."),
    ({"firstSeen": {"since": "2026-03-01"}}, "First seen since 2026-03-01."),
    ({"not": {"lastSeen": {"before": {"weeks": 2}}}}, "Not last seen more than 2 weeks ago."),
    ({"identified": True}, "Identified."),
    ({"identified": False}, "Anonymous."),
    ({"not": {"identified": True}}, "Anonymous."),
    ({"score": {"of": "ICP", "codes": ["A"], "atLeast": 60.0}}, 'ICP code is "A" and score is at least 60.'),
    ({"score": {"of": "PERSONA", "codes": ["cto", "ceo"]}}, 'Persona code is one of "cto" or "ceo".'),
    ({"not": {"score": {"of": "ICP", "atLeast": 60}}}, "Not (ICP score is at least 60)."),
    (
        {"randomBucket": {"salt": "test", "from": 0, "to": 12.5}},
        'In the random share from 0 to 12.5 per cent of "test".',
    ),
    ({"inSegment": str(SEGMENT)}, 'In the segment "Regulars".'),
    ({"not": {"inSegment": str(SEGMENT)}}, 'Not in the segment "Regulars".'),
    ({"inSegment": str(UUID(int=7))}, "In the segment 00000000-0000-0000-0000-000000000007."),
    (
        {"campaign": {"did": "OPENED", "campaignId": str(CAMPAIGN), "within": {"days": 30}}},
        'Opened the campaign "Spring sale" in the last 30 days.',
    ),
    ({"campaign": {"did": "RECEIVED"}}, "Received any campaign."),
    ({"not": {"campaign": {"did": "CLICKED"}}}, "Not clicked in any campaign."),
    ({"savedQuery": str(QUERY)}, 'Found by the saved query "Big spenders".'),
    (
        {"all": [event(count=AT_LEAST_3, within={"days": 180}), {"not": {"lastSeen": {"within": {"weeks": 1}}}}]},
        "Performed purchase at least 3 times in the last 180 days, and not last seen in the last week.",
    ),
    (
        {"any": [trait("EQUALS", "x"), {"all": [trait("EXISTS"), {"identified": False}]}]},
        'Trait plan is "x", or (trait plan is known and anonymous).',
    ),
    (
        {"not": {"any": [{"identified": True}, trait("EXISTS")]}},
        "Not (identified or trait plan is known).",
    ),
    ({"not": {"all": [{"identified": True}]}}, "Anonymous."),
    ({"not": {"not": {"all": [event(), {"identified": True}]}}}, "Performed purchase, and identified."),
]


@pytest.mark.parametrize(("json", "said"), SAID)
def test_a_condition_is_said_in_plain_english(json: dict[str, Any], said: str) -> None:
    assert summary(parse(json), NAMES) == said


@settings(max_examples=300, deadline=None)
@given(definitions.definitions)
def test_every_condition_can_be_said_in_one_sentence(json: dict[str, Any]) -> None:
    said = summary(parse(json))
    assert said.endswith(".")
    assert said[0] == said[0].upper()
