"""The HTTP application: routes, limits and start-up of the API's process."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app import health, ingest, limits, links, members
from app.auth import Authenticator
from app.boards import Boards
from app.context import Services
from app.endpoint import endpoint
from app.problems import log_fault, problem
from app.resources import Resources, open_resources
from app.settings import Settings
from app.targets import Targets
from app.timing import ServerTiming
from campaigns.links import Tracker

Opener = Callable[[Settings], AbstractAsyncContextManager[Resources]]

CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "TOO_LARGE"}


def create_app(settings: Settings, *, opener: Opener = open_resources) -> Starlette:
    """The API. Resources are opened when the server starts and closed when it stops."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with opener(settings) as resources:
            app.state.services = Services(
                settings=settings,
                resources=resources,
                authenticator=Authenticator(resources.signer),
                boards=Boards(),
                tracker=Tracker(resources.signer, settings.public_url),
                targets=Targets(),
            )
            yield

    graphql = endpoint(settings)
    methods = ["GET", "POST"] if settings.graphiql else ["POST"]
    batch = at_most(limits.LARGEST_EVENTS_BODY)
    return Starlette(
        routes=[
            Route("/graphql", graphql, methods=methods, middleware=at_most(limits.LARGEST_GRAPHQL_BODY)),
            Route("/v1/events", ingest.events, methods=["POST"], middleware=at_most(limits.LARGEST_EVENTS_BODY)),
            Route("/v1/banners", ingest.banners, methods=["GET"], middleware=at_most(0)),
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
        ],
        middleware=[Middleware(ServerTiming)],
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
    return problem(500, "INTERNAL", f"Something went wrong on our side; ask about error {error_id}.")
