"""Placements, and what marketers set for the banners in them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from campaigns import placements
from tests.app.caller import Caller
from tests.app.test_api_campaigns import everyone
from tests.conftest import Database, on_server

PLACEMENT: dict[str, Any] = {
    "key": "home-top",
    "name": "Top of home",
    "description": "Below the header",
    "rotationWindowSeconds": 600,
    "contentFields": ["TITLE", "ACTION"],
    "linkSchemes": ["myapp"],
    "slots": 3,
    "limits": {
        "perSession": 2, "perDay": 5, "lifetime": 50, "stopAfterClick": True, "stopAfterDismissal": True,
    },
}  # fmt: skip
BANNER: dict[str, Any] = {
    "title": "Hello {{first_name}}",
    "body": "Sale",
    "imageUrl": "https://cdn.example/sale.png",
    "darkImageUrl": "https://cdn.example/dark.png",
    "imageAlt": "A shelf",
    "actionLabel": "Go",
    "actionUrl": "myapp://offers/{{offer}}",
    "backgroundColor": "#00ffAA",
    "textColor": "#000000",
    "accentColor": "#123456",
    "data": {"tone": "loud", "steps": [1, {"a": None}]},
    "locale": "en",
    "translations": [
        {
            "locale": "de", "title": "Hallo {{first_name}}", "body": "Schlussverkauf", "imageUrl": "https://cdn.example/de",
            "darkImageUrl": "https://cdn.example/de-dark", "imageAlt": "Ein Regal", "actionLabel": "Los",
            "actionUrl": "https://shop.example/de", "data": {"tone": "leise"},
        },
        {
            "locale": "pt-BR", "title": None, "body": "", "imageUrl": None, "darkImageUrl": None, "imageAlt": None,
            "actionLabel": None, "actionUrl": None, "data": None,
        },
    ],
    "variables": [{"name": "first_name", "default": "you"}, {"name": "offer", "default": "all"}],
}  # fmt: skip
RULES: dict[str, Any] = {
    "priority": 7,
    "holdoutPercent": 10,
    "limits": {
        "perSession": 1, "perDay": 3, "lifetime": 9, "stopAfterClick": True, "stopAfterDismissal": False,
    },
}  # fmt: skip


async def make_placement(console: Caller, key: str = "home-top", **more: Any) -> str:
    """A placement's id."""
    made = await console.data("PlacementCreate", input={"key": key, "name": key} | more)
    found: str = made["placement"]["id"]
    return found


async def make_banner(console: Caller, placement_id: str, name: str = "Sale", **more: Any) -> str:
    """A draft's id."""
    wanted = {
        "name": name,
        "content": {"banner": {"title": name}},
        "segmentIds": [await everyone(console)],
        "placementId": placement_id,
        "weight": 50,
    }
    made = await console.data("CampaignCreate", input=wanted | more)
    found: str = made["campaign"]["id"]
    return found


async def go_live(console: Caller, placement_id: str, name: str = "Sale", **more: Any) -> str:
    """A live banner's id."""
    one = await make_banner(console, placement_id, name, **more)
    assert (await console.data("CampaignSend", input={"id": one}))["campaign"]["status"] == "ACTIVE"
    return one


async def test_a_placement_says_what_may_appear_in_it_and_how_often(console: Caller) -> None:
    """S3-12: a banner belongs to a placement, and this is all of one."""
    made = (await console.data("PlacementCreate", input=PLACEMENT))["placement"]
    expected = PLACEMENT | {"id": made["id"], "createdAt": made["createdAt"], "rotation": []}
    assert made == expected
    assert await console.data("Placement", key="home-top") == expected
    assert await console.data("Placements") == [expected]


async def test_a_placement_that_nobody_thought_about_allows_everything_once(console: Caller) -> None:
    made = (await console.data("PlacementCreate", input={"key": "x", "name": "X"}))["placement"]
    nothing = {
        "perSession": None, "perDay": None, "lifetime": None, "stopAfterClick": False, "stopAfterDismissal": False,
    }  # fmt: skip
    chosen = {name: made[name] for name in ("contentFields", "linkSchemes", "slots", "limits", "rotationWindowSeconds")}
    assert chosen == {
        "contentFields": None, "linkSchemes": [], "slots": 1, "limits": nothing, "rotationWindowSeconds": 3600,
    }  # fmt: skip


