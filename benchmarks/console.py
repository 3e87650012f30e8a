"""`python -m benchmarks.console`: the ten operations a console sends most, at 50 connections.

A real `muster api` with servers of its own, 1,000 segments and 1,000 campaigns in the database (written by SQL: making
that many is not what is measured), 1,000 people and a sent campaign's messages. Each operation is sent by itself, as it
is published, by a client in a process of its own that keeps every connection busy; the times are what the client waited
from the request's first byte to the answer's last, its own share of the machine included. The last line is JSON.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from app.administration import make_key, open_database_of
from app.settings import load_settings
from app.stack import Stack
from benchmarks.hostile import COUNTED, Client
from db.transactions import transaction
from segments import everyone
from tests.app.caller import operation_text

CONNECTIONS = 50
MANY = 1_000
"""Segments, campaigns and people."""
REQUESTS = 2_000
"""Of each operation."""
SCOPES = ["read", "segments", "campaigns", "send", "ingest", "admin"]
CONDITION = {"all": [{"identified": True}, {"trait": {"key": "plan", "operator": "EQUALS", "value": "pro"}}]}
EMAIL = {"subject": "Hello", "text": "Hello {{ sender.postal_address }} {{ unsubscribe_url }}"}

SEGMENTS = """
INSERT INTO segment (workspace_id, name, type, status, definition, created_at, updated_at)
SELECT $1, 'Segment ' || n, s.type, 'ACTIVE', s.definition, now() - n * interval '1 hour', now() - n * interval '1 min'
FROM segment s CROSS JOIN generate_series(1, $3::int) n WHERE s.workspace_id = $1 AND s.id = $2
"""
SIZES = """
INSERT INTO segment_membership (segment_id, workspace_id, base, added, removed, size, evaluated_at)
SELECT s.id, $1, m.base, m.added, m.removed, m.size, now() FROM segment s CROSS JOIN segment_membership m
WHERE s.workspace_id = $1 AND s.type <> 'EVERYONE' AND m.workspace_id = $1 AND m.segment_id = $2
ON CONFLICT DO NOTHING
"""
CAMPAIGNS = """
INSERT INTO campaign (workspace_id, name, channel, status, content, sender_id, scheduled_at, started_at, finished_at)
SELECT $1, 'Campaign ' || n, c.channel, 'SENT', c.content, c.sender_id, now() - n * interval '1 hour', now(), now()
FROM campaign c CROSS JOIN generate_series(1, $3::int) n WHERE c.workspace_id = $1 AND c.id = $2
"""
DISPATCHES = """
INSERT INTO dispatch (workspace_id, campaign_id, kind, content, content_version, audience, audience_size, planned_at,
  finished_at, tally, counted_at, counts)
SELECT $1, c.id, 'SEND', c.content, 1, '', 1000, now(), now(),
  '{"states": {"sent": 1000}, "reasons": [], "sent_lately": 0, "changed_at": null, "settled_at": null,
    "next_at": null}',
  now(), '{"sent": 1000}'
