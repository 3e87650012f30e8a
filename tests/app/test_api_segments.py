"""Segments over GraphQL: made, filled, evaluated, read page by page; and everything that is refused."""

from typing import Any
from uuid import UUID

from app.settings import load_settings
from profiles import keys
from profiles.models import KeyKind
from tests.app.caller import Caller
from tests.app.conftest import client_of
from tests.workers.worker import Worker
from workers import jobs

PREMIUM = {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}}
NOWHERE = "seg_" + "0" * 32


async def make(console: Caller, **wanted: Any) -> str:
    """The id of a new segment; static unless told otherwise."""
    made = await console.data("SegmentCreate", input={"name": "VIPs", "type": "STATIC"} | wanted)
    segment_id: str = made["segment"]["id"]
    return segment_id


async def people(console: Caller, *names: str, **traits: Any) -> None:
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": n, "traits": traits} for n in names]})


async def run(console: Caller, evaluation_id: str) -> None:
    """What a worker does when it is rung."""
    key = evaluation_id.removeprefix("evl_")
    await jobs.evaluate(Worker().context, str(console.workspace_id), key)


async def test_a_dynamic_segment_goes_from_draft_to_members(console: Caller) -> None:
    """S1-01, S1-10, S2-14, S2-25, S2-26, S3-02, S3x-09."""
    await people(console, "ada", "bob", plan="premium")
    await people(console, "eve", plan="free")
    made = (
        await console.data(
            "SegmentCreate",
            input={
                "name": "Premium",
                "type": "DYNAMIC",
                "description": "Who pays",
                "definition": PREMIUM,
                "cadence": "DAILY",
                "timeZone": "Europe/Berlin",
            },
        )
    )["segment"]
    assert (made["status"], made["size"], made["lastEvaluatedAt"], made["nextRunAt"]) == ("DRAFT", None, None, None)
    assert made["definition"] == PREMIUM
    assert "plan" in made["summary"]
    assert "premium" in made["summary"]
    active = await console.data("SegmentActivate", input={"id": made["id"]})
    assert (active["segment"]["status"], active["segment"]["size"]) == ("ACTIVE", None)
    assert active["segment"]["nextRunAt"] is not None
    assert (active["evaluation"]["status"], active["evaluation"]["cause"]) == ("QUEUED", "ACTIVATION")
    await run(console, active["evaluation"]["id"])
    segment = await console.data("Segment", id=made["id"])
    assert segment["size"] == 2
    assert segment["lastEvaluatedAt"] is not None
    assert (segment["lastEvaluation"]["status"], segment["lastEvaluation"]["added"]) == ("SUCCEEDED", 2)
    members = (await console.data("SegmentMembers", id=made["id"]))["members"]
    assert [edge["node"]["externalId"] for edge in members["edges"]] == ["ada", "bob"]
    assert all(edge["enteredAt"] for edge in members["edges"])
    (membership,) = (await console.data("Profile", externalId="ada"))["memberships"]
    assert membership["segment"]["name"] == "Premium"


async def test_changed_conditions_are_evaluated_anew(console: Caller) -> None:
    """S1-09, S2-24."""
    await people(console, "ada", plan="premium")
    one = await make(console, type="DYNAMIC", definition=PREMIUM)
    first = (await console.data("SegmentActivate", input={"id": one}))["evaluation"]["id"]
    await run(console, first)
    free = {"trait": {"key": "plan", "operator": "EQUALS", "value": "free"}}
    changed = (await console.data("SegmentUpdate", input={"id": one, "definition": free, "cadence": "WEEKLY"}))[
        "segment"
    ]
    assert (changed["definitionVersion"], changed["cadence"]) == (2, "WEEKLY")
    page = (await console.data("SegmentEvaluations", id=one))["evaluations"]
    newest, oldest = (edge["node"] for edge in page["edges"])
    assert (newest["status"], newest["cause"], oldest["status"]) == ("QUEUED", "DEFINITION", "SUCCEEDED")
    await run(console, newest["id"])
    followed = await console.data("Evaluation", id=newest["id"])
    assert (followed["status"], followed["removed"], followed["segment"]["size"]) == ("SUCCEEDED", 1, 0)


