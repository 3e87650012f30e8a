"""Subscriptions over a WebSocket: the protocol graphql-transport-ws, for subscriptions alone.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md. The key comes in the payload of `connection_init`,
since pages cannot send headers with a WebSocket, or as a header. Queries and mutations go over HTTP, where their limits
are.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson
from cross_web import HTTPException
from starlette.websockets import WebSocket, WebSocketDisconnect

from app import streams
from app.auth import CLIENT_TOKEN_HEADER, Caller
from app.context import Services
from app.endpoint import Unknown, check_operation
from app.origins import may_connect
from app.patience import is_away
from app.problems import AWAY, UNAVAILABLE, log_fault, log_outage
from app.schema import Schema
from db.errors import MusterError

PROTOCOL = "graphql-transport-ws"
LARGEST_MESSAGE = 65_536
"""Bytes; `muster api` has the server refuse larger ones before they are read."""
LONGEST_ID = 200
LONGEST_REASON = 123
"""Bytes."""
MOST_OPERATIONS = 20
"""Subscriptions of one connection."""
BEGINS_WITHIN_S = 5.0
"""A connection that nobody has proven by then is closed."""
FROM_INIT = ("authorization", CLIENT_TOKEN_HEADER)
"""What the payload of `connection_init` may say in place of headers."""


class Closed(Exception):
    """The connection is to be closed, with a code of the protocol."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        # A frame that closes holds no more (RFC 6455 5.5).
        self.reason = reason.encode()[:LONGEST_REASON].decode(errors="ignore")


async def socket(websocket: WebSocket, schema: Schema) -> None:
    """Serve one connection until either side ends it."""
    services: Services = websocket.app.state.services
    if not may_connect(services.settings, websocket.headers.get("origin")):
        # Before it is accepted: the handshake is answered with 403.
        await websocket.close(1008)
        return
    if PROTOCOL not in websocket.scope["subprotocols"]:
        await websocket.accept()
        await websocket.close(4406, "Subprotocol not acceptable")
        return
    await websocket.accept(subprotocol=PROTOCOL)
    with suppress(WebSocketDisconnect):
        await Socket(websocket, schema, services).serve()


