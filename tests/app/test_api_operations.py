"""Operations named by their SHA-256, and an API that executes no others."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from app.main import create_app
from app.operations import hash_of
from app.settings import Settings, SettingsError, load_settings
from profiles import keys
from tests.app.caller import Caller, operation_text
from tests.app.conftest import client_of, running
from tests.app.subscribing import line_of
from tests.app.test_api_campaigns import make
from tests.app.test_api_server import api_process

WORKSPACE = operation_text("Workspace")
KNOWN = hash_of(WORKSPACE)
OTHER = "{ workspace { id } }"


async def post(caller: Caller, **body: object) -> tuple[int, object]:
    """Status, and the code of the one error, or what the operation's field answers."""
    answer = await caller.http.post("/graphql", json=body, headers=caller.all_headers())
    said = answer.json()
    if "errors" in said:
        (error,) = said["errors"]
        return answer.status_code, error["extensions"]["code"]
    return answer.status_code, next(iter(said["data"].values()))


def apollo(name: str) -> dict[str, object]:
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": name}}}


async def test_a_published_operation_is_found_by_its_hash(console: Caller) -> None:
    wanted = (await post(console, query=WORKSPACE))[1]
    assert await post(console, **apollo(KNOWN)) == (200, wanted)
    assert await post(console, documentId=KNOWN) == (200, wanted)
    assert await post(console, documentId=f"sha256:{KNOWN}") == (200, wanted)
    assert await post(console, query=WORKSPACE, **apollo(KNOWN)) == (200, wanted)
    got = await console.http.get("/graphql", params={"documentId": KNOWN}, headers=console.all_headers())
    assert got.json()["data"]["workspace"] == wanted


async def test_one_that_is_not_known_is_sent_as_a_whole(console: Caller) -> None:
    assert await post(console, **apollo(hash_of(OTHER))) == (400, "PERSISTED_QUERY_NOT_FOUND")
    assert await post(console, documentId="x") == (400, "PERSISTED_QUERY_NOT_FOUND")
    assert (await post(console, query=OTHER, **apollo(hash_of(OTHER))))[0] == 200
    assert await post(console, query=OTHER, **apollo(KNOWN)) == (400, "WRONG_HASH")


@pytest.fixture
def strict(environ: dict[str, str]) -> Settings:
    return load_settings(environ | {"MUSTER_ONLY_OPERATIONS": "true"})


@pytest.fixture
async def guarded(strict: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(strict) as client:
        yield client


async def test_where_only_known_ones_are_executed_all_others_are_refused(
    guarded: httpx2.AsyncClient, console: Caller, app_caller: Caller
) -> None:
    strict = Caller(guarded, console.workspace_id, console.key)
    assert (await post(strict, query=WORKSPACE))[0] == (await post(strict, documentId=KNOWN))[0] == 200
    assert await post(strict, query=OTHER) == (400, "UNKNOWN_OPERATION")
    assert await post(strict, query=OTHER, **apollo(hash_of(OTHER))) == (400, "PERSISTED_QUERY_NOT_FOUND")
    app = Caller(guarded, app_caller.workspace_id, app_caller.key)
    variables = {"placements": ["home"]}
    banners = operation_text("Banners")
    assert (await post(app, query=banners, variables=variables))[0] == 200
    assert (await post(app, documentId=hash_of(banners), variables=variables))[0] == 200
    assert await post(app, query=banners + " ", variables=variables) == (400, "UNKNOWN_OPERATION")


async def test_subscriptions_are_named_and_refused_alike(strict: Settings, console: Caller) -> None:
    campaign = await make(console)
    async with running(strict) as app, line_of(app, console) as line:
        named = {"documentId": hash_of(operation_text("CampaignProgress")), "variables": {"id": campaign}}
        await line.say("subscribe", id="1", payload=named)
        assert (await line.told())["status"] == "DRAFT"
        await line.say("subscribe", id="2", payload={"query": "subscription { x }"})
        refused = await line.hear()
        assert refused["payload"][0]["extensions"]["code"] == "UNKNOWN_OPERATION"


def test_an_api_that_would_execute_nothing_does_not_start(environ: dict[str, str], tmp_path: Path) -> None:
    nothing = load_settings(environ | {"MUSTER_ONLY_OPERATIONS": "true", "MUSTER_OPERATIONS": str(tmp_path)})
    with pytest.raises(SettingsError, match="MUSTER_OPERATIONS"):
        create_app(nothing)


async def test_a_real_server_in_production_executes_those_alone_and_ends_streams_of_a_revoked_key(
    environ: dict[str, str], tmp_path: Path, console: Caller
) -> None:
    """Within seconds; a closed WebSocket is tests/app/test_api_subscriptions.py."""
    campaign = await make(console)
    (key,) = await keys.list_keys(console.workspace_id)
    async with (
        api_process(environ | {"MUSTER_ONLY_OPERATIONS": "true"}, tmp_path / "log") as (url, _),
        httpx2.AsyncClient(base_url=url, timeout=60) as http,
    ):
        strict = Caller(http, console.workspace_id, console.key)
        assert await post(strict, query=OTHER) == (400, "UNKNOWN_OPERATION")
        assert await post(strict, query="{ __schema { types { name } } }") == (400, "UNKNOWN_OPERATION")
        assert (await post(strict, documentId=KNOWN))[0] == (await post(strict, **apollo(KNOWN)))[0] == 200
        followed = {"documentId": hash_of(operation_text("CampaignProgress")), "variables": {"id": campaign}}
        headers = strict.all_headers() | {"Accept": "text/event-stream"}
        async with (
            http.stream("POST", "/graphql", json={"query": "subscription { x }"}, headers=headers) as refused,
            http.stream("POST", "/graphql", json=followed, headers=headers) as events,
        ):
            assert "UNKNOWN_OPERATION" in (await refused.aread()).decode()
            told = events.aiter_lines()
            assert await anext(told) == "event: next"
            await keys.revoke(console.workspace_id, key.id, now=key.created_at)
            async with asyncio.timeout(30):
                rest = [text async for text in told if text and not text.startswith(":")]
            assert rest[-2:] == ["event: complete", "data:"]
        assert await post(strict, documentId=KNOWN) == (401, "UNAUTHENTICATED")
