"""Phones and browsers that push notifications can reach."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg

from db.transactions import Connection, transaction
from profiles.addresses import Channel, clean_address
from profiles.contention import retried
from profiles.errors import ProfileErased, ProfileError
from profiles.identities import clean_anonymous_id, clean_external_id, resolve
from profiles.text import clean_choice, clean_locale, clean_text

APP = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
DEFAULT_APP = "default"
MOST_DISABLED = 100
"""Devices of one profile that are shown though nothing is sent to them."""
MOST_DEVICES = 100
"""Devices of one profile that can be reached at a time; a new one beyond that disables the one registered first."""


class Provider(StrEnum):
    """Who hands the notification to the device."""

    FCM = "FCM"
    APNS = "APNS"


class Platform(StrEnum):
    IOS = "IOS"
    ANDROID = "ANDROID"
    WEB = "WEB"


PROVIDERS = {one.value: one for one in Provider}
PLATFORMS = {one.value: one for one in Platform}


class DisabledReason(StrEnum):
    """Why a device is not sent to any more."""

    UNREGISTERED = "UNREGISTERED"
    """The app said so."""
    SURPLUS = "SURPLUS"
    """Its profile registered too many newer ones."""
    GONE = "GONE"
    """The push service said that its token reaches no installation of the app any more."""


@dataclass(frozen=True, slots=True)
class DeviceInput:
    """A device as its app knows it; its person by exactly one of `external_id` and `anonymous_id`."""

    provider: Provider
    token: str
    platform: Platform
    external_id: str | None = None
    anonymous_id: str | None = None
    app_version: str | None = None
    locale: str | None = None
    app: str = DEFAULT_APP
    """The app that it runs, by the name that its push credentials have."""


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class Device:
    id: int
    profile_id: int
    provider: Provider
    token: str
    platform: Platform
    app_version: str | None
    locale: str | None
    registered_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None
    app: str


COLUMNS = """id, profile_id, provider, token, platform, app_version, locale, registered_at, disabled_at,
  disabled_reason, app"""
REGISTER = f"""
INSERT INTO device AS d (workspace_id, profile_id, provider, token, platform, app_version, locale, registered_at, app)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (workspace_id, provider, token) DO UPDATE SET profile_id = excluded.profile_id,
  platform = excluded.platform, app_version = excluded.app_version, locale = excluded.locale,
  registered_at = excluded.registered_at, app = excluded.app, disabled_at = NULL, disabled_reason = NULL
RETURNING {COLUMNS}
"""
DISABLE_SURPLUS = """
UPDATE device SET disabled_at = $3, disabled_reason = $5
WHERE workspace_id = $1 AND id IN (
  SELECT id FROM device WHERE workspace_id = $1 AND profile_id = $2 AND disabled_at IS NULL
  ORDER BY registered_at DESC, id DESC OFFSET $4)
"""
UNREGISTER = """
UPDATE device SET disabled_at = $4, disabled_reason = $5
WHERE workspace_id = $1 AND provider = $2 AND token = $3 AND disabled_at IS NULL
"""
# The token and the time stand in the condition: a device that has registered anew since then is there all the same.
# Locked in the order of ids: two campaigns may find the same devices gone at once.
DISABLE_GONE = """
WITH gone AS MATERIALIZED (
  SELECT d.id FROM unnest($2::bigint[], $3::text[], $4::timestamptz[]) AS g (id, token, since)
  JOIN device d ON d.id = g.id
  WHERE d.workspace_id = $1 AND d.token = g.token AND d.registered_at < g.since AND d.disabled_at IS NULL
  ORDER BY d.id FOR UPDATE OF d)
UPDATE device AS d SET disabled_at = $5, disabled_reason = $6 FROM gone WHERE d.workspace_id = $1 AND d.id = gone.id
"""
OF_PROFILES = f"""
SELECT d.* FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT {COLUMNS} FROM device
  WHERE workspace_id = $1 AND profile_id = u.id AND disabled_at IS NULL ORDER BY id OFFSET 0) AS d
"""
# The newest first that are not sent to any more: an app that is installed again and again leaves many behind.
ALL_OF_PROFILES = f"""
SELECT d.* FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT {COLUMNS} FROM device WHERE workspace_id = $1 AND profile_id = u.id
  ORDER BY disabled_at DESC NULLS FIRST, id LIMIT $3) AS d
"""
BY_ID = f"""
SELECT d.* FROM unnest($2::bigint[]) AS u (id) CROSS JOIN LATERAL (
  SELECT {COLUMNS} FROM device WHERE workspace_id = $1 AND id = u.id LIMIT 1) AS d