WRONG_PLACEMENTS: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"key": "Home Top"}, "INVALID_KEY", ["key"]),
    ({"key": "home top"}, "INVALID_KEY", ["key"]),
    ({"key": "x" * 65}, "INVALID_KEY", ["key"]),
    ({"key": ""}, "INVALID_KEY", ["key"]),
    ({"key": "taken"}, "TAKEN", ["key"]),
    ({"name": ""}, "INVALID_NAME", ["name"]),
    ({"description": "x" * 2_001}, "TOO_LONG", ["description"]),
    ({"rotationWindowSeconds": 0}, "OUT_OF_RANGE", ["rotationWindowSeconds"]),
    ({"rotationWindowSeconds": 2**31 - 1}, "OUT_OF_RANGE", ["rotationWindowSeconds"]),
    ({"contentFields": []}, "EMPTY", ["contentFields"]),
    ({"linkSchemes": ["myapp", "javascript"]}, "SCHEME_NOT_ALLOWED", ["linkSchemes", "1"]),
    ({"linkSchemes": [f"app{n}" for n in range(21)]}, "TOO_MANY", ["linkSchemes"]),
    ({"slots": 0}, "OUT_OF_RANGE", ["slots"]),
    ({"slots": 11}, "OUT_OF_RANGE", ["slots"]),
    ({"limits": {"perDay": 0}}, "OUT_OF_RANGE", ["limits", "perDay"]),
]


async def test_a_wrong_placement_is_refused_at_its_field(console: Caller) -> None:
    taken = await make_placement(console, "taken")
    for wrong, code, field in WRONG_PLACEMENTS:
        wanted = {"key": "home-top", "name": "Top"} | wrong
        assert await console.refusal("PlacementCreate", input=wanted) == (code, ["input", *field])
        if "key" not in wrong:
            changes = wrong | {"id": taken}
            assert await console.refusal("PlacementUpdate", input=changes) == (code, ["input", *field])
    assert [one["key"] for one in await console.data("Placements")] == ["taken"]


async def test_a_workspace_has_so_many_placements(console: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placements, "MOST_PLACEMENTS", 2)
    for key in ("one", "two"):
        await make_placement(console, key)
    refusal = await console.refusal("PlacementCreate", input={"key": "three", "name": "Three"})
    assert refusal == ("TOO_MANY", ["input", "key"])


async def test_a_placement_is_changed_field_by_field(console: Caller) -> None:
    before = (await console.data("PlacementCreate", input=PLACEMENT))["placement"]
    changes: list[dict[str, Any]] = [
        {"name": "Top"},
        {"description": ""},
        {"rotationWindowSeconds": 60},
        {"contentFields": ["DATA", "TITLE"]},
        {"contentFields": None},
        {"linkSchemes": []},
        {"slots": 1},
        {"limits": PLACEMENT["limits"] | {"perDay": None}},
    ]
    for change in changes:
        after = (await console.data("PlacementUpdate", input={"id": before["id"]} | change))["placement"]
        if change.get("contentFields"):
            change = {"contentFields": ["TITLE", "DATA"]}
        assert after == before | change
        before = after
    refusal = await console.refusal("PlacementUpdate", input={"id": "plc_" + "0" * 32, "name": "x"})
    assert refusal == ("NOT_FOUND", ["input", "id"])


async def test_a_placement_is_deleted_when_no_campaign_names_it(console: Caller) -> None:
    one, other = await make_placement(console), await make_placement(console, "basket")
    banners = [await make_banner(console, one, f"Sale {number}") for number in range(7)]
    answer = await console.ask("PlacementDelete", input={"id": one})
    (error,) = answer["data"]["placementDelete"]["userErrors"]
    assert (error["code"], error["field"]) == ("PLACEMENT_IN_USE", ["input", "id"])
    assert "'Sale 6', 'Sale 5', 'Sale 4', 'Sale 3', 'Sale 2' and 2 more" in error["message"]
    for banner in banners:
        await console.data("CampaignUpdate", input={"id": banner, "placementId": other})
    assert (await console.data("PlacementDelete", input={"id": one}))["deletedId"] == one
    assert [row["key"] for row in await console.data("Placements")] == ["basket"]
    assert await console.refusal("PlacementDelete", input={"id": one}) == ("NOT_FOUND", ["input", "id"])


