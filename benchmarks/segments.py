"""Figures of the segment engine over up to 1,000,000 people and 20,000,000 events: `make bench-segments`.

Prints a table, each figure with the best hand-written SQL for the same set on the same server in the same run, and
last one JSON line with the figures of the largest size: evaluate_ms, sql_ms, populate_ms, hundred_ratio, touched_ms,
ingest_per_s, member_check_ms, memory_mb. The first run makes the data and keeps them (see databases.py).

    python -m benchmarks.segments --profiles 100000         one size, in a minute
    python -m benchmarks.segments --only evaluate touched   some of the figures
    python -m benchmarks.segments --no-sql                  ours alone, which takes a fraction of the time
"""

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg

from app.resources import segment_sources
from benchmarks import databases, figures, ingest, processes
from benchmarks.databases import SIZES, Bench, pool
from benchmarks.figures import Figure, Run

SEGMENTS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("segments.json").read_text())
PARTS = ("evaluate", "populate", "hundred", "touched", "check", "memory", "ingest")
INGEST_S, INGEST_WARM_S = 10.0, 20.0
COPY_S = 3.0
COPIED_TOGETHER = 1000

SETTINGS = (
    "server_version", "fsync", "full_page_writes", "synchronous_commit", "shared_buffers", "effective_cache_size",
    "max_parallel_workers_per_gather",
)  # fmt: skip
SETTING = "SELECT current_setting($1)"
SIZE = "SELECT pg_size_pretty(pg_database_size(current_database()))"
COPY_TARGET = "CREATE TABLE by_hand_event (LIKE event INCLUDING ALL)"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: what it measures, its unit and what it must not pass."""

    key: str
    says: str
    budget: str


LINES = (
    Line("evaluate_ms", "nested segment, 1 % changed, ms", "500, and 2 x SQL"),
    Line("populate_ms", "first population of everybody, ms", "5,000"),
    Line("one_ms", "one of 100 segments, mean, ms", ""),
    Line("all_ms", "100 segments in one cycle, ms", ""),
    Line("hundred_ratio", "100 segments / one", "10"),
    Line("touched_ms", "pulse, 1,000 people, 100 segments, ms", "500 (aim 250)"),
    Line("ingest_per_s", "events a second over HTTP", "20,000 or more"),
    Line("member_check_ms", "membership check over HTTP, ms", "1"),
    Line("memory_mb", "memory of the worker, MB", "500"),
)
KEYS = (
    "evaluate_ms", "sql_ms", "populate_ms", "hundred_ratio", "touched_ms", "ingest_per_s", "member_check_ms",
    "memory_mb",
)  # fmt: skip


async def measure(bench: Bench, parts: Sequence[str], *, sql: bool) -> dict[str, Figure]:
    """The figures of one database, by the keys of LINES; `sql`: those of the hand-written SQL too."""
    found: dict[str, Figure] = {}
    async with pool(bench.login_url), figures.opened(bench, segment_sources(packed=True), sql=sql) as run:
        if "populate" in parts:
            found["populate_ms"] = said("populate_ms", await figures.populated(run))
        if "evaluate" in parts:
            found["evaluate_ms"] = said("evaluate_ms", await figures.nested(run))
        if {"hundred", "touched", "check", "memory"} & set(parts):
            found |= await measure_hundred(run, parts)
        if "ingest" in parts:
            found["ingest_per_s"] = said("ingest_per_s", await ingested(run))
    return found


async def measure_hundred(run: Run, parts: Sequence[str]) -> dict[str, Figure]:
    """The figures for which the 100 segments must stand."""
    found: dict[str, Figure] = {}
    if "hundred" in parts:
        taken, ids = await figures.hundred(run, SEGMENTS)
        found |= {key: said(key, figure) for key, figure in taken.items()}
    else:
        ids = await figures.standing(run, SEGMENTS)
    if "touched" in parts:
        found["touched_ms"] = said("touched_ms", await figures.touched(run, SEGMENTS, ids))
    if "check" in parts:
        found["member_check_ms"] = said("member_check_ms", await processes.checked(run, ids[0]))
    if "memory" in parts:
        found["memory_mb"] = said("memory_mb", await processes.memory(run, ids))
    return found


async def ingested(run: Run) -> Figure:
    """Events a second that the API acknowledges in batches of 1,000, and what a bare COPY of as many rows does."""
    measured = await ingest.measure(run.bench, seconds=INGEST_S, warm_s=INGEST_WARM_S)
    note = f"{measured['clients']} connections, median batch {measured['median_ms']} ms"
    note += f"; {measured['first_per_s']} in the {INGEST_WARM_S:.0f} s before"
    return Figure(measured["events_per_s"], await copied(run), "COPY, one connection", note)


async def copied(run: Run) -> float:
    """Rows a second by COPY, 1,000 a transaction, into a table with the indexes of `event`; no keys, no people."""
    now, workspace = run.bench.now, run.bench.workspace_id
    names = ("workspace_id", "profile_id", "name", "occurred_at", "message_id", "properties")
    await run.owner.execute("DROP TABLE IF EXISTS by_hand_event")
    await run.owner.execute(COPY_TARGET)
    rows, began = 0, perf_counter()
    while perf_counter() - began < COPY_S:
        batch = [(workspace, 1 + n, "purchase", now, f"c{rows + n}", '{"value": 9}') for n in range(COPIED_TOGETHER)]
        await run.owner.copy_records_to_table("by_hand_event", records=batch, columns=names)
        rows += COPIED_TOGETHER
    rate = rows / (perf_counter() - began)
    await run.owner.execute("DROP TABLE by_hand_event")
    return rate


# --- saying it ----------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def said(key: str, figure: Figure) -> Figure:
    by_hand = "" if figure.by_hand is None else f", SQL {number(figure.by_hand)} ({figure.form})"
    say(f"  {key}: {number(figure.ours)}{by_hand}; {figure.note}")
    return figure


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


async def about_server(bench: Bench) -> str:
    """What the figures depend on, in a line."""
    owner = await asyncpg.connect(bench.owner_url)
    try:
        values = [f"{name} {await owner.fetchval(SETTING, name)}" for name in SETTINGS]
        values.append(f"{bench.profiles:,} people, {bench.events:,} events: {await owner.fetchval(SIZE)}")
    finally:
        await owner.close()
    return ", ".join(values)


def table(found: Mapping[int, Mapping[str, Figure]]) -> str:
    """A line a figure, with ours and SQL's for each size."""
    head = f"{'':<40}" + "".join(f"{size:>12,} {'SQL':>9}" for size in found) + f"   {'budget':<18} best SQL; what"
    lines = [head, "-" * len(head)]
    for line in LINES:
        shown = [figures[line.key] for figures in found.values() if line.key in figures]
        if not shown:
            continue
        cells = ""
        for measured in found.values():
            figure = measured.get(line.key)
            by_hand = "" if figure is None or figure.by_hand is None else number(figure.by_hand)
            cells += f"{'' if figure is None else number(figure.ours):>12} {by_hand:>9}"
        last = shown[-1]
        why = "; ".join(part for part in (last.form, last.note) if part)
        lines.append(f"{line.says:<40}{cells}   {line.budget:<18} {why}")
    return "\n".join(lines)


