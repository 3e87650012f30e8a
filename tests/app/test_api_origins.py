"""Which pages may call the API from a browser (fetch.spec.whatwg.org, CORS protocol), what every answer says to them,
and whose word counts on where a request comes from."""

from uuid import UUID

import httpx2
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.cli import behind_proxies
from app.origins import may_connect
from app.settings import SettingsError, load_settings
from profiles import keys
from profiles.models import KeyKind
from tests.app.caller import Caller
from tests.app.conftest import client_of, running
from tests.app.subscribing import connected

PAGE = {"Origin": "https://shop.example"}
PATHS = [
    ("POST", "/graphql"),
    ("POST", "/v1/events"),
    ("POST", "/v1/banner-events"),
    ("GET", "/v1/banners"),
    ("GET", "/v1/segments/seg_1/members/c-1"),
]
HEADERS = "authorization, content-type, idempotency-key, if-none-match, x-muster-client-token, x-muster-viewer"
OF_LIBRARIES = "apollographql-client-name, traceparent, x-request-id"


@pytest.mark.parametrize("headers", [HEADERS, OF_LIBRARIES])
@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_a_browser_that_asks_first_is_told_yes(console: Caller, method: str, path: str, headers: str) -> None:
    asking = PAGE | {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    answer = await console.http.options(path, headers=asking)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert [name for name in headers.split(", ") if name not in allowed] == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_a_browser_is_told_of_no_method_that_nothing_here_takes(console: Caller, method: str) -> None:
    answer = await console.http.options("/graphql", headers=PAGE | {"Access-Control-Request-Method": method})
    assert answer.status_code == 400
    assert method not in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize(
    "query", ["{ workspace { name } }", '{ banners(placements: ["top"]) { maxAgeSeconds } }', "{ nothing }"]
)
async def test_a_page_may_read_what_is_answered(console: Caller, query: str) -> None:
    answer = await console.http.post("/graphql", json={"query": query}, headers=console.all_headers() | PAGE)
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]
    assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()


async def test_a_page_may_read_banners_and_their_tag(console: Caller) -> None:
    answer = await console.http.get("/v1/banners?placement=top", headers=console.all_headers() | PAGE)
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]
    assert "etag" in answer.headers["access-control-expose-headers"].lower()


async def test_a_refusal_may_be_read_as_well(console: Caller) -> None:
    answer = await console.http.post("/v1/events", json={"events": []}, headers=PAGE)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "*")


LISTED = "https://shop.example,https://console.example:8443"
BANNERS = "/v1/banners?placement=top"
PLANNED = {"query": '{ banners(placements: ["top"]) { maxAgeSeconds } }'}


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("https://shop.example", "https://shop.example"), ("https://thief.example", None), (None, None)],
)
async def test_only_pages_that_are_listed_may_read_answers(
    environ: dict[str, str], workspace: UUID, origin: str | None, allowed: str | None
) -> None:
    """Fetches of banners, which are answered before everything else, like all other paths."""
    settings = load_settings(environ | {"MUSTER_CORS_ORIGINS": LISTED})
    _, key = await keys.create(workspace, name="app", kind=KeyKind.PUBLISHABLE, scopes=("ingest",))
    page = {"Authorization": f"Bearer {key}"} | ({"Origin": origin} if origin else {})
    async with client_of(settings) as http:
        for answer in (
            await http.get(BANNERS, headers=page),
            await http.post("/graphql", json=PLANNED, headers=page),
            await http.post("/graphql", json={"query": "{ nothing }"}, headers=page),
            await http.get(BANNERS, headers=page | {"Authorization": "Bearer nobody"}),
        ):
            given = answer.headers.get_list("access-control-allow-origin")
            assert given == ([allowed] if allowed else [])
            assert "Origin" in answer.headers["vary"] or origin is None
        asking = page | {"Access-Control-Request-Method": "POST"}
        told = await http.options("/graphql", headers=asking)
        assert told.headers.get("access-control-allow-origin") == allowed
    assert may_connect(settings, origin) is (origin is None or allowed is not None)


