"""How long after an event its person is in the segment: a real API and worker, 1,000 events a second for a minute.

With 100 live segments over a database of `databases.py`: 99 of segments.json, and one that an event with this run's own
mark lets somebody into. Each second 50 of the 1,000 events carry the mark, each of another person. The time is from the
answer to the POST that carried the event, to when a reader, which looks every 20 ms, finds the person in the feed
`membership_change`; so up to 20 ms of it are the reader's. Windows end at the real now here: the minute adds events.

    python -m benchmarks.latency                    prints a line, and last one of JSON
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import orjson
from pyroaring import BitMap

from app.stack import Stack
from benchmarks import changes, databases, ingest
from benchmarks.databases import Bench, pool
from benchmarks.figures import Run
from benchmarks.segments import SEGMENTS, about_server
from app.resources import segment_sources
from profiles import keys
from profiles.models import KeyKind

EVENTS_A_SECOND = 1000
BATCHES_A_SECOND = 10
MARKED_A_SECOND = 50
SECONDS = 60
WARM_UP_S = 5
"""Of events whose times are not kept: connections open, plans are made."""
LOOK_EVERY_S = 0.02
LOST_AFTER_S = 30.0

FEED = """
SELECT xact_id::text, id, entered FROM membership_change
WHERE segment_id = $1 AND (xact_id, id) > ($2::text::xid8, $3) ORDER BY xact_id, id
"""
PULSES = "SELECT count(*) FROM pulse WHERE workspace_id = $1"


@dataclass(slots=True)
class Seen:
    """Whom the API has answered for, and whom the reader has found; by profile id, in seconds of one clock."""

    answered: dict[int, float] = field(default_factory=dict)
    found: dict[int, float] = field(default_factory=dict)
    late_s: float = 0.0
    """The most that a batch left later than it should have."""


def marked_leaf(mark: str) -> dict[str, Any]:
    """Who logged in with the mark."""
    where = [{"property": "mark", "operator": "EQUALS", "value": mark}]
    return {"event": {"name": "login", "within": {"days": 1}, "where": where}}


async def send(bench: Bench, url: str, key: str, mark: str, seen: Seen, seconds: int) -> None:
    """Post events at an even rate, whether or not earlier batches were answered."""
    draw = Random(6)
    anonymous: set[int] = set()
    marked = iter(known_people(bench, draw, MARKED_A_SECOND * (seconds + WARM_UP_S)))
    batch = EVENTS_A_SECOND // BATCHES_A_SECOND
    sending: set[asyncio.Task[None]] = set()
    limits = httpx2.Limits(max_connections=16)
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, limits=limits, timeout=60) as client:
        began = perf_counter()
        for number in range((seconds + WARM_UP_S) * BATCHES_A_SECOND):
            events = [ingest.event(draw, bench.profiles, anonymous) for _ in range(batch)]
            people = [next(marked) for _ in range(MARKED_A_SECOND // BATCHES_A_SECOND)]
            for event, person in zip(events, people, strict=False):
                event |= {"name": "login", "externalId": f"c{person}", "properties": {"mark": mark, "value": 1}}
            body = orjson.dumps({"events": events})
            at = began + number / BATCHES_A_SECOND
            await asyncio.sleep(max(0.0, at - perf_counter()))
            seen.late_s = max(seen.late_s, perf_counter() - at)
            kept = people if number >= WARM_UP_S * BATCHES_A_SECOND else []
            task = asyncio.create_task(post(client, url, body, kept, seen))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await asyncio.gather(*sending)


def known_people(bench: Bench, draw: Random, number: int) -> list[int]:
    """Different people at random."""
    return draw.sample(range(1, bench.profiles + 1), number)


async def post(client: httpx2.AsyncClient, url: str, body: bytes, people: list[int], seen: Seen) -> None:
    """Send one batch, and note when it was answered."""
    response = await client.post(f"{url}/v1/events", content=body, headers={"Content-Type": "application/json"})
    at = perf_counter()
    if response.status_code != 202 or response.json()["errors"]:
        raise RuntimeError(f"{response.status_code}: {response.text[:500]}")
    seen.answered.update(dict.fromkeys(people, at))


async def read(bench: Bench, segment: UUID, seen: Seen, stop: asyncio.Event) -> None:
    """Follow the feed of one segment and note when each person came in."""
    reader = await asyncpg.connect(bench.owner_url)
    xact, id = "0", 0
    try:
        while not stop.is_set():
            rows = await reader.fetch(FEED, segment, xact, id)
            at = perf_counter()
            for row in rows:
                xact, id = row["xact_id"], row["id"]
                for person in BitMap.deserialize(row["entered"]):
                    seen.found.setdefault(person, at)
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await reader.close()
