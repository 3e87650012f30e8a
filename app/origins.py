"""Which pages may call from a browser (fetch.spec.whatwg.org, CORS protocol), and what each answer says to browsers."""

from typing import TypeAlias

from starlette.types import Message, Send

from app.requests import REQUEST_ID
from app.settings import Settings
from app.timing import HEADER

RawHeaders: TypeAlias = tuple[tuple[bytes, bytes], ...]

EXPOSED = ("ETag", "Retry-After", HEADER, REQUEST_ID.decode())
SAFE: RawHeaders = (
    # What we call JSON is JSON, whatever it looks like.
    (b"x-content-type-options", b"nosniff"),
    # No page shows an answer of ours in a frame, and one that a browser opens loads and runs nothing.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""Of every answer, unless it says otherwise itself. That TLS is to be used is the proxy's to say (HSTS)."""
PRIVATE: RawHeaders = ((b"cache-control", b"no-store"),)
"""Of every answer that says nothing of caches: most are somebody's own."""
EVERYWHERE = "*"


def may_connect(settings: Settings, origin: str | None) -> bool:
    """Whether a page of `origin` may open a WebSocket; None is a program that is no browser.

    No cookie is used, whoever connects has a key: where the page came from says nothing about that. Who lists origins
    wants it said all the same.
    """
    return origin is None or EVERYWHERE in settings.cors_origins or origin in settings.cors_origins


class Pages:
    """What answers made outside of Starlette say to pages; its own are the middleware's."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        exposed = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
        self.anybody: RawHeaders | None = None
        self.nobody: RawHeaders = (*SAFE, (b"vary", b"Origin"))
        self.listed: dict[bytes, RawHeaders] = {}
        if EVERYWHERE in origins:
            self.anybody = (*SAFE, (b"access-control-allow-origin", b"*"), exposed)
        for origin in origins:
            allowed = (b"access-control-allow-origin", origin.encode())
            self.listed[origin.encode()] = (*self.nobody, allowed, exposed)

    def headers(self, origin: bytes | None) -> RawHeaders:
        """Headers for an answer to a page of `origin`."""
        return self.anybody or self.listed.get(origin or b"", self.nobody)


def guarded(send: Send) -> Send:
    """Adds SAFE and PRIVATE to an answer, as far as it does not say those things itself."""

    async def said(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = [*message.get("headers", ())]
            names = {name.lower() for name, _ in given}
            message["headers"] = given + [pair for pair in (*SAFE, *PRIVATE) if pair[0] not in names]
        await send(message)

    return said
