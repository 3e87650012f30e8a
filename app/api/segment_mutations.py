"""What people do with segments: make them, change them, publish them, fill the static ones."""

from uuid import UUID

from strawberry import ID, Maybe

from app.api import ids
from app.api.conditions import SegmentConditionInput, to_definition
from app.api.declare import about, input_type, mutation, output
from app.api.enums import Cadence, EvaluationCause, SegmentType
from app.api.ids import Kind
from app.api.payloads import Payload, converted, given
from app.api.segments import Segment, SegmentEvaluation
from app.context import Info
from profiles.keys import Scope
from segments import evaluation, lifecycle, static
from segments.lifecycle import SegmentChanges
from segments.lifecycle import SegmentInput as SegmentWanted


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
    cadence: Cadence = about("How often it is evaluated in full.", default=Cadence.NEVER)
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
class SegmentMembersAddInput:
    """Who enters a static segment."""

    id: ID = about("The segment.")
    external_ids: list[str] = about(f"Your own ids of the people; at most {static.MOST_IDS:,}.")


@output
class SegmentMembersAddPayload(SegmentPayload):
    """Who entered."""

    added: int = about("Profiles that entered.", default=0)
    unchanged: int = about("Profiles that were in already, and ids named twice.", default=0)
    unknown: list[str] = about("Ids of nobody alive, or of nobody of the segment's brand.", default_factory=list)


@input_type
class SegmentMembersRemoveInput:
    """Who leaves a static segment."""

    id: ID = about("The segment.")
    external_ids: list[str] = about(f"Your own ids of the people; at most {static.MOST_IDS:,}.")


@output
class SegmentMembersRemovePayload(SegmentPayload):
    """Who left."""

    removed: int = about("Profiles that left.", default=0)
    unchanged: int = about("Profiles that were not in, and ids named twice.", default=0)
    unknown: list[str] = about("Ids of nobody alive.", default_factory=list)


@input_type
class SegmentMembersImportInput:
    """A CSV file of people who enter a static segment."""

    id: ID = about("The segment.")
    text: str = about(f"The file, its first line naming the columns; at most {static.MOST_ROWS:,} rows.")
    column: str = about("The column with your own ids.", default=static.COLUMN)


@output
class SegmentImportReject:
    """A row that could not be used; the others were."""

    line: int = about("Its line in the file; the header is line 1.")
    value: str = about("The id in it.")
    code: str = about("Why, for programs.")
    reason: str = about("Why, for people.")


@output
class SegmentMembersImportPayload(SegmentPayload):
    """Who entered, and which rows could not be used."""

    rows: int = about("Rows of the file.", default=0)
    added: int = about("Profiles that entered.", default=0)
    unchanged: int = about("Rows of profiles that were in already, or on an earlier row.", default=0)
    rejected: int = about("Rows that could not be used.", default=0)
    rejects: list[SegmentImportReject] = about("The first 1,000 of those rows.", default_factory=list)


MOST_REJECTS = 1000


def to_changes(wanted: SegmentUpdateInput) -> SegmentChanges:
    """The use case's changes; raises ApiError for an id of another kind."""
    return SegmentChanges(
        name=given(wanted.name),
        description=given(wanted.description),
        brand_id=converted(wanted.brand_id, lambda text: ids.optional(Kind.BRAND, text, field="brand_id")),
        definition=converted(wanted.definition, to_definition),
        cadence=given(wanted.cadence),
        cron=given(wanted.cron),
        time_zone=given(wanted.time_zone),
    )


async def ring_open(info: Info, segment_id: UUID) -> SegmentEvaluation | None:
    """Wake a worker for the segment's open evaluation, if there is one, and answer it."""
    row = await evaluation.find_open(info.context.workspace_id, segment_id)
    if row is None:
        return None
    await info.context.resources.wakeups.evaluate(workspace_id=row.workspace_id, evaluation_id=row.id)
    return SegmentEvaluation.of(row)


