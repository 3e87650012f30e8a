"""Named places in an app where banners appear."""

from datetime import datetime, timedelta
from typing import Annotated

from strawberry import ID, Maybe

from app.api import ids
from app.api.declare import about, argument, input_type, mutation, output, query
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.payloads import Payload
from app.context import Info
from app.problems import ApiError
from campaigns import placements
from campaigns.models import Placement as PlacementRow
from profiles.keys import Scope


@output
class Placement(Node):
    """A named place in an app where banners appear."""

    key: str = about("What apps ask for, such as home-top; it never changes.")
    name: str = about("Its name, for people.")
    description: str = about("Where it is.")
    rotation_window_seconds: int = about("How long a viewer keeps the same of several banners.")
    created_at: datetime = about("When it was made.")

    @classmethod
    def of(cls, row: PlacementRow) -> "Placement":
        return cls(
            id=ids.encode(Kind.PLACEMENT, row.id),
            key=row.key,
            name=row.name,
            description=row.description,
            rotation_window_seconds=row.rotation_window_s,
            created_at=row.created_at,
        )


@input_type
class PlacementCreateInput:
    """A new placement."""

    key: str = about("What apps ask for: 1 to 64 of a-z, 0-9, '-', '_' and '.'.")
    name: str = about("Its name, for people.")
    description: str = about("Where it is.", default="")
    rotation_window_seconds: int = about("How long a viewer keeps the same of several banners.", default=3600)


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


@output
class PlacementUpdatePayload(Payload):
    """The placement as changed."""

    placement: Placement | None = about("The placement; null when it was refused.", default=None)


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
        """The workspace's placements by key; at most 100."""
        return [Placement.of(row) for row in await placements.list_placements(info.context.workspace_id)]


@output
class PlacementMutations:
    @mutation(needs=Scope.CAMPAIGNS)
    async def placement_create(self, info: Info, input: PlacementCreateInput) -> PlacementCreatePayload:
        """Make a placement."""
        row = await placements.create(
            info.context.workspace_id,
            placements.PlacementInput(
                key=input.key,
                name=input.name,
                description=input.description,
                rotation_window=timedelta(seconds=input.rotation_window_seconds),
            ),
        )
        return PlacementCreatePayload(placement=Placement.of(row))

    @mutation(needs=Scope.CAMPAIGNS)
    async def placement_update(self, info: Info, input: PlacementUpdateInput) -> PlacementUpdatePayload:
        """Change a placement."""
        window = input.rotation_window_seconds
        row = await placements.update(
            info.context.workspace_id,
            ids.decode_uuid(Kind.PLACEMENT, input.id),
            placements.PlacementChanges(
                name=input.name.value if input.name is not None else None,
                description=input.description.value if input.description is not None else None,
                rotation_window=timedelta(seconds=window.value) if window is not None else None,
            ),
        )
        return PlacementUpdatePayload(placement=Placement.of(row))
