"""What is answered before everything else of the application: GET /v1/banners, POST /graphql as far as it fetches
banners, POST /v1/banner-events (app/banner_events.py), and checks of members (app/checks.py).

A fetch costs tens of microseconds where Starlette costs a hundred and execution a thousand. Whatever is not plain goes
the usual way, to the same answer: tests/app/test_banner_plans.py compares them.
"""

from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import lru_cache
from time import perf_counter
from typing import Any, TypeAlias
from urllib.parse import parse_qs

import orjson
from graphql import GraphQLSchema
from starlette.types import Message, Receive, Scope, Send

from app import banner_events
from app.checks import Checks
from app.endpoint import GRAPHQL_JSON, JSON, media_type
from app.fetches import (
    AUTHORIZATION,
    CLIENT_TOKEN,
    LANGUAGE,
    LONGEST_QUESTION,
    VIEWER,
    Fetches,
    HeaderValues,
    Question,
)
from app.ingest import answer as refused
from app.metrics import FETCHES, REFUSED_EARLY
from app.origins import PRIVATE, Pages
from app.patience import is_away
from app.plans import REST, REST_OFFLINE, plan_of
from app.problems import ApiError, broken, log_fault, problem
from app.rates import CODE, RequestRates
from app.reading import DOCUMENTS
from app.replies import Key, Reply
from app.serving import Asked
from app.timing import BEGAN, HEADER, timing
from campaigns.banners import LONGEST_AGE, MOST_PLACEMENTS
from db.errors import MusterError

VARY = (b"vary", b"Authorization, X-Muster-Client-Token, X-Muster-Viewer, Accept-Language")
IS_JSON = (b"content-type", JSON.encode())
TIMING = HEADER.encode()
TOOK = [(TIMING, b"app;dur=%.2f" % (hundredths / 100)) for hundredths in range(1_000)]
"""The header of all that takes less than 10 ms."""
MAY_BE_KEPT = {
    b"%d" % age: (b"cache-control", b"private, max-age=%d" % age) for age in range(int(LONGEST_AGE.total_seconds()) + 1)
}
"""By how many seconds."""
COUNTED = ("/graphql", "/v1/")
"""Paths of which the requests of a second are counted: those that take a key."""


Answer: TypeAlias = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class Front:
    """Answers fetches of banners, banner events and checks of members; everything else is the application's."""

    def __init__(self, schema: GraphQLSchema, *, introspection: bool, pages: Pages, rates: RequestRates) -> None:
        self.fetches, self.pages, self.rates = Fetches(), pages, rates
        self.get = GetBanners(self.fetches, pages, rates)
        self.tell = banner_events.BannerEvents(self.fetches, pages)
        self.checks = Checks(self.fetches)
        self.post = PostBanners(self.fetches, schema, pages, rates, introspection=introspection)

    def answer(self, scope: Scope, receive: Receive, send: Send, application: Answer) -> Coroutine[Any, Any, None]:
        """Answer, or hand on to the application."""
        path, method = scope["path"], scope["method"]
        if path == "/v1/banners" and method in ("GET", "HEAD"):
            headers = headers_of(scope)
            if has_body(headers):
                return application(scope, receive, send)
            return self.get.answer(headers, scope, receive, send)
        if path == "/graphql" and method == "POST":
            return self.post.answer(scope, receive, send, application)
        return self.answer_others(scope, receive, send, application)

    async def answer_others(self, scope: Scope, receive: Receive, send: Send, application: Answer) -> None:
        """Answer what is no fetch, or hand it on."""
        path, method = scope["path"], scope["method"]
        if path.startswith(COUNTED) and not self.rates.admits(*counted(scope)):
            await too_many(self.pages, scope, receive, send)
        elif path == banner_events.PATH and method == "POST":
            await self.tell(scope, receive, send)
        elif not (method == "GET" and not has_body(headers_of(scope)) and await self.checks.answer(scope, send)):
            await application(scope, receive, send)


def counted(scope: Scope) -> tuple[bytes | None, Scope]:
    """By what a request is counted."""
    return headers_of(scope).get(AUTHORIZATION), scope


def headers_of(scope: Scope) -> HeaderValues:
    """A request's headers; of one that is there twice the first counts, as everywhere."""
    return dict(scope["headers"][::-1])


