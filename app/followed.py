"""What can be followed: campaigns and evaluations, as subscribers are told of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from app.following import Feed
from campaigns import counts, lifecycle, statuses
from campaigns.counts import Progress
from campaigns.statuses import Standing
from segments import evaluation
from segments.models import Evaluation, EvaluationStatus

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CampaignState:
    """Where a campaign is. Two are equal unless something but the time of counting differs."""

    standing: Standing
    progress: Progress | None = field(compare=False)
    counted: Progress | None = field(repr=False)
    """The progress, as if counted long ago."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes: what a cancelled campaign still has on its way is waited for."""
        settled = self.progress is None or self.progress.finished_at is not None
        return self.standing.status in lifecycle.ENDS and settled


@dataclass(frozen=True, slots=True)
class EvaluationState:
    """How far the newest evaluation of a segment is."""

    row: Evaluation = field(compare=False)
    # A model is equal to every other one of its id.
    id: UUID
    status: EvaluationStatus
    started_at: datetime | None
    approved_at: datetime | None

    @property
    def is_final(self) -> bool:
        return self.status in (EvaluationStatus.SUCCEEDED, EvaluationStatus.FAILED)


async def campaign_states(workspace_id: UUID, campaign_ids: list[UUID]) -> dict[UUID, CampaignState]:
    """Campaigns by id, those that are there; two queries, and a count of those that have none of this second."""
    found = await statuses.of_campaigns(workspace_id, campaign_ids)
    progress = await counts.of_campaigns(workspace_id, list(found))
    # Of one that was sent between the two: as it is, not still waiting and with a ledger.
    begun = [id for id, standing in found.items() if standing.status in statuses.WAITING and progress.get(id)]
    if begun:
        found |= await statuses.of_campaigns(workspace_id, begun)
    states = {}
    for id, standing in found.items():
        of = progress.get(id)
        states[id] = CampaignState(standing, of, of and replace(of, counted_at=LONG_AGO))
    return states


async def evaluation_states(workspace_id: UUID, segment_ids: list[UUID]) -> dict[UUID, EvaluationState]:
    """The newest evaluation of each segment that has one, by the segment's id; two queries."""
    return {
        segment_id: EvaluationState(row, row.id, row.status, row.started_at, row.approved_at)
        for segment_id, row in (await evaluation.latest(workspace_id, segment_ids)).items()
    }


class Feeds:
    """What this process looks up for its subscribers."""

    def __init__(self) -> None:
        self.campaigns = Feed(campaign_states, is_final=lambda state: state.is_final)
        self.evaluations = Feed(evaluation_states, is_final=lambda state: state.is_final)
        self.is_ending = False
        """Whether this process is about to end: streams, which have no end of their own, are not waited for."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Feeds"]:
        """These, until the block ends; whoever follows hears nothing after that."""
        try:
            yield self
        finally:
            await self.campaigns.close()
            await self.evaluations.close()
