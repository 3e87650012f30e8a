"""What holds a campaign back, through the public API: refusals above its threshold, silence, sizes, rates."""

import asyncio
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import pytest

from campaigns import control, sending
from campaigns.retrying import HostGate
from channels.base import EmailMessage, Outcome, OutcomeKind, OutcomeScope
from db.transactions import transaction
from tests.app.caller import Caller
from tests.app.test_api_campaigns import EMAIL, HTML, instant, make, people, work
from tests.campaigns.factories import ACCEPTED, TRY_LATER, ScriptedChannel, carrier

REFUSED = Outcome(OutcomeKind.REFUSED, "POLICY", "DATA", "550 5.7.1 looks like spam")
AGE = "UPDATE dispatch SET heartbeat_at = now() - interval '20 min'"


def key_of(campaign_id: str) -> UUID:
    return UUID(hex=campaign_id.removeprefix("cmp_"))


async def crowd(console: Caller, size: int) -> None:
    names = [f"p{number:03}" for number in range(size)]
    for start in range(0, size, 100):
        await people(console, *names[start : start + 100])


class Refusing(ScriptedChannel):
    """Refuses the first so many messages."""

    def __init__(self, refusals: int) -> None:
        super().__init__(self.judge)
        self.refusals = refusals

    def judge(self, message: EmailMessage) -> Outcome:
        self.refusals -= 1
        return REFUSED if self.refusals >= 0 else ACCEPTED


async def test_a_campaign_of_which_too_much_is_refused_pauses_with_the_numbers_and_goes_on_when_told_to(
    console: Caller,
) -> None:
    """The error threshold, 5 % by default, of at least 100 messages; what came before a person looked is past."""
    await crowd(console, 150)
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    channel = await work(console, one, Refusing(10))
    async with transaction(console.workspace_id) as connection:
        await connection.execute("UPDATE dispatch SET counted_at = NULL")  # what was counted a moment ago still holds
    paused = await console.data("Campaign", id=one)
    assert (paused["status"], paused["statusReason"], paused["errorThreshold"]) == ("PAUSED", "ERROR_THRESHOLD", 5)
    assert 100 <= len(channel.received) < 150
    assert paused["progress"]["failed"] == 10
    sentence = paused["statusDetail"]
    assert sentence.startswith("10 of 1")
    assert "the threshold is 5 %" in sentence
    assert "550 5.7.1 looks like spam" in sentence
    await console.data("CampaignResume", input={"id": one})
    await work(console, one, channel)
    done = await console.data("Campaign", id=one)
    assert (done["status"], done["statusReason"]) == ("SENT", None)
    assert len(channel.received) == 150


class OneWaits(Refusing):
    """Answers at once, but for one person, who waits until `go` is set."""

    async def send(self, message: EmailMessage) -> Outcome:
        if message.recipient == "p000@example.com":
            return await super().send(message)
        self.received.append(message)
        return self.judge(message)


async def test_what_was_refused_before_a_resume_does_not_pause_it_again_however_late_a_worker_is(
    console: Caller,
) -> None:
    """It waits for its last answer while somebody has looked at what another worker paused for, and resumed."""
    await crowd(console, 120)
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    channel = OneWaits(10)
    channel.go.clear()
    turn: dict[str, Any] = {"now": datetime.now(UTC), "until": monotonic() + 60}
    late = asyncio.create_task(
        sending.deliver(console.workspace_id, key_of(one), carrier=carrier(channel, concurrency=128), **turn)
    )
    await channel.until_received(1)
    await console.data("CampaignPause", input={"id": one})
    await console.data("CampaignResume", input={"id": one})
    channel.go.set()
    await late
    assert (await console.data("Campaign", id=one))["statusReason"] is None
    await work(console, one, channel)
    campaign = await console.data("Campaign", id=one)
    assert (campaign["status"], campaign["progress"]["failed"], len(channel.received)) == ("SENT", 10, 120)


async def test_a_campaign_without_a_threshold_goes_on_whatever_is_refused(console: Caller) -> None:
    await crowd(console, 120)
    one = await make(console, errorThreshold=None)
    await console.data("CampaignSend", input={"id": one})
    channel = await work(console, one, Refusing(60))
    campaign = await console.data("Campaign", id=one)
    assert (campaign["status"], campaign["progress"]["failed"], len(channel.received)) == ("SENT", 60, 120)


