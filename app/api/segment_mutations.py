"""What people do with segments: make them, change them, publish them. Members of static ones: static_mutations.py."""

from strawberry import ID, Maybe

from app.api import ids
from app.api.conditions import SegmentConditionInput, SimpleConditionsInput, to_definition, to_simple
from app.api.declare import about, input_type, mutation, output
from app.api.enums import Cadence, EvaluationCause, SegmentType
from app.api.ids import Kind
from app.api.payloads import Payload, converted, given
from app.api.rankings import RankingInput, to_ranking
from app.api.segments import Segment, SegmentEvaluation
from app.context import Info
from campaigns import listing as campaign_listing
from profiles.keys import Scope
from segments import evaluation, lifecycle
from segments.lifecycle import SegmentChanges, SimpleConditions
from segments.lifecycle import SegmentInput as SegmentWanted
from segments.models import Segment as SegmentRow
from segments.models import SegmentStatus
from segments.wanted import CHANGE_GUARD


@output
class SegmentPayload(Payload):
    """What answers with a segment."""

    segment: Segment | None = about("The segment as it is now; null when it was refused.", default=None)


@input_type
class SegmentCreateInput:
    """A new segment."""

    name: str = about("Its name, 1 to 200 characters.")
    type: SegmentType = about("STATIC or DYNAMIC; EVERYONE is built in.")
    description: str = about("What it is for.", default="")
    definition: SegmentConditionInput | None = about("Who belongs to it; for dynamic segments.", default=None)
    conditions: SimpleConditionsInput | None = about(
        "Who belongs to it, from a simple builder; in place of `definition`.", default=None
    )
    ranking: RankingInput | None = about("In which order members stand; for dynamic segments.", default=None)
    live: bool | None = about(
        "Whether members follow events and changes within seconds. Left out: yes for dynamic ones, unless the cadence"
        " is NEVER or a saved query decides.",
        default=None,
    )
    change_guard: int | None = about(
        "Per cent of the members, 1 to 100, that one evaluation may remove before it is held; null: all.",
        default=CHANGE_GUARD,
    )
    cadence: Cadence | None = about(
        "How often it is evaluated in full. Left out: DAILY for dynamic ones, NEVER for static ones.", default=None
    )
    cron: str | None = about("Five cron fields, with the cadence CRON.", default=None)
    time_zone: str = about("IANA name of the time zone of cadence and cron.", default="UTC")
    brand_id: ID | None = about("The brand whose people it is of; left out: of all.", default=None)


@output
class SegmentCreatePayload(SegmentPayload):
    """The new segment, a draft."""


@input_type
class SegmentUpdateInput:
    """What to change of a segment; what is left out stays as it is."""

    id: ID = about("The segment.")
    name: Maybe[str] = about("Its name, 1 to 200 characters.")
    description: Maybe[str] = about("What it is for.")
    definition: Maybe[SegmentConditionInput] = about("Who belongs to it, as a whole; an active one is evaluated anew.")
    conditions: Maybe[SimpleConditionsInput] = about(
        "Who belongs to it, from a simple builder; in place of `definition`."
    )
    ranking: Maybe[RankingInput | None] = about("In which order members stand; null: in none.")
    live: Maybe[bool | None] = about("Whether members follow events and changes within seconds; null: the default.")
    change_guard: Maybe[int | None] = about(
        "Per cent of the members, 1 to 100, that one evaluation may remove before it is held; null: all."
    )
    cadence: Maybe[Cadence] = about("How often it is evaluated in full.")
    cron: Maybe[str | None] = about("Five cron fields, with the cadence CRON.")
    time_zone: Maybe[str] = about("IANA name of the time zone of cadence and cron.")
    brand_id: Maybe[ID | None] = about("The brand whose people it is of; null: of all.")


@output
class SegmentUpdatePayload(SegmentPayload):
    """The segment as changed."""


@input_type
class SegmentActivateInput:
    """Which segment to activate."""

    id: ID = about("The segment.")


@output
class SegmentActivatePayload(SegmentPayload):
    """The segment, active; a dynamic one is being evaluated: follow `evaluation`."""

    evaluation: SegmentEvaluation | None = about("The evaluation of a dynamic one.", default=None)


@input_type
class SegmentPauseInput:
    """Which segment to pause."""

    id: ID = about("The segment.")


