"""Trying a campaign before it is sent: a marked copy to a few, or only the counts."""

from dataclasses import dataclass
from uuid import UUID

from pyroaring import BitMap

from campaigns import audience, content, lifecycle, planning, push_planning, senders
from campaigns.audience import TargetedSegments
from campaigns.errors import CampaignError, CampaignNotFound, TargetError
from campaigns.models import Campaign, CampaignChannel, CampaignClass, Dispatch, DispatchKind
from campaigns.reasons import SkipReason
from campaigns.sending import insert_dispatch
from db.transactions import Connection, transaction
from profiles import profiles
from segments.models import Segment

MOST_TEST_RECIPIENTS = 100


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a send at this instant would do; nothing is written."""

    audience: int
    """Profiles in the included segments and not in the excluded ones."""
    reachable: int
    """Messages that would be sent: one for each person, and of a push campaign for each device."""
    no_address: int
    """People without an address, or without a device."""
    skipped: dict[str, int]
    """Messages that would be skipped, by reason."""


async def send_test(
    workspace_id: UUID,
    campaign_id: UUID,
    *,
    segment_id: UUID | None = None,
    external_ids: list[str] | None = None,
) -> Dispatch:
    """Send a copy to a small segment or to listed profiles, at most 100; state and counts stay untouched.

    An email says [Test] in its subject, a notification before its title.
    Consent is not asked (these are colleagues), suppression is. Raises CampaignError.
    """
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        if campaign.channel is CampaignChannel.BANNER:
            message = "A banner cannot be test-sent; it is shown to testers by its testSegmentId."
            raise CampaignError("NOT_FOR_THIS_CHANNEL", message, field=("id",))
        content.require_sendable(campaign.content, channel=campaign.channel, class_=campaign.class_)
        if campaign.channel is CampaignChannel.PUSH:
            await push_planning.require_credentials(connection, workspace_id=workspace_id)
        elif campaign.sender_id is None:
            message = "An email campaign needs a sender; make one with senderCreate and set senderId."
            raise CampaignError("SENDER_MISSING", message, field=("sender_id",))
        ids = await recipients(connection, campaign, segment_id=segment_id, external_ids=external_ids)
        if campaign.channel is CampaignChannel.PUSH:
            await push_planning.require_credentials_for(connection, workspace_id=workspace_id, audience=ids)
        origin = await senders.origin_of(connection, campaign)
        dispatch_id = await insert_dispatch(connection, campaign, origin, kind=DispatchKind.TEST, ids=ids)
        return await Dispatch.get(workspace_id=workspace_id, id=dispatch_id)


async def recipients(
    connection: Connection, campaign: Campaign, *, segment_id: UUID | None, external_ids: list[str] | None
) -> BitMap:
    """Profile ids of a test send; raises CampaignError when there are none or more than 100."""
    if (segment_id is None) == (not external_ids):
        message = "Name either a segment or a list of profiles to send the test to."
        raise CampaignError("TEST_RECIPIENTS", message, field=("segment_id",))
    if segment_id is not None:
        segment = await Segment.filter(workspace_id=campaign.workspace_id, id=segment_id).first()
        if segment is None:
            raise CampaignError("NOT_FOUND", "There is no such segment in this workspace.", field=("segment_id",))
        few = TargetedSegments([segment], [])
        try:
            audience.require_usable(few, brand_id=campaign.brand_id)
            ids = await audience.resolve(
                connection, few, workspace_id=campaign.workspace_id, brand_id=campaign.brand_id
            )
        except TargetError as refusal:
            refusal.field = ("segment_id",)
            raise
        field: tuple[str, ...] = ("segment_id",)
    else:
        known = await profiles.find_by_external_ids(connection, external_ids or [])
        for place, one in enumerate(external_ids or []):
            if one not in known:
                message = "There is no profile with this external id."
                raise CampaignError("NOT_FOUND", message, field=("external_ids", str(place)))
        ids, field = BitMap(known.values()), ("external_ids",)
    if not 1 <= len(ids) <= MOST_TEST_RECIPIENTS:
        message = f"A test goes to 1 to {MOST_TEST_RECIPIENTS} profiles; these are {len(ids)}."
        raise CampaignError("TEST_RECIPIENTS", message, field=field)
    return ids


async def dry_run(workspace_id: UUID, campaign_id: UUID) -> DryRun:
    """What sending now would do, by the same query that writes the ledger. Raises CampaignNotFound, TargetError,
    CampaignError NOT_FOR_THIS_CHANNEL for a banner."""
    async with transaction(workspace_id) as connection:
        campaign = await Campaign.filter(workspace_id=workspace_id, id=campaign_id).first()
        if campaign is None:
            raise CampaignNotFound()
        if campaign.channel is CampaignChannel.BANNER:
            message = "A banner is sent to nobody: try it by its testSegmentId, and ask its segments for their sizes."
            raise CampaignError("NOT_FOR_THIS_CHANNEL", message, field=("id",))
        targeted = await audience.usable(connection, campaign)
        ids = await audience.resolve(connection, targeted, workspace_id=workspace_id, brand_id=campaign.brand_id)
        count_gated = push_planning.count_gated if campaign.channel is CampaignChannel.PUSH else planning.count_gated
        messages = await count_gated(
            connection,
            workspace_id=workspace_id,
            audience=ids,
            topic=campaign.topic,
            consent_matters=campaign.class_ is CampaignClass.MARKETING,
        )
    reachable = messages.pop(None, 0)
    skipped = {reason: count for reason, count in messages.items() if reason is not None}
    if campaign.channel is CampaignChannel.PUSH:
        return DryRun(len(ids), reachable, skipped.pop(SkipReason.NO_DEVICE, 0), skipped)
    return DryRun(len(ids), reachable, len(ids) - reachable - sum(skipped.values()), skipped)
