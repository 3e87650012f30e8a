"""Subscriptions: told as it is, then what changed, until it is over; and what ends or refuses them."""

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import orjson
import pytest
import websockets
from limits import RateLimitItemPerMinute
from starlette.applications import Starlette

from app import followed, shares, sockets, streams
from app.following import Feed
from app.rates import SUBSCRIPTION_COST
from app.settings import Settings
from campaigns import counts
from profiles import keys
from profiles.models import KeyKind
from tests.app.caller import Caller, operation_text
from tests.app.conftest import MakeCaller, running
from tests.app.subscribing import PROTOCOL, Line, connected, line_of
from tests.app.test_api_campaigns import instant, make, people, work
from tests.app.test_api_evaluations import make as make_segment
from tests.app.test_api_evaluations import work as evaluate
from tests.app.test_api_server import (
    api_process,
    server,  # noqa: F401  # a fixture
)

FOLLOW = "subscription S($id: ID!) { campaignProgress(id: $id) { status } }"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the next second, and keys are proven at every turn."""
    monkeypatch.setattr("app.following.EVERY_S", 0.01)
    monkeypatch.setattr("app.streams.PROVEN_EVERY_S", 0.01)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Starlette]:
    async with running(settings) as app:
        yield app


@pytest.fixture
async def line(app: Starlette, console: Caller) -> AsyncIterator[Line]:
    async with line_of(app, console) as line:
        yield line


async def test_a_campaign_is_followed_from_where_it_is_to_its_end(console: Caller, line: Line) -> None:
    """S3-27: progress without asking again."""
    await people(console, "ada", "bob")
    campaign = await make(console)
    await line.subscribe("CampaignProgress", id=campaign)
    first = await line.told()
    assert (first["campaignId"], first["status"], first["progress"]) == (campaign, "DRAFT", None)
    await console.data("CampaignSchedule", input={"id": campaign, "at": instant(days=1)})
    assert (await line.told())["status"] == "SCHEDULED"
    await console.data("CampaignSend", input={"id": campaign})
    begun = await line.told()
    assert begun["status"] == "PREPARING"
    await work(console, campaign)
    while (last := await line.told())["status"] != "SENT":
        assert last["status"] in ("PREPARING", "SENDING")
    assert (last["progress"]["audience"], last["progress"]["sent"]) == (2, 2)
    assert last["progress"]["finishedAt"] is not None
    assert await line.hear() == {"type": "complete", "id": "1"}


async def test_one_that_is_sent_while_it_is_looked_up_is_not_told_as_waiting_with_a_ledger(
    console: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await people(console, "ada")
    campaign = await make(console)
    count = counts.of_campaigns

    async def sent_meanwhile(workspace_id: UUID, campaign_ids: list[UUID]) -> dict[UUID, counts.Progress]:
        await console.data("CampaignSend", input={"id": campaign})
        return await count(workspace_id, campaign_ids)

    monkeypatch.setattr(counts, "of_campaigns", sent_meanwhile)
    (state,) = (
        await followed.campaign_states(console.workspace_id, [UUID(hex=campaign.removeprefix("cmp_"))])
    ).values()
    assert state.progress is not None
    assert state.standing.status == "PREPARING"


async def test_an_evaluation_is_followed_and_the_first_one_waited_for(console: Caller, line: Line) -> None:
    segment = await make_segment(console)
    await line.subscribe("SegmentEvaluationUpdated", segmentId=segment)
    await console.data("SegmentActivate", input={"id": segment})
    assert (await line.told())["status"] in ("QUEUED", "RUNNING")
    await evaluate(console)
    while (last := await line.told())["status"] != "SUCCEEDED":
        assert last["status"] == "RUNNING"
    assert last["finishedAt"] is not None
    assert await line.hear() == {"type": "complete", "id": "1"}


async def test_who_comes_after_the_end_is_told_how_it_ended(console: Caller, line: Line) -> None:
    campaign = await make(console)
    await console.data("CampaignSchedule", input={"id": campaign, "at": instant(days=1)})
    await console.data("CampaignCancel", input={"id": campaign})
    await line.subscribe("CampaignProgress", id=campaign)
    assert (await line.told())["status"] == "CANCELLED"
    assert await line.hear() == {"type": "complete", "id": "1"}


async def test_what_is_deleted_is_over(console: Caller, line: Line) -> None:
    campaign = await make(console)
    await line.subscribe("CampaignProgress", id=campaign)
    assert (await line.told())["status"] == "DRAFT"
    await console.data("CampaignDelete", input={"id": campaign})
    assert await line.hear() == {"type": "complete", "id": "1"}


async def test_however_many_follow_a_workspace_is_looked_at_once_a_turn(console: Caller, app: Starlette) -> None:
    campaigns = sorted([UUID(hex=(await make(console, name=str(n))).removeprefix("cmp_")) for n in range(3)])
    looks: list[list[UUID]] = []
    feed = Feed(followed.campaign_states, is_final=lambda state: state.is_final)
    following = [feed.follow(console.workspace_id, id) for id in campaigns for _ in range(4)]
    for one in following:
        await anext(one)

    async def counted(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, followed.CampaignState]:
        looks.append(ids)
        return await followed.campaign_states(workspace_id, ids)

    feed.look = counted
    changes = [asyncio.ensure_future(anext(one)) for one in following]
    await asyncio.sleep(0)
    for id in campaigns:
        await console.data("CampaignSchedule", input={"id": f"cmp_{id.hex}", "at": instant(days=1)})
    await asyncio.gather(*changes)
    assert looks
    assert all(sorted(ids) == campaigns for ids in looks)
    for one in following:
        await one.aclose()
    await feed.close()
    assert feed.followers == {}


async def test_one_key_has_so_many_subscriptions_and_no_more(
    console: Caller, app: Starlette, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.services.shares, "most", 1)
    campaign = await make(console)
    await line.subscribe("CampaignProgress", id=campaign)
    await line.told()
    async with line_of(app, console) as other:
        await other.subscribe("CampaignProgress", id=campaign)
        refused = await other.hear()
        assert refused["type"] == "error"
        assert refused["payload"][0]["extensions"]["code"] == "TOO_MANY_SUBSCRIPTIONS"
        # It is over, and told so, when it holds no share any more.
        await console.data("CampaignDelete", input={"id": campaign})
        assert await line.hear() == {"type": "complete", "id": "1"}
        campaign = await make(console)
        await other.subscribe("CampaignProgress", id=campaign)
        assert (await other.told())["status"] == "DRAFT"
    assert shares.MOST_A_CALLER == 100


async def test_a_connection_is_closed_once_its_key_is_revoked(
    console: Caller, app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.auth.REMEMBERED", timedelta(0))
    row, secret = await keys.create(console.workspace_id, name="short", kind=KeyKind.SECRET, scopes=["read"])
    campaign = await make(console)
    async with connected(app) as line:
        await line.begin(secret)
        await line.subscribe("CampaignProgress", id=campaign)
        await line.told()
        await keys.revoke(console.workspace_id, row.id, now=row.created_at)
        assert await line.end() == 4403
    assert not app.state.services.shares.open


async def close_code(app: Starlette, *messages: str, **how: Any) -> int:
    """With which code the server closes a connection that says this."""
    async with connected(app, **how) as line:
        for text in messages:
            await line.say_text(text)
        return await line.end()


INIT = '{"type":"connection_init","payload":{"Authorization":"Bearer KEY"}}'
SUBSCRIBE = '{"type":"subscribe","id":"1","payload":{"query":"subscription { x }"}}'
BREACHES: dict[str, tuple[tuple[str, ...], int]] = {
    "subscribes before it began": ((SUBSCRIBE,), 4401),
    "has no key": (('{"type":"connection_init"}',), 4403),
    "has a wrong key": ((INIT.replace("KEY", "msk_x"),), 4403),
    "begins twice": ((INIT, INIT), 4429),
    "has two of one id": ((INIT, SUBSCRIBE, SUBSCRIBE), 4409),
    "sends what is no JSON": ((INIT, "{"), 4400),
    "sends what is no object": ((INIT, "[]"), 4400),
    "sends an unknown message": ((INIT, '{"type":"start"}'), 4400),
    "sends an id that is none": ((INIT, SUBSCRIBE.replace('"1"', "1")), 4400),
    "has no payload": ((INIT, '{"type":"subscribe","id":"1"}'), 4400),
    "sends too much at once": ((INIT, INIT.replace("KEY", "x" * sockets.LARGEST_MESSAGE)), 4400),
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_who_breaks_the_protocol_is_cut_off(app: Starlette, console: Caller, breach: str) -> None:
    messages, code = BREACHES[breach]
    assert await close_code(app, *(text.replace("KEY", str(console.key)) for text in messages)) == code


async def test_another_protocol_is_not_spoken(app: Starlette) -> None:
    assert await close_code(app, protocols=("graphql-ws",)) == 4406


async def test_who_does_not_begin_is_cut_off(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sockets.BEGINS_WITHIN_S <= 5
    monkeypatch.setattr(sockets, "BEGINS_WITHIN_S", 0.01)
    assert await close_code(app) == 4408
    assert await close_code(app, '{"type":"ping"}') == 4408


async def test_a_ping_is_answered(line: Line) -> None:
    await line.say("ping")
    assert await line.hear() == {"type": "pong"}


REFUSED = {
    "does not parse": ("subscription {", "BAD_REQUEST"),
    "is not valid": ("subscription { nothing }", "BAD_REQUEST"),
    "is a query": ("{ workspace { id } }", "BAD_REQUEST"),
    "is a mutation": ('mutation { campaignSend(input: {id: "x"}) { userErrors { code } } }', "BAD_REQUEST"),
    "asks too much": ("subscription { " + "a" * 20_001 + " }", "TOO_COMPLEX"),
    "names nothing of ours": (FOLLOW.replace("$id)", '"x")').replace("($id: ID!)", ""), "INVALID_ID"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_begin_is_refused_and_the_connection_stays(line: Line, what: str) -> None:
    query, code = REFUSED[what]
    await line.say("subscribe", id="1", payload={"query": query})
    refused = await line.hear()
    assert (refused["type"], refused["id"]) == ("error", "1")
    (error,) = refused["payload"]
    assert error.get("extensions", {}).get("code", "BAD_REQUEST") == code
    await line.say("ping")
    assert await line.hear() == {"type": "pong"}


async def test_nobody_follows_without_the_right_or_what_is_another_tenants(
    console: Caller, caller: MakeCaller, foreigner: Caller, app: Starlette
) -> None:
    """T-25, and scopes."""
    campaign, segment = await make(console), await make_segment(console)
    for who, code in ((foreigner, "NOT_FOUND"), (await caller(console.workspace_id, "ingest"), "FORBIDDEN")):
        async with line_of(app, who) as line:
            await line.subscribe("CampaignProgress", id=campaign)
            assert (await line.hear())["payload"][0]["extensions"]["code"] == code
            await line.subscribe("SegmentEvaluationUpdated", segmentId=segment)
            assert (await line.hear())["payload"][0]["extensions"]["code"] == code


async def test_a_subscription_is_no_request_with_one_answer(console: Caller) -> None:
    answer = await console.post(FOLLOW, {"id": await make(console)})
    assert answer.status_code == 406
    assert "text/event-stream" in answer.text


async def test_a_document_that_is_refused_costs_what_any_other_does(app: Starlette, line: Line) -> None:
    """Else a key could have one after the other read for nothing."""
    rates = app.state.services.rates
    rates.most, rates.item = 1, RateLimitItemPerMinute(1)
    for code in ("RATE_LIMITED", "RATE_LIMITED"):
        await line.say("subscribe", id="1", payload={"query": "subscription {"})
        assert (await line.hear())["payload"][0]["extensions"]["code"] == code


async def test_a_subscription_costs_points_as_any_other_operation_does(
    app: Starlette, console: Caller, line: Line
) -> None:
    campaign, rates = await make(console), app.state.services.rates
    rates.most, rates.item = SUBSCRIPTION_COST, RateLimitItemPerMinute(SUBSCRIPTION_COST)
    await line.subscribe("CampaignProgress", id=campaign)
    assert (await line.told())["status"] == "DRAFT"
    await line.subscribe("CampaignProgress", at="2", id=campaign)
    refused = await line.hear()
    assert (refused["id"], refused["payload"][0]["extensions"]["code"]) == ("2", "RATE_LIMITED")


async def test_nobody_is_cut_off_because_nobody_can_tell_who_they_are(
    app: Starlette, console: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database is away; as soon as it says no, they are."""
    services, headers = app.state.services, {"authorization": f"Bearer {console.key}"}
    monkeypatch.setattr("app.auth.REMEMBERED_AWAY", timedelta(0))

    async def away(secret: str, *, now: datetime) -> None:
        raise ConnectionError

    async def unknown(secret: str, *, now: datetime) -> None:
        return None

    for find, still in ((away, True), (unknown, False)):
        monkeypatch.setattr(keys, "find", find)
        assert await streams.is_proven(services, headers) is still


