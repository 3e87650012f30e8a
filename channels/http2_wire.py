"""One HTTP/2 connection (RFC 9113): requests leave, answers are paired by stream, and what broke when is known.

The framing is ours, and hpack compresses the headers that requests have in common: ADR 0021. The servers of the tests
speak through h2, which refuses what the RFC does.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from channels.http2_fields import BadBlock
from channels.http2_frames import (
    ACK,
    CANCEL,
    CONNECTION_WINDOW,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    LAST_STREAM,
    MAX_CONCURRENT_STREAMS,
    PING,
    PREFACE,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_WINDOW,
    WINDOW_UPDATE,
    BrokenProtocol,
    frame_head,
    setting,
    unpadded,
)
from channels.http2_headers import Read, Written
from channels.http2_messages import Job, Loss, Lost, Phase, Response
from channels.http2_windows import Windows


class Connection(asyncio.Protocol):
    """One connection, used by one pool, whose `on_room` is called when it can take more or takes none any more.

    `resend` gets jobs of which the server said that it did not look at them.
    """

    def __init__(
        self,
        authority: str,
        scheme: str,
        *,
        most_streams: int,
        ping_every: float,
        on_room: Callable[[], None],
        resend: Callable[[Job, Lost], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._most_streams, self._ping_every = most_streams, ping_every
        self._on_room, self._resend = on_room, resend
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """The server's settings have come. Fails with OSError when they cannot come any more."""
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Nothing is left of it."""
        self.draining = False
        """It takes no new request."""
        self.last_used = self._loop.time()
        self._transport: asyncio.Transport
        self._jobs: dict[int, Job] = {}
        self._next_stream = 1
        self._out: list[bytes] = []
        self._first_unwritten = 0
        """The oldest stream whose request stands in `_out` only; 0 for none."""
        self._paused = False
        self._lost = False
        self._buffer = b""
        self._heard = 0.0
        self._pinged = False
        self._heart: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        # What the server allows, as RFC 9113 6.5.2 has it until it says otherwise.
        self._limit = most_streams
        self._windows = Windows(self._write)
        self._written, self._read = Written(authority, scheme), Read()
        self._open_block: tuple[int, int, bytes] | None = None
        """Stream, flags and what has come of a block of headers that goes on."""
        self._credit = 0
        """Bytes taken in since the server was last told that it may send more."""

    @property
    def has_room(self) -> bool:
        """Whether a request may start now."""
        return len(self._jobs) < self._limit and not (self.draining or self._paused) and self.ready.done()

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    def start(self, job: Job) -> None:
        """Send a request; `has_room` said that it may. Its end goes out with the next turn of the loop."""
        request, stream = job.request, self._next_stream
        self._next_stream += 2
        if self._next_stream > LAST_STREAM:
            self.draining = True
        job.connection, job.stream, job.status, job.body = self, stream, 0, b""
        self._jobs[stream] = job
        block, body = self._written.block(request), request.body
        if body and self._windows.takes_at_once(body):
            head = frame_head(len(block), HEADERS, END_HEADERS, stream)
            self._write(b"".join((head, block, frame_head(len(body), DATA, END_STREAM, stream), body)))
        elif not body:
            self._write(frame_head(len(block), HEADERS, END_HEADERS | END_STREAM, stream) + block)
        else:
            self._write(frame_head(len(block), HEADERS, END_HEADERS, stream) + block)
            self._windows.wait(job, body)
        if not self._first_unwritten:
            self._first_unwritten = stream
        self.last_used = self._loop.time()
        if self._alarm is None or job.deadline < self._alarm.when():
            self._arm(job.deadline)

    def abandon(self, job: Job) -> None:
        """Nobody waits for this answer any more; the server is told."""
        if self._jobs.get(job.stream) is job:
            self._reset(job)
            job.connection = None
            self._moved_on()

    def drain(self) -> None:
        """Take nothing new, and close when the last answer has come."""
        if not self.draining:
            self.draining = True
            self._write(frame_head(8, GOAWAY, 0, 0) + bytes(8))
        self._moved_on()

    def abort(self, loss: Loss = Loss.CONNECTION_LOST) -> None:
        """Close at once, whatever is under way."""
        self._fail(loss)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transport is one in all but ancestry.
        self._transport = cast(asyncio.Transport, transport)
        settings = b"".join(
            setting(name, value)
            for name, value in ((HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, STREAM_WINDOW))
        )
        self._out = [
            PREFACE,
            frame_head(len(settings), SETTINGS, 0, 0) + settings,
            frame_head(4, WINDOW_UPDATE, 0, 0) + (CONNECTION_WINDOW - 65_535).to_bytes(4, "big"),
        ]
        self._flush()
        self._heart = self._loop.call_later(self._ping_every, self._beat)

    def data_received(self, data: bytes) -> None:
        self._heard, self._pinged = self._loop.time(), False
        buffer = self._buffer + data if self._buffer else bytes(data)
        at, end = 0, len(buffer)
        before = len(self._jobs)
        try:
            while end - at >= 9:
                length = int.from_bytes(buffer[at : at + 3], "big")
                if length > LARGEST_FRAME:
                    raise BrokenProtocol("a frame larger than we take")
                stop = at + 9 + length
                if stop > end:
                    break
                stream = int.from_bytes(buffer[at + 5 : at + 9], "big") & LAST_STREAM
                self._take(buffer[at + 3], buffer[at + 4], stream, buffer[at + 9 : stop])
                if self._lost:
                    return
                at = stop
        except (BadBlock, BrokenProtocol, IndexError):
            self._fail(Loss.BAD_REPLY)
            return
        self._buffer = buffer[at:]
        self._windows.push_on()
        if self._credit > CONNECTION_WINDOW // 2:
            self._write(frame_head(4, WINDOW_UPDATE, 0, 0) + self._credit.to_bytes(4, "big"))
            self._credit = 0
        if len(self._jobs) != before:
            self._moved_on()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._on_room()

    def eof_received(self) -> None:
        self._fail(Loss.CONNECTION_LOST)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Loss.CONNECTION_LOST)
        if not self.gone.done():
            self.gone.set_result(None)

    # Frames that come.

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._open_block is not None and (kind != CONTINUATION or stream != self._open_block[0]):
            raise BrokenProtocol("headers were not finished")
        if not self.ready.done() and kind != SETTINGS:
            raise BrokenProtocol("the first frame must be SETTINGS")
        if kind == HEADERS:
            block = unpadded(payload, flags)
            if flags & HAS_PRIORITY:
                block = block[5:]
            self._take_block(stream, flags, block)
        elif kind == DATA:
            self._credit += len(payload)
            self._take_data(stream, flags, unpadded(payload, flags))
        elif kind == RST_STREAM:
            self._take_reset(stream, int.from_bytes(payload, "big"))
        elif kind == SETTINGS:
            if not flags & ACK:
                self._take_settings(payload)
        elif kind == PING:
            if not flags & ACK:
                self._write(frame_head(8, PING, ACK, 0) + payload)
        elif kind == GOAWAY:
            self._take_goaway(int.from_bytes(payload[:4], "big") & LAST_STREAM, payload[8:])
        elif kind == WINDOW_UPDATE:
            self._windows.widen(stream, int.from_bytes(payload, "big") & LARGEST_WINDOW)
        elif kind == CONTINUATION:
            if self._open_block is None:
                raise BrokenProtocol("a continuation of nothing")
            _, first_flags, begun = self._open_block
            if len(begun) + len(payload) > LARGEST_FRAME * 4:
                raise BrokenProtocol("headers without end")
            self._open_block = None
            self._take_block(stream, first_flags | flags & END_HEADERS, begun + payload)
        elif kind == PUSH_PROMISE:
            raise BrokenProtocol("we said that nothing may be pushed")

    def _take_block(self, stream: int, flags: int, block: bytes) -> None:
        if not flags & END_HEADERS:
            self._open_block = (stream, flags, block)
            return
        job = self._jobs.get(stream)
        if job is None:
            return
        status, headers = self._read.status_and_headers(block)
        if status >= 200 and not job.status:
            job.status, job.headers = status, headers
        if flags & END_STREAM:
            if not job.status:
                raise BrokenProtocol("an answer without a status")
            self._answered(job)

    def _take_data(self, stream: int, flags: int, data: bytes) -> None:
        job = self._jobs.get(stream)
        if job is None:
            return
        if not job.status:
            raise BrokenProtocol("a body before the headers")
        job.body = job.body + data if job.body else data
        if flags & END_STREAM:
            self._answered(job)
        elif len(job.body) >= STREAM_WINDOW:
            self._reset(job)
            job.settle(Response(job.status, job.headers, job.body))

    def _take_reset(self, stream: int, error: int) -> None:
        job = self._jobs.pop(stream, None)
        if job is None:
            return
        self._windows.forget(stream)
        if job.status:
            # Whoever says what became of a request has looked at it; only the words are cut short.
            job.settle(Response(job.status, job.headers, job.body))
        elif error == REFUSED_STREAM:
            self._resend(job, Lost(Loss.NOT_PROCESSED, Phase.REQUEST, "the server refused the stream"))
        else:
            phase = Phase.REQUEST if job.unsent else Phase.ANSWER
            job.settle(Lost(Loss.RESET, phase, f"stream reset with error {error}"))

    def _take_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload) - len(payload) % 6, 6):
            name, value = int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
            if name == MAX_CONCURRENT_STREAMS:
                self._limit = min(self._most_streams, value)
            elif name == INITIAL_WINDOW_SIZE:
                self._windows.begin_with(value)
            elif name == HEADER_TABLE_SIZE:
                self._written.table_has(value)
        self._write(frame_head(0, SETTINGS, ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._on_room()

    def _take_goaway(self, last: int, words: bytes) -> None:
        """Streams above `last` were not looked at, those up to it still get their answers (RFC 9113 6.8)."""
        self.draining = True
        detail = "the server goes away " + words[:200].decode("utf-8", "replace")
        for job in [job for stream, job in self._jobs.items() if stream > last]:
            del self._jobs[job.stream]
            self._windows.forget(job.stream)
            self._resend(job, Lost(Loss.NOT_PROCESSED, Phase.REQUEST, detail.strip()))
        self._moved_on()

    # Frames that go.

    def _reset(self, job: Job) -> None:
        del self._jobs[job.stream]
        self._windows.forget(job.stream)
        self._write(frame_head(4, RST_STREAM, 0, job.stream) + CANCEL.to_bytes(4, "big"))

    def _write(self, data: bytes) -> None:
        """One write, and one TLS record, for all that a turn of the loop has to say."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._lost:
            self._first_unwritten = 0
            self._transport.write(b"".join(out))

    # Ends.

    def _answered(self, job: Job) -> None:
        if job.unsent:  # it was answered before it had heard all
            self._reset(job)
        else:
            del self._jobs[job.stream]
        job.settle(Response(job.status, job.headers, job.body))

    def _moved_on(self) -> None:
        """Streams became free."""
        if self.draining and not self._jobs:
            self._flush()
            # Not at once: where the server's end came with its GOAWAY, uvloop meets it inside of this very call, and
            # stumbles.
            self._loop.call_soon(self._transport.close)
        self._on_room()

    def _fail(self, loss: Loss) -> None:
        """The end of it, for everyone under way."""
        if self._lost:
            return
        self._lost = self.draining = True
        if not self.ready.done():
            self.ready.set_exception(OSError("no HTTP/2" if loss is Loss.BAD_REPLY else "hung up before its settings"))
            self.ready.exception()  # looked at: nobody may be waiting
        for timer in (self._heart, self._alarm):
            if timer is not None:
                timer.cancel()
        for job in self._jobs.values():
            if job.status:
                job.settle(Response(job.status, job.headers, job.body))
                continue
            if 0 < self._first_unwritten <= job.stream:
                self._resend(job, Lost(loss, Phase.QUEUE))  # not one byte of it had left
            else:
                job.settle(Lost(loss, Phase.REQUEST if job.unsent else Phase.ANSWER))
        self._jobs.clear()
        self._windows.clear()
        self._transport.abort()
        self._on_room()

    def _arm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        """Give up what is due. One alarm a connection, at the earliest deadline: it rings about once a timeout."""
        self._alarm = None
        now = self._loop.time()
        for job in [job for job in self._jobs.values() if job.deadline <= now]:
            phase = Phase.REQUEST if job.unsent else Phase.ANSWER
            answer = Response(job.status, job.headers, job.body) if job.status else Lost(Loss.TIMEOUT, phase)
            self._reset(job)
            job.settle(answer)
            # Not a word all the while: the connection may be dead. Nothing new goes here.
            self.draining = self.draining or self._heard < now - self._ping_every
        if self._jobs:
            self._arm(min(job.deadline for job in self._jobs.values()))
        self._moved_on()

    def _beat(self) -> None:
        """Ask a silent server whether it is there, and give it up when it does not answer."""
        self._heart = self._loop.call_later(self._ping_every, self._beat)
        if self._heard > self._loop.time() - self._ping_every:
            return
        if self._pinged:
            self._fail(Loss.TIMEOUT)
            return
        self._pinged = True
        self._write(frame_head(8, PING, 0, 0) + bytes(8))
