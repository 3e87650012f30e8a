"""A client of the protocol graphql-transport-ws, of an application in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from starlette.types import ASGIApp, Message

from tests.app.caller import Caller, operation_text

PROTOCOL = "graphql-transport-ws"


class Line:
    """One connection. `closed` is the code the server closed it with."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.heard: asyncio.Queue[Message] = asyncio.Queue()

    async def say(self, type: str, **more: Any) -> None:
        await self.say_text(orjson.dumps({"type": type, **more}).decode())

    async def say_text(self, text: str) -> None:
        await self.sent.put({"type": "websocket.receive", "text": text})

    async def hear(self) -> dict[str, Any]:
        """The next message of the server; fails when it closed the connection."""
        message = await self.heard.get()
        assert message["type"] == "websocket.send", message
        heard: dict[str, Any] = orjson.loads(message["text"])
        return heard

    async def end(self) -> int:
        """The code with which the server closes the connection, whatever it says before."""
        while (message := await self.heard.get())["type"] != "websocket.close":
            pass
        code: int = message["code"]
        return code

    async def begin(self, key: str | None) -> None:
        """Prove a key."""
        await self.say("connection_init", payload={"Authorization": f"Bearer {key}"} if key else {})
        assert await self.hear() == {"type": "connection_ack"}

    async def subscribe(self, operation: str, *, at: str = "1", **variables: Any) -> None:
        """Send a published operation."""
        payload = {"query": operation_text(operation), "variables": variables, "operationName": operation}
        await self.say("subscribe", id=at, payload=payload)

    async def told(self, at: str = "1") -> Any:
        """What the subscription's one field says next."""
        message = await self.hear()
        assert (message["type"], message["id"]) == ("next", at), message
        assert "errors" not in message["payload"], message
        (value,) = message["payload"]["data"].values()
        return value


@asynccontextmanager
async def connected(
    app: ASGIApp, *, protocols: tuple[str, ...] = (PROTOCOL,), origin: str | None = None
) -> AsyncIterator[Line]:
    """A connection, whether or not the server takes it."""
    line = Line()
    await line.sent.put({"type": "websocket.connect"})
    headers = [(b"host", b"muster.example"), *([(b"origin", origin.encode())] if origin else [])]
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "scheme": "wss",
        "path": "/graphql",
        "raw_path": b"/graphql",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "subprotocols": list(protocols),
        "client": ("127.0.0.1", 1),
        "server": ("muster.example", 443),
        "app": app,
        "state": {},
    }

    async def serve() -> None:
        await app(scope, line.sent.get, line.heard.put)

    serving = asyncio.create_task(serve())
    try:
        accepted = await line.heard.get()
        if accepted["type"] == "websocket.accept":
            assert accepted["subprotocol"] in (PROTOCOL, None)
        else:
            await line.heard.put(accepted)
        yield line
    finally:
        await line.sent.put({"type": "websocket.disconnect", "code": 1000})
        await serving


@asynccontextmanager
async def line_of(app: ASGIApp, caller: Caller) -> AsyncIterator[Line]:
    """A connection that has proven its key."""
    async with connected(app) as line:
        await line.begin(caller.key)
        yield line
