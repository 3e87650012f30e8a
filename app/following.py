"""What subscribers follow, looked up once a second for all of them together.

However many follow the same thing in this process, it is read once: a look a workspace and second, of all that anybody
follows there. Nobody waits in line: who is slow gets the newest, not all that was between.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from app.patience import UNREACHABLE

logger = logging.getLogger(__name__)

EVERY_S = 1.0
MOST_AT_ONCE = 100
"""Things of one look."""

V = TypeVar("V")


@dataclass(eq=False, slots=True)
class Follower(Generic[V]):
    """Somebody who follows one thing. `latest` is None once it is gone."""

    seen: V | None
    latest: V | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Feed(Generic[V]):
    """Tells how things of one kind change. Two values that are equal are no change."""

    def __init__(
        self,
        look: Callable[[UUID, list[UUID]], Awaitable[Mapping[UUID, V]]],
        *,
        is_final: Callable[[V], bool],
    ) -> None:
        """`look` reads at most a hundred things of a workspace as they are now; what is not there it leaves out."""
        self.look = look
        self.is_final = is_final
        self.followers: dict[UUID, dict[UUID, set[Follower[V]]]] = {}
        """By workspace and thing."""
        self.looking: asyncio.Task[None] | None = None

    async def follow(self, workspace_id: UUID, key: UUID) -> AsyncGenerator[V, None]:
        """The thing as it is, then as it is whenever it has changed, until it is final or gone.

        One that is not there yet is waited for.
        """
        follower: Follower[V] = Follower((await self.look(workspace_id, [key])).get(key))
        if follower.seen is not None:
            yield follower.seen
            if self.is_final(follower.seen):
                return
        followers = self.followers.setdefault(workspace_id, {}).setdefault(key, set())
        followers.add(follower)
        if self.looking is None:
            self.looking = asyncio.create_task(self.look_around())
        try:
            while True:
                await follower.changed.wait()
                follower.changed.clear()
                follower.seen = follower.latest
                if follower.seen is None:
                    return
                yield follower.seen
                if self.is_final(follower.seen):
                    return
        finally:
            followers.discard(follower)
            if not followers:
                self.forget(workspace_id, key)

    def forget(self, workspace_id: UUID, key: UUID) -> None:
        """Look no more for what nobody follows."""
        keys = self.followers.get(workspace_id, {})
        if not keys.get(key):
            keys.pop(key, None)
        if not keys:
            self.followers.pop(workspace_id, None)

    async def look_around(self) -> None:
        """Look every second as long as anybody follows anything."""
        try:
            while self.followers:
                await asyncio.sleep(EVERY_S)
                for workspace_id in list(self.followers):
                    await self.tell(workspace_id)
        finally:
            self.looking = None

    async def tell(self, workspace_id: UUID) -> None:
        """Look at all that is followed in one workspace and tell who follows what has changed."""
        keys = list(self.followers.get(workspace_id, ()))
        for start in range(0, len(keys), MOST_AT_ONCE):
            some = keys[start : start + MOST_AT_ONCE]
            try:
                found = await self.look(workspace_id, some)
            except UNREACHABLE:
                logger.warning("followers not told", exc_info=True)
                continue
            for key in some:
                for follower in self.followers.get(workspace_id, {}).get(key, ()):
                    if found.get(key) != follower.seen:
                        follower.latest = found.get(key)
                        follower.changed.set()

    async def close(self) -> None:
        """End the looking; followers hear no more."""
        if self.looking is not None:
            self.looking.cancel()
            await asyncio.gather(self.looking, return_exceptions=True)
