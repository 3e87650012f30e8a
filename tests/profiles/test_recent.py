"""People whom a process remembers are those who would be found, or the batch begins anew with a look-up."""

import asyncio
import gc
import weakref
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from db.transactions import Connection, transaction
from profiles import events, identities, ingestion
from profiles import recent as recent_names
from profiles.addresses import AddressHasher
from profiles.events import EventInput, TrackReport
from profiles.recent import Recent
from tests.profiles import people

OWNERS = "SELECT message_id, profile_id FROM event ORDER BY message_id"
IDS = "SELECT id FROM profile ORDER BY id"
REMOVE = "DELETE FROM profile WHERE external_id = $1"
GIVE = "INSERT INTO profile (workspace_id, external_id, identified) VALUES ($1, $2, true) RETURNING id"


def did(message_id: str, external_id: str) -> EventInput:
    return EventInput(message_id, "visit", external_id=external_id)


async def track(workspace_id: UUID, *wanted: EventInput, now: datetime) -> None:
    assert await events.track(workspace_id, wanted, now=now) == TrackReport(len(wanted), 0, ())


async def test_nobody_is_looked_up_who_was_met_a_moment_ago(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await track(workspace, did("m1", "ann"), EventInput("m2", "visit", anonymous_id="v"), now=now)
    asked: list[set[str]] = []

    async def noted(connection: Connection, **wanted: Any) -> identities.Identities:
        asked.append(wanted["external_ids"] | wanted["anonymous_ids"])
        return await identities.resolve(connection, **wanted)

    monkeypatch.setattr(ingestion, "resolve", noted)
    await track(workspace, did("m3", "ann"), did("m4", "bob"), EventInput("m5", "visit", anonymous_id="v"), now=now)
    assert asked == [{"bob"}]


async def test_who_was_merged_since_is_whom_they_were_merged_into(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    ann, bob = await people.put_named(workspace, "ann", "bob", hasher=hasher, now=now)
    await track(workspace, did("m1", "ann"), did("m2", "bob"), now=now)
    await people.merge(workspace, loser=ann, winner=bob)
    await track(workspace, did("m3", "ann"), did("m4", "bob"), now=now)
    assert await people.rows(workspace, OWNERS) == [("m1", ann), ("m2", bob), ("m3", bob), ("m4", bob)]


async def test_who_was_erased_since_is_refused(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    ann, _ = await people.put_named(workspace, "ann", "bob", hasher=hasher, now=now)
    await track(workspace, did("m1", "ann"), did("m2", "bob"), now=now)
    await people.erase(workspace, ann)
    report = await events.track(workspace, [did("m3", "ann"), did("m4", "bob")], now=now)
    assert (report.accepted, [(place, error.code) for place, error in report.errors]) == (1, [(0, "ERASED")])


async def test_an_id_that_is_nobodys_becomes_nobody(workspace: UUID, now: datetime) -> None:
    """As after a restore: whoever had the id is not there, and no row without a name comes to be in their place."""
    await track(workspace, did("m1", "ann"), now=now)
    async with transaction(workspace) as connection:
        await connection.execute(REMOVE, "ann")
        new = await connection.fetchval(GIVE, workspace, "ann")
    await track(workspace, did("m2", "ann"), now=now)
    assert (await people.rows(workspace, IDS), (await people.rows(workspace, OWNERS))[1:]) == ([(new,)], [("m2", new)])


async def test_nobody_is_remembered_of_a_batch_that_was_rolled_back(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ingestion, "write_seen", fail)
    with pytest.raises(ZeroDivisionError):
        await events.track(workspace, [did("m1", "ann")], now=now)
    monkeypatch.undo()
    assert ingestion.MET.recall(workspace, ["ann"]) == {}
    await track(workspace, did("m1", "ann"), now=now)
    assert await people.rows(workspace, IDS) == [((await people.find(workspace, "ann")).id,)]


def test_names_are_of_their_workspace_and_the_oldest_go() -> None:
    recent, one, other = Recent(most=2), uuid4(), uuid4()
    assert recent.recall(one, "ab") == {}
    recent.remember(one, {"a": 1, "b": 2})
    recent.remember(other, {"a": 3})
    assert (recent.recall(one, "abc"), recent.recall(other, "ab")) == ({"a": 1, "b": 2}, {"a": 3})
    recent.remember(one, {"b": 2})
    recent.remember(other, {"c": 4, "d": 5})
    # Asked for since, so kept.
    assert (recent.recall(one, "ab"), recent.recall(other, "acd")) == ({"b": 2}, {"c": 4, "d": 5})
    recent.forget(one, ["b", "x"])
    assert recent.recall(one, "ab") == {}


def test_a_new_connection_may_lead_to_another_database(monkeypatch: pytest.MonkeyPatch) -> None:
    recent, workspace_id = Recent(), uuid4()
    recent.recall(workspace_id, [])
    recent.remember(workspace_id, {"a": 1})
    assert recent.recall(workspace_id, "a") == {"a": 1}
    monkeypatch.setattr("profiles.recent.connections_made", lambda: -1)
    assert recent.recall(workspace_id, "a") == {}


async def test_of_batches_under_way_with_the_same_strangers_the_later_waits_for_the_earlier(workspace: UUID) -> None:
    """In here and not in PostgreSQL, where it would hold the people whom the earlier one wants last."""
    recent, order = Recent(), list[str]()
    taken, go = asyncio.Event(), asyncio.Event()

    async def earlier() -> None:
        with recent.claim(workspace) as claim:
            assert claim.take({"ann", "bob"}) == {"ann", "bob"}
            taken.set()
            await go.wait()
            await claim.turn()
            order.append("earlier")

    async def later() -> None:
        await taken.wait()
        with recent.claim(workspace) as claim:
            assert claim.take({"bob", "cid"}) == {"cid"}
            asyncio.get_running_loop().call_soon(go.set)
            await claim.turn()
            order.append("later")

    await asyncio.gather(later(), earlier())
    assert order == ["earlier", "later"]
    with recent.claim(workspace) as claim:
        assert claim.take({"ann", "bob", "cid"}) == {"ann", "bob", "cid"}


async def test_whom_an_earlier_batch_knows_and_locks_last_no_later_one_locks_before(workspace: UUID) -> None:
    """Else the earlier one waits for the later one in PostgreSQL, which waits for the earlier one in here."""
    recent = Recent()
    with recent.claim(workspace) as earlier, recent.claim(workspace) as later, recent.claim(workspace) as last:
        assert earlier.take({"bob"}, {"ann"}) == {"bob"}
        assert later.take({"ann", "bob", "cid"}) == {"cid"}
        earlier.release()
        assert last.take({"ann", "dan"}, {"cid"}) == {"dan"}


async def test_who_is_waited_for_too_long_is_not_waited_for(workspace: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another name of somebody the earlier batch may itself wait for the later one, which PostgreSQL finds out."""
    monkeypatch.setattr(recent_names, "LONGEST_TURN_S", 0)
    recent = Recent()
    with recent.claim(workspace) as earlier, recent.claim(workspace) as later:
        assert (earlier.take({"ann"}), later.take({"ann"})) == ({"ann"}, set())
        await later.turn()


async def test_a_claim_that_ended_is_kept_by_nobody_who_came_after(workspace: UUID) -> None:
    """Else a process that is never idle would keep the names of every batch since it was."""
    recent = Recent()
    with recent.claim(workspace) as later:
        with recent.claim(workspace) as middle:
            with recent.claim(workspace) as first:
                first.take({"ann"})
                assert middle.take({"ann", "bob"}) == {"bob"}
                ended = weakref.ref(first)
            assert later.take({"bob", "cid"}) == {"cid"}
            del first
        del middle
        gc.collect()
        assert ended() is None
        await later.turn()


async def test_batches_at_once_about_the_same_strangers_never_stand_in_each_others_way(
    workspace: UUID, hasher: AddressHasher, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = [f"person {n:03}" for n in range(60)]
    await people.put_named(workspace, *everybody, hasher=hasher, now=now)
    # Here the month is made, or found to be there.
    await track(workspace, did("m", "somebody"), now=now)
    begun: list[int] = []

    async def counted(*arguments: Any, **wanted: Any) -> Any:
        begun.append(1)
        return await insert_keys(*arguments, **wanted)

    insert_keys = ingestion.insert_keys
    monkeypatch.setattr(ingestion, "insert_keys", counted)
    batches = [
        [
            EventInput(f"{n} {name}", "visit", external_id=name, occurred_at=now)
            for name in everybody[n % 3 :: n % 5 + 1]
        ]
        for n in range(12)
    ]
    reports = await asyncio.gather(*(events.track(workspace, batch, now=now) for batch in batches))
    assert [report.accepted for report in reports] == [len(batch) for batch in batches]
    assert len(begun) == len(batches)