async def too_many(pages: Pages, scope: Scope, receive: Receive, send: Send) -> None:
    """429 for a request beyond those of a second."""
    REFUSED_EARLY.inc()
    scope.setdefault(BEGAN, perf_counter())
    origin = dict(scope["headers"]).get(b"origin")
    response = problem(429, CODE, "Too many requests at once; go on in a second.", **{"Retry-After": "1"})
    response.raw_headers.extend((*pages.headers(origin), *PRIVATE, (TIMING, timing(scope).encode())))
    await response(scope, receive, send)


def has_body(headers: HeaderValues) -> bool:
    """Whether a request announces one."""
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def took(began: float) -> tuple[bytes, bytes]:
    """The header that says how long it took, as app/timing.py has it."""
    hundredths = round((perf_counter() - began) * 100_000)
    return TOOK[hundredths] if hundredths < len(TOOK) else (TIMING, b"app;dur=%.2f" % (hundredths / 100))


class GetBanners:
    """GET /v1/banners?placement=... (repeated for more): the JSON of the query `banners`, for the same callers."""

    def __init__(self, fetches: Fetches, pages: Pages, rates: RequestRates) -> None:
        self.fetches, self.pages, self.rates = fetches, pages, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.answer(headers_of(scope), scope, receive, send)

    async def answer(self, headers: HeaderValues, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with these headers."""
        began = scope.setdefault(BEGAN, perf_counter())
        given = headers.get
        authorization = given(AUTHORIZATION)
        if not self.rates.admits(authorization, scope):
            await too_many(self.pages, scope, receive, send)
            return
        for_page = self.pages.headers(given(b"origin"))
        now, is_new = self.fetches.services.clock(), False
        key = (b"?" + scope["query_string"], authorization, given(CLIENT_TOKEN), given(VIEWER), given(LANGUAGE))
        reply = self.fetches.replies.find(key, now=now)
        if reply is None:
            try:
                question = self.fetches.questions.find(key[0])
                if question is None:
                    # Nobody has a question kept who may not ask it.
                    await self.fetches.prove(key, now=now)
                    question = self.read_query(key[0])
                reply, is_new = await self.fetches.answer(key, question, now=now)
                # It may have waited for PostgreSQL, and is as old as that.
                now = self.fetches.services.clock()
            except MusterError as refusal:
                response = refused(refusal)
                response.raw_headers.extend((*for_page, *PRIVATE, (TIMING, timing(scope).encode())))
                await response(scope, receive, send)
                return
            except Exception as fault:
                response = broken(fault, where="banners", **{HEADER: timing(scope)})
                response.raw_headers.extend((*for_page, *PRIVATE))
                await response(scope, receive, send)
                return
        FETCHES.rest += 1
        age = reply.age(now)
        common = (MAY_BE_KEPT[age], (b"etag", reply.etag), VARY, *for_page, took(began))
        wanted = given(b"if-none-match")
        # A new viewer token must arrive.
        if wanted is not None and not is_new and matches(wanted, reply.etag):
            await send({"type": "http.response.start", "status": 304, "headers": [*common]})
            await send({"type": "http.response.body", "body": b""})
            return
        body = reply.body(age)
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [IS_JSON, length, *common]})
        await send({"type": "http.response.body", "body": body})

    def read_query(self, asked_by: bytes) -> Question:
        """What `?` and a query string ask; raises ApiError for a value that is none."""
        given = parse_qs(asked_by[1:].decode("latin-1"), keep_blank_values=True)
        offline = given.get("offline", ["false"])[0]
        if offline not in ("true", "false"):
            raise ApiError("INVALID_VALUE", "Say offline=true, or leave it out.", field=("offline",))
        external_id = given.get("externalId", [None])[0]
        if external_id is not None and "\0" in external_id:
            message = "An external id must not hold the character U+0000; remove it."
            raise ApiError("UNSTORABLE_TEXT", message, field=("external_id",))
        asked = Asked(
            tuple(given.get("placement", ())),
            external_id=external_id,
            locale=given.get("locale", [None])[0],
            offline=offline == "true",
        )
        question = Question(REST_OFFLINE if asked.offline else REST, asked)
        if len(asked_by) <= LONGEST_QUESTION and len(asked.placements) <= MOST_PLACEMENTS:
            self.fetches.questions.keep(asked_by, question)
        return question


class PostBanners:
    """POST /graphql with an operation that has a plan; others are executed, as is whatever would be refused."""

    def __init__(
        self, fetches: Fetches, schema: GraphQLSchema, pages: Pages, rates: RequestRates, *, introspection: bool
    ) -> None:
        self.fetches, self.schema, self.introspection = fetches, schema, introspection
        self.pages, self.rates = pages, rates

    async def answer(self, scope: Scope, receive: Receive, send: Send, application: Answer) -> None:
        """Answer, or hand on to the application."""
        began = perf_counter()
        headers = headers_of(scope)
        given = headers.get
        authorization = given(AUTHORIZATION)
        if not self.rates.admits(authorization, scope):
            await too_many(self.pages, scope, receive, send)
            return
        reply = None
        messages: list[Message] = []
        now = self.fetches.services.clock()
        if is_json(given(b"content-type", b"")):
            asked = await begun(messages, receive)
            # That is how what a GET asks begins, and no JSON: their answers are no answer to this.
            if asked is not None and not asked.startswith(b"?"):
                key = (asked, authorization, given(CLIENT_TOKEN), given(VIEWER), given(LANGUAGE))
                reply = self.fetches.replies.find(key, now=now)
                if reply is None:
                    reply = await self.reply(key, now=now)
                    now = self.fetches.services.clock()
        if reply is None:
            await application(scope, again(messages, receive), send)
            return
        FETCHES.graphql += 1
        body = reply.body(reply.age(now))
        start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-length", b"%d" % len(body)),
                (b"content-type", content_type(given(b"accept", b""))),
                *self.pages.headers(given(b"origin")),
                *PRIVATE,
                took(began),
            ],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})

    async def reply(self, key: Key, *, now: datetime) -> Reply | None:
        """The answer to a body; None when it has to be executed, if only to be refused."""
        body = key[0]
        # What does not say `banners` has no plan.
        if b"banners" not in body:
            return None
        try:
            question = self.fetches.questions.find(body)
            if question is None:
                # Nobody has a document read for whom nothing would be executed.
                await self.fetches.prove(key, now=now)
                question = self.read_body(body)
            return None if question is None else (await self.fetches.answer(key, question, now=now))[0]
        except MusterError:
            pass
        except Exception as fault:
            # That is told by what executes it.
            if not is_away(fault):
                log_fault(fault, where="banners")
        return None

    def read_body(self, body: bytes) -> Question | None:
        """What a body asks; None when it has to be executed, if only to be refused."""
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(data, dict) or b"\\u0000" in body:
            return None
        try:
            text = self.fetches.services.operations.text(data)
        except MusterError:
            return None
        name, variables = data.get("operationName"), data.get("variables")
        well_formed = isinstance(name, str | None) and isinstance(variables, dict | None)
        if not well_formed or not isinstance(data.get("extensions"), dict | None):
            return None
        # Endpoint reads documents, each caller's in their turn; what it has kept is planned the next time.
        if not isinstance(text, str) or DOCUMENTS.find(self.schema, text, self.introspection) is None:
            return None
        plan = plan_of(self.schema, text, name, self.introspection)
        asked = plan.asked(variables or {}) if plan else None
        if plan is None or asked is None:
            return None
        question = Question(plan, asked)
        self.fetches.questions.keep(body, question)
        return question


def matches(wanted: bytes, etag: bytes) -> bool:
    """Whether If-None-Match names `etag`, compared weakly (RFC 9110 13.1.2)."""
    named = (one.strip().removeprefix(b"W/") for one in wanted.split(b","))
    return wanted in (etag, b"*") or etag[2:] in named


@lru_cache(maxsize=256)
def is_json(content_type: bytes) -> bool:
    """Whether a body is said to be JSON."""
    return media_type(content_type.decode("latin-1")) == JSON


@lru_cache(maxsize=256)
def content_type(accept: bytes) -> bytes:
    """The media type of an answer to an operation, as app/endpoint.py has it."""
    accepted = map(media_type, accept.decode("latin-1").split(","))
    return f"{GRAPHQL_JSON if GRAPHQL_JSON in accepted else JSON}; charset=utf-8".encode()


async def begun(messages: list[Message], receive: Receive) -> bytes | None:
    """The body of a request; None when it is longer than a question, or does not come. `messages` are those it took."""
    body, is_more = b"", True
    while is_more and len(body) <= LONGEST_QUESTION:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    return body if len(body) <= LONGEST_QUESTION else None


def again(messages: list[Message], receive: Receive) -> Receive:
    """Receives `messages` first, which were received already."""
    waiting = messages[::-1]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return received
