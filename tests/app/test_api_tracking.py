"""Tracked links and images over HTTP: what people and programs do with mails, and what becomes of it (section 6)."""

import asyncio
import logging
import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from app.links import PIXEL
from campaigns import sending
from campaigns.tokens import MailLinkTokens, Signer, unsubscribe_token
from db.transactions import transaction
from tests.app.caller import Caller
from tests.app.conftest import ENVIRON, without_database
from tests.app.test_api_campaigns import make, people, work
from tests.campaigns.factories import ScriptedChannel, carrier
from tests.conftest import Database

SHOP = "https://shop.example/sale?a=1&b=2#top"
BLOG = "http://blog.example/grüße 1"
HTML = f"""<body><a href="{SHOP.replace("&", "&amp;")}">Shop</a> <a href="{BLOG}">Blog</a> <a href="{BLOG}">Blog</a>
<a href="https://shop.example/?who={{{{ profile.external_id }}}}">Yours</a> <a href="mailto:us@shop.example">Write</a>
<p>{{{{ sender.postal_address }}}} <a href="{{{{ unsubscribe_url }}}}">No more</a></p></body>"""
TRACKED = re.compile(r"https://muster\.example(/[to]/[\w-]{32}(?:\.gif)?)")
PERSON = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"}
SENT_LONG_AGO = "UPDATE delivery SET sent_at = sent_at - interval '1 hour' WHERE workspace_id = $1"
NO_DELIVERIES = {"opens": 0, "uniqueOpens": 0, "clicks": 0, "uniqueClicks": 0}


def tracked_in(mail: bytes) -> tuple[list[str], str]:
    """The paths of the tracked links of a mail, in their order, and of its image."""
    html = message_from_bytes(mail, policy=policy.default).get_body(("html",))
    assert html is not None
    *found, image = TRACKED.findall(html.get_content())
    assert image.endswith(".gif")
    return found, image


def said(answer: httpx2.Response) -> dict[str, str]:
    """The headers of an answer that are about what it is."""
    others = ("content-length", "content-security-policy", "server-timing", "x-content-type-options", "x-request-id")
    return {name: text for name, text in answer.headers.items() if name not in others}


async def blast(console: Caller, *names: str, **more: Any) -> tuple[str, dict[str, bytes]]:
    """A campaign sent an hour ago, and its mails by name."""
    await people(console, *names)
    campaign = await make(console, content={"email": {"subject": "News", "html": HTML}}, **more)
    await console.data("CampaignSend", input={"id": campaign})
    channel = await work(console, campaign)
    async with transaction(console.workspace_id) as connection:
        await connection.execute(SENT_LONG_AGO, console.workspace_id)
    return campaign, {one.recipient.partition("@")[0]: one.data for one in channel.received}


async def events(console: Caller, campaign: str) -> dict[str, list[tuple[str, str | None, bool]]]:
    """(kind, address, by a machine?) of each person's message, oldest first."""
    page = await console.data("Deliveries", campaignId=campaign)
    return {
        edge["node"]["profile"]["externalId"]: [
            (event["kind"], event["url"], event["byMachine"]) for event in reversed(edge["node"]["events"])
        ]
        for edge in page["edges"]
    }


async def test_links_lead_where_they_say_and_tell_who_followed_them(console: Caller, http: httpx2.AsyncClient) -> None:
    """S3-18, S3-27."""
    campaign, mails = await blast(console, "ada", "bob")
    assert await events(console, campaign) == {"ada": [], "bob": []}
    (shop, blog, again), image = tracked_in(mails["ada"])
    assert blog == again
    assert not {shop, blog, image} & {*tracked_in(mails["bob"])[0], tracked_in(mails["bob"])[1]}
    followed = await http.get(shop, headers=PERSON)
    assert (followed.status_code, followed.content) == (302, b"")
    assert said(followed) == {
        "location": SHOP,
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-robots-tag": "noindex",
        "vary": "Origin",
    }
    seen = await http.get(image, headers=PERSON)
    assert (seen.status_code, seen.content, seen.headers["content-type"]) == (200, PIXEL, "image/gif")
    assert seen.headers["cache-control"] == "no-store"
    assert (await http.get(tracked_in(mails["bob"])[1], headers=PERSON)).content == PIXEL
    assert await events(console, campaign) == {
        "ada": [("CLICK", SHOP, False), ("OPEN", None, False)],
        "bob": [("OPEN", None, False)],
    }
    shown = await console.data("CampaignResponses", id=campaign)
    assert shown["responses"] == {"opens": 2, "uniqueOpens": 2, "clicks": 1, "uniqueClicks": 1}
    assert shown["links"] == [
        {"url": SHOP, "clicks": 1, "uniqueClicks": 1},
        {"url": BLOG, "clicks": 0, "uniqueClicks": 0},
    ]


