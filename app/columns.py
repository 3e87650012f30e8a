"""Answers all objects of one kind field by field, out of attributes and look-ups, without graphql-core's executor.

A plan says how everything is answered that is asked of one kind of object, down to its last field: attributes, objects
and lists of objects that are attributes, and look-ups (`looked_up` of app/api/declare.py), which are begun for all
objects before any is waited for. What is not of that sort has no plan. Values that are not as the schema has them end
it all: whoever asked answers anew by graphql-core, which says what is wrong.
"""

from asyncio import Future
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from itertools import chain, islice
from operator import attrgetter
from types import NoneType, SimpleNamespace
from typing import Any, TypeAlias, cast

from graphql import (
    GraphQLLeafType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLUnionType,
    Undefined,
    is_leaf_type,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from strawberry.types import Info
from strawberry.types.field import StrawberryField

from app.api.declare import is_looked_up
from app.beside import Beside

DEFINITION = "strawberry-definition"
"""Under which strawberry keeps its own field in one of graphql-core's."""
AS_THEY_ARE: dict[str, type] = {"String": str, "ID": str, "Boolean": bool, "Int": int}
"""The types of values that GraphQL's own scalars write as they are, by the scalars' names."""
LARGEST_INT = 2**31 - 1
TYPENAME = "__typename"

Read: TypeAlias = Callable[[Any], Any]
Steps: TypeAlias = Generator[list["Future[Any]"], None, list[Any]]
"""Gives what is to be waited for, as often as there is something, and in the end a value for each that was asked."""


class Stumbled(Exception):
    """A value is not as the schema has it."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Values without fields."""

    nullable: bool
    as_it_is: type | None
    """The type whose values are written as they are; of integers those of 32 bits, as GraphQL has them."""
    write: Callable[[Any], Any]
    members: dict[int, tuple[Enum, Any]] = field(default_factory=dict)
    """Of an enum, by their ids: each with how it is written."""

    def written(self, values: list[Any]) -> list[Any]:
        """Raises Stumbled, or what the type raises."""
        types = set(map(type, values))
        if NoneType in types:
            if not self.nullable:
                raise Stumbled
            types.discard(NoneType)
        if types <= {self.as_it_is} and (self.as_it_is is not int or all(map(is_small, values))):
            return values
        if all(issubclass(one, Enum) for one in types):
            return [None if value is None else self.member(value) for value in values]
        return [None if value is None else self.checked(value) for value in values]

    def member(self, value: Enum) -> Any:
        known = self.members.get(id(value))
        if known is None:
            known = self.members[id(value)] = (value, self.checked(value))
        return known[1]

    def checked(self, value: Any) -> Any:
        written = self.write(value)
        if written is None or written is Undefined:
            raise Stumbled
        return written


def is_small(value: int | None) -> bool:
    return value is None or -LARGEST_INT - 1 <= value <= LARGEST_INT


@dataclass(frozen=True, slots=True)
class One:
    """Objects."""

    nullable: bool
    type_: GraphQLObjectType
    plan: "Plan"

    def check(self, values: Sequence[Any]) -> None:
        """Raises Stumbled for what is no such object: one of each class is looked at."""
        for value in {type(value): value for value in values}.values():
            if isinstance(value, Exception) or hasattr(value, "__await__"):
                raise Stumbled
            if self.type_.is_type_of is not None and self.type_.is_type_of(value, None) is not True:  # type: ignore[arg-type]
                raise Stumbled


@dataclass(frozen=True, slots=True)
class Many:
    """Lists."""

    nullable: bool
    of: "Kind"


@dataclass(frozen=True, slots=True)
class Name:
    """The name of the object's type."""

    name: str


@dataclass(frozen=True, slots=True)
class Either:
    """Objects of several kinds, told by their classes."""

    nullable: bool
    kinds: dict[type, One]


Kind: TypeAlias = Leaf | One | Many | Name | Either


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a plan: an attribute, or else a look-up."""

    read: Read
    kind: Kind
    is_look_up: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is asked of one kind of object in one place."""

    fields: dict[str, Field]
    """By the names they have in the answer, in its order."""
    look_ups: tuple[str, ...]


Collect: TypeAlias = Callable[[GraphQLObjectType, FieldDetailsList], GroupedFieldSet | None]
"""What is asked of objects of a type in one field; None when it is not all told at once."""


Plans: TypeAlias = dict[tuple[GraphQLObjectType, tuple[int, ...]], tuple[GroupedFieldSet, "Plan | None"]]
"""By type and by the ids of the fields' nodes, which are kept beside the plan: so they are no others' meanwhile."""
PLANS: Beside[Plans] = Beside(dict)
"""Of the operations that are kept, and in which the same is asked whatever the variables."""


class Planner:
    """The plans of one execution."""

    def __init__(self, collect: Collect, plans: Plans) -> None:
        self.collect, self.plans = collect, plans

    def plan(self, type_: GraphQLObjectType, asked: GroupedFieldSet) -> Plan | None:
        """How `asked` is answered, the fields of one place; None when it has no plan."""
        key = (type_, tuple([id(one.node) for details in asked.values() for one in details]))
        known = self.plans.get(key)
        if known is None:
            known = self.plans[key] = (asked, self.made(type_, asked))
        return known[1]

    def made(self, type_: GraphQLObjectType, asked: GroupedFieldSet) -> Plan | None:
        fields: dict[str, Field] = {}
        for name, details in asked.items():
            found = self.field(type_, details)
            if found is None:
                return None
            fields[name] = found
        return Plan(fields, tuple(name for name, one in fields.items() if one.is_look_up))

    def field(self, type_: GraphQLObjectType, details: FieldDetailsList) -> Field | None:
        name = details[0].node.name.value
        if name == TYPENAME:
            return Field(attrgetter("__class__"), Name(type_.name))
        declared = type_.fields.get(name)
        definition = declared.extensions.get(DEFINITION) if declared is not None else None
        if declared is None or not isinstance(definition, StrawberryField) or declared.args:
            return None
        read: Read
        if definition.is_basic_field:
            read, is_look_up = attrgetter(definition.python_name), False
        elif is_looked_up(definition):
            assert definition.base_resolver is not None
            read, is_look_up = cast(Read, definition.base_resolver.wrapped_func), True
        elif is_computed(definition):
            assert definition.base_resolver is not None
            read, is_look_up = cast(Read, definition.base_resolver.wrapped_func), False
        else:
            return None
        kind = self.kind(declared.type, details)
        return None if kind is None else Field(read, kind, is_look_up)

    def kind(self, type_: GraphQLOutputType, details: FieldDetailsList) -> Kind | None:
        """How values of a type are written; None when objects below have no plan."""
        nullable = not isinstance(type_, GraphQLNonNull)
        if isinstance(type_, GraphQLNonNull):
            type_ = type_.of_type
        if isinstance(type_, GraphQLList):
            of = self.kind(type_.of_type, details)
            return None if of is None else Many(nullable, of)
        if is_leaf_type(type_):
            return leaf(type_, nullable)
        if isinstance(type_, GraphQLUnionType):
            kinds = {class_of(one): self.one(one, details, nullable=False) for one in type_.types}
            found = {class_: one for class_, one in kinds.items() if one is not None}
            return Either(nullable, found) if len(found) == len(type_.types) else None
        return self.one(type_, details, nullable=nullable) if isinstance(type_, GraphQLObjectType) else None

    def one(self, type_: GraphQLObjectType, details: FieldDetailsList, *, nullable: bool) -> One | None:
        asked = self.collect(type_, details)
        plan = None if asked is None else self.plan(type_, asked)
        return None if plan is None else One(nullable, type_, plan)


def class_of(type_: GraphQLObjectType) -> type:
    """Of which class the objects of a type are."""
    origin: type = type_.extensions[DEFINITION].origin
    return origin


def is_computed(field: StrawberryField) -> bool:
    """Whether a field is worked out of its object alone."""
    resolver = field.base_resolver
    return (
        resolver is not None
        and not resolver.is_async
        and not field.extensions
        and not field.is_subscription
        and [*resolver.signature.parameters] == ["self"]
    )


@lru_cache(maxsize=1_024)
def leaf(type_: GraphQLLeafType, nullable: bool) -> Leaf:
    """How values of a type without fields are written; one for all requests, since it remembers members of enums."""
    return Leaf(nullable, AS_THEY_ARE.get(type_.name), type_.coerce_output_value)


class LookUps:
    """One field of many objects, each begun and on its way to its value."""

    __slots__ = ("values", "waiting")

    def __init__(self, resolve: Callable[..., Any], sources: Sequence[Any], info: Info[Any, Any]) -> None:
        self.values: list[Any] = [None] * len(sources)
        self.waiting: list[tuple[int, Coroutine[Any, None, Any], Future[Any]]] = []
        for place, source in enumerate(sources):
            self.go_on(place, resolve(source, info=info))

    def go_on(self, place: int, resolver: Coroutine[Any, None, Any]) -> None:
        """Up to the value, or to what is to be waited for before."""
        try:
            future = resolver.send(None)
        except StopIteration as end:
            self.values[place] = end.value
            return
        # A task would say so: it has seen that somebody waits.
        future._asyncio_future_blocking = False
        self.waiting.append((place, resolver, future))

    def all_go_on(self) -> None:
        """Once what they wait for is there."""
        waiting, self.waiting = self.waiting, []
        for place, resolver, _ in waiting:
            self.go_on(place, resolver)


class Columns:
    """Answers by plans, for one request."""

    def __init__(self, context: Any) -> None:
        # Look-ups ask `info` for nothing else.
        self.info: Info[Any, Any] = Info(_raw_info=SimpleNamespace(context=context), _field=None)  # type: ignore[arg-type]

    def answer(self, plan: Plan, source: Any) -> Generator[list["Future[Any]"], None, Any]:
        """What is asked of one object."""
        found: list[Any] = yield from self.answers(plan, [source])
        return found[0]

    def answers(self, plan: Plan, sources: Sequence[Any]) -> Steps:
        """What is asked of each of `sources`. Raises Stumbled, or whatever a resolver or a type raises."""
        if not sources:
            return []
        looked = {name: LookUps(plan.fields[name].read, sources, self.info) for name in plan.look_ups}
        while waiting := [one[2] for of in looked.values() for one in of.waiting]:
            yield waiting
            for of in looked.values():
                of.all_go_on()
        if not plan.fields:
            return [{} for _ in sources]
        columns = []
        for name, one in plan.fields.items():
            values = looked[name].values if one.is_look_up else [*map(one.read, sources)]
            columns.append((yield from self.written(one.kind, values)))
        return [dict(zip(plan.fields, row, strict=True)) for row in zip(*columns, strict=True)]

    def written(self, kind: Kind, values: list[Any]) -> Steps:
        """Each of `values` as the answer has it."""
        if isinstance(kind, Leaf):
            return kind.written(values)
        if isinstance(kind, Name):
            return [kind.name] * len(values)
        present = [value for value in values if value is not None]
        if len(present) < len(values) and not kind.nullable:
            raise Stumbled
        if isinstance(kind, Either):
            return (yield from self.told_apart(kind, values))
        if isinstance(kind, One):
            kind.check(present)
            made = yield from self.answers(kind.plan, present)
            if len(made) == len(values):
                return made
            each = iter(made)
            return [None if value is None else next(each) for value in values]
        if not all(isinstance(value, list | tuple) for value in present):
            raise Stumbled
        items = iter((yield from self.written(kind.of, [*chain.from_iterable(present)])))
        return [None if value is None else [*islice(items, len(value))] for value in values]

    def told_apart(self, kind: Either, values: list[Any]) -> Steps:
        """Each of `values`, kind by kind."""
        answers: list[Any] = [None] * len(values)
        for class_ in set(map(type, values)) - {NoneType}:
            one = kind.kinds.get(class_)
            if one is None:
                raise Stumbled
            places = [place for place, value in enumerate(values) if type(value) is class_]
            made = yield from self.written(one, [values[place] for place in places])
            for place, answer in zip(places, made, strict=True):
                answers[place] = answer
        return answers