async def test_a_placement_of_another_workspace_is_not_there(console: Caller, foreigner: Caller) -> None:
    one = await make_placement(console)
    for operation in ("PlacementDelete", "PlacementUpdate"):
        assert await foreigner.refusal(operation, input={"id": one}) == ("NOT_FOUND", ["input", "id"])


async def test_everything_a_banner_says_is_kept_and_told(console: Caller) -> None:
    """S3-11: the content of the channel "banner", and S3-14: weight beside what else decides."""
    where = await make_placement(console, linkSchemes=["myapp"])
    one = await make_banner(console, where, content={"banner": BANNER}, rules=RULES)
    found = await console.data("Campaign", id=one)
    assert found["content"] == BANNER | {"__typename": "BannerContent"}
    assert found["rules"] == RULES
    assert (found["contentVersion"], found["weight"], found["testSegment"]) == (1, 50, None)
    copy = (await console.data("CampaignDuplicate", input={"id": one}))["campaign"]["id"]
    copied = await console.data("Campaign", id=copy)
    assert (copied["content"], copied["rules"]) == (found["content"], RULES)


async def test_a_banner_without_rules_is_shown_until_it_is_dismissed(console: Caller) -> None:
    where = await make_placement(console)
    until_dismissed = {
        "perSession": None, "perDay": None, "lifetime": None, "stopAfterClick": False, "stopAfterDismissal": True,
    }  # fmt: skip
    one = await make_banner(console, where)
    plain = {"priority": 0, "holdoutPercent": 0, "limits": until_dismissed}
    assert (await console.data("Campaign", id=one))["rules"] == plain
    await console.data("CampaignUpdate", input={"id": one, "rules": {"limits": {"perDay": 2}}})
    limits = until_dismissed | {"perDay": 2}
    assert (await console.data("Campaign", id=one))["rules"] == plain | {"limits": limits}


async def test_the_content_of_a_live_banner_may_change_and_is_numbered(console: Caller) -> None:
    where = await make_placement(console)
    one = await go_live(console, where)
    for change, version in (
        ({"weight": 1}, 1),
        ({"rules": {"priority": 3}}, 1),
        ({"content": {"banner": {"title": "Sale!"}}}, 2),
        ({"content": {"banner": {"title": "Sale!"}}}, 2),
        ({"content": {"banner": {"title": "Sale!", "translations": [{"locale": "de", "title": "Ausverkauf"}]}}}, 3),
    ):
        await console.data("CampaignUpdate", input={"id": one} | change)
        found = await console.data("Campaign", id=one)
        assert (found["contentVersion"], found["status"]) == (version, "ACTIVE")


WRONG_BANNERS: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"weight": 101}, "OUT_OF_RANGE", ["weight"]),
    ({"weight": -1}, "OUT_OF_RANGE", ["weight"]),
    ({"weight": None}, "OUT_OF_RANGE", ["weight"]),
    ({"errorThreshold": 0}, "OUT_OF_RANGE", ["errorThreshold"]),
    ({"errorThreshold": 40_000}, "OUT_OF_RANGE", ["errorThreshold"]),
    ({"placementId": None}, "PLACEMENT_MISSING", ["placementId"]),
    ({"placementId": "plc_" + "0" * 32}, "NOT_FOUND", ["placementId"]),
    ({"placementId": "brd_" + "0" * 32}, "INVALID_ID", ["placementId"]),
    ({"rules": {"priority": 101}}, "OUT_OF_RANGE", ["rules", "priority"]),
    ({"rules": {"holdoutPercent": -1}}, "OUT_OF_RANGE", ["rules", "holdoutPercent"]),
    ({"rules": {"limits": {"perSession": 0}}}, "OUT_OF_RANGE", ["rules", "limits", "perSession"]),
    ({"testSegmentId": "seg_" + "0" * 32}, "NOT_FOUND", ["testSegmentId"]),
    ({"testSegmentId": "cmp_" + "0" * 32}, "INVALID_ID", ["testSegmentId"]),
]
WRONG_CONTENTS: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"title": ""}, "EMPTY", ["title"]),
    ({"actionUrl": "javascript:alert(1)"}, "NOT_A_URL", ["actionUrl"]),
    ({"actionUrl": "other://x"}, "SCHEME_NOT_ALLOWED", ["actionUrl"]),
    ({"data": [1]}, "NOT_AN_OBJECT", ["data"]),
    ({"data": {"a": "x" * 4_096}}, "TOO_LONG", ["data"]),
    ({"textColor": "red"}, "NOT_A_COLOR", ["textColor"]),
    ({"title": "{{who}}"}, "UNDECLARED_VARIABLE", ["title"]),
    ({"locale": "?"}, "INVALID_LOCALE", ["locale"]),
    ({"translations": [{"locale": "de", "data": 1}]}, "NOT_AN_OBJECT", ["translations", "0", "data"]),
    (
        {"translations": [{"locale": "de"}, {"locale": "fr", "actionUrl": "other://x"}]},
        "SCHEME_NOT_ALLOWED",
        ["translations", "1", "actionUrl"],
    ),
]


