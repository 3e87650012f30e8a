"""One email as bytes: encoded once for all recipients, as far as it is the same for all.

Bodies are quoted-printable (RFC 2045 6.7), in pieces. Every piece begins at the start of a line and ends with a line
break, a soft one (`=` CRLF, which decodes to nothing) where the text has none; so pieces may be joined in any order
and number, no line is longer than 76, and none begins or ends with anything that a server may change. A new
email.message.EmailMessage for each recipient costs 2,200 us, this a few dozen.
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING, Any

from campaigns.errors import RenderError
from campaigns.program import Encoding, Program, Value
from channels.base import wire_address

if TYPE_CHECKING:  # at run time this module does without a database, so that app/proofreader.py starts fast
    from campaigns.models import Sender


@dataclass(frozen=True, slots=True)
class SenderInfo:
    """A sender as a message needs it; frozen into each dispatch."""

    from_name: str
    from_address: str
    reply_to: str | None
    postal_address: str

    @classmethod
    def of(cls, sender: "Sender") -> "SenderInfo":
        return cls(sender.from_name, sender.from_address, sender.reply_to, sender.postal_address)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "SenderInfo":
        return cls(value["from_name"], value["from_address"], value["reply_to"], value["postal_address"])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


# Bodies

CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Nothing that a text needs, and NUL must not be in a mail at all (RFC 5322 4)."""
SHORT_TEXT = re.compile(r"[ -<>-~]{0,70}")
"""Printable ASCII without `=`, short: quoted-printable as it stands."""
SHORT_HTML = re.compile(r"[ !#-%(-;?-~]{0,70}")
"""The same without what HTML escapes."""


def quoted(text: str) -> bytes:
    """Text as a piece of quoted-printable UTF-8; line ends of any kind become CRLF. Empty text is an empty piece."""
    if not text.isprintable():  # an empty text is printable
        text = CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    encoded = b2a_qp(text.encode("utf-8", "replace"))
    if not encoded or encoded.endswith(b"\n"):
        return encoded.replace(b"\n", b"\r\n")
    # b2a_qp fills the last line up to 76, which leaves no room for the `=` of a soft break.
    if len(encoded) - encoded.rfind(b"\n") - 1 > 75:
        cut = -3 if encoded[-3:-2] == b"=" else -1
        encoded = encoded[:cut] + b"=\n" + encoded[cut:]
    return encoded.replace(b"\n", b"\r\n") + b"=\r\n"


def quoted_text(value: str) -> bytes:
    """A recipient's value in a plain text."""
    if SHORT_TEXT.fullmatch(value):  # nearly every one, at a fifth of the cost
        return value.encode() + b"=\r\n" if value else b""
    return quoted(value)


def quoted_html(value: str) -> bytes:
    """A recipient's value in HTML, escaped for text and for attributes in quotes."""
    if SHORT_HTML.fullmatch(value):
        return value.encode() + b"=\r\n" if value else b""
    return quoted(escape(value, quote=True))


TEXT_BODY = Encoding(quoted, quoted_text)
HTML_BODY = Encoding(quoted, quoted_html)

# Headers

LONGEST_SUBJECT = 255
"""Characters; mail programs show 60."""
ENCODED_BYTES = 39
"""Of text in one encoded word: with its frame it is 64 long, which fits beside `Subject: ` in 76 (RFC 2047 2)."""
BREAKING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+|[\ud800-\udfff]")
"""What could end a header, hide in one, or not be encoded at all."""
PLAIN_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]{1,60}")


def one_line(text: str) -> str:
    """Text for a header: controls and line separators become a space, so that it can be but one header."""
    return text.strip() if text.isprintable() else BREAKING.sub(" ", text).strip()


def encoded_words(text: str) -> str:
    """Text as encoded words (RFC 2047), each on a line of its own: no line is longer than 76."""
    data = text.encode("utf-8", "replace")
    words = []
    while data:
        cut = min(ENCODED_BYTES, len(data))
        while cut < len(data) and data[cut] & 0xC0 == 0x80:  # not within a letter
            cut -= 1
        words.append(f"=?utf-8?b?{b2a_base64(data[:cut], newline=False).decode()}?=")
        data = data[cut:]
    return "\r\n ".join(words)


