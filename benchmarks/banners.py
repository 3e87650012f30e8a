"""Figures of banners: `make bench-banners`. A million profiles, 50 live banners in 10 placements over 20 segments.

`muster api` runs on one core and wrk, with 32 connections, on the other. Beside it, in the same rounds and on the same
core, a plain ASGI app that answers the same bytes under the same server (the limit), and graphql-yoga and mercurius
(with its JIT) with a resolver that has the answers in memory, proves nobody and decides nothing. Profiles are numbers
in the bitmaps of segments; a row each would change nothing, since a fetch reads none.

Viewers are drawn from the million; each fetches the two placements of one of ten screens. There are two mixes, and they
are never mixed. `rest` and `graphql` are of RETURNING viewers, as those who have an app open: each fetched both ways
once before anything is measured, and then they come in turn, again and again. `first` is of viewers who were never seen
before and come once; it is measured after the others, beside the plain app again, since what is kept for its viewers
pushes out what is kept for those. Beside requests a second stands what one costs: the server's processor time.
`rest_idle` is the part of the time in which the server waited for the load.

Servers are compared in many short rounds, each right after the plain app: what is told is the median of the rounds'
ratios, with the least and the most of them beside it, since machines are faster and slower by the second. The measured
servers have a core to themselves; PostgreSQL, Valkey and the load share the other.

How long an answer takes is measured twice, over 32 connections. With connections that never pause (`saturated_p99_ms`)
it is the length of the queue that they make by themselves: 32 divided by the answers of a second. `paced_p99_ms` is of
requests that arrive as those of people do (benchmarks/arrivals.py): at random instants, PACED_PER_S a second or half of
what the slowest of the servers compared can answer, each timed from when it was to be sent. `p99_ms` is the larger of
the two. The plain app's are beside them, and how late the load sent by its own fault.

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
from benchmarks.loads import (
    CONNECTIONS,
    WRK,
    Loaded,
    Running,
    arrivals,
    leave_the_servers_core,
    load,
    memory_mb,
    once,
    serving,
)
from benchmarks.tools import Missing, tool

RETURNING = 10_000
"""Viewers who come again and again."""
FIRST = 60_000
"""Viewers a round who come once."""
ROUNDS = 12
"""Of ours beside plain ASGI."""
RIVALS_ROUNDS = FIRST_ROUNDS = PACED_ROUNDS = 3
PACED_PER_S = 5_000
"""As many as the load can send in time: at 15,000 it is late itself."""
EVENTS_A_REQUEST = 50
BATCHES = (1, 5, EVENTS_A_REQUEST, 200)
"""Events a request."""
WARM_UP = 300
"""Requests by which it is seen how many events there have to be."""
SPARE = 3
"""Times as many as were told then: wrk asks faster."""
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
            ours = stack.enter_context(serving(folder, "api", api, place.environ, "/readyz"))
            found = {} if only_tracking else fetching(folder, place, ours, seconds, draw, stack)
            for size in BATCHES:
                found |= await tracking(folder, place, ours, seconds, draw, size)
            found["memory_after_tracking_mb"] = memory_mb(ours.pid)
    return found


def fetching(
    folder: Path, place: House, ours: Running, seconds: int, draw: Random, stack: ExitStack
) -> dict[str, float]:
    """The figures of fetches by name; `stack` keeps the other servers."""
    asked = [(viewer, draw.randrange(PLACEMENTS)) for viewer in place.viewers(RETURNING, draw)]
    write(folder, "rest", (get(place, *one) for one in asked))
    write(folder, "graphql", (post(place, *one) for one in asked))
    for round_ in range(FIRST_ROUNDS):
        new = place.viewers(FIRST, draw)
        write(folder, f"first{round_}", (get(place, one, draw.randrange(PLACEMENTS)) for one in new))
    others = answered(folder, place, ours.port, asked)
    say(f"an answer has {others.size:,} bytes")
    servers = {"rest": ours, "graphql": ours, **others.start(stack)}
    for name in ("rest", "graphql"):
        once(folder, name, ours)
    found = rates(folder, servers, seconds)
    slowest = min(found[f"{name}_per_s"] for name in PAIRS)
    found |= paced(folder, servers, seconds, per_s=min(PACED_PER_S, slowest / 2))
    found["p99_ms"] = max(found["paced_p99_ms"], found["saturated_p99_ms"])
    return found | firsts(folder, servers, seconds) | {"memory_mb": memory_mb(ours.pid)}


@dataclass(frozen=True, slots=True)
class Others:
    """The servers that are measured beside us, with answers of ours."""

    folder: Path
    size: int

    def start(self, stack: ExitStack) -> dict[str, Running]:
        """Them by name."""
        folder = self.folder
        plain = [sys.executable, "-m", "benchmarks.raw", "{port}", str(folder / "answer")]
        answers = [str(SCHEMA), str(folder / "answers")]
        commands = {
            "raw": (plain, {"PATH": "/usr/bin:/bin"}),
            "yoga": (node.command("yoga.cjs", "{port}", *answers), node.environ()),
            "mercurius": (node.command("mercurius.cjs", "{port}", *answers), node.environ()),
        }
        started = {
            name: stack.enter_context(serving(folder, name, command, environ, "/graphql"))
            for name, (command, environ) in commands.items()
        }
        return started | {"raw_post": started["raw"]}


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


PAIRS = ("raw", "rest", "raw_post", "graphql")
"""Each of ours after the plain app that it is compared with."""
RIVALS = ("graphql", "yoga", "mercurius")


def rates(folder: Path, servers: dict[str, Running], seconds: int) -> dict[str, float]:
    """Requests a second of all, in turns, and how they compare in each round."""
    for name, server in servers.items():
        load(folder, FILES.get(name, name), server, 2)

    def round_of(names: Sequence[str]) -> dict[str, Loaded]:
        return {name: told(name, load(folder, FILES.get(name, name), servers[name], seconds)) for name in names}

    rounds = [round_of(PAIRS) for _ in range(ROUNDS)]
    rivals = [round_of(RIVALS) for _ in range(RIVALS_ROUNDS)]
    return {
        **ratios(rounds, "rest", "raw"),
        **ratios(rounds, "graphql", "raw_post"),
        "saturated_p99_ms": median(max(found["rest"].p99_ms, found["graphql"].p99_ms) for found in rounds),
        "saturated_raw_p99_ms": median(found["raw"].p99_ms for found in rounds),
        "of_yoga": ratio(rivals, "graphql", "yoga"),
        "of_mercurius": ratio(rivals, "graphql", "mercurius"),
        **medians(rivals),
        **medians(rounds),
    }


def firsts(folder: Path, servers: dict[str, Running], seconds: int) -> dict[str, float]:
    """The same of viewers who were never seen before, and of plain ASGI in turns with them. Raises RuntimeError when
    there are too few of them."""
    rounds = []
    for number in range(FIRST_ROUNDS):
        found = {
            "raw": told("raw", load(folder, "rest", servers["raw"], seconds)),
            "first": told("first", load(folder, f"first{number}", servers["rest"], seconds)),
        }
        if found["first"].requests > FIRST:
            raise RuntimeError("viewers came twice: raise FIRST")
        rounds.append(found)
    return {
        "first_of_raw": ratio(rounds, "first", "raw"),
        "saturated_first_p99_ms": median(found["first"].p99_ms for found in rounds),
        "first_per_s": median(found["first"].per_s for found in rounds),
        "first_cpu_us": median(found["first"].cpu_us for found in rounds),
    }


def told(name: str, made: Loaded) -> Loaded:
    say(f"  {name}: {made.per_s:,.0f}/s, p99 {made.p99_ms:.1f} ms, {made.cpu_us:.0f} us each, idle {made.idle:.0%}")
    return made


def ratio(rounds: Sequence[dict[str, Loaded]], one: str, of: str) -> float:
    """How many requests of the one are answered in the time of one of the other."""
    return median(found[one].per_s / found[of].per_s for found in rounds)


def ratios(rounds: Sequence[dict[str, Loaded]], one: str, of: str) -> dict[str, float]:
    """`ratio` by name, with the least and the most of the rounds."""
    all_ = [found[one].per_s / found[of].per_s for found in rounds]
    name = f"{one}_of_raw"
    return {name: median(all_), f"{name}_least": min(all_), f"{name}_most": max(all_)}


def medians(rounds: Sequence[dict[str, Loaded]]) -> dict[str, float]:
    """What each made in a second, what a request cost it, and how idle it was."""
    made = {}
    for name in rounds[0]:
        made[f"{name}_per_s"] = median(found[name].per_s for found in rounds)
        made[f"{name}_cpu_us"] = median(found[name].cpu_us for found in rounds)
        made[f"{name}_idle"] = median(found[name].idle for found in rounds)
    return made


def paced(folder: Path, servers: dict[str, Running], seconds: int, *, per_s: float) -> dict[str, float]:
    """How long answers take when `per_s` requests arrive, of ours and of plain ASGI in turns."""
    rounds: list[dict[str, Loaded]] = []
    for _ in range(PACED_ROUNDS):
        rounds.append(
            {name: arrivals(folder, FILES.get(name, name), servers[name], seconds, per_s=per_s) for name in PAIRS}
        )
        all_ = (f"{name} p50 {one.p50_ms:.1f} p99 {one.p99_ms:.1f} ms" for name, one in rounds[-1].items())
        say(f"  paced: {', '.join(all_)}")
    return {
        "paced_per_s": median(one.per_s for found in rounds for one in found.values()),
        "paced_late_p99_ms": median(max(one.late_p99_ms for one in found.values()) for found in rounds),
        "paced_p50_ms": median(max(found["rest"].p50_ms, found["graphql"].p50_ms) for found in rounds),
        "paced_raw_p50_ms": median(max(found["raw"].p50_ms, found["raw_post"].p50_ms) for found in rounds),
        "paced_p99_ms": median(max(found["rest"].p99_ms, found["graphql"].p99_ms) for found in rounds),
        "paced_raw_p99_ms": median(max(found["raw"].p99_ms, found["raw_post"].p99_ms) for found in rounds),
    }


async def tracking(
    folder: Path, place: House, ours: Running, seconds: int, draw: Random, size: int
) -> dict[str, float]:
    """Events a second that are told in requests of `size`, written and counted, and the API's processor time an event.
    Raises RuntimeError when the counts are others."""
    write(folder, "warm-up", events(place, draw, name=f"warm-up of{size}", requests=WARM_UP, events_each=size))
    per_s = await asyncio.to_thread(once, folder, "warm-up", ours)
    most = int(per_s * SPARE) * seconds + CONNECTIONS
    write(folder, "events", events(place, draw, name=f"of{size}", requests=most, events_each=size))
    before = await place.owner.fetchval(IMPRESSIONS, place.workspace_id)
    made = await asyncio.to_thread(load, folder, "events", ours, seconds)
    if made.requests > most:
        raise RuntimeError("events were told twice: raise SPARE")
    cpu_us = made.cpu_us / size
    # Those under way at the end are written, and wrk does not count them.
    counted = await place.owner.fetchval(IMPRESSIONS, place.workspace_id) - before
    if not 0 <= counted - made.requests * size <= CONNECTIONS * size:
        raise RuntimeError(f"{made.requests * size} events were told, and {counted} are counted")
    say(f"  {size} events a request: {made.per_s * size:,.0f}/s, p99 {made.p99_ms:.0f} ms, {cpu_us:.0f} us each")
    name = "track_per_s" if size == EVENTS_A_REQUEST else f"track_of_{size}_per_s"
    return {name: made.per_s * size, name.replace("per_s", "cpu_us"): cpu_us}


LINES = (
    ("raw_per_s", "plain ASGI, the same bytes, a second", ""),
    ("rest_per_s", "GET /v1/banners", ""),
    ("rest_of_raw", "of it", "at least 0.75"),
    ("rest_of_raw_least", "in the worst round", ""),
    ("rest_of_raw_most", "in the best", ""),
    ("raw_cpu_us", "processor time of one, us: plain ASGI", ""),
    ("rest_cpu_us", "GET /v1/banners", ""),
    ("first_cpu_us", "the same of a viewer never seen before", ""),
    ("rest_idle", "part of the time without work", "about 0"),
    ("first_per_s", "GET /v1/banners of viewers never seen before", ""),
    ("first_of_raw", "of plain ASGI", ""),
    ("raw_post_per_s", "plain ASGI, of a POST", ""),
    ("graphql_per_s", "POST /graphql", ""),
    ("graphql_of_raw", "of it", "at least 0.5, aim 0.75"),
    ("graphql_of_raw_least", "in the worst round", ""),
    ("graphql_of_raw_most", "in the best", ""),
    ("graphql_cpu_us", "processor time of one, us", ""),
    ("yoga_per_s", "graphql-yoga", ""),
    ("of_yoga", "times as fast", ""),
    ("mercurius_per_s", "mercurius with JIT", ""),
    ("of_mercurius", "times as fast", ""),
    ("p99_ms", "p99 of both ways, the larger of the two loads below, ms", "at most 5"),
    ("paced_per_s", f"arriving by themselves over {CONNECTIONS} connections: a second", ""),
    ("paced_p99_ms", "p99 of both then, ms", ""),
    ("paced_raw_p99_ms", "of plain ASGI, ms", ""),
    ("paced_late_p99_ms", "how late the load sent by its own fault, p99, ms", "far below"),
    ("paced_p50_ms", "p50 of both, ms", ""),
    ("paced_raw_p50_ms", "of plain ASGI, ms", ""),
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
    parser.add_argument("--seconds", type=int, default=3, help="of each of some eighty measurements")
    parser.add_argument("--only-tracking", action="store_true", help="without fetches")
    given = parser.parse_args()
    leave_the_servers_core()
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
