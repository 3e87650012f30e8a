"""What marketers set, as viewers meet it: priorities, slots, holdouts, limits, tests, languages and variables."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.api import ids
from campaigns import control
from tests.app.caller import Caller
from tests.app.test_api_banner_events import as_person, event, track
from tests.app.test_api_placements import go_live, make_banner, make_placement, team


@pytest.fixture(autouse=True)
def always_read_boards_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.boards.OLDEST_S", 0.0)


async def look(caller: Caller, **parameters: str) -> dict[str, Any]:
    """What the caller sees in home-top, by GET; it is held against GraphQL elsewhere."""
    asked = {"placement": "home-top"} | parameters
    response = await caller.http.get("/v1/banners", params=asked, headers=caller.all_headers())
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["placements"][0]
    return found


async def titles(caller: Caller, **parameters: str) -> set[str]:
    """Titles of all that the caller sees there."""
    found = await look(caller, **parameters)
    return {one["content"]["title"] for one in ([found["banner"]] if found["banner"] else []) + found["further"]}


async def test_a_banner_of_higher_priority_comes_alone(console: Caller, app_caller: Caller) -> None:
    where = await make_placement(console, slots=3)
    for name in ("low", "lower"):
        await go_live(console, where, name, weight=100)
    assert await titles(app_caller) == {"low", "lower"}
    high = await go_live(console, where, "high", weight=1, rules={"priority": 1})
    assert await titles(app_caller) == {"high"}
    await console.data("CampaignUpdate", input={"id": high, "weight": 0})
    assert await titles(app_caller) == {"low", "lower"}


async def test_of_a_priority_for_others_the_next_one_is_shown(console: Caller, app_caller: Caller) -> None:
    """The highest among those that the viewer may see decides, not the highest there is."""
    where, vips = await make_placement(console), await team(console, "ada")
    await go_live(console, where, "for all")
    await go_live(console, where, "for VIPs", segmentIds=[vips], rules={"priority": 9})
    ada, bob = await as_person(console, app_caller, "ada"), await as_person(console, app_caller, "bob")
    assert [await titles(one) for one in (ada, bob, app_caller)] == [{"for VIPs"}, {"for all"}, {"for all"}]


async def test_a_placement_shows_as_many_as_it_has_slots(console: Caller, app_caller: Caller) -> None:
    where = await make_placement(console, slots=2)
    for name in ("a", "b", "c"):
        await go_live(console, where, name)
    seen = await titles(app_caller)
    assert len(seen) == 2
    await console.data("PlacementUpdate", input={"id": where, "slots": 3})
    assert await titles(app_caller) == {"a", "b", "c"}


async def test_when_all_weights_are_0_nothing_is_shown(console: Caller, app_caller: Caller) -> None:
    """S3x-14: weights of 0 to 100."""
    where = await make_placement(console, slots=2)
    one = await go_live(console, where, "a", weight=0)
    await go_live(console, where, "b", weight=0)
    assert await titles(app_caller) == set()
    await console.data("CampaignUpdate", input={"id": one, "weight": 1})
    assert await titles(app_caller) == {"a"}


async def test_the_held_out_see_what_they_would_see_without_the_campaign(console: Caller, app_caller: Caller) -> None:
    where = await make_placement(console)
    await go_live(console, where, "usual", weight=1)
    await go_live(console, where, "tried", rules={"priority": 1, "holdoutPercent": 100})
    found = await look(app_caller)
    assert (found["banner"]["content"]["title"], len(found["hidden"])) == ("usual", 1)


async def test_a_holdout_is_of_the_same_viewers_every_time(console: Caller, app_caller: Caller) -> None:
    where = await make_placement(console)
    one = await go_live(console, where, "tried", rules={"holdoutPercent": 50})
    viewers = [await as_person(console, app_caller, f"viewer {number}") for number in range(12)]
    before = [await titles(viewer) for viewer in viewers]
    assert {frozenset(seen) for seen in before} == {frozenset(), frozenset({"tried"})}
    await console.data("CampaignUpdate", input={"id": one, "content": {"banner": {"title": "tried", "body": "!"}}})
    assert [await titles(viewer) for viewer in viewers] == before


async def test_before_it_goes_live_only_testers_see_a_banner(console: Caller, app_caller: Caller) -> None:
    where, testers = await make_placement(console), await team(console, "ada")
    await go_live(console, where, "usual", weight=100, rules={"priority": 100})
    one = await make_banner(console, where, "new", weight=1, testSegmentId=testers)
    ada, bob = await as_person(console, app_caller, "ada"), await as_person(console, app_caller, "bob")
    assert [await titles(viewer) for viewer in (ada, bob, app_caller)] == [{"new"}, {"usual"}, {"usual"}]
    shown = (await look(ada))["banner"]
    assert shown["inTest"]
    await track(ada, event("IMPRESSION", shown["impressionToken"]), event("DISMISS", shown["impressionToken"]))
    assert await titles(ada) == {"new"}
    counted = (await console.data("CampaignBannerCounts", id=one))["bannerCounts"]
    assert (counted["impressions"], counted["dismissals"]) == (0, 0)
    await console.data("CampaignSend", input={"id": one})
    await console.data("CampaignUpdate", input={"id": one, "rules": {"priority": 100}, "weight": 100})
    assert {frozenset(await titles(viewer)) for viewer in (ada, bob)} <= {frozenset({"usual"}), frozenset({"new"})}
    assert not (await look(ada))["banner"]["inTest"]


async def test_a_banner_starts_and_ends_when_its_time_comes(console: Caller, app_caller: Caller) -> None:
    """S3-24, S3-25: the worker's clock starts and ends it."""
    where = await make_placement(console)
    now = datetime.now(UTC)
    starts, ends = now + timedelta(hours=1), now + timedelta(hours=2)
    one = await make_banner(console, where, expiresAt=ends.isoformat())
    await console.data("CampaignSchedule", input={"id": one, "at": starts.isoformat()})
    assert await titles(app_caller) == set()
    campaign: UUID = ids.campaign_id(one)
    await control.act_on_time(console.workspace_id, campaign, now=starts)
    assert (await console.data("Campaign", id=one))["status"] == "ACTIVE"
    assert await titles(app_caller) == {"Sale"}
    await control.act_on_time(console.workspace_id, campaign, now=ends)
    found = await console.data("Campaign", id=one)
    assert (found["status"], found["statusReason"]) == ("ENDED", "EXPIRED")
    assert await titles(app_caller) == set()


