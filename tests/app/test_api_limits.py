"""Hostile and broken requests: refused early, in words, without our insides; delivery.md section 4.3."""

import asyncio
import gc
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import httpx2
import orjson
import pytest
from graphql import (
    FieldNode,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    NameNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    Token,
    Visitor,
    get_introspection_query,
    get_named_type,
    parse,
    print_ast,
    visit,
)

from app import limits, reading
from app.problems import CLIENT_KEYS
from app.schema import build_schema
from app.settings import load_settings
from profiles import workspaces
from profiles.events import MOST_EVENTS
from profiles.profiles import MOST_INPUTS
from profiles.traits import MOST_KEYS
from segments.static import MOST_IDS
from tests.app.caller import OPERATIONS, Caller, operation_text
from tests.app.conftest import running
from tests.app.hostile import BODIES, DOCUMENTS, valid, with_variables

MOST_CALLS = 90_000
"""Of Python functions while one document is read, about 150 a token: not a time, which a busy machine decides."""
MOST_CALLS_AT_ONCE = 50_000
"""Before everybody else has a turn."""
PATHS = {"events": "/v1/events", "banner events": "/v1/banner-events", "a check": "/v1/segments:check"}
MOST_TURNS = 100_000
"""That others have while something is read: an end for a test in which they have none."""


def calls(act: Callable[[], object]) -> int:
    """How many Python functions `act` calls, whatever it raises."""
    made = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal made
        made += event == "call"

    sys.setprofile(count)
    try:
        with suppress(GraphQLError):
            act()
    finally:
        sys.setprofile(None)
    return made


def holds_too_much(body: bytes) -> bool:
    """Whether a body is refused before it is read."""
    return reading.finished(limits.counted(body))


async def test_a_hostile_document_is_refused_without_running(console: Caller) -> None:
    """T-17."""
    for name, document in DOCUMENTS.items():
        response = await console.post(document.text)
        assert response.status_code in (200, 400), name
        answer = response.json()
        assert answer.get("data") is None, name
        assert 1 <= len(answer["errors"]) <= reading.MOST_ERRORS + 1, name
        assert {error["extensions"]["code"] for error in answer["errors"]} == {document.code}, name
        assert len(response.content) < 8_000, name


def test_a_hostile_document_is_little_work_and_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """T-17: the work is bounded whatever the document: characters, tokens, steps through fragments, and calls in all;
    one that needs 2^40 steps takes no more than another."""
    schema = build_schema(introspection=False)._schema
    kept = len(reading.DOCUMENTS.kept)
    for name, document in DOCUMENTS.items():
        made = calls(partial(reading.prepared, schema, document.text, False))
        assert made < MOST_CALLS, name
        if len(document.text) <= limits.LONGEST_QUERY:
            with suppress(GraphQLError):
                measure = limits.Measure(parse(document.text, max_tokens=limits.MOST_TOKENS))
                with suppress(limits.TooMuch):
                    measure.check()
                assert measure.steps <= limits.MOST_STEPS + 1, name
    assert len(reading.DOCUMENTS.kept) == kept


def test_the_most_that_a_document_may_ask_for_is_read_in_pieces() -> None:
    """T-17: one with which nothing is wrong is read to its end, and others have turns meanwhile."""
    schema, end = build_schema(introspection=False)._schema, object()
    for name, text in valid().items():
        phases, made, given = reading.phases(schema, text, False), list[int](), list[object]()
        while end not in given:
            made.append(calls(lambda: given.append(next(phases, end))))  # noqa: B023 - called at once
        assert len(made) == 3, name
        assert max(made) < MOST_CALLS_AT_ONCE, name
        assert sum(made) < MOST_CALLS, name


