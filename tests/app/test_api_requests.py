"""Requests that come twice are done once; and who did what is kept."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from tortoise.backends.base.client import TransactionalDBClient
from tortoise.connection import get_connections

from app.once import idempotency_key
from app.problems import ApiError
from app.wakeups import Wakeups
from campaigns import content
from db.transactions import transaction, transaction_apart
from profiles import audit, requests
from profiles.errors import ProfileError
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller
from tests.app.test_api_campaigns import complete, everyone, instant, make, people, sender
from tests.app.test_api_evaluations import make as make_segment
from tests.conftest import Database

COUNT = "SELECT count(*) FROM {} WHERE workspace_id = $1"
KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"


def keyed(caller: Caller, key: str = KEY) -> Caller:
    return caller.with_headers(idempotency_key=f'"{key}"')


async def count(caller: Caller, table: str) -> int:
    async with transaction(caller.workspace_id) as connection:
        rows: int = await connection.fetchval(COUNT.format(table), caller.workspace_id)
    return rows


async def test_a_campaign_that_is_made_twice_with_one_key_is_made_once(console: Caller) -> None:
    wanted = await complete(console)
    first = await keyed(console).data("CampaignCreate", input=wanted)
    assert await keyed(console).data("CampaignCreate", input=wanted) == first
    assert await count(console, "campaign") == 1
    other = await keyed(console, "another").data("CampaignCreate", input=wanted)
    assert other["campaign"]["id"] != first["campaign"]["id"]


async def test_a_campaign_that_is_sent_twice_is_answered_twice_as_it_is_now(console: Caller) -> None:
    await people(console, "ada")
    campaign = await make(console)
    first = await keyed(console).data("CampaignSend", input={"id": campaign})
    again = await keyed(console).data("CampaignSend", input={"id": campaign})
    assert first["campaign"]["status"] == again["campaign"]["status"] == "PREPARING"
    assert await count(console, "dispatch") == 1
    assert (await console.refusal("CampaignSend", input={"id": campaign}))[0] == "ILLEGAL_MOVE"


@pytest.mark.parametrize("operation", ["BrandCreate", "SegmentCreate", "SegmentDuplicate", "SegmentEvaluate"])
async def test_other_things_are_made_once_too(console: Caller, operation: str) -> None:
    segment = await make_segment(console)
    if operation == "SegmentEvaluate":
        await console.data("SegmentActivate", input={"id": segment})
    wanted: dict[str, Any] = {
        "BrandCreate": {"name": "Acme"},
        "SegmentCreate": {"name": "Some", "type": "STATIC"},
    }.get(operation, {"id": segment})
    first = await keyed(console).data(operation, input=wanted)
    assert await keyed(console).data(operation, input=wanted) == first


async def test_a_sender_a_placement_and_a_test_are_made_once(console: Caller) -> None:
    wanted = {"fromName": "A", "fromAddress": "a@example.com", "postalAddress": "1 Road, Town"}
    first = await keyed(console).data("SenderCreate", input=wanted)
    assert await keyed(console).data("SenderCreate", input=wanted) == first
    place = {"key": "home", "name": "Home"}
    made = await keyed(console, "2").data("PlacementCreate", input=place)
    assert await keyed(console, "2").data("PlacementCreate", input=place) == made
    await people(console, "ada")
    test = {"id": await make(console), "externalIds": ["ada"]}
    sent = await keyed(console, "3").data("CampaignTestSend", input=test)
    again = await keyed(console, "3").data("CampaignTestSend", input=test)
    assert again["dispatch"]["id"] == sent["dispatch"]["id"]
    assert await count(console, "dispatch") == 1


async def test_the_same_key_with_another_input_is_refused(console: Caller) -> None:
    await keyed(console).data("BrandCreate", input={"name": "Acme"})
    assert await keyed(console).refusal("BrandCreate", input={"name": "Other"}) == ("IDEMPOTENCY_KEY_REUSED", None)


async def test_a_key_belongs_to_who_sent_it(console: Caller, caller: MakeCaller, foreigner: Caller) -> None:
    """T-25: nobody gets somebody else's answer."""
    mine = await keyed(console).data("BrandCreate", input={"name": "Acme"})
    theirs = await keyed(foreigner).data("BrandCreate", input={"name": "Acme"})
    assert theirs["brand"]["id"] != mine["brand"]["id"]
    colleague = await caller(console.workspace_id)
    assert (await keyed(colleague).refusal("BrandCreate", input={"name": "Acme"}))[0] != "IDEMPOTENCY_KEY_REUSED"


