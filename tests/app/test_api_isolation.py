"""Every operation of the contract, called with the ids of another tenant (T-25): nothing is found, nothing changes.

`ATTEMPTS` has at least one for each published operation, and between them they put a foreign id wherever the schema
takes one: a new operation, or a new id in an input, fails here until somebody says what it is to answer.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Any

import httpx2
from graphql import (
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    get_named_type,
    get_nullable_type,
    is_list_type,
    parse,
    type_from_ast,
)

from app.schema import build_schema
from db.transactions import Connection
from tests.app.caller import OPERATIONS, Caller, operation_text
from tests.app.test_api_banners import placement
from tests.app.test_api_campaigns import EMAIL, instant, make, people
from tests.app.test_api_tenants import theirs  # noqa: F401
from tests.conftest import Database
from tests.db.test_isolation import TABLES, as_owner


class Answer(Enum):
    """What somebody with foreign ids is told."""

    NOT_FOUND = auto()
    """An error or user error of that code."""
    NOTHING = auto()
    """Null, or an empty list or page."""
    OWN = auto()
    """What they have or make themselves, and nothing of the other tenant's."""


@dataclass(frozen=True)
class Attempt:
    """One call. A text that begins with `$` in the variables stands for a foreign id, by kind."""

    operation: str
    answer: Answer
    variables: dict[str, Any]


def tried(answer: Answer, operation: str, **variables: Any) -> Attempt:
    return Attempt(operation, answer, variables)


def changed(answer: Answer, operation: str, **given: Any) -> Attempt:
    return Attempt(operation, answer, {"input": given})


