"""Previews: a message as one recipient would get it, before it is sent and even before it is saved."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from campaigns.emails import EmailContent, Recipient
from campaigns.errors import CampaignError
from campaigns.mime import SenderInfo
from campaigns.models import Campaign, CampaignChannel, CampaignClass, Sender
from campaigns.proofs import Preview, Proofs, Trial
from campaigns.push_checks import cleaned
from campaigns.push_content import PushContent
from campaigns.push_proofs import PushPreview, PushTrial
from db.transactions import transaction
from profiles import profiles
from profiles.errors import ProfileError
from profiles.profiles import Profile

SAMPLE_SENDER = SenderInfo("Your name", "you@example.com", None, "Your postal address")
"""Whom a mail comes from as long as no sender is chosen."""


@dataclass(frozen=True, slots=True)
class PreviewInput:
    """What to preview, and for whom: one of `profile_id`, `external_id` and `sample`."""

    campaign_id: UUID | None = None
    """Whose content, sender, class and name are taken where they are not given."""
    content: EmailContent | None = None
    sender_id: UUID | None = None
    class_: CampaignClass | None = None
    profile_id: int | None = None
    external_id: str | None = None
    sample: Recipient | None = None
    """Somebody made up."""


async def preview(
    workspace_id: UUID, wanted: PreviewInput, *, proofs: Proofs, unsubscribe_url: str, now: datetime
) -> Preview:
    """An email as its recipient would get it; nothing is saved or sent, and its links are not tracked.

    `unsubscribe_url` stands for the recipient's own link, which a preview must not give away. Raises CampaignError.
    """
    async with transaction(workspace_id):
        campaign = await campaign_of(workspace_id, wanted.campaign_id)
        content = wanted.content or content_of(campaign)
        sender = await sender_of(workspace_id, wanted.sender_id or (campaign.sender_id if campaign else None))
    class_ = wanted.class_ or (campaign.class_ if campaign else CampaignClass.MARKETING)
    trial = Trial(
        content=content,
        sender=sender,
        campaign_name=campaign.name if campaign else "Preview",
        recipient=wanted.sample or Recipient.of(await person(workspace_id, wanted)),
        marketing=class_ is CampaignClass.MARKETING,
        unsubscribe_url=unsubscribe_url,
        now=now,
    )
    return await proofs.preview(trial, workspace_id=workspace_id)


@dataclass(frozen=True, slots=True)
class PushPreviewInput:
    """Which notification to preview, and for whom: one of `profile_id`, `external_id` and `sample`."""

    campaign_id: UUID | None = None
    """Whose content, expiry and name are taken where no content is given."""
    content: PushContent | None = None
    profile_id: int | None = None
    external_id: str | None = None
    sample: Recipient | None = None
    """Somebody made up."""


async def preview_push(workspace_id: UUID, wanted: PushPreviewInput, *, proofs: Proofs, now: datetime) -> PushPreview:
    """A notification as every platform would be given it; nothing is saved or sent. Raises CampaignError."""
    async with transaction(workspace_id):
        campaign = await campaign_of(workspace_id, wanted.campaign_id)
    content = cleaned(wanted.content) if wanted.content is not None else notification_of(campaign)
    trial = PushTrial(
        content=content,
        campaign_name=campaign.name if campaign else "Preview",
        recipient=wanted.sample or Recipient.of(await person(workspace_id, wanted)),
        expires_at=campaign.expires_at if campaign else None,
        now=now,
    )
    return await proofs.preview_push(trial, workspace_id=workspace_id)


async def campaign_of(workspace_id: UUID, campaign_id: UUID | None) -> Campaign | None:
    """The campaign to preview, if one is named. Raises CampaignError when there is none like it."""
    if campaign_id is None:
        return None
    campaign = await Campaign.filter(workspace_id=workspace_id, id=campaign_id).first()
    if campaign is None:
        raise CampaignError("NOT_FOUND", "There is no such campaign in this workspace.", field=("campaign_id",))
    return campaign


def notification_of(campaign: Campaign | None) -> PushContent:
    """A campaign's notification. Raises CampaignError when there is none."""
    if campaign is None:
        raise CampaignError("CONTENT_MISSING", "Give a content, or a campaign that has one.", field=("content",))
    if campaign.channel is not CampaignChannel.PUSH:
        message = f"This is a campaign of channel {campaign.channel}; campaignPreview shows emails."
        raise CampaignError("NOT_FOR_THIS_CHANNEL", message, field=("campaign_id",))
    return PushContent.from_json(campaign.content)


def content_of(campaign: Campaign | None) -> EmailContent:
    """A campaign's email. Raises CampaignError when there is none."""
    if campaign is None:
        raise CampaignError("CONTENT_MISSING", "Give a content, or a campaign that has one.", field=("content",))
    if campaign.channel is not CampaignChannel.EMAIL:
        message = f"This is a campaign of channel {campaign.channel}; campaignPushPreview shows notifications."
        raise CampaignError("NOT_FOR_THIS_CHANNEL", message, field=("campaign_id",))
    return EmailContent.from_json(campaign.content)


async def sender_of(workspace_id: UUID, sender_id: UUID | None) -> SenderInfo:
    if sender_id is None:
        return SAMPLE_SENDER
    sender = await Sender.filter(workspace_id=workspace_id, id=sender_id).first()
    if sender is None:
        raise CampaignError("NOT_FOUND", "There is no such sender in this workspace.", field=("sender_id",))
    return SenderInfo.of(sender)


async def person(workspace_id: UUID, wanted: PreviewInput | PushPreviewInput) -> Profile:
    """The profile that a preview is for. Raises CampaignError when there is none."""
    if wanted.external_id is not None:
        found = await profiles.find_by_external_id(workspace_id, wanted.external_id)
        if found is None:
            message = "There is no profile with this external id."
            raise CampaignError("NOT_FOUND", message, field=("recipient", "external_id"))
        return found
    assert wanted.profile_id is not None  # the edge has made sure that there is one of the three
    try:
        return await profiles.get(workspace_id, wanted.profile_id)
    except ProfileError as refusal:
        raise CampaignError(refusal.code, refusal.message, field=("recipient", "profile_id")) from refusal
