"""What people do with campaigns: write them, try them, start, stop and show them."""

from contextlib import nullcontext
from datetime import datetime, timedelta
from uuid import UUID

from strawberry import ID, Maybe

from app.api import ids
from app.api.banner_rules import BannerRulesInput, to_rules
from app.api.campaigns import Campaign
from app.api.content import CampaignContentInput, content_paths, to_content
from app.api.declare import about, input_type, mutation, output
from app.api.deliveries import Dispatch
from app.api.enums import CampaignClass, MissedPolicy
from app.api.ids import Kind
from app.api.payloads import Payload, converted, given
from app.context import Info
from campaigns import content, control, drafts, rehearsal, sending
from campaigns.banner_rules import PLAIN
from campaigns.wanted import DEFAULT_THRESHOLD, CampaignChanges, CampaignInput
from profiles.keys import Scope

ERROR_THRESHOLD = (
    "Per cent of messages, 1 to 100, that may be refused, of at least 100, before it pauses by itself; null: it never"
    " does."
)


@output
class CampaignPayload(Payload):
    """What answers with a campaign."""

    campaign: Campaign | None = about("The campaign as it is now; null when it was refused.", default=None)


@input_type
class CampaignCreateInput:
    """A new campaign. It may lack segments and sender until it is sent."""

    name: str = about("Its name, 1 to 200 characters.")
    content: CampaignContentInput = about("What it says; this decides the channel.")
    segment_ids: list[ID] = about("Whom it goes to.", default_factory=list)
    excluded_segment_ids: list[ID] = about("Whom it spares.", default_factory=list)
    brand_id: ID | None = about("The brand it belongs to; left out: none.", default=None)
    sender_id: ID | None = about("Whom an email campaign comes from.", default=None)
    placement_id: ID | None = about("Where a banner appears.", default=None)
    weight: int | None = about("Of a banner: its share among those of its placement, 0 to 100.", default=None)
    rules: BannerRulesInput | None = about("Of a banner: what else decides who sees it.", default=None)
    test_segment_id: ID | None = about(
        "Of a banner: a segment whose members see it before it goes live, such as your team.", default=None
    )
    topic: str = about("What recipients unsubscribe from.", default="marketing")
    class_: CampaignClass = about("What kind of message it is by law.", name="class", default=CampaignClass.MARKETING)
    expires_at: datetime | None = about("After this nothing is sent or shown any more.", default=None)
    time_zone: str = about("IANA name of the time zone people plan it in.", default="UTC")
    missed_policy: MissedPolicy = about("What happens when it is found late.", default=MissedPolicy.SEND)
    refresh_before: bool = about("Whether its dynamic segments are evaluated before it starts.", default=True)
    rate_per_second: int | None = about("Messages a second at most; left out: no limit of its own.", default=None)
    error_threshold: int | None = about(ERROR_THRESHOLD, default=DEFAULT_THRESHOLD)


@input_type
class CampaignUpdateInput:
    """What to change of a campaign; what is left out stays as it is."""

    id: ID = about("The campaign.")
    name: Maybe[str] = about("Its name, 1 to 200 characters.")
    content: Maybe[CampaignContentInput] = about("What it says, as a whole; the channel cannot change.")
    segment_ids: Maybe[list[ID]] = about("Whom it goes to; replaces those of before.")
    excluded_segment_ids: Maybe[list[ID]] = about("Whom it spares; replaces those of before.")
    brand_id: Maybe[ID | None] = about("The brand it belongs to; null: none.")
    sender_id: Maybe[ID | None] = about("Whom an email campaign comes from.")
    placement_id: Maybe[ID] = about("Where a banner appears.")
    weight: Maybe[int] = about("Of a banner: its share among those of its placement, 0 to 100.")
    rules: Maybe[BannerRulesInput] = about("Of a banner: what else decides who sees it, as a whole.")
    test_segment_id: Maybe[ID | None] = about("Of a banner: a segment whose members see it before it goes live.")
    topic: Maybe[str] = about("What recipients unsubscribe from.")
    class_: Maybe[CampaignClass] = about("What kind of message it is by law.", name="class")
    expires_at: Maybe[datetime | None] = about("After this nothing is sent or shown any more; null: never.")
    time_zone: Maybe[str] = about("IANA name of the time zone people plan it in.")
    missed_policy: Maybe[MissedPolicy] = about("What happens when it is found late.")
    refresh_before: Maybe[bool] = about("Whether its dynamic segments are evaluated before it starts.")
    rate_per_second: Maybe[int | None] = about("Messages a second at most, from the next ones on; null: no limit.")
    error_threshold: Maybe[int | None] = about(ERROR_THRESHOLD)


