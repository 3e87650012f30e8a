"""The server of `muster api`, which does not wait for what has no end."""

from socket import socket

import uvicorn
from starlette.applications import Starlette

from app.context import Services


class Server(uvicorn.Server):
    """uvicorn's, which lets streams of events end as soon as it is to end itself: they would be waited for until they
    are cancelled (`timeout_graceful_shutdown`). WebSockets it closes by itself."""

    def __init__(self, config: uvicorn.Config, application: Starlette) -> None:
        super().__init__(config)
        self.application = application

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        services: Services | None = getattr(self.application.state, "services", None)
        if services is not None:
            services.feeds.is_ending = True
        await super().shutdown(sockets)
