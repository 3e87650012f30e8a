"""What a push notification says, as it is read."""

from typing import Any

from app.api.declare import about, output
from app.api.enums import ApnsPushType, InterruptionLevel, PushPriority
from app.api.variables import ContentVariable
from campaigns import push_content
from campaigns.proofs import Proof

TITLE = "Its title, a template."
BODY = "Its text, a template."
IMAGE = "An image: an https address, of which a template may write what stands behind the host."
LINK = "What a touch opens: an https address, or one of the app's own, such as myapp://offers/1."
BUTTONS = "Its buttons, at most four; docs/push.md says what apps do for them."
DATA = "For the app alone; at most 50."
SUBTITLE = "Between title and body; a template."
LIFE = "For how many seconds it is kept for a device that is off, at most four weeks; 0: not at all."


@output
class PushButton:
    """A button of a notification."""

    id: str = about("What the app calls it.")
    label: str = about("What it says.")
    link: str | None = about("Where it leads; null: the app knows.")

    @classmethod
    def of(cls, row: push_content.PushButton) -> "PushButton":
        return cls(id=row.id, label=row.label, link=row.link)


@output
class PushData:
    """Something for the app alone."""

    key: str = about("Its name.")
    value: str = about("Its value, a template.")


def data_of(data: Any) -> list[PushData]:
    return [PushData(key=key, value=value) for key, value in data.items()]


@output
class PushIosOptions:
    """What only iPhones and their kin know."""

    subtitle: str | None = about(SUBTITLE)
    badge: int | None = about("The number on the app's icon; 0 takes it away.")
    sound: str | None = about("The sound: default, or a file of the app.")
    thread_id: str | None = about("What notifications are grouped by.")
    interruption_level: InterruptionLevel | None = about("How much it may disturb.")
    relevance_score: float | None = about("From 0 to 1: which of the app's stands first in a summary.")
    mutable_content: bool | None = about("Whether the app changes it first; null: when it has an image or buttons.")
    category: str | None = about("Whose buttons are shown; null: the ids of its buttons, joined by underscores.")
    collapse_id: str | None = about("A later one with the same takes its place; null: each campaign has its own.")
    push_type: ApnsPushType | None = about("What APNs is told; null: what follows from whether it is silent.")
    priority: PushPriority | None = about("How soon it is shown; null: at once, of a silent one when it suits.")
    expiry_seconds: int | None = about(LIFE + " null: four weeks.")


@output
class PushAndroidOptions:
    """What only Android knows."""

    channel_id: str | None = about("The app's channel that it is shown in.")
    priority: PushPriority | None = about("How soon it is shown; null: at once, of a silent one when it suits.")
    ttl_seconds: int | None = about(LIFE + " null: four weeks.")
    collapse_key: str | None = about("Of those that wait with the same one, FCM keeps the last.")
    tag: str | None = about("A later one with the same takes its place; null: each campaign has its own.")
    color: str | None = about("Colour of its icon, as #RRGGBB.")
    icon: str | None = about("Its icon: a resource of the app.")
    sound: str | None = about("The sound: default, or a resource of the app.")
    click_action: str | None = about("The intent that a touch starts.")


@output
class PushWebOptions:
    """What only browsers know."""

    icon_url: str | None = about("Its icon.")
    badge_url: str | None = about("A small picture of one colour, for the status bar.")
    tag: str | None = about("A later one with the same takes its place; null: each campaign has its own.")
    require_interaction: bool = about("Whether it stays until somebody touches it.")
    ttl_seconds: int | None = about(LIFE + " null: four weeks.")
    priority: PushPriority | None = about("How soon it is shown; null: at once, of a silent one when it suits.")


@output
class PushTranslation:
    """A notification in another language; what is null is as it is in the notification's own."""

    locale: str = about("The language, such as de or pt-BR.")
    title: str | None = about(TITLE)
    subtitle: str | None = about(SUBTITLE)
    body: str | None = about(BODY)
    image_url: str | None = about(IMAGE)
    link: str | None = about(LINK)
    buttons: list[PushButton] | None = about("The same buttons, by their ids.")
    custom_data: list[PushData] | None = about("Instead of its own.")

    @classmethod
    def of(cls, row: push_content.PushTranslation) -> "PushTranslation":
        return cls(
            locale=row.locale,
            title=row.title,
            subtitle=row.subtitle,
            body=row.body,
            image_url=row.image_url,
            link=row.link,
            buttons=None if row.buttons is None else [PushButton.of(one) for one in row.buttons],
            custom_data=None if row.data is None else data_of(row.data),
        )


@output
class PushContent:
    """A push notification, in all its languages."""

    title: str = about(TITLE)
    body: str = about(BODY)
    image_url: str | None = about(IMAGE)
    link: str | None = about(LINK)
    buttons: list[PushButton] = about(BUTTONS)
    custom_data: list[PushData] = about(DATA)
    ios: PushIosOptions = about("What only iPhones and their kin know.")
    android: PushAndroidOptions = about("What only Android knows.")
    web: PushWebOptions = about("What only browsers know.")
    silent: bool = about("Whether it is shown to nobody and wakes the app, which reads link and data.")
    resend_in_doubt: bool = about(
        "Whether one goes again of which nobody knows whether it arrived, where it takes its own place on the screen."
    )
    locale: str | None = about("Language of these texts; null: those see it whose language no translation speaks.")
    translations: list[PushTranslation] = about("The same in other languages.")
    variables: list[ContentVariable] = about("What it asks about recipients, and what it declares, by name.")

    @classmethod
    def of(cls, kept: dict[str, Any]) -> "PushContent":
        """What a campaign's row keeps."""
        row, proof = push_content.PushContent.from_json(kept), Proof.from_json(kept["proof"])
        ios, android, web = row.ios, row.android, row.web
        return cls(
            title=row.title,
            body=row.body,
            image_url=row.image_url,
            link=row.link,
            buttons=[PushButton.of(one) for one in row.buttons],
            custom_data=data_of(row.data),
            ios=PushIosOptions(
                subtitle=ios.subtitle,
                badge=ios.badge,
                sound=ios.sound,
                thread_id=ios.thread_id,
                interruption_level=ios.interruption_level,
                relevance_score=ios.relevance_score,
                mutable_content=ios.mutable_content,
                category=ios.category,
                collapse_id=ios.collapse_id,
                push_type=ios.push_type,
                priority=ios.priority,
                expiry_seconds=ios.expiry_s,
            ),
            android=PushAndroidOptions(
                channel_id=android.channel_id,
                priority=android.priority,
                ttl_seconds=android.ttl_s,
                collapse_key=android.collapse_key,
                tag=android.tag,
                color=android.color,
                icon=android.icon,
                sound=android.sound,
                click_action=android.click_action,
            ),
            web=PushWebOptions(
                icon_url=web.icon_url,
                badge_url=web.badge_url,
                tag=web.tag,
                require_interaction=web.require_interaction,
                ttl_seconds=web.ttl_s,
                priority=web.priority,
            ),
            silent=row.silent,
            resend_in_doubt=row.resend_in_doubt,
            locale=row.locale,
            translations=[PushTranslation.of(one) for one in row.translations],
            variables=[ContentVariable(name=one.name, default=one.default) for one in proof.variables],
        )
