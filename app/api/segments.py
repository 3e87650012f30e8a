"""Segments: reading them, their members and their evaluations."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry import ID

from app.api import ids, paging
from app.api.declare import about, argument, output, query, resolved
from app.api.enums import Cadence, EvaluationCause, EvaluationStatus, SegmentStatus, SegmentType
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.paging import After, Connection, First, PageInfo
from app.api.profiles import Profile
from app.api.scalars import Json
from app.api.workspaces import Brand
from app.auth import require
from app.context import Info
from profiles import profiles
from profiles.keys import Scope
from segments import conditions, evaluation, listing, membership
from segments.errors import SegmentNotFound
from segments.models import Evaluation as EvaluationRow
from segments.models import Segment as SegmentRow


@output
class SegmentEvaluation(Node):
    """One full evaluation of a segment."""

    key: strawberry.Private[UUID]
    segment_key: strawberry.Private[UUID]
    status: EvaluationStatus = about("How far it is.")
    cause: EvaluationCause = about("Who asked for it.")
    definition_version: int = about("Which version of the conditions was evaluated.")
    engine: str | None = about("What answered the conditions; null until it ran.")
    queued_at: datetime = about("When it was asked for.")
    started_at: datetime | None = about("When a worker began.")
    finished_at: datetime | None = about("When it ended.")
    duration_ms: int | None = about("How long it took, in milliseconds.")
    size: int | None = about("Members found.")
    added: int | None = about("Profiles that entered.")
    removed: int | None = about("Profiles that left.")
    error_code: str | None = about("Why it failed, for programs.")
    error: str | None = about("Why it failed, for people.")

    @classmethod
    def of(cls, row: EvaluationRow) -> "SegmentEvaluation":
        return cls(
            id=ids.encode(Kind.EVALUATION, row.id),
            key=row.id,
            segment_key=row.segment_id,
            status=row.status,
            cause=row.cause,
            definition_version=row.definition_version,
            engine=row.engine,
            queued_at=row.queued_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            duration_ms=row.duration_ms,
            size=row.size,
            added=row.added,
            removed=row.removed,
            error_code=row.error_code,
            error=row.error,
        )

    @resolved
    async def segment(self, info: Info) -> "Segment | None":
        """The segment that was evaluated."""
        row = await info.context.loaders.segments.load(self.segment_key)
        return Segment.of(row) if row else None


@output
class SegmentMemberEdge:
    """A member, and since when."""

    node: Profile = about("The profile.")
    cursor: str = about("Where this member stands.")
    entered_at: datetime = about("Since when the profile has been a member.")


@output
class SegmentMemberConnection:
    """A page of members."""

    edges: list[SegmentMemberEdge] = about("The members, by profile.")
    page_info: PageInfo = about("Whether there is more.")


@output
class Segment(Node):
    """A named set of profiles."""

    key: strawberry.Private[UUID]
    brand_key: strawberry.Private[UUID | None]
    name: str = about("Its name.")
    description: str = about("What it is for.")
    type: SegmentType = about("Where its members come from.")
    status: SegmentStatus = about("Whether it is evaluated and can be targeted.")
    definition: Json | None = about(
        "The conditions of a dynamic segment, in the shape of SegmentConditionInput; null for other types."
    )
    definition_version: int = about("Grows with every change of the conditions.")
    cadence: Cadence = about("How often it is evaluated in full.")
    cron: str | None = about("Five cron fields, when the cadence is CRON.")
    time_zone: str = about("IANA name of the time zone of cadence and cron.")
    next_run_at: datetime | None = about("When it is evaluated next; null when no evaluation is scheduled.")
    created_at: datetime = about("When it was made.")
    updated_at: datetime = about("When it was last changed.")

    @classmethod
    def of(cls, row: SegmentRow) -> "Segment":
        return cls(
            id=ids.encode(Kind.SEGMENT, row.id),
            key=row.id,
            brand_key=row.brand_id,
            name=row.name,
            description=row.description,
            type=row.type,
            status=row.status,
            definition=None if row.definition is None else Json(row.definition),
            definition_version=row.definition_version,
            cadence=row.cadence,
            cron=row.cron,
            time_zone=row.time_zone,
            next_run_at=row.next_run_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @resolved
    async def brand(self, info: Info) -> Brand | None:
        """The brand it belongs to; null when it is for all."""
        row = await info.context.loaders.brands.load(self.brand_key) if self.brand_key else None
        return Brand.of(row) if row else None

    @resolved
    def summary(self) -> str | None:
        """The conditions as one sentence; null for types without conditions."""
        return None if self.definition is None else conditions.summary(conditions.parse(self.definition))

    @resolved
    async def size(self, info: Info) -> int | None:
        """How many profiles are in it; null when it was never evaluated, which is not zero."""
        row = await info.context.loaders.segment_sizes.load(self.key)
        return row.size if row else None

    @resolved
    async def last_evaluated_at(self, info: Info) -> datetime | None:
        """As of when the members are; null when it was never evaluated."""
        row = await info.context.loaders.segment_sizes.load(self.key)
        return row.evaluated_at if row else None

    @resolved
    async def last_evaluation(self, info: Info) -> SegmentEvaluation | None:
        """The newest evaluation, finished or not; null when there was none."""
        row = await info.context.loaders.latest_evaluations.load(self.key)
        return SegmentEvaluation.of(row) if row else None

    @resolved
    async def members(
        self, info: Info, first: First = paging.DEFAULT_PAGE, after: After = None
    ) -> SegmentMemberConnection:
        """Who is in it, by profile; EVERYONE lists nobody, since it keeps no member rows."""
        require(info.context.caller, Scope.READ)
        rows = await membership.page(
            info.context.workspace_id,
            self.key,
            after=paging.after_int(after),
            limit=paging.page_size(first) + 1,
        )
        shown = rows[:first]
        people = await info.context.loaders.profiles.load_many([row.profile_id for row in shown])
        edges = [
            SegmentMemberEdge(node=Profile.of(one), cursor=paging.cursor(row.profile_id), entered_at=row.entered_at)
            for row, one in zip(shown, people, strict=True)
            if one is not None
        ]
        cursors = [paging.cursor(row.profile_id) for row in shown]
        return SegmentMemberConnection(
            edges=edges, page_info=paging.page_info(rows, first=first, after=after, cursors=cursors)
        )

    @resolved
    async def evaluations(
        self, info: Info, first: First = paging.DEFAULT_PAGE, after: After = None
    ) -> Connection[SegmentEvaluation]:
        """Its full evaluations, newest first."""
        rows = await evaluation.history(
            info.context.workspace_id,
            self.key,
            after=paging.after_uuid(after),
            limit=paging.page_size(first) + 1,
        )
        return paging.connection(rows, first=first, after=after, node=SegmentEvaluation.of, key=lambda row: row.id)


@output
class SegmentQueries:
    @query(needs=Scope.READ)
    async def segment(self, info: Info, id: ID) -> Segment | None:
        """One segment; null when there is none."""
        row = await info.context.loaders.segments.load(ids.segment_id(id))
        return Segment.of(row) if row else None

    @query(needs=Scope.READ)
    async def segments(
        self,
        info: Info,
        first: First = paging.DEFAULT_PAGE,
        after: After = None,
        status: Annotated[SegmentStatus | None, argument("Only those of this status.")] = None,
        type: Annotated[SegmentType | None, argument("Only those of this type.")] = None,
        name: Annotated[str | None, argument("Only those whose name holds this, whatever the case.")] = None,
    ) -> Connection[Segment]:
        """The workspace's segments, newest first."""
        rows = await listing.page(
            info.context.workspace_id,
            after=paging.after_uuid(after),
            limit=paging.page_size(first) + 1,
            status=status,
            type_=type,
            name=name,
        )
        return paging.connection(rows, first=first, after=after, node=Segment.of, key=lambda row: row.id)

    @query(needs=Scope.READ)
    async def evaluation(self, info: Info, id: ID) -> SegmentEvaluation | None:
        """One evaluation, to follow it; null when there is none."""
        row = await info.context.loaders.evaluations.load(ids.decode_uuid(Kind.EVALUATION, id))
        return SegmentEvaluation.of(row) if row else None

    @query(needs=Scope.READ)
    async def is_member(
        self,
        info: Info,
        segment_id: Annotated[ID, argument("The segment.")],
        external_id: Annotated[str, argument("Your own id of the person.")],
    ) -> bool:
        """Whether a person is in a segment now: for experiments and feature flags. Unknown people are in none."""
        key = ids.segment_id(segment_id, field="segment_id")
        if await info.context.loaders.segments.load(key) is None:
            raise SegmentNotFound(field=("segment_id",))
        person = await profiles.find_by_external_id(info.context.workspace_id, external_id)
        if person is None:
            return False
        return await membership.is_member(info.context.workspace_id, key, profile_id=person.id)
