"""Each kind of condition through the public API: people come in by the API, a segment says who they must be."""

from datetime import UTC, datetime, timedelta
from typing import Any

from app.resources import segment_sources
from segments import cycles
from tests.app.caller import Caller

Json = dict[str, Any]


def ago(**length: float) -> str:
    return (datetime.now(UTC) - timedelta(**length)).isoformat()


def event(who: str, name: str, when: str, **more: Any) -> Json:
    known = {"anonymousId": who} if who == "visitor" else {"externalId": who}
    return {"messageId": f"{who} {name} {when}", "name": name, "occurredAt": when, **known, **more}


async def make_people(console: Caller) -> None:
    """ada, who buys; bob, who did once; eve, of whom nothing is known; and a visitor."""
    ada = {"plan": "premium", "seats": 7, "company": "Acme GmbH", "signed_up": ago(days=2), "icp_code": "A"}
    bob = {"plan": "free", "seats": 3, "company": "Bob Ltd", "signed_up": ago(days=40), "icp_score": 20}
    profiles = [
        {"externalId": "ada", "email": "ada@example.com", "traits": ada | {"icp_score": 80}, "country": "DE"},
        {"externalId": "bob", "email": "bob@example.org", "traits": bob, "city": "Vienna"},
        {"externalId": "eve"},
    ]
    await console.data("ProfilesUpsert", input={"profiles": profiles})
    phone = {"deviceType": "mobile", "browser": "Firefox", "city": "Berlin"}
    desk = {"deviceType": "desktop", "browser": "Chrome", "country": "AT", "city": "Graz"}
    events = [
        event("ada", "purchase", ago(days=20), properties={"value": 10}, sessionId="s1", **phone),
        event("ada", "purchase", ago(days=10), properties={"value": 30}, sessionId="s2", **phone),
        event("ada", "purchase", ago(days=1), properties={"value": 80}, sessionId="s2", **phone),
        event("ada", "page_view", ago(hours=5), pagePath="/pricing"),
        event("ada", "page_view", ago(hours=4), pagePath="/pricing/teams"),
        event("bob", "purchase", ago(days=60), properties={"value": 500}, sessionId="s3", **desk),
        event("visitor", "page_view", ago(days=3), pagePath="/docs"),
    ]
    assert (await console.data("EventsTrack", input={"events": events}))["accepted"] == len(events)


def trait(key: str, operator: str, *value: Any) -> Json:
    return {"trait": {"key": key, "operator": operator} | ({"value": value[0]} if value else {})}


def attribute(name: str, operator: str, *value: Any) -> Json:
    return {"attribute": {"name": name, "operator": operator} | ({"value": value[0]} if value else {})}


def bought(**parts: Any) -> Json:
    return {"event": {"name": "purchase"} | parts}


def viewed(operator: str, path: str, **parts: Any) -> Json:
    return {"page": {"path": {"operator": operator, "value": path}} | parts}


def compared(operator: str, value: float, **more: Any) -> Json:
    return {"operator": operator, "value": value, **more}


AT_LEAST_2 = compared("GREATER_OR_EQUAL", 2)

