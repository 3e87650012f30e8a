"""Push payloads: what every platform is given, byte by byte; languages, lifetimes, and bounds of their size."""

import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns import push_proofs, push_sizing
from campaigns.emails import Recipient, Variable
from campaigns.errors import CampaignError, RenderError
from campaigns.push_bounds import OF_CASE
from campaigns.push_content import (
    AndroidOptions,
    InterruptionLevel,
    IosOptions,
    PushButton,
    PushContent,
    PushPriority,
    PushTranslation,
    WebOptions,
    repeats_on,
)
from campaigns.push_payloads import LONGEST_LIFE_S
from campaigns.push_rendering import PAYLOAD_LIMIT, compile_push
from channels.base import PushMessage, PushProvider, PushType

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DISPATCH = UUID("0192b3a0-0000-7000-8000-000000000001")
MESSAGE = "0192b3a0-0000-7000-8000-000000000002"
ADA = Recipient("", traits={"first_name": "Ada", "city": "Bern"}, locale="de-CH")


@dataclass(frozen=True)
class Phone:
    provider: str = "APNS"
    platform: str = "IOS"
    token: str = "a" * 64
    locale: str | None = None


IPHONE, ANDROID, BROWSER = Phone(), Phone("FCM", "ANDROID"), Phone("FCM", "WEB")
FCM_IPHONE = Phone("FCM", "IOS")
EVERY = (IPHONE, FCM_IPHONE, ANDROID, BROWSER)


def rendered(
    content: PushContent,
    device: Phone = IPHONE,
    *,
    recipient: Recipient = ADA,
    expires_at: datetime | None = None,
    dispatch_id: UUID = DISPATCH,
) -> PushMessage:
    compiled = compile_push(content, campaign_name="Roses", dispatch_id=dispatch_id)
    return compiled.render(recipient, device, key="k", message_id=MESSAGE, expires_at=expires_at, now=NOW)


def payload(content: PushContent, device: Phone = IPHONE, *, recipient: Recipient = ADA) -> Any:
    return orjson.loads(rendered(content, device, recipient=recipient).payload)


FULL = PushContent(
    title="Hello {{ profile.first_name }}",
    body="Roses for {{ traits.city | upper }}",
    image_url="https://cdn.example/{{ traits.city | lower }}.png",
    link="https://shop.example/?c={{ traits.city | urlencode }}",
    buttons=(PushButton("show", 'Show "{{ traits.city }}"', "shop://roses"), PushButton("later", "Later")),
    data={"offer": "{{ campaign.name }}"},
    ios=IosOptions(
        subtitle="Only {{ profile.first_name }}",
        badge=0,
        sound="default",
        thread_id="offers",
        interruption_level=InterruptionLevel.TIME_SENSITIVE,
        relevance_score=0.5,
        priority=PushPriority.NORMAL,
        expiry_s=60,
    ),
    android=AndroidOptions(
        channel_id="offers",
        ttl_s=0,
        collapse_key="c",
        color="#112233",
        icon="rose",
        sound="default",
        click_action="OPEN",
    ),
    web=WebOptions(icon_url="https://cdn.example/i.png", require_interaction=True, ttl_s=5, tag="mine"),
)
TEXTS = {"title": "Hello Ada", "body": "Roses for BERN"}
IMAGE, LINK = "https://cdn.example/bern.png", "https://shop.example/?c=Bern"
BUTTONS = [{"id": "show", "label": 'Show "Bern"', "link": "shop://roses"}, {"id": "later", "label": "Later"}]
APNS = {
    "aps": {
        "alert": {"title": "Hello Ada", "subtitle": "Only Ada", "body": "Roses for BERN"},
        "badge": 0,
        "sound": "default",
        "thread-id": "offers",
        "interruption-level": "time-sensitive",
        "relevance-score": 0.5,
        "mutable-content": 1,
        "category": "show_later",
    },
    "link": LINK,
    "image": IMAGE,
    "buttons": BUTTONS,
    "offer": "Roses",
}


def test_apns_gets_alert_options_and_what_apps_read_in_the_body_and_the_rest_in_headers() -> None:
    """S3-19, S3-20."""
    message = rendered(FULL)
    assert orjson.loads(message.payload) == APNS
    assert message == PushMessage(
        provider=PushProvider.APNS,
        token="a" * 64,
        payload=message.payload,
        key="k",
        message_id=MESSAGE,
        push_type=PushType.ALERT,
        urgent=False,
        expires_at=NOW + timedelta(seconds=60),
        collapse_id=DISPATCH.hex,
        replaceable=True,
    )