async def test_a_campaign_whose_messages_cannot_be_made_pauses_above_one_per_cent(console: Caller) -> None:
    await crowd(console, 110)
    for number in range(108):
        names = {"externalId": f"p{number:03}", "traits": {"nick": "Al"}}
        await console.data("ProfileUpsert", input=names)
    one = await make(console, content={"email": EMAIL | {"subject": "Hi {{ profile.nick }}"}})
    await console.data("CampaignSend", input={"id": one})
    channel = await work(console, one)
    paused = await console.data("Campaign", id=one)
    assert (paused["status"], paused["statusReason"]) == ("PAUSED", "RENDER_FAILURES")
    assert len(channel.received) < 108
    assert paused["statusDetail"].startswith("2 of 110 messages could not be made, more than 1 %. For example profile ")
    assert "profile.nick" in paused["statusDetail"]
    await console.data("CampaignResume", input={"id": one})
    await work(console, one, channel)
    failed = (await console.data("Deliveries", campaignId=one, status="FAILED"))["edges"]
    assert [edge["node"]["reason"] for edge in failed] == ["MISSING_VALUE"] * 2
    assert all("declare a default" in edge["node"]["explanation"] for edge in failed)
    assert (await console.data("Campaign", id=one))["status"] == "SENT"
    assert len(channel.received) == 108


@pytest.mark.parametrize("when", ["PREPARING", "SENDING"])
async def test_a_restored_backup_mails_nobody_until_a_person_says_so(console: Caller, when: str) -> None:
    """R11: a dispatch without a sign of life for a quarter of an hour."""
    await people(console, "ada", "bob")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    first = ScriptedChannel(lambda message: TRY_LATER)
    if when == "SENDING":
        await work(console, one, first)
        async with transaction(console.workspace_id) as connection:
            await connection.execute("UPDATE delivery SET not_before = now()")
    assert (await console.data("Campaign", id=one))["status"] == when
    async with transaction(console.workspace_id) as connection:
        await connection.execute(AGE)
    channel = await work(console, one)
    silent = await console.data("Campaign", id=one)
    assert (channel.received, silent["status"], silent["statusReason"]) == ([], "PAUSED", "SILENT")
    assert "backup" in silent["statusDetail"]
    assert (await work(console, one)).received == []
    await console.data("CampaignResume", input={"id": one})
    assert (await work(console, one, channel)).recipients == ["ada@example.com", "bob@example.com"]
    assert (await console.data("Campaign", id=one))["status"] == "SENT"


async def test_a_campaign_with_a_message_larger_than_the_server_takes_sends_nothing(console: Caller) -> None:
    """SIZE of RFC 1870, asked before the first message, with both numbers, for the recipient with most to say."""
    await people(console, "ada")
    await console.data(
        "ProfileUpsert", input={"externalId": "bob", "email": "b@x.example", "traits": {"a": "x" * 3000}}
    )
    html = HTML + "{% if profile.a %}{{ profile.a }}{{ profile.a }}{% endif %}"
    one = await make(console, content={"email": EMAIL | {"html": html}})
    await console.data("CampaignSend", input={"id": one})
    channel = ScriptedChannel()
    channel.largest = 4_000
    await work(console, one, channel)
    paused = await console.data("Campaign", id=one)
    assert (channel.received, paused["status"], paused["statusReason"]) == ([], "PAUSED", "MESSAGE_TOO_LARGE")
    bob = (await console.data("Profile", externalId="bob"))["id"].removeprefix("prf_")
    assert paused["statusDetail"].startswith(f"The message to profile {bob} has ")
    assert "the mail server takes 4,000" in paused["statusDetail"]
    # Somebody raises the server's limit.
    channel.largest = 40_000
    await console.data("CampaignResume", input={"id": one})
    assert (await work(console, one, channel)).recipients == ["ada@example.com", "b@x.example"]