async def test_viewers_see_their_language_with_what_their_token_claims(console: Caller, app_caller: Caller) -> None:
    where = await make_placement(console)
    await go_live(
        console,
        where,
        content={
            "banner": {
                "title": "Hello {{first_name}}",
                "body": "Sale",
                "actionUrl": "https://shop.example/c/{{category}}",
                "locale": "en",
                "translations": [{"locale": "de", "title": "Hallo {{first_name}}"}],
                "variables": [{"name": "first_name", "default": "you"}, {"name": "category", "default": "all"}],
            }
        },
    )
    claims = {"first_name": "Ada\u0007 <b>", "category": "a b/c"}
    ada = await as_person(console, app_caller, "ada", claims=claims)
    for viewer, locale, seen in (
        (ada, "de-CH", ("Hallo Ada <b>", "Sale", "https://shop.example/c/a%20b%2Fc")),
        (ada, "fr", ("Hello Ada <b>", "Sale", "https://shop.example/c/a%20b%2Fc")),
        (app_caller, "de", ("Hallo you", "Sale", "https://shop.example/c/all")),
        (app_caller, "en-GB", ("Hello you", "Sale", "https://shop.example/c/all")),
    ):
        content = (await look(viewer, locale=locale))["banner"]["content"]
        assert (content["title"], content["body"], content["actionUrl"]) == seen


