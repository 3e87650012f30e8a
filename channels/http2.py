"""An HTTP/2 client for one host: a few connections, each with many requests under way (RFC 9113)."""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from channels.http2_messages import Job, Loss, Lost, Phase, Request, Response
from channels.http2_wire import Connection

MOST_TRIES = 3
"""Of one request that the server says it has not looked at."""
CONNECT_TIMEOUT_S = 10.0
REST_S = 1.0
"""After a connection that could not be made, while others work."""
GOODBYE_S = 2.0
"""For the server's end of TLS."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Http2Settings:
    """How to reach a host."""

    url: str
    """`https://host[:port]`; on this machine `http://` too, which begins with HTTP/2 at once (RFC 9113 3.3)."""
    timeout: timedelta = timedelta(seconds=30)
    """One request at most, from the wait for its turn to the end of the answer."""
    connections: int = 4
    streams: int = 500
    """Requests under way on one connection, where the server allows so many."""
    ping_every: timedelta = timedelta(seconds=20)
    """A server silent for so long is asked whether it is there; silent as long again, it is given up."""
    idle: timedelta = timedelta(minutes=5)
    """A connection unused for so long is closed."""
    tls: ssl.SSLContext | None = None
    """None checks the certificate against the system's authorities. ALPN is set on it."""


