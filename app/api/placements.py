"""Named places in an app where banners appear."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import strawberry
from strawberry import ID, Maybe

from app.api import ids
from app.api.banner_rules import BannerLimits, BannerLimitsInput, to_limits
from app.api.declare import about, argument, input_type, looked_up, mutation, output, query
from app.api.enums import BannerField
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.payloads import Payload, converted, given
from app.context import Info
from app.problems import ApiError
from campaigns import placements
from campaigns.banner_rules import UNLIMITED, Limits
from campaigns.models import Placement as PlacementRow
from profiles.keys import Scope

if TYPE_CHECKING:
    from app.api.campaigns import Campaign


FIELDS = "What banners here may have; null: everything."
SCHEMES = "With what links here may begin beside https:, such as myapp for myapp://offers/1."
SLOTS = "How many banners are shown here at once, 1 to 10."
LIMITS = "How often one viewer sees banners here, whichever."


@output
class PlacementShare:
    """A live banner's part of its placement."""

    campaign_key: strawberry.Private[UUID]
    weight: int = about("Its weight, 0 to 100.")
    priority: int = about("Its priority.")
    share_percent: float = about(
        "Its share in per cent, of the viewers for whom all banners of its priority are and none of a higher one is: by"
        " weights of 10, 10 and 80 it is 10, 10 and 80."
    )

    @classmethod
    def of(cls, row: placements.Share) -> "PlacementShare":
        return cls(
            campaign_key=row.campaign_id,
            weight=row.weight,
            priority=row.priority,
            share_percent=float(row.share * 100),
        )

    @looked_up
    async def campaign(self, info: Info) -> Annotated["Campaign", strawberry.lazy("app.api.campaigns")] | None:
        """The banner's campaign; null when it was deleted this instant."""
        from app.api.campaigns import Campaign

        row = await info.context.loaders.campaigns.load(self.campaign_key)
        return Campaign.of(row) if row else None


@output
class Placement(Node):
    """A named place in an app where banners appear."""

    row_key: strawberry.Private[UUID]
    key: str = about("What apps ask for, such as home-top; it never changes.")
    name: str = about("Its name, for people.")
    description: str = about("Where it is.")
    rotation_window_seconds: int = about("How long a viewer keeps the same of several banners.")
    content_fields: list[BannerField] | None = about(FIELDS)
    link_schemes: list[str] = about(SCHEMES)
    slots: int = about(SLOTS)
    limits: BannerLimits = about(LIMITS)
    created_at: datetime = about("When it was made.")

    @classmethod
    def of(cls, row: PlacementRow) -> "Placement":
        return cls(
            id=ids.encode(Kind.PLACEMENT, row.id),
            row_key=row.id,
            key=row.key,
            name=row.name,
            description=row.description,
            rotation_window_seconds=row.rotation_window_s,
            content_fields=None if row.content_fields is None else [BannerField(one) for one in row.content_fields],
            link_schemes=row.link_schemes,
            slots=row.slots,
            limits=BannerLimits.of(Limits.from_json(row.limits)),
            created_at=row.created_at,
        )

    @looked_up
    async def rotation(self, info: Info) -> list[PlacementShare]:
        """The live banners here with their shares, the highest priority first and then the oldest."""
        return [PlacementShare.of(one) for one in await info.context.loaders.rotations.load(self.row_key) or ()]


@input_type
class PlacementCreateInput:
    """A new placement."""

    key: str = about("What apps ask for: 1 to 64 of a-z, 0-9, '-', '_' and '.'.")
    name: str = about("Its name, for people.")
    description: str = about("Where it is.", default="")
    rotation_window_seconds: int = about("How long a viewer keeps the same of several banners.", default=3600)
    content_fields: list[BannerField] | None = about(FIELDS, default=None)
    link_schemes: list[str] = about(SCHEMES, default_factory=list)
    slots: int = about(SLOTS, default=1)
    limits: BannerLimitsInput | None = about(LIMITS, default=None)


@output
class PlacementCreatePayload(Payload):
    """The new placement."""

    placement: Placement | None = about("The placement; null when it was refused.", default=None)


