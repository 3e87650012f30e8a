"""Previews over GraphQL, declared variables, and MJML: what is shown is what is sent."""

import json
import re
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from campaigns.emails import EmailContent, Finished, finish
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller
from tests.app.test_api_campaigns import NOWHERE, complete, make, people, sender, work

FOOTER = '<p>{{ sender.postal_address }} <a href="{{ unsubscribe_url }}">No more</a></p>'
HTML = f"<style>p {{ color: red }}</style><p>Hello {{{{ profile.first_name }}}} & all</p>{FOOTER}"
EMAIL = {
    "subject": "News for {{ profile.first_name }} of {{ campaign.name }}",
    "preheader": "For {{ traits.first_name | upper }}",
    "html": HTML,
    "variables": [{"name": "profile.first_name", "default": "friend"}],
}
MJML = (
    "<mjml><mj-body><mj-section><mj-column><mj-text>Hi {{ profile.first_name }}</mj-text>"
    '{% for one in traits.offers %}<mj-button href="{{ one.url | url }}">{{ one.name }}</mj-button>{% endfor %}'
    f"<mj-text>{FOOTER}</mj-text></mj-column></mj-section></mj-body></mjml>"
)


async def preview(console: Caller, recipient: dict[str, Any], **more: Any) -> Any:
    return await console.data("CampaignPreview", input={"recipient": recipient} | more)


def part(message: EmailMessage, kind: str) -> str:
    found = message.get_body((kind,))
    assert isinstance(found, EmailMessage)
    return str(found.get_content()).replace("\r\n", "\n").rstrip("\n")


async def test_a_preview_is_the_mail_that_is_sent(console: Caller) -> None:
    """S3-16, S3-21."""
    await console.data("WorkspaceUpdate", input={"trackOpens": False, "trackClicks": False})
    profile = {"externalId": "ada", "email": "ada@example.com", "traits": {"first_name": "Zoë <Ada>"}}
    made = await console.data("ProfileUpsert", input=profile)
    campaign = await make(console, content={"email": EMAIL})
    shown = await preview(console, {"externalId": "ada"}, campaignId=campaign)
    assert shown["problems"] == shown["warnings"] == []
    assert shown["subject"] == "News for Zoë <Ada> of News"
    assert shown["preheader"] == "For ZOË <ADA>"
    assert await preview(console, {"profileId": made["profile"]["id"]}, campaignId=campaign) == shown
    await console.data("CampaignSend", input={"id": campaign})
    channel = await work(console, campaign)
    (received,) = channel.received
    message = message_from_bytes(received.data, policy=default)
    assert isinstance(message, EmailMessage)
    assert message["Subject"] == shown["subject"]
    link = str(message["List-Unsubscribe"]).strip("<>")
    for kind, text in (("plain", shown["text"]), ("html", shown["html"])):
        assert "https://muster.example/u/preview" in text
        assert part(message, kind) == text.replace("https://muster.example/u/preview", link)
    assert 0 < shown["sizeBytes"] < len(received.data)  # its unsubscribe link is shorter
    assert 'style="color: red;">Hello Zoë &lt;Ada&gt; &amp; all</p>' in shown["html"]


async def test_a_declared_default_stands_where_a_recipient_has_none(console: Caller) -> None:
    await people(console, "bob")
    campaign = await make(console, content={"email": EMAIL})
    shown = await preview(console, {"externalId": "bob"}, campaignId=campaign)
    assert (shown["subject"], shown["preheader"]) == ("News for friend of News", "For FRIEND")
    assert shown["variables"] == [
        {"name": "profile.first_name", "value": "friend", "isMissing": True},
        {"name": "traits.first_name", "value": "friend", "isMissing": True},
    ]
    await console.data("CampaignSend", input={"id": campaign})
    (received,) = (await work(console, campaign)).received
    assert b"Subject: News for friend of News\r\n" in received.data
    content = (await console.data("Campaign", id=campaign))["content"]
    assert content["variables"] == [
        {"name": "profile.first_name", "default": "friend"},
        {"name": "traits.first_name", "default": "friend"},
    ]


async def test_a_preview_says_what_a_recipient_lacks(console: Caller) -> None:
    await people(console, "bob")
    email = EMAIL | {"variables": [{"name": "traits.never_read", "default": [1, {"a": True}]}]}
    shown = await preview(console, {"externalId": "bob"}, content=email)
    assert (shown["subject"], shown["html"], shown["text"], shown["sizeBytes"]) == (None, None, None, None)
    found = [(one["code"], one["field"]) for one in shown["problems"]]
    assert found == [("MISSING_VALUE", ["content", name]) for name in ("subject", "preheader", "text", "html")]
    assert 'profile.first_name | default("...")' in shown["problems"][0]["message"]
    assert shown["variables"] == [
        {"name": "profile.first_name", "value": None, "isMissing": True},
        {"name": "traits.first_name", "value": None, "isMissing": True},
    ]
    assert [one["code"] for one in shown["warnings"]] == ["NOT_READ"]


