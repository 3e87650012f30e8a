"""Tenants."""

from datetime import datetime
from uuid import UUID, uuid4

import pytest

from db.transactions import across_workspaces
from profiles import brands, profiles, workspaces
from profiles.addresses import AddressHasher
from profiles.errors import ProfileError, WorkspaceNotFound
from profiles.models import ConsentDefault
from profiles.profiles import ProfileInput
from tests.conftest import Database
from tests.profiles import people


async def create(name: str, *, time_zone: str = "UTC") -> UUID | None:
    async with across_workspaces() as connection:
        return await workspaces.create(connection, name, time_zone=time_zone, consent_default=ConsentDefault.OPT_IN)


async def test_a_workspace_is_made_once_a_name_and_found_by_it(database: Database) -> None:
    workspace_id = await create(" Acme ", time_zone="Europe/Berlin")
    assert workspace_id is not None
    assert await create("Acme") is None
    other_id = await create("acme")
    assert await workspaces.list_ids() == [workspace_id, other_id]
    assert await workspaces.find_named(" Acme") == workspace_id
    assert await workspaces.find_named("nobody") is None
    made = await workspaces.get(workspace_id)
    assert (made.name, made.time_zone, made.consent_default) == ("Acme", "Europe/Berlin", ConsentDefault.OPT_IN)
    with pytest.raises(WorkspaceNotFound):
        await workspaces.get(uuid4())


async def test_a_workspace_with_a_name_or_time_zone_that_cannot_be_kept_is_refused(database: Database) -> None:
    for name, zone, code, field in [
        ("", "UTC", "BLANK", "name"),
        ("a\0b", "UTC", "UNSTORABLE_TEXT", "name"),
        ("x" * 201, "UTC", "TOO_LONG", "name"),
        ("Acme", "Mars/Base", "UNKNOWN_TIME_ZONE", "time_zone"),
    ]:
        with pytest.raises(ProfileError) as refused:
            await create(name, time_zone=zone)
        assert (refused.value.code, refused.value.field) == (code, (field,))
    assert await workspaces.list_ids() == []


async def test_tenants_do_not_see_each_others_people(
    workspace: UUID, other_workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    """One external id and one email in two workspaces are two people."""
    [ours] = await people.put(workspace, ProfileInput("ann", email="a@example.com"), hasher=hasher, now=now)
    [theirs] = await people.put(
        other_workspace, ProfileInput("ann", email="a@example.com", city="Oslo"), hasher=hasher, now=now
    )
    assert ours != theirs
    assert (await people.find(workspace, "ann")).city is None
    assert await profiles.load(workspace, [ours, theirs]) == {ours: await profiles.get(workspace, ours)}
    for search in (None, "ann", "a@example.com"):
        page = await profiles.page(other_workspace, after=None, limit=10, search=search, hasher=hasher)
        assert [one.id for one in page] == [theirs]
    brand = await brands.create(other_workspace, "Theirs")
    [outcome] = await profiles.upsert(workspace, [ProfileInput("bob", brand_ids=[brand.id])], hasher=hasher, now=now)
    assert people.refusals([outcome]) == [("NOT_FOUND", ("brand_ids", "0"))]