async def test_a_wrong_banner_is_refused_at_its_field(console: Caller) -> None:
    where = await make_placement(console, linkSchemes=["myapp"])
    right = {"name": "a", "content": {"banner": {"title": "a"}}, "weight": 1, "placementId": where}
    for wrong, code, field in WRONG_BANNERS:
        assert await console.refusal("CampaignCreate", input=right | wrong) == (code, ["input", *field])
    for content, code, field in WRONG_CONTENTS:
        wanted = right | {"content": {"banner": {"title": "a"} | content}}
        path = ["input", "content", "banner", *field]
        assert await console.refusal("CampaignCreate", input=wanted) == (code, path)
    assert (await console.data("Campaigns"))["edges"] == []


async def test_what_belongs_to_banners_is_refused_for_emails(console: Caller) -> None:
    where = await make_placement(console)
    for wrong, field in (
        ({"placementId": where}, "placementId"),
        ({"weight": 1}, "weight"),
        ({"rules": RULES}, "rules"),
        ({"testSegmentId": await everyone(console)}, "testSegmentId"),
    ):
        wanted = {"name": "a", "content": {"email": {"subject": "a", "text": "b"}}, "class": "TRANSACTIONAL"} | wrong
        assert await console.refusal("CampaignCreate", input=wanted) == ("NOT_FOR_THIS_CHANNEL", ["input", field])


async def test_a_banner_says_only_what_its_placement_allows(console: Caller) -> None:
    narrow = await make_placement(console, "narrow", contentFields=["TITLE"])
    wide = await make_placement(console, "wide")
    with_body = {"banner": {"title": "a", "body": "b"}}
    named = ["input", "content", "banner", "body"]
    refusal = await console.refusal(
        "CampaignCreate", input={"name": "a", "content": with_body, "weight": 1, "placementId": narrow}
    )
    assert refusal == ("FIELD_NOT_ALLOWED", named)
    one = await make_banner(console, narrow)
    assert await console.refusal("CampaignUpdate", input={"id": one, "content": with_body}) == (
        "FIELD_NOT_ALLOWED", named,
    )  # fmt: skip
    other = await make_banner(console, wide, content=with_body)
    code, _ = await console.refusal("CampaignUpdate", input={"id": other, "placementId": narrow})
    assert code == "FIELD_NOT_ALLOWED"


async def test_a_placement_goes_on_allowing_what_is_open_in_it(console: Caller) -> None:
    """Nobody's banner goes dark because somebody else tidies up; a cancelled one is looked at when it comes back."""
    where = await make_placement(console, linkSchemes=["myapp"])
    one = await go_live(console, where, content={"banner": {"title": "a", "body": "b", "actionUrl": "myapp://x"}})
    for state in ("ACTIVE", "PAUSED"):
        for change, field in (
            ({"contentFields": ["TITLE", "ACTION"]}, "contentFields"),
            ({"linkSchemes": []}, "linkSchemes"),
        ):
            answer = await console.ask("PlacementUpdate", input={"id": where} | change)
            (error,) = answer["data"]["placementUpdate"]["userErrors"]
            assert (error["code"], error["field"]) == ("PLACEMENT_IN_USE", ["input", field]), state
            assert "'Sale'" in error["message"]
        if state == "ACTIVE":
            await console.data("CampaignPause", input={"id": one})
    await console.data("CampaignCancel", input={"id": one})
    await console.data("PlacementUpdate", input={"id": where, "contentFields": ["TITLE"]})
    code, field_path = await console.refusal("CampaignReactivate", input={"id": one})
    assert (code, field_path) == ("FIELD_NOT_ALLOWED", ["input", "content", "body"])
    await console.data("PlacementUpdate", input={"id": where, "contentFields": None})
    assert (await console.data("CampaignReactivate", input={"id": one}))["campaign"]["status"] == "ACTIVE"


