"""Who gets what, and until when, through the public API: groups with their own offers, what expires, what is spared."""

import asyncio
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from time import monotonic
from typing import Any
from uuid import UUID

from campaigns import control, sending
from db.transactions import transaction
from tests.app.caller import Caller
from tests.app.test_api_campaigns import EMAIL, instant, make, people, work
from tests.app.test_api_push_sending import prepare, sinks_for
from tests.app.test_api_rehearsals import segment_of
from tests.campaigns.factories import ScriptedChannel, carrier

OFFER = '{% if profile.plan == "premium" %}Thank you{% else %}Half price{% endif %}'
PREMIUM = {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}}


def key_of(campaign_id: str) -> UUID:
    return UUID(hex=campaign_id.removeprefix("cmp_"))


async def state(console: Caller, campaign_id: str) -> tuple[str, str | None]:
    campaign = await console.data("Campaign", id=campaign_id)
    return campaign["status"], campaign["statusReason"]


async def test_groups_get_their_own_offer_at_their_own_time_over_their_own_channel(console: Caller) -> None:
    """S3-04, S3-17, S4-13: one mail for a person in two segments; a segment serves campaigns and an experiment."""
    profiles = [
        {"externalId": name, "email": f"{name}@example.com", "traits": {"plan": plan}}
        for name, plan in (("ada", "premium"), ("bob", "free"), ("cyd", "free"))
    ]
    await console.data("ProfilesUpsert", input={"profiles": profiles})
    team = await segment_of(console, "team", "ada", "bob")
    payers = await segment_of(console, "payers", "ada")
    now = await make(console, segmentIds=[team, payers], content={"email": EMAIL | {"subject": OFFER}})
    await console.data("CampaignSend", input={"id": now})
    received = (await work(console, now)).received
    subjects = [(one.recipient, message_from_bytes(one.data, policy=policy.default)["Subject"]) for one in received]
    assert sorted(subjects) == [("ada@example.com", "Thank you"), ("bob@example.com", "Half price")]

    later = await make(console, segmentIds=[team], excludedSegmentIds=[payers])
    wanted = {"id": later, "wallTime": "2031-12-24T09:00", "timeZone": "Asia/Tokyo"}
    assert (await console.data("CampaignSchedule", input=wanted))["campaign"]["scheduledAt"] == "2031-12-24T00:00:00Z"
    assert (await console.data("CampaignDryRun", id=later))["reachable"] == 1

    async with sinks_for({}) as sinks:
        phones = [(name, "FCM", "ANDROID", f"phone of {name}") for name in ("ada", "bob", "cyd")]
        push = await prepare(console, *phones)
        made = (await console.data("CampaignCreate", input=push | {"segmentIds": [payers]}))["campaign"]["id"]
        await console.data("CampaignSend", input={"id": made})
        await sinks.work(console, made)
        assert sinks.shown.keys() == {"phone of ada"}
    checks = await console.data("AreMembers", segmentId=payers, externalIds=["ada", "bob"])
    assert [one["member"] for one in checks] == [True, False]


async def test_mail_stops_at_its_expiry(console: Caller) -> None:
    """S3-25, S3-26: what is under way ends, the rest is skipped; what expires before its start has failed."""
    await people(console, "ada", "bob", "cyd")
    one = await make(console, expiresAt=instant(days=2))
    await console.data("CampaignSend", input={"id": one})
    channel = ScriptedChannel()
    channel.go.clear()
    turn: dict[str, Any] = {"now": datetime.now(UTC), "until": monotonic() + 60}
    worker = asyncio.create_task(
        sending.deliver(console.workspace_id, key_of(one), carrier=carrier(channel, concurrency=1), **turn)
    )
    await channel.until_received(1)
    async with transaction(console.workspace_id) as connection:
        await connection.execute("UPDATE campaign SET expires_at = now()")
    channel.go.set()
    await worker
    await work(console, one, channel)
    assert channel.recipients == ["ada@example.com"]
    skipped = (await console.data("Deliveries", campaignId=one, status="SKIPPED"))["edges"]
    assert [edge["node"]["reason"] for edge in skipped] == ["EXPIRED"] * 2
    assert await state(console, one) == ("SENT", None)

    late = await make(console, expiresAt=instant(hours=2))
    await console.data("CampaignSchedule", input={"id": late, "at": instant(hours=1)})
    await control.act_on_time(console.workspace_id, key_of(late), now=datetime.now(UTC) + timedelta(hours=3))
    assert await state(console, late) == ("FAILED", "EXPIRED")


async def test_whom_to_spare_must_be_known_before_anybody_is_mailed(console: Caller) -> None:
    """R1: a segment to spare that was never evaluated, and of which nobody asks for an evaluation, stops the start."""
    await people(console, "ada")
    wanted = {"name": "Spared", "type": "DYNAMIC", "definition": PREMIUM}
    spared = (await console.data("SegmentCreate", input=wanted))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": spared})
    one = await make(console, excludedSegmentIds=[spared], refreshBefore=False)
    refused = ("SEGMENT_NOT_EVALUATED", ["input", "excludedSegmentIds", "0"])
    assert await console.refusal("CampaignSend", input={"id": one}) == refused
    assert await state(console, one) == ("DRAFT", None)


async def test_a_segment_of_a_brand_is_for_its_campaigns_only(console: Caller) -> None:
    """S1-02: no target for another brand's, nor for one of all brands, also when it came to its brand later. What was
    sent to it before can be copied all the same."""
    brands = [(await console.data("BrandCreate", input={"name": name}))["brand"]["id"] for name in ("Shoes", "Hats")]
    wanted = {"name": "Feet", "type": "STATIC", "brandId": brands[0]}
    feet = (await console.data("SegmentCreate", input=wanted))["segment"]["id"]
    for brand in (brands[1], None):
        one = await make(console, brandId=brand, segmentIds=[])
        for field in ("segmentIds", "excludedSegmentIds"):
            refused = ("OTHER_BRAND", ["input", field, "0"])
            assert await console.refusal("CampaignUpdate", input={"id": one, field: [feet]}) == refused
    await console.data("CampaignUpdate", input={"id": one, "brandId": brands[0], "segmentIds": [feet]})
    await console.data("SegmentActivate", input={"id": feet})
    await console.data("SegmentUpdate", input={"id": feet, "brandId": brands[1]})
    copy = (await console.data("CampaignDuplicate", input={"id": one}))["campaign"]["id"]
    assert [segment["id"] for segment in (await console.data("Campaign", id=copy))["segments"]] == [feet]
    for id in (one, copy):
        for operation, when in (("CampaignSend", {}), ("CampaignSchedule", {"at": instant(hours=1)})):
            refused = ("OTHER_BRAND", ["input", "segmentIds", "0"])
            assert await console.refusal(operation, input={"id": id} | when) == refused


async def test_a_move_that_is_not_open_says_which_are(console: Caller) -> None:
    one = await make(console)
    said = []
    for operation in (
        "CampaignCancel",
        "CampaignSend",
        "CampaignPause",
        "CampaignPause",
        "CampaignCancel",
        "CampaignPause",
    ):
        (payload,) = (await console.ask(operation, input={"id": one}))["data"].values()
        said += [error["message"] for error in payload["userErrors"]]
    assert said == [
        "A campaign that is DRAFT cannot become CANCELLED; you can submit it for approval, schedule it or send it.",
        "The campaign is PAUSED already; you can resume it or cancel it.",
        "A campaign that is CANCELLED cannot become PAUSED; you can duplicate it to start anew.",
    ]
