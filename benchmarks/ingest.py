"""Events a second over HTTP: a real `muster api`, batches of 1,000 from another process, a durable PostgreSQL.

Who acts is zipf-distributed over the people of a database of `benchmarks.databases`, as their history is; every event
has a random UUID for its message id, happened now, and carries the person's own device, browser and place, and a page
or properties. `--restless` draws device, browser and place anew for each event, so that hardly any is without news of
its person. Alone: `python -m benchmarks.ingest --profiles 1000000`, which prints a JSON line for 4 and 8 connections.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from app.processes import end
from benchmarks import databases
from benchmarks.databases import Bench
from benchmarks.people import EVENT_NAMES, who_acts

BATCH = 1000
MOST_BATCHES_A_SECOND = 45
"""As many are made ahead of time, since making them costs more than sending them."""
PATIENCE_S = 60
ENVIRONMENT = {
    "MUSTER_ADDRESS_KEY": "an address key of the benchmarks, 32+ bytes",
    "MUSTER_TOKEN_KEY": "a token key of the benchmarks, at least 32 bytes",
    "MUSTER_SECRET_KEYS": "1:a key that seals secrets of the benchmark",
    "MUSTER_PUBLIC_URL": "http://127.0.0.1",
    "MUSTER_SMTP_URL": "smtp://127.0.0.1:1",
    "REDIS_URL": "redis://127.0.0.1:1",
}
"""Settings of the API; ingestion needs no Valkey, and /healthz answers without."""

ANONYMOUS = (
    "SELECT array_agg(profile_id) FROM profile_alias WHERE workspace_id = $1 AND anonymous_id = 'a' || profile_id"
)
SERVER = """
SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
  current_setting('full_page_writes') AS full_page_writes
