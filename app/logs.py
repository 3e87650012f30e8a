"""Log lines: a constant message, facts beside it, and never an address.

Callers write `log.info("deliveries claimed", extra={"campaign_id": ..., "claimed": ...})`.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

# Everything a LogRecord has by itself; what else is on it, a caller passed as extra.
OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}
# Ours pass ids only, but the text of an exception is others': PostgreSQL quotes the row that broke a constraint,
# SMTP servers the recipient, and a URL carries its password before the same sign.
# Only from where such a text begins: tried from each of its characters, 20,000 of them took 3 s.
ADDRESS = re.compile(r"(?<![^\s@<>()\[\]{}'\"=,;])[^\s@<>()\[\]{}'\"=,;]+@[^\s@<>()\[\]{}'\"=,;]+")
WITHHELD = "[withheld]"
# Statements with their values, whole requests, every URL asked, a line for each job (and a tick is one each second).
TALKATIVE = ("arq", "asyncio", "css_inline", "hpack", "httpcore2", "httpx2", "strawberry", "tortoise")


BESIDE: ContextVar[Mapping[str, str]] = ContextVar("facts of the request or job", default=MappingProxyType({}))


@contextmanager
def about(**facts: str) -> Iterator[None]:
    """Lines logged inside, also by tasks begun there, carry these facts: `request_id`, or `job` and `job_id`."""
    token = BESIDE.set({**BESIDE.get(), **facts})
    try:
        yield
    finally:
        BESIDE.reset(token)


def configure(*, form: Literal["json", "text"], level: str) -> None:
    """Send every logger's lines to standard error, as JSON objects or as text; replaces what was configured."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def without_addresses(text: str) -> str:
    """`text` with everything that looks like an address, or like a login in a URL, replaced."""
    return ADDRESS.sub(WITHHELD, text) if "@" in text else text


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller passed as extra, ready for JSON, after what the request or job is called; texts without
    addresses."""
    found: dict[str, Any] = dict(BESIDE.get())
    for name, value in record.__dict__.items():
        if name not in OWN:
            plain = value if value is None or isinstance(value, bool | int | float) else str(value)
            found[name] = without_addresses(plain) if isinstance(plain, str) else plain
    return found


def trouble(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback that belongs to the record, without addresses; empty if there is none."""
    text = formatter.formatException(record.exc_info) if record.exc_info else record.exc_text or ""
    return without_addresses(text)


class JsonFormatter(logging.Formatter):
    """{"at": ..., "level": ..., "logger": ..., "message": ..., facts..., "exception": ...} on one line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": without_addresses(record.getMessage()),
        }
        entry |= {name: value for name, value in facts(record).items() if name not in entry}
        exception = trouble(self, record)
        if exception:
            entry["exception"] = exception
        # Not orjson: it refuses half a surrogate pair and integers past 64 bits, and a log line is never refused.
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """`12:30:01 INFO campaigns.sending deliveries claimed campaign_id=... claimed=500`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        line = f"{at} {record.levelname} {record.name} {without_addresses(record.getMessage())}"
        line += "".join(f" {name}={value}" for name, value in facts(record).items())
        exception = trouble(self, record)
        return f"{line}\n{exception}" if exception else line