def test_fcm_gets_for_each_platform_what_is_meant_for_it() -> None:
    """S3-19, S3-20."""
    assert payload(FULL, FCM_IPHONE) == {
        "apns": {
            "headers": {
                "apns-push-type": "alert",
                "apns-priority": "5",
                "apns-expiration": str(int((NOW + timedelta(seconds=60)).timestamp())),
                "apns-collapse-id": DISPATCH.hex,
            },
            "payload": APNS,
            "fcm_options": {"image": IMAGE},
        }
    }
    android = payload(FULL, ANDROID)
    assert orjson.loads(android["data"].pop("buttons")) == BUTTONS
    assert android == {
        "notification": TEXTS | {"image": IMAGE},
        "android": {
            "ttl": "0s",
            "priority": "HIGH",
            "collapse_key": "c",
            "notification": {
                "tag": DISPATCH.hex,
                "channel_id": "offers",
                "color": "#112233",
                "icon": "rose",
                "sound": "default",
                "click_action": "OPEN",
            },
        },
        "data": {"link": LINK, "offer": "Roses"},
    }
    assert payload(FULL, BROWSER) == {
        "webpush": {
            "headers": {"TTL": "5", "Urgency": "high"},
            "notification": TEXTS
            | {
                "image": IMAGE,
                "icon": "https://cdn.example/i.png",
                "tag": "mine",
                "requireInteraction": True,
                "actions": [{"action": "show", "title": 'Show "Bern"'}, {"action": "later", "title": "Later"}],
                "data": {"link": LINK, "buttons": BUTTONS, "offer": "Roses"},
            },
            "fcm_options": {"link": LINK},
        }
    }


def test_a_silent_one_wakes_the_app_and_shows_nothing() -> None:
    silent = PushContent(silent=True, link="shop://sync", data={"what": "cart"})
    own = {"link": "shop://sync", "what": "cart"}
    message = rendered(silent)
    assert orjson.loads(message.payload) == {"aps": {"content-available": 1}} | own
    assert (message.push_type, message.urgent, message.collapse_id) == (PushType.BACKGROUND, False, None)
    ttl = LONGEST_LIFE_S
    assert payload(silent, ANDROID) == {"android": {"ttl": f"{ttl}s", "priority": "NORMAL"}, "data": own}
    assert payload(silent, BROWSER) == {
        "webpush": {"headers": {"TTL": str(ttl), "Urgency": "normal"}},
        "data": own,
    }
    assert payload(PushContent(silent=True), ANDROID) == {"android": {"ttl": f"{ttl}s", "priority": "NORMAL"}}


def test_only_what_takes_its_own_place_on_the_screen_may_go_again_by_itself() -> None:
    def replaceable(content: PushContent) -> list[bool]:
        return [rendered(content, device).replaceable for device in EVERY]

    shown = PushContent(title="A")
    assert replaceable(shown) == [True, True, True, False]
    assert repeats_on(shown) == ["ANDROID", "IOS"]
    for never in (replace(shown, resend_in_doubt=False), PushContent(silent=True)):
        assert (replaceable(never), repeats_on(never)) == ([False] * 4, [])


@pytest.mark.parametrize(
    ("expires_in", "kept_for"),
    [(None, LONGEST_LIFE_S), (timedelta(hours=1), 3600), (timedelta(days=60), LONGEST_LIFE_S), (timedelta(-1), 0)],
)
def test_no_provider_keeps_a_message_beyond_the_end_of_its_campaign(
    expires_in: timedelta | None, kept_for: int
) -> None:
    content, end = PushContent(title="A"), None if expires_in is None else NOW + expires_in
    message = rendered(content, expires_at=end)
    assert message.expires_at == (NOW + timedelta(seconds=kept_for) if kept_for else None)
    android = orjson.loads(rendered(content, ANDROID, expires_at=end).payload)
    assert android["android"]["ttl"] == f"{kept_for}s"


LANGUAGES = PushContent(
    title="Hello",
    body="Everybody",
    locale="en",
    ios=IosOptions(subtitle="sub"),
    translations=(PushTranslation("de", title="Hallo"), PushTranslation("pt-BR", body="Todos", subtitle="sob")),
)


