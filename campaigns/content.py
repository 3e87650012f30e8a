"""What a campaign says: one content for each channel, how it is kept, and what a banner may be."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, assert_never
from uuid import UUID

import orjson

from campaigns.emails import EmailContent
from campaigns.errors import CampaignError
from campaigns.models import CampaignChannel, CampaignClass
from campaigns.proofs import Proof, Proofs

DATA_LIMIT = 4_096
"""Bytes of a banner's data as JSON."""
URL_LIMIT = 2_048


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


async def proved(content: Content, proofs: Proofs, *, workspace_id: UUID) -> dict[str, Any]:
    """What a campaign's row keeps of a content, found fit to be kept.

    Raises CampaignError for the first thing wrong with it, naming its field, such as ("content", "html").
    """
    if isinstance(content, BannerContent):
        check_banner(content)
        return asdict(content)
    return asdict(content) | {"proof": asdict(await proofs.prove(content, workspace_id=workspace_id))}


def require_sendable(kept: dict[str, Any], *, channel: CampaignChannel, class_: CampaignClass) -> None:
    """Raise CampaignError when a content that is kept must not be sent as what `class_` says it is.

    Compiles nothing: this is asked within transactions, and what is kept was proved.
    """
    if channel is not CampaignChannel.EMAIL:
        return
    objection = Proof.from_json(kept["proof"]).objection
    if class_ is CampaignClass.MARKETING and objection:
        raise CampaignError(objection.code, objection.message, field=objection.field)


def content_from_json(channel: CampaignChannel, kept: dict[str, Any]) -> Content:
    """What `proved` made. Fields that came after it was kept have their defaults."""
    match channel:
        case CampaignChannel.EMAIL:
            return EmailContent.from_json(kept)
        case CampaignChannel.BANNER:
            return BannerContent(**{one.name: kept[one.name] for one in fields(BannerContent) if one.name in kept})
        case CampaignChannel.PUSH:
            raise NotImplementedError("push has no content yet")
        case _:
            assert_never(channel)


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
