"""What viewers did with banners, told by GraphQL and by POST: who may tell what, what counts, what it stops."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.banner_writer import BannerWriter
from app.metrics import REGISTRY
from campaigns import banner_counts, banner_tracking
from campaigns.banner_events import key
from profiles.models import KeyKind
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller, without_database
from tests.app.test_api_banners import placement, show
from tests.conftest import Database

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def always_read_boards_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.boards.OLDEST_S", 0.0)


async def fetched(caller: Caller, *places: str) -> dict[str, Any]:
    """What the caller sees in one placement."""
    answer = await caller.data("Banners", placements=places or ["home-top"])
    found: dict[str, Any] = answer["placements"][0]
    return found


async def token(caller: Caller) -> str:
    """The impression token of the banner that the caller sees."""
    found: str = (await fetched(caller))["banner"]["impressionToken"]
    return found


async def as_person(console: Caller, app: Caller, name: str, **more: Any) -> Caller:
    """The app with this person signed in."""
    await console.data("ProfileUpsert", input={"externalId": name})
    made = await console.data("ClientTokenCreate", input={"externalId": name, **more})
    return app.with_headers(x_muster_client_token=made["token"])


def event(
    kind: str, token: str, *, id: str = "", session: str | None = "s", at: datetime | None = None
) -> dict[str, Any]:
    return {
        "id": id or uuid4().hex,
        "kind": kind,
        "token": token,
        "sessionId": session,
        "occurredAt": (at or datetime.now(UTC)).isoformat(),
    }


async def track(caller: Caller, *events: dict[str, Any]) -> tuple[int, int]:
    """How many were accepted, and how many duplicates; none may be refused."""
    payload = await caller.data("BannerEventsTrack", input={"events": events})
    return payload["accepted"], payload["duplicates"]


async def post(caller: Caller, *events: Any, **headers: str) -> tuple[int, Any]:
    """Status and JSON of POST /v1/banner-events."""
    response = await caller.http.post(
        "/v1/banner-events", json={"events": events}, headers=caller.all_headers() | headers
    )
    return response.status_code, response.json()


async def sent_back(caller: Caller, *events: Any) -> tuple[int, str, str | None]:
    """Status, code and Retry-After of POST /v1/banner-events."""
    response = await caller.http.post("/v1/banner-events", json={"events": events}, headers=caller.all_headers())
    return response.status_code, response.json()["error"]["code"], response.headers.get("retry-after")


async def counts(console: Caller, campaign: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await console.data("CampaignBannerCounts", id=campaign, **more))["bannerCounts"]
    return found


NOTHING: dict[str, Any] = {
    "impressions": 0, "uniqueViewers": 0, "clicks": 0, "clickRate": None, "dismissals": 0, "hidden": 0, "days": []
}  # fmt: skip


async def test_what_viewers_did_is_counted_by_placement_and_day(console: Caller, app_caller: Caller) -> None:
    """Both ways in, a person and a stranger, today and the day before."""
    one = await show(console, "Sale")
    place = await placement(console)
    assert await counts(console, one) == NOTHING
    ada = await as_person(console, app_caller, "ada")
    hers, theirs = await token(ada), await token(app_caller)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert await track(ada, event("IMPRESSION", hers, session="1", at=yesterday), event("IMPRESSION", hers)) == (2, 0)
    status, answer = await post(
        app_caller, event("IMPRESSION", theirs), event("CLICK", theirs), event("DISMISS", theirs)
    )
    assert (status, answer) == (202, {"accepted": 3, "duplicates": 0, "errors": []})
    found = await counts(console, one)
    days = found.pop("days")
    assert found == {
        "impressions": 3, "uniqueViewers": 2, "clicks": 1, "clickRate": 1 / 3, "dismissals": 1, "hidden": 0
    }  # fmt: skip
    where = {"id": place, "key": "home-top"}
    assert days == [
        {"date": yesterday.date().isoformat(), "placement": where, "impressions": 1, "uniqueViewers": 1, "clicks": 0,
         "clickRate": 0.0, "dismissals": 0, "hidden": 0},
        {"date": datetime.now(UTC).date().isoformat(), "placement": where, "impressions": 2, "uniqueViewers": 2,
         "clicks": 1, "clickRate": 0.5, "dismissals": 1, "hidden": 0},
    ]  # fmt: skip
    last = yesterday.date().isoformat()
    assert [day["date"] for day in (await counts(console, one, last=last))["days"]] == [last]
    wrong = await console.ask("CampaignBannerCounts", id=one, first="2020-01-01")
    assert wrong["errors"][0]["extensions"] == {"code": "OUT_OF_RANGE", "field": ["first"]}
    assert await banner_counts.verify(console.workspace_id) == []


async def test_sent_again_a_batch_adds_nothing(console: Caller, app_caller: Caller) -> None:
    one = await show(console, "Sale")
    mine = await token(app_caller)
    batch = [event("IMPRESSION", mine), event("CLICK", mine), event("CLICK", mine)]
    assert await track(app_caller, *batch, batch[1]) == (3, 1)
    assert await post(app_caller, *batch) == (202, {"accepted": 0, "duplicates": 3, "errors": []})
    # The same token in the same session is the same impression, whatever its id.
    assert await track(app_caller, event("IMPRESSION", mine), event("IMPRESSION", mine, session="t")) == (1, 1)
    found = await counts(console, one)
    assert (found["impressions"], found["clicks"], found["uniqueViewers"]) == (2, 2, 1)


async def test_a_refused_event_does_not_hold_up_the_others(console: Caller, app_caller: Caller) -> None:
    await show(console, "Sale")
    mine = await token(app_caller)
    late = datetime.now(UTC) - timedelta(days=7, minutes=1)
    batch: list[Any] = [
        event("CLICK", mine),
        event("CLICK", mine, at=late),
        event("CLICK", mine[:-1] + ("A" if mine[-1] != "A" else "B")),
        event("HIDDEN", mine),
        event("IMPRESSION", mine, session=None),
        event("CLICK", mine, at=datetime.now(UTC) + timedelta(days=2)),
        event("CLICK", mine, id=" "),
        event("CLICK", mine, at=late + timedelta(minutes=5)),
    ]
    codes = [
        (1, "TOO_OLD", "occurredAt"), (2, "UNKNOWN_TOKEN", "token"), (3, "WRONG_KIND", "kind"),
        (4, "NOT_TEXT", "sessionId"), (5, "IN_THE_FUTURE", "occurredAt"), (6, "BLANK", "id"),
    ]  # fmt: skip
    answer = (await app_caller.ask("BannerEventsTrack", input={"events": batch}))["data"]["bannerEventsTrack"]
    assert (answer["accepted"], answer["duplicates"]) == (2, 0)
    assert [(e["field"], e["code"]) for e in answer["userErrors"]] == [
        (["input", "events", str(place), field], code) for place, code, field in codes
    ]
    batch += ["x", {"id": "1", "viewer": "p1"}, event("CLICK", mine) | {"occurredAt": None}, event("VIEW", mine)]
    status, answer = await post(app_caller, *batch)
    assert (status, answer["accepted"], answer["duplicates"]) == (202, 0, 2)
    assert [(e["index"], e["code"], e["field"]) for e in answer["errors"]] == [
        *((place, code, [field]) for place, code, field in codes),
        (8, "NOT_AN_OBJECT", None), (9, "UNKNOWN_FIELD", ["viewer"]), (10, "INVALID_TIME", ["occurredAt"]),
        (11, "INVALID_CHOICE", ["kind"]),
    ]  # fmt: skip


async def test_what_is_no_batch_is_refused(app_caller: Caller) -> None:
    headers = app_caller.all_headers() | {"Content-Type": "application/json"}
    for body, code in (("{", "INVALID_JSON"), ("[]", "NO_EVENTS"), ('{"events": {}}', "NO_EVENTS")):
        response = await app_caller.http.post("/v1/banner-events", content=body, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (400, code)
    status, answer = await post(app_caller, *([{}] * 1001))
    assert (status, answer["error"]["code"]) == (400, "TOO_MANY_ITEMS")
    many = [event("CLICK", "x")] * 1001
    assert await app_caller.refusal("BannerEventsTrack", input={"events": many}) == (
        "TOO_MANY_ITEMS",
        ["input", "events"],
    )
    text = await app_caller.http.post(
        "/v1/banner-events", content="{}", headers=app_caller.all_headers() | {"Content-Type": "text/plain"}
    )
    assert text.status_code == 415
    assert (await app_caller.http.post("/v1/banner-events", json={"events": []})).status_code == 401


async def test_answers_in_front_of_the_application_are_as_those_of_it(app_caller: Caller) -> None:
    """Status, headers, refusal and numbers are those of POST /v1/events, which goes through all of Starlette."""
    given = app_caller.all_headers() | {"Content-Type": "application/json", "Origin": "https://shop.example"}
    asked: list[tuple[int, bytes, dict[str, str]]] = [
        (202, b'{"events": []}', given | {"X-Request-Id": "from-a-proxy"}),
        (400, b"{", given),
        (400, b'{"events": ["\\u0000"]}', given),
        (401, b'{"events": []}', given | {"Authorization": "Bearer mpk_unknown"}),
        (400, b'{"events": [' + b"[]," * 100_000 + b"[]]}", given),
        (413, b" " * 1_000_001, given),
        (415, b'{"events": []}', given | {"Content-Type": "text/plain"}),
    ]
    for status, body, headers in asked:
        told = []
        for path in ("/v1/banner-events", "/v1/events"):
            before = REGISTRY.get_sample_value("muster_http_requests_total", {"route": path, "status": str(status)})
            response = await app_caller.http.post(path, content=body, headers=headers)
            after = REGISTRY.get_sample_value("muster_http_requests_total", {"route": path, "status": str(status)})
            assert (response.status_code, after) == (status, (before or 0) + 1)
            assert response.headers["x-request-id"] == headers.get("X-Request-Id", response.headers["x-request-id"])
            changing = {"server-timing", "x-request-id", "vary"}
            assert changing - {"vary"} <= response.headers.keys()
            kept = {name: value for name, value in response.headers.items() if name not in changing}
            told.append((kept, response.json()))
        assert told[0] == told[1], status

    async def pieces() -> AsyncIterator[bytes]:
        # No length is announced.
        yield b'{"eve'
        yield b'nts": []}'

    preflight = given | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    others: list[tuple[str, int, dict[str, Any]]] = [
        ("POST", 202, {"content": pieces, "headers": given}),
        ("GET", 405, {"headers": given}),
        ("HEAD", 405, {"headers": given}),
        ("OPTIONS", 200, {"headers": preflight}),
    ]
    for method, status, asking in others:
        both = []
        for path in ("/v1/banner-events", "/v1/events"):
            made = asking | ({"content": asking["content"]()} if "content" in asking else {})
            response = await app_caller.http.request(method, path, **made)
            assert response.status_code == status, (method, path)
            names = sorted(name for name in response.headers if name not in ("server-timing", "vary"))
            both.append((names, response.content))
        assert both[0] == both[1], method


async def test_what_breaks_is_named_and_not_told(app_caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 with an id to ask about, and nothing of the fault."""
    monkeypatch.setattr("app.banner_events.read_batch", lambda body: body["no such thing"])
    status, answer = await post(app_caller)
    assert (status, answer["error"]["code"]) == (500, "INTERNAL")
    assert answer["error"]["message"].startswith("Something went wrong on our side; ask about error ")


