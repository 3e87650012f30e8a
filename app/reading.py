"""Reads documents: parses and validates them, keeps those used last, and lets nobody wait long for another's.

Both are work of this process's one loop, some milliseconds for a document as large as may be. So documents that are not
kept are read one after the other, in pieces between which everything else has its turn, and after each the loop is left
alone for four times as long as it took. So are large bodies, which cost as much. Callers take turns too: one who sends
a hundred at once waits for their own.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from graphql import (
    ASTValidationRule,
    DocumentNode,
    FragmentsOnCompositeTypesRule,
    GraphQLError,
    GraphQLSchema,
    KnownDirectivesRule,
    KnownFragmentNamesRule,
    NoFragmentCyclesRule,
    NoSchemaIntrospectionCustomRule,
    NoUndefinedVariablesRule,
    NoUnusedFragmentsRule,
    NoUnusedVariablesRule,
    NullValueNode,
    ObjectValueNode,
    OverlappingFieldsCanBeMergedRule,
    PossibleFragmentSpreadsRule,
    UniqueDirectivesPerLocationRule,
    UniqueFragmentNamesRule,
    UniqueVariableNamesRule,
    VariablesAreInputTypesRule,
    VariablesInAllowedPositionRule,
    specified_rules,
)
from graphql.validation import (
    DeferStreamDirectiveLabel,
    DeferStreamDirectiveOnRootField,
    DeferStreamDirectiveOnValidOperationsRule,
    StreamDirectiveOnListField,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule

from app.limits import LONGEST_QUERY, MOST_TOKENS, TooMuch, check_document
from app.parsing import has_more_tokens, parsed
from app.rates import RateLimited
from app.validating import validated

T = TypeVar("T")

logger = logging.getLogger(__name__)

MOST_ERRORS = 5
"""Validation errors that are answered; the rest would say much the same."""
CACHED_DOCUMENTS = 256
CACHED_CHARACTERS = 200_000

Prepared: TypeAlias = tuple[DocumentNode, list[GraphQLError]]
"""A document that was parsed, and what is wrong with it."""


class NullsInMaybe(MaybeNullValidationRule):
    """strawberry's rule, without its look at all fields of an input's type when no field of an object is null."""

    def enter_object_value(self, node: ObjectValueNode, *_: Any) -> None:
        if any(isinstance(one.value, NullValueNode) for one in node.fields):
            super().enter_object_value(node)


WHERE_WRITTEN: dict[type[ASTValidationRule], str] = {
    KnownDirectivesRule: "@",
    UniqueDirectivesPerLocationRule: "@",
    UniqueVariableNamesRule: "$",
    VariablesAreInputTypesRule: "$",
    NoUndefinedVariablesRule: "$",
    NoUnusedVariablesRule: "$",
    VariablesInAllowedPositionRule: "$",
    KnownFragmentNamesRule: "...",
    PossibleFragmentSpreadsRule: "...",
    FragmentsOnCompositeTypesRule: "on",
    NoFragmentCyclesRule: "fragment",
    NoUnusedFragmentsRule: "fragment",
    UniqueFragmentNamesRule: "fragment",
}
"""Rules that have nothing to say of a document without this text: each costs a look at every node."""
NOT_OURS: tuple[type[ASTValidationRule], ...] = (
    DeferStreamDirectiveLabel,
    DeferStreamDirectiveOnRootField,
    DeferStreamDirectiveOnValidOperationsRule,
    StreamDirectiveOnListField,
)
"""Rules about directives that our schema does not have: KnownDirectives refuses those."""
FAR: tuple[type[ASTValidationRule], ...] = (
    NoUndefinedVariablesRule,
    NoUnusedVariablesRule,
    VariablesInAllowedPositionRule,
    OverlappingFieldsCanBeMergedRule,
)
"""Rules that walk through a whole operation and its fragments at its beginning, whatever is wrong in it."""
NEAR: tuple[type[ASTValidationRule], ...] = (
    *(rule for rule in specified_rules if rule not in FAR + NOT_OURS),
    NullsInMaybe,
)
"""Rules that look at one place after the other, so that a few errors end the walk."""


def phases(schema: GraphQLSchema, text: str, introspection: bool) -> Generator[None, None, Prepared]:
    """Read one document; it pauses between phases that cost about the same.

    Raises GraphQLError when it does not parse or is too large.
    """
    if len(text) > LONGEST_QUERY:
        raise TooMuch(f"A query is at most {LONGEST_QUERY:,} characters long; put long values into variables.")
    if has_more_tokens(text, MOST_TOKENS):
        raise TooMuch(f"A query has at most {MOST_TOKENS} words and signs; send fewer operations at once.")
    document = parsed(text, most_tokens=MOST_TOKENS)
    yield
    check_document(document, text)
    near = NEAR if introspection else (*NEAR, NoSchemaIntrospectionCustomRule)
    errors = found(schema, document, about(near, text))
    if not errors:
        yield
        errors = found(schema, document, about(FAR, text))
    return document, errors


def about(rules: Collection[type[ASTValidationRule]], text: str) -> list[type[ASTValidationRule]]:
    """Those of `rules` that may have something to say of a document of this text."""
    return [rule for rule in rules if WHERE_WRITTEN.get(rule, "") in text]


def found(
    schema: GraphQLSchema, document: DocumentNode, rules: Collection[type[ASTValidationRule]]
) -> list[GraphQLError]:
    """What is wrong with a document by `rules`, the first few."""
    try:
        return validated(schema, document, rules, most_errors=MOST_ERRORS)
    except GraphQLError:
        raise
    except Exception as fault:
        # A rule of the library that stumbles over a document is the document's fault for the client, and worth a line
        # for us; no more, since anybody can have it written.
        logger.warning("validation stumbled", extra={"fault": type(fault).__name__})
        raise GraphQLError("This document could not be validated; check its fragments and variables.") from None


def finished(work: Generator[None, None, T]) -> T:
    """What comes of work that is done in one go."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def prepare(schema: GraphQLSchema, text: str, introspection: bool) -> Prepared:
    """A document and what is wrong with it, read in one go; raises GraphQLError."""
    return finished(phases(schema, text, introspection))