async def test_asking_for_an_evaluation_twice_gives_the_one_that_is_open(console: Caller) -> None:
    """S3x-06."""
    one = await make(console, type="DYNAMIC", definition=PREMIUM)
    await console.data("SegmentActivate", input={"id": one})
    first = await console.data("SegmentEvaluate", input={"id": one})
    second = await console.data("SegmentEvaluate", input={"id": one})
    assert first["evaluation"]["id"] == second["evaluation"]["id"]


async def test_a_static_segment_is_filled_by_hand(console: Caller) -> None:
    """S3-01, S0-26."""
    await people(console, "ada", "bob", "eve")
    one = await make(console)
    added = await console.data("SegmentMembersAdd", input={"id": one, "externalIds": ["ada", "bob", "nobody", "ada"]})
    assert (added["added"], added["unchanged"], added["unknown"]) == (2, 1, ["nobody"])
    assert added["segment"]["size"] == 2
    removed = await console.data("SegmentMembersRemove", input={"id": one, "externalIds": ["bob", "eve"]})
    assert (removed["removed"], removed["unchanged"], removed["segment"]["size"]) == (1, 1, 1)


async def test_mutations_of_one_request_each_answer_what_is_so_after_them(console: Caller) -> None:
    await people(console, "ada", "bob")
    one = await make(console)
    step = 'segmentMembers{verb}(input: {{id: "{one}", externalIds: ["ada", "bob"]}}) {{ segment {{ size }} }}'
    document = f"mutation {{ in: {step.format(verb='Add', one=one)} out: {step.format(verb='Remove', one=one)} }}"
    answer = (await console.post(document)).json()["data"]
    assert (answer["in"]["segment"]["size"], answer["out"]["segment"]["size"]) == (2, 0)


async def test_a_csv_file_fills_a_static_segment_and_names_its_bad_rows(console: Caller) -> None:
    """S1-12."""
    await people(console, "ada", "bob")
    one = await make(console)
    text = 'name,external_id\r\nAda,ada\r\n"Bob, the",bob\r\nEve,eve\r\nNobody,\r\nshort\r\nAgain,ada\r\n'
    first = await console.data("SegmentMembersImport", input={"id": one, "text": text})
    assert (first["rows"], first["added"], first["unchanged"], first["rejected"]) == (6, 2, 1, 3)
    assert [(r["line"], r["code"]) for r in first["rejects"]] == [
        (4, "UNKNOWN_PROFILE"),
        (5, "EMPTY"),
        (6, "TOO_FEW_COLUMNS"),
    ]
    again = await console.data("SegmentMembersImport", input={"id": one, "text": text})
    assert (again["added"], again["segment"]["size"]) == (0, 2)


ILL_FORMED: list[str] = ["", "name\nada\n", 'external_id\n"ada\n', 'external_id\n"a"b,c\n']


async def test_an_ill_formed_csv_lets_nobody_in(console: Caller) -> None:
    for text in ILL_FORMED:
        await people(console, "ada")
        one = await make(console)
        assert await console.refusal("SegmentMembersImport", input={"id": one, "text": text}) == (
            "INVALID_CSV",
            ["input", "text"],
        )
        assert (await console.data("Segment", id=one))["size"] == 0


async def test_everyone_is_there_from_the_start_and_stays(console: Caller) -> None:
    """S3-03."""
    await people(console, "ada", "bob")
    (edge,) = (await console.data("Segments", type="EVERYONE"))["edges"]
    everyone = edge["node"]
    assert (everyone["status"], everyone["size"]) == ("ACTIVE", 2)
    for operation in ("SegmentPause", "SegmentArchive", "SegmentDelete", "SegmentUnpublish", "SegmentDuplicate"):
        code, field = await console.refusal(operation, input={"id": everyone["id"]})
        assert (code, field) == ("SEGMENT_IS_BUILT_IN", ["input", "id"])


