"""Figures of email: `make bench-email`. Whole path, from a frozen audience to the last outcome in the ledger.

Mails of about 10 KB with five variables and five tracked links go by two real worker processes to `smtp-sink`, beside,
in the same run and to the same sink, `smtp-source` (which sends one finished message over and over: the limit) and
nodemailer's pooled transport. Then a million recipients: how long the ledger takes to write, what a killed worker
holds up, what memory grows by, how long it takes. Prints a table and, last, one JSON line: msgs_per_s, of_limit,
of_nodemailer, ledger_us, materialize_s, memory_growth_mb.

    python -m benchmarks.email --only rate          a minute; no million
    python -m benchmarks.email --largest 100000     another number of recipients than a million
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, sleep

from app.processes import choose_port, end, launched
from benchmarks import node
from benchmarks.blast import House, house
from benchmarks.tools import Missing, tool

RATE_RECIPIENTS = 50_000
FEW = 10_000
LARGEST = 1_000_000
LIMIT_MESSAGES = 50_000
NODEMAILER_MESSAGES = 10_000
CONNECTIONS = 64
"""Of every client; of ours, each worker's MUSTER_SEND_CONCURRENCY, as in `make kill-test`."""
SIZE = 18_700
"""Bytes of smtp-source's message: what a mail of ours has as it leaves, both parts and headers."""
SINK = "smtp-sink"
SOURCE = "smtp-source"
POSTFIX = "It is part of Debian's package postfix: apt-get install --no-install-recommends postfix"
PARTS = ("rate", "million")
COMMITTED_S = 0.05
SETTINGS = ("server_version", "fsync", "full_page_writes", "synchronous_commit", "shared_buffers")

THROUGH = "SELECT planned_through FROM dispatch WHERE campaign_id = $1"


@contextmanager
def sink(folder: Path) -> Iterator[int]:
    """The port of a running smtp-sink, which takes every message and keeps none."""
    port = choose_port(folder / "sink_port")
    command = [tool(SINK, POSTFIX), *(["-u", "nobody"] if os.geteuid() == 0 else []), f"127.0.0.1:{port}", "1024"]
    process = subprocess.Popen(launched(command, ends_with_us=True), stdout=subprocess.DEVNULL)
    try:
        sleep(0.5)
        if process.poll() is not None:
            raise Missing(f"{SINK} ended with {process.returncode}")
        yield port
    finally:
        end(process, [])


def limit(port: int) -> float:
    """Messages a second of smtp-source over kept connections: what two programs in C make of this machine."""
    options = ["-d", "-s", str(CONNECTIONS), "-m", str(LIMIT_MESSAGES), "-l", str(SIZE)]
    command = [tool(SOURCE, POSTFIX), *options, "-f", "news@garden.example", "-t", "c@example.com", f"127.0.0.1:{port}"]
    began = perf_counter()
    subprocess.run(command, check=True)
    return LIMIT_MESSAGES / (perf_counter() - began)


def nodemailer(port: int) -> float:
    """Messages a second of nodemailer's pooled transport, which gets subject, text and HTML of each recipient."""
    arguments = [str(port), str(NODEMAILER_MESSAGES), str(CONNECTIONS)]
    answer = subprocess.run(
        node.command("nodemailer.cjs", *arguments), env=node.environ(), check=True, capture_output=True, text=True
    )
    return float(json.loads(answer.stdout)["per_s"])


async def resumed_s(place: House) -> float:
    """Seconds from the kill -9 of all that work, in the middle of writing a ledger, to its next chunk."""
    campaign_id = await place.start_campaign(now=datetime.now(UTC))
    await place.until(THROUGH, campaign_id, lambda through: through is not None and through > 0)
    for pid in place.sending_processes():
        os.kill(pid, 9)
    began = perf_counter()
    await asyncio.sleep(COMMITTED_S)  # a chunk that was committed while we killed
    stopped_at = await place.owner.fetchval(THROUGH, campaign_id)
    await place.until(THROUGH, campaign_id, lambda through: through != stopped_at)
    took = perf_counter() - began
    await place.cancel(campaign_id, now=datetime.now(UTC))
    return took


