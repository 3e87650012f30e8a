"""Executes documents: graphql-core's executor, with short ways for attributes and for look-ups.

Nearly all fields of an answer are attributes of an object that is there already, or what a look-up finds; graphql-core
makes a path, a ResolveInfo and some twenty calls for each, and a task for each look-up. Objects of which nothing else
is asked, down to the last field, are answered by app/columns.py, and of all others the attributes here. What is not
plain goes graphql-core's way, and so does an object of which something cannot be written as it is declared: reading it
again changes nothing, and the error is the same.
"""

from asyncio import Future, wait
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from graphql import (
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
    get_nullable_type,
    is_leaf_type,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from graphql.pyutils import AwaitableOrValue, Path
from graphql.type import GraphQLResolveInfo
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types import Info
from strawberry.types.field import StrawberryField

from app.columns import AS_THEY_ARE, DEFINITION, PLANS, Columns, Planner, Plans, Steps


@dataclass(frozen=True, slots=True)
class Attribute:
    """How a field is answered that is an attribute."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any]
    as_it_is: type | None
    """The type whose values are written as they are; of integers those of 32 bits, as GraphQL has them."""
    nullable: bool


@dataclass(frozen=True, slots=True)
class Sorted:
    """The fields that are asked of one kind of object in one place."""

    asked: GroupedFieldSet
    """Kept, so that its id is no other's while this is remembered."""
    attributes: list[tuple[str, Attribute]]
    """By the names they have in the answer."""
    others: GroupedFieldSet


@lru_cache(maxsize=4_096)
def attribute_of(parent_type: GraphQLObjectType, field_name: str) -> Attribute | None:
    """How a field is answered; None when it is no attribute, or no value by itself."""
    field = parent_type.fields.get(field_name)
    if field is None:
        return None
    definition = field.extensions.get(DEFINITION)
    nullable = not isinstance(field.type, GraphQLNonNull)
    type_ = get_nullable_type(field.type)
    if not isinstance(definition, StrawberryField) or not definition.is_basic_field or not is_leaf_type(type_):
        return None
    as_it_is = AS_THEY_ARE.get(type_.name)
    return Attribute(attrgetter(definition.python_name), type_.coerce_output_value, as_it_is, nullable)


def shorten(schema: GraphQLSchema) -> None:
    """Call the resolvers that take nothing but their object and `info` at once.

    strawberry converts arguments, wraps extensions and awaits three times around each, also where there are none.
    """
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLObjectType):
            for field in type_.fields.values():
                definition = field.extensions.get(DEFINITION)
                if isinstance(definition, StrawberryField) and is_bare(definition) and not field.args:
                    field.resolve = called(definition)


def is_bare(field: StrawberryField) -> bool:
    """Whether a field is a resolver called with its object and `info`, and nothing else around it."""
    resolver = field.base_resolver
    return (
        resolver is not None
        and not field.extensions
        and not field.is_subscription
        and [*resolver.signature.parameters] == ["self", "info"]
    )


def called(field: StrawberryField) -> Callable[[Any, Any], Any]:
    """The resolver of a bare field, as graphql-core calls it."""
    resolver: Any = field.base_resolver

    def resolve(source: Any, info: Any) -> Any:
        return resolver(source, info=Info(_raw_info=info, _field=field))

    return resolve


