"""Push notifications over GraphQL: what they say, what platforms are given, credentials and devices."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import pytest

from app.api import ids
from app.api.ids import Kind
from app.pushproviders import Apns, Fcm, Shown, apns_error
from app.pushsink import PushSink
from app.settings import load_settings
from campaigns import push_sizing, sending
from campaigns.push_content import PushContent
from profiles import keys
from profiles.addresses import AddressHasher
from profiles.devices import GoneDevice, Platform, Provider, disable_gone
from profiles.models import KeyKind
from tests.app.caller import Caller, operation_text
from tests.app.conftest import MakeCaller, client_of
from tests.campaigns.push_factories import (
    ScriptedProvider,
    make_device,
    make_push_campaign,
    push_carrier,
    set_credential,
)
from tests.channels.pushing import p8, service_account_json
from tests.conftest import Database

CONTENT: dict[str, Any] = {
    "title": "Hello {{ profile.first_name }}",
    "body": "Roses",
    "imageUrl": "https://cdn.example/{{ traits.city | urlencode }}.png",
    "link": "shop://offers/{{ traits.city | urlencode }}",
    "buttons": [
        {"id": "show", "label": "Show", "link": "shop://roses"},
        {"id": "later", "label": "Later", "link": None},
    ],
    "customData": [{"key": "offer", "value": "{{ traits.city }}"}],
    "ios": {
        "subtitle": "Only {{ profile.first_name }}",
        "badge": 3,
        "sound": "default",
        "threadId": "offers",
        "interruptionLevel": "TIME_SENSITIVE",
        "relevanceScore": 0.5,
        "mutableContent": True,
        "category": "OFFER",
        "collapseId": "roses",
        "pushType": "ALERT",
        "priority": "HIGH",
        "expirySeconds": 3600,
    },
    "android": {
        "channelId": "offers",
        "priority": "NORMAL",
        "ttlSeconds": 60,
        "collapseKey": "roses",
        "tag": "roses",
        "color": "#112233",
        "icon": "rose",
        "sound": "default",
        "clickAction": "OPEN",
    },
    "web": {
        "iconUrl": "https://cdn.example/i.png",
        "badgeUrl": "https://cdn.example/b.png",
        "tag": "roses",
        "requireInteraction": True,
        "ttlSeconds": 30,
        "priority": "NORMAL",
    },
    "silent": False,
    "resendInDoubt": False,
    "locale": "en",
    "translations": [
        {
            "locale": "de",
            "title": "Hallo {{ profile.first_name }}",
            "subtitle": None,
            "body": None,
            "imageUrl": None,
            "link": None,
            "buttons": None,
            "customData": None,
        }
    ],
}
VARIABLES = [{"name": "profile.first_name", "default": "you"}]
NO_OPTIONS = {
    "ios": dict.fromkeys(CONTENT["ios"]),
    "android": dict.fromkeys(CONTENT["android"]),
    "web": dict.fromkeys(CONTENT["web"]) | {"requireInteraction": False},
}


@pytest.fixture
async def console(caller: MakeCaller, workspace: UUID) -> Caller:
    return await caller(workspace)


async def make(console: Caller, content: dict[str, Any], **more: Any) -> str:
    made = await console.data("CampaignCreate", input={"name": "Roses", "content": {"push": content}} | more)
    id: str = made["campaign"]["id"]
    return id


async def test_a_notification_is_kept_as_it_was_written(console: Caller) -> None:
    """S3-19, S3-20."""
    id = await make(console, CONTENT | {"variables": VARIABLES})
    campaign = await console.data("Campaign", id=id)
    asks = [*VARIABLES, {"name": "traits.city", "default": None}]
    assert campaign["channel"] == "PUSH"
    assert campaign["content"] == {"__typename": "PushContent"} | CONTENT | {"variables": asks}
    plain: dict[str, Any] = {
        "title": "",
        "body": "B",
        "link": None,
        "imageUrl": None,
        "buttons": [],
        "customData": [],
        "silent": False,
    }
    changed = {"id": id, "content": {"push": {"body": "B"}}}
    await console.data("CampaignUpdate", input=changed)
    expected = {"__typename": "PushContent", "resendInDoubt": True, "locale": None, "translations": [], "variables": []}
    assert (await console.data("Campaign", id=id))["content"] == expected | plain | NO_OPTIONS
    other = {"id": id, "content": {"email": {"subject": "A", "text": "B"}}}
    assert await console.refusal("CampaignUpdate", input=other) == ("CHANNEL_FIXED", ["input", "content"])


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "EMPTY", "title"),
    ({"title": "{{ a() }}"}, "TEMPLATE_NOT_ALLOWED", "title"),
    ({"title": "{{ unsubscribe_url }}"}, "TEMPLATE_NOT_ALLOWED", "title"),
    ({"title": "a" * 1025}, "TEMPLATE_TOO_LARGE", "title"),
    ({"title": "A", "imageUrl": "http://cdn.example/a.png"}, "NOT_A_URL", "imageUrl"),
    ({"title": "A", "link": "javascript:alert(1)"}, "NOT_A_URL", "link"),
    ({"title": "A", "link": "https://{{ traits.host }}/"}, "VARIABLE_IN_HOST", "link"),
    ({"title": "A", "link": "{{ traits.link }}"}, "NOT_A_URL", "link"),
    ({"title": "A", "buttons": [{"id": "a b", "label": "A"}]}, "INVALID_ID", "buttons.0.id"),
    ({"title": "A", "buttons": [{"id": "a", "label": "A"}, {"id": "a", "label": "B"}]}, "TWICE", "buttons.1.id"),
    ({"title": "A", "buttons": [{"id": "a", "label": " "}]}, "EMPTY", "buttons.0.label"),
    ({"title": "A", "buttons": [{"id": f"b{n}", "label": "A"} for n in range(5)]}, "TOO_MANY", "buttons"),
    ({"title": "A", "customData": [{"key": "aps", "value": ""}]}, "RESERVED_KEY", "customData.0.key"),
    ({"title": "A", "customData": [{"key": "google.x", "value": ""}]}, "RESERVED_KEY", "customData.0.key"),
    ({"title": "A", "customData": [{"key": "1", "value": ""}]}, "INVALID_KEY", "customData.0.key"),
    ({"title": "A", "customData": [{"key": "a", "value": ""}] * 2}, "TWICE", "customData.1.key"),
    ({"title": "A", "customData": [{"key": "a", "value": "{% if %}"}]}, "TEMPLATE_SYNTAX", "customData.0.value"),
    ({"title": "A", "ios": {"badge": -1}}, "OUT_OF_RANGE", "ios.badge"),
    ({"title": "A", "ios": {"relevanceScore": 1.5}}, "OUT_OF_RANGE", "ios.relevanceScore"),
    ({"title": "A", "ios": {"collapseId": "ü" * 33}}, "TOO_LONG", "ios.collapseId"),
    ({"title": "A", "ios": {"pushType": "BACKGROUND"}}, "NOT_SILENT", "ios.pushType"),
    ({"title": "A", "ios": {"expirySeconds": -1}}, "OUT_OF_RANGE", "ios.expirySeconds"),
    ({"title": "A", "ios": {"sound": "a\nb"}}, "INVALID_TEXT", "ios.sound"),
    ({"title": "A", "android": {"color": "red"}}, "NOT_A_COLOR", "android.color"),
    ({"title": "A", "android": {"ttlSeconds": 2_419_201}}, "OUT_OF_RANGE", "android.ttlSeconds"),
    ({"title": "A", "android": {"tag": "t" * 65}}, "TOO_LONG", "android.tag"),
    ({"title": "A", "web": {"iconUrl": "i.png"}}, "NOT_A_URL", "web.iconUrl"),
    ({"title": "A", "web": {"badgeUrl": "https://a.example/" + "b" * 2_048}}, "NOT_A_URL", "web.badgeUrl"),
    ({"title": "A", "silent": True}, "SILENT", "title"),
    ({"silent": True, "ios": {"badge": 0}}, "SILENT", "ios.badge"),
    ({"silent": True, "ios": {"priority": "HIGH"}}, "SILENT_PRIORITY", "ios.priority"),
    ({"silent": True, "translations": [{"locale": "de", "body": "B"}]}, "SILENT", "translations.0.body"),
    ({"title": "A", "locale": "?"}, "INVALID_LOCALE", "locale"),
    ({"title": "A", "translations": [{"locale": "de"}, {"locale": "DE"}]}, "TWICE", "translations.1.locale"),
    (
        {"title": "A", "translations": [{"locale": "de", "buttons": [{"id": "a", "label": "A"}]}]},
        "OTHER_BUTTONS",
        "translations.0.buttons",
    ),
    ({"title": "A", "translations": [{"locale": "de", "title": " "}]}, "EMPTY", "translations.0.title"),
    ({"title": "A", "variables": [{"name": "now", "default": ""}]}, "NOT_A_VARIABLE", "variables.0.name"),
    ({"title": "A", "body": "b" * 4_000}, "MESSAGE_TOO_LARGE", "body"),
]


async def test_what_platforms_would_not_take_is_refused_with_its_field(console: Caller) -> None:
    """S3-20; T-15 for what is the same for everybody."""
    for content, code, field in REFUSED:
        wanted = {"name": "Roses", "content": {"push": content}}
        path = ["input", "content", "push", *field.split(".")]
        assert await console.refusal("CampaignCreate", input=wanted) == (code, path), content


async def test_a_notification_has_no_sender_and_no_placement(console: Caller) -> None:
    sender = {"fromName": "A", "fromAddress": "a@example.com", "postalAddress": "P"}
    sender_id = (await console.data("SenderCreate", input=sender))["sender"]["id"]
    for name, value in (("senderId", sender_id), ("weight", 1)):
        wanted = {"name": "Roses", "content": {"push": {"title": "A"}}, name: value}
        assert await console.refusal("CampaignCreate", input=wanted) == ("NOT_FOR_THIS_CHANNEL", ["input", name])


async def test_a_preview_shows_what_every_platform_would_be_given_to_the_byte(console: Caller) -> None:
    """T-15: the size of the very payload."""
    await console.data("ProfileUpsert", input={"externalId": "ada", "traits": {"city": "Bern"}, "locale": "de-CH"})
    id = await make(console, CONTENT | {"variables": VARIABLES})
    shown = await console.data("CampaignPushPreview", input={"campaignId": id, "recipient": {"externalId": "ada"}})
    assert shown["problems"] == []
    assert shown["variables"] == [
        {"name": "profile.first_name", "value": "you", "isMissing": True},
        {"name": "traits.city", "value": "Bern", "isMissing": False},
    ]
    payloads = {one["target"]: one for one in shown["payloads"]}
    assert [*payloads] == ["APNS", "FCM_IOS", "FCM_ANDROID", "FCM_WEB"]
    assert {one["locale"] for one in payloads.values()} == {"de"}
    assert all(one["sizeBytes"] == len(one["payload"].encode()) for one in payloads.values())
    apns = orjson.loads(payloads["APNS"]["payload"])
    assert apns["aps"]["alert"] == {"title": "Hallo you", "subtitle": "Only you", "body": "Roses"}
    assert (apns["link"], apns["offer"]) == ("shop://offers/Bern", "Bern")
    headers = {one["name"]: one["value"] for one in payloads["APNS"]["headers"]}
    assert int(headers.pop("apns-expiration")) > 0
    assert headers == {"apns-push-type": "alert", "apns-priority": "10", "apns-collapse-id": "roses"}
    android = orjson.loads(payloads["FCM_ANDROID"]["payload"])
    assert (android["android"]["ttl"], android["notification"]["title"]) == ("60s", "Hallo you")


async def test_a_preview_says_why_somebody_would_get_none(console: Caller) -> None:
    sample = {"traits": {"long": "x" * 5_000}}
    content = {"title": "A", "body": "{{ traits.long }}"}
    shown = await console.data("CampaignPushPreview", input={"content": content, "recipient": {"sample": sample}})
    assert {one["code"] for one in shown["problems"]} == {"TOO_LARGE"}
    assert all(one["sizeBytes"] > 5_000 for one in shown["payloads"])
    content = {"title": "{{ traits.none }}"}
    shown = await console.data("CampaignPushPreview", input={"content": content, "recipient": {"sample": {}}})
    assert [one["code"] for one in shown["problems"]] == ["MISSING_VALUE"]
    assert [(one["payload"], one["sizeBytes"]) for one in shown["payloads"]] == [(None, None)] * 4
    asked: dict[str, Any] = {"content": {}, "recipient": {"sample": {}}}
    assert (await console.error("CampaignPushPreview", input=asked))["code"] == "EMPTY"
    asked["content"] = {"title": "A", "customData": [{"key": "aps", "value": ""}]}
    refused = {"code": "RESERVED_KEY", "field": ["content", "customData", "0", "key"]}
    assert await console.error("CampaignPushPreview", input=asked) == refused


@pytest.mark.parametrize(("letters", "status"), [(0, "SENDING"), (1, "PAUSED")])
async def test_what_is_too_large_for_one_of_the_audience_is_refused_before_the_first_leaves(
    console: Caller, workspace: UUID, hasher: AddressHasher, now: datetime, letters: int, status: str
) -> None:
    """T-15: 4,096 bytes are sent and 4,097 are not, by the worst of the audience."""
    await set_credential(workspace, now=now)
    content = PushContent(title="A", body="{{ traits.a }}{% if traits.b %}{{ traits.b }}{% endif %}")
    sample = {"traits": {"a": "", "b": ""}}
    given = {"content": {"title": "A", "body": content.body}, "recipient": {"sample": sample}}
    shown = await console.data("CampaignPushPreview", input=given)
    (empty,) = [one["sizeBytes"] for one in shown["payloads"] if one["target"] == "FCM_ANDROID"]
    for name, a in (("short", 10), ("worst", 4_096 - empty - 100 + letters)):
        traits = {"a": "a" * a, "b": "b" * 100}
        await console.data("ProfileUpsert", input={"externalId": name, "traits": traits})
        await make_device(workspace, name, now=now, provider=Provider.FCM, platform=Platform.ANDROID)
    campaign = await make_push_campaign(workspace, now=now, content=content)
    await sending.start(workspace, campaign.id, now=now)
    provider = ScriptedProvider()
    carrier = push_carrier(provider, hasher)
    await sending.prepare(workspace, campaign.id, carrier=carrier, now=now, until=float("inf"))
    if letters:
        await sending.deliver(workspace, campaign.id, carrier=carrier, now=now, until=float("inf"))
    found = await console.data("Campaign", id=ids.encode(Kind.CAMPAIGN, campaign.id))
    assert (found["status"], provider.received) == (status, [])
    if letters:
        assert found["statusReason"] == "MESSAGE_TOO_LARGE"
        assert "4,097 bytes" in found["statusDetail"]
        assert "most of it is body" in found["statusDetail"]


async def test_only_people_who_get_a_message_are_looked_at_for_its_size(
    console: Caller, workspace: UUID, hasher: AddressHasher, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-15: whoever has no device or is skipped holds nobody up, and hides nobody who has less to say."""
    await set_credential(workspace, now=now)
    for name, letters in (("reached", 10), ("unreached", 9_000), ("refusing", 8_000)):
        traits = {"a": "a" * letters}
        made = await console.data("ProfileUpsert", input={"externalId": name, "traits": traits})
        if name != "unreached":
            await make_device(workspace, name, now=now)
    refusal = {"profileId": made["profile"]["id"], "channel": "PUSH", "topic": "*", "status": "UNSUBSCRIBED"}
    await console.data("ConsentUpdate", input=refusal)

    async def sent(body: str) -> tuple[int, str | None]:
        content = PushContent(title="A", body=body)
        campaign = await make_push_campaign(workspace, now=now, content=content)
        await sending.start(workspace, campaign.id, now=now)
        provider = ScriptedProvider()
        carrier = push_carrier(provider, hasher)
        for work in (sending.prepare, sending.deliver):
            await work(workspace, campaign.id, carrier=carrier, now=now, until=float("inf"))
        found = await console.data("Campaign", id=ids.encode(Kind.CAMPAIGN, campaign.id))
        return len(provider.received), found["statusReason"]

    assert await sent("{{ traits.a }}") == (1, None)
    assert await sent("{{ profile.external_id }}" * 100) == (1, None)
    await make_device(workspace, "x" * 50, now=now)
    assert await sent("{{ profile.external_id }}" * 100) == (0, "MESSAGE_TOO_LARGE")
    monkeypatch.setattr(push_sizing, "LOOKED_AT", 1)
    await console.data("ProfileUpsert", input={"externalId": "reached", "traits": {"a": "a" * 5_000}})
    assert await sent("{{ traits.a }}") == (0, "MESSAGE_TOO_LARGE")