@input_type
class CampaignScheduleInput:
    """When to start a campaign."""

    id: ID = about("The campaign.")
    at: datetime | None = about("When, in the future; either this or `wallTime`.", default=None)
    wall_time: str | None = about(
        "When, as clocks in the time zone show it, such as 2026-12-24T09:00; of a time that comes twice the first.",
        default=None,
    )
    time_zone: str | None = about("IANA name of the time zone people planned it in; left out: as before.", default=None)
    missed_policy: MissedPolicy | None = about("What happens when it is found late; left out: as before.", default=None)
    maximum_lateness_seconds: int | None = about(
        "How late it may be found without `missedPolicy`; left out: as before.", default=None
    )


@output
class CampaignCreatePayload(CampaignPayload):
    """The new campaign."""


@output
class CampaignUpdatePayload(CampaignPayload):
    """The campaign as changed."""


@output
class CampaignSchedulePayload(CampaignPayload):
    """The campaign, now scheduled."""


@input_type
class CampaignUnscheduleInput:
    """Which campaign to take back."""

    id: ID = about("The campaign.")


@output
class CampaignUnschedulePayload(CampaignPayload):
    """The campaign, a draft again."""


@input_type
class CampaignSendInput:
    """Which campaign to start now."""

    id: ID = about("The campaign.")


@output
class CampaignSendPayload(CampaignPayload):
    """The campaign, on its way: follow `progress`."""


@input_type
class CampaignCancelInput:
    """Which campaign to stop for good."""

    id: ID = about("The campaign.")


@output
class CampaignCancelPayload(CampaignPayload):
    """The campaign, cancelled."""


@input_type
class CampaignPauseInput:
    """Which campaign to hold, and why."""

    id: ID = about("The campaign.")
    reason: str | None = about("Why, for the others; shown as `statusDetail`.", default=None)


@output
class CampaignPausePayload(CampaignPayload):
    """The campaign, paused."""


@input_type
class CampaignResumeInput:
    """Which paused campaign goes on."""

    id: ID = about("The campaign.")


@output
class CampaignResumePayload(CampaignPayload):
    """The campaign, going on."""


@input_type
class CampaignReactivateInput:
    """Which cancelled banner to show again."""

    id: ID = about("The campaign.")


@output
class CampaignReactivatePayload(CampaignPayload):
    """The banner, active again."""


@input_type
class CampaignDuplicateInput:
    """Which campaign to copy."""

    id: ID = about("The campaign.")


@output
class CampaignDuplicatePayload(CampaignPayload):
    """The copy, a draft."""


@input_type
class CampaignDeleteInput:
    """Which draft to delete."""

    id: ID = about("The campaign.")


@output
class CampaignDeletePayload(Payload):
    """What was deleted."""

    deleted_id: ID | None = about("Id of the deleted campaign; null when it was refused.", default=None)


@input_type
class CampaignTestSendInput:
    """To whom a test goes: either a small segment or listed profiles, at most 100."""

    id: ID = about("The campaign.")
    segment_id: ID | None = about("A small segment, such as your team.", default=None)
    external_ids: list[str] | None = about("Your own ids of the recipients.", default=None)


@output
class CampaignTestSendPayload(Payload):
    """The test send."""

    dispatch: Dispatch | None = about("The run: follow its `progress`; null when it was refused.", default=None)


def segment_keys(texts: list[ID], *, field: str) -> tuple[UUID, ...]:
    """The segments that `texts` name, each once."""
    return tuple(dict.fromkeys(ids.segment_id(text, field=field) for text in texts))


