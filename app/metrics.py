"""Numbers for operators in Prometheus' text format: GET /metrics of the API, and of a worker on MUSTER_WORKER_PORT.

What a process does itself it counts in memory. How all stands is asked of PostgreSQL, at most once in `STANDING_S` and
only by an API that is scraped: see db/standing.py for why that does not grow with the ledger. Labels have few values,
whatever clients send: routes and fields of the schema, never paths, names of operations or ids.
"""

import hmac
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from time import monotonic, perf_counter

import asyncpg
from graphql import DocumentNode, FieldNode, get_operation_ast
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from app.patience import UNREACHABLE, within
from app.settings import Settings
from campaigns.carrier import Carrier
from channels.base import PushProvider
from db.transactions import across_workspaces, pool_use

logger = logging.getLogger(__name__)

STANDING = "SELECT measure, channel, state, value FROM standing($1)"
LATELY = timedelta(days=1)
"""Deliveries of dispatches begun within it, evaluations asked for within it."""
STANDING_S = 10.0
"""So long one look serves every scrape."""
PATIENCE_S = 3.0
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TURN_SECONDS = (0.01, 0.1, 0.5, 1, 2.5, 5, 10, 25, 60, 300, 1800)

REGISTRY = CollectorRegistry()
"""Of this process."""
EVERYWHERE = CollectorRegistry()
"""How all stands, which an API tells."""
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

NO_ROUTE = "none"
REQUESTS = Counter("muster_http_requests", "Answers, by route and status.", ["route", "status"], registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "muster_http_request_seconds", "Time to the whole answer.", ["route"], buckets=SECONDS, registry=REGISTRY
)
OPERATIONS = Counter(
    "muster_graphql_operations",
    "Operations executed, by their field (several: more than one; none: not executable) and outcome"
    " (ok, error, or unavailable: the database is away).",
    ["field", "outcome"],
    registry=REGISTRY,
)
OPERATION_SECONDS = Histogram(
    "muster_graphql_operation_seconds", "Time of executing one.", ["field"], buckets=SECONDS, registry=REGISTRY
)
AWAY = Gauge(
    "muster_provider_away",
    "1 while a worker begins nothing there, since the last answer was that it is away.",
    ["channel"],
    registry=REGISTRY,
)
JOBS = Histogram("muster_job_seconds", "Time of a worker's turns.", ["job"], buckets=TURN_SECONDS, registry=REGISTRY)
POOL = Gauge("muster_database_connections", "Connections of this process.", ["state"], registry=REGISTRY)
CAMPAIGNS = Gauge("muster_campaigns", "Campaigns.", ["channel", "status"], registry=EVERYWHERE)
DELIVERIES = Gauge(
    "muster_deliveries",
    "Messages of dispatches begun within a day, as last counted for those who follow them or when they ended.",
    ["channel", "state"],
    registry=EVERYWHERE,
)
OLDEST = Gauge("muster_oldest_seconds", "Age of the oldest that waits; 0: nothing does.", ["what"], registry=EVERYWHERE)
EVALUATIONS = Gauge("muster_evaluations", "Evaluations asked for within a day.", ["status"], registry=EVERYWHERE)
EVALUATION_SECONDS = Gauge(
    "muster_evaluation_seconds", "Their durations (quantile 1: the longest).", ["quantile"], registry=EVERYWHERE
)
DATABASE_UP = Gauge("muster_database_up", "Whether PostgreSQL told how things stand.", registry=EVERYWHERE)
REFUSED_EARLY = REQUESTS.labels(NO_ROUTE, "429")
"""Beyond those of a second, before anybody knows for which route."""


class FetchCounts(Collector):
    """Fetches of banners answered from memory, counted in plain numbers by the event loop alone: a Counter with its
    lock would be a tenth of what such an answer costs."""

    def __init__(self) -> None:
        self.rest = self.graphql = 0

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "muster_banner_fetches", "Fetches of banners answered from memory.", labels=["how"]
        )
        family.add_metric(["rest"], self.rest)
        family.add_metric(["graphql"], self.graphql)
        yield family


