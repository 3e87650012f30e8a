"""Help for those who build segments, over GraphQL: how many, why, how much in common, what there is."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.app.caller import Caller
from tests.app.filling import Did, Somebody, make_people, make_segment, members

DAY = timedelta(days=1)
PREMIUM = {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}}
BOUGHT = {"event": {"name": "purchase", "within": {"days": 7}}}
BUYER = [Did("purchase", DAY, {"properties": {"value": 20, "buyer": "ada@example.com"}})]


async def shop(console: Caller) -> None:
    """Ada and Bob pay, Ada and Eve bought, all but Eve can be written to."""
    people = {
        "ada": Somebody({"plan": "premium"}, BUYER, {"email": "ada@example.com"}),
        "bob": Somebody({"plan": "premium"}, (), {"email": "bob@example.com"}),
        "eve": Somebody({"plan": "free"}, BUYER),
    }
    await make_people(console, people, now=datetime.now(UTC))


async def test_an_estimate_tells_the_funnel_and_whom_it_would_reach(console: Caller) -> None:
    await shop(console)
    await console.data(
        "DeviceRegister", input={"provider": "FCM", "token": "t", "platform": "WEB", "externalId": "ada"}
    )
    bob = (await console.data("Profile", externalId="bob"))["id"]
    await console.data(
        "ConsentUpdate", input={"profileId": bob, "channel": "EMAIL", "topic": "news", "status": "UNSUBSCRIBED"}
    )
    definition = {"all": [PREMIUM, {"any": [BOUGHT, {"identified": True}]}]}
    found = await console.data("SegmentEstimate", input={"definition": definition})
    assert found["size"] == 2
    assert [(node["path"], node["size"]) for node in found["nodes"]] == [
        ([], 2),
        (["all", "0"], 2),
        (["all", "1"], 3),
        (["all", "1", "any", "0"], 2),
        (["all", "1", "any", "1"], 3),
    ]
    assert found["nodes"][1]["summary"] == 'Trait plan is "premium".'
    assert found["reachable"] == [{"channel": "EMAIL", "people": 2}, {"channel": "PUSH", "people": 1}]
    assert datetime.fromisoformat(found["evaluatedAt"]) <= datetime.now(UTC)
    news = await console.data("SegmentEstimate", input={"definition": definition, "topic": "news"})
    assert news["reachable"][0] == {"channel": "EMAIL", "people": 1}
    simple = {"match": "ANY", "conditions": [PREMIUM, BOUGHT]}
    assert (await console.data("SegmentEstimate", input={"conditions": simple}))["size"] == 3
    assert len((await console.data("Segments"))["edges"]) == 1  # EVERYONE: nothing was saved


async def test_names_are_said_and_not_ids(console: Caller) -> None:
    await shop(console)
    payers = await make_segment(console, PREMIUM, name="Payers")
    found = await console.data("SegmentEstimate", input={"definition": {"not": {"inSegment": payers}}})
    assert (found["size"], [node["size"] for node in found["nodes"]]) == (1, [1, 2])
    assert all("Payers" in node["summary"] for node in found["nodes"])


async def test_an_explanation_shows_each_condition_with_what_it_looked_at(console: Caller) -> None:
    await shop(console)
    one = await make_segment(console, {"all": [PREMIUM, BOUGHT]})
    assert await members(console, one) == {"ada"}
    ada = await console.data("SegmentExplain", segmentId=one, externalId="ada")
    assert (ada["isMember"], ada["wouldMatch"], ada["profile"]["externalId"]) == (True, True, "ada")
    assert [(n["path"], n["matches"], n["value"]) for n in ada["nodes"]] == [
        ([], True, None),
        (["all", "0"], True, "premium"),
        (["all", "1"], True, {"count": 1}),
    ]
    assert ada["enteredAt"] is not None
    bob = await console.data("SegmentExplain", segmentId=one, profileId=(await profile(console, "bob"))["id"])
    assert (bob["isMember"], bob["enteredAt"], bob["wouldMatch"]) == (False, None, False)
    assert [n["matches"] for n in bob["nodes"]] == [False, True, False]
    assert bob["reason"] == "The profile does not meet the conditions."
    everybody = (await console.data("Segments", type="EVERYONE"))["edges"][0]["node"]["id"]
    assert (await console.data("SegmentExplain", segmentId=everybody, externalId="eve"))["isMember"]


async def profile(console: Caller, name: str) -> dict[str, Any]:
    found: dict[str, Any] = await console.data("Profile", externalId=name)
    return found


async def test_an_overlap_tells_sizes_and_shares(console: Caller) -> None:
    await shop(console)
    payers = await make_segment(console, PREMIUM, name="Payers")
    buyers = await make_segment(console, BOUGHT, name="Buyers")
    found = await console.data("SegmentOverlap", ids=[payers, buyers])
    assert [(one["segment"]["name"], one["size"]) for one in found["segments"]] == [("Payers", 2), ("Buyers", 2)]
    assert found["pairs"] == [
        {"first": {"id": payers}, "second": {"id": buyers}, "size": 1, "shareOfFirst": 0.5, "shareOfSecond": 0.5}
    ]
    assert (found["inAll"], found["inAny"]) == (1, 3)


async def test_the_catalogue_tells_what_conditions_can_be_about(console: Caller) -> None:
    await shop(console)
    found = await console.data("FieldCatalogue")
    assert (found["peopleSampled"], found["isComplete"], found["pagePaths"]) == (3, True, [])
    assert found["traits"] == [
        {
            "name": "plan",
            "seen": 3,
            "types": [{"type": "TEXT", "share": 1.0}],
            "values": [{"value": "premium", "seen": 2}, {"value": "free", "seen": 1}],
            "example": "premium",
            "valuesLeftOut": False,
        }
    ]
    assert {one["attribute"]: (one["seen"], one["values"]) for one in found["attributes"]} == {
        "EXTERNAL_ID": (3, []),
        "EMAIL": (2, []),
    }
    (event,) = found["events"]
    assert (event["name"], event["last30Days"], event["isExact"]) == ("purchase", 2, True)
    assert {p["name"]: (p["example"], p["valuesLeftOut"]) for p in event["properties"]} == {
        "value": (20, False),
        "buyer": (None, True),
    }
    (bare,) = (await console.data("FieldCatalogue", eventNames=[]))["events"]
    assert bare["properties"] is None


async def test_what_cannot_be_answered_is_refused_in_words(console: Caller) -> None:
    await shop(console)
    one = await make_segment(console)
    wrong: list[tuple[str, dict[str, Any], str, list[str]]] = [
        ("SegmentEstimate", {"input": {}}, "ONE_DEFINITION", ["definition"]),
        ("SegmentEstimate", {"input": {"definition": {"any": []}}}, "INVALID_VALUE", ["definition", "any"]),
        ("SegmentEstimate", {"input": {"definition": PREMIUM, "topic": ""}}, "BLANK", ["topic"]),
        ("SegmentEstimate", {"input": {"definition": PREMIUM, "brandId": "brd_" + "0" * 32}}, "NOT_FOUND", ["brandId"]),
        ("SegmentExplain", {"segmentId": one}, "ONE_PROFILE", ["profileId"]),
        ("SegmentExplain", {"segmentId": one, "externalId": "nobody"}, "NOT_FOUND", ["externalId"]),
        ("SegmentExplain", {"segmentId": one, "profileId": "prf_999999"}, "NOT_FOUND", ["profileId"]),
        ("SegmentExplain", {"segmentId": "seg_" + "0" * 32, "externalId": "ada"}, "NOT_FOUND", ["segmentId"]),
        ("SegmentOverlap", {"ids": [one]}, "INVALID_NUMBER", ["ids"]),
        ("SegmentOverlap", {"ids": [one, "cmp_1"]}, "INVALID_ID", ["ids", "1"]),
        ("FieldCatalogue", {"eventNames": ["x"] * 21}, "TOO_MANY_ITEMS", ["eventNames"]),
    ]
    for operation, given, code, field in wrong:
        found = await console.error(operation, **given)
        assert (found["code"], found["field"]) == (code, field), (operation, given)


async def test_other_tenants_learn_nothing(console: Caller, foreigner: Caller) -> None:
    await shop(console)
    one = await make_segment(console, PREMIUM)
    unknown = one[:-1] + ("1" if one.endswith("0") else "0")
    assert (await foreigner.error("SegmentExplain", segmentId=one, externalId="ada"))["code"] == "NOT_FOUND"
    assert (await foreigner.error("SegmentOverlap", ids=[one, unknown]))["code"] == "NOT_FOUND"
    assert (await foreigner.error("SegmentEstimate", input={"definition": {"inSegment": one}}))["code"] == "NOT_FOUND"
    assert (await foreigner.data("SegmentEstimate", input={"definition": PREMIUM}))["size"] == 0
    assert (await foreigner.data("FieldCatalogue"))["traits"] == []
