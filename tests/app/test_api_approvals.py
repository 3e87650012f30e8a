"""A second person approves what goes to many: who may, what takes it back, and what is held when it starts."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from campaigns import control
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller
from tests.app.test_api_banners import show
from tests.app.test_api_campaigns import complete, everyone, instant, make, people, work
from tests.app.test_api_push_sending import prepare as prepare_push
from tests.segments.factories import run_all

HTML = "<p>{{ sender.postal_address }} <a href='{{ unsubscribe_url }}'>No</a> changed</p>"


async def limited(console: Caller, above: int | None) -> None:
    changed = await console.data("WorkspaceUpdate", input={"approvalAbove": above})
    assert changed["workspace"]["approvalAbove"] == above


async def state(console: Caller, campaign: str) -> tuple[str, str | None, bool]:
    """Status, its reason, and whether it is approved."""
    found = await console.data("Campaign", id=campaign)
    approval = found["approval"]
    return found["status"], found["statusReason"], bool(approval and approval["approvedAt"])


def key_of(campaign: str) -> UUID:
    return UUID(hex=campaign.removeprefix("cmp_"))


async def test_what_goes_to_many_is_sent_when_somebody_else_has_approved_it(
    console: Caller, caller: MakeCaller, workspace: UUID
) -> None:
    """A marketer submits, a sender approves; nobody approves what they asked for, with a rotated key neither."""
    await people(console, "ada", "bob", "cyd")
    marketer, sender = await caller(workspace, "campaigns"), await caller(workspace, "send", "admin")
    one = await make(console)
    await limited(console, 2)
    for operation, more in (("CampaignSend", {}), ("CampaignSchedule", {"at": instant(hours=1)})):
        answer = await sender.ask(operation, input={"id": one} | more)
        (error,) = next(iter(answer["data"].values()))["userErrors"]
        assert (error["code"], error["field"]) == ("APPROVAL_MISSING", ["input", "id"])
        assert error["message"] == (
            "It goes to 3 people, and above 2 a second person has to approve. Submit it with campaignSubmitForApproval"
            " (a scheduled one after campaignUnschedule), and have somebody else approve it (campaignApprove)."
        )
    assert await state(console, one) == ("DRAFT", None, False)
    assert await sender.refusal("CampaignApprove", input={"id": one}) == ("ILLEGAL_MOVE", ["input", "id"])

    submitted = (await marketer.data("CampaignSubmitForApproval", input={"id": one}))["campaign"]
    assert (submitted["status"], submitted["approval"]["submittedAudience"]) == ("PENDING_APPROVAL", 3)
    assert submitted["approval"]["submittedBy"] == f"of a test ({(marketer.key or '')[:12]})"
    assert await marketer.refusal("CampaignSubmitForApproval", input={"id": one}) == ("ILLEGAL_MOVE", ["input", "id"])
    for name in ("CampaignApprove", "CampaignReject"):
        assert (await marketer.ask(name, input={"id": one}))["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await sender.refusal("CampaignSend", input={"id": one}) == ("APPROVAL_MISSING", ["input", "id"])
    back = (await sender.data("CampaignReject", input={"id": one, "reason": "Too long."}))["campaign"]
    assert (back["status"], back["statusReason"], back["approval"]) == ("DRAFT", "REJECTED", None)
    assert back["statusDetail"] == f"of a test ({(sender.key or '')[:12]}): Too long."
    assert await sender.refusal("CampaignReject", input={"id": one}) == ("ILLEGAL_MOVE", ["input", "id"])

    await console.data("CampaignSubmitForApproval", input={"id": one})
    assert await console.refusal("CampaignApprove", input={"id": one}) == ("SAME_PERSON", ["input", "id"])
    key = next(e["node"] for e in (await console.data("ApiKeys"))["edges"] if e["node"]["prefix"] == console.key[:12])  # type: ignore[index]
    turned = await console.data("ApiKeyRotate", input={"id": key["id"]})
    rotated = Caller(console.http, workspace, turned["secret"])
    assert await rotated.refusal("CampaignApprove", input={"id": one}) == ("SAME_PERSON", ["input", "id"])
    approval = (await sender.data("CampaignApprove", input={"id": one}))["campaign"]["approval"]
    changed = await console.post("query ($id: ID!) { campaign(id: $id) { updatedAt } }", {"id": one})
    assert changed.json()["data"]["campaign"]["updatedAt"] == approval["approvedAt"]
    assert (approval["approvedAudience"], approval["approvedBy"]) == (3, f"of a test ({(sender.key or '')[:12]})")
    assert await state(console, one) == ("PENDING_APPROVAL", None, True)
    assert (await console.data("CampaignSend", input={"id": one}))["campaign"]["status"] == "PREPARING"
    assert len((await work(console, one)).recipients) == 3
    log = [e["node"]["action"] for e in (await console.data("AuditLog", object=one))["edges"]]
    assert {"campaignSubmitForApproval", "campaignApprove", "campaignReject", "campaignSend"} <= set(log)


async def test_who_paused_a_campaign_asked_for_no_approval(
    console: Caller, caller: MakeCaller, workspace: UUID
) -> None:
    """A word given beforehand would cover whatever it turns out to need."""
    await people(console, "ada")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    await console.data("CampaignPause", input={"id": one})
    sender = await caller(workspace, "send")
    assert await sender.refusal("CampaignApprove", input={"id": one}) == ("ILLEGAL_MOVE", ["input", "id"])


async def test_who_names_the_same_segments_again_edits_nothing(
    console: Caller, caller: MakeCaller, workspace: UUID
) -> None:
    """In whichever order: of a form that is sent whole only the name was changed."""
    await people(console, "ada")
    segments = []
    for name in ("a", "b"):
        made = await console.data("SegmentCreate", input={"name": name, "type": "STATIC"})
        segments.append(made["segment"]["id"])
        await console.data("SegmentActivate", input={"id": segments[-1]})
    one = await make(console, segmentIds=segments)
    await console.data("CampaignSubmitForApproval", input={"id": one})
    await (await caller(workspace, "send")).data("CampaignApprove", input={"id": one})
    for named in (segments, segments[::-1]):
        await console.data("CampaignUpdate", input={"id": one, "name": "Renamed", "segmentIds": named})
        assert await state(console, one) == ("PENDING_APPROVAL", None, True)
    await console.data("CampaignUpdate", input={"id": one, "segmentIds": segments[:1]})
    assert await state(console, one) == ("DRAFT", "EDITED", False)


async def test_an_edit_takes_the_approval_away(console: Caller, caller: MakeCaller, workspace: UUID) -> None:
    """Of what it says or to whom, waiting or scheduled; its name, or the time it starts, are nobody's second look."""
    await people(console, "ada", "bob", "cyd")
    await limited(console, 0)
    sender = await caller(workspace, "send")
    one = await make(console)
    content: dict[str, Any] = {"content": {"email": {"subject": "Other", "html": HTML}}}

    async def approved(*, schedule: bool) -> None:
        await console.data("CampaignSubmitForApproval", input={"id": one})
        await sender.data("CampaignApprove", input={"id": one})
        if schedule:
            await console.data("CampaignSchedule", input={"id": one, "at": instant(hours=1)})

    await approved(schedule=False)
    await console.data("CampaignUpdate", input={"id": one, "name": "Renamed", "ratePerSecond": 5})
    assert await state(console, one) == ("PENDING_APPROVAL", None, True)
    await console.data("CampaignUpdate", input={"id": one} | content)
    assert await state(console, one) == ("DRAFT", "EDITED", False)
    await approved(schedule=True)
    await console.data("CampaignUpdate", input={"id": one, "excludedSegmentIds": []} | content)  # as it was
    assert await state(console, one) == ("SCHEDULED", None, True)
    await console.data("CampaignUpdate", input={"id": one, "topic": "other"})
    assert await state(console, one) == ("DRAFT", "EDITED", False)
    assert (await console.data("Campaign", id=one))["scheduledAt"] is None
    # Taken back without an edit it is as it was approved; what only waited waits no more.
    await approved(schedule=True)
    await console.data("CampaignUnschedule", input={"id": one})
    assert await state(console, one) == ("DRAFT", None, True)
    await console.data("CampaignUpdate", input={"id": one, "topic": "another"})
    assert await state(console, one) == ("DRAFT", None, False)
    assert await sender.refusal("CampaignSend", input={"id": one}) == ("APPROVAL_MISSING", ["input", "id"])
    await console.data("CampaignSubmitForApproval", input={"id": one})
    await sender.data("CampaignUnschedule", input={"id": one})
    assert await state(console, one) == ("DRAFT", None, False)


