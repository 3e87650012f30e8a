"""One SMTP connection after its handshake: writes what it is given, pairs the replies in order.

aiosmtplib connects, greets, encrypts and logs in; from then on its protocol object is replaced by this one, because
it reads one reply a command (no pipelining), scans every body with regular expressions (385 us a message, where this
costs a tenth) and cannot say in which phase a connection broke.
"""

import asyncio
import ssl
from datetime import timedelta
from typing import cast

import aiosmtplib

from channels.base import Outcome, OutcomeKind, OutcomeScope
from channels.smtp_answers import Loss, Phase, classify, lost

MOST_REPLY_BYTES = 65_536
"""Of all replies to one exchange; more is no SMTP server."""


Reply = tuple[int, bytes]
"""Code and text, the lines of the text joined by spaces. A plain tuple, decoded only when somebody reads it: four are
made for each message."""


class Wire(asyncio.Protocol):
    """One conversation at a time; the owner sees to it that no two tasks use it at once."""

    def __init__(self, transport: asyncio.Transport, extensions: dict[str, str]) -> None:
        self.pipelining = "pipelining" in extensions
        self.utf8 = "smtputf8" in extensions
        self.eight_bit = "8bitmime" in extensions
        self.takes_size = "size" in extensions
        size = extensions.get("size", "")
        self.size_limit = int(size) if size.isdigit() and int(size) > 0 else None
        self.handed_over = 0
        self.needs_reset = False
        self.idle_since = 0.0
        self.loss: Loss | None = None
        """Why it cannot be used any more."""
        self.unsent = False
        """The last bytes written have not reached the kernel: the server cannot have them."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[list[Reply]] | None = None
        self._replies: list[Reply] = []
        self._lines: list[bytes] = []
        self._buffer = b""
        self._read = 0
        self._missing = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        # With these marks pause_writing says whether anything is left to write: see `unsent`. A plain transport pauses
        # above its mark, TLS at it: with 0 it would pause with nothing to write, and a mail that has arrived whole be
        # taken for one that has not. TLS says nothing of up to 64 KB below it; what breaks then is in doubt.
        transport.set_write_buffer_limits(high=0 if transport.get_extra_info("ssl_object") is None else 1)
        transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        return self.loss is None and not self._transport.is_closing()

    def exchange(self, data: bytes, *, replies: int, within: float) -> "asyncio.Future[list[Reply]]":
        """Write `data` and wait for that many replies, at most `within` seconds.

        Never fails: fewer replies mean that the connection is lost, `loss` says how. A 421 ends the wait, for a
        server that says it says nothing more. Cancelling the wait leaves the connection unusable: `abort` it.
        """
        waiter = self._waiter = self._loop.create_future()
        self._replies, self._missing, self._read = [], replies, 0
        if not self.usable:
            self.unsent = True
            self._fail(self.loss or Loss.CONNECTION_LOST)
            return waiter
        self._deadline = self._loop.time() + within
        if self._timer is None or self._timer.when() > self._deadline:
            self._arm()
        self._transport.write(data)
        return waiter

    def quit(self) -> None:
        """Say goodbye and close, without waiting for the answer."""
        if self.usable:
            self._transport.write(b"QUIT\r\n")
        self.loss = self.loss or Loss.CONNECTION_LOST
        self._disarm()
        self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self.loss = self.loss or Loss.CONNECTION_LOST
        self._disarm()
        self._transport.abort()

    # What the event loop calls.

    def data_received(self, data: bytes) -> None:
        self._read += len(data)
        if self._waiter is None or self._read > MOST_REPLY_BYTES:
            # Nobody asked (an idle server says 421 before it hangs up), or nobody could have asked for so much.
            self._fail(Loss.CONNECTION_LOST if self._waiter is None else Loss.BAD_REPLY)
            return
        lines = (self._buffer + data).split(b"\n")
        self._buffer = lines.pop()
        for line in lines:
            code, mark = line[:3], line[3:4]
            if not self._missing or not code.isdigit() or mark not in b" -\r":
                self._fail(Loss.BAD_REPLY)
                return
            text = line[4:].rstrip(b"\r")
            if mark == b"-":
                self._lines.append(text)
                continue
            if self._lines:
                text = b" ".join((*self._lines, text))
                self._lines.clear()
            self._replies.append((int(code), text))
            self._missing = 0 if code == b"421" else self._missing - 1
            if not self._missing:
                self._settle()

    def eof_received(self) -> None:
        self._fail(Loss.CONNECTION_LOST)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Loss.CONNECTION_LOST)

    def pause_writing(self) -> None:
        self.unsent = True

    def resume_writing(self) -> None:
        self.unsent = False

    # Inner workings.

    def _settle(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(self._replies)

    def _fail(self, loss: Loss) -> None:
        self.loss = self.loss or loss
        self._disarm()
        self._settle()
        self._transport.abort()

    def _arm(self) -> None:
        """Look at the deadline when it comes, and every second before: one timer a second and connection. One made
        and cancelled for each exchange cost more than all the rest of it."""
        self._disarm()
        self._timer = self._loop.call_at(min(self._deadline, self._loop.time() + 1.0), self._rung)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rung(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() >= self._deadline:
            self._fail(Loss.TIMEOUT)
        else:
            self._arm()


class NoConnection(Exception):
    """No connection was made; `outcome` is what that means for the message that wanted it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.code)
        self.outcome = outcome


