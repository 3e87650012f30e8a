"""Events from CSV files: each row once, whatever happened to earlier imports of it."""

import asyncio
import csv
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from profiles import events, loading
from profiles.addresses import AddressHasher
from profiles.errors import ProfileError
from profiles.events import EventInput
from profiles.imports import ImportReport, import_events
from profiles.rows import Occurrences
from tests.profiles import people

EVENTS = """
SELECT p.external_id, e.name, e.occurred_at, e.properties FROM event e JOIN profile p ON p.id = e.profile_id
ORDER BY e.occurred_at, p.external_id, e.message_id
"""
CONTEXT = "SELECT message_id, page_path, device_type, browser, country, city, session_id FROM event"
SEEN = "SELECT external_id, first_seen_at, last_seen_at FROM profile ORDER BY external_id"
KEYS = "SELECT count(*) FROM event_key"
ANONYMOUS = "SELECT a.anonymous_id, p.identified FROM profile_alias a JOIN profile p ON p.id = a.profile_id"
MAPPING = {"who": "external_id", "what": "name", "when": "occurred_at", "value": "properties.value:number"}
DAY = timedelta(days=1)


def file(*lines: str) -> BytesIO:
    return BytesIO("\n".join(["who,what,when,value", *lines, ""]).encode())


def line(who: str, at: datetime, value: str = "", what: str = "purchase") -> str:
    return f"{who},{what},{at.isoformat()},{value}"


async def test_a_row_becomes_an_event(workspace: UUID, now: datetime) -> None:
    at = (now - DAY).replace(microsecond=0)
    data = BytesIO(
        "id,who,what,when,path,device,agent,land,town,visit,value,sku,gift\n"
        f' m-1 , ann ,purchase,{at.isoformat()},/cart,phone,Firefox,de,Köln,s1,12.5,"a,1",no\n'.encode()
    )
    mapping = {
        "id": "message_id",
        "who": "external_id",
        "what": "name",
        "when": "occurred_at",
        "path": "page_path",
        "device": "device_type",
        "agent": "browser",
        "land": "country",
        "town": "city",
        "visit": "session_id",
        "value": "properties.value:number",
        "sku": "properties.sku",
        "gift": "properties.gift:boolean",
    }
    assert await import_events(workspace, data, mapping, now=now) == ImportReport(1, 1, 0, 0, 0)
    properties = {"value": 12.5, "sku": "a,1", "gift": False}
    assert await people.rows(workspace, EVENTS) == [("ann", "purchase", at, properties)]
    assert await people.rows(workspace, CONTEXT) == [("m-1", "/cart", "phone", "Firefox", "DE", "Köln", "s1")]
    assert await people.rows(workspace, SEEN) == [("ann", at, at)]
    assert len(await people.touched(workspace)) == 1


async def test_the_same_file_again_adds_nothing_and_equal_rows_are_as_many_events(
    workspace: UUID, now: datetime
) -> None:
    at = now - DAY
    lines = [line("a", at, "5"), line("b", at), line("a", at, "5"), line("a", at, "6"), line("a", at, "5")]
    for report in (ImportReport(5, 5, 0, 0, 0), ImportReport(5, 0, 0, 5, 0)):
        assert await import_events(workspace, file(*lines), MAPPING, now=now, chunk_rows=2) == report
    assert len(await people.rows(workspace, EVENTS)) == 5


async def test_a_longer_file_adds_what_is_new(workspace: UUID, now: datetime) -> None:
    at = now - DAY
    first = [line("a", at), line("b", at)]
    await import_events(workspace, file(*first), MAPPING, now=now)
    report = await import_events(workspace, file(*first, line("a", at), line("c", at)), MAPPING, now=now)
    assert report == ImportReport(rows=4, created=2, updated=0, repeated=2, rejected=0)


async def test_of_one_message_id_the_first_row_counts_also_against_tracked_events(
    workspace: UUID, now: datetime
) -> None:
    await events.track(workspace, [EventInput("m1", "tracked", external_id="a", occurred_at=now)], now=now)
    rows = [("a", "m1", 1), ("a", "m2", 2), ("b", "m2", 3), ("b", "m3", 4)]
    data = file(*(f"{who},{message_id},{now.isoformat()},{value}" for who, message_id, value in rows))
    mapping = MAPPING | {"what": "message_id"}
    report = await import_events(workspace, data, mapping, now=now, name="imported")
    assert report == ImportReport(rows=4, created=2, updated=0, repeated=2, rejected=0)
    found = [(who, name, properties) for who, name, _, properties in await people.rows(workspace, EVENTS)]
    assert sorted(found, key=str) == [
        ("a", "imported", {"value": 2}),
        ("a", "tracked", {}),
        ("b", "imported", {"value": 4}),
    ]