def as_json(measured: Mapping[str, Figure]) -> str:
    """The figures of the largest size in one line."""
    values = {key: figure.ours for key, figure in measured.items()}
    if "evaluate_ms" in measured and (by_hand := measured["evaluate_ms"].by_hand) is not None:
        values["sql_ms"] = by_hand
    return json.dumps({key: round(values[key], 2) for key in KEYS if key in values})


def main() -> None:
    """Measure, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=int, action="append", help="one size; 100,000, 300,000 and a million else")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some of the figures")
    parser.add_argument("--no-sql", action="store_true", help="ours alone, compared with nothing")
    arguments = parser.parse_args()
    found: dict[int, dict[str, Figure]] = {}
    with databases.running_server() as url:
        for profiles in sorted(arguments.profiles or SIZES):
            bench = asyncio.run(databases.prepare(url, profiles=profiles))
            say(f"{profiles:,} people, windows end at {bench.now:%Y-%m-%d %H:%M} UTC")
            found[profiles] = asyncio.run(measure(bench, arguments.only, sql=not arguments.no_sql))
            server = asyncio.run(about_server(bench))
    print(f"\nPython {platform.python_version()}, PostgreSQL {server}")
    by_hand = "ours and SQL in turn; SQL runs on the server alone (count over the ids)"
    how = "SQL was not run" if arguments.no_sql else by_hand
    print(f"Medians of 5 or more repetitions, of the hundred means of {figures.TURNS} turns; {how}.\n")
    print(table(found))
    print(as_json(found[max(found)]))


if __name__ == "__main__":
    main()
