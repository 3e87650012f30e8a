"""Conditions through the public API: people and events go in, a segment is evaluated, members come out.

In each row somebody meets the condition and somebody misses it by the one thing it is about.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from tests.app.caller import Caller
from tests.app.filling import Did, Somebody, follow, make_people, make_segment, members
from tests.campaigns.factories import Sent, make_campaign, make_delivered, make_event
from tests.segments.definitions import SHOWN

DAY = timedelta(days=1)


def days_ago(days: float, name: str = "purchase", **more: Any) -> Did:
    return Did(name, days * DAY, more)


def viewed(path: str, days: float) -> Did:
    return Did("page_view", days * DAY, {"pagePath": path})


def trait(key: str, operator: str, value: Any) -> dict[str, Any]:
    return {"trait": {"key": key, "operator": operator, "value": value}}


def attribute(name: str, operator: str, value: Any) -> dict[str, Any]:
    return {"attribute": {"name": name, "operator": operator, "value": value}}


def performed(name: str, **more: Any) -> dict[str, Any]:
    return {"event": {"name": name, **more}}


def traits(**known: Any) -> Somebody:
    return Somebody(traits=known)


def did(*events: Did) -> Somebody:
    return Somebody(events=events)


@dataclass(frozen=True)
class Row:
    """A row of the list of capabilities: who is there, what is asked, who is found."""

    people: Mapping[str, Somebody]
    definition: Mapping[str, Any]
    found: str
    """Names, parted by blanks."""


THREE = {"operator": "GREATER_OR_EQUAL", "value": 3}
WEEK = {"within": {"days": 7}}

ROWS = {
    "S2-10 city, of the profile and of events": Row(
        {
            "told": Somebody(profile={"city": "Berlin"}),
            "seen": did(days_ago(9, city="Paris"), days_ago(1, city="Berlin")),
            "moved": did(days_ago(9, city="Berlin"), days_ago(1, city="Paris")),
        },
        attribute("CITY", "EQUALS", "Berlin"),
        "told seen",
    ),
    "S2-11 country": Row(
        {
            "told": Somebody(profile={"country": "DE"}),
            "seen": did(days_ago(1, country="AT")),
            "abroad": Somebody(profile={"country": "FR"}, events=[days_ago(1, country="AT")]),
        },
        attribute("COUNTRY", "IN", ["DE", "AT"]),
        "told seen",
    ),
    "S2-12 device type": Row(
        {
            "now": did(days_ago(2, deviceType="desktop"), days_ago(1, deviceType="mobile")),
            "once": did(days_ago(2, deviceType="mobile"), days_ago(1, deviceType="desktop")),
        },
        attribute("DEVICE_TYPE", "EQUALS", "mobile"),
        "now",
    ),
    "S2-16 number equals": Row(
        {"even": traits(age=18.0), "off": traits(age=18.01), "text": traits(age="18")},
        trait("age", "EQUALS", 18),
        "even",
    ),
    "S2-21 performed in the last days": Row(
        {"new": did(days_ago(6.9)), "old": did(days_ago(7.1)), "else": did(days_ago(1, "login"))},
        performed("purchase", **WEEK),
        "new",
    ),
    "S0-02 tree over fit, signals and custom fields": Row(
        {
            "fits": Somebody({"icp_score": 80, "persona_code": "dev", "seats": 10}, [days_ago(3, "signal.funding")]),
            "small": Somebody({"icp_score": 80, "persona_code": "dev", "seats": 2}, [days_ago(3, "signal.funding")]),
            "quiet": Somebody({"icp_score": 80, "persona_code": "dev", "seats": 10}),
            "asked": Somebody({"icp_score": 80, "persona_code": "dev", "seats": 1}, [days_ago(1, "demo_requested")]),
            "unfit": Somebody({"icp_score": 20, "persona_code": "dev", "seats": 10}, [days_ago(3, "signal.funding")]),
        },
        {
            "all": [
                {"score": {"of": "ICP", "atLeast": 60}},
                {"score": {"of": "PERSONA", "codes": ["dev", "ops"]}},
                {
                    "any": [
                        {"all": [performed("signal.funding", **WEEK), trait("seats", "GREATER_OR_EQUAL", 5)]},
                        performed("demo_requested"),
                    ]
                },
            ]
        },
        "fits asked",
    ),
    "S0-03 persona by a list": Row(
        {"a": traits(persona_code="dev"), "b": traits(persona_code="ops"), "c": traits(persona_code="cfo")},
        {"score": {"of": "PERSONA", "codes": ["dev", "ops"]}},
        "a b",
    ),
    "S0-03 ideal customer profile by equality": Row(
        {"a": traits(icp_code="saas"), "b": traits(icp_code="retail"), "c": traits(persona_code="saas")},
        {"score": {"of": "ICP", "codes": ["saas"]}},
        "a",
    ),
    "S0-04 score floors": Row(
        {
            "both": traits(icp_score=60, persona_score=60),
            "one": traits(icp_score=60, persona_score=59.9),
            "other": traits(icp_score=59, persona_score=99),
            "none": traits(icp_score=99),
        },
        {"all": [{"score": {"of": of, "atLeast": 60}} for of in ("ICP", "PERSONA")]},
        "both",
    ),
    "S0-05 any signal in the last days": Row(
        {
            "hired": did(days_ago(5, "signal.hiring")),
            "raised": did(days_ago(6, "signal.funding")),
            "stale": did(days_ago(31, "signal.funding")),
            "silent": did(days_ago(1, "login")),
        },
        {"any": [performed(f"signal.{kind}", within={"days": 30}) for kind in ("hiring", "funding")]},
        "hired raised",
    ),
    "S0-06 several profiles and personas": Row(
        {
            "a": traits(icp_code="saas", persona_code="dev"),
            "b": traits(icp_code="retail", persona_code="cfo"),
            "c": traits(icp_code="saas", persona_code="cfo"),
        },
        {
            "any": [
                {"all": [{"score": {"of": "ICP", "codes": [icp]}}, {"score": {"of": "PERSONA", "codes": [persona]}}]}
                for icp, persona in (("saas", "dev"), ("retail", "cfo"))
            ]
        },
        "a b",
    ),
    "S0-06 any profile": Row(
        {"a": traits(icp_code="saas"), "b": traits(icp_code="retail"), "c": traits()},
        {"trait": {"key": "icp_code", "operator": "EXISTS"}},
        "a b",
    ),
    "S1-10 behaviour and attributes": Row(
        {
            "both": Somebody({"plan": "free"}, [days_ago(2)]),
            "paid": Somebody({"plan": "premium"}, [days_ago(2)]),
            "idle": Somebody({"plan": "free"}),
        },
        {"all": [trait("plan", "EQUALS", "free"), performed("purchase", **WEEK)]},
        "both",
    ),
    "S4-01 job title and company size": Row(
        {
            "head": traits(job_title="Head of Data", company_size=250),
            "tiny": traits(job_title="Head of Data", company_size=3),
            "dev": traits(job_title="Developer", company_size=250),
        },
        {"all": [trait("job_title", "STARTS_WITH", "Head"), trait("company_size", "BETWEEN", [50, 500])]},
        "head",
    ),
    "S4-03 purchase history and stage": Row(
        {
            "big": Somebody(
                {"stage": "customer"}, [days_ago(1, properties={"value": 60}), days_ago(2, properties={"value": 50})]
            ),
            "small": Somebody({"stage": "customer"}, [days_ago(1, properties={"value": 99})]),
            "lead": Somebody({"stage": "lead"}, [days_ago(1, properties={"value": 500})]),
        },
        {
            "all": [
                trait("stage", "EQUALS", "customer"),
                performed("purchase", sum={"property": "value", "operator": "GREATER_OR_EQUAL", "value": 100}),
            ]
        },
        "big",
    ),
    "S4-04 industry and intent": Row(
        {
            "hot": traits(industry="fintech", intent_score=80),
            "cold": traits(industry="fintech", intent_score=10),
            "other": traits(industry="farming", intent_score=80),
        },
        {"all": [trait("industry", "IN", ["fintech", "banking"]), trait("intent_score", "GREATER_OR_EQUAL", 70)]},
        "hot",
    ),
    "S4-06 saw the prices and asked for no demo": Row(
        {
            "warm": did(viewed("/pricing", 29)),
            "asked": did(viewed("/pricing", 2), days_ago(1, "demo_requested")),
            "long ago": did(viewed("/pricing", 31)),
            "never": Somebody(),
        },
        {
            "all": [
                {"page": {"path": {"operator": "EQUALS", "value": "/pricing"}, "within": {"days": 30}}},
                performed("demo_requested", never=True),
            ]
        },
        "warm",
    ),
    "S4-07 analytics, forms, records and product usage together": Row(
        {
            "all": Somebody(
                {"owner": "sales"},
                [
                    viewed("/docs", 1),
                    days_ago(2, "form_submitted", properties={"form": "newsletter"}),
                    *(days_ago(n, "feature_used", properties={"feature": "export"}) for n in (1, 2, 3)),
                ],
            ),
            "other form": Somebody(
                {"owner": "sales"},
                [
                    viewed("/docs", 1),
                    days_ago(2, "form_submitted", properties={"form": "careers"}),
                    *(days_ago(n, "feature_used", properties={"feature": "export"}) for n in (1, 2, 3)),
                ],
            ),
            "other feature": Somebody(
                {"owner": "sales"},
                [
                    viewed("/docs", 1),
                    days_ago(2, "form_submitted", properties={"form": "newsletter"}),
                    *(days_ago(n, "feature_used", properties={"feature": "import"}) for n in (1, 2, 3)),
                ],
            ),
        },
        {
            "all": [
                {"page": {"path": {"operator": "STARTS_WITH", "value": "/docs"}} | WEEK},
                performed("form_submitted", where=[{"property": "form", "operator": "EQUALS", "value": "newsletter"}]),
                performed(
                    "feature_used",
                    count=THREE,
                    where=[{"property": "feature", "operator": "EQUALS", "value": "export"}],
                ),
                trait("owner", "EQUALS", "sales"),
            ]
        },
        "all",
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_a_condition_finds_whom_it_is_about(console: Caller, row: Row) -> None:
    """S0-02, S0-03, S0-04, S0-05, S0-06, S1-10, S2-10, S2-11, S2-12, S2-16, S2-21, S3-02, S4-01, S4-03, S4-04, S4-06,
    S4-07: each row has its own. What needs no people of its own is in test_api_finding_people.py.
    """
    await make_people(console, row.people, now=datetime.now(UTC))
    found = await members(console, await make_segment(console, row.definition))
    assert found == set(row.found.split())


async def test_random_shares_have_nobody_in_common_and_stay_as_they_are(console: Caller) -> None:
    """The halves of a draw make the whole; another draw parts people otherwise."""
    names = [f"p{number:02}" for number in range(60)]
    await make_people(console, dict.fromkeys(names, Somebody()), now=datetime.now(UTC))

    async def share(salt: str, start: float, end: float) -> set[str]:
        bucket = {"randomBucket": {"salt": salt, "from": start, "to": end}}
        return await members(console, await make_segment(console, bucket))

    low, high = await share("spring", 0, 50), await share("spring", 50, 100)
    assert (low & high, low | high, await share("spring", 0, 50)) == (set(), set(names), low)
    assert await share("autumn", 0, 50) != low


async def profile_ids(console: Caller, *names: str) -> list[int]:
    found = [await console.data("Profile", externalId=name) for name in names]
    return [int(one["id"].removeprefix("prf_")) for one in found]


async def test_pages_visited_and_emails_opened_make_an_audience(console: Caller, now: datetime) -> None:
    """S0-02 (engagement), S4-02, S4-07."""
    both = Somebody(events=[viewed("/pricing", 1)])
    await make_people(console, {"both": both, "mail": Somebody(), "page": both, "robot": both}, now=now)
    ids = await profile_ids(console, "both", "mail", "page", "robot")
    news = await make_delivered(console.workspace_id, {id: Sent("sent", now) for id in ids}, now=now)
    other = await make_delivered(console.workspace_id, {ids[2]: Sent("bounced", now)}, now=now)
    for id in ids[:2]:
        await make_event(console.workspace_id, news, id, "open", at=now - 2 * DAY)
    await make_event(console.workspace_id, news, ids[0], "click", at=now - 2 * DAY)
    await make_event(console.workspace_id, news, ids[3], "open", at=now, detail={"machine": True})
    await make_event(console.workspace_id, other, ids[2], "open", at=now - 20 * DAY)

    async def found(campaign: dict[str, Any], *more: dict[str, Any]) -> set[str]:
        return await members(console, await make_segment(console, {"all": [{"campaign": campaign}, *more]}))

    of_news, of_other = (f"cmp_{one.campaign_id.hex}" for one in (news, other))
    pricing = {"page": {"path": {"operator": "EQUALS", "value": "/pricing"}}}
    assert await found({"did": "OPENED", "campaignId": of_news}, pricing) == {"both"}
    assert await found({"did": "OPENED"}) == {"both", "mail", "page"}
    assert await found({"did": "OPENED", **WEEK}) == {"both", "mail"}
    assert await found({"did": "OPENED", "before": {"days": 7}}) == {"page"}
    assert await found({"did": "CLICKED", "campaignId": of_news}) == {"both"}
    assert await found({"did": "CLICKED", "campaignId": of_other}) == set()
    assert await found({"did": "RECEIVED", "campaignId": of_news}) == {"both", "mail", "page", "robot"}
    assert await found({"did": "RECEIVED", "campaignId": of_other}) == set()
    unopened = {"not": {"campaign": {"did": "OPENED", "campaignId": of_news}}}
    assert await found({"did": "RECEIVED", "campaignId": of_news}, unopened) == {"page", "robot"}
    summary = (await console.data("Segment", id=await make_segment(console, unopened)))["summary"]
    assert "News" in summary


async def test_a_qualifying_event_admits_somebody_and_an_imported_list_stays(console: Caller) -> None:
    """S0-07, S0-08, S0-26, S1-12, S3-01, S3-02, S4-05: with the next pulse; nobody asks for an evaluation."""
    now = datetime.now(UTC)
    await make_people(console, {"ada": traits(plan="premium"), "bob": traits(plan="premium")}, now=now)
    rule = await make_segment(console, performed("purchase"), name="Buyers")
    curated = await make_segment(console, name="Curated")
    await console.data("SegmentMembersImport", input={"id": curated, "text": "external_id\nbob\n"})
    assert (await members(console, rule), await members(console, curated)) == (set(), {"bob"})
    await make_people(console, {"ada": did(days_ago(0.1))}, now=now)
    await follow(console)
    assert (await members(console, rule), await members(console, curated)) == ({"ada"}, {"bob"})


@pytest.mark.parametrize(
    ("wrong", "place"), [({}, "1"), ({"identified": True, "any": []}, "1"), ({"trait": None}, "1].trait")]
)
async def test_where_a_condition_has_not_exactly_one_key_is_said(
    console: Caller, wrong: dict[str, Any], place: str
) -> None:
    definition = {"all": [{"identified": True}, wrong]}
    answer = await console.ask("SegmentCreate", input={"name": "x", "type": "DYNAMIC", "definition": definition})
    (error,) = answer["errors"]
    assert f"at .definition.all[{place}" in error["message"]
    assert error["extensions"]["code"] == "BAD_REQUEST"


async def test_of_a_condition_in_the_document_that_is_said_once(console: Caller) -> None:
    answer = await console.post("{ segmentEstimate(input: {definition: {all: [], any: []}}) { size } }")
    (error,) = [one for one in answer.json()["errors"] if "OneOf" in one["message"]]
    assert error["extensions"]["code"] == "BAD_REQUEST"


async def test_every_definition_of_the_guide_is_answered_in_the_shape_in_which_it_was_given(
    console: Caller, now: datetime
) -> None:
    """What a client reads it may send again, ids and all."""
    named = await make_segment(console, {"identified": True}, name="named")
    query = await console.data("SavedQueryCreate", input={"name": "q", "sql": "SELECT profile_id FROM profiles"})
    campaign = await make_campaign(console.workspace_id, now=now)
    real = {
        "cmp_0198c0de0000700080000000000000bb": f"cmp_{campaign.id.hex}",
        "seg_0198c0de0000700080000000000000aa": named,
        "svq_0198c0de0000700080000000000000cc": query["savedQuery"]["id"],
    }
    for place, shown in enumerate(SHOWN):
        text = orjson.dumps(shown).decode()
        for id, existing in real.items():
            text = text.replace(id, existing)
        wanted = {"name": f"shown {place}", "type": "DYNAMIC"}
        first = (await console.data("SegmentCreate", input=wanted | {"definition": orjson.loads(text)}))["segment"]
        again = {"name": f"again {place}", "type": "DYNAMIC", "definition": first["definition"]}
        assert (await console.data("SegmentCreate", input=again))["segment"]["definition"] == first["definition"]
        assert first["definition"] == dated(orjson.loads(text))


def dated(json: Any) -> Any:
    """A definition of the guide with its dates as they are answered: as instants in UTC."""
    match json:
        case dict():
            return {key: dated(value) for key, value in json.items()}
        case list():
            return [dated(value) for value in json]
        case "2026-12-31":
            return "2026-12-31T00:00:00Z"
        case _:
            return json