async def test_status_follows_its_verbs_and_nothing_else(console: Caller) -> None:
    """S0-25 (any of draft, live and paused can become any other), S2-26, S3x-10."""
    one = await make(console)

    async def status(operation: str) -> str:
        found: str = (await console.data(operation, input={"id": one}))["segment"]["status"]
        return found

    assert await console.refusal("SegmentUnpublish", input={"id": one}) == ("ILLEGAL_MOVE", ["input", "id"])
    assert await status("SegmentActivate") == "ACTIVE"
    assert await status("SegmentPause") == "PAUSED"
    assert await status("SegmentActivate") == "ACTIVE"
    assert await status("SegmentUnpublish") == "DRAFT"
    assert await status("SegmentPause") == "PAUSED"
    assert await status("SegmentUnpublish") == "DRAFT"
    assert await status("SegmentArchive") == "ARCHIVED"
    assert await console.refusal("SegmentActivate", input={"id": one}) == ("ILLEGAL_MOVE", ["input", "id"])
    copy = (await console.data("SegmentDuplicate", input={"id": one}))["segment"]
    assert (copy["name"], copy["status"]) == ("Copy of VIPs", "DRAFT")
    assert (await console.data("SegmentDelete", input={"id": copy["id"]}))["deletedId"] == copy["id"]
    assert await console.data("Segment", id=copy["id"]) is None


EVENT = {"name": "purchase"}


WRONG_SEGMENTS: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"name": " "}, "BLANK", ["name"]),
    ({"name": "x" * 201}, "TOO_LONG", ["name"]),
    ({"type": "EVERYONE"}, "SEGMENT_IS_BUILT_IN", ["type"]),
    ({"type": "DYNAMIC"}, "DEFINITION_REQUIRED", ["definition"]),
    ({"definition": PREMIUM}, "DEFINITION_NOT_ALLOWED", ["definition"]),
    ({"cadence": "DAILY"}, "CADENCE_NOT_ALLOWED", ["cadence"]),
    ({"timeZone": "Europe/Atlantis"}, "UNKNOWN_TIME_ZONE", ["timeZone"]),
    ({"type": "DYNAMIC", "definition": PREMIUM, "cadence": "CRON"}, "CRON_REQUIRED", ["cron"]),
    ({"type": "DYNAMIC", "definition": PREMIUM, "cadence": "CRON", "cron": "every day"}, "INVALID_CRON", ["cron"]),
    ({"type": "DYNAMIC", "definition": PREMIUM, "cron": "0 0 * * *"}, "CRON_NOT_ALLOWED", ["cron"]),
    ({"live": True}, "LIVE_NOT_ALLOWED", ["live"]),
    ({"ranking": {"by": {"trait": "ltv"}}}, "RANKING_NOT_ALLOWED", ["ranking"]),
    ({"changeGuard": 101}, "INVALID_VALUE", ["changeGuard"]),
    ({"type": "DYNAMIC", "definition": {"inSegment": NOWHERE}}, "NOT_FOUND", ["definition"]),
    (
        {"type": "DYNAMIC", "definition": {"not": {"campaign": {"did": "OPENED", "campaignId": "cmp_" + "0" * 32}}}},
        "NOT_FOUND",
        ["definition", "not", "campaign", "campaignId"],
    ),
    (
        {"type": "DYNAMIC", "definition": PREMIUM, "conditions": {"match": "ALL", "conditions": [PREMIUM]}},
        "CONDITIONS_TWICE",
        ["conditions"],
    ),
    (
        {"type": "DYNAMIC", "conditions": {"match": "ALL", "conditions": [PREMIUM] * 11}},
        "TOO_MANY_CONDITIONS",
        ["conditions", "conditions", "10"],
    ),
    ({"brandId": NOWHERE}, "INVALID_ID", ["brandId"]),
    ({"brandId": "brd_" + "0" * 32}, "NOT_FOUND", ["brandId"]),
    ({"type": "DYNAMIC", "definition": {"all": []}}, "INVALID_VALUE", ["definition", "all"]),
    (
        {"type": "DYNAMIC", "definition": {"trait": {"key": "a", "operator": "EQUALS", "value": {"b": 1}}}},
        "INVALID_VALUE",
        ["definition", "trait", "value"],
    ),
    ({"type": "DYNAMIC", "definition": {"lastSeen": {}}}, "INVALID_CONDITION", ["definition", "lastSeen"]),
    (
        {
            "type": "DYNAMIC",
            "definition": {"any": [PREMIUM, {"not": {"trait": {"key": "", "operator": "EXISTS"}}}]},
        },
        "INVALID_VALUE",
        ["definition", "any", "1", "not", "trait", "key"],
    ),
    (
        {"type": "DYNAMIC", "definition": {"trait": {"key": "age", "operator": "CONTAINS", "value": 5}}},
        "WRONG_OPERATOR",
        ["definition", "trait", "operator"],
    ),
    (
        {"type": "DYNAMIC", "definition": {"event": EVENT | {"within": {"days": 0}}}},
        "INVALID_WINDOW",
        ["definition", "event", "within", "days"],
    ),
    (
        {"type": "DYNAMIC", "definition": {"event": EVENT | {"count": {"operator": "EQUALS", "value": -1}}}},
        "INVALID_VALUE",
        ["definition", "event", "count", "value"],
    ),
    (
        {"type": "DYNAMIC", "definition": {"event": EVENT | {"within": {"days": 1}, "before": {"days": 2}}}},
        "INVALID_CONDITION",
        ["definition", "event", "before"],
    ),
]


