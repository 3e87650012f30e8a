"""Whether a worker can work, answered by a thread beside the event loop: one that hangs must not look well.

The loop looks at what it needs every few seconds and notes when it last found it; the thread compares with the clock.
Whatever goes away, the worker is not ready `RED_AFTER_S` later at most, without anybody having to notice.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any

from app.patience import within

LOOK_EVERY_S = 4.0
PATIENCE_S = 3.0
"""For one answer of the database or Valkey."""
RED_AFTER_S = 10.0
"""Longer than from one look that succeeds to the end of the next, so that a slow answer is no alarm."""
LOOP = "loop"

Look = Callable[[], Coroutine[Any, Any, None]]
"""Returns when the thing is there, and raises, or never returns, when it is not."""


class Readiness:
    """When this process last saw what it needs. The event loop writes, any thread reads."""

    def __init__(self, looks: Mapping[str, Look], *, red_after_s: float = RED_AFTER_S) -> None:
        self._looks, self._red_after_s = looks, red_after_s
        self._seen: dict[str, float] = {}

    def missing(self) -> list[str]:
        """What was not found for too long, or never yet: `loop`, or names of the looks."""
        oldest = monotonic() - self._red_after_s
        return [name for name in (LOOP, *self._looks) if self._seen.get(name, float("-inf")) < oldest]

    async def look_on(self, *, every_s: float = LOOK_EVERY_S, patience_s: float = PATIENCE_S) -> None:
        """Look at everything, again and again, until cancelled."""
        while True:
            self._seen[LOOP] = monotonic()
            await asyncio.gather(*(self._look_at(name, patience_s) for name in self._looks))
            await asyncio.sleep(every_s)

    async def _look_at(self, name: str, patience_s: float) -> None:
        try:
            await within(patience_s, self._looks[name]())
        except Exception:
            return  # whoever asks is told; the looks log for themselves
        self._seen[name] = monotonic()


Numbers = Callable[[str, str], bytes | None]
"""The text of /metrics for an Authorization header and an address; None when these may not see it."""


def none_told(authorization: str, address: str) -> bytes | None:
    """No numbers for anybody."""
    return None


@contextmanager
def answering(readiness: Readiness, *, host: str, port: int, metrics: Numbers = none_told) -> Iterator[int]:
    """Answer GET /readyz, /livez and /metrics on `port` (0: a free one, which is given) by a thread of its own.

    /readyz is 200 when nothing is missing, else 503. /livez is 503 only when the event loop hangs: of a worker that
    lacks its database nothing is gained by a restart, and what it knows would be lost.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE_S  # for the request: who connects and says nothing must not keep a thread

        def do_GET(self) -> None:
            if self.path == "/metrics":
                numbers = metrics(self.headers.get("Authorization", ""), self.client_address[0])
                self.answer(403 if numbers is None else 200, numbers or b"", "text/plain; version=0.0.4")
                return
            missing = readiness.missing()
            if self.path == "/livez":
                missing = [name for name in missing if name == LOOP]
            elif self.path != "/readyz":
                self.send_error(404)
                return
            body = json.dumps({"ready": not missing, "missing": missing}).encode()
            self.answer(503 if missing else 200, body, "application/json")

        def answer(self, status: int, body: bytes, media_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """A probe every few seconds is no news."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
