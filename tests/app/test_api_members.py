"""Members over GraphQL and HTTP: listed by profile and rank, as of an instant, followed, asked about, exported."""

import asyncio
import csv
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx2
import pytest
from starlette.types import Scope, Send

from app.checks import ROUTE, Checks
from app.problems import ApiError
from db.transactions import across_workspaces
from profiles.models import KeyKind
from segments import changes, cycles, exporting, pulse
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller
from tests.segments.factories import SOURCES

pytestmark = pytest.mark.usefixtures("lone_database")

NOWHERE = "seg_" + "0" * 32
PREMIUM = {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}}
ODD = ["a/b", "100%", "a b?c#d&e=f", "ünï/😀", "..", "x,y", "c+d"]


async def make(console: Caller, *names: str, **wanted: Any) -> str:
    """The id of a new static segment with these people in it."""
    made = await console.data("SegmentCreate", input={"name": "VIPs", "type": "STATIC"} | wanted)
    segment_id: str = made["segment"]["id"]
    if names:
        await console.data("SegmentMembersAdd", input={"id": segment_id, "externalIds": list(names)})
    return segment_id


async def people(console: Caller, **traits: dict[str, Any]) -> None:
    """Known people with their traits, by external id."""
    inputs = [{"externalId": name, "traits": of} for name, of in traits.items()]
    await console.data("ProfilesUpsert", input={"profiles": inputs})


async def evaluated(console: Caller, **wanted: Any) -> str:
    """The id of a dynamic segment that is active and evaluated."""
    segment_id = await make(console, type="DYNAMIC", **wanted)
    await console.data("SegmentActivate", input={"id": segment_id})
    await cycles.run(console.workspace_id, sources=SOURCES)
    return segment_id


