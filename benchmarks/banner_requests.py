"""The requests of `benchmarks.banners` as they go over the wire, for wrk.lua."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from urllib.request import Request, urlopen
from uuid import UUID

import orjson

from benchmarks.banner_house import BANNERS, PLACEMENTS, PROFILES, House
from campaigns.banner_tokens import Impression, ImpressionKind, ImpressionTokens

ROOT = Path(__file__).resolve().parent.parent
OPERATION = (ROOT / "graphql" / "operations" / "client" / "Banners.graphql").read_text()


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


def events(house: House, draw: Random, *, name: str, requests: int, events_each: int) -> Iterator[bytes]:
    """Impressions of different people, `events_each` a request, each of them new; `name` tells apart what is told by
    several calls."""
    tokens = ImpressionTokens(house.signer)
    now = datetime.now(UTC)
    window = int(now.timestamp()) // 3600 * 3600
    for request in range(requests):
        batch = []
        for number in range(events_each):
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
            id = f"{name}-{request}-{number}"
            batch.append(
                {
                    "id": f"event-{id}",
                    "kind": "IMPRESSION",
                    "token": tokens.make(house.workspace_id, shown),
                    "sessionId": f"session-{id}",
                    "occurredAt": now.isoformat(),
                }
            )
        fields = [f"Authorization: Bearer {house.key}", "Content-Type: application/json"]
        yield http("POST /v1/banner-events", fields, orjson.dumps({"events": batch}))
