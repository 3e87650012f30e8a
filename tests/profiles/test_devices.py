"""Devices: registered by their apps, owned by whoever registered them last."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from profiles import devices
from profiles.addresses import AddressHasher
from profiles.devices import MOST_DEVICES, Device, DeviceInput, GoneDevice, Platform, Provider
from profiles.errors import ProfileError
from tests.profiles import people

PHONE = DeviceInput(Provider.FCM, "Token-1", Platform.ANDROID, external_id="ann")
DISABLED = "SELECT token, disabled_reason FROM device WHERE disabled_at IS NOT NULL ORDER BY id"
COUNT = "SELECT count(*) FROM device"
PEOPLE = "SELECT external_id, identified FROM profile ORDER BY id"
SECOND = timedelta(seconds=1)


async def test_a_device_is_registered_for_a_person_who_is_made_when_unknown(workspace: UUID, now: datetime) -> None:
    full = replace(PHONE, token=" Token-1 ", app_version=" 1.2 ", locale="de_at")
    device = await devices.register(workspace, full, now=now)
    ann = (await people.find(workspace, "ann")).id
    assert device == Device(
        device.id,
        ann,
        Provider.FCM,
        "Token-1",
        Platform.ANDROID,
        "1.2",
        "de-AT",
        now,
        disabled_at=None,
        disabled_reason=None,
        app="default",
    )
    visitor = await devices.register(
        workspace, DeviceInput(Provider.APNS, "Token-1", Platform.IOS, anonymous_id="visitor"), now=now
    )
    assert await people.rows(workspace, PEOPLE) == [("ann", True), (None, False)]
    assert await devices.of_profiles(workspace, [ann, visitor.profile_id]) == {
        ann: [device],
        visitor.profile_id: [visitor],
    }


async def test_a_token_belongs_to_whoever_registered_it_last(workspace: UUID, now: datetime) -> None:
    first = await devices.register(workspace, PHONE, now=now)
    second = await devices.register(workspace, replace(PHONE, external_id="bob", app_version="2"), now=now + SECOND)
    assert second == replace(first, profile_id=second.profile_id, app_version="2", registered_at=now + SECOND)
    assert second.profile_id != first.profile_id
    assert await devices.of_profiles(workspace, [first.profile_id, second.profile_id]) == {second.profile_id: [second]}
    # Case matters in tokens.
    other = await devices.register(workspace, replace(PHONE, token="token-1"), now=now)
    assert other.id != first.id


async def test_an_unregistered_device_is_reached_no_more_until_it_registers_again(
    workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    device = await devices.register(workspace, PHONE, now=now)
    assert not await devices.unregister(other_workspace, Provider.FCM, "Token-1", now=now)
    assert not await devices.unregister(workspace, Provider.APNS, "Token-1", now=now)
    assert await devices.unregister(workspace, Provider.FCM, " Token-1 ", now=now)
    assert await devices.of_profiles(workspace, [device.profile_id]) == {}
    assert await people.rows(workspace, DISABLED) == [("Token-1", "UNREGISTERED")]
    assert not await devices.unregister(workspace, Provider.FCM, "Token-1", now=now)
    assert await devices.register(workspace, PHONE, now=now) == device


async def test_a_merged_persons_device_is_the_winners(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    ann, winner = await people.put_named(workspace, "ann", "winner", hasher=hasher, now=now)
    await people.merge(workspace, loser=ann, winner=winner)
    assert (await devices.register(workspace, PHONE, now=now)).profile_id == winner


async def test_a_person_has_at_most_a_hundred_devices_and_the_oldest_go(workspace: UUID, now: datetime) -> None:
    for at in range(MOST_DEVICES + 2):
        device = await devices.register(workspace, replace(PHONE, token=f"t{at}"), now=now + at * SECOND)
    await devices.register(workspace, replace(PHONE, token="t2"), now=now + timedelta(hours=1))
    await devices.register(workspace, replace(PHONE, token="new"), now=now + timedelta(hours=2))
    assert await people.rows(workspace, DISABLED) == [("t0", "SURPLUS"), ("t1", "SURPLUS"), ("t3", "SURPLUS")]
    assert len((await devices.of_profiles(workspace, [device.profile_id]))[device.profile_id]) == MOST_DEVICES


async def test_registrations_of_one_token_at_the_same_time_make_one_device(workspace: UUID, now: datetime) -> None:
    made = await asyncio.gather(
        *(devices.register(workspace, replace(PHONE, external_id=f"person {at % 3}"), now=now) for at in range(8))
    )
    assert len({device.id for device in made}) == 1
    assert await people.rows(workspace, COUNT) == [(1,)]
    assert len(await people.rows(workspace, PEOPLE)) == 3


async def test_a_device_that_cannot_be_kept_is_refused_and_nothing_is_written(workspace: UUID, now: datetime) -> None:
    wrong = [
        (replace(PHONE, token=""), "BLANK", ("token",)),
        (replace(PHONE, token="a\0"), "UNSTORABLE_TEXT", ("token",)),
        (replace(PHONE, token="x" * 4097), "TOO_LONG", ("token",)),
        (replace(PHONE, locale="?"), "INVALID_LOCALE", ("locale",)),
        (replace(PHONE, app_version="\ud800"), "UNSTORABLE_TEXT", ("app_version",)),
        (replace(PHONE, external_id="a\0"), "UNSTORABLE_TEXT", ("external_id",)),
        (replace(PHONE, external_id=None, anonymous_id=""), "BLANK", ("anonymous_id",)),
        (replace(PHONE, external_id=None), "ONE_IDENTITY", ()),
        (replace(PHONE, anonymous_id="v"), "ONE_IDENTITY", ()),
    ]
    for device, code, field in wrong:
        with pytest.raises(ProfileError) as refused:
            await devices.register(workspace, device, now=now)
        assert (refused.value.code, refused.value.field) == (code, field)
    assert await people.rows(workspace, COUNT) == [(0,)]
    assert await people.rows(workspace, PEOPLE) == []
    with pytest.raises(ProfileError) as refused:
        await devices.unregister(workspace, Provider.FCM, "a\0", now=now)
    assert refused.value.field == ("token",)


async def test_devices_that_a_push_service_calls_gone_are_disabled_unless_they_registered_since(
    workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    made = [
        await devices.register(workspace, replace(PHONE, token=f"Token-{n}"), now=now + n * SECOND) for n in range(4)
    ]
    await devices.register(workspace, replace(PHONE, token="Token-3"), now=now + 20 * SECOND)
    gone = [GoneDevice(one.id, one.token, now + 10 * SECOND) for one in made]
    gone[1] = replace(gone[1], token="another")
    assert await devices.disable_gone(other_workspace, gone, now=now) == 0
    assert await devices.disable_gone(workspace, gone, now=now + 30 * SECOND) == 2
    assert await devices.disable_gone(workspace, gone, now=now + 40 * SECOND) == 0
    assert await devices.disable_gone(workspace, [], now=now) == 0
    assert await people.rows(workspace, DISABLED) == [("Token-0", "GONE"), ("Token-2", "GONE")]