FROM campaign c WHERE c.workspace_id = $1
"""
DELIVERIES = """
INSERT INTO delivery (workspace_id, dispatch_id, profile_id, state, attempt, first_attempt_at, sent_at)
SELECT $1, r.id, p.id, 'sent', 1, now(), now() FROM dispatch r CROSS JOIN profile p
WHERE r.workspace_id = $1 AND r.campaign_id = $2 AND p.workspace_id = $1
"""


@dataclass(frozen=True, slots=True)
class Operation:
    """One that is measured, under a name of its own."""

    name: str
    operation: str
    variables: dict[str, Any]


def operations(static: str, dynamic: str, campaign: str, profile: str) -> list[Operation]:
    """The ten."""
    by_name = {"field": "NAME", "direction": "ASC"}
    return [
        Operation("segments", "Segments", {}),
        Operation("segments_searched", "Segments", {"name": "ment 99", "status": ["ACTIVE"], "orderBy": by_name}),
        Operation("segment", "Segment", {"id": dynamic}),
        Operation("segment_members", "SegmentMembers", {"id": static}),
        Operation("campaigns", "Campaigns", {}),
        Operation("campaigns_searched", "Campaigns", {"name": "99", "status": ["SENT"], "orderBy": by_name}),
        Operation("campaign", "Campaign", {"id": campaign}),
        Operation("deliveries", "Deliveries", {"campaignId": campaign}),
        Operation("profiles", "Profiles", {}),
        Operation("profile", "Profile", {"id": profile}),
    ]


def fill(stack: Stack, many: int) -> tuple[str, list[Operation]]:
    """Write the database; a key, and the operations."""

    async def written() -> tuple[str, list[Operation]]:
        async with open_database_of(load_settings(stack.environ)):
            workspace_id = await everyone.create_workspace("benchmark", time_zone="UTC")
            key = await make_key(workspace_id, name="benchmark", kind="secret", scopes=SCOPES)
            client = Client(urlsplit(stack.api_url).netloc, key)

            def asked(operation: str, **variables: Any) -> Any:
                answer = json.loads(client.ask(operation_text(operation), variables)[1])
                if answer.get("errors") or (value := next(iter(answer["data"].values()))).get("userErrors"):
                    raise RuntimeError(str(answer))
                return value

            names = [f"p{number}" for number in range(many)]
            for start in range(0, many, 1000):
                people = [
                    {"externalId": name, "email": f"{name}@example.com", "traits": {"plan": "pro"}}
                    for name in names[start : start + 1000]
                ]
                asked("ProfilesUpsert", input={"profiles": people})
            static = asked("SegmentCreate", input={"name": "Static", "type": "STATIC"})["segment"]["id"]
            asked("SegmentActivate", input={"id": static})
            asked("SegmentMembersAdd", input={"id": static, "externalIds": names[:1000]})
            wanted = {"name": "Dynamic", "type": "DYNAMIC", "definition": CONDITION}
            dynamic = asked("SegmentCreate", input=wanted)["segment"]["id"]
            sender = asked(
                "SenderCreate",
                input={"fromName": "Shop", "fromAddress": "news@shop.example.com", "postalAddress": "1 Main St"},
            )["sender"]["id"]
            campaign = asked(
                "CampaignCreate",
                input={"name": "First", "content": {"email": EMAIL}, "segmentIds": [static], "senderId": sender},
            )["campaign"]["id"]
            async with transaction(workspace_id) as connection:
                await connection.execute(SEGMENTS, workspace_id, key_of(dynamic), many)
                await connection.execute(SIZES, workspace_id, key_of(static))
                await connection.execute(CAMPAIGNS, workspace_id, key_of(campaign), many)
                await connection.execute(DISPATCHES, workspace_id)
                await connection.execute("SELECT ensure_month('delivery', now())")
                await connection.execute(DELIVERIES, workspace_id, key_of(campaign))
            profile = asked("Profile", externalId="p1")["id"]
            return key, operations(static, dynamic, campaign, profile)

    return asyncio.run(written())


def key_of(id: str) -> UUID:
    """Our key in an id of the API."""
    return UUID(hex=id.partition("_")[2])


async def send(host: str, key: str, one: Operation, requests: int) -> list[float]:
    """What each of so many requests waited, in ms, with every connection busy."""
    body = json.dumps({"query": operation_text(one.operation), "variables": one.variables}).encode()
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    message, left, waited = head.encode() + body, requests, []

    async def connection() -> None:
        nonlocal left
        name, port = host.split(":")
        reader, writer = await asyncio.open_connection(name, int(port))
        while left > 0:
            left -= 1
            began = perf_counter()
            writer.write(message)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
            waited.append((perf_counter() - began) * 1000)
            if b" 200 " not in head[:20] or b'"errors"' in answer:
                raise RuntimeError(f"{one.name}: {answer[:300]!r}")
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return waited


def measured(host: str, key: str, one: Operation, requests: int) -> dict[str, float]:
    """p50 and p99 in ms, and answers a second; what warms up is not counted."""
    asyncio.run(send(host, key, one, CONNECTIONS * 2))
    began = perf_counter()
    waited = sorted(asyncio.run(send(host, key, one, requests)))
    took = perf_counter() - began
    return {
        "p50_ms": round(waited[len(waited) // 2], 1),
        "p99_ms": round(waited[len(waited) * 99 // 100], 1),
        "per_second": round(len(waited) / took),
    }


def main() -> None:
    """Start an API, fill its database, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--many", type=int, default=MANY, help="segments, campaigns and people")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each operation")
    wanted = parser.parse_args()
    ours = ("MUSTER_", "DATABASE_", "REDIS_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)  # PostgreSQL may have to run as nobody, who must pass here
        stack = Stack(Path(folder), environ=environ | COUNTED)
        try:
            stack.start_servers()
            stack.environ = stack.settings()
            stack.run("migrate", extra={"DATABASE_OWNER_URL": stack.owner_url})
            stack.start_process("api")
            stack.wait_until_ready("api", port=stack.environ["MUSTER_API_PORT"], path="/healthz")
            key, chosen = fill(stack, wanted.many)
            host = urlsplit(stack.api_url).netloc
            with multiprocessing.get_context("spawn").Pool(1) as client:
                for one in chosen:
                    found[one.name] = client.apply(measured, (host, key, one, wanted.requests))
                    print(f"{one.name:20} {found[one.name]}")
        finally:
            stack.stop()
    figures = {f"{name}_{what}": value for name, of in found.items() for what, value in of.items()}
    print(json.dumps({"connections": CONNECTIONS, "segments": wanted.many, "campaigns": wanted.many} | figures))


if __name__ == "__main__":
    main()
