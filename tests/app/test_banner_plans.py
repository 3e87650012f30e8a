"""A known operation on banners is answered without being executed, and execution would have answered the same."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx2
import orjson
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from app.banner_json import TYPES
from app.front import PostBanners
from app.main import create_app
from app.plans import plan_of
from app.schema import build_schema
from app.settings import Settings
from tests.app.caller import Caller, operation_text
from tests.app.conftest import MakeCaller, resources_of
from tests.app.test_api_banners import placement, show
from tests.app.test_api_campaigns import everyone

SCHEMA = build_schema(introspection=False)._schema
PLACEMENTS = ["home-top", "basket", "nowhere"]
NAMED = {"query": operation_text("Banners"), "variables": {"placements": PLACEMENTS}}


def random_document(draw: Random) -> dict[str, Any]:
    """An operation that selects something of everything, as clients write them: aliases, fragments, __typename."""
    fragments: list[str] = []
    aliases = 0

    def selection(type_name: str) -> str:
        nonlocal aliases
        names = draw.sample(sorted(TYPES[type_name]), k=draw.randint(1, len(TYPES[type_name])))
        parts = []
        for name in [*names, *(["__typename"] if draw.random() < 0.3 else [])]:
            below = TYPES[type_name].get(name, "")
            aliased = draw.random() < 0.2 and aliases < 25
            aliases += aliased
            parts.append((f"other{aliases}: " if aliased else "") + name + (selection(below) if below else ""))
        text = " ".join(parts)
        if draw.random() < 0.2:
            fragments.append(f"fragment F{len(fragments)} on {type_name} {{ {text} }}")
            text = f"...F{len(fragments) - 1}"
        elif draw.random() < 0.1:
            text = f"... on {type_name} {{ {text} }}"
        return f" {{ {text} }}"

    offline = draw.choice(["", ", offline: true", ", offline: $offline", ", locale: $locale", ', locale: "de"'])
    root = draw.choice(["", "mine: "]) + f"banners(placements: $places{offline})" + selection("BannerDecision")
    declared = "$places: [String!]!" + (", $offline: Boolean!" if "$offline" in offline else "")
    declared += ", $locale: String" if "$locale" in offline else ""
    text = f"query Some({declared}) {{ {root} }}\n" + "\n".join(fragments)
    variables = {"places": draw.sample(PLACEMENTS, k=draw.randint(1, 3)), "offline": True, "locale": "de-AT"}
    return {"query": text, "variables": variables, **draw.choice([{}, {"operationName": "Some"}])}


FIELDS = "placements { banner { id } }"
EXECUTED: list[dict[str, Any]] = [
    {"query": f'{{ banners(placements: ["home-top"]) {{ {FIELDS} }} __typename }}'},
    {"query": f'{{ a: banners(placements: ["home-top"]) {{ {FIELDS} }} b: banners(placements: ["x"]) {{ viewer }} }}'},
    {"query": '{ banners(placements: ["home-top"]) { viewer @skip(if: true) maxAgeSeconds } }'},
    {"query": '{ banners(placements: ["home-top"]) { placements { placement } placements { banner { id } } } }'},
    {"query": '{ banners(placements: "home-top") { placements { placement } } }'},
    {"query": 'query Q($p: [String!] = ["home-top"]) { banners(placements: $p) { viewer } }'},
    {"query": 'query Q($o: Boolean! = true) { banners(placements: ["home-top"], offline: $o) { ' + FIELDS + " } }"},
    {"query": 'query Q($l: String = "de") { banners(placements: ["home-top"], locale: $l) { ' + FIELDS + " } }"},
    {"query": "query Q($p: [String!]!) { banners(placements: $p) { viewer } }"},
    {"query": "query Q($p: [String!]!) { banners(placements: $p) { viewer } }", "variables": {"p": [1]}},
    {"query": "query Q($p: [String!]!) { banners(placements: $p) { viewer } }", "variables": {"p": None}},
    {"query": 'query Q { banners(placements: ["x"]) { viewer } }', "operationName": "R"},
    {"query": 'query Q { banners(placements: ["x"]) { viewer } } query R { __typename }', "operationName": "Q"},
    {"query": '{ banners(placements: ["home-top"]) { nothing } }'},
    {"query": '{ banners(placements: ["home-top"]) { viewer }'},
    {"query": "{ __typename }"},
    {"query": 5},
    {"query": '{ banners(placements: ["\\u0000"]) { viewer } }'},
]
"""What has no plan."""
REFUSED: list[dict[str, Any]] = [
    {"query": "{ banners(placements: []) { viewer } }"},
    {"query": '{ banners(placements: ["x"], externalId: "ada") { viewer } }'},
]
"""What has one, and is executed to be refused."""


@asynccontextmanager
async def executing(patch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A time in which nothing has a plan."""

    async def hand_on(_: PostBanners, scope: Scope, receive: Receive, send: Send, application: ASGIApp) -> None:
        await application(scope, receive, send)

    with patch.context() as here:
        here.setattr(PostBanners, "answer", hand_on)
        yield


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """The API of a clock that stands still, so that answers can be compared."""
    now = datetime.now(UTC)
    app = create_app(settings, opener=resources_of, clock=lambda: now)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="https://muster.example") as client:
            yield client


