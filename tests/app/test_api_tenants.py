"""Tenant isolation over the API (delivery.md T-25): what another workspace has is not there, in every position."""

from typing import Any

import pytest

from tests.app.caller import Caller
from tests.app.test_api_banners import placement, show
from tests.app.test_api_campaigns import EMAIL, everyone, instant, make, people


@pytest.fixture
async def theirs(foreigner: Caller) -> dict[str, str]:
    """Ids of everything that another tenant has, by kind."""
    await people(foreigner, "ada")
    segment = (await foreigner.data("SegmentCreate", input={"name": "VIPs", "type": "STATIC"}))["segment"]["id"]
    await foreigner.data("SegmentActivate", input={"id": segment})
    await foreigner.data("SegmentMembersAdd", input={"id": segment, "externalIds": ["ada"]})
    dynamic = (
        await foreigner.data(
            "SegmentCreate", input={"name": "D", "type": "DYNAMIC", "definition": {"identified": True}}
        )
    )["segment"]["id"]
    evaluation = (await foreigner.data("SegmentActivate", input={"id": dynamic}))["evaluation"]["id"]
    campaign = await make(foreigner)
    test = await foreigner.data("CampaignTestSend", input={"id": campaign, "segmentId": segment})
    return {
        "workspace": (await foreigner.data("Workspace"))["id"],
        "brand": (await foreigner.data("BrandCreate", input={"name": "Acme"}))["brand"]["id"],
        "profile": (await foreigner.data("Profile", externalId="ada"))["id"],
        "segment": segment,
        "dynamic": dynamic,
        "everyone": await everyone(foreigner),
        "evaluation": evaluation,
        "campaign": campaign,
        "dispatch": test["dispatch"]["id"],
        "sender": (await foreigner.data("Senders"))[0]["id"],
        "placement": await placement(foreigner),
        "key": (await foreigner.data("ApiKeys"))["edges"][0]["node"]["id"],
    }


async def test_no_foreign_id_is_found(console: Caller, foreigner: Caller, theirs: dict[str, str]) -> None:
    assert await console.data("Nodes", ids=list(theirs.values())) == [None] * len(theirs)
    assert None not in await foreigner.data("Nodes", ids=list(theirs.values()))
    assert await console.data("Segment", id=theirs["segment"]) is None
    assert await console.data("SegmentMembers", id=theirs["segment"]) is None
    assert await console.data("SegmentEvaluations", id=theirs["dynamic"]) is None
    assert await console.data("Evaluation", id=theirs["evaluation"]) is None
    assert await console.data("Campaign", id=theirs["campaign"]) is None
    assert await console.data("Profile", id=theirs["profile"]) is None
    assert await console.data("Profile", externalId="ada") is None
    assert await console.data("Placement", id=theirs["placement"]) is None
    assert await console.data("Placement", key="home-top") is None
    assert (await console.data("Deliveries", campaignId=theirs["campaign"]))["edges"] == []
    assert (await console.error("CampaignDryRun", id=theirs["campaign"]))["code"] == "NOT_FOUND"
    for name in ("segment", "everyone"):
        found = await console.error("IsMember", segmentId=theirs[name], externalId="ada")
        assert found["code"] == "NOT_FOUND"


async def test_no_list_holds_a_foreign_row(console: Caller, theirs: dict[str, str]) -> None:
    assert [e["node"]["type"] for e in (await console.data("Segments"))["edges"]] == ["EVERYONE"]
    for operation in ("Campaigns", "Profiles"):
        assert (await console.data(operation))["edges"] == []
    assert (await console.data("Profiles", search="ada@example.com"))["edges"] == []
    for operation in ("Senders", "Placements", "Brands"):
        assert await console.data(operation) == []


async def everything(caller: Caller) -> list[Any]:
    """What a tenant has; without the time at which EVERYONE was counted, which is now."""
    found = [await caller.data(name) for name in ("Segments", "Campaigns", "Profiles", "Placements")]
    for edge in found[0]["edges"]:
        del edge["node"]["lastEvaluatedAt"]
    return found


