"""Servers on a core of their own, and loads from the other: as much as wrk can, or a stated rate."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, sleep
from urllib.request import Request, urlopen

from app.processes import choose_port, end, launched
from benchmarks.arrivals import waits
from benchmarks.tools import tool

SERVER, LOAD = "0", "1"
"""Cores."""
CONNECTIONS = 32
WRK = "Install it: apt-get install wrk"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What whoever asked saw."""

    per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    cpu_us: float = 0.0
    """The server's processor time a request."""
    idle: float = 0.0
    """The part of the time in which the server had nothing to do."""
    late_p99_ms: float = 0.0
    """How late a load that keeps to a rate sent its requests by its own fault."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server on its core."""

    pid: int
    port: int


@contextmanager
def serving(folder: Path, name: str, command: list[str], environ: dict[str, str], path: str) -> Iterator[Running]:
    """A server on its core; `{port}` in the command is where it listens."""
    port = choose_port(folder / f"{name}_port")
    pinned = [tool("taskset", "It is in Debian's package util-linux."), "-c", SERVER]
    filled = [one.replace("{port}", str(port)) for one in command]
    environ = environ | {"MUSTER_API_PORT": str(port)} if "MUSTER_TOKEN_KEY" in environ else environ
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(launched([*pinned, *filled], ends_with_us=True), env=environ, stdout=log, stderr=log)
    try:
        wait_for(process, f"http://127.0.0.1:{port}{path}", folder / f"{name}.log")
        yield Running(process.pid, port)
    finally:
        end(process, [])


def wait_for(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Return when something answers there. Raises RuntimeError with the log when the process ends instead."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(log.read_text()[-2_000:])
        try:
            urlopen(Request(url), timeout=5).close()  # our own server
        except OSError as fault:
            if getattr(fault, "code", None) is not None:
                return
            sleep(0.1)
        else:
            return
    raise RuntimeError(f"{url} does not answer")


def once(folder: Path, name: str, server: Running) -> float:
    """Have each of the requests in a file answered once; returns when all are, with how many were a second. Raises
    RuntimeError when one was refused."""
    requests = (folder / name).read_bytes().split(b"\0")[:-1]
    began = perf_counter()
    waits(server.port, requests, [0.0] * len(requests), CONNECTIONS)
    return len(requests) / (perf_counter() - began)


def load(folder: Path, name: str, server: Running, seconds: int) -> Loaded:
    """What wrk makes of the requests in a file: as many as it can, each connection asking again when it is answered.
    Raises RuntimeError when one was refused."""
    command = [tool("wrk", WRK), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "60s"]
    script = str(Path(__file__).with_name("wrk.lua"))
    before = cpu_s(server.pid)
    found = run([*command, "-s", script, f"http://127.0.0.1:{server.port}", "--", str(folder / name)])
    took = cpu_s(server.pid) - before
    if found["refused"] or found["broken"]:
        raise RuntimeError(f"{name}: {found}")
    return replace(loaded(found), cpu_us=took / found["requests"] * 1e6, idle=1 - took / found["seconds"])


def arrivals(folder: Path, name: str, server: Running, seconds: int, *, per_s: float) -> Loaded:
    """How the requests in a file are answered that arrive by themselves, `per_s` a second on average
    (benchmarks/arrivals.py). Raises RuntimeError when one was refused."""
    asked = map(str, (server.port, folder / name, per_s, seconds, CONNECTIONS))
    found = run([sys.executable, "-m", "benchmarks.arrivals", *asked])
    return replace(loaded(found), late_p99_ms=found["late_p99_ms"])


def leave_the_servers_core() -> None:
    """Keep this process off the core of the measured servers, and all that it starts: PostgreSQL and Valkey too."""
    os.sched_setaffinity(0, {int(LOAD)})


def run(command: list[str]) -> dict[str, float]:
    """The JSON line with which a load on its core ends."""
    command = ["taskset", "-c", LOAD, *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def loaded(found: dict[str, float]) -> Loaded:
    return Loaded(found["requests"] / found["seconds"], found["p50_ms"], found["p99_ms"], int(found["requests"]))


def cpu_s(pid: int) -> float:
    """The processor time that a process has had, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """The most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
