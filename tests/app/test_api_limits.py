"""Hostile and broken requests: refused early, in words, without our insides; delivery.md section 4.3."""

import json
import logging
import re
from typing import Any

import httpx2
import pytest
from graphql import get_introspection_query

from app import limits
from app.settings import load_settings
from profiles import workspaces
from tests.app.caller import Caller
from tests.app.conftest import running

DOUBLING = "query { workspace { ...F0 } }" + "".join(
    f" fragment F{n} on Workspace {{ ...F{n + 1} ...F{n + 1} }}" for n in range(40)
)
HOSTILE = {
    "1000 aliases": "{ " + " ".join(f"a{n}: workspace {{ id }}" for n in range(1000)) + " }",
    "60 aliases": "{ " + " ".join(f"a{n}: workspace {{ id }}" for n in range(60)) + " }",
    "the same field 10000 times": "{ " + "workspace { id } " * 10_000 + "}",
    "the same field 200 times": "{ " + "workspace { id } " * 200 + "}",
    "5000 directives": "{ workspace " + "@include(if: true) " * 5000 + "{ id } }",
    "100 unknown directives": "{ workspace " + "@x " * 100 + "{ id } }",
    "circular fragments": "{ workspace { ...A } } fragment A on Workspace { ...B } fragment B on Workspace { ...A }",
    "fragments that double 40 times": DOUBLING + " fragment F40 on Workspace { id }",
    "fragments that double to nothing": DOUBLING + " fragment F40 on Workspace { ...Nope }",
    "60 levels": "{ segments { edges " * 30 + "{ cursor }" + " } }" * 30,
    "an undefined fragment": "{ workspace { ...Nope } }",
    "a list 2000 deep": "{ banners(placements: " + "[" * 2000 + "]" * 2000 + ") { maxAgeSeconds } }",
    "a selection 3000 deep": "{ a " * 3000 + "}" * 3000,
    "introspection": "{ __schema { types { name } } }",
    "introspection of a type": '{ __type(name: "Query") { fields { name } } }',
    "a megabyte of comment": "{ workspace { id } } #" + "x" * 1_000_000,
    "no document": "}{",
    "nothing": " ",
    "half a surrogate in a text": '{ segments(name: "\\uD800") { edges { cursor } } }',
    "U+0000 in a text": '{ segments(name: "\\u0000") { edges { cursor } } }',
    "an undefined variable in a @oneOf": 'mutation { segmentCreate(input: {name: "a", type: DYNAMIC,'
    " definition: {identified: $nope}}) { userErrors { code } } }",
}


async def test_a_hostile_document_is_refused_without_running(console: Caller) -> None:
    for name, document in HOSTILE.items():
        response = await console.post(document)
        assert response.status_code in (200, 400), name
        answer = response.json()
        assert answer.get("data") is None, name
        assert 1 <= len(answer["errors"]) <= limits.MOST_ERRORS + 1, name
        assert all(error.get("extensions", {}).get("code") != "INTERNAL" for error in answer["errors"]), name
        assert len(response.content) < 4_000, name


BODIES: dict[str, bytes] = {
    "no JSON": b"{",
    "not UTF-8": b'{"query": "\xff"}',
    "a batch": b'[{"query": "{ workspace { id } }"}]',
    "a text": b'"query"',
    "a number": b"5",
    "no query": b"{}",
    "a query that is a list": b'{"query": []}',
    "variables that are a list": b'{"query": "{ workspace { id } }", "variables": []}',
    "extensions that are a text": b'{"query": "{ workspace { id } }", "extensions": "x"}',
    "an operation name that is a list": b'{"query": "{ workspace { id } }", "operationName": ["x"]}',
    "an operation name with a line break": b'{"query": "{ workspace { id } }", "operationName": "a\\nb"}',
    "an operation that is not there": b'{"query": "{ workspace { id } }", "operationName": "Nope"}',
    "NaN": b'{"query": "{ workspace { id } }", "variables": {"a": NaN}}',
    "half a surrogate": b'{"query": "{ workspace { id } }", "variables": {"a": "\\ud800"}}',
    "U+0000": b'{"query": "{ workspace { id } }", "variables": {"a": ["\\u0000"]}}',
    "U+0000 as a name": b'{"query": "{ workspace { id } }", "variables": {"\\u0000": 1}}',
    "brackets without end": b'{"query": "{ workspace { id } }", "variables": {"a": ' + b"[" * 100_000 + b"}}",
}


async def test_a_broken_body_is_answered_in_words(console: Caller) -> None:
    headers = console.all_headers() | {"Content-Type": "application/json"}
    for name, body in BODIES.items():
        response = await console.http.post("/graphql", content=body, headers=headers)
        assert response.status_code == 400, name
        (error,) = response.json()["errors"]
        assert error["extensions"]["code"] == "BAD_REQUEST", name


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


@pytest.mark.parametrize(("path", "largest"), [("/graphql", 2_000_000), ("/v1/events", 1_000_000)])
async def test_a_body_that_is_too_large_is_not_read(console: Caller, path: str, largest: int) -> None:
    read = 0

    async def chunks() -> Any:
        nonlocal read
        for _ in range(100):
            read += 100_000
            yield b"x" * 100_000

    headers = console.all_headers() | {"Content-Type": "application/json"}
    announced = await console.http.post(path, content=b"x" * (largest + 1), headers=headers)
    streamed = await console.http.post(path, content=chunks(), headers=headers)
    for response in (announced, streamed):
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "TOO_LARGE"
    assert read <= largest + 100_000


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
