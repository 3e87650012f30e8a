"""Segments: reading them and their evaluations; their members are in members.py."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry import ID

from app.api import ids, ordering, paging
from app.api.conditions import from_definition
from app.api.declare import about, argument, looked_up, output, query, resolved
from app.api.definitions import names_of, stored
from app.api.enums import BuilderMode, Cadence, EvaluationCause, EvaluationStatus, SegmentStatus, SegmentType
from app.api.ids import Kind
from app.api.members import MemberReads
from app.api.nodes import Node
from app.api.ordering import (
    Created,
    Named,
    OfBrand,
    SegmentOrder,
    Updated,
    brand_key,
    order_of,
    place_of,
    some,
    span_of,
)
from app.api.paging import After, Connection, First
from app.api.scalars import Json
from app.api.workspaces import Brand
from app.context import Info
from profiles.keys import Scope
from segments import conditions, evaluation, listing, ranking
from segments.models import Evaluation as EvaluationRow
from segments.models import Segment as SegmentRow


@output
class SegmentNodeSize:
    """How many people meet one part of a segment's conditions."""

    path: list[str] = about("Where it stands in the definition, from the root; empty for the whole.")
    size: int = about("How many people meet it.")


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
    size: int | None = about("Members found; while it is HELD, members there would be.")
    added: int | None = about("Profiles that entered; while it is HELD, that would enter.")
    removed: int | None = about("Profiles that left; while it is HELD, that would leave.")
    nodes: list[SegmentNodeSize] = about(
        "Sizes of all parts of the conditions, parents before children; empty until it ran. People who changed while"
        " it ran are in `size` as they are now, and in these as they were."
    )
    approved_at: datetime | None = about("When somebody let it through after it was held.")
    error_code: str | None = about("Why it failed or is held, for programs.")
    error: str | None = about("Why it failed or is held, for people.")

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
            nodes=[SegmentNodeSize(path=one["path"], size=one["size"]) for one in row.nodes or []],
            approved_at=row.approved_at,
            error_code=row.error_code,
            error=row.error,
        )

    @looked_up
    async def segment(self, info: Info) -> "Segment | None":
        """The segment that was evaluated."""
        row = await info.context.loaders.segments.load(self.segment_key)
        return Segment.of(row) if row else None


@output
class Segment(MemberReads, Node):
    """A named set of profiles."""

    brand_key: strawberry.Private[UUID | None]
    stored: strawberry.Private[SegmentRow]
    name: str = about("Its name.")
    description: str = about("What it is for.")
    type: SegmentType = about("Where its members come from.")
    status: SegmentStatus = about("Whether it is evaluated and can be targeted.")
    definition: Json | None = about(
        "The conditions of a dynamic segment, in the shape of SegmentConditionInput; null for other types."
    )
    definition_version: int = about("Grows with every change of the conditions, the ranking or the brand.")
    mode: BuilderMode = about("Which builder the conditions are from.")
    ranking: Json | None = about(
        "In which order the members stand and how many there are at most, in the shape of RankingInput; null: in none."
    )
    live: bool = about("Whether members follow events and changes within seconds, between evaluations.")
    change_guard: int | None = about(
        "Per cent of the members that one evaluation may remove before it is held for approval; null: all."
    )
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
            stored=row,
            definition=None if row.definition is None else Json(from_definition(row.definition)),
            definition_version=row.definition_version,
            mode=row.mode,
            ranking=None if row.ranking is None else Json(row.ranking),
            live=row.live,
            change_guard=row.change_guard,
            cadence=row.cadence,
            cron=row.cron,
            time_zone=row.time_zone,
            next_run_at=row.next_run_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @looked_up
    async def brand(self, info: Info) -> Brand | None:
        """The brand it belongs to, whose campaigns alone may name it; null when it is for all."""
        row = await info.context.loaders.brands.load(self.brand_key) if self.brand_key else None
        return Brand.of(row) if row else None

    @looked_up
    async def summary(self, info: Info) -> str | None:
        """Conditions and ranking in a sentence or two; null for types without conditions."""
        if self.stored.definition is None:
            return None
        condition = stored(self.stored.definition)
        said = conditions.summary(condition, await names_of(info, condition))
        if self.stored.ranking is not None:
            said += f" {ranking.summary(ranking.parse(self.stored.ranking))}"
        return said

    @looked_up
    async def references(self, info: Info) -> list["Segment"]:
        """The segments that its conditions name."""
        beside = await info.context.loaders.segment_neighbours.load(self.key)
        return [Segment.of(row) for row in beside.uses] if beside else []

    @looked_up
    async def used_by(self, info: Info) -> list["Segment"]:
        """The segments whose conditions name this one."""
        beside = await info.context.loaders.segment_neighbours.load(self.key)
        return [Segment.of(row) for row in beside.used_by] if beside else []

    @looked_up
    async def size(self, info: Info) -> int | None:
        """How many profiles are in it; null when it was never evaluated, which is not zero."""
        row = await info.context.loaders.segment_sizes.load(self.key)
        return row.size if row else None

    @looked_up
    async def last_evaluated_at(self, info: Info) -> datetime | None:
        """As of when the members are; null when it was never evaluated."""
        row = await info.context.loaders.segment_sizes.load(self.key)
        return row.evaluated_at if row else None

    @looked_up
    async def last_evaluation(self, info: Info) -> SegmentEvaluation | None:
        """The newest evaluation, finished or not; null when there was none."""
        row = await info.context.loaders.latest_evaluations.load(self.key)
        return SegmentEvaluation.of(row) if row else None

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
        status: Annotated[list[SegmentStatus] | None, argument("Only those of one of these statuses.")] = None,
        type: Annotated[list[SegmentType] | None, argument("Only those of one of these types.")] = None,
        name: Named = None,
        brand_id: OfBrand = None,
        created: Created = None,
        updated: Updated = None,
        order_by: Annotated[SegmentOrder | None, argument("In which order; null: the newest first.")] = None,
    ) -> Connection[Segment]:
        """The workspace's segments, the newest first unless another order is asked for."""
        order = order_of(order_by, otherwise=listing.NEWEST_FIRST)
        rows = await listing.page(
            info.context.workspace_id,
            after=place_of(after, order, listing.KEYS),
            limit=paging.page_size(first) + 1,
            order=order,
            only=listing.SegmentFilter(
                statuses=some(status),
                types=some(type),
                name=name,
                brand_id=brand_key(brand_id),
                created=span_of(created),
                updated=span_of(updated),
            ),
        )
        return ordering.connection(rows, first=first, after=after, order=order, node=Segment.of)

    @query(needs=Scope.READ)
    async def evaluation(self, info: Info, id: ID) -> SegmentEvaluation | None:
        """One evaluation, to follow it; null when there is none."""
        row = await info.context.loaders.evaluations.load(ids.decode_uuid(Kind.EVALUATION, id))
        return SegmentEvaluation.of(row) if row else None
