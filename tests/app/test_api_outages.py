"""What clients are told while PostgreSQL is away, whatever they ask for: that it is, and not that we broke."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
from tortoise.exceptions import TransactionManagementError

from app.metrics import REGISTRY
from app.patience import is_away
from app.settings import Settings
from db import transactions
from db.transactions import transaction
from profiles import requests, workspaces
from tests.app.caller import Caller, operation_text
from tests.app.conftest import MakeCaller, running, without_database
from tests.app.subscribing import connected
from tests.app.test_api_requests import count, keyed
from tests.conftest import Database

AWAY = "The database is away for the moment; ask again in a few seconds."
GRAPHQL_JSON = {"Accept": "application/graphql-response+json"}
BANNERS = {"query": operation_text("Banners"), "variables": {"placements": ["home-top"]}}
TWO = "{ a: segments(first: 1) { edges { cursor } } b: campaigns(first: 1) { edges { cursor } } }"


def outages(caplog: pytest.LogCaptureFixture) -> int:
    """How many lines say that PostgreSQL is away; none may say that we broke, and none has a traceback."""
    ours = [record for record in caplog.records if record.message in ("PostgreSQL is away", "request failed")]
    assert {(record.message, record.levelname, record.exc_info) for record in ours} <= {
        ("PostgreSQL is away", "WARNING", None)
    }
    caplog.clear()
    return len(ours)


async def test_whoever_is_not_known_yet_is_told_to_come_again(
    database: Database, http: httpx2.AsyncClient, caller: MakeCaller, workspace: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    """With a key that this process never looked up nothing can be executed, in no way of asking."""
    headers = (await caller(workspace)).all_headers()
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/events", {"json": {"events": []}}),
        ("POST", "/v1/banner-events", {"json": {"events": []}}),
        ("POST", "/v1/segments:check", {"json": {"externalId": "ada", "segmentIds": []}}),
        ("POST", "/v1/segments/seg_1/members:check", {"json": {"externalIds": []}}),
        ("GET", "/v1/segments/seg_1/members/ada", {}),
        ("GET", "/v1/segments/seg_1/members.csv", {}),
        ("GET", "/v1/banners?placement=home-top", {}),
    ]
    async with without_database(database):
        for method, path, body in ways:
            response = await http.request(method, path, headers=headers | {"Origin": "https://a.example"}, **body)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (503, "UNAVAILABLE"), path
            assert error["message"].startswith("The database is away"), path
            assert (response.headers["retry-after"], outages(caplog)) == ("10", 1), path
            assert "access-control-allow-origin" in response.headers, path
        for accepted in ({}, GRAPHQL_JSON, {"Accept": "text/event-stream"}):
            for body in ({"query": TWO}, BANNERS):
                response = await http.post("/graphql", json=body, headers=headers | accepted)
                (error,) = response.json()["errors"]
                assert error == {"message": AWAY, "extensions": {"code": "UNAVAILABLE"}}
                assert (response.status_code, response.headers["retry-after"], outages(caplog)) == (503, "10", 1)
    assert (await http.post("/graphql", json={"query": TWO}, headers=headers)).status_code == 200


async def test_whoever_is_known_is_told_at_each_field(
    database: Database, console: Caller, app_caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for both fields, and one more is counted; banners this process never showed are away as well."""
    for one in (console, app_caller):
        await one.post("{ __typename }")
    labels = {"field": "several", "outcome": "unavailable"}
    before = REGISTRY.get_sample_value("muster_graphql_operations_total", labels) or 0
    async with without_database(database):
        response = await console.post(TWO)
        errors = response.json()["errors"]
        assert (response.status_code, outages(caplog)) == (200, 1)
        assert errors
        assert {(error["message"], error["extensions"]["code"]) for error in errors} == {(AWAY, "UNAVAILABLE")}
        assert {error["path"][0] for error in errors} <= {"a", "b"}
        assert REGISTRY.get_sample_value("muster_graphql_operations_total", labels) == before + 1
        (error,) = (await app_caller.ask("Banners", placements=["home-top"]))["errors"]
        assert (error["extensions"], outages(caplog)) == ({"code": "UNAVAILABLE"}, 1)


