"""Figures of banners: `make bench-banners`. A million profiles, 50 live banners in 10 placements over 20 segments.

`muster api` runs on one core and wrk, with 32 connections, on the other. Beside it, in the same rounds and on the same
core, a plain ASGI app that answers the same bytes under the same server (the limit), and graphql-yoga and mercurius
(with its JIT) with a resolver that has the answers in memory, proves nobody and decides nothing. Profiles are numbers
in the bitmaps of segments; a row each would change nothing, since a fetch reads none.

Viewers are drawn from the million: some thousands who come again and again, as those do who have an app open, and, for
`first_of_raw`, others who were never seen before. Each fetches the two placements of one of ten screens.

How long an answer takes is measured twice. With connections that never pause (`saturated_p99_ms`) it is the length of
the queue that they make by themselves: 32 divided by the answers of a second. `p99_ms` is of requests that arrive as
those of people do (benchmarks/arrivals.py): at random instants, over 32 connections, half as many a second as the
slowest of the servers compared can answer, each timed from when it was to be sent. The plain app's is beside it.

Events are told in requests of several sizes, of different people each: `track_per_s` is that of EVENTS_A_REQUEST, as an
app sends that gathers what its viewers did. Prints a table and, last, one JSON line: rest_of_raw, graphql_of_raw,
p99_ms, of_yoga, of_mercurius, memory_mb, track_per_s.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

import orjson

from benchmarks import node
from benchmarks.banner_house import BANNERS, PLACEMENTS, PROFILES, SEGMENTS, House, house
from benchmarks.banner_requests import ROOT, ask, events, get, post, write
from benchmarks.loads import CONNECTIONS, WRK, Loaded, arrivals, cpu_s, load, memory_mb, serving
from benchmarks.tools import Missing, tool

RETURNING = 10_000
"""Viewers who come again and again."""
FIRST = 60_000
"""Viewers a round who come once."""
ROUNDS = 3
EVENTS_A_REQUEST = 50
BATCHES = (1, 5, EVENTS_A_REQUEST, 200)
"""Events a request."""
MOST_TOLD_PER_S = 20_000
"""Events that there are requests for."""
MOST_REQUESTS_PER_S = 4_000
SCHEMA = ROOT / "graphql" / "schema.graphql"
IMPRESSIONS = "SELECT coalesce(sum(impressions), 0) FROM banner_day WHERE workspace_id = $1"


def say(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


async def measure(folder: Path, seconds: int, *, only_tracking: bool) -> dict[str, float]:
    """The figures by name."""
    tool("wrk", WRK)
    async with house(folder) as place:
        draw = Random(3)
        say(f"{PROFILES:,} profiles, {BANNERS} banners, {PLACEMENTS} placements, {SEGMENTS} segments")
        with ExitStack() as stack:
            api = [sys.executable, "-m", "app.cli", "api"]
            pid, ours = stack.enter_context(serving(folder, "api", api, place.environ, "/readyz"))
            found = {} if only_tracking else fetching(folder, place, pid, ours, seconds, draw, stack)
            for size in BATCHES:
                found |= await tracking(folder, place, pid, ours, seconds, draw, size)
            found["memory_after_tracking_mb"] = memory_mb(pid)
    return found


def fetching(
    folder: Path, place: House, pid: int, ours: int, seconds: int, draw: Random, stack: ExitStack
) -> dict[str, float]:
    """The figures of fetches by name; `stack` keeps the other servers."""
    asked = [(viewer, draw.randrange(PLACEMENTS)) for viewer in place.viewers(RETURNING, draw)]
    write(folder, "rest", (get(place, *one) for one in asked))
    write(folder, "graphql", (post(place, *one) for one in asked))
    for round_ in range(ROUNDS):
        new = place.viewers(FIRST, draw)
        write(folder, f"first{round_}", (get(place, one, draw.randrange(PLACEMENTS)) for one in new))
    others = answered(folder, place, ours, asked)
    say(f"an answer has {others.size:,} bytes")
    ports = {"rest": ours, "graphql": ours, **others.start(stack)}
    found = rates(folder, ports, ours, seconds)
    found |= paced(folder, ports, seconds, per_s=min(found[f"{name}_per_s"] for name in PACED) / 2)
    return found | {"memory_mb": memory_mb(pid)}


@dataclass(frozen=True, slots=True)
class Others:
    """The servers that are measured beside us, with answers of ours."""

    folder: Path
    size: int

    def start(self, stack: ExitStack) -> dict[str, int]:
        """Their ports by name."""
        folder = self.folder
        plain = [sys.executable, "-m", "benchmarks.raw", "{port}", str(folder / "answer")]
        answers = [str(SCHEMA), str(folder / "answers")]
        commands = {
            "raw": (plain, {"PATH": "/usr/bin:/bin"}),
            "yoga": (node.command("yoga.cjs", "{port}", *answers), node.environ()),
            "mercurius": (node.command("mercurius.cjs", "{port}", *answers), node.environ()),
        }
        ports = {
            name: stack.enter_context(serving(folder, name, command, environ, "/graphql"))[1]
            for name, (command, environ) in commands.items()
        }
        return ports | {"raw_post": ports["raw"]}


def answered(folder: Path, place: House, port: int, asked: Sequence[tuple[tuple[str, str], int]]) -> Others:
    """Answers of ours for the others to give."""
    fields, body = ask(port, get(place, *asked[0]))
    # Not what the server adds by itself: `ask` has it close the connection.
    kept = [f"{name}: {value}" for name, value in fields if name.lower() not in ("date", "connection")]
    (folder / "answer").write_bytes("\n".join(kept).encode() + b"\n\n" + body)
    bodies = [orjson.loads(ask(port, post(place, *one))[1]) for one in asked[:100]]
    (folder / "answers").write_bytes(orjson.dumps([one["data"]["banners"] for one in bodies]))
    shown = [one["banner"] for made in bodies for one in made["data"]["banners"]["placements"]]
    if sum(one is not None for one in shown) < len(shown) * 0.9:
        raise RuntimeError("hardly anybody sees a banner")
    return Others(folder, len(body))


FILES = {"raw": "rest", "raw_post": "graphql", "yoga": "graphql", "mercurius": "graphql"}
"""Which requests each gets that has none of its own."""


def rates(folder: Path, ports: dict[str, int], ours: int, seconds: int) -> dict[str, float]:
    """Requests a second of all, in turns, and how they compare in each round."""
    rounds: list[dict[str, Loaded]] = []
    for name, port in ports.items():
        load(folder, FILES.get(name, name), port, 2)
    for number in range(ROUNDS):
        rounds.append(
            {name: load(folder, FILES.get(name, name), port, seconds) for name, port in ports.items()}
            | {"first": load(folder, f"first{number}", ours, seconds)}
        )
        say(
            "  " + ", ".join(f"{name} {one.per_s:,.0f}/s (p99 {one.p99_ms:.1f} ms)" for name, one in rounds[-1].items())
        )

    def ratio(one: str, of: str) -> float:
        return median(found[one].per_s / found[of].per_s for found in rounds)

    return {
        "rest_of_raw": ratio("rest", "raw"),
        "first_of_raw": ratio("first", "raw"),
        "graphql_of_raw": ratio("graphql", "raw_post"),
        "saturated_p99_ms": median(max(found["rest"].p99_ms, found["graphql"].p99_ms) for found in rounds),
        "saturated_first_p99_ms": median(found["first"].p99_ms for found in rounds),
        "saturated_raw_p99_ms": median(found["raw"].p99_ms for found in rounds),
        "of_yoga": ratio("graphql", "yoga"),
        "of_mercurius": ratio("graphql", "mercurius"),
        **{f"{name}_per_s": median(found[name].per_s for found in rounds) for name in rounds[0]},
    }


PACED = ("raw", "rest", "raw_post", "graphql")


def paced(folder: Path, ports: dict[str, int], seconds: int, *, per_s: float) -> dict[str, float]:
    """How long answers take when `per_s` requests arrive, of ours and of plain ASGI in turns."""
    rounds: list[dict[str, Loaded]] = []
    for _ in range(ROUNDS):
        rounds.append(
            {name: arrivals(folder, FILES.get(name, name), ports[name], seconds, per_s=per_s) for name in PACED}
        )
        told = (f"{name} p50 {one.p50_ms:.1f} p99 {one.p99_ms:.1f} ms" for name, one in rounds[-1].items())
        say(f"  paced: {', '.join(told)}")
    return {
        "paced_per_s": median(one.per_s for found in rounds for one in found.values()),
        "p50_ms": median(max(found["rest"].p50_ms, found["graphql"].p50_ms) for found in rounds),
        "raw_p50_ms": median(max(found["raw"].p50_ms, found["raw_post"].p50_ms) for found in rounds),
        "p99_ms": median(max(found["rest"].p99_ms, found["graphql"].p99_ms) for found in rounds),
        "raw_p99_ms": median(max(found["raw"].p99_ms, found["raw_post"].p99_ms) for found in rounds),
    }


async def tracking(
    folder: Path, place: House, pid: int, port: int, seconds: int, draw: Random, size: int
) -> dict[str, float]:
    """Events a second that are told in requests of `size`, written and counted, and the API's processor time an event.
    Raises RuntimeError when the counts are others."""
    most = min(MOST_TOLD_PER_S // size, MOST_REQUESTS_PER_S) * seconds + CONNECTIONS
    write(folder, "events", events(place, draw, name=f"of{size}", requests=most, events_each=size))
    before, cpu = await place.owner.fetchval(IMPRESSIONS, place.workspace_id), cpu_s(pid)
    made = await asyncio.to_thread(load, folder, "events", port, seconds)
    if made.requests > most:
        raise RuntimeError("events were told twice: raise MOST_TOLD_PER_S")
    cpu_us = (cpu_s(pid) - cpu) * 1e6 / (made.requests * size)
    # Those under way at the end are written, and wrk does not count them.
    counted = await place.owner.fetchval(IMPRESSIONS, place.workspace_id) - before
    if not 0 <= counted - made.requests * size <= CONNECTIONS * size:
        raise RuntimeError(f"{made.requests * size} events were told, and {counted} are counted")
    say(f"  {size} events a request: {made.per_s * size:,.0f}/s, p99 {made.p99_ms:.0f} ms, {cpu_us:.0f} us each")
    per_s = "track_per_s" if size == EVENTS_A_REQUEST else f"track_of_{size}_per_s"
    return {per_s: made.per_s * size, per_s.replace("per_s", "cpu_us"): cpu_us}


LINES = (
    ("raw_per_s", "plain ASGI, the same bytes, a second", ""),
    ("rest_per_s", "GET /v1/banners", ""),
    ("rest_of_raw", "of it", "at least 0.75"),
    ("first_per_s", "of viewers never seen before", ""),
    ("first_of_raw", "of it", ""),
    ("raw_post_per_s", "plain ASGI, of a POST", ""),
    ("graphql_per_s", "POST /graphql", ""),
    ("graphql_of_raw", "of it", "at least 0.5, aim 0.75"),
    ("yoga_per_s", "graphql-yoga", ""),
    ("of_yoga", "times as fast", ""),
    ("mercurius_per_s", "mercurius with JIT", ""),
    ("of_mercurius", "times as fast", ""),
    ("paced_per_s", f"arriving by themselves over {CONNECTIONS} connections: a second", ""),
    ("p99_ms", "p99 of both then, ms", "at most 5"),
    ("raw_p99_ms", "of plain ASGI, ms", ""),
    ("p50_ms", "p50 of both, ms", ""),
    ("raw_p50_ms", "of plain ASGI, ms", ""),
    ("saturated_p99_ms", f"p99 of both, {CONNECTIONS} connections without pause, ms", ""),
    ("saturated_raw_p99_ms", "of plain ASGI, ms", ""),
    ("memory_mb", "memory of the process, MB", "at most 200"),
    *(
        (f"track_of_{size}_per_s", f"events tracked a second, {size} a request", "")
        for size in BATCHES
        if size != EVENTS_A_REQUEST
    ),
    ("track_per_s", f"events tracked a second, {EVENTS_A_REQUEST} a request", "at least 5,000"),
    ("track_cpu_us", "the API's processor time of one, us", ""),
)


def main() -> int:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=6, help="of each of some thirty measurements")
    parser.add_argument("--only-tracking", action="store_true", help="without fetches")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            # PostgreSQL may have to run as nobody, who must pass here.
            Path(folder).chmod(0o711)
            found = asyncio.run(measure(Path(folder), given.seconds, only_tracking=given.only_tracking))
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    for name, meaning, wanted in LINES:
        if name in found:
            print(f"{meaning:<60} {found[name]:>12,.2f}  {wanted}")
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
