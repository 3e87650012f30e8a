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
from contextlib import asynccontextmanager, contextmanager, suppress
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

from app.resources import segment_sources
from app.stack import Stack
from benchmarks import changes, databases, ingest
from benchmarks.databases import Bench, pool
from benchmarks.figures import Run
from benchmarks.segments import SEGMENTS, about_server
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

# One pulse at a time writes about a segment, so that later rows have higher ids.
FEED = "SELECT id, entered FROM membership_change WHERE segment_id = $1 AND id > $2 ORDER BY id"


@dataclass(slots=True)
class Seen:
    """When whose event was sent and answered, and when who was found; by profile id, in seconds of one clock."""

    sent: dict[int, float] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)
    found: dict[int, float] = field(default_factory=dict)
    late_s: float = 0.0
    """The most that a batch left later than it should have."""
    all_sent: bool = False


@dataclass(frozen=True, slots=True)
class People:
    """Profile ids: whose events carry the mark, each once; and who has no external id."""

    marked: list[int]
    anonymous: set[int]

    @classmethod
    async def of(cls, owner: asyncpg.Connection, bench: Bench, number: int) -> "People":
        anonymous = set(await owner.fetchval(ingest.ANONYMOUS, bench.workspace_id) or ())
        known = [id for id in range(1, bench.profiles + 1) if id not in anonymous]
        return cls(Random(7).sample(known, number), anonymous)


def marked_leaf(mark: str) -> dict[str, Any]:
    """Who logged in with the mark."""
    where = [{"property": "mark", "operator": "EQUALS", "value": mark}]
    return {"event": {"name": "login", "within": {"days": 1}, "where": where}}


async def send(bench: Bench, url: str, key: str, mark: str, people: People, seen: Seen, seconds: int) -> None:
    """Post events at an even rate, whether or not earlier batches were answered."""
    draw, marked = Random(6), iter(people.marked)
    sending: set[asyncio.Task[None]] = set()
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        began = perf_counter()
        for number in range((seconds + WARM_UP_S) * BATCHES_A_SECOND):
            events = [
                ingest.event(draw, bench.profiles, people.anonymous) for _ in range(EVENTS_A_SECOND // BATCHES_A_SECOND)
            ]
            chosen = [next(marked) for _ in range(MARKED_A_SECOND // BATCHES_A_SECOND)]
            for event, person in zip(events, chosen, strict=False):
                event.pop("anonymousId", None)
                event |= {"name": "login", "externalId": f"c{person}", "properties": {"mark": mark, "value": 1}}
            body = orjson.dumps({"events": events})
            at = began + number / BATCHES_A_SECOND
            await asyncio.sleep(max(0.0, at - perf_counter()))
            seen.late_s = max(seen.late_s, perf_counter() - at)
            kept = chosen if number >= WARM_UP_S * BATCHES_A_SECOND else []
            task = asyncio.create_task(post(client, url, body, kept, seen))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await asyncio.gather(*sending)


async def post(client: httpx2.AsyncClient, url: str, body: bytes, people: list[int], seen: Seen) -> None:
    """Send one batch, and note when it was answered."""
    sent = perf_counter()
    response = await client.post(f"{url}/v1/events", content=body, headers={"Content-Type": "application/json"})
    at = perf_counter()
    seen.sent.update(dict.fromkeys(people, sent))
    if response.status_code != 202 or response.json()["errors"]:
        raise RuntimeError(f"{response.status_code}: {response.text[:500]}")
    seen.answered.update(dict.fromkeys(people, at))


async def read(bench: Bench, segment: UUID, seen: Seen) -> None:
    """Follow the feed of one segment and note when each person came in, until everybody has."""
    reader = await asyncpg.connect(bench.owner_url)
    newest = 0
    try:
        while not (seen.all_sent and seen.answered.keys() <= seen.found.keys()):
            rows = await reader.fetch(FEED, segment, newest)
            at = perf_counter()
            for row in rows:
                newest = row["id"]
                for person in BitMap.deserialize(row["entered"]):
                    seen.found.setdefault(person, at)
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await reader.close()


@asynccontextmanager
async def standing(bench: Bench, mark: str) -> AsyncIterator[tuple[UUID, str, People]]:
    """The marked segment among 100 live ones that are evaluated, a key that may ingest, and the people."""
    owner = await asyncpg.connect(bench.owner_url)
    try:
        await changes.take_back(owner, bench)
        async with pool(bench.login_url):
            others = [(one["name"], one["definition"]) for one in SEGMENTS[1:]]
            now = datetime.now(UTC)
            # Active from now on, so that none of them is due to be evaluated as a whole in this minute.
            *_, segment = await changes.add_segments(bench, [*others, ("Marked", marked_leaf(mark))], now=now)
            await Run(bench, owner, segment_sources(), now).run_waiting()
            _, key = await keys.create(bench.workspace_id, name="latency", kind=KeyKind.SECRET, scopes=["ingest"])
        yield segment, key, await People.of(owner, bench, MARKED_A_SECOND * (SECONDS + WARM_UP_S))
        await changes.take_back(owner, bench)
    finally:
        await owner.close()


@contextmanager
def running_stack(bench: Bench) -> Iterator[str]:
    """The URL of a real API beside a real worker, over this database."""
    environ = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": bench.login_url,
        "DATABASE_OWNER_URL": bench.owner_url,
        # The database was started with this key before.
        "MUSTER_ADDRESS_KEY": ingest.ENVIRONMENT["MUSTER_ADDRESS_KEY"],
        "MUSTER_LOG_LEVEL": "WARNING",
    }
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), environ=environ) as stack:
        try:
            yield stack.api_url
        finally:
            for name in ("api", "worker"):
                print(stack.log_file(name).read_text()[-2000:], file=sys.stderr)