async def test_a_language_is_the_one_that_is_asked_for_else_that_of_the_token_else_that_of_the_browser(
    console: Caller, app_caller: Caller
) -> None:
    where = await make_placement(console)
    translations = [{"locale": one, "title": one} for one in ("de", "fr", "it")]
    await go_live(console, where, content={"banner": {"title": "en", "locale": "en", "translations": translations}})
    claimed = await as_person(console, app_caller, "ada", claims={"locale": "fr-CH"})
    for caller, asked, browser, wanted in (
        (claimed, "de", "it", "de"),
        (claimed, None, "it", "fr"),
        (app_caller, None, "es, it;q=0.5, de;q=0.4", "it"),
        (app_caller, "de", "it", "de"),
        (app_caller, None, None, "en"),
    ):
        viewer = caller.with_headers(accept_language=browser) if browser else caller
        assert await titles(viewer, **({"locale": asked} if asked else {})) == {wanted}


async def test_what_is_edited_while_it_is_shown_is_what_viewers_see_next(console: Caller, app_caller: Caller) -> None:
    where = await make_placement(console)
    one = await go_live(console, where)
    before = (await look(app_caller))["banner"]
    await console.data("CampaignUpdate", input={"id": one, "content": {"banner": {"title": "Sale!"}}})
    after = (await look(app_caller))["banner"]
    assert [(shown["content"]["title"], shown["contentVersion"]) for shown in (before, after)] == [
        ("Sale", 1),
        ("Sale!", 2),
    ]


async def test_a_limit_that_is_set_later_counts_what_was_seen_before(console: Caller, app_caller: Caller) -> None:
    where = await make_placement(console)
    one = await go_live(console, where)
    ada = await as_person(console, app_caller, "ada")
    hers = (await look(ada))["banner"]["impressionToken"]
    await track(ada, event("IMPRESSION", hers, session="1"), event("IMPRESSION", hers, session="2"))
    for limit, seen in (({"perDay": 3}, {"Sale"}), ({"perDay": 2}, set()), ({"lifetime": 2}, set()), ({}, {"Sale"})):
        await console.data("CampaignUpdate", input={"id": one, "rules": {"limits": limit}})
        assert await titles(ada) == seen


async def test_a_brands_banner_for_everyone_is_for_its_people_alone(
    console: Caller, app_caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1-02, S3-12: not for others, and for no stranger; who joins or leaves is noticed."""
    monkeypatch.setattr("campaigns.board_reading.SHARE_FOR_BRANDS", 0)
    brand = (await console.data("BrandCreate", input={"name": "Shoes"}))["brand"]["id"]
    ada, bob = await as_person(console, app_caller, "ada"), await as_person(console, app_caller, "bob")
    await go_live(console, await make_placement(console), brandId=brand)
    for of_brand in ("ada", "bob"):
        for name in ("ada", "bob"):
            brands = [brand] if name == of_brand else []
            await console.data("ProfileUpsert", input={"externalId": name, "brandIds": brands})
        seen = [await titles(viewer) for viewer in (ada, bob, app_caller)]
        assert seen == [{"Sale"} if name == of_brand else set() for name in ("ada", "bob", "nobody")]


async def test_a_placement_has_limits_of_its_own(console: Caller, app_caller: Caller) -> None:
    where = await make_placement(console, slots=2, limits={"lifetime": 2, "stopAfterClick": True})
    for name in ("a", "b"):
        await go_live(console, where, name)
    ada, bob = await as_person(console, app_caller, "ada"), await as_person(console, app_caller, "bob")
    for viewer, kind in ((ada, "IMPRESSION"), (bob, "CLICK")):
        found = await look(viewer)
        tokens = [one["impressionToken"] for one in (found["banner"], *found["further"])]
        assert await titles(viewer) == {"a", "b"}
        told = tokens if kind == "IMPRESSION" else tokens[:1]
        await track(viewer, *(event(kind, one) for one in told))
        assert await titles(viewer) == set()
    assert await titles(app_caller) == {"a", "b"}
