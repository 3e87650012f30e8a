"""Emails: what their authors give, and how it becomes mail for any number of recipients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson

from campaigns import mjml
from campaigns.errors import CampaignError
from campaigns.markup import inline_css, with_preheader
from campaigns.mime import HTML_BODY, TEXT_BODY, SenderInfo, Skeleton
from campaigns.plaintext import visible_text
from campaigns.program import PLAIN, Value
from campaigns.templates import compile_template, declared_name
from campaigns.tracking import MOST_LINKS, UNTRACKED, Tracking, tracked

SUBJECT_LIMIT = 1_024
"""Bytes of a subject's or preheader's template."""
BODY_LIMIT = 102_400
"""Bytes of a text's, HTML's or MJML's template."""
FINISHED_LIMIT = 1_048_576
"""Bytes of HTML after its CSS went into every element it is for, or after it was made from MJML."""
TRACKED_LIMIT = FINISHED_LIMIT + 100 * MOST_LINKS
"""Bytes of that HTML with its links tracked."""
MOST_VARIABLES = 100
DEFAULT_LIMIT = 1_024
"""Bytes of a declared default as JSON."""


@dataclass(frozen=True, slots=True)
class Variable:
    """Something about recipients that a content declares, and what stands for it where a recipient has none."""

    name: str
    """As templates write it: `profile.first_name`, `traits.address.city`."""
    default: Any
    """Any JSON but null."""


@dataclass(frozen=True, slots=True)
class EmailContent:
    """An email. All texts are templates: docs/templates.md."""

    subject: str
    preheader: str = ""
    """What mail programs show beside the subject."""
    text: str = ""
    """Empty: made from the HTML."""
    html: str = ""
    mjml: str = ""
    """Instead of `html`. Without either: a mail of plain text."""
    variables: tuple[Variable, ...] = ()

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "EmailContent":
        """What `dataclasses.asdict` made. Fields that came after it was kept have their defaults."""
        texts = {name: kept[name] for name in ("subject", "preheader", "text", "html", "mjml") if name in kept}
        return cls(**texts, variables=tuple(Variable(**one) for one in kept.get("variables", ())))

    @property
    def page_field(self) -> str:
        """Which field the HTML comes from."""
        return "mjml" if self.mjml.strip() else "html"


class Declaring(Protocol):
    """A content that declares variables."""

    @property
    def variables(self) -> tuple[Variable, ...]: ...


def defaults(content: Declaring) -> dict[str, Value]:
    """What stands for values that a recipient lacks, by the name as templates have it.

    Raises CampaignError for a name that no recipient could have, or a default that is null or too large.
    """
    if len(content.variables) > MOST_VARIABLES:
        message = f"At most {MOST_VARIABLES} variables can be declared."
        raise CampaignError("TOO_MANY", message, field=("content", "variables"))
    found: dict[str, Value] = {}
    for place, variable in enumerate(content.variables):
        path = ("content", "variables", str(place))
        name = declared_name(variable.name, field=(*path, "name"))
        if name in found:
            message = f"{variable.name} is declared twice; profile.x and traits.x are the same."
            raise CampaignError("DECLARED_TWICE", message, field=(*path, "name"))
        if variable.default is None or len(orjson.dumps(variable.default)) > DEFAULT_LIMIT:
            message = f"Give {variable.name} a default that is not null and has at most {DEFAULT_LIMIT:,} bytes."
            raise CampaignError("INVALID_DEFAULT", message, field=(*path, "default"))
        found[name] = variable.default
    return found


@dataclass(frozen=True, slots=True)
class Finished:
    """The templates of a mail's two parts, as they are sent."""

    text: str
    html: str
    """Empty: a mail of plain text."""
    seen: str
    """What of the HTML a reader sees, as text."""


def finish(content: EmailContent) -> Finished:
    """MJML turned into HTML, CSS moved into the elements, plain text made where there is none, the preheader put first.

    Raises CampaignError when the HTML or MJML cannot be read.
    """
    path = ("content", content.page_field)
    if content.mjml.strip():
        html = mjml.to_html(content.mjml, field=path, limit=FINISHED_LIMIT)
    else:
        html = inline_css(content.html, field=path).rstrip() if content.html.strip() else ""
    seen = visible_text(html, field=path) if html else ""
    text = content.text if content.text.strip() else seen
    if html and content.preheader.strip():
        html = with_preheader(html, content.preheader.strip())
    return Finished(text.rstrip(), html, seen)