async def test_what_is_not_the_same_for_all_and_the_plain_text_stay_as_they_were(console: Caller) -> None:
    _, mails = await blast(console, "ada")
    mail = message_from_bytes(mails["ada"], policy=policy.default)
    html, text = mail.get_body(("html",)), mail.get_body(("plain",))
    assert html is not None
    assert text is not None
    for kept in ("https://shop.example/?who=ada", "mailto:us@shop.example", "https://muster.example/u/"):
        assert f'href="{kept}' in html.get_content()
    assert SHOP in text.get_content()
    assert TRACKED.search(text.get_content()) is None


async def test_an_address_with_any_letter_arrives_as_browsers_write_it(
    console: Caller, http: httpx2.AsyncClient
) -> None:
    _, mails = await blast(console, "ada")
    (_, blog, _), _ = tracked_in(mails["ada"])
    assert (await http.get(blog)).headers["location"] == "http://blog.example/gr%C3%BC%C3%9Fe%201"


async def test_programs_are_marked_and_counted_nowhere(console: Caller, http: httpx2.AsyncClient) -> None:
    """By what they say, by asking for HEAD, by loading ahead; and two links in one second, which no hand can do."""
    campaign, mails = await blast(console, "ada", "bob", "cyd", "dan", "eve")
    paths = {name: tracked_in(mail) for name, mail in mails.items()}
    await http.get(paths["ada"][0][0], headers={"User-Agent": "Mozilla/5.0 (compatible; Barracuda)"})
    assert (await http.head(paths["bob"][0][0], headers=PERSON)).headers["location"] == SHOP
    await http.get(paths["cyd"][0][0], headers=PERSON | {"Sec-Purpose": "prefetch;prerender"})
    await asyncio.gather(*(http.get(path, headers=PERSON) for path in paths["dan"][0][:2]))
    # Mail Privacy Protection loads every image, read or not.
    assert (await http.head(paths["eve"][1], headers=PERSON)).headers["content-length"] == "43"
    await http.get(paths["eve"][1], headers={"User-Agent": "Mozilla/5.0"})
    found = await events(console, campaign)
    assert {name: [machine for _, _, machine in rows] for name, rows in found.items()} == {
        "ada": [True], "bob": [True], "cyd": [True], "dan": [True, True], "eve": [True],
    }  # fmt: skip
    shown = await console.data("CampaignResponses", id=campaign)
    assert (shown["responses"], [link["clicks"] for link in shown["links"]]) == (NO_DELIVERIES, [0, 0])


async def test_nobody_clicks_before_the_mail_can_have_arrived(console: Caller, http: httpx2.AsyncClient) -> None:
    campaign, mails = await blast(console, "ada")
    async with transaction(console.workspace_id) as connection:
        await connection.execute("UPDATE delivery SET sent_at = now()")
    await http.get(tracked_in(mails["ada"])[0][0], headers=PERSON)
    assert await events(console, campaign) == {"ada": [("CLICK", SHOP, True)]}


