"""What a push notification says, as its author gives it."""

from collections.abc import Sequence

from app.api.declare import about, input_type
from app.api.enums import ApnsPushType, InterruptionLevel, PushPriority
from app.api.push_content import BODY, BUTTONS, DATA, IMAGE, LIFE, LINK, SUBTITLE, TITLE
from app.problems import ApiError
from campaigns import push_content
from campaigns.emails import Variable


@input_type
class PushButtonInput:
    """A button of a notification."""

    id: str = about("What the app calls it: 1 to 32 letters, digits, dots and hyphens.")
    label: str = about("What it says; a template.")
    link: str | None = about("Where it leads; left out: the app knows.", default=None)


@input_type
class PushDataInput:
    """Something for the app alone."""

    key: str = about("Its name, 1 to 64 letters, digits, '_', '.' and '-'.")
    value: str = about("Its value; a template.")


@input_type
class PushVariableInput:
    """A declared default: what a template sees where a recipient has none."""

    name: str = about("A trait or field of the profile as templates write it, such as profile.first_name.")
    default: str = about("A text of at most 1 KB.")


@input_type
class PushIosOptionsInput:
    """What only iPhones and their kin know."""

    subtitle: str | None = about(SUBTITLE, default=None)
    badge: int | None = about("The number on the app's icon; 0 takes it away.", default=None)
    sound: str | None = about("The sound: default, or a file of the app.", default=None)
    thread_id: str | None = about("What notifications are grouped by.", default=None)
    interruption_level: InterruptionLevel | None = about("How much it may disturb.", default=None)
    relevance_score: float | None = about("From 0 to 1: which stands first in a summary.", default=None)
    mutable_content: bool | None = about(
        "Whether the app changes it first; left out: when it has an image or buttons.", default=None
    )
    category: str | None = about(
        "Whose buttons are shown; left out: the ids of its buttons, joined by underscores.", default=None
    )
    collapse_id: str | None = about(
        "A later one with the same takes its place, at most 64 bytes; left out: each campaign has its own.",
        default=None,
    )
    push_type: ApnsPushType | None = about(
        "What APNs is told; left out: what follows from whether it is silent.", default=None
    )
    priority: PushPriority | None = about(
        "How soon it is shown; left out: at once, of a silent one when it suits.", default=None
    )
    expiry_seconds: int | None = about(LIFE + " Left out: four weeks.", default=None)


@input_type
class PushAndroidOptionsInput:
    """What only Android knows."""

    channel_id: str | None = about("The app's channel that it is shown in.", default=None)
    priority: PushPriority | None = about(
        "How soon it is shown; left out: at once, of a silent one when it suits.", default=None
    )
    ttl_seconds: int | None = about(LIFE + " Left out: four weeks.", default=None)
    collapse_key: str | None = about("Of those that wait with the same one, FCM keeps the last.", default=None)
    tag: str | None = about(
        "A later one with the same takes its place, at most 64 bytes; left out: each campaign has its own.",
        default=None,
    )
    color: str | None = about("Colour of its icon, as #RRGGBB.", default=None)
    icon: str | None = about("Its icon: a resource of the app.", default=None)
    sound: str | None = about("The sound: default, or a resource of the app.", default=None)
    click_action: str | None = about("The intent that a touch starts.", default=None)


@input_type
class PushWebOptionsInput:
    """What only browsers know."""

    icon_url: str | None = about("Its icon, an https address.", default=None)
    badge_url: str | None = about("A small picture of one colour for the status bar, an https address.", default=None)
    tag: str | None = about(
        "A later one with the same takes its place, at most 64 bytes; left out: each campaign has its own.",
        default=None,
    )
    require_interaction: bool = about("Whether it stays until somebody touches it.", default=False)
    ttl_seconds: int | None = about(LIFE + " Left out: four weeks.", default=None)
    priority: PushPriority | None = about(
        "How soon it is shown; left out: at once, of a silent one when it suits.", default=None
    )


@input_type
class PushTranslationInput:
    """A notification in another language; what is left out is as it is in the notification's own."""

    locale: str = about("The language, such as de or pt-BR.")
    title: str | None = about(TITLE, default=None)
    subtitle: str | None = about(SUBTITLE, default=None)
    body: str | None = about(BODY, default=None)
    image_url: str | None = about(IMAGE, default=None)
    link: str | None = about(LINK, default=None)
    buttons: list[PushButtonInput] | None = about("The same buttons, by their ids, in the same order.", default=None)
    custom_data: list[PushDataInput] | None = about("Instead of its own.", default=None)