async def test_a_segment_that_is_redefined_afterwards_is_looked_at_again(
    console: Caller, caller: MakeCaller, workspace: UUID
) -> None:
    """Though it has as many members as before; also one that the campaign's segment refers to."""
    await people(console, "ada", "bob")
    await limited(console, 0)
    sender = await caller(workspace, "send")
    made: list[str] = []
    for name in ("inner", "outer"):
        definition = {"inSegment": made[0]} if made else {"identified": True}
        wanted = {"name": name, "type": "DYNAMIC", "definition": definition}
        made.append((await console.data("SegmentCreate", input=wanted))["segment"]["id"])
        await console.data("SegmentActivate", input={"id": made[-1]})
        await run_all(workspace, now=datetime.now(UTC))
    one = await make(console, segmentIds=[made[1]], refreshBefore=False)
    await console.data("CampaignSubmitForApproval", input={"id": one})
    await sender.data("CampaignApprove", input={"id": one})
    everybody: dict[str, Any] = {"not": {"identified": False}}
    await console.data("SegmentUpdate", input={"id": made[0], "definition": everybody})
    await run_all(workspace, now=datetime.now(UTC))
    answer = await console.ask("CampaignSend", input={"id": one})
    (error,) = answer["data"]["campaignSend"]["userErrors"]
    assert error["code"] == "APPROVAL_MISSING"
    assert "One of its segments was redefined since it was approved. It was approved for 2." in error["message"]
    await sender.data("CampaignApprove", input={"id": one})
    assert (await console.data("CampaignSend", input={"id": one}))["campaign"]["status"] == "PREPARING"


