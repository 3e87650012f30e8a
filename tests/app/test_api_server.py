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
from pathlib import Path
from time import monotonic
from uuid import UUID

import httpx2
import pytest

from profiles import keys
from profiles.models import KeyKind
from tests.app.caller import Caller

PATIENCE_S = 60.0
TOOK = re.compile(r"app;dur=[0-9]+\.[0-9]{2}")


@pytest.fixture
async def server(environ: dict[str, str], tmp_path: Path) -> AsyncIterator[str]:
    """Base URL of a running API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "api"],
            env={"PATH": os.environ["PATH"], **environ, "MUSTER_API_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx2.AsyncClient(base_url=url) as http:
            deadline = monotonic() + PATIENCE_S
            while True:
                assert process.poll() is None, log.read_text()
                assert monotonic() < deadline, log.read_text()
                try:
                    if (await http.get("/readyz")).status_code == 200:
                        break
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    assert process.returncode in (0, -signal.SIGTERM), log.read_text()


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
        assert response.status_code in (400, 405)
