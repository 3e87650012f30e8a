"""Somebody is forgotten, whoever writes about them at that moment. What is left of them anywhere else:
tests/app/test_api_erasing.py.
"""

import asyncio
from collections.abc import Awaitable
from datetime import datetime
from typing import Any
from uuid import UUID

from db.transactions import transaction
from profiles import brands, consent, devices, erasing, events, merging, profiles
from profiles.addresses import AddressHasher, Channel
from profiles.consent import ConsentStatus
from profiles.contention import retried
from profiles.devices import DeviceInput, Platform, Provider
from profiles.erasing import Erased
from profiles.errors import ProfileError
from profiles.events import EventInput
from profiles.merging import Merged
from profiles.profiles import ProfileInput
from tests.profiles import people

TABLES = ("event", "device", "profile_alias", "profile_brand", "consent", "profile_date")


async def held(workspace_id: UUID, *profile_ids: int) -> set[str]:
    """The tables with rows about any of these."""
    asked = " UNION ".join(f"SELECT '{name}' FROM {name} WHERE profile_id = ANY($1::int[])" for name in TABLES)
    return {name for (name,) in await people.rows(workspace_id, asked, list(profile_ids))}


async def erase(workspace_id: UUID, profile_id: int, *, now: datetime) -> Erased:
    async def once() -> Erased:
        async with transaction(workspace_id) as connection:
            return await erasing.erase(connection, workspace_id=workspace_id, profile_id=profile_id, now=now)

    return await retried(once)


def all_that_is_said(
    workspace_id: UUID, name: str, profile_id: int, brand_id: UUID, *, batch: int, hasher: AddressHasher, now: datetime
) -> list[Awaitable[Any]]:
    """Calls that write about one person, in every table that knows people."""
    profile = ProfileInput(name, traits={"born": f"2001-01-{batch + 1:02}"}, brand_ids=[brand_id])
    return [
        events.track(
            workspace_id, [EventInput(f"{name}{batch}.{at}", "buy", external_id=name) for at in range(9)], now=now
        ),
        merging.identify(workspace_id, anonymous_id=f"{name}'s browser {batch}", external_id=name, now=now),
        profiles.upsert(workspace_id, [profile], hasher=hasher, now=now),
        devices.register(
            workspace_id, DeviceInput(Provider.FCM, f"{name}{batch}", Platform.WEB, external_id=name), now=now
        ),
        consent.set_consent(
            workspace_id,
            profile_id=profile_id,
            channel=Channel.EMAIL,
            topic=f"topic {batch}",
            status=ConsentStatus.SUBSCRIBED,
            source="app",
            now=now,
        ),
    ]


async def test_whoever_writes_meanwhile_leaves_nothing(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    """What was written first is deleted, what comes later is refused."""
    brand = (await brands.create(workspace, "Acme")).id
    [ann] = await people.put_named(workspace, "ann", hasher=hasher, now=now)
    said = [all_that_is_said(workspace, "ann", ann, brand, batch=batch, hasher=hasher, now=now) for batch in range(8)]
    await asyncio.gather(*said[0])
    assert await held(workspace, ann) == set(TABLES)
    before, after = [one for some in said[1:5] for one in some], [one for some in said[5:] for one in some]
    done = await asyncio.gather(*before, erase(workspace, ann, now=now), *after, return_exceptions=True)
    assert done[len(before)] == Erased(ann, (), now)
    assert {one.code for one in done if isinstance(one, ProfileError)} <= {"ERASED", "NOT_FOUND"}
    assert not [one for one in done if isinstance(one, Exception) and not isinstance(one, ProfileError)]
    assert await held(workspace, ann) == set()
    assert await people.rows(workspace, "SELECT traits, last_seen_at FROM profile WHERE id = $1", ann) == [({}, None)]


async def test_who_is_merged_and_erased_at_once_is_forgotten(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    """Whichever is first: the merge takes everything along to who is erased then, or it is refused."""
    brand = (await brands.create(workspace, "Acme")).id
    for pair in range(6):
        names = f"ann{pair}", f"bob{pair}"
        ann, bob = await people.put_named(workspace, *names, hasher=hasher, now=now)
        for name, id in zip(names, (ann, bob), strict=True):
            await asyncio.gather(*all_that_is_said(workspace, name, id, brand, batch=0, hasher=hasher, now=now))
        calls = [merging.merge(workspace, loser_id=ann, winner_id=bob, now=now), erase(workspace, ann, now=now)]
        if pair % 2:
            calls.reverse()
        done = sorted(await asyncio.gather(*calls, return_exceptions=True), key=lambda one: type(one).__name__)
        match done:
            case [Erased() as erased, Merged() as merged]:
                assert (erased, merged) == (Erased(bob, (ann,), now), Merged(bob, True))
                assert await held(workspace, ann, bob) == set()
            case [Erased() as erased, ProfileError() as refusal]:
                assert (erased, refusal.code) == (Erased(ann, (), now), "ERASED")
                assert (await held(workspace, ann), await held(workspace, bob)) == (set(), set(TABLES))
            case _:
                raise AssertionError(done)
