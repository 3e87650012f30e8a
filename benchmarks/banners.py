"""Figures of banners: `make bench-banners`. A million profiles, 50 live banners in 10 placements over 20 segments.

`muster api` runs on one core and wrk, with 32 connections, on the other. Beside it, in the same rounds and on the same
core, a plain ASGI app that answers the same bytes under the same server (the limit), and graphql-yoga and mercurius
(with its JIT) with a resolver that has the answers in memory, proves nobody and decides nothing. Profiles are numbers
in the bitmaps of segments; a row each would change nothing, since a fetch reads none.

Viewers are drawn from the million: some thousands who come again and again, as those do who have an app open, and, for
`first_of_raw`, others who were never seen before. Each fetches the two placements of one of ten screens. Prints a table
and, last, one JSON line: rest_of_raw, graphql_of_raw, p99_ms, of_yoga, of_mercurius, memory_mb, track_per_s.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median
from time import sleep
from urllib.request import Request, urlopen
from uuid import UUID

import asyncpg
import orjson
from pyroaring import BitMap

from app.auth import Authenticator
from app.embedded import start_postgres, start_valkey
from app.processes import choose_port, end, launched
from app.proofs import Proofreaders
from app.stack import with_database, with_login
from app.tables import MODEL_MODULES
from app.viewers import Claim, ViewerTokens
from benchmarks import node
from benchmarks.tools import Missing, tool
from campaigns import drafts, placements, sending
from campaigns.banner_content import BannerContent, BannerFace
from campaigns.banner_tokens import Impression, ImpressionKind, ImpressionTokens
from campaigns.banners import Viewer
from campaigns.drafts import CampaignInput
from campaigns.placements import PlacementInput
from campaigns.tokens import Signer
from db.migrate import migrate
from db.transactions import close_database, open_database, transaction
from profiles import keys
from profiles.models import KeyKind
from segments import everyone

PROFILES = 1_000_000
BANNERS, PLACEMENTS, SEGMENTS = 50, 10, 20
RETURNING = 10_000
"""Viewers who come again and again."""
FIRST = 60_000
"""Viewers a round who come once."""
CONNECTIONS = 32
ROUNDS = 3
SERVER, LOAD = "0", "1"
"""Cores."""
EVENTS_A_REQUEST = 5
TRACKED = 200_000
TOKEN_KEY = "a token key of the benchmark, 32+ bytes long"
ROOT = Path(__file__).resolve().parent.parent
OPERATION = (ROOT / "graphql" / "operations" / "client" / "Banners.graphql").read_text()
SCHEMA = ROOT / "graphql" / "schema.graphql"
WRK = "Install it: apt-get install wrk"

ADD_SEGMENT = "INSERT INTO segment (workspace_id, name, type, status) VALUES ($1, $2, 'STATIC', 'ACTIVE') RETURNING id"
ADD_MEMBERS = """
INSERT INTO segment_membership (workspace_id, segment_id, base, added, removed, size, evaluated_at, base_version)
VALUES ($1, $2, $3, $4, $4, $5, now(), 1)
"""
IMPRESSIONS = "SELECT sum(impressions) FROM banner_day WHERE workspace_id = $1"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What wrk saw."""

    per_s: float
    p50_ms: float
    p99_ms: float
    requests: int


