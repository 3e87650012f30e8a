"""How long the server took, told with every answer, so that a slow network is not taken for a slow server."""

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"server-timing"


class ServerTiming:
    """Adds Server-Timing: app;dur=0.84 to each answer: milliseconds from the request's headers to the answer's.

    W3C Server Timing, section 3; browsers show it beside the request. Waiting for the body of a request is in it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                took = f"app;dur={(perf_counter() - began) * 1000:.2f}"
                message["headers"] = [*message.get("headers", ()), (HEADER, took.encode())]
            await send(message)

        await self.app(scope, receive, timed)