async def shares(console: Caller, key: str = "home-top") -> list[tuple[str, int, int, float]]:
    """(name, weight, priority, share in per cent) of what is live in a placement."""
    found = (await console.data("Placement", key=key))["rotation"]
    return [(one["campaign"]["name"], one["weight"], one["priority"], one["sharePercent"]) for one in found]


async def test_weights_10_10_and_80_are_shares_of_10_10_and_80_per_cent(console: Caller) -> None:
    """S3-14: the share that a weight means is shown beside it, and follows what is live."""
    where = await make_placement(console)
    made = {
        name: await go_live(console, where, name, weight=weight) for name, weight in (("a", 10), ("b", 10), ("c", 80))
    }
    await make_banner(console, where, "draft", weight=100)
    await go_live(console, await make_placement(console, "basket"), "elsewhere", weight=100)
    assert await shares(console) == [("a", 10, 0, 10.0), ("b", 10, 0, 10.0), ("c", 80, 0, 80.0)]
    await console.data("CampaignPause", input={"id": made["c"]})
    assert await shares(console) == [("a", 10, 0, 50.0), ("b", 10, 0, 50.0)]
    await console.data("CampaignUpdate", input={"id": made["b"], "weight": 0})
    assert await shares(console) == [("a", 10, 0, 100.0), ("b", 0, 0, 0.0)]
    await console.data("CampaignUpdate", input={"id": made["a"], "weight": 0})
    assert await shares(console) == [("a", 0, 0, 0.0), ("b", 0, 0, 0.0)]
    await console.data("CampaignCancel", input={"id": made["a"]})
    await console.data("CampaignUpdate", input={"id": made["b"], "expiresAt": None, "weight": 1})
    assert await shares(console) == [("b", 1, 0, 100.0)]


async def test_what_has_expired_has_no_share_though_nobody_has_ended_it_yet(
    console: Caller, database: Database
) -> None:
    """S3-25: to the second, as it is shown."""
    where = await make_placement(console)
    await go_live(console, where, "a", weight=10)
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await go_live(console, where, "b", weight=10, expiresAt=ends)
    assert await shares(console) == [("a", 10, 0, 50.0), ("b", 10, 0, 50.0)]
    await on_server(database.owner_url, "UPDATE campaign SET expires_at = now() WHERE name = 'b'")
    assert await shares(console) == [("a", 10, 0, 100.0)]


async def test_shares_are_counted_within_a_priority(console: Caller) -> None:
    where = await make_placement(console)
    for name, weight, priority in (("low", 80, 0), ("high", 1, 5), ("higher", 3, 5)):
        await go_live(console, where, name, weight=weight, rules={"priority": priority})
    assert await shares(console) == [("high", 1, 5, 25.0), ("higher", 3, 5, 75.0), ("low", 80, 0, 100.0)]


async def team(console: Caller, *names: str) -> str:
    """An active static segment of these people; its id."""
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": name} for name in names]})
    segment: str = (await console.data("SegmentCreate", input={"name": "Team", "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment})
    await console.data("SegmentMembersAdd", input={"id": segment, "externalIds": list(names)})
    return segment


async def test_a_banner_is_tested_by_a_segment_but_never_by_everyone(console: Caller) -> None:
    where, testers = await make_placement(console), await team(console, "ada")
    one = await make_banner(console, where, testSegmentId=testers)
    assert (await console.data("Campaign", id=one))["testSegment"] == {"id": testers, "name": "Team"}
    for wrong, code in ((await everyone(console), "TESTERS_ARE_EVERYONE"), ("seg_" + "0" * 32, "NOT_FOUND")):
        refusal = await console.refusal("CampaignUpdate", input={"id": one, "testSegmentId": wrong})
        assert refusal == (code, ["input", "testSegmentId"])
    answer = await console.ask("SegmentDelete", input={"id": testers})
    (error,) = answer["data"]["segmentDelete"]["userErrors"]
    assert error["code"] == "SEGMENT_IN_USE"
    assert "Sale" in error["message"]
    await console.data("CampaignUpdate", input={"id": one, "testSegmentId": None})
    assert (await console.data("Campaign", id=one))["testSegment"] is None
    assert (await console.data("SegmentDelete", input={"id": testers}))["deletedId"] == testers
