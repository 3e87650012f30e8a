"""Fetches while PostgreSQL hangs, and what is kept or read for those who ask for too much."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import orjson
import pytest
from asyncpg.exceptions import ReadOnlySQLTransactionError
from jwt import PyJWK

from app import fetches, front, viewers
from app.auth import KnownKeys
from app.boards import Boards, Kept
from app.jwks import BadToken, Issuer
from app.plans import plan_of
from campaigns.banner_stops import READ
from campaigns.board_reading import SEGMENTS_AND_MERGED, SHOWN, BoardReader
from db.transactions import Connection, apart, transaction
from profiles import keys
from profiles.models import KeyKind
from tests.app.caller import Caller, operation_text
from tests.app.test_api_banners import show
from tests.app.test_api_campaigns import instant
from tests.app.test_api_queries import statements
from tests.app.test_banner_serving import Moved, get, process, signed_in, titles, until

BANNERS = {"query": operation_text("Banners"), "variables": {"placements": ["home-top"]}}


@pytest.fixture
def clock() -> Moved:
    return Moved()


async def test_whoever_waits_for_a_reading_that_fails_does_not_try_again_in_turn(
    now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred fetches at once while PostgreSQL hangs wait for one timeout or two, not for a hundred."""
    workspace, readings = UUID(int=1), 0
    under_way, over = asyncio.Event(), asyncio.Event()

    async def refresh(self: BoardReader, *, now: datetime) -> Any:
        nonlocal readings
        readings += 1
        under_way.set()
        await over.wait()
        raise TimeoutError

    monkeypatch.setattr(BoardReader, "refresh", refresh)
    for was_read in (False, True):
        boards, readings = Boards(), 0
        under_way.clear()
        over.clear()
        kept = boards.kept[workspace] = Kept(BoardReader(workspace), 0.0)
        if was_read:
            kept.began_at = asyncio.get_running_loop().time() - 10
        asking = asyncio.gather(*(boards.kept_of(workspace, now=now) for _ in range(100)), return_exceptions=True)
        await under_way.wait()
        over.set()
        answers = await asking
        # One was under way when the others asked.
        assert readings == (1 if was_read else 2)
        if was_read:
            assert set(map(type, answers)) == {Kept}, "the last board"
        else:
            assert {getattr(answer, "code", None) for answer in answers} == {"UNAVAILABLE"}


