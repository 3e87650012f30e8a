"""The API as it is run: `muster api` as a process of its own, under uvicorn, on a real socket.

A server's requests do not inherit the context of its start-up, which has broken the database pool before; a client
inside the same process would not notice.
"""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import monotonic
from uuid import UUID

import httpx2
import pytest

from campaigns import banner_counts
from db.transactions import transaction
from profiles import keys
from profiles.models import KeyKind
from tests.app.caller import Caller
from tests.app.commands import MACHINE, started
from tests.app.test_api_banners import show

PATIENCE_S = 60.0
AT = datetime.now(UTC).isoformat()
TOOK = re.compile(r"app;dur=[0-9]+\.[0-9]{2}")
IN_PLACE_OF_SERVING = """
import gc
from app import cli, ending
ending.Server.run = lambda server: print("looks for garbage:", gc.isenabled())
cli.app(["api"])
"""


@asynccontextmanager
async def api_process(environ: dict[str, str], log: Path) -> AsyncIterator[tuple[str, ForkServerProcess]]:
    """Base URL and process of a running API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {"PATH": os.environ["PATH"], **environ, "MUSTER_API_PORT": str(port)}
    process = started("api", environ=environ, folder=Path.cwd(), said=[log, log])
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx2.AsyncClient(base_url=url) as http:
            deadline = monotonic() + PATIENCE_S
            while True:
                assert process.is_alive(), log.read_text()
                assert monotonic() < deadline, log.read_text()
                try:
                    if (await http.get("/readyz")).status_code == 200:
                        break
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
        yield url, process
    finally:
        process.terminate()
        process.join(PATIENCE_S)
        assert process.exitcode is not None, "it does not end"


@pytest.fixture
async def server(environ: dict[str, str], tmp_path: Path) -> AsyncIterator[str]:
    """Base URL of a running API."""
    log = tmp_path / "log"
    async with api_process(environ, log) as (url, process):
        yield url
    assert process.exitcode in (0, -signal.SIGTERM), log.read_text()


async def test_requests_work_on_a_real_server_one_by_one_and_at_once(server: str, workspace: UUID) -> None:
    _, secret = await keys.create(workspace, name="of a test", kind=KeyKind.SECRET, scopes=["read", "ingest"])
    async with httpx2.AsyncClient(base_url=server, timeout=PATIENCE_S) as http:
        console = Caller(http, workspace, secret)
        assert (await console.data("ProfileUpsert", input={"externalId": "ada"}))["created"] is True
        pages = await asyncio.gather(*(console.data("Segments") for _ in range(40)))
        assert all(len(page["edges"]) == 1 for page in pages)
        events = {"events": [{"messageId": "m", "name": "visit", "externalId": "ada"}]}
        response = await http.post("/v1/events", json=events, headers=console.all_headers())
        assert (response.status_code, response.json()["accepted"]) == (202, 1)
        assert TOOK.fullmatch(response.headers["server-timing"])
        assert TOOK.fullmatch((await http.get("/nowhere")).headers["server-timing"])


def test_a_process_that_serves_looks_for_garbage(environ: dict[str, str]) -> None:
    """Not while it starts, which is quicker; but then, for what knows each other is freed by nothing else."""
    command = [sys.executable, "-c", IN_PLACE_OF_SERVING]
    done = subprocess.run(command, env=MACHINE | environ, capture_output=True, text=True, check=False, timeout=120)
    assert "looks for garbage: True" in done.stdout, done.stdout + done.stderr


async def test_a_body_without_length_is_cut_off_at_the_limit(server: str, workspace: UUID) -> None:
    _, secret = await keys.create(workspace, name="of a test", kind=KeyKind.SECRET, scopes=["ingest"])

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536

    async with httpx2.AsyncClient(base_url=server, timeout=PATIENCE_S) as http:
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        try:
            response = await http.post("/v1/events", content=endless(), headers=headers)
        except httpx2.TransportError:
            return  # the server hung up on us, which is as good
        assert response.status_code == 413


async def test_a_host_header_that_names_a_path_opens_nothing(server: str) -> None:
    async with httpx2.AsyncClient(base_url=server) as http:
        response = await http.get("/graphql", headers={"Host": "a@b/../healthz"})
        assert response.status_code in (400, 401)


async def test_what_was_answered_outlives_a_kill(
    environ: dict[str, str], workspace: UUID, console: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Banner events: a process is killed while batches come in. What it answered is there; sent again, all is there
    once."""
    await show(console, "Sale")
    monkeypatch.setattr("app.boards.OLDEST_S", 0.0)
    shown = (await console.data("Banners", placements=["home-top"]))["placements"][0]["banner"]
    batches = [
        [
            {"id": f"{batch} {place}", "kind": "CLICK", "token": shown["impressionToken"], "occurredAt": AT}
            for place in range(20)
        ]
        for batch in range(200)
    ]
    answered: list[int] = []
    enough = asyncio.Event()

    async def send(http: httpx2.AsyncClient, batch: int) -> None:
        body = {"events": batches[batch]}
        response = await http.post("/v1/banner-events", json=body, headers=console.all_headers())
        assert response.status_code == 202, response.text
        answered.append(batch)
        if len(answered) >= 60:
            enough.set()

    async with (
        api_process(environ, tmp_path / "log") as (url, process),
        httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S) as http,
    ):
        sending = asyncio.gather(*(send(http, batch) for batch in range(200)), return_exceptions=True)
        await enough.wait()
        process.kill()
        lost = [one for one in await sending if one is not None]
    assert all(isinstance(one, httpx2.TransportError) for one in lost)
    assert len(lost) == 200 - len(answered) > 0
    async with transaction(workspace) as connection:
        kept = await connection.fetchval("SELECT count(*) FROM banner_event")
    assert kept >= 20 * len(answered)
    for batch in range(200):
        await send(console.http, batch)
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT count(*) FROM banner_event") == 4000
    assert await banner_counts.verify(workspace) == []