async def test_a_wrong_segment_is_refused_and_nothing_is_made(console: Caller) -> None:
    """S2-01, S2-20: among them the eleventh condition of the simple builder."""
    for wanted, code, field in WRONG_SEGMENTS:
        refusal = await console.refusal("SegmentCreate", input={"name": "VIPs", "type": "STATIC"} | wanted)
        assert refusal == (code, ["input", *field])
        assert len((await console.data("Segments"))["edges"]) == 1  # EVERYONE


OTHER_SHAPES: list[dict[str, Any]] = [
    {},
    {"trait": None},
    PREMIUM | {"identified": True},
    {"event": EVENT | {"within": {"days": 1, "hours": 1}}},
    {"event": EVENT | {"within": {"days": "many"}}},
    {"trait": {"key": "a", "operator": "LIKES", "value": 1}},
    {"trait": {"key": "a", "operator": "EQUALS", "value": None}},
    {"score": 5},
]


async def test_conditions_of_another_shape_are_refused_before_anything_runs(console: Caller) -> None:
    for definition in OTHER_SHAPES:
        wanted = {"name": "x", "type": "DYNAMIC", "definition": definition}
        answer = await console.ask("SegmentCreate", input=wanted)
        assert answer.get("data") is None
        assert len(answer["errors"]) >= 1


async def test_a_field_that_is_missing_or_unknown_is_named_however_much_else_was_said(console: Caller) -> None:
    said = {"type": "STATIC", "description": "of those who come every week and buy a little of everything " * 3}
    for wanted, reason in (
        (said, "to include required field 'name', found: something long."),
        (said | {"name": "Regulars", "colour": "red"}, "not to include unknown field 'colour', found: something long."),
    ):
        (error,) = (await console.ask("SegmentCreate", input=wanted))["errors"]
        assert error["message"].endswith(f"Expected value of type 'SegmentCreateInput' {reason}")


async def test_every_kind_of_condition_is_taken_and_given_back(console: Caller) -> None:
    """S2-02, S2-03, S2-05, S2-06, S2-07, S2-08, S2-16, S2-17, S2-19, S2-21, S4-06."""
    definition = {
        "all": [
            {"any": [PREMIUM, {"trait": {"key": "orders", "operator": "BETWEEN", "value": [1, 2.5]}}]},
            {"not": {"trait": {"key": "vip", "operator": "MISSING"}}},
            {"trait": {"key": "code", "operator": "IN", "value": ["a", "b"]}},
            {
                "event": {
                    "name": "purchase",
                    "count": {"operator": "GREATER_OR_EQUAL", "value": 3},
                    "within": {"weeks": 2},
                    "where": [{"property": "channel", "operator": "STARTS_WITH", "value": "we"}],
                }
            },
            {"event": {"name": "purchase", "sum": {"property": "value", "operator": "LESS_THAN", "value": 99.5}}},
            {"event": {"name": "demo", "never": True}},
            {"lastSeen": {"within": {"hours": 3}}},
            {"firstSeen": {"before": {"minutes": 5}}},
            {"identified": True},
        ]
    }
    one = await make(console, type="DYNAMIC", definition=definition)
    segment = await console.data("Segment", id=one)
    assert segment["definition"] == definition
    assert segment["summary"]


