"""Static segments over GraphQL: filled and emptied by name, from a file, by a query, by another segment."""

from datetime import UTC, datetime
from typing import Any

from tests.app.caller import Caller
from tests.app.filling import Somebody, make_people, make_segment, members

PREMIUM = {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}}
NOWHERE = "seg_" + "0" * 32


async def people(console: Caller, **plans: str) -> None:
    """People by name, each on a plan."""
    await make_people(
        console, {name: Somebody(traits={"plan": plan}) for name, plan in plans.items()}, now=datetime.now(UTC)
    )


async def populate(console: Caller, segment_id: str, **wanted: Any) -> tuple[int, int, int, int]:
    """(found, added, removed, size afterwards)."""
    done = await console.data("SegmentPopulateFromQuery", input={"id": segment_id} | wanted)
    return done["found"], done["added"], done["removed"], done["segment"]["size"]


async def test_members_are_curated_by_hand(console: Caller) -> None:
    """S3-01."""
    await people(console, ada="free", bob="free")
    one = await make_segment(console)
    await console.data("SegmentMembersAdd", input={"id": one, "externalIds": ["ada", "bob"]})
    assert await members(console, one) == {"ada", "bob"}
    await console.data("SegmentMembersRemove", input={"id": one, "externalIds": ["ada"]})
    assert await members(console, one) == {"bob"}


async def test_a_query_populates_empties_and_replaces_a_list(console: Caller) -> None:
    """S3x-07."""
    await people(console, ada="premium", bob="premium", eve="free")
    one = await make_segment(console)
    await console.data("SegmentMembersAdd", input={"id": one, "externalIds": ["eve"]})
    assert await populate(console, one, definition=PREMIUM) == (2, 2, 0, 3)
    assert await members(console, one) == {"ada", "bob", "eve"}
    assert await populate(console, one, definition=PREMIUM, mode="REMOVE") == (2, 0, 2, 1)
    assert await members(console, one) == {"eve"}
    simple = {"match": "ANY", "conditions": [PREMIUM, {"not": PREMIUM}]}
    assert await populate(console, one, conditions=simple, mode="ADD") == (3, 2, 0, 3)
    assert await populate(console, one, definition=PREMIUM, mode="REPLACE") == (2, 0, 1, 2)
    assert await members(console, one) == {"ada", "bob"}


async def test_a_saved_query_populates_a_list(console: Caller) -> None:
    """S3x-07."""
    await people(console, ada="premium", bob="free")
    sql = "SELECT profile_id FROM profiles WHERE external_id = 'ada'"
    saved = await console.data("SavedQueryCreate", input={"name": "Ada", "sql": sql})
    one = await make_segment(console)
    assert await populate(console, one, savedQueryId=saved["savedQuery"]["id"]) == (1, 1, 0, 1)
    assert await members(console, one) == {"ada"}


async def test_another_segment_is_subtracted(console: Caller) -> None:
    """S3x-08."""
    await people(console, ada="premium", bob="free", eve="free")
    one = await make_segment(console)
    await console.data("SegmentMembersAdd", input={"id": one, "externalIds": ["ada", "bob"]})
    payers = await make_segment(console, PREMIUM, name="Payers")
    done = await console.data("SegmentSubtract", input={"id": one, "otherId": payers})
    assert (done["removed"], done["segment"]["size"]) == (1, 1)
    assert (await members(console, one), await members(console, payers)) == ({"bob"}, {"ada"})


async def test_what_cannot_be_done_to_a_list_is_refused_and_changes_nothing(console: Caller) -> None:
    await people(console, ada="premium")
    one = await make_segment(console)
    await console.data("SegmentMembersAdd", input={"id": one, "externalIds": ["ada"]})
    dynamic = await make_segment(console, PREMIUM, name="Payers")
    draft = (await console.data("SegmentCreate", input={"name": "Never", "type": "DYNAMIC", "definition": PREMIUM}))[
        "segment"
    ]["id"]
    wrong: list[tuple[str, dict[str, Any], str, list[str]]] = [
        ("SegmentPopulateFromQuery", {"id": one}, "ONE_DEFINITION", ["definition"]),
        (
            "SegmentPopulateFromQuery",
            {"id": one, "definition": PREMIUM, "conditions": {"match": "ALL", "conditions": [PREMIUM]}},
            "ONE_DEFINITION",
            ["definition"],
        ),
        ("SegmentPopulateFromQuery", {"id": one, "definition": {"all": []}}, "INVALID_VALUE", ["definition", "all"]),
        (
            "SegmentPopulateFromQuery",
            {"id": one, "conditions": {"match": "ALL", "conditions": [PREMIUM] * 11}},
            "TOO_MANY_CONDITIONS",
            ["conditions", "conditions", "10"],
        ),
        (
            "SegmentPopulateFromQuery",
            {"id": one, "definition": {"not": {"inSegment": draft}}},
            "SEGMENT_NOT_EVALUATED",
            ["definition", "not"],
        ),
        ("SegmentPopulateFromQuery", {"id": one, "savedQueryId": "seg_1"}, "INVALID_ID", ["savedQueryId"]),
        ("SegmentPopulateFromQuery", {"id": dynamic, "definition": PREMIUM}, "SEGMENT_NOT_STATIC", ["id"]),
        ("SegmentPopulateFromQuery", {"id": NOWHERE, "definition": PREMIUM}, "NOT_FOUND", ["id"]),
        ("SegmentSubtract", {"id": one, "otherId": draft}, "SEGMENT_NOT_EVALUATED", ["otherId"]),
        ("SegmentSubtract", {"id": one, "otherId": one}, "SAME_SEGMENT", ["otherId"]),
        ("SegmentSubtract", {"id": one, "otherId": NOWHERE}, "NOT_FOUND", ["otherId"]),
        ("SegmentSubtract", {"id": one, "otherId": "cmp_1"}, "INVALID_ID", ["otherId"]),
        ("SegmentSubtract", {"id": dynamic, "otherId": one}, "SEGMENT_NOT_STATIC", ["id"]),
    ]
    for operation, given, code, field in wrong:
        assert await console.refusal(operation, input=given) == (code, ["input", *field]), given
    assert await members(console, one) == {"ada"}
