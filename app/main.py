"""The HTTP application: routes, limits and start-up of the API's process."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app import banner_events, health, ingest, limits, links, members
from app.auth import CLIENT_TOKEN_HEADER, Authenticator
from app.banner_writer import BannerWriter
from app.boards import Boards, Clock
from app.context import Services, read_clock
from app.endpoint import VIEWER_HEADER, endpoint
from app.front import Front
from app.jwks import Issuer
from app.problems import log_fault, problem
from app.resources import Resources, open_resources
from app.schema import build_schema
from app.settings import Settings
from app.targets import Targets
from app.timing import HEADER, ServerTiming, timing
from app.viewers import ViewerTokens
from campaigns.banner_tokens import ImpressionTokens
from campaigns.links import Tracker

Opener = Callable[[Settings], AbstractAsyncContextManager[Resources]]

FROM_PAGES: Mapping[str, Any] = {
    "allow_origins": ["*"],
    "allow_methods": ["GET", "POST"],
    "allow_headers": ["Authorization", "Content-Type", "If-None-Match", CLIENT_TOKEN_HEADER, VIEWER_HEADER],
    "expose_headers": ["ETag", HEADER],
    "max_age": 86_400,
}
"""Pages of any origin may call. No cookie is used: whoever calls has a key, and where the page came from says nothing
about that."""
CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "TOO_LARGE"}


class Application(Starlette):
    """Starlette, behind the front that answers fetches of banners."""

    def __init__(self, front: Front, **parts: Any) -> None:
        super().__init__(**parts)
        self.front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.front(scope, receive, send, super().__call__)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings, *, opener: Opener = open_resources, clock: Clock = read_clock) -> Starlette:
    """The API. Resources are opened when the server starts and closed when it stops."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with opener(settings) as resources, Boards().running(resources.wakeups, clock) as boards:
            resources.proofs.prepare()
            app.state.services = Services(
                settings=settings,
                resources=resources,
                authenticator=Authenticator(resources.signer, issuer=Issuer.of(settings)),
                boards=boards,
                viewer_tokens=ViewerTokens(resources.signer),
                impression_tokens=ImpressionTokens(resources.signer),
                banner_writer=BannerWriter(),
                tracker=Tracker(resources.signer, settings.public_url),
                targets=Targets(),
                clock=clock,
            )
            front.fetches.services = app.state.services
            yield

    graphql = endpoint(settings)
    front = Front(build_schema(development=settings.graphiql)._schema, introspection=settings.graphiql)
    batch = at_most(limits.LARGEST_EVENTS_BODY)
    return Application(
        front,
        routes=[
            Route("/graphql", graphql, methods=["GET", "POST"], middleware=at_most(limits.LARGEST_GRAPHQL_BODY)),
            Route("/v1/events", ingest.events, methods=["POST"], middleware=at_most(limits.LARGEST_EVENTS_BODY)),
            Route("/v1/banner-events", banner_events.banner_events, methods=["POST"], middleware=batch),
            Route("/v1/banners", front.get, methods=["GET"], middleware=at_most(0)),
            Route("/v1/segments:check", members.check_segments, methods=["POST"], middleware=batch),
            Route("/v1/segments/{id}/members:check", members.check_people, methods=["POST"], middleware=batch),
            Route("/v1/segments/{id}/members.csv", members.csv, methods=["GET"], middleware=at_most(0)),
            # `path`: external ids may have slashes, which arrive decoded.
            Route(
                "/v1/segments/{id}/members/{external_id:path}",
                members.check_one,
                methods=["GET"],
                middleware=at_most(0),
            ),
            Route("/u/{token}", links.ask, methods=["GET"], middleware=at_most(0)),
            Route("/u/{token}", links.unsubscribe, methods=["POST"], middleware=at_most(limits.LARGEST_FORM_BODY)),
            Route("/t/{token}", links.follow, methods=["GET"], middleware=at_most(0)),
            Route("/o/{token}.gif", links.seen, methods=["GET"], middleware=at_most(0)),
            Route("/healthz", health.healthz, methods=["GET"], middleware=at_most(0)),
            Route("/readyz", health.readyz, methods=["GET"], middleware=at_most(0)),
            Route("/readyz/banners", health.readyz_banners, methods=["GET"], middleware=at_most(0)),
        ],
        middleware=[Middleware(ServerTiming), Middleware(CORSMiddleware, **FROM_PAGES)],
        exception_handlers={HTTPException: refused, Exception: broken},
        lifespan=lifespan,
    )


def at_most(largest: int) -> list[Middleware]:
    """The middleware of a route that takes bodies of `largest` bytes."""
    return [Middleware(limits.BodyLimit, largest=largest)]


async def refused(request: Request, fault: Exception) -> Response:
    """Answers of the router as JSON too: no such path, no such method."""
    assert isinstance(fault, HTTPException)
    response = problem(fault.status_code, CODES.get(fault.status_code, "REFUSED"), f"{fault.detail}.")
    response.headers.update(fault.headers or {})
    return response


async def broken(request: Request, fault: Exception) -> JSONResponse:
    """An exception nobody expected: logged under an id, of which the client is told."""
    # Not the path: those of links in mails are as good as a key.
    endpoint = request.scope.get("endpoint")
    error_id = log_fault(fault, where=getattr(endpoint, "__name__", type(endpoint).__name__))
    message = f"Something went wrong on our side; ask about error {error_id}."
    return problem(500, "INTERNAL", message, **{HEADER: timing(request.scope)})
