"""What apps and pages call without GraphQL: POST /v1/events, in plain JSON."""

from collections.abc import Generator, Sequence
from datetime import datetime
from functools import partial
from itertools import repeat
from typing import Any, TypeVar

import orjson
from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope as AsgiScope

from app.api.scalars import read_instant
from app.auth import Caller, LacksScope, require
from app.context import Context, Services
from app.endpoint import VIEWER_HEADER, is_json
from app.limits import TOO_MANY_VALUES, counted, holds_nul
from app.problems import COME_AGAIN, ApiError, camel, path_of, problem
from app.rates import CODE, RateLimited, address_of, who_of
from app.visitors import person, with_visitor
from db.errors import MusterError
from profiles import events as profile_events
from profiles.events import MOST_EVENTS, clean_fields
from profiles.ingestion import Batch, CleanEvent
from profiles.keys import Scope
from profiles.wellformed import clean_columns

T = TypeVar("T")

STATUS = {"UNAUTHENTICATED": 401, "FORBIDDEN": 403, CODE: 429, "BUSY": 503, "CONTENDED": 503, "UNAVAILABLE": 503}
"""Of refusals that concern the whole request; others are 400."""
FIELDS_IN_ORDER = [camel(name) for name in CleanEvent._fields]
FIELDS = frozenset(FIELDS_IN_ORDER)
EXTERNAL_ID, ANONYMOUS_ID, OCCURRED_AT, PROPERTIES = map(
    CleanEvent._fields.index, ("external_id", "anonymous_id", "occurred_at", "properties")
)


async def context_of(request: Request, needs: Scope, *, from_apps: bool = True) -> Context:
    """The request's context; raises ApiError UNAUTHENTICATED or FORBIDDEN when its key may not do this.

    `from_apps`: publishable keys and client tokens may do it too.
    """
    services: Services = request.app.state.services
    context = Context(
        services=services,
        caller=None,
        viewer_token=request.headers.get(VIEWER_HEADER),
        user_agent=request.headers.get("user-agent", ""),
    )
    context.caller = await services.authenticator.caller(request.headers, now=context.now)
    require(context.caller, needs, from_apps=from_apps)
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
        body = await request.body()
        items = await read_in_turn(context, request.scope, body, read_batch(body))
        return JSONResponse(await track(context, items), status_code=202)
    except MusterError as refusal:
        return answer(refusal)


def answer(refusal: MusterError) -> JSONResponse:
    """A refusal of the whole request."""
    response = problem(STATUS.get(refusal.code, 400), refusal.code, refusal.message, field=path_of(refusal) or ())
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if response.status_code == 503:
        response.headers.update(COME_AGAIN)
    if isinstance(refusal, RateLimited):
        response.headers["Retry-After"] = str(refusal.retry_after_s)
    if isinstance(refusal, LacksScope):
        # RFC 6750 3.1.
        response.headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{refusal.scope}"'
    return response


async def read_in_turn(context: Context, scope: AsgiScope, body: bytes, reading: Generator[None, None, T]) -> T:
    """What comes of reading a body, in turn with all that is read for others."""
    who = who_of(context.caller, address_of(scope))
    return await context.services.reader.read_body(body, reading, who=who)


def read_json(body: bytes) -> Generator[None, None, Any]:
    """What a body says, read in pieces; raises ApiError for what is no JSON, or more than is read at once."""
    if (yield from counted(body)):
        raise ApiError("TOO_MANY_VALUES", TOO_MANY_VALUES)
    yield
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise ApiError("INVALID_JSON", f"The body is no JSON: {fault.msg}.") from fault


def read_batch(body: bytes) -> Generator[None, None, list[Any]]:
    """The events in a body, unchecked, read in pieces; raises ApiError when it holds no list of at most 1,000."""
    data = yield from read_json(body)
    yield
    if holds_nul(body):
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
    caller, now = await with_visitor(context), context.now
    report = await profile_events.take(
        context.workspace_id,
        items,
        partial(read_event, caller=caller, now=now),
        read_all=partial(read_well_formed, caller=caller, now=now),
        now=now,
    )
    return {
        "accepted": report.accepted,
        "duplicates": report.duplicates,
        "errors": [
            {"index": place, "field": path_of(error), "code": error.code, "message": error.message}
            for place, error in report.errors
        ],
    }


def read_well_formed(items: Sequence[Any], *, caller: Caller, now: datetime) -> Batch | None:
    """What `read_event` makes of each, if it surely refuses none; None says nothing."""
    if not items:
        return Batch.of([])
    try:
        # A column at a time, without a step of Python an event.
        if not set().union(*items) <= FIELDS:
            return None
        columns: list[Sequence[Any]] = [list(map(dict.get, items, repeat(name))) for name in FIELDS_IN_ORDER]
        strangers = {caller.visitor} == set(columns[ANONYMOUS_ID]) != {None}
        if not caller.is_server and (any(columns[EXTERNAL_ID]) or not strangers):
            return None
        columns[PROPERTIES] = [{} if one is None else one for one in columns[PROPERTIES]]
        columns[OCCURRED_AT] = [None if at is None else datetime.fromisoformat(at) for at in columns[OCCURRED_AT]]
    except (TypeError, ValueError):
        # Something is no object, or no text with a time.
        return None
    return clean_columns(columns, now=now)


def read_event(item: Any, *, caller: Caller, now: datetime) -> CleanEvent:
    """One event out of JSON. Raises ApiError for what is no such object or not allowed, ProfileError for the rest."""
    if not isinstance(item, dict):
        raise ApiError("NOT_AN_OBJECT", "An event is an object with messageId, name and anonymousId or externalId.")
    if not item.keys() <= FIELDS:
        unknown = next(name for name in item if name not in FIELDS)
        message = f"There is no such field; an event has {', '.join(sorted(FIELDS))}. Put your own into properties."
        raise ApiError("UNKNOWN_FIELD", message, field=(unknown,))
    get = item.get
    external_id, anonymous_id = person(caller, get("externalId"), get("anonymousId"))
    properties = get("properties")
    return clean_fields(
        # Missing ones are refused as blank ones are.
        get("messageId", ""),
        get("name", ""),
        external_id,
        anonymous_id,
        read_time(get("occurredAt")),
        {} if properties is None else properties,
        get("pagePath"),
        get("deviceType"),
        get("browser"),
        get("country"),
        get("city"),
        get("sessionId"),
        now=now,
    )


def read_time(value: Any) -> datetime | None:
    """An event's time; raises ApiError INVALID_TIME."""
    if value is None:
        return None
    try:
        return read_instant(value)
    except GraphQLError as fault:
        raise ApiError("INVALID_TIME", fault.message, field=("occurred_at",)) from fault
