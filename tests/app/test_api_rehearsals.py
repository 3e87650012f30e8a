"""Trying a campaign through the public API: counts after every gate, and copies to a few."""

import pytest

from campaigns import runs
from campaigns.carrier import Run
from campaigns.errors import CampaignError
from campaigns.models import Campaign, Dispatch, DispatchKind
from channels.base import Outcome, OutcomeKind
from db.transactions import transaction
from tests.app.caller import Caller
from tests.app.test_api_banners import show
from tests.app.test_api_campaigns import make, people, work
from tests.campaigns.factories import TRY_LATER, ScriptedChannel


async def segment_of(console: Caller, name: str, *members: str) -> str:
    segment: str = (await console.data("SegmentCreate", input={"name": name, "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment})
    await console.data("SegmentMembersAdd", input={"id": segment, "externalIds": list(members)})
    return segment


async def test_a_dry_run_counts_after_every_gate_what_the_send_then_does(console: Caller) -> None:
    """The same SELECT as the ledger's: audience, spared, without an address, and each reason."""
    await people(console, "ada", "bob", "cyd", "dan", "eve")
    await console.data("ProfileUpsert", input={"externalId": "twin", "email": "ada@example.com"})
    await console.data("ProfileUpsert", input={"externalId": "nobody"})
    bob = (await console.data("Profile", externalId="bob"))["id"]
    refusal = {"profileId": bob, "channel": "EMAIL", "topic": "marketing", "status": "UNSUBSCRIBED"}
    await console.data("ConsentUpdate", input=refusal)
    await console.data("SuppressionAdd", input={"channel": "EMAIL", "address": "cyd@example.com"})
    spared = await segment_of(console, "spared", "eve")
    one = await make(console, excludedSegmentIds=[spared])
    dry = await console.data("CampaignDryRun", id=one)
    assert dry == {
        "audience": 6,
        "reachable": 2,
        "noAddress": 1,
        "skipped": [
            {"reason": "DUPLICATE_ADDRESS", "messages": 1},
            {"reason": "SUPPRESSED", "messages": 1},
            {"reason": "UNSUBSCRIBED", "messages": 1},
        ],
    }
    assert (await console.data("Campaign", id=one))["progress"] is None
    await console.data("CampaignSend", input={"id": one})
    channel = await work(console, one)
    assert channel.recipients == ["ada@example.com", "dan@example.com"]
    progress = (await console.data("Campaign", id=one))["progress"]
    skipped = [{"reason": row["reason"], "messages": row["messages"]} for row in progress["reasons"]]
    assert sorted(skipped, key=lambda row: row["reason"]) == dry["skipped"]
    assert (progress["audience"], progress["noAddress"], progress["sent"]) == (6, 1, 2)


async def test_a_banner_has_no_dry_run(console: Caller) -> None:
    """It is sent to nobody, so that there is nothing to count."""
    one = await show(console, "Sale")
    error = await console.error("CampaignDryRun", id=one)
    assert (error["code"], error["field"]) == ("NOT_FOR_THIS_CHANNEL", ["id"])


async def test_a_test_goes_to_a_segment_marked_and_leaves_no_trace_on_the_campaign(console: Caller) -> None:
    """S3-22: colleagues get it whatever their consent; the real send counts none of it."""
    await people(console, "ada", "bob", "cyd")
    team = await segment_of(console, "team", "ada", "bob")
    one = await make(console, ratePerSecond=1)
    before = await console.data("Campaign", id=one)
    run = (await console.data("CampaignTestSend", input={"id": one, "segmentId": team}))["dispatch"]
    channel = await work(console, one)
    assert channel.recipients == ["ada@example.com", "bob@example.com"]
    assert all(b"\r\nSubject: [Test] News for " in message.data for message in channel.received)
    after = await console.data("Campaign", id=one)
    (test,) = after.pop("tests")
    assert (test["id"], test["progress"]["sent"]) == (run["id"], 2)
    assert after == {name: value for name, value in before.items() if name != "tests"}
    await console.data("CampaignUpdate", input={"id": one, "ratePerSecond": None})
    await console.data("CampaignSend", input={"id": one})
    assert len((await work(console, one)).received) == 3
    assert (await console.data("Campaign", id=one))["progress"]["sent"] == 3


async def test_a_test_that_is_refused_pauses_nothing(console: Caller) -> None:
    await people(console, *(f"p{number:02}" for number in range(100)))
    one = await make(console)
    team = await segment_of(console, "team", *(f"p{number:02}" for number in range(100)))
    await console.data("CampaignTestSend", input={"id": one, "segmentId": team})
    refused = Outcome(OutcomeKind.REFUSED, "POLICY", "DATA", "550 5.7.1 no")
    channel = await work(console, one, ScriptedChannel(lambda message: refused))
    assert len(channel.received) == 100
    campaign = await console.data("Campaign", id=one)
    assert (campaign["status"], campaign["statusReason"]) == ("DRAFT", None)
    assert campaign["tests"][0]["progress"]["failed"] == 100


async def test_a_test_whose_content_is_refused_says_so_and_leaves_the_campaign_alone(
    console: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a version that knows better than the one which took it: the campaign goes on, its test does not."""
    await people(console, "ada", "bob")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    first = ScriptedChannel(lambda message: TRY_LATER)
    await work(console, one, first)
    await console.data("CampaignTestSend", input={"id": one, "externalIds": ["ada"]})
    before = await console.data("Campaign", id=one)

    compiled_email = runs.compiled_email

    def refuse_tests(campaign: Campaign, dispatch: Dispatch) -> Run:
        if dispatch.kind is DispatchKind.TEST:
            raise CampaignError("TEMPLATE_NOT_ALLOWED", "No.", field=("content", "html"))
        return compiled_email(campaign, dispatch)

    monkeypatch.setattr(runs, "compiled_email", refuse_tests)
    (test,) = before["tests"]
    assert (await work(console, one)).received == []
    after = await console.data("Campaign", id=one)
    (ended,) = after["tests"]
    assert ended["finishedAt"] is not None
    assert (test["progress"]["pending"], ended["progress"]["skipped"]) == (0, 1)
    assert [reason["reason"] for reason in ended["progress"]["reasons"]] == ["CONTENT_REFUSED"]
    assert (after["status"], after["statusReason"]) == ("SENDING", None)


async def test_a_test_is_sent_while_its_campaign_waits_for_a_segment(console: Caller) -> None:
    """S3-22: however long that takes; somebody has to let a held evaluation through."""
    await people(console, "ada", "bob")
    wanted = {"name": "Dynamic", "type": "DYNAMIC", "definition": {"identified": True}}
    segment = (await console.data("SegmentCreate", input=wanted))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment})
    one = await make(console, segmentIds=[segment])
    await console.data("CampaignSend", input={"id": one})
    await console.data("CampaignTestSend", input={"id": one, "externalIds": ["ada"]})
    assert (await work(console, one)).recipients == ["ada@example.com"]
    campaign = await console.data("Campaign", id=one)
    assert (campaign["status"], campaign["statusReason"]) == ("PREPARING", "AWAITS_EVALUATION")
    assert campaign["tests"][0]["finishedAt"] is not None


async def test_a_test_that_nobody_was_at_for_long_is_not_sent(console: Caller) -> None:
    """R11: put back from a backup, its messages may have left before."""
    await people(console, "ada")
    one = await make(console)
    await console.data("CampaignTestSend", input={"id": one, "externalIds": ["ada"]})
    async with transaction(console.workspace_id) as connection:
        await connection.execute("UPDATE dispatch SET heartbeat_at = now() - interval '20 min'")
    assert (await work(console, one)).received == []
    campaign = await console.data("Campaign", id=one)
    (test,) = campaign["tests"]
    assert (campaign["status"], test["progress"]["skipped"]) == ("DRAFT", 1)
    assert test["finishedAt"] is not None
    assert [reason["reason"] for reason in test["progress"]["reasons"]] == ["SILENT"]
    # Another one goes.
    await console.data("CampaignTestSend", input={"id": one, "externalIds": ["ada"]})
    assert (await work(console, one)).recipients == ["ada@example.com"]
