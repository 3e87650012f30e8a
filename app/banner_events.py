"""POST /v1/banner-events: what viewers did with banners, in plain JSON, as apps and pages send it."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.banner_events import take
from app.endpoint import is_json
from app.ingest import answer, context_of, read_batch, read_time
from app.patience import UNREACHABLE
from app.problems import ApiError, path_of, problem
from campaigns.banner_events import BannerEvent
from db.errors import MusterError
from profiles.keys import Scope

FIELDS = ("id", "kind", "token", "sessionId", "occurredAt")
COME_AGAIN = {"Retry-After": "10"}


async def banner_events(request: Request) -> Response:
    """Take a batch of events: {"events": [{id, kind, token, sessionId, occurredAt}]}.

    Answers 202 {"accepted", "duplicates", "errors": [{index, field, code, message}]} once they are committed: a
    refused event does not hold up the others, and what is refused need not be sent again. Sent again, a batch adds
    nothing. 503 while the database is away: keep them and come again.
    """
    try:
        context = await context_of(request, Scope.INGEST)
        if not is_json(request.headers.get("content-type")):
            return problem(415, "UNSUPPORTED_MEDIA_TYPE", "Send JSON, with the header Content-Type: application/json.")
        report = await take(context, read_batch(await request.body()), read_event)
    except MusterError as refusal:
        if refusal.code in ("BUSY", "UNAVAILABLE"):
            return problem(503, refusal.code, refusal.message, **COME_AGAIN)
        return answer(refusal)
    except UNREACHABLE:
        message = "The database is away; keep these events and send them again."
        return problem(503, "UNAVAILABLE", message, **COME_AGAIN)
    errors = [
        {"index": place, "field": path_of(error), "code": error.code, "message": error.message}
        for place, error in report.errors
    ]
    made = {"accepted": report.accepted, "duplicates": report.duplicates, "errors": errors}
    return JSONResponse(made, status_code=202)


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
