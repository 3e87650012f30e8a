"""An open load: requests that come when they come, whether or not those before them are answered.

`python -m benchmarks.arrivals PORT FILE PER_S SECONDS CONNECTIONS` sends the requests of FILE (each ended by a zero
byte) in turn, at the instants of a Poisson process of PER_S a second: as many people who know nothing of each other
ask. Each request takes a connection that waits for nothing, or, while there is none, the first that comes free.

An answer's time counts from the instant at which its request was to be sent, so that whoever has to wait since the
server stands still is counted with all of that wait (no coordinated omission). A load that sends the next request when
the last is answered, or one after a pause, leaves out just those. It looks at clock and sockets without ever sleeping,
on a core that no measured server has: what it adds is tens of microseconds, as long as it is not held up itself. How
late it sent, though a connection was free, is `late_p99_ms`: a p99 says something of a server only where that is far
below it. Prints one JSON line.
"""

import gc
import json
import select
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from random import Random
from time import perf_counter

SEED = 7


class Connection:
    """One request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer = b""
        self.due_at = 0.0
        """When its request was to be sent."""
        self.free_at = 0.0
        """When it was answered last."""

    def ask(self, request: bytes, due_at: float) -> None:
        """Send one."""
        self.answer, self.due_at = b"", due_at
        self.socket.sendall(request)

    def is_answered(self) -> bool:
        """Take in what has come; whether that is all. Raises RuntimeError for a refusal."""
        came = self.socket.recv(65_536)
        self.answer += came
        head, found, body = self.answer.partition(b"\r\n\r\n")
        if not came or not self.answer.startswith(b"HTTP/1.1 20"[: len(self.answer)]):
            raise RuntimeError(f"refused: {self.answer[:200]!r}")
        if not found:
            return False
        _, _, length = head.lower().partition(b"content-length: ")
        return len(body) >= int(length.partition(b"\r\n")[0])


def instants(per_s: float, seconds: float) -> Iterator[float]:
    """When requests come, in seconds from the beginning: pauses between them are exponential."""
    draw, at = Random(SEED), 0.0
    while (at := at + draw.expovariate(per_s)) < seconds:
        yield at


def waits(
    port: int, requests: Sequence[bytes], due: Sequence[float], connections: int
) -> tuple[list[float], list[float]]:
    """How many seconds each of the requests took that are `due`, as they were answered; and how many each was sent
    late by this loop alone, with a connection that was free."""
    all_ = [Connection(port) for _ in range(connections)]
    free, by_number = deque(all_), {one.socket.fileno(): one for one in all_}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    took, late = list[float](), list[float]()
    waiting, following = deque(due), cycle(requests)
    began = perf_counter()
    while len(took) < len(due):
        at = perf_counter() - began
        while free and waiting and waiting[0] <= at:
            one, due_at = free.popleft(), waiting.popleft()
            late.append(at - max(due_at, one.free_at))
            one.ask(next(following), due_at)
        for number, _ in poll.poll(0):
            one = by_number[number]
            if one.is_answered():
                one.free_at = perf_counter() - began
                took.append(one.free_at - one.due_at)
                free.append(one)
    return took, late


def main() -> None:
    """Load, and say what was seen."""
    port, file, per_s, seconds, connections = sys.argv[1:]
    requests = Path(file).read_bytes().split(b"\0")[:-1]
    due = list(instants(float(per_s), float(seconds)))
    gc.disable()
    began = perf_counter()
    took, late = map(sorted, waits(int(port), requests, due, int(connections)))
    found = {
        "requests": len(took),
        "seconds": perf_counter() - began,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
        "late_p99_ms": late[len(late) * 99 // 100] * 1000,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