class Http2Client:
    """Sends requests to one host. One object serves a whole process, from many tasks at once."""

    def __init__(self, settings: Http2Settings) -> None:
        """Raises ValueError, saying what to write instead, for a URL that cannot be used."""
        parts = urlsplit(settings.url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.path.strip("/"):
            raise ValueError("write https:// and a host, and nothing after it")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("what is sent must not travel unencrypted: use https://")
        self._settings = settings
        self._scheme, self._host = parts.scheme, parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._tls: ssl.SSLContext | None = None
        self._connections: list[Connection] = []
        self._waiting: deque[Job] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._reaper: asyncio.TimerHandle | None = None
        self._rests_until = 0.0
        self._closed = False

    @property
    def concurrency(self) -> int:
        """Requests that may be under way at once, as far as we are concerned."""
        return self._settings.connections * self._settings.streams

    async def post(self, request: Request) -> Response | Lost:
        """The answer to one POST; never raises for what the network or the server did.

        Sent once: again only when the server said that it has not looked at it, within the same timeout. Cancelling
        tells the server so; whether it had done what it was asked is then unknown to the caller.
        """
        loop = asyncio.get_running_loop()
        if self._closed:
            return Lost(Loss.CLOSED, Phase.QUEUE)
        job = Job(request, loop.time() + self._settings.timeout.total_seconds(), loop.create_future())
        self._submit(job)
        try:
            return await job.answer
        except asyncio.CancelledError:
            if job.connection is not None:
                job.connection.abandon(job)
            elif job in self._waiting:
                self._waiting.remove(job)
            raise

    async def close(self) -> None:
        """Let go of all connections, each when the last answer has come. What comes later is lost, and was not sent."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        for timer in (self._alarm, self._reaper):
            if timer is not None:
                timer.cancel()
        while self._waiting:
            self._waiting.popleft().settle(Lost(Loss.CLOSED, Phase.QUEUE))
        leaving = [connection.gone for connection in self._connections]
        for connection in list(self._connections):
            connection.drain()
        await asyncio.gather(*leaving)

    def _submit(self, job: Job) -> None:
        if not self._waiting:
            for connection in self._connections:
                if connection.has_room:
                    connection.start(job)
                    return
        self._waiting.append(job)
        self._see_to_room()

    def _resend(self, job: Job, lost: Lost) -> None:
        """The server did not look at this one; it goes first where there is room."""
        job.connection = None
        job.tries += 1
        if job.answer.done() or job.tries >= MOST_TRIES or self._closed:
            job.settle(lost)
        else:
            self._waiting.appendleft(job)
            self._see_to_room()

    def _on_room(self) -> None:
        """Something changed about a connection."""
        if any(connection.draining for connection in self._connections):
            self._connections = [one for one in self._connections if not one.draining or not one.gone.done()]
        for connection in self._connections:
            while self._waiting and connection.has_room:
                connection.start(self._waiting.popleft())
        if self._waiting:
            self._see_to_room()

    def _see_to_room(self) -> None:
        """Somebody waits: make a connection where one more is allowed, and let nobody wait for ever."""
        usable = sum(not one.draining for one in self._connections)
        loop = asyncio.get_running_loop()
        may_connect = self._connecting is None and (not usable or self._rests_until <= loop.time())
        if may_connect and usable < self._settings.connections and not self._closed:
            self._connecting = loop.create_task(self._connect())
        soonest = min(job.deadline for job in self._waiting)
        if self._alarm is None or soonest < self._alarm.when():
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = loop.call_at(soonest, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = asyncio.get_running_loop().time()
        for job in [job for job in self._waiting if job.deadline <= now]:
            self._waiting.remove(job)
            job.settle(Lost(Loss.TIMEOUT, Phase.QUEUE, "no stream became free"))
        if self._waiting:
            self._see_to_room()

    async def _connect(self) -> None:
        """One more connection; those who wait hear why there is none, when there is no other either."""
        within = min(CONNECT_TIMEOUT_S, self._settings.timeout.total_seconds() / 2)
        connection: Connection | None = None
        try:
            async with asyncio.timeout(within):
                connection = await self._opened()
                await connection.ready
            failure = None
        except TimeoutError:
            failure = Lost(Loss.TIMEOUT, Phase.CONNECT)
        except ssl.SSLError as error:
            failure = Lost(Loss.TLS_FAILED, Phase.CONNECT, str(error)[:500])
        except (OSError, UnicodeError) as error:
            failure = Lost(Loss.CONNECT_FAILED, Phase.CONNECT, str(error)[:500])
        except asyncio.CancelledError:
            if connection is not None:
                connection.abort()
            raise
        finally:
            self._connecting = None
        if connection is not None and failure is None:
            self._connections.append(connection)
            if self._reaper is None:
                self._reaper = asyncio.get_running_loop().call_later(self._settings.idle.total_seconds(), self._reap)
        elif connection is not None:
            connection.abort()
        if failure is not None:
            self._rests_until = asyncio.get_running_loop().time() + REST_S
            if all(one.draining for one in self._connections):
                while self._waiting:
                    self._waiting.popleft().settle(failure)
        self._on_room()

    async def _opened(self) -> Connection:
        """A connection whose handshake is done. Raises OSError, ssl.SSLError."""
        loop, settings = asyncio.get_running_loop(), self._settings
        if self._tls is None and self._scheme == "https":
            tls = settings.tls
            if tls is None:  # in a thread: to read the system's authorities takes some 20 ms
                tls = await asyncio.to_thread(ssl.create_default_context)
            tls.set_alpn_protocols(["h2"])
            self._tls = tls
        transport, connection = await loop.create_connection(
            lambda: Connection(
                self._authority,
                self._scheme,
                most_streams=settings.streams,
                ping_every=settings.ping_every.total_seconds(),
                on_room=self._on_room,
                resend=self._resend,
            ),
            self._host,
            self._port,
            ssl=self._tls,
            server_hostname=self._host if self._tls is not None else None,
            ssl_shutdown_timeout=None if self._tls is None else GOODBYE_S,
        )
        if self._tls is not None and transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            connection.abort()
            raise ssl.SSLError("the server does not speak HTTP/2")
        return connection

    def _reap(self) -> None:
        """Close what nobody used for too long."""
        loop, idle_s = asyncio.get_running_loop(), self._settings.idle.total_seconds()
        for connection in list(self._connections):
            if connection.is_idle and connection.last_used <= loop.time() - idle_s:
                connection.drain()
        self._reaper = loop.call_later(idle_s / 2, self._reap) if self._connections else None