def to_input(wanted: CampaignCreateInput) -> CampaignInput:
    """The use case's input; raises ApiError for an id of another kind."""
    return CampaignInput(
        name=wanted.name,
        content=to_content(wanted.content),
        segment_ids=segment_keys(wanted.segment_ids, field="segment_ids"),
        excluded_segment_ids=segment_keys(wanted.excluded_segment_ids, field="excluded_segment_ids"),
        brand_id=ids.optional(Kind.BRAND, wanted.brand_id, field="brand_id"),
        sender_id=ids.optional(Kind.SENDER, wanted.sender_id, field="sender_id"),
        placement_id=ids.optional(Kind.PLACEMENT, wanted.placement_id, field="placement_id"),
        weight=wanted.weight,
        rules=PLAIN if wanted.rules is None else to_rules(wanted.rules),
        test_segment_id=ids.optional(Kind.SEGMENT, wanted.test_segment_id, field="test_segment_id"),
        topic=wanted.topic,
        class_=wanted.class_,
        expires_at=wanted.expires_at,
        time_zone=wanted.time_zone,
        missed_policy=wanted.missed_policy,
        refresh_before=wanted.refresh_before,
        rate_per_s=wanted.rate_per_second,
        error_threshold=wanted.error_threshold,
    )


def to_changes(wanted: CampaignUpdateInput) -> CampaignChanges:
    """The use case's changes; raises ApiError for an id of another kind."""
    return CampaignChanges(
        name=given(wanted.name),
        content=converted(wanted.content, to_content),
        segment_ids=converted(wanted.segment_ids, lambda texts: segment_keys(texts, field="segment_ids")),
        excluded_segment_ids=converted(
            wanted.excluded_segment_ids, lambda texts: segment_keys(texts, field="excluded_segment_ids")
        ),
        brand_id=converted(wanted.brand_id, lambda text: ids.optional(Kind.BRAND, text, field="brand_id")),
        sender_id=converted(wanted.sender_id, lambda text: ids.optional(Kind.SENDER, text, field="sender_id")),
        placement_id=converted(
            wanted.placement_id, lambda text: ids.decode_uuid(Kind.PLACEMENT, text, field="placement_id")
        ),
        weight=given(wanted.weight),
        rules=converted(wanted.rules, to_rules),
        test_segment_id=converted(
            wanted.test_segment_id, lambda text: ids.optional(Kind.SEGMENT, text, field="test_segment_id")
        ),
        topic=given(wanted.topic),
        class_=given(wanted.class_),
        expires_at=given(wanted.expires_at),
        time_zone=given(wanted.time_zone),
        missed_policy=given(wanted.missed_policy),
        refresh_before=given(wanted.refresh_before),
        rate_per_s=given(wanted.rate_per_second),
        error_threshold=given(wanted.error_threshold),
    )


async def prove(info: Info, wanted: CampaignCreateInput) -> None:
    """Have a new campaign's content read."""
    context = info.context
    with content_paths(wanted.content):
        context.proved = await content.proved(
            to_content(wanted.content), context.resources.proofs, workspace_id=context.workspace_id
        )


