"""Which texts are dates, in Python and in the SQL that filled the table: the same."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import asyncpg
import orjson
from hypothesis import given
from hypothesis import strategies as st

from db.live_segments import BACKFILL_DATES
from db.transactions import transaction
from profiles.dates import dates_of, moved_dates, read_date
from tests.conftest import Database
from tests.profiles import people

DATES: dict[str, datetime] = {
    "2026-01-31": datetime(2026, 1, 31, tzinfo=UTC),
    "2024-02-29": datetime(2024, 2, 29, tzinfo=UTC),
    "2000-02-29T23:59:59Z": datetime(2000, 2, 29, 23, 59, 59, tzinfo=UTC),
    "2026-01-31 12:30": datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    "2026-01-31T12:30:15": datetime(2026, 1, 31, 12, 30, 15, tzinfo=UTC),
    "2026-01-31T12:30:15.5Z": datetime(2026, 1, 31, 12, 30, 15, 500_000, tzinfo=UTC),
    "2026-01-31T12:30:15.123456+05:45": datetime(2026, 1, 31, 6, 45, 15, 123_456, tzinfo=UTC),
    "2026-01-31 00:30-15:59": datetime(2026, 1, 31, 16, 29, tzinfo=UTC),
    "2026-12-31T23:30-01:00": datetime(2027, 1, 1, 0, 30, tzinfo=UTC),
    "2026-01-31T12:30+00:00": datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    "2026-01-31T12:30-00:00": datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    "0001-01-01": datetime(1, 1, 1, tzinfo=UTC),
    "0001-01-01T02:00+02:00": datetime(1, 1, 1, tzinfo=UTC),
    "9999-12-31T23:59:59.999999Z": datetime.max.replace(tzinfo=UTC),
    "1582-10-10": datetime(1582, 10, 10, tzinfo=UTC),
}
NO_DATES = (
    "", "x", "2026", "2026-01", "2026-1-31", "20260131", "2026-02-29", "1900-02-29", "2026-13-01", "2026-00-10",
    "2026-04-31", "0000-01-01", "12026-01-01", "+2026-01-01", "-2026-01-01", "2026-W05-6", "2026-031", "31.01.2026",
    "2026-01-31T", "2026-01-31T24:00", "2026-01-31T24:00:00Z", "2026-01-31T23:60", "2026-01-31T23:59:60Z",
    "2026-01-31t12:30Z", "2026-01-31T12:30z", "2026-01-31T12", "2026-01-31T1230", "2026-01-31T12:30:15,5Z",
    "2026-01-31T12:30:15.1234567Z", "2026-01-31T12:30:15.Z", "2026-01-31T12:30+01", "2026-01-31T12:30+0100",
    "2026-01-31T12:30+16:00", "2026-01-31T12:30+01:60", "2026-01-31T12:30:00+01:00:30", "2026-01-31T12:30 Z",
    "2026-01-31  12:30", "2026-01-31T12:30 Europe/Berlin", "2026-01-31T12:30 UTC", "2026-01-31+01:00", "2026-01-31Z",
    " 2026-01-31", "2026-01-31 ", "2026-01-31\n", "2026-01-31\t12:30", "٢٠٢٦-٠١-٣١", "２０２６-01-31", "2026−01−31",
    "2026-01-31T12:30:15.٥Z", "0001-01-01T00:00+00:01", "9999-12-31T23:59:59-00:01", "infinity", "-infinity", "now",
    "today", "epoch", "2026-01-31 BC", "2026-01-31 12:30 PM", "2026-01-31T12:30:15.5Z" + " " * 20,
)  # fmt: skip
FOUND = "SELECT key, at FROM profile_date ORDER BY key"
PUT = "INSERT INTO profile (workspace_id, traits) VALUES ($1, $2::text::jsonb)"


def test_iso_dates_are_instants_in_utc_and_nothing_else_is_a_date() -> None:
    assert {text: read_date(text) for text in DATES} == DATES
    assert [text for text in NO_DATES if read_date(text) is not None] == []
    assert [value for value in (20260131, 2026.5, True, None, ["2026-01-31"]) if read_date(value) is not None] == []


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from([" ", "T"]),
    st.one_of(st.none(), st.timedeltas(timedelta(hours=-15), timedelta(hours=15))),
)
def test_whatever_is_written_as_a_date_is_read_as_the_same_instant(
    at: datetime, separator: str, offset: timedelta | None
) -> None:
    if offset is not None and 1 < at.year < 9999:
        minutes = timedelta(minutes=offset // timedelta(minutes=1))
        assert read_date(at.astimezone(timezone(minutes)).isoformat(separator)) == at
    assert read_date(at.replace(tzinfo=None).isoformat(separator)) == at
    assert read_date(at.date().isoformat()) == datetime(at.year, at.month, at.day, tzinfo=UTC)


@given(st.text(alphabet="0123456789-+:.TZtz ٣", min_size=8, max_size=34))
def test_no_text_is_too_odd_to_be_read(text: str) -> None:
    assert read_date(text) is None or len(text) >= 10


async def backfilled(database: Database, workspace_id: UUID, traits: dict[str, object]) -> dict[str, datetime]:
    """What the migration's statement makes of one person's traits, by key."""
    owner = await asyncpg.connect(database.owner_url, server_settings={"timezone": "UTC"})
    try:
        await owner.execute(PUT, workspace_id, orjson.dumps(traits).decode())
        await owner.execute(BACKFILL_DATES)
    finally:
        await owner.close()
    found = dict(await people.rows(workspace_id, FOUND))
    async with transaction(workspace_id) as connection:
        await connection.execute("DELETE FROM profile_date")
        await connection.execute("DELETE FROM profile")
    return found


async def test_the_migration_takes_the_same_texts_for_the_same_instants(database: Database, workspace: UUID) -> None:
    texts = [*DATES, *NO_DATES]
    traits: dict[str, object] = {f"k{at:03}": text for at, text in enumerate(texts)}
    traits |= {"number": 20260131, "list": ["2026-01-31"], "flag": True}
    assert await backfilled(database, workspace, traits) == {
        key: DATES[str(text)] for key, text in traits.items() if str(text) in DATES and isinstance(text, str)
    }


async def test_both_readers_agree_on_thousands_of_near_misses(database: Database, workspace: UUID) -> None:
    """Each date with one character left out, doubled or replaced."""
    near: set[str] = set()
    for text in DATES:
        for at in range(len(text)):
            near |= {text[:at] + text[at + 1 :], text[:at] + text[at] + text[at:]}
            near |= {text[:at] + other + text[at + 1 :] for other in "0123459 -+:.TZz"}
    traits: dict[str, object] = {f"{at}": text for at, text in enumerate(sorted(near))}
    expected = {key: found for key, text in traits.items() if (found := read_date(text)) is not None}
    assert 200 < len(expected) < len(traits) > 4000
    assert await backfilled(database, workspace, traits) == expected


def test_of_two_states_of_traits_only_dates_that_moved_count() -> None:
    before = {"same": "2026-01-01", "moved": "2026-01-01", "gone": "2026-01-01", "spelled": "2026-01-01", "text": "a"}
    after = {
        "same": "2026-01-01",
        "moved": "2026-02-01",
        "spelled": "2026-01-01T00:00Z",
        "text": "b",
        "new": "2026-03-01",
    }
    assert dict(moved_dates(before, after)) == {
        "moved": datetime(2026, 2, 1, tzinfo=UTC),
        "gone": None,
        "new": datetime(2026, 3, 1, tzinfo=UTC),
    }
    assert dates_of(after).keys() == {"same", "moved", "spelled", "new"}