class Person(Protocol):
    """Whoever mail is made for: what a template may ask about them."""

    @property
    def external_id(self) -> str | None: ...
    @property
    def email(self) -> str | None: ...
    @property
    def traits(self) -> Mapping[str, Any]: ...
    @property
    def locale(self) -> str | None: ...
    @property
    def time_zone(self) -> str | None: ...
    @property
    def country(self) -> str | None: ...
    @property
    def city(self) -> str | None: ...


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
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


def common_scope(sender: SenderInfo, campaign_name: str) -> dict[str, Value]:
    """What templates see that is the same for all recipients."""
    return {
        "campaign": {"name": campaign_name},
        "sender": {
            "name": sender.from_name,
            "address": sender.from_address,
            "reply_to": sender.reply_to or sender.from_address,
            "postal_address": sender.postal_address,
        },
    }


def scope_of(
    common: Mapping[str, Value], recipient: Person, *, unsubscribe_url: str, now: datetime
) -> dict[str, Value]:
    """What templates see for one recipient."""
    traits: dict[str, Value] = dict(recipient.traits)
    return {
        **common,
        "traits": traits,
        "profile": {
            **traits,
            "external_id": recipient.external_id,
            "email": recipient.email or "",
            "locale": recipient.locale,
            "time_zone": recipient.time_zone,
            "country": recipient.country,
            "city": recipient.city,
        },
        "unsubscribe_url": unsubscribe_url,
        "now": now,
    }


@dataclass(frozen=True, slots=True)
class CompiledEmail:
    """An email ready to be made for any number of recipients; what they have in common is encoded already."""

    skeleton: Skeleton
    common: dict[str, Value]
    """What templates see that is the same for all."""
    tracked_urls: tuple[str | None, ...] = ()
    """Where the links lead that are made for each recipient; None is the image that tells of opens."""

    def render(
        self,
        recipient: Recipient,
        *,
        message_id: str,
        sent_at: datetime,
        unsubscribe_url: str,
        delivery_key: str,
        links: Sequence[bytes] = (),
        test: bool = False,
    ) -> bytes:
        """One recipient's message (RFC 5322), lines ended by CRLF and no longer than 998.

        `message_id` with its angle brackets. `sent_at` is aware, without fractions of a second. `links` are this
        recipient's addresses for `tracked_urls`, encoded (`campaigns.links.Tracker`). `test` marks the subject. Raises
        RenderError: this recipient's message cannot be made, the others are not affected.
        """
        return self.skeleton.fill(
            scope_of(self.common, recipient, unsubscribe_url=unsubscribe_url, now=sent_at),
            recipient=recipient.email,
            message_id=message_id,
            sent_at=sent_at,
            unsubscribe_url=unsubscribe_url,
            delivery_key=delivery_key,
            links=links,
            subject_prefix="[Test] " if test else "",
        )


def compile_email(
    content: EmailContent,
    *,
    sender: SenderInfo,
    list_unsubscribe: bool,
    campaign_id: UUID,
    campaign_name: str,
    tracking: Tracking = UNTRACKED,
    finished: Finished | None = None,
) -> CompiledEmail:
    """An email made ready: once for each content version, about 10 ms. Raises CampaignError naming the field.

    `list_unsubscribe`: whether its headers offer to unsubscribe, as marketing mail must. `finished`: what `finish` has
    made of the content, where that was done already.
    """
    finished, known = finished or finish(content), defaults(content)
    page = tracked(finished.html, tracking)
    subject = compile_template(
        content.subject, field=("content", "subject"), limit=SUBJECT_LIMIT, encoding=PLAIN, defaults=known
    )
    text = compile_template(
        finished.text, field=("content", "text"), limit=FINISHED_LIMIT, encoding=TEXT_BODY, defaults=known
    )
    html = compile_template(
        page.html,
        field=("content", content.page_field),
        limit=TRACKED_LIMIT,
        encoding=HTML_BODY,
        defaults=known,
        is_tracked=True,
    )
    skeleton = Skeleton(
        subject=subject,
        text=text,
        html=html if finished.html else None,
        sender=sender,
        campaign_id=str(campaign_id),
        list_unsubscribe=list_unsubscribe,
    )
    return CompiledEmail(skeleton, common_scope(sender, campaign_name), page.urls)