async def test_a_repeated_event_does_not_bring_back_who_is_gone(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    lines = [line("gone", now), line("here", now)]
    await import_events(workspace, file(*lines), MAPPING, now=now)
    await people.rows(workspace, "DELETE FROM profile WHERE external_id = 'gone'")
    report = await import_events(workspace, file(*lines, line("new", now)), MAPPING, now=now)
    assert report == ImportReport(rows=3, created=1, updated=0, repeated=2, rejected=0)
    assert [row[0] for row in await people.rows(workspace, SEEN)] == ["here", "new"]


async def test_visitors_are_known_by_anonymous_ids(workspace: UUID, now: datetime) -> None:
    lines = [line("v1", now), line("v2", now - DAY), line("v1", now - 2 * DAY)]
    mapping = MAPPING | {"who": "anonymous_id"}
    assert await import_events(workspace, file(*lines), mapping, now=now) == ImportReport(3, 3, 0, 0, 0)
    assert sorted(await people.rows(workspace, ANONYMOUS)) == [("v1", False), ("v2", False)]


async def test_events_of_a_merged_person_are_the_winners(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    winner, loser = await people.put_named(workspace, "winner", "loser", hasher=hasher, now=now)
    await people.merge(workspace, loser=loser, winner=winner)
    await import_events(workspace, file(line("loser", now), line("winner", now)), MAPPING, now=now)
    assert [row[0] for row in await people.rows(workspace, EVENTS)] == ["winner", "winner"]


async def test_first_and_last_seen_move_apart_and_not_past_now(workspace: UUID, now: datetime) -> None:
    days = {number: now + number * DAY for number in (-9, -5, -1)}
    await import_events(workspace, file(line("a", days[-5])), MAPPING, now=now)
    assert await people.rows(workspace, SEEN) == [("a", days[-5], days[-5])]
    later = now + timedelta(hours=20)
    await import_events(workspace, file(line("a", days[-9]), line("a", days[-1]), line("a", later)), MAPPING, now=now)
    assert await people.rows(workspace, SEEN) == [("a", days[-9], now)]


async def test_times_are_iso_8601_and_those_without_an_offset_are_in_the_named_zone(
    workspace: UUID, now: datetime
) -> None:
    year = now.year - 1
    texts = [f"{year}-01-31", f"{year}-07-01T12:30", f"{year}-08-01 12:00:00+05:30", f"{year}0901T000000Z"]
    lines = [f"p{number},x,{text}," for number, text in enumerate(texts)]
    await import_events(workspace, file(*lines), MAPPING, now=now, time_zone="Europe/Berlin")
    assert [row[2] for row in await people.rows(workspace, EVENTS)] == [
        datetime(year, 1, 30, 23, tzinfo=UTC),
        datetime(year, 7, 1, 10, 30, tzinfo=UTC),
        datetime(year, 8, 1, 6, 30, tzinfo=UTC),
        datetime(year, 9, 1, tzinfo=UTC),
    ]


async def test_a_time_near_midnight_is_kept_in_its_own_month(workspace: UUID, now: datetime) -> None:
    """In UTC it may be of another month than its offset says, and that month must exist."""
    year = now.year - 3
    lines = [
        f"a,x,{year}-05-20T12:00:00+02:00,",
        f"a,x,{year}-05-01T01:00:00+02:00,",
        f"a,x,{year}-05-31T23:00:00-02:00,",
    ]
    assert await import_events(workspace, file(*lines), MAPPING, now=now) == ImportReport(3, 3, 0, 0, 0)


async def test_rows_that_cannot_be_taken_go_to_the_reject_file_and_the_rest_is_taken(
    workspace: UUID, now: datetime, tmp_path: Path
) -> None:
    rejects = tmp_path / "rejects.csv"
    at = now.isoformat()
    lines = [
        f"ok,x,{at},1",
        f",x,{at},1",
        f"a,,{at},1",
        "a,x,,1",
        "a,x,31/01/2025,1",
        "a,x,1999-01-01,1",
        f"a,x,{(now + 2 * DAY).isoformat()},1",
        f"a,x,{at},much",
        f"a,{'x' * 201},{at},1",
        f"ok,y,{at},2",
    ]
    report = await import_events(workspace, file(*lines), MAPPING, now=now, rejects=rejects, chunk_rows=4)
    assert report == ImportReport(rows=10, created=2, updated=0, repeated=0, rejected=8)
    assert sorted(row[1] for row in await people.rows(workspace, EVENTS)) == ["x", "y"]
    with rejects.open(newline="") as text:
        _, *rows = list(csv.reader(text))
    assert [(int(row[0]), row[1].partition(":")[0]) for row in rows] == [
        (3, "who"),
        (4, "what"),
        (5, "when"),
        (6, "when"),
        (7, "when"),
        (8, "when"),
        (9, "value"),
        (10, "what"),
    ]


@pytest.mark.parametrize(
    ("mapping", "name", "time_zone", "code", "field"),
    [
        ({"what": "name", "when": "occurred_at"}, None, "UTC", "NO_IDENTITY", "mapping"),
        (MAPPING | {"value": "anonymous_id"}, None, "UTC", "NO_IDENTITY", "mapping"),
        ({"who": "external_id", "what": "name"}, None, "UTC", "NO_TIME", "mapping"),
        ({"who": "external_id", "when": "occurred_at"}, None, "UTC", "NO_NAME", "name"),
        (MAPPING, "purchase", "UTC", "NO_NAME", "name"),
        ({"who": "external_id", "when": "occurred_at"}, " ", "UTC", "BLANK", "name"),
        (MAPPING, None, "Berlin", "UNKNOWN_TIME_ZONE", "time_zone"),
        (MAPPING | {"value": "traits.value"}, None, "UTC", "UNKNOWN_TARGET", "mapping"),
    ],
)
async def test_a_mapping_that_makes_no_sense_stops_before_anything_is_written(
    workspace: UUID, now: datetime, mapping: dict[str, str], name: str | None, time_zone: str, code: str, field: str
) -> None:
    with pytest.raises(ProfileError) as refused:
        await import_events(workspace, file(line("a", now)), mapping, now=now, name=name, time_zone=time_zone)
    assert (refused.value.code, refused.value.field[0]) == (code, field)
    assert await people.rows(workspace, KEYS) == [(0,)]


async def test_imports_of_the_same_file_at_once_write_each_event_once(workspace: UUID, now: datetime) -> None:
    lines = [line(f"p{number % 37}", now - number * timedelta(hours=1)) for number in range(400)]
    reports = await asyncio.gather(
        *(import_events(workspace, file(*lines), MAPPING, now=now, chunk_rows=60) for _ in range(3))
    )
    assert sum(report.created for report in reports) == 400
    assert len(await people.rows(workspace, EVENTS)) == 400
    assert len(await people.rows(workspace, SEEN)) == 37


async def test_a_chunk_that_fails_leaves_nothing_and_the_file_can_be_imported_again(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line(f"p{number}", now) for number in range(8)]
    with monkeypatch.context() as broken:
        broken.setattr(loading, "INSERT_EVENTS", "SELECT 1 / 0, $1::uuid, $2::timestamptz")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await import_events(workspace, file(*lines), MAPPING, now=now, chunk_rows=2)
    assert await people.rows(workspace, KEYS) == [(0,)]
    assert await people.rows(workspace, SEEN) == []
    assert await import_events(workspace, file(*lines), MAPPING, now=now, chunk_rows=2) == ImportReport(8, 8, 0, 0, 0)


def test_numbers_are_counted_from_call_to_call_and_within_one() -> None:
    occurrences = Occurrences()
    assert occurrences.count([1, 2, 3]) == [0, 0, 0]
    assert occurrences.count([4, 2, 2]) == [0, 1, 2]
    assert occurrences.count([5, 5]) == [0, 1]
    assert occurrences.count([7] * 20) == list(range(20))
    assert occurrences.count([7, 2, 8]) == [20, 3, 0]
    assert occurrences.count([]) == []


async def test_rows_about_erased_people_are_rejected(
    workspace: UUID, hasher: AddressHasher, now: datetime, tmp_path: Path
) -> None:
    [gone] = await people.put_named(workspace, "gone", hasher=hasher, now=now)
    await people.erase(workspace, gone)
    rejects = tmp_path / "rejects.csv"
    data = [line("ann", now - DAY), line("gone", now - DAY), line("bob", now - DAY), line("gone", now)]
    for again in (False, True):
        report = await import_events(workspace, file(*data), MAPPING, now=now, rejects=rejects)
        assert report == ImportReport(4, 0 if again else 2, 0, 2 if again else 0, 2)
        assert [row[0] for row in csv.reader(rejects.read_text().splitlines())] == ["line", "3", "5"]
    assert [row[0] for row in await people.rows(workspace, EVENTS)] == ["ann", "bob"]
    assert await people.rows(workspace, KEYS) == [(2,)]