def subject_header(text: str) -> str:
    """A subject's value, as it stands where ASCII and short, else encoded. Longer than 255 characters it is cut."""
    line = one_line(text)[:LONGEST_SUBJECT]
    if len(line) <= 66 and line.isascii() and "=?" not in line:
        return line
    return encoded_words(line)


def mailbox_header(name: str, address: str) -> str:
    """A From or Reply-To value: a name and an address."""
    written = header_address(address)
    line = one_line(name)
    if not line:
        return written
    if PLAIN_PHRASE.fullmatch(line) and "=?" not in line:
        return f"{line} <{written}>"
    if len(line) <= 60 and line.isascii():
        escaped = line.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" <{written}>'
    return f"{encoded_words(line)}\r\n <{written}>"


def header_address(address: str) -> str:
    """An address as a header may carry it. Raises RenderError for what is none."""
    try:
        written = wire_address(address)
    except ValueError as error:
        raise RenderError(
            "NOT_AN_ADDRESS", "The address cannot be written in a header; correct the profile."
        ) from error
    if len(written) > 320:
        raise RenderError("NOT_AN_ADDRESS", "The address is longer than 320 characters; correct the profile.")
    return written


@lru_cache(maxsize=256)
def date_header(instant: datetime) -> str:
    """An instant as RFC 5322 has it; the recipients of one claim share theirs."""
    return format_datetime(instant)


ONE_CLICK = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"


class Skeleton:
    """A message with holes: for the headers of one recipient and for what its programs print."""

    def __init__(
        self,
        *,
        subject: Program,
        text: Program,
        html: Program | None,
        sender: SenderInfo,
        campaign_id: str,
        list_unsubscribe: bool,
    ) -> None:
        self._subject, self._text, self._html = subject, text, html
        self._list_unsubscribe = list_unsubscribe
        # "=_" cannot occur in quoted-printable, so no boundary can occur in a body.
        boundary = f"=_muster_{sha256(campaign_id.encode()).hexdigest()[:24]}"
        headers = [f"From: {mailbox_header(sender.from_name, sender.from_address)}"]
        if sender.reply_to:
            headers.append(f"Reply-To: {header_address(sender.reply_to)}")
        headers += [f"X-Muster-Campaign: {campaign_id}", "MIME-Version: 1.0"]
        if html is not None:
            headers.append(f'Content-Type: multipart/alternative; boundary="{boundary}"')
        self._headers = "\r\n".join(headers).encode() + b"\r\n"
        opening = f"--{boundary}\r\n" if html is not None else ""
        text_part = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        # A body ends with a hard line break of its own: the one before the boundary belongs to the boundary.
        between = text_part.replace("plain", "html")
        self._to_text = ("\r\n" + opening if opening else "").encode() + text_part.encode()
        self._to_html = f"\r\n\r\n--{boundary}\r\n{between}".encode()
        self._end = f"\r\n\r\n--{boundary}--\r\n".encode() if html is not None else b"\r\n"

    def fill(
        self,
        scope: dict[str, Value],
        *,
        recipient: str,
        message_id: str,
        sent_at: datetime,
        unsubscribe_url: str,
        delivery_key: str,
        links: Sequence[bytes],
        subject_prefix: str,
    ) -> bytes:
        """The whole message of one recipient. Raises RenderError for this recipient only."""
        pieces: list[bytes] = []
        self._subject.render(scope, pieces)
        subject = subject_header(subject_prefix + b"".join(pieces).decode())
        headers = (
            f"To: {header_address(recipient)}\r\nSubject: {subject}\r\nDate: {date_header(sent_at)}\r\n"
            f"Message-ID: {one_line(message_id)}\r\nX-Muster-Delivery: {one_line(delivery_key)}\r\n"
        )
        if self._list_unsubscribe:
            # RFC 2369 and 8058: one POST to the address, without a question, unsubscribes.
            headers += f"List-Unsubscribe: <{one_line(unsubscribe_url)}>\r\n{ONE_CLICK}"
        out = [headers.encode(), self._headers, self._to_text]
        self._text.render(scope, out)
        if self._html is not None:
            out.append(self._to_html)
            self._html.render(scope, out, links)
        out.append(self._end)
        return b"".join(out)