class Documents:
    """The documents used last, parsed and validated: a client sends the same few, and that costs ten times the rest.

    At most so many, and so many characters of text: a parsed one takes 80 times its text, and nobody is to fill the
    memory with documents of their own. Only those with which nothing is wrong.
    """

    def __init__(self) -> None:
        self.kept: OrderedDict[tuple[GraphQLSchema, str, bool], Prepared] = OrderedDict()
        self.characters = 0

    def find(self, schema: GraphQLSchema, text: str, introspection: bool) -> Prepared | None:
        """What is kept of a document; None if nothing is."""
        key = (schema, text, introspection)
        kept = self.kept.get(key)
        if kept is not None:
            self.kept.move_to_end(key)
        return kept

    def keep(self, schema: GraphQLSchema, text: str, introspection: bool, prepared: Prepared) -> None:
        """Keep a document, if nothing is wrong with it."""
        key = (schema, text, introspection)
        if prepared[1] or key in self.kept:
            return
        self.kept[key] = prepared
        self.characters += len(text)
        while len(self.kept) > CACHED_DOCUMENTS or self.characters > CACHED_CHARACTERS:
            (_, dropped, _), _ = self.kept.popitem(last=False)
            self.characters -= len(dropped)


DOCUMENTS = Documents()


def prepared(schema: GraphQLSchema, text: str, introspection: bool) -> Prepared:
    """A document and what is wrong with it, kept or read at once, for who holds up nobody; raises GraphQLError."""
    kept = DOCUMENTS.find(schema, text, introspection)
    if kept is None:
        kept = prepare(schema, text, introspection)
        DOCUMENTS.keep(schema, text, introspection, kept)
    return kept


