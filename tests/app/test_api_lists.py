"""Lists: filtered and ordered as people ask, each page going on where the last one ended, whatever comes in between."""

import base64
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import orjson

from db.transactions import transaction
from tests.app.caller import Caller
from tests.app.test_api_campaigns import make, people, work

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
SEGMENTS = """
INSERT INTO segment (workspace_id, name, type, status, created_at, updated_at)
SELECT $1, u.name, 'STATIC', 'ACTIVE', u.at, u.at FROM unnest($2::text[], $3::timestamptz[]) AS u (name, at)
"""
SIZES = """
INSERT INTO segment_membership (segment_id, workspace_id, base, added, removed, size, evaluated_at)
SELECT s.id, $1, '', '', '', length(s.name) % 3, now() FROM segment s
WHERE s.workspace_id = $1 AND s.type = 'STATIC' AND ascii(s.name) % 2 = 0 ON CONFLICT DO NOTHING
"""
CAMPAIGNS = """
INSERT INTO campaign (workspace_id, name, channel, status, content, created_at, updated_at, scheduled_at, started_at)
SELECT $1, u.name, 'EMAIL', 'SENT', '{}', u.at, u.at, CASE WHEN length(u.name) % 2 = 0 THEN u.at END,
  CASE WHEN length(u.name) % 3 = 0 THEN u.at END
FROM unnest($2::text[], $3::timestamptz[]) AS u (name, at)
"""
ORDERED = {
    "Segments": ("NAME", "CREATED_AT", "UPDATED_AT", "SIZE"),
    "Campaigns": ("NAME", "CREATED_AT", "UPDATED_AT", "SCHEDULED_AT", "STARTED_AT"),
    "Profiles": ("CREATED_AT",),
}
ORDERS = [
    (operation, field, direction)
    for operation, fields in ORDERED.items()
    for field in fields
    for direction in ("ASC", "DESC")
]


async def insert(console: Caller, operation: str, names: list[str], random: Random) -> None:
    """Rows of a list, with times and names of which many are the same."""
    if operation == "Profiles":
        return await people(console, *names)
    at = [START + random.randrange(4) * DAY for _ in names]
    async with transaction(console.workspace_id) as connection:
        if operation == "Segments":
            await connection.execute(SEGMENTS, console.workspace_id, names, at)
            await connection.execute(SIZES, console.workspace_id)
        else:
            await connection.execute(CAMPAIGNS, console.workspace_id, names, at)
    return None


