"""With what and where people were seen last: of their latest event that told."""

from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from profiles import events, imports
from profiles.events import EventInput, TrackReport
from profiles.packing import SEPARATOR, pack_numbers
from profiles.seen import Sightings, packed
from tests.profiles import people

SEEN = """
SELECT first_seen_at, last_seen_at, seen_device_type, seen_browser, seen_country, seen_city FROM profile
"""
HOUR = timedelta(hours=1)
TEXT = st.sampled_from((None, "a", "b"))
TOLD = st.lists(st.tuples(st.integers(1, 9), st.sampled_from((0.5, 1.5, 2.5)), TEXT, TEXT, TEXT, TEXT), max_size=12)


async def happen(workspace_id: UUID, *wanted: EventInput, now: datetime) -> TrackReport:
    report = await events.track(workspace_id, wanted, now=now)
    assert report == TrackReport(len(wanted), 0, ())
    return report


def did(message_id: str, at: datetime | None, **context: str) -> EventInput:
    return EventInput(message_id, "visit", external_id="ann", occurred_at=at, **context)  # type: ignore[arg-type]


async def test_each_value_is_of_the_latest_event_that_carried_it(workspace: UUID, now: datetime) -> None:
    """S2-10, S2-11, S2-12, S2-13."""
    await happen(
        workspace,
        did("m2", now - 3 * HOUR, device_type="mobile", country="DE"),
        did("m1", now - 4 * HOUR, device_type="desktop", browser="Firefox", country="FR", city="Lyon"),
        did("m3", now - 2 * HOUR, country="US"),
        now=now,
    )
    assert await people.rows(workspace, SEEN) == [(now - 4 * HOUR, now - 2 * HOUR, "mobile", "Firefox", "US", "Lyon")]
    await happen(workspace, did("m4", now - HOUR, device_type="tablet"), now=now)
    assert await people.rows(workspace, SEEN) == [(now - 4 * HOUR, now - HOUR, "tablet", "Firefox", "US", "Lyon")]


async def test_an_event_that_comes_late_changes_only_what_nobody_told(workspace: UUID, now: datetime) -> None:
    await happen(workspace, did("m1", now - HOUR, device_type="mobile", country="DE"), now=now)
    await happen(
        workspace, did("m2", now - 5 * HOUR, device_type="desktop", browser="Edge", country="FR", city="Lyon"), now=now
    )
    assert await people.rows(workspace, SEEN) == [(now - 5 * HOUR, now - HOUR, "mobile", "Edge", "DE", "Lyon")]


async def test_of_a_clock_that_is_ahead_the_event_counts_as_of_now(workspace: UUID, now: datetime) -> None:
    """The pulse relies on it: first and last seen are an event's occurred_at, or its received_at when that is later."""
    await happen(workspace, did("m1", now + 2 * HOUR, city="Lyon"), now=now)
    assert await people.rows(workspace, SEEN) == [(now, now, None, None, None, "Lyon")]
    # The next one is later than that, as far as anybody can tell.
    await happen(workspace, did("m2", now + HOUR, city="Rome"), now=now + HOUR)
    assert await people.rows(workspace, SEEN) == [(now, now + HOUR, None, None, None, "Rome")]


async def test_an_import_tells_it_as_events_do(workspace: UUID, now: datetime, tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    rows = [(5, "mobile", "DE"), (2, "", "FR"), (3, "desktop", "")]
    lines = [f"ann,{(now - hours * HOUR).isoformat()},{device},{country}" for hours, device, country in rows]
    file.write_text("\n".join(["who,when,device,land", *lines]))
    mapping = {"who": "external_id", "when": "occurred_at", "device": "device_type", "land": "country"}
    report = await imports.import_events(workspace, file, mapping, name="visit", now=now)
    assert report.created == 3
    assert await people.rows(workspace, SEEN) == [(now - 5 * HOUR, now - 2 * HOUR, "desktop", None, "FR", None)]


@given(TOLD)
def test_of_each_person_the_first_and_the_last_time_and_the_last_of_each_text_are_told(
    told: list[tuple[int, float, str | None, str | None, str | None, str | None]],
) -> None:
    first, last = dict[str, float](), dict[str, float]()
    texts = dict[str, list[str | None]]()
    for person, at, *values in sorted(told, key=lambda one: one[1]):
        who = str(person)
        first.setdefault(who, at)
        last[who] = at
        before = texts.get(who, [None] * 4)
        texts[who] = [old if new is None else new for old, new in zip(before, values, strict=True)]
    people = sorted(last)
    columns = ([texts[who][place] or "" for who in people] for place in range(4))
    assert packed(Sightings(*(zip(*told, strict=True) if told else ((),) * 6))) == [
        SEPARATOR,
        SEPARATOR.join(people),
        pack_numbers([first[who] for who in people]),
        pack_numbers([last[who] for who in people]),
        *(SEPARATOR.join(column) for column in columns),
    ]
