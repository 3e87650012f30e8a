"""Campaigns over GraphQL: written, tried, sent, scheduled, stopped; and everything that is refused."""

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from campaigns import sending
from tests.app.caller import Caller
from tests.campaigns.factories import ScriptedChannel, carrier

HTML = '<p>Hello {{ profile.external_id }}</p><p>{{ sender.postal_address }} <a href="{{ unsubscribe_url }}">No</a></p>'
EMAIL = {"subject": "News for {{ profile.external_id }}", "preheader": "New", "html": HTML}
NOWHERE = "0" * 32


def instant(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


async def everyone(console: Caller) -> str:
    (edge,) = (await console.data("Segments", type="EVERYONE"))["edges"]
    found: str = edge["node"]["id"]
    return found


async def sender(console: Caller) -> str:
    made = await console.data(
        "SenderCreate",
        input={"fromName": "Shop", "fromAddress": "news@shop.example.com", "postalAddress": "1 Main St, Springfield"},
    )
    found: str = made["sender"]["id"]
    return found


async def complete(console: Caller, **more: Any) -> dict[str, Any]:
    """The input of a campaign that could be sent."""
    return {
        "name": "News",
        "content": {"email": EMAIL},
        "segmentIds": [await everyone(console)],
        "senderId": await sender(console),
    } | more


async def make(console: Caller, **more: Any) -> str:
    """The id of a campaign that could be sent."""
    made = await console.data("CampaignCreate", input=await complete(console, **more))
    found: str = made["campaign"]["id"]
    return found


async def people(console: Caller, *names: str) -> None:
    profiles = [{"externalId": name, "email": f"{name}@example.com"} for name in names]
    await console.data("ProfilesUpsert", input={"profiles": profiles})


async def work(console: Caller, campaign_id: str, channel: ScriptedChannel | None = None) -> ScriptedChannel:
    """What workers do until a campaign has nothing left to send."""
    channel = channel or ScriptedChannel()
    key = UUID(hex=campaign_id.removeprefix("cmp_"))
    while await sending.deliver(
        console.workspace_id, key, carrier=carrier(channel), now=datetime.now(UTC), until=monotonic() + 10
    ):
        pass
    return channel


async def test_a_campaign_is_written_sent_and_followed_to_every_recipient(console: Caller) -> None:
    """S3-11, S3-16, S3-18, S3-23, S3-26, S3-27."""
    await people(console, "ada", "bob")
    await console.data("ProfileUpsert", input={"externalId": "no-address"})
    wanted = await complete(console)
    made = (await console.data("CampaignCreate", input=wanted))["campaign"]
    assert (made["status"], made["channel"], made["progress"]) == ("DRAFT", "EMAIL", None)
    dry = await console.data("CampaignDryRun", id=made["id"])
    assert dry == {"audience": 3, "reachable": 2, "noAddress": 1, "skipped": []}
    sent = (await console.data("CampaignSend", input={"id": made["id"]}))["campaign"]
    assert sent["status"] == "PREPARING"
    channel = await work(console, made["id"])
    assert channel.recipients == ["ada@example.com", "bob@example.com"]
    campaign = await console.data("Campaign", id=made["id"])
    assert campaign["status"] == "SENT"
    variables = [{"name": "profile.external_id", "default": None}]
    kept = {"__typename": "EmailContent", "text": "", "mjml": "", "variables": variables}
    assert campaign["content"] == kept | EMAIL
    assert [one["name"] for one in campaign["segments"]] == ["Everyone"]
    assert campaign["sender"]["id"] == wanted["senderId"]
    progress = campaign["progress"]
    assert (progress["audience"], progress["noAddress"], progress["sent"], progress["pending"]) == (3, 1, 2, 0)
    assert progress["plannedAt"] is not None
    assert progress["finishedAt"] is not None
    page = await console.data("Deliveries", campaignId=made["id"], first=1)
    (edge,) = page["edges"]
    assert (edge["node"]["status"], edge["node"]["profile"]["externalId"]) == ("SENT", "ada")
    assert page["pageInfo"]["hasNextPage"] is True
    rest = await console.data("Deliveries", campaignId=made["id"], after=page["pageInfo"]["endCursor"])
    assert [e["node"]["profile"]["externalId"] for e in rest["edges"]] == ["bob"]
    assert (await console.data("Deliveries", campaignId=made["id"], status="FAILED"))["edges"] == []


async def test_a_test_send_leaves_the_campaign_as_it_was(console: Caller) -> None:
    """S3-22."""
    await people(console, "ada", "bob")
    one = await make(console)
    run = (await console.data("CampaignTestSend", input={"id": one, "externalIds": ["ada"]}))["dispatch"]
    assert run["kind"] == "TEST"
    channel = await work(console, one)
    assert channel.recipients == ["ada@example.com"]
    campaign = await console.data("Campaign", id=one)
    assert (campaign["status"], campaign["progress"]) == ("DRAFT", None)
    (test,) = campaign["tests"]
    assert (test["id"], test["progress"]["sent"]) == (run["id"], 1)
    assert (await console.data("Node", id=run["id"]))["__typename"] == "Dispatch"


WRONG_RECIPIENTS: list[tuple[dict[str, Any], str, list[str] | None]] = [
    ({}, "TEST_RECIPIENTS", None),
    ({"externalIds": []}, "TEST_RECIPIENTS", None),
    ({"externalIds": ["ada", "nobody"]}, "NOT_FOUND", ["externalIds", "1"]),
    ({"segmentId": "seg_" + NOWHERE}, "NOT_FOUND", ["segmentId"]),
    ({"segmentId": "snd_" + NOWHERE}, "INVALID_ID", ["segmentId"]),
]


async def test_a_test_without_recipients_is_refused(console: Caller) -> None:
    wanted = {"name": "Team", "type": "DYNAMIC", "definition": {"identified": True}}
    team = (await console.data("SegmentCreate", input=wanted))["segment"]["id"]
    for more, code, field in (*WRONG_RECIPIENTS, ({"segmentId": team}, "SEGMENT_NOT_ACTIVE", ["segmentId"])):
        await people(console, "ada")
        one = await make(console)
        found, path = await console.refusal("CampaignTestSend", input={"id": one} | more)
        assert found == code
        assert field is None or path == ["input", *field]
        assert (await console.data("Campaign", id=one))["tests"] == []


async def test_a_schedule_is_made_changed_and_taken_back(console: Caller) -> None:
    """S3-24."""
    one = await make(console, expiresAt=instant(days=2))
    first = await console.data("CampaignSchedule", input={"id": one, "at": instant(hours=1), "timeZone": "Asia/Tokyo"})
    assert (first["campaign"]["status"], first["campaign"]["timeZone"]) == ("SCHEDULED", "Asia/Tokyo")
    again = await console.data("CampaignSchedule", input={"id": one, "at": instant(hours=3), "missedPolicy": "HOLD"})
    assert again["campaign"]["scheduledAt"] > first["campaign"]["scheduledAt"]
    back = await console.data("CampaignUnschedule", input={"id": one})
    assert (back["campaign"]["status"], back["campaign"]["scheduledAt"]) == ("DRAFT", None)


async def test_what_is_scheduled_stays_complete(console: Caller) -> None:
    """S3-24: an edit after which it could not start is refused, so that nobody finds out at night."""
    one = await make(console)
    await console.data("CampaignSchedule", input={"id": one, "at": instant(hours=1)})
    draft = (await console.data("SegmentCreate", input={"name": "VIPs", "type": "STATIC"}))["segment"]["id"]
    for more, code, path in (
        ({"segmentIds": []}, "SEGMENT_MISSING", ["segmentIds"]),
        ({"segmentIds": [draft]}, "SEGMENT_NOT_ACTIVE", ["segmentIds", "0"]),
        ({"senderId": None}, "SENDER_MISSING", ["senderId"]),
    ):
        assert await console.refusal("CampaignUpdate", input={"id": one} | more) == (code, ["input", *path])
    campaign = await console.data("Campaign", id=one)
    assert (campaign["status"], len(campaign["segments"]), campaign["sender"] is None) == ("SCHEDULED", 1, False)
    await console.data("CampaignUpdate", input={"id": one, "topic": "news"})
    await console.data("CampaignUnschedule", input={"id": one})
    await console.data("CampaignUpdate", input={"id": one, "segmentIds": []})


WRONG_SCHEDULES: list[tuple[dict[str, Any], str, str]] = [
    ({"at": instant(hours=-1)}, "IN_THE_PAST", "at"),
    ({"at": "0001-01-01T00:00:00Z"}, "IN_THE_PAST", "at"),
    ({"at": instant(days=3)}, "EXPIRES_BEFORE_START", "at"),
    ({"at": instant(hours=1), "timeZone": "Mars/Olympus"}, "UNKNOWN_TIME_ZONE", "timeZone"),
    ({"at": instant(hours=1), "maximumLatenessSeconds": -1}, "OUT_OF_RANGE", "maximumLatenessSeconds"),
]


async def test_a_schedule_that_cannot_be_kept_is_refused(console: Caller) -> None:
    for more, code, field in WRONG_SCHEDULES:
        one = await make(console, expiresAt=instant(days=2))
        assert await console.refusal("CampaignSchedule", input={"id": one} | more) == (code, ["input", field])
        campaign = await console.data("Campaign", id=one)
        assert (campaign["status"], campaign["scheduledAt"]) == ("DRAFT", None)


async def test_a_time_without_an_offset_is_no_time(console: Caller) -> None:
    one = await make(console)
    for at in ("2030-01-01T00:00:00", "tomorrow", 5, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        answer = await console.ask("CampaignSchedule", input={"id": one, "at": at})
        assert answer.get("data") is None
        assert "DateTime" in answer["errors"][0]["message"]


BANNER = {"title": "Sale"}


WRONG_CAMPAIGNS: list[tuple[dict[str, Any], str | None, list[str]]] = [
    ({"name": ""}, "BLANK", ["name"]),
    ({"content": {"email": EMAIL | {"subject": " "}}}, "SUBJECT_MISSING", ["content", "email", "subject"]),
    ({"content": {"email": {"subject": "a"}}}, "CONTENT_EMPTY", ["content", "email", "html"]),
    ({"content": {"email": EMAIL | {"html": HTML + "{{ open"}}}, None, ["content", "email", "html"]),
    ({"content": {"email": EMAIL | {"subject": "{% for %}"}}}, None, ["content", "email", "subject"]),
    ({"content": {"email": EMAIL | {"html": HTML + "{{ ''.__class__ }}"}}}, None, ["content", "email", "html"]),
    ({"content": {"email": EMAIL | {"text": "no link"}}}, "UNSUBSCRIBE_LINK_MISSING", ["content", "email", "text"]),
    ({"content": {"banner": {"title": " "}}}, "EMPTY", ["content", "banner", "title"]),
    (
        {"content": {"banner": BANNER | {"actionUrl": "javascript:alert(1)"}}},
        "NOT_A_URL",
        ["content", "banner", "actionUrl"],
    ),
    ({"content": {"banner": BANNER | {"data": [1]}}}, "NOT_AN_OBJECT", ["content", "banner", "data"]),
    ({"content": {"banner": BANNER}}, "PLACEMENT_MISSING", ["placementId"]),
    ({"weight": 5}, "NOT_FOR_THIS_CHANNEL", ["weight"]),
    ({"topic": "*"}, "INVALID_TOPIC", ["topic"]),
    ({"timeZone": "Mars/Olympus"}, "UNKNOWN_TIME_ZONE", ["timeZone"]),
    ({"expiresAt": instant(hours=-1)}, "IN_THE_PAST", ["expiresAt"]),
    ({"senderId": "snd_" + NOWHERE}, "NOT_FOUND", ["senderId"]),
    ({"senderId": "seg_" + NOWHERE}, "INVALID_ID", ["senderId"]),
    ({"brandId": "brd_" + NOWHERE}, "NOT_FOUND", ["brandId"]),
    ({"segmentIds": ["x"]}, "INVALID_ID", ["segmentIds"]),
    ({"excludedSegmentIds": ["cmp_" + NOWHERE]}, "INVALID_ID", ["excludedSegmentIds"]),
]


async def test_a_wrong_campaign_is_refused_and_nothing_is_made(console: Caller) -> None:
    for more, code, field in WRONG_CAMPAIGNS:
        wanted = await complete(console)
        if "banner" in more.get("content", {}):
            del wanted["senderId"]
        found, path = await console.refusal("CampaignCreate", input=wanted | more)
        assert path == ["input", *field]
        assert code is None or found == code
        assert (await console.data("Campaigns"))["edges"] == []


async def test_unknown_segments_are_refused_and_nothing_is_half_written(console: Caller) -> None:
    wanted = await complete(console)
    for name in ("segmentIds", "excludedSegmentIds"):
        code, path = await console.refusal("CampaignCreate", input=wanted | {name: ["seg_" + NOWHERE]})
        assert (code, path and path[:2]) == ("NOT_FOUND", ["input", name])
    assert (await console.data("Campaigns"))["edges"] == []


async def test_a_segment_goes_from_those_it_goes_to_to_those_it_spares(console: Caller) -> None:
    ids = []
    for name in ("a", "b", "c"):
        made = await console.data("SegmentCreate", input={"name": name, "type": "STATIC"})
        ids.append(made["segment"]["id"])
    one = await make(console, segmentIds=ids[:2], excludedSegmentIds=[ids[2]])
    wanted = {"id": one, "segmentIds": [ids[2]], "excludedSegmentIds": [ids[0]]}
    await console.data("CampaignUpdate", input=wanted)
    found = await console.data("Campaign", id=one)
    assert [segment["name"] for segment in found["segments"]] == ["c"]
    assert [segment["name"] for segment in found["excludedSegments"]] == ["a"]


INCOMPLETE: list[tuple[dict[str, Any], str | None, str]] = [
    ({"segmentIds": []}, None, "segmentIds"),
    ({"senderId": None}, "SENDER_MISSING", "senderId"),
]


async def test_an_incomplete_campaign_stays_a_draft(console: Caller) -> None:
    """S3-11: without a segment there is nobody to send to."""
    for more, code, field in INCOMPLETE:
        one = await make(console, **more)
        for operation, when in (("CampaignSend", {}), ("CampaignSchedule", {"at": instant(hours=1)})):
            found, path = await console.refusal(operation, input={"id": one} | when)
            assert path == ["input", field]
            assert code is None or found == code
        assert (await console.data("Campaign", id=one))["status"] == "DRAFT"


async def test_a_draft_or_paused_segment_cannot_be_targeted(console: Caller) -> None:
    """S2-27, S2-28."""
    segment = (await console.data("SegmentCreate", input={"name": "VIPs", "type": "STATIC"}))["segment"]["id"]
    one = await make(console, segmentIds=[segment])
    code, path = await console.refusal("CampaignSend", input={"id": one})
    assert (path or [])[:2] == ["input", "segmentIds"], code
    await console.data("SegmentActivate", input={"id": segment})
    await console.data("SegmentPause", input={"id": segment})
    code, path = await console.refusal("CampaignSend", input={"id": one})
    assert (path or [])[:2] == ["input", "segmentIds"], code
    await console.data("SegmentActivate", input={"id": segment})
    assert (await console.data("CampaignSend", input={"id": one}))["campaign"]["status"] == "PREPARING"


async def test_only_what_is_given_changes(console: Caller) -> None:
    one = await make(console, expiresAt=instant(days=2), topic="news")
    changed = (await console.data("CampaignUpdate", input={"id": one, "name": "Other", "expiresAt": None}))["campaign"]
    assert (changed["name"], changed["expiresAt"], changed["topic"]) == ("Other", None, "news")
    campaign = await console.data("Campaign", id=one)
    assert (campaign["contentVersion"], len(campaign["segments"])) == (1, 1)
    subject = {"email": EMAIL | {"subject": "New subject"}}
    await console.data("CampaignUpdate", input={"id": one, "content": subject, "segmentIds": []})
    campaign = await console.data("Campaign", id=one)
    assert (campaign["contentVersion"], campaign["segments"]) == (2, [])
    assert campaign["content"]["subject"] == "New subject"
    assert await console.refusal("CampaignUpdate", input={"id": one, "content": {"email": {"subject": ""}}}) == (
        "SUBJECT_MISSING",
        ["input", "content", "email", "subject"],
    )
    answer = await console.ask("CampaignUpdate", input={"id": one, "name": None})
    assert answer.get("data") is None
    assert answer["errors"]


async def test_what_is_sent_is_frozen(console: Caller) -> None:
    await people(console, "ada")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    assert await console.refusal("CampaignUpdate", input={"id": one, "content": {"email": EMAIL}}) == (
        "FROZEN",
        ["input", "content"],
    )
    assert await console.refusal("CampaignSend", input={"id": one}) == ("ILLEGAL_MOVE", ["input", "id"])
    code, _ = await console.refusal("CampaignDelete", input={"id": one})
    assert code == "NOT_DELETABLE"


async def test_a_campaign_is_paused_resumed_and_cancelled(console: Caller) -> None:
    await people(console, "ada")
    one = await make(console)
    assert await console.refusal("CampaignResume", input={"id": one}) == ("ILLEGAL_MOVE", ["input", "id"])
    await console.data("CampaignSend", input={"id": one})
    paused = (await console.data("CampaignPause", input={"id": one, "reason": "a typo"}))["campaign"]
    assert (paused["status"], paused["statusReason"], paused["statusDetail"]) == ("PAUSED", "BY_HAND", "a typo")
    assert (await work(console, one)).received == []
    resumed = (await console.data("CampaignResume", input={"id": one}))["campaign"]
    assert resumed["status"] == "PREPARING"
    cancelled = (await console.data("CampaignCancel", input={"id": one}))["campaign"]
    assert cancelled["status"] == "CANCELLED"
    assert (await work(console, one)).received == []
    assert await console.refusal("CampaignReactivate", input={"id": one}) == ("ILLEGAL_MOVE", ["input", "id"])


async def test_a_draft_is_copied_and_deleted(console: Caller) -> None:
    one = await make(console)
    copy = (await console.data("CampaignDuplicate", input={"id": one}))["campaign"]
    assert (copy["name"], copy["status"]) == ("Copy of News", "DRAFT")
    assert (await console.data("CampaignDelete", input={"id": copy["id"]}))["deletedId"] == copy["id"]
    assert await console.data("Campaign", id=copy["id"]) is None


VERBS: dict[str, dict[str, Any]] = {
    "CampaignUpdate": {"name": "x"},
    "CampaignSchedule": {"at": instant(hours=1)},
    "CampaignUnschedule": {},
    "CampaignSend": {},
    "CampaignCancel": {},
    "CampaignPause": {},
    "CampaignResume": {},
    "CampaignReactivate": {},
    "CampaignDuplicate": {},
    "CampaignDelete": {},
    "CampaignTestSend": {"externalIds": ["ada"]},
}


async def test_ids_of_nothing_or_of_another_kind_are_refused_in_words(console: Caller) -> None:
    for operation in VERBS:
        more = VERBS[operation]
        assert await console.refusal(operation, input={"id": "cmp_" + NOWHERE} | more) == ("NOT_FOUND", ["input", "id"])
        for text in ("seg_" + NOWHERE, "cmp_x", "cmp_", "", "prf_1"):
            assert await console.refusal(operation, input={"id": text} | more) == ("INVALID_ID", ["input", "id"])


WRONG_SENDERS: list[tuple[dict[str, Any], str, str]] = [
    ({"fromAddress": "nobody"}, "INVALID_EMAIL", "fromAddress"),
    ({"fromAddress": "a@b\r\nBcc: c@d.example"}, "INVALID_EMAIL", "fromAddress"),
    ({"replyTo": "nobody@"}, "INVALID_EMAIL", "replyTo"),
    ({"fromName": ""}, "INVALID_NAME", "fromName"),
    ({"fromName": "a\r\nBcc: c@d.example"}, "INVALID_NAME", "fromName"),
    ({"postalAddress": " "}, "POSTAL_ADDRESS_MISSING", "postalAddress"),
    ({"brandId": "brd_" + NOWHERE}, "NOT_FOUND", "brandId"),
]


async def test_a_sender_needs_real_addresses(console: Caller) -> None:
    for wrong, code, field in WRONG_SENDERS:
        wanted = {"fromName": "Shop", "fromAddress": "news@shop.example.com", "postalAddress": "1 Main St"} | wrong
        assert await console.refusal("SenderCreate", input=wanted) == (code, ["input", field])
        assert await console.data("Senders") == []


async def test_campaigns_are_listed_newest_first_and_filtered(console: Caller) -> None:
    segment, from_ = await everyone(console), await sender(console)
    for number in range(3):
        wanted = {"name": f"News {number}", "content": {"email": EMAIL}, "segmentIds": [segment], "senderId": from_}
        await console.data("CampaignCreate", input=wanted)

    async def names(**filters: Any) -> list[str]:
        return [edge["node"]["name"] for edge in (await console.data("Campaigns", **filters))["edges"]]

    assert await names() == ["News 2", "News 1", "News 0"]
    assert await names(first=1) == ["News 2"]
    assert await names(name="news 1", status="DRAFT", channel="EMAIL") == ["News 1"]
    assert await names(status="SENT") == []
    assert await names(channel="BANNER") == []


async def test_a_full_page_of_a_hundred_says_that_more_follow(console: Caller) -> None:
    await people(console, *(f"p{number:03}" for number in range(101)))
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    await work(console, one)
    page = await console.data("Deliveries", campaignId=one, first=100)
    assert (len(page["edges"]), page["pageInfo"]["hasNextPage"]) == (100, True)
    rest = await console.data("Deliveries", campaignId=one, first=100, after=page["pageInfo"]["endCursor"])
    assert (len(rest["edges"]), rest["pageInfo"]["hasNextPage"]) == (1, False)
    people_page = await console.data("Profiles", first=100)
    assert (len(people_page["edges"]), people_page["pageInfo"]["hasNextPage"]) == (100, True)