@output
class CampaignMutations:
    @mutation(needs=Scope.CAMPAIGNS, once=True, beforehand=prove)
    async def campaign_create(self, info: Info, input: CampaignCreateInput) -> CampaignCreatePayload:
        """Make a draft."""
        proved = info.context.proved
        assert proved is not None
        with content_paths(input.content):
            row = await drafts.insert(info.context.workspace_id, to_input(input), proved, now=info.context.now)
        return CampaignCreatePayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.CAMPAIGNS)
    async def campaign_update(self, info: Info, input: CampaignUpdateInput) -> CampaignUpdatePayload:
        """Change a campaign; once it is being sent, only name, expiry, missed policy, rate and threshold can."""
        with content_paths(input.content.value) if input.content is not None else nullcontext():
            row = await drafts.update(
                info.context.workspace_id,
                ids.campaign_id(input.id),
                to_changes(input),
                proofs=info.context.resources.proofs,
                now=info.context.now,
                by=info.context.known_caller.actor,
            )
        return CampaignUpdatePayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.CAMPAIGNS, once=True)
    async def campaign_duplicate(self, info: Info, input: CampaignDuplicateInput) -> CampaignDuplicatePayload:
        """Make a draft with the same content and targets."""
        row = await drafts.duplicate(info.context.workspace_id, ids.campaign_id(input.id), now=info.context.now)
        return CampaignDuplicatePayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.CAMPAIGNS)
    async def campaign_delete(self, info: Info, input: CampaignDeleteInput) -> CampaignDeletePayload:
        """Delete a draft that was never sent, not even as a test."""
        await drafts.delete(info.context.workspace_id, ids.campaign_id(input.id))
        return CampaignDeletePayload(deleted_id=input.id)

    @mutation(needs=Scope.SEND, once=True)
    async def campaign_schedule(self, info: Info, input: CampaignScheduleInput) -> CampaignSchedulePayload:
        """Start a campaign by itself at a future time. What sending needs is checked now."""
        lateness = input.maximum_lateness_seconds
        row = await control.schedule(
            info.context.workspace_id,
            ids.campaign_id(input.id),
            at=input.at,
            wall_time=input.wall_time,
            now=info.context.now,
            time_zone=input.time_zone,
            missed_policy=input.missed_policy,
            maximum_lateness=None if lateness is None else timedelta(seconds=lateness),
            by=info.context.known_caller.actor,
        )
        return CampaignSchedulePayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.SEND)
    async def campaign_unschedule(self, info: Info, input: CampaignUnscheduleInput) -> CampaignUnschedulePayload:
        """Take a scheduled campaign back to edit it."""
        row = await control.unschedule(info.context.workspace_id, ids.campaign_id(input.id), now=info.context.now)
        return CampaignUnschedulePayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.SEND, once=True)
    async def campaign_send(self, info: Info, input: CampaignSendInput) -> CampaignSendPayload:
        """Start sending now, or showing when it is a banner. Sending is asynchronous: follow `campaign.progress`."""
        row = await sending.start(
            info.context.workspace_id,
            ids.campaign_id(input.id),
            now=info.context.now,
            by=info.context.known_caller.actor,
        )
        await info.context.resources.wakeups.deliver(workspace_id=row.workspace_id, campaign_id=row.id)
        return CampaignSendPayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.SEND)
    async def campaign_cancel(self, info: Info, input: CampaignCancelInput) -> CampaignCancelPayload:
        """Stop for good. Messages on their way arrive; the others are skipped."""
        row = await control.cancel(info.context.workspace_id, ids.campaign_id(input.id), now=info.context.now)
        await info.context.resources.wakeups.deliver(workspace_id=row.workspace_id, campaign_id=row.id)
        return CampaignCancelPayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.SEND)
    async def campaign_pause(self, info: Info, input: CampaignPauseInput) -> CampaignPausePayload:
        """Hold a campaign that is being sent or shown."""
        row = await control.pause(
            info.context.workspace_id, ids.campaign_id(input.id), now=info.context.now, reason=input.reason
        )
        return CampaignPausePayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.SEND)
    async def campaign_resume(self, info: Info, input: CampaignResumeInput) -> CampaignResumePayload:
        """Go on with a paused campaign where it stopped."""
        row = await control.resume(info.context.workspace_id, ids.campaign_id(input.id), now=info.context.now)
        await info.context.resources.wakeups.deliver(workspace_id=row.workspace_id, campaign_id=row.id)
        return CampaignResumePayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.SEND)
    async def campaign_reactivate(self, info: Info, input: CampaignReactivateInput) -> CampaignReactivatePayload:
        """Show a cancelled banner again."""
        row = await control.reactivate(info.context.workspace_id, ids.campaign_id(input.id), now=info.context.now)
        return CampaignReactivatePayload(campaign=Campaign.of(row))

    @mutation(needs=Scope.SEND, once=True)
    async def campaign_test_send(self, info: Info, input: CampaignTestSendInput) -> CampaignTestSendPayload:
        """Send a copy to a few (an email says so in its subject); the status and counts of the campaign stay."""
        row = await rehearsal.send_test(
            info.context.workspace_id,
            ids.campaign_id(input.id),
            segment_id=ids.optional(Kind.SEGMENT, input.segment_id, field="segment_id"),
            external_ids=input.external_ids,
        )
        await info.context.resources.wakeups.deliver(workspace_id=row.workspace_id, campaign_id=row.campaign_id)
        return CampaignTestSendPayload(dispatch=Dispatch.of(row))