@pytest.fixture
async def by_providers(environ: dict[str, str], workspace: UUID) -> AsyncIterator[tuple[Caller, PushSink, PushSink]]:
    """A caller of an API whose FCM and APNs are on this machine."""
    async with PushSink(Fcm()) as fcm, PushSink(Apns()) as apns:
        local = {"MUSTER_ENV": "development", "MUSTER_FCM_URL": fcm.url, "MUSTER_APNS_URL": apns.url}
        async with client_of(load_settings(environ | local)) as http:
            _, secret = await keys.create(workspace, name="of a test", kind=KeyKind.SECRET, scopes=["admin"])
            yield Caller(http, workspace, secret), fcm, apns


APNS_SECRET = {"p8": "", "keyId": "ABC1234567", "teamId": "TEAM123456", "bundleId": "com.example.shop"}
UNKNOWN = {"checkedAt": None, "checkCode": None, "checkDetail": None}


async def test_credentials_go_in_are_tried_and_never_come_out(
    by_providers: tuple[Caller, PushSink, PushSink], database: Database
) -> None:
    """T-26."""
    console, fcm, apns = by_providers
    account, key = service_account_json(), p8()
    made = await console.data("PushCredentialSet", input={"secret": {"fcm": {"serviceAccount": account}}})
    google = made["credential"]
    facts = {"projectId": "shop-test", "clientEmail": "push@shop-test.iam.gserviceaccount.com"}
    none = dict.fromkeys(("keyId", "teamId", "bundleId", "sandbox"))
    named = {"app": "default", "provider": "FCM", "setAt": google["setAt"]}
    assert google == named | facts | none | UNKNOWN
    wanted = {"app": "lite", "secret": {"apns": APNS_SECRET | {"p8": key, "sandbox": True}}}
    apple = (await console.data("PushCredentialSet", input=wanted))["credential"]
    of_apple = {name: APNS_SECRET[name] for name in ("keyId", "teamId", "bundleId")} | {"sandbox": True}
    named = {"app": "lite", "provider": "APNS", "setAt": apple["setAt"], "projectId": None, "clientEmail": None}
    assert apple == named | of_apple | UNKNOWN
    assert await console.data("PushCredentials") == [google, apple]

    for provider, app in (("FCM", "default"), ("APNS", "lite")):
        tried = await console.data("PushCredentialTest", input={"provider": provider, "app": app})
        assert (tried["credential"]["checkCode"], tried["credential"]["checkDetail"]) == ("ACCEPTED", None)
    assert (shown_by(fcm), shown_by(apns)) == ([], [])
    apns.script.append(apns_error(403, "InvalidProviderToken"))
    tried = await console.data("PushCredentialTest", input={"provider": "APNS", "app": "lite"})
    assert tried["credential"]["checkCode"] == "AUTHENTICATION"

    deleted = {"provider": "FCM"}
    assert (await console.data("PushCredentialDelete", input=deleted))["deleted"] is True
    for operation in ("PushCredentialDelete", "PushCredentialTest"):
        assert await console.refusal(operation, input=deleted) == ("NOT_FOUND", ["input", "app"])
    listed = await console.data("PushCredentials")
    assert [(one["app"], one["checkCode"]) for one in listed] == [("lite", "AUTHENTICATION")]
    said = str(listed) + str(google) + str(apple) + str(tried)
    assert "PRIVATE KEY" not in said