@pytest.mark.parametrize(
    ("device", "profile", "shown"),
    [
        ("de-AT", "pt-BR", ("Hallo", "sub", "Everybody")),
        (None, "pt-BR", ("Hello", "sob", "Todos")),
        ("fr", "de", ("Hallo", "sub", "Everybody")),
        ("en-GB", "de", ("Hello", "sub", "Everybody")),
        ("pt", None, ("Hello", "sub", "Everybody")),
        (None, None, ("Hello", "sub", "Everybody")),
    ],
)
def test_the_devices_language_goes_before_the_persons_and_falls_back(
    device: str | None, profile: str | None, shown: tuple[str, str, str]
) -> None:
    alert = payload(LANGUAGES, Phone(locale=device), recipient=replace(ADA, locale=profile))["aps"]["alert"]
    assert (alert["title"], alert["subtitle"], alert["body"]) == shown


def test_what_cannot_be_made_for_somebody_fails_that_one_alone() -> None:
    for content, code in (
        (PushContent(title="{{ profile.nobody_has }}"), "MISSING_VALUE"),
        (PushContent(title="{{ profile.x | default('') }}", body=" {{ profile.y | default('') }}"), "NOTHING_TO_SHOW"),
        (PushContent(body="{% if profile.x %}A{% endif %}\n\n{{ profile.y | default('') }}"), "NOTHING_TO_SHOW"),
        (PushContent(title="A", link="https://shop.example/{{ profile.bad }}"), "NOT_A_URL"),
        (PushContent(title="A", body="{{ profile.long }}"), "TOO_LARGE"),
    ):
        somebody = replace(ADA, traits={"bad": 'x"y', "long": "x" * PAYLOAD_LIMIT})
        with pytest.raises(RenderError) as refused:
            rendered(content, recipient=somebody)
        assert refused.value.code == code
        if code != "MISSING_VALUE":
            traits = {"x": "1", "bad": "good", "long": "short"}
            assert rendered(content, recipient=replace(ADA, traits=traits)).payload


