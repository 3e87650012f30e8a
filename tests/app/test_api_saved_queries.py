"""Saved SQL over GraphQL: tried, saved, used by segments, changed and deleted; and what is refused."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from app.resources import segment_sources
from app.settings import load_settings
from profiles import keys
from profiles.models import KeyKind
from segments import cycles
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller, client_of

RICH = "SELECT profile_id FROM profiles WHERE (traits ->> 'spent')::numeric > 100"
NOWHERE = "svq_" + "0" * 32


async def people(console: Caller) -> dict[str, str]:
    """Ids by external id: ada has spent most."""
    spent = {"ada": 500, "bob": 200, "eve": 50}
    profiles = [{"externalId": name, "traits": {"spent": amount}} for name, amount in spent.items()]
    await console.data("ProfilesUpsert", input={"profiles": profiles})
    return {name: (await console.data("Profile", externalId=name))["id"] for name in spent}


async def save(console: Caller, sql: str = RICH, name: str = "Big spenders") -> dict[str, Any]:
    made = await console.data("SavedQueryCreate", input={"name": name, "sql": sql, "description": "Over 100"})
    query: dict[str, Any] = made["savedQuery"]
    return query


async def use(console: Caller, query_id: str, name: str = "Rich") -> str:
    """The id of an active segment of whom the query answers."""
    wanted = {"name": name, "type": "DYNAMIC", "definition": {"savedQuery": query_id}}
    segment_id: str = (await console.data("SegmentCreate", input=wanted))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment_id})
    return segment_id


async def members(console: Caller, segment_id: str) -> list[str]:
    """External ids, once a worker has done what waits."""
    while await cycles.run(console.workspace_id, sources=segment_sources(), now=datetime.now(UTC)) is not None:
        pass
    page = (await console.data("SegmentMembers", id=segment_id))["members"]
    return [edge["node"]["externalId"] for edge in page["edges"]]


async def test_sql_is_tried_saved_and_used_by_a_segment(console: Caller) -> None:
    """S3-02."""
    ids = await people(console)
    shown = await console.data("SavedQueryPreview", sql=RICH)
    assert shown == {"count": 2, "profileIds": [ids["ada"], ids["bob"]]}
    query = await save(console)
    assert (query["name"], query["sql"], query["description"]) == ("Big spenders", RICH, "Over 100")
    assert await console.data("SavedQuery", id=query["id"]) == query
    assert (await console.data("Node", id=query["id"]))["id"] == query["id"]
    segment_id = await use(console, query["id"])
    assert await members(console, segment_id) == ["ada", "bob"]
    segment = await console.data("Segment", id=segment_id)
    assert segment["definition"] == {"savedQuery": query["id"]}
    assert segment["summary"] == 'Found by the saved query "Big spenders".'
    assert segment["live"] is False


async def test_other_sql_brings_other_members_and_the_same_definition(console: Caller) -> None:
    await people(console)
    query = await save(console)
    segment_id = await use(console, query["id"])
    assert await members(console, segment_id) == ["ada", "bob"]
    changed = await console.data("SavedQueryUpdate", input={"id": query["id"], "sql": RICH.replace("100", "300")})
    assert changed["savedQuery"]["sql"].endswith("> 300")
    assert changed["savedQuery"]["name"] == "Big spenders"
    assert await members(console, segment_id) == ["ada"]
    assert (await console.data("Segment", id=segment_id))["definitionVersion"] == 1


async def test_an_evaluation_that_fails_leaves_members_alone_and_says_why(console: Caller) -> None:
    await people(console)
    query = await save(console, "SELECT profile_id FROM profiles WHERE 1000 / (traits ->> 'spent')::numeric < 10")
    segment_id = await use(console, query["id"])
    assert await members(console, segment_id) == ["ada", "bob"]
    await console.data("ProfileUpsert", input={"externalId": "zed", "traits": {"spent": 0}})
    await console.data("SegmentEvaluate", input={"id": segment_id})
    assert await members(console, segment_id) == ["ada", "bob"]
    segment = await console.data("Segment", id=segment_id)
    failed = segment["lastEvaluation"]
    assert (failed["status"], failed["errorCode"], segment["size"]) == ("FAILED", "SAVED_QUERY_FAILED", 2)
    assert "division by zero" in failed["error"]


async def test_a_query_in_use_is_not_deleted_and_one_out_of_use_is(console: Caller) -> None:
    query = await save(console)
    segment_id = await use(console, query["id"], name="Rich people")
    answer = await console.ask("SavedQueryDelete", input={"id": query["id"]})
    (error,) = answer["data"]["savedQueryDelete"]["userErrors"]
    assert (error["code"], error["field"]) == ("SAVED_QUERY_IN_USE", ["input", "id"])
    assert "Rich people" in error["message"]
    await console.data("SegmentUpdate", input={"id": segment_id, "definition": {"identified": True}})
    assert (await console.data("SavedQueryDelete", input={"id": query["id"]}))["deletedId"] == query["id"]
    assert await console.data("SavedQuery", id=query["id"]) is None


async def test_saved_queries_are_listed_newest_first_page_by_page(console: Caller) -> None:
    made = [(await save(console, name=f"Query {number}"))["id"] for number in range(3)]
    first = await console.data("SavedQueries", first=2)
    assert [edge["node"]["id"] for edge in first["edges"]] == [made[2], made[1]]
    rest = await console.data("SavedQueries", first=2, after=first["pageInfo"]["endCursor"])
    assert [edge["node"]["id"] for edge in rest["edges"]] == [made[0]]
    assert rest["pageInfo"]["hasNextPage"] is False


async def test_what_is_not_allowed_is_refused_with_its_place(console: Caller) -> None:
    query = await save(console)

    async def refusal(operation: str, **wanted: Any) -> tuple[str, list[str] | None]:
        return await console.refusal(operation, input=wanted)

    bad = "SELECT set_config('muster.workspace_id', 'x', true)::int AS profile_id"
    assert await refusal("SavedQueryCreate", name="x", sql=bad) == ("SQL_NOT_ALLOWED", ["input", "sql"])
    assert await refusal("SavedQueryCreate", name="x", sql="SELECT email AS profile_id FROM profiles") == (
        "SQL_FAILED",
        ["input", "sql"],
    )
    assert await refusal("SavedQueryCreate", name="Big spenders", sql=RICH) == ("NAME_TAKEN", ["input", "name"])
    assert await refusal("SavedQueryCreate", name="x" * 201, sql=RICH) == ("TOO_LONG", ["input", "name"])
    assert await refusal("SavedQueryCreate", name="x", sql=RICH, description="x" * 5001) == (
        "TOO_LONG",
        ["input", "description"],
    )
    assert await refusal("SavedQueryUpdate", id=query["id"], sql="DROP TABLE profile") == (
        "SQL_NOT_ALLOWED",
        ["input", "sql"],
    )
    assert await refusal("SavedQueryUpdate", id=NOWHERE, name="x") == ("NOT_FOUND", ["input", "id"])
    assert await refusal("SavedQueryDelete", id="seg_" + "0" * 32) == ("INVALID_ID", ["input", "id"])
    assert await refusal("SegmentCreate", name="x", type="DYNAMIC", definition={"savedQuery": "svq_7"}) == (
        "INVALID_ID",
        ["input", "definition", "savedQuery"],
    )
    error = await console.error("SavedQueryPreview", sql=bad)
    assert (error["code"], error["field"]) == ("SQL_NOT_ALLOWED", ["sql"])


async def test_saved_queries_are_of_one_workspace(console: Caller, foreigner: Caller) -> None:
    await people(console)
    query = await save(console)
    assert await foreigner.data("SavedQuery", id=query["id"]) is None
    assert (await foreigner.data("SavedQueries"))["edges"] == []
    assert await foreigner.data("SavedQueryPreview", sql=RICH) == {"count": 0, "profileIds": []}
    assert (await foreigner.refusal("SavedQueryDelete", input={"id": query["id"]}))[0] == "NOT_FOUND"
    wanted = {"name": "x", "type": "DYNAMIC", "definition": {"savedQuery": query["id"]}}
    assert await foreigner.refusal("SegmentCreate", input=wanted) == (
        "NOT_FOUND",
        ["input", "definition"],
    )


async def test_a_key_that_only_reads_may_not_run_sql(caller: MakeCaller, console: Caller) -> None:
    reader = await caller(console.workspace_id, "read")
    await save(console)
    assert len((await reader.data("SavedQueries"))["edges"]) == 1
    assert (await reader.error("SavedQueryPreview", sql=RICH))["code"] == "FORBIDDEN"
    assert (await reader.error("SavedQueryCreate", input={"name": "x", "sql": RICH}))["code"] == "FORBIDDEN"


async def test_a_request_previews_one_query(console: Caller) -> None:
    await people(console)
    preview = "savedQueryPreview(sql: $sql) { count }"
    twice = await console.post(f"query ($sql: String!) {{ one: {preview} two: {preview} }}", {"sql": RICH})
    assert [error["extensions"]["code"] for error in twice.json()["errors"]] == ["TOO_MANY_PREVIEWS"]
    assert (await console.data("SavedQueryPreview", sql=RICH))["count"] == 2


async def test_one_saved_query_above_the_limit_is_refused(environ: dict[str, str], workspace: UUID) -> None:
    """With the limit set to 2; one that is deleted makes room."""
    settings = load_settings(environ | {"MUSTER_SAVED_QUERY_LIMIT": "2"})
    _, secret = await keys.create(workspace, name="of a test", kind=KeyKind.SECRET, scopes=["read", "segments"])
    async with client_of(settings) as http:
        console = Caller(http, workspace, secret)
        first, _ = await save(console, name="one"), await save(console, name="two")
        wanted = {"name": "three", "sql": RICH}
        assert await console.refusal("SavedQueryCreate", input=wanted) == ("TOO_MANY_SAVED_QUERIES", None)
        await console.data("SavedQueryDelete", input={"id": first["id"]})
        await save(console, name="three")
