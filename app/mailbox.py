"""Mail sink for development: takes every message over SMTP, delivers none, shows them on a page.

Started by `muster mailbox`. A message is listed for who asks, so it listens on loopback unless told otherwise, and
it does not start in production.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvicorn
from jinja2 import Environment
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.mailstore import Envelope, MailStore, headers, part
from app.processes import take
from app.settings import MailboxSettings, SettingsError
from app.smtpsink import SinkProtocol

log = logging.getLogger(__name__)

MOST_LISTED = 1000
PAGE_LENGTH = 100
# A page on the Internet may have its own name point here (DNS rebinding); it cannot send these names.
OWN_NAMES = ["127.0.0.1", "localhost", "mailbox"]
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; form-action 'self'; base-uri 'none'"
# What somebody mailed may look as it likes and its links may be followed, in an origin of nobody: no script, no form.
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src http: https: data:; font-src http: https: data:"
)

TEMPLATES = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
STYLE = """<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .6rem; vertical-align: top }
tr + tr { border-top: 1px solid #ddd } iframe { width: 100%; height: 36rem; border: 1px solid #ccc }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: 1rem } a { color: #06c }
</style>"""
LIST_PAGE = TEMPLATES.from_string(
    STYLE
    + """<title>Muster mailbox</title><h1>Mailbox</h1>
<p>{{ counts.received }} received, {{ counts.duplicates }} of them more than once. Nothing is delivered to anybody.</p>
<form><input name="to" value="{{ to }}" placeholder="recipient">
<input name="subject" value="{{ subject }}" placeholder="subject"> <button>Search</button></form>
<table><tr><th>Received (UTC)<th>To<th>Subject</tr>
{% for message in messages %}
<tr><td>{{ message.at[:19] | replace("T", " ") }}<td>{{ message.recipients | join(", ") }}
<td><a href="/messages/{{ message.id }}">{{ message.subject or "(no subject)" }}</a></tr>
{% else %}<tr><td colspan="3">No message.</tr>
{% endfor %}</table>
{% if older %}<p><a href="/?{{ {"before": older, "to": to, "subject": subject} | urlencode }}">Older</a></p>{% endif %}
"""
)
MESSAGE_PAGE = TEMPLATES.from_string(
    STYLE
    + """<title>{{ message.subject }}</title><p><a href="/">Mailbox</a></p>
<h1>{{ message.subject or "(no subject)" }}</h1>
<p>{{ message.at[:19] | replace("T", " ") }} UTC, from {{ message.sender or "&lt;&gt;" | safe }}
to {{ message.recipients | join(", ") }}</p>
{% if html %}<iframe sandbox="allow-popups allow-popups-to-escape-sandbox" src="/messages/{{ message.id }}/html"
  title="HTML part"></iframe>{% endif %}
{% if plain %}<h2>Text</h2><pre>{{ plain }}</pre>{% endif %}
<h2>Headers</h2><table>{% for name, value in headers %}<tr><th>{{ name }}<td>{{ value }}</tr>{% endfor %}</table>
<p><a href="/messages/{{ message.id }}/source">Source</a></p>
"""
)


def listed(envelope: Envelope) -> dict[str, object]:
    """A message in the JSON API: id, at, from, to, subject, messageId, campaign, delivery, size."""
    fields = asdict(envelope)
    return {
        "from": fields.pop("sender"),
        "to": fields.pop("recipients"),
        "messageId": fields.pop("message_id"),
        **fields,
    }


def store_of(request: Request) -> MailStore:
    store: MailStore = request.state.store
    return store


def find(request: Request) -> tuple[Envelope, bytes]:
    """The message of the path. Raises HTTPException 404."""
    found = store_of(request).find(request.path_params["id"])
    if found is None:
        raise HTTPException(404, "No such message, or it is no longer among the newest.")
    return found


def search(request: Request, *, limit: int) -> list[Envelope]:
    """The newest messages that the query parameters ask for."""
    query = request.query_params
    return store_of(request).list(
        limit=limit,
        before=whole(query, "before"),
        to=query.get("to", ""),
        subject=query.get("subject", ""),
        campaign=query.get("campaign", ""),
    )


async def list_page(request: Request) -> Response:
    messages = search(request, limit=PAGE_LENGTH)
    page = LIST_PAGE.render(
        messages=messages,
        counts=store_of(request).counts(),
        to=request.query_params.get("to", ""),
        subject=request.query_params.get("subject", ""),
        older=messages[-1].id if len(messages) == PAGE_LENGTH else None,
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})


async def message_page(request: Request) -> Response:
    envelope, data = find(request)
    page = MESSAGE_PAGE.render(
        message=envelope, html=part(data, "html"), plain=part(data, "plain"), headers=headers(data)
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})


async def html(request: Request) -> Response:
    page = '<base target="_blank">' + part(find(request)[1], "html")
    return HTMLResponse(page, headers={"Content-Security-Policy": MAIL_POLICY})


async def source(request: Request) -> Response:
    # Never sniffed for HTML, whatever is in it.
    return PlainTextResponse(
        find(request)[1],
        headers={"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"},
    )


async def list_messages(request: Request) -> Response:
    limit = whole(request.query_params, "limit")
    if limit is not None and not 1 <= limit <= MOST_LISTED:
        raise HTTPException(400, f"limit must be 1 to {MOST_LISTED}.")
    return JSONResponse({"messages": [listed(envelope) for envelope in search(request, limit=limit or PAGE_LENGTH)]})


async def message(request: Request) -> Response:
    envelope, data = find(request)
    return JSONResponse(
        {
            **listed(envelope),
            "headers": headers(data),
            "text": part(data, "plain"),
            "html": part(data, "html"),
            "source": data.decode("utf-8", "replace"),
        }
    )


async def counts(request: Request) -> Response:
    return JSONResponse(asdict(store_of(request).counts()))


async def clear(request: Request) -> Response:
    store_of(request).clear()
    return Response(status_code=204)


def whole(query: Mapping[str, str], name: str) -> int | None:
    """The whole number in a query parameter, None if it is absent. Raises HTTPException 400."""
    value = query.get(name)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise HTTPException(400, f"{name} must be a whole number.") from None


@dataclass(frozen=True, slots=True)
class Sink:
    """A listening mail sink."""

    store: MailStore
    port: int


@asynccontextmanager
async def open_sink(record: Path, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Sink]:
    """A mail sink without its page, for as long as the block lasts; port 0 takes a free one.

    The record is the file `record`. Raises OSError when the port is taken.
    """
    with MailStore(record) as store:

        def deliver(sender: str, recipients: list[str], data: bytes) -> None:
            store.add(sender=sender, recipients=recipients, data=data)

        server = await asyncio.get_running_loop().create_server(lambda: SinkProtocol(deliver), host, port)
        try:
            yield Sink(store=store, port=server.sockets[0].getsockname()[1])
        finally:
            server.close()


def create_mailbox(record: Path, *, host: str, smtp_port: int) -> Starlette:
    """The mail sink and its page as one application: the sink listens from the start of the lifespan to its end."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, MailStore]]:
        async with open_sink(record, host=host, port=smtp_port) as sink:
            log.info("mail sink listens", extra={"smtp_port": sink.port})
            yield {"store": sink.store}

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/", list_page),
            Route("/messages/{id:int}", message_page),
            Route("/messages/{id:int}/html", html),
            Route("/messages/{id:int}/source", source),
            Route("/api/messages", list_messages),
            Route("/api/messages", clear, methods=["DELETE"]),
            Route("/api/messages/{id:int}", message),
            Route("/api/counts", counts),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=OWN_NAMES, www_redirect=False)],
    )


def run(settings: MailboxSettings) -> None:
    """Run mail sink and page until SIGTERM or SIGINT.

    Raises SettingsError in production, CannotStart when another one uses the data folder.
    """
    if settings.in_production:
        raise SettingsError(
            ["MUSTER_ENV: the mailbox shows every mail to whoever asks, so it does not start in production."]
        )
    folder = settings.data_folder / "mailbox"
    lock = take(folder)
    try:
        uvicorn.run(
            create_mailbox(folder / "messages", host=settings.host, smtp_port=settings.smtp_port),
            host=settings.host,
            port=settings.page_port,
            log_config=None,
            access_log=False,
            server_header=False,
        )
    finally:
        os.close(lock)
