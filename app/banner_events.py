"""POST /v1/banner-events: what viewers did with banners, in plain JSON, as apps and pages send it.

Apps send as often as they fetch, so that this is answered in front of Starlette too (app/front.py), whose routing and
middleware cost more than the events of a small batch. Limits, headers, refusals, log and numbers are those of all
other routes: tests/app/test_api_banner_events.py compares them.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app import logs, metrics
from app.api.banner_events import take
from app.auth import require
from app.context import Context
from app.endpoint import JSON, is_json
from app.fetches import Fetches
from app.ingest import answer, read_batch, read_in_turn, read_time
from app.limits import LARGEST_EVENTS_BODY, BodyLimit, TooLarge
from app.origins import PRIVATE, Pages
from app.problems import ApiError, broken, path_of, problem
from app.requests import REQUEST_ID, request_id_of
from app.timing import BEGAN, HEADER, timing
from campaigns.banner_events import BannerEvent
from db.errors import MusterError
from profiles import keys

PATH = "/v1/banner-events"
FIELDS = ("id", "kind", "token", "sessionId", "occurredAt")
SECONDS = metrics.REQUEST_SECONDS.labels(PATH)
TIMING = HEADER.encode()


class BannerEvents:
    """Takes a batch of events: {"events": [{id, kind, token, sessionId, occurredAt}]}.

    Answers 202 {"accepted", "duplicates", "errors": [{index, field, code, message}]} once they are committed: a
    refused event does not hold up the others, and what is refused need not be sent again. Sent again, a batch adds
    nothing. 503 while the database is away: keep them and come again.
    """

    def __init__(self, fetches: Fetches, pages: Pages) -> None:
        self.fetches, self.pages = fetches, pages
        self.limited = BodyLimit(self.told, LARGEST_EVENTS_BODY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault(BEGAN, perf_counter())
        status, request_id = 500, request_id_of(scope)
        origin = dict(scope["headers"][::-1]).get(b"origin")

        async def finished(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    *self.pages.headers(origin),
                    *PRIVATE,
                    (TIMING, timing(scope).encode()),
                    (REQUEST_ID, request_id.encode()),
                ]
            await send(message)

        try:
            with logs.about(request_id=request_id):
                await self.limited(scope, receive, finished)
        finally:
            metrics.REQUESTS.labels(PATH, str(status)).inc()
            SECONDS.observe(perf_counter() - scope[BEGAN])

    async def told(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose body is short enough."""
        try:
            response = await self.answer(Headers(scope=scope), scope, receive)
        except ClientDisconnect:
            return
        except TooLarge:
            # BodyLimit's to answer.
            raise
        except MusterError as refusal:
            response = answer(refusal)
        except Exception as fault:
            message = "The database is away; keep these events and send them again."
            response = broken(fault, where="banner events", message=message)
        await response(scope, receive, send)

    async def answer(self, headers: Headers, scope: Scope, receive: Receive) -> Response:
        """What is answered to who may tell something; raises MusterError, and what the database raises."""
        services = self.fetches.services
        context = Context(services=services, caller=None, user_agent=headers.get("user-agent", ""))
        context.caller = await services.authenticator.caller(headers, now=context.now)
        require(context.caller, keys.Scope.INGEST, from_apps=True)
        if not is_json(headers.get("content-type")):
            return problem(415, "UNSUPPORTED_MEDIA_TYPE", "Send JSON, with the header Content-Type: application/json.")
        body = await body_of(receive)
        items = await read_in_turn(context, scope, body, read_batch(body))
        report = await take(context, items, read_event)
        errors = [
            {"index": place, "field": path_of(error), "code": error.code, "message": error.message}
            for place, error in report.errors
        ]
        made = {"accepted": report.accepted, "duplicates": report.duplicates, "errors": errors}
        return Response(orjson.dumps(made), status_code=202, media_type=JSON)


async def body_of(receive: Receive) -> bytes:
    """The body of a request; raises ClientDisconnect when it does not come."""
    pieces, more = list[bytes](), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


def read_event(item: Any, clean: Callable[..., BannerEvent]) -> BannerEvent:
    """One event out of JSON; raises MusterError."""
    if not isinstance(item, dict):
        raise ApiError("NOT_AN_OBJECT", f"An event is an object with {', '.join(FIELDS)}.")
    for name in item:
        if name not in FIELDS:
            raise ApiError("UNKNOWN_FIELD", f"There is no such field; an event has {', '.join(FIELDS)}.", field=(name,))
    occurred_at = read_time(item.get("occurredAt"))
    if occurred_at is None:
        raise ApiError("INVALID_TIME", "Say when it happened, such as 2026-03-01T09:30:00Z.", field=("occurred_at",))
    return clean(
        token=item.get("token"),
        kind=str(item.get("kind")),
        id=item.get("id"),
        session_id=item.get("sessionId"),
        occurred_at=occurred_at,
    )
