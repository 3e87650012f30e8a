"""What a notification is to each platform: APNs' body, and FCM's `message` for iPhones, Android and browsers.

docs/push.md has the mapping. FCM's `message` lacks the token, which its channel adds.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, assert_never

from campaigns.program import Encoding
from campaigns.push_content import IosPushType, PushContent, PushPriority, PushTranslation
from campaigns.push_json import IN_JSON, IN_JSON_TEXT, Hole, Tree, as_text, digits_of
from channels.base import PushType

SECONDS, END = " seconds", " end"
"""Under which names the scope has for how long a message lives, and until when (seconds since 1970). No template can
name them."""
FOR, UNTIL = digits_of(SECONDS), digits_of(END)
LONGEST_LIFE_S = 4 * 7 * 86_400
"""What FCM takes at most, and what a message lives whose author says nothing."""


class PushTarget(StrEnum):
    """Who is told, for which platform."""

    APNS = "APNS"
    FCM_IOS = "FCM_IOS"
    FCM_ANDROID = "FCM_ANDROID"
    FCM_WEB = "FCM_WEB"


TARGETS = {
    "IOS": PushTarget.FCM_IOS,
    "ANDROID": PushTarget.FCM_ANDROID,
    "WEB": PushTarget.FCM_WEB,
}


def target_of(provider: str, platform: str) -> PushTarget:
    """Which form a device gets, by what it is registered as."""
    return PushTarget.APNS if provider == "APNS" else TARGETS[platform]


Texts = Callable[[str, tuple[str, ...], Encoding], Tree]
"""(template, its field, encoding) -> what stands for it in a payload: a Hole, or to look at a payload the finished
text."""


def localized(content: PushContent, translation: PushTranslation | None) -> PushContent:
    """The content with a translation's texts in the place of its own."""
    if translation is None:
        return content
    given: dict[str, Any] = {
        name: value
        for name in ("title", "body", "image_url", "link", "buttons", "data")
        if (value := getattr(translation, name)) is not None
    }
    if translation.subtitle is not None:
        given["ios"] = replace(content.ios, subtitle=translation.subtitle)
    return replace(content, **given)


def languages(content: PushContent) -> list[tuple[int, PushTranslation] | None]:
    """The languages that a content speaks: None for its own, and its translations with their places."""
    return [None, *enumerate(content.translations)]