@input_type
class PushContentInput:
    """A push notification. Texts are templates in a small, safe part of Jinja2, as emails'."""

    title: str = about(TITLE, default="")
    body: str = about(BODY, default="")
    image_url: str | None = about(IMAGE, default=None)
    link: str | None = about(LINK, default=None)
    buttons: list[PushButtonInput] = about(BUTTONS, default_factory=list)
    custom_data: list[PushDataInput] = about(DATA, default_factory=list)
    ios: PushIosOptionsInput | None = about("What only iPhones and their kin know.", default=None)
    android: PushAndroidOptionsInput | None = about("What only Android knows.", default=None)
    web: PushWebOptionsInput | None = about("What only browsers know.", default=None)
    silent: bool = about("Whether it is shown to nobody and wakes the app, which reads link and data.", default=False)
    resend_in_doubt: bool = about(
        "Whether one goes again of which nobody knows whether it arrived, where it takes its own place on the screen.",
        default=True,
    )
    locale: str | None = about(
        "Language of these texts; left out: those see it whose language no translation speaks.", default=None
    )
    translations: list[PushTranslationInput] = about("The same in other languages, at most 50.", default_factory=list)
    variables: list[PushVariableInput] = about("Defaults for what recipients may lack.", default_factory=list)


def to_push(wanted: PushContentInput) -> push_content.PushContent:
    """The use case's notification; raises ApiError for a key that is there twice. The rules are the domain's."""
    return push_content.PushContent(
        title=wanted.title,
        body=wanted.body,
        image_url=wanted.image_url,
        link=wanted.link,
        buttons=to_buttons(wanted.buttons),
        data=to_data(wanted.custom_data),
        ios=to_ios(wanted.ios or PushIosOptionsInput()),
        android=to_android(wanted.android or PushAndroidOptionsInput()),
        web=to_web(wanted.web or PushWebOptionsInput()),
        silent=wanted.silent,
        resend_in_doubt=wanted.resend_in_doubt,
        locale=wanted.locale,
        translations=tuple(to_translation(one, place) for place, one in enumerate(wanted.translations)),
        variables=tuple(Variable(one.name, one.default) for one in wanted.variables),
    )


def to_buttons(wanted: Sequence[PushButtonInput]) -> tuple[push_content.PushButton, ...]:
    return tuple(push_content.PushButton(one.id, one.label, one.link) for one in wanted)


def to_data(wanted: Sequence[PushDataInput], *path: str) -> dict[str, str]:
    """Data by its keys; raises ApiError for one that is there twice."""
    data: dict[str, str] = {}
    for place, one in enumerate(wanted):
        if one.key in data:
            message = f"{one.key} is there already; every key once."
            raise ApiError("TWICE", message, field=("content", *path, "data", str(place), "key"))
        data[one.key] = one.value
    return data


def to_translation(wanted: PushTranslationInput, place: int) -> push_content.PushTranslation:
    return push_content.PushTranslation(
        locale=wanted.locale,
        title=wanted.title,
        subtitle=wanted.subtitle,
        body=wanted.body,
        image_url=wanted.image_url,
        link=wanted.link,
        buttons=None if wanted.buttons is None else to_buttons(wanted.buttons),
        data=None if wanted.custom_data is None else to_data(wanted.custom_data, "translations", str(place)),
    )


def to_ios(wanted: PushIosOptionsInput) -> push_content.IosOptions:
    return push_content.IosOptions(
        subtitle=wanted.subtitle,
        badge=wanted.badge,
        sound=wanted.sound,
        thread_id=wanted.thread_id,
        interruption_level=wanted.interruption_level,
        relevance_score=wanted.relevance_score,
        mutable_content=wanted.mutable_content,
        category=wanted.category,
        collapse_id=wanted.collapse_id,
        push_type=wanted.push_type,
        priority=wanted.priority,
        expiry_s=wanted.expiry_seconds,
    )


def to_android(wanted: PushAndroidOptionsInput) -> push_content.AndroidOptions:
    return push_content.AndroidOptions(
        channel_id=wanted.channel_id,
        priority=wanted.priority,
        ttl_s=wanted.ttl_seconds,
        collapse_key=wanted.collapse_key,
        tag=wanted.tag,
        color=wanted.color,
        icon=wanted.icon,
        sound=wanted.sound,
        click_action=wanted.click_action,
    )


def to_web(wanted: PushWebOptionsInput) -> push_content.WebOptions:
    return push_content.WebOptions(
        icon_url=wanted.icon_url,
        badge_url=wanted.badge_url,
        tag=wanted.tag,
        require_interaction=wanted.require_interaction,
        ttl_s=wanted.ttl_seconds,
        priority=wanted.priority,
    )