async def test_nobody_tells_of_what_somebody_else_saw(console: Caller, app_caller: Caller, foreigner: Caller) -> None:
    """A token names the viewer; one that is changed, made up or of another workspace is none."""
    one = await show(console, "Sale")
    ada = await as_person(console, app_caller, "ada")
    mine, hers = await token(app_caller), await token(ada)
    spoils: list[Callable[[str], str]] = [
        lambda text: text[:64] + hers[64:],
        lambda text: hers[:64] + text[64:],
        lambda text: text + "=",
        lambda text: text.swapcase(),
        lambda text: "A" * len(text),
    ]
    for spoil in spoils:
        _, answer = await post(app_caller, event("CLICK", spoil(mine)))
        assert [e["code"] for e in answer["errors"]] == ["UNKNOWN_TOKEN"]
    _, answer = await post(foreigner, event("CLICK", mine))
    assert [e["code"] for e in answer["errors"]] == ["UNKNOWN_TOKEN"]
    assert await counts(console, one) == NOTHING
    assert [one["code"] for one in (await fetched(ada))["banner"] and []] == []


async def test_a_banner_that_was_dismissed_stays_away_from_its_profile(console: Caller, app_caller: Caller) -> None:
    """And comes back when the rules do not say so any more."""
    one = await show(console, "Sale")
    ada, bob = await as_person(console, app_caller, "ada"), await as_person(console, app_caller, "bob")
    await track(ada, event("DISMISS", await token(ada)))
    assert (await fetched(ada))["banner"] is None
    assert (await fetched(bob))["banner"]["id"] == one
    limits = {"stopAfterDismissal": False}
    await console.data("CampaignUpdate", input={"id": one, "rules": {"limits": limits}})
    assert (await fetched(ada))["banner"]["id"] == one


