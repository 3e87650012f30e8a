"""What a request may cost before anything is done for it: bytes, characters, tokens, depth, aliases, fields.

Everything here ends after a bounded number of steps. The limiters that come with strawberry expand fragments without
a bound, so that twenty fragments which each use the next twice keep them busy for 8.5 s.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    StringValueNode,
    Visitor,
)
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import CLIENT_KEYS, problem
from app.validating import visit_once

LARGEST_GRAPHQL_BODY = 2_000_000
"""Bytes. Room for a CSV of members or the HTML of a mail; both travel as variables."""
LARGEST_EVENTS_BODY = 1_000_000
LARGEST_FORM_BODY = 4_096
LONGEST_QUERY = 20_000
"""Characters of the query text alone: long values belong in variables."""
MOST_TOKENS = 520
"""Parsing and validating costs up to 45 us a token; the longest published operation has three quarters of these."""
MOST_OPERATIONS = 10
MOST_DEPTH = 16
MOST_ALIASES = 30
MOST_DIRECTIVES = 30
MOST_FIELDS = 1_000
"""Fields of an operation with its fragments written out."""
MOST_STEPS = 3_000
"""Selections of the whole document with fragments written out, each fragment also by itself."""
MOST_PAIRS = 1_000
MOST_VALUES = 12_000
"""Items of lists in the variables, of which an object counts as ten: coercion costs 4 us a text and 25 an object."""
OBJECT_COUNTS = 10
MOST_MARKS = 60_000
"""Values of a body, told by its commas outside of texts: to read one costs up to 0.5 us, most for names that are all
different. A thousand events or profiles may have 50 each."""
OPENING_COUNTS = 3
"""As so many values a list or an object counts."""
MOST_NAMES = 10_000
"""Names in a body that are all different, of which one costs as much as five that were there before."""
TOO_MANY_VALUES = (
    f"The body holds more than {MOST_MARKS:,} values, or {MOST_NAMES:,} names all different; send fewer at once."
)
PIECE = 32 * 1024
"""Bytes that are counted at once: 1 ms where every other one is a quote."""
MOST_ENTRIES = 256
"""Fields of an object in the variables; more than any input has, and as many as traits may have."""

FRAGMENTS = "..."
"""Under which the fragments of a place are counted; no field has such a name."""


class TooMuch(GraphQLError):
    """The document is beyond a limit."""

    def __init__(self, message: str) -> None:
        super().__init__(message, extensions={"code": "TOO_COMPLEX"})


@dataclass(slots=True)
class Answers:
    """How often one place of the answer is asked for, and what is asked for below it."""

    asked: int = 0
    below: "dict[str, Answers]" = field(default_factory=dict)


class Measure:
    """Writes the fragments of one document out, as far as the limits allow.

    A step a selection, and a bound on the steps: that alone keeps doubling fragments from growing. Fields asked for
    twice in one place are counted as pairs, since validation compares each with each (11 us a pair), and so it does
    with the fragments spread in one place.
    """

    def __init__(self, document: DocumentNode) -> None:
        self.document = document
        self.fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        self.open: set[str] = set()
        self.steps = self.pairs = self.fields = self.aliases = self.directives = 0

    def check(self) -> None:
        """Raises TooMuch, naming the limit."""
        operations = sum(isinstance(one, OperationDefinitionNode) for one in self.document.definitions)
        if operations > MOST_OPERATIONS:
            raise TooMuch(f"Send at most {MOST_OPERATIONS} operations in one document.")
        for definition in self.document.definitions:
            if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode):
                self.fields = self.aliases = self.directives = 0
                self.count_directives(definition)
                self.selections(definition.selection_set, 1, 1, {})

    def selections(self, node: SelectionSetNode, depth: int, level: int, answers: dict[str, Answers]) -> None:
        """Count one selection set at `depth` of the answer; `level` is how deep the walk itself is."""
        if depth > MOST_DEPTH or level > MOST_DEPTH * 3:
            raise TooMuch(f"Ask at most {MOST_DEPTH} levels deep.")
        for selection in node.selections:
            self.steps += 1
            self.count_directives(selection)
            if self.steps > MOST_STEPS:
                raise TooMuch(f"Ask for at most {MOST_FIELDS} fields, fragments written out.")
            match selection:
                case FieldNode():
                    self.ask(selection, depth, level, answers)
                case InlineFragmentNode():
                    self.selections(selection.selection_set, depth, level + 1, answers)
                case FragmentSpreadNode():
                    self.spread(selection.name.value, depth, level, answers)

    def ask(self, node: FieldNode, depth: int, level: int, answers: dict[str, Answers]) -> None:
        self.fields += 1
        self.aliases += node.alias is not None
        if self.fields > MOST_FIELDS:
            raise TooMuch(f"Ask for at most {MOST_FIELDS} fields, fragments written out.")
        answer = self.pair((node.alias or node.name).value, answers)
        if self.aliases > MOST_ALIASES:
            raise TooMuch(f"Use at most {MOST_ALIASES} aliases.")
        if node.selection_set:
            self.selections(node.selection_set, depth + 1, level + 1, answer.below)

    def pair(self, name: str, answers: dict[str, Answers]) -> Answers:
        """Count what is asked for as `name` together with what is in the same place already."""
        answer = answers.setdefault(name, Answers())
        self.pairs += answer.asked
        answer.asked += 1
        if self.pairs > MOST_PAIRS:
            raise TooMuch("Ask for each field once in each place, and spread few fragments there.")
        return answer

    def spread(self, name: str, depth: int, level: int, answers: dict[str, Answers]) -> None:
        self.pair(FRAGMENTS, answers)
        # Unknown and circular fragments count nothing here: validation refuses them by name.
        definition = self.fragments.get(name)
        if definition is not None and name not in self.open:
            self.open.add(name)
            self.selections(definition.selection_set, depth, level + 1, answers)
            self.open.discard(name)

    def count_directives(self, node: OperationDefinitionNode | FragmentDefinitionNode | SelectionNode) -> None:
        self.directives += len(node.directives or ())
        if self.directives > MOST_DIRECTIVES:
            raise TooMuch(f"Use at most {MOST_DIRECTIVES} directives.")


class Texts(Visitor):
    """Refuses texts in the query that no column can hold."""

    def enter_string_value(self, node: StringValueNode, *_: Any) -> None:
        if "\x00" in node.value:
            raise GraphQLError("Texts must not hold the character U+0000; remove it.", nodes=node)


def check_document(document: DocumentNode, text: str) -> None:
    """Raises GraphQLError when the document costs too much or holds what cannot be stored."""
    Measure(document).check()
    if "\\u" in text:
        visit_once(document, Texts())


def holds_nul(body: bytes) -> bool:
    """Whether a text in a JSON body holds U+0000, which PostgreSQL cannot store.

    JSON has no other way to write it, and an escaped backslash before it makes it a text like any other. A pattern that
    looks back took 55 ms for 2 MB.
    """
    return b"\\u0000" in body and b"\\u0000" in body.replace(b"\\\\", b"  ")


def counted(body: bytes) -> Generator[None, None, bool]:
    """Whether a JSON body holds more than is read at once, told before it is: while it is, nobody is answered. Pauses
    after each piece.

    A table or a page has marks in its text, so that those of a body with many are counted outside of texts. Of names
    one a piece may be missed, where it ends.
    """
    by_names = body.count(b":") > MOST_NAMES
    if weight_of(body) <= MOST_MARKS and not by_names:
        return False
    weight = inside = 0
    names = set[bytes]()
    for piece in pieces(body):
        yield
        # Something else for each, since names that differ in them are different.
        parts = piece.replace(b"\\\\", b"\0\0").replace(b'\\"', b"\1\1").split(b'"')
        weight += weight_of(b"".join(parts[inside::2]))
        if by_names:
            texts = zip(parts[1 - inside :: 2], parts[2 - inside :: 2], strict=False)
            names.update(text for text, after in texts if after.lstrip().startswith(b":"))
        if weight > MOST_MARKS or len(names) > MOST_NAMES:
            return True
        inside ^= len(parts) & 1 ^ 1
    return False


def pieces(body: bytes) -> Iterator[bytes]:
    """A body in pieces, cut between a backslash and what it escapes nowhere."""
    begin = 0
    while begin < len(body):
        piece = body[begin : begin + PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = body[begin : begin + PIECE + 1]
        yield piece
        begin += len(piece)


def weight_of(body: bytes) -> int:
    """How many values there are by the marks between them."""
    return body.count(b",") + OPENING_COUNTS * (body.count(b"{") + body.count(b"["))


def is_too_much(variables: Mapping[str, Any]) -> bool:
    """Whether coercing `variables` would hold up everybody. What an input has below the client's own keys (CLIENT_KEYS)
    is JSON that is taken as it is, and bounded by the body's size."""
    values = 0
    # Variables themselves are named by the client: one called `data` may well be a list of ids.
    waiting: list[Any] = [*variables.values()]
    if len(waiting) > MOST_ENTRIES:
        return True
    while waiting:
        match waiting.pop():
            case list() as items:
                values += len(items) + (OBJECT_COUNTS - 1) * sum(isinstance(one, dict) for one in items[:MOST_VALUES])
                if values > MOST_VALUES:
                    return True
                waiting += items
            case dict() as entries:
                if len(entries) > MOST_ENTRIES:
                    return True
                waiting += [value for name, value in entries.items() if name not in CLIENT_KEYS]
    return False


class TooLarge(Exception):
    """More bytes came than the path takes."""


class BodyLimit:
    """Refuses a body above `largest` bytes: at once when it is announced, else as soon as it is exceeded."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self.app = app
        self.largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self.largest:
            await self.refusal()(scope, receive, send)
            return
        read = 0
        started = False

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.largest:
                raise TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except TooLarge:
            if started:
                raise
            await self.refusal()(scope, receive, send)

    def refusal(self) -> Response:
        message = f"The body may have at most {self.largest:,} bytes; send less at once."
        response = problem(413, "TOO_LARGE", message)
        # What is left of the body is not read.
        response.headers["Connection"] = "close"
        return response
