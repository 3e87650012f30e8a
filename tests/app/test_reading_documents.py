"""Documents are read as graphql-core reads them, token by token and error by error, and nobody waits for another's."""

import asyncio
from collections.abc import Callable, Generator
from random import Random
from typing import Any

import pytest
from graphql import DocumentNode, GraphQLError, GraphQLSchema, parse, specified_rules, validate

from app import reading
from app.api import definitions
from app.limits import MOST_TOKENS
from app.parsing import has_more_tokens, parsed
from app.rates import RateLimited
from app.schema import build_schema
from app.validating import validated
from segments import conditions
from tests.app.caller import OPERATIONS
from tests.app.hostile import DOCUMENTS, valid

TEXTS = [
    *(path.read_text() for path in sorted(OPERATIONS.glob("*/*.graphql"))),
    *(one.text for one in DOCUMENTS.values()),
    *valid().values(),
]
SHREDS = (
    *"{}()[]:=|&!$@#,. \t\n\r'\"\\-",
    *("query", "fragment", "on", "a", "b1", "_", "...", "..", '""', '"""', '"x"', '\\"""', "\\u0041", "1", "-2.5e3"),
    *("é", "\ufeff", "\ud800", "\U0001f600", "true", "null", "\r\n", "# c"),
)
MANY = 10_000
"""More tokens than any of the texts has."""


def shreds() -> list[str]:
    """Texts of pieces of GraphQL, most of which are none."""
    random = Random(11)
    return ["".join(random.choices(SHREDS, k=random.randrange(14))) for _ in range(2_000)]


def made(read: Callable[[], DocumentNode]) -> Any:
    """A document with the place of every token, or what is wrong."""
    try:
        document = read()
    except GraphQLError as refusal:
        return refusal.message, refusal.locations
    token: Any = document.loc and document.loc.start_token
    tokens = []
    while token is not None:
        tokens.append((token.kind, token.start, token.end, token.line, token.column, token.value))
        token = token.next
    return document, tokens


def test_a_text_has_the_tokens_and_the_mistakes_that_graphql_core_finds() -> None:
    for text in (*TEXTS, *shreds()):
        if len(text) < 20_000:
            assert made(lambda: parsed(text, most_tokens=MANY)) == made(lambda: parse(text, max_tokens=MANY)), text  # noqa: B023


def test_tokens_are_counted_before_they_are_read_and_never_more_than_there_are() -> None:
    """T-17: what has too many is refused without being parsed; what has not is parsed, whatever it holds."""
    for text in (*TEXTS, *shreds()):
        try:
            count = parse(text, max_tokens=MANY).token_count
        except GraphQLError:
            continue
        assert not has_more_tokens(text, count), text
        assert count == 0 or has_more_tokens(text, count - 1), text
    # However often something is opened that nothing closes, each character is looked at once.
    for text in ('"""' + '\\"""' * 100_000, '"' * 300_001, '"\\' * 150_000, "#" * 300_000, "-" * 300_000):
        has_more_tokens(text, MOST_TOKENS)


def test_a_document_has_the_errors_that_graphql_core_finds() -> None:
    schema = build_schema(introspection=True)._schema
    rules = (*specified_rules, reading.NullsInMaybe)
    # Nothing is wrong with published operations: a few are enough.
    for text in TEXTS[::5] + [one.text for one in DOCUMENTS.values()]:
        try:
            document = parse(text, max_tokens=MOST_TOKENS)
        except GraphQLError:
            continue
        found, expected = (
            told(lambda: validated(schema, document, rules, most_errors=5)),  # noqa: B023
            told(lambda: validate(schema, document, rules, max_errors=5)),  # noqa: B023
        )
        assert found == expected, text


def told(act: Callable[[], list[GraphQLError]]) -> Any:
    try:
        return [(error.message, error.locations) for error in act()]
    except Exception as fault:  # a rule of the library that stumbles
        return type(fault)


