"""What the server alone makes of it: `python -m benchmarks.raw PORT FILE` answers every request with the same bytes.

FILE has the header fields, an empty line and the body; the body of a request is read. Under uvicorn as `muster api`
runs it.
"""

import sys
from pathlib import Path
from typing import Any

import uvicorn

HEAD, _, BODY = Path(sys.argv[2]).read_bytes().partition(b"\n\n")
HEADERS = [tuple(line.split(b": ", 1)) for line in HEAD.split(b"\n")]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
END = {"type": "http.response.body", "body": BODY}


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """The same, whatever is asked."""
    if scope["type"] != "http":
        return
    if scope["method"] == "POST":
        await receive()
    await send(START)
    await send(END)


if __name__ == "__main__":
    uvicorn.run(
        answer,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
