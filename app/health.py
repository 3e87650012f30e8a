"""Whether this process lives, and whether it can work."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import asyncpg
from starlette.requests import Request
from starlette.responses import JSONResponse

from app.boards import OLDEST_WITHOUT_DATABASE
from app.context import Services
from app.patience import UNREACHABLE, within
from app.wakeups import ALIVE, ALIVE_WITHIN
from db import migrations
from db.transactions import across_workspaces

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
MIGRATIONS_MISSING = "SELECT migrations_missing($1)"
TURN_AGE = "SELECT turn_age($1)"
SWEPT_WITHIN = timedelta(seconds=15)
"""A sweep is due every four seconds, whichever worker does it."""
KNOWN = sorted(path.stem for path in Path(migrations.__path__[0]).glob("[0-9]*.py"))
"""The migrations that this code was written for."""


async def healthz(request: Request) -> JSONResponse:
    """Always 200 while the process answers; `degraded` names what it does without: `workers` when none is alive,
    `sweeper` when none has swept lately."""
    missing, alive, swept = await asyncio.gather(troubles(request), workers_alive(), sweeper_alive())
    lacking = [name for name, is_there in (("workers", alive), ("sweeper", swept or not alive)) if not is_there]
    return JSONResponse({"status": "ok", "degraded": [*missing, *lacking]})


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
    """What this process needs and cannot reach: database or schema, valkey. Takes `PATIENCE_S` at most.

    `schema`: the database is older than this code, and `muster migrate` is to be run.
    """
    services: Services = request.app.state.services
    database, valkey = await asyncio.gather(database_trouble(), services.resources.wakeups.is_reachable())
    return [*([database] if database else []), *([] if valkey else ["valkey"])]


async def database_trouble() -> str | None:
    """`database`, or `schema` when migrations of this code are missing there."""
    try:
        missing = await within(PATIENCE_S, ask(MIGRATIONS_MISSING, KNOWN))
    except asyncpg.UndefinedFunctionError:
        return "schema"  # older than the function that tells
    except UNREACHABLE:
        logger.warning("database not reachable", exc_info=True)
        return "database"
    if missing:
        logger.warning("database is older than the code", extra={"missing": missing})
        return "schema"
    return None


async def workers_alive() -> bool:
    """Whether a worker has announced itself lately; True when nobody can say."""
    try:
        return bool(await within(PATIENCE_S, ask(ALIVE, ALIVE_WITHIN)))
    except UNREACHABLE:
        return True


async def sweeper_alive() -> bool:
    """Whether lost bells and dead workers' rows were looked after lately; True when nobody can say."""
    try:
        age_s = await within(PATIENCE_S, ask(TURN_AGE, "sweep"))
    except UNREACHABLE:
        return True
    return isinstance(age_s, float) and age_s < SWEPT_WITHIN.total_seconds()


async def ask(question: str, *arguments: object) -> object:
    """What the database answers."""
    async with across_workspaces() as connection:
        answer: object = await connection.fetchval(question, *arguments)
    return answer
