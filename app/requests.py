"""What a request is called: in every log line about it, and in its answer."""

import re
import secrets

from starlette.types import Scope

REQUEST_ID = b"x-request-id"
"""A proxy may have given one; else we do."""
WELL_FORMED = re.compile(rb"[0-9A-Za-z._-]{1,64}")


def request_id_of(scope: Scope) -> str:
    """What a request is called; another one each time when it has no well-formed name."""
    given = dict(scope["headers"]).get(REQUEST_ID, b"")
    return given.decode() if WELL_FORMED.fullmatch(given) else secrets.token_hex(8)
