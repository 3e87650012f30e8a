"""What a campaign says: one content for each channel."""

from typing import Annotated, Any

import strawberry
from strawberry import Maybe

from app.api.declare import about, input_type, one_of, output
from campaigns import content
from campaigns.models import CampaignChannel


@output
class EmailContent:
    """An email. Its texts are Jinja2 templates of a small, safe kind."""

    subject: str = about("Subject line.")
    preheader: str = about("What mail programs show beside the subject.")
    text: str = about("The plain text; when left out, made from the HTML.")
    html: str = about("The HTML.")

    @classmethod
    def of(cls, row: content.EmailContent) -> "EmailContent":
        return cls(subject=row.subject, preheader=row.preheader, text=row.text, html=row.html)


@output
class BannerContent:
    """A banner. Apps draw it."""

    title: str = about("Its title.")
    body: str = about("Its text.")
    image_url: str | None = about("An image.")
    action_url: str | None = about("Where it leads.")

    @classmethod
    def of(cls, row: content.BannerContent) -> "BannerContent":
        return cls(title=row.title, body=row.body, image_url=row.image_url, action_url=row.action_url)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON, for GET /v1/banners."""
        return {"title": self.title, "body": self.body, "imageUrl": self.image_url, "actionUrl": self.action_url}


CampaignContent = Annotated[
    EmailContent | BannerContent,
    strawberry.union("CampaignContent", description="What a campaign says; the type follows from its channel."),
]
CONTENT_TYPES = (EmailContent, BannerContent)


@input_type
class EmailContentInput:
    """An email."""

    subject: str = about("Subject line.")
    preheader: str = about("What mail programs show beside the subject.", default="")
    text: str = about("The plain text; left out: made from the HTML.", default="")
    html: str = about("The HTML; left out: a mail of plain text.", default="")


@input_type
class BannerContentInput:
    """A banner."""

    title: str = about("Its title.")
    body: str = about("Its text.", default="")
    image_url: str | None = about("An image.", default=None)
    action_url: str | None = about("Where it leads.", default=None)


@one_of
class CampaignContentInput:
    """What a campaign says; which one is given decides the channel."""

    email: Maybe[EmailContentInput] = about("An email.")
    banner: Maybe[BannerContentInput] = about("A banner.")


def content_of(channel: CampaignChannel, kept: dict[str, Any]) -> EmailContent | BannerContent:
    """A campaign's content as clients see it."""
    row = content.content_from_json(channel, kept)
    return BannerContent.of(row) if isinstance(row, content.BannerContent) else EmailContent.of(row)


def to_content(wanted: CampaignContentInput) -> content.Content:
    """The use case's content. Nothing is checked here: the rules are the domain's."""
    if wanted.email is not None:
        email = wanted.email.value
        return content.EmailContent(subject=email.subject, preheader=email.preheader, text=email.text, html=email.html)
    assert wanted.banner is not None  # GraphQL has made sure that exactly one is given
    banner = wanted.banner.value
    return content.BannerContent(
        title=banner.title, body=banner.body, image_url=banner.image_url, action_url=banner.action_url
    )
