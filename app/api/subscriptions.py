"""What can be followed: told as it is, then whenever it has changed, until it is over."""

from collections.abc import AsyncGenerator
from typing import Annotated

from strawberry import ID

from app.api import ids
from app.api.declare import about, argument, output, subscription
from app.api.deliveries import CampaignProgress
from app.api.enums import CampaignStatus
from app.api.ids import Kind
from app.api.segments import SegmentEvaluation
from app.context import Info
from app.followed import CampaignState
from campaigns import listing as campaign_listing
from profiles.keys import Scope
from segments import listing as segment_listing


@output
class CampaignProgressUpdate:
    """Where a campaign is at this moment."""

    campaign_id: ID = about("The campaign.")
    status: CampaignStatus = about("How far it is.")
    status_reason: str | None = about("Why it is so, for programs; null when there is nothing to say.")
    status_detail: str | None = about("Why it is so, for people.")
    progress: CampaignProgress | None = about("Where its messages are; null before its audience is frozen.")

    @classmethod
    def of(cls, id: ID, state: CampaignState) -> "CampaignProgressUpdate":
        return cls(
            campaign_id=id,
            status=state.standing.status,
            status_reason=state.standing.reason,
            status_detail=state.standing.detail,
            progress=None if state.progress is None else CampaignProgress.of(state.progress),
        )


@output
class Subscriptions:
    @subscription(needs=Scope.READ)
    async def campaign_progress(self, info: Info, id: ID) -> AsyncGenerator[CampaignProgressUpdate, None]:
        """A campaign's status and progress now, and whenever they change; at most once a second, until it is over."""
        workspace_id, campaign_id = info.context.workspace_id, ids.campaign_id(id)
        await campaign_listing.get(workspace_id, campaign_id)
        async for state in info.context.services.feeds.campaigns.follow(workspace_id, campaign_id):
            info.context.forget_reads()
            yield CampaignProgressUpdate.of(ids.encode(Kind.CAMPAIGN, campaign_id), state)

    @subscription(needs=Scope.READ)
    async def segment_evaluation_updated(
        self, info: Info, segment_id: Annotated[ID, argument("The segment.")]
    ) -> AsyncGenerator[SegmentEvaluation, None]:
        """The newest evaluation of a segment now, and whenever it has come further; until one succeeded or failed.

        Of a segment never evaluated the first one is waited for.
        """
        workspace_id, key = info.context.workspace_id, ids.segment_id(segment_id, field="segment_id")
        await segment_listing.get(workspace_id, key)
        async for state in info.context.services.feeds.evaluations.follow(workspace_id, key):
            info.context.forget_reads()
            yield SegmentEvaluation.of(state.row)