async def test_a_sample_needs_no_profile_and_mjml_becomes_html(console: Caller) -> None:
    """S3-16."""
    sample = {"traits": {"first_name": "Cy", "offers": [{"name": "Tea", "url": "https://shop.example/tea"}]}}
    shown = await preview(console, {"sample": sample}, content={"subject": "Hi {{ profile.email }}", "mjml": MJML})
    assert (shown["subject"], shown["problems"], shown["warnings"]) == ("Hi someone@example.com", [], [])
    assert '<a href="https://shop.example/tea"' in shown["html"]
    assert shown["text"].startswith("Hi Cy\n\nTea (https://shop.example/tea)\n\nYour postal address No more (https://")
    names = [(one["name"], one["isMissing"]) for one in shown["variables"]]
    assert names == [("profile.email", False), ("profile.first_name", False), ("traits.offers", False)]


WARNINGS: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"subject": "x", "html": "<p>x</p>"}, "UNSUBSCRIBE_LINK_MISSING", ["content", "html"]),
    ({"subject": "x", "mjml": "<mjml><mj-body></mj-body></mjml>"}, "UNSUBSCRIBE_LINK_MISSING", ["content", "mjml"]),
    ({"subject": "x" * 300, "html": FOOTER}, "SUBJECT_CUT", ["content", "subject"]),
    ({"subject": "x", "html": "<p>xxxxxxx</p>" * 7_305 + FOOTER, "preheader": "x"}, "CLIPPED", ["content", "html"]),
    ({"subject": "x", "text": FOOTER, "preheader": "x"}, "NOT_SHOWN", ["content", "preheader"]),
]


async def test_what_may_not_be_meant_is_a_warning(console: Caller) -> None:
    for content, code, field in WARNINGS:
        shown = await preview(console, {"sample": {}}, content=content)
        assert [(one["code"], one["field"]) for one in shown["warnings"]] == [(code, field)], code
        assert shown["problems"] == []
    shown = await preview(console, {"sample": {}}, content=WARNINGS[0][0], **{"class": "TRANSACTIONAL"})
    assert shown["warnings"] == []


async def test_a_mail_that_has_no_address_to_go_to_is_a_problem(console: Caller) -> None:
    shown = await preview(console, {"sample": {"email": "no address"}}, content={"subject": "x", "text": "y"})
    assert [one["code"] for one in shown["problems"]] == ["NOT_AN_ADDRESS"]
    assert (shown["text"], shown["sizeBytes"]) == ("y", None)


async def test_a_preview_without_a_person_or_a_content_is_refused(console: Caller) -> None:
    await people(console, "ada")
    content = {"subject": "x", "text": "y"}
    wrong: list[tuple[dict[str, Any], str, list[str] | None]] = [
        ({"recipient": {"externalId": "nobody"}}, "NOT_FOUND", ["recipient", "externalId"]),
        ({"recipient": {"profileId": "prf_99"}}, "NOT_FOUND", ["recipient", "profileId"]),
        ({"recipient": {"profileId": "seg_99"}}, "INVALID_ID", ["recipient", "profileId"]),
        ({"recipient": {"sample": {"traits": [1]}}}, "NOT_AN_OBJECT", ["recipient", "sample", "traits"]),
        ({"campaignId": "cmp_" + NOWHERE}, "NOT_FOUND", ["campaignId"]),
        ({"senderId": "snd_" + NOWHERE}, "NOT_FOUND", ["senderId"]),
        ({"content": {"subject": "{{ x }}", "text": "y"}}, "TEMPLATE_NOT_ALLOWED", ["content", "subject"]),
        ({"content": {"subject": "x", "html": "y", "mjml": "z"}}, "HTML_AND_MJML", ["content", "mjml"]),
        ({"content": None}, "CONTENT_MISSING", ["content"]),
    ]
    for more, code, field in wrong:
        wanted = {"recipient": {"externalId": "ada"}, "content": content} | more
        found = await console.error("CampaignPreview", input=wanted)
        assert (found["code"], found.get("field")) == (code, field)


