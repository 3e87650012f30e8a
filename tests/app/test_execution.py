"""The short way of app/execution.py answers what graphql-core's own does, errors and all."""

import ast
import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Union

import pytest
import strawberry
from graphql import GraphQLObjectType, GraphQLSchema
from strawberry.dataloader import DataLoader
from strawberry.types import Info

from app.api import declare
from app.api.declare import looked_up
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


@strawberry.type
class Note:
    text: str


class Rows:
    """What look-ups find: gathered, and in as many turns as there are keys that wait for one another."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.names = DataLoader(load_fn=self.load)

    async def load(self, keys: list[int]) -> list[Any]:
        self.asked.append(keys)
        await asyncio.sleep(0)
        return [ValueError("broken") if key == 13 else None if key % 5 == 0 else f"name {key}" for key in keys]


@strawberry.type
class Item:
    number: strawberry.Private[int]

    @looked_up
    async def name(self, info: Info[Any, Any]) -> str | None:
        """Null where there is none."""
        found: str | None = await info.context.names.load(self.number)
        return found

    @looked_up
    async def other(self, info: Info[Any, Any]) -> "Item | None":
        """Another one, after two look-ups of which one waits for the other."""
        if self.number > 20:
            return None
        name = await info.context.names.load(self.number + 100)
        return Item(number=self.number + len(await info.context.names.load(len(name or "")) or ""))

    @looked_up
    async def surely(self, info: Info[Any, Any]) -> str:
        """Wrong where there is none."""
        found: str = await info.context.names.load(self.number)
        return found

    @strawberry.field
    def twice(self) -> int:
        """Worked out."""
        return self.number * 2

    @strawberry.field
    def parts(self) -> list[Annotated[Union["Item", Note], strawberry.union("Part")]]:
        """Of two kinds."""
        return [Note(text=f"of {self.number}"), Item(number=self.number + 1)] if self.number < 15 else []

    @strawberry.field
    def numbers(self) -> list[list[int] | None] | None:
        """Lists in lists."""
        return [[self.number], None, []] if self.number % 2 else None


@strawberry.type
class Items:
    @strawberry.field
    def items(self, numbers: list[int]) -> list[Item | None]:
        """Null for 0."""
        return [Item(number=number) if number else None for number in numbers]


ASKED = "query ($n: [Int!]!) { items(numbers: $n) { %s } }"
ITEMS = [[1, 2, 3, 7], [1, 0, 4], [5, 6], [13, 1], [12, 14], []]
SELECTIONS = [
    "name twice __typename",
    "numbers other { name other { twice surely } }",
    "twice surely",
    "parts { __typename ... on Note { text } ... on Item { i: name twice } }",
    "twice @include(if: true) name @skip(if: true)",
    "name @skip(if: true)",
]


async def test_objects_of_attributes_and_look_ups_are_answered_without_the_long_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing but the root field, which has an argument."""
    long_way, field_by_field = list[str](), Execution.field_by_field

    def noted(self: Execution, type_: GraphQLObjectType, *rest: Any) -> Any:
        long_way.append(type_.name)
        return field_by_field(self, type_, *rest)

    monkeypatch.setattr(Execution, "field_by_field", noted)
    schema = strawberry.Schema(query=Items, execution_context_class=Execution)
    shorten(schema._schema)
    for selection in SELECTIONS[0], SELECTIONS[3], SELECTIONS[4], SELECTIONS[5]:
        answer = await schema.execute(ASKED % selection, variable_values={"n": [1, 2]}, context_value=Rows())
        assert answer.errors is None
    assert long_way == ["Items"] * 4


async def test_look_ups_are_gathered_and_answer_what_the_long_way_does() -> None:
    """Each look-up is asked for as often, and once for all items; whatever breaks is told as graphql-core tells it."""
    long, short = strawberry.Schema(query=Items), strawberry.Schema(query=Items, execution_context_class=Execution)
    shorten(short._schema)
    for selection in SELECTIONS:
        for numbers in (*ITEMS, ITEMS[0]):
            answers, rows = [], [Rows(), Rows()]
            for schema, context in zip((long, short), rows, strict=True):
                answers.append(
                    await schema.execute(ASKED % selection, variable_values={"n": numbers}, context_value=context)
                )
            expected, found = answers
            assert found.data == expected.data, (selection, numbers)
            assert orders(found.data) == orders(expected.data), (selection, numbers)
            assert told(found.errors) == told(expected.errors), (selection, numbers)
            assert expected.data is not None, (selection, numbers)
            if not expected.errors:
                assert [sorted(keys) for keys in rows[1].asked] == [sorted(keys) for keys in rows[0].asked], selection


def test_what_is_looked_up_awaits_loaders_alone() -> None:
    """A transaction of its own would become that of all others that are begun beside it."""
    helpers = {"names_of", "progress_of", "standing"}
    seen = 0
    for path in sorted((Path(declare.__file__).parent).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AsyncFunctionDef) and (
                node.name in helpers or any(ast.unparse(one) == "looked_up" for one in node.decorator_list)
            ):
                seen += 1
                assert "info" in {one.arg for one in node.args.args}, node.name
                for one in ast.walk(node):
                    assert not isinstance(one, ast.AsyncWith | ast.AsyncFor), (path.stem, node.name)
                    if isinstance(one, ast.Await):
                        said = ast.unparse(one.value)
                        named = said.removeprefix("self.").partition("(")[0]
                        assert ".loaders." in said or named in helpers or said == "name", (path.stem, node.name, said)
    assert seen > 25
