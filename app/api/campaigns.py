"""Campaigns: reading them, how far they are, and what became of each message."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry import ID

from app.api import ids, ordering, paging
from app.api.banner_counts import BannerCounts
from app.api.banner_rules import BannerRules
from app.api.content import CampaignContent, content_of
from app.api.declare import about, argument, looked_up, output, query, resolved
from app.api.deliveries import (
    CampaignProgress,
    Delivery,
    DeliveryStatuses,
    Dispatch,
    Reasons,
    Recipient,
    delivery_page,
    progress_of,
)
from app.api.enums import CampaignChannel, CampaignClass, CampaignStatus, DispatchKind, MissedPolicy, Resolution
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.ordering import (
    CampaignOrder,
    Created,
    Named,
    OfBrand,
    TimeSpan,
    Updated,
    brand_key,
    order_of,
    place_of,
    some,
    span_of,
)
from app.api.paging import After, Connection, First
from app.api.placements import Placement
from app.api.responses import CampaignLink, CampaignResponses
from app.api.segments import Segment
from app.api.senders import Sender
from app.api.workspaces import Brand
from app.auth import require
from app.context import Info
from campaigns import listing, rehearsal, resolving
from campaigns.approval import Approval
from campaigns.banner_counts import BannerCounts as CountsRow
from campaigns.banner_rules import BannerRules as RulesRow
from campaigns.lifecycle import FROZEN
from campaigns.models import Campaign as CampaignRow
from campaigns.resolving import Resolved
from campaigns.statuses import Standing
from profiles.keys import Scope


@output
class InDoubtResolution:
    """Messages in doubt that a person, or the mail server's record, settled."""

    resolved_as: Resolution = about("What became of them.")
    messages: int = about("How many.")
    resolved_by: str = about("Name and beginning of the key that was used, or what was looked at.")
    resolved_at: datetime = about("When.")

    @classmethod
    def of(cls, row: Resolved) -> "InDoubtResolution":
        return cls(
            resolved_as=row.resolved_as,
            messages=row.messages,
            resolved_by=row.resolved_by,
            resolved_at=row.resolved_at,
        )


@output
class CampaignApproval:
    """Who wants a campaign sent, and who else says that it may be. An edit of what it says or to whom takes it back."""

    submitted_by: str | None = about(
        "Who submitted it, or sent, scheduled or then edited it while it needed no approval: a key's name and"
        " beginning, or a person."
    )
    submitted_at: datetime | None = about("When.")
    submitted_audience: int | None = about(
        "To how many people it went then; null when nobody knew, and for one that was not submitted."
    )
    approved_by: str | None = about("Who approved it: a key's name and beginning, or a person; null: nobody did.")
    approved_at: datetime | None = about("When; null: it is not approved.")
    approved_audience: int | None = about("To how many people it went then; it may grow by a tenth.")
    revision: str = about("Which edit and submission this is; `campaignApprove` takes it, to approve what was read.")

    @classmethod
    def of(cls, row: Approval) -> "CampaignApproval":
        submitted, approved = row.submitted, row.approved
        return cls(
            submitted_by=submitted.by.label if submitted else None,
            submitted_at=submitted.at if submitted else None,
            submitted_audience=submitted.audience if submitted else None,
            approved_by=approved.by.label if approved else None,
            approved_at=approved.at if approved else None,
            approved_audience=approved.audience if approved else None,
            revision=row.revision,
        )


