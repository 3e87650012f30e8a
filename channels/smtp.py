"""Email over SMTP: a pool of connections, one message at a time on each."""

import asyncio
import re
import socket
import ssl
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote, urlsplit

from channels.base import EmailMessage, Outcome, OutcomeKind, OutcomeScope, wire_address
from channels.smtp_answers import Loss, Phase, classify, lost
from channels.smtp_wire import NoConnection, Reply, Wire, connect

PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """Where and how to hand over mail."""

    host: str
    port: int
    encrypted: bool = False
    """TLS from the first byte (smtps)."""
    starttls: bool = False
    """TLS by STARTTLS, and no mail without it."""
    login: tuple[str, str] | None = None
    connections: int = 8
    timeout: timedelta = timedelta(seconds=60)
    """One message at most, from its connection to the last answer; a quarter of it for the handshake, a quarter for
    each step before the message, the rest for the answer to it (RFC 5321 4.5.3.2.6 grants the server 10 minutes)."""
    messages_per_connection: int = 1_000
    """Then a new one is made: some providers hang up after about 2,500."""
    idle: timedelta = timedelta(seconds=30)
    """A connection unused for so long is closed; servers hang up after 30 s to 5 minutes."""
    tls: ssl.SSLContext | None = None
    """None checks the certificate against the system's authorities."""
    local_hostname: str = ""
    """What EHLO says; the host's name when empty."""

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        connections: int = 8,
        timeout: timedelta = timedelta(seconds=60),
        tls: ssl.SSLContext | None = None,
    ) -> "SmtpSettings":
        """Settings out of `smtp://`, `smtps://` or `smtp+starttls://[user:password@]host[:port]`.

        User and password are percent-encoded. Raises ValueError, saying what to write instead; never repeats the
        password.
        """
        parts = urlsplit(url)
        if parts.scheme not in PORTS:
            raise ValueError("use smtp://, smtps:// or smtp+starttls:// before the host")
        try:
            host, port = parts.hostname, parts.port or PORTS[parts.scheme]
        except ValueError as error:
            raise ValueError("the port is a number from 1 to 65535") from error
        if not host:
            raise ValueError("name a host, as in smtp://mail.example.com:25")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("nothing may follow the host and port")
        login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        if login and parts.scheme == "smtp" and host not in LOOPBACK:
            raise ValueError("a password must not travel unencrypted: use smtps:// or smtp+starttls://")
        return cls(
            host,
            port,
            encrypted=parts.scheme == "smtps",
            starttls=parts.scheme == "smtp+starttls",
            login=login,
            connections=connections,
            timeout=timeout,
            tls=tls,
        )

    def __repr__(self) -> str:
        """Without the password."""
        return f"SmtpSettings({self.host}:{self.port})"


