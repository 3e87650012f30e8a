"""Evaluations over GraphQL, run by a worker's own job: cadences, live members, references, the change guard."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.app.caller import Caller
from tests.app.filling import follow, members
from tests.app.test_api_campaigns import sender
from tests.app.test_api_campaigns import work as sent_by_workers
from tests.workers.worker import Worker
from workers import jobs

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PREMIUM = {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}}
EMAIL = {"email": {"subject": "Hello", "html": "<p>Hi</p>"}}


def plan(name: str) -> dict[str, Any]:
    return {"trait": {"key": "plan", "operator": "EQUALS", "value": name}}


async def people(console: Caller, *names: str, **traits: Any) -> None:
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": n, "traits": traits} for n in names]})


async def make(console: Caller, **wanted: Any) -> str:
    """The id of a new dynamic segment."""
    given = {"name": "Premium", "type": "DYNAMIC", "definition": PREMIUM} | wanted
    segment_id: str = (await console.data("SegmentCreate", input=given))["segment"]["id"]
    return segment_id


async def work(console: Caller) -> None:
    """What a worker does when somebody rings."""
    await jobs.evaluate(Worker().context, str(console.workspace_id), str(console.workspace_id))


async def activate(console: Caller, segment_id: str) -> dict[str, Any]:
    """The segment as it is once a worker has evaluated it."""
    await console.data("SegmentActivate", input={"id": segment_id})
    await work(console)
    found: dict[str, Any] = await console.data("Segment", id=segment_id)
    return found


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


# --- cadences -----------------------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[datetime], datetime]] = {
    "HOURLY": lambda at: at + HOUR,
    "DAILY": lambda at: at + DAY,
    "WEEKLY": lambda at: at + 7 * DAY,
    "MONTHLY": lambda at: months_later(at, 1),
    "QUARTERLY": lambda at: months_later(at, 3),
    "YEARLY": lambda at: months_later(at, 12),
}


def months_later(at: datetime, months: int) -> datetime:
    years, month = divmod(at.month - 1 + months, 12)
    return at.replace(year=at.year + years, month=month + 1)


@pytest.mark.parametrize("cadence", STEPS)
async def test_a_cadence_recalculates_the_members_when_its_time_comes(console: Caller, cadence: str) -> None:
    """S1-04, S1-05, S1-06, S1-07, S1-08, S3-05; not live, so that nothing but the cadence moves anybody."""
    one = await make(console, cadence=cadence, live=False, timeZone="Asia/Tokyo")
    first = await activate(console, one)
    at = instant(first["nextRunAt"])
    assert await members(console, one) == set()
    await people(console, "ada", plan="premium")
    await follow(console)
    worker = Worker()
    await worker.evaluate_due(at - timedelta(seconds=1))
    assert await members(console, one) == set()
    await worker.evaluate_due(at)
    assert await members(console, one) == {"ada"}
    segment = await console.data("Segment", id=one)
    assert (segment["lastEvaluation"]["cause"], segment["lastEvaluation"]["added"]) == ("CADENCE", 1)
    # The next period of the same calendar, as late in it as before.
    local = at.astimezone(ZoneInfo("Asia/Tokyo"))
    assert instant(segment["nextRunAt"]) == STEPS[cadence](local)
    await worker.evaluate_due(at)
    page = (await console.data("SegmentEvaluations", id=one))["evaluations"]
    assert len(page["edges"]) == 2


async def test_never_is_once(console: Caller) -> None:
    """S1-03."""
    await people(console, "ada", plan="premium")
    one = await make(console, cadence="NEVER")
    segment = await activate(console, one)
    assert (segment["live"], segment["nextRunAt"], segment["size"]) == (False, None, 1)
    await people(console, "bob", plan="premium")
    await follow(console)
    await Worker().evaluate_due(datetime.now(UTC) + 1000 * DAY)
    assert await members(console, one) == {"ada"}


async def test_the_next_run_follows_a_cadence_that_is_changed(console: Caller) -> None:
    """S1-09."""
    one = await make(console, cadence="YEARLY")
    yearly = instant((await activate(console, one))["nextRunAt"])

    async def changed(**wanted: Any) -> Any:
        return (await console.data("SegmentUpdate", input={"id": one} | wanted))["segment"]["nextRunAt"]

    now = datetime.now(UTC)
    hourly = instant(await changed(cadence="HOURLY"))
    assert now < hourly <= now + HOUR + timedelta(minutes=10) < yearly
    cron = instant(await changed(cadence="CRON", cron="30 6 * * *", timeZone="Asia/Kathmandu"))
    assert f"{cron.astimezone(ZoneInfo('Asia/Kathmandu')):%H:%M}" == "06:30"
    assert await changed(cadence="NEVER") is None
    await Worker().evaluate_due(yearly)
    assert len((await console.data("SegmentEvaluations", id=one))["evaluations"]["edges"]) == 1


# --- live, paused, draft ------------------------------------------------------------------------------------------


async def test_the_first_evaluation_finds_everybody_and_then_members_follow(console: Caller) -> None:
    """S0-07, S0-08, S0-09, S0-22: nobody asks for an evaluation again."""
    await people(console, "ada", "bob", plan="premium")
    one = await make(console)
    segment = await activate(console, one)
    assert (segment["live"], segment["cadence"], segment["size"]) == (True, "DAILY", 2)
    await people(console, "bob", plan="free")
    await people(console, "eve", plan="premium")
    await follow(console)
    assert await members(console, one) == {"ada", "eve"}
    assert len((await console.data("SegmentEvaluations", id=one))["evaluations"]["edges"]) == 1


async def test_a_paused_segment_stands_still_and_a_draft_is_never_evaluated(console: Caller) -> None:
    """S0-23, S0-24, S2-27, S2-28: and neither is targeted; S3x-10."""
    await people(console, "ada", plan="premium")
    one = await make(console)
    draft = await make(console, name="Draft")
    await activate(console, one)
    await console.data("SegmentPause", input={"id": one})
    await people(console, "bob", plan="premium")
    await follow(console)
    await Worker().evaluate_due(datetime.now(UTC) + 1000 * DAY)
    assert await members(console, one) == {"ada"}
    assert (await console.data("Segment", id=one))["definition"] == PREMIUM
    segment = await console.data("Segment", id=draft)
    assert (segment["size"], segment["lastEvaluatedAt"], segment["lastEvaluation"]) == (None, None, None)
    for standing in (one, draft):
        assert await console.refusal("SegmentEvaluate", input={"id": standing}) == (
            "SEGMENT_NOT_ACTIVE",
            ["input", "id"],
        )
    again = await activate(console, one)
    assert (again["size"], again["status"]) == (2, "ACTIVE")


async def test_members_are_counted_and_dated(console: Caller) -> None:
    """S2-25, S3x-09, S3x-06: null until it is known, and on demand."""
    one = await make(console, live=False)
    made = await console.data("Segment", id=one)
    assert (made["size"], made["lastEvaluatedAt"]) == (None, None)
    first = await activate(console, one)
    assert first["size"] == 0
    await people(console, "ada", plan="premium")
    asked = (await console.data("SegmentEvaluate", input={"id": one}))["evaluation"]
    assert (asked["status"], asked["cause"], asked["size"]) == ("QUEUED", "REQUEST", None)
    await work(console)
    segment = await console.data("Segment", id=one)
    assert segment["size"] == 1
    assert instant(segment["lastEvaluatedAt"]) > instant(first["lastEvaluatedAt"])


async def test_all_and_any_and_their_parts_are_counted(console: Caller) -> None:
    """S2-02, S2-03: AND and OR, with the size of each part."""
    await people(console, "ada", plan="premium", city="Bern")
    await people(console, "bob", plan="premium")
    await people(console, "eve", city="Bern")
    in_bern = {"trait": {"key": "city", "operator": "EQUALS", "value": "Bern"}}
    for match, kind, found in (("ALL", "all", {"ada"}), ("ANY", "any", {"ada", "bob", "eve"})):
        simple = {"match": match, "conditions": [PREMIUM, in_bern]}
        one = await make(console, name=match, definition=None, conditions=simple)
        segment = await activate(console, one)
        assert await members(console, one) == found
        assert segment["lastEvaluation"]["nodes"] == [
            {"path": [], "size": len(found)},
            {"path": [kind, "0"], "size": 2},
            {"path": [kind, "1"], "size": 2},
        ]


async def test_only_people_of_the_brand_are_found(console: Caller) -> None:
    """S1-02."""
    brand = (await console.data("BrandCreate", input={"name": "Shoes"}))["brand"]["id"]
    inside = {"externalId": "ada", "traits": {"plan": "premium"}, "brandIds": [brand]}
    await console.data("ProfilesUpsert", input={"profiles": [inside]})
    await people(console, "bob", plan="premium")
    of_brand, of_all = await make(console, brandId=brand), await make(console)
    for one in (of_brand, of_all):
        await activate(console, one)
    assert await members(console, of_brand) == {"ada"}
    assert await members(console, of_all) == {"ada", "bob"}


async def test_segments_that_name_others_are_evaluated_after_them_and_follow(console: Caller) -> None:
    await people(console, "ada", "bob", plan="premium")
    await people(console, "eve", plan="free")
    first = await make(console, name="First")
    second = await make(console, name="Second", definition={"not": {"inSegment": first}})
    await console.data("SegmentActivate", input={"id": second})
    await work(console)
    failed = (await console.data("Segment", id=second))["lastEvaluation"]
    assert (failed["status"], failed["errorCode"]) == ("FAILED", "REFERENCE_NOT_EVALUATED")
    assert "'First'" in failed["error"]
    await console.data("SegmentActivate", input={"id": first})
    await console.data("SegmentEvaluate", input={"id": second})
    await work(console)
    assert await members(console, second) == {"eve"}
    await people(console, "bob", plan="free")
    await follow(console)
    assert await members(console, second) == {"bob", "eve"}


async def test_a_merge_takes_the_place_of_the_one_who_is_gone_in_every_segment(console: Caller) -> None:
    await people(console, "ada", plan="premium")
    await people(console, "guest", "eve")
    rule = await make(console)
    await activate(console, rule)
    made = await console.data("SegmentCreate", input={"name": "Guests", "type": "STATIC"})
    curated: str = made["segment"]["id"]
    await console.data("SegmentMembersAdd", input={"id": curated, "externalIds": ["guest", "eve"]})
    ids = {name: (await console.data("Profile", externalId=name))["id"] for name in ("ada", "guest")}
    await console.data("ProfileMerge", input={"loserId": ids["guest"], "winnerId": ids["ada"]})
    await follow(console)
    assert (await members(console, rule), await members(console, curated)) == ({"ada"}, {"ada", "eve"})
    segments = (await console.data("Profile", externalId="ada"))["segments"]
    assert sorted(one["name"] for one in segments) == ["Guests", "Premium"]


# --- the guard ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def full(console: Caller) -> str:
    """A segment of 120 people, of whom 119 are about to go."""
    for start in (0, 60):
        await people(console, *(f"p{number:03}" for number in range(start, start + 60)), plan="premium")
    one = await make(console, live=False)
    assert (await activate(console, one))["size"] == 120
    for start in (1, 60):
        await people(console, *(f"p{number:03}" for number in range(start, min(start + 60, 120))), plan="free")
    return one


@pytest.fixture
async def held(console: Caller, full: str) -> str:
    """The id of its evaluation, which is held."""
    asked = (await console.data("SegmentEvaluate", input={"id": full}))["evaluation"]["id"]
    await work(console)
    found: str = asked
    return found


async def test_a_change_that_would_empty_a_segment_waits_for_a_person(
    console: Caller, foreigner: Caller, full: str, held: str
) -> None:
    waiting = await console.data("Evaluation", id=held)
    assert (waiting["status"], waiting["errorCode"], waiting["approvedAt"]) == ("HELD", "CHANGE_GUARD", None)
    assert (waiting["size"], waiting["added"], waiting["removed"]) == (1, 0, 119)
    assert "119 of 120 members" in waiting["error"]
    assert waiting["segment"]["size"] == 120
    refused = ("NOT_FOUND", ["input", "id"])
    assert await foreigner.refusal("SegmentEvaluationApprove", input={"id": held}) == refused

    approved = (await console.data("SegmentEvaluationApprove", input={"id": held}))["evaluation"]
    assert (approved["id"], approved["status"], approved["size"]) == (held, "QUEUED", None)
    assert approved["approvedAt"] is not None
    assert (await console.data("Segment", id=full))["size"] == 120
    await work(console)
    done = await console.data("Evaluation", id=held)
    assert (done["status"], done["removed"], done["segment"]["size"]) == ("SUCCEEDED", 119, 1)
    assert await members(console, full) == {"p000"}
    again = await console.refusal("SegmentEvaluationApprove", input={"id": held})
    assert again == ("ILLEGAL_MOVE", ["input", "id"])


async def test_a_campaign_says_which_evaluation_it_waits_for(console: Caller, full: str) -> None:
    """With refreshBefore it is sent to nobody until somebody has let the held one through, and that is to be seen."""
    campaign = {"name": "Spring", "content": EMAIL, "segmentIds": [full], "class": "TRANSACTIONAL"}
    one = (await console.data("CampaignCreate", input=campaign | {"senderId": await sender(console)}))["campaign"]["id"]
    await console.data("CampaignSend", input={"id": one})

    async def said() -> tuple[str, str | None, str | None]:
        found = await console.data("Campaign", id=one)
        return found["status"], found["statusReason"], found["statusDetail"]

    waits = "It waits until its dynamic segments are evaluated. It is about 'Premium'."
    assert await said() == ("PREPARING", "AWAITS_EVALUATION", waits)
    assert (await sent_by_workers(console, one)).received == []  # they ask for the evaluation
    await work(console)
    status, reason, detail = await said()
    assert (status, reason) == ("PREPARING", "EVALUATION_HELD")
    assert detail is not None
    assert detail.endswith("approve it with segmentEvaluationApprove, or mend the conditions. It is about 'Premium'.")
    held = (await console.data("Segment", id=full))["lastEvaluation"]
    assert (held["status"], held["cause"]) == ("HELD", "CAMPAIGN")
    await console.data("SegmentEvaluationApprove", input={"id": held["id"]})
    await work(console)
    assert (await sent_by_workers(console, one)).received == []  # the one who is left has no address
    assert await said() == ("SENT", None, None)


async def test_without_a_guard_nothing_waits(console: Caller, full: str) -> None:
    await console.data("SegmentUpdate", input={"id": full, "changeGuard": None})
    await console.data("SegmentEvaluate", input={"id": full})
    await work(console)
    segment = await console.data("Segment", id=full)
    assert (segment["size"], segment["lastEvaluation"]["status"]) == (1, "SUCCEEDED")


async def test_a_campaign_is_for_the_members_of_the_latest_recalculation(console: Caller) -> None:
    """S1-11: without refreshBefore, who is in when it starts and not who would be."""
    await people(console, "ada", plan="premium")
    one = await make(console, live=False)
    await activate(console, one)
    await people(console, "bob", plan="premium")
    campaign = {
        "name": "Spring",
        "content": EMAIL,
        "segmentIds": [one],
        "refreshBefore": False,
        "class": "TRANSACTIONAL",
    }
    made = (await console.data("CampaignCreate", input=campaign))["campaign"]["id"]
    dry = await console.data("CampaignDryRun", id=made)
    assert dry["audience"] == 1
    await console.data("SegmentEvaluate", input={"id": one})
    await work(console)
    assert (await console.data("CampaignDryRun", id=made))["audience"] == 2