async def test_limits_keep_a_banner_away_until_they_are_raised(console: Caller, app_caller: Caller) -> None:
    one = await show(console, "Sale", rules={"limits": {"lifetime": 2}})
    ada = await as_person(console, app_caller, "ada")
    hers = await token(ada)
    await track(ada, event("IMPRESSION", hers, session="1"))
    assert (await fetched(ada))["banner"]["id"] == one
    await track(ada, event("IMPRESSION", hers, session="2"))
    assert (await fetched(ada))["banner"] is None
    await console.data("CampaignUpdate", input={"id": one, "rules": {"limits": {"lifetime": 3}}})
    assert (await fetched(ada))["banner"]["id"] == one


async def test_what_is_held_back_is_counted_as_hidden(console: Caller, app_caller: Caller) -> None:
    one = await show(console, "Sale", rules={"holdoutPercent": 100})
    shown = await fetched(app_caller)
    assert (shown["banner"], len(shown["hidden"])) == (None, 1)
    assert await track(app_caller, event("HIDDEN", shown["hidden"][0]), event("HIDDEN", shown["hidden"][0])) == (1, 1)
    answer = await app_caller.ask("BannerEventsTrack", input={"events": [event("IMPRESSION", shown["hidden"][0])]})
    assert [e["code"] for e in answer["data"]["bannerEventsTrack"]["userErrors"]] == ["WRONG_KIND"]
    found = await counts(console, one)
    assert (found["hidden"], found["impressions"]) == (1, 0)