def shown_by(sink: PushSink) -> list[Shown]:
    answers = sink.answer
    assert isinstance(answers, Fcm | Apns)
    return answers.shown


async def test_what_is_no_credential_is_refused(console: Caller) -> None:
    for wanted, code, field in (
        ({"secret": {"fcm": {"serviceAccount": "{}"}}}, "INVALID_SECRET", "secret"),
        ({"secret": {"apns": APNS_SECRET}}, "INVALID_SECRET", "secret"),
        ({"secret": {"fcm": {"serviceAccount": " " * 8_193}}}, "TOO_LONG", "secret"),
        ({"app": "My App", "secret": {"apns": APNS_SECRET}}, "INVALID_APP", "app"),
    ):
        assert await console.refusal("PushCredentialSet", input=wanted) == (code, ["input", field])


async def test_a_secret_of_the_wrong_shape_is_not_repeated(console: Caller) -> None:
    """T-26."""
    key, asked = p8(), operation_text("PushCredentialSet")
    secrets: list[dict[str, Any]] = [{"apns": {"p8": key}}, {"apns": APNS_SECRET | {"p8": [key]}}, {"fcm": key}]
    answers = [(await console.post(asked, {"input": {"secret": secret}})).text for secret in secrets]
    literal = f'mutation {{ pushCredentialSet(input: {{secret: {{apns: """{key}"""}}}}) {{ credential {{ app }} }} }}'
    answers.append((await console.post(literal)).text)
    mistyped = await console.post(asked, {"input": {"secret": {"apns": APNS_SECRET | {"p88": key}}}})
    mail = {"name": "x", "class": key, "content": {"email": {"subject": "x", "html": "x"}}}
    misplaced = await console.post(operation_text("CampaignCreate"), {"input": mail})
    answers += [mistyped.text, misplaced.text]
    for answer in answers:
        assert "something long." in answer
        assert "PRIVATE KEY" not in answer