async def test_nobody_approves_something_else_than_they_read(
    console: Caller, caller: MakeCaller, workspace: UUID
) -> None:
    """Between looking and approving it was edited and submitted anew, which leaves it waiting as before."""
    await people(console, "ada", "bob")
    await limited(console, 1)
    sender = await caller(workspace, "send")
    one = await make(console)
    read = (await console.data("CampaignSubmitForApproval", input={"id": one}))["campaign"]["approval"]["revision"]
    await console.data("CampaignUpdate", input={"id": one, "content": {"email": {"subject": "Other", "html": HTML}}})
    await console.data("CampaignSubmitForApproval", input={"id": one})
    answer = await sender.ask("CampaignApprove", input={"id": one, "revision": read})
    (error,) = answer["data"]["campaignApprove"]["userErrors"]
    assert (error["code"], error["field"]) == ("REVISED", ["input", "revision"])
    assert "Read the campaign again" in error["message"]
    assert await state(console, one) == ("PENDING_APPROVAL", None, False)
    revision = (await sender.data("Campaign", id=one))["approval"]["revision"]
    done = (await sender.data("CampaignApprove", input={"id": one, "revision": revision}))["campaign"]["approval"]
    assert (done["revision"], done["approvedAudience"]) == (revision, 2)


async def test_whoever_edits_what_is_scheduled_cannot_approve_it_when_it_is_held(
    console: Caller, caller: MakeCaller, workspace: UUID
) -> None:
    """Scheduled by one for few, turned by another to say something else to everybody: the first has to look at that."""
    await people(console, "ada", "bob", "cyd")
    await limited(console, 2)
    editor = await caller(workspace, "campaigns", "send")
    few = (await console.data("SegmentCreate", input={"name": "S", "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": few})
    one = await make(console, segmentIds=[few])
    await console.data("CampaignSchedule", input={"id": one, "at": instant(hours=1)})
    many = await everyone(console)
    changes = {"segmentIds": [many], "content": {"email": {"subject": "Other", "html": HTML}}}
    await editor.data("CampaignUpdate", input={"id": one} | changes)
    assert await state(console, one) == ("SCHEDULED", None, False)
    await control.act_on_time(workspace, key_of(one), now=datetime.now(UTC) + timedelta(hours=2))
    assert await state(console, one) == ("PAUSED", "APPROVAL_MISSING", False)
    assert await editor.refusal("CampaignApprove", input={"id": one}) == ("SAME_PERSON", ["input", "id"])
    await console.data("CampaignApprove", input={"id": one})
    assert (await editor.data("CampaignResume", input={"id": one}))["campaign"]["status"] == "PREPARING"


async def test_a_schedule_whose_audience_grew_waits_for_a_second_person(
    console: Caller, caller: MakeCaller, workspace: UUID
) -> None:
    """Nothing leaves; whoever scheduled it cannot approve it. So with one that grew by more than a tenth since it was
    approved, and with one whose segments are evaluated when it starts."""
    await people(console, "ada", "bob")
    await limited(console, 2)
    sender = await caller(workspace, "send")
    small, large = await make(console), await make(console)
    dynamic = {"name": "D", "type": "DYNAMIC", "definition": {"identified": True}, "cadence": "NEVER"}
    segment = (await console.data("SegmentCreate", input=dynamic))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment})
    unknown = await make(console, segmentIds=[segment])
    for one in (small, unknown):
        await console.data("CampaignSchedule", input={"id": one, "at": instant(hours=1)})
    await limited(console, 1)
    await console.data("CampaignSubmitForApproval", input={"id": large})
    await sender.data("CampaignApprove", input={"id": large})
    await console.data("CampaignSchedule", input={"id": large, "at": instant(hours=1)})
    await people(console, "cyd")
    await limited(console, 2)
    later = datetime.now(UTC) + timedelta(hours=2)
    for one in (small, large, unknown):
        await control.act_on_time(workspace, key_of(one), now=later)
    assert await state(console, small) == ("PAUSED", "APPROVAL_MISSING", False)
    assert await state(console, large) == ("PAUSED", "APPROVAL_MISSING", True)
    assert (await console.data("Campaign", id=small))["statusDetail"] == (
        "It goes to 3 people, and above 2 a second person has to approve. Have somebody else approve it"
        " (campaignApprove), then resume it."
    )
    assert "It was approved for 2." in (await console.data("Campaign", id=large))["statusDetail"]
    # It waits for its segment; nobody knows yet.
    assert await state(console, unknown) == ("PREPARING", "AWAITS_EVALUATION", False)
    assert (await work(console, small)).recipients == []
    for one in (small, large):
        assert await console.refusal("CampaignResume", input={"id": one}) == ("APPROVAL_MISSING", ["input", "id"])
    assert await console.refusal("CampaignApprove", input={"id": small}) == ("SAME_PERSON", ["input", "id"])
    for one in (small, large):
        await sender.data("CampaignApprove", input={"id": one})
        assert (await console.data("CampaignResume", input={"id": one}))["campaign"]["status"] == "PREPARING"
        assert len((await work(console, one)).recipients) == 3