NOT_FOUND, NOTHING, OWN = Answer.NOT_FOUND, Answer.NOTHING, Answer.OWN
BANNER = {"banner": {"title": "a"}}
SENDER = {"fromName": "a", "fromAddress": "a@b.example.com", "postalAddress": "c"}
ENGAGED = {"campaign": {"campaignId": "$campaign", "did": "OPENED"}}
IN_SEGMENT = {"inSegment": "$segment"}
ANYBODY: dict[str, Any] = {"sample": {}}
MISSING = {"NOT_FOUND", "SAVED_QUERY_MISSING"}
OWN_REFUSALS = {"NO_EVENTS", "TAKEN", "NOT_FOUND", "INVALID_SECRET"}
"""What they may be told about their own things."""
ATTEMPTS = [
    # First: later it holds what they tried.
    tried(NOTHING, "AuditLog", object="$campaign"),
    *(tried(NOTHING, name, id="$campaign") for name in ("Campaign", "CampaignBannerCounts", "CampaignResponses")),
    *(tried(NOTHING, name, id="$dynamic") for name in ("Segment", "SegmentChanges", "SegmentEvaluations")),
    *(
        tried(OWN, name)
        for name in ("ApiKeys", "Brands", "Campaigns", "FieldCatalogue", "Placements", "Profiles", "PushCredentials",
                     "SavedQueries", "Segments", "Senders", "Workspace")
    ),
    *(
        changed(NOT_FOUND, name, id="$campaign")
        for name in ("CampaignApprove", "CampaignCancel", "CampaignDelete", "CampaignDuplicate", "CampaignPause",
                     "CampaignReactivate", "CampaignReject", "CampaignResume", "CampaignSend",
                     "CampaignSubmitForApproval", "CampaignUnschedule")
    ),
    *(
        changed(NOT_FOUND, name, id="$segment")
        for name in ("SegmentActivate", "SegmentArchive", "SegmentDelete", "SegmentDuplicate", "SegmentPause",
                     "SegmentUnpublish")
    ),
    tried(NOT_FOUND, "AreMembers", segmentId="$segment", externalIds=["ada"]),
    changed(OWN, "ApiKeyCreate", name="a", role="VIEWER"),
    changed(NOT_FOUND, "ApiKeyRevoke", id="$key"),
    changed(NOT_FOUND, "ApiKeyRotate", id="$key"),
    tried(OWN, "Banners", placements=["home-top"]),
    tried(OWN, "BannersOffline", placements=["home-top"]),
    tried(NOT_FOUND, "CampaignDryRun", id="$campaign"),
    tried(NOT_FOUND, "CampaignPreview", input={"campaignId": "$campaign", "recipient": ANYBODY}),
    tried(NOT_FOUND, "CampaignPreview", input={"content": EMAIL, "senderId": "$sender", "recipient": ANYBODY}),
    tried(NOT_FOUND, "CampaignPreview", input={"content": EMAIL, "recipient": {"profileId": "$profile"}}),
    tried(NOT_FOUND, "CampaignPushPreview", input={"campaignId": "$campaign", "recipient": ANYBODY}),
    tried(NOTHING, "Deliveries", campaignId="$campaign"),
    tried(NOTHING, "Deliveries", campaignId="#campaign", profileId="$profile"),
    *(tried(NOTHING, name, brandId="$brand") for name in ("Segments", "Campaigns", "Profiles")),
    tried(NOTHING, "Evaluation", id="$evaluation"),
    tried(NOT_FOUND, "CampaignProgress", id="$campaign"),
    tried(NOT_FOUND, "SegmentEvaluationUpdated", segmentId="$segment"),
    tried(NOT_FOUND, "IsMember", segmentId="$segment", externalId="ada"),
    tried(NOT_FOUND, "MemberOf", externalId="mine", segmentIds=["$segment"]),
    tried(NOTHING, "Node", id="$campaign"),
    tried(NOTHING, "Nodes", ids=["$campaign", "$segment", "$profile", "$sender", "$brand", "$placement", "$key"]),
    tried(NOTHING, "Placement", id="$placement"),
    tried(NOTHING, "Profile", id="$profile"),
    tried(NOTHING, "SavedQuery", id="$query"),
    tried(OWN, "SavedQueryPreview", sql="SELECT profile_id FROM profiles"),
    tried(NOT_FOUND, "SegmentEstimate", input={"definition": IN_SEGMENT}),
    tried(OWN, "SegmentEstimate", input={"definition": ENGAGED}),
    tried(NOT_FOUND, "SegmentEstimate", input={"definition": {"savedQuery": "$query"}}),
    tried(NOT_FOUND, "SegmentEstimate", input={"definition": {"identified": True}, "brandId": "$brand"}),
    tried(NOT_FOUND, "SegmentExplain", segmentId="$dynamic", externalId="mine"),
    tried(NOT_FOUND, "SegmentExplain", segmentId="#dynamic", profileId="$profile"),
    tried(NOTHING, "SegmentMembers", id="$segment"),
    tried(NOT_FOUND, "SegmentOverlap", ids=["$segment", "$everyone"]),
    changed(OWN, "BannerEventsTrack", events=[]),
    changed(OWN, "BrandCreate", name="Acme"),
    changed(NOT_FOUND, "CampaignCreate", name="a", content={"email": EMAIL}, segmentIds=["$segment"]),
    changed(NOT_FOUND, "CampaignCreate", name="a", content={"email": EMAIL}, excludedSegmentIds=["$segment"]),
    changed(NOT_FOUND, "CampaignCreate", name="a", content={"email": EMAIL}, senderId="$sender"),
    changed(NOT_FOUND, "CampaignCreate", name="a", content={"email": EMAIL}, brandId="$brand"),
    changed(NOT_FOUND, "CampaignCreate", name="a", content=BANNER, weight=1, placementId="$placement"),
    changed(NOT_FOUND, "CampaignCreate", name="a", content=BANNER, weight=1, placementId="#placement",
            testSegmentId="$segment"),
    changed(NOT_FOUND, "CampaignSchedule", id="$campaign", at=instant(hours=1)),
    changed(NOT_FOUND, "CampaignTestSend", id="$campaign", externalIds=["ada"]),
    changed(NOT_FOUND, "CampaignTestSend", id="#campaign", segmentId="$segment"),
    changed(NOT_FOUND, "CampaignUpdate", id="$campaign", name="x"),
    *(
        changed(NOT_FOUND, "CampaignUpdate", id="#campaign", **given)
        for given in ({"segmentIds": ["$segment"]}, {"excludedSegmentIds": ["$segment"]}, {"brandId": "$brand"},
                      {"senderId": "$sender"})
    ),
    changed(NOT_FOUND, "CampaignUpdate", id="#banner", placementId="$placement"),
    changed(NOT_FOUND, "CampaignUpdate", id="#banner", testSegmentId="$segment"),
    changed(OWN, "ClientTokenCreate", externalId="ada"),
    changed(NOT_FOUND, "ConsentUpdate", profileId="$profile", channel="EMAIL", topic="t", status="UNSUBSCRIBED"),
    changed(OWN, "DeviceRegister", provider="FCM", token="t" * 30, platform="ANDROID", externalId="ada"),
    changed(OWN, "DeviceUnregister", provider="FCM", token="theirs" * 5),
    changed(OWN, "EventsTrack", events=[{"messageId": "1", "name": "a", "externalId": "ada"}]),
    changed(NOT_FOUND, "InDoubtResolve", campaignId="$campaign", **{"as": "SENT"}),
    changed(OWN, "PlacementCreate", key="home-top", name="a"),
    changed(NOT_FOUND, "PlacementDelete", id="$placement"),
    changed(NOT_FOUND, "PlacementUpdate", id="$placement", name="x"),
    changed(NOT_FOUND, "ProfileErase", profileId="$profile"),
    changed(NOT_FOUND, "ProfileExport", profileId="$profile"),
    changed(OWN, "ProfileIdentify", anonymousId="theirs", externalId="ada"),
    changed(NOT_FOUND, "ProfileMerge", loserId="$profile", winnerId="#profile"),
    changed(NOT_FOUND, "ProfileMerge", loserId="#profile", winnerId="$profile"),
    changed(OWN, "ProfileUpsert", externalId="ada", email="other@example.com"),
    changed(NOT_FOUND, "ProfileUpsert", externalId="bob", brandIds=["$brand"]),
    changed(OWN, "ProfilesUpsert", profiles=[{"externalId": "ada"}]),
    changed(OWN, "PushCredentialDelete", app="default", provider="FCM"),
    changed(OWN, "PushCredentialTest", app="default", provider="FCM"),
    changed(OWN, "PushCredentialSet", secret={"fcm": {"serviceAccount": "{}"}}),
    changed(OWN, "SavedQueryCreate", name="Q", sql="SELECT profile_id FROM profiles"),
    changed(NOT_FOUND, "SavedQueryDelete", id="$query"),
    changed(NOT_FOUND, "SavedQueryUpdate", id="$query", name="x"),
    changed(NOT_FOUND, "SegmentCreate", name="a", type="STATIC", brandId="$brand"),
    changed(NOT_FOUND, "SegmentCreate", name="a", type="DYNAMIC", definition=IN_SEGMENT),
    changed(NOT_FOUND, "SegmentEvaluate", id="$dynamic"),
    changed(NOT_FOUND, "SegmentEvaluationApprove", id="$evaluation"),
    changed(NOT_FOUND, "SegmentMembersAdd", id="$segment", externalIds=["ada"]),
    changed(NOT_FOUND, "SegmentMembersImport", id="$segment", text="external_id\nada\n"),
    changed(NOT_FOUND, "SegmentMembersRemove", id="$segment", externalIds=["ada"]),
    changed(NOT_FOUND, "SegmentPopulateFromQuery", id="$segment", definition={"identified": True}),
    changed(NOT_FOUND, "SegmentPopulateFromQuery", id="#static", savedQueryId="$query"),
    changed(NOT_FOUND, "SegmentSubtract", id="$segment", otherId="#static"),
    changed(NOT_FOUND, "SegmentSubtract", id="#static", otherId="$segment"),
    changed(NOT_FOUND, "SegmentUpdate", id="$segment", name="x"),
    changed(NOT_FOUND, "SegmentUpdate", id="#static", brandId="$brand"),
    changed(OWN, "SenderCreate", **SENDER),
    changed(NOT_FOUND, "SenderCreate", brandId="$brand", **SENDER),
    changed(OWN, "SuppressionAdd", channel="EMAIL", address="ada@example.com"),
    changed(OWN, "SuppressionRemove", channel="EMAIL", address="ada@example.com"),
    changed(OWN, "WorkspaceUpdate", trackOpens=False),
]  # fmt: skip