async def test_a_mutation_whose_commit_was_not_answered_may_be_sent_again(
    console: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was done, and is not done twice; whoever sent it is told that nobody knows."""
    commit, note, is_last = transactions.Client.commit, requests.note, False

    async def noted(*facts: Any) -> None:
        nonlocal is_last
        is_last = True
        await note(*facts)

    async def unheard(self: transactions.Client) -> None:
        nonlocal is_last
        await commit(self)
        if is_last:
            is_last = False
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    monkeypatch.setattr(requests, "note", noted)
    monkeypatch.setattr(transactions.Client, "commit", unheard)
    (error,) = (await keyed(console).ask("BrandCreate", input={"name": "Nord"}))["errors"]
    assert error["extensions"] == {"code": "UNAVAILABLE"}
    assert "not known whether this was done" in error["message"]
    assert "with the same Idempotency-Key" in error["message"]
    assert outages(caplog) == 1
    again = await keyed(console).data("BrandCreate", input={"name": "Nord"})
    assert (again["brand"]["name"], await count(console, "brand")) == ("Nord", 1)


async def test_a_transaction_in_the_middle_of_which_the_connection_ends_is_an_outage(
    database: Database, console: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def ended(workspace_id: UUID) -> None:
        async with transaction(workspace_id) as connection:
            await connection.execute("SELECT 1")
            async with without_database(database):
                await connection.execute("SELECT 1")

    with monkeypatch.context() as patch:
        patch.setattr(workspaces, "get", ended)
        assert await console.error("Workspace") == {"code": "UNAVAILABLE"}
        assert outages(caplog) == 1
    assert await console.data("Workspace")


async def test_a_subscriber_who_is_not_known_yet_may_connect_again(
    settings: Settings, database: Database, caller: MakeCaller, workspace: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    key = (await caller(workspace)).key
    async with running(settings) as app, without_database(database), connected(app) as line:
        await line.say("connection_init", payload={"Authorization": f"Bearer {key}"})
        async with asyncio.timeout(30):
            assert (await line.end(), outages(caplog)) == (1013, 1)


def caused(by: Exception) -> Exception:
    """What Tortoise makes of an error of asyncpg."""
    fault = TransactionManagementError(by)
    fault.__cause__ = by
    return fault


TROUBLES = [
    (asyncpg.AdminShutdownError("57P01"), True),
    (asyncpg.CannotConnectNowError("57P03"), True),
    (asyncpg.TooManyConnectionsError("53300"), True),
    (asyncpg.ObjectNotInPrerequisiteStateError("55000"), True),
    (asyncpg.ConnectionDoesNotExistError("08003"), True),
    (asyncpg.InterfaceError("cannot perform operation: connection is closed"), True),
    (asyncpg.InterfaceError("pool is closing"), True),
    (asyncpg.InternalClientError("unexpected connection_lost() call"), True),
    (caused(asyncpg.ReadOnlySQLTransactionError("25006")), True),
    (ConnectionRefusedError(111, "refused"), True),
    (TimeoutError(), True),
    (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), False),
    (asyncpg.UndefinedColumnError("42703"), False),
    (asyncpg.DeadlockDetectedError("40P01"), False),
    (asyncpg.SerializationError("40001"), False),
    (caused(asyncpg.QueryCanceledError("57014")), False),
    (caused(asyncpg.InvalidTransactionStateError("25000")), False),
    (FileNotFoundError(2, "No such file", "page.html"), False),
    (RuntimeError("ours"), False),
]


@pytest.mark.parametrize(("trouble", "away"), TROUBLES, ids=lambda one: type(one).__name__)
async def test_a_fault_of_ours_that_looks_like_an_outage_is_told_as_ours(
    console: Caller, monkeypatch: pytest.MonkeyPatch, trouble: Exception, away: bool
) -> None:
    async def fails(*_: object) -> None:
        raise trouble

    assert is_away(trouble) is away
    await console.post("{ __typename }")
    monkeypatch.setattr(workspaces, "get", fails)
    assert (await console.error("Workspace"))["code"] == ("UNAVAILABLE" if away else "INTERNAL")
    monkeypatch.setattr("app.ingest.track", fails)
    response = await console.http.post("/v1/events", json={"events": []}, headers=console.all_headers())
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == ((503, "UNAVAILABLE") if away else (500, "INTERNAL"))
    assert ("retry-after" in response.headers) is away
