"""An SMTP server that takes every message, for development.

Ours, since aiosmtpd 1.4.6 takes 530-760 messages of 5 KB a second here (asyncio, uvloop) and would be the slowest
part of every demo and benchmark. No TLS, no login, RFC 5321 otherwise, with PIPELINING (RFC 2920).
"""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import cast

log = logging.getLogger(__name__)

LONGEST_LINE = 4096
LARGEST_MESSAGE = 32 * 1024 * 1024
MOST_RECIPIENTS = 1000
END = b"\r\n.\r\n"
PATH = re.compile(rb"(?i)(?:from|to):\s*<([^<>]*)>(?:\s.*)?$")

Deliver = Callable[[str, list[str], bytes], object]
"""Called with sender, recipients and message (CRLF, dots unstuffed); what it raises is answered with 451."""


class SinkProtocol(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._replies: list[bytes] = []
        self._reading_message = False
        self._searched = 0
        self._start_over()

    def _start_over(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transport is one in all but ancestry.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 muster.mailbox ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while not self._transport.is_closing() and (self._take_message() if self._reading_message else self._obey()):
            pass
        # One write for all replies of a pipelined group.
        if self._replies:
            self._transport.write(b"".join(self._replies))
            self._replies.clear()

    def pause_writing(self) -> None:
        # A client that reads no replies must not fill our memory with them.
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _take_message(self) -> bool:
        """Deliver the message in the buffer, if it is there to its last dot."""
        # The final dot may directly follow DATA: the CRLF before it is then that of the command.
        if self._buffer.startswith(b".\r\n"):
            message, used = b"", 3
        else:
            at = self._buffer.find(END, max(0, self._searched - len(END)))
            if at < 0:
                self._searched = len(self._buffer)
                if self._searched > LARGEST_MESSAGE:
                    self._hang_up(b"552 5.3.4 message too large\r\n")
                return False
            message, used = bytes(self._buffer[: at + 2]), at + len(END)
        del self._buffer[:used]
        self._searched = 0
        self._reading_message = False
        if message.startswith(b".") or b"\r\n." in message:
            message = message.removeprefix(b".").replace(b"\r\n.", b"\r\n")
        try:
            self._deliver(self._sender or "", self._recipients, message)
        except Exception:
            log.exception("message not recorded")
            self._replies.append(b"451 4.3.0 not recorded, see the mailbox's log\r\n")
        else:
            self._replies.append(b"250 2.0.0 taken\r\n")
        self._start_over()
        return True

    def _obey(self) -> bool:
        """Answer the command in the buffer, if a whole line is there."""
        at = self._buffer.find(b"\r\n")
        if at < 0 or at > LONGEST_LINE:
            if len(self._buffer) > LONGEST_LINE:
                self._hang_up(b"500 5.5.2 line too long\r\n")
            return False
        line = bytes(self._buffer[:at])
        del self._buffer[: at + 2]
        command, _, argument = line.partition(b" ")
        match command.upper():
            case b"MAIL":
                self._mail(argument)
            case b"RCPT":
                self._rcpt(argument)
            case b"DATA":
                if self._recipients:
                    self._reading_message = True
                    self._replies.append(b"354 end with a dot on a line of its own\r\n")
                else:
                    self._replies.append(b"503 5.5.1 RCPT first\r\n")
            case b"EHLO":
                self._start_over()
                self._replies.append(
                    b"250-muster.mailbox\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
                    b"250-ENHANCEDSTATUSCODES\r\n250 SIZE %d\r\n" % LARGEST_MESSAGE
                )
            case b"HELO":
                self._start_over()
                self._replies.append(b"250 muster.mailbox\r\n")
            case b"RSET":
                self._start_over()
                self._replies.append(b"250 2.0.0 ok\r\n")
            case b"NOOP":
                self._replies.append(b"250 2.0.0 ok\r\n")
            case b"QUIT":
                self._hang_up(b"221 2.0.0 bye\r\n")
            case _:
                self._replies.append(b"502 5.5.1 not known here\r\n")
        return True

    def _mail(self, argument: bytes) -> None:
        path = PATH.match(argument)
        if path is None:
            self._replies.append(b"501 5.5.4 MAIL FROM:<address>\r\n")
        elif self._sender is not None:
            self._replies.append(b"503 5.5.1 one MAIL at a time\r\n")
        else:
            self._sender = path[1].decode("utf-8", "replace")
            self._replies.append(b"250 2.1.0 ok\r\n")

    def _rcpt(self, argument: bytes) -> None:
        path = PATH.match(argument)
        if path is None or not path[1]:
            self._replies.append(b"501 5.5.4 RCPT TO:<address>\r\n")
        elif self._sender is None:
            self._replies.append(b"503 5.5.1 MAIL first\r\n")
        elif len(self._recipients) >= MOST_RECIPIENTS:
            self._replies.append(b"452 4.5.3 too many recipients\r\n")
        else:
            self._recipients.append(path[1].decode("utf-8", "replace"))
            self._replies.append(b"250 2.1.5 ok\r\n")

    def _hang_up(self, reply: bytes) -> None:
        self._transport.write(b"".join((*self._replies, reply)))
        self._replies.clear()
        self._transport.close()
