"""What a campaign says: its contents by channel, what is wrong with them, and emails made ready to send."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Protocol, assert_never
from uuid import UUID

import orjson

from campaigns.errors import CampaignError
from campaigns.markup import check_places, inline_css, with_preheader
from campaigns.mime import HTML_BODY, TEXT_BODY, Skeleton
from campaigns.models import CampaignChannel, CampaignClass
from campaigns.plaintext import visible_text
from campaigns.program import PLAIN, Value
from campaigns.senders import SenderInfo
from campaigns.templates import compile_template

SUBJECT_LIMIT = 1_024
"""Bytes of a subject's or preheader's template."""
BODY_LIMIT = 102_400
"""Bytes of a text's or HTML's template."""
FINISHED_LIMIT = 1_048_576
"""Bytes of HTML after its CSS went into every element it is for."""
DATA_LIMIT = 4_096
"""Bytes of a banner's data as JSON."""
URL_LIMIT = 2_048


@dataclass(frozen=True, slots=True)
class EmailContent:
    """An email. All four are templates: docs/templates.md."""

    subject: str
    preheader: str = ""
    """What mail programs show beside the subject."""
    text: str = ""
    """Empty: made from the HTML."""
    html: str = ""
    """Empty: a mail of plain text."""


@dataclass(frozen=True, slots=True)
class BannerContent:
    """A banner. Apps draw it, so it has facts and no markup."""

    title: str
    body: str = ""
    image_url: str | None = None
    dark_image_url: str | None = None
    """The image on a dark background."""
    image_alt: str = ""
    action_label: str = ""
    action_url: str | None = None
    """A web address or the app's own (`myapp://offers/1`)."""
    background_color: str | None = None
    """#RRGGBB, as `text_color`."""
    text_color: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    """For the app alone; at most 4 KB as JSON."""


Content = EmailContent | BannerContent


def content_to_json(content: Content) -> dict[str, Any]:
    """What a campaign's row keeps."""
    return asdict(content)


def content_from_json(channel: CampaignChannel, kept: dict[str, Any]) -> Content:
    """What `content_to_json` made. Fields that came after it was kept have their defaults."""
    match channel:
        case CampaignChannel.EMAIL:
            return EmailContent(**{one.name: kept[one.name] for one in fields(EmailContent) if one.name in kept})
        case CampaignChannel.BANNER:
            return BannerContent(**{one.name: kept[one.name] for one in fields(BannerContent) if one.name in kept})
        case CampaignChannel.PUSH:
            raise NotImplementedError("push has no content yet")
        case _:
            assert_never(channel)


def check(content: Content, *, class_: CampaignClass) -> None:
    """Raise CampaignError for the first thing wrong with a content, naming its field, such as ("content", "html")."""
    if isinstance(content, BannerContent):
        check_banner(content)
    else:
        check_email(content, class_=class_)


# Email

UNSUBSCRIBE_SNIPPET = {"html": '<a href="{{ unsubscribe_url }}">Unsubscribe</a>', "text": "{{ unsubscribe_url }}"}


def check_email(content: EmailContent, *, class_: CampaignClass) -> None:
    """Every template must compile; marketing mail must show how to unsubscribe, and where it comes from."""
    if not content.subject.strip():
        raise CampaignError("SUBJECT_MISSING", "Write a subject.", field=("content", "subject"))
    if not content.text.strip() and not content.html.strip():
        raise CampaignError("CONTENT_EMPTY", "Write the HTML, the text, or both.", field=("content", "html"))
    for name, source, limit in (
        ("subject", content.subject, SUBJECT_LIMIT),
        ("preheader", content.preheader, SUBJECT_LIMIT),
        ("text", content.text, BODY_LIMIT),
        ("html", content.html, BODY_LIMIT),
    ):
        compile_template(source, field=("content", name), limit=limit, encoding=PLAIN)
    if content.html.strip():
        check_places(content.html, field=("content", "html"))
    finished = finish(content)
    for name, source in (("text", finished.text), ("html", finished.html)):
        compile_template(source, field=("content", name), limit=FINISHED_LIMIT, encoding=PLAIN)
    if class_ is CampaignClass.MARKETING:
        if content.text.strip():
            check_marketing("text", content.text)
        if finished.html:
            check_marketing("html", finished.seen)


