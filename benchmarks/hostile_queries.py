"""`python -m benchmarks.hostile_queries`: how long hostile requests take, and others beside them (T-17).

A real `muster api` with servers of its own. Each hostile document and body of the tests is sent alone, `TRIES` times;
what is printed of it is its quickest answer, in ms, since a busy machine only adds. Then somebody asks for a page of
campaigns, one request after the other, `ROUNDS` times in turn: alone; while two others send all of the hostile ones
again and again; and while the same two ask for the same page as often a second as they attacked, since whoever sends
and is answered takes processor time too. Of the rounds the medians count. The last line is JSON, with the slowest
input, its ms, and how much memory the process has more at the end.
"""

import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from threading import Thread
from time import perf_counter, perf_counter_ns, sleep
from urllib.parse import urlsplit

from app.stack import Stack
from benchmarks.hostile import COUNTED, Client, measured, started_key
from tests.app.caller import operation_text
from tests.app.hostile import BODIES, DOCUMENTS, valid, with_variables

SENDERS = 2
ROUNDS = 3
TRIES = 5
REST_S = 0.2
"""Longer than the loop is left alone after any of them (app/reading.py)."""
WARM_UP = 3


def requests(turn: int = 0) -> dict[str, bytes]:
    """The body of every hostile request, by name; those that are valid are other documents in each turn, since one that
    was read is kept."""
    texts = {name: one.text for name, one in DOCUMENTS.items()}
    texts |= {f"{name}, valid": f"{text} #{turn}" for name, text in valid().items()}
    found = {name: json.dumps({"query": text}).encode() for name, text in texts.items()}
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
    took: dict[str, list[float]] = {}
    for turn in range(TRIES):
        for name, body in requests(turn).items():
            took.setdefault(name, []).append(alone(client, body))
    return {name: min(ms) for name, ms in took.items()}


def alone(client: Client, body: bytes) -> float:
    """Milliseconds of one request that nothing was read before: else it waits for the rest that the loop has then."""
    sleep(REST_S)
    return sent(client.connection, client.headers, body)


def hostile_ones() -> Iterator[bytes]:
    """All of them, again and again; the valid ones new each time."""
    while True:
        yield from requests(perf_counter_ns()).values()


def harmless_ones() -> Iterator[bytes]:
    """Requests for a page of campaigns."""
    page = json.dumps({"query": operation_text("Campaigns"), "variables": {}}).encode()
    while True:
        yield page


def send_all(host: str, key: str, tell: Connection, bodies: Callable[[], Iterator[bytes]], every_s: float) -> None:
    """Send `bodies`, each sender one every so many seconds or as fast as it is answered, until told to stop; then tell
    how many a second."""
    counts: list[int] = []
    began = perf_counter()

    def one() -> None:
        client, count = Client(host, key), 0
        for body in bodies():
            if tell.poll():
                break
            sleep(max(0.0, began + count * every_s - perf_counter()))
            sent(client.connection, client.headers, body)
            count += 1
        counts.append(count)

    threads = [Thread(target=one) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tell.send(sum(counts) / (perf_counter() - began))


def beside(
    host: str, key: str, bodies: Callable[[], Iterator[bytes]], every_s: float = 0.0
) -> tuple[dict[str, float], float]:
    """What somebody waits while others send `bodies`, and how many a second those sent."""
    ours, theirs = multiprocessing.Pipe()
    sender = multiprocessing.get_context("spawn").Process(target=send_all, args=(host, key, theirs, bodies, every_s))
    sender.start()
    try:
        waited = measured(host, key)
        ours.send("stop")
        rate: float = ours.recv()
    finally:
        sender.join()
    return waited, rate


def resident_mb(pid: int) -> float:
    """Memory of a process (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def in_turn(host: str, key: str, pid: int) -> dict[str, float]:
    """Medians of what somebody waits alone, beside attacks and beside as many harmless requests; and how much memory
    the API has more after the last round than after the first."""
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        alone = measured(host, key)
        attacked, attacks = beside(host, key, hostile_ones)
        loaded, harmless = beside(host, key, harmless_ones, every_s=SENDERS / attacks)
        found = {"attacks_per_s": attacks, "harmless_per_s": harmless, "memory_mb": resident_mb(pid)}
        for what, waited in (("alone", alone), ("harmless", loaded), ("attacked", attacked)):
            found |= {f"{what}_{name}": ms for name, ms in waited.items()}
        print(" ".join(f"{name} {value:.1f}" for name, value in found.items()))
        rounds.append(found)
    medians = {name: round(median(found[name] for found in rounds), 2) for name in rounds[0]}
    return medians | {"grown_since_first_round_mb": round(rounds[-1]["memory_mb"] - rounds[0]["memory_mb"], 1)}


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
            waited = in_turn(host, key, pid)
            grown = resident_mb(pid) - before
        finally:
            stack.stop()
    for name, ms in sorted(took.items(), key=lambda one: -one[1]):
        print(f"{ms:8.1f} ms  {name}")
    slowest = max(took, key=lambda name: took[name])
    figures = waited | {"grown_mb": round(grown, 1), "inputs": len(took)}
    print(json.dumps({"slowest": slowest, "slowest_ms": round(took[slowest], 1)} | figures))


if __name__ == "__main__":
    main()