@dataclass(frozen=True, slots=True)
class House:
    """A workspace with banners, and what makes requests to it."""

    workspace_id: UUID
    owner: asyncpg.Connection
    environ: dict[str, str]
    key: str
    campaigns: Sequence[UUID]
    places: Sequence[UUID]
    signer: Signer

    def viewers(self, count: int, draw: Random) -> list[tuple[str, str]]:
        """Client token and viewer token of people of the million."""
        authenticator, tokens = Authenticator(self.signer), ViewerTokens(self.signer)
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=12)
        found = []
        for profile_id in draw.sample(range(1, PROFILES + 1), count):
            name = f"customer-{profile_id}"
            claim = Claim(Viewer.known(profile_id), name, expires_at)
            client = authenticator.client_token(self.workspace_id, name, expires_at=expires_at)
            found.append((client, tokens.make(self.workspace_id, claim)))
        return found


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """A new installation, filled."""
    with ExitStack() as stack:
        postgres = stack.enter_context(start_postgres(folder / "postgres"))
        valkey = stack.enter_context(start_valkey(folder / "valkey"))
        owner_url = with_database(postgres.url, "muster")
        login_url = with_login(owner_url, "muster", "benchmark")
        server = await asyncpg.connect(postgres.url)
        await server.execute("CREATE DATABASE muster")
        await server.close()
        await migrate(owner_url=owner_url, login_url=login_url, model_modules=MODEL_MODULES)
        owner = await asyncpg.connect(owner_url)
        await open_database(login_url, model_modules=MODEL_MODULES)
        workspace_id = await everyone.create_workspace("benchmark", time_zone="UTC")
        segments = await add_segments(owner, workspace_id)
        places, campaigns = await add_banners(workspace_id, segments)
        _, key = await keys.create(workspace_id, name="app", kind=KeyKind.PUBLISHABLE, scopes=("ingest",))
        environ = {
            "PATH": "/usr/bin:/bin",
            "DATABASE_URL": login_url,
            "REDIS_URL": valkey.url,
            "MUSTER_ADDRESS_KEY": "an address key of the benchmark, 32+ bytes",
            "MUSTER_TOKEN_KEY": TOKEN_KEY,
            "MUSTER_SECRET_KEYS": "1:a key that seals secrets of the benchmark",
            "MUSTER_PUBLIC_URL": "https://banners.garden.example",
            "MUSTER_SMTP_URL": "smtp://127.0.0.1:1",
            "MUSTER_LOG_LEVEL": "WARNING",
            "MUSTER_GRAPHIQL": "false",
            "MUSTER_RATE_LIMIT": "0",
            "MUSTER_REQUEST_RATE": "0",
        }
        try:
            yield House(workspace_id, owner, environ, key, campaigns, places, Signer(TOKEN_KEY.encode()))
        finally:
            await close_database()
            await owner.close()


async def add_segments(owner: asyncpg.Connection, workspace_id: UUID) -> list[UUID]:
    """Segments of 1 to 60 per cent of the million, drawn at random: as large as bitmaps get."""
    draw = Random(1)
    found = []
    for number in range(SEGMENTS):
        size = PROFILES * draw.randint(1, 60) // 100
        members = BitMap(draw.sample(range(1, PROFILES + 1), size))
        segment_id = await owner.fetchval(ADD_SEGMENT, workspace_id, f"Segment {number}")
        nobody = BitMap().serialize()
        await owner.execute(ADD_MEMBERS, workspace_id, segment_id, members.serialize(), nobody, size)
        found.append(segment_id)
    return found


async def add_banners(workspace_id: UUID, segments: Sequence[UUID]) -> tuple[list[UUID], list[UUID]]:
    """Placements and live banners, five in each; one of five is for everyone, the others for two segments each."""
    draw, now, proofs = Random(2), datetime.now(UTC), Proofreaders()
    async with transaction(workspace_id) as connection:
        everybody = await everyone.segment_id(connection)
    places = [
        (await placements.create(workspace_id, PlacementInput(f"place-{n}", f"Place {n}"))).id
        for n in range(PLACEMENTS)
    ]
    campaigns = []
    for number in range(BANNERS):
        wanted = CampaignInput(
            name=f"Banner {number}",
            content=BannerContent(
                BannerFace(
                    title=f"Autumn has come, offer {number}",
                    body="Tools that outlive their owners, and bulbs that flower in February.",
                    image_url=f"https://cdn.garden.example/banners/{number}.png",
                    image_alt="A garden",
                    action_label="See them all",
                    action_url=f"https://garden.example/offers/{number}",
                    background_color="#0A3D2E",
                    text_color="#FFFFFF",
                    data={"tone": "calm"},
                )
            ),
            segment_ids=(everybody,) if number % 5 == 0 else tuple(draw.sample(list(segments), 2)),
            placement_id=places[number % PLACEMENTS],
            weight=draw.randint(1, 100),
        )
        campaign = await drafts.create(workspace_id, wanted, proofs=proofs, now=now)
        await sending.start(workspace_id, campaign.id, now=now)
        campaigns.append(campaign.id)
    await proofs.close()
    return places, campaigns


# --- servers ------------------------------------------------------------------------------------------------------


@contextmanager
def serving(
    folder: Path, name: str, command: list[str], environ: dict[str, str], path: str
) -> Iterator[tuple[int, int]]:
    """Process id and port of a server on its core; `{port}` in the command is where it listens."""
    port = choose_port(folder / f"{name}_port")
    pinned = [tool("taskset", "It is in Debian's package util-linux."), "-c", SERVER]
    filled = [one.replace("{port}", str(port)) for one in command]
    environ = environ | {"MUSTER_API_PORT": str(port)} if "MUSTER_TOKEN_KEY" in environ else environ
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(launched([*pinned, *filled], ends_with_us=True), env=environ, stdout=log, stderr=log)
    try:
        wait_for(process, f"http://127.0.0.1:{port}{path}", folder / f"{name}.log")
        yield process.pid, port
    finally:
        end(process, [])