@dataclass(frozen=True, slots=True)
class Finished:
    """The templates of a mail's two parts, as they are sent."""

    text: str
    html: str
    """Empty: a mail of plain text."""
    seen: str
    """What of the HTML a reader sees, as text."""


def finish(content: EmailContent) -> Finished:
    """CSS moved into the elements, plain text made where there is none, the preheader put first."""
    html = inline_css(content.html).rstrip() if content.html.strip() else ""
    seen = visible_text(html) if html else ""
    text = content.text if content.text.strip() else seen
    if html and content.preheader.strip():
        html = with_preheader(html, content.preheader.strip())
    return Finished(text.rstrip(), html, seen)


def check_marketing(name: str, source: str) -> None:
    """What everybody must see of marketing mail, whatever the conditions in the template (CAN-SPAM, RFC 8058)."""
    path = ("content", name)
    always = compile_template(source, field=path, limit=FINISHED_LIMIT, encoding=PLAIN).always
    if "unsubscribe_url" not in always:
        message = (
            "Marketing mail needs a link to unsubscribe that everybody sees, outside of conditions; add"
            f" {UNSUBSCRIBE_SNIPPET[name]}"
        )
        raise CampaignError("UNSUBSCRIBE_LINK_MISSING", message, field=path)
    if "sender.postal_address" not in always:
        message = (
            "Marketing mail needs the sender's postal address where everybody sees it, outside of conditions; add"
            " {{ sender.postal_address }}"
        )
        raise CampaignError("POSTAL_ADDRESS_MISSING", message, field=path)