@pytest.mark.parametrize("path", sorted(OPERATIONS.glob("*/*.graphql")), ids=lambda path: path.stem)
def test_a_published_operation_is_far_from_every_limit(path: Path) -> None:
    schema, text = build_schema(introspection=False)._schema, path.read_text()
    _, errors = reading.prepare(schema, text, False)
    assert errors == []
    assert parse(text, max_tokens=limits.MOST_TOKENS * 3 // 4).token_count


def test_what_clients_make_of_documents_is_below_every_limit() -> None:
    """`__typename` in every selection, as Apollo's client adds it, and the introspection that tools send."""
    schema = build_schema(introspection=True)._schema

    class Named(Visitor):
        def leave_selection_set(self, node: SelectionSetNode, _: Any, parent: Any, *__: Any) -> SelectionSetNode:
            if isinstance(parent, OperationDefinitionNode):
                return node
            field = FieldNode(name=NameNode(value="__typename"), alias=None, arguments=(), directives=())
            return SelectionSetNode(selections=(*node.selections, field))

    texts = [print_ast(visit(parse(path.read_text()), Named())) for path in OPERATIONS.glob("*/*.graphql")]
    assert len(texts) > 50
    everything = get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    )
    for text in (*texts, everything):
        assert reading.prepare(schema, text, True)[1] == [], text


async def test_a_broken_body_is_answered_in_words(console: Caller) -> None:
    """T-17: also one that names values in their hundred thousands, before any of them is looked at."""
    headers = console.all_headers() | {"Content-Type": "application/json"}
    for name, body in BODIES.items():
        response = await console.http.post("/graphql", content=body, headers=headers)
        assert response.status_code == 400, name
        (error,) = response.json()["errors"]
        assert error["extensions"]["code"] == "BAD_REQUEST", name


async def test_values_that_no_field_takes_are_the_clients_mistake(console: Caller) -> None:
    for name, (document, given) in with_variables().items():
        response = await console.post(document, given)
        answer = response.json()
        assert (response.status_code, answer.get("data")) in ((200, None), (200, {"segments": None})), name
        assert {error["extensions"]["code"] for error in answer["errors"]} <= {"BAD_REQUEST", "PAGE_SIZE"}, name


def test_everything_the_edge_takes_at_most_is_below_the_bound_on_values() -> None:
    """Batches of the size that use cases take, and more below the client's own keys than anybody could coerce."""
    profile = {"externalId": "a", "email": "a@example.com", "traits": {"list": [{}] * 1_000}, "brandIds": ["brd_1"]}
    for most in (
        {"input": {"profiles": [profile] * MOST_INPUTS}},
        {"input": {"events": [{"name": "a", "properties": {str(n): [n] for n in range(200)}}] * MOST_EVENTS}},
        {"input": {"id": "seg_1", "externalIds": ["a"] * MOST_IDS}},
    ):
        assert not limits.is_too_much(most)
    assert limits.is_too_much({"input": {"id": "seg_1", "externalIds": ["a"] * 20_000}})