async def test_documents_are_read_one_after_the_other_and_callers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-17: who sends many at once waits for their own, and whoever has nothing to be read goes on between phases."""
    happened: list[str] = []

    def phases(schema: GraphQLSchema, text: str, introspection: bool) -> Generator[None, None, reading.Prepared]:
        happened.append(f"{text} begins")
        yield
        happened.append(f"{text} ends")
        return DocumentNode(definitions=()), []

    monkeypatch.setattr(reading, "phases", phases)
    reader, schema = reading.Reader(reading.Documents()), build_schema(introspection=False)._schema

    def check(who: str) -> None:
        if who == "one" and "one's 3 ends" in happened:
            raise RateLimited(7)

    def send(who: str, n: int) -> asyncio.Task[reading.Prepared]:
        return asyncio.create_task(reader.read(schema, f"{who}'s {n}", False, who=who, size=0, check=check))

    sent = [send("one", n) for n in (1, 2, 3)] + [send("another", n) for n in (1, 1)]
    late = [send("one", n) for n in (4, 5, 1)]

    async def other_work() -> None:
        while "another's 1 ends" not in happened:
            happened.append("other work")
            await asyncio.sleep(0)

    await asyncio.gather(*sent, other_work())
    documents = [
        f"{text} {what}" for text in ("one's 1", "another's 1", "one's 2", "one's 3") for what in ("begins", "ends")
    ]
    assert [what for what in happened if what != "other work"] == documents
    assert set(happened[happened.index("one's 1 begins") + 1 : happened.index("one's 1 ends")]) == {"other work"}
    # Who has nothing left by then has nothing more read, however long it has waited.
    ended = [type(one) for one in await asyncio.gather(*late, return_exceptions=True)]
    assert ended == [RateLimited, RateLimited, tuple]
    late.clear()
    # Whoever gave up waiting has not taken a turn along.
    given_up = send("another", 6)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    await send("another", 7)
    assert [what for what in happened if what != "other work"][-2:] == ["another's 7 begins", "another's 7 ends"]
    assert not reader.turns


async def test_large_bodies_take_turns_with_documents_and_the_loop_rests_within_and_after_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T-17: reading one is work of the one loop as well. A small one waits for nobody."""
    now, slept, happened = 100.0, list[float](), list[str]()

    async def sleep(for_s: float) -> None:
        nonlocal now
        slept.append(for_s)
        now += for_s

    monkeypatch.setattr("app.reading.perf_counter", lambda: now)
    monkeypatch.setattr("app.reading.asyncio.sleep", sleep)
    reader = reading.Reader(reading.Documents())

    def read(body: bytes) -> Generator[None, None, int]:
        nonlocal now
        happened.append(f"{len(body)} at {now:g}")
        now += 2
        if body.startswith(b"!"):
            raise EOFError
        yield
        now += 4
        return len(body)

    large, small = b" " * reading.LARGE_BODY, b"small"
    assert await reader.read_body(large, read(large), who="one") == len(large)
    assert await reader.read_body(small, read(small), who="one") == 5
    with pytest.raises(EOFError):
        await reader.read_body(large, read(b"!" + large), who="one")
    async with reader.turn_of("another", 0):
        happened.append(f"a document at {now:g}")
    # Two seconds of work, one of rest, four of work; then 24 of rest, in six of which a small one was read.
    assert happened == [f"{len(large)} at 100", "5 at 107", f"{len(large) + 1} at 131", "a document at 141"]
    assert slept == [0.0, 1.0, 18.0, 8.0]


async def test_of_one_caller_only_so_many_bytes_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody learns who has gone away, so that memory would be filled by sending and not waiting for the answer."""
    body = b" " * reading.LARGE_BODY
    monkeypatch.setattr(reading, "MOST_WAITING", 2 * (len(body) + reading.OBJECTS_OF_ONE))
    reader = reading.Reader(reading.Documents())

    def nothing() -> Generator[None, None, None]:
        yield

    def send(who: str) -> asyncio.Task[None]:
        return asyncio.create_task(reader.read_body(body, nothing(), who=who))

    async with reader.turn_of("who is read", 0):
        sent = [send("one") for _ in range(3)] + [send("another")]
        with pytest.raises(RateLimited):
            await sent[2]
        assert [one.done() for one in sent] == [False, False, True, False]
        sent[0].cancel()
        await asyncio.gather(sent[0], return_exceptions=True)
        sent.append(send("one"))
    await asyncio.gather(sent[1], *sent[3:])
    assert not reader.waiting


def test_what_is_kept_of_documents_is_bounded_by_their_text() -> None:
    """T-17: memory is steady, whoever sends however many that are all allowed."""
    schema, kept = build_schema(introspection=False)._schema, reading.Documents()

    def keep(text: str) -> None:
        kept.keep(schema, text, False, reading.prepare(schema, text, False))

    for n in range(60):
        keep("{ workspace { id } } #" + f"{n:09}" * 500)
    assert kept.characters == sum(len(text) for _, text, _ in kept.kept) <= reading.CACHED_CHARACTERS
    assert 30 < len(kept.kept) < 60
    for n in range(2 * reading.CACHED_DOCUMENTS):
        keep("{ workspace { id } } #" + f"{n}")
    assert len(kept.kept) == reading.CACHED_DOCUMENTS


def test_conditions_are_kept_only_of_short_definitions() -> None:
    """T-17: memory is steady, however large a tenant's definitions are."""
    short = {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}}
    long = {"any": [{"trait": {"key": "plan", "operator": "EQUALS", "value": f"{n:0900}"}} for n in range(9)]}
    assert definitions.stored(short) is definitions.stored(dict(short))
    kept = definitions.read.cache_info().currsize
    assert definitions.stored(long) == conditions.read(long)
    assert definitions.read.cache_info().currsize == kept
