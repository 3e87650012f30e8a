"""Whether this process lives, and whether it can work."""

import asyncio
import logging

from starlette.requests import Request
from starlette.responses import JSONResponse

from app.boards import OLDEST_WITHOUT_DATABASE
from app.context import Services
from app.patience import UNREACHABLE, within
from app.wakeups import ALIVE, ALIVE_WITHIN
from db.transactions import across_workspaces

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
SCHEMA_IS_THERE = "SELECT to_regclass('campaign') IS NOT NULL AND to_regclass('delivery') IS NOT NULL"


async def healthz(request: Request) -> JSONResponse:
    """Always 200 while the process answers; `degraded` names what it does without: `workers` when none is alive."""
    missing, alive = await asyncio.gather(troubles(request), workers_alive())
    return JSONResponse({"status": "ok", "degraded": [*missing, *([] if alive else ["workers"])]})


async def readyz(request: Request) -> JSONResponse:
    """200 when requests can be served now, else 503; `missing` names what stands in the way."""
    missing = await troubles(request)
    return JSONResponse({"ready": not missing, "missing": missing}, status_code=503 if missing else 200)


async def readyz_banners(request: Request) -> JSONResponse:
    """200 while banners can be told, which outlasts the database by an hour, else 503; with the age of the oldest board
    that is fetched from."""
    services: Services = request.app.state.services
    oldest_s = services.boards.oldest_s
    if oldest_s is None:
        missing = await database_trouble()
        ready = missing is None
    else:
        ready = oldest_s < OLDEST_WITHOUT_DATABASE.total_seconds()
    body = {"ready": ready, "oldest_board_s": None if oldest_s is None else round(oldest_s, 1)}
    return JSONResponse(body, status_code=200 if ready else 503)


async def troubles(request: Request) -> list[str]:
    """What this process needs and cannot reach: database or schema, valkey. Takes `PATIENCE_S` at most."""
    services: Services = request.app.state.services
    database, valkey = await asyncio.gather(database_trouble(), services.resources.wakeups.is_reachable())
    return [*([database] if database else []), *([] if valkey else ["valkey"])]


async def database_trouble() -> str | None:
    """`database`, or `schema` when only the tables are missing."""
    try:
        return None if await within(PATIENCE_S, ask(SCHEMA_IS_THERE)) else "schema"
    except UNREACHABLE:
        logger.warning("database not reachable", exc_info=True)
        return "database"


async def workers_alive() -> bool:
    """Whether a worker has announced itself lately; True when nobody can say."""
    try:
        return bool(await within(PATIENCE_S, ask(ALIVE, ALIVE_WITHIN)))
    except UNREACHABLE:
        return True


async def ask(question: str, *arguments: object) -> object:
    """What the database answers."""
    async with across_workspaces() as connection:
        answer: object = await connection.fetchval(question, *arguments)
    return answer