@output
class SegmentPausePayload(SegmentPayload):
    """The segment, paused."""


@input_type
class SegmentUnpublishInput:
    """Which segment to take back to a draft."""

    id: ID = about("The segment.")


@output
class SegmentUnpublishPayload(SegmentPayload):
    """The segment, a draft again."""


@input_type
class SegmentArchiveInput:
    """Which segment to put away."""

    id: ID = about("The segment.")


@output
class SegmentArchivePayload(SegmentPayload):
    """The segment, archived."""


@input_type
class SegmentDuplicateInput:
    """Which segment to copy."""

    id: ID = about("The segment.")
    name: str | None = about("Name of the copy; left out: Copy of the original's.", default=None)


@output
class SegmentDuplicatePayload(SegmentPayload):
    """The copy, a draft."""


@input_type
class SegmentDeleteInput:
    """Which segment to delete."""

    id: ID = about("The segment.")


@output
class SegmentDeletePayload(Payload):
    """What was deleted."""

    deleted_id: ID | None = about("Id of the deleted segment; null when it was refused.", default=None)


@input_type
class SegmentEvaluateInput:
    """Which segment to evaluate now."""

    id: ID = about("The segment; dynamic and active.")


@output
class SegmentEvaluatePayload(Payload):
    """The evaluation."""

    evaluation: SegmentEvaluation | None = about(
        "The evaluation, the one that is open already if there is one: follow its `status`.", default=None
    )


@input_type
class SegmentEvaluationApproveInput:
    """Which evaluation to let through."""

    id: ID = about("The evaluation; HELD.")


@output
class SegmentEvaluationApprovePayload(Payload):
    """The evaluation, queued again."""

    evaluation: SegmentEvaluation | None = about(
        "The evaluation: it runs anew, on the data of then, and is not held. Follow its `status`.", default=None
    )


def simple(conditions: SimpleConditionsInput) -> SimpleConditions:
    """The use case's form; raises ApiError for an id of another kind."""
    return SimpleConditions(*to_simple(conditions, "conditions"))


def to_changes(wanted: SegmentUpdateInput) -> SegmentChanges:
    """The use case's changes; raises ApiError for an id of another kind."""
    return SegmentChanges(
        name=given(wanted.name),
        description=given(wanted.description),
        brand_id=converted(wanted.brand_id, lambda text: ids.optional(Kind.BRAND, text, field="brand_id")),
        definition=converted(wanted.definition, lambda one: to_definition(one, "definition")),
        conditions=converted(wanted.conditions, simple),
        ranking=converted(wanted.ranking, lambda one: None if one is None else to_ranking(one)),
        live=given(wanted.live),
        change_guard=given(wanted.change_guard),
        cadence=given(wanted.cadence),
        cron=given(wanted.cron),
        time_zone=given(wanted.time_zone),
    )


async def ring_open(info: Info, segment: SegmentRow) -> SegmentEvaluation | None:
    """Wake a worker for the segment's open evaluation, if there is one, and answer it."""
    if segment.type is not SegmentType.DYNAMIC or segment.status is not SegmentStatus.ACTIVE:
        return None
    row = await evaluation.find_open(info.context.workspace_id, segment.id)
    if row is None:
        return None
    await info.context.resources.wakeups.evaluate(workspace_id=row.workspace_id, evaluation_id=row.id)
    return SegmentEvaluation.of(row)


