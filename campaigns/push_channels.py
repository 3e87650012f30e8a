"""The channels of a process to FCM and APNs: one for each credential that it has sent with, its connections kept."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from campaigns.push_credentials import Secret, opened
from campaigns.retrying import HostGate
from campaigns.sealing import Sealed, Sealer
from channels.base import Channel, PushMessage, PushProvider
from db.transactions import transaction

ALL_SEALED = "SELECT app, provider, sealed, key_id FROM push_credential WHERE workspace_id = $1"


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one provider with one credential."""

    sealed: bytes
    """The credential, as it was kept when the channel was made."""
    channel: Channel[PushMessage]
    gate: HostGate


Credential = tuple[str, PushProvider]
"""App and provider."""
Routes = Mapping[Credential, Route]


class PushChannels:
    """Serves a whole process, from many tasks at once."""

    def __init__(self, connect: Callable[[Secret], Channel[PushMessage]], sealer: Sealer) -> None:
        """`connect` makes a channel of its own for a credential. It may take a while, and is called in a thread."""
        self._connect, self._sealer = connect, sealer
        self._routes: dict[UUID, dict[Credential, Route]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()

    async def of_workspace(self, workspace_id: UUID) -> Routes:
        """A channel for each credential that the workspace has now. The channel of one that was changed or deleted is
        closed: what is under way on it ends, what comes later is deferred.

        Raises CampaignError when a credential cannot be opened.
        """
        async with self._opening:  # read inside: what was read first must not come after what was read later
            async with transaction(workspace_id) as connection:
                rows = await connection.fetch(ALL_SEALED, workspace_id)
            before = self._routes.get(workspace_id, {})
            routes = {}
            for row in rows:  # at most push_credentials.MOST_APPS
                key = row["app"], PushProvider(row["provider"])
                kept = before.get(key)
                if kept is None or kept.sealed != row["sealed"]:
                    secret = opened(Sealed(row["key_id"], row["sealed"]), self._sealer, workspace_id, *key)
                    kept = Route(row["sealed"], await asyncio.to_thread(self._connect, secret), HostGate())
                routes[key] = kept
            self._routes[workspace_id] = routes
            for key, route in before.items():
                if routes.get(key) is not route:
                    self._close(route)
        return dict(routes)

    def away(self) -> frozenset[PushProvider]:
        """Providers to which nothing may go now with one of the credentials; any thread may ask."""
        return frozenset(
            provider
            for routes in list(self._routes.values())
            for (_, provider), route in routes.items()
            if route.gate.is_shut()
        )

    async def close(self) -> None:
        """Let go of all connections; what is under way ends first."""
        for routes in self._routes.values():
            for route in routes.values():
                self._close(route)
        self._routes.clear()
        await asyncio.gather(*self._leaving)

    def _close(self, route: Route) -> None:
        task = asyncio.create_task(route.channel.close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
