"""FCM and APNs on this machine, for development and tests: HTTP/2 by h2, which refuses what RFC 9113 does.

They look at what they are given as the real ones do, accept it, and keep what they accepted; a script makes them answer
or misbehave otherwise. Nothing is shown on any device.
"""

import asyncio
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame


class Do(Enum):
    """What a server can do instead of answering."""

    HANG = "hang"
    RESET = "reset"
    """Gives this request up (RST_STREAM, INTERNAL_ERROR)."""
    REFUSE = "refuse"
    """RST_STREAM with REFUSED_STREAM: it has not looked at it."""
    CLOSE = "close"
    """Hangs up."""
    GOAWAY = "goaway"
    """Says that it has looked at the requests before this one only, answers those, and hangs up."""
    GOAWAY_AFTER = "goaway after"
    """Says that this request is the last it looks at, then answers it as usual."""
    GARBAGE = "garbage"
    """Says what is no HTTP/2."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Push:
    """One request, as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes


Act = Reply | Do
Answer = Callable[[Push], Reply]


class PushSink:
    """A server on loopback: `async with PushSink(Apns(), script=[Do.GOAWAY]) as sink: sink.url`.

    `script` says what it does to the first, second ... request whole; `early` what it does when it has heard a
    request's headers only (with `window=0` bodies wait until it wants them). Afterwards `answer` says.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        script: Iterable[Act] = (),
        early: Iterable[Do] = (),
        streams: int = 1_000,
        window: int = 65_535,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.answer, self.script, self.early = answer, deque(script), deque(early)
        self.streams, self.window, self.tls, self.port = streams, window, tls, port
        self.connections = 0
        self.most_at_once = 0
        """Requests that one connection had open at a time."""
        self.complaints: list[str] = []
        """What clients did that HTTP/2 does not allow."""
        self.reached: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """Set when it comes to that: `headers`, `request`, and `given_up` when a client has reset or closed."""
        self.held: list[tuple[SinkProtocol, int, Push]] = []
        """What HANG left unanswered."""
        self._open: set[SinkProtocol] = set()

    async def __aenter__(self) -> "PushSink":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen; `url` names where."""
        if self.tls is not None:
            self.tls.set_alpn_protocols(["h2"])
        self._server = await asyncio.get_running_loop().create_server(
            lambda: SinkProtocol(self), "127.0.0.1", self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        gone = [protocol.gone.wait() for protocol in self._open]
        for protocol in list(self._open):
            protocol.transport.abort()
        await asyncio.gather(*gone)

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def answer_held(self) -> None:
        """Answer as usual what HANG left."""
        held, self.held = self.held, []
        for protocol, stream, push in held:
            protocol.say(stream, self.answer(push))

    def joined(self, protocol: "SinkProtocol") -> None:
        self.connections += 1
        self._open.add(protocol)

    def left(self, protocol: "SinkProtocol") -> None:
        self._open.discard(protocol)


class SinkProtocol(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, sink: PushSink) -> None:
        self._sink = sink
        self.transport: asyncio.Transport
        self.gone = asyncio.Event()
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._heads: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._unsent: dict[int, bytes] = {}
        self._ends_above = 0
        """After a GOAWAY: the last stream that is looked at; 0 for none said."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._sink.joined(self)
        # Given at once, not by update(), which would not be said before it is confirmed.
        said = {
            SettingCodes.MAX_CONCURRENT_STREAMS: self._sink.streams,
            SettingCodes.INITIAL_WINDOW_SIZE: self._sink.window,
        }
        self._h2.local_settings = Settings(client=False, initial_values=said)
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except ProtocolError as error:
            self._sink.complaints.append(str(error))
            self._flush()
            self.transport.close()
            return
        self._sink.most_at_once = max(self._sink.most_at_once, self._h2.open_inbound_streams)
        for event in events:
            self._take(event)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._heads:
            self._sink.reached["given_up"].set()
        self._sink.left(self)
        self.gone.set()

    def say(self, stream: int, reply: Reply) -> None:
        """Answer one request, as fast as the client's windows allow."""
        self._heads.pop(stream, None)
        headers = [(":status", str(reply.status)), *reply.headers.items()]
        self._h2.send_headers(stream, headers, end_stream=not reply.body)
        if reply.body:
            self._unsent[stream] = reply.body
            self._send_on(stream)
        self._flush()

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._heads[event.stream_id] = dict(cast("list[tuple[str, str]]", event.headers))
                self._bodies[event.stream_id] = bytearray()
                self._sink.reached["headers"].set()
                if self._sink.early:
                    self._misbehave(self._sink.early.popleft(), event.stream_id, None)
                elif not self._sink.window:
                    self._h2.increment_flow_control_window(65_535, event.stream_id)
            case DataReceived():
                if event.stream_id in self._bodies:
                    self._bodies[event.stream_id] += event.data
                if event.flow_controlled_length:
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self._answer(event.stream_id)
            case StreamReset():
                self._forget(event.stream_id)
                self._sink.reached["given_up"].set()
            case WindowUpdated():
                for stream in list(self._unsent):
                    self._send_on(stream)

    def _answer(self, stream: int) -> None:
        head = self._heads.get(stream)
        if head is None or 0 < self._ends_above < stream:
            return
        push = Push(head[":path"], head, bytes(self._bodies.pop(stream)))
        act = self._sink.script.popleft() if self._sink.script else self._sink.answer(push)
        if isinstance(act, Reply):
            self.say(stream, act)
        else:
            self._misbehave(act, stream, push)
        self._sink.reached["request"].set()

    def _misbehave(self, act: Do, stream: int, push: Push | None) -> None:
        match act:
            case Do.HANG:
                if push is not None:
                    self._sink.held.append((self, stream, push))
            case Do.RESET | Do.REFUSE:
                code = ErrorCodes.INTERNAL_ERROR if act is Do.RESET else ErrorCodes.REFUSED_STREAM
                self._forget(stream)
                self._h2.reset_stream(stream, code)
            case Do.CLOSE:
                self.transport.close()
            case Do.GOAWAY:
                self._go_away(stream - 2)
                self._forget(stream)
                for held, other, waiting in list(self._sink.held):
                    if held is self:
                        self._sink.held.remove((held, other, waiting))
                        self.say(other, self._sink.answer(waiting))
                self.transport.close()
            case Do.GOAWAY_AFTER:
                self._go_away(stream)
                if push is not None:
                    self.say(stream, self._sink.answer(push))
            case Do.GARBAGE:
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    def _go_away(self, last: int) -> None:
        """By hand: h2 would say nothing more after it."""
        self._ends_above = max(last, 1)
        self._flush()
        self.transport.write(GoAwayFrame(0, last_stream_id=max(last, 0), error_code=0).serialize())

    def _forget(self, stream: int) -> None:
        self._heads.pop(stream, None)
        self._bodies.pop(stream, None)
        self._unsent.pop(stream, None)
        self._sink.held = [one for one in self._sink.held if one[:2] != (self, stream)]

    def _send_on(self, stream: int) -> None:
        rest = self._unsent[stream]
        while rest and (room := min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)) > 0:
            part, rest = rest[:room], rest[room:]
            self._h2.send_data(stream, part, end_stream=not rest)
        self._unsent[stream] = rest
        if not rest:
            del self._unsent[stream]

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)
