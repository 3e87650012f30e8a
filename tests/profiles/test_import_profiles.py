"""People from CSV files: what a row says is what an upsert would have said, in chunks and at speed."""

import asyncio
import csv
import random
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from profiles import loading, profiles
from profiles.addresses import AddressHasher, Channel
from profiles.errors import ProfileError
from profiles.imports import ImportReport, import_profiles
from profiles.profiles import ProfileInput
from tests.conftest import Database
from tests.profiles import people

PEOPLE = """
SELECT external_id, email, email_hash, phone, traits, time_zone, locale, country, city, identified, first_seen_at
FROM profile ORDER BY external_id
"""
THEIR_B = "INSERT INTO profile (workspace_id, external_id, city, identified) VALUES ($1, 'b', 'Bath', true)"
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
MAPPING = {
    "customer": "external_id",
    "mail": "email",
    "plan": "traits.plan",
    "age": "traits.age:number",
    "vip": "traits.vip:boolean",
}
HEADER = ",".join(MAPPING)


def file(*lines: str) -> BytesIO:
    return BytesIO("\n".join([HEADER, *lines, ""]).encode())


async def test_a_row_becomes_a_person(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    columns = ["id", "mail", "tel", "tz", "lang", "land", "town", "plan", "points", "vip", "ignored"]
    data = BytesIO(
        f"{','.join(columns)}\r\n"
        ' ann ,Ann@Example.com ,+49 30 1234,Europe/Berlin,de_de,de,"Köln, am Rhein",gold,12.50,YES,x\r\n'.encode()
    )
    mapping = {
        "id": "external_id",
        "mail": "email",
        "tel": "phone",
        "tz": "time_zone",
        "lang": "locale",
        "land": "country",
        "town": "city",
        "plan": "traits.plan",
        "points": "traits.points:number",
        "vip": "traits.is vip:boolean",
    }
    assert await import_profiles(workspace, data, mapping, hasher=hasher, now=now) == ImportReport(1, 1, 0, 0, 0)
    assert await people.rows(workspace, PEOPLE) == [
        (
            "ann",
            "Ann@Example.com",
            hasher.hash(Channel.EMAIL, "ann@example.com"),
            "+49 30 1234",
            {"plan": "gold", "points": 12.5, "is vip": True},
            "Europe/Berlin",
            "de-DE",
            "DE",
            "Köln, am Rhein",
            True,
            None,
        )
    ]
    assert len(await people.touched(workspace)) == 1


async def test_the_same_file_again_changes_nothing(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    lines = [f"p{number},p{number}@example.com,free,{number},no" for number in range(7)]
    for report in (ImportReport(7, 7, 0, 0, 0), ImportReport(7, 0, 0, 7, 0)):
        imported = await import_profiles(workspace, file(*lines), MAPPING, hasher=hasher, now=now, chunk_rows=3)
        assert imported == report
    assert len(await people.rows(workspace, PEOPLE)) == 7
    assert len(await people.touched(workspace)) == 7


async def test_empty_cells_leave_what_is_there_and_others_change_it(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    await import_profiles(workspace, file("a,a@example.com,free,30,no", "b,,,,"), MAPPING, hasher=hasher, now=now)
    report = await import_profiles(
        workspace, file("a,,gold,,yes", "b,b@example.com,,,", "c,,,,"), MAPPING, hasher=hasher, now=now
    )
    assert report == ImportReport(3, 1, 2, 0, 0)
    assert [(row[0], row[1], row[4]) for row in await people.rows(workspace, PEOPLE)] == [
        ("a", "a@example.com", {"plan": "gold", "age": 30, "vip": True}),
        ("b", "b@example.com", {}),
        ("c", None, {}),
    ]


async def test_rows_of_one_person_are_one_person_and_the_later_win(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    data = file("a,a@example.com,free,30,no", "b,,x,,", " a ,,gold,,", "a,,,31,")
    assert await import_profiles(workspace, data, MAPPING, hasher=hasher, now=now) == ImportReport(4, 2, 0, 2, 0)
    (a, _) = await people.rows(workspace, PEOPLE)
    assert (a[1], a[2]) == ("a@example.com", hasher.hash(Channel.EMAIL, "a@example.com"))
    assert a[4] == {"plan": "gold", "age": 31, "vip": False}


async def test_rows_that_cannot_be_taken_go_to_the_reject_file_and_the_rest_is_taken(
    workspace: UUID, hasher: AddressHasher, now: datetime, tmp_path: Path
) -> None:
    source, rejects = tmp_path / "people.csv", tmp_path / "rejects.csv"
    lines = [
        HEADER.encode(),
        b"ok1,,,,",
        b",none@example.com,,,",
        b"bad-mail,no address,,,",
        b"bad-age,,,old,",
        b"bad-vip,,,,maybe",
        "Málaga,,,,".encode("latin-1"),
        b"nul\0,,,,",
        b"short,",
        b'quote,"open,,,',
        b"big,,%s,,%s" % (b"x" * 70_000, b""),
        b"ok2,,,,",
    ]
    source.write_bytes(b"\n".join(lines) + b"\n")
    told: list[tuple[int, int, int]] = []
    report = await import_profiles(
        workspace,
        source,
        MAPPING,
        hasher=hasher,
        now=now,
        rejects=rejects,
        chunk_rows=2,
        progress=lambda *n: told.append(n),
    )
    assert report == ImportReport(rows=11, created=2, updated=0, repeated=0, rejected=9)
    assert [row[0] for row in await people.rows(workspace, PEOPLE)] == ["ok1", "ok2"]
    assert told[-1] == (11, 2, 9)
    with rejects.open(encoding="utf-8", errors="surrogateescape", newline="") as text:
        header, *rows = list(csv.reader(text))
    assert header == ["line", "reason", *MAPPING]
    assert sorted((int(row[0]), row[1].partition(":")[0]) for row in rows) == [
        (3, "customer"),
        (4, "mail"),
        (5, "age"),
        (6, "vip"),
        (7, "Is not UTF-8 (byte 0xE1)"),
        (8, "Contains a NUL character"),
        (9, "Has 2 columns where the header has 5"),
        (10, "Is no CSV (unexpected end of data)"),
        (11, "The mapped columns have 70011 bytes as JSON"),
    ]
    by_line = {int(row[0]): row[2:] for row in rows}
    assert by_line[4] == ["bad-mail", "no address", "", "", ""]
    assert by_line[10] == ['quote,"open,,,']
    assert "Málaga".encode("latin-1") in rejects.read_bytes()


async def test_what_was_mended_in_the_reject_file_can_be_imported(
    workspace: UUID, hasher: AddressHasher, now: datetime, tmp_path: Path
) -> None:
    rejects = tmp_path / "rejects.csv"
    await import_profiles(workspace, file("a,a(at)b.de,,,"), MAPPING, hasher=hasher, now=now, rejects=rejects)
    rejects.write_text(rejects.read_text().replace("(at)", "@"))
    mended = rejects.rename(tmp_path / "mended.csv")
    report = await import_profiles(workspace, mended, MAPPING, hasher=hasher, now=now, rejects=rejects)
    assert report == ImportReport(1, 1, 0, 0, 0)
    assert not rejects.exists()


@pytest.mark.parametrize("where", ["people.csv", "none/rejects.csv"])
async def test_rejects_go_neither_to_the_imported_file_nor_to_where_nothing_can_be_written(
    workspace: UUID, hasher: AddressHasher, now: datetime, tmp_path: Path, where: str
) -> None:
    source = tmp_path / "people.csv"
    source.write_text(f"{HEADER}\na,,,,\n")
    with pytest.raises(ProfileError) as refused:
        await import_profiles(workspace, source, MAPPING, hasher=hasher, now=now, rejects=tmp_path / where)
    assert (refused.value.code, refused.value.field) == ("REJECTS_NOT_WRITABLE", ("rejects",))
    assert source.read_text() == f"{HEADER}\na,,,,\n"
    assert await people.rows(workspace, PEOPLE) == []


@pytest.mark.parametrize(
    ("mapping", "code"),
    [
        ({"mail": "email"}, "NO_IDENTITY"),
        ({"customer": "external_id", "e-mail": "email"}, "MISSING_COLUMN"),
        ({"customer": "external_id", "mail": "occurred_at"}, "UNKNOWN_TARGET"),
        ({"customer": "external_id", "mail": "properties.mail"}, "UNKNOWN_TARGET"),
        ({}, "NO_IDENTITY"),
    ],
)
async def test_a_mapping_that_makes_no_sense_stops_before_anything_is_written(
    workspace: UUID, hasher: AddressHasher, now: datetime, tmp_path: Path, mapping: dict[str, str], code: str
) -> None:
    before = tmp_path / "rejects.csv"
    before.write_text("of the last import")
    with pytest.raises(ProfileError) as refused:
        await import_profiles(workspace, file("a,,,,"), mapping, hasher=hasher, now=now, rejects=before)
    assert refused.value.code == code
    assert refused.value.field[0] == "mapping"
    assert before.exists()
    assert await people.rows(workspace, PEOPLE) == []


async def test_a_file_with_a_header_only_is_no_rows(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    assert await import_profiles(workspace, file(), MAPPING, hasher=hasher, now=now) == ImportReport(0, 0, 0, 0, 0)


async def test_a_merged_person_is_changed_as_the_winner(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    winner, loser = await people.put_named(workspace, "winner", "loser", hasher=hasher, now=now)
    await people.merge(workspace, loser=loser, winner=winner)
    report = await import_profiles(
        workspace, file("loser,l@example.com,gold,,", "new,,,,"), MAPPING, hasher=hasher, now=now
    )
    assert report == ImportReport(2, 1, 1, 0, 0)
    assert (await profiles.get(workspace, winner)).traits == {"plan": "gold"}
    assert (await profiles.get(workspace, winner)).email == "l@example.com"
    assert (await profiles.get(workspace, loser)).traits == {}


async def test_a_person_who_would_have_too_many_traits_is_a_reject_by_line(
    workspace: UUID, hasher: AddressHasher, now: datetime, tmp_path: Path
) -> None:
    full = ProfileInput("full", traits={f"t{number}": number for number in range(256)})
    await people.put(workspace, full, hasher=hasher, now=now)
    rejects = tmp_path / "rejects.csv"
    report = await import_profiles(
        workspace, file("a,,,,", "full,,gold,,"), MAPPING, hasher=hasher, now=now, rejects=rejects
    )
    assert report == ImportReport(2, 1, 0, 0, 1)
    _, row = csv.reader(rejects.read_text().splitlines())
    assert row[0] == "3"
    assert row[1].startswith("The profile would have 257 traits")
    assert len((await people.find(workspace, "full")).traits) == 256


async def test_an_import_does_what_upserts_in_the_same_order_would_do(
    workspace: UUID, other_workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    dice = random.Random(4711)
    columns = ["external_id", "email", "phone", "time_zone", "locale", "country", "city"]
    values = {
        "email": ["", "", "a@example.com", "b@example.com"],
        "phone": ["", "030 12345", "+49 30 1"],
        "time_zone": ["", "UTC", "Europe/Berlin"],
        "locale": ["", "de", "en-GB"],
        "country": ["", "DE", "GB"],
        "city": ["", "Köln", "Bath"],
    }
    rows = [
        [f"p{dice.randrange(30)}", *(dice.choice(values[column]) for column in columns[1:]), str(dice.randrange(3))]
        for _ in range(300)
    ]
    text = "\n".join(",".join(row) for row in [[*columns, "level"], *rows])
    mapping = {column: column for column in columns} | {"level": "traits.level:number"}
    wide = ProfileInput("p7", traits={f"trait {number}": "x" * 20 for number in range(100)})
    for tenant in (workspace, other_workspace):
        await people.put(tenant, wide, hasher=hasher, now=now)

    await import_profiles(workspace, BytesIO(text.encode()), mapping, hasher=hasher, now=now, chunk_rows=40)
    for row in rows:
        said = {column: value for column, value in zip(columns, row, strict=False) if value}
        wanted = replace(ProfileInput(row[0], traits={"level": int(row[-1])}), **said)  # type: ignore[arg-type]
        await people.put(other_workspace, wanted, hasher=hasher, now=now)

    imported, upserted = await people.rows(workspace, PEOPLE), await people.rows(other_workspace, PEOPLE)
    assert imported == upserted


async def test_imports_of_the_same_new_people_at_once_make_each_of_them_once(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    lines = [f"p{number},,free,{number}," for number in range(200)]
    reports = await asyncio.gather(
        *(
            import_profiles(workspace, file(*some), MAPPING, hasher=hasher, now=now, chunk_rows=50)
            for some in (lines, lines[::-1], lines[100:] + lines[:100])
        )
    )
    assert sum(report.created for report in reports) == 200
    assert len(await people.rows(workspace, PEOPLE)) == 200


async def test_somebody_made_by_another_at_the_same_moment_is_updated(
    database: Database, workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    other = await asyncpg.connect(database.owner_url)
    try:
        theirs = other.transaction()
        await theirs.start()
        await other.execute(
            "INSERT INTO profile (workspace_id, external_id, city, identified) VALUES ($1, 'b', 'Bath', true)",
            workspace,
        )
        task = asyncio.create_task(
            import_profiles(workspace, file("a,,free,,", "b,,gold,,"), MAPPING, hasher=hasher, now=now)
        )
        while not await other.fetchval(WAITING):
            pass
        await theirs.commit()
    finally:
        await other.close()
    assert await task == ImportReport(2, 1, 1, 0, 0)
    person = await people.find(workspace, "b")
    assert (person.city, person.traits) == ("Bath", {"plan": "gold"})


async def test_a_chunk_that_fails_leaves_nothing_and_the_ones_before_it_stay(
    workspace: UUID, hasher: AddressHasher, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    update_known = loading.update_known

    async def fail_at_the_second(*arguments: object) -> None:
        if done:
            raise asyncpg.DiskFullError("no space left")
        done.append(1)
        await update_known(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "update_known", fail_at_the_second)
    told: list[tuple[int, ...]] = []
    with pytest.raises(asyncpg.DiskFullError):
        await import_profiles(
            workspace,
            file(*(f"p{number},,,," for number in range(6))),
            MAPPING,
            hasher=hasher,
            now=now,
            chunk_rows=2,
            progress=lambda *numbers: told.append(numbers),
        )
    assert told == [(2, 2, 0)]
    assert [row[0] for row in await people.rows(workspace, PEOPLE)] == ["p0", "p1"]
