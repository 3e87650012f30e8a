"""The HTTP application: routes, limits and start-up of the API's process."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from app import (
    banner_events,
    exports,
    health,
    ingest,
    limits,
    links,
    logs,
    members,
    metrics,
    operations,
    problems,
    scraping,
)
from app.auth import Authenticator, KnownKeys
from app.banner_writer import BannerWriter
from app.boards import Boards, Clock
from app.checks import ROUTE as CHECK
from app.context import Services, read_clock
from app.endpoint import endpoint
from app.followed import Feeds
from app.front import Front
from app.jwks import ProfileIssuer
from app.operations import Operations
from app.origins import EXPOSED, Pages, guarded
from app.patience import UNREACHABLE, is_away
from app.people import SignIn
from app.rates import OperationRates, RequestRates
from app.reading import Reader
from app.requests import REQUEST_ID, request_id_of
from app.resources import Resources, open_resources
from app.schema import build_schema
from app.settings import Settings, SettingsError
from app.shares import Shares
from app.sockets import socket
from app.streams import EVENT_STREAM
from app.targets import Targets
from app.timing import HEADER, ServerTiming, timing
from app.viewers import ViewerTokens
from campaigns.banner_tokens import ImpressionTokens
from campaigns.links import Tracker

Opener = Callable[[Settings], AbstractAsyncContextManager[Resources]]

CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "TOO_LARGE"}


STREAM = EVENT_STREAM.encode()


class Application(Starlette):
    """Starlette, behind the front that answers fetches of banners and checks of members."""

    def __init__(self, front: Front, **parts: Any) -> None:
        super().__init__(**parts)
        self.front = front
        self.paths = {route.endpoint: route.path for route in self.routes if isinstance(route, Route)}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        # No coroutine around another: one costs as much as finding a reply (app/replies.py).
        if scope["type"] == "http":
            return self.front.answer(scope, receive, send, self.answer)
        return super().__call__(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the front does not answer."""
        began, status, request_id, lasts = perf_counter(), 500, request_id_of(scope), False

        async def watched(message: Message) -> None:
            nonlocal status, lasts
            if message["type"] == "http.response.start":
                status = message["status"]
                lasts = any(name == b"content-type" and STREAM in value for name, value in message["headers"])
                message["headers"] = [*message["headers"], (REQUEST_ID, request_id.encode())]
            await send(message)

        try:
            with logs.about(request_id=request_id):
                await super().__call__(scope, receive, guarded(watched))
        finally:
            route = self.paths.get(scope.get("endpoint", refused), metrics.NO_ROUTE)
            metrics.REQUESTS.labels(route, str(status)).inc()
            # A stream lasts as long as somebody listens, which says nothing of how quick we are.
            if not lasts:
                metrics.REQUEST_SECONDS.labels(route).observe(perf_counter() - began)


def from_pages(settings: Settings) -> dict[str, Any]:
    """Which pages may call, and how."""
    return {
        "allow_origins": settings.cors_origins,
        "allow_methods": ["GET", "POST"],
        # What a page may send says nothing to us, there are no cookies; libraries add headers of their own.
        "allow_headers": ["*"],
        "expose_headers": EXPOSED,
        "max_age": 86_400,
    }


def known_operations(settings: Settings) -> Operations:
    """Those in the folder of the settings; raises SettingsError when there are none and no others are executed."""
    texts = operations.read(settings.operations_folder)
    if settings.only_operations and not texts:
        raise SettingsError(
            ["MUSTER_OPERATIONS: has no *.graphql file, and MUSTER_ONLY_OPERATIONS refuses all others."]
        )
    return Operations.of(texts, only=settings.only_operations)