async def measure(bench: Bench, seconds: int) -> dict[str, Any]:
    """Percentiles in ms of the time from the POST's answer, and from its sending, to the change in the feed.

    `lost` were not found 30 s after the last answer, and count in no percentile.
    """
    mark = str(uuid4())
    seen = Seen()
    async with standing(bench, mark) as (segment, key, people):
        with running_stack(bench) as url:
            reading = asyncio.create_task(read(bench, segment, seen))
            try:
                await send(bench, url, key, mark, people, seen, seconds)
                seen.all_sent = True
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(reading), LOST_AFTER_S)
            finally:
                reading.cancel()
    return {
        "latency_p50_ms": percentile(seen.answered, seen.found, 50),
        "latency_p99_ms": percentile(seen.answered, seen.found, 99),
        "from_sending_p50_ms": percentile(seen.sent, seen.found, 50),
        "from_sending_p99_ms": percentile(seen.sent, seen.found, 99),
        "post_p99_ms": percentile(seen.sent, seen.answered, 99),
        "timed": len(seen.answered.keys() & seen.found.keys()),
        "lost": len(seen.answered.keys() - seen.found.keys()),
        "sender_late_ms": round(seen.late_s * 1000),
        "events_per_s": EVENTS_A_SECOND,
        "seconds": seconds,
    }


def percentile(since: dict[int, float], until: dict[int, float], rank: int) -> float:
    """Of the milliseconds between the two, of those who are in both."""
    took = sorted((until[id] - since[id]) * 1000 for id in since.keys() & until.keys())
    return round(took[min(len(took) - 1, len(took) * rank // 100)]) if took else float("nan")


def main() -> None:
    """Measure, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of events whose times are kept")
    arguments = parser.parse_args()
    seconds = min(arguments.seconds, SECONDS)
    with databases.running_server() as url:
        bench = asyncio.run(databases.prepare(url, profiles=arguments.profiles))
        found = asyncio.run(measure(bench, seconds))
        print(f"PostgreSQL {asyncio.run(about_server(bench))}")
    print(
        f"{EVENTS_A_SECOND:,} events a second for {seconds} s, 100 live segments: {found['latency_p50_ms']} ms (p50) "
        f"and {found['latency_p99_ms']} ms (p99) from answer to membership, {found['lost']} lost of {found['timed']}"
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
