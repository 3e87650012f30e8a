"""What a campaign says: one content for each channel, and how it is kept."""

from dataclasses import asdict
from typing import Any, assert_never
from uuid import UUID

from campaigns import banner_checks, push_checks
from campaigns.banner_content import BannerContent
from campaigns.emails import EmailContent
from campaigns.errors import CampaignError
from campaigns.models import CampaignChannel, CampaignClass
from campaigns.proofs import Proof, Proofs
from campaigns.push_content import PushContent

Content = EmailContent | BannerContent | PushContent


async def proved(content: Content, proofs: Proofs, *, workspace_id: UUID) -> dict[str, Any]:
    """What a campaign's row keeps of a content, found fit to be kept.

    Raises CampaignError for the first thing wrong with it, naming its field, such as ("content", "html").
    """
    if isinstance(content, BannerContent):
        return banner_checks.cleaned(content).to_json()
    if isinstance(content, PushContent):
        content = push_checks.cleaned(content)
        return content.to_json() | {"proof": asdict(await proofs.prove(content, workspace_id=workspace_id))}
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
            return BannerContent.from_json(kept)
        case CampaignChannel.PUSH:
            return PushContent.from_json(kept)
        case _:
            assert_never(channel)
