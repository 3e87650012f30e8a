"""The short way of app/execution.py answers what graphql-core's own does, errors and all."""

import gc
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import strawberry
from graphql import GraphQLObjectType, GraphQLSchema
from strawberry.types import Info

from app.execution import Execution, Sorted, called, shorten
from app.schema import build_schema


@strawberry.enum
class Colour(Enum):
    RED = "red"


@strawberry.type
class Thing:
    id: strawberry.ID
    name: str
    number: int
    share: float
    colour: Colour
    is_new: bool
    at: datetime
    maybe: str | None
    tags: list[str]

    @strawberry.field
    async def later(self, info: Info[Any, Any]) -> "Thing | None":
        """Itself, through a resolver that is awaited."""
        return self if info.path.prev and self.is_new else None

    @strawberry.field
    async def broken(self, info: Info[Any, Any]) -> str:
        """Raises."""
        raise ValueError(f"{self.name} at {info.path.key}")

    @strawberry.field
    def said(self, often: int) -> str:
        """With an argument, which strawberry converts."""
        return self.name * often


def thing(**other: Any) -> Thing:
    """A thing, in which what is given need not be what is declared."""
    usual: dict[str, Any] = {
        "id": "a",
        "name": "n",
        "number": 2**31 - 1,
        "share": 0.5,
        "colour": Colour.RED,
        "is_new": True,
        "at": datetime(2026, 3, 1, tzinfo=UTC),
        "maybe": None,
        "tags": ["x"],
    }
    return Thing(**(usual | other))


THINGS = [
    thing(),
    thing(maybe="m", is_new=False, id=7, share=1),
    thing(name=None),
    thing(number=2**31),
    thing(number=-(2**31)),
    thing(number="12"),
    thing(number="no number"),
    thing(colour="RED"),
    thing(colour=Colour.RED, is_new=1),
    thing(maybe=5, name=True),
    thing(at="never"),
]
QUERIES = [
    "{ things { __typename at colour id isNew maybe name number share tags } }",
    "{ things { number later { id later { maybe number } name } n: name said(often: 2) id } }",
    "{ things { id broken } }",
    "{ maybeThings { name broken number } }",
    "query ($yes: Boolean!) { maybeThings { name @include(if: $yes) later { id } ...F } } fragment F on Thing"
    " { number name }",
]


@strawberry.type
class Query:
    @strawberry.field
    def things(self) -> list[Thing]:
        """Each alone is asked for, so that one error does not hide another."""
        return [asked]

    @strawberry.field
    def maybe_things(self) -> list[Thing | None]:
        """With a place for the null of one that cannot be written."""
        return [asked, THINGS[0]]


asked = THINGS[0]


async def test_the_short_way_answers_what_the_long_way_does() -> None:
    """Values, nulls, order, errors, and where these are; of things that are declared and of those that are not."""
    global asked
    long, short = strawberry.Schema(query=Query), strawberry.Schema(query=Query, execution_context_class=Execution)
    shorten(short._schema)
    for asked in THINGS:
        for text in QUERIES:
            expected, found = [await schema.execute(text, variable_values={"yes": True}) for schema in (long, short)]
            assert found.data == expected.data, (text, asked)
            if expected.data:
                assert orders(found.data) == orders(expected.data), (text, asked)
            assert told(found.errors) == told(expected.errors), (text, asked)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def followed(self) -> AsyncIterator[Thing]:
        """Told a few times."""
        for name in ("a", "b", "c", "d"):
            yield thing(name=name)


async def test_an_event_leaves_nothing_behind_with_whoever_follows() -> None:
    """Else one who follows a campaign for a day fills the memory by every second of it."""
    schema = strawberry.Schema(query=Query, subscription=Subscription, execution_context_class=Execution)
    told_names, kept = [], []
    events = await schema.subscribe("subscription { followed { name number tags } }")
    assert not isinstance(events, strawberry.types.ExecutionResult)
    async for event in events:
        told_names.append(event.data and event.data["followed"]["name"])
        gc.collect()
        kept.append(sum(isinstance(one, Sorted) for one in gc.get_objects()))
    assert told_names == ["a", "b", "c", "d"]
    assert len(set(kept)) == 1, kept


def orders(value: Any) -> Any:
    """The names of objects in the order in which they stand."""
    if isinstance(value, dict):
        return [(name, orders(below)) for name, below in value.items()]
    return [orders(one) for one in value] if isinstance(value, list) else None


def told(errors: Any) -> list[tuple[Any, ...]]:
    return [(error.message, error.path, error.locations) for error in errors or ()]


def test_resolvers_without_arguments_are_called_at_once() -> None:
    schema: GraphQLSchema = build_schema(introspection=False)._schema
    segment = schema.type_map["Segment"]
    assert isinstance(segment, GraphQLObjectType)
    ours = called.__qualname__
    short = {
        name for name, field in segment.fields.items() if getattr(field.resolve, "__qualname__", "").startswith(ours)
    }
    assert {"brand", "summary", "size", "lastEvaluation"} <= short
    assert not short & {"name", "evaluations", "members"}, "an attribute, and two with arguments"