async def test_changed_links_lead_nowhere(console: Caller, http: httpx2.AsyncClient) -> None:
    """T-24: 30 of them, and those that were made for something else; there is no address in any of them to change."""
    campaign, mails = await blast(console, "ada")
    (shop, *_), image = tracked_in(mails["ada"])
    token = shop.removeprefix("/t/")
    letters = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(0, 32, 2)]
    others = [
        token[:-1], token + "A", token + "=", token[::-1], token.swapcase(), "A" * 32, "x", "%00", "%ff", "%0d%0aX:y",
        "A" * 3000, "https:%2f%2fevil.example", "http:evil.example", "..%2f..%2fgraphql", token + "%2fevil.example",
        token + "%3furl=https:%2f%2fevil.example", image.removeprefix("/o/").removesuffix(".gif"),
        MailLinkTokens(Signer(b"the key of somebody else, 32 bytes.."), "click").make(1, 1).decode(),
    ]  # fmt: skip
    tampered = [*letters, *others]
    assert len(tampered) >= 30
    for wrong in tampered:
        answer = await http.get(f"/t/{wrong}", headers=PERSON)
        assert (answer.status_code, "location" in answer.headers) == (404, False), wrong
    # More behind a right one changes nothing either.
    assert (await http.get(f"{shop}?url=https://evil.example")).headers["location"] == SHOP
    assert (await http.post(shop)).status_code == 405
    assert await events(console, campaign) == {"ada": [("CLICK", SHOP, True)]}


async def test_an_image_that_is_not_ours_is_the_same_image(console: Caller, http: httpx2.AsyncClient) -> None:
    """Whoever guesses learns nothing from the answer."""
    campaign, mails = await blast(console, "ada")
    (shop, *_), image = tracked_in(mails["ada"])
    ours = await http.get(image, headers=PERSON)
    for path in ("/o/x.gif", "/o/%00.gif", f"/o/{shop.removeprefix('/t/')}.gif", image.replace(".gif", "A.gif")):
        answer = await http.get(path, headers=PERSON)
        assert (answer.status_code, answer.content, said(answer)) == (200, PIXEL, said(ours))
    assert await events(console, campaign) == {"ada": [("OPEN", None, False)]}


async def test_a_test_sends_links_work_and_count_for_nothing(console: Caller, http: httpx2.AsyncClient) -> None:
    """S3-22."""
    await people(console, "ada")
    campaign = await make(console, content={"email": {"subject": "News", "html": HTML}})
    await console.data("CampaignTestSend", input={"id": campaign, "externalIds": ["ada"]})
    channel = await work(console, campaign)
    (shop, *_), image = tracked_in(channel.received[0].data)
    assert (await http.get(shop, headers=PERSON)).headers["location"] == SHOP
    assert (await http.get(image, headers=PERSON)).content == PIXEL
    async with transaction(console.workspace_id) as connection:
        assert await connection.fetchval("SELECT count(*) FROM delivery_event") == 0
    shown = await console.data("CampaignResponses", id=campaign)
    assert (shown["status"], shown["responses"], shown["links"]) == ("DRAFT", None, [])


async def test_a_workspace_that_tracks_nothing_sends_its_links_as_they_are(console: Caller) -> None:
    """The switch holds for campaigns that are started from then on."""
    assert (await console.data("Workspace"))["trackOpens"] is True
    changed = await console.data("WorkspaceUpdate", input={"trackOpens": False, "trackClicks": False})
    assert (changed["workspace"]["trackOpens"], changed["workspace"]["trackClicks"]) == (False, False)
    await console.data("WorkspaceUpdate", input={"trackClicks": False})
    campaign, mails = await blast(console, "ada")
    assert b"https://muster.example/t/" not in mails["ada"]
    assert b"https://muster.example/o/" not in mails["ada"]
    html = message_from_bytes(mails["ada"], policy=policy.default).get_body(("html",))
    assert html is not None
    assert f'href="{BLOG}"' in html.get_content()
    assert (await console.data("CampaignResponses", id=campaign))["links"] == []


