"""What a push notification says, as its author gives it: for iPhones, Android and browsers, in several languages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from campaigns.emails import Variable


class InterruptionLevel(StrEnum):
    """How much an iPhone lets a notification disturb, in APNs' words."""

    PASSIVE = "passive"
    ACTIVE = "active"
    TIME_SENSITIVE = "time-sensitive"
    CRITICAL = "critical"


class PushPriority(StrEnum):
    """How soon a notification is to be shown."""

    NORMAL = "NORMAL"
    """When it suits the battery: apns-priority 5, FCM's NORMAL."""
    HIGH = "HIGH"
    """At once: apns-priority 10, FCM's HIGH."""


class IosPushType(StrEnum):
    """What APNs is told that a notification is."""

    ALERT = "alert"
    BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class PushButton:
    """A button of a notification."""

    id: str
    """What the app calls it."""
    label: str
    link: str | None = None
    """Where it leads; None: the app knows."""


@dataclass(frozen=True, slots=True)
class PushTranslation:
    """A notification in another language; None is as it is in the notification's own."""

    locale: str
    title: str | None = None
    subtitle: str | None = None
    body: str | None = None
    image_url: str | None = None
    link: str | None = None
    buttons: tuple[PushButton, ...] | None = None
    data: Mapping[str, str] | None = None

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        buttons = kept.get("buttons")
        given = {one.name: kept[one.name] for one in fields(cls) if one.name in kept}
        return cls(**given | {"buttons": None if buttons is None else tuple(PushButton(**one) for one in buttons)})


@dataclass(frozen=True, slots=True)
class IosOptions:
    """What only iPhones and their kin know."""

    subtitle: str | None = None
    badge: int | None = None
    """The number on the app's icon; 0 takes it away."""
    sound: str | None = None
    thread_id: str | None = None
    """What notifications are grouped by."""
    interruption_level: InterruptionLevel | None = None
    relevance_score: float | None = None
    """From 0 to 1: which of an app's notifications stands first in a summary."""
    mutable_content: bool | None = None
    """Whether the app may change it before it is shown; None: when it has an image or buttons."""
    category: str | None = None
    """Whose buttons are shown; None: the ids of its buttons, joined by underscores."""
    collapse_id: str | None = None
    push_type: IosPushType | None = None
    """None: what follows from whether it is silent."""
    priority: PushPriority | None = None
    """None: HIGH, of a silent one NORMAL."""
    expiry_s: int | None = None
    """For how long APNs keeps it for a phone that is off; 0: not at all."""


@dataclass(frozen=True, slots=True)
class AndroidOptions:
    """What only Android knows."""

    channel_id: str | None = None
    priority: PushPriority | None = None
    """None: HIGH, of a silent one NORMAL."""
    ttl_s: int | None = None
    """For how long FCM keeps it for a phone that is off; 0: not at all."""
    collapse_key: str | None = None
    """Of notifications that wait with the same one, FCM keeps the last."""
    tag: str | None = None
    """A later one with the same takes its place on the screen."""
    color: str | None = None
    """#RRGGBB."""
    icon: str | None = None
    sound: str | None = None
    click_action: str | None = None
    """The intent that a touch starts."""


@dataclass(frozen=True, slots=True)
class WebOptions:
    """What only browsers know."""

    icon_url: str | None = None
    badge_url: str | None = None
    tag: str | None = None
    """A later one with the same takes its place on the screen."""
    require_interaction: bool = False
    """Whether it stays until somebody touches it."""
    ttl_s: int | None = None
    priority: PushPriority | None = None


@dataclass(frozen=True, slots=True)
class PushContent:
    """A push notification. Title, subtitle, body, addresses, labels and data are templates: docs/push.md."""

    title: str = ""
    body: str = ""
    image_url: str | None = None
    link: str | None = None
    """What a touch opens: a web address, or one of the app's own (`myapp://offers/1`)."""
    buttons: tuple[PushButton, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    """For the app alone."""
    ios: IosOptions = IosOptions()
    android: AndroidOptions = AndroidOptions()
    web: WebOptions = WebOptions()
    silent: bool = False
    """Shown to nobody: it wakes the app, which reads link and data."""
    resend_in_doubt: bool = True
    """Whether one goes again of which nobody knows whether it arrived, where it would take its own place on the
    screen."""
    locale: str | None = None
    """Language of these texts; None: whatever it is, those see it whose language no translation speaks."""
    translations: tuple[PushTranslation, ...] = ()
    variables: tuple[Variable, ...] = ()

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """What `to_json` made. Fields that came after it was kept have their defaults."""
        nested: dict[str, Any] = {
            "buttons": tuple(PushButton(**one) for one in kept.get("buttons", ())),
            "ios": ios_options(kept.get("ios", {})),
            "android": android_options(kept.get("android", {})),
            "web": web_options(kept.get("web", {})),
            "translations": tuple(PushTranslation.from_json(one) for one in kept.get("translations", ())),
            "variables": tuple(Variable(**one) for one in kept.get("variables", ())),
        }
        return cls(**{one.name: kept[one.name] for one in fields(cls) if one.name in kept} | nested)

    def to_json(self) -> dict[str, Any]:
        """What a campaign's row keeps of it."""
        return asdict(self)


def ios_options(kept: Mapping[str, Any]) -> IosOptions:
    level, kind, priority = kept.get("interruption_level"), kept.get("push_type"), kept.get("priority")
    return IosOptions(
        **dict(kept)
        | {
            "interruption_level": level and InterruptionLevel(level),
            "push_type": kind and IosPushType(kind),
            "priority": priority and PushPriority(priority),
        }
    )


def android_options(kept: Mapping[str, Any]) -> AndroidOptions:
    priority = kept.get("priority")
    return AndroidOptions(**dict(kept) | {"priority": priority and PushPriority(priority)})


def web_options(kept: Mapping[str, Any]) -> WebOptions:
    priority = kept.get("priority")
    return WebOptions(**dict(kept) | {"priority": priority and PushPriority(priority)})


def repeats_on(content: PushContent) -> list[str]:
    """The platforms on which a second copy takes the first's place, so that one in doubt may go again by itself.

    What is silent does its work twice, and browsers may be told to show both.
    """
    return ["ANDROID", "IOS"] if content.resend_in_doubt and not content.silent else []