async def test_no_mutation_touches_a_foreign_thing(console: Caller, foreigner: Caller, theirs: dict[str, str]) -> None:
    before = await everything(foreigner)
    segment, campaign = theirs["segment"], theirs["campaign"]
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("SegmentUpdate", {"id": segment, "name": "x"}),
        *((name, {"id": segment}) for name in (
            "SegmentActivate", "SegmentPause", "SegmentUnpublish", "SegmentArchive", "SegmentDuplicate",
            "SegmentDelete",
        )),
        ("SegmentEvaluate", {"id": theirs["dynamic"]}),
        ("SegmentMembersAdd", {"id": segment, "externalIds": ["ada"]}),
        ("SegmentMembersRemove", {"id": segment, "externalIds": ["ada"]}),
        ("SegmentMembersImport", {"id": segment, "text": "external_id\nada\n"}),
        ("CampaignUpdate", {"id": campaign, "name": "x"}),
        ("CampaignSchedule", {"id": campaign, "at": instant(hours=1)}),
        *((name, {"id": campaign}) for name in (
            "CampaignUnschedule", "CampaignSend", "CampaignCancel", "CampaignPause", "CampaignResume",
            "CampaignReactivate", "CampaignDuplicate", "CampaignDelete",
        )),
        ("CampaignTestSend", {"id": campaign, "externalIds": ["ada"]}),
        ("InDoubtResolve", {"campaignId": campaign, "as": "SENT"}),
        ("PlacementUpdate", {"id": theirs["placement"], "name": "x"}),
        (
            "ConsentUpdate",
            {"profileId": theirs["profile"], "channel": "EMAIL", "topic": "t", "status": "UNSUBSCRIBED"},
        ),
    ]  # fmt: skip
    for operation, wanted in attempts:
        code, _ = await console.refusal(operation, input=wanted)
        assert code == "NOT_FOUND", operation
    assert await everything(foreigner) == before


async def test_no_input_may_name_a_foreign_thing(console: Caller, theirs: dict[str, str]) -> None:
    email = {"name": "a", "content": {"email": EMAIL}}
    banner = {"name": "a", "content": {"banner": {"title": "a"}}, "weight": 1}
    mine = await make(console)
    attempts: list[tuple[str, dict[str, Any], str]] = [
        ("CampaignCreate", email | {"segmentIds": [theirs["segment"]]}, "segmentIds"),
        ("CampaignCreate", email | {"segmentIds": [theirs["everyone"]]}, "segmentIds"),
        ("CampaignCreate", email | {"excludedSegmentIds": [theirs["segment"]]}, "excludedSegmentIds"),
        ("CampaignCreate", email | {"senderId": theirs["sender"]}, "senderId"),
        ("CampaignCreate", email | {"brandId": theirs["brand"]}, "brandId"),
        ("CampaignCreate", banner | {"placementId": theirs["placement"]}, "placementId"),
        ("CampaignUpdate", {"id": mine, "segmentIds": [theirs["segment"]]}, "segmentIds"),
        ("CampaignTestSend", {"id": mine, "segmentId": theirs["segment"]}, "segmentId"),
        ("CampaignTestSend", {"id": mine, "externalIds": ["ada"]}, "externalIds"),
        ("SegmentCreate", {"name": "a", "type": "STATIC", "brandId": theirs["brand"]}, "brandId"),
        ("ProfileUpsert", {"externalId": "bob", "brandIds": [theirs["brand"]]}, "brandIds"),
        (
            "SenderCreate",
            {"fromName": "a", "fromAddress": "a@b.example.com", "postalAddress": "c", "brandId": theirs["brand"]},
            "brandId",
        ),
    ]
    for operation, wanted, field in attempts:
        code, path = await console.refusal(operation, input=wanted)
        assert (code, path and path[:2]) == ("NOT_FOUND", ["input", field]), operation
    assert await console.data("Profile", externalId="bob") is None
    assert [e["node"]["id"] for e in (await console.data("Campaigns"))["edges"]] == [mine]


async def test_names_are_a_tenants_own(console: Caller, foreigner: Caller, theirs: dict[str, str]) -> None:
    """The same external id, brand and placement in two workspaces are two."""
    await people(console, "ada")
    await console.data("BrandCreate", input={"name": "Acme"})
    mine = await show(console, "Mine")
    other = await show(foreigner, "Theirs")
    assert mine != other
    assert (await console.data("Profile", externalId="ada"))["id"] != theirs["profile"]
    answer = await console.data("Banners", placements=["home-top"])
    assert answer["placements"][0]["banner"]["id"] == mine
