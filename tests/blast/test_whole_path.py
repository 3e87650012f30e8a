"""The whole of Muster as processes: API, worker and mail sink, from a mutation to a mail that arrived."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
import redis.asyncio

from app.administration import make_key, open_database_of
from app.settings import load_settings
from app.stack import Stack
from campaigns.machines import QUICK
from segments import everyone
from tests.app.caller import Caller
from tests.blast.conftest import CONCURRENCY
from tests.blast.running import child_of, until

PEOPLE = 1_500
SENDER = {
    "fromName": "Muster",
    "fromAddress": "news@muster.example",
    "postalAddress": "1 Main Street, Springfield",
}
HTML = """<p>Hello {{ profile.external_id }}</p>
<p>{{ sender.postal_address }} <a href="{{ unsubscribe_url }}">Unsubscribe</a></p>"""

LINKS = '<a href="https://shop.example/sale?a=1&amp;b=2">Sale</a> <a href="https://blog.example/">Blog</a>'
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"


@pytest.fixture
async def console(stack: Stack, request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    """A caller with every scope in a workspace of its own."""
    async with open_database_of(load_settings(stack.environ)):
        workspace_id = await everyone.create_workspace(request.node.name, time_zone="UTC")
        scopes = ["read", "segments", "campaigns", "send", "admin", "ingest"]
        key = await make_key(workspace_id, name="test", kind="secret", scopes=scopes)
    async with httpx2.AsyncClient(base_url=stack.api_url, timeout=30) as http:
        yield Caller(http, workspace_id, key)


async def campaign_to_everyone(console: Caller, people: int, *, html: str = HTML) -> str:
    """A draft to everybody in a workspace with so many people."""
    for start in range(0, people, 100):
        batch = [
            {"externalId": f"p{n:05}", "email": f"p{n:05}@example.com"} for n in range(start, min(start + 100, people))
        ]
        await console.data("ProfilesUpsert", input={"profiles": batch})
    sender = await console.data("SenderCreate", input=SENDER)
    segments = await console.data("Segments", type="EVERYONE")
    made = await console.data(
        "CampaignCreate",
        input={
            "name": "News",
            "content": {"email": {"subject": "News", "html": html}},
            "segmentIds": [segments["edges"][0]["node"]["id"]],
            "senderId": sender["sender"]["id"],
        },
    )
    campaign_id: str = made["campaign"]["id"]
    return campaign_id


async def received(stack: Stack, campaign_id: str) -> dict[str, int]:
    """What the sink has of a campaign: messages, and distinct recipients."""
    async with httpx2.AsyncClient(base_url=stack.mailbox_url) as mailbox:
        counts = (await mailbox.get("/api/counts")).json()["campaigns"]
    found: dict[str, int] = counts.get(str(UUID(campaign_id.removeprefix("cmp_"))), {"received": 0, "unique": 0})
    return found


async def ended(console: Caller, campaign_id: str) -> Any:
    async def ask() -> Any:
        campaign = await console.data("Campaign", id=campaign_id)
        return campaign if campaign["status"] in ("SENT", "FAILED", "CANCELLED") else None

    return await until("the end of the campaign", ask)


async def test_a_mail_arrives_with_everything_it_needs_and_one_click_unsubscribes(
    stack: Stack, console: Caller
) -> None:
    """S3-16, S3-23, T-23: GET changes nothing, POST unsubscribes, the next send spares them."""
    campaign_id = await campaign_to_everyone(console, 1)
    await console.data("CampaignSend", input={"id": campaign_id})
    await ended(console, campaign_id)
    async with httpx2.AsyncClient(base_url=stack.mailbox_url) as mailbox:
        listed = (await mailbox.get("/api/messages", params={"limit": 50})).json()
        mine = [m for m in listed["messages"] if m["campaign"] == str(UUID(campaign_id.removeprefix("cmp_")))]
        raw = (await mailbox.get(f"/api/messages/{mine[0]['id']}")).json()
    headers = {name.lower(): value for name, value in raw["headers"]}
    assert headers["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    link = headers["list-unsubscribe"].strip("<>")
    assert link in raw["html"].replace("&amp;", "&")
    assert "1 Main Street, Springfield" in raw["text"]
    async with httpx2.AsyncClient() as mail_program:
        assert (await mail_program.get(link)).status_code == 200
        dry = await console.data("CampaignDryRun", id=campaign_id)
        assert dry["reachable"] == 1
        done = await mail_program.post(link, data={"List-Unsubscribe": "One-Click"})
        assert done.status_code == 200
    dry = await console.data("CampaignDryRun", id=campaign_id)
    assert (dry["reachable"], dry["skipped"]) == (0, [{"reason": "UNSUBSCRIBED", "messages": 1}])


async def mails_of(stack: Stack, campaign_id: str) -> dict[str, str]:
    """The HTML of a campaign's mails by recipient, as the sink has them."""
    async with httpx2.AsyncClient(base_url=stack.mailbox_url) as mailbox:
        listed = (await mailbox.get("/api/messages", params={"limit": 50})).json()["messages"]
        mine = [one for one in listed if one["campaign"] == str(UUID(campaign_id.removeprefix("cmp_")))]
        return {one["to"][0]: (await mailbox.get(f"/api/messages/{one['id']}")).json()["html"] for one in mine}


