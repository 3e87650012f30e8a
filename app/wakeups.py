"""Bells: after a commit, the edge tells the workers through arq that there is something to do.

A bell carries ids only and is allowed to be lost: the sweeper reads PostgreSQL and rings again (R8). It has no fixed
job id, since arq would swallow the next bell while one is queued or running; a surplus bell finds nothing to do.
"""

import asyncio
import logging
from datetime import timedelta
from uuid import UUID

import asyncpg
import orjson
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.exceptions import RedisError

from campaigns import counts
from db.transactions import across_workspaces

logger = logging.getLogger(__name__)

QUEUE = "muster"
ROWS_A_BELL = 2_000
"""Open deliveries that are worth one more worker."""
ALIVE = "SELECT workers_alive($1)"
ALIVE_WITHIN = timedelta(seconds=15)
"""A worker announces itself every 4 s (workers/readiness.py); one that has not for so long is taken for dead."""
MOST_WAITING = 1_000
"""Bells in the queue beyond which the sweeper adds none: turns take longer than it takes to ring for them again."""
PATIENCE_S = 3.0
"""For an answer of Valkey: a request or a job must not wait for one that hangs."""


def encode(value: object) -> bytes:
    """arq's default is pickle, with which whoever can write to Redis can run code here."""
    return orjson.dumps(value, default=str)


def decode(data: bytes) -> dict[str, object]:
    """What `encode` wrote."""
    value: dict[str, object] = orjson.loads(data)
    return value


def redis_settings(url: str) -> RedisSettings:
    """arq's form of REDIS_URL; fails fast, because a bell is not worth a wait."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_timeout, settings.conn_retries, settings.conn_retry_delay = 2, 1, 0
    return settings


async def connect(url: str) -> ArqRedis:
    """A pool of connections to Valkey; raises RedisError or OSError when it is away."""
    return await create_pool(
        redis_settings(url), job_serializer=encode, job_deserializer=decode, default_queue_name=QUEUE
    )


class Wakeups:
    """Rings workers. Never raises: while Valkey or PostgreSQL is away, it warns and the sweeper does the work."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self.redis: ArqRedis | None = None

    async def deliver(self, *, workspace_id: UUID, campaign_id: UUID) -> None:
        """Ring for one campaign: once for every 2,000 open messages, at most as often as workers are alive."""
        try:
            async with across_workspaces() as connection:
                alive: int = await connection.fetchval(ALIVE, ALIVE_WITHIN)
            open_rows = await counts.open_rows(workspace_id, campaign_id, limit=alive * ROWS_A_BELL)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            logger.warning("bell not rung; the sweeper will", extra={"job": "deliver"}, exc_info=True)
            return
        for _ in range(max(1, min(alive, open_rows // ROWS_A_BELL))):
            await self.ring("deliver", str(workspace_id), str(campaign_id))

    async def deliver_on(self, *, workspace_id: UUID, campaign_id: UUID) -> None:
        """Ring once for a campaign that has been rung for: a turn that is over brings the next, and no more."""
        await self.ring("deliver", str(workspace_id), str(campaign_id))

    async def evaluate(self, *, workspace_id: UUID, evaluation_id: UUID) -> None:
        """Ring for one evaluation; whoever hears it takes all that waits in the workspace."""
        await self.ring("evaluate", str(workspace_id), str(evaluation_id))

    async def ring(self, job: str, *ids: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await (await self._connected()).enqueue_job(job, *ids)
        except (RedisError, OSError):
            logger.warning("bell not rung; the sweeper will", extra={"job": job}, exc_info=True)

    async def is_behind(self) -> bool:
        """Whether more bells wait than the workers hear soon, so that more of them only keep new ones waiting."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                waiting: int = await (await self._connected()).zcard(QUEUE)
        except (RedisError, OSError):
            return False
        return waiting >= MOST_WAITING

    async def reach(self) -> None:
        """Return when Valkey answers now; raises RedisError or OSError (which a timeout is) when it does not."""
        async with asyncio.timeout(PATIENCE_S):
            await (await self._connected()).ping()

    async def is_reachable(self) -> bool:
        """Whether Valkey answers now."""
        try:
            await self.reach()
        except (RedisError, OSError):
            return False
        return True

    async def _connected(self) -> ArqRedis:
        if self.redis is None:
            self.redis = await connect(self.redis_url)
        return self.redis

    async def close(self) -> None:
        if self.redis is not None:
            await self.redis.aclose()
