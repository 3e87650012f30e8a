"""Banners as apps fetch them: by GraphQL and by GET, for strangers and for people somebody signed in."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from tests.app.caller import Caller
from tests.app.conftest import MakeCaller
from tests.app.test_api_campaigns import everyone


@pytest.fixture(autouse=True)
def always_read_boards_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board is a second old at most; these tests do not wait for that."""
    monkeypatch.setattr("app.boards.OLDEST_S", 0.0)


async def placement(console: Caller, key: str = "home-top") -> str:
    found = await console.data("Placement", key=key)
    if found is None:
        found = (await console.data("PlacementCreate", input={"key": key, "name": "Top"}))["placement"]
    found_id: str = found["id"]
    return found_id


async def show(console: Caller, title: str, weight: int = 50, **more: Any) -> str:
    """A live banner; for everyone unless told otherwise. Its id."""
    wanted = {
        "name": title,
        "content": {"banner": {"title": title, "actionUrl": "https://shop.example.com", "data": {"tone": "loud"}}},
        "segmentIds": [await everyone(console)],
        "placementId": await placement(console),
        "weight": weight,
    }
    made = await console.data("CampaignCreate", input=wanted | more)
    shown = (await console.data("CampaignSend", input={"id": made["campaign"]["id"]}))["campaign"]
    assert shown["status"] == "ACTIVE"
    found: str = shown["id"]
    return found


async def seen(caller: Caller, *placements: str) -> list[str | None]:
    """Titles of what the caller sees."""
    answer = await caller.data("Banners", placements=placements or ("home-top",))
    return [one["banner"] and one["banner"]["content"]["title"] for one in answer["placements"]]


async def test_a_banner_shows_in_its_placement_to_whoever_looks(console: Caller, app_caller: Caller) -> None:
    """S3-12, S3-29."""
    one = await show(console, "Sale")
    answer = await app_caller.data("Banners", placements=["home-top", "basket"])
    top, basket = answer["placements"]
    nothing: dict[str, Any] = {"placement": "basket", "banner": None, "further": [], "hidden": [], "limits": None}
    assert (top["placement"], basket) == ("home-top", nothing)
    assert (top["banner"]["id"], top["further"], top["hidden"]) == (one, [], [])
    assert top["banner"]["content"] == {
        "title": "Sale",
        "body": "",
        "imageUrl": None,
        "darkImageUrl": None,
        "imageAlt": "",
        "actionLabel": "",
        "actionUrl": "https://shop.example.com",
        "backgroundColor": None,
        "textColor": None,
        "accentColor": None,
        "data": {"tone": "loud"},
    }
    assert 0 <= answer["maxAgeSeconds"] <= 60
    assert answer["viewerToken"]


async def test_get_answers_the_same_json(console: Caller, app_caller: Caller) -> None:
    await show(console, "Sale")
    by_graphql = await app_caller.data("Banners", placements=["home-top", "basket"])
    headers = app_caller.all_headers() | {"X-Muster-Viewer": by_graphql["viewerToken"]}
    response = await app_caller.http.get("/v1/banners", params={"placement": ["home-top", "basket"]}, headers=headers)
    assert response.status_code == 200
    answer = response.json()
    assert answer["placements"] == by_graphql["placements"]
    assert answer["viewerToken"] is None
    assert response.headers["cache-control"] == f"private, max-age={answer['maxAgeSeconds']}"


async def test_a_viewer_keeps_its_banner_by_the_token_it_was_given(console: Caller, app_caller: Caller) -> None:
    """S3-14: ten banners, and the same one again and again."""
    for number in range(10):
        await show(console, f"Sale {number}")
    first = await app_caller.data("Banners", placements=["home-top"])
    same = app_caller.with_headers(x_muster_viewer=first["viewerToken"])
    for _ in range(5):
        again = await same.data("Banners", placements=["home-top"])
        assert (again["placements"], again["viewerToken"]) == (first["placements"], None)
    others = {(await seen(app_caller))[0] for _ in range(20)}
    assert len(others) > 3