@output
class Campaign(Node):
    """One channel, one content, and the segments it goes to."""

    key: strawberry.Private[UUID]
    row: strawberry.Private[CampaignRow]
    name: str = about("Its name.")
    channel: CampaignChannel = about("How it reaches people; follows from its content.")
    status: CampaignStatus = about("How far it is.")
    topic: str = about("What recipients unsubscribe from, such as newsletter.")
    class_: CampaignClass = about("What kind of message it is by law.", name="class")
    content_version: int = about("Grows with every change of the content.")
    weight: int | None = about("Of a banner: its share among those of its placement, 0 to 100.")
    rules: BannerRules | None = about("Of a banner: what else decides who sees it; null for all others.")
    scheduled_at: datetime | None = about("When it starts, or was to start, by itself.")
    time_zone: str = about("IANA name of the time zone people planned it in.")
    expires_at: datetime | None = about("After this nothing is sent or shown any more.")
    missed_policy: MissedPolicy = about("What happens when it is found later than `maximumLatenessSeconds`.")
    maximum_lateness_seconds: int = about("How late a schedule may be found without `missedPolicy`.")
    refresh_before: bool = about("Whether its dynamic segments are evaluated before it starts.")
    rate_per_second: int | None = about("Messages a second at most; null: as fast as the mail server takes them.")
    error_threshold: int | None = about(
        "Per cent of messages that may be refused, of at least 100, before it pauses by itself; null: it never does."
    )
    created_at: datetime = about("When it was made.")
    updated_at: datetime = about("When it was last changed.")
    started_at: datetime | None = about("When it was started.")
    finished_at: datetime | None = about("When it came to its end.")

    @classmethod
    def of(cls, row: CampaignRow) -> "Campaign":
        return cls(
            id=ids.encode(Kind.CAMPAIGN, row.id),
            key=row.id,
            row=row,
            name=row.name,
            channel=row.channel,
            status=row.status,
            topic=row.topic,
            class_=row.class_,
            content_version=row.content_version,
            weight=row.weight,
            rules=BannerRules.of(RulesRow.from_json(row.rules)) if row.channel is CampaignChannel.BANNER else None,
            scheduled_at=row.scheduled_at,
            time_zone=row.time_zone,
            expires_at=row.expires_at,
            missed_policy=row.missed_policy,
            maximum_lateness_seconds=row.maximum_lateness_s,
            refresh_before=row.refresh_before,
            rate_per_second=row.rate_per_s,
            error_threshold=row.error_threshold,
            created_at=row.created_at,
            updated_at=row.updated_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )

    @property
    def is_frozen(self) -> bool:
        """Whether there may be a ledger: not before it was started, and never of a banner."""
        return self.channel is not CampaignChannel.BANNER and self.status in FROZEN

    @looked_up
    async def status_reason(self, info: Info) -> str | None:
        """Why it is so, for programs: of a paused one BY_HAND, MISSED, SILENT, ERROR_THRESHOLD, RENDER_FAILURES or a
        code of the mail server's; of one that is prepared AWAITS_EVALUATION or EVALUATION_HELD; null when there is
        nothing to say."""
        return (await self.standing(info)).reason

    @looked_up
    async def status_detail(self, info: Info) -> str | None:
        """Why it is so, for people."""
        return (await self.standing(info)).detail

    async def standing(self, info: Info) -> Standing:
        """How it stands, and if it is prepared, what it waits for: that is looked up."""
        found = await info.context.loaders.awaiting.load(self.key) if self.status is CampaignStatus.PREPARING else None
        return found or Standing(self.row.status, self.row.status_reason, self.row.status_detail)

    @resolved
    def content(self) -> CampaignContent:
        """What it says."""
        return content_of(self.row.channel, self.row.content)

    @resolved
    def approval(self) -> CampaignApproval | None:
        """Who submitted and approved it; null when nobody did since it was last edited, and for banners."""
        given = Approval.of(self.row)
        return CampaignApproval.of(given) if given else None

    @looked_up
    async def brand(self, info: Info) -> Brand | None:
        """The brand it belongs to; null when it is for all."""
        row = await info.context.loaders.brands.load(self.row.brand_id) if self.row.brand_id else None
        return Brand.of(row) if row else None

    @looked_up
    async def sender(self, info: Info) -> Sender | None:
        """Whom an email campaign comes from."""
        row = await info.context.loaders.senders.load(self.row.sender_id) if self.row.sender_id else None
        return Sender.of(row) if row else None

    @looked_up
    async def placement(self, info: Info) -> Placement | None:
        """Where a banner appears."""
        row = await info.context.loaders.placements.load(self.row.placement_id) if self.row.placement_id else None
        return Placement.of(row) if row else None

    @looked_up
    async def test_segment(self, info: Info) -> Segment | None:
        """Whose members see a banner before it goes live; null: nobody does."""
        row = await info.context.loaders.segments.load(self.row.test_segment_id) if self.row.test_segment_id else None
        return Segment.of(row) if row else None

    @looked_up
    async def segments(self, info: Info) -> list[Segment]:
        """Whom it goes to: everybody who is in at least one of these."""
        targets = await info.context.loaders.targets.load(self.key)
        return [Segment.of(row) for row in targets.included] if targets else []

    @looked_up
    async def excluded_segments(self, info: Info) -> list[Segment]:
        """Whom it spares: nobody who is in one of these gets it."""
        targets = await info.context.loaders.targets.load(self.key)
        return [Segment.of(row) for row in targets.excluded] if targets else []

    @looked_up
    async def progress(self, info: Info) -> CampaignProgress | None:
        """Where its messages are; null before its audience is frozen, and for banners. Test sends never count."""
        row = await progress_of(info, self.key) if self.is_frozen else None
        return CampaignProgress.of(row) if row else None

    @looked_up
    async def responses(self, info: Info) -> CampaignResponses | None:
        """What people did with its mails; null before its audience is frozen, and for banners. Tests never count."""
        if not self.is_frozen or await progress_of(info, self.key) is None:
            return None
        counted = await info.context.loaders.responses.load(self.key)
        return CampaignResponses.of(counted) if counted else None

    @looked_up
    async def banner_counts(self, info: Info) -> BannerCounts | None:
        """What viewers did with a banner; null for all others."""
        if self.channel is not CampaignChannel.BANNER:
            return None
        counted = await info.context.loaders.banner_counts.load(self.key)
        return BannerCounts.of(self.key, counted or CountsRow())

    @looked_up
    async def links(self, info: Info) -> list[CampaignLink]:
        """The tracked links of its mails, in their order, from the first mail on; empty before. Tests never count."""
        return [CampaignLink.of(one) for one in await info.context.loaders.links.load(self.key) or ()]

    @resolved
    async def deliveries(
        self,
        info: Info,
        first: First = paging.DEFAULT_PAGE,
        after: After = None,
        status: DeliveryStatuses = None,
        reason: Reasons = None,
        profile_id: Recipient = None,
    ) -> Connection[Delivery]:
        """What became of each message, by profile; test sends are left out."""
        require(info.context.caller, Scope.READ)
        return await delivery_page(
            info, self.key, first=first, after=after, status=status, reason=reason, profile_id=profile_id
        )

    @resolved
    async def in_doubt_resolutions(self, info: Info) -> list[InDoubtResolution]:
        """Who settled messages in doubt, when and how many; newest first, at most 100."""
        if self.channel is CampaignChannel.BANNER:
            return []
        rows = await resolving.resolutions(info.context.workspace_id, self.key)
        return [InDoubtResolution.of(row) for row in rows]

    @looked_up
    async def tests(self, info: Info) -> list[Dispatch]:
        """Its test sends, newest first; at most 100."""
        if self.channel is CampaignChannel.BANNER:
            return []
        return [Dispatch.of(run) for run in await info.context.loaders.runs.load((self.key, DispatchKind.TEST)) or ()]


