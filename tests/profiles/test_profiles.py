"""People written in batches, and found again."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from db.transactions import transaction
from profiles import profiles
from profiles.addresses import AddressHasher, Channel
from profiles.errors import ProfileError, ProfileNotFound
from profiles.events import EventInput, track
from profiles.profiles import Profile, ProfileInput, UpsertOutcome
from tests.profiles import people
from tests.profiles.people import Refusal

HASH_OF = "SELECT email_hash FROM profile WHERE id = $1"
COUNT = "SELECT count(*) FROM profile"
NAMES = "SELECT external_id FROM profile ORDER BY external_id"
HOUR = timedelta(hours=1)

FULL = ProfileInput(
    " ann ",
    email=" Ann@Example.com ",
    phone=" +49 30 1234 ",
    traits={"plan": "premium", "age": 41, "vip": True, "tags": ["a", "b"], "score": 0.5},
    time_zone="Europe/Berlin",
    locale="de_de",
    country="de",
    city=" Köln ",
)


async def test_a_person_is_kept_with_all_that_is_said(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    [outcome] = await profiles.upsert(workspace, [FULL], hasher=hasher, now=now)
    assert outcome.profile_id is not None
    assert outcome == UpsertOutcome(outcome.profile_id, True, None)
    assert await profiles.get(workspace, outcome.profile_id) == Profile(
        id=outcome.profile_id,
        external_id="ann",
        email="Ann@Example.com",
        phone="+49 30 1234",
        traits={"plan": "premium", "age": 41, "vip": True, "tags": ["a", "b"], "score": 0.5},
        time_zone="Europe/Berlin",
        locale="de-DE",
        country="DE",
        city="Köln",
        identified=True,
        first_seen_at=None,
        last_seen_at=None,
        merged_into=None,
        erased_at=None,
        created_at=now,
        updated_at=now,
    )
    assert await people.rows(workspace, HASH_OF, outcome.profile_id) == [
        (hasher.hash(Channel.EMAIL, "ann@example.com"),)
    ]
    assert await people.touched(workspace) == [outcome.profile_id]


async def test_what_is_left_out_stays_and_null_clears(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    [ann] = await people.put(workspace, FULL, hasher=hasher, now=now)
    before = await profiles.get(workspace, ann)
    change = ProfileInput("ann", email=None, city="Bonn", traits={"plan": "free", "age": None, "new": "x"})
    [outcome] = await profiles.upsert(workspace, [change], hasher=hasher, now=now + HOUR)
    assert outcome == UpsertOutcome(ann, False, None)
    after = await profiles.get(workspace, ann)
    assert after.traits == {"plan": "free", "vip": True, "tags": ["a", "b"], "score": 0.5, "new": "x"}
    assert (after.email, after.city, after.phone, after.country) == (None, "Bonn", before.phone, "DE")
    assert (after.created_at, after.updated_at) == (now, now + HOUR)
    assert await people.rows(workspace, HASH_OF, ann) == [(None,)]
    clear = ProfileInput("ann", phone=None, time_zone=None, locale=None, country=None, city=None)
    await people.put(workspace, clear, hasher=hasher, now=now)
    cleared = await profiles.get(workspace, ann)
    assert (cleared.phone, cleared.time_zone, cleared.locale, cleared.country, cleared.city) == (None,) * 5


async def test_the_same_again_changes_nothing_and_uses_no_id(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    [ann] = await people.put(workspace, FULL, hasher=hasher, now=now)
    before = await profiles.get(workspace, ann)
    for _ in range(3):
        outcomes = await profiles.upsert(workspace, [FULL, ProfileInput("ann")], hasher=hasher, now=now + HOUR)
        assert outcomes == [UpsertOutcome(ann, False, None)] * 2
    assert await profiles.get(workspace, ann) == before
    assert await people.touched(workspace) == [ann]
    [bob] = await people.put_named(workspace, "bob", hasher=hasher, now=now)
    assert bob == ann + 1


async def test_inputs_about_one_person_are_applied_one_after_the_other(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    outcomes = await profiles.upsert(
        workspace,
        [
            ProfileInput("ann", city="Bonn", traits={"a": 1, "b": 1}),
            ProfileInput("bob"),
            ProfileInput(" ann", city="Oslo", traits={"a": 2}),
            ProfileInput("ann", country="Norway"),
            ProfileInput("ann", traits={"b": None, "c": 3}),
        ],
        hasher=hasher,
        now=now,
    )
    ann = await people.find(workspace, "ann")
    assert (ann.city, ann.country, ann.traits) == ("Oslo", None, {"a": 2, "c": 3})
    assert [one.created for one in outcomes] == [True, True, False, False, False]
    assert [one.profile_id == ann.id for one in outcomes] == [True, False, True, False, True]
    assert people.refusals(outcomes) == [None, None, None, ("UNKNOWN_COUNTRY", ("country",)), None]
    assert set(await people.touched(workspace)) == {one.profile_id for one in outcomes[:2]}
    assert len(await people.touched(workspace)) == 2


async def test_what_cannot_be_kept_is_refused_one_by_one_and_the_rest_is_written(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    wrong: list[tuple[ProfileInput, Refusal]] = [
        (ProfileInput("x\0"), ("UNSTORABLE_TEXT", ("external_id",))),
        (ProfileInput("\ud800"), ("UNSTORABLE_TEXT", ("external_id",))),
        (ProfileInput(" "), ("BLANK", ("external_id",))),
        (ProfileInput("x" * 201), ("TOO_LONG", ("external_id",))),
        (ProfileInput("x", email="nobody"), ("INVALID_EMAIL", ("email",))),
        (ProfileInput("x", email=""), ("INVALID_EMAIL", ("email",))),
        (ProfileInput("x", email="a\0@example.com"), ("INVALID_EMAIL", ("email",))),
        (ProfileInput("x", email="\udfff@example.com"), ("INVALID_EMAIL", ("email",))),
        (ProfileInput("x", phone="call me"), ("INVALID_PHONE", ("phone",))),
        (ProfileInput("x", time_zone="Mars/Base"), ("UNKNOWN_TIME_ZONE", ("time_zone",))),
        (ProfileInput("x", locale="?"), ("INVALID_LOCALE", ("locale",))),
        (ProfileInput("x", country="UK"), ("UNKNOWN_COUNTRY", ("country",))),
        (ProfileInput("x", city="a\0"), ("UNSTORABLE_TEXT", ("city",))),
        (ProfileInput("x", traits={"a": "\0"}), ("UNSTORABLE_TEXT", ("traits", "a"))),
        (ProfileInput("x", traits={"a": ["ok", "\ud83d"]}), ("UNSTORABLE_TEXT", ("traits", "a"))),
        (ProfileInput("x", traits={"a\0": 1}), ("UNSTORABLE_TEXT", ("traits",))),
        (ProfileInput("x", traits={"a": {"b": 1}}), ("INVALID_VALUE", ("traits", "a"))),
    ]
    inputs = [ProfileInput("first"), *(one for one, _ in wrong), ProfileInput("last", email="l@example.com")]
    outcomes = await profiles.upsert(workspace, inputs, hasher=hasher, now=now)
    assert people.refusals(outcomes) == [None, *(refusal for _, refusal in wrong), None]
    assert [one.profile_id is None for one in outcomes] == [False, *[True] * len(wrong), False]
    assert await people.rows(workspace, NAMES) == [("first",), ("last",)]


async def test_a_change_that_would_overfill_a_person_is_refused_whole(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    [ann] = await people.put(
        workspace, ProfileInput("ann", traits={f"t{at}": at for at in range(256)}), hasher=hasher, now=now
    )
    over = ProfileInput("ann", city="Oslo", traits={"more": 1})
    fits = ProfileInput("ann", traits={"t0": None})
    outcomes = await profiles.upsert(workspace, [over, fits, over], hasher=hasher, now=now)
    assert people.refusals(outcomes) == [("TOO_MANY_KEYS", ("traits",)), None, None]
    after = await profiles.get(workspace, ann)
    assert (after.city, len(after.traits), after.traits["more"]) == ("Oslo", 256, 1)


async def test_many_writers_of_one_new_person_make_one(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    """Each says something of its own, and all of it is kept."""
    outcomes = await asyncio.gather(
        *(
            profiles.upsert(workspace, [ProfileInput("ann", traits={f"from {at}": at})], hasher=hasher, now=now)
            for at in range(8)
        )
    )
    ann = await people.find(workspace, "ann")
    assert {outcome.profile_id for [outcome] in outcomes} == {ann.id}
    assert sum(outcome.created for [outcome] in outcomes) == 1
    assert ann.traits == {f"from {at}": at for at in range(8)}
    assert await people.rows(workspace, COUNT) == [(1,)]


async def test_writers_of_the_same_people_in_other_orders_all_succeed(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    """Old and new people, upserts and events, forwards and backwards."""
    await people.put_named(workspace, *(f"person {at}" for at in range(0, 40, 2)), hasher=hasher, now=now)
    names = [f"person {at}" for at in range(40)]

    async def upsert(writer: int) -> int:
        inputs = [ProfileInput(name, traits={f"from {writer}": True}) for name in names[:: -1 if writer % 2 else 1]]
        outcomes = await profiles.upsert(workspace, inputs, hasher=hasher, now=now)
        return sum(outcome.error is None for outcome in outcomes)

    async def happen(writer: int) -> int:
        batch = [EventInput(f"{writer} {name}", "seen", external_id=name) for name in names[:: 1 if writer % 2 else -1]]
        return (await track(workspace, batch, now=now)).accepted

    done = await asyncio.gather(*(write(writer) for writer in range(4) for write in (upsert, happen)))
    assert done == [40] * 8
    assert await people.rows(workspace, COUNT) == [(40,)]
    assert (await people.find(workspace, "person 7")).traits == {f"from {writer}": True for writer in range(4)}


async def test_an_upsert_of_a_merged_person_changes_the_winner(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    first, second, winner = await people.put_named(workspace, "first", "second", "winner", hasher=hasher, now=now)
    await people.merge(workspace, loser=first, winner=second)
    await people.merge(workspace, loser=second, winner=winner)
    outcomes = await profiles.upsert(
        workspace,
        [
            ProfileInput("first", traits={"a": 1}),
            ProfileInput("winner", traits={"b": 2}),
            ProfileInput("second", traits={"c": 3}),
        ],
        hasher=hasher,
        now=now,
    )
    assert outcomes == [UpsertOutcome(winner, False, None)] * 3
    found = await profiles.load(workspace, [first, second, winner])
    assert [found[id].traits for id in (first, second, winner)] == [{}, {}, {"a": 1, "b": 2, "c": 3}]
    assert [found[id].merged_into for id in (first, second, winner)] == [second, winner, None]


async def test_a_person_is_found_by_external_id_through_merges_and_not_after_erasure(
    workspace: UUID, other_workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    loser, winner, erased = await people.put_named(workspace, "loser", "winner", "erased", hasher=hasher, now=now)
    await people.put_named(other_workspace, "foreign", hasher=hasher, now=now)
    await people.merge(workspace, loser=loser, winner=winner)
    await people.erase(workspace, erased)
    asked = ["loser", " winner", "erased", "foreign", "nobody", "", "a\0", "\ud800", "x" * 300]
    async with transaction(workspace) as connection:
        assert await profiles.find_by_external_ids(connection, asked) == {"loser": winner, " winner": winner}
    assert (await people.find(workspace, "loser")).external_id == "winner"
    assert await profiles.find_by_external_id(workspace, "erased") is None


async def test_ids_that_can_be_nobodys_are_not_found(
    workspace: UUID, other_workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    [foreign] = await people.put_named(other_workspace, "foreign", hasher=hasher, now=now)
    for profile_id in (foreign, 0, -1, 2**31, 2**70):
        with pytest.raises(ProfileNotFound) as refused:
            await profiles.get(workspace, profile_id)
        assert (refused.value.code, refused.value.field) == ("NOT_FOUND", ("id",))


async def test_living_people_are_paged_by_id(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    ids = await people.put_named(workspace, *(f"p{at}" for at in range(7)), hasher=hasher, now=now)
    await people.merge(workspace, loser=ids[1], winner=ids[2])
    await people.erase(workspace, ids[4])
    pages: list[list[int]] = [[]]
    while not pages[1:] or pages[-1]:
        after = pages[-1][-1] if pages[-1] else None
        page = await profiles.page(workspace, after=after, limit=2, hasher=hasher)
        pages.append([one.id for one in page])
    assert pages == [[], [ids[0], ids[2]], [ids[3], ids[5]], [ids[6]], []]
    assert await profiles.page(workspace, after=2**40, limit=1000, search=" ", hasher=hasher) == []
    for limit in (0, -1, 1001):
        with pytest.raises(ProfileError) as refused:
            await profiles.page(workspace, after=None, limit=limit, hasher=hasher)
        assert (refused.value.code, refused.value.field) == ("INVALID_LIMIT", ("limit",))


async def test_a_search_finds_a_whole_external_id_or_email_in_any_spelling(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    shared = "Shared@Example.com"
    ids = await people.put(
        workspace,
        ProfileInput("ann", email=shared),
        ProfileInput("bob", email=shared.lower()),
        ProfileInput("shared@example.com"),
        ProfileInput("cyd", email=shared),
        ProfileInput("dan", email="dan@example.com"),
        hasher=hasher,
        now=now,
    )
    await people.merge(workspace, loser=ids[3], winner=ids[4])

    async def search(text: str, after: int | None = None, limit: int = 10) -> list[int]:
        found = await profiles.page(workspace, after=after, limit=limit, search=text, hasher=hasher)
        return [one.id for one in found]

    assert await search(" SHARED@example.com ") == [ids[0], ids[1]]
    assert await search("shared@example.com") == ids[:3]
    assert await search("shared@example.com", limit=2) == ids[:2]
    assert await search("shared@example.com", after=ids[1]) == [ids[2]]
    assert await search("cyd") == [ids[4]]
    assert await search("ann") == [ids[0]]
    for nobody in ("an", "%", "shared@example", "a\0@b", "\ud800@b", "x" * 5000, "@"):
        assert await search(nobody) == []


async def test_a_batch_has_at_most_a_thousand_people(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    inputs = [ProfileInput(f"person {at}") for at in range(1001)]
    with pytest.raises(ProfileError) as refused:
        await profiles.upsert(workspace, inputs, hasher=hasher, now=now)
    assert refused.value.code == "TOO_MANY_ITEMS"
    assert await people.rows(workspace, COUNT) == [(0,)]
    assert len(await people.put(workspace, *inputs[:1000], hasher=hasher, now=now)) == 1000
    assert await profiles.upsert(workspace, [], hasher=hasher, now=now) == []