# --- what the contract has ----------------------------------------------------------------------------------------


@cache
def schema() -> GraphQLSchema:
    """Read once: to build it takes most of a second."""
    return build_schema(introspection=True)._schema


@cache
def published() -> dict[str, OperationDefinitionNode]:
    """Every published operation."""
    found = {}
    for path in OPERATIONS.glob("*/*.graphql"):
        (operation,) = (d for d in parse(path.read_text()).definitions if isinstance(d, OperationDefinitionNode))
        found[path.stem] = operation
    return found


def test_every_operation_is_tried() -> None:
    assert {one.operation for one in ATTEMPTS} == set(published())


def test_every_field_of_the_schema_has_an_operation() -> None:
    used = {
        selection.name.value  # type: ignore[attr-defined]
        for operation in published().values()
        for selection in operation.selection_set.selections
    }
    roots = (schema().query_type, schema().mutation_type, schema().subscription_type)
    assert used == {name for root in roots if root for name in root.fields}


def ids_taken(kind: GraphQLInputType, place: str, seen: set[str]) -> Iterator[str]:
    """Where values of a type hold ids: `Type.field`, or `place` itself."""
    named = get_named_type(kind)
    if named.name == "ID":
        yield place
    elif isinstance(named, GraphQLInputObjectType) and named.name not in seen:
        seen.add(named.name)
        for name, field in named.fields.items():
            yield from ids_taken(field.type, f"{named.name}.{name}", seen)