async def test_a_segment_is_what_it_was_made_as(console: Caller) -> None:
    """S0-01 (conditions and ranking), S1-01, S1-02, S2-24: made, read, changed, copied."""
    brand = (await console.data("BrandCreate", input={"name": "Shoes"}))["brand"]["id"]
    named = await make(console, name="named", type="DYNAMIC", definition=PREMIUM)
    ranking = {"by": {"trait": "ltv"}, "direction": "ASC", "top": 5}
    definition = {"all": [PREMIUM, {"not": {"inSegment": named}}]}
    one = await make(
        console,
        name="Best",
        description="of the best",
        type="DYNAMIC",
        definition=definition,
        ranking=ranking,
        live=False,
        changeGuard=None,
        cadence="CRON",
        cron="0 6 * * MON",
        timeZone="Europe/Berlin",
        brandId=brand,
    )
    segment = await console.data("Segment", id=one)
    assert (segment["definition"], segment["ranking"], segment["mode"]) == (definition, ranking, "NESTED")
    assert (segment["live"], segment["changeGuard"]) == (False, None)
    assert (segment["cadence"], segment["cron"], segment["timeZone"]) == ("CRON", "0 6 * * MON", "Europe/Berlin")
    assert (segment["description"], segment["brand"]["name"]) == ("of the best", "Shoes")
    assert '"named"' in segment["summary"]
    assert segment["summary"].endswith("The top 5 by the lowest trait ltv.")
    assert [one["name"] for one in segment["references"]] == ["named"]
    assert [one["name"] for one in (await console.data("Segment", id=named))["usedBy"]] == ["Best"]

    simple = {"match": "ANY", "conditions": [PREMIUM, {"identified": True}]}
    change = {"id": one, "conditions": simple, "ranking": None, "live": True, "changeGuard": 10, "brandId": None}
    changed = (await console.data("SegmentUpdate", input=change))["segment"]
    assert (changed["definition"], changed["mode"], changed["ranking"]) == (
        {"any": simple["conditions"]},
        "SIMPLE",
        None,
    )
    assert (changed["live"], changed["changeGuard"], changed["brand"]) == (True, 10, None)
    assert (changed["definitionVersion"], changed["name"]) == (2, "Best")
    copy = (await console.data("SegmentDuplicate", input={"id": one}))["segment"]
    same = ("definition", "mode", "ranking", "live", "changeGuard", "cadence", "cron", "timeZone", "description")
    assert [copy[key] for key in same] == [changed[key] for key in same]


async def test_a_circle_of_segments_is_refused_with_its_names(console: Caller) -> None:
    first = await make(console, name="A", type="DYNAMIC", definition=PREMIUM)
    second = await make(console, name="B", type="DYNAMIC", definition={"inSegment": first})
    answer = await console.ask("SegmentUpdate", input={"id": first, "definition": {"any": [{"inSegment": second}]}})
    (error,) = answer["data"]["segmentUpdate"]["userErrors"]
    assert (error["code"], error["field"]) == ("CONDITION_CYCLE", ["input", "definition", "any", "0"])
    assert "'A' -> 'B' -> 'A'" in error["message"]


async def test_what_is_in_use_is_not_deleted_and_says_by_what(console: Caller) -> None:
    """S3-04: segments and campaigns that name it, by their names."""
    one = await make(console)
    user = await make(console, name="User", type="DYNAMIC", definition={"inSegment": one})

    async def refused() -> str:
        answer = await console.ask("SegmentDelete", input={"id": one})
        (error,) = answer["data"]["segmentDelete"]["userErrors"]
        assert (error["code"], error["field"]) == ("SEGMENT_IN_USE", ["input", "id"])
        said: str = error["message"]
        return said

    assert "'User'" in await refused()
    await console.data("SegmentDelete", input={"id": user})
    content = {"email": {"subject": "Hello", "html": "<p>Hi</p>"}}
    await console.data(
        "CampaignCreate", input={"name": "Spring", "content": content, "segmentIds": [one], "class": "TRANSACTIONAL"}
    )
    assert "'Spring'" in await refused()


async def test_ids_of_nothing_or_of_another_kind_are_refused_in_words(console: Caller) -> None:
    operations: dict[str, dict[str, Any]] = {
        "SegmentUpdate": {"name": "x"},
        "SegmentActivate": {},
        "SegmentPause": {},
        "SegmentUnpublish": {},
        "SegmentArchive": {},
        "SegmentDuplicate": {},
        "SegmentDelete": {},
        "SegmentEvaluate": {},
        "SegmentMembersAdd": {"externalIds": ["ada"]},
        "SegmentMembersRemove": {"externalIds": ["ada"]},
        "SegmentMembersImport": {"text": "external_id\nada\n"},
    }
    for operation, more in operations.items():
        assert await console.refusal(operation, input={"id": NOWHERE} | more) == ("NOT_FOUND", ["input", "id"])
        assert await console.refusal(operation, input={"id": "cmp_1"} | more) == ("INVALID_ID", ["input", "id"])
        assert await console.refusal(operation, input={"id": "ää"} | more) == ("INVALID_ID", ["input", "id"])


