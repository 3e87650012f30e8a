"""Whether this process lives, and whether it can work."""

import asyncio
import logging

import asyncpg
from starlette.requests import Request
from starlette.responses import JSONResponse
from tortoise.exceptions import BaseORMException

from app.context import Services
from db.transactions import across_workspaces

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
UNREACHABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, BaseORMException)
SCHEMA_IS_THERE = "SELECT to_regclass('campaign') IS NOT NULL AND to_regclass('delivery') IS NOT NULL"


async def healthz(request: Request) -> JSONResponse:
    """Always 200 while the process answers; `degraded` names what it does without."""
    return JSONResponse({"status": "ok", "degraded": await troubles(request)})


async def readyz(request: Request) -> JSONResponse:
    """200 when requests can be served now, else 503; `missing` names what stands in the way."""
    missing = await troubles(request)
    return JSONResponse({"ready": not missing, "missing": missing}, status_code=503 if missing else 200)


async def troubles(request: Request) -> list[str]:
    """What this process needs and cannot reach: database, schema, valkey."""
    services: Services = request.app.state.services
    found = []
    try:
        async with asyncio.timeout(PATIENCE_S), across_workspaces() as connection:
            if not await connection.fetchval(SCHEMA_IS_THERE):
                found.append("schema")
    except UNREACHABLE:
        logger.warning("database not reachable", exc_info=True)
        found.append("database")
    if not await services.resources.wakeups.is_reachable():
        found.append("valkey")
    return found