async def connect(
    *,
    host: str,
    port: int,
    encrypted: bool,
    starttls: bool,
    login: tuple[str, str] | None,
    tls: ssl.SSLContext | None,
    local_hostname: str,
    within: timedelta,
) -> Wire:
    """A connection, greeted, encrypted and logged in as asked. Raises NoConnection."""
    # Its own timeouts are off: one limit over the whole handshake is ours.
    client = aiosmtplib.SMTP(
        hostname=host,
        port=port,
        use_tls=encrypted,
        start_tls=False,
        tls_context=tls,
        local_hostname=local_hostname,
        timeout=None,
    )
    phase = Phase.CONNECT
    try:
        async with asyncio.timeout(within.total_seconds()):
            await client.connect()
            phase = Phase.EHLO
            await client.ehlo()
            if starttls:
                phase = Phase.STARTTLS
                await client.starttls()
                phase = Phase.EHLO
                await client.ehlo()
            if login is not None:
                phase = Phase.AUTH
                await client.login(*login)
    except aiosmtplib.SMTPConnectResponseError as error:
        raise NoConnection(classify(Phase.BANNER, error.code, error.message)) from error
    except aiosmtplib.SMTPResponseException as error:
        client.close()
        # -1 is aiosmtplib's word for a reply that is none.
        raise NoConnection(classify(phase, error.code, error.message)) from error
    except TimeoutError as error:
        client.close()
        raise NoConnection(lost(phase, Loss.TIMEOUT)) from error
    except (OSError, UnicodeError) as error:  # refused, reset, unknown host, bad certificate
        client.close()
        raise NoConnection(unreachable(phase, str(error))) from error
    except aiosmtplib.SMTPException as error:  # STARTTLS or AUTH is not offered
        client.close()
        detail = str(error.message)[:500]
        code = "AUTHENTICATION" if phase is Phase.AUTH else "TLS_UNAVAILABLE"
        refusal = Outcome(OutcomeKind.DEFERRED, code, phase, detail, scope=OutcomeScope.CHANNEL)
        raise NoConnection(refusal) from error
    except asyncio.CancelledError:
        client.close()
        raise
    transport = client.transport
    if transport is None or transport.is_closing():  # hung up right after its last word
        raise NoConnection(lost(phase, Loss.CONNECTION_LOST))
    return Wire(cast(asyncio.Transport, transport), client.esmtp_extensions)


def unreachable(phase: Phase, detail: str) -> Outcome:
    """The host did not let us in."""
    return Outcome(OutcomeKind.DEFERRED, "CONNECT_FAILED", phase, detail[:500], scope=OutcomeScope.HOST)
