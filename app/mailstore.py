"""What the mail sink has received: an append-only file, and an index of the newest messages in memory.

A message is in the file before the sink says 250, so that the count survives a killed sink and can be held against
the ledger. Record: one line of JSON (`Envelope`), then `size` bytes of message, then a line feed.
"""

import os
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import compat32, default
from hashlib import blake2b
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Literal, Self

import orjson

INDEXED = 10_000
"""Messages that can be listed and read; counts know all of them."""
LARGEST_FILE = 2 * 1024**3
"""Bytes after which only envelopes are written."""

HEADER = re.compile(
    rb"^(subject|message-id|x-muster-campaign|x-muster-delivery):[ \t]*([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.I | re.M
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message as the sink took it, without its text."""

    id: int
    """1 for the first since the record was last emptied."""
    at: str
    """ISO 8601, UTC."""
    sender: str
    recipients: list[str]
    subject: str
    message_id: str
    campaign: str
    """Header X-Muster-Campaign; empty if there is none."""
    delivery: str
    """Header X-Muster-Delivery; empty if there is none."""
    size: int
    """Bytes of the message in the record; 0 when only the envelope was kept."""


@dataclass(frozen=True, slots=True)
class CampaignCount:
    received: int
    unique: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Received = a message for a recipient; unique = distinct pairs of recipient and X-Muster-Delivery."""

    received: int
    unique: int
    duplicates: int
    campaigns: dict[str, CampaignCount]


class MailStore:
    """The record in one file. One process writes it (the caller holds the folder's lock)."""

    def __init__(self, file: Path) -> None:
        """Open or make the record, and count what is in it; a torn last record is cut off."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._forget()
        self._end = 0
        for envelope, offset in self._records():
            self._remember(envelope, offset)
            self._end = offset + envelope.size + 1
        os.truncate(self._file, self._end)

    def _forget(self) -> None:
        self._last_id = 0
        self._index: OrderedDict[int, tuple[Envelope, int]] = OrderedDict()
        self._pairs: set[bytes] = set()
        self._received: Counter[str] = Counter()
        self._unique: Counter[str] = Counter()

    def add(self, *, sender: str, recipients: list[str], data: bytes) -> Envelope:
        """Record one message; when this returns the system has it, and only a power cut can lose it.

        Raises OSError when the disk is full; nothing is counted then.
        """
        head = data.partition(b"\r\n\r\n")[0]
        headers = {name.lower(): value for name, value in reversed(HEADER.findall(head))}
        kept = data if self._end + len(data) < LARGEST_FILE else b""
        envelope = Envelope(
            id=self._last_id + 1,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            sender=sender,
            recipients=recipients,
            subject=readable(headers.get(b"subject", b"")),
            message_id=text(headers.get(b"message-id", b"")),
            campaign=text(headers.get(b"x-muster-campaign", b"")),
            delivery=text(headers.get(b"x-muster-delivery", b"")),
            size=len(kept),
        )
        line = orjson.dumps(envelope) + b"\n"
        record = b"".join((line, kept, b"\n"))
        try:
            written = os.write(self._file, record)
            if written < len(record):
                raise OSError("the disk is full")
        except OSError:
            os.truncate(self._file, self._end)
            raise
        self._remember(envelope, self._end + len(line))
        self._end += len(record)
        return envelope

    def list(
        self, *, limit: int, before: int | None = None, to: str = "", subject: str = "", campaign: str = ""
    ) -> list[Envelope]:
        """The newest messages first, at most `limit`; `to` and `subject` are parts, in any case."""
        to, subject = to.casefold(), subject.casefold()
        found: list[Envelope] = []
        for number in reversed(self._index):
            envelope = self._index[number][0]
            if (
                (before is None or number < before)
                and to in " ".join(envelope.recipients).casefold()
                and subject in envelope.subject.casefold()
                and campaign in ("", envelope.campaign)
            ):
                found.append(envelope)
                if len(found) == limit:
                    break
        return found

    def find(self, number: int) -> tuple[Envelope, bytes] | None:
        """The message with this id and its bytes, if it is among the newest."""
        if number not in self._index:
            return None
        envelope, offset = self._index[number]
        return envelope, os.pread(self._file, envelope.size, offset)

    def counts(self) -> Counts:
        """How much was received since the record was last emptied."""
        received, unique = self._received.total(), self._unique.total()
        campaigns = {
            campaign: CampaignCount(received=count, unique=self._unique[campaign])
            for campaign, count in self._received.items()
            if campaign
        }
        return Counts(received=received, unique=unique, duplicates=received - unique, campaigns=campaigns)

    def clear(self) -> None:
        """Empty the record."""
        os.truncate(self._file, 0)
        self._end = 0
        self._forget()

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remember(self, envelope: Envelope, offset: int) -> None:
        self._last_id = envelope.id
        self._index[envelope.id] = (envelope, offset)
        if len(self._index) > INDEXED:
            self._index.popitem(last=False)
        for recipient in envelope.recipients:
            self._received[envelope.campaign] += 1
            # A message that is no delivery of ours cannot be a second copy of one.
            pair = blake2b(f"{recipient}\0{envelope.delivery}".encode(), digest_size=12).digest()
            if not envelope.delivery or pair not in self._pairs:
                self._unique[envelope.campaign] += 1
            if envelope.delivery:
                self._pairs.add(pair)

    def _records(self) -> Iterator[tuple[Envelope, int]]:
        """Every whole record of the file, and where its message begins."""
        length = os.fstat(self._file).st_size
        if not length:
            return
        with mmap(self._file, length, access=ACCESS_READ) as record:
            at = 0
            while (end := record.find(b"\n", at)) >= 0:
                try:
                    envelope = Envelope(**orjson.loads(record[at:end]))
                except (ValueError, TypeError):
                    return
                at = end + 1 + envelope.size + 1
                if at > length:
                    return
                yield envelope, end + 1


def headers(data: bytes) -> list[tuple[str, str]]:
    """Every header of the message as it was sent, in order."""
    return [
        (name, str(value)) for name, value in BytesParser(policy=compat32).parsebytes(data, headersonly=True).items()
    ]


def part(data: bytes, kind: Literal["plain", "html"]) -> str:
    """The text of that part of the message; empty if it has none or it cannot be read."""
    try:
        found = BytesParser(EmailMessage, policy=default).parsebytes(data).get_body((kind,))
        content = found.get_content() if found else ""
    except (LookupError, ValueError, AttributeError, TypeError):
        # The standard library's parser trips over some ill-formed headers; the page still shows the source.
        return ""
    return content if isinstance(content, str) else ""


def text(value: bytes) -> str:
    """A header's value on one line."""
    return re.sub(rb"\r\n[ \t]+", b" ", value).decode("utf-8", "replace").strip()


def readable(value: bytes) -> str:
    """A header's value with its encoded words decoded (RFC 2047), as it came if that fails."""
    plain = text(value)
    if "=?" not in plain:
        return plain
    try:
        return str(make_header(decode_header(plain)))
    except (ValueError, LookupError):
        return plain