async def test_whoever_clicks_gets_there_without_the_database(
    console: Caller, http: httpx2.AsyncClient, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A link that was followed before still leads there, what happened is in the log, and no token is."""
    _, mails = await blast(console, "ada", "bob")
    (known, unknown, _), image = tracked_in(mails["ada"])
    assert (await http.get(known, headers=PERSON)).status_code == 302
    with caplog.at_level(logging.ERROR):
        async with without_database(database):
            assert (await http.get(tracked_in(mails["bob"])[0][0], headers=PERSON)).headers["location"] == SHOP
            lost = await http.get(unknown, headers=PERSON)
            assert (lost.status_code, lost.headers["retry-after"]) == (503, "60")
            assert (await http.get(image, headers=PERSON)).content == PIXEL
    said = [record.getMessage() for record in caplog.records if record.name == "app.links"]
    assert said == ["open or click not recorded", "link not looked up", "open not recorded"]
    assert {record.__dict__["link_id"] for record in caplog.records if record.name == "app.links"} == {1, 2, 3}
    assert known.removeprefix("/t/") not in caplog.text


async def test_nobody_waits_for_a_slow_database(
    console: Caller, http: httpx2.AsyncClient, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    campaign, mails = await blast(console, "ada")
    (shop, *_), _ = tracked_in(mails["ada"])
    assert (await http.head(shop)).status_code == 302
    holder = await asyncpg.connect(database.owner_url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE delivery_event")
            assert (await http.get(shop, headers=PERSON)).headers["location"] == SHOP
    finally:
        await holder.close()
    assert [one.getMessage() for one in caplog.records if one.name == "app.links"] == ["open or click not recorded"]
    # The next one is written again: nothing of the one before is in the way.
    await http.get(shop, headers=PERSON)
    assert await events(console, campaign) == {"ada": [("CLICK", SHOP, True), ("CLICK", SHOP, False)]}


async def test_nobody_waits_for_a_database_that_does_not_even_end_what_is_given_up(
    console: Caller, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A transaction ends with a ROLLBACK, which a server that hangs does not answer either."""
    _, mails = await blast(console, "ada")
    (shop, *_), _ = tracked_in(mails["ada"])
    awake = asyncio.Event()

    async def record(*about: object, **more: object) -> None:
        try:
            await awake.wait()
        finally:
            await awake.wait()

    monkeypatch.setattr("campaigns.responses.record", record)
    monkeypatch.setattr("app.links.RECORD_WITHIN_S", 0.01)
    assert (await http.get(shop, headers=PERSON)).headers["location"] == SHOP
    assert [one.getMessage() for one in caplog.records if one.name == "app.links"] == ["open or click not recorded"]
    awake.set()


async def test_whoever_unsubscribes_during_a_blast_gets_nothing_more(console: Caller, http: httpx2.AsyncClient) -> None:
    """T-23: no intent after the commit, though every mail was read and made before it."""
    names = [f"p{n:02}" for n in range(20)]
    await people(console, *names)
    campaign = await make(console)
    await console.data("CampaignSend", input={"id": campaign})
    key = UUID(hex=campaign.removeprefix("cmp_"))
    channel = ScriptedChannel()
    channel.go.clear()
    worker = asyncio.create_task(
        sending.deliver(
            console.workspace_id,
            key,
            carrier=carrier(channel, concurrency=4),
            now=datetime.now(UTC),
            until=monotonic() + 60,
        )
    )
    await channel.until_received(4)
    gone = sorted(set(names) - {address.partition("@")[0] for address in channel.recipients})
    for name in gone:
        person = await console.data("Profile", externalId=name)
        token = unsubscribe_token(
            Signer(ENVIRON["MUSTER_TOKEN_KEY"].encode()),
            workspace_id=console.workspace_id,
            profile_id=int(person["id"].removeprefix("prf_")),
            campaign_id=key,
        )
        done = await http.post(f"/u/{token}", data={"List-Unsubscribe": "One-Click"})
        assert (done.status_code, done.cookies, "location" in done.headers) == (200, httpx2.Cookies(), False)
    channel.go.set()
    await worker
    await work(console, campaign, channel)
    assert (len(gone), len(channel.received)) == (16, 4)
    skipped = await console.data("Deliveries", campaignId=campaign, status="SKIPPED")
    assert [edge["node"]["profile"]["externalId"] for edge in skipped["edges"]] == gone
    assert {(edge["node"]["reason"], edge["node"]["attempts"]) for edge in skipped["edges"]} == {("UNSUBSCRIBED", 0)}