async def test_only_pages_that_are_listed_may_open_a_websocket(environ: dict[str, str], console: Caller) -> None:
    """A browser opens one to anywhere without asking first; a program that is none says no origin."""
    settings = load_settings(environ | {"MUSTER_CORS_ORIGINS": LISTED})
    async with running(settings) as app:
        for origin in ("https://shop.example", None):
            async with connected(app, origin=origin) as line:
                await line.begin(console.key)
        for origin in ("https://thief.example", "https://shop.example.thief.example", "null"):
            async with connected(app, origin=origin) as line:
                # Before it is accepted: a server answers the handshake with 403.
                assert await line.heard.get() == {"type": "websocket.close", "code": 1008, "reason": ""}


@pytest.mark.parametrize("text", ["https://shop.example/", "shop.example", "https://shop.example/path", "null"])
def test_an_origin_that_no_browser_sends_is_refused(environ: dict[str, str], text: str) -> None:
    with pytest.raises(SettingsError, match="MUSTER_CORS_ORIGINS: must be"):
        load_settings(environ | {"MUSTER_CORS_ORIGINS": text})


PLACES = [
    ("GET", BANNERS),
    ("GET", "/v1/banners"),
    ("POST", "/graphql"),
    ("POST", "/v1/events"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/u/nobody"),
    ("GET", "/t/nobody"),
    ("GET", "/o/nobody.gif"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), PLACES)
async def test_every_answer_is_safe_to_open_and_in_no_cache_that_others_read(
    console: Caller, method: str, path: str
) -> None:
    body = PLANNED if path == "/graphql" else None
    answer = await console.http.request(method, path, json=body, headers=console.all_headers())
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers.get_list("referrer-policy") == ["no-referrer"]
    (caching,) = answer.headers.get_list("cache-control")
    assert caching == "no-store" or caching.startswith("private, max-age=")
    assert "server" not in answer.headers
    assert "strict-transport-security" not in answer.headers  # the proxy's, which has the TLS


async def test_an_answer_that_broke_is_safe_too(http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("app.wakeups.Wakeups.is_reachable", broken)
    answer = await http.get("/readyz", headers=PAGE)
    assert (answer.status_code, answer.headers.get_list("x-content-type-options")) == (500, ["nosniff"])
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]  # the page may read which error it was
    assert answer.headers.get_list("cache-control") == ["no-store"]


async def address_seen(environ: dict[str, str], proxies: str, came_from: str, told: str) -> str:
    """The address that the application sees behind uvicorn."""
    seen: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["client"][0])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    options = behind_proxies(load_settings(environ | {"MUSTER_TRUSTED_PROXIES": proxies}))
    config = uvicorn.Config(application, lifespan="off", log_config=None, **options)
    config.load()
    transport = httpx2.ASGITransport(app=config.loaded_app, client=(came_from, 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as http:
        await http.get("/", headers={"X-Forwarded-For": told})
    return seen[0]


async def test_only_a_trusted_proxy_is_believed_in_where_a_request_comes_from(environ: dict[str, str]) -> None:
    """What limits of requests go by: else everybody could be everybody."""
    assert await address_seen(environ, "", "127.0.0.1", "203.0.113.9") == "127.0.0.1"
    assert await address_seen(environ, "10.0.0.0/8", "10.0.0.7", "203.0.113.9") == "203.0.113.9"
    assert await address_seen(environ, "10.0.0.0/8", "10.0.0.7", "198.51.100.1, 203.0.113.9") == "203.0.113.9"
    assert await address_seen(environ, "10.0.0.0/8", "192.0.2.1", "203.0.113.9") == "192.0.2.1"


def test_a_proxy_that_is_no_address_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="MUSTER_TRUSTED_PROXIES: must be"):
        load_settings(environ | {"MUSTER_TRUSTED_PROXIES": "proxy.example"})
