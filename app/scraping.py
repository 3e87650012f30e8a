"""GET /metrics."""

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from app import metrics
from app.context import Services
from app.problems import problem
from app.rates import address_of

OF_PROXIES = ("x-forwarded-for", "forwarded", "x-real-ip", "via")
"""Headers by which a proxy says that it asks for somebody else; which of them it sets depends on its settings."""


async def scrape(request: Request) -> Response:
    """The numbers, to whoever has MUSTER_METRICS_TOKEN; without one, to the machine itself."""
    services: Services = request.app.state.services
    authorization = request.headers.get("authorization", "")
    # A proxy on this machine is not the machine itself.
    address = "" if any(name in request.headers for name in OF_PROXIES) else address_of(request.scope)
    if not metrics.may_scrape(services.settings, authorization, address):
        return problem(403, "FORBIDDEN", "Metrics take the token of MUSTER_METRICS_TOKEN, as Authorization: Bearer.")
    await metrics.LATEST.look()
    return Response(metrics.text_of_all(), media_type=CONTENT_TYPE_LATEST)
