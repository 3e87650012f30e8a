"""Packs of everybody: what changed since is never missed, and nothing of them has to stay."""

from datetime import datetime
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
from pyroaring import BitMap

from campaigns import erasing
from db.transactions import apart, transaction
from profiles import devices
from profiles.devices import DeviceInput, Platform, Provider
from profiles.identities import write_touched
from profiles.profiles import ProfileInput
from segments import packs, pulse, tree
from segments.conditions import parse
from segments.engines import packed, packed_events, packed_traits, parts
from segments.engines.packed import PackedEngine
from segments.engines.postgres import PostgresEngine
from segments.nodes import EngineLeaf
from segments.packs import Moment, Pack
from tests.segments.beats import DAY, HOUR, SECOND, drain, event, merge, rows, settled, track, trait, upsert
from tests.segments.factories import evaluate, make_dynamic, members_of
from tests.segments.people import Happened, Person, make_people

PACKS = "SELECT kind, name, id FROM pack WHERE workspace_id = $1 ORDER BY kind, name"
PARTS = """
SELECT name, place FROM pack_part JOIN pack ON pack.id = pack_id WHERE pack_part.workspace_id = $1 ORDER BY name, place
"""
SET_PLAN = "UPDATE profile SET traits = $3 WHERE workspace_id = $1 AND id = $2"
PREMIUM = trait("plan", "EQUALS", "premium")
NO_PLAN = trait("plan", "MISSING")
BOUGHT = event(within={"days": 30})
BOUGHT_TWICE = event(count={"operator": "GREATER_OR_EQUAL", "value": 2})
DEAR = event(sum={"property": "value", "operator": "GREATER_OR_EQUAL", "value": 10}, within={"days": 30})

Json = dict[str, object]


@pytest.fixture
def engine() -> PackedEngine:
    return PackedEngine(PostgresEngine(), fewest=0)


async def found(engine: PackedEngine, workspace: UUID, *conditions: Json, now: datetime) -> list[set[int]]:
    """Who meets each of these conditions of one leaf."""
    leaves = [cast(EngineLeaf, leaf) for one in conditions for leaf in tree.questions(parse(one)).values()]
    return [set(one) for one in await engine.ids(workspace_id=workspace, leaves=leaves, now=now)]


async def kept(workspace: UUID) -> list[tuple[Any, ...]]:
    return await rows(workspace, PACKS)


async def on_plans(workspace: UUID, *plans: str | None, now: datetime) -> list[int]:
    """People p0, p1 and so on, on these plans."""
    inputs = [
        ProfileInput(f"p{place}", traits={} if plan is None else {"plan": plan}) for place, plan in enumerate(plans)
    ]
    return await upsert(workspace, *inputs, now=now)


