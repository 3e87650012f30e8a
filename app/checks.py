"""GET /v1/segments/{id}/members/{externalId} before everything else of the application, as banners are in app/front.py.

Experiments and feature flags ask this in the path of their own answers. Behind Starlette and its middleware it takes
three times the processor time. Only what is plain is answered here, to programs; all else goes the usual way
(app/members.py), to the same answer: tests/app/test_member_checks.py compares them.
"""

import re
from time import perf_counter

from starlette.datastructures import Headers
from starlette.types import Scope, Send

from app import logs
from app.api import ids
from app.auth import require
from app.fetches import Fetches
from app.metrics import REQUEST_SECONDS, REQUESTS
from app.origins import SAFE
from app.patience import UNREACHABLE
from app.problems import log_fault
from app.requests import REQUEST_ID, request_id_of
from app.timing import HEADER
from db.errors import MusterError
from profiles.keys import Scope as Right
from segments import members

ROUTE = "/v1/segments/{id}/members/{external_id:path}"
"""`path`: external ids may have slashes, which arrive decoded."""
PATH = re.compile(r"/v1/segments/([^/]+)/members/(.*)", re.DOTALL)
ANSWERED, SECONDS = REQUESTS.labels(ROUTE, "200"), REQUEST_SECONDS.labels(ROUTE)
"""Bound, so that counting one costs a look-up less."""
BODIES = {True: b'{"member":true}', False: b'{"member":false}'}


class Checks:
    """Answers plain checks of one person in one segment."""

    def __init__(self, fetches: Fetches) -> None:
        self.fetches = fetches

    async def answer(self, scope: Scope, send: Send) -> bool:
        """Answer a GET without a body; False, with nothing sent, when it has to go the usual way."""
        asked = PATH.fullmatch(scope["path"])
        headers = Headers(scope=scope)
        # What is told to pages is the middleware's.
        if asked is None or "origin" in headers:
            return False
        began, request_id = perf_counter(), request_id_of(scope)
        with logs.about(request_id=request_id):
            try:
                member = await self.check(headers, asked[1], external_id=asked[2])
            except (MusterError, *UNREACHABLE):
                # Met again on the usual way, where it is told.
                return False
            except Exception as fault:
                # The usual way may well answer: then nobody else would say that this one does not.
                log_fault(fault, where="member checks")
                return False
        body = BODIES[member]
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"cache-control", b"no-store"),
                    (b"content-length", str(len(body)).encode()),
                    (b"content-type", b"application/json"),
                    (b"vary", b"Origin"),
                    (HEADER.encode(), f"app;dur={(perf_counter() - began) * 1000:.2f}".encode()),
                    *SAFE,
                    (REQUEST_ID, request_id.encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})
        ANSWERED.inc()
        SECONDS.observe(perf_counter() - began)
        return True

    async def check(self, headers: Headers, segment: str, *, external_id: str) -> bool:
        """See `members.is_member`; raises what refuses the request."""
        services = self.fetches.services
        caller = require(await services.authenticator.caller(headers, now=services.clock()), Right.READ)
        return await members.is_member(caller.workspace_id, ids.segment_id(segment), external_id=external_id)