CRAWLER = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


async def test_machines_are_marked_and_counted_nowhere(console: Caller, app_caller: Caller) -> None:
    """Crawlers that run the scripts of pages; not the HTTP libraries of apps, and not the server that passes on."""
    one = await show(console, "Sale")
    machine = app_caller.with_headers(user_agent=CRAWLER)
    assert await track(machine, event("IMPRESSION", await token(machine))) == (1, 0)
    assert await counts(console, one) == NOTHING
    for known in (app_caller.with_headers(user_agent="okhttp/4.12.0"), console.with_headers(user_agent=CRAWLER)):
        assert await track(known, event("IMPRESSION", await token(known))) == (1, 0)
    assert (await counts(console, one))["impressions"] == 2


async def test_events_of_many_requests_are_written_together(
    console: Caller, app_caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is answered with what became of its own; a hundred at once take far fewer transactions."""
    one = await show(console, "Sale")
    mine = await token(app_caller)
    written: list[int] = []
    write = BannerWriter.write_all

    async def counting(self: BannerWriter, workspace_id: Any, taken: Any, events: Any) -> None:
        written.append(len(events))
        await write(self, workspace_id, taken, events)

    monkeypatch.setattr(BannerWriter, "write_all", counting)
    batches = [[event("CLICK", mine), event("CLICK", mine, id="the same")] for _ in range(50)]
    answers = await asyncio.gather(*(post(app_caller, *batch) for batch in batches))
    assert {status for status, _ in answers} == {202}
    assert sum(answer["accepted"] for _, answer in answers) == 51
    assert (sum(written), (await counts(console, one))["clicks"]) == (100, 51)
    assert len(written) < 50


async def test_events_that_cannot_be_written_hold_up_nobody_elses(
    console: Caller, app_caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that share a transaction do not share its failure: each is written by itself then."""
    one = await show(console, "Sale")
    mine = await token(app_caller)
    record, sizes = banner_tracking.record, []

    async def picky(workspace_id: Any, events: Any, *, now: datetime) -> Any:
        sizes.append(len(events))
        if any(event.event_key == key(b"poison") for event in events):
            raise asyncpg.DataError("a value that PostgreSQL refuses")
        return await record(workspace_id, events, now=now)

    monkeypatch.setattr(banner_tracking, "record", picky)
    batches = [[event("CLICK", mine)] for _ in range(20)] + [[event("CLICK", mine, id="poison")]]
    answers = await asyncio.gather(*(post(app_caller, *batch) for batch in batches))
    assert [status for status, _ in answers] == [202] * 20 + [500]
    assert (await counts(console, one))["clicks"] == 20
    assert max(sizes) > 1, "none shared a transaction"


async def test_beyond_what_can_be_written_events_are_sent_back_to_come_again(
    console: Caller, app_caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's are dropped: those that wait are written."""
    one = await show(console, "Sale")
    mine = await token(app_caller)
    monkeypatch.setattr("app.banner_writer.MOST_WAITING", 1)
    begun, go_on, record = asyncio.Event(), asyncio.Event(), banner_tracking.record

    async def held(*given: Any, **more: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await record(*given, **more)

    monkeypatch.setattr(banner_tracking, "record", held)
    written = asyncio.create_task(post(app_caller, event("CLICK", mine)))
    await begun.wait()
    others = [asyncio.create_task(post(app_caller, event("CLICK", mine))) for _ in range(5)]
    refused = [await answer for answer in islice(asyncio.as_completed(others, timeout=10), 3)]
    assert [(status, answer["error"]["code"]) for status, answer in refused] == [(503, "BUSY")] * 3
    assert await sent_back(app_caller, event("CLICK", mine)) == (503, "BUSY", "10")
    assert await app_caller.refusal("BannerEventsTrack", input={"events": [event("CLICK", mine)]}) == ("BUSY", None)
    go_on.set()
    taken = [status for status, _ in await asyncio.gather(written, *others)]
    assert (taken.count(202), (await counts(console, one))["clicks"]) == (3, 3)


async def test_while_the_database_is_away_events_are_sent_back_to_come_again(
    console: Caller, app_caller: Caller, caller: MakeCaller, workspace: UUID, database: Database
) -> None:
    """Nothing is taken that is not committed: 503, and the same batch is new when it comes again. So it is with a key
    of which this process knows nothing yet."""
    one = await show(console, "Sale")
    mine = await token(app_caller)
    new = await caller(workspace, kind=KeyKind.PUBLISHABLE)
    batch = [event("IMPRESSION", mine), event("CLICK", mine)]
    async with without_database(database):
        for app in (app_caller, new):
            assert await sent_back(app, *batch) == (503, "UNAVAILABLE", "10")
        assert await app_caller.error("BannerEventsTrack", input={"events": batch}) == {"code": "UNAVAILABLE"}
    assert await post(app_caller, *batch) == (202, {"accepted": 2, "duplicates": 0, "errors": []})
    assert (await counts(console, one))["clicks"] == 1