async def test_a_known_key_waits_for_no_database_that_hangs(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request asks whether it is back, the others go on."""
    _, secret = await keys.create(workspace, name="busy", kind=KeyKind.SECRET, scopes=["read"])
    known = KnownKeys()
    assert await known.find(secret, now=now) is not None
    asked, over = asyncio.Event(), asyncio.Event()

    async def hangs(secret: str, *, now: datetime) -> None:
        asked.set()
        await over.wait()
        raise TimeoutError

    monkeypatch.setattr("app.auth.keys.find", hangs)
    later = now + timedelta(seconds=10)
    first = asyncio.create_task(known.find(secret, now=later))
    await asked.wait()
    over.set()
    assert await first is not None
    asked.clear()
    over.clear()
    later += timedelta(seconds=10)
    second = asyncio.create_task(known.find(secret, now=later))
    await asked.wait()
    async with asyncio.timeout(60):
        assert await known.find(secret, now=later + timedelta(seconds=1)) is not None
    assert not second.done()
    over.set()
    assert await second is not None


async def test_all_who_use_a_key_at_once_wait_for_one_look_up(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of them goes away in between."""
    _, secret = await keys.create(workspace, name="busy", kind=KeyKind.SECRET, scopes=["read"])
    known, find = KnownKeys(), keys.find
    looked_up, asked, over = 0, asyncio.Event(), asyncio.Event()

    async def looks_up(secret: str, *, now: datetime) -> keys.KeyIdentity | None:
        nonlocal looked_up
        looked_up += 1
        asked.set()
        await over.wait()
        return await find(secret, now=now)

    monkeypatch.setattr("app.auth.keys.find", looks_up)
    for later in (now, now + timedelta(seconds=10)):
        asked.clear()
        over.clear()
        users = [asyncio.create_task(known.find(secret, now=later)) for _ in range(20)]
        await asked.wait()
        users[0].cancel()
        over.set()
        _, *others = await asyncio.gather(*users, return_exceptions=True)
        assert {getattr(identity, "workspace_id", None) for identity in others} == {workspace}
    assert looked_up == 2
    assert not known.asked


async def test_a_known_key_of_a_provider_waits_for_no_provider_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are old: one token has them read anew, the others go on with the key that they name."""
    issuer = Issuer(jwks_url="https://id.example.com/", issuer="i", audience="a")
    known = issuer.keys["k"] = PyJWK({"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "kid": "k"})
    asked, over = asyncio.Event(), asyncio.Event()

    async def hangs() -> bytes:
        asked.set()
        await over.wait()
        return b"{}"

    monkeypatch.setattr(issuer, "fetch", hangs)
    monkeypatch.setattr(issuer, "read_at", float("-inf"))
    first = asyncio.create_task(issuer.key("k", "EdDSA"))
    await asked.wait()
    async with asyncio.timeout(60):
        assert await issuer.key("k", "EdDSA") is known
    assert not first.done()
    over.set()
    with pytest.raises(BadToken):  # and then they are older than anybody may rely on
        await first


async def test_a_revoked_key_is_noticed_though_answers_are_kept(
    console: Caller, workspace: UUID, clock: Moved, settings: Any, http: httpx2.AsyncClient
) -> None:
    """Six seconds after at the latest, however often it asked meanwhile."""
    row, secret = await keys.create(workspace, name="of an app", kind=KeyKind.PUBLISHABLE, scopes=["ingest"])
    await show(console, "Sale")
    async with process(settings, clock) as (_, client):
        app = Caller(client, workspace, secret)
        ada = await signed_in(console, app, "ada")
        await until(ada, ["Sale"], client)
        clock.ahead += timedelta(seconds=10)
        assert (await get(ada)).status_code == 200, "proven anew"
        await keys.revoke(workspace, row.id, now=clock())
        clock.ahead += timedelta(seconds=4)
        assert (await get(ada)).status_code == 200
        clock.ahead += timedelta(seconds=2)
        assert (await get(ada)).status_code == 401


async def test_a_reading_is_few_questions_at_one_instant(
    console: Caller, workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three where nothing has changed; and a content that is changed meanwhile is not taken for the one before."""
    campaign_id = await show(console, "Sale")
    reader, read_contents = BoardReader(workspace), BoardReader.read_contents

    async def changed_meanwhile(self: BoardReader, connection: Connection, shown: Any) -> Any:
        with apart():
            await console.data("CampaignUpdate", input={"id": campaign_id, "content": {"banner": {"title": "New"}}})
        return await read_contents(self, connection, shown)

    with monkeypatch.context() as patch:
        patch.setattr(BoardReader, "read_contents", changed_meanwhile)
        (then,) = (await reader.refresh(now=now)).board.places["home-top"].levels[0]
    (after,) = (await reader.refresh(now=now)).board.places["home-top"].levels[0]
    assert [(one.content_version, one.content.face.title) for one in (then, after)] == [(1, "Sale"), (2, "New")]
    with statements() as asked:
        await reader.refresh(now=now)
    assert asked == [" ".join(one.split()) for one in (SHOWN, SEGMENTS_AND_MERGED, READ)]
    with pytest.raises(ReadOnlySQLTransactionError):
        async with transaction(workspace, at_one_instant=True) as connection:
            await connection.execute("UPDATE placement SET name = 'x'")


async def test_nobody_without_a_key_has_a_document_read(
    http: httpx2.AsyncClient, app_caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(schema: Any, text: str, *rest: Any) -> Any:
        read.append(text)
        return plan_of(schema, text, *rest)

    monkeypatch.setattr(front, "plan_of", noted)
    for headers in ({}, {"Authorization": "Bearer mpk_made_up"}):
        assert (await http.post("/graphql", json=BANNERS, headers=headers)).status_code == 401
    assert read == []
    for _ in range(2):  # the first has it read in its turn, by what executes it
        assert (await http.post("/graphql", json=BANNERS, headers=app_caller.all_headers())).status_code == 200
    assert read[-1] == BANNERS["query"]


async def test_a_fault_of_the_quick_way_is_answered_by_the_usual_one(
    http: httpx2.AsyncClient, app_caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(fetches, "serve", fails)
    noted = []

    def note(fault: Exception, where: str) -> str:
        noted.append((str(fault), where))
        return "id"

    monkeypatch.setattr(front, "log_fault", note)
    response = await http.post("/graphql", json=BANNERS, headers=app_caller.all_headers())
    assert (response.status_code, orjson.loads(response.content)["data"]["banners"]["placements"][0]["banner"]) == (
        200,
        None,
    )
    assert noted == [("a fault of ours", "banners")]
    got = await get(app_caller)
    assert (got.status_code, got.json()["error"]["code"]) == (500, "INTERNAL")


async def test_an_answer_that_was_waited_for_is_kept_no_longer_for_that(
    console: Caller, app_caller: Caller, settings: Any, clock: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its banner ends in 50 seconds, of which PostgreSQL takes 30 to say who asks."""
    await show(console, "Sale", expiresAt=instant(seconds=50))
    see = viewers.see

    async def see_late(*asked: Any, **more: Any) -> Any:
        clock.ahead += timedelta(seconds=30)
        return await see(*asked, **more)

    async with process(settings, clock) as (_, client):
        app = Caller(client, app_caller.workspace_id, app_caller.key)
        await until(app, ["Sale"], client)
        monkeypatch.setattr("app.serving.see", see_late)
        got = await get(app)
        assert int(got.headers["cache-control"].rpartition("=")[2]) == got.json()["maxAgeSeconds"] <= 20
        for document in (BANNERS["query"], operation_text("Banners") + "query Other { workspace { id } }"):
            clock.ahead = timedelta(0)
            asked = BANNERS | {"query": document, "operationName": "Banners"}
            posted = await client.post("/graphql", json=asked, headers=app.all_headers())
            assert posted.json()["data"]["banners"]["maxAgeSeconds"] <= 20


async def test_a_reply_that_ended_while_its_key_was_looked_up_is_sent_no_more(
    console: Caller, app_caller: Caller, settings: Any, clock: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its banner ends in 50 seconds; PostgreSQL takes 60 to say whose the key is."""
    await show(console, "Sale", expiresAt=instant(seconds=50))
    find = KnownKeys.find

    async def find_late(*asked: Any, **more: Any) -> Any:
        clock.ahead += timedelta(seconds=60)
        return await find(*asked, **more)

    async with process(settings, clock) as (_, client):
        app = Caller(client, app_caller.workspace_id, app_caller.key)
        await until(app, ["Sale"], client)
        ada = app.with_headers(x_muster_viewer=(await get(app)).json()["viewerToken"])
        assert await titles(ada) == ["Sale"]
        clock.ahead += 2 * fetches.REMEMBERED
        monkeypatch.setattr(KnownKeys, "find", find_late)
        assert await titles(ada) == [None]