class Person(Protocol):
    """Whoever mail is made for: what a template may ask about them."""

    @property
    def external_id(self) -> str | None: ...
    @property
    def email(self) -> str | None: ...
    @property
    def traits(self) -> dict[str, Any]: ...
    @property
    def locale(self) -> str | None: ...
    @property
    def time_zone(self) -> str | None: ...
    @property
    def country(self) -> str | None: ...
    @property
    def city(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom one message is for."""

    email: str
    external_id: str | None = None
    traits: Mapping[str, Any] = field(default_factory=dict)
    locale: str | None = None
    time_zone: str | None = None
    country: str | None = None
    city: str | None = None

    @classmethod
    def of(cls, person: Person) -> "Recipient":
        """The recipient that a person is; the person has an email address."""
        return cls(
            person.email or "",
            person.external_id,
            person.traits,
            person.locale,
            person.time_zone,
            person.country,
            person.city,
        )


@dataclass(frozen=True, slots=True)
class CompiledEmail:
    """An email ready to be made for any number of recipients; what they have in common is encoded already."""

    skeleton: Skeleton
    common: dict[str, Value]
    """What templates see that is the same for all."""

    def render(
        self,
        recipient: Recipient,
        *,
        message_id: str,
        sent_at: datetime,
        unsubscribe_url: str,
        delivery_key: str,
        test: bool = False,
    ) -> bytes:
        """One recipient's message (RFC 5322), lines ended by CRLF and no longer than 998.

        `message_id` with its angle brackets. `sent_at` is aware, without fractions of a second. `test` marks the
        subject. Raises RenderError: this recipient's message cannot be made, the others are not affected.
        """
        traits: dict[str, Value] = dict(recipient.traits)
        scope: dict[str, Value] = {
            **self.common,
            "traits": traits,
            "profile": {
                **traits,
                "external_id": recipient.external_id,
                "email": recipient.email,
                "locale": recipient.locale,
                "time_zone": recipient.time_zone,
                "country": recipient.country,
                "city": recipient.city,
            },
            "unsubscribe_url": unsubscribe_url,
            "now": sent_at,
        }
        return self.skeleton.fill(
            scope,
            recipient=recipient.email,
            message_id=message_id,
            sent_at=sent_at,
            unsubscribe_url=unsubscribe_url,
            delivery_key=delivery_key,
            subject_prefix="[Test] " if test else "",
        )


def compile_email(
    content: EmailContent,
    *,
    sender: SenderInfo,
    class_: CampaignClass,
    campaign_id: UUID,
    campaign_name: str,
) -> CompiledEmail:
    """An email made ready: once for each content version, about 10 ms. Raises CampaignError like `check`."""
    finished = finish(content)
    common: dict[str, Value] = {
        "campaign": {"name": campaign_name},
        "sender": {
            "name": sender.from_name,
            "address": sender.from_address,
            "reply_to": sender.reply_to or sender.from_address,
            "postal_address": sender.postal_address,
        },
    }
    subject = compile_template(content.subject, field=("content", "subject"), limit=SUBJECT_LIMIT, encoding=PLAIN)
    text = compile_template(finished.text, field=("content", "text"), limit=FINISHED_LIMIT, encoding=TEXT_BODY)
    html = compile_template(finished.html, field=("content", "html"), limit=FINISHED_LIMIT, encoding=HTML_BODY)
    skeleton = Skeleton(
        subject=subject,
        text=text,
        html=html if finished.html else None,
        sender=sender,
        campaign_id=str(campaign_id),
        list_unsubscribe=class_ is CampaignClass.MARKETING,
    )
    return CompiledEmail(skeleton, common)


# Banner

COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
WEB_ADDRESS = re.compile(r"https?://[^\s/?#\\]+\S*", re.IGNORECASE)
APP_ADDRESS = re.compile(
    r"(?!javascript:|data:|vbscript:|file:|blob:|about:|ftp:)[a-z][a-z0-9+.-]*://\S*", re.IGNORECASE
)
"""The app's own scheme. Those left out run code or read what is not the banner's, where an app opens them blindly."""


def check_banner(content: BannerContent) -> None:
    """Texts of sensible length, addresses that lead somewhere harmless, colours that are colours."""
    if not content.title.strip():
        raise CampaignError("TITLE_MISSING", "Write a title.", field=("content", "title"))
    lengths = {"title": 200, "body": 2_000, "image_alt": 500, "action_label": 100}
    for name, most in lengths.items():
        if len(getattr(content, name)) > most:
            raise CampaignError("TOO_LONG", f"At most {most:,} characters are shown.", field=("content", name))
    for name in ("image_url", "dark_image_url"):
        check_address(name, getattr(content, name), WEB_ADDRESS, "https://cdn.example.com/sale.png")
    wanted = re.compile(f"{WEB_ADDRESS.pattern}|{APP_ADDRESS.pattern}", re.IGNORECASE)
    check_address("action_url", content.action_url, wanted, "https://example.com/sale or myapp://sale")
    for name in ("background_color", "text_color"):
        color = getattr(content, name)
        if color is not None and not COLOR.fullmatch(color):
            raise CampaignError("NOT_A_COLOR", "Write a colour as #RRGGBB, such as #1A2B3C.", field=("content", name))
    try:
        size = len(orjson.dumps(dict(content.data)))
    except (TypeError, ValueError, RecursionError) as error:
        raise CampaignError("NOT_JSON", "The data must be a JSON object.", field=("content", "data")) from error
    if size > DATA_LIMIT:
        message = f"The data has {size:,} bytes as JSON; at most {DATA_LIMIT:,} are taken."
        raise CampaignError("TOO_LONG", message, field=("content", "data"))


def check_address(name: str, address: str | None, wanted: re.Pattern[str], example: str) -> None:
    if address is not None and (len(address) > URL_LIMIT or not address.isprintable() or not wanted.fullmatch(address)):
        message = f"Write an address such as {example}, of at most {URL_LIMIT:,} characters."
        raise CampaignError("NOT_A_URL", message, field=("content", name))
