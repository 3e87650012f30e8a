"""Events taken in: each once, about the right person, within bounds."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import asyncpg
import pytest

from db.transactions import across_workspaces, transaction
from profiles import events
from profiles.addresses import AddressHasher
from profiles.errors import ProfileError
from profiles.events import EventInput, TrackReport
from tests.conftest import Database
from tests.profiles import people
from tests.profiles.people import Refusal

EVENTS = "SELECT message_id, profile_id, name, occurred_at FROM event ORDER BY message_id"
MESSAGES = "SELECT message_id, count(*) FROM event GROUP BY message_id ORDER BY message_id"
PEOPLE = "SELECT id, external_id, identified FROM profile ORDER BY id"
ALIASES = "SELECT anonymous_id, profile_id FROM profile_alias ORDER BY anonymous_id"
SEEN = "SELECT first_seen_at, last_seen_at FROM profile ORDER BY id"
KEYS = "SELECT message_id FROM event_key ORDER BY message_id"
ONE_EVENT = """
SELECT properties, page_path, device_type, browser, country, city, session_id, occurred_at, received_at FROM event
"""
MONTHS = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'event'::regclass"
DAY = timedelta(days=1)


def bought(message_id: str, external_id: str = "ann", at: datetime | None = None) -> EventInput:
    return EventInput(message_id, "purchase", external_id=external_id, occurred_at=at)


def visited(message_id: str, anonymous_id: str) -> EventInput:
    return EventInput(message_id, "page_view", anonymous_id=anonymous_id)


def refusals(report: TrackReport) -> dict[int, Refusal]:
    return {index: (error.code, error.field) for index, error in report.errors}


async def test_an_event_is_kept_with_all_that_came_with_it(workspace: UUID, now: datetime) -> None:
    at = (now - DAY).astimezone(timezone(timedelta(hours=5, minutes=45)))
    properties = {"value": 12.5, "items": [{"sku": "a-1", "gift": None}], "note": "žluťoučký 😀"}
    event = EventInput(
        " m1 ",
        " purchase ",
        external_id=" ann ",
        occurred_at=at,
        properties=properties,
        page_path="/checkout",
        device_type="phone",
        browser="",
        country="de",
        city=" Köln ",
        session_id="s-1",
    )
    assert await events.track(workspace, [event], now=now) == TrackReport(1, 0, ())
    assert await people.rows(workspace, ONE_EVENT) == [
        (properties, "/checkout", "phone", None, "DE", "Köln", "s-1", now - DAY, now)
    ]
    [(message_id, profile_id, name, _)] = await people.rows(workspace, EVENTS)
    assert (message_id, name) == ("m1", "purchase")
    assert (await people.find(workspace, "ann")).id == profile_id
    assert await people.touched(workspace) == [profile_id]


async def test_an_event_without_a_time_happened_now(workspace: UUID, now: datetime) -> None:
    await events.track(workspace, [bought("m1")], now=now)
    assert [row[3] for row in await people.rows(workspace, EVENTS)] == [now]


async def test_a_batch_sent_again_adds_nothing(workspace: UUID, now: datetime) -> None:
    batch = [bought("m1"), bought("m2", "bob"), visited("m3", "visitor")]
    assert await events.track(workspace, batch, now=now) == TrackReport(3, 0, ())
    before = [await people.rows(workspace, query) for query in (EVENTS, PEOPLE, ALIASES, SEEN)]
    told = await people.touched(workspace)
    assert await events.track(workspace, batch, now=now + DAY) == TrackReport(0, 3, ())
    assert [await people.rows(workspace, query) for query in (EVENTS, PEOPLE, ALIASES, SEEN)] == before
    assert await people.touched(workspace) == told
    # Half of a batch that came already: the rest is written.
    assert await events.track(workspace, [*batch, bought("m4")], now=now) == TrackReport(1, 3, ())
    assert await people.rows(workspace, MESSAGES) == [("m1", 1), ("m2", 1), ("m3", 1), ("m4", 1)]


async def test_of_one_message_id_the_first_in_a_batch_counts(workspace: UUID, now: datetime) -> None:
    batch = [bought("same", "ann"), bought(" same ", "bob"), visited("same", "visitor"), bought("other", "ann")]
    assert await events.track(workspace, batch, now=now) == TrackReport(2, 2, ())
    ann = (await people.find(workspace, "ann")).id
    assert await people.rows(workspace, EVENTS) == [("other", ann, "purchase", now), ("same", ann, "purchase", now)]
    # Nobody comes into being by an event that was not written.
    assert await people.rows(workspace, PEOPLE) == [(ann, "ann", True)]
    assert await people.touched(workspace) == [ann]


async def test_batches_sent_at_the_same_time_write_each_event_once(workspace: UUID, now: datetime) -> None:
    """Retries that overtake the first try; new people, new months and old months alike."""
    batch = [bought(f"m{at:03}", f"person {at % 7}", now - at * 3 * DAY) for at in range(60)]
    batch += [visited(f"v{at:03}", f"visitor {at % 5}") for at in range(20)]
    orders: list[Sequence[EventInput]] = [batch, batch[::-1], batch[40:] + batch[:40], batch[:50]]
    reports = await asyncio.gather(*(events.track(workspace, order, now=now) for order in orders))
    assert sum(report.accepted for report in reports) == 80
    assert [report.accepted + report.duplicates for report in reports] == [80, 80, 80, 50]
    assert [report.errors for report in reports] == [()] * 4
    assert await people.rows(workspace, MESSAGES) == sorted((event.message_id, 1) for event in batch)
    assert len(await people.rows(workspace, ALIASES)) == 5
    assert len(await people.rows(workspace, PEOPLE)) == 7 + 5


async def test_a_batch_waits_for_one_with_the_same_ids_and_writes_them_when_that_one_fails(
    workspace: UUID, now: datetime
) -> None:
    """An event is a duplicate only of one that was really written."""
    claimed, asked = asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        async with transaction(workspace) as connection:
            await connection.execute("INSERT INTO event_key (workspace_id, message_id) VALUES ($1, 'm1')", workspace)
            claimed.set()
            await asked.wait()
            raise LookupError

    async def succeed() -> TrackReport:
        await claimed.wait()
        asyncio.get_running_loop().call_soon(asked.set)
        return await events.track(workspace, [bought("m1")], now=now)

    failed, report = await asyncio.gather(fail(), succeed(), return_exceptions=True)
    assert isinstance(failed, LookupError)
    assert report == TrackReport(1, 0, ())
    assert await people.rows(workspace, MESSAGES) == [("m1", 1)]


async def test_a_message_id_belongs_to_one_workspace(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    for tenant in (workspace, other_workspace):
        assert await events.track(tenant, [bought("m1"), visited("m2", "v")], now=now) == TrackReport(2, 0, ())
    ours, theirs = await people.rows(workspace, PEOPLE), await people.rows(other_workspace, PEOPLE)
    assert (len(ours), len(theirs)) == (2, 2)
    assert not set(ours) & set(theirs)
    assert len(await people.rows(workspace, EVENTS)) == 2


async def test_unknown_people_are_made_identified_or_anonymous(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    """S2-07."""
    [known] = await people.put_named(workspace, "known", hasher=hasher, now=now)
    batch = [bought("m1", "known"), bought("m2", "new"), visited("m3", "v"), visited("m4", "v"), visited("m5", "new")]
    assert (await events.track(workspace, batch, now=now)).accepted == 5
    new = (await people.find(workspace, "new")).id
    aliases = dict(await people.rows(workspace, ALIASES))
    # An anonymous id is not an external id, even when it reads the same.
    assert set(aliases) == {"v", "new"}
    assert sorted(await people.rows(workspace, PEOPLE)) == sorted(
        [(known, "known", True), (new, "new", True), (aliases["v"], None, False), (aliases["new"], None, False)]
    )
    assert [row[1] for row in await people.rows(workspace, EVENTS)] == [
        known,
        new,
        aliases["v"],
        aliases["v"],
        aliases["new"],
    ]
    # Known now: nobody is made again.
    assert (await events.track(workspace, [visited("m6", "v"), bought("m7", "new")], now=now)).accepted == 2
    assert len(await people.rows(workspace, PEOPLE)) == 4


async def test_events_of_a_merged_person_are_the_winners(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    first, second, winner = await people.put_named(workspace, "first", "second", "winner", hasher=hasher, now=now)
    await events.track(workspace, [visited("m0", "visitor")], now=now - DAY)
    [(_, visitor)] = await people.rows(workspace, ALIASES)
    for loser, into in [(first, second), (second, winner), (visitor, second)]:
        await people.merge(workspace, loser=loser, winner=into)
    batch = [bought("m1", "first"), bought("m2", "second"), bought("m3", "winner"), visited("m4", "visitor")]
    assert await events.track(workspace, batch, now=now) == TrackReport(4, 0, ())
    assert [row[1] for row in await people.rows(workspace, EVENTS)] == [visitor, winner, winner, winner, winner]
    assert (await people.touched(workspace))[-1:] == [winner]
    found = await people.find(workspace, "winner")
    assert (found.first_seen_at, found.last_seen_at) == (now, now)


async def test_first_and_last_seen_only_move_apart_and_never_past_now(workspace: UUID, now: datetime) -> None:
    """S2-05, S2-06."""
    seen = []
    rounds: list[list[float]] = [[-5, -3, -4], [-4], [-9], [-1], [0.9], [-2]]
    for at, times in enumerate(rounds):
        batch = [bought(f"m{at}.{days}", at=now + days * DAY) for days in times]
        assert (await events.track(workspace, batch, now=now)).accepted == len(batch)
        seen += await people.rows(workspace, SEEN)
    assert seen == [
        (now - first * DAY, now - last * DAY) for first, last in [(5, 3), (5, 3), (9, 3), (9, 1), (9, 0), (9, 0)]
    ]


async def test_times_ten_years_back_and_a_day_ahead_are_the_last_that_are_believed(
    workspace: UUID, now: datetime
) -> None:
    second = timedelta(seconds=1)
    times = [now - events.OLDEST, now - events.OLDEST - second, now + DAY, now + DAY + second, now.replace(tzinfo=None)]
    report = await events.track(workspace, [bought(f"m{at}", at=time) for at, time in enumerate(times)], now=now)
    assert (report.accepted, report.duplicates) == (2, 0)
    assert refusals(report) == {
        1: ("TOO_OLD", ("occurred_at",)),
        3: ("IN_THE_FUTURE", ("occurred_at",)),
        4: ("NAIVE_TIME", ("occurred_at",)),
    }
    assert [row[3] for row in await people.rows(workspace, EVENTS)] == [times[0], times[2]]


async def test_months_are_made_when_events_come_that_happened_in_them(workspace: UUID, now: datetime) -> None:
    """Also where a month ends in one time zone and not in another, and by several batches at once."""

    async def months() -> int:
        async with across_workspaces() as connection:
            count: int = await connection.fetchval(MONTHS)
        return count

    edge = datetime(now.year - 5, 3, 1, tzinfo=UTC)
    west = timezone(timedelta(hours=-9))
    times = [
        edge,
        edge - timedelta(microseconds=1),
        edge.astimezone(west),
        (edge + timedelta(days=30)).astimezone(west),
    ]
    before = await months()
    batch = [bought(f"m{at}", at=time) for at, time in enumerate(times)]
    reports = await asyncio.gather(
        *(
            events.track(workspace, [replace(event, message_id=f"{event.message_id}.{of}") for event in batch], now=now)
            for of in range(4)
        )
    )
    assert [report.accepted for report in reports] == [4] * 4
    assert await months() == before + 2
    assert {row[3] for row in await people.rows(workspace, EVENTS)} == set(times)


async def test_what_cannot_be_kept_is_refused_one_by_one_and_the_rest_is_written(
    workspace: UUID, now: datetime
) -> None:
    good = bought("good")
    wrong: list[tuple[EventInput, Refusal]] = [
        (replace(good, message_id="a\0"), ("UNSTORABLE_TEXT", ("message_id",))),
        (replace(good, message_id=""), ("BLANK", ("message_id",))),
        (replace(good, message_id="x" * 201), ("TOO_LONG", ("message_id",))),
        (replace(good, name="\ud800"), ("UNSTORABLE_TEXT", ("name",))),
        (replace(good, name=" "), ("BLANK", ("name",))),
        (replace(good, external_id="ann\0"), ("UNSTORABLE_TEXT", ("external_id",))),
        (replace(good, external_id=""), ("BLANK", ("external_id",))),
        (replace(good, external_id=None), ("ONE_IDENTITY", ())),
        (replace(good, anonymous_id="v"), ("ONE_IDENTITY", ())),
        (replace(good, external_id=None, anonymous_id="v\udfff"), ("UNSTORABLE_TEXT", ("anonymous_id",))),
        (replace(good, properties={"a": {"b": ["\0"]}}), ("UNSTORABLE_TEXT", ("properties", "a", "b", "0"))),
        (replace(good, properties={"a\ud83d": 1}), ("UNSTORABLE_TEXT", ("properties",))),
        (replace(good, properties={"a": float("nan")}), ("INVALID_VALUE", ("properties", "a"))),
        (replace(good, page_path="/" + "x" * 2000), ("TOO_LONG", ("page_path",))),
        (replace(good, browser="a\0"), ("UNSTORABLE_TEXT", ("browser",))),
        (replace(good, country="Germany"), ("UNKNOWN_COUNTRY", ("country",))),
        (replace(good, city="\udc00"), ("UNSTORABLE_TEXT", ("city",))),
        (replace(good, session_id=" "), ("BLANK", ("session_id",))),
    ]
    batch = [bought("first"), *(event for event, _ in wrong), bought("last", "bob")]
    report = await events.track(workspace, batch, now=now)
    assert refusals(report) == {at: refusal for at, (_, refusal) in enumerate(wrong, start=1)}
    assert (report.accepted, report.duplicates) == (2, 0)
    assert await people.rows(workspace, MESSAGES) == [("first", 1), ("last", 1)]
    assert [row[1] for row in await people.rows(workspace, PEOPLE)] == ["ann", "bob"]
    # A refused event may come again, mended.
    assert (await events.track(workspace, [good], now=now)).accepted == 1


async def test_events_of_erased_people_are_refused_and_leave_no_trace(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    """Neither under an id of their own nor under one that was merged into them."""
    gone, merged, living = await people.put_named(workspace, "gone", "merged", "living", hasher=hasher, now=now)
    await events.track(workspace, [visited("m0", "visitor")], now=now)
    [(_, visitor)] = await people.rows(workspace, ALIASES)
    for loser in (merged, visitor):
        await people.merge(workspace, loser=loser, winner=gone)
    await people.erase(workspace, gone)
    batch = [
        EventInput("", "nameless"),
        bought("m1", "gone"),
        bought("m2", "living"),
        bought("m3", "merged"),
        visited("m4", "visitor"),
        bought("m1", "gone"),
    ]
    report = await events.track(workspace, batch, now=now)
    assert (report.accepted, report.duplicates) == (1, 1)
    assert refusals(report) == {
        0: ("ONE_IDENTITY", ()),
        1: ("ERASED", ("external_id",)),
        3: ("ERASED", ("external_id",)),
        4: ("ERASED", ("anonymous_id",)),
    }
    assert await people.rows(workspace, MESSAGES) == [("m0", 1), ("m2", 1)]
    assert await people.rows(workspace, KEYS) == [("m0",), ("m2",)]
    assert (await people.touched(workspace))[-1:] == [living]
    only = await events.track(workspace, [bought("m5", "gone")], now=now)
    assert (only.accepted, only.duplicates, len(only.errors)) == (0, 0, 1)


async def test_a_month_that_was_dropped_is_made_again(database: Database, workspace: UUID, now: datetime) -> None:
    """This process remembers which months exist; retention drops old ones behind its back."""
    then = datetime(now.year - 3, 7, 5, tzinfo=UTC)
    await events.track(workspace, [bought("m1", at=then)], now=now)
    owner = await asyncpg.connect(database.owner_url)
    try:
        await owner.execute(f"DROP TABLE event_{then.year}07")
    finally:
        await owner.close()
    report = await events.track(workspace, [bought("m2", at=then), bought("m3")], now=now)
    assert report == TrackReport(2, 0, ())
    assert await people.rows(workspace, MESSAGES) == [("m2", 1), ("m3", 1)]


async def test_texts_may_hold_any_character_that_can_be_kept(workspace: UUID, now: datetime) -> None:
    odd = "a\x1fb\x1e\t{\"\\,}' \u2028 é😀"
    event = EventInput(odd, odd, external_id=odd, properties={odd: odd}, page_path=odd, city=odd, browser="b")
    assert await events.track(workspace, [event, bought("m2")], now=now) == TrackReport(2, 0, ())
    [row] = await people.rows(workspace, ONE_EVENT + " WHERE message_id <> 'm2'")
    assert row == ({odd: odd}, odd, None, "b", None, odd, None, now, now)
    assert await events.track(workspace, [event], now=now) == TrackReport(0, 1, ())


async def test_a_batch_has_at_most_a_thousand_events(workspace: UUID, now: datetime) -> None:
    batch = [bought(f"m{at}", f"person {at}") for at in range(1001)]
    with pytest.raises(ProfileError) as refused:
        await events.track(workspace, batch, now=now)
    assert refused.value.code == "TOO_MANY_ITEMS"
    assert await people.rows(workspace, KEYS) == []
    assert await events.track(workspace, batch[:1000], now=now) == TrackReport(1000, 0, ())
    assert await events.track(workspace, [], now=now) == TrackReport(0, 0, ())
