"""Limits of what one caller may ask for (delivery.md 4.3, row 21)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from uuid import UUID

import httpx2
import pytest
from graphql import parse
from starlette.types import Scope

from app import rates, reading
from app.rates import OperationRates, RateLimited, RequestRates, cost_of
from app.settings import load_settings
from profiles import keys
from profiles.keys import Scope as KeyScope
from profiles.models import KeyKind
from tests.app.caller import Caller, operation_text
from tests.app.conftest import client_of, running
from tests.conftest import Database

MakeCaller = Callable[..., Awaitable[Caller]]
BANNERS = "/v1/banners?placement=top"


@asynccontextmanager
async def limited(environ: dict[str, str], workspace: UUID, **settings: str) -> AsyncIterator[Caller]:
    """A secret key of an API with other limits."""
    async with client_of(load_settings(environ | settings)) as http:
        _, secret = await keys.create(workspace, name="one", kind=KeyKind.SECRET, scopes=tuple(KeyScope))
        yield Caller(http, workspace, secret)


def test_an_operation_costs_what_it_looks_up_and_changes() -> None:
    def cost(text: str, name: str | None = None) -> int:
        return cost_of(parse(text), name)

    assert cost("{ workspace { id } }") == 1
    assert cost("{ a: workspace { id } b: workspace { id } }") == 2
    assert cost("query A { ...F } fragment F on Query { a: workspace { id } b: workspace { id } }") == 2
    assert cost("mutation { a: brandCreate { brand { id } } b: brandCreate { brand { id } } }") == 10
    assert cost("query A { a } mutation B { a }", "A") == 1
    assert cost("query A { a } mutation B { a }", "B") == 5
    assert cost("query A { a } query B { a }") == rates.REFUSED_COST
    assert cost("{ a { " + " ".join(f"f{n}" for n in range(99)) + " } }") == 3
    assert cost(operation_text("Campaigns")) == 1


async def test_a_key_that_spent_its_points_is_told_when_to_come_back(environ: dict[str, str], workspace: UUID) -> None:
    """Points are of operations, not of requests: aliases cost what so many requests would."""
    async with limited(environ, workspace, MUSTER_RATE_LIMIT="10") as caller:
        four = "{ " + " ".join(f"a{n}: workspace {{ id }}" for n in range(4)) + " }"
        assert [(await caller.post(four)).status_code for _ in range(3)] == [200, 200, 429]
        refused = await caller.post(four)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        (error,) = refused.json()["errors"]
        assert error["extensions"]["code"] == "RATE_LIMITED"
        assert "Retry-After" in error["message"]


async def test_who_has_nothing_left_is_not_even_read(
    environ: dict[str, str], workspace: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To parse is what costs: whoever goes on asking is refused without it, and without a question to Valkey."""
    async with limited(environ, workspace, MUSTER_RATE_LIMIT="1") as caller:
        assert [(await caller.post("{ workspace { id } }")).status_code for _ in range(2)] == [200, 429]

        def never(*_: object, **__: object) -> None:
            raise AssertionError("read")

        monkeypatch.setattr("limits.aio.storage.RedisStorage.incr", never)
        monkeypatch.setattr("app.reading.Reader.read", never)
        for text in ("{ workspace { name } }", "{ never seen before"):
            assert (await caller.post(text)).status_code == 429