async def test_a_paused_or_dynamic_segment_is_not_filled_or_evaluated_by_hand(console: Caller) -> None:
    one = await make(console, type="DYNAMIC", definition=PREMIUM)
    assert await console.refusal("SegmentEvaluate", input={"id": one}) == ("SEGMENT_NOT_ACTIVE", ["input", "id"])
    assert await console.refusal("SegmentMembersAdd", input={"id": one, "externalIds": ["a"]}) == (
        "SEGMENT_NOT_STATIC",
        ["input", "id"],
    )
    static = await make(console)
    assert await console.refusal("SegmentEvaluate", input={"id": static}) == ("SEGMENT_NOT_DYNAMIC", ["input", "id"])


async def test_the_list_is_newest_first_and_stable_while_segments_are_made(console: Caller) -> None:
    """S2-23."""
    names = [f"segment {number}" for number in range(5)]
    for name in names:
        await make(console, name=name)
    first = await console.data("Segments", first=2)
    assert [edge["node"]["name"] for edge in first["edges"]] == ["segment 4", "segment 3"]
    assert first["pageInfo"] == {
        "hasNextPage": True,
        "hasPreviousPage": False,
        "startCursor": first["edges"][0]["cursor"],
        "endCursor": first["edges"][1]["cursor"],
    }
    await make(console, name="late")
    rest = await console.data("Segments", first=100, after=first["pageInfo"]["endCursor"])
    assert [edge["node"]["name"] for edge in rest["edges"]][:3] == ["segment 2", "segment 1", "segment 0"]
    assert (rest["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasPreviousPage"]) == (False, True)
    assert [e["node"]["name"] for e in (await console.data("Segments", name="LATE"))["edges"]] == ["late"]
    assert (await console.data("Segments", name="LATE", status="ACTIVE"))["edges"] == []


async def test_one_segment_above_the_limit_is_refused(environ: dict[str, str], workspace: UUID) -> None:
    """S2-22, with the limit set to 2."""
    settings = load_settings(environ | {"MUSTER_SEGMENT_LIMIT": "2"})
    _, secret = await keys.create(workspace, name="of a test", kind=KeyKind.SECRET, scopes=["read", "segments"])
    async with client_of(settings) as http:
        console = Caller(http, workspace, secret)
        first, _ = await make(console), await make(console)
        for operation, wanted in (
            ("SegmentCreate", {"name": "third", "type": "STATIC"}),
            ("SegmentDuplicate", {"id": first}),
        ):
            code, field = await console.refusal(operation, input=wanted)
            assert (code, field) == ("TOO_MANY_SEGMENTS", None)


async def test_how_large_conditions_may_be_is_a_setting(environ: dict[str, str], workspace: UUID) -> None:
    """With 3 levels and 10 single conditions."""
    settings = load_settings(environ | {"MUSTER_CONDITION_DEPTH": "3", "MUSTER_CONDITION_LEAVES": "10"})
    _, secret = await keys.create(workspace, name="of a test", kind=KeyKind.SECRET, scopes=["read", "segments"])
    async with client_of(settings) as http:
        console = Caller(http, workspace, secret)
        await make(console, type="DYNAMIC", definition={"any": [*[PREMIUM] * 9, {"not": PREMIUM}]})
        for definition, refused in (
            ({"any": [PREMIUM, {"not": {"not": PREMIUM}}]}, ("TOO_DEEP", ["any", "1", "not", "not"])),
            ({"not": {"any": [PREMIUM] * 11}}, ("INVALID_VALUE", ["not", "any"])),
            ({"all": [{"any": [PREMIUM] * 10}, PREMIUM]}, ("TOO_MANY_CONDITIONS", ["all", "1"])),
        ):
            code, field = await console.refusal(
                "SegmentCreate", input={"name": "x", "type": "DYNAMIC", "definition": definition}
            )
            assert (code, (field or [])[2:]) == refused