async def test_visitors_see_banners_as_often_as_their_weights_say(
    console: Caller, app_caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3-14: 10, 10 and 80 are seen by 10, 10 and 80 of 100. Chi-square of 200 visitors, at one in a million."""
    weights = {"One": 10, "Other": 10, "Most": 80}
    for title, weight in weights.items():
        await show(console, title, weight=weight)
    await seen(app_caller)
    # From here on nothing changes.
    monkeypatch.setattr("app.boards.OLDEST_S", 600.0)
    found = Counter[str]()
    for _ in range(200):
        response = await app_caller.http.get(
            "/v1/banners", params={"placement": "home-top"}, headers=app_caller.all_headers()
        )
        found[response.json()["placements"][0]["banner"]["content"]["title"]] += 1
    assert found.keys() == weights.keys()
    assert sum((found[title] - 2 * weight) ** 2 / (2 * weight) for title, weight in weights.items()) < 27.6


async def test_a_viewer_token_is_worth_nothing_elsewhere(
    console: Caller, app_caller: Caller, caller: MakeCaller, foreigner: Caller
) -> None:
    token = (await app_caller.data("Banners", placements=["x"]))["viewerToken"]
    for other in (
        foreigner.with_headers(x_muster_viewer=token),
        app_caller.with_headers(x_muster_viewer=token[:-1]),
        app_caller.with_headers(x_muster_viewer="x"),
        console.with_headers(x_muster_client_token=token, x_muster_viewer=""),
    ):
        assert (await other.data("Banners", placements=["x"]))["viewerToken"] is not None
    as_client = app_caller.with_headers(x_muster_client_token=f"mct_{token}")
    assert (await as_client.post('{ banners(placements: ["x"]) { maxAgeSeconds } }')).status_code == 401


async def test_a_banner_for_a_segment_is_shown_to_its_members_only(console: Caller, app_caller: Caller) -> None:
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": "ada"}, {"externalId": "bob"}]})
    segment = (await console.data("SegmentCreate", input={"name": "VIPs", "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment})
    await console.data("SegmentMembersAdd", input={"id": segment, "externalIds": ["ada"]})
    await show(console, "For VIPs", segmentIds=[segment])

    async def sees(name: str) -> str | None:
        token = (await console.data("ClientTokenCreate", input={"externalId": name}))["token"]
        (title,) = await seen(app_caller.with_headers(x_muster_client_token=token))
        return title

    assert [await sees("ada"), await sees("bob"), await sees("nobody yet")] == ["For VIPs", None, None]
    assert await seen(app_caller) == [None]


async def test_a_server_may_ask_for_anybody_and_an_app_may_not(console: Caller, app_caller: Caller) -> None:
    await console.data("ProfileUpsert", input={"externalId": "ada"})
    await show(console, "Sale")
    query = 'query { banners(placements: ["home-top"], externalId: "ada") { placements { banner { id } } } }'
    assert (await console.post(query)).json()["data"]["banners"]["placements"][0]["banner"]
    (error,) = (await app_caller.post(query)).json()["errors"]
    assert error["extensions"] == {"code": "FORBIDDEN", "field": ["externalId"]}
    response = await app_caller.http.get(
        "/v1/banners", params={"placement": "home-top", "externalId": "ada"}, headers=app_caller.all_headers()
    )
    assert (response.status_code, response.json()["error"]["field"]) == (403, ["externalId"])


async def told(console: Caller, operation: str, campaign: str) -> str:
    """What somebody who asks this of the campaign is told is wrong."""
    (payload,) = (await console.ask(operation, input={"id": campaign}))["data"].values()
    message: str = payload["userErrors"][0]["message"]
    return message


async def test_a_banner_is_shown_until_it_is_cancelled_and_can_come_back(console: Caller, app_caller: Caller) -> None:
    """S3-13, S3x-15."""
    one = await show(console, "Sale")
    assert await seen(app_caller) == ["Sale"]
    await console.data("CampaignPause", input={"id": one})
    assert await seen(app_caller) == [None]
    assert "resume it instead" in await told(console, "CampaignReactivate", one)
    await console.data("CampaignResume", input={"id": one})
    await console.data("CampaignCancel", input={"id": one})
    assert "campaignReactivate shows it again" in await told(console, "CampaignResume", one)
    assert await seen(app_caller) == [None]
    back = (await console.data("CampaignReactivate", input={"id": one}))["campaign"]
    assert back["status"] == "ACTIVE"
    assert await seen(app_caller) == ["Sale"]


async def test_an_answer_holds_no_longer_than_the_banner(console: Caller, app_caller: Caller) -> None:
    """S3-25, whichever way it is asked: by a plan, by execution (of what has a directive) and by GET."""
    ends = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()
    await show(console, "Sale", expiresAt=ends)
    assert (await app_caller.data("Banners", placements=["home-top"]))["maxAgeSeconds"] < 20
    executed = await app_caller.post('{ banners(placements: ["home-top"]) { maxAgeSeconds @skip(if: false) } }')
    assert executed.json()["data"]["banners"]["maxAgeSeconds"] < 20
    got = await app_caller.http.get("/v1/banners", params={"placement": "home-top"}, headers=app_caller.all_headers())
    assert got.json()["maxAgeSeconds"] < 20
    assert got.headers["cache-control"] == f"private, max-age={got.json()['maxAgeSeconds']}"


async def test_of_a_header_that_is_there_twice_the_first_counts(console: Caller, app_caller: Caller) -> None:
    """Whichever way it is asked: nobody is let in by one of them and answered by the other."""
    await show(console, "Sale")
    body = orjson.dumps({"query": '{ banners(placements: ["home-top"]) { viewerToken } }'})
    json = ("Content-Type", "application/json")
    good, bad = [("Authorization", f"Bearer {key}") for key in (app_caller.key, "nothing")]
    for headers, wanted in (([good, bad], 200), ([bad, good], 401)):
        got = await app_caller.http.get("/v1/banners?placement=home-top", headers=headers)
        posted = await app_caller.http.post("/graphql", content=body, headers=[*headers, json])
        assert (got.status_code, posted.status_code) == (wanted, wanted)
    tokens = [
        (await app_caller.http.get("/v1/banners?placement=home-top", headers=[good])).json()["viewerToken"]
        for _ in range(2)
    ]
    viewers = [
        (await app_caller.http.get("/v1/banners?placement=home-top", headers=[good, *given])).json()["viewer"]
        for one, other in (tokens, tokens[::-1])
        for given in ([("X-Muster-Viewer", one)], [("X-Muster-Viewer", one), ("X-Muster-Viewer", other)])
    ]
    assert viewers[0] == viewers[1] != viewers[2] == viewers[3]


async def test_no_or_too_many_placements_are_refused(app_caller: Caller) -> None:
    for placements in ([], ["x"] * 21):
        assert await app_caller.error("Banners", placements=placements) == {
            "code": "PLACEMENTS",
            "field": ["placements"],
        }
        response = await app_caller.http.get(
            "/v1/banners", params={"placement": placements}, headers=app_caller.all_headers()
        )
        assert (response.status_code, response.json()["error"]["code"]) == (400, "PLACEMENTS")
    assert (await app_caller.http.get("/v1/banners", params={"placement": "x"})).status_code == 401