async def test_what_one_request_asks_for_twice_is_done_twice_and_answered_again_each(console: Caller) -> None:
    """One Idempotency-Key has a place for each field of the document, aliases of the same mutation too."""
    names = """mutation {
        one: brandCreate(input: {name: "One"}) { brand { id name } userErrors { code } }
        two: brandCreate(input: {name: "Two"}) { brand { id name } userErrors { code } }
    }"""
    first = (await keyed(console).post(names)).json()["data"]
    assert {field: payload["brand"]["name"] for field, payload in first.items()} == {"one": "One", "two": "Two"}
    assert (await keyed(console).post(names)).json()["data"] == first
    assert await count(console, "brand") == 2


async def test_workers_are_rung_for_once_what_they_are_to_do_is_there(
    console: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keyed request commits after the mutation's end: a bell before that is heard by workers who find nothing."""
    seen = []
    connection = await asyncpg.connect(database.owner_url)

    async def deliver(*_: Any, **__: Any) -> None:
        seen.append(await connection.fetchval("SELECT count(*) FROM dispatch"))

    monkeypatch.setattr(Wakeups, "deliver", deliver)
    try:
        await people(console, "ada")
        await keyed(console).data("CampaignSend", input={"id": await make(console)})
    finally:
        await connection.close()
    assert seen == [1]


async def test_what_was_refused_is_not_kept(console: Caller) -> None:
    campaign = (await console.data("CampaignCreate", input=await complete(console, senderId=None)))["campaign"]["id"]
    assert (await keyed(console).refusal("CampaignSend", input={"id": campaign}))[0] == "SENDER_MISSING"
    await console.data("CampaignUpdate", input={"id": campaign, "senderId": await sender(console)})
    assert (await keyed(console).data("CampaignSend", input={"id": campaign}))["campaign"]["status"] == "PREPARING"


async def test_what_was_deleted_since_is_not_made_again(console: Caller) -> None:
    wanted = await complete(console)
    made = await keyed(console).data("CampaignCreate", input=wanted)
    await console.data("CampaignDelete", input={"id": made["campaign"]["id"]})
    assert await keyed(console).refusal("CampaignCreate", input=wanted) == ("GONE", None)


async def test_a_key_that_is_none_is_refused(console: Caller) -> None:
    assert (await keyed(console, "x" * 201).refusal("BrandCreate", input={"name": "A"}))[0] == "INVALID_IDEMPOTENCY_KEY"
    assert idempotency_key(' "a" ') == idempotency_key("a") == "a"
    for none in ("", '""', "caf\u00e9", "a\tb", "x" * 201):
        with pytest.raises(ApiError, match="printable ASCII"):
            idempotency_key(none)


async def once(console: Caller, now: Any, work: Any) -> Any:
    return await requests.once(
        console.workspace_id, actor="a", key="k", place="p", fingerprint=b"f", now=now, work=work
    )


async def test_a_second_one_does_not_wait_for_the_first(console: Caller, now: Any) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def work() -> dict[str, str]:
        begun.set()
        await end.wait()
        return {"brand": "brd_1"}

    first = asyncio.create_task(once(console, now, work))
    await begun.wait()
    with pytest.raises(ProfileError) as busy:
        await once(console, now, work)
    assert busy.value.code == "IDEMPOTENCY_KEY_BUSY"
    end.set()
    assert await first is None
    assert await once(console, now, work) == {"brand": "brd_1"}


async def test_children_and_second_connections_are_asked_before_the_transaction_begins(
    console: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else ten requests that hold one connection each, and wait, hold all that there are."""
    held: list[bool] = []

    def watched(step: Any) -> Any:
        def watching(*args: Any, **kwargs: Any) -> Any:
            held.append(isinstance(get_connections().get("default"), TransactionalDBClient))
            return step(*args, **kwargs)

        return watching

    wanted = await complete(console)
    monkeypatch.setattr(content, "proved", watched(content.proved))
    monkeypatch.setattr("segments.saved_queries.transaction_apart", watched(transaction_apart))
    await keyed(console, "1").data("CampaignCreate", input=wanted)
    query = {"name": "All", "sql": "SELECT profile_id FROM profiles"}
    made = await keyed(console, "2").data("SavedQueryCreate", input=query)
    assert await keyed(console, "2").data("SavedQueryCreate", input=query) == made
    assert held == [False, False, False]


async def test_a_crash_between_leaves_neither_the_work_nor_the_note(console: Caller, now: Any) -> None:
    async def work() -> dict[str, str]:
        await console.data("Brands")
        async with transaction(console.workspace_id) as connection:
            await connection.execute("INSERT INTO brand (workspace_id, name) VALUES ($1, 'b')", console.workspace_id)
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await once(console, now, work)
    assert await count(console, "brand") == await count(console, "request") == 0


async def test_a_day_later_a_key_is_new(console: Caller, now: Any) -> None:
    async def work() -> dict[str, str]:
        return {}

    assert await once(console, now, work) is None
    assert await once(console, now + timedelta(hours=23), work) == {}
    assert await once(console, now + timedelta(hours=24), work) is None
    assert await count(console, "request") == 1


# --- the audit log ------------------------------------------------------------------------------------------------


async def log(console: Caller, **wanted: Any) -> list[dict[str, Any]]:
    return [edge["node"] for edge in (await console.data("AuditLog", **wanted))["edges"]]


async def test_every_mutation_leaves_who_what_when_and_on_what(console: Caller) -> None:
    campaign = (await console.data("CampaignCreate", input=await complete(console)))["campaign"]["id"]
    await console.data("CampaignSchedule", input={"id": campaign, "at": instant(days=1)})
    await console.refusal("CampaignResume", input={"id": campaign})
    newest, *_ = entries = await log(console)
    assert [(one["action"], one["object"], one["outcome"]) for one in entries[:3]] == [
        ("campaignResume", campaign, "ILLEGAL_MOVE"),
        ("campaignSchedule", campaign, "DONE"),
        ("campaignCreate", campaign, "DONE"),
    ]
    assert newest["keyName"] == "of a test"
    assert console.key is not None
    assert console.key.startswith(newest["keyPrefix"])
    assert [one["action"] for one in await log(console, action="campaignSchedule")] == ["campaignSchedule"]
    assert {one["object"] for one in await log(console, object=campaign)} == {campaign}
    assert await log(console, since=instant(days=1)) == []


async def test_the_log_holds_nothing_of_people_and_is_for_admins(
    console: Caller, caller: MakeCaller, foreigner: Caller
) -> None:
    """Addresses, names and what was said of people stay out."""
    await people(console, "ada")
    await console.data("SuppressionAdd", input={"channel": "EMAIL", "address": "ada@example.com"})
    await everyone(console)
    assert "ada" not in str(await log(console)).lower()
    assert [one["action"] for one in await log(console)] == ["suppressionAdd"]
    assert await log(foreigner) == []
    marketer = await caller(console.workspace_id, "read", "campaigns", "send")
    assert (await marketer.error("AuditLog"))["code"] == "FORBIDDEN"


async def test_the_log_is_paged_while_it_grows(console: Caller) -> None:
    for name in "abc":
        await console.data("BrandCreate", input={"name": name})
    first = await console.data("AuditLog", first=2)
    await console.data("BrandCreate", input={"name": "d"})
    rest = await console.data("AuditLog", first=2, after=first["pageInfo"]["endCursor"])
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    assert len(first["edges"]) + len(rest["edges"]) == 3


async def test_what_is_no_id_is_not_kept_of_an_input(console: Caller) -> None:
    """A client may write an address there, or two megabytes."""
    assert (await console.refusal("CampaignSend", input={"id": "ada@example.com"}))[0] == "INVALID_ID"
    assert [(one["action"], one["object"]) for one in await log(console)] == [("campaignSend", None)]


async def test_a_fault_of_ours_is_in_the_log_as_one(console: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("profiles.brands.create", broken)
    assert (await console.error("BrandCreate", input={"name": "Acme"}))["code"] == "INTERNAL"
    assert [(one["action"], one["object"], one["outcome"]) for one in await log(console)] == [
        ("brandCreate", None, "FAILED")
    ]


async def test_what_was_done_is_answered_though_its_outcome_could_not_be_kept(
    console: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(audit, "end", away)
        assert (await console.data("BrandCreate", input={"name": "Acme"}))["brand"]["name"] == "Acme"
    assert [(one["action"], one["outcome"]) for one in await log(console)] == [("brandCreate", None)]
