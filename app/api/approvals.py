"""Approval of campaigns by a second person."""

from strawberry import ID

from app.api import ids
from app.api.campaign_mutations import CampaignPayload
from app.api.campaigns import Campaign
from app.api.declare import about, input_type, mutation, output
from app.context import Info
from campaigns import approving
from profiles.keys import Scope


@input_type
class CampaignSubmitForApprovalInput:
    """Which draft somebody else is to approve."""

    id: ID = about("The campaign.")


@output
class CampaignSubmitForApprovalPayload(CampaignPayload):
    """The campaign, waiting for approval."""


@input_type
class CampaignApproveInput:
    """Which campaign may be sent."""

    id: ID = about("The campaign.")
    revision: str | None = about(
        "The `revision` of the `approval` that you read: what was edited or submitted since is refused as REVISED. Left"
        " out: it is approved as it is now, whatever you read.",
        default=None,
    )


@output
class CampaignApprovePayload(CampaignPayload):
    """The campaign, approved: `campaignSend`, `campaignSchedule` or, when it is paused, `campaignResume` sends it."""


@input_type
class CampaignRejectInput:
    """Which campaign to give back, and why."""

    id: ID = about("The campaign.")
    reason: str | None = about("Why, for the others; shown as `statusDetail`.", default=None)


@output
class CampaignRejectPayload(CampaignPayload):
    """The campaign, a draft again."""


@output
class ApprovalMutations:
    @mutation(needs=Scope.CAMPAIGNS)
    async def campaign_submit_for_approval(
        self, info: Info, input: CampaignSubmitForApprovalInput
    ) -> CampaignSubmitForApprovalPayload:
        """Ask somebody else to approve a draft. What sending needs is checked now."""
        row = await approving.submit(
            info.context.workspace_id,
            ids.campaign_id(input.id),
            by=info.context.known_caller.actor,
            now=info.context.now,
        )
        return CampaignSubmitForApprovalPayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.SEND)
    async def campaign_approve(self, info: Info, input: CampaignApproveInput) -> CampaignApprovePayload:
        """Say that a campaign may be sent, which somebody else submitted. It is not sent by that."""
        row = await approving.approve(
            info.context.workspace_id,
            ids.campaign_id(input.id),
            by=info.context.known_caller.actor,
            revision=input.revision,
            now=info.context.now,
        )
        return CampaignApprovePayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.SEND)
    async def campaign_reject(self, info: Info, input: CampaignRejectInput) -> CampaignRejectPayload:
        """Give a campaign that waits for approval back to whoever wrote it, also one that has it."""
        row = await approving.reject(
            info.context.workspace_id,
            ids.campaign_id(input.id),
            by=info.context.known_caller.actor,
            reason=input.reason,
            now=info.context.now,
        )
        return CampaignRejectPayload(campaign=Campaign.of(row))