LARGE_BODY = 32 * 1024
"""Bytes from which on a body is read in turn."""
MOST_WAITING = 64_000_000
"""Bytes of one caller's requests that wait for their turns: whoever has sent one and gone away waits on, so that 400 of
2 MB, sent within two seconds, took 650 MB."""
OBJECTS_OF_ONE = 30_000
"""Bytes that Python takes for a request that waits, beside what was sent."""
PAUSE = 0.5
"""How many times as long as a piece took the loop is left alone before the next of the same: who is answered by a few
short steps with waiting in between meets fewer pieces, and who is read waits half as long again."""
RESTS = 4
"""How many times as long as reading took the loop is left alone after it: reading takes a fifth of it at most, however
many send what is to be read."""


class Reader:
    """Reads the documents and large bodies of one loop's callers."""

    def __init__(self, documents: Documents = DOCUMENTS) -> None:
        self.documents = documents
        self.turn = asyncio.Lock()
        self.turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Of those who wait, by who they are."""
        self.waiting: dict[str, int] = {}
        """Bytes of their requests."""
        self.free_at = 0.0

    async def read(
        self,
        schema: GraphQLSchema,
        text: str,
        introspection: bool,
        *,
        who: str,
        size: int,
        check: Callable[[str], None],
    ) -> Prepared:
        """The document and what is wrong with it; raises GraphQLError when it does not parse or is too large, and
        RateLimited when too much of `who` waits already.

        `size`: bytes of the request that waits for it. `check` raises what refuses `who`, who may have used up by the
        documents before this one what there is.
        """
        kept = self.documents.find(schema, text, introspection)
        if kept is not None:
            return kept
        async with self.turn_of(who, size):
            # Who waited may find that somebody else has sent the same.
            kept = self.documents.find(schema, text, introspection)
            if kept is None:
                check(who)
                kept = await self.do(phases(schema, text, introspection))
                self.documents.keep(schema, text, introspection, kept)
            return kept

    async def read_body(self, body: bytes, reading: Generator[None, None, T], *, who: str) -> T:
        """What comes of reading a request's body; a large one is read in turn with whatever else is to be read. Raises
        RateLimited when too much of `who` waits already."""
        if len(body) < LARGE_BODY:
            return finished(reading)
        async with self.turn_of(who, len(body)):
            return await self.do(reading)

    @contextmanager
    def room_for(self, who: str, size: int) -> Iterator[None]:
        """Count a request of `who` that waits, or is read; raises RateLimited."""
        size += OBJECTS_OF_ONE
        waiting = self.waiting.get(who, 0) + size
        if waiting > MOST_WAITING:
            raise RateLimited(1)
        self.waiting[who] = waiting
        try:
            yield
        finally:
            self.waiting[who] -= size
            if not self.waiting[who]:
                del self.waiting[who]

    @asynccontextmanager
    async def turn_of(self, who: str, size: int) -> AsyncIterator[None]:
        """A turn at reading a request of so many bytes, once others had theirs; raises RateLimited."""
        with self.room_for(who, size):
            own = self.turns.setdefault(who, asyncio.Lock())
            async with own, self.turn:
                await asyncio.sleep(max(0.0, self.free_at - perf_counter()))
                yield

    async def do(self, work: Generator[None, None, T]) -> T:
        """What comes of work; whatever else waits for the loop has its turn between two pieces of it, and after it."""
        took = 0.0
        while True:
            began = perf_counter()
            try:
                next(work)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                piece = perf_counter() - began
                took += piece
                self.free_at = perf_counter() + took * RESTS
            await asyncio.sleep(piece * PAUSE)


class Prepare(SchemaExtension):
    """Parses and validates within the limits, in place of strawberry's own steps."""

    introspection = True

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        read: Prepared | GraphQLError | None = getattr(context.context, "read", None)
        if isinstance(read, GraphQLError):
            raise read
        schema: GraphQLSchema = context.schema._schema
        read = read or prepare(schema, context.query or "", self.introspection)
        context.graphql_document, self.errors = read
        yield

    def on_validate(self) -> Iterator[None]:
        self.execution_context.pre_execution_errors = list(self.errors)
        yield


class PrepareWithoutIntrospection(Prepare):
    """Like Prepare, for production: the schema is not told."""

    introspection = False
