"""`node(id)`: anything by its id, whatever it is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

from strawberry import ID

from app.api import ids
from app.api.api_keys import ApiKey
from app.api.campaigns import Campaign
from app.api.declare import argument, output, query
from app.api.deliveries import Dispatch
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.placements import Placement
from app.api.profiles import living_profile
from app.api.saved_queries import SavedQuery
from app.api.segments import Segment, SegmentEvaluation
from app.api.senders import Sender
from app.api.workspaces import Brand, Workspace
from app.auth import require
from app.context import Info
from app.problems import ApiError
from profiles import workspaces
from profiles.keys import Scope

MOST_NODES = 100

Finder = Callable[[Info, str], Awaitable[Node | None]]


async def workspace(info: Info, id: str) -> Node | None:
    own = ids.decode_uuid(Kind.WORKSPACE, id) == info.context.workspace_id
    return Workspace.of(await workspaces.get(info.context.workspace_id)) if own else None


async def brand(info: Info, id: str) -> Node | None:
    row = await info.context.loaders.brands.load(ids.decode_uuid(Kind.BRAND, id))
    return Brand.of(row) if row else None


async def profile(info: Info, id: str) -> Node | None:
    return await living_profile(info, ids.profile_id(id))


async def segment(info: Info, id: str) -> Node | None:
    row = await info.context.loaders.segments.load(ids.segment_id(id))
    return Segment.of(row) if row else None


async def segment_evaluation(info: Info, id: str) -> Node | None:
    row = await info.context.loaders.evaluations.load(ids.decode_uuid(Kind.EVALUATION, id))
    return SegmentEvaluation.of(row) if row else None


async def saved_query(info: Info, id: str) -> Node | None:
    row = await info.context.loaders.saved_queries.load(ids.decode_uuid(Kind.SAVED_QUERY, id))
    return SavedQuery.of(row) if row else None


async def sender(info: Info, id: str) -> Node | None:
    row = await info.context.loaders.senders.load(ids.decode_uuid(Kind.SENDER, id))
    return Sender.of(row) if row else None


async def placement(info: Info, id: str) -> Node | None:
    row = await info.context.loaders.placements.load(ids.decode_uuid(Kind.PLACEMENT, id))
    return Placement.of(row) if row else None


async def campaign(info: Info, id: str) -> Node | None:
    row = await info.context.loaders.campaigns.load(ids.campaign_id(id))
    return Campaign.of(row) if row else None


async def dispatch(info: Info, id: str) -> Node | None:
    row = await info.context.loaders.dispatches.load(ids.decode_uuid(Kind.DISPATCH, id))
    return Dispatch.of(row) if row else None


async def api_key(info: Info, id: str) -> Node | None:
    require(info.context.caller, Scope.ADMIN)
    row = await info.context.loaders.api_keys.load(ids.decode_uuid(Kind.API_KEY, id))
    return ApiKey.of(row) if row else None


FINDERS: dict[Kind, Finder] = {
    Kind.WORKSPACE: workspace,
    Kind.BRAND: brand,
    Kind.PROFILE: profile,
    Kind.SEGMENT: segment,
    Kind.EVALUATION: segment_evaluation,
    Kind.SAVED_QUERY: saved_query,
    Kind.SENDER: sender,
    Kind.PLACEMENT: placement,
    Kind.CAMPAIGN: campaign,
    Kind.DISPATCH: dispatch,
    Kind.API_KEY: api_key,
}


async def find(info: Info, id: str) -> Node | None:
    """What `id` names, None when there is none; raises ApiError INVALID_ID when it is no id of ours."""
    kind = ids.kind_of(id)
    if kind is None:
        message = f"This is no id of ours; one begins with {', '.join(f'{kind}_' for kind in FINDERS)}."
        raise ApiError("INVALID_ID", message, field=("id",))
    finder = FINDERS.get(kind)
    return await finder(info, id) if finder else None


@output
class NodeQueries:
    @query(needs=Scope.READ)
    async def node(self, info: Info, id: ID) -> Node | None:
        """Anything by its id; null when there is none."""
        return await find(info, id)

    @query(needs=Scope.READ)
    async def nodes(
        self, info: Info, ids: Annotated[list[ID], argument(f"At most {MOST_NODES} ids, as the API gave them.")]
    ) -> list[Node | None]:
        """Many things by their ids, in the order asked; null for each that there is none of."""
        if len(ids) > MOST_NODES:
            raise ApiError("TOO_MANY_ITEMS", f"Ask for at most {MOST_NODES} nodes at once.", field=("ids",))
        # No loop over awaits: the look-ups of one kind gather into one query.
        return await asyncio.gather(*(find(info, one) for one in ids))