"""
WAL_BYTES = "SELECT wal_bytes::bigint FROM pg_stat_wal"
COUNT = "SELECT count(*) FROM event WHERE workspace_id = $1 AND received_at >= $2"


@dataclass(frozen=True, slots=True)
class Sent:
    """What the client process saw."""

    accepted: int
    first_per_s: float
    """Events a second while it warmed up."""
    per_s: float
    """And from then on."""
    longest_ms: float
    median_ms: float
    client_cpu_s: float


async def measure(
    bench: Bench, *, seconds: float = 10, warm_s: float = 0, clients: int = 8, restless: bool = False
) -> dict[str, Any]:
    """Events a second that were acknowledged, and what the machine did meanwhile.

    Keys: events_per_s of the `seconds` that follow `warm_s`, and first_per_s of those; clients; median_ms and
    longest_ms of a batch; api_us, client_us and postgres_us, processor time an event; idle, the share of the machine's
    processor time that nobody used from first to last; wal_bytes an event; fsync, synchronous_commit and
    full_page_writes, as the server says them. After a checkpoint, pages go to the log as a whole
    when they are changed first, an event several of them: that is what warming up is for. `clients` connections send
    one batch after the other. Nothing is taken back: the events stay in the database.
    """
    owner = await asyncpg.connect(bench.owner_url)
    try:
        anonymous = set(await owner.fetchval(ANONYMOUS, bench.workspace_id) or ())
        durable = dict(await owner.fetchrow(SERVER))
        with tempfile.TemporaryDirectory() as scratch:
            bodies = Path(scratch) / "bodies"
            await asyncio.to_thread(
                write_bodies,
                bodies,
                bench.profiles,
                anonymous,
                int((warm_s + seconds) * MOST_BATCHES_A_SECOND),
                restless,
            )
            with running_api(bench, Path(scratch) / "api.log") as (api, url):
                key = await asyncio.to_thread(make_key, bench)
                began = datetime.now(UTC)
                wal, postgres, mine = await owner.fetchval(WAL_BYTES), await postgres_cpu_s(owner), cpu_s(api.pid)
                spent, unused = machine_s()
                sent = await asyncio.to_thread(send_all, url, key, bodies, warm_s, seconds, clients)
                postgres, mine = await postgres_cpu_s(owner) - postgres, cpu_s(api.pid) - mine
                spent, unused = (after - before for after, before in zip(machine_s(), (spent, unused), strict=True))
                wal = await owner.fetchval(WAL_BYTES) - wal
        written = await owner.fetchval(COUNT, bench.workspace_id, began)
        assert written == sent.accepted, (written, sent.accepted)
    finally:
        await owner.close()
    return {
        "events_per_s": round(sent.per_s),
        "first_per_s": round(sent.first_per_s),
        "clients": clients,
        "median_ms": round(sent.median_ms, 1),
        "longest_ms": round(sent.longest_ms, 1),
        "api_us": round(mine / sent.accepted * 1e6, 1),
        "client_us": round(sent.client_cpu_s / sent.accepted * 1e6, 1),
        "postgres_us": round(postgres / sent.accepted * 1e6, 1),
        "idle": round(unused / spent, 3),
        "wal_bytes": round(wal / sent.accepted),
        **durable,
    }


def write_bodies(file: Path, profiles: int, anonymous: set[int], batches: int, restless: bool) -> None:
    """Bodies of POST /v1/events, one a line; the same at every run but for message ids and times."""
    draw = random.Random(1)
    with file.open("wb") as target:
        for _ in range(batches):
            target.write(orjson.dumps({"events": [event(draw, profiles, anonymous, restless) for _ in range(BATCH)]}))
            target.write(b"\n")


def event(draw: random.Random, profiles: int, anonymous: set[int], restless: bool = False) -> dict[str, Any]:
    """One event as an SDK sends it."""
    person = who_acts(draw, profiles)
    own = draw.randrange(81) if restless else person % 81
    viewed = draw.random() < 0.37
    made: dict[str, Any] = {
        "messageId": str(uuid.uuid4()),
        "name": EVENT_NAMES[0] if viewed else draw.choice(EVENT_NAMES[1:]),
        "occurredAt": datetime.now(UTC).isoformat(),
        "deviceType": ("mobile", "desktop", "tablet")[own % 3],
        "browser": ("Chrome", "Safari", "Firefox")[own // 3 % 3],
        "country": ("DE", "US", "FR")[own // 9 % 3],
        "city": ("Berlin", "Boston", "Lyon")[own // 27],
        "sessionId": f"{person}-{draw.randrange(100)}",
    }
    made["anonymousId" if person in anonymous else "externalId"] = f"{'a' if person in anonymous else 'c'}{person}"
    if viewed:
        made["pagePath"] = f"/products/{draw.randrange(200)}"
    else:
        value = round(draw.random() * 300, 2)
        made["properties"] = {"value": value, "category": draw.choice(("books", "music")), "quantity": 1}
    return made


@contextmanager
def running_api(bench: Bench, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The API's process and base URL, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "api"],
            env=environment(bench) | {"MUSTER_API_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the API did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield process, f"127.0.0.1:{port}"
    finally:
        end(process, [signal.SIGTERM])


def environment(bench: Bench) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **ENVIRONMENT, "DATABASE_URL": bench.login_url}


def answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def make_key(bench: Bench) -> str:
    """A secret key that may ingest, made as people make one."""
    command = ["key", "create", "--workspace", f"bench {bench.profiles}", "--kind", "secret", "--scope", "ingest"]
    made = subprocess.run(
        [sys.executable, "-m", "app.cli", *command], env=environment(bench), capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        raise RuntimeError(f"no key: {made.stderr}")
    return next(word for word in made.stdout.split() if word.startswith("msk_"))


def send_all(host: str, key: str, bodies: Path, warm_s: float, seconds: float, clients: int) -> Sent:
    """Run the client process to its end."""
    arguments = ["--send", host, str(bodies), str(warm_s), str(seconds), str(clients)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ingest", *arguments], input=key, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the client failed: {done.stderr[-2000:]}")
    return Sent(**json.loads(done.stdout))


def send(host: str, key: str, file: Path, warm_s: float, seconds: float, clients: int) -> Sent:
    """Post the bodies in `file` over `clients` connections, for `warm_s` and then for `seconds`."""
    bodies = iter(file.read_bytes().splitlines())
    taking = threading.Lock()
    took: list[float] = []
    accepted: list[tuple[float, int]] = []
    failures: list[str] = []
    before = time.process_time()
    began = time.perf_counter()

    def work() -> None:
        connection = HTTPConnection(host, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        while time.perf_counter() - began < warm_s + seconds and not failures:
            with taking:
                body = next(bodies, None)
            if body is None:
                return
            at = time.perf_counter()
            connection.request("POST", "/v1/events", body, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status != 202 or (report := json.loads(answer))["accepted"] != BATCH:
                failures.append(f"{response.status} {answer[:500]!r}")
                return
            ended = time.perf_counter()
            took.append(ended - at)
            accepted.append((ended - began, report["accepted"]))

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
    took.sort()
    first = sum(events for at, events in accepted if at <= warm_s)
    events = sum(events for _, events in accepted)
    return Sent(
        accepted=events,
        first_per_s=first / warm_s if warm_s else 0.0,
        per_s=(events - first) / (time.perf_counter() - began - warm_s),
        longest_ms=took[-1] * 1000,
        median_ms=took[len(took) // 2] * 1000,
        client_cpu_s=time.process_time() - before,
    )


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_s() -> tuple[float, float]:
    """Processor time of the machine since it started, of all cores, and how much of it nobody used."""
    user, nice, system, idle, iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    )
    unused = idle + iowait
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + unused + irq + softirq) / ticks, unused / ticks


async def postgres_cpu_s(owner: asyncpg.Connection) -> float:
    """Processor time that the server's processes have used."""
    return await asyncio.to_thread(cpu_of_siblings_s, await owner.fetchval("SELECT pg_backend_pid()"))


def cpu_of_siblings_s(pid: int) -> float:
    """Processor time of all children of the process's parent."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return sum(cpu_s(int(child)) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split())


def main() -> None:
    """Measure with 4 and 8 connections, or be the client process of that."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--send", nargs=5, metavar=("HOST", "FILE", "WARM_S", "SECONDS", "CLIENTS"), help=argparse.SUPPRESS
    )
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warm", type=float, default=20, help="seconds before those")
    parser.add_argument("--clients", type=int, action="append", help="4 and 8 if left out")
    parser.add_argument("--restless", action="store_true", help="people change device, browser and place all the time")
    arguments = parser.parse_args()
    if arguments.send:
        host, file, warm_s, seconds, clients = arguments.send
        sent = send(host, sys.stdin.read().strip(), Path(file), float(warm_s), float(seconds), int(clients))
        print(json.dumps({name: getattr(sent, name) for name in Sent.__slots__}))
        return
    with databases.running_server() as url:

        async def run() -> None:
            bench = await databases.prepare(url, profiles=arguments.profiles)
            for clients in arguments.clients or (4, 8):
                measured = await measure(
                    bench,
                    seconds=arguments.seconds,
                    warm_s=arguments.warm,
                    clients=clients,
                    restless=arguments.restless,
                )
                print(json.dumps(measured), flush=True)

        asyncio.run(run())


if __name__ == "__main__":
    main()