ASKED: list[tuple[str, Json, set[str]]] = [
    ("S2-04", bought(count=AT_LEAST_2), {"ada"}),
    ("S2-04", bought(count=compared("LESS_THAN", 2)), {"bob", "eve", "visitor"}),
    ("S2-05", {"lastSeen": {"within": {"days": 2}}}, {"ada"}),
    ("S2-05", {"lastSeen": {"before": {"days": 30}}}, {"bob"}),
    ("S2-06", {"firstSeen": {"within": {"days": 5}}}, {"visitor"}),
    ("S2-06", {"firstSeen": {"before": {"days": 5}}}, {"ada", "bob"}),
    ("S2-07", {"identified": True}, {"ada", "bob", "eve"}),
    ("S2-07", {"identified": False}, {"visitor"}),
    ("S2-08, S2-19", bought(), {"ada", "bob"}),
    ("S2-08, S2-19", bought(never=True), {"eve", "visitor"}),
    ("S2-09", viewed("EQUALS", "/pricing"), {"ada"}),
    ("S2-09", viewed("STARTS_WITH", "/"), {"ada", "visitor"}),
    ("S2-09", viewed("MATCHES", "*s"), {"ada", "visitor"}),
    ("S2-09", viewed("STARTS_WITH", "/pricing", count=AT_LEAST_2, within={"days": 1}), {"ada"}),
    ("S2-09", viewed("STARTS_WITH", "/pricing", never=True), {"bob", "eve", "visitor"}),
    ("S2-10", attribute("CITY", "EQUALS", "Berlin"), {"ada"}),
    ("S2-10", attribute("CITY", "EQUALS", "Vienna"), {"bob"}),
    ("S2-11", attribute("COUNTRY", "IN", ["at", "CH"]), {"bob"}),
    ("S2-11", attribute("COUNTRY", "NOT_EQUALS", "AT"), {"ada"}),
    ("S2-12", attribute("DEVICE_TYPE", "EQUALS", "mobile"), {"ada"}),
    ("S2-13", attribute("BROWSER", "IN", ["Chrome", "Safari"]), {"bob"}),
    ("S2-13", attribute("BROWSER", "MISSING"), {"eve", "visitor"}),
    ("S2-14", trait("plan", "EQUALS", "premium"), {"ada"}),
    ("S2-14", {"not": trait("plan", "EQUALS", "premium")}, {"bob", "eve", "visitor"}),
    ("S2-15", {"sessions": {"count": AT_LEAST_2}}, {"ada"}),
    ("S2-15", {"sessions": {"count": compared("EQUALS", 0)}}, {"eve", "visitor"}),
    ("S2-16", trait("seats", "GREATER_THAN", 5), {"ada"}),
    ("S2-16", trait("seats", "LESS_THAN", 5), {"bob"}),
    ("S2-16", trait("seats", "BETWEEN", [3, 7]), {"ada", "bob"}),
    ("S2-16", trait("seats", "EQUALS", 7), {"ada"}),
    ("S2-17", trait("company", "CONTAINS", "e G"), {"ada"}),
    ("S2-17", trait("company", "STARTS_WITH", "Bob"), {"bob"}),
    ("S2-17", attribute("EMAIL", "ENDS_WITH", "@example.org"), {"bob"}),
    ("S2-17", trait("company", "NOT_CONTAINS", "GmbH"), {"bob"}),
    ("S2-18", trait("signed_up", "WITHIN_LAST", {"days": 3}), {"ada"}),
    ("S2-18", trait("signed_up", "MORE_THAN_AGO", {"weeks": 4}), {"bob"}),
    ("S2-18", trait("signed_up", "AFTER", ago(days=30)), {"ada"}),
    ("S2-18", trait("signed_up", "BEFORE", ago(days=30)), {"bob"}),
    ("S2-21", bought(within={"days": 30}), {"ada"}),
    ("S2-21", bought(count=AT_LEAST_2, within={"days": 15}), {"ada"}),
    ("S2-21", bought(since=ago(days=90), until=ago(days=50)), {"bob"}),
    ("totals", bought(sum=compared("GREATER_OR_EQUAL", 500, property="value")), {"bob"}),
    ("totals", bought(avg=compared("LESS_THAN", 50, property="value")), {"ada"}),
    ("totals", bought(min=compared("EQUALS", 10, property="value")), {"ada"}),
    ("totals", bought(max=compared("GREATER_THAN", 100, property="value")), {"bob"}),
    ("times", bought(first={"before": {"days": 15}}, last={"within": {"days": 5}}), {"ada"}),
    ("filters", bought(where=[{"property": "value", "operator": "GREATER_THAN", "value": 50}]), {"ada", "bob"}),
    ("filters", bought(context=[{"field": "COUNTRY", "operator": "EQUALS", "value": "at"}]), {"bob"}),
    ("score", {"score": {"of": "ICP", "codes": ["A", "B"], "atLeast": 60}}, {"ada"}),
    ("score", {"score": {"of": "ICP", "atLeast": 10}}, {"ada", "bob"}),
    ("random", {"randomBucket": {"salt": "x", "from": 0, "to": 100}}, {"ada", "bob", "eve", "visitor"}),
    ("S2-02", {"all": [{"identified": True}, bought(), trait("plan", "EQUALS", "free")]}, {"bob"}),
    ("S2-03", {"any": [{"identified": False}, trait("plan", "EQUALS", "free")]}, {"bob", "visitor"}),
]


async def test_each_condition_finds_whom_it_says(console: Caller) -> None:
    """S2-02, S2-03, S2-04, S2-05, S2-06, S2-07, S2-08, S2-09, S2-10, S2-11, S2-12, S2-13, S2-14, S2-15, S2-16, S2-17,
    S2-18, S2-19, S2-21: row by row in ASKED."""
    await make_people(console)
    made = []
    for place, (_, definition, _) in enumerate(ASKED):
        wanted = {"name": f"segment {place}", "type": "DYNAMIC", "definition": definition}
        segment = (await console.data("SegmentCreate", input=wanted))["segment"]
        await console.data("SegmentActivate", input={"id": segment["id"]})
        made.append(segment["id"])
    while await cycles.run(console.workspace_id, sources=segment_sources()) is not None:
        pass
    for id, (row, definition, expected) in zip(made, ASKED, strict=True):
        page = (await console.data("SegmentMembers", id=id))["members"]
        assert {edge["node"]["externalId"] or "visitor" for edge in page["edges"]} == expected, (row, definition)