async def read(console: Caller, operation: str, random: Random, order: dict[str, str], *, while_new: bool) -> list[str]:
    """Ids of all pages of random sizes; `while_new`: more is inserted between them."""
    found: list[str] = []
    after, number = None, 0
    while True:
        page = await console.data(operation, first=random.randint(1, 7), after=after, orderBy=order)
        found += [edge["node"]["id"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]
        if while_new and number < 3:
            number += 1
            names = [f"{random.choice('abcABC')}{'x' * random.randrange(4)}{order}{number}{n}" for n in range(5)]
            await insert(console, operation, names, random)


async def test_pages_of_every_order_are_stable_while_rows_come_in(console: Caller) -> None:
    """S2-23: whatever order and page sizes, those that were there are answered once each, in the order of one page."""
    random = Random(7)
    for operation in ORDERED:
        names = [f"{random.choice('abcABC')}{'x' * random.randrange(4)}{n if n % 3 else ''}" for n in range(24)]
        await insert(console, operation, sorted(set(names)), random)
    for operation, field, direction in ORDERS:
        order = {"field": field, "direction": direction}
        whole = [edge["node"]["id"] for edge in (await console.data(operation, first=100, orderBy=order))["edges"]]
        assert len(whole) > 15
        told = await read(console, operation, random, order, while_new=True)
        assert len(told) == len(set(told)), (operation, order)
        assert [id for id in told if id in whole] == whole, (operation, order)
        # Bounded by what a page can hold: the next order begins with what is there by then.
        if operation != "Profiles":
            async with transaction(console.workspace_id) as connection:
                table = operation.lower().removesuffix("s")
                await connection.execute(f"DELETE FROM {table} WHERE name LIKE '%field%'")


async def test_lists_stand_in_the_order_that_was_asked_for(console: Caller) -> None:
    random = Random(3)
    await insert(console, "Segments", ["b", "A", "c", "Bx"], random)
    await insert(console, "Campaigns", ["b", "A", "cx", "Bxx"], random)

    async def names(operation: str, field: str, direction: str = "ASC") -> list[str]:
        page = await console.data(operation, orderBy={"field": field, "direction": direction})
        return [edge["node"]["name"] for edge in page["edges"] if edge["node"].get("type") != "EVERYONE"]

    for operation in ("Segments", "Campaigns"):
        assert [name.lower() for name in await names(operation, "NAME")] == sorted(
            name.lower() for name in await names(operation, "CREATED_AT")
        )
        up, down = await names(operation, "CREATED_AT"), await names(operation, "CREATED_AT", "DESC")
        assert up == down[::-1]
    assert await names("Campaigns", "CREATED_AT") == ["b", "A", "cx", "Bxx"]
    # Of those that were never scheduled, started or evaluated nobody can say when or how large: last either way.
    for direction in ("ASC", "DESC"):
        assert (await names("Campaigns", "SCHEDULED_AT", direction))[0] == "cx"
        assert (await names("Campaigns", "STARTED_AT", direction))[0] == "Bxx"
        assert set((await names("Segments", "SIZE", direction))[2:]) == {"A", "c"}
    (first,) = (await console.data("Segments", first=1, orderBy={"field": "SIZE", "direction": "DESC"}))["edges"]
    assert first["node"]["type"] == "EVERYONE"


async def test_a_cursor_says_for_which_order_it_is(console: Caller) -> None:
    await insert(console, "Segments", ["a", "b"], Random(1))
    await people(console, "a", "b")
    for operation in ("Segments", "Profiles"):
        page = await console.data(operation, first=1, orderBy={"field": "CREATED_AT", "direction": "ASC"})
        cursor = page["pageInfo"]["endCursor"]
        answer = await console.ask(operation, after=cursor, orderBy={"field": "CREATED_AT", "direction": "DESC"})
        (error,) = answer["errors"]
        assert error["extensions"]["code"] == "INVALID_CURSOR"
        assert "CREATED_AT ASC" in error["message"]
    bad: list[Any] = [
        "", "x", "é", [], {}, None, 7, ["NAME ASC"], ["NAME ASC", 7, "0" * 32], ["NAME ASC", "a\0b", "0" * 32],
        ["NAME ASC", "a", "no id"], ["NAME ASC", "a", 7], ["SIZE ASC", "9" * 30, "0" * 32], ["SIZE ASC", "x", "0" * 32],
        ["UPDATED_AT ASC", "2026-02-30", "0" * 32], ["UPDATED_AT ASC", "2026-01-01", "0" * 32],
        ["NAME ASC", ["a"], "0" * 32], ["NAME ASC", {"a": 1}, "0" * 32],
        ["UPDATED_AT ASC", "0001-01-01T00:00:00+05:00", "0" * 32],
        ["CREATED_AT ASC", "x", "0" * 32], ["NAME ASC", "a" * 5000, "0" * 32], ["NAME; ASC", "a", "0" * 32],
    ]  # fmt: skip
    for one in bad:
        field = str(one[0]).split()[0] if isinstance(one, list) and one else "NAME"
        cursor = one if isinstance(one, str) else base64.urlsafe_b64encode(orjson.dumps(one)).decode()
        wanted = {"field": field if field in ORDERED["Segments"] else "NAME", "direction": "ASC"}
        assert (await console.error("Segments", after=cursor, orderBy=wanted))["code"] == "INVALID_CURSOR", one
    # An instant in a zone that PostgreSQL has no word for is an instant all the same.
    early = orjson.dumps(["UPDATED_AT ASC", "2020-01-01T00:00:00.5+23:59:30", "0" * 32])
    wanted = {"field": "UPDATED_AT", "direction": "ASC"}
    page = await console.data("Segments", after=base64.urlsafe_b64encode(early).decode(), orderBy=wanted)
    assert len(page["edges"]) == 3


async def test_lists_hold_only_what_was_asked_for(console: Caller, foreigner: Caller) -> None:
    brand = (await console.data("BrandCreate", input={"name": "Shop"}))["brand"]["id"]
    other = (await foreigner.data("BrandCreate", input={"name": "Theirs"}))["brand"]["id"]
    await insert(console, "Segments", ["Spring 100% sale", "autumn"], Random(1))
    async with transaction(console.workspace_id) as connection:
        await connection.execute(
            "UPDATE segment SET brand_id = $1, status = 'PAUSED', updated_at = $2 WHERE name = 'autumn'",
            brand_of(brand), START + 30 * DAY,
        )  # fmt: skip
        await connection.execute(CAMPAIGNS, console.workspace_id, ["ab", "abc"], [START, START + DAY])
        await connection.execute("UPDATE campaign SET brand_id = $1 WHERE name = 'ab'", brand_of(brand))

    async def names(operation: str, **wanted: Any) -> list[str]:
        return [edge["node"]["name"] for edge in (await console.data(operation, **wanted))["edges"]]

    assert await names("Segments", status=["PAUSED", "DRAFT"]) == ["autumn"]
    assert await names("Segments", type=["STATIC"], name="0% S") == ["Spring 100% sale"]
    assert await names("Segments", status=[]) == []
    assert await names("Segments", brandId=brand) == ["autumn"]
    assert await names("Segments", brandId=other) == []
    assert await names("Segments", updated={"from": at(30), "until": at(31)}) == ["autumn"]
    assert await names("Segments", type="STATIC", updated={"until": at(30)}) == ["Spring 100% sale"]
    assert await names("Segments", created={"from": at(4), "until": at(5)}) == []
    assert await names("Campaigns", brandId=brand) == ["ab"]
    assert await names("Campaigns", channel=["EMAIL", "PUSH"], status="SENT") == ["abc", "ab"]
    assert await names("Campaigns", created={"from": at(0), "until": at(1)}) == ["ab"]
    assert await names("Campaigns", scheduled={"from": at(0)}) == ["ab"]
    assert await names("Campaigns", updated={"from": at(1)}) == ["abc"]
    assert (await console.error("Campaigns", brandId="seg_x"))["code"] == "INVALID_ID"


async def test_people_are_listed_by_brand_and_from_either_end(console: Caller) -> None:
    await people(console, "a", "b", "c", "d")
    brand = (await console.data("BrandCreate", input={"name": "Shop"}))["brand"]["id"]
    for name in ("a", "c", "d"):
        await console.data("ProfileUpsert", input={"externalId": name, "brandIds": [brand]})
    newest = {"field": "CREATED_AT", "direction": "DESC"}

    async def names(**wanted: Any) -> list[str]:
        return [edge["node"]["externalId"] for edge in (await console.data("Profiles", **wanted))["edges"]]

    assert await names(orderBy=newest) == ["d", "c", "b", "a"]
    assert await names(brandId=brand) == ["a", "c", "d"]
    assert await names(brandId=brand, orderBy=newest) == ["d", "c", "a"]
    page = await console.data("Profiles", brandId=brand, orderBy=newest, first=1)
    assert await names(brandId=brand, orderBy=newest, after=page["pageInfo"]["endCursor"]) == ["c", "a"]
    assert await names(search="b", brandId=brand) == []
    assert await names(search="a@example.com", brandId=brand) == ["a"]


async def test_messages_and_entries_are_found_by_what_became_of_them(console: Caller) -> None:
    await people(console, "ada", "bob")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    await work(console, one)
    (ada,) = (await console.data("Profiles", search="ada"))["edges"]

    async def sent(**wanted: Any) -> list[str]:
        page = await console.data("Deliveries", campaignId=one, **wanted)
        return [edge["node"]["profile"]["externalId"] for edge in page["edges"]]

    assert await sent(status=["SENT", "FAILED"]) == ["ada", "bob"]
    assert await sent(status=["FAILED"], reason=["SUPPRESSED", "TIMEOUT"]) == []
    assert await sent(profileId=ada["node"]["id"]) == ["ada"]
    await console.refusal("CampaignSend", input={"id": one})

    async def done(**wanted: Any) -> list[tuple[str, str]]:
        page = await console.data("AuditLog", **wanted)
        return [(edge["node"]["action"], edge["node"]["outcome"]) for edge in page["edges"]]

    assert await done(action=["campaignSend", "campaignPause"], outcome=["DONE"]) == [("campaignSend", "DONE")]
    assert await done(action="campaignSend") == [("campaignSend", "ILLEGAL_MOVE"), ("campaignSend", "DONE")]
    now = datetime.now(UTC)
    assert len(await done(since=(now - DAY).isoformat(), until=(now + DAY).isoformat())) >= 3
    assert await done(until=(now - DAY).isoformat()) == []
    # From an instant on, and up to and without one.
    (send,) = (await console.data("AuditLog", action="campaignSend", outcome=["DONE"]))["edges"]
    mine = {"action": "campaignSend", "outcome": ["DONE"]}
    assert await done(since=send["node"]["at"], **mine) == [("campaignSend", "DONE")]
    assert await done(until=send["node"]["at"], **mine) == []
    assert await done(since="0001-01-01T00:00:00Z", until="0001-01-02T00:00:00Z") == []
    assert await done(since="9999-12-31T00:00:00Z") == []


def brand_of(id: str) -> str:
    return id.removeprefix("brd_")


def at(day: int) -> str:
    return (START + day * DAY).isoformat()