async def test_what_is_found_when_the_audience_is_frozen_is_held_too(
    console: Caller, caller: MakeCaller, workspace: UUID
) -> None:
    """The segment had two members when somebody sent it, and three once it was evaluated."""
    await people(console, "ada", "bob")
    await limited(console, 2)
    dynamic = {"name": "D", "type": "DYNAMIC", "definition": {"identified": True}, "live": False}
    segment = (await console.data("SegmentCreate", input=dynamic))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment})
    await run_all(workspace, now=datetime.now(UTC))
    one = await make(console, segmentIds=[segment])
    await people(console, "cyd")
    assert (await console.data("CampaignSend", input={"id": one}))["campaign"]["status"] == "PREPARING"
    await run_all(workspace, now=datetime.now(UTC))
    assert (await work(console, one)).recipients == []
    assert await state(console, one) == ("PAUSED", "APPROVAL_MISSING", False)
    assert await console.refusal("CampaignApprove", input={"id": one}) == ("SAME_PERSON", ["input", "id"])
    await (await caller(workspace, "send")).data("CampaignApprove", input={"id": one})
    await console.data("CampaignResume", input={"id": one})
    assert len((await work(console, one)).recipients) == 3


async def test_a_push_needs_approval_by_its_people_not_by_their_devices(
    console: Caller, caller: MakeCaller, workspace: UUID
) -> None:
    phones = [("ann", "FCM", "ANDROID", f"phone-{n}") for n in range(2)]
    wanted = await prepare_push(console, *phones)
    one, other = [(await console.data("CampaignCreate", input=wanted))["campaign"]["id"] for _ in range(2)]
    await limited(console, 1)
    assert (await console.data("CampaignSend", input={"id": one}))["campaign"]["status"] == "PREPARING"
    await people(console, "bob")
    assert await console.refusal("CampaignSend", input={"id": other}) == ("APPROVAL_MISSING", ["input", "id"])
    await console.data("CampaignSubmitForApproval", input={"id": other})
    await (await caller(workspace, "send")).data("CampaignApprove", input={"id": other})
    assert (await console.data("CampaignSend", input={"id": other}))["campaign"]["status"] == "PREPARING"


async def test_banners_need_no_approval_and_settings_have_bounds(console: Caller) -> None:
    await limited(console, 0)
    await show(console, "Sale")  # sent
    (edge,) = (await console.data("Campaigns", channel="BANNER"))["edges"]
    found = await console.refusal("CampaignSubmitForApproval", input={"id": edge["node"]["id"]})
    assert found == ("NOT_FOR_THIS_CHANNEL", ["input", "id"])
    for above in (-1, 2**31 - 1):
        answer = await console.ask("WorkspaceUpdate", input={"approvalAbove": above})
        errors = answer["data"]["workspaceUpdate"]["userErrors"]
        assert [one["code"] for one in errors] == (["OUT_OF_RANGE"] if above < 0 else [])
    await console.data("WorkspaceUpdate", input={"trackOpens": False})
    assert (await console.data("Workspace"))["approvalAbove"] == 2**31 - 1
    await limited(console, None)
    incomplete = (await console.data("CampaignCreate", input=await complete(console, senderId=None)))["campaign"]["id"]
    code, _ = await console.refusal("CampaignSubmitForApproval", input={"id": incomplete})
    assert code == "SENDER_MISSING"
