"""The GraphQL schema: every subject put together, and its export.

`make schema` writes graphql/schema.graphql; a test fails when it is not current.
"""

from functools import cache

import strawberry
from graphql import GraphQLError, GraphQLInputObjectType, GraphQLSchema
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.execution import ExecutionContext

from app.api.api_keys import ApiKeyMutations, ApiKeyQueries
from app.api.approvals import ApprovalMutations
from app.api.audit import AuditQueries
from app.api.banner_events import BannerEventMutations
from app.api.banners import BannerQueries
from app.api.builder import BuilderQueries
from app.api.campaign_mutations import CampaignMutations
from app.api.campaigns import CampaignQueries
from app.api.consents import ConsentMutations
from app.api.content import CONTENT_TYPES
from app.api.declare import output
from app.api.doubts import DoubtMutations
from app.api.exports import ExportMutations
from app.api.finding import NodeQueries
from app.api.ingestion import IngestionMutations
from app.api.members import MemberQueries
from app.api.placements import PlacementMutations, PlacementQueries
from app.api.previews import PreviewQueries
from app.api.profiles import ProfileMutations, ProfileQueries
from app.api.push_credentials import PushCredentialMutations, PushCredentialQueries
from app.api.push_previews import PushPreviewQueries
from app.api.saved_queries import SavedQueryMutations, SavedQueryQueries
from app.api.scalars import SCALARS
from app.api.segment_mutations import SegmentMutations
from app.api.segments import SegmentQueries
from app.api.senders import SenderMutations, SenderQueries
from app.api.static_mutations import StaticMutations
from app.api.subscriptions import Subscriptions
from app.api.workspaces import WorkspaceMutations, WorkspaceQueries
from app.execution import Execution, shorten
from app.reading import Prepare, PrepareWithoutIntrospection


@output
class Query(
    NodeQueries,
    WorkspaceQueries,
    SegmentQueries,
    MemberQueries,
    BuilderQueries,
    SavedQueryQueries,
    ProfileQueries,
    CampaignQueries,
    PreviewQueries,
    PushPreviewQueries,
    PushCredentialQueries,
    SenderQueries,
    PlacementQueries,
    BannerQueries,
    AuditQueries,
    ApiKeyQueries,
):
    """What can be read. Every field needs a key; which scope it needs is said in the documentation of keys."""


@output
class Mutation(
    WorkspaceMutations,
    ProfileMutations,
    ExportMutations,
    ConsentMutations,
    IngestionMutations,
    BannerEventMutations,
    SegmentMutations,
    StaticMutations,
    SavedQueryMutations,
    CampaignMutations,
    ApprovalMutations,
    DoubtMutations,
    SenderMutations,
    PlacementMutations,
    PushCredentialMutations,
    ApiKeyMutations,
):
    """What can be changed. Every field answers a payload whose `userErrors` say why nothing was written."""


@output
class Subscription(Subscriptions):
    """What can be followed, over a WebSocket or as server-sent events."""


class Schema(strawberry.Schema):
    """strawberry's schema, without its habit of logging every client error with the whole query."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Nothing: app/problems.py logs, once the errors are what the client will see."""


@cache
def build_schema(*, introspection: bool) -> Schema:
    """The schema; with introspection it is told to whoever asks, and mistyped names get suggestions."""
    schema = Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=CONTENT_TYPES,
        execution_context_class=Execution,
        config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=not introspection),
        extensions=[Prepare if introspection else PrepareWithoutIntrospection],
    )
    shorten(schema._schema)
    locate_one_ofs(schema._schema)
    return schema


def locate_one_ofs(schema: GraphQLSchema) -> None:
    """Let graphql-core refuse an input that does not have exactly one key, too: it names the place of it, as a tree of
    conditions needs, and strawberry's own refusal does not."""
    for type_ in schema.type_map.values():
        definition = type_.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
        if isinstance(type_, GraphQLInputObjectType) and isinstance(definition, StrawberryObjectDefinition):
            type_.is_one_of = definition.is_one_of


def export() -> str:
    """The schema in GraphQL's own language, as published."""
    return build_schema(introspection=True).as_str().rstrip() + "\n"