@output
class SegmentMutations:
    @mutation(needs=Scope.SEGMENTS, once=True)
    async def segment_create(self, info: Info, input: SegmentCreateInput) -> SegmentCreatePayload:
        """Make a draft."""
        wanted = SegmentWanted(
            name=input.name,
            type=input.type,
            description=input.description,
            brand_id=ids.optional(Kind.BRAND, input.brand_id, field="brand_id"),
            definition=None if input.definition is None else to_definition(input.definition, "definition"),
            conditions=None if input.conditions is None else simple(input.conditions),
            ranking=None if input.ranking is None else to_ranking(input.ranking),
            live=input.live,
            change_guard=input.change_guard,
            cadence=input.cadence,
            cron=input.cron,
            time_zone=input.time_zone,
        )
        row = await lifecycle.create(
            info.context.workspace_id,
            wanted,
            now=info.context.now,
            most=info.context.services.settings.segment_limit,
            limits=info.context.services.settings.condition_limits,
            campaigns=campaign_listing.among,
        )
        return SegmentCreatePayload(segment=Segment.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def segment_update(self, info: Info, input: SegmentUpdateInput) -> SegmentUpdatePayload:
        """Change a segment."""
        row = await lifecycle.update(
            info.context.workspace_id,
            ids.segment_id(input.id),
            to_changes(input),
            now=info.context.now,
            limits=info.context.services.settings.condition_limits,
            campaigns=campaign_listing.among,
        )
        await ring_open(info, row)
        return SegmentUpdatePayload(segment=Segment.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def segment_activate(self, info: Info, input: SegmentActivateInput) -> SegmentActivatePayload:
        """Let a segment be targeted; a dynamic one is evaluated at once."""
        row = await lifecycle.activate(info.context.workspace_id, ids.segment_id(input.id), now=info.context.now)
        return SegmentActivatePayload(segment=Segment.of(row), evaluation=await ring_open(info, row))

    @mutation(needs=Scope.SEGMENTS)
    async def segment_pause(self, info: Info, input: SegmentPauseInput) -> SegmentPausePayload:
        """Let a segment stand still: it keeps its members and cannot be targeted."""
        row = await lifecycle.pause(info.context.workspace_id, ids.segment_id(input.id), now=info.context.now)
        return SegmentPausePayload(segment=Segment.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def segment_unpublish(self, info: Info, input: SegmentUnpublishInput) -> SegmentUnpublishPayload:
        """Take a segment back to a draft."""
        row = await lifecycle.unpublish(
            info.context.workspace_id,
            ids.segment_id(input.id),
            now=info.context.now,
            most=info.context.services.settings.segment_limit,
        )
        return SegmentUnpublishPayload(segment=Segment.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def segment_archive(self, info: Info, input: SegmentArchiveInput) -> SegmentArchivePayload:
        """Put a segment away; members and history are kept."""
        row = await lifecycle.archive(info.context.workspace_id, ids.segment_id(input.id), now=info.context.now)
        return SegmentArchivePayload(segment=Segment.of(row))

    @mutation(needs=Scope.SEGMENTS, once=True)
    async def segment_duplicate(self, info: Info, input: SegmentDuplicateInput) -> SegmentDuplicatePayload:
        """Make a draft with the same conditions, cadence and, when static, members."""
        row = await lifecycle.duplicate(
            info.context.workspace_id,
            ids.segment_id(input.id),
            name=input.name,
            now=info.context.now,
            most=info.context.services.settings.segment_limit,
        )
        return SegmentDuplicatePayload(segment=Segment.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def segment_delete(self, info: Info, input: SegmentDeleteInput) -> SegmentDeletePayload:
        """Delete a segment that no campaign and no other segment names, with its history."""
        await lifecycle.delete(
            info.context.workspace_id, ids.segment_id(input.id), used_by=campaign_listing.names_using
        )
        return SegmentDeletePayload(deleted_id=input.id)

    @mutation(needs=Scope.SEGMENTS, once=True)
    async def segment_evaluate(self, info: Info, input: SegmentEvaluateInput) -> SegmentEvaluatePayload:
        """Evaluate a segment now. It is done by a worker: follow the evaluation."""
        row = await evaluation.request(
            info.context.workspace_id, ids.segment_id(input.id), cause=EvaluationCause.REQUEST, now=info.context.now
        )
        await info.context.resources.wakeups.evaluate(workspace_id=row.workspace_id, evaluation_id=row.id)
        return SegmentEvaluatePayload(evaluation=SegmentEvaluation.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def segment_evaluation_approve(
        self, info: Info, input: SegmentEvaluationApproveInput
    ) -> SegmentEvaluationApprovePayload:
        """Let an evaluation through that the change guard holds. Members change when a worker has run it again."""
        key = ids.decode_uuid(Kind.EVALUATION, input.id)
        row = await evaluation.approve(info.context.workspace_id, key, now=info.context.now)
        await info.context.resources.wakeups.evaluate(workspace_id=row.workspace_id, evaluation_id=row.id)
        return SegmentEvaluationApprovePayload(evaluation=SegmentEvaluation.of(row))
