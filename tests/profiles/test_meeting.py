"""People whom a process does not remember: found and moved in one go, or found out about."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from db.transactions import Connection, transaction
from profiles import events, identities, ingestion, seen
from profiles.addresses import AddressHasher
from profiles.events import EventInput, TrackReport
from profiles.seen import Sightings
from tests.conftest import Database
from tests.profiles import people

OWNERS = "SELECT message_id, profile_id FROM event ORDER BY message_id"
SEEN = "SELECT external_id, first_seen_at, last_seen_at, seen_device_type, seen_city FROM profile ORDER BY id"
VERSION = "SELECT xmin::text, last_seen_at, seen_device_type FROM profile"
ALIAS = "INSERT INTO profile_alias (workspace_id, anonymous_id, profile_id) VALUES ($1, $2, $3)"
MERGE = "UPDATE profile SET merged_into = $2 WHERE id = $1"
WAITERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


def did(message_id: str, at: datetime, *, who: str = "ann", **context: str) -> EventInput:
    return EventInput(message_id, "visit", external_id=who, occurred_at=at, **context)  # type: ignore[arg-type]


def visited(message_id: str, at: datetime, *, who: str, **context: str) -> EventInput:
    return EventInput(message_id, "visit", anonymous_id=who, occurred_at=at, **context)  # type: ignore[arg-type]


async def track(workspace_id: UUID, *wanted: EventInput, now: datetime) -> None:
    assert await events.track(workspace_id, wanted, now=now) == TrackReport(len(wanted), 0, ())


async def give_alias(workspace_id: UUID, name: str, profile_id: int) -> None:
    async with transaction(workspace_id) as connection:
        await connection.execute(ALIAS, workspace_id, name, profile_id)


async def test_a_stranger_who_is_known_is_found_and_moved_in_one_go(
    workspace: UUID, hasher: AddressHasher, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = await people.put_named(workspace, "ann", "bob", hasher=hasher, now=now)
    await give_alias(workspace, "bob's phone", bob)
    asked: list[set[str]] = []

    async def noted(connection: Connection, **wanted: Any) -> identities.Identities:
        asked.append(wanted["external_ids"] | wanted["anonymous_ids"])
        return await identities.resolve(connection, **wanted)

    async def none(connection: Connection, workspace_id: UUID, sightings: Sightings[int]) -> None:
        assert not sightings.who

    monkeypatch.setattr(ingestion, "resolve", noted)
    monkeypatch.setattr(ingestion, "write_seen", none)
    batch = [
        did("m1", now - 2 * HOUR, city="Lyon"),
        did("m2", now - HOUR, device_type="mobile"),
        visited("m3", now - 3 * HOUR, who="bob's phone", city="Rome"),
    ]
    await track(workspace, *batch, now=now)
    # Once, or twice where a month of another test's database was believed to be there.
    assert set().union(*asked) == set()
    assert asked
    assert await people.rows(workspace, OWNERS) == [("m1", ann), ("m2", ann), ("m3", bob)]
    assert await people.rows(workspace, SEEN) == [
        ("ann", now - 2 * HOUR, now - HOUR, "mobile", "Lyon"),
        ("bob", now - 3 * HOUR, now - 3 * HOUR, None, "Rome"),
    ]


async def test_a_stranger_who_was_merged_is_whom_they_were_merged_into(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    ann, bob = await people.put_named(workspace, "ann", "bob", hasher=hasher, now=now)
    await people.merge(workspace, loser=ann, winner=bob)
    await track(workspace, did("m1", now - HOUR, city="Lyon"), now=now)
    assert await people.rows(workspace, OWNERS) == [("m1", bob)]
    assert await people.rows(workspace, SEEN) == [
        ("ann", None, None, None, None),
        ("bob", now - HOUR, now - HOUR, None, "Lyon"),
    ]


async def test_a_stranger_who_is_being_merged_is_waited_for(
    database: Database, workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    """An event is never about somebody who was merged while it came in."""
    ann, bob = await people.put_named(workspace, "ann", "bob", hasher=hasher, now=now)
    merged = asyncio.Event()

    async def follow() -> None:
        await merged.wait()
        await track(workspace, did("m1", now - HOUR), now=now)

    # Made out here: a task goes on in the transaction that it is made in.
    tracking = asyncio.create_task(follow())
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with transaction(workspace) as connection:
            await connection.execute(MERGE, ann, bob)
            merged.set()
            while not await owner.fetchval(WAITERS):
                assert not tracking.done()
        await tracking
    finally:
        await owner.close()
    assert await people.rows(workspace, OWNERS) == [("m1", bob)]


async def test_a_stranger_who_was_erased_is_refused_and_not_seen(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    ann, bob = await people.put_named(workspace, "ann", "bob", hasher=hasher, now=now)
    await people.erase(workspace, ann)
    batch = [did("m1", now - HOUR, city="Lyon"), did("m2", now - HOUR, who="bob")]
    report = await events.track(workspace, batch, now=now)
    assert (report.accepted, [(place, error.code) for place, error in report.errors]) == (1, [(0, "ERASED")])
    assert await people.rows(workspace, OWNERS) == [("m2", bob)]
    assert (await people.rows(workspace, SEEN))[0] == ("ann", None, None, None, None)


async def test_what_all_names_of_a_person_tell_counts(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    """Two anonymous ids and the external id in one batch, and then one of them known to this process and one not."""
    (ann,) = await people.put_named(workspace, "ann", hasher=hasher, now=now)
    for name in ("phone", "laptop", "car"):
        await give_alias(workspace, name, ann)
    batch = [
        visited("m1", now - 5 * HOUR, who="phone", city="Lyon"),
        visited("m2", now - 4 * HOUR, who="laptop", device_type="desktop"),
        did("m3", now - 6 * HOUR, device_type="mobile"),
    ]
    await track(workspace, *batch, now=now)
    assert await people.rows(workspace, SEEN) == [("ann", now - 6 * HOUR, now - 4 * HOUR, "desktop", "Lyon")]
    batch = [visited("m4", now - 3 * HOUR, who="car", city="Rome"), did("m5", now - 2 * HOUR, device_type="tablet")]
    await track(workspace, *batch, now=now)
    assert await people.rows(workspace, SEEN) == [("ann", now - 6 * HOUR, now - 2 * HOUR, "tablet", "Rome")]
    assert await people.rows(workspace, OWNERS) == [(f"m{n}", ann) for n in range(1, 6)]


async def test_a_row_is_written_again_for_a_minute_or_for_news(workspace: UUID, now: datetime) -> None:
    """S2-10: what and where somebody was seen last is never a minute late; the time may be."""
    await track(workspace, did("m1", now - HOUR, device_type="mobile"), now=now)
    (first,) = await people.rows(workspace, VERSION)
    almost = seen.SEEN_TO - SECOND
    await track(workspace, did("m2", now - HOUR + almost, device_type="mobile"), did("m3", now - HOUR), now=now)
    assert await people.rows(workspace, VERSION) == [first]
    await track(workspace, did("m4", now - HOUR + almost, device_type="desktop"), now=now)
    (second,) = await people.rows(workspace, VERSION)
    assert second[1:] == (now - HOUR + almost, "desktop")
    await track(workspace, did("m5", now - HOUR + almost + seen.SEEN_TO), now=now)
    (third,) = await people.rows(workspace, VERSION)
    assert third[1:] == (now - HOUR + almost + seen.SEEN_TO, "desktop")
    assert len({first[0], second[0], third[0]}) == 3