@output
class SkippedCount:
    """Messages that would not be sent for one reason."""

    reason: str = about("The reason, such as UNSUBSCRIBED or SUPPRESSED.")
    messages: int = about("How many.")


@output
class CampaignDryRun:
    """What a send at this instant would do; nothing is written."""

    audience: int = about("Profiles in the segments and not in the excluded ones.")
    reachable: int = about("Messages that would be sent.")
    no_address: int = about("Profiles without an address for the channel.")
    skipped: list[SkippedCount] = about("Messages that would be skipped, by reason.")

    @classmethod
    def of(cls, run: rehearsal.DryRun) -> "CampaignDryRun":
        return cls(
            audience=run.audience,
            reachable=run.reachable,
            no_address=run.no_address,
            skipped=[SkippedCount(reason=reason, messages=run.skipped[reason]) for reason in sorted(run.skipped)],
        )


@output
class CampaignQueries:
    @query(needs=Scope.READ)
    async def campaign(self, info: Info, id: ID) -> Campaign | None:
        """One campaign; null when there is none."""
        row = await info.context.loaders.campaigns.load(ids.campaign_id(id))
        return Campaign.of(row) if row else None

    @query(needs=Scope.READ)
    async def campaigns(
        self,
        info: Info,
        first: First = paging.DEFAULT_PAGE,
        after: After = None,
        status: Annotated[list[CampaignStatus] | None, argument("Only those of one of these statuses.")] = None,
        channel: Annotated[list[CampaignChannel] | None, argument("Only those of one of these channels.")] = None,
        name: Named = None,
        brand_id: OfBrand = None,
        created: Created = None,
        updated: Updated = None,
        scheduled: Annotated[TimeSpan | None, argument("Only those scheduled for this span of time.")] = None,
        order_by: Annotated[CampaignOrder | None, argument("In which order; null: the newest first.")] = None,
    ) -> Connection[Campaign]:
        """The workspace's campaigns, the newest first unless another order is asked for."""
        order = order_of(order_by, otherwise=listing.NEWEST_FIRST)
        rows = await listing.page(
            info.context.workspace_id,
            limit=paging.page_size(first) + 1,
            after=place_of(after, order, listing.KEYS),
            order=order,
            only=listing.CampaignFilter(
                statuses=some(status),
                channels=some(channel),
                name=name,
                brand_id=brand_key(brand_id),
                created=span_of(created),
                updated=span_of(updated),
                scheduled=span_of(scheduled),
            ),
        )
        return ordering.connection(rows, first=first, after=after, order=order, node=Campaign.of)

    @query(needs=Scope.READ)
    async def campaign_dry_run(self, info: Info, id: ID) -> CampaignDryRun:
        """What sending a campaign now would do, by the same query that sends it; nothing is written."""
        return CampaignDryRun.of(await rehearsal.dry_run(info.context.workspace_id, ids.campaign_id(id)))

    @query(needs=Scope.READ)
    async def deliveries(
        self,
        info: Info,
        campaign_id: Annotated[ID, argument("The campaign.")],
        first: First = paging.DEFAULT_PAGE,
        after: After = None,
        status: DeliveryStatuses = None,
        reason: Reasons = None,
        profile_id: Recipient = None,
    ) -> Connection[Delivery]:
        """What became of each message of a campaign, by profile; test sends are left out."""
        key = ids.campaign_id(campaign_id, field="campaign_id")
        return await delivery_page(
            info, key, first=first, after=after, status=status, reason=reason, profile_id=profile_id
        )
