"""Members in plain HTTP: is somebody in a segment, for experiments and feature flags, and who is in it, as CSV.

GET  /v1/segments/{id}/members/{externalId}   {"member": true}
POST /v1/segments/{id}/members:check          {"externalIds": [...]} -> {"members": {"ada": true, ...}}
POST /v1/segments:check                       {"externalId": "ada", "segmentIds": [...]} -> {"segments": {...}}
GET  /v1/segments/{id}/members.csv            ?columns=email,traits.plan

For secret keys that may read. An external id in a path is percent-encoded, whatever its characters.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from app.api import ids
from app.api.ids import Kind
from app.context import Context
from app.endpoint import is_json
from app.ingest import answer, context_of, read_in_turn, read_json
from app.problems import ApiError, path_of, problem
from db.errors import MusterError
from profiles.keys import Scope
from segments import exporting, members

View = Callable[[Request, Context], Awaitable[Response]]
STATUS = {"NOT_FOUND": 404, "UNSUPPORTED_MEDIA_TYPE": 415}
NO_STORE = {"Cache-Control": "no-store"}
"""Whether somebody is in may be another answer the next moment, and is nobody else's business."""
CSV_HEADERS = NO_STORE | {
    "Content-Disposition": 'attachment; filename="members.csv"',
    "X-Content-Type-Options": "nosniff",
}


def of_servers(view: View) -> Callable[[Request], Awaitable[Response]]:
    """A view for secret keys that may read; refusals are JSON with the status that fits."""

    @wraps(view)
    async def guarded(request: Request) -> Response:
        try:
            return await view(request, await context_of(request, Scope.READ, from_apps=False))
        except MusterError as refusal:
            if refusal.code in STATUS:
                return problem(STATUS[refusal.code], refusal.code, refusal.message, field=path_of(refusal) or ())
            return answer(refusal)

    return guarded


@of_servers
async def check_one(request: Request, context: Context) -> Response:
    """Whether one person is in a segment now; false for people who are unknown. 404 for an unknown segment."""
    path = request.path_params
    key = ids.segment_id(path["id"])
    member = await members.is_member(context.workspace_id, key, external_id=path["external_id"])
    return JSONResponse({"member": member}, headers=NO_STORE)


@of_servers
async def check_people(request: Request, context: Context) -> Response:
    """Which of at most 1,000 people are in a segment now."""
    key = ids.segment_id(request.path_params["id"])
    body = await read(request, context)
    found = await members.are_members(context.workspace_id, key, external_ids=texts(body, "externalIds"))
    return JSONResponse({"members": found}, headers=NO_STORE)


@of_servers
async def check_segments(request: Request, context: Context) -> Response:
    """In which of at most 100 segments a person is now."""
    body = await read(request, context)
    external_id = body.get("externalId")
    if not isinstance(external_id, str):
        raise ApiError("NOT_TEXT", 'Send {"externalId": "...", "segmentIds": [...]}.', field=("external_id",))
    asked = texts(body, "segmentIds")
    keys = [ids.segment_id(one, field="segment_ids") for one in asked]
    found = await members.member_of(context.workspace_id, external_id, segment_ids=keys)
    answers = {one: found[key] for one, key in zip(asked, keys, strict=True)}
    return JSONResponse({"segments": answers}, headers=NO_STORE)


@of_servers
async def csv(request: Request, context: Context) -> Response:
    """Everybody in a segment now, streamed; see segments/exporting.py for what the cells hold."""
    columns = [one for text in request.query_params.getlist("columns") for one in text.split(",") if one]
    key = ids.segment_id(request.path_params["id"])

    def id_of(profile_id: int) -> str:
        return ids.encode(Kind.PROFILE, profile_id)

    parts = await exporting.export(context.workspace_id, key, columns=columns, id_of=id_of)
    return StreamingResponse(parts, media_type="text/csv; header=present", headers=CSV_HEADERS)


async def read(request: Request, context: Context) -> dict[str, Any]:
    """The JSON object of a request; raises ApiError for anything else."""
    if not is_json(request.headers.get("content-type")):
        message = "Send JSON, with the header Content-Type: application/json."
        raise ApiError("UNSUPPORTED_MEDIA_TYPE", message)
    sent = await request.body()
    body = await read_in_turn(context, request.scope, sent, read_json(sent))
    if not isinstance(body, dict):
        raise ApiError("NOT_AN_OBJECT", "The body is an object.")
    return body


def texts(body: dict[str, Any], name: str) -> list[str]:
    """A list of texts in a body; raises ApiError."""
    found = body.get(name)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ApiError("NOT_TEXTS", f"{name} is a list of texts.", field=(name,))
    return found