def create_app(settings: Settings, *, opener: Opener = open_resources, clock: Clock = read_clock) -> Starlette:
    """The API. Resources are opened when the server starts and closed when it stops."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        known_keys = KnownKeys()
        async with (
            opener(settings) as resources,
            Boards().running(resources.wakeups, clock) as boards,
            Feeds().running() as feeds,
            OperationRates(settings.redis_url, settings.rate_limit).running() as rates,
            known_keys.uses.running(),
        ):
            resources.proofs.prepare()
            app.state.services = Services(
                settings=settings,
                resources=resources,
                authenticator=Authenticator(
                    resources.signer,
                    known=known_keys,
                    issuer=ProfileIssuer.of(settings),
                    sign_in=SignIn.of(settings),
                ),
                boards=boards,
                viewer_tokens=ViewerTokens(resources.signer),
                impression_tokens=ImpressionTokens(resources.signer),
                banner_writer=BannerWriter(),
                tracker=Tracker(resources.signer, settings.public_url),
                targets=Targets(),
                feeds=feeds,
                shares=Shares(),
                operations=known,
                rates=rates,
                reader=Reader(),
                clock=clock,
            )
            front.fetches.services = app.state.services
            yield

    schema = build_schema(introspection=settings.introspection)
    known = known_operations(settings)
    graphql = endpoint(settings, known)

    async def subscriptions(websocket: WebSocket) -> None:
        await socket(websocket, schema)

    front = Front(
        schema._schema,
        introspection=settings.introspection,
        pages=Pages(settings.cors_origins),
        rates=RequestRates(settings.request_rate),
    )
    batch = at_most(limits.LARGEST_EVENTS_BODY)
    return Application(
        front,
        routes=[
            Route("/graphql", graphql, methods=["GET", "POST"], middleware=at_most(limits.LARGEST_GRAPHQL_BODY)),
            WebSocketRoute("/graphql", subscriptions),
            Route("/v1/events", ingest.events, methods=["POST"], middleware=at_most(limits.LARGEST_EVENTS_BODY)),
            Route(banner_events.PATH, front.tell, methods=["POST"]),
            Route("/v1/banners", front.get, methods=["GET"], middleware=at_most(0)),
            Route("/v1/segments:check", members.check_segments, methods=["POST"], middleware=batch),
            Route("/v1/segments/{id}/members:check", members.check_people, methods=["POST"], middleware=batch),
            Route("/v1/segments/{id}/members.csv", members.csv, methods=["GET"], middleware=at_most(0)),
            Route(CHECK, members.check_one, methods=["GET"], middleware=at_most(0)),
            Route("/v1/exports/{token}", exports.export, methods=["GET"], middleware=at_most(0)),
            Route("/u/{token}", links.ask, methods=["GET"], middleware=at_most(0)),
            Route("/u/{token}", links.unsubscribe, methods=["POST"], middleware=at_most(limits.LARGEST_FORM_BODY)),
            Route("/t/{token}", links.follow, methods=["GET"], middleware=at_most(0)),
            Route("/o/{token}.gif", links.seen, methods=["GET"], middleware=at_most(0)),
            Route("/healthz", health.healthz, methods=["GET"], middleware=at_most(0)),
            Route("/readyz", health.readyz, methods=["GET"], middleware=at_most(0)),
            Route("/metrics", scraping.scrape, methods=["GET"], middleware=at_most(0)),
            Route("/readyz/banners", health.readyz_banners, methods=["GET"], middleware=at_most(0)),
        ],
        middleware=[Middleware(ServerTiming), Middleware(CORSMiddleware, **from_pages(settings))],
        exception_handlers={HTTPException: refused, Exception: broken} | dict.fromkeys(UNREACHABLE, unreachable),
        lifespan=lifespan,
    )


def at_most(largest: int) -> list[Middleware]:
    """The middleware of a route that takes bodies of `largest` bytes."""
    return [Middleware(limits.BodyLimit, largest=largest)]


async def refused(request: Request, fault: Exception) -> Response:
    """Answers of the router as JSON too: no such path, no such method."""
    assert isinstance(fault, HTTPException)
    response = problems.problem(fault.status_code, CODES.get(fault.status_code, "REFUSED"), f"{fault.detail}.")
    response.headers.update(fault.headers or {})
    return response


async def unreachable(request: Request, fault: Exception) -> JSONResponse:
    """503 while PostgreSQL is away, inside of all middleware; what only looks alike is `broken`."""
    if not is_away(fault):
        raise fault
    return problems.broken(fault, where=where_of(request))


async def broken(request: Request, fault: Exception) -> JSONResponse:
    """An exception nobody expected: logged under an id, of which the client is told."""
    response = problems.broken(fault, where=where_of(request), **{HEADER: timing(request.scope)})
    # Made outside of all middleware, that of CORS too.
    origin = request.headers.get("origin")
    response.raw_headers.extend(request.app.front.pages.headers(origin.encode("latin-1") if origin else None))
    return response


def where_of(request: Request) -> str:
    """What answers a request, for the log. Not the path: those of links in mails are as good as a key."""
    endpoint = request.scope.get("endpoint")
    return getattr(endpoint, "__name__", type(endpoint).__name__)
