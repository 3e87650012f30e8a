"""Brands of a workspace."""

from datetime import datetime
from uuid import UUID, uuid4

import pytest

from profiles import brands, profiles
from profiles.addresses import AddressHasher
from profiles.errors import ProfileError
from profiles.profiles import ProfileInput
from tests.profiles import people


async def test_brands_are_listed_by_name_and_a_name_is_taken_once_a_workspace(
    workspace: UUID, other_workspace: UUID
) -> None:
    """S1-02."""
    zebra, ant = await brands.create(workspace, " Zebra "), await brands.create(workspace, "Ant")
    theirs = await brands.create(other_workspace, "Ant")
    assert [(one.id, one.name) for one in await brands.list_brands(workspace)] == [(ant.id, "Ant"), (zebra.id, "Zebra")]
    assert set(await brands.load(workspace, [ant.id, theirs.id, uuid4()])) == {ant.id}
    for name, code in [("Ant", "BRAND_EXISTS"), (" ", "BLANK"), ("a\ud800", "UNSTORABLE_TEXT")]:
        with pytest.raises(ProfileError) as refused:
            await brands.create(workspace, name)
        assert (refused.value.code, refused.value.field) == (code, ("name",))
    assert len(await brands.list_brands(workspace)) == 2


async def brand_ids(workspace: UUID, profile_id: int) -> dict[int, list[UUID]]:
    found = await brands.of_profiles(workspace, [profile_id])
    return {profile_id: [brand.id for brand in of_one] for profile_id, of_one in found.items()}


async def test_a_persons_brands_are_replaced_left_alone_or_cleared(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    one, two = (await brands.create(workspace, "One")).id, (await brands.create(workspace, "Two")).id
    [ann] = await people.put(workspace, ProfileInput("ann", brand_ids=[one, one]), hasher=hasher, now=now)
    seen = [await brand_ids(workspace, ann)]
    for wanted in (
        ProfileInput("ann", city="Bonn"),
        ProfileInput("ann", brand_ids=[two, one]),
        ProfileInput("ann", brand_ids=[two]),
        ProfileInput("ann", brand_ids=None),
    ):
        await people.put(workspace, wanted, hasher=hasher, now=now)
        seen.append(await brand_ids(workspace, ann))
    assert seen == [{ann: [one]}, {ann: [one]}, {ann: [one, two]}, {ann: [two]}, {}]
    # Each change of a brand is told, the repeated one is not.
    await people.put(workspace, ProfileInput("ann", brand_ids=[]), hasher=hasher, now=now)
    assert await people.touched(workspace) == [ann] * 5


async def test_an_unknown_brand_refuses_its_person_and_no_other(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    known = (await brands.create(workspace, "Known")).id
    outcomes = await profiles.upsert(
        workspace,
        [ProfileInput("ann", brand_ids=[known, uuid4()]), ProfileInput("bob", brand_ids=[known])],
        hasher=hasher,
        now=now,
    )
    assert people.refusals(outcomes) == [("NOT_FOUND", ("brand_ids", "1")), None]
    assert await profiles.find_by_external_id(workspace, "ann") is None
