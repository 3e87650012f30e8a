"""Where userErrors say the mistake is: in a field of the very input that was sent.

Every mutation is sent inputs that fit the schema and are wrong in other ways. Seeded, so that a run is like the one
before.
"""

from random import Random
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    is_required_input_field,
)

from app.problems import CLIENT_KEYS
from app.schema import build_schema
from app.settings import Settings
from tests.app.caller import Caller
from tests.app.conftest import client_of
from tests.app.test_api_campaigns import instant, make
from tests.app.test_api_progress import execute
from tests.app.test_api_tenants import theirs  # noqa: F401

SEED = 7
TRIES = 12
"""Inputs of each mutation."""
WRONG: dict[str, list[Any]] = {
    "ID": ["999999", "no id"],
    "String": [
        "",
        " ",
        "x",
        "ada",
        "a@x.example",
        "no\x00thing",
        "long " * 2_000,
        "{{ no_such.thing }}",
        "https://x.example",
    ],
    "Int": [-1, 0, 1, 3, 10**9],
    "Float": [-1.5, 0, 0.5, 10**12],
    "Boolean": [True, False],
    "DateTime": ["1970-01-01T00:00:00Z", "2030-01-01T00:00:00Z", "9999-01-01T00:00:00Z"],
    "JSON": [{}, [], "x", 7, {"identified": True}, {"all": []}, {"trait": {"name": ""}}],
    "ConditionValue": ["x", 7, True, ["a", "b"]],
}


def nobody_like(id: str) -> str:
    """An id of the same kind, of nothing."""
    return id[:-6] + "000000"


class Wrong:
    """Inputs that fit the schema, at random; ids are often of something that is there."""

    def __init__(self, mutation: str, known: list[tuple[str, str]]) -> None:
        self.random, self.mutation, self.known = Random(f"{SEED} {mutation}"), mutation, known

    def id(self, name: str) -> str:
        """For a field of this name: often of the kind that it asks for."""
        asked = (self.mutation if name == "id" else name).lower()
        fitting = [id for kind, id in self.known if kind in asked] or [id for _, id in self.known]
        one = self.random.choice(fitting)
        chosen: str = self.random.choice([one, one, one, nobody_like(one), *WRONG["ID"]])
        return chosen

    def value(self, type_: GraphQLInputType, name: str, depth: int = 0) -> Any:
        if isinstance(type_, GraphQLNonNull):
            return self.value(type_.of_type, name, depth)
        if isinstance(type_, GraphQLList):
            items = [self.value(type_.of_type, name, depth + 1) for _ in range(self.random.choice([0, 1, 1, 2]))]
            return items * self.random.choice([1, 1, 2])
        if isinstance(type_, GraphQLEnumType):
            return self.random.choice([*type_.values])
        if isinstance(type_, GraphQLInputObjectType):
            return self.object(type_, depth + 1)
        return self.id(name) if type_.name == "ID" else self.random.choice(WRONG[type_.name])

    def object(self, type_: GraphQLInputObjectType, depth: int = 0) -> dict[str, Any]:
        if type_.is_one_of:
            shallow = [name for name in type_.fields if depth < 4 or name not in ("all", "any", "not")]
            name = self.random.choice(shallow)
            return {name: self.value(type_.fields[name].type, name, depth)}
        share = self.random.choice([0, 0.2, 0.5]) if depth < 5 else 0
        return {
            name: self.value(field.type, name, depth)
            for name, field in type_.fields.items()
            if is_required_input_field(field) or self.random.random() < share
        }


def stands_in(type_: GraphQLInputType, path: list[str]) -> bool:
    """Whether a path of a userError leads through an input of this type; below what is the client's own it may say
    anything."""
    if isinstance(type_, GraphQLNonNull):
        return stands_in(type_.of_type, path)
    if not path:
        return True
    first, *rest = path
    if isinstance(type_, GraphQLList):
        return first.isdigit() and stands_in(type_.of_type, rest)
    if isinstance(type_, GraphQLInputObjectType):
        field = type_.fields.get(first)
        return field is not None and (first in CLIENT_KEYS or stands_in(field.type, rest))
    return type_.name in ("JSON", "ConditionValue")


def mutations(schema: GraphQLSchema) -> dict[str, GraphQLInputObjectType]:
    """The input of each mutation."""
    assert schema.mutation_type is not None
    found = {}
    for name, field in schema.mutation_type.fields.items():
        assert [*field.args] == ["input"], name
        type_ = field.args["input"].type
        assert isinstance(type_, GraphQLNonNull)
        found[name] = type_.of_type
    return found


async def odd_things(caller: Caller) -> list[tuple[str, str]]:
    """Segments and campaigns that few mutations can be done to, each with its kind."""
    kept = {"name": "D", "type": "DYNAMIC", "definition": {"identified": True}}
    draft, never, paused = [(await caller.data("SegmentCreate", input=kept))["segment"]["id"] for _ in range(3)]
    for one in (never, paused):
        await caller.data("SegmentActivate", input={"id": one})
    await caller.data("SegmentPause", input={"id": paused})
    campaigns = [await make(caller, segmentIds=[one], refreshBefore=False) for one in (draft, never, paused)]
    campaigns.append(await make(caller, senderId=None))
    late = await make(caller, expiresAt=instant(hours=1))
    await execute(caller, "UPDATE campaign SET expires_at = now() WHERE expires_at IS NOT NULL")
    query = {"name": "Q", "sql": "SELECT profile_id FROM events"}
    saved = (await caller.data("SavedQueryCreate", input=query))["savedQuery"]["id"]
    return [
        *(("segment", one) for one in (draft, never, paused)),
        *(("campaign", one) for one in (*campaigns, late)),
        ("query", saved),
    ]


async def test_what_an_error_names_is_a_field_of_the_input(
    settings: Settings,
    foreigner: Caller,
    theirs: dict[str, str],  # noqa: F811
) -> None:
    """Or of the thing whose id the input has, as its update takes it: what is wrong with a campaign to be sent."""
    astray: dict[tuple[str, str], Any] = {}
    refusals: set[tuple[str, str]] = set()
    known = [*theirs.items(), *await odd_things(foreigner)]
    inputs = mutations(build_schema(introspection=True)._schema)
    things = {name.removesuffix("Update"): of for name, of in inputs.items() if name.endswith("Update")}
    async with client_of(settings.model_copy(update={"rate_limit": 10**9})) as http:
        caller = Caller(http, foreigner.workspace_id, foreigner.key)
        # What deletes comes last.
        for name, type_ in sorted(inputs.items(), key=lambda one: one[0].endswith("Delete")):
            wrong, updates = Wrong(name, known), [of for thing, of in things.items() if name.startswith(thing)]
            text = f"mutation ($input: {type_.name}!) {{ {name}(input: $input) {{ userErrors {{ field code }} }} }}"
            for _ in range(TRIES):
                input = wrong.object(type_)
                answer = (await caller.post(text, {"input": input})).json()
                for error in ((answer.get("data") or {}).get(name) or {}).get("userErrors", []):
                    field = error["field"] or ["input"]
                    refusals.add((name, error["code"]))
                    if field[:1] != ["input"] or not any(stands_in(one, field[1:]) for one in (type_, *updates)):
                        astray[name, ".".join(field)] = (error, input)
    assert astray == {}
    assert len(refusals) > 100
