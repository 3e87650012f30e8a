"""Traces for OpenTelemetry, where MUSTER_OTLP_URL says so: one span an operation, a worker's turn and a channel's call.

Off, which is the default, a span is one object that does nothing, and nothing of OpenTelemetry is imported: it comes
with the extra `tracing`. No span holds an address, a text of a client's or a value of a query.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

from channels.base import Channel, Outcome
from db.errors import MusterError

NOTHING: AbstractContextManager[Any] = nullcontext()


class NoTracing(MusterError):
    """Traces are asked for, and what makes them is not installed."""


class Traces:
    """The spans of this process."""

    def __init__(self) -> None:
        self.tracer: Any = None

    def begin(self, processor: Any) -> None:
        """Give every span from now on to `processor`, a SpanProcessor."""
        # By name: a namespace package, of which mypy sees one half only.
        resource = import_module("opentelemetry.sdk.resources").Resource.create({"service.name": "muster"})
        provider = import_module("opentelemetry.sdk.trace").TracerProvider(resource=resource)
        provider.add_span_processor(processor)
        self.tracer = provider.get_tracer("muster")

    def span(self, name: str, **facts: str) -> AbstractContextManager[Any]:
        """A span as long as the block lasts, within the one around it; the kind of an exception that leaves it is in
        it."""
        return NOTHING if self.tracer is None else self.begun(name, facts)

    @contextmanager
    def begun(self, name: str, facts: dict[str, str]) -> Iterator[Any]:
        """See `span`."""
        # By itself a span would hold an exception's text and traceback, and PostgreSQL quotes rows in its own.
        with self.tracer.start_as_current_span(
            name, attributes=facts, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as fault:
                span.set_status(import_module("opentelemetry.trace").StatusCode.ERROR)
                span.set_attribute("error.type", type(fault).__name__)
                raise

    def of_channel(self, channel: Channel[Any], name: str) -> Channel[Any]:
        """`channel`, with a span around each call; itself when traces are off."""
        return channel if self.tracer is None else TracedChannel(channel, name, self)


TRACES = Traces()


class TracedChannel:
    """A channel whose calls are spans."""

    def __init__(self, channel: Channel[Any], name: str, traces: Traces) -> None:
        self.channel, self.name, self.traces = channel, name, traces

    @property
    def concurrency(self) -> int:
        """See Channel."""
        return self.channel.concurrency

    async def send(self, message: Any) -> Outcome:
        """See Channel; the span says what became of the message, and nothing of whom it is to."""
        with self.traces.span(f"channel {self.name}") as span:
            outcome: Outcome = await self.channel.send(message)
            if span is not None:
                span.set_attribute("muster.outcome", outcome.kind.value)
        return outcome

    async def largest_message(self) -> int | None:
        """See Channel."""
        return await self.channel.largest_message()

    async def close(self) -> None:
        """See Channel."""
        await self.channel.close()


def trace_to(url: str) -> None:
    """Send spans to a collector, in batches from a thread of its own. Raises NoTracing."""
    try:
        exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter
        batches = import_module("opentelemetry.sdk.trace.export").BatchSpanProcessor
    except ImportError as fault:
        packages = "the packages of the extra tracing (pyproject.toml)"
        message = f"MUSTER_OTLP_URL is set, and OpenTelemetry is not installed: install {packages}."
        raise NoTracing("NO_TRACING", message) from fault
    TRACES.begin(batches(exporter(endpoint=url)))
