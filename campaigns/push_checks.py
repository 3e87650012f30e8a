"""What a push notification may say: something to show unless it is silent, and what FCM and APNs would take."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import orjson

from campaigns.banner_checks import (
    COLOR,
    CONTENT_LIMIT,
    FIXED_START,
    LINK,
    MOST_TRANSLATIONS,
    NEVER_A_SCHEME,
    URL_LIMIT,
    WEB_ADDRESS,
    clean_tag,
)
from campaigns.errors import CampaignError
from campaigns.push_content import AndroidOptions, IosOptions, IosPushType, PushButton, PushContent, PushPriority
from campaigns.push_payloads import LONGEST_LIFE_S

MOST_BUTTONS = 4
"""An iPhone shows four, Android three, browsers two."""
MOST_DATA = 50
LONGEST_COLLAPSE_ID = 64
"""Bytes; APNs refuses more."""
LONGEST_TAG = 64
LONGEST_OPTION = 255
HIGHEST_BADGE = 99_999

BUTTON_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,31}")
DATA_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
OURS = frozenset({"aps", "buttons", "image", "link"})
"""What notifications carry under these names is not for authors to choose."""
OF_FCM = re.compile(r"from|notification|message_type|google.*|gcm.*")
"""FCM refuses data under these names."""


def cleaned(content: PushContent) -> PushContent:
    """The content with its languages as RFC 5646 writes them.

    Raises CampaignError for the first thing that is wrong with it, naming its field, such as ("content", "title") or
    ("content", "ios", "badge"). Templates are looked at by campaigns/push_proofs.py.
    """
    if content.silent:
        check_silent(content)
    elif not (content.title.strip() or content.body.strip()):
        refuse("EMPTY", "There is nothing to show: write a title or a body, or make it silent.", "title")
    elif content.ios.push_type is IosPushType.BACKGROUND:
        refuse("NOT_SILENT", "What is shown is an ALERT; only a silent notification is BACKGROUND.", "ios", "push_type")
    check_parts(content.image_url, content.link, content.buttons, content.data, ())
    check_ios(content.ios)
    check_android(content.android)
    check_web(content)
    content = with_clean_languages(content)
    size = len(orjson.dumps(content.to_json()))
    if size > CONTENT_LIMIT:
        message = f"The notification has {size:,} bytes in all its languages; at most {CONTENT_LIMIT:,} are taken."
        raise CampaignError("TOO_LONG", message, field=("content",))
    return content


def refuse(code: str, message: str, *path: str) -> NoReturn:
    """Raise CampaignError for a field of the content."""
    raise CampaignError(code, message, field=("content", *path))


def check_silent(content: PushContent) -> None:
    """Nothing that somebody would see or hear, and no haste: APNs takes silent ones with priority 5 only."""
    ios, android, web = content.ios, content.android, content.web
    seen = {
        ("title",): content.title,
        ("body",): content.body,
        ("image_url",): content.image_url,
        ("buttons",): content.buttons,
        ("ios", "subtitle"): ios.subtitle,
        ("ios", "badge"): ios.badge,
        ("ios", "sound"): ios.sound,
        ("ios", "thread_id"): ios.thread_id,
        ("ios", "interruption_level"): ios.interruption_level,
        ("ios", "relevance_score"): ios.relevance_score,
        ("ios", "mutable_content"): ios.mutable_content,
        ("ios", "category"): ios.category,
        ("android", "channel_id"): android.channel_id,
        ("android", "tag"): android.tag,
        ("android", "color"): android.color,
        ("android", "icon"): android.icon,
        ("android", "sound"): android.sound,
        ("android", "click_action"): android.click_action,
        ("web", "icon_url"): web.icon_url,
        ("web", "badge_url"): web.badge_url,
        ("web", "tag"): web.tag,
        ("web", "require_interaction"): web.require_interaction or None,
    }
    for path, value in seen.items():
        if value is not None and value not in ("", ()):
            refuse("SILENT", "A silent notification shows nothing; leave this out, or let it be shown.", *path)
    for place, one in enumerate(content.translations):
        texts = {"title": one.title, "subtitle": one.subtitle, "body": one.body, "image_url": one.image_url}
        for name, text in ({**texts, "buttons": one.buttons}).items():
            if text:
                message = "A silent notification shows nothing; leave this out, or let it be shown."
                refuse("SILENT", message, "translations", str(place), name)
    if ios.priority is PushPriority.HIGH:
        message = "APNs takes silent notifications with priority NORMAL (5) only; leave it out."
        refuse("SILENT_PRIORITY", message, "ios", "priority")
    if ios.push_type is IosPushType.ALERT:
        refuse("SILENT", "A silent notification is BACKGROUND; leave it out.", "ios", "push_type")


def check_parts(
    image_url: str | None,
    link: str | None,
    buttons: Sequence[PushButton],
    data: Mapping[str, str],
    path: tuple[str, ...],
) -> None:
    """Addresses, buttons and data of a notification or of one of its translations."""
    if image_url is not None:
        check_address(image_url, (*path, "image_url"), link=False)
    if link is not None:
        check_address(link, (*path, "link"), link=True)
    if len(buttons) > MOST_BUTTONS:
        refuse("TOO_MANY", f"A notification has at most {MOST_BUTTONS} buttons.", *path, "buttons")
    seen = set[str]()
    for place, one in enumerate(buttons):
        at = (*path, "buttons", str(place))
        if not BUTTON_ID.fullmatch(one.id):
            message = "A button's id is 1 to 32 letters, digits, dots and hyphens, such as open."
            refuse("INVALID_ID", message, *at, "id")
        if one.id in seen:
            refuse("TWICE", f"{one.id} is there already; every button has an id of its own.", *at, "id")
        seen.add(one.id)
        if not one.label.strip():
            refuse("EMPTY", "Say what the button says.", *at, "label")
        if one.link is not None:
            check_address(one.link, (*at, "link"), link=True)
    if len(data) > MOST_DATA:
        refuse("TOO_MANY", f"A notification has at most {MOST_DATA} data.", *path, "data")
    for place, name in enumerate(data):
        at = (*path, "data", str(place), "key")
        if not DATA_KEY.fullmatch(name):
            message = "A key is 1 to 64 letters, digits, '_', '.' and '-', beginning with a letter or '_'."
            refuse("INVALID_KEY", message, *at)
        if name in OURS or OF_FCM.fullmatch(name):
            refuse("RESERVED_KEY", f"{name} has a meaning already; call it something else.", *at)


def check_address(address: str, path: tuple[str, ...], *, link: bool) -> None:
    """An https address, or for a link one of the app's own; what comes of a template only behind the host."""
    start, brace, _ = address.partition("{")
    looked_at = start + "x" if brace else address
    found = None
    if len(address.encode("utf-8", "replace")) <= URL_LIMIT and looked_at.isprintable():
        found = WEB_ADDRESS.fullmatch(looked_at)
        own = LINK.fullmatch(looked_at)
        if link and own and own[1] not in NEVER_A_SCHEME:
            found = own
    if not found:
        example = "https://example.com/sale or myapp://sale" if link else "https://cdn.example.com/sale.png"
        refuse("NOT_A_URL", f"Write an address such as {example}, of at most {URL_LIMIT:,} bytes.", *path)
    if brace and not FIXED_START.match(address):
        message = "A template may stand behind the host of an address only, such as https://example.com/{{ ... }}."
        refuse("VARIABLE_IN_HOST", message, *path)