def ids_given(kind: Any, value: Any, place: str) -> Iterator[str]:
    """Where `value` has a foreign id."""
    kind = get_nullable_type(kind)
    if isinstance(value, list):
        for one in value:
            yield from ids_given(kind.of_type if is_list_type(kind) else kind, one, place)
    elif isinstance(value, dict) and isinstance(kind, GraphQLInputObjectType):
        for name, one in value.items():
            yield from ids_given(kind.fields[name].type, one, f"{kind.name}.{name}")
    elif isinstance(value, str) and value.startswith("$"):
        yield place


def test_a_foreign_id_is_tried_wherever_the_schema_takes_one() -> None:
    seen: set[str] = set()
    taken: set[str] = set()
    for name, operation in published().items():
        for variable in operation.variable_definitions or ():
            kind = type_from_ast(schema(), variable.type)
            taken |= set(ids_taken(kind, f"{name}.{variable.variable.name.value}", seen))  # type: ignore[arg-type]
    given: set[str] = set()
    for attempt in ATTEMPTS:
        for variable in published()[attempt.operation].variable_definitions or ():
            of = variable.variable.name.value
            if of in attempt.variables:
                kind = type_from_ast(schema(), variable.type)
                given |= set(ids_given(kind, attempt.variables[of], f"{attempt.operation}.{of}"))
    assert taken - given == set()


# --- the attempts -------------------------------------------------------------------------------------------------


async def own(console: Caller) -> dict[str, str]:
    """What the one who tries has, by kind."""
    await people(console, "mine")
    static = (await console.data("SegmentCreate", input={"name": "S", "type": "STATIC"}))["segment"]["id"]
    wanted = {"name": "D", "type": "DYNAMIC", "definition": {"identified": True}}
    dynamic = (await console.data("SegmentCreate", input=wanted))["segment"]["id"]
    for segment in (static, dynamic):
        await console.data("SegmentActivate", input={"id": segment})
    place = await placement(console)
    banner = {"name": "B", "content": BANNER, "weight": 1, "placementId": place}
    return {
        "campaign": await make(console),
        "banner": (await console.data("CampaignCreate", input=banner))["campaign"]["id"],
        "static": static,
        "dynamic": dynamic,
        "placement": place,
        "profile": (await console.data("Profile", externalId="mine"))["id"],
    }


