"""The published contract: current, described, named as agreed, and what frontends and apps send is valid."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    build_schema,
)

from app import reading
from app.api.declare import Requires
from app.once import Audited, Beforehand, Once
from app.problems import AsUserErrors
from app.schema import Mutation, Query, export
from profiles.keys import Scope
from tests.app.caller import OPERATIONS

FILE = OPERATIONS.parent / "schema.graphql"
FILES = sorted(OPERATIONS.glob("*/*.graphql"))


@pytest.fixture(scope="module")
def published() -> GraphQLSchema:
    return build_schema(FILE.read_text(encoding="utf-8"))


def test_the_published_schema_is_what_the_code_serves() -> None:
    assert FILE.read_text(encoding="utf-8") == export(), "run `make schema`"


def described_things(schema: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    """Every type, field and argument of ours, by its path, with its description."""
    for name, kind in schema.type_map.items():
        if name.startswith("__") or name in ("String", "Int", "Float", "Boolean", "ID"):
            continue
        yield name, kind.description
        if isinstance(kind, GraphQLEnumType):
            yield from ((f"{name}.{value}", one.description) for value, one in kind.values.items())
        if isinstance(kind, GraphQLInputObjectType):
            yield from ((f"{name}.{field}", one.description) for field, one in kind.fields.items())
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field, made in kind.fields.items():
                yield f"{name}.{field}", made.description
                yield from ((f"{name}.{field}({arg})", one.description) for arg, one in made.args.items())


def test_everything_in_the_schema_is_described(published: GraphQLSchema) -> None:
    silent = [path for path, text in described_things(published) if not text or not text.rstrip().endswith((".", ")"))]
    assert silent == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_published_operation_is_valid_within_the_limits_of_production(published: GraphQLSchema, file: Path) -> None:
    document, errors = reading.prepared(published, file.read_text(encoding="utf-8"), False)
    assert errors == []
    (operation,) = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    assert operation.name is not None
    assert operation.name.value == file.stem
    (root,) = operation.selection_set.selections
    assert isinstance(root, FieldNode)
    assert root.alias is None
    assert root.name.value.lower() == file.stem.lower() or file.stem in VIEWS


VIEWS = {
    "SegmentMembers",
    "SegmentEvaluations",
    "SegmentChanges",
    "CampaignResponses",
    "CampaignBannerCounts",
    "BannersOffline",
}
"""Operations that show one side of what another shows too."""


def root_fields(kind: type) -> dict[str, Any]:
    definition: Any = kind.__strawberry_definition__  # type: ignore[attr-defined]
    return {field.python_name: field for field in definition.fields}


def test_every_root_field_names_the_right_it_needs() -> None:
    for field in [*root_fields(Query).values(), *root_fields(Mutation).values()]:
        # The last extension is the outermost: the right is asked before anything else happens.
        assert isinstance(field.extensions[-1], Requires), field.python_name


NOT_ONCE = {
    "profile_upsert",
    "profiles_upsert",
    "events_track",
    "banner_events_track",
    "device_register",
    "client_token_create",
}
"""Their input says itself whether it came before, or nothing is kept of them."""


def test_every_mutation_that_sends_or_makes_something_can_be_sent_twice() -> None:
    once = {name for name, field in root_fields(Mutation).items() if isinstance(field.extensions[0], Once)}
    for name in root_fields(Mutation):
        if name.endswith(
            ("_create", "_duplicate", "_send", "_schedule", "_evaluate", "_upsert", "_track", "_register")
        ):
            assert name in once | NOT_ONCE, name
    assert not once & NOT_ONCE


def test_every_mutation_but_those_that_tell_of_people_is_audited() -> None:
    for name, field in root_fields(Mutation).items():
        audited = any(isinstance(one, Audited) for one in field.extensions)
        assert audited == (field.extensions[-1].scope is not Scope.INGEST), name


def test_every_mutation_takes_one_input_and_answers_a_payload_of_its_own(published: GraphQLSchema) -> None:
    assert published.mutation_type is not None
    for name, field in published.mutation_type.fields.items():
        kind = name[0].upper() + name[1:]
        assert {arg: str(one.type) for arg, one in field.args.items()} == {"input": f"{kind}Input!"}
        assert str(field.type) == f"{kind}Payload!"
        payload = published.type_map[f"{kind}Payload"]
        assert isinstance(payload, GraphQLObjectType)
        assert str(payload.fields["userErrors"].type) == "[UserError!]!"
    for field in root_fields(Mutation).values():
        # Only what a mutation does once lies inside: a refusal is no answer that is kept.
        inside = next(at for at, one in enumerate(field.extensions) if isinstance(one, AsUserErrors))
        assert all(isinstance(one, Once | Beforehand) for one in field.extensions[:inside]), field.python_name


def test_every_mutation_is_sent_by_a_published_operation(published: GraphQLSchema) -> None:
    assert published.mutation_type is not None
    sent = {file.stem[0].lower() + file.stem[1:] for file in FILES}
    assert set(published.mutation_type.fields) <= sent


STATES = {
    "SegmentStatus": "DRAFT ACTIVE PAUSED ARCHIVED",
    "SegmentType": "STATIC DYNAMIC EVERYONE",
    "RefreshCadence": "NEVER HOURLY DAILY WEEKLY MONTHLY QUARTERLY YEARLY CRON",
    "EvaluationStatus": "QUEUED RUNNING SUCCEEDED HELD FAILED",
    "CampaignStatus": "DRAFT PENDING_APPROVAL SCHEDULED PREPARING SENDING PAUSED SENT ACTIVE ENDED CANCELLED FAILED",
    "DeliveryStatus": "PENDING SENDING DEFERRED SENT DELIVERED BOUNCED COMPLAINED SKIPPED FAILED IN_DOUBT",
    "MissedSchedulePolicy": "SEND SKIP HOLD",
}


@pytest.mark.parametrize("name", STATES)
def test_states_are_called_as_agreed(published: GraphQLSchema, name: str) -> None:
    """S0-22, S0-23, S0-24, S1-03, S2-26, S3x-10, S3-26."""
    kind = published.type_map[name]
    assert isinstance(kind, GraphQLEnumType)
    assert set(kind.values) == set(STATES[name].split())
