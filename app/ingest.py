"""What apps and pages call without GraphQL: POST /v1/events and GET /v1/banners, in plain JSON."""

from datetime import datetime
from typing import Any

import orjson
from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.banners import decision
from app.api.ingestion import person
from app.api.scalars import read_instant
from app.auth import Caller, require
from app.context import Context, Services
from app.endpoint import VIEWER_HEADER, is_json
from app.limits import holds_nul
from app.problems import ApiError, camel, path_of, problem
from db.errors import MusterError
from profiles import events as profile_events
from profiles.events import MOST_EVENTS, EventInput
from profiles.keys import Scope

STATUS = {"UNAUTHENTICATED": 401, "FORBIDDEN": 403}
"""Of refusals that concern the whole request; others are 400."""
VARY = "Authorization, X-Muster-Client-Token, X-Muster-Viewer"
TEXTS = (
    "message_id", "name", "external_id", "anonymous_id", "page_path", "device_type", "browser", "country", "city",
    "session_id",
)  # fmt: skip
TEXT_FIELDS = {camel(name): name for name in TEXTS}
FIELDS = [*TEXT_FIELDS, "occurredAt", "properties"]


async def context_of(request: Request, needs: Scope) -> Context:
    """The request's context; raises ApiError UNAUTHENTICATED or FORBIDDEN when its key may not do this."""
    services: Services = request.app.state.services
    context = Context(services=services, caller=None, viewer_token=request.headers.get(VIEWER_HEADER))
    context.caller = await services.authenticator.caller(request.headers, now=context.now)
    require(context.caller, needs, from_apps=True)
    return context


async def events(request: Request) -> Response:
    """Take a batch of events: {"events": [{messageId, name, anonymousId | externalId, occurredAt, properties ...}]}.

    Answers 202 {"accepted", "duplicates", "errors": [{index, field, code, message}]}: a refused event does not hold
    up the others. Sent again, a batch adds nothing.
    """
    try:
        context = await context_of(request, Scope.INGEST)
        if not is_json(request.headers.get("content-type")):
            return problem(415, "UNSUPPORTED_MEDIA_TYPE", "Send JSON, with the header Content-Type: application/json.")
        items = read_batch(await request.body())
        return JSONResponse(await track(context, items), status_code=202)
    except MusterError as refusal:
        return answer(refusal)


def answer(refusal: MusterError) -> JSONResponse:
    """A refusal of the whole request."""
    response = problem(STATUS.get(refusal.code, 400), refusal.code, refusal.message, field=path_of(refusal) or ())
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def read_batch(body: bytes) -> list[Any]:
    """The events in a body, unchecked; raises ApiError when it holds no list of at most 1,000."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise ApiError("INVALID_JSON", f"The body is no JSON: {fault.msg}.") from fault
    if holds_nul(body, data):
        raise ApiError("UNSTORABLE_TEXT", "Texts must not hold the character U+0000; remove it.")
    items = data.get("events") if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise ApiError("NO_EVENTS", 'Send {"events": [...]}.', field=("events",))
    if len(items) > MOST_EVENTS:
        message = f"{len(items)} events at once; send at most {MOST_EVENTS}."
        raise ApiError("TOO_MANY_ITEMS", message, field=("events",))
    return items


async def track(context: Context, items: list[Any]) -> dict[str, Any]:
    """Write the events that are well-formed and allowed; say what became of all."""
    allowed: list[EventInput] = []
    places: list[int] = []
    refused: list[tuple[int, MusterError]] = []
    for place, item in enumerate(items):
        try:
            allowed.append(read_event(item, context.known_caller))
            places.append(place)
        except MusterError as refusal:
            refused.append((place, refusal))
    report = await profile_events.track(context.workspace_id, allowed, now=context.now)
    refused += [(places[index], error) for index, error in report.errors]
    refused.sort(key=lambda one: one[0])
    return {
        "accepted": report.accepted,
        "duplicates": report.duplicates,
        "errors": [
            {"index": place, "field": path_of(error), "code": error.code, "message": error.message}
            for place, error in refused
        ],
    }


def read_event(item: Any, caller: Caller) -> EventInput:
    """One event out of JSON; what its texts and properties may hold, the use case checks. Raises ApiError."""
    if not isinstance(item, dict):
        raise ApiError("NOT_AN_OBJECT", "An event is an object with messageId, name and anonymousId or externalId.")
    for name in item:
        if name not in FIELDS:
            message = f"There is no such field; an event has {', '.join(FIELDS)}. Put your own into properties."
            raise ApiError("UNKNOWN_FIELD", message, field=(str(name),))
    texts: dict[str, str | None] = {}
    for theirs, ours in TEXT_FIELDS.items():
        texts[ours] = text = item.get(theirs)
        if not isinstance(text, str | None):
            raise ApiError("NOT_TEXT", "This must be a text.", field=(ours,))
    anonymous_id = texts.pop("anonymous_id")
    properties = item.get("properties")
    return EventInput(
        # Missing ones are refused by the use case, which says what they are for.
        message_id=texts.pop("message_id") or "",
        name=texts.pop("name") or "",
        external_id=person(caller, texts.pop("external_id"), anonymous_id),
        anonymous_id=anonymous_id,
        occurred_at=read_time(item.get("occurredAt")),
        properties={} if properties is None else properties,
        **texts,
    )


def read_time(value: Any) -> datetime | None:
    """An event's time; raises ApiError INVALID_TIME."""
    if value is None:
        return None
    try:
        return read_instant(value)
    except GraphQLError as fault:
        raise ApiError("INVALID_TIME", fault.message, field=("occurred_at",)) from fault


async def banners(request: Request) -> Response:
    """The banners of ?placement=... (repeated for more): the JSON of the query `banners`, for the same callers."""
    try:
        context = await context_of(request, Scope.READ)
        query = request.query_params
        made = await decision(context, query.getlist("placement"), external_id=query.get("externalId"))
    except MusterError as refusal:
        return answer(refusal)
    return JSONResponse(
        made.to_json(),
        headers={"Cache-Control": f"private, max-age={made.max_age_seconds}", "Vary": VARY},
    )