async def listed(console: Caller, segment_id: str, *, of: int = 100, **how: Any) -> list[dict[str, Any]]:
    """The edges of a segment's members, page by page."""
    edges: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        page = (await console.data("SegmentMembers", id=segment_id, first=of, after=after, **how))["members"]
        edges += page["edges"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return edges


def in_order(edges: list[dict[str, Any]]) -> list[tuple[str, int | None, float | None]]:
    return [(edge["node"]["externalId"], edge["rank"], edge["rankValue"]) for edge in edges]


async def told(console: Caller, segment_id: str, after: str | None = None) -> list[tuple[str, str, float | None]]:
    """What the feed says, page by page."""
    found: list[tuple[str, str, float | None]] = []
    while True:
        page = (await console.data("SegmentChanges", id=segment_id, first=2, after=after))["changes"]
        nodes = [edge["node"] for edge in page["edges"]]
        found += [(one["kind"], one["profile"]["externalId"], one["rankValue"]) for one in nodes]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


async def database_now() -> datetime:
    async with across_workspaces() as connection:
        instant: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return instant


# --- lists --------------------------------------------------------------------------------------------------------


async def test_members_stand_in_rank_order_and_a_changed_value_moves_them(console: Caller) -> None:
    """S0-10, S0-11: ranked by a trait, the first three; a change of it reorders them, and is told in the feed."""
    spent = {"ada": 5, "bob": 9, "cyd": 7, "dan": 1}
    await people(console, **{name: {"plan": "premium", "spent": value} for name, value in spent.items()})
    await people(console, eve={"plan": "premium"}, fay={"plan": "free", "spent": 99})
    ranking = {"by": {"trait": "spent"}, "direction": "DESC", "top": 3}
    one = await evaluated(console, definition=PREMIUM, ranking=ranking)
    for size in (1, 100):
        edges = await listed(console, one, of=size, orderBy="RANK")
        assert in_order(edges) == [("bob", 1, 9.0), ("cyd", 2, 7.0), ("ada", 3, 5.0)]
    assert in_order(await listed(console, one)) == [("ada", None, 5.0), ("bob", None, 9.0), ("cyd", None, 7.0)]
    end = (await console.data("SegmentChanges", id=one))["changesEnd"]

    await people(console, cyd={"spent": 12}, dan={"spent": 6})
    await pulse.beat(console.workspace_id, sources=SOURCES)
    edges = await listed(console, one, orderBy="RANK")
    assert in_order(edges) == [("cyd", 1, 12.0), ("bob", 2, 9.0), ("dan", 3, 6.0)]
    assert await told(console, one, end) == [
        ("EXITED", "ada", None),
        ("ENTERED", "dan", 6.0),
        ("RERANKED", "cyd", 12.0),
    ]


async def test_only_ranked_segments_are_listed_by_rank_and_only_now(console: Caller) -> None:
    plain = await make(console)
    error = await console.error("SegmentMembers", id=plain, orderBy="RANK")
    assert error["code"] == "NOT_RANKED"
    ranked = await evaluated(console, name="ranked", definition=PREMIUM, ranking={"by": {"trait": "spent"}})
    error = await console.error("SegmentMembers", id=ranked, orderBy="RANK", asOf="2026-01-01T00:00:00Z")
    assert error["code"] == "RANK_IS_OF_NOW"


async def test_who_was_in_at_an_instant_is_told_afterwards(console: Caller) -> None:
    await people(console, ada={}, bob={}, cyd={})
    before = await database_now()
    one = await make(console, "ada", "bob")
    between = await database_now()
    await console.data("SegmentMembersRemove", input={"id": one, "externalIds": ["ada"]})
    await console.data("SegmentMembersAdd", input={"id": one, "externalIds": ["cyd"]})

    async def at(instant: datetime | None) -> list[str]:
        edges = await listed(console, one, of=1, asOf=instant and instant.isoformat())
        return [edge["node"]["externalId"] for edge in edges]

    assert await at(before) == []
    assert await at(between) == ["ada", "bob"]
    assert await at(None) == await at(await database_now()) == ["bob", "cyd"]
    assert await at(await database_now() + timedelta(seconds=30)) == ["bob", "cyd"]  # of a clock that is fast
    tomorrow = await database_now() + timedelta(days=1)
    everyone = (await console.data("Segments", type="EVERYONE"))["edges"][0]["node"]["id"]
    for segment in (one, everyone):
        error = await console.error("SegmentMembers", id=segment, asOf=tomorrow.isoformat())
        assert error["code"] == "AS_OF_AHEAD"


async def test_everyone_lists_all_who_live_anonymous_visitors_included(console: Caller) -> None:
    """S3-03, S3-29."""
    await people(console, ada={}, bob={})
    event = {"messageId": "1", "name": "seen", "anonymousId": "someone"}
    await console.data("EventsTrack", input={"events": [event]})
    (edge,) = [one["node"] for one in (await console.data("Segments"))["edges"] if one["node"]["type"] == "EVERYONE"]
    edges = await listed(console, edge["id"], of=2)
    assert [one["node"]["externalId"] for one in edges] == ["ada", "bob", None]
    assert await listed(console, edge["id"], asOf="2020-01-01T00:00:00Z") == []


async def test_a_profile_knows_its_segments(console: Caller) -> None:
    await people(console, ada={}, bob={})
    await make(console, "ada", name="one")
    await make(console, "ada", "bob", name="two")
    ada = await console.data("Profile", externalId="ada")
    assert sorted(one["name"] for one in ada["segments"]) == ["one", "two"]
    assert sorted(one["segment"]["name"] for one in ada["memberships"]) == ["one", "two"]
    assert [one["name"] for one in (await console.data("Profile", externalId="bob"))["segments"]] == ["two"]


async def test_cursors_of_another_list_are_refused(console: Caller) -> None:
    one = await make(console)
    for operation, after in (("SegmentMembers", "x"), ("SegmentMembers", "OTk5OTk5OTk5OTk5"), ("SegmentChanges", "MQ")):
        assert (await console.error(operation, id=one, after=after))["code"] == "INVALID_CURSOR"


# --- the feed -----------------------------------------------------------------------------------------------------


async def test_the_feed_tells_each_change_once_and_goes_on_where_it_was_left(console: Caller) -> None:
    """S0-08, S0-09 as a reader sees them."""
    await people(console, ada={}, bob={}, cyd={})
    one = await make(console, "ada", "bob", "cyd")
    assert await told(console, one) == [("ENTERED", "ada", None), ("ENTERED", "bob", None), ("ENTERED", "cyd", None)]
    page = await console.data("SegmentChanges", id=one, first=3)
    end = page["changes"]["pageInfo"]["endCursor"]
    assert await told(console, one, end) == await told(console, one, page["changesEnd"]) == []
    await console.data("SegmentMembersRemove", input={"id": one, "externalIds": ["bob"]})
    assert await told(console, one, end) == [("EXITED", "bob", None)]


async def test_a_cursor_into_what_is_forgotten_is_refused(console: Caller) -> None:
    await people(console, ada={}, bob={})
    one = await make(console, "ada")
    old = (await console.data("SegmentChanges", id=one))["changesEnd"]
    await console.data("SegmentMembersAdd", input={"id": one, "externalIds": ["bob"]})
    await changes.forget(console.workspace_id, now=datetime.now(UTC) + timedelta(days=31))
    error = await console.error("SegmentChanges", id=one, after=old)
    assert error["code"] == "CURSOR_TOO_OLD"


# --- checks -------------------------------------------------------------------------------------------------------


async def test_only_members_are_in_for_experiments(console: Caller) -> None:
    """S3-28: one person, many people of one segment, many segments of one person."""
    await people(console, ada={}, bob={})
    one, other = await make(console, "ada"), await make(console, "bob", name="other")
    assert await console.data("IsMember", segmentId=one, externalId="ada") is True
    assert await console.data("IsMember", segmentId=one, externalId="bob") is False
    assert await console.data("IsMember", segmentId=one, externalId="nobody") is False
    checks = await console.data("AreMembers", segmentId=one, externalIds=["bob", "ada", "", "ada"])
    assert checks == [
        {"externalId": "bob", "member": False},
        {"externalId": "ada", "member": True},
        {"externalId": "", "member": False},
        {"externalId": "ada", "member": True},
    ]
    flags = await console.data("MemberOf", externalId="ada", segmentIds=[other, one])
    assert flags == [{"segmentId": other, "member": False}, {"segmentId": one, "member": True}]


async def test_checks_of_what_is_not_there_or_too_many_are_refused(console: Caller, foreigner: Caller) -> None:
    one = await make(console)
    for operation, variables, code in (
        ("IsMember", {"segmentId": NOWHERE, "externalId": "ada"}, "NOT_FOUND"),
        ("AreMembers", {"segmentId": NOWHERE, "externalIds": ["ada"]}, "NOT_FOUND"),
        ("AreMembers", {"segmentId": one, "externalIds": ["ada"] * 1001}, "TOO_MANY_ITEMS"),
        ("MemberOf", {"externalId": "ada", "segmentIds": [one, NOWHERE]}, "NOT_FOUND"),
        ("MemberOf", {"externalId": "ada", "segmentIds": [one] * 101}, "TOO_MANY_ITEMS"),
    ):
        assert (await console.error(operation, **variables))["code"] == code
    assert (await foreigner.error("IsMember", segmentId=one, externalId="ada"))["code"] == "NOT_FOUND"


async def test_a_check_over_http_takes_any_external_id(console: Caller, http: httpx2.AsyncClient) -> None:
    """S3-28 over REST: percent-encoded, whatever the characters."""
    await people(console, **{name: {} for name in [*ODD, "out"]})
    one = await make(console, *ODD)

    async def check(name: str) -> Any:
        path = f"/v1/segments/{one}/members/{quote(name, safe='')}"
        response = await http.get(path, headers=console.all_headers())
        assert (response.status_code, response.headers["cache-control"]) == (200, "no-store"), name
        return response.json()

    for name in ODD:
        # A client takes ".." for the folder above before it asks; such ids go into a batch.
        if name != "..":
            assert await check(name) == {"member": True}, name
    for name in ("out", "nobody", "a", "%00", "x" * 2000):
        assert await check(name) == {"member": False}, name


async def test_a_check_answered_in_front_is_the_answer_of_the_usual_way(
    console: Caller,
    caller: MakeCaller,
    http: httpx2.AsyncClient,
    workspace: UUID,
    foreigner: Caller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S3-28: byte for byte, counted under the same route, refusals too."""
    await people(console, **{name: {} for name in [*ODD, "out"]})
    one = await make(console, *ODD)
    feeder = await caller(workspace, "ingest")
    mine = console.all_headers()
    in_front: list[bool] = []
    answer = Checks.answer

    async def watched(checks: Checks, scope: Scope, send: Send) -> bool:
        in_front.append(await answer(checks, scope, send))
        return in_front[-1]

    async def passed_on(checks: Checks, scope: Scope, send: Send) -> bool:
        return False

    async def asked(segment_id: str, name: str, headers: dict[str, str]) -> Any:
        path = f"/v1/segments/{segment_id}/members/{quote(name, safe='')}"
        response = await http.get(path, headers=headers | {"X-Request-Id": "mine"})
        lines = [pair for pair in response.headers.raw if pair[0] != b"server-timing"]
        assert len(lines) == len(response.headers.raw) - 1
        return response.status_code, lines, response.content

    cases: list[tuple[str, str, dict[str, str], bool]] = [
        *((one, name, mine, True) for name in [*ODD, "out", "nobody", "", "%00", "\n"] if name != ".."),
        (one, "c+d", mine | {"Origin": "https://shop.example"}, False),
        (NOWHERE, "out", mine, False),
        ("x", "out", mine, False),
        (one, "out", {}, False),
        (one, "out", {"Authorization": "Bearer msk_wrong"}, False),
        (one, "out", feeder.all_headers(), False),
        (one, "out", foreigner.all_headers(), False),
    ]
    for segment_id, name, headers, is_plain in cases:
        monkeypatch.setattr(Checks, "answer", watched)
        before = await counts(http)
        given = await asked(segment_id, name, headers)
        assert in_front[-1] is is_plain is (given[0] == 200 and "Origin" not in headers), name
        between = await counts(http)
        monkeypatch.setattr(Checks, "answer", passed_on)
        assert await asked(segment_id, name, headers) == given, (segment_id, name)
        assert between - before == await counts(http) - between == Counter({str(given[0]): 1}), name


async def test_a_check_that_breaks_in_front_is_logged_and_answered_the_usual_way(
    console: Caller, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, as an error; what is refused or comes of a database that is away is the usual way's to tell."""
    await people(console, ada={})
    one = await make(console, "ada")
    told = []
    for fault in (ZeroDivisionError(), ApiError("FORBIDDEN", "No."), OSError()):
        caplog.clear()

        async def broken(*_: Any, fault: Exception = fault, **__: Any) -> bool:
            raise fault

        monkeypatch.setattr(Checks, "check", broken)
        answer = await http.get(f"/v1/segments/{one}/members/ada", headers=console.all_headers())
        assert (answer.status_code, answer.json()) == (200, {"member": True})
        told.append([(line.levelname, getattr(line, "where", None)) for line in caplog.records if line.levelno >= 40])
    assert told == [[("ERROR", "member checks")], [], []]


async def counts(http: httpx2.AsyncClient) -> Counter[str]:
    """Checks of one person by status, as operators see them counted."""
    text = (await http.get("/metrics")).text
    lines = re.findall(rf'^muster_http_requests_total{{route="{re.escape(ROUTE)}",status="(\d+)"}} (\S+)$', text, re.M)
    return Counter({status: int(float(many)) for status, many in lines})


async def test_many_are_checked_at_once_over_http(console: Caller, http: httpx2.AsyncClient) -> None:
    await people(console, ada={}, bob={}, **{"..": {}})
    one, other = await make(console, "ada", ".."), await make(console, "bob", name="other")

    async def post(path: str, body: Any) -> httpx2.Response:
        return await http.post(path, json=body, headers=console.all_headers())

    answer = await post(f"/v1/segments/{one}/members:check", {"externalIds": ["ada", "bob", "..", "nobody"]})
    assert answer.json() == {"members": {"ada": True, "bob": False, "..": True, "nobody": False}}
    answer = await post("/v1/segments:check", {"externalId": "ada", "segmentIds": [one, other]})
    assert answer.json() == {"segments": {one: True, other: False}}
    assert answer.headers["cache-control"] == "no-store"
    for path, body, status, code in (
        (f"/v1/segments/{one}/members:check", {"externalIds": "ada"}, 400, "NOT_TEXTS"),
        (f"/v1/segments/{one}/members:check", [], 400, "NOT_AN_OBJECT"),
        (f"/v1/segments/{one}/members:check", {"externalIds": ["a"] * 1001}, 400, "TOO_MANY_ITEMS"),
        (f"/v1/segments/{NOWHERE}/members:check", {"externalIds": ["ada"]}, 404, "NOT_FOUND"),
        ("/v1/segments/x/members:check", {"externalIds": ["ada"]}, 400, "INVALID_ID"),
        ("/v1/segments:check", {"segmentIds": [one]}, 400, "NOT_TEXT"),
        ("/v1/segments:check", {"externalId": "ada", "segmentIds": [NOWHERE]}, 404, "NOT_FOUND"),
    ):
        answer = await post(path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    answer = await http.post(f"/v1/segments/{one}/members:check", content=b"{}", headers=console.all_headers())
    assert answer.status_code == 415
    answer = await http.post(
        f"/v1/segments/{one}/members:check",
        content=b"{",
        headers=console.all_headers() | {"Content-Type": "application/json"},
    )
    assert answer.json()["error"]["code"] == "INVALID_JSON"


async def test_members_over_http_are_for_servers_that_may_read(
    console: Caller, caller: MakeCaller, http: httpx2.AsyncClient, workspace: UUID
) -> None:
    one = await make(console)
    paths = (f"/v1/segments/{one}/members/ada", f"/v1/segments/{one}/members.csv")
    feeder, app = await caller(workspace, "ingest"), await caller(workspace, kind=KeyKind.PUBLISHABLE)
    for path in paths:
        assert (await http.get(path)).status_code == 401
        for one_caller in (feeder, app):
            assert (await http.get(path, headers=one_caller.all_headers())).status_code == 403
    for path in (f"/v1/segments/{NOWHERE}/members/ada", f"/v1/segments/{NOWHERE}/members.csv"):
        response = await http.get(path, headers=console.all_headers())
        assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


# --- CSV ----------------------------------------------------------------------------------------------------------


async def exported(console: Caller, http: httpx2.AsyncClient, segment_id: str, query: str = "") -> list[list[str]]:
    response = await http.get(f"/v1/segments/{segment_id}/members.csv{query}", headers=console.all_headers())
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/csv")
    return list(csv.reader(StringIO(response.text)))


async def test_members_are_exported_as_csv(
    console: Caller, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S0-19: by hand; every member once, over several pages."""
    monkeypatch.setattr(exporting, "PAGE", 2)
    plans = {name: {"plan": f"of {name}", "spent": spent} for spent, name in enumerate(["ada", "bob", "cyd"])}
    await people(console, **{name: of | {"vip": True} for name, of in plans.items()})
    await console.data("ProfileUpsert", input={"externalId": "ada", "email": "ada@example.com", "phone": "+49 30 1"})
    ranking = {"by": {"trait": "spent"}}
    vip = {"trait": {"key": "vip", "operator": "EQUALS", "value": True}}
    one = await evaluated(console, definition=vip, ranking=ranking)
    header, *rows = await exported(console, http, one, "?columns=email,phone&columns=traits.plan,traits.vip")
    assert header == [
        "profile_id", "external_id", "entered_at", "rank_value", "email", "phone", "traits.plan", "traits.vip",
    ]  # fmt: skip
    assert [(row[1], *row[3:]) for row in rows] == [
        ("ada", "0.0", "ada@example.com", "+49 30 1", "of ada", "true"),
        ("bob", "1.0", "", "", "of bob", "true"),
        ("cyd", "2.0", "", "", "of cyd", "true"),
    ]
    assert all(row[0].startswith("prf_") and datetime.fromisoformat(row[2]) for row in rows)


async def test_no_cell_of_an_export_is_a_formula(console: Caller, http: httpx2.AsyncClient) -> None:
    tricks = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", 'a,"b"\n=c', "-7.5", "plain"]
    await people(console, **{f"p{place}": {"note": note} for place, note in enumerate(tricks)})
    one = await make(console, *(f"p{place}" for place in range(len(tricks))))
    _, *rows = await exported(console, http, one, "?columns=traits.note")
    assert [row[4] for row in rows] == [
        "'=1+1", "'+1+1", "'-1+1", "'@SUM(A1)", "'\t=1", 'a,"b"\n=c', "-7.5", "plain",
    ]  # fmt: skip


async def test_columns_that_are_not_there_are_refused(console: Caller, http: httpx2.AsyncClient) -> None:
    one = await make(console)
    for columns, code in (
        ("hash", "UNKNOWN_COLUMN"),
        ("traits.", "UNKNOWN_COLUMN"),
        ("email,email", "DUPLICATE_COLUMN"),
    ):
        response = await http.get(f"/v1/segments/{one}/members.csv?columns={columns}", headers=console.all_headers())
        assert (response.status_code, response.json()["error"]["code"]) == (400, code)
    assert await exported(console, http, one) == [["profile_id", "external_id", "entered_at", "rank_value"]]


async def test_an_export_that_nobody_reads_on_holds_nothing(
    console: Caller, workspace: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constant memory: a page is read when the one before was taken; whoever goes away leaves no transaction open."""
    monkeypatch.setattr(exporting, "PAGE", 1)
    await people(console, ada={}, bob={}, cyd={})
    one = await make(console, "ada", "bob", "cyd")
    parts = await exporting.export(workspace, UUID(hex=one.removeprefix("seg_")))
    header, first = await anext(parts), await anext(parts)
    assert (header.split(",")[0], first.split(",")[1]) == ("profile_id", "ada")
    async with asyncio.timeout(30):
        await console.data("SegmentMembersRemove", input={"id": one, "externalIds": ["bob"]})
    assert [part.split(",")[1] async for part in parts] == ["cyd"]
