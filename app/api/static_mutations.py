"""What people do with the members of static segments: by name, from a file, by a query, by another segment."""

from uuid import UUID

from strawberry import ID

from app.api import ids
from app.api.conditions import SegmentConditionInput, SimpleConditionsInput
from app.api.declare import about, input_type, mutation, output
from app.api.definitions import to_condition
from app.api.enums import PopulateMode
from app.api.segment_mutations import SegmentPayload
from app.api.segments import Segment
from app.context import Info
from profiles.keys import Scope
from segments import memberfile, populating, static

MOST_REJECTS = 1000


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
    text: str = about(f"The file, its first line naming the columns; at most {memberfile.MOST_ROWS:,} rows.")
    column: str = about("The column with your own ids.", default=memberfile.COLUMN)


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


@input_type
class SegmentPopulateFromQueryInput:
    """How a static segment is to be changed, once; exactly one of `definition`, `conditions` and `savedQueryId`."""

    id: ID = about("The segment; static.")
    definition: SegmentConditionInput | None = about("A tree of conditions.", default=None)
    conditions: SimpleConditionsInput | None = about("Conditions side by side.", default=None)
    saved_query_id: ID | None = about("A saved query.", default=None)
    mode: PopulateMode = about("What happens to those who are found.", default=PopulateMode.ADD)


@output
class SegmentPopulateFromQueryPayload(SegmentPayload):
    """What the query did."""

    found: int = about("Profiles that the query found, of the segment's brand.", default=0)
    added: int = about("Profiles that entered.", default=0)
    removed: int = about("Profiles that left.", default=0)


@input_type
class SegmentSubtractInput:
    """What to take out of a static segment."""

    id: ID = about("The segment; static.")
    other_id: ID = about("The segment whose members leave it; of any type.")


@output
class SegmentSubtractPayload(SegmentPayload):
    """Who left."""

    removed: int = about("Profiles that left.", default=0)


@output
class StaticMutations:
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

    @mutation(needs=Scope.SEGMENTS)
    async def segment_populate_from_query(
        self, info: Info, input: SegmentPopulateFromQueryInput
    ) -> SegmentPopulateFromQueryPayload:
        """Change a static segment once by whom conditions find now; later it stays as it is."""
        key = ids.segment_id(input.id)
        condition, field = to_condition(
            info, definition=input.definition, simple=input.conditions, saved_query_id=input.saved_query_id
        )
        report = await populating.populate(
            info.context.workspace_id,
            key,
            condition,
            mode=input.mode,
            sources=info.context.resources.sources,
            now=info.context.now,
            field=field,
        )
        return SegmentPopulateFromQueryPayload(
            segment=await reread(info, key), found=report.found, added=report.added, removed=report.removed
        )

    @mutation(needs=Scope.SEGMENTS)
    async def segment_subtract(self, info: Info, input: SegmentSubtractInput) -> SegmentSubtractPayload:
        """Take whoever is in another segment now out of a static one."""
        key = ids.segment_id(input.id)
        report = await populating.subtract(
            info.context.workspace_id,
            key,
            other_id=ids.segment_id(input.other_id, field="other_id"),
            now=info.context.now,
        )
        return SegmentSubtractPayload(segment=await reread(info, key), removed=report.removed)


async def reread(info: Info, segment_id: UUID) -> Segment | None:
    """The segment as it is now."""
    row = await info.context.loaders.segments.load(segment_id)
    return Segment.of(row) if row else None
