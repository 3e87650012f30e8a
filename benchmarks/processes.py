"""Figures of whole processes: a membership check over HTTP, and the memory of what works as a worker does."""

import asyncio
import multiprocessing
import tempfile
from collections.abc import Sequence
from datetime import datetime
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter
from uuid import UUID

import asyncpg

from app.api import ids
from app.api.ids import Kind
from app.resources import segment_sources
from benchmarks import changes
from benchmarks.databases import Bench, pool
from benchmarks.figures import EVERYBODY, Figure, Run, act_in_a_second
from benchmarks.ingest import running_api
from profiles import keys
from profiles.models import KeyKind
from segments import pulse

CHECKS = 3000
PULSES = 5
CHECK_BY_HAND = """
SELECT EXISTS (SELECT FROM profile p JOIN membership m ON m.segment_id = $2 AND m.profile_id = p.id
  AND m.exited_at IS NULL WHERE p.workspace_id = $1 AND p.external_id = $3)
"""


async def checked(run: Run, segment_id: UUID) -> Figure:
    """GET /v1/segments/{id}/members/{externalId}, one after the other: half of the people asked about are members.

    On one kept-alive loopback connection to a real `muster api`, as its Server-Timing header says; what the client
    waited, with HTTP and two processes taking turns, is in the note.
    """
    bench, draw = run.bench, Random(4)
    members = list(await run.members(segment_id))
    people = [draw.choice(members) if n % 2 else draw.randrange(1, bench.profiles) for n in range(CHECKS)]
    _, secret = await keys.create(bench.workspace_id, name="benchmark", kind=KeyKind.SECRET, scopes=["read"])
    with tempfile.TemporaryDirectory() as scratch, running_api(bench, Path(scratch) / "api.log") as (_, host):
        path = f"/v1/segments/{ids.encode(Kind.SEGMENT, segment_id)}/members/c"
        asked = await asyncio.to_thread(ask, host, path, secret, people)
    by_hand = []
    for person in people:
        began = perf_counter()
        await run.owner.fetchval(CHECK_BY_HAND, bench.workspace_id, segment_id, f"c{person}")
        by_hand.append((perf_counter() - began) * 1000)
    waited, took = (sorted(column) for column in zip(*asked, strict=True))
    late = CHECKS * 99 // 100
    note = f"p50 in the server, p99 {took[late]:.2f} ms; in the client {median(waited):.2f} and {waited[late]:.2f} ms"
    return Figure(median(took), median(by_hand), "primary keys", note)


def ask(host: str, path: str, secret: str, people: Sequence[int]) -> list[tuple[float, float]]:
    """Of each request the milliseconds that the client waited and that the server took."""
    connection = HTTPConnection(host, timeout=30)
    asked = []
    for person in people:
        began = perf_counter()
        connection.request("GET", f"{path}{person}", headers={"Authorization": f"Bearer {secret}"})
        response = connection.getresponse()
        answer = response.read()
        waited = (perf_counter() - began) * 1000
        asked.append((waited, float(response.headers["server-timing"].partition("dur=")[2])))
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {answer[:500]!r}")
    connection.close()
    return asked


async def memory(run: Run, segment_ids: Sequence[UUID]) -> Figure:
    """The most memory in MB of a process that does what a worker does: a first population of everybody, two cycles over
    `segment_ids`, the first of which makes packs, and pulses over 1,000 people each."""
    await changes.forget_packs(run.owner, run.bench)
    await changes.add_segments(run.bench, [("Everybody at last", EVERYBODY)])
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=work, args=(run.bench, run.now, list(segment_ids), theirs)
    )
    process.start()
    theirs.close()
    try:
        megabytes: float = await asyncio.to_thread(ours.recv)
    except EOFError as e:
        raise RuntimeError("the worker's process failed; what it wrote says why") from e
    finally:
        process.join()
    return Figure(megabytes, note="VmHWM of a process with a worker's imports, evaluations and pulses")


def work(bench: Bench, now: datetime, segment_ids: list[UUID], tell: Connection) -> None:
    """What the worker's process does, and tells."""
    # What a worker has loaded, whether this uses it or not.
    import workers.__main__  # noqa: F401

    asyncio.run(evaluate_and_pulse(bench, now, segment_ids))
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    tell.send(int(line.split()[1]) / 1024)


async def evaluate_and_pulse(bench: Bench, now: datetime, segment_ids: list[UUID]) -> None:
    owner = await asyncpg.connect(bench.owner_url)
    async with pool(bench.login_url):
        run = Run(bench, owner, segment_sources(packed=True), now)
        await run.run_waiting()
        for _ in range(2):
            await run.cycle(segment_ids)
        draw = Random(5)
        for _ in range(PULSES):
            await act_in_a_second(run, draw)
            await pulse.beat(bench.workspace_id, sources=run.sources, now=run.now)
    await owner.close()
