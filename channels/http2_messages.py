"""What goes over HTTP/2 and what comes of it: requests, answers, and how far one had come that got none."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from channels.http2_wire import Connection


class Phase(StrEnum):
    """How far a request had come when the answer, or the silence, came."""

    CONNECT = "CONNECT"
    """There was no connection."""
    QUEUE = "QUEUE"
    """It waited for its turn; not one byte had left."""
    REQUEST = "REQUEST"
    """Part of it had left, its end had not; or the server said that it would not look at it."""
    ANSWER = "ANSWER"
    """All of it had left, or may have."""


class Loss(StrEnum):
    """How a request ended without an answer."""

    CONNECT_FAILED = "CONNECT_FAILED"
    TLS_FAILED = "TLS_FAILED"
    """The certificate is not that of the host, or the server does not speak HTTP/2."""
    CONNECTION_LOST = "CONNECTION_LOST"
    TIMEOUT = "TIMEOUT"
    BAD_REPLY = "BAD_REPLY"
    """What came was no HTTP/2."""
    RESET = "RESET"
    """The server gave up this request (RST_STREAM)."""
    NOT_PROCESSED = "NOT_PROCESSED"
    """The server said that it has not looked at this request (GOAWAY or REFUSED_STREAM; RFC 9113 8.7)."""
    CLOSED = "CLOSED"
    """We are shutting down."""


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class Response:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name, without the pseudo-headers; of one that came twice the last. Not to be changed: answers with
    the same headers share them."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer came. Only in phase ANSWER can the server have done what it was asked."""

    why: Loss
    phase: Phase
    detail: str = ""


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class Request:
    """One POST."""

    path: bytes
    shared: tuple[tuple[str, str], ...]
    """Headers that many requests have in common, lower-case; each connection sends them once and refers to them."""
    own: tuple[tuple[bytes, bytes], ...]
    """Headers of this request alone, or secret: no table keeps them (RFC 7541 7.1.3)."""
    body: bytes


class Job:
    """A request on its way to its answer."""

    __slots__ = ("answer", "body", "connection", "deadline", "headers", "request", "status", "stream", "tries",
                 "unsent", "window")  # fmt: skip

    def __init__(self, request: Request, deadline: float, answer: "asyncio.Future[Response | Lost]") -> None:
        self.request, self.deadline, self.answer = request, deadline, answer
        self.tries = 0
        self.connection: Connection | None = None
        self.stream = 0
        self.unsent = b""
        """Of the body, while windows are full."""
        self.window = 0
        """What the server takes of `unsent` on this stream."""
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.body = b""

    def settle(self, answer: Response | Lost) -> None:
        self.connection = None
        if not self.answer.done():
            self.answer.set_result(answer)
