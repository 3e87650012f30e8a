"""Bells: after a commit, the edge tells the workers through arq that there is something to do.

A bell carries ids only and is allowed to be lost: the sweeper reads PostgreSQL and rings again (R8). It has no fixed
job id, since arq would swallow the next bell while one is queued or running; a surplus bell finds nothing to do.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from time import monotonic
from uuid import UUID

import asyncpg
import orjson
import redis.asyncio
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.exceptions import RedisError

from campaigns import counts

logger = logging.getLogger(__name__)

QUEUE = "muster"
ROWS_A_BELL = 2_000
"""Open deliveries that are worth one more worker."""
ALIVE = "SELECT workers_alive($1)"
ALIVE_WITHIN = timedelta(seconds=15)
"""A worker announces itself every 4 s (workers/readiness.py); one that has not for so long is taken for dead."""
MOST_WAITING = 1_000
"""Bells in the queue beyond which the sweeper adds none: turns take longer than it takes to ring for them again."""
BOARDS = "muster:boards"
"""The channel on which changes of banners are told."""
AGAIN_AFTER_S = 1.0
"""Valkey is tried again after it went."""
PATIENCE_S = 3.0
"""For an answer of Valkey: a request or a job must not wait for one that hangs."""
REST_S = 3.0
"""After one that did not come no bell is tried for so long: each would wait in vain."""

VALKEY_AWAY = (RedisError, OSError, RuntimeError)
"""What is raised when Valkey went. The third is uvloop's, of a connection that ended just before a command: redis-py
lets it through."""

Here = Callable[[str, str, str], None]
"""Begins a turn in this process: of which job, in which workspace, about what."""


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
    settings.conn_timeout, settings.conn_retries = 2, 0
    return settings


async def connect(url: str) -> ArqRedis:
    """A pool of connections to Valkey; raises VALKEY_AWAY when it is away, or an answer takes too long."""
    async with asyncio.timeout(PATIENCE_S):
        pool = await create_pool(
            redis_settings(url), job_serializer=encode, job_deserializer=decode, default_queue_name=QUEUE
        )
        # arq has no setting for it. Without, who listens to a Valkey that hangs would be deaf for as long as TCP hopes.
        pool.connection_pool.connection_kwargs["socket_timeout"] = PATIENCE_S
        await pool.connection_pool.disconnect()
        pool.connection_pool.reset()  # the one that was open does not know
    return pool


class Wakeups:
    """Rings workers. Never raises: while Valkey or PostgreSQL is away, it warns and the sweeper does the work."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self.redis: ArqRedis | None = None
        self.connecting = asyncio.Lock()
        self.telling: set[asyncio.Task[None]] = set()
        self.here: Here | None = None
        """A worker's: what it cannot ring for it does itself (ADR 0030)."""
        self.is_away = False
        self.rests_until = float("-inf")

    async def deliver(self, *, workspace_id: UUID, campaign_id: UUID) -> None:
        """Ring for one campaign: once for every 2,000 open messages, at most as often as workers are alive."""
        try:
            bells = await counts.workers_wanted(
                workspace_id, campaign_id, alive_within=ALIVE_WITHIN, messages_a_worker=ROWS_A_BELL
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            logger.warning("bell not rung; the sweeper will", extra={"job": "deliver"}, exc_info=True)
            return
        for _ in range(bells):
            await self.ring("deliver", str(workspace_id), str(campaign_id))

    async def deliver_on(self, *, workspace_id: UUID, campaign_id: UUID) -> None:
        """Ring once for a campaign that has been rung for: a turn that is over brings the next, and no more."""
        await self.ring("deliver", str(workspace_id), str(campaign_id))

    async def evaluate(self, *, workspace_id: UUID, evaluation_id: UUID) -> None:
        """Ring for one evaluation; whoever hears it takes all that waits in the workspace."""
        await self.ring("evaluate", str(workspace_id), str(evaluation_id))

    async def ring(self, job: str, workspace_id: str, about: str) -> None:
        if not self._rests():
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await (await self._connected()).enqueue_job(job, workspace_id, about)
            except VALKEY_AWAY as error:
                self.lost(error)
            else:
                self.found()
                return
        if self.here is not None:
            self.here(job, workspace_id, about)

    async def is_behind(self) -> bool:
        """Whether more bells wait than the workers hear soon, so that more of them only keep new ones waiting."""
        if self._rests():
            return False
        try:
            async with asyncio.timeout(PATIENCE_S):
                waiting: int = await (await self._connected()).zcard(QUEUE)
        except VALKEY_AWAY as error:
            self.lost(error)
            return False
        return waiting >= MOST_WAITING

    async def reach(self) -> None:
        """Return when Valkey answers now; raises VALKEY_AWAY when it does not, or not in time."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await (await self._connected()).ping()
        except VALKEY_AWAY as error:
            self.lost(error)
            raise
        self.found()

    def lost(self, error: Exception) -> None:
        """Valkey did not answer somebody."""
        self.rests_until = monotonic() + REST_S
        if not self.is_away:
            self.is_away = True
            facts = {"problem": f"{type(error).__name__}: {error}"}
            logger.warning("Valkey is away; what bells would say is found in PostgreSQL", extra=facts)

    def found(self) -> None:
        """Valkey answered somebody."""
        self.rests_until = float("-inf")
        if self.is_away:
            self.is_away = False
            logger.info("Valkey is back")

    def _rests(self) -> bool:
        return monotonic() < self.rests_until

    async def is_reachable(self) -> bool:
        """Whether Valkey answers now."""
        try:
            await self.reach()
        except VALKEY_AWAY:
            return False
        return True

    def tell_boards_soon(self, workspace_id: UUID) -> None:
        """Like `tell_boards`, and nobody waits for it."""
        task = asyncio.create_task(self.tell_boards(workspace_id))
        self.telling.add(task)
        task.add_done_callback(self.telling.discard)

    async def tell_boards(self, workspace_id: UUID) -> None:
        """Tell the API's processes that what a workspace's banners show may have changed; they also look themselves."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await (await self._connected()).publish(BOARDS, workspace_id.hex)
        except VALKEY_AWAY as error:
            self.lost(error)  # boards look by themselves

    async def changed_boards(self) -> AsyncIterator[UUID]:
        """The workspaces of `tell_boards`, as they are told, for ever; while Valkey is away nothing comes."""
        while True:
            try:
                async with redis.asyncio.from_url(self.redis_url) as told, told.pubsub() as channel:
                    await channel.subscribe(BOARDS)
                    self.found()
                    async for message in channel.listen():
                        if message["type"] == "message":
                            yield UUID(hex=message["data"].decode())
            except VALKEY_AWAY as error:
                self.lost(error)
            except ValueError:
                logger.warning("not told of changed boards", exc_info=True)
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _connected(self) -> ArqRedis:
        # One after the other: two that connect at once would leave one of the two open for good.
        async with self.connecting:
            if self.redis is None:
                self.redis = await connect(self.redis_url)
            return self.redis

    async def close(self) -> None:
        await asyncio.gather(*self.telling)
        if self.redis is not None:
            await self.redis.aclose()


class HeldWakeups(Wakeups):
    """Keeps the bells of a transaction until it is over."""

    def __init__(self, wakeups: Wakeups) -> None:
        super().__init__(wakeups.redis_url)
        self.wakeups = wakeups
        self.held: list[Callable[[], Awaitable[None]]] = []

    async def deliver(self, *, workspace_id: UUID, campaign_id: UUID) -> None:
        self.held.append(partial(self.wakeups.deliver, workspace_id=workspace_id, campaign_id=campaign_id))

    async def ring(self, job: str, workspace_id: str, about: str) -> None:
        self.held.append(partial(self.wakeups.ring, job, workspace_id, about))

    async def ring_now(self) -> None:
        """Ring all of them, in their order."""
        for ring in self.held:
            await ring()
        self.held.clear()