def filled_in(value: Any, foreign: dict[str, str], mine: dict[str, str]) -> Any:
    """`value` with `$kind` and `#kind` replaced by ids."""
    match value:
        case dict():
            return {name: filled_in(one, foreign, mine) for name, one in value.items()}
        case list():
            return [filled_in(one, foreign, mine) for one in value]
        case str() if value[:1] == "$":
            return foreign[value[1:]]
        case str() if value[:1] == "#":
            return mine[value[1:]]
    return value


DIGESTS = " UNION ALL ".join(
    f"SELECT '{table}', md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM {table} t WHERE workspace_id = $1"
    for table in TABLES
)
"""Of what a workspace has in each table: one statement, which is planned once for a connection."""


async def rows(owner: Connection, workspace_id: object) -> dict[str, str | None]:
    """A digest of what a workspace has in each table."""
    return dict(await owner.fetch(DIGESTS, workspace_id))


async def asked(console: Caller, operation: str, variables: dict[str, Any]) -> httpx2.Response:
    """The answer to an operation; of a subscription the stream, which ends with what is wrong."""
    if published()[operation].operation is OperationType.SUBSCRIPTION:
        console = console.with_headers(Accept="text/event-stream")
    return await console.post(operation_text(operation), variables, operationName=operation)


def codes_of(answer: dict[str, Any]) -> set[str]:
    """Codes of all errors and user errors."""
    payloads = [one for one in (answer.get("data") or {}).values() if isinstance(one, dict)]
    refused = [error["code"] for one in payloads for error in one.get("userErrors") or ()]
    return {*refused, *(error["extensions"]["code"] for error in answer.get("errors") or ())}


def is_empty(value: Any) -> bool:
    """Null, an empty list or page, or a list of nulls."""
    if isinstance(value, dict) and "edges" in value:
        value = value["edges"]
    return value is None or (isinstance(value, list) and not any(value))


async def test_no_operation_finds_or_changes_what_is_another_tenants(
    console: Caller,
    foreigner: Caller,
    database: Database,
    theirs: dict[str, str],  # noqa: F811
) -> None:
    """T-25: every query, mutation and node id."""
    made = await foreigner.data("SavedQueryCreate", input={"name": "Q", "sql": "SELECT profile_id FROM profiles"})
    foreign = theirs | {"query": made["savedQuery"]["id"]}
    mine = await own(console)
    # When the other tenant's key was used last is written every so often.
    await console.http._transport.app.state.services.authenticator.known.uses.write()  # type: ignore[attr-defined]
    wrong = []
    async with as_owner(database) as owner:
        before = await rows(owner, foreigner.workspace_id)
        assert sum(digest is not None for digest in before.values()) > 15
        for attempt in ATTEMPTS:
            variables = filled_in(attempt.variables, foreign, mine)
            response = await asked(console, attempt.operation, variables)
            answer = json.loads(response.text.partition("data: ")[2].partition("\n")[0] or response.text)
            codes = codes_of(answer)
            match attempt.answer:
                case Answer.NOT_FOUND:
                    good = bool(codes) and codes <= MISSING
                case Answer.NOTHING:
                    good = not codes and all(map(is_empty, answer["data"].values()))
                case Answer.OWN:
                    good = not any(id in response.text for id in foreign.values()) and codes <= OWN_REFUSALS
            if not good:
                wrong.append(f"{attempt.operation} {attempt.variables}: {json.dumps(answer)[:300]}")
            after = await rows(owner, foreigner.workspace_id)
            assert after == before, attempt
    assert not wrong, "\n".join(wrong)


async def test_a_foreign_node_is_the_same_as_one_that_never_was(
    console: Caller,
    theirs: dict[str, str],  # noqa: F811
) -> None:
    """Nobody learns whether an id exists elsewhere."""
    query = operation_text("Node")
    for kind in ("campaign", "segment", "profile", "sender", "brand", "placement", "evaluation", "key"):
        foreign = theirs[kind]
        prefix, _, number = foreign.partition("_")
        unknown = f"{prefix}_{'1' * len(number)}"
        answers = [(await console.post(query, {"id": one})).json() for one in (foreign, unknown)]
        assert answers[0] == answers[1], kind