async def test_a_campaign_is_started_at_once_however_long_the_mail_server_takes_to_answer(
    console: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request asks no mail server anything: the workers do, before the first message."""

    async def never(channel: ScriptedChannel) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ScriptedChannel, "largest_message", never)
    one = await make(console)
    scheduled = await console.data("CampaignSchedule", input={"id": one, "at": instant(hours=1)})
    assert scheduled["campaign"]["status"] == "SCHEDULED"
    assert (await console.data("CampaignSend", input={"id": one}))["campaign"]["status"] == "PREPARING"


async def test_while_the_mail_server_is_away_a_worker_keeps_its_places_for_other_jobs(console: Caller) -> None:
    await people(console, "ada")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    channel = ScriptedChannel()
    ours = carrier(channel, gate=HostGate(clock=lambda: 0.0))
    ours.gate.saw(Outcome(OutcomeKind.DEFERRED, "CONNECT_FAILED", "CONNECT", scope=OutcomeScope.HOST))
    # Not before an hour has passed, were it to wait.
    more = await sending.deliver(
        console.workspace_id, key_of(one), carrier=ours, now=datetime.now(UTC), until=monotonic() + 3600
    )
    assert (more, channel.received) == (False, [])
    assert (await console.data("Campaign", id=one))["status"] == "SENDING"
    assert (await work(console, one)).recipients == ["ada@example.com"]


async def test_rate_and_threshold_are_changed_while_it_is_sent(console: Caller) -> None:
    one = await make(console, ratePerSecond=50, errorThreshold=10)
    await people(console, "ada")
    await console.data("CampaignSend", input={"id": one})
    await console.data("CampaignUpdate", input={"id": one, "ratePerSecond": None, "errorThreshold": 20})
    campaign = await console.data("Campaign", id=one)
    assert (campaign["status"], campaign["ratePerSecond"], campaign["errorThreshold"]) == ("PREPARING", None, 20)
    for wrong, field in (
        ({"ratePerSecond": 0}, "ratePerSecond"),
        ({"ratePerSecond": 100_001}, "ratePerSecond"),
        ({"errorThreshold": 0}, "errorThreshold"),
        ({"errorThreshold": 101}, "errorThreshold"),
    ):
        assert await console.refusal("CampaignUpdate", input={"id": one} | wrong) == ("OUT_OF_RANGE", ["input", field])


WALL_TIMES: list[tuple[str, str, str]] = [
    ("2031-07-01T09:00", "Europe/Berlin", "2031-07-01T07:00:00Z"),
    ("2031-12-24T09:00", "Europe/Berlin", "2031-12-24T08:00:00Z"),
    ("2031-10-26T02:30", "Europe/Berlin", "2031-10-26T00:30:00Z"),  # comes twice: the first
    ("2031-12-24T09:00", "Asia/Kolkata", "2031-12-24T03:30:00Z"),
]


async def test_a_schedule_is_given_as_clocks_show_it_in_a_time_zone(console: Caller) -> None:
    """S3-24."""
    one = await make(console)
    for wall, zone, at in WALL_TIMES:
        wanted = {"id": one, "wallTime": wall, "timeZone": zone}
        campaign = (await console.data("CampaignSchedule", input=wanted))["campaign"]
        assert (campaign["status"], campaign["scheduledAt"], campaign["timeZone"]) == ("SCHEDULED", at, zone)
    await console.data("CampaignUpdate", input={"id": one, "timeZone": "Asia/Tokyo"})
    again = await console.data("CampaignSchedule", input={"id": one, "wallTime": "2031-12-24T09:00"})
    assert again["campaign"]["scheduledAt"] == "2031-12-24T00:00:00Z"


WRONG_TIMES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "ONE_TIME", "at"),
    ({"at": instant(hours=1), "wallTime": "2031-12-24T09:00"}, "ONE_TIME", "at"),
    ({"wallTime": "2031-03-30T02:30", "timeZone": "Europe/Berlin"}, "NO_SUCH_TIME", "wallTime"),
    ({"wallTime": "2031-12-24T09:00+01:00"}, "NOT_A_TIME", "wallTime"),
    ({"wallTime": "Christmas"}, "NOT_A_TIME", "wallTime"),
    ({"wallTime": "0001-01-01T00:00", "timeZone": "Asia/Tokyo"}, "NOT_A_TIME", "wallTime"),
    ({"wallTime": "2001-12-24T09:00"}, "IN_THE_PAST", "wallTime"),
]


async def test_a_wall_time_that_no_clock_shows_is_refused(console: Caller) -> None:
    one = await make(console)
    for wrong, code, field in WRONG_TIMES:
        assert await console.refusal("CampaignSchedule", input={"id": one} | wrong) == (code, ["input", field]), wrong
    assert (await console.data("Campaign", id=one))["status"] == "DRAFT"


LATE: list[tuple[str, str, str | None]] = [
    ("SEND", "PREPARING", None),
    ("SKIP", "CANCELLED", "MISSED"),
    ("HOLD", "PAUSED", "MISSED"),
]


@pytest.mark.parametrize(("policy", "status", "reason"), LATE)
async def test_a_schedule_found_late_follows_its_policy(
    console: Caller, policy: str, status: str, reason: str | None
) -> None:
    """R11: later than `maximumLatenessSeconds`; within it any policy sends."""
    await people(console, "ada")
    for late_by, found in ((4, ("PREPARING", None)), (6, (status, reason))):
        one = await make(console)
        wanted = {"id": one, "at": instant(hours=1), "missedPolicy": policy, "maximumLatenessSeconds": 300}
        at = datetime.fromisoformat((await console.data("CampaignSchedule", input=wanted))["campaign"]["scheduledAt"])
        await control.act_on_time(console.workspace_id, key_of(one), now=at + timedelta(minutes=late_by))
        campaign = await console.data("Campaign", id=one)
        assert (campaign["status"], campaign["statusReason"]) == found
