"""What a campaign says: one content for each channel."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, assert_never

import strawberry
from strawberry import Maybe

from app.api.banner_content import BannerContent, BannerContentInput, to_banner
from app.api.declare import about, input_type, one_of, output
from app.api.enums import CampaignChannel
from app.api.push_content import PushContent
from app.api.push_inputs import PushContentInput, to_push
from app.api.scalars import Json
from app.api.variables import ContentVariable
from campaigns import banner_content, content, emails
from campaigns.proofs import Proof
from db.errors import MusterError


@output
class EmailContent:
    """An email. All texts are templates in a small, safe part of Jinja2."""

    subject: str = about("Subject line.")
    preheader: str = about("What mail programs show beside the subject.")
    text: str = about("The plain text; empty: it is made from the HTML.")
    html: str = about("The HTML; empty when it is made from MJML, or in a mail of plain text.")
    mjml: str = about("MJML, from which the HTML is made; empty when there is none.")
    variables: list[ContentVariable] = about("What it asks about recipients, and what it declares, by name.")

    @classmethod
    def of(cls, kept: dict[str, Any]) -> "EmailContent":
        """What a campaign's row keeps."""
        row, proof = emails.EmailContent.from_json(kept), Proof.from_json(kept["proof"])
        return cls(
            subject=row.subject,
            preheader=row.preheader,
            text=row.text,
            html=row.html,
            mjml=row.mjml,
            variables=[ContentVariable(name=one.name, default=one.default) for one in proof.variables],
        )


CampaignContent = Annotated[
    EmailContent | BannerContent | PushContent,
    strawberry.union("CampaignContent", description="What a campaign says; the type follows from its channel."),
]
CONTENT_TYPES = (EmailContent, BannerContent, PushContent)


@input_type
class EmailVariableInput:
    """A declared default: what a template sees where a recipient has none."""

    name: str = about("A trait or field of the profile as templates write it, such as profile.first_name.")
    default: Json = about("A text, number, boolean, list or object of at most 1 KB; not null.")


@input_type
class EmailContentInput:
    """An email. All texts are templates in a small, safe part of Jinja2, such as {{ profile.external_id }}."""

    subject: str = about("Subject line.")
    preheader: str = about("What mail programs show beside the subject.", default="")
    text: str = about("The plain text; left out: made from the HTML.", default="")
    html: str = about("The HTML.", default="")
    mjml: str = about("MJML instead of HTML. With neither it is a mail of plain text.", default="")
    variables: list[EmailVariableInput] = about(
        "Defaults for what recipients may lack; the template's own default(...) is not needed for these.",
        default_factory=list,
    )


@one_of
class CampaignContentInput:
    """What a campaign says; which one is given decides the channel."""

    email: Maybe[EmailContentInput] = about("An email.")
    banner: Maybe[BannerContentInput] = about("A banner.")
    push: Maybe[PushContentInput] = about("A push notification.")

    @property
    def name(self) -> str:
        """Which one is given."""
        return next(name for name in ("email", "banner", "push") if getattr(self, name) is not None)


def content_of(channel: CampaignChannel, kept: dict[str, Any]) -> EmailContent | BannerContent | PushContent:
    """A campaign's content as clients see it."""
    match channel:
        case CampaignChannel.EMAIL:
            return EmailContent.of(kept)
        case CampaignChannel.BANNER:
            return BannerContent.of(banner_content.BannerContent.from_json(kept))
        case CampaignChannel.PUSH:
            return PushContent.of(kept)
        case _:
            assert_never(channel)


def to_content(wanted: CampaignContentInput) -> content.Content:
    """The use case's content. Nothing is checked here: the rules are the domain's."""
    if wanted.email is not None:
        return to_email(wanted.email.value)
    if wanted.push is not None:
        return to_push(wanted.push.value)
    assert wanted.banner is not None  # GraphQL has made sure that exactly one is given
    return to_banner(wanted.banner.value)


def to_email(email: EmailContentInput) -> emails.EmailContent:
    """The use case's email."""
    return emails.EmailContent(
        subject=email.subject,
        preheader=email.preheader,
        text=email.text,
        html=email.html,
        mjml=email.mjml,
        variables=tuple(emails.Variable(one.name, one.default) for one in email.variables),
    )


PUSH_NAMES = {"data": "custom_data", "expiry_s": "expiry_seconds", "ttl_s": "ttl_seconds"}


def as_clients_know(kind: str, part: str) -> str:
    """A field of a content by the name that it has in the API."""
    return PUSH_NAMES.get(part, part) if kind == "push" else part


@contextmanager
def content_paths(wanted: CampaignContentInput) -> Iterator[None]:
    """Refusals of a content as the client knows it: `content.html` of the domain is `content.email.html` here."""
    try:
        yield
    except MusterError as refusal:
        first, *rest = refusal.field or ("",)
        if first == "content" and rest:
            refusal.field = ("content", wanted.name, *(as_clients_know(wanted.name, part) for part in rest))
        raise