@pytest.fixture
async def rich(console: Caller, app_caller: Caller, monkeypatch: pytest.MonkeyPatch) -> Caller:
    """Somebody for whom there is something of everything: several slots, holdouts, languages, claims, limits."""
    monkeypatch.setattr("app.boards.OLDEST_S", 0.0)
    await console.data("ProfileUpsert", input={"externalId": "ada"})
    where = await placement(console)
    await console.data("PlacementUpdate", input={"id": where, "slots": 3, "limits": {"perSession": 5}})
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for number in range(3):
        await show(console, f'Sale "{number}" \\u0000 ü', weight=10 + number, rules={"holdoutPercent": 20 * number})
    await show(console, "Held back", rules={"holdoutPercent": 100})
    await show(console, "Soon over", expiresAt=later)
    speaking = {
        "title": "Hello {{name}}",
        "translations": [{"locale": "de", "title": "Hallo {{name}}", "data": {"an": [1, None]}}],
        "variables": [{"name": "name", "default": "you"}],
        "data": {"deep": {"er": [1.5, True, "\n"]}},
    }
    await show(console, "Speaking", content={"banner": speaking}, rules={"limits": {"perDay": 3}})
    testers = (await console.data("SegmentCreate", input={"name": "Testers", "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": testers})
    await console.data("SegmentMembersAdd", input={"id": testers, "externalIds": ["ada"]})
    basket = await placement(console, "basket")
    tried = {"name": "Tried", "content": {"banner": {"title": "Tried"}}, "placementId": basket, "weight": 1}
    await console.data(
        "CampaignCreate", input=tried | {"testSegmentId": testers, "segmentIds": [await everyone(console)]}
    )
    token = (await console.data("ClientTokenCreate", input={"externalId": "ada", "claims": {"name": "Ada <3"}}))[
        "token"
    ]
    signed_in = app_caller.with_headers(x_muster_client_token=token, accept_language="fr, de;q=0.5")
    first = await signed_in.data("Banners", placements=["home-top"])
    return signed_in.with_headers(x_muster_viewer=first["viewerToken"])


def told(response: httpx2.Response) -> tuple[int, dict[str, str], bytes]:
    """All of an answer but how long it took, its name in the log, and whether others were answered otherwise."""
    own = ("server-timing", "x-request-id", "vary")
    headers = {name.lower(): value for name, value in response.headers.items() if name.lower() not in own}
    return response.status_code, headers, response.content


@contextmanager
def no_execution(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time in which only plans answer."""

    async def executed(*_: Any) -> None:
        raise AssertionError("executed, though there is a plan")

    with patch.context() as here:
        here.setattr("app.endpoint.Endpoint.__call__", executed)
        yield


async def both_ways(
    caller: Caller, body: bytes, patch: pytest.MonkeyPatch, is_planned: bool = False, **more: str
) -> list[Any]:
    """What is answered with plans (`is_planned`: by nothing else), twice, since the second answer may be kept, and by
    execution."""
    headers = caller.all_headers() | {"content-type": "application/json", "origin": "https://shop.example"} | more
    with no_execution(patch) if is_planned else nullcontext():
        planned = [told(await caller.http.post("/graphql", content=body, headers=headers)) for _ in range(2)]
    async with executing(patch):
        return [*planned, told(await caller.http.post("/graphql", content=body, headers=headers))]


def documents() -> Iterator[dict[str, Any]]:
    """All that clients send, and much that nobody would."""
    draw = Random(7)
    yield NAMED
    yield {"query": operation_text("BannersOffline"), "variables": {"placements": PLACEMENTS}}
    for _ in range(120):
        yield random_document(draw)


async def test_plans_answer_what_execution_answers(rich: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    richest = 0
    for document in documents():
        plan = plan_of(SCHEMA, document["query"], document.get("operationName"), False)
        assert plan is not None, document["query"]
        first, second, executed = await both_ways(rich, orjson.dumps(document), monkeypatch, True)
        assert first == executed, document["query"]
        assert second == executed, document["query"]
        assert executed[0] == 200
        assert b'"errors"' not in executed[2], executed[2]
        richest = max(richest, len(executed[2]))
    assert richest > 5_000


async def test_what_is_not_plain_is_executed_and_refused_alike(rich: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    for document in EXECUTED:
        text, name = document["query"], document.get("operationName")
        plan = plan_of(SCHEMA, text, name, False) if isinstance(text, str) else None
        assert plan is None or plan.asked(document.get("variables") or {}) is None, text
    for document in EXECUTED + REFUSED:
        planned, again, executed = await both_ways(rich, orjson.dumps(document), monkeypatch)
        assert planned[:2] == again[:2] == executed[:2], document
        assert planned[2] == executed[2], document
    for body in (b"", b"[]", b"{", b'{"query": "{ x }", "variables": []}'):
        planned, _, executed = await both_ways(rich, body, monkeypatch)
        assert planned == executed
        assert planned[0] == 400
    body = orjson.dumps(NAMED)
    for more in ({"content-type": "text/plain"}, {"authorization": "Bearer x"}, {"accept": "application/json"}):
        planned, _, executed = await both_ways(rich, body, monkeypatch, False, **more)
        assert planned == executed, more
    for more in (
        {"accept": "application/graphql-response+json"},
        {"accept": "*/*, Application/GraphQL-Response+JSON;q=1"},
    ):
        planned, _, executed = await both_ways(rich, body, monkeypatch, False, **more)
        assert planned == executed, more
        assert planned[1]["content-type"] == "application/graphql-response+json; charset=utf-8"


async def test_a_plan_answers_the_offline_operation_as_get_does(rich: Caller, caller: MakeCaller) -> None:
    """The same bytes for each placement, with what to choose from and without."""
    for operation, parameters in (("Banners", {}), ("BannersOffline", {"offline": "true"})):
        asked = {"query": operation_text(operation), "variables": {"placements": PLACEMENTS}}
        posted = await rich.http.post("/graphql", json=asked, headers=rich.all_headers())
        got = await rich.http.get(
            "/v1/banners", params={"placement": PLACEMENTS, **parameters}, headers=rich.all_headers()
        )
        assert posted.content == b'{"data":{"banners":' + got.content + b"}}"
    first = got.json()["placements"][0]
    titles = [one["banner"]["content"]["title"] for one in first["rotation"]["candidates"]]
    assert len(titles) == 6
    assert "Hallo Ada <3" in titles
    held = [one["held"] for one in first["rotation"]["candidates"]]
    assert True in held
    assert False in held
    assert [one["banner"] and one["banner"]["inTest"] for one in got.json()["placements"]] == [False, True, None]