FETCHES = FetchCounts()
REGISTRY.register(FETCHES)

SEVERAL, NONE = "several", "none"


def field_of(document: DocumentNode | None, operation_name: str | None) -> str:
    """The one field that an operation asks for, which the schema bounds; a client's names would be without bound."""
    operation = get_operation_ast(document, operation_name) if document else None
    if operation is None:
        return NONE
    selected = operation.selection_set.selections
    if len(selected) == 1 and isinstance(selected[0], FieldNode):
        return selected[0].name.value
    return SEVERAL


@contextmanager
def executed(field: str) -> Iterator[list[str]]:
    """Count one operation: the list given gets its outcome, if it came to an end; else that is an error."""
    began, outcome = perf_counter(), list[str]()
    try:
        yield outcome
    finally:
        OPERATIONS.labels(field, *(outcome or ["error"])).inc()
        OPERATION_SECONDS.labels(field).observe(perf_counter() - began)


@contextmanager
def worked(job: str) -> Iterator[None]:
    """Count one turn of a worker."""
    with JOBS.labels(job).time():
        yield


def note_away(carrier: Carrier) -> None:
    """Tell from now on which providers are away for this process; any thread may."""
    away = carrier.push.channels.away() if carrier.push else frozenset()
    AWAY.labels("email").set(carrier.gate.is_shut())
    for provider in PushProvider:
        AWAY.labels(provider.lower()).set(provider in away)


class Standing:
    """How all stands, for scrapes, as of a moment ago."""

    def __init__(self) -> None:
        self.looked_at = float("-inf")

    async def look(self) -> None:
        """Ask PostgreSQL, unless somebody just did; what it does not answer is left out and told by DATABASE_UP."""
        if monotonic() - self.looked_at < STANDING_S:
            return
        self.looked_at = monotonic()
        rows: list[asyncpg.Record] | None = None
        try:
            rows = await within(PATIENCE_S, standing())
        except UNREACHABLE:
            logger.warning("how things stand is not known", exc_info=True)
        # All at once: who scrapes meanwhile gets what was told before.
        for gauge in (CAMPAIGNS, DELIVERIES, OLDEST, EVALUATIONS, EVALUATION_SECONDS):
            gauge.clear()
        DATABASE_UP.set(rows is not None)
        for row in rows or ():
            match row["measure"]:
                case "campaigns":
                    CAMPAIGNS.labels(row["channel"], row["state"]).set(row["value"])
                case "deliveries":
                    DELIVERIES.labels(row["channel"], row["state"]).set(row["value"])
                case "oldest_s":
                    OLDEST.labels(row["state"]).set(row["value"])
                case "evaluations":
                    EVALUATIONS.labels(row["state"]).set(row["value"])
                case "evaluation_s":
                    EVALUATION_SECONDS.labels(row["state"]).set(row["value"])


LATEST = Standing()
"""Of this process."""


async def standing() -> list[asyncpg.Record]:
    """Rows of db/standing.py: standing."""
    async with across_workspaces() as connection:
        rows: list[asyncpg.Record] = await connection.fetch(STANDING, LATELY)
    return rows


def text() -> bytes:
    """The numbers of this process itself. Takes a few ms; any thread may ask."""
    size, idle = pool_use()
    POOL.labels("busy").set(size - idle)
    POOL.labels("idle").set(idle)
    return generate_latest(REGISTRY)


def text_of_all() -> bytes:
    """`text`, and how all stands as of the last look."""
    return text() + generate_latest(EVERYWHERE)


def may_scrape(settings: Settings, authorization: str, address: str) -> bool:
    """Whether a request may see the numbers."""
    token = settings.metrics_token
    if token is not None:
        return hmac.compare_digest(authorization.encode(), f"Bearer {token.get_secret_value()}".encode())
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