def check_ios(ios: IosOptions) -> None:
    if ios.badge is not None and not 0 <= ios.badge <= HIGHEST_BADGE:
        refuse("OUT_OF_RANGE", f"A badge is 0 (none) to {HIGHEST_BADGE:,}.", "ios", "badge")
    if ios.relevance_score is not None and not 0 <= ios.relevance_score <= 1:
        refuse("OUT_OF_RANGE", "A relevance is 0 to 1.", "ios", "relevance_score")
    check_names(ios, ("sound", "thread_id", "category"), LONGEST_OPTION, "ios")
    check_names(ios, ("collapse_id",), LONGEST_COLLAPSE_ID, "ios")
    check_life(ios.expiry_s, "ios", "expiry_s")


def check_android(android: AndroidOptions) -> None:
    if android.color is not None and not COLOR.fullmatch(android.color):
        refuse("NOT_A_COLOR", "Write a colour as #RRGGBB, such as #1A2B3C.", "android", "color")
    check_names(android, ("channel_id", "icon", "sound", "click_action", "collapse_key"), LONGEST_OPTION, "android")
    check_names(android, ("tag",), LONGEST_TAG, "android")
    check_life(android.ttl_s, "android", "ttl_s")


def check_web(content: PushContent) -> None:
    web = content.web
    for name in ("icon_url", "badge_url"):
        address = getattr(web, name)
        if address is None:
            continue
        if "{" in address or len(address) > URL_LIMIT or not WEB_ADDRESS.fullmatch(address):
            example = "https://cdn.example.com/icon.png"
            refuse("NOT_A_URL", f"Write an address such as {example}, of at most {URL_LIMIT:,} bytes.", "web", name)
    check_names(web, ("tag",), LONGEST_TAG, "web")
    check_life(web.ttl_s, "web", "ttl_s")


def check_names(options: object, names: Sequence[str], longest: int, part: str) -> None:
    """Texts that are the same for everybody: not empty, printable, and no longer than `longest` bytes."""
    for name in names:
        text = getattr(options, name)
        if text is None:
            continue
        if not text.strip() or not text.isprintable():
            refuse("INVALID_TEXT", "Write a text on one line, or leave it out.", part, name)
        if len(text.encode("utf-8", "replace")) > longest:
            refuse("TOO_LONG", f"At most {longest:,} bytes are taken.", part, name)


def check_life(seconds: int | None, *path: str) -> None:
    if seconds is not None and not 0 <= seconds <= LONGEST_LIFE_S:
        refuse("OUT_OF_RANGE", f"It is kept for 0 to {LONGEST_LIFE_S:,} seconds (4 weeks).", *path)


def with_clean_languages(content: PushContent) -> PushContent:
    """The content with its languages as they are kept: each once, and the same buttons in each."""
    locale = clean_tag(content.locale, ("locale",))
    seen = {locale}
    if len(content.translations) > MOST_TRANSLATIONS:
        refuse("TOO_MANY", f"A notification has at most {MOST_TRANSLATIONS} translations.", "translations")
    translations = []
    for place, one in enumerate(content.translations):
        path = ("translations", str(place))
        tag = clean_tag(one.locale, (*path, "locale")) or ""
        if tag in seen:
            refuse("TWICE", f"{tag} is there already; every language once.", *path, "locale")
        seen.add(tag)
        check_parts(one.image_url, one.link, one.buttons or (), one.data or {}, path)
        if one.buttons is not None and [each.id for each in one.buttons] != [each.id for each in content.buttons]:
            message = "A translation has the same buttons as the notification, by their ids, in the same order."
            refuse("OTHER_BUTTONS", message, *path, "buttons")
        said = [content.title if one.title is None else one.title, content.body if one.body is None else one.body]
        if not content.silent and not "".join(said).strip():
            message = "There is nothing to show in this language: write a title or a body, or leave both out."
            refuse("EMPTY", message, *path, "title")
        translations.append(replace(one, locale=tag))
    return replace(content, locale=locale, translations=tuple(translations))
