"""Pages of any origin may call the API from a browser (fetch.spec.whatwg.org, CORS protocol)."""

import pytest

from tests.app.caller import Caller

PAGE = {"Origin": "https://shop.example"}
PATHS = [
    ("POST", "/graphql"),
    ("POST", "/v1/events"),
    ("POST", "/v1/banner-events"),
    ("GET", "/v1/banners"),
    ("GET", "/v1/segments/seg_1/members/c-1"),
]
HEADERS = "authorization, content-type, if-none-match, x-muster-client-token, x-muster-viewer"


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_a_browser_that_asks_first_is_told_yes(console: Caller, method: str, path: str) -> None:
    asking = PAGE | {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": HEADERS}
    answer = await console.http.options(path, headers=asking)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert [name for name in HEADERS.split(", ") if name not in allowed] == []


@pytest.mark.parametrize(
    "query", ["{ workspace { name } }", '{ banners(placements: ["top"]) { maxAgeSeconds } }', "{ nothing }"]
)
async def test_a_page_may_read_what_is_answered(console: Caller, query: str) -> None:
    answer = await console.http.post("/graphql", json={"query": query}, headers=console.all_headers() | PAGE)
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]


async def test_a_page_may_read_banners_and_their_tag(console: Caller) -> None:
    answer = await console.http.get("/v1/banners?placement=top", headers=console.all_headers() | PAGE)
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]
    assert "etag" in answer.headers["access-control-expose-headers"].lower()


async def test_a_refusal_may_be_read_as_well(console: Caller) -> None:
    answer = await console.http.post("/v1/events", json={"events": []}, headers=PAGE)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "*")