@pytest.mark.parametrize("path", ["/graphql", "/v1/events", "/v1/banner-events", "/v1/segments:check"])
async def test_who_has_sent_more_than_may_wait_is_told_when_to_come_back(
    console: Caller, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_WAITING", reading.LARGE_BODY)
    refused = await console.http.post(path, json={"a": "a" * reading.LARGE_BODY}, headers=console.all_headers())
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")


async def test_so_is_who_has_sent_too_many_documents_that_nobody_knows(
    console: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all of what waits with them; with those that are known nothing waits."""
    monkeypatch.setattr(reading, "MOST_WAITING", reading.OBJECTS_OF_ONE + 10_000)
    document, much = "{ workspace { id } } # known to nobody", {"a": "a" * 10_000}
    answers = [await console.post(document, variables) for variables in (much, {}, much)]
    assert [one.status_code for one in answers] == [429, 200, 200]


async def test_another_key_and_another_process_go_by_the_same_count(environ: dict[str, str], workspace: UUID) -> None:
    """Counted on Valkey, each key by itself."""
    async with limited(environ, workspace, MUSTER_RATE_LIMIT="2") as one:
        assert [(await one.post("{ workspace { id } }")).status_code for _ in range(3)] == [200, 200, 429]
        async with limited(environ, workspace, MUSTER_RATE_LIMIT="2") as another:
            assert (await another.post("{ workspace { id } }")).status_code == 200
            same = Caller(another.http, workspace, one.key)
            assert (await same.post("{ workspace { id } }")).status_code == 429


async def test_a_document_that_is_refused_costs_as_well(environ: dict[str, str], workspace: UUID) -> None:
    """One that is not valid, does not parse, or is beyond a limit."""
    for refused in ("{ nope }", "{", "{ " + "a " * 600 + "}"):
        async with limited(environ, workspace, MUSTER_RATE_LIMIT="10") as caller:
            assert [(await caller.post(refused)).status_code for _ in range(2)] == [200, 200]
            assert (await caller.post("{ workspace { id } }")).status_code == 429, refused[:9]


async def test_without_valkey_each_process_counts_for_itself(
    environ: dict[str, str], workspace: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half as much passes, and nobody waits for Valkey again and again."""
    tries = 0

    async def away(*_: object, **__: object) -> bool:
        nonlocal tries
        tries += 1
        raise OSError("away")

    async with limited(environ, workspace, MUSTER_RATE_LIMIT="8") as caller:
        monkeypatch.setattr("limits.aio.storage.RedisStorage.incr", away)
        assert [(await caller.post("{ workspace { id } }")).status_code for _ in range(5)] == [200] * 4 + [429]
    assert tries == 1


async def test_a_valkey_that_hangs_is_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line tells it, however many waited."""

    async def hang(*_: object, **__: object) -> bool:
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(rates, "PATIENCE_S", 0.01)
    monkeypatch.setattr("limits.aio.storage.RedisStorage.incr", hang)
    async with OperationRates(database.redis_url, 2).running() as limit:
        await limit.take("a", 1)
        with pytest.raises(RateLimited):
            await limit.take("a", 1)
        await limit.take("b", 1)
        limit.away_until = 0.0
        caplog.clear()
        await asyncio.gather(*(limit.take(f"c{n}", 1) for n in range(5)))
    assert len(caplog.records) == 1


async def test_callers_with_nothing_left_are_forgotten_before_they_fill_the_memory(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "MOST_SPENT", 3)
    async with OperationRates(database.redis_url, 1).running() as limit:
        for n in range(5):
            with pytest.raises(RateLimited):
                await limit.take(f"from 10.0.0.{n}", 2)
        assert list(limit.spent) == [f"from 10.0.0.{n}" for n in (2, 3, 4)]


async def test_a_publishable_key_is_limited_by_address(
    environ: dict[str, str], workspace: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody has it: one visitor must not use up what all others have."""
    ask = '{ banners(placements: ["top"]) { __typename maxAgeSeconds } }'
    _, secret = await keys.create(workspace, name="app", kind=KeyKind.PUBLISHABLE, scopes=("ingest",))
    async with running(load_settings(environ | {"MUSTER_RATE_LIMIT": "2"})) as app:
        for address in ("10.0.0.1", "10.0.0.2"):
            transport = httpx2.ASGITransport(app=app, client=(address, 1))
            async with httpx2.AsyncClient(transport=transport, base_url="https://muster.example") as http:
                caller = Caller(http, workspace, secret)
                # A directive: it has no plan and is executed.
                asked = [(await caller.post(ask.replace("__typename", "__typename @include(if: true)"))) for _ in "123"]
                assert [one.status_code for one in asked] == [200, 200, 429]


async def test_requests_of_one_second_are_counted_before_anything_is_read(
    environ: dict[str, str], workspace: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "WINDOW_S", 3600.0)
    async with limited(environ, workspace, MUSTER_REQUEST_RATE="2") as caller:
        headers = caller.all_headers()
        assert [(await caller.http.get(BANNERS, headers=headers)).status_code for _ in range(2)] == [200, 200]
        for method, path in (("GET", BANNERS), ("POST", "/graphql"), ("POST", "/v1/events")):
            refused = await caller.http.request(method, path, headers=headers)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["error"]["code"] == "RATE_LIMITED"
            assert refused.headers.get_list("access-control-allow-origin") == ["*"]
        assert (await caller.http.get("/healthz", headers=headers)).status_code == 200
        assert (await caller.http.get(BANNERS)).status_code == 401


def test_a_second_later_it_is_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = monotonic()
    monkeypatch.setattr("app.rates.time.monotonic", lambda: now)
    scope: Scope = {"client": ("10.0.0.1", 1)}
    limit = RequestRates(2)
    assert [limit.admits(b"a", scope) for _ in range(3)] == [True, True, False]
    assert limit.admits(b"a", {"client": ("10.0.0.2", 1)})
    assert limit.admits(b"b", scope)
    now += rates.WINDOW_S
    assert limit.admits(b"a", scope)
    assert len(limit.counts) == 1
    assert all(RequestRates(0).admits(b"a", scope) for _ in range(3))