async def test_a_connection_has_so_many_subscriptions_and_no_more(
    console: Caller, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MOST_OPERATIONS", 1)
    campaign = await make(console)
    await line.subscribe("CampaignProgress", id=campaign)
    await line.told()
    await line.subscribe("CampaignProgress", at="2", id=campaign)
    refused = await line.hear()
    assert (refused["id"], refused["payload"][0]["extensions"]["code"]) == ("2", "TOO_MANY_SUBSCRIPTIONS")
    await line.say("complete", id="1")
    await line.subscribe("CampaignProgress", at="2", id=campaign)
    assert (await line.told("2"))["status"] == "DRAFT"


async def test_apps_hold_no_connections(app: Starlette, app_caller: Caller) -> None:
    """They can follow nothing, and everybody has their key."""
    assert await close_code(app, INIT.replace("KEY", str(app_caller.key))) == 4403


async def test_who_accepts_json_too_is_answered_with_it(console: Caller) -> None:
    """What clients such as urql send with each query."""
    both = "application/graphql-response+json, application/json, text/event-stream, multipart/mixed"
    assert (await console.with_headers(Accept=both).data("Workspace"))["name"]


def test_the_reason_of_a_close_fits_into_its_frame() -> None:
    assert len(sockets.Closed(4409, "\u00e9" * 200).reason.encode()) <= 123


# --- on a real server ---------------------------------------------------------------------------------------------


async def test_both_ways_work_on_a_real_server(server: str, console: Caller) -> None:  # noqa: F811
    campaign = await make(console)
    asked = {"query": operation_text("CampaignProgress"), "variables": {"id": campaign}}
    headers = console.all_headers()
    async with (
        websockets.connect(
            server.replace("http", "ws") + "/graphql", subprotocols=[websockets.Subprotocol(PROTOCOL)]
        ) as line,
        httpx2.AsyncClient(base_url=server, timeout=60) as http,
        http.stream("POST", "/graphql", json=asked, headers=headers | {"Accept": "text/event-stream"}) as events,
    ):
        await line.send(orjson.dumps({"type": "connection_init", "payload": headers}).decode())
        assert orjson.loads(await line.recv()) == {"type": "connection_ack"}
        await line.send(orjson.dumps({"type": "subscribe", "id": "1", "payload": asked}).decode())
        assert orjson.loads(await line.recv())["payload"]["data"]["campaignProgress"]["status"] == "DRAFT"
        assert events.headers["content-type"].startswith("text/event-stream")
        told = events.aiter_lines()
        assert await anext(told) == "event: next"
        assert orjson.loads((await anext(told)).removeprefix("data: "))["data"]["campaignProgress"]["status"] == "DRAFT"
        await console.data("CampaignSchedule", input={"id": campaign, "at": instant(days=1)})
        await console.data("CampaignCancel", input={"id": campaign})
        over = [text async for text in told if text and not text.startswith(":")]
        assert '"status":"CANCELLED"' in over[-3]
        assert over[-2:] == ["event: complete", "data:"]
        while (heard := orjson.loads(await line.recv()))["type"] == "next":
            assert heard["payload"]["data"]["campaignProgress"]["status"] in ("SCHEDULED", "CANCELLED")
        assert heard == {"type": "complete", "id": "1"}
        await line.send(" " * 70_000)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await line.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_a_server_that_stops_does_not_wait_for_streams(
    environ: dict[str, str], tmp_path: Path, console: Caller
) -> None:
    asked = {"query": operation_text("CampaignProgress"), "variables": {"id": await make(console)}}
    headers = console.all_headers() | {"Accept": "text/event-stream"}
    log = tmp_path / "log"
    async with (
        api_process(environ, log) as (url, process),
        httpx2.AsyncClient(base_url=url, timeout=60) as http,
        http.stream("POST", "/graphql", json=asked, headers=headers) as events,
    ):
        told = events.aiter_lines()
        assert await anext(told) == "event: next"
        process.terminate()
        # It was broken off, which is no end of what is followed: the client asks again.
        assert "event: complete" not in [text async for text in told]
    assert process.exitcode in (0, -signal.SIGTERM)
    assert "timeout graceful shutdown exceeded" not in log.read_text()
