"""`python -m benchmarks.hostile_queries`: how long hostile requests take, and others beside them (T-17).

A real `muster api` with servers of its own. Each hostile document and body of the tests is sent alone, `TRIES` times;
what is printed of it is its quickest answer, in ms, since a busy machine only adds. Then somebody asks for a page of
campaigns, one request after the other, alone and while two others send all of them again and again. The last line is
JSON, with the slowest input, its ms, and how much memory the process has more at the end.
"""

import json
import multiprocessing
import os
import tempfile
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from time import perf_counter, sleep
from urllib.parse import urlsplit

from app.stack import Stack
from benchmarks.hostile import COUNTED, Client, measured, started_key
from tests.app.hostile import BODIES, DOCUMENTS, with_variables

ATTACKERS = 2
TRIES = 5
REST_S = 0.1
"""Longer than the loop is left alone after any of them (app/reading.py)."""
WARM_UP = 3


def requests() -> dict[str, bytes]:
    """The body of every hostile request, by name."""
    found = {name: json.dumps({"query": one.text}).encode() for name, one in DOCUMENTS.items()}
    given = {
        name: json.dumps({"query": query, "variables": variables}).encode()
        for name, (query, variables) in with_variables().items()
    }
    return found | given | BODIES


def sent(connection: HTTPConnection, headers: dict[str, str], body: bytes) -> float:
    """Milliseconds until it was answered."""
    began = perf_counter()
    connection.request("POST", "/graphql", body, headers)
    connection.getresponse().read()
    return (perf_counter() - began) * 1000


def quickest(host: str, key: str) -> dict[str, float]:
    """The quickest answer to each, in ms."""
    client = Client(host, key)
    return {name: min(alone(client, body) for _ in range(TRIES)) for name, body in requests().items()}


def alone(client: Client, body: bytes) -> float:
    """Milliseconds of one request that nothing was read before: else it waits for the rest that the loop has then."""
    sleep(REST_S)
    return sent(client.connection, client.headers, body)


def attack(host: str, key: str, tell: Connection) -> None:
    """Send all of them again and again until told to stop; then tell how many."""
    counts: list[int] = []

    def one() -> None:
        client, count = Client(host, key), 0
        while not tell.poll():
            for body in requests().values():
                sent(client.connection, client.headers, body)
                count += 1
        counts.append(count)

    threads = [Thread(target=one) for _ in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tell.send(sum(counts))


def resident_mb(pid: int) -> float:
    """Memory of a process (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Start an API, measure, and print."""
    ours = ("MUSTER_", "DATABASE_", "REDIS_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)  # PostgreSQL may have to run as nobody, who must pass here
        stack = Stack(Path(folder), environ=environ | COUNTED)
        try:
            key = started_key(stack)
            host, pid = urlsplit(stack.api_url).netloc, stack.processes["api"].pid
            for _ in range(WARM_UP):
                measured(host, key)
            before = resident_mb(pid)
            took = quickest(host, key)
            alone = measured(host, key)
            ours_end, theirs_end = multiprocessing.Pipe()
            attacker = multiprocessing.get_context("spawn").Process(target=attack, args=(host, key, theirs_end))
            attacker.start()
            try:
                beside = measured(host, key)
                ours_end.send("stop")
                attacks = ours_end.recv()
            finally:
                attacker.join()
            grown = resident_mb(pid) - before
        finally:
            stack.stop()
    for name, ms in sorted(took.items(), key=lambda one: -one[1]):
        print(f"{ms:8.1f} ms  {name}")
    slowest = max(took, key=lambda name: took[name])
    figures = {f"alone_{name}": value for name, value in alone.items()}
    figures |= {f"beside_{name}": value for name, value in beside.items()}
    figures |= {"attacks": attacks, "grown_mb": round(grown, 1), "inputs": len(took)}
    print(json.dumps({"slowest": slowest, "slowest_ms": round(took[slowest], 1)} | figures))


if __name__ == "__main__":
    main()
