"""Two profiles become one, and every old id leads to it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from profiles import brands, consent, devices, events, merging, profiles
from profiles.addresses import AddressHasher, Channel
from profiles.consent import ConsentStatus
from profiles.devices import DeviceInput, Platform, Provider
from profiles.errors import ProfileError, ProfileNotFound
from profiles.events import EventInput
from profiles.merging import Merged
from profiles.profiles import ProfileInput
from tests.profiles import people

DAY = timedelta(days=1)
EVENTS = "SELECT profile_id, message_id FROM event ORDER BY message_id"
ALIASES = "SELECT anonymous_id, profile_id FROM profile_alias ORDER BY anonymous_id"
CHANGES = """
SELECT kind, unnest(coalesce(profile_ids, ARRAY[profile_id])), other_id FROM profile_change ORDER BY seq
"""
CONSENTS = "SELECT profile_id, topic, status, source FROM consent ORDER BY topic"
DATES = "SELECT profile_id, key, at FROM profile_date ORDER BY key"
DEVICES = "SELECT profile_id, token FROM device ORDER BY token"
BRANDS = "SELECT profile_id, brand_id FROM profile_brand"
SEEN = "SELECT seen_device_type, seen_browser, seen_country, seen_city FROM profile WHERE id = $1"
TOMBSTONES = "SELECT id, merged_into FROM profile WHERE merged_into IS NOT NULL ORDER BY id"
LEFT = """
SELECT external_id, traits, email, email_hash, phone, time_zone, locale, country, city, first_seen_at, last_seen_at,
  seen_device_type, seen_browser, seen_country, seen_city
