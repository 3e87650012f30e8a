"""Fetches of banners in running processes: what is kept is true, changes arrive, and PostgreSQL may go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import httpx2
import pytest
from starlette.applications import Starlette

from app.embedded import start_valkey
from app.main import create_app
from app.settings import Settings
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller, resources_of, without_database
from tests.app.test_api_banners import placement, show
from tests.app.test_api_server import api_process
from tests.conftest import Database

STALE_AT_MOST_S = 2.0
UNCOUNTED = {"MUSTER_REQUEST_RATE": "0"}
"""Whoever waits for a change here asks as often as can be, which on a quick machine is beyond 2,000 times a second."""


class Moved:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@asynccontextmanager
async def process(settings: Settings, clock: Moved) -> AsyncIterator[tuple[Starlette, httpx2.AsyncClient]]:
    """An API process: boards, keys and sessions of its own."""
    app = create_app(settings.model_copy(update={"request_rate": 0}), opener=resources_of, clock=clock)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="https://muster.example") as client:
            yield app, client


@pytest.fixture
def clock() -> Moved:
    return Moved()


@pytest.fixture
async def http(settings: Settings, clock: Moved) -> AsyncIterator[httpx2.AsyncClient]:
    async with process(settings, clock) as (_, client):
        yield client


async def get(caller: Caller, *placements: str, http: httpx2.AsyncClient | None = None, **headers: str) -> Any:
    """The HTTP answer to a fetch."""
    client = http or caller.http
    parameters = {"placement": placements or ("home-top",)}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.get("/v1/banners", params=parameters, headers=caller.all_headers() | more)


async def titles(caller: Caller, http: httpx2.AsyncClient | None = None) -> list[str | None]:
    response = await get(caller, http=http)
    assert response.status_code == 200, response.text
    return [one["banner"] and one["banner"]["content"]["title"] for one in response.json()["placements"]]


async def until(caller: Caller, wanted: list[str | None], http: httpx2.AsyncClient | None = None) -> None:
    """Return when a fetch answers this, however long a loaded machine takes."""
    async with asyncio.timeout(30):
        while True:
            if await titles(caller, http) == wanted:
                return
            # A fetch waits for nothing, so that nothing else would run.
            await asyncio.sleep(0)


async def signed_in(console: Caller, app_caller: Caller, name: str) -> Caller:
    """An app whose person has fetched before."""
    token = (await console.data("ClientTokenCreate", input={"externalId": name}))["token"]
    caller = app_caller.with_headers(x_muster_client_token=token)
    first = (await get(caller)).json()
    return caller.with_headers(x_muster_viewer=first["viewerToken"])


async def test_an_unchanged_answer_is_not_sent_again(console: Caller, app_caller: Caller, clock: Moved) -> None:
    """ETag over decision and viewer; If-None-Match answers 304 until something is different."""
    await console.data("ProfileUpsert", input={"externalId": "ada"})
    await show(console, "Sale")
    ada, ben = [await signed_in(console, app_caller, name) for name in ("ada", "ben")]
    await until(ada, ["Sale"])
    first = await get(ada)
    tag = first.headers["etag"]
    for wanted in (tag, f'"x", {tag}', "*", tag.removeprefix("W/")):
        clock.ahead += timedelta(seconds=1)
        again = await get(ada, if_none_match=wanted)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["cache-control"].startswith("private, max-age=")
        assert again.headers["vary"] == first.headers["vary"]
        assert "server-timing" in again.headers
    assert (await get(ada, if_none_match='W/"other"')).status_code == 200
    assert (await get(ben)).headers["etag"] != tag
    assert (await get(app_caller, if_none_match="*")).status_code == 200, "a new viewer token must arrive"
    await show(console, "Better", rules={"priority": 1})
    await until(ada, ["Better"])
    assert (await get(ada, if_none_match=tag)).status_code == 200


async def test_starts_and_expiries_are_exact_to_the_second(console: Caller, app_caller: Caller, clock: Moved) -> None:
    """S3-13, S3-24, S3-25: by the clock alone; nobody has to notice, and no answer lives longer."""
    viewer = await signed_in(console, app_caller, "ada")
    now = datetime.now(UTC).replace(microsecond=0)
    wanted = {"name": "Later", "content": {"banner": {"title": "Later"}}, "placementId": await placement(console)}
    everyone = (await console.data("Segments"))["edges"][0]["node"]["id"]
    made = await console.data("CampaignCreate", input=wanted | {"weight": 1, "segmentIds": [everyone]})
    at = (now + timedelta(seconds=700)).isoformat()
    await console.data("CampaignSchedule", input={"id": made["campaign"]["id"], "at": at})
    # Last: whoever sees it has a board with the other on it.
    await show(console, "Short", expiresAt=(now + timedelta(seconds=600)).isoformat())
    await until(viewer, ["Short"])

    async def at_second(second: float) -> tuple[list[str | None], int]:
        clock.ahead = now + timedelta(seconds=second) - datetime.now(UTC)
        age = (await get(viewer)).json()["maxAgeSeconds"]
        return await titles(viewer), age

    (shown, age), (over, _) = await at_second(590), await at_second(600.01)
    assert (shown, over) == (["Short"], [None])
    assert age <= 10
    (before, age), (started, _) = await at_second(690), await at_second(700.01)
    assert (before, started) == ([None], ["Later"])
    assert age <= 10


async def test_two_processes_show_no_stale_banner_beyond_two_seconds(
    environ: dict[str, str], console: Caller, app_caller: Caller, tmp_path: Path
) -> None:
    """S3-25: processes of `muster api`, while campaigns change under load. A fetch that began more than 2 s after a
    change was answered knows of it."""
    one = await show(console, "Sale")
    environ |= UNCOUNTED
    async with (
        api_process(environ, tmp_path / "one") as (first, _),
        api_process(environ, tmp_path / "other") as (second, _),
        httpx2.AsyncClient(base_url=first, timeout=30) as here,
        httpx2.AsyncClient(base_url=second, timeout=30) as there,
    ):
        viewers = [await signed_in(console, app_caller, f"person {number}") for number in range(5)]
        for client in (here, there):
            await until(viewers[0], ["Sale"], client)
        changes: list[tuple[float, str | None]] = []
        late: list[tuple[float, str | None, str | None]] = []
        fetched = 0
        done = asyncio.Event()

        async def fetch_on(client: httpx2.AsyncClient, viewer: Caller) -> None:
            nonlocal fetched
            while not done.is_set():
                began = monotonic()
                settled = [title for at, title in changes if at + STALE_AT_MOST_S < began]
                newest = changes[-1] if changes else None
                (title,) = await titles(viewer, client)
                await asyncio.sleep(0)
                fetched += 1
                # What was true at any moment from then on may be answered.
                allowed = {settled[-1] if settled else "Sale"}
                allowed |= {made for at, made in changes if at + STALE_AT_MOST_S >= began}
                if title not in allowed:
                    late.append((began, title, newest[1] if newest else "Sale"))

        async def change() -> None:
            for _ in range(3):
                for operation, after in (("CampaignPause", None), ("CampaignResume", "Sale")):
                    # While it is under way either may be answered.
                    changes.append((float("inf"), after))
                    await console.data(operation, input={"id": one})
                    changes[-1] = (monotonic(), after)
                    for client in (here, there):
                        await until(viewers[0], [after], client)
            done.set()

        loads = [fetch_on(client, viewer) for client in (here, there) for viewer in viewers]
        await asyncio.gather(change(), *loads)
        assert late == []
        assert fetched > 20


async def test_whoever_enters_a_segment_or_stops_sees_it_in_every_process(
    settings: Settings, console: Caller, app_caller: Caller, clock: Moved
) -> None:
    """Answers that are kept go with those whom a change touches, and stay with the others."""
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": "ada"}, {"externalId": "ben"}]})
    segment = (await console.data("SegmentCreate", input={"name": "VIPs", "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment})
    await console.data("SegmentMembersAdd", input={"id": segment, "externalIds": ["ada"]})
    await show(console, "For VIPs", segmentIds=[segment])
    ada, ben = [await signed_in(console, app_caller, name) for name in ("ada", "ben")]
    async with process(settings, clock) as (_, other):
        for client in (console.http, other):
            await until(ada, ["For VIPs"], client)
            assert await titles(ben, client) == [None]
        await console.data("SegmentMembersAdd", input={"id": segment, "externalIds": ["ben"]})
        for client in (console.http, other):
            await until(ben, ["For VIPs"], client)
        await console.data("SegmentMembersRemove", input={"id": segment, "externalIds": ["ada"]})
        for client in (console.http, other):
            await until(ada, [None], client)
            assert await titles(ben, client) == ["For VIPs"]
        await console.data("SegmentPause", input={"id": segment})
        for client in (console.http, other):
            await until(ben, [None], client)


async def test_a_dismissed_banner_stays_away_from_who_dismissed_it(
    settings: Settings, console: Caller, app_caller: Caller, clock: Moved
) -> None:
    """In another process too, and without a look at the database in a fetch."""
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": "ada"}, {"externalId": "ben"}]})
    await show(console, "Sale")
    ada, ben = [await signed_in(console, app_caller, name) for name in ("ada", "ben")]
    await until(ada, ["Sale"])
    token = (await get(ada)).json()["placements"][0]["banner"]["impressionToken"]
    event = {"id": "1", "kind": "DISMISS", "token": token, "occurredAt": clock().isoformat(), "sessionId": "s"}
    headers = ada.all_headers() | {"content-type": "application/json"}
    told = await ada.http.post("/v1/banner-events", json={"events": [event]}, headers=headers)
    assert told.json() == {"accepted": 1, "duplicates": 0, "errors": []}
    async with process(settings, clock) as (_, other):
        for client in (console.http, other):
            await until(ada, [None], client)
            assert await titles(ben, client) == ["Sale"]


async def test_banners_outlive_the_database_by_an_hour(
    database: Database,
    settings: Settings,
    console: Caller,
    app_caller: Caller,
    clock: Moved,
) -> None:
    """The last board is shown, expiries hold, /healthz says degraded, and a stranger is served as well."""
    await console.data("ProfileUpsert", input={"externalId": "ada"})
    ends = clock() + timedelta(minutes=30)
    await show(console, "Sale", expiresAt=ends.isoformat())
    async with process(settings, clock) as (app, client):
        ada = await signed_in(console, app_caller, "ada")
        await until(ada, ["Sale"], client)
        assert (await client.get("/readyz/banners")).status_code == 200
        async with without_database(database):
            boards = app.state.services.boards
            async with asyncio.timeout(60):
                while True:
                    assert await titles(ada, client) == ["Sale"]
                    if all(kept.away for kept in boards.kept.values()):
                        break
                    await asyncio.sleep(0)
            clock.ahead += timedelta(minutes=1)
            assert await titles(ada, client) == ["Sale"], "the key is remembered"
            stranger = (await get(app_caller, http=client)).json()
            assert stranger["placements"][0]["banner"]["content"]["title"] == "Sale"
            unknown = app_caller.with_headers(x_muster_client_token=ada.headers["x-muster-client-token"])
            named = (await get(unknown, http=client)).json()
            assert (named["viewerToken"], named["maxAgeSeconds"]) == (None, 0), "asked again, it may be known"
            assert named["placements"][0]["banner"]["content"]["title"] == "Sale"
            health = (await client.get("/healthz")).json()
            assert "database" in health["degraded"]
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/readyz/banners")).status_code == 200
            clock.ahead += timedelta(minutes=30)
            assert await titles(ada, client) == [None], "it has expired"
            for kept in boards.kept.values():
                kept.began_at -= 3_600
            refused = await get(ada, http=client)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "UNAVAILABLE")
            assert (await client.get("/readyz/banners")).status_code == 503
        await show(console, "New")
        await until(ada, ["New"], client)


async def test_a_process_that_has_no_board_yet_is_ready_for_banners_while_it_can_read_one(
    database: Database, http: httpx2.AsyncClient
) -> None:
    unread = {"oldest_board_s": None}
    assert (await http.get("/readyz/banners")).json() == {"ready": True} | unread
    async with without_database(database):
        answer = await http.get("/readyz/banners")
    assert (answer.status_code, answer.json()) == (503, {"ready": False} | unread)


async def test_banners_change_without_valkey_too(
    environ: dict[str, str], console: Caller, app_caller: Caller, tmp_path: Path
) -> None:
    """A process of `muster api` whose Valkey is stopped: no notice comes any more, and boards are read each second."""
    one = await show(console, "Sale")
    with start_valkey(tmp_path / "valkey") as valkey:
        async with (
            api_process(environ | UNCOUNTED | {"REDIS_URL": valkey.url}, tmp_path / "log") as (url, _),
            httpx2.AsyncClient(base_url=url, timeout=30) as client,
        ):
            ada = await signed_in(console, app_caller, "ada")
            await until(ada, ["Sale"], client)
            valkey.stop()
            for operation, shown in (("CampaignPause", None), ("CampaignResume", "Sale")):
                await console.data(operation, input={"id": one})
                await until(ada, [shown], client)
                assert [await titles(ada, client) for _ in range(3)] == [[shown]] * 3
            assert (await client.get("/healthz")).json()["degraded"][0] == "valkey"
            assert (await client.get("/readyz")).json() == {"ready": False, "missing": ["valkey"]}
            assert (await client.get("/readyz/banners")).status_code == 200


async def test_a_merged_person_is_looked_up_anew(console: Caller, app_caller: Caller, clock: Moved) -> None:
    """A viewer token names the profile for a day; a merge counts at once."""
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": "old"}, {"externalId": "new"}]})
    old = await signed_in(console, app_caller, "old")
    kept = (await get(old)).json()
    assert kept["viewerToken"] is None
    found = await console.data("Profiles", first=10)
    ids = {one["node"]["externalId"]: one["node"]["id"] for one in found["edges"]}
    await console.data("ProfileMerge", input={"loserId": ids["old"], "winnerId": ids["new"]})
    async with asyncio.timeout(30):
        while True:
            now = (await get(old)).json()
            if now["viewerToken"] is not None:
                break
            await asyncio.sleep(0)
    new = await signed_in(console, app_caller, "new")
    assert now["viewer"] == (await get(new)).json()["viewer"] != kept["viewer"]


async def test_what_is_kept_of_a_caller_ends_with_what_proves_it(
    console: Caller, app_caller: Caller, caller: MakeCaller, workspace: UUID, clock: Moved
) -> None:
    """An expired client token opens nothing, also when its last answer is kept."""
    await show(console, "Sale")
    ada = await signed_in(console, app_caller, "ada")
    await until(ada, ["Sale"])
    clock.ahead += timedelta(days=2)
    assert (await get(ada)).status_code == 401
    response = await app_caller.http.get("/v1/banners?placement=x&offline=yes", headers=app_caller.all_headers())
    assert response.status_code == 400
    assert response.headers["access-control-allow-origin"] == "*"


async def test_an_external_id_that_nobody_can_have_is_refused(console: Caller) -> None:
    """PostgreSQL knows no U+0000; asked about it, it would be taken for one that is away."""
    response = await get(console, http=console.http)
    assert response.status_code == 200
    refused = await console.http.get(
        "/v1/banners", params={"placement": "x", "externalId": "a\0b"}, headers=console.all_headers()
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "UNSTORABLE_TEXT")
