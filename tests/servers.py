"""Servers that tests script: they answer what they are told to, hang, or hang up."""

import asyncio
import ssl
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

CERTIFICATE = Path(__file__).parent / "channels" / "localhost.pem"
"""Key and certificate of "localhost" and 127.0.0.1, signed by itself, for a hundred years. Guards nothing."""


class Do(Enum):
    """What a server can do instead of answering."""

    EOF = "eof"
    HANG = "hang"
    HALF_THEN_EOF = "half, eof"
    """The first line of a reply that has more, part of the second, and then it hangs up."""
    HALF_THEN_HANG = "half, hang"


Act = str | Do
"""A reply line as the server says it ("450 4.2.1 later"), or what it does instead."""

USUAL = {
    "banner": "220 scripted.example ESMTP",
    "starttls": "220 go ahead",
    "auth": "235 2.7.0 welcome",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go on",
    "final": "250 2.0.0 Ok: queued as 4bXyZ",
    "rset": "250 2.0.0 ok",
    "quit": "221 2.0.0 bye",
}


@dataclass(frozen=True)
class Received:
    """One accepted message, as it came over the wire, dots taken out again."""

    mail: str
    rcpt: str
    data: bytes


class ScriptedSmtp:
    """An SMTP server on loopback: `async with ScriptedSmtp({"rcpt": ["550 5.1.1 unknown"]}) as server`.

    Each key is a step (banner, ehlo, starttls, auth, mail, rcpt, data, body, final, rset) with what to do at its
    first, second ... time; afterwards it does the usual. `body` is after the first line of a message, of which
    nothing more is read. Commands out of order are refused as by a real server; `data_without_recipient` is one that
    answers 354 all the same.
    """

    def __init__(
        self,
        script: Mapping[str, Sequence[Act]] | None = None,
        *,
        pipelining: bool = True,
        extensions: Sequence[str] = ("SIZE 20000000", "8BITMIME", "ENHANCEDSTATUSCODES"),
        tls: ssl.SSLContext | None = None,
        encrypted: bool = False,
        data_without_recipient: bool = False,
    ) -> None:
        self.script = {step: deque(acts) for step, acts in (script or {}).items()}
        self.extensions = [*extensions, *(["PIPELINING"] if pipelining else [])]
        self.tls, self.encrypted, self.data_without_recipient = tls, encrypted, data_without_recipient
        self.received: list[Received] = []
        self.commands: list[str] = []
        self.connections = 0
        self.open_connections = 0
        self.reached: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """Set when a step is reached; `hung_up` when a client has closed a connection."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "ScriptedSmtp":
        context = self.tls if self.encrypted else None
        self._server = await asyncio.start_server(self._client, "127.0.0.1", 0, ssl=context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        try:
            await self._serve(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass  # cancelled only by __aexit__, and Python 3.11 logs a stream's task that ends so
        finally:
            self.open_connections -= 1
            self.reached["hung_up"].set()
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mail = rcpt = ""
        await self._answer(reader, writer, "banner")
        while line := (await reader.readline()).decode():
            self.commands.append(line.rstrip("\r\n"))
            verb = line.split()[0].upper()
            if verb == "EHLO":
                offers = [*self.extensions, *(["STARTTLS"] if self.tls and not self.encrypted else []), "AUTH PLAIN"]
                usual = "\r\n".join(["250-scripted.example", *(f"250-{offer}" for offer in offers[:-1])])
                await self._answer(reader, writer, "ehlo", f"{usual}\r\n250 {offers[-1]}")
            elif verb == "STARTTLS" and self.tls is not None:
                if (await self._answer(reader, writer, "starttls")).startswith("220"):
                    await writer.start_tls(self.tls)
            elif verb == "MAIL":
                if mail:
                    await self._say(writer, "503 5.5.1 nested MAIL")
                elif (await self._answer(reader, writer, "mail")).startswith("2"):
                    mail = line.strip()
            elif verb == "RCPT":
                if not mail:
                    await self._say(writer, "503 5.5.1 MAIL first")
                elif (await self._answer(reader, writer, "rcpt")).startswith("2"):
                    rcpt = line.strip()
            elif verb == "DATA":
                if not rcpt and not self.data_without_recipient:
                    await self._say(writer, "554 5.5.1 no valid recipients")
                elif (await self._answer(reader, writer, "data")).startswith("354"):
                    data = await self._read_message(reader, writer)
                    if not rcpt:
                        await self._say(writer, "554 5.5.1 no valid recipients")
                    elif (await self._answer(reader, writer, "final")).startswith("2"):
                        self.received.append(Received(mail, rcpt, data))
                    mail = rcpt = ""
            elif verb in ("AUTH", "RSET", "QUIT"):
                await self._answer(reader, writer, verb.lower())
                if verb == "RSET":
                    mail = rcpt = ""
                if verb == "QUIT":
                    return
            else:
                await self._say(writer, "500 5.5.1 what?")

    async def _read_message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        if self.script.get("body"):
            await reader.readline()
            await self._answer(reader, writer, "body")
            await asyncio.Event().wait()  # reads no further
        lines = []
        while (line := await reader.readline()) != b".\r\n":
            if not line:
                raise ConnectionError("the client hung up")
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, step: str, usual: str | None = None
    ) -> str:
        acts = self.script.get(step)
        act: Act = acts.popleft() if acts else (usual or USUAL[step])
        self.reached[step].set()
        if act in (Do.HALF_THEN_EOF, Do.HALF_THEN_HANG):
            writer.write(b"250-2.0.0 one line\r\n25")
            await writer.drain()
        if act in (Do.EOF, Do.HALF_THEN_EOF):
            writer.close()  # what was written still arrives
            raise ConnectionError("as the script says")
        if act in (Do.HANG, Do.HALF_THEN_HANG):
            if step == "body":
                await asyncio.Event().wait()  # not reading is the point
            await reader.read()
            raise ConnectionError("the client hung up")
        assert isinstance(act, str)
        await self._say(writer, act)
        return act

    async def _say(self, writer: asyncio.StreamWriter, reply: str) -> None:
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()


def server_tls() -> ssl.SSLContext:
    """TLS as the server of the tests speaks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_tls() -> ssl.SSLContext:
    """TLS that trusts the certificate of the tests and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTIFICATE)
    return context


class Gate:
    """A way to another server on loopback that can be shut: connections stay, and nothing comes through any more."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._opened = asyncio.Event()
        self._opened.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Gate":
        self._server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def shut(self) -> None:
        self._opened.clear()

    def open(self) -> None:
        self._opened.set()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        await self._opened.wait()
        there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        try:
            await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass  # cancelled only by __aexit__
        finally:
            writer.transport.abort()
            back.transport.abort()
            self._tasks.discard(task)

    async def _pass_on(self, come: asyncio.StreamReader, go: asyncio.StreamWriter) -> None:
        while data := await come.read(65_536):
            await self._opened.wait()
            go.write(data)
            await go.drain()
        raise ConnectionError("one side hung up")