"""
# Somebody new meets conditions too. Who registers again is nobody new, and is not told of.
TELL_MADE = """
INSERT INTO profile_change (workspace_id, profile_ids, kind)
SELECT $1, ARRAY[id], 'touched' FROM profile WHERE workspace_id = $1 AND id = $2 AND created_at = $3
"""


async def register(workspace_id: UUID, device: DeviceInput, *, now: datetime) -> Device:
    """The device, now of this person and enabled. A token has one owner: whoever registered it last.

    An unknown person is created. Registering again renews it. Raises ProfileError.
    """
    token = clean_token(device.token)
    platform = clean_choice(Platform, device.platform, field=("platform",))
    provider = clean_choice(Provider, device.provider, field=("provider",))
    version, locale, app = device.app_version, device.locale, clean_app(device.app)
    version = None if version is None else clean_text(version, what="App version", most=100, field=("app_version",))
    locale = None if locale is None else clean_locale(locale, field=("locale",))
    if (device.external_id is None) == (device.anonymous_id is None):
        raise ProfileError("ONE_IDENTITY", "Give an external id or an anonymous id, and not both.")

    async def write() -> Device:
        async with transaction(workspace_id) as connection:
            profile_id = await owner_of(connection, workspace_id, device, now)
            row = await connection.fetchrow(
                REGISTER, workspace_id, profile_id, provider.value, token, platform.value, version, locale, now, app
            )
            await connection.execute(
                DISABLE_SURPLUS, workspace_id, profile_id, now, MOST_DEVICES, DisabledReason.SURPLUS.value
            )
        return device_of(row)

    return await retried(write)


async def owner_of(connection: Connection, workspace_id: UUID, device: DeviceInput, now: datetime) -> int:
    """The profile id of the person that `device` names, created when unknown. Raises ProfileErased."""
    external = [] if device.external_id is None else [clean_external_id(device.external_id)]
    anonymous = [] if device.anonymous_id is None else [clean_anonymous_id(device.anonymous_id)]
    found = await resolve(
        connection, workspace_id=workspace_id, external_ids=external, anonymous_ids=anonymous, now=now
    )
    (owner,) = [*found.by_external_id.values(), *found.by_anonymous_id.values()]
    if owner is None:
        raise ProfileErased(field=("external_id",) if external else ("anonymous_id",))
    await connection.execute(TELL_MADE, workspace_id, owner, now)
    return owner


async def unregister(workspace_id: UUID, provider: Provider, token: str, *, now: datetime) -> bool:
    """Whether there was such an enabled device; it is sent to no more."""
    provider = clean_choice(Provider, provider, field=("provider",))
    token = clean_token(token)
    async with transaction(workspace_id) as connection:
        status: str = await connection.execute(
            UNREGISTER, workspace_id, provider.value, token, now, DisabledReason.UNREGISTERED.value
        )
    return status != "UPDATE 0"


@dataclass(frozen=True, slots=True)
class GoneDevice:
    """A device of which a push service said that its token reaches nobody."""

    id: int
    token: str
    """The token that was sent to."""
    since: datetime
    """Since when, as the service knows; where it does not say, when the token was read."""


async def disable_gone(workspace_id: UUID, gone: Collection[GoneDevice], *, now: datetime) -> int:
    """How many of these devices were disabled: those that have not registered again since. One statement for all."""
    ids, tokens, since = [one.id for one in gone], [one.token for one in gone], [one.since for one in gone]
    async with transaction(workspace_id) as connection:
        status: str = await connection.execute(
            DISABLE_GONE, workspace_id, ids, tokens, since, now, DisabledReason.GONE.value
        )
    return int(status.removeprefix("UPDATE "))


async def of_profiles(workspace_id: UUID, profile_ids: Collection[int]) -> dict[int, list[Device]]:
    """The enabled devices of each of these profiles, oldest first; profiles without are left out."""
    devices: dict[int, list[Device]] = {}
    async with transaction(workspace_id) as connection:
        for row in await connection.fetch(OF_PROFILES, workspace_id, list(profile_ids)):
            devices.setdefault(row["profile_id"], []).append(device_of(row))
    return devices


async def all_of_profiles(workspace_id: UUID, profile_ids: Collection[int]) -> dict[int, list[Device]]:
    """Like `of_profiles`, with those that are not sent to any more behind, the last disabled first."""
    devices: dict[int, list[Device]] = {}
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(ALL_OF_PROFILES, workspace_id, list(profile_ids), MOST_DEVICES + MOST_DISABLED)
    for row in rows:
        devices.setdefault(row["profile_id"], []).append(device_of(row))
    return devices


async def find_by_ids(connection: Connection, workspace_id: UUID, device_ids: Collection[int]) -> dict[int, Device]:
    """The devices with these ids, disabled ones too; those that are gone with their profile are left out."""
    rows = await connection.fetch(BY_ID, workspace_id, list(device_ids))
    return {row["id"]: device_of(row) for row in rows}


def device_of(row: asyncpg.Record) -> Device:
    """A Device of a row of COLUMNS, which stand in the order of its fields."""
    return Device(row[0], row[1], PROVIDERS[row[2]], row[3], PLATFORMS[row[4]], *row[5:])


def clean_token(token: object) -> str:
    return clean_address(Channel.PUSH, token, field=("token",))


def clean_app(app: str) -> str:
    """The name of an app as credentials and devices have it. Raises ProfileError."""
    if not APP.fullmatch(app):
        message = "Name the app by small letters, digits, dots, hyphens and underscores, at most 63."
        raise ProfileError("INVALID_APP", message, field=("app",))
    return app