TEXT = st.text(max_size=40) | st.sampled_from(['"', "\\", "\n\t\x01", "\u2028", "ß", "\ud800", "\U0001f339"])
VALUES = st.one_of(TEXT, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
TEMPLATES = (
    "a{{ traits.a }}b{{ traits.b }}",
    "{{ traits.a | upper }}{{ traits.b | lower }}{{ traits.a | title }}",
    "{% if traits.b %}{{ traits.a | truncate(9) }}{% else %}nothing{% endif %}",
    "{% for one in traits.list %}{{ one }}-{{ traits.a }}{% for two in traits.list %}{{ one }}{{ two }}{% endfor %}"
    "{% endfor %}",
    "{{ traits.list | join(traits.b) }}{{ traits.a | urlencode }}{{ traits.a | replace('a', 'xyz') }}",
    "{{ traits.list | first }}{{ traits.a | default('x') | trim }}{{ traits.none | default(traits.b) }}",
    "{{ traits.a | capitalize }}{{ traits.a and traits.b }}{{ 'yes' if traits.a else traits.b }}{{ traits.a == 1 }}",
)


@settings(max_examples=60)
@given(
    st.sampled_from(TEMPLATES),
    st.sampled_from(TEMPLATES),
    st.fixed_dictionaries({"a": VALUES, "b": VALUES, "list": st.lists(VALUES, min_size=1, max_size=4)}),
)
def test_payloads_are_the_json_of_what_they_say_and_never_larger_than_their_bound(
    body: str, label: str, traits: dict[str, Any]
) -> None:
    content = PushContent(title="A", body=body, buttons=(PushButton("b", "B" + label),), data={"d": body})
    compiled = compile_push(content, campaign_name="Roses", dispatch_id=DISPATCH)
    person = {"traits": traits}
    somebody = Recipient("", traits=traits)
    for device, one in zip(EVERY, push_sizing.measured(content, "Roses"), strict=True):
        form = compiled.form(somebody, provider=device.provider, platform=device.platform, locale=None)
        end = NOW + timedelta(seconds=form.life_s)
        try:
            made = compiled.fill(form, somebody, seconds=form.life_s, end=end, now=NOW)
        except RenderError:
            continue
        # The same as orjson makes of the dict that it is, and so escaped as it must be.
        assert orjson.dumps(orjson.loads(made)) == made
        bound = one.bound
        most = bound.most + sum(factor * in_postgres(place, person) for place, factor in bound.factors.items())
        assert bound.least <= len(made) <= most


def in_postgres(place: tuple[str | int, ...], person: dict[str, Any]) -> int:
    """What HEAVIEST makes of a value (it has no halves of characters, which are a question mark here)."""
    value = person["traits"].get(place[1])
    match value:
        case None:
            return 0
        case bool():
            return 5
        case int() | float():
            return max(len(repr(value)), 24)
        case str():
            return len(orjson.dumps(value.encode("utf-8", "replace").decode())) - 2
        case _:
            items = [one.encode("utf-8", "replace").decode() if isinstance(one, str) else one for one in value]
            # jsonb puts a space behind each comma.
            return sum(len(orjson.dumps(one) if isinstance(one, str) else repr(one)) + 2 for one in items)


@settings(max_examples=40)
@given(st.text(max_size=60), st.text(max_size=60))
def test_what_is_said_arrives_as_it_was_said(static: str, value: str) -> None:
    somebody = replace(ADA, traits={"v": value})
    static = static.replace("{", "(").replace("\r", "").rstrip("\n")
    content = PushContent(title="!" + static, body="{{ traits.v }}!", buttons=(PushButton("b", "{{ traits.v }}"),))
    apns = payload(content, recipient=somebody)
    assert apns["aps"]["alert"] == {"title": "!" + static, "body": value + "!"}
    assert orjson.loads(payload(content, ANDROID, recipient=somebody)["data"]["buttons"])[0]["label"] == value


def test_no_letter_grows_by_more_in_another_case_than_bounds_say() -> None:
    letters = [chr(code) for code in range(sys.maxunicode + 1)]
    cased = [letter for letter in letters if letter.lower() != letter or letter.upper() != letter]
    for name, most in OF_CASE.items():
        change = str.upper if name == "upper" else str.lower if name == "lower" else str.title
        assert all(len(change(letter).encode()) <= most * len(letter.encode()) for letter in cased)


def test_what_is_too_large_for_everybody_is_refused_with_field_and_size() -> None:
    """T-15: 4,096 bytes are taken and 4,097 are not, before anything is sent."""
    # FCM's form for iPhones is the largest: it has APNs' body and headers.
    largest = len(rendered(PushContent(body="x"), FCM_IPHONE).payload) - 1
    fits = PushContent(body="x" * (PAYLOAD_LIMIT - largest))
    assert len(rendered(fits, FCM_IPHONE).payload) == PAYLOAD_LIMIT
    push_proofs.prove(fits)
    with pytest.raises(CampaignError) as refused:
        push_proofs.prove(replace(fits, body=fits.body + "x"))
    assert (refused.value.code, refused.value.field) == ("MESSAGE_TOO_LARGE", ("content", "body"))
    assert "4,097 bytes" in refused.value.message


def test_a_proof_knows_what_templates_ask_and_refuses_what_they_may_not() -> None:
    content = PushContent(
        title="{{ profile.first_name }}",
        translations=(PushTranslation("de", body="{{ traits.city }}"),),
        variables=(Variable("profile.first_name", "you"),),
    )
    found = push_proofs.prove(content).variables
    assert found == (Variable("profile.first_name", "you"), Variable("traits.city", None))
    for wrong, field in (
        (PushContent(title="{{ unsubscribe_url }}"), ("content", "title")),
        (PushContent(title="{{ sender.name }}"), ("content", "title")),
        (replace(content, translations=(PushTranslation("de", body="{% set a = 1 %}"),)),
         ("content", "translations", "0", "body")),
        (PushContent(title="A", buttons=(PushButton("a", "{{ a() }}"),)), ("content", "buttons", "0", "label")),
        (PushContent(title="A", data={"a": "1", "b": "{{ b }}"}), ("content", "data", "1", "value")),
        (PushContent(title="A", ios=IosOptions(subtitle="{{ x }}")), ("content", "ios", "subtitle")),
    ):  # fmt: skip
        with pytest.raises(CampaignError) as refused:
            push_proofs.prove(wrong)
        assert (refused.value.code, refused.value.field) == ("TEMPLATE_NOT_ALLOWED", field)


def test_a_content_is_kept_and_read_back_whole() -> None:
    content = replace(FULL, translations=(PushTranslation("de", title="A", buttons=FULL.buttons, data={"a": "b"}),))
    assert PushContent.from_json(orjson.loads(orjson.dumps(content.to_json()))) == content
    assert PushContent.from_json({"title": "A"}) == PushContent(title="A")