def test_values_are_counted_before_a_body_is_read_and_those_in_texts_are_none() -> None:
    """T-17: 2 MB of `{},` are 650,000 objects, and nobody is answered while they are made."""
    table = orjson.dumps({"csv": "a,b,{c\n" * 100_000, "quoted": 'a,"b",\\' * 10_000})
    for most, body in ((1, b"[%s]"), (2, b'["a,b", {}, "\\\\", %s]')):
        values = b"1," * (limits.MOST_MARKS - 20)
        assert not holds_too_much(body.replace(b"%s", values + table)), most
        assert holds_too_much(body.replace(b"%s", values + b"1," * 20 + table)), most
    assert holds_too_much(b"[" + b"{}," * (limits.MOST_MARKS // 4 + 1) + b"1]"), "an object is three values"


def test_marks_are_counted_outside_of_texts_whatever_the_texts_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reader of JSON would, byte after byte; of all arrangements of what has a meaning, in pieces of any size."""
    random = Random(7)
    for _ in range(5_000):
        body = bytes(random.choices(b'",[{\\a:', k=random.randrange(60)))
        marks = inside = 0
        for one in re.findall(rb"\\[\\\"]|.", body):
            inside ^= one == b'"'
            marks += 0 if inside else {b",": 1, b"{": 3, b"[": 3}.get(one, 0)
        most = random.randrange(8)
        monkeypatch.setattr(limits, "MOST_MARKS", most)
        monkeypatch.setattr(limits, "PIECE", random.randrange(1, 20))
        assert holds_too_much(body) == (marks > most), (body, most)


def test_names_are_counted_once_each_however_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-17: 60,000 that are all different took ten times as long to read as the same fifty again and again."""
    random = Random(5)
    monkeypatch.setattr(limits, "MOST_MARKS", 10**6)
    for _ in range(3_000):
        texts = ["".join(random.choices('a\\":, \t', k=random.randrange(6))) for _ in range(6)]
        items = [{random.choice(texts): random.choice(texts) for _ in range(random.randrange(4))} for _ in range(4)]
        names = {name for item in items for name in item}
        body = json.dumps(items, separators=(",", random.choice([":", " \n: "]))).encode()
        most = random.randrange(1, 6)
        monkeypatch.setattr(limits, "MOST_NAMES", most)
        assert holds_too_much(body) == (len(names) > most), (body, most)
    monkeypatch.undo()
    for more, is_too_much in ((0, False), (100, True)):
        different = b",".join(b'"v%d":1' % n for n in range(limits.MOST_NAMES + more))
        assert holds_too_much(b"{" + different + b"}") == is_too_much


def test_a_body_is_counted_in_pieces_of_which_none_ends_in_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(3)
    for _ in range(2_000):
        body = bytes(random.choices(b'\\\\\\"a', k=random.randrange(40)))
        monkeypatch.setattr(limits, "PIECE", random.randrange(1, 9))
        pieces = [*limits.pieces(body)]
        assert b"".join(pieces) == body
        assert all(len(piece) <= limits.PIECE + 1 for piece in pieces)
        # Each by itself has the escapes that the body has.
        assert [one for piece in pieces for one in re.findall(rb"\\.?|.", piece)] == re.findall(rb"\\.?|.", body)


def test_u0000_is_found_where_a_reader_of_json_would_find_it() -> None:
    random = Random(9)
    for _ in range(3_000):
        body = b"".join(random.choices([b"\\", b"\\\\", b"u0000", b"\\u0000", b"a"], k=random.randrange(8)))
        assert limits.holds_nul(body) == (b"\\u0000" in re.findall(rb"\\u0000|\\.|.", body)), body


def test_a_whole_batch_with_many_properties_is_read() -> None:
    """A thousand profiles or events, the most that is taken at once, of 50 values each."""
    own = {f"key {n}": "some, value" for n in range(40)} | {"tags": ["a", "b", "c"]}
    for item in (
        {"externalId": "u", "email": "a@example.com", "brandIds": ["brd_1"], "traits": own},
        {"messageId": "m", "externalId": "u", "name": "a", "pagePath": "/", "properties": own},
    ):
        body = orjson.dumps({"query": "", "variables": {"input": {"items": [item] * 1_000}}})
        assert len(body) < limits.LARGEST_GRAPHQL_BODY
        assert not holds_too_much(body)


async def test_thousands_of_objects_are_refused_before_they_are_made(console: Caller) -> None:
    """T-17: on every path that takes batches."""
    headers = console.all_headers() | {"Content-Type": "application/json"}
    body = b'{"events": [' + b"{}," * 300_000 + b"{}]}"
    for path in ("/v1/events", "/v1/banner-events", "/v1/segments:check"):
        response = await console.http.post(path, content=body, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "TOO_MANY_VALUES"), path


def test_a_variable_is_counted_whatever_its_name() -> None:
    """T-17: `query Q($data: [ID!]!)` is the client's to write, and 400,000 ids took 2 s to coerce."""
    for name in CLIENT_KEYS:
        assert limits.is_too_much({name: ["a"] * 20_000})
        assert limits.is_too_much({name: {"ids": ["a"] * 20_000}})
        assert not limits.is_too_much({name: {str(n): n for n in range(MOST_KEYS)}})


def test_the_clients_own_keys_are_json_wherever_an_input_has_them() -> None:
    """What is below them is coerced by nobody; an input object of that name would have to be counted."""
    schema = build_schema(introspection=False)._schema
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLInputObjectType):
            for name in CLIENT_KEYS & kind.fields.keys():
                assert isinstance(get_named_type(kind.fields[name].type), GraphQLScalarType), (kind.name, name)


async def test_a_caller_has_one_turn_at_large_bodies_however_their_key_is_written(
    console: Caller, app_caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-17: the turns of who it is; of an app, whose key everybody has, those of one address."""
    turns, turn_of = list[str](), reading.Reader.turn_of

    def noted(self: reading.Reader, who: str, size: int) -> Any:
        turns.append(who)
        return turn_of(self, who, size)

    monkeypatch.setattr(reading.Reader, "turn_of", noted)
    body = orjson.dumps({"query": "{ __typename }", "variables": {"a": "a" * reading.LARGE_BODY}})

    async def turns_of(caller: Caller, *written: str) -> set[str]:
        turns.clear()
        for one in written:
            headers = {"Authorization": f"{one}{caller.key}", "Content-Type": "application/json"}
            assert (await caller.http.post("/graphql", content=body, headers=headers)).status_code == 200
        assert len(turns) >= len(written)
        return set(turns)

    (one,) = await turns_of(console, "Bearer ", "bearer ", "BEARER   ")
    (app,) = await turns_of(app_caller, "Bearer ", "bearer ")
    assert one != app
    assert app.endswith(" 127.0.0.1")


@pytest.mark.parametrize("what", ["a document", "a body", "events", "banner events", "a check"])
async def test_others_are_answered_while_something_large_is_read(
    console: Caller, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """T-17: whatever it takes, between two pieces of it everybody else has their turn."""
    begun, answered = asyncio.Event(), asyncio.Event()

    def until_answered() -> Generator[None, None, None]:
        for _ in range(MOST_TURNS):
            begun.set()
            yield
            if answered.is_set():
                return
        raise AssertionError("nobody had a turn")

    phases, counted = reading.phases, limits.counted

    def slow_phases(schema: GraphQLSchema, text: str, introspection: bool) -> Generator[None, None, reading.Prepared]:
        yield from until_answered()
        return (yield from phases(schema, text, introspection))

    def slowly_counted(body: bytes) -> Generator[None, None, bool]:
        if len(body) > reading.LARGE_BODY:
            yield from until_answered()
        return (yield from counted(body))

    await console.data("Workspace")
    monkeypatch.setattr(reading, "phases", slow_phases)
    monkeypatch.setattr("app.endpoint.counted", slowly_counted)
    monkeypatch.setattr("app.ingest.counted", slowly_counted)
    filler, text = "a" * reading.LARGE_BODY, operation_text("Workspace")
    batch = orjson.dumps({"events": [], "segmentIds": [], "externalId": filler})
    headers = console.all_headers() | {"Content-Type": "application/json"}
    large = asyncio.create_task(
        console.post(text + "#")
        if what == "a document"
        else console.post(text, {"filler": filler})
        if what == "a body"
        else console.http.post(PATHS[what], content=batch, headers=headers)
    )
    await begun.wait()
    assert not large.done()
    assert (await console.data("Workspace"))["id"]
    assert not large.done()
    answered.set()
    assert (await large).status_code == (202 if "events" in what else 200)


async def test_nothing_of_a_refused_document_waits_to_be_found_as_garbage(console: Caller) -> None:
    """T-17: what is left of many would be looked through at once, in 80 ms in which nobody is answered."""
    texts = [one.text for one in DOCUMENTS.values()] + [text + " #" for text in valid().values()]
    for text in texts:
        await console.post(text)
    reading.DOCUMENTS.kept.clear()
    reading.DOCUMENTS.characters = 0
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for text in texts:
            await console.post(text)
        gc.collect()
        assert not [one for one in gc.garbage if isinstance(one, Token | Node)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def test_a_body_that_comes_in_pieces_and_stops_is_no_work_for_others(console: Caller) -> None:
    """T-17: one that is not there yet holds up nobody: the request of somebody else is answered meanwhile."""
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"query": "{ works'
        await go_on.wait()
        yield b'pace { id } }"}'

    headers = console.all_headers() | {"Content-Type": "application/json"}
    slow = asyncio.create_task(console.http.post("/graphql", content=slowly(), headers=headers))
    assert (await console.data("Workspace"))["id"]
    go_on.set()
    assert (await slow).json()["data"]["workspace"]["id"]


@pytest.mark.parametrize("headers", [{"Host": "a@b/../admin"}, {"Host": "evil.example"}, {"X-Forwarded-Host": "a"}])
async def test_a_made_up_host_changes_nothing(console: Caller, headers: dict[str, str]) -> None:
    answer = await console.http.get("/v1/segments/seg_1/members/a", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHENTICATED")
    assert "evil" not in str(answer.headers)


async def test_a_get_changes_nothing(console: Caller) -> None:
    query = 'mutation { brandCreate(input: {name: "a"}) { userErrors { code } } }'
    answer = await console.http.get("/graphql", params={"query": query}, headers=console.all_headers())
    assert answer.status_code == 405
    assert await console.data("Brands") == []


async def test_an_escaped_backslash_before_u0000_is_no_nul(console: Caller) -> None:
    response = await console.post(
        "query Segments($name: String) { segments(name: $name) { edges { cursor } } }", {"name": "\\u0000"}
    )
    assert response.json() == {"data": {"segments": {"edges": []}}}


FORMS: list[str] = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]


async def test_only_json_is_taken_so_that_no_form_can_post(console: Caller, http: httpx2.AsyncClient) -> None:
    for kind in FORMS:
        headers = console.all_headers() | {"Content-Type": kind}
        response = await http.post("/graphql", content=b'{"query": "{ workspace { id } }"}', headers=headers)
        assert response.status_code == 415


async def test_graphql_shows_no_page_in_production(console: Caller) -> None:
    page = await console.http.get("/graphql", headers=console.all_headers() | {"Accept": "text/html"})
    assert page.status_code == 404


async def test_a_mistyped_name_gets_no_suggestion_in_production(console: Caller) -> None:
    (error,) = (await console.post("{ workspac { id } }")).json()["errors"]
    assert "workspace" not in error["message"]


async def test_in_development_graphiql_and_the_schema_are_there(environ: dict[str, str]) -> None:
    async with running(load_settings(environ | {"MUSTER_ENV": "development"})) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            page = await http.get("/graphql", headers={"Accept": "text/html"})
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            told = await http.post("/graphql", json={"query": get_introspection_query()})
            assert told.json()["data"]["__schema"]["queryType"]["name"] == "Query"
            refused = (await http.post("/graphql", json={"query": "{ workspace { id } }"})).json()
            assert refused["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("path", "largest"), [("/graphql", 2_000_000), ("/v1/events", 1_000_000), ("/v1/banner-events", 1_000_000)]
)
async def test_a_body_that_is_too_large_is_not_read(console: Caller, path: str, largest: int) -> None:
    read = 0

    async def chunks() -> Any:
        nonlocal read
        for _ in range(100):
            read += 100_000
            yield b"x" * 100_000

    headers = console.all_headers() | {"Content-Type": "application/json"}
    length = {"Content-Length": str(largest + 1)}
    announced = await console.http.post(path, content=chunks(), headers=headers | length)
    assert read <= 100_000, "it was not read to find out"
    read = 0
    streamed = await console.http.post(path, content=chunks(), headers=headers)
    for response in (announced, streamed):
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "TOO_LARGE"
    assert read <= largest + 100_000
    for path_without in ("/v1/banners?placement=x", "/healthz", "/v1/exports/x"):
        with_body = await console.http.request("GET", path_without, content=b"x", headers=headers)
        assert with_body.status_code == 413


async def test_a_page_is_of_1_to_100(console: Caller) -> None:
    for first in (0, -1, 101, 10**9):
        for operation in ("Segments", "Profiles", "Campaigns"):
            assert await console.error(operation, first=first) == {"code": "PAGE_SIZE", "field": ["first"]}


async def test_a_made_up_cursor_is_refused(console: Caller) -> None:
    for after in ("", "x", "ä", "AAAA", "LTE", "MTIz" * 50):
        for operation in ("Segments", "Profiles", "Campaigns"):
            found = await console.error(operation, after=after)
            assert found == {"code": "INVALID_CURSOR", "field": ["after"]}, after


def nested(levels: int) -> dict[str, Any]:
    condition: dict[str, Any] = {"identified": True}
    for _ in range(levels):
        condition = {"not": condition}
    return condition


async def test_conditions_beyond_all_depth_are_the_clients_mistake(console: Caller) -> None:
    deep = {"name": "deep", "type": "DYNAMIC", "definition": nested(20)}
    code, field = await console.refusal("SegmentCreate", input=deep)
    assert code == "TOO_DEEP"
    assert field is not None
    assert field[:3] == ["input", "definition", "not"]
    answer = await console.ask("SegmentCreate", input=deep | {"definition": nested(300)})
    assert answer.get("data") is None
    assert "INTERNAL" not in json.dumps(answer)


async def test_what_breaks_inside_is_masked_and_logged_under_the_id_the_client_gets(
    console: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(workspace_id: object) -> None:
        raise RuntimeError("postgres://muster:secret@db/muster")

    monkeypatch.setattr(workspaces, "get", broken)
    caplog.set_level(logging.INFO)
    answer = await console.ask("Workspace")
    (error,) = answer["errors"]
    assert answer.get("data") is None
    assert error["extensions"]["code"] == "INTERNAL"
    assert "secret" not in json.dumps(answer)
    (line,) = [record for record in caplog.records if record.message == "request failed"]
    assert line.__dict__["error_id"] == error["extensions"]["errorId"]
    assert line.__dict__["where"] == "Workspace"


async def test_a_request_that_breaks_is_answered_in_words_and_with_the_time_it_took(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: object) -> None:
        raise RuntimeError("postgres://muster:secret@db/muster")

    monkeypatch.setattr("app.wakeups.Wakeups.is_reachable", broken)
    response = await http.get("/readyz")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "INTERNAL")
    assert "secret" not in response.text
    assert re.fullmatch(r"app;dur=\d+\.\d\d", response.headers["server-timing"])


async def test_a_clients_mistake_is_one_line_without_the_query(
    console: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await console.post('{ profile(externalId: "ada@example.com") { nope } }')
    ours = [record for record in caplog.records if not record.name.startswith("httpx2")]
    (line,) = ours
    assert line.getMessage() == "operation refused"
    assert not any("ada" in str(value) for value in line.__dict__.values())


async def test_paths_that_are_not_there_are_answered_in_json(http: httpx2.AsyncClient) -> None:
    response = await http.get("/nowhere")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


async def test_health_says_what_is_missing_and_readiness_is_honest(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok", "degraded": ["workers"]}
    assert (await http.get("/readyz")).json() == {"ready": True, "missing": []}

    async def away(self: object) -> bool:
        return False

    monkeypatch.setattr("app.wakeups.Wakeups.is_reachable", away)
    alive = await http.get("/healthz")
    assert (alive.status_code, alive.json()["degraded"]) == (200, ["valkey", "workers"])
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "missing": ["valkey"]})
