"""Lists of segments."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from segments import lifecycle, listing
from segments.errors import SegmentError, SegmentNotFound
from segments.listing import SegmentFilter, SizeRow
from segments.models import SegmentStatus, SegmentType
from tests.segments import factories
from tests.segments.factories import DAY, ON_PREMIUM


async def test_segments_are_listed_newest_first_page_by_page(
    workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    """S2-23."""
    made = [await factories.make_static(workspace, now=now, name=str(n)) for n in range(3)]
    await factories.make_static(other_workspace, now=now)
    first = await listing.page(workspace, after=None, limit=2)
    rest = await listing.page(workspace, after=first[-1].place, limit=9)
    assert [one.row.id for one in (*first, *rest)][:3] == [one.id for one in made[::-1]]
    assert [one.row.type for one in rest] == [SegmentType.STATIC, SegmentType.EVERYONE]
    assert await listing.page(workspace, after=rest[-1].place, limit=9) == []


async def test_a_list_can_be_of_one_status_type_or_name(workspace: UUID, now: datetime) -> None:
    spring = await factories.make_static(workspace, now=now, name="Spring 100% sale")
    await lifecycle.archive(workspace, spring.id, now=now)
    await factories.make_static(workspace, now=now, name="autumn")
    premium = await factories.make_dynamic(workspace, now=now, name="premium")

    async def named(**wanted: Any) -> list[str]:
        found = await listing.page(workspace, after=None, limit=9, only=SegmentFilter(**wanted))
        return [one.row.name for one in found]

    assert await named(statuses=(SegmentStatus.ARCHIVED, SegmentStatus.PAUSED)) == ["Spring 100% sale"]
    assert await named(types=(SegmentType.DYNAMIC,), statuses=(SegmentStatus.ACTIVE,)) == [premium.name]
    assert await named(name="sPRING") == ["Spring 100% sale"]
    assert await named(name="0%") == ["Spring 100% sale"]
    assert await named(name="%a%") == []
    with pytest.raises(SegmentError) as refusal:
        await named(name="\0")
    assert refusal.value.code == "UNSTORABLE_TEXT"


async def test_segments_and_sizes_are_found_by_id(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    """S2-25, S3x-09."""
    await factories.make_people(workspace, ON_PREMIUM)
    dynamic = await factories.make_dynamic(workspace, now=now, name="evaluated")
    await factories.evaluate(dynamic, now=now + DAY)
    pending = await factories.make_dynamic(workspace, now=now, name="pending")
    foreign = await factories.make_static(other_workspace, now=now)
    ids = [dynamic.id, pending.id, foreign.id, uuid4()]

    assert set(await listing.load(workspace, ids)) == {dynamic.id, pending.id}
    assert await listing.sizes(workspace, ids) == {dynamic.id: SizeRow(1, now + DAY)}
    assert (await listing.get(workspace, dynamic.id)).name == "evaluated"
    with pytest.raises(SegmentNotFound):
        await listing.get(workspace, foreign.id)
    assert await listing.sizes(workspace, []) == {}