@output
class SegmentMutations:
    @mutation(needs=Scope.SEGMENTS)
    async def segment_create(self, info: Info, input: SegmentCreateInput) -> SegmentCreatePayload:
        """Make a draft."""
        wanted = SegmentWanted(
            name=input.name,
            type=input.type,
            description=input.description,
            brand_id=ids.optional(Kind.BRAND, input.brand_id, field="brand_id"),
            definition=None if input.definition is None else to_definition(input.definition),
            cadence=input.cadence,
            cron=input.cron,
            time_zone=input.time_zone,
        )
        row = await lifecycle.create(
            info.context.workspace_id,
            wanted,
            now=info.context.now,
            most=info.context.services.settings.segment_limit,
        )
        return SegmentCreatePayload(segment=Segment.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def segment_update(self, info: Info, input: SegmentUpdateInput) -> SegmentUpdatePayload:
        """Change a segment."""
        row = await lifecycle.update(
            info.context.workspace_id, ids.segment_id(input.id), to_changes(input), now=info.context.now
        )
        await ring_open(info, row.id)
        return SegmentUpdatePayload(segment=Segment.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def segment_activate(self, info: Info, input: SegmentActivateInput) -> SegmentActivatePayload:
        """Let a segment be targeted; a dynamic one is evaluated at once."""
        row = await lifecycle.activate(info.context.workspace_id, ids.segment_id(input.id), now=info.context.now)
        return SegmentActivatePayload(segment=Segment.of(row), evaluation=await ring_open(info, row.id))

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

    @mutation(needs=Scope.SEGMENTS)
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
        """Delete a segment that no campaign names, with its history."""
        await lifecycle.delete(info.context.workspace_id, ids.segment_id(input.id))
        return SegmentDeletePayload(deleted_id=input.id)

    @mutation(needs=Scope.SEGMENTS)
    async def segment_evaluate(self, info: Info, input: SegmentEvaluateInput) -> SegmentEvaluatePayload:
        """Evaluate a segment now. It is done by a worker: follow the evaluation."""
        row = await evaluation.request(
            info.context.workspace_id, ids.segment_id(input.id), cause=EvaluationCause.REQUEST, now=info.context.now
        )
        await info.context.resources.wakeups.evaluate(workspace_id=row.workspace_id, evaluation_id=row.id)
        return SegmentEvaluatePayload(evaluation=SegmentEvaluation.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def segment_members_add(self, info: Info, input: SegmentMembersAddInput) -> SegmentMembersAddPayload:
        """Let people into a static segment; those who are unknown are named, the others enter."""
        key = ids.segment_id(input.id)
        report = await static.add_members(
            info.context.workspace_id, key, external_ids=input.external_ids, now=info.context.now
        )
        return SegmentMembersAddPayload(
            segment=await reread(info, key), added=report.changed, unchanged=report.unchanged, unknown=report.unknown
        )

    @mutation(needs=Scope.SEGMENTS)
    async def segment_members_remove(self, info: Info, input: SegmentMembersRemoveInput) -> SegmentMembersRemovePayload:
        """Take people out of a static segment."""
        key = ids.segment_id(input.id)
        report = await static.remove_members(
            info.context.workspace_id, key, external_ids=input.external_ids, now=info.context.now
        )
        return SegmentMembersRemovePayload(
            segment=await reread(info, key),
            removed=report.changed,
            unchanged=report.unchanged,
            unknown=report.unknown,
        )

    @mutation(needs=Scope.SEGMENTS)
    async def segment_members_import(self, info: Info, input: SegmentMembersImportInput) -> SegmentMembersImportPayload:
        """Let in whom a CSV file names; rows that cannot be used are listed, the others enter."""
        key = ids.segment_id(input.id)
        report = await static.import_members(
            info.context.workspace_id, key, text=input.text, column=input.column, now=info.context.now
        )
        return SegmentMembersImportPayload(
            segment=await reread(info, key),
            rows=report.rows,
            added=report.added,
            unchanged=report.unchanged,
            rejected=len(report.rejects),
            rejects=[
                SegmentImportReject(line=one.line, value=one.value, code=one.code, reason=one.reason)
                for one in report.rejects[:MOST_REJECTS]
            ],
        )


async def reread(info: Info, segment_id: UUID) -> Segment | None:
    """The segment as it is now."""
    row = await info.context.loaders.segments.load(segment_id)
    return Segment.of(row) if row else None
