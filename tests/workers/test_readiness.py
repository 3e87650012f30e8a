"""T-11: a worker that is dead, hangs, or lacks PostgreSQL or Valkey says so, within 15 s."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import httpx2
import pytest
import yaml

from app import health, wakeups
from app.main import create_app
from app.probe import PATIENCE_S, missing_of_worker
from app.resources import Resources, open_resources
from app.settings import Settings, load_settings
from app.tables import MODEL_MODULES
from db.transactions import close_database, open_database
from tests.blast.running import until
from tests.conftest import Database
from tests.contract.test_docs import ROOT
from tests.servers import Gate
from tests.workers.worker import ENVIRON
from workers import readiness
from workers.__main__ import announce
from workers.readiness import Readiness, answering

WITHIN_S = 15
"""The pass mark."""
HOST = "127.0.0.1"


def test_what_goes_away_is_seen_in_time_and_what_is_slow_is_no_alarm() -> None:
    """The arithmetic of the intervals: red so long after the last success, and never sooner than the next one."""
    assert readiness.LOOK_EVERY_S + readiness.PATIENCE_S < readiness.RED_AFTER_S
    assert readiness.RED_AFTER_S + PATIENCE_S <= WITHIN_S
    assert wakeups.ALIVE_WITHIN.total_seconds() <= WITHIN_S
    assert wakeups.ALIVE_WITHIN.total_seconds() >= readiness.LOOK_EVERY_S + 2 * readiness.PATIENCE_S
    assert max(health.PATIENCE_S, wakeups.PATIENCE_S) <= WITHIN_S


def test_a_container_is_unhealthy_in_time() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("api", "worker"):
        check = {key: services[name]["healthcheck"][key] for key in ("interval", "timeout", "retries")}
        assert check == {"interval": "5s", "timeout": "5s", "retries": 2}, "two looks that fail: 15 s at most"
    assert int(services["worker"]["environment"]["MUSTER_WORKER_PORT"]) > 0


async def says(missing: list[str], ask: Callable[[], Awaitable[list[str]]]) -> None:
    """Wait until that is the answer."""

    async def is_it() -> bool:
        return await ask() == missing

    await until(f"missing: {missing}", is_it)


async def test_a_loop_that_hangs_is_seen_by_the_thread_beside_it_and_one_that_goes_on_too() -> None:
    seen = Readiness({}, red_after_s=0.3)
    assert seen.missing() == ["loop"]  # never seen yet
    with answering(seen, host=HOST, port=0) as port:
        looking = asyncio.create_task(seen.look_on(every_s=0.05))

        async def ask() -> list[str]:
            return await asyncio.to_thread(missing_of_worker, HOST, port)

        await says([], ask)
        while missing_of_worker(HOST, port) != ["loop"]:
            pass  # this is what hangs: nothing here gives the loop a turn
        assert status(port, "/livez") == 503
        await says([], ask)
        looking.cancel()
    assert missing_of_worker(HOST, port) == ["worker"]


def status(port: int, path: str) -> int:
    return httpx2.get(f"http://{HOST}:{port}{path}").status_code


def through(url: str, gate: Gate) -> str:
    """The same server's address by way of the gate."""
    parts = urlsplit(url)
    login, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login}{at}{HOST}:{gate.port}"))


@asynccontextmanager
async def gated(database: Database) -> AsyncIterator[tuple[Settings, dict[str, Gate]]]:
    """Settings whose servers are behind gates, by the name that readiness gives them."""
    await close_database()  # the pool of the test would be in the way of the process's own
    postgres, valkey = (Gate(urlsplit(url).port or 0) for url in (database.url, database.redis_url))
    try:
        async with postgres, valkey:
            environ = {
                "DATABASE_URL": through(database.url, postgres),
                "REDIS_URL": through(database.redis_url, valkey),
            }
            yield load_settings(ENVIRON | environ), {"database": postgres, "valkey": valkey}
    finally:
        await open_database(database.url, model_modules=MODEL_MODULES)


@pytest.mark.parametrize("lost", ["database", "valkey"])
async def test_a_worker_whose_server_no_longer_answers_is_not_ready_and_lives(database: Database, lost: str) -> None:
    async with gated(database) as (settings, gates), open_resources(settings) as resources:
        looks = {"database": lambda: announce(resources), "valkey": resources.wakeups.reach}
        seen = Readiness(looks, red_after_s=0.5)
        looking = asyncio.create_task(seen.look_on(every_s=0.05, patience_s=0.2))

        async def ask() -> list[str]:
            return seen.missing()

        await says([], ask)
        gates[lost].shut()
        await says([lost], ask)
        with answering(seen, host=HOST, port=0) as port:
            assert await asyncio.to_thread(status, port, "/livez") == 200
            assert await asyncio.to_thread(status, port, "/readyz") == 503
        gates[lost].open()
        await says([], ask)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


@pytest.mark.parametrize("lost", ["database", "valkey"])
async def test_an_api_whose_server_no_longer_answers_is_not_ready(
    database: Database, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PATIENCE_S", 0.3)
    monkeypatch.setattr(wakeups, "PATIENCE_S", 0.3)
    async with gated(database) as (settings, gates):
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://api")

            async def ask() -> list[str]:
                response = await http.get("/readyz")
                missing: list[str] = response.json()["missing"]
                assert response.status_code == (503 if missing else 200)
                return missing

            await says([], ask)
            gates[lost].shut()
            await says([lost], ask)
            gates[lost].open()
            await says([], ask)
            await http.aclose()


async def test_health_tells_when_no_worker_is_alive(database: Database) -> None:
    async with gated(database) as (settings, _):
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://api")
            assert (await http.get("/healthz")).json() == {"status": "ok", "degraded": ["workers"]}
            resources: Resources = app.state.services.resources
            await announce(resources)
            assert (await http.get("/healthz")).json() == {"status": "ok", "degraded": ["sweeper"]}
            await http.aclose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


async def test_a_worker_that_is_stopped_or_killed_is_not_ready(database: Database) -> None:
    """A process of its own, as `muster worker` starts it."""
    port = free_port()
    environ = {"DATABASE_URL": database.url, "REDIS_URL": database.redis_url, "MUSTER_WORKER_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "workers"], env=os.environ | ENVIRON | environ, cwd=ROOT)
    try:

        async def ask() -> list[str]:
            assert process.poll() is None
            return await asyncio.to_thread(missing_of_worker, HOST, port)

        await says([], ask)
        process.send_signal(signal.SIGSTOP)
        await says(["worker"], ask)
        process.send_signal(signal.SIGCONT)
        await says([], ask)
    finally:
        process.kill()
        process.wait()
    assert missing_of_worker(HOST, port) == ["worker"]


async def test_who_connects_and_says_nothing_keeps_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.05)
    with answering(Readiness({}), host="127.0.0.1", port=0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