def say(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


async def measure(folder: Path, parts: list[str], largest: int) -> dict[str, float]:
    """The figures by name."""
    found: dict[str, float] = {}
    with sink(folder) as port:
        settings = {"MUSTER_SEND_CONCURRENCY": str(CONNECTIONS)}
        async with house(folder, smtp_port=port, settings=settings) as place:
            server = [f"{name} {await place.owner.fetchval(f'SHOW {name}')}" for name in SETTINGS]
            say(f"PostgreSQL {', '.join(server)}; two workers with {CONNECTIONS} connections each")
            await place.fill(FEW)
            place.start_workers()
            warm = await place.blast(now=datetime.now(UTC))
            say(f"warm: {warm.recipients:,} mails, {warm.per_s:,.0f}/s")
            memory = place.peak_mb()
            if "rate" in parts:
                await rate(place, port, found)
            if "million" in parts:
                await million(place, largest, memory, found)
    return found


async def rate(place: House, port: int, found: dict[str, float]) -> None:
    """Messages a second of us and of the others, in turn."""
    await place.fill(RATE_RECIPIENTS)
    ours, limits, others = [], [], []
    for turn in range(3):
        limits.append(await asyncio.to_thread(limit, port))
        await place.reset()
        done = await place.blast(now=datetime.now(UTC))
        ours.append(done.per_s)
        found["ledger_us"] = await place.ledger_us(done.recipients)
        if turn == 0:
            others.append(await asyncio.to_thread(nodemailer, port))
        say(f"  ours {ours[-1]:,.0f}/s, smtp-source {limits[-1]:,.0f}/s, nodemailer {others[0]:,.0f}/s")
    for row in await place.dearest(8):
        say(f"    {row['ms'] * 1000 / done.recipients:6.1f} us a mail, {row['calls']:>6} calls: {row['query']}")
    found["msgs_per_s"] = sorted(ours)[1]
    found["smtp_source_per_s"] = sorted(limits)[1]
    found["nodemailer_per_s"] = others[0]
    found["of_limit"] = found["msgs_per_s"] / found["smtp_source_per_s"]
    found["of_nodemailer"] = found["msgs_per_s"] / found["nodemailer_per_s"]


async def million(place: House, largest: int, memory: float, found: dict[str, float]) -> None:
    """What a large audience takes."""
    await place.fill(largest)
    say(f"{largest:,} people")
    found["resumed_s"] = await resumed_s(place)
    say(f"  killed while preparing: the next chunk after {found['resumed_s']:.1f} s")
    place.stop_workers()
    place.start_workers()
    done = await place.blast(now=datetime.now(UTC))
    found["materialize_s"] = done.materialized_s
    found["largest"] = done.recipients
    found["largest_s"] = done.sent_s
    found["largest_per_s"] = done.per_s
    found["memory_mb"] = place.peak_mb()
    found["memory_growth_mb"] = found["memory_mb"] - memory


LINES = (
    ("msgs_per_s", "mails a second, whole path", ""),
    ("smtp_source_per_s", "smtp-source, the limit", ""),
    ("of_limit", "of it", "at least 0.3"),
    ("nodemailer_per_s", "nodemailer, pooled", ""),
    ("of_nodemailer", "times as fast", "at least 2"),
    ("ledger_us", "PostgreSQL's time on the ledger, us a mail", "at most 80"),
    ("largest", "recipients of the largest", ""),
    ("materialize_s", "its ledger written, s", "at most 20"),
    ("resumed_s", "and gone on with after a kill, s", "at most 6"),
    ("largest_s", "then sent in, s", ""),
    ("memory_mb", "a worker's memory at most, MB", ""),
    ("memory_growth_mb", "more than for 10,000, MB", "flat"),
)
KEYS = ("msgs_per_s", "of_limit", "of_nodemailer", "ledger_us", "materialize_s", "memory_growth_mb")


def main() -> int:
    """Measure, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the figures")
    parser.add_argument("--largest", type=int, default=LARGEST, help="recipients of the largest blast")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o711)  # PostgreSQL may have to run as nobody, who must pass here
        try:
            found = asyncio.run(measure(folder, arguments.only, arguments.largest))
        except Missing as missing:
            say(str(missing))
            return 1
    for key, says, budget in LINES:
        if key in found:
            value = found[key]
            shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
            print(f"{says:<45}{shown:>12}   {budget}")
    print(json.dumps({key: round(found[key], 2) for key in KEYS if key in found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