async def test_whoever_clicks_enters_a_live_segment_and_no_machine_does(stack: Stack, console: Caller) -> None:
    """S3-18, S3-27, S4-02: from a mail that arrived, over its links and image, to events, counts and members."""
    campaign_id = await campaign_to_everyone(console, 3, html=LINKS + HTML)
    made = await console.data(
        "SegmentCreate",
        input={
            "name": "Clicked",
            "type": "DYNAMIC",
            "definition": {"campaign": {"did": "CLICKED", "campaignId": campaign_id}},
        },
    )
    segment_id = made["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment_id})
    await console.data("CampaignSend", input={"id": campaign_id})
    await ended(console, campaign_id)
    mails, names = await mails_of(stack, campaign_id), [f"p{n:05}" for n in range(3)]
    links = {name: re.findall(r'(?:href|src)="([^"]+/[to]/[^"]+)"', mails[f"{name}@example.com"]) for name in names}
    assert [len(found) for found in links.values()] == [3, 3, 3]

    async def nobody_is_too_quick() -> bool:
        page = await console.data("Deliveries", campaignId=campaign_id)
        sent = [datetime.fromisoformat(edge["node"]["sentAt"]) for edge in page["edges"]]
        return max(sent) + QUICK < datetime.now(UTC)

    await until("a time when a person could have read the mail", nobody_is_too_quick)
    async with httpx2.AsyncClient(headers={"User-Agent": BROWSER}) as browser:
        # One filter follows everything at once, another says what it is; then comes a person.
        await asyncio.gather(*(browser.get(link) for link in links["p00001"][:2]))
        await browser.head(links["p00002"][0])
        assert (await browser.get(links["p00000"][0])).headers["location"] == "https://shop.example/sale?a=1&b=2"
        assert (await browser.get(links["p00000"][2])).headers["content-type"] == "image/gif"

    async def is_the_member() -> bool:
        found = await console.data("SegmentMembers", id=segment_id, first=10)
        return [edge["node"]["externalId"] for edge in found["members"]["edges"]] == ["p00000"]

    await until("the one who clicked to enter", is_the_member)
    shown = await console.data("CampaignResponses", id=campaign_id)
    assert shown["responses"] == {"opens": 1, "uniqueOpens": 1, "clicks": 1, "uniqueClicks": 1}
    assert shown["links"] == [
        {"url": "https://shop.example/sale?a=1&b=2", "clicks": 1, "uniqueClicks": 1},
        {"url": "https://blog.example/", "clicks": 0, "uniqueClicks": 0},
    ]
    page = await console.data("Deliveries", campaignId=campaign_id)
    assert {
        edge["node"]["profile"]["externalId"]: [(one["kind"], one["byMachine"]) for one in edge["node"]["events"]]
        for edge in page["edges"]
    } == {
        "p00000": [("OPEN", False), ("CLICK", False)],
        "p00001": [("CLICK", True), ("CLICK", True)],
        "p00002": [("CLICK", True)],
    }


async def test_a_killed_worker_loses_nothing_and_mails_nobody_twice(stack: Stack, console: Caller) -> None:
    """T-1 in small: kill -9 in the middle of a blast."""
    campaign_id = await campaign_to_everyone(console, PEOPLE)
    await console.data("CampaignSend", input={"id": campaign_id})

    async def some_arrived() -> bool:
        return (await received(stack, campaign_id))["received"] >= 100

    await until("the first mails", some_arrived)
    os.kill(child_of(stack.processes["worker"]), signal.SIGKILL)
    campaign = await ended(console, campaign_id)
    progress, mails = campaign["progress"], await received(stack, campaign_id)
    assert campaign["status"] == "SENT"
    assert mails["received"] == mails["unique"]
    assert progress["sent"] + progress["inDoubt"] == PEOPLE
    assert progress["inDoubt"] <= CONCURRENCY
    assert progress["sent"] <= mails["unique"] <= PEOPLE


async def test_flushing_valkey_in_the_middle_of_a_blast_loses_nothing(stack: Stack, console: Caller) -> None:
    """T-4 in small: Valkey carries bells only."""
    campaign_id = await campaign_to_everyone(console, 300)
    await console.data("CampaignSend", input={"id": campaign_id})
    valkey = redis.asyncio.from_url(stack.environ["REDIS_URL"])
    await valkey.flushall()
    await valkey.aclose()
    campaign = await ended(console, campaign_id)
    assert (campaign["status"], campaign["progress"]["sent"]) == ("SENT", 300)
    assert await received(stack, campaign_id) == {"received": 300, "unique": 300}


async def test_a_dynamic_segment_is_evaluated_before_its_campaign_starts(stack: Stack, console: Caller) -> None:
    """S1-11: the audience is the newest membership, and a lost bell does not hold it up."""
    campaign_id = await campaign_to_everyone(console, 3)
    segment = await console.data(
        "SegmentCreate",
        input={
            "name": "Buyers",
            "type": "DYNAMIC",
            "definition": {"event": {"name": "purchase", "count": {"operator": "GREATER_OR_EQUAL", "value": 1}}},
        },
    )
    segment_id = segment["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment_id})

    async def evaluated() -> bool:
        size: int | None = (await console.data("Segment", id=segment_id))["size"]
        return size == 0

    await until("the first evaluation", evaluated)
    await console.data(
        "EventsTrack", input={"events": [{"messageId": "1", "name": "purchase", "externalId": "p00001"}]}
    )
    await console.data("CampaignUpdate", input={"id": campaign_id, "segmentIds": [segment_id]})
    await console.data("CampaignSend", input={"id": campaign_id})
    campaign = await ended(console, campaign_id)
    assert (campaign["status"], campaign["progress"]["sent"]) == ("SENT", 1)


async def test_no_address_and_no_key_is_in_the_logs(stack: Stack, console: Caller) -> None:
    """T-26 in small: what the processes wrote while the tests above ran."""
    campaign_id = await campaign_to_everyone(console, 2)
    await console.data("CampaignSend", input={"id": campaign_id})
    await ended(console, campaign_id)
    for file in (stack.folder / "logs").iterdir():
        text = file.read_text(errors="replace")
        assert "@example.com" not in text, file.name
        assert str(console.key) not in text, file.name


async def test_every_connection_of_the_processes_is_of_the_login_that_owns_nothing(stack: Stack) -> None:
    owner = await asyncpg.connect(stack.owner_url)
    try:
        rows = await owner.fetch(
            "SELECT DISTINCT usename FROM pg_stat_activity"
            " WHERE application_name = 'muster' AND pid <> pg_backend_pid()"
        )
    finally:
        await owner.close()
    assert {row["usename"] for row in rows} == {"muster"}
