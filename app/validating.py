"""Validates documents: graphql-core's rules, without asking each of them about each node.

graphql-core calls every rule's place in a list for every node, and looks at names as nodes of their own, which no rule
does. A rule is called here for the kinds of nodes that it knows, and names are passed by: half the work.
"""

from collections.abc import Collection
from typing import Any

from graphql import (
    BREAK,
    SKIP,
    ASTValidationRule,
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    Node,
    OperationDefinitionNode,
    TypeInfo,
    TypeInfoVisitor,
    ValidationContext,
    Visitor,
    visit,
)
from graphql.language.visitor import EnterLeaveVisitor, VisitorKeyMap
from graphql.validation.validate import (
    FragmentNestingVisitor,
    ValidationAbortedError,
    query_document_keys_to_validate,
)
from graphql.validation.validation_context import VariableUsage, VariableUsageVisitor

NAMES = {"name", "alias"}
KEYS = {kind: tuple(key for key in keys if key not in NAMES) for kind, keys in query_document_keys_to_validate.items()}


class Together(Visitor):
    """Visitors that go through a document together, each up to where it skips or ends."""

    def __init__(self, visitors: Collection[Visitor]) -> None:
        super().__init__()
        self.visitors = visitors
        self.skipping: list[Any] = [None] * len(visitors)

    def get_enter_leave_for_kind(self, kind: str) -> EnterLeaveVisitor:
        known = self.enter_leave_map.get(kind)
        if known is None:
            known = self.enter_leave_map[kind] = self.both(kind)
        return known

    def both(self, kind: str) -> EnterLeaveVisitor:
        """What enters and leaves nodes of a kind; of both None when no visitor knows it."""
        skipping, found = self.skipping, [one.get_enter_leave_for_kind(kind) for one in self.visitors]
        entering = [(place, one.enter) for place, one in enumerate(found) if one.enter]
        # Who entered one may have skipped it, and goes on behind it.
        leaving = [(place, one.leave) for place, one in enumerate(found) if one.enter or one.leave]

        def enter(*at: Any) -> None:
            for place, act in entering:
                if skipping[place] is None:
                    said: Any = act(*at)
                    if said is SKIP or said is False:
                        skipping[place] = at[0]
                    elif said is BREAK or said is True:
                        skipping[place] = BREAK

        def leave(*at: Any) -> None:
            for place, act in leaving:
                if skipping[place] is None:
                    if act is not None and act(*at) in (BREAK, True):
                        skipping[place] = BREAK
                elif skipping[place] is at[0]:
                    skipping[place] = None

        return EnterLeaveVisitor(enter if entering else None, leave if leaving else None)


def visit_once(node: Node, visitor: Visitor, keys: VisitorKeyMap | None = None) -> None:
    """Have a visitor go through a document, and forget its own methods: one that knows them is not gone, nor is the
    document that it knows, before garbage is looked for, which holds up everybody."""
    try:
        visit(node, visitor, keys)
    finally:
        visitor.enter_leave_map.clear()


class Document(ValidationContext):
    """What rules ask of a document, graphql-core's way; what looks for variables in it is gone when it has."""

    def get_variable_usages(self, node: OperationDefinitionNode | FragmentDefinitionNode) -> list[VariableUsage]:
        usages = self._variable_usages.get(node)
        if usages is None:
            visitor = VariableUsageVisitor(self._type_info, node if isinstance(node, FragmentDefinitionNode) else None)
            visit_once(node, TypeInfoVisitor(self._type_info, visitor))
            visitor.enter_leave_map.clear()
            usages = self._variable_usages[node] = visitor.usages
        return usages


def validated(
    schema: GraphQLSchema, document: DocumentNode, rules: Collection[type[ASTValidationRule]], *, most_errors: int
) -> list[GraphQLError]:
    """Like graphql-core's validate, of a schema that is valid."""
    errors: list[GraphQLError] = []

    def note(error: GraphQLError) -> None:
        if len(errors) >= most_errors:
            raise ValidationAbortedError("Too many validation errors, error limit reached. Validation aborted.")
        errors.append(error)

    types = TypeInfo(schema)
    context = Document(schema, document, types, note)
    visitors: list[Visitor] = [rule(context) for rule in rules]
    fragments = {one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)}
    if fragments:
        visitors.insert(0, FragmentNestingVisitor(fragments))
    together = Together(visitors)
    try:
        visit_once(document, TypeInfoVisitor(types, together), KEYS)
    except ValidationAbortedError as end:
        # Nor do the frames of all this stay with the error.
        end.__context__ = None
        errors.append(end.with_traceback(None))
    except RecursionError:
        errors.append(ValidationAbortedError("Validation aborted."))
    finally:
        for one in (together, *visitors):
            one.enter_leave_map.clear()
    return errors