async def test_a_pack_is_used_again_and_whoever_changed_is_asked_about(
    monkeypatch: pytest.MonkeyPatch, engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    """Another trait, an event, a late one, a merge, an erasure, somebody new; and time that passes by itself."""
    a, b, c, d, e = await on_plans(workspace, "premium", "free", "premium", None, "free", now=now)
    await track(workspace, "purchase", "p0", "p1", at=now - 20 * DAY, now=now)
    asked = (PREMIUM, NO_PLAN, BOUGHT, BOUGHT_TWICE)
    about: list[BitMap | None] = []
    ask = engine.inner.ids

    async def noted(**given: Any) -> list[BitMap]:
        about.append(given["only"])
        return await ask(**given)

    monkeypatch.setattr(engine.inner, "ids", noted)
    for _ in ("who makes them", "who finds them"):
        assert await found(engine, workspace, *asked, now=now) == [{a, c}, {d}, {a, b}, set()]
    assert about == []
    made = await kept(workspace)
    assert [(kind, name) for kind, name, _ in made] == [("EVENT", "purchase"), ("TRAIT", "plan")]

    await upsert(workspace, ProfileInput("p1", traits={"plan": "premium"}), now=now)
    await track(workspace, "purchase", "p2", at=now - 40 * DAY, now=now)
    await track(workspace, "purchase", "p0", at=now, now=now)
    assert await found(engine, workspace, *asked, now=now) == [{a, b, c}, {d}, {a, b}, {a}]
    assert about == [BitMap([a, b, c])]
    (f,) = await upsert(workspace, ProfileInput("new"), now=now)
    await merge(workspace, loser=c, winner=e, now=now)
    met = [one - {c} for one in await found(engine, workspace, *asked, now=now)]  # whoever asks takes the gone off
    assert met == [{a, b}, {d, f}, {a, b}, {a}]
    assert await engine.profiles(workspace_id=workspace, since=0) == 6
    # b's purchase leaves the window, and nothing happens.
    met = [one - {c} for one in await found(engine, workspace, *asked, now=now + 11 * DAY)]
    assert met == [{a, b}, {d, f}, {a}, {a}]
    assert await kept(workspace) == made

    await erasing.erase(workspace, a, now=now)
    assert await kept(workspace) == []
    met = [one - {a, c} for one in await found(engine, workspace, *asked, now=now)]
    assert met == [{b}, {d, f}, {b}, set()]


async def test_what_was_not_over_when_a_pack_was_made_has_changed_since(
    lone_database: None, engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    """Also when a beat has taken the word of it, and when the note of that beat is forgotten."""
    a, b = await on_plans(workspace, "premium", "free", now=now)
    await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    async with transaction(workspace) as connection:
        await connection.execute(SET_PLAN, workspace, b, {"plan": "premium"})
        await write_touched(connection, workspace_id=workspace, profile_ids=[b])
        assert await found(engine, workspace, PREMIUM, now=now) == [{a}]
    made = await kept(workspace)
    assert len(made) == 1
    assert await found(engine, workspace, PREMIUM, now=now) == [{a, b}]
    await drain(workspace, now=now + SECOND)
    assert await found(engine, workspace, PREMIUM, now=now) == [{a, b}]
    await pulse.forget(workspace, now=now + 2 * HOUR)
    assert await rows(workspace, "SELECT id FROM pulse WHERE workspace_id = $1") == []
    assert await found(engine, workspace, PREMIUM, now=now) == [{a, b}]
    assert await kept(workspace) == made
    await packs.forget(workspace, now=now + DAY)
    assert await kept(workspace) == []


async def test_an_old_pack_and_one_of_another_server_are_not_used(
    engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    """The feed does not reach back to the one, and transactions have other numbers in the other."""
    await on_plans(workspace, "premium", now=now)
    for spoil in ("made_at = made_at - interval '20 hours'", "server = server + 1"):
        await found(engine, workspace, PREMIUM, now=now)
        made = await kept(workspace)
        async with transaction(workspace) as connection:
            await connection.execute(f"UPDATE pack SET {spoil}")
        await found(engine, workspace, PREMIUM, now=now)
        assert await kept(workspace) != made


async def test_a_pack_that_is_deleted_while_it_is_read_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    a, b = await on_plans(workspace, "premium", "free", now=now)
    await track(workspace, "purchase", "p0", at=now - DAY, now=now)
    asked = (PREMIUM, BOUGHT)
    assert await found(engine, workspace, *asked, now=now) == [{a}, {a}]
    read = packs.part

    async def deleted(moment: Moment, workspace_id: UUID, pack: Pack, place: int) -> bytes:
        with apart():
            async with transaction(workspace) as connection:
                await packs.drop(connection, workspace)
            await track(workspace, "purchase", "p1", at=now, now=now)
        return await read(moment, workspace_id, pack, place)

    monkeypatch.setattr(packs, "part", deleted)
    assert await found(engine, workspace, *asked, now=now) == [{a}, {a}]
    monkeypatch.undo()
    assert await kept(workspace) == []
    assert await found(engine, workspace, *asked, now=now) == [{a}, {a, b}]


async def test_what_was_read_of_somebody_who_is_erased_meanwhile_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    a, b = await on_plans(workspace, "premium", "premium", now=now)
    keep = packs.keep

    async def late(*given: Any, **named: Any) -> bool:
        await erasing.erase(workspace, a, now=now)
        return await keep(*given, **named)

    monkeypatch.setattr(packs, "keep", late)
    assert await found(engine, workspace, PREMIUM, now=now) == [{b}]
    assert await kept(workspace) == []


async def test_a_pack_is_made_anew_when_too_many_changed_or_more_is_asked_than_it_has(
    monkeypatch: pytest.MonkeyPatch, engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    a, b = await on_plans(workspace, "premium", "free", now=now)
    await track(workspace, "purchase", "p0", at=now - DAY, now=now)
    sold = event(where=[{"property": "channel", "operator": "EQUALS", "value": "web"}], within={"days": 7})
    seen = []
    for asked, expected in ((BOUGHT, {a}), (DEAR, set()), (sold, set()), (BOUGHT_TWICE, set())):
        assert await found(engine, workspace, asked, now=now) == [expected]
        seen.append(await kept(workspace))
    assert len({str(one) for one in seen}) == 4
    # The last one has what those before had.
    everything = (BOUGHT, DEAR, sold, BOUGHT_TWICE)
    assert await found(engine, workspace, *everything, now=now) == [{a}, set(), set(), set()]
    assert await kept(workspace) == seen[-1]
    monkeypatch.setattr(packed, "FEW", 0)
    await track(workspace, "purchase", "p1", at=now, now=now)
    assert await found(engine, workspace, BOUGHT, now=now) == [{a, b}]
    ((_, _, id),) = await kept(workspace)
    assert id != seen[-1][0][2]


async def test_an_evaluation_does_without_packs_that_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch, engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    """And the next one does not try again."""
    a, b = await on_plans(workspace, "premium", "free", now=now)
    await track(workspace, "purchase", "p1", at=now - DAY, now=now)
    tried = []

    async def full(*_: Any, **named: Any) -> bool:
        tried.append(named)
        raise asyncpg.DiskFullError("could not extend file")

    monkeypatch.setattr(packs, "keep", full)
    seen = []
    for _ in range(2):
        assert await found(engine, workspace, PREMIUM, BOUGHT, now=now) == [{a}, {b}]
        seen.append(len(tried))
    assert seen[0] == seen[1] > 0


@pytest.mark.parametrize(
    ("module", "limit"),
    [(packed_traits, "MOST_VALUES"), (packed_events, "MOST_EVENTS"), (packed_events, "MOST_TESTS")],
    ids=["values", "events", "tests"],
)
async def test_what_would_be_a_huge_pack_is_read_every_time(
    monkeypatch: pytest.MonkeyPatch, engine: PackedEngine, workspace: UUID, now: datetime, module: Any, limit: str
) -> None:
    monkeypatch.setattr(module, limit, 1)
    a, b, _ = await on_plans(workspace, "premium", "free", None, now=now)
    await track(workspace, "purchase", "p0", "p1", at=now - DAY, now=now)
    web, shop = (
        event(where=[{"property": "channel", "operator": "MISSING"}], within={"days": days}) for days in (7, 9)
    )
    other = event(where=[{"property": "channel", "operator": "EXISTS"}])
    for _ in range(2):
        met = await found(engine, workspace, PREMIUM, web, shop, other, now=now)
        assert met == [{a}, {a, b}, {a, b}, set()]
    kinds = {kind for kind, *_ in await kept(workspace)}
    assert kinds == ({"EVENT"} if module is packed_traits else {"TRAIT"})


async def test_nothing_is_kept_of_times_without_events(
    monkeypatch: pytest.MonkeyPatch, engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    """Of the 32 parts of two years; and whoever is the first to do something is found."""
    monkeypatch.setattr(parts, "LONGEST", 45 * DAY)
    a, b = await on_plans(workspace, None, None, now=now)
    await track(workspace, "purchase", "p0", at=now - 100 * DAY, now=now)
    asked = (event(), event(name="refund"))
    for _ in range(2):
        assert await found(engine, workspace, *asked, now=now) == [{a}, set()]
        assert [(name, place) for name, place in await rows(workspace, PARTS)] == [("purchase", 0)]
    await track(workspace, "refund", "p1", at=now - 300 * DAY, now=now)
    assert await found(engine, workspace, *asked, now=now) == [{a}, {b}]


async def test_a_trait_keeps_those_of_rare_values_out_of_its_pack(
    monkeypatch: pytest.MonkeyPatch, engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    """Whom the sample did not show: they are asked about each time."""
    monkeypatch.setattr(packed_traits, "SAMPLED", 2)
    monkeypatch.setattr(packed_traits, "MOST_OTHERS", 1)
    ids = await on_plans(workspace, "free", "free", "premium", None, now=now)
    for _ in range(2):
        assert await found(engine, workspace, PREMIUM, NO_PLAN, now=now) == [{ids[2]}, {ids[3]}]
    assert len(await kept(workspace)) == 1


async def test_a_test_for_true_is_not_answered_by_one_for_1(
    engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    """To Python the two are equal."""
    given = [Person(events=[Happened("purchase", now - DAY, {"gift": value})]) for value in (True, 1)]
    a, b = await make_people(workspace, *given)
    true, one = (event(where=[{"property": "gift", "operator": "EQUALS", "value": value}]) for value in (True, 1))
    assert await found(engine, workspace, true, now=now) == [{a}]
    assert await found(engine, workspace, one, now=now) == [{b}]
    assert await found(engine, workspace, true, one, now=now) == [{a}, {b}]


async def test_whoever_comes_with_a_device_is_told_of(engine: PackedEngine, workspace: UUID, now: datetime) -> None:
    await on_plans(workspace, "free", now=now)
    assert await found(engine, workspace, NO_PLAN, now=now) == [set()]
    device = DeviceInput(Provider.FCM, "token", Platform.ANDROID, external_id="somebody")
    registered = await devices.register(workspace, device, now=now)
    assert await found(engine, workspace, NO_PLAN, now=now) == [{registered.profile_id}]


async def test_evaluations_of_workers_use_packs_and_find_the_same_members(
    engine: PackedEngine, workspace: UUID, now: datetime
) -> None:
    _, b, _ = await on_plans(workspace, "premium", "premium", "free", now=now)
    await track(workspace, "purchase", "p0", "p2", at=now - DAY, now=now)
    segment = await make_dynamic(workspace, {"all": [PREMIUM, {"not": BOUGHT}]}, now=now)
    assert (await evaluate(segment, now=now, engine=engine)).size == 1
    assert await members_of(segment) == {b}
    made = await kept(workspace)
    await track(workspace, "purchase", "p1", at=now, now=now)
    await upsert(workspace, ProfileInput("p2", traits={"plan": "premium"}), now=now)
    (d,) = await upsert(workspace, ProfileInput("p3", traits={"plan": "premium"}), now=now)
    done = await evaluate(segment, now=now + SECOND, engine=engine)
    assert (done.added, done.removed, await members_of(segment)) == (1, 1, {d})
    assert [(node["path"], node["size"]) for node in done.nodes or []] == [
        ([], 1), (["all", "0"], 4), (["all", "1"], 1), (["all", "1", "not"], 3),
    ]  # fmt: skip
    assert await kept(workspace) == made
