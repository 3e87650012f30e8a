"""The unsubscribe link of a mail: a page with a button, and one click (RFC 8058)."""

import logging
from uuid import UUID

import httpx2
import pytest

from campaigns.tokens import Signer, unsubscribe_token
from profiles import consent
from tests.app.caller import Caller
from tests.app.conftest import ENVIRON, without_database
from tests.app.test_api_campaigns import make, people
from tests.conftest import Database


async def link(console: Caller, *, topic: str = "newsletter") -> tuple[str, int]:
    """Path of an unsubscribe link, and the profile it is for."""
    await people(console, "ada")
    profile = await console.data("Profile", externalId="ada")
    campaign = await make(console, topic=topic)
    key = int(profile["id"].removeprefix("prf_"))
    token = unsubscribe_token(
        Signer(ENVIRON["MUSTER_TOKEN_KEY"].encode()),
        workspace_id=console.workspace_id,
        profile_id=key,
        campaign_id=UUID(hex=campaign.removeprefix("cmp_")),
    )
    return f"/u/{token}", key


async def said(console: Caller, profile_id: int) -> list[tuple[str, str, str]]:
    rows = (await consent.of_profiles(console.workspace_id, [profile_id])).get(profile_id, [])
    return [(row.topic, row.status, row.source) for row in rows]


async def test_opening_the_link_shows_a_button_and_changes_nothing(console: Caller, http: httpx2.AsyncClient) -> None:
    """Scanners open every link of a mail."""
    path, profile = await link(console, topic="<b>deals</b>")
    for method in ("GET", "HEAD"):
        response = await http.request(method, path)
        assert response.status_code == 200
    page = await http.get(path)
    assert '<form method="post">' in page.text
    assert "&lt;b&gt;deals" in page.text
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert await said(console, profile) == []


@pytest.mark.parametrize(
    "body",
    [
        {"content": b"List-Unsubscribe=One-Click", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
        {"content": b""},
    ],
    ids=["form", "multipart", "empty"],
)
async def test_one_click_unsubscribes_without_key_cookie_or_redirect(
    console: Caller, http: httpx2.AsyncClient, body: dict[str, object]
) -> None:
    path, profile = await link(console)
    for _ in range(2):
        response = await http.post(path, **body)  # type: ignore[arg-type]
        assert (response.status_code, response.cookies) == (200, httpx2.Cookies())
        assert await said(console, profile) == [("newsletter", "UNSUBSCRIBED", "unsubscribe link")]


async def test_a_changed_link_is_404_and_changes_nothing(console: Caller, http: httpx2.AsyncClient) -> None:
    path, profile = await link(console)
    for wrong in (path[:-1], path + "A", "/u/x", "/u/" + "A" * 3000, "/u/%00", "/u/%ff"):
        assert (await http.get(wrong)).status_code == 404
        assert (await http.post(wrong)).status_code == 404
    assert await said(console, profile) == []


async def test_a_link_of_somebody_who_is_gone_is_still_answered(console: Caller, http: httpx2.AsyncClient) -> None:
    token = unsubscribe_token(
        Signer(ENVIRON["MUSTER_TOKEN_KEY"].encode()),
        workspace_id=console.workspace_id,
        profile_id=2_000_000_000,
        campaign_id=UUID(int=1),
    )
    assert (await http.post(f"/u/{token}")).status_code == 200


async def test_a_link_of_a_campaign_that_is_gone_is_about_all_mails(console: Caller, http: httpx2.AsyncClient) -> None:
    path, profile = await link(console)
    (edge,) = (await console.data("Campaigns"))["edges"]
    await console.data("CampaignDelete", input={"id": edge["node"]["id"]})
    assert "Do you want no more mails?" in (await http.get(path)).text
    assert "You will get no more mails." in (await http.post(path)).text
    assert await said(console, profile) == [("*", "UNSUBSCRIBED", "unsubscribe link")]


async def test_nobody_is_told_to_be_unsubscribed_who_is_not(
    console: Caller, http: httpx2.AsyncClient, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the database the page still has its button; the answer says when to come again, and the log who came."""
    path, profile = await link(console)
    with caplog.at_level(logging.WARNING):
        async with without_database(database):
            asked, pressed = await http.get(path), await http.post(path)
    assert (asked.status_code, pressed.status_code, pressed.headers["retry-after"]) == (200, 503, "60")
    assert "Do you want no more of these mails?" in asked.text
    assert "Not unsubscribed yet" in pressed.text
    assert all('<form method="post">' in page.text for page in (asked, pressed))
    logged = [record for record in caplog.records if record.name == "app.links"]
    assert [record.getMessage() for record in logged] == ["topic not looked up", "not unsubscribed"]
    assert {record.__dict__["profile_id"] for record in logged} == {profile}
    assert path.removeprefix("/u/") not in caplog.text
    assert await said(console, profile) == []
    assert (await http.post(path)).status_code == 200
    assert await said(console, profile) == [("newsletter", "UNSUBSCRIBED", "unsubscribe link")]


async def test_a_fault_of_ours_is_logged_without_the_link(
    console: Caller, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its token is as good as a key: who reads the log must not be able to unsubscribe people."""
    path, _ = await link(console)

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("app.links.topic_of", broken)
    with caplog.at_level(logging.WARNING):
        assert (await http.get(path)).status_code == 500
    (said,) = [record for record in caplog.records if record.getMessage() == "request failed"]
    assert path.removeprefix("/u/") not in caplog.text + str(said.__dict__)
    assert said.__dict__["where"] == "ask"


async def test_a_large_body_is_refused(console: Caller, http: httpx2.AsyncClient) -> None:
    path, profile = await link(console)
    assert (await http.post(path, content=b"x" * 5000)).status_code == 413
    assert await said(console, profile) == []