class Socket:
    """One connection."""

    def __init__(self, websocket: WebSocket, schema: Schema, services: Services) -> None:
        self.websocket, self.schema, self.services = websocket, schema, services
        self.headers: Mapping[str, str] = websocket.headers
        self.caller: Caller | None = None
        self.running: dict[str, asyncio.Task[None]] = {}
        """By the ids that the client gave them."""

    async def serve(self) -> None:
        """Read and answer messages; closes the connection when it breaks the protocol or its key is good no more."""
        guard = asyncio.create_task(self.keep_proven())
        try:
            try:
                async with asyncio.timeout(BEGINS_WITHIN_S):
                    await self.begin()
            except TimeoutError:
                raise Closed(4408, "Connection initialisation timeout") from None
            while True:
                reading = asyncio.ensure_future(self.receive())
                await asyncio.wait((reading, guard), return_when=asyncio.FIRST_COMPLETED)
                if guard.done():
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                    raise Closed(4403, "Forbidden")
                await self.take(reading.result())
        except Closed as closed:
            await self.end(guard)
            await self.websocket.close(closed.code, closed.reason)
        finally:
            await self.end(guard)

    async def end(self, guard: asyncio.Task[None]) -> None:
        """Stop all that goes on beside reading, so that nothing is said after the end."""
        tasks = [guard, *self.running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def keep_proven(self) -> None:
        """Return as soon as the key that opened the connection is good no more."""
        while True:
            await asyncio.sleep(streams.PROVEN_EVERY_S)
            if self.caller is not None and not await streams.is_proven(self.services, self.headers):
                return

    async def receive(self) -> dict[str, Any]:
        """The next message; raises Closed for one that is none, and WebSocketDisconnect."""
        message = await self.websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        text = message.get("text")
        if text is None:
            raise Closed(4400, "Messages are text")
        if len(text) > LARGEST_MESSAGE:
            raise Closed(4400, f"A message has at most {LARGEST_MESSAGE} characters")
        try:
            read = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise Closed(4400, "Messages are JSON") from None
        if not isinstance(read, dict) or not isinstance(read.get("type"), str):
            raise Closed(4400, "A message is an object with a type")
        return read

    async def begin(self) -> None:
        """Take the first messages, which must prove who it is."""
        while (message := await self.receive())["type"] == "ping":
            await self.say("pong")
        if message["type"] != "connection_init":
            raise Closed(4401, "Unauthorized")
        payload = message.get("payload") or {}
        if not isinstance(payload, dict):
            raise Closed(4400, "The payload of connection_init is an object")
        given = {name.lower(): text for name, text in payload.items() if isinstance(text, str)}
        self.headers = {**self.websocket.headers, **{name: given[name] for name in FROM_INIT if name in given}}
        try:
            self.caller = await streams.proven(self.services, self.headers)
        except MusterError:
            raise Closed(4403, "Forbidden") from None
        except Exception as fault:
            if not is_away(fault):
                raise
            log_outage(fault, where="subscriptions")
            raise Closed(1013, "Try again later") from None
        if not self.caller.is_server:
            # Apps can follow nothing, and everybody has their key: nobody holds connections open with it.
            raise Closed(4403, "Forbidden")
        await self.say("connection_ack")

    async def take(self, message: dict[str, Any]) -> None:
        """Do what one message after the first asks."""
        match message["type"]:
            case "ping":
                await self.say("pong")
            case "pong":
                pass
            case "subscribe":
                await self.subscribe(message)
            case "complete":
                task = self.running.pop(str(message.get("id")), None)
                if task is not None:
                    task.cancel()
            case "connection_init":
                raise Closed(4429, "Too many initialisation requests")
            case _:
                raise Closed(4400, "Unknown type of message")

    async def subscribe(self, message: dict[str, Any]) -> None:
        """Begin one subscription."""
        id, payload = message.get("id"), message.get("payload")
        if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID or not isinstance(payload, dict):
            raise Closed(4400, "A subscription has an id and a payload")
        if id in self.running:
            raise Closed(4409, f"Subscriber for {id} already exists")
        if len(self.running) >= MOST_OPERATIONS:
            # Said here, where the next message waits for it: who reads nothing must not fill the memory with refusals.
            await self.refuse(id, "TOO_MANY_SUBSCRIPTIONS", f"A connection has {MOST_OPERATIONS} subscriptions.")
            return
        self.running[id] = asyncio.create_task(self.run(id, payload))

    async def run(self, id: str, payload: dict[str, Any]) -> None:
        """Say the results of one subscription, then that it is complete."""
        assert self.caller is not None
        try:
            try:
                asked = check_operation(orjson.dumps(payload), payload, self.services.operations)
            except HTTPException as refusal:
                code = refusal.code if isinstance(refusal, Unknown) else "BAD_REQUEST"
                await self.refuse(id, code, refusal.reason)
                return
            async for result in streams.run(self.schema, self.services, self.caller, self.headers, asked):
                if "data" not in result:
                    await self.say("error", id=id, payload=result["errors"])
                    return
                await self.say("next", id=id, payload=result)
            await self.say("complete", id=id)
        except WebSocketDisconnect:
            pass
        except Exception as fault:
            if is_away(fault):
                log_outage(fault, where="subscription")
                await self.refuse(id, UNAVAILABLE, AWAY)
                return
            log_fault(fault, where="subscription")
            await self.refuse(id, "INTERNAL", "Something went wrong on our side.")
        finally:
            if self.running.get(id) is asyncio.current_task():
                del self.running[id]

    async def refuse(self, id: str, code: str, message: str) -> None:
        await self.say("error", id=id, payload=[{"message": message, "extensions": {"code": code}}])

    async def say(self, type: str, **more: Any) -> None:
        await self.websocket.send_text(orjson.dumps({"type": type, **more}).decode())