class Payload:
    """Writes the payloads of one language."""

    def __init__(self, content: PushContent, translation: tuple[int, PushTranslation] | None, texts: Texts) -> None:
        """`translation`: its place among the content's, and itself."""
        self.content = localized(content, translation and translation[1])
        self.translation, self.texts = translation, texts

    def tree(self, target: PushTarget, *, replaces: str) -> Tree:
        """The payload for a platform. `replaces`: what a notification is called on the screen where its author does
        not say."""
        match target:
            case PushTarget.APNS:
                return self.apns()
            case PushTarget.FCM_IOS:
                return self.fcm_ios(replaces)
            case PushTarget.FCM_ANDROID:
                return self.android(replaces)
            case PushTarget.FCM_WEB:
                return self.web(replaces)
            case _:
                assert_never(target)

    def apns(self) -> Tree:
        content, ios = self.content, self.content.ios
        if content.silent:
            aps: dict[str, Tree] = {"content-available": 1}
            return {"aps": aps, **self.link(), **self.data()}
        alert = present(
            title=self.text(content.title, "title"),
            subtitle=self.text(ios.subtitle, "ios", "subtitle"),
            body=self.text(content.body, "body"),
        )
        decorated = bool(content.image_url or content.buttons)
        mutable = decorated if ios.mutable_content is None else ios.mutable_content
        category = ios.category or "_".join(one.id for one in content.buttons) or None
        aps = {"alert": alert} | given(
            {
                "badge": ios.badge,
                "sound": ios.sound,
                "thread-id": ios.thread_id,
                "interruption-level": ios.interruption_level and ios.interruption_level.value,
                "relevance-score": ios.relevance_score,
                "mutable-content": 1 if mutable else None,
                "category": category,
            }
        )
        image = present(image=self.text(content.image_url, "image_url"))
        return {"aps": aps, **self.link(), **image, **self.button_list(), **self.data()}

    def fcm_ios(self, replaces: str) -> Tree:
        content = self.content
        headers: dict[str, Tree] = {
            "apns-push-type": push_type(content).value,
            "apns-priority": "10" if is_urgent(content, content.ios.priority) else "5",
            "apns-expiration": Hole((UNTIL,)),
        }
        headers |= given({"apns-collapse-id": collapse_id(content, replaces)})
        apns: dict[str, Tree] = {"headers": headers, "payload": self.apns()}
        if content.image_url and not content.silent:
            apns["fcm_options"] = {"image": self.text(content.image_url, "image_url")}
        return {"apns": apns}

    def android(self, replaces: str) -> Tree:
        content, options = self.content, self.content.android
        data = {**self.link(), **self.data()}
        android: dict[str, Tree] = {
            "ttl": Hole((FOR, b"s")),
            "priority": "HIGH" if is_urgent(content, options.priority) else "NORMAL",
        }
        android |= given({"collapse_key": options.collapse_key})
        if content.silent:
            return {"android": android, "data": data} if data else {"android": android}
        if content.buttons:
            data["buttons"] = as_text(self.buttons(IN_JSON_TEXT))
        android["notification"] = given(
            {
                "tag": options.tag or replaces,
                "channel_id": options.channel_id,
                "color": options.color,
                "icon": options.icon,
                "sound": options.sound,
                "click_action": options.click_action,
            }
        )
        notification = present(
            title=self.text(content.title, "title"),
            body=self.text(content.body, "body"),
            image=self.text(content.image_url, "image_url"),
        )
        message: dict[str, Tree] = {"notification": notification, "android": android}
        return message | ({"data": data} if data else {})

    def web(self, replaces: str) -> Tree:
        content, options = self.content, self.content.web
        headers: dict[str, Tree] = {
            "TTL": Hole((FOR,)),
            "Urgency": "high" if is_urgent(content, options.priority) else "normal",
        }
        webpush: dict[str, Tree] = {"headers": headers}
        if content.silent:
            data = {**self.link(), **self.data()}
            return {"webpush": webpush, "data": data} if data else {"webpush": webpush}
        actions: list[Tree] = [
            {"action": one.id, "title": self.text(one.label, "buttons", str(place), "label")}
            for place, one in enumerate(content.buttons)
        ]
        notification = present(
            title=self.text(content.title, "title"),
            body=self.text(content.body, "body"),
            image=self.text(content.image_url, "image_url"),
        ) | given({"icon": options.icon_url, "badge": options.badge_url, "tag": options.tag or replaces})
        if options.require_interaction:
            notification["requireInteraction"] = True
        if actions:
            notification["actions"] = actions
        data = {**self.link(), **self.button_list(), **self.data()}
        if data:
            notification["data"] = data
        webpush["notification"] = notification
        if content.link and content.link.startswith("https:"):
            webpush["fcm_options"] = {"link": self.text(content.link, "link")}
        return {"webpush": webpush}

    # Parts

    def text(self, template: str | None, *path: str, encoding: Encoding = IN_JSON) -> Tree:
        """What stands for a template, which is refused under the field where its author wrote it; None for none."""
        if not template:
            return None
        if self.translation is not None:
            place, translation = self.translation
            name = "subtitle" if path == ("ios", "subtitle") else path[0]
            if getattr(translation, name) is not None:
                path = ("translations", str(place), *path[path.index(name) :])
        return self.texts(template, ("content", *path), encoding)

    def link(self) -> dict[str, Tree]:
        return present(link=self.text(self.content.link, "link"))

    def data(self) -> dict[str, Tree]:
        values = self.content.data.items()
        return {name: self.text(value, "data", str(place), "value") or "" for place, (name, value) in enumerate(values)}

    def button_list(self) -> dict[str, Tree]:
        return {"buttons": self.buttons(IN_JSON)} if self.content.buttons else {}

    def buttons(self, encoding: Encoding) -> list[Tree]:
        """Buttons as apps read them, on every platform."""
        return [
            present(
                id=one.id,
                label=self.text(one.label, "buttons", str(place), "label", encoding=encoding),
                link=self.text(one.link, "buttons", str(place), "link", encoding=encoding),
            )
            for place, one in enumerate(self.content.buttons)
        ]


def given(values: Mapping[str, Tree]) -> dict[str, Tree]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def present(**values: Tree) -> dict[str, Tree]:
    return given(values)


def push_type(content: PushContent) -> PushType:
    """What APNs is told that it is."""
    silent = content.silent or content.ios.push_type is IosPushType.BACKGROUND
    return PushType.BACKGROUND if silent else PushType.ALERT


def is_urgent(content: PushContent, wanted: PushPriority | None) -> bool:
    """Whether it is to be shown at once: unless its author or its silence says otherwise."""
    return wanted is PushPriority.HIGH or (wanted is None and not content.silent)


def collapse_id(content: PushContent, replaces: str) -> str | None:
    """Of APNs; what is silent has one only if its author says so."""
    return content.ios.collapse_id or (None if content.silent else replaces)


def life_s(content: PushContent, target: PushTarget) -> int:
    """For how long a platform is asked to keep it."""
    match target:
        case PushTarget.APNS | PushTarget.FCM_IOS:
            wanted = content.ios.expiry_s
        case PushTarget.FCM_ANDROID:
            wanted = content.android.ttl_s
        case PushTarget.FCM_WEB:
            wanted = content.web.ttl_s
        case _:
            assert_never(target)
    return LONGEST_LIFE_S if wanted is None else wanted
