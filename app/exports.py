"""GET /v1/exports/{token}: everything held of one person, as one JSON document, streamed.

The token is what `profileExport` gives: it names the person, holds for a quarter of an hour, and is as good as a key to
this one document. The document is written while it is read, a page of rows at a time, so that it costs the same memory
for a person with a million events as for one with ten. One that does not end with `}` is not complete.
"""

import logging
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.api import ids
from app.api.ids import Kind
from app.context import Services
from app.problems import camel, problem
from campaigns import disclosure
from campaigns.tokens import Signer
from db.errors import MusterError
from profiles.disclosure import Person, find_person

logger = logging.getLogger(__name__)

PURPOSE = "profile export"
CLAIM = struct.Struct(">16siq")
"""Workspace, profile, when it ends in seconds."""
LIFE = timedelta(minutes=15)
STATUS = {"NOT_FOUND": 404, "ERASED": 410}
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
IDS = {
    "profile_id": Kind.PROFILE,
    "merged_into_profile_id": Kind.PROFILE,
    "brand_id": Kind.BRAND,
    "device_id": Kind.DEVICE,
    "segment_id": Kind.SEGMENT,
    "campaign_id": Kind.CAMPAIGN,
    "dispatch_id": Kind.DISPATCH,
    "placement_id": Kind.PLACEMENT,
}
"""Columns that hold ids, which clients know by their kind."""


@dataclass(frozen=True, slots=True)
class ExportClaim:
    """Whose document a link leads to, and how long."""

    workspace_id: UUID
    profile_id: int
    expires_at: datetime


def export_link(signer: Signer, public_url: str, claim: ExportClaim) -> str:
    """The address of the document."""
    payload = CLAIM.pack(claim.workspace_id.bytes, claim.profile_id, int(claim.expires_at.timestamp()))
    return f"{public_url}/v1/exports/{signer.sign(PURPOSE, payload)}"


def read_claim(signer: Signer, token: str) -> ExportClaim | None:
    """What `export_link` was given; None when the token is not ours or was changed."""
    payload = signer.verify(PURPOSE, token)
    if payload is None or len(payload) != CLAIM.size:
        return None
    workspace_id, profile_id, expires = CLAIM.unpack(payload)
    return ExportClaim(UUID(bytes=workspace_id), profile_id, datetime.fromtimestamp(expires, UTC))


async def export(request: Request) -> Response:
    """The document; 404 for a link that is not ours, 410 for one that has expired or whose person was erased since."""
    services: Services = request.app.state.services
    claim, now = read_claim(services.resources.signer, request.path_params["token"]), services.clock()
    if claim is None:
        return problem(404, "NOT_FOUND", "This link is not complete; copy it as profileExport answered it.")
    if now >= claim.expires_at:
        return problem(410, "EXPIRED", "This link has expired; ask for another one with profileExport.")
    try:
        person = await find_person(claim.workspace_id, claim.profile_id, hasher=services.resources.hasher)
    except MusterError as refusal:
        return problem(STATUS.get(refusal.code, 503), refusal.code, refusal.message)
    logger.info(
        "a person's data is handed out", extra={"workspace_id": claim.workspace_id, "profile_id": claim.profile_id}
    )
    name = ids.encode(Kind.PROFILE, person.profile_id)
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{name}.json"'}
    return StreamingResponse(document(claim.workspace_id, person, now), media_type="application/json", headers=headers)


async def document(workspace_id: UUID, person: Person, now: datetime) -> AsyncIterator[bytes]:
    """The parts of the document: a list for each section, in which a page of rows is a part."""
    head = orjson.dumps({"profileId": ids.encode(Kind.PROFILE, person.profile_id), "exportedAt": now})
    yield head[:-1]
    section, is_empty = "", True
    async for name, rows in disclosure.disclose(workspace_id, person):
        if name != section:
            yield (b"]" if section else b"") + b",\n" + orjson.dumps(name) + b":["
            section, is_empty = name, True
        if rows:
            yield (b"\n" if is_empty else b",\n") + lines(rows)
            is_empty = False
    yield b"]}\n"


def lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as JSON objects, one a line; columns that are null are left out."""
    return b",\n".join(
        orjson.dumps({camel(name): told(name, value) for name, value in row.items() if value is not None})
        for row in rows
    )


def told(name: str, value: Any) -> Any:
    """A column's value as clients know it: ids by their kind, all else as it is kept."""
    kind = IDS.get(name)
    return value if kind is None else ids.encode(kind, value)
