"""What is forgotten by itself."""

from datetime import UTC, datetime, timedelta
from io import BytesIO
from uuid import UUID

import pytest

from db.transactions import transaction
from profiles import devices, events, imports, retention
from profiles.addresses import AddressHasher
from profiles.devices import DeviceInput, Platform, Provider
from profiles.events import EventInput, TrackReport
from profiles.retention import Forgotten
from tests.profiles import people

KEYS = "SELECT message_id FROM event_key ORDER BY message_id"
EVENTS = "SELECT count(*) FROM event"
CHANGES = "SELECT kind, unnest(coalesce(profile_ids, ARRAY[profile_id])) FROM profile_change ORDER BY seq"
ERASED = "INSERT INTO profile_change (workspace_id, profile_id, kind, changed_at) VALUES ($1, $2, 'erased', $3)"
AGE = "UPDATE profile_change SET changed_at = $1 WHERE seq = (SELECT max(seq) FROM profile_change)"
SECOND = timedelta(seconds=1)
AUDIT_KEPT = timedelta(days=90)
ENTRY = "INSERT INTO audit_entry (workspace_id, at, key_id, action) SELECT $1, $2, $1, 'a' FROM generate_series(1, $3)"
ENTRIES = "SELECT at FROM audit_entry ORDER BY id"
REQUEST = """
INSERT INTO request (workspace_id, actor, key, place, fingerprint, answer, done_at)
VALUES ($1, 'a', $2, '', '', '{}', $3)
"""
REQUESTS = "SELECT key FROM request"
OLD_KEYS, OLD_CHANGES = retention.EVENT_KEYS_KEPT, retention.CHANGES_KEPT


async def happen(workspace_id: UUID, name: str, *, now: datetime) -> TrackReport:
    """An event, and word of it, as of `now`."""
    report = await events.track(workspace_id, [EventInput(name, "seen", external_id=name)], now=now)
    await age_word(workspace_id, now)
    return report


async def age_word(workspace_id: UUID, at: datetime) -> None:
    """Have what was written last been written then: word has the time of its transaction."""
    async with transaction(workspace_id) as connection:
        await connection.execute(AGE, at)


async def forget(workspace_id: UUID, now: datetime) -> Forgotten:
    return await retention.forget(workspace_id, now=now, audit_kept=AUDIT_KEPT)


async def test_keys_are_forgotten_after_35_days_and_changes_after_one(
    workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    for age, name in [
        (OLD_KEYS + SECOND, "old key"),
        (OLD_KEYS, "key"),
        (OLD_CHANGES + SECOND, "old change"),
        (OLD_CHANGES, "change"),
    ]:
        await happen(workspace, name, now=now - age)
    await happen(other_workspace, "theirs", now=now - OLD_KEYS - SECOND)
    assert await forget(workspace, now) == Forgotten(event_keys=1, profile_changes=3)
    assert await people.rows(workspace, KEYS) == [("change",), ("key",), ("old change",)]
    assert await people.touched(workspace) == [(await people.find(workspace, "change")).id]
    # Events themselves stay, and nobody else's anything goes.
    assert await people.rows(workspace, EVENTS) == [(4,)]
    assert await people.rows(other_workspace, KEYS) == [("theirs",)]
    assert len(await people.touched(other_workspace)) == 1
    assert await forget(workspace, now) == Forgotten(0, 0)


async def test_word_of_somebody_is_as_old_as_its_transaction_whatever_clock_the_caller_has(workspace: UUID) -> None:
    """An API's that is two days behind: what it writes now waits a day all the same."""
    now = datetime.now(UTC)
    behind = now - 2 * OLD_CHANGES
    await events.track(workspace, [EventInput("m1", "seen", external_id="ann")], now=behind)
    phone = DeviceInput(Provider.FCM, "token", Platform.ANDROID, external_id="ben")
    await devices.register(workspace, phone, now=behind)
    assert (await forget(workspace, now)).profile_changes == 0
    assert len(await people.touched(workspace)) == 2


async def test_an_event_is_recognised_as_long_as_its_key_is_kept(workspace: UUID, now: datetime) -> None:
    await happen(workspace, "m1", now=now - OLD_KEYS)
    await forget(workspace, now)
    assert await happen(workspace, "m1", now=now) == TrackReport(0, 1, ())
    await forget(workspace, now + SECOND)
    assert await happen(workspace, "m1", now=now) == TrackReport(1, 0, ())


async def test_much_is_forgotten_in_batches_until_none_is_left(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [EventInput(f"m{at}", "seen", external_id=f"p{at}") for at in range(25)]
    for event in batch:
        await events.track(workspace, [event], now=now - OLD_KEYS - SECOND)
        await age_word(workspace, now - OLD_KEYS - SECOND)
    monkeypatch.setattr(retention, "BATCH", 10)
    monkeypatch.setattr(retention, "MOST_BATCHES", 2)
    assert await forget(workspace, now) == Forgotten(event_keys=20, profile_changes=20)
    assert await forget(workspace, now) == Forgotten(event_keys=5, profile_changes=5)


async def test_merges_and_erasures_wait_until_somebody_acts_on_them(workspace: UUID, now: datetime) -> None:
    """Static segments have no evaluation that would make up for one that was forgotten while workers were away."""
    await happen(workspace, "ann", now=now - OLD_CHANGES - SECOND)
    ann = (await people.find(workspace, "ann")).id
    async with transaction(workspace) as connection:
        await connection.execute(ERASED, workspace, ann, now - OLD_CHANGES - SECOND)
    assert await forget(workspace, now) == Forgotten(event_keys=0, profile_changes=1)
    assert await people.rows(workspace, CHANGES) == [("erased", ann)]


async def test_the_audit_log_is_kept_for_a_time_and_remembered_requests_for_a_day(
    workspace: UUID, other_workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest first, in batches; nobody else's."""
    monkeypatch.setattr(retention, "BATCH", 3)
    old, day = now - AUDIT_KEPT - SECOND, timedelta(days=1)
    for tenant in (workspace, other_workspace):
        async with transaction(tenant) as connection:
            for at, count in ((old, 7), (now - AUDIT_KEPT, 2)):
                await connection.execute(ENTRY, tenant, at, count)
            for key, at in (("old", now - day), ("kept", now - day + SECOND)):
                await connection.execute(REQUEST, tenant, key, at)
    assert await forget(workspace, now) == Forgotten(0, 0, requests=1, audit_entries=7)
    assert await people.rows(workspace, ENTRIES) == [(now - AUDIT_KEPT,)] * 2
    assert await people.rows(workspace, REQUESTS) == [("kept",)]
    assert len(await people.rows(other_workspace, ENTRIES)) == 9
    assert await forget(workspace, now) == Forgotten(0, 0)


async def test_word_of_an_import_of_hours_is_as_old_as_what_it_tells_of(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """And not as old as the import, whose now is that of its beginning: whoever goes by the word of a day would miss
    what came last."""
    began = now - OLD_CHANGES - SECOND
    for plan in ("free", "premium"):
        rows = BytesIO(f"id,plan\nann,{plan}\n".encode())
        mapping = {"id": "external_id", "plan": "traits.plan"}
        await imports.import_profiles(workspace, rows, mapping, hasher=hasher, now=began)
    did = BytesIO(f"id,at\nann,{began.isoformat()}\n".encode())
    mapping = {"id": "external_id", "at": "occurred_at"}
    await imports.import_events(workspace, did, mapping, now=began, name="seen")
    assert (await forget(workspace, now)).profile_changes == 0
    assert await people.touched(workspace) == [(await people.find(workspace, "ann")).id] * 3