FROM profile WHERE id = $1
"""


async def changes_since(workspace_id: UUID, count: int) -> list[tuple[Any, ...]]:
    return (await people.rows(workspace_id, CHANGES))[count:]


async def refused(call: Any) -> tuple[str, tuple[str, ...]]:
    with pytest.raises(ProfileError) as caught:
        await call
    return caught.value.code, caught.value.field


async def visit(workspace_id: UUID, anonymous_id: str, *, now: datetime) -> int:
    """The profile of a new visitor."""
    await events.track(workspace_id, [EventInput(f"of {anonymous_id}", "visit", anonymous_id=anonymous_id)], now=now)
    return int(dict(await people.rows(workspace_id, ALIASES))[anonymous_id])


async def test_the_winner_gets_what_the_loser_had_and_keeps_its_own(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    brand = (await brands.create(workspace, "Acme")).id
    loser, winner = await people.put(
        workspace,
        ProfileInput(
            "loser",
            email="loser@example.com",
            phone="+49 30 1234",
            traits={"plan": "free", "age": 40, "renewal": "2026-05-01", "signup": "2020-01-01"},
            time_zone="Europe/Berlin",
            locale="de-DE",
            country="DE",
            city="Berlin",
            brand_ids=[brand],
        ),
        ProfileInput("winner", phone="+44 20 7946", traits={"plan": "premium", "signup": "2021-01-01"}, city="London"),
        hasher=hasher,
        now=now,
    )
    seen = EventInput("l1", "buy", external_id="loser", occurred_at=now - 9 * DAY, device_type="mobile", city="Bonn")
    await events.track(workspace, [seen, replace(seen, message_id="l2", occurred_at=now - DAY)], now=now)
    later = EventInput(
        "w1", "buy", external_id="winner", occurred_at=now - 5 * DAY, device_type="desktop", country="GB"
    )
    await events.track(workspace, [later], now=now)
    await devices.register(
        workspace, DeviceInput(Provider.FCM, "token", Platform.ANDROID, external_id="loser"), now=now
    )
    told = len(await people.rows(workspace, CHANGES))

    assert await merging.merge(workspace, loser_id=loser, winner_id=winner, now=now) == Merged(winner, True)

    found = await profiles.get(workspace, winner)
    assert (found.external_id, found.email, found.phone) == ("winner", "loser@example.com", "+44 20 7946")
    assert found.traits == {"plan": "premium", "age": 40, "renewal": "2026-05-01", "signup": "2021-01-01"}
    assert (found.time_zone, found.locale, found.country, found.city) == ("Europe/Berlin", "de-DE", "DE", "London")
    assert (found.first_seen_at, found.last_seen_at) == (now - 9 * DAY, now - DAY)
    # Seen last was the loser, on a phone in Bonn; of countries only the winner's events told.
    assert await people.rows(workspace, SEEN, winner) == [("mobile", None, "GB", "Bonn")]
    mailbox = hasher.hash(Channel.EMAIL, "loser@example.com")
    assert await people.rows(workspace, "SELECT id FROM profile WHERE email_hash = $1", mailbox) == [(winner,)]
    assert await people.rows(workspace, EVENTS) == [(winner, "l1"), (winner, "l2"), (winner, "w1")]
    assert await people.rows(workspace, DEVICES) == [(winner, "token")]
    assert await people.rows(workspace, BRANDS) == [(winner, brand)]
    assert await people.rows(workspace, DATES) == [
        (winner, "renewal", datetime(2026, 5, 1, tzinfo=UTC)),
        (winner, "signup", datetime(2021, 1, 1, tzinfo=UTC)),
    ]
    assert await people.rows(workspace, LEFT, loser) == [("loser", {}, *[None] * 13)]
    assert await changes_since(workspace, told) == [("merged", loser, winner), ("touched", winner, None)]


async def test_an_old_id_leads_to_the_winner_everywhere(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    visitor = await visit(workspace, "cookie", now=now)
    first, second, third = await people.put_named(workspace, "a", "b", "c", hasher=hasher, now=now)
    await merging.merge(workspace, loser_id=visitor, winner_id=first, now=now)
    await merging.merge(workspace, loser_id=first, winner_id=second, now=now)
    await merging.merge(workspace, loser_id=second, winner_id=third, now=now)
    # No chain has grown.
    assert await people.rows(workspace, TOMBSTONES) == sorted([(visitor, third), (first, third), (second, third)])
    for name in ("a", "b", "c"):
        assert (await people.find(workspace, name)).id == third
    [outcome] = await profiles.upsert(workspace, [ProfileInput("a", city="Rome")], hasher=hasher, now=now)
    assert (outcome.profile_id, outcome.created) == (third, False)
    batch = [EventInput("m1", "buy", external_id="b"), EventInput("m2", "visit", anonymous_id="cookie")]
    assert (await events.track(workspace, batch, now=now)).accepted == 2
    assert {row[0] for row in await people.rows(workspace, EVENTS)} == {third}
    said = await consent.unsubscribe(
        workspace, profile_id=first, channel=Channel.EMAIL, topic="news", source="link", now=now
    )
    assert said.profile_id == third
    assert (await profiles.get(workspace, third)).city == "Rome"


async def test_a_no_of_either_side_stays_a_no(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    loser, winner = await people.put_named(workspace, "loser", "winner", hasher=hasher, now=now)
    yes, no = ConsentStatus.SUBSCRIBED, ConsentStatus.UNSUBSCRIBED

    async def say(who: int, topic: str, status: ConsentStatus, source: str, at: datetime) -> None:
        await consent.set_consent(
            workspace, profile_id=who, channel=Channel.EMAIL, topic=topic, status=status, source=source, now=at
        )

    for topic, of_loser, of_winner in [("1", no, yes), ("2", yes, no), ("3", yes, yes), ("4", no, no)]:
        # The yes is always the later one: it does not undo the no.
        await say(loser, topic, of_loser, "loser", now - (0 if of_loser is yes else 1) * DAY)
        await say(winner, topic, of_winner, "winner", now - (2 if of_winner is no else 1) * DAY)
    await say(loser, "5", no, "loser", now)
    await say(winner, "6", yes, "winner", now)
    await merging.merge(workspace, loser_id=loser, winner_id=winner, now=now)
    assert await people.rows(workspace, CONSENTS) == [
        (winner, "1", "UNSUBSCRIBED", "loser"),
        (winner, "2", "UNSUBSCRIBED", "winner"),
        (winner, "3", "SUBSCRIBED", "loser"),
        (winner, "4", "UNSUBSCRIBED", "loser"),
        (winner, "5", "UNSUBSCRIBED", "loser"),
        (winner, "6", "SUBSCRIBED", "winner"),
    ]


async def test_merging_again_changes_nothing(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    loser, winner, third = await people.put_named(workspace, "loser", "winner", "third", hasher=hasher, now=now)
    await merging.merge(workspace, loser_id=loser, winner_id=winner, now=now)
    told = len(await people.rows(workspace, CHANGES))
    assert await merging.merge(workspace, loser_id=loser, winner_id=winner, now=now) == Merged(winner, False)
    # Nor the other way round: they are one person already.
    assert await merging.merge(workspace, loser_id=winner, winner_id=loser, now=now) == Merged(winner, False)
    assert await changes_since(workspace, told) == []
    # Into a merged one means into whom that one is now.
    assert await merging.merge(workspace, loser_id=third, winner_id=loser, now=now) == Merged(winner, True)
    assert await changes_since(workspace, told) == [("merged", third, winner), ("touched", winner, None)]


async def test_what_cannot_be_merged_is_refused(
    workspace: UUID, other_workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    one, gone = await people.put_named(workspace, "one", "gone", hasher=hasher, now=now)
    [stranger] = await people.put_named(other_workspace, "stranger", hasher=hasher, now=now)
    many = {f"k{at}": at for at in range(200)}
    big, bigger = await people.put(
        workspace,
        ProfileInput("big", traits=many),
        ProfileInput("bigger", traits={f"x{key}": at for key, at in many.items()}),
        hasher=hasher,
        now=now,
    )
    await people.erase(workspace, gone)
    told = await people.rows(workspace, CHANGES)

    async def refusal(loser: int, winner: int) -> tuple[str, tuple[str, ...]]:
        return await refused(merging.merge(workspace, loser_id=loser, winner_id=winner, now=now))

    assert await refusal(one, one) == ("SAME_PROFILE", ("loser_id",))
    assert await refusal(gone, one) == ("ERASED", ("loser_id",))
    assert await refusal(one, gone) == ("ERASED", ("winner_id",))
    assert await refusal(big, bigger) == ("TOO_MANY_KEYS", ("traits",))
    for unknown in (stranger, 2**31 - 1, 2**40, 0, -1):
        assert await refusal(unknown, one) == ("NOT_FOUND", ("loser_id",))
        assert await refusal(one, unknown) == ("NOT_FOUND", ("winner_id",))
    assert await people.rows(workspace, CHANGES) == told
    assert await people.rows(workspace, TOMBSTONES) == []


async def test_the_only_external_id_of_two_goes_to_the_winner(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    visitor = await visit(workspace, "cookie", now=now)
    [known] = await people.put_named(workspace, "known", hasher=hasher, now=now)
    await merging.merge(workspace, loser_id=known, winner_id=visitor, now=now)
    found = await people.find(workspace, "known")
    assert (found.id, found.external_id, found.identified) == (visitor, "known", True)
    assert (await profiles.get(workspace, known)).external_id is None


async def test_a_merge_waits_for_a_batch_that_is_being_written_and_takes_its_events_along(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    """In both orders: neither loses an event to the tombstone."""
    loser, winner = await people.put_named(workspace, "loser", "winner", hasher=hasher, now=now)
    batches = [[EventInput(f"{batch}.{at}", "buy", external_id="loser") for at in range(20)] for batch in range(12)]
    tracked = [events.track(workspace, batch, now=now) for batch in batches]
    merges = [merging.merge(workspace, loser_id=loser, winner_id=winner, now=now)]
    reports = await asyncio.gather(*tracked[:6], *merges, *tracked[6:])
    assert reports[6] == Merged(winner, True)
    rows = await people.rows(workspace, EVENTS)
    assert (len(rows), {row[0] for row in rows}) == (240, {winner})
    assert (await profiles.get(workspace, loser)).last_seen_at is None


async def test_merges_of_the_same_people_at_once_leave_one_person(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    ids = await people.put_named(workspace, *"abcdef", hasher=hasher, now=now)
    pairs = [(one, other) for one in ids for other in ids if one != other]
    done = await asyncio.gather(
        *(merging.merge(workspace, loser_id=one, winner_id=other, now=now) for one, other in pairs)
    )
    assert sum(one.merged for one in done) == len(ids) - 1
    [living] = await people.rows(workspace, "SELECT id FROM profile WHERE merged_into IS NULL")
    assert {target for _, target in await people.rows(workspace, TOMBSTONES)} == set(living)


async def test_an_unknown_visitor_becomes_another_name_of_a_person(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    [known] = await people.put_named(workspace, "known", hasher=hasher, now=now)
    done = await merging.identify(workspace, anonymous_id=" cookie ", external_id=" known ", now=now)
    assert done == Merged(known, False)
    made = await merging.identify(workspace, anonymous_id="other", external_id="new", now=now)
    new = await people.find(workspace, "new")
    assert (made, new.identified) == (Merged(new.id, False), True)
    assert await people.rows(workspace, ALIASES) == [("cookie", known), ("other", new.id)]
    assert (await people.touched(workspace))[-2:] == [known, new.id]
    told = await people.rows(workspace, CHANGES)
    assert await merging.identify(workspace, anonymous_id="cookie", external_id="known", now=now) == done
    assert await people.rows(workspace, CHANGES) == told


async def test_a_known_visitor_becomes_the_person(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    """S2-07."""
    visitor, stranger = await visit(workspace, "cookie", now=now), await visit(workspace, "other", now=now)
    [known] = await people.put_named(workspace, "known", hasher=hasher, now=now)
    done = await merging.identify(workspace, anonymous_id="cookie", external_id="known", now=now)
    assert done == Merged(known, True)
    assert await people.rows(workspace, TOMBSTONES) == [(visitor, known)]
    # Where nobody has the external id, the visitor gets it: nothing has to move.
    named = await merging.identify(workspace, anonymous_id="other", external_id="new", now=now)
    assert named == Merged(stranger, False)
    found = await people.find(workspace, "new")
    assert (found.id, found.identified) == (stranger, True)
    assert await people.rows(workspace, EVENTS) == [(known, "of cookie"), (stranger, "of other")]
    assert (await people.rows(workspace, CHANGES))[-3:] == [
        ("merged", visitor, known),
        ("touched", known, None),
        ("touched", stranger, None),
    ]


async def test_a_visitor_is_one_person_only(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    await people.put_named(workspace, "ann", "bob", hasher=hasher, now=now)
    await merging.identify(workspace, anonymous_id="cookie", external_id="ann", now=now)
    for name in ("bob", "nobody yet"):
        taken = merging.identify(workspace, anonymous_id="cookie", external_id=name, now=now)
        assert await refused(taken) == ("ALIAS_TAKEN", ("anonymous_id",))
    assert await profiles.find_by_external_id(workspace, "nobody yet") is None
    await people.erase(workspace, (await people.find(workspace, "bob")).id)
    erased = merging.identify(workspace, anonymous_id="new", external_id="bob", now=now)
    assert await refused(erased) == ("ERASED", ("external_id",))
    assert await refused(merging.identify(workspace, anonymous_id="", external_id="ann", now=now)) == (
        "BLANK",
        ("anonymous_id",),
    )


async def test_a_visitor_identified_by_many_at_once_is_identified_once(workspace: UUID, now: datetime) -> None:
    await visit(workspace, "cookie", now=now)
    calls = [merging.identify(workspace, anonymous_id="cookie", external_id="ann", now=now) for _ in range(8)]
    calls += [merging.identify(workspace, anonymous_id=f"c{at}", external_id="ann", now=now) for at in range(8)]
    done = await asyncio.gather(*calls)
    ann = (await people.find(workspace, "ann")).id
    assert {one.profile_id for one in done} == {ann}
    assert {owner for _, owner in await people.rows(workspace, ALIASES)} <= {
        ann,
        *[loser for loser, _ in await people.rows(workspace, TOMBSTONES)],
    }
    assert len(await people.rows(workspace, "SELECT id FROM profile WHERE merged_into IS NULL")) == 1


async def test_only_a_profile_that_exists_can_be_merged(workspace: UUID, now: datetime) -> None:
    with pytest.raises(ProfileNotFound):
        await merging.merge(workspace, loser_id=1, winner_id=2, now=now)