@input_type
class PlacementUpdateInput:
    """What to change of a placement; what is left out stays as it is."""

    id: ID = about("The placement.")
    name: Maybe[str] = about("Its name, for people.")
    description: Maybe[str] = about("Where it is.")
    rotation_window_seconds: Maybe[int] = about("How long a viewer keeps the same of several banners.")
    content_fields: Maybe[list[BannerField] | None] = about(FIELDS)
    link_schemes: Maybe[list[str]] = about(SCHEMES)
    slots: Maybe[int] = about(SLOTS)
    limits: Maybe[BannerLimitsInput] = about(LIMITS)


@output
class PlacementUpdatePayload(Payload):
    """The placement as changed."""

    placement: Placement | None = about("The placement; null when it was refused.", default=None)


@input_type
class PlacementDeleteInput:
    """Which placement to delete."""

    id: ID = about("The placement.")


@output
class PlacementDeletePayload(Payload):
    """What was deleted."""

    deleted_id: ID | None = about("Id of the deleted placement; null when it was refused.", default=None)


@output
class PlacementQueries:
    @query(needs=Scope.READ)
    async def placement(
        self,
        info: Info,
        id: ID | None = None,
        key: Annotated[str | None, argument("What apps ask for, instead of `id`.")] = None,
    ) -> Placement | None:
        """One placement, by id or key; null when there is none."""
        if (id is None) == (key is None):
            raise ApiError("ONE_IDENTITY", "Give either `id` or `key`.", field=("id",))
        if id is not None:
            row = await info.context.loaders.placements.load(ids.decode_uuid(Kind.PLACEMENT, id))
        else:
            row = await placements.find_by_key(info.context.workspace_id, key or "")
        return Placement.of(row) if row else None

    @query(needs=Scope.READ)
    async def placements(self, info: Info) -> list[Placement]:
        """The workspace's placements by key, all of them; a workspace has at most 500."""
        return [Placement.of(row) for row in await placements.list_placements(info.context.workspace_id)]


@output
class PlacementMutations:
    @mutation(needs=Scope.CAMPAIGNS, once=True)
    async def placement_create(self, info: Info, input: PlacementCreateInput) -> PlacementCreatePayload:
        """Make a placement."""
        row = await placements.create(
            info.context.workspace_id,
            placements.PlacementInput(
                key=input.key,
                name=input.name,
                description=input.description,
                rotation_window=timedelta(seconds=input.rotation_window_seconds),
                content_fields=None if input.content_fields is None else tuple(input.content_fields),
                link_schemes=tuple(input.link_schemes),
                slots=input.slots,
                limits=to_placement_limits(input.limits),
            ),
        )
        return PlacementCreatePayload(placement=Placement.of(row))

    @mutation(needs=Scope.CAMPAIGNS)
    async def placement_update(self, info: Info, input: PlacementUpdateInput) -> PlacementUpdatePayload:
        """Change a placement."""
        row = await placements.update(
            info.context.workspace_id,
            ids.decode_uuid(Kind.PLACEMENT, input.id),
            placements.PlacementChanges(
                name=given(input.name),
                description=given(input.description),
                rotation_window=converted(input.rotation_window_seconds, lambda s: timedelta(seconds=s)),
                content_fields=converted(
                    input.content_fields, lambda wanted: None if wanted is None else tuple(wanted)
                ),
                link_schemes=converted(input.link_schemes, tuple),
                slots=given(input.slots),
                limits=converted(input.limits, to_placement_limits),
            ),
            now=info.context.now,
        )
        return PlacementUpdatePayload(placement=Placement.of(row))

    @mutation(needs=Scope.CAMPAIGNS)
    async def placement_delete(self, info: Info, input: PlacementDeleteInput) -> PlacementDeletePayload:
        """Delete a placement that no campaign uses, not even one that has ended."""
        await placements.delete(info.context.workspace_id, ids.decode_uuid(Kind.PLACEMENT, input.id))
        return PlacementDeletePayload(deleted_id=input.id)


def to_placement_limits(wanted: BannerLimitsInput | None) -> Limits:
    """The use case's limits of a placement: dismissing one banner does not empty it, unless somebody says so."""
    return UNLIMITED if wanted is None else to_limits(wanted, stop_after_dismissal=False)