async def test_a_preview_makes_a_content_ready_once(console: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not take a child much longer than the proof did, else what could be saved could not be looked at."""
    times = []

    def counted(content: EmailContent) -> Finished:
        times.append(content)
        return finish(content)

    monkeypatch.setattr("campaigns.proofs.finish", counted)
    monkeypatch.setattr("campaigns.emails.finish", counted)
    shown = await preview(console, {"sample": {}}, content={"subject": "x", "html": "<p>y</p>"})
    assert (shown["problems"], len(times)) == ([], 1)


async def test_a_key_that_may_only_read_writes_no_previews(caller: MakeCaller, workspace: UUID) -> None:
    reader = await caller(workspace, "read")
    wanted = {"recipient": {"sample": {}}, "content": {"subject": "x", "text": "y"}}
    assert (await reader.error("CampaignPreview", input=wanted))["code"] == "FORBIDDEN"


WRONG_VARIABLES: list[tuple[list[dict[str, Any]], str, list[str]]] = [
    ([{"name": "first_name", "default": "x"}], "NOT_A_VARIABLE", ["0", "name"]),
    ([{"name": "sender.name", "default": "x"}], "NOT_A_VARIABLE", ["0", "name"]),
    ([{"name": "profile", "default": "x"}], "NOT_A_VARIABLE", ["0", "name"]),
    ([{"name": "traits.a }}{{ traits.b", "default": "x"}], "NOT_A_VARIABLE", ["0", "name"]),
    ([{"name": "traits." + "a" * 300, "default": "x"}], "NOT_A_VARIABLE", ["0", "name"]),
    ([{"name": "traits.a", "default": "x"}, {"name": "profile.a", "default": "y"}], "DECLARED_TWICE", ["1", "name"]),
    ([{"name": "traits.a", "default": "x" * 2_000}], "INVALID_DEFAULT", ["0", "default"]),
    ([{"name": f"traits.a{n}", "default": 1} for n in range(101)], "TOO_MANY", []),
]


async def test_a_variable_that_nobody_could_have_is_refused_at_its_place(console: Caller) -> None:
    for variables, code, field in WRONG_VARIABLES:
        content = {"email": EMAIL | {"variables": variables}}
        wanted = {"name": "x", "content": content}
        expected = (code, ["input", "content", "email", "variables", *field])
        assert await console.refusal("CampaignCreate", input=wanted) == expected


async def test_what_may_be_saved_for_one_class_is_refused_for_the_other(console: Caller) -> None:
    plain = {"email": {"subject": "Your receipt", "text": "Paid."}}
    wanted = await complete(console, content=plain, senderId=await sender(console))
    refused = ("UNSUBSCRIBE_LINK_MISSING", ["input", "content", "email", "text"])
    assert await console.refusal("CampaignCreate", input=wanted) == refused
    made = await console.data("CampaignCreate", input=wanted | {"class": "TRANSACTIONAL"})
    changed = {"id": made["campaign"]["id"], "class": "MARKETING"}
    code, path = await console.refusal("CampaignUpdate", input=changed)
    assert (code, path) == ("UNSUBSCRIBE_LINK_MISSING", ["input", "content", "text"])
    copy = await console.data("CampaignDuplicate", input={"id": made["campaign"]["id"]})
    assert copy["campaign"]["class"] == "TRANSACTIONAL"


PAGE = (Path(__file__).parents[2] / "docs" / "templates.md").read_text()
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


async def test_the_examples_of_the_page_on_templates_are_mails(console: Caller) -> None:
    """docs/templates.md: HTML, MJML, a sample of somebody, and declared variables."""
    blocks: dict[str, list[str]] = {}
    for language, block in FENCED.findall(PAGE):
        blocks.setdefault(language, []).append(block)
    sample, declared = map(json.loads, blocks["json"])
    (html,), (mjml,) = blocks["html"], blocks["xml"]
    for page in ({"html": html}, {"mjml": mjml}):
        content = {"subject": "Hi {{ profile.first_name }}"} | page | declared
        shown = await preview(console, {"sample": sample}, content=content)
        assert (shown["subject"], shown["problems"], shown["warnings"]) == ("Hi Ada", [], [])
        assert "Tea" in shown["text"]
        assert "https://shop.example/tea" in shown["text"]
        nobody = await preview(console, {"sample": {}}, content=content)
        assert (nobody["subject"], nobody["problems"]) == ("Hi friend", [])
        made = await console.data("CampaignCreate", input=await complete(console, content={"email": content}))
        names = [
            one["name"] for one in (await console.data("Campaign", id=made["campaign"]["id"]))["content"]["variables"]
        ]
        assert names == ["profile.first_name", "traits.orders"]