def wait_for(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Return when something answers there. Raises RuntimeError with the log when the process ends instead."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(log.read_text()[-2_000:])
        try:
            urlopen(Request(url), timeout=5).close()  # our own server
        except OSError as fault:
            if getattr(fault, "code", None) is not None:
                return
            sleep(0.1)
        else:
            return
    raise RuntimeError(f"{url} does not answer")


def load(folder: Path, name: str, port: int, seconds: int) -> Loaded:
    """What wrk makes of the requests in a file. Raises RuntimeError when one was refused."""
    command = ["taskset", "-c", LOAD, tool("wrk", WRK), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "60s"]
    script = str(Path(__file__).with_name("wrk.lua"))
    answer = subprocess.run(
        [*command, "-s", script, f"http://127.0.0.1:{port}", "--", str(folder / name)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(answer.stdout.strip().splitlines()[-1])
    if found["refused"] or found["broken"]:
        raise RuntimeError(f"{name}: {found}")
    return Loaded(found["requests"] / found["seconds"], found["p50_ms"], found["p99_ms"], found["requests"])


def memory_mb(pid: int) -> float:
    """The most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


# --- requests -----------------------------------------------------------------------------------------------------


def get(house: House, viewer: tuple[str, str], screen: int) -> bytes:
    """A fetch by GET."""
    query = f"placement=place-{screen}&placement=place-{(screen + 1) % PLACEMENTS}"
    return http(f"GET /v1/banners?{query}", head(house, viewer))


def post(house: House, viewer: tuple[str, str], screen: int) -> bytes:
    """The same by GraphQL."""
    wanted = {"placements": [f"place-{screen}", f"place-{(screen + 1) % PLACEMENTS}"]}
    body = orjson.dumps({"query": OPERATION, "operationName": "Banners", "variables": wanted})
    return http("POST /graphql", [*head(house, viewer), "Content-Type: application/json"], body)


def head(house: House, viewer: tuple[str, str]) -> list[str]:
    """Who asks."""
    client, token = viewer
    return [
        f"Authorization: Bearer {house.key}",
        f"X-Muster-Client-Token: {client}",
        f"X-Muster-Viewer: {token}",
        "Accept: application/json",
        "Accept-Language: de-AT,de;q=0.9,en;q=0.8",
    ]


def http(line: str, fields: Sequence[str], body: bytes = b"") -> bytes:
    """A request as it goes over the wire."""
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{line} HTTP/1.1", "Host: 127.0.0.1", *fields, *length, "", ""]).encode() + body


def write(folder: Path, name: str, requests: Iterator[bytes]) -> None:
    """A file of requests for wrk.lua."""
    with (folder / name).open("wb") as out:
        for one in requests:
            out.write(one + b"\0")


def ask(port: int, request: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Header fields and body of an answer."""
    head_, _, body = request.partition(b"\r\n\r\n")
    first, *fields = head_.decode().split("\r\n")
    method, path, _ = first.split(" ")
    asked = Request(f"http://127.0.0.1:{port}{path}", data=body or None, method=method)
    for field in fields:
        name, value = field.split(": ", 1)
        asked.add_header(name, value)
    with urlopen(asked, timeout=10) as response:  # our own server
        return response.getheaders(), response.read()


def events(house: House, draw: Random) -> Iterator[bytes]:
    """Impressions of different people, a few a request, each of them new."""
    tokens = ImpressionTokens(house.signer)
    now = datetime.now(UTC)
    window = int(now.timestamp()) // 3600 * 3600
    for first in range(0, TRACKED, EVENTS_A_REQUEST):
        batch = []
        for number in range(first, first + EVENTS_A_REQUEST):
            profile_id, banner = draw.randint(1, PROFILES), draw.randrange(BANNERS)
            shown = Impression(
                campaign=house.campaigns[banner].bytes,
                placement=house.places[banner % PLACEMENTS].bytes,
                content_version=1,
                viewer=UUID(int=profile_id).bytes,
                profile_id=profile_id,
                window_start=window,
                kind=ImpressionKind.SHOWN,
            )
            batch.append(
                {
                    "id": f"event-{number}",
                    "kind": "IMPRESSION",
                    "token": tokens.make(house.workspace_id, shown),
                    "sessionId": f"session-{number}",
                    "occurredAt": now.isoformat(),
                }
            )
        fields = [f"Authorization: Bearer {house.key}", "Content-Type: application/json"]
        yield http("POST /v1/banner-events", fields, orjson.dumps({"events": batch}))


# --- measuring ----------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


async def measure(folder: Path, seconds: int) -> dict[str, float]:
    """The figures by name."""
    tool("wrk", WRK)
    async with house(folder) as place:
        draw = Random(3)
        returning = place.viewers(RETURNING, draw)
        asked = [(viewer, draw.randrange(PLACEMENTS)) for viewer in returning]
        write(folder, "rest", (get(place, *one) for one in asked))
        write(folder, "graphql", (post(place, *one) for one in asked))
        for round_ in range(ROUNDS):
            new = place.viewers(FIRST, draw)
            write(folder, f"first{round_}", (get(place, one, draw.randrange(PLACEMENTS)) for one in new))
        write(folder, "events", events(place, draw))
        say(f"{PROFILES:,} profiles, {BANNERS} banners, {PLACEMENTS} placements, {SEGMENTS} segments")
        with ExitStack() as stack:
            api = [sys.executable, "-m", "app.cli", "api"]
            pid, ours = stack.enter_context(serving(folder, "api", api, place.environ, "/readyz"))
            others = answered(folder, place, ours, asked)
            say(f"an answer has {others.size:,} bytes")
            ports = {"rest": ours, "graphql": ours, **others.start(stack)}
            found = rates(folder, ports, ours, seconds)
            found["memory_mb"] = memory_mb(pid)
            found["track_per_s"] = await tracking(folder, place, ours, seconds)
            found["memory_after_tracking_mb"] = memory_mb(pid)
    return found


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
    kept = [f"{name}: {value}" for name, value in fields if name.lower() != "date"]
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
        "p99_ms": median(max(found["rest"].p99_ms, found["graphql"].p99_ms) for found in rounds),
        "first_p99_ms": median(found["first"].p99_ms for found in rounds),
        "raw_p99_ms": median(found["raw"].p99_ms for found in rounds),
        "of_yoga": ratio("graphql", "yoga"),
        "of_mercurius": ratio("graphql", "mercurius"),
        **{f"{name}_per_s": median(found[name].per_s for found in rounds) for name in rounds[0]},
    }


async def tracking(folder: Path, place: House, port: int, seconds: int) -> float:
    """Events a second that are told, written and counted. Raises RuntimeError when the counts are others."""
    made = await asyncio.to_thread(load, folder, "events", port, seconds)
    if made.requests * EVENTS_A_REQUEST > TRACKED:
        raise RuntimeError("events were told twice: raise TRACKED")
    counted = await place.owner.fetchval(IMPRESSIONS, place.workspace_id)
    # Those under way at the end are written, and wrk does not count them.
    if not 0 <= counted - made.requests * EVENTS_A_REQUEST <= CONNECTIONS * EVENTS_A_REQUEST:
        raise RuntimeError(f"{made.requests * EVENTS_A_REQUEST} events were told, and {counted} are counted")
    say(f"  tracking p99 {made.p99_ms:.1f} ms at {CONNECTIONS} connections of {EVENTS_A_REQUEST} events a request")
    return made.per_s * EVENTS_A_REQUEST


LINES = (
    ("raw_per_s", "plain ASGI, the same bytes, a second", ""),
    ("rest_per_s", "GET /v1/banners", ""),
    ("rest_of_raw", "of it", "at least 0.75"),
    ("first_per_s", "of viewers never seen before", ""),
    ("first_of_raw", "of it", ""),
    ("raw_post_per_s", "plain ASGI, of a POST", ""),
    ("graphql_per_s", "POST /graphql", ""),
    ("graphql_of_raw", "of it", "at least 0.5, aim 0.75"),
    ("p99_ms", f"p99 of both at {CONNECTIONS} connections, ms", "at most 5"),
    ("raw_p99_ms", "p99 of plain ASGI, ms", ""),
    ("yoga_per_s", "graphql-yoga", ""),
    ("of_yoga", "times as fast", ""),
    ("mercurius_per_s", "mercurius with JIT", ""),
    ("of_mercurius", "times as fast", ""),
    ("memory_mb", "memory of the process, MB", "at most 200"),
    ("track_per_s", "events tracked a second", "at least 5,000"),
)


def main() -> int:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=6, help="of each of some twenty measurements")
    seconds = parser.parse_args().seconds
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            # PostgreSQL may have to run as nobody, who must pass here.
            Path(folder).chmod(0o711)
            found = asyncio.run(measure(Path(folder), seconds))
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    for name, meaning, wanted in LINES:
        print(f"{meaning:<48} {found[name]:>12,.2f}  {wanted}")
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