class SmtpChannel:
    """Hands messages to one SMTP server. The connection used last is used next, so that surplus ones go idle."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.connections)
        self._idle: list[Wire] = []
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False
        self._size_limit: int | None = None

    @property
    def concurrency(self) -> int:
        return self._settings.connections

    async def largest_message(self) -> int | None:
        """What the server's EHLO says (RFC 1870); asked anew only when no connection is open."""
        return self._size_limit if await self.open() is None else None

    async def open(self) -> Outcome | None:
        """Make sure that there is a connection; answers why not, or None."""
        async with self._slots:
            if self._closed:
                return CLOSED
            deadline = asyncio.get_running_loop().time() + self._settings.timeout.total_seconds()
            try:
                self._put_back(self._take_idle() or await self._connect(deadline))
            except NoConnection as failure:
                return failure.outcome
            return None

    async def send(self, message: EmailMessage) -> Outcome:
        """Hand over one message; see `channels.base.Channel.send`. Waits for a free connection first.

        Cancelling closes the connection; whether the message went is then unknown to the caller.
        """
        async with self._slots:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + self._settings.timeout.total_seconds()
            while not self._closed:
                wire = self._take_idle()
                fresh = wire is None
                try:
                    wire = wire or await self._connect(deadline)
                except NoConnection as failure:
                    return failure.outcome
                try:
                    outcome = await Conversation(wire, deadline, self._settings.timeout).hand_over(message)
                except BaseException:
                    wire.abort()
                    raise
                self._put_back(wire)
                # The server had hung up while the connection was idle, and we had not heard of it yet. Nothing was
                # accepted and nothing was said about the message, so it goes out on the next connection at once.
                if fresh or outcome.phase != Phase.MAIL or outcome.code != Loss.CONNECTION_LOST:
                    return outcome
            return CLOSED

    async def close(self) -> None:
        """Say goodbye on idle connections; one that is busy closes when its message is through."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        while self._idle:
            self._idle.pop().quit()

    async def _connect(self, deadline: float) -> Wire:
        settings, loop = self._settings, asyncio.get_running_loop()
        within = min(settings.timeout / 4, timedelta(seconds=max(0.0, deadline - loop.time())))
        wire = await connect(
            host=settings.host,
            port=settings.port,
            encrypted=settings.encrypted,
            starttls=settings.starttls,
            login=settings.login,
            tls=settings.tls,
            local_hostname=settings.local_hostname or own_name(),
            within=within,
        )
        self._size_limit = wire.size_limit
        return wire

    def _take_idle(self) -> Wire | None:
        while self._idle:
            wire = self._idle.pop()
            if wire.usable:
                return wire
        return None

    def _put_back(self, wire: Wire) -> None:
        if not wire.usable:
            wire.abort()
        elif self._closed or wire.handed_over >= self._settings.messages_per_connection:
            wire.quit()
        else:
            loop = asyncio.get_running_loop()
            wire.idle_since = loop.time()
            self._idle.append(wire)
            if self._reaper is None:
                self._reaper = loop.call_later(self._settings.idle.total_seconds(), self._reap)

    def _reap(self) -> None:
        """Close what has been idle for too long: the oldest stand first."""
        self._reaper = None
        loop, idle_s = asyncio.get_running_loop(), self._settings.idle.total_seconds()
        while self._idle and self._idle[0].idle_since <= loop.time() - idle_s:
            self._idle.pop(0).quit()
        if self._idle:
            self._reaper = loop.call_at(self._idle[0].idle_since + idle_s, self._reap)


class Conversation:
    """One message on one connection."""

    def __init__(self, wire: Wire, deadline: float, timeout: timedelta) -> None:
        self._wire, self._deadline, self._step = wire, deadline, timeout.total_seconds() / 4
        self._loop = asyncio.get_running_loop()

    async def hand_over(self, message: EmailMessage) -> Outcome:
        wire = self._wire
        wire.handed_over += 1
        prepared = prepare(wire, message)
        if isinstance(prepared, Outcome):
            return prepared
        mail, rcpt, body = prepared
        refusal = await self._announce(mail, rcpt)
        if refusal is not None:
            return refusal
        answers = await wire.exchange(body, replies=1, within=self._left())
        if not answers:
            return lost(Phase.BODY if wire.unsent else Phase.FINAL, wire.loss or Loss.CONNECTION_LOST)
        code, text = answers[0]
        outcome = classify(Phase.FINAL, code, text.decode("utf-8", "replace"))
        if wire.unsent or code == 421:
            wire.abort()  # answered before it had heard all, or is about to hang up
        wire.needs_reset = outcome.kind is not OutcomeKind.ACCEPTED
        return outcome

    def _left(self) -> float:
        return max(0.0, self._deadline - self._loop.time())

    async def _announce(self, mail: bytes, rcpt: bytes) -> Outcome | None:
        """MAIL, RCPT and DATA, in one write where the server advertises PIPELINING (RFC 2920); None means: go on."""
        wire = self._wire
        phases: tuple[Phase, ...] = ANNOUNCEMENT
        commands: tuple[bytes, ...] = (mail, rcpt, b"DATA\r\n")
        if wire.needs_reset:  # what a refused message left behind; its answer counts to the MAIL phase
            phases, commands = (Phase.MAIL, *phases), (b"RSET\r\n", *commands)
            wire.needs_reset = False
        if wire.pipelining:
            return await self._ask(phases, b"".join(commands))
        for phase, command in zip(phases, commands, strict=True):
            refusal = await self._ask((phase,), command)
            if refusal is not None:
                return refusal
        return None

    async def _ask(self, phases: tuple[Phase, ...], commands: bytes) -> Outcome | None:
        """Write commands at once, and say what the first answer that is not the one hoped for means."""
        wire = self._wire
        answers = await wire.exchange(commands, replies=len(phases), within=min(self._step, self._left()))
        for phase, (code, text) in zip(phases, answers, strict=False):
            if code != 354 if phase is Phase.DATA else not 200 <= code < 300:
                await self._back_out(answers, expected=len(phases))
                return classify(phase, code, text.decode("utf-8", "replace"))
        if len(answers) < len(phases):
            return lost(phases[len(answers)], wire.loss or Loss.CONNECTION_LOST)
        return None

    async def _back_out(self, answers: list[Reply], *, expected: int) -> None:
        """Leave the connection ready for the next message, or closed."""
        wire = self._wire
        if len(answers) < expected or any(code == 421 for code, _ in answers):
            wire.abort()
            return
        wire.needs_reset = True
        if expected > 1 and answers[-1][0] == 354:
            # The server let DATA through though it refused the recipient, and now waits for a message: RFC 2920 3.1
            # has us send an empty one, which it answers by 554; nobody is there to receive it.
            await wire.exchange(b".\r\n", replies=1, within=self._left())


ANNOUNCEMENT = (Phase.MAIL, Phase.RCPT, Phase.DATA)


def prepare(wire: Wire, message: EmailMessage) -> tuple[bytes, bytes, bytes] | Outcome:
    """MAIL, RCPT and the message as they go on the wire; or why this server cannot be given it."""
    sender = envelope_address(wire, message.sender, OutcomeScope.CHANNEL)
    if isinstance(sender, Outcome):
        return sender
    recipient = envelope_address(wire, message.recipient, OutcomeScope.RECIPIENT)
    if isinstance(recipient, Outcome):
        return recipient
    size = len(message.data)
    if wire.size_limit is not None and size > wire.size_limit:
        detail = f"The message has {size} bytes, the server takes {wire.size_limit}."
        return Outcome(OutcomeKind.REFUSED, "MESSAGE_TOO_LARGE", Phase.MAIL, detail, scope=OutcomeScope.CHANNEL)
    parameters = f" SIZE={size}" if wire.takes_size else ""
    if wire.eight_bit and not message.data.isascii():
        parameters += " BODY=8BITMIME"
    if not (sender.isascii() and recipient.isascii()):
        parameters += " SMTPUTF8"
    mail, rcpt = f"MAIL FROM:<{sender}>{parameters}\r\n", f"RCPT TO:<{recipient}>\r\n"
    return mail.encode(), rcpt.encode(), on_the_wire(message.data)


def envelope_address(wire: Wire, address: str, scope: OutcomeScope) -> str | Outcome:
    """The address as a command may carry it; `scope` says whom it concerns when it cannot be."""
    try:
        written = wire_address(address)
    except ValueError:
        detail = "The address cannot be written in a command."
        return Outcome(OutcomeKind.REFUSED, "NOT_AN_ADDRESS", Phase.MAIL, detail, scope=scope)
    if not written.isascii() and not wire.utf8:
        detail = "The address has letters beyond ASCII before the @, which this server does not take (SMTPUTF8)."
        return Outcome(OutcomeKind.REFUSED, "UTF8_ADDRESS", Phase.MAIL, detail, scope=scope)
    return written


def on_the_wire(data: bytes) -> bytes:
    """A message with its dots stuffed and its end marked (RFC 5321 4.5.2).

    Dots are stuffed after any LF, not only after CRLF: a lone LF that one server reads as a line end and another does
    not is how mail is smuggled. (Messages have none, see EmailMessage; to look for them costs 20 us for 10 KB.)
    """
    if data.startswith(b"."):
        data = b"." + data
    if data.rfind(b"\n.") >= 0:  # nearly never; looked for from behind it takes 1 us for 18 KB, the replacement 54
        data = data.replace(b"\n.", b"\n..")
    return data + (b".\r\n" if data.endswith(b"\r\n") else b"\r\n.\r\n")


def own_name() -> str:
    """This host's name as EHLO may say it. Not getfqdn(), which asks the name server and can take seconds."""
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9.-]{1,255}", name) else "localhost"


CLOSED = Outcome(
    OutcomeKind.DEFERRED, "CLOSED", Phase.CONNECT, "This process is shutting down.", scope=OutcomeScope.HOST
)
