"""`python -m benchmarks.hostile`: how long others wait while somebody sends hostile contents (T-19).

A real `muster api` with servers of its own. One client asks for a page of campaigns, one request after the other, first
alone, then while two others, in a process of their own, send the hostile contents of the tests again and again. What
the client waited includes its own share of a machine that is busy; the last line is JSON.
"""

import asyncio
import json
import multiprocessing
import os
import tempfile
from collections.abc import Mapping
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from app.administration import make_key, open_database_of
from app.settings import load_settings
from app.stack import Stack
from segments import everyone
from tests.app.caller import operation_text
from tests.campaigns.hostile import CONTENTS

ATTACKERS = 2
ASKED = 1_000
SCOPES = ["read", "campaigns"]
COUNTED = {"MUSTER_RATE_LIMIT": "1000000000", "MUSTER_REQUEST_RATE": "1000000000"}
"""Limits that nobody comes to, but are counted for each request: what counting costs is in the figures."""


class Client:
    """A kept-alive connection of somebody with a key."""

    def __init__(self, host: str, key: str) -> None:
        self.connection = HTTPConnection(host, timeout=60)
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, query: str, variables: Mapping[str, Any]) -> tuple[float, bytes]:
        """Milliseconds waited, and the answer."""
        body = json.dumps({"query": query, "variables": variables})
        began = perf_counter()
        self.connection.request("POST", "/graphql", body, self.headers)
        answer = self.connection.getresponse().read()
        return (perf_counter() - began) * 1000, answer


def contents() -> list[tuple[str, dict[str, Any]]]:
    """Each hostile content as somebody saves it."""
    query = operation_text("CampaignCreate")
    given = [
        {
            "subject": one.subject,
            "preheader": one.preheader,
            "text": one.text,
            "html": one.html,
            "mjml": one.mjml,
            "variables": [{"name": variable.name, "default": variable.default} for variable in one.variables],
        }
        for one in CONTENTS.values()
    ]
    return [(query, {"input": {"name": "x", "content": {"email": content}}}) for content in given]


def attack(host: str, key: str, what: list[tuple[str, dict[str, Any]]], tell: Connection) -> None:
    """Send all of `what` again and again until told to stop; then tell the longest wait in ms, and how many were
    answered."""
    waited: list[float] = []

    def one() -> None:
        client = Client(host, key)
        while not tell.poll():
            for query, variables in what:
                took, answer = client.ask(query, variables)
                if b'"campaign":{' in answer:
                    raise RuntimeError("a hostile content was taken")
                waited.append(took)

    threads = [Thread(target=one) for _ in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tell.send((max(waited), len(waited)))


def measured(host: str, key: str) -> dict[str, float]:
    """What somebody waits for a page of campaigns, in ms."""
    client, query = Client(host, key), operation_text("Campaigns")
    waited = sorted(client.ask(query, {})[0] for _ in range(ASKED))
    return {"p50_ms": round(waited[ASKED // 2], 2), "p99_ms": round(waited[ASKED * 99 // 100], 2)}


def under(host: str, key: str, what: list[tuple[str, dict[str, Any]]]) -> dict[str, float]:
    """`measured` while others attack."""
    ours, theirs = multiprocessing.Pipe()
    attacker = multiprocessing.get_context("spawn").Process(target=attack, args=(host, key, what, theirs))
    attacker.start()
    try:
        found = measured(host, key)
        ours.send("stop")
        longest, answered = ours.recv()
    finally:
        attacker.join()
    return found | {"attacks": answered, "longest_refusal_ms": round(longest)}


async def key_of(stack: Stack) -> str:
    """A new workspace's key."""
    async with open_database_of(load_settings(stack.environ)):
        workspace_id = await everyone.create_workspace("benchmark", time_zone="UTC")
        return await make_key(workspace_id, name="benchmark", kind="secret", scopes=SCOPES)


def started_key(stack: Stack) -> str:
    """Start servers and API; a key of a new workspace."""
    stack.start_servers()
    stack.environ = stack.settings()
    stack.run("migrate", extra={"DATABASE_OWNER_URL": stack.owner_url})
    stack.start_process("api")
    stack.wait_until_ready("api", port=stack.environ["MUSTER_API_PORT"], path="/healthz")
    return asyncio.run(key_of(stack))


def main() -> None:
    """Start an API, measure, and print."""
    ours = ("MUSTER_", "DATABASE_", "REDIS_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)  # PostgreSQL may have to run as nobody, who must pass here
        stack = Stack(Path(folder), environ=environ | COUNTED)
        try:
            key = started_key(stack)
            host = urlsplit(stack.api_url).netloc
            found = {"alone": measured(host, key)}
            found["contents"] = under(host, key, contents())
        finally:
            stack.stop()
    for name, figures in found.items():
        print(f"{name:10} {figures}")
    print(json.dumps({f"{name}_{what}": value for name, figures in found.items() for what, value in figures.items()}))


if __name__ == "__main__":
    main()
