"""EVERYONE: there from the first moment, everybody who lives, no rows."""

from uuid import UUID

import pytest

from db.transactions import transaction
from profiles import workspaces
from profiles.errors import ProfileError
from segments import everyone, listing
from segments.errors import SegmentError
from segments.models import SegmentStatus, SegmentType
from tests.segments import factories
from tests.segments.factories import Person


async def test_a_workspace_comes_with_its_everyone(database: object) -> None:
    """S3-03."""
    id = await everyone.create_workspace("acme", time_zone="Europe/Madrid", consent_default="OPT_IN")
    assert await workspaces.find_named("acme") == id
    (listed,) = await listing.page(id, after=None, limit=9)
    segment = listed.row
    assert (segment.type, segment.status) == (SegmentType.EVERYONE, SegmentStatus.ACTIVE)
    async with transaction(id) as connection:
        assert await everyone.segment_id(connection) == segment.id


async def test_a_name_that_is_taken_makes_nothing(database: object) -> None:
    await everyone.create_workspace("acme", time_zone="UTC")
    with pytest.raises(SegmentError) as refusal:
        await everyone.create_workspace(" acme ", time_zone="UTC")
    assert (refusal.value.code, refusal.value.field) == ("WORKSPACE_EXISTS", ("name",))
    for wrong in ({"time_zone": "Mars"}, {"time_zone": "UTC", "consent_default": "MAYBE"}):
        with pytest.raises(ProfileError):
            await everyone.create_workspace("other", **wrong)
    assert len(await workspaces.list_ids()) == 1


async def test_everyone_is_all_who_live_anonymous_visitors_included(workspace: UUID, other_workspace: UUID) -> None:
    """S3-29."""
    known, visitor, erased, merged = await factories.make_people(
        workspace, Person(), Person(identified=False), Person(), Person()
    )
    await factories.make_people(other_workspace, Person())
    brand = await factories.make_brand(workspace, "shoes", visitor, erased)
    await factories.erase(workspace, erased)
    await factories.merge(workspace, loser=merged, winner=known)
    async with transaction(workspace) as connection:
        assert set(await everyone.members(connection, None)) == {known, visitor}
        assert set(await everyone.members(connection, brand)) == {visitor}
        for one in (None, brand):
            living, winners = await everyone.members_and_winners(connection, one)
            assert living == await everyone.members(connection, one)
            assert winners == {merged: known}
        id = await everyone.segment_id(connection)
    assert (await listing.sizes(workspace, [id]))[id].size == 2