class Execution(StrawberryGraphQLCoreExecutionContext):
    """The execution of one operation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sorted: dict[tuple[GraphQLObjectType, int], Sorted] = {}
        self.planner = Planner(self.asked_below, self.plans())
        self.columns = Columns(self.context_value)

    def build_per_event_executor(self, payload: Any) -> Any:
        """The execution of one event of a subscription.

        What is asked for is collected anew for each, and all that is remembered of it goes with it: else whoever
        follows something for a day keeps a day's. graphql-core shares its own memory among all events too.
        """
        one: Any = super().build_per_event_executor(payload)
        one.sorted, one._relevant_sub_fields = {}, {}
        one.planner = Planner(one.asked_below, one.plans())
        return one

    def plans(self) -> Plans:
        """The plans of this operation; where directives may leave something out, of this execution alone."""
        location = self.operation.loc
        return {} if location is None or "@" in location.source.body else PLANS.of(self.operation)

    def asked_below(self, type_: GraphQLObjectType, details: FieldDetailsList) -> GroupedFieldSet | None:
        """What a field asks of objects of a type; None when some of it is told later."""
        asked, told_later, _ = self.collect_subfields(type_, details)
        return None if told_later else asked

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """The answer of one object."""

        def long() -> AwaitableOrValue[dict[str, Any]]:
            return self.field_by_field(parent_type, source_value, path, grouped_field_set, position_context)

        plan = self.planner.plan(parent_type, grouped_field_set)
        if plan is None:
            return long()
        return self.at_once(self.columns.answer(plan, source_value), long)

    def complete_list_value(
        self,
        return_type: GraphQLList[Any],
        field_details_list: FieldDetailsList,
        info: GraphQLResolveInfo[Any],
        path: Path,
        result: Any,
        position_context: Any,
    ) -> AwaitableOrValue[list[Any]]:
        """The answers of all items of a list."""

        def long() -> AwaitableOrValue[list[Any]]:
            return super(Execution, self).complete_list_value(
                return_type, field_details_list, info, path, result, position_context
            )

        kind = self.planner.kind(return_type.of_type, field_details_list) if type(result) is list else None
        return long() if kind is None else self.at_once(self.columns.written(kind, result), long)

    def at_once(self, steps: Steps, long: Callable[[], AwaitableOrValue[Any]]) -> AwaitableOrValue[Any]:
        """What `steps` come to, or `long` if they stumble."""
        try:
            waiting = next(steps)
        except StopIteration as end:
            return end.value
        except Exception:
            return long()
        return self.awaited(steps, waiting, long)

    async def awaited(
        self, steps: Steps, waiting: list["Future[Any]"], long: Callable[[], AwaitableOrValue[Any]]
    ) -> Any:
        """Like `at_once`, from the first wait on."""
        try:
            while True:
                for future in waiting:
                    if not future.done():
                        # It raises where it was asked for.
                        await wait((future,))
                waiting = next(steps)
        except StopIteration as end:
            return end.value
        except Exception:
            answer = long()
        return await answer if self.is_awaitable(answer) else answer

    def field_by_field(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """The answer of one object of which other things are asked too."""
        fields = self.sorted_fields(parent_type, grouped_field_set)
        answer: dict[str, Any] = {}
        try:
            for name, attribute in fields.attributes:
                value = attribute.read(source_value)
                if value is None:
                    if not attribute.nullable:
                        raise TypeError(name)
                elif type(value) is not attribute.as_it_is or (type(value) is int and value.bit_length() > 31):
                    value = attribute.write(value)
                    if value is None or value is Undefined:
                        raise TypeError(name)
                answer[name] = value
        except Exception:
            return super().execute_fields(parent_type, source_value, path, grouped_field_set, position_context)
        if not fields.others:
            return answer
        rest = super().execute_fields(parent_type, source_value, path, fields.others, position_context)
        if isinstance(rest, dict):
            return in_order(grouped_field_set, answer, rest)

        async def awaited() -> dict[str, Any]:
            return in_order(grouped_field_set, answer, await rest)

        return awaited()

    def sorted_fields(self, parent_type: GraphQLObjectType, asked: GroupedFieldSet) -> Sorted:
        """The fields of `asked`, which is the same object for all objects of a list."""
        found = self.sorted.get((parent_type, id(asked)))
        if found is None:
            attributes, others = [], {}
            for name, details in asked.items():
                attribute = attribute_of(parent_type, details[0].node.name.value)
                if attribute is None:
                    others[name] = details
                else:
                    attributes.append((name, attribute))
            found = self.sorted[parent_type, id(asked)] = Sorted(asked, attributes, others)
        return found


def in_order(asked: GroupedFieldSet, *answers: dict[str, Any]) -> dict[str, Any]:
    """The answers put together in the order in which they were asked for."""
    found: dict[str, Any] = {}
    for answer in answers:
        found |= answer
    return {name: found[name] for name in asked if name in found}
