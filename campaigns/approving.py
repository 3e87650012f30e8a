"""What people do about approval: submit a campaign, approve it, or give it back."""

from datetime import datetime
from uuid import UUID

from campaigns import approval, audience, lifecycle, sending
from campaigns.approval import Approval, Word
from campaigns.errors import CampaignError, IllegalMove
from campaigns.models import Campaign, CampaignChannel, CampaignStatus
from campaigns.reasons import PauseReason
from db.transactions import transaction
from profiles.keys import Actor

S = CampaignStatus
REJECTED = "REJECTED"
"""`statusReason` of a draft that was given back."""


async def submit(workspace_id: UUID, campaign_id: UUID, *, by: Actor, now: datetime) -> Campaign:
    """Ask for approval of a draft; what sending needs is checked now, and its audience counted.

    Raises CampaignNotFound, IllegalMove, TargetError, and CampaignError NOT_FOR_THIS_CHANNEL for a banner.
    """
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        if campaign.channel is CampaignChannel.BANNER:
            message = "A banner needs no approval: it is shown, not sent."
            raise CampaignError("NOT_FOR_THIS_CHANNEL", message, field=("id",))
        lifecycle.require_move(campaign, S.PENDING_APPROVAL)
        targeted = await sending.require_complete(connection, campaign, now=now)
        people = await approval.people_now(connection, campaign, targeted)
        campaign.approval = Approval(Word(by, now, people)).to_json()
        return await lifecycle.move(connection, campaign, S.PENDING_APPROVAL, now=now)


async def approve(
    workspace_id: UUID, campaign_id: UUID, *, by: Actor, revision: str | None = None, now: datetime
) -> Campaign:
    """Approve what somebody else submitted, or what was held when it started since it goes to too many. It is not sent
    by that: whoever may send does so, or resumes it. `revision` is what was read (`Approval.revision`); None: nobody
    looks whether it is that still.

    Raises CampaignNotFound, IllegalMove, TargetError, and CampaignError SAME_PERSON for who submitted it, REVISED when
    it was edited or submitted since it was read.
    """
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        given = waiting(campaign)
        if revision is not None and revision != given.revision:
            message = (
                "This is not what you read: it was edited or submitted anew since. Read the campaign again, and approve"
                " it with the revision that its approval has now."
            )
            raise CampaignError("REVISED", message, field=("revision",))
        if given.submitted is not None and given.submitted.by.id == by.id:
            message = (
                f"{by.label} asked for this: somebody else has to approve it, with a key or a sign-in of their own."
            )
            raise CampaignError("SAME_PERSON", message, field=("id",))
        targeted = await audience.usable(connection, campaign)
        people = await approval.people_now(connection, campaign, targeted)
        if people is None:
            message = "Its segments were never evaluated, and nobody knows to how many it goes; evaluate them first."
            raise CampaignError("SEGMENT_NOT_EVALUATED", message, field=("id",))
        said = Word(by, now, people, await approval.definitions(connection, campaign))
        campaign.approval = Approval(given.submitted, said).to_json()
        await lifecycle.write(connection, campaign, now=now)
        return campaign


async def reject(
    workspace_id: UUID, campaign_id: UUID, *, by: Actor, reason: str | None = None, now: datetime
) -> Campaign:
    """Give a submitted campaign back as a draft, with the reason, also one that was approved.

    Raises CampaignNotFound, IllegalMove.
    """
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        if campaign.status is not S.PENDING_APPROVAL:
            raise IllegalMove(campaign, S.DRAFT, sorted(lifecycle.moves(campaign.channel)[campaign.status]))
        said = f"{by.label}: {reason}" if reason else f"{by.label} gave it back."
        campaign.approval = None
        return await lifecycle.move(connection, campaign, S.DRAFT, now=now, reason=REJECTED, detail=said)


def waiting(campaign: Campaign) -> Approval:
    """What a campaign that may be approved waits with; raises IllegalMove for any other."""
    held = campaign.status is S.PAUSED and campaign.status_reason == PauseReason.APPROVAL_MISSING
    if not held and campaign.status is not S.PENDING_APPROVAL:
        message = f"This campaign is {campaign.status} and waits for no approval; submit it first."
        raise CampaignError("ILLEGAL_MOVE", message, field=("id",))
    return Approval.of(campaign) or Approval(None)