async def test_a_person_has_several_devices_that_move_are_renewed_and_tell_why_they_are_disabled(
    console: Caller, workspace: UUID, now: datetime
) -> None:
    phone = {"provider": "FCM", "token": "t1", "platform": "ANDROID", "externalId": "ada", "app": "lite"}
    tablet = {"provider": "APNS", "token": "t2", "platform": "IOS", "externalId": "ada", "locale": "de_ch"}
    first = (await console.data("DeviceRegister", input=phone))["deviceId"]
    second = (await console.data("DeviceRegister", input=tablet))["deviceId"]

    async def devices(who: str, **more: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await console.data("Profile", externalId=who, **more))["devices"]
        return found

    held = await devices("ada")
    assert [(one["id"], one["app"], one["locale"], one["disabledAt"]) for one in held] == [
        (first, "lite", None, None),
        (second, "default", "de-CH", None),
    ]
    assert (await console.data("DeviceRegister", input=phone | {"externalId": "bob"}))["deviceId"] == first
    assert [[one["id"] for one in await devices(who)] for who in ("ada", "bob")] == [[second], [first]]

    await console.data("DeviceUnregister", input={"provider": "APNS", "token": "t2"})
    key = (await make_device(workspace, "bob", now=now)).id
    later = await make_device(workspace, "bob", now=now, token="t9")
    await disable_gone(workspace, [GoneDevice(later.id, "t9", now)], now=now)
    assert [one["id"] for one in await devices("ada")] == []
    (disabled,) = await devices("ada", disabledDevices=True)
    assert (disabled["id"], disabled["disabledReason"]) == (second, "UNREGISTERED")
    assert disabled["disabledAt"] is not None
    every = await devices("bob", disabledDevices=True)
    assert [one["disabledReason"] for one in every] == [None, None, "GONE"]
    assert key < later.id

    await console.data("DeviceRegister", input=tablet)
    assert [one["disabledReason"] for one in await devices("ada", disabledDevices=True)] == [None]
    refused = await console.refusal("DeviceRegister", input=phone | {"app": "My App"})
    assert refused == ("INVALID_APP", ["input", "app"])
