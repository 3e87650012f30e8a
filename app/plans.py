"""Plans: how the answer to a known GraphQL operation on `banners` is written, without executing it.

An operation's text is parsed and validated once, as any other; if it asks for the one root field `banners` with plain
arguments, the plan writes what its execution would, byte for byte, out of what was served. Whatever is not plain (two
root fields, directives, defaults of variables ...) has no plan and is executed. GET /v1/banners is a plan too, of the
operation that asks for everything.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import orjson
from graphql import (
    ArgumentNode,
    BooleanValueNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    ListValueNode,
    NullValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    StringValueNode,
    ValueNode,
    VariableNode,
    parse,
)

from app.banner_json import TYPES, Out, Selection, Write, decision_writer
from app.reading import CACHED_DOCUMENTS, prepared
from app.serving import Asked, Served

ARGUMENTS = {"placements", "externalId", "locale", "offline"}


class NoPlan(Exception):
    """The operation must be executed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to answer one operation."""

    begin: bytes
    end: bytes
    write: Write[None]
    arguments: Mapping[str, Any]
    """Values as written in the operation, or a VariableNode."""
    is_tagged: bool = False
    """Whether its answers have an ETag, as those to a GET do."""

    def asked(self, variables: Mapping[str, Any]) -> Asked | None:
        """What an operation with these variables wants; None when it must be executed, if only to be refused."""
        given = {}
        for name, value in self.arguments.items():
            if isinstance(value, VariableNode):
                if value.name.value not in variables:
                    continue
                value = variables[value.name.value]
            given[name] = value
        placements, offline = given.get("placements"), given.get("offline", False)
        if not isinstance(placements, list) or not all(type(one) is str for one in placements):
            return None
        texts = (given.get("externalId"), given.get("locale"))
        if type(offline) is not bool or not all(one is None or type(one) is str for one in texts):
            return None
        return Asked(tuple(placements), external_id=texts[0], locale=texts[1], offline=offline)

    def answer(self, served: Served, asked: Asked) -> tuple[bytes, ...]:
        """The answer in parts, with AGE for its age: own ones and such as other answers may have too, in turn."""
        out = Out()
        out.append(self.begin)
        self.write(out, served, asked, None)
        out.append(self.end)
        return out.parts()


# --- from text to a plan ------------------------------------------------------------------------------------------


@lru_cache(maxsize=CACHED_DOCUMENTS)
def plan_of(schema: GraphQLSchema, text: str, operation_name: str | None, introspection: bool) -> Plan | None:
    """The plan of an operation; None when there is none."""
    try:
        document, errors = prepared(schema, text, introspection)
        if errors:
            return None
        fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
        return plan_operation(operations, fragments, operation_name)
    except (GraphQLError, NoPlan):
        return None


def plan_operation(
    operations: Sequence[OperationDefinitionNode],
    fragments: Mapping[str, FragmentDefinitionNode],
    operation_name: str | None,
) -> Plan:
    """Raises NoPlan."""
    if len(operations) != 1 or operations[0].operation is not OperationType.QUERY:
        raise NoPlan
    (operation,) = operations
    named = operation.name.value if operation.name else None
    defaults = any(one.default_value is not None or one.directives for one in operation.variable_definitions or ())
    if operation_name not in (None, named) or operation.directives or defaults:
        raise NoPlan
    if len(operation.selection_set.selections) != 1:
        raise NoPlan
    (root,) = operation.selection_set.selections
    if not isinstance(root, FieldNode) or root.name.value != "banners" or root.directives or not root.selection_set:
        raise NoPlan
    selections = tuple(selected(root.selection_set, "BannerDecision", fragments))
    key = orjson.dumps((root.alias or root.name).value)
    return Plan(
        begin=b'{"data":{' + key + b":",
        end=b"}}",
        write=decision_writer(selections),
        arguments={one.name.value: constant(one) for one in root.arguments or ()},
    )


def constant(argument: ArgumentNode) -> Any:
    """The value of an argument, or the variable that has it; raises NoPlan."""
    if argument.name.value not in ARGUMENTS:
        raise NoPlan
    return argument.value if isinstance(argument.value, VariableNode) else literal(argument.value)


def literal(node: ValueNode) -> Any:
    """A value written into an operation; raises NoPlan."""
    match node:
        case StringValueNode() | BooleanValueNode():
            return node.value
        case NullValueNode():
            return None
        case ListValueNode():
            return [literal(one) for one in node.values]
        case _:
            raise NoPlan


def selected(
    node: SelectionSetNode, type_name: str, fragments: Mapping[str, FragmentDefinitionNode]
) -> Iterator[Selection]:
    """What is selected of a type, fragments written out; raises NoPlan where two selections would have to be merged."""
    seen: dict[str, Selection] = {}
    for one in written_out(node, type_name, fragments):
        key = (one.alias or one.name).value
        below = TYPES[type_name].get(one.name.value, "" if one.name.value == "__typename" else None)
        if below is None or one.arguments or one.directives:
            raise NoPlan
        selections: tuple[Selection, ...] = ()
        if below:
            assert one.selection_set is not None  # validation has made sure
            selections = tuple(selected(one.selection_set, below, fragments))
        found = Selection(key, one.name.value, selections)
        if seen.setdefault(key, found) != found:
            raise NoPlan
    yield from seen.values()


def written_out(
    node: SelectionSetNode, type_name: str, fragments: Mapping[str, FragmentDefinitionNode]
) -> Iterator[FieldNode]:
    """The fields of a selection set and its fragments, in order; raises NoPlan."""
    for one in node.selections:
        match one:
            case FieldNode():
                yield one
            case InlineFragmentNode() if not one.directives:
                condition = one.type_condition.name.value if one.type_condition else type_name
                if condition != type_name:
                    raise NoPlan
                yield from written_out(one.selection_set, type_name, fragments)
            case FragmentSpreadNode() if not one.directives:
                definition = fragments[one.name.value]
                if definition.type_condition.name.value != type_name or definition.directives:
                    raise NoPlan
                yield from written_out(definition.selection_set, type_name, fragments)
            case _:
                raise NoPlan


# --- GET /v1/banners ----------------------------------------------------------------------------------------------

EVERYTHING = """
{ banners(placements: []) {
    maxAgeSeconds viewerToken viewer
    placements { placement banner { ...B } further { ...B } hidden limits { ...L } %s } } }
fragment B on Banner {
  id contentVersion
  content {
    title body imageUrl darkImageUrl imageAlt actionLabel actionUrl backgroundColor textColor accentColor data
  }
  inTest limits { ...L } impressionToken
}
fragment L on BannerLimits { perSession perDay lifetime stopAfterClick stopAfterDismissal }
"""
ROTATION = """
rotation {
  windowSeconds window slots candidates { weight priority held startsAt expiresAt banner { ...B } } }
"""


def rest_plan(*, offline: bool) -> Plan:
    """How GET /v1/banners is answered: as an operation that selects everything, without what GraphQL puts around it."""
    document = parse(EVERYTHING % (ROTATION if offline else ""))
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    return replace(plan_operation(operations, fragments, None), begin=b"", end=b"", is_tagged=True)


REST, REST_OFFLINE = rest_plan(offline=False), rest_plan(offline=True)
