"""Static segments changed by what a query finds, and by other segments."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pyroaring import BitMap

from db.transactions import transaction
from segments import conditions, everyone, lifecycle, membership, populating, static
from segments.asking import find_now
from segments.errors import SegmentError
from segments.finding import Found
from segments.lifecycle import SegmentInput
from segments.models import Segment, SegmentType
from segments.populating import PopulateMode, PopulateReport
from tests.segments import factories
from tests.segments.factories import PREMIUM, SOURCES, Person


@pytest.fixture
async def segment(workspace: UUID, now: datetime) -> Segment:
    return await factories.make_static(workspace, now=now)


async def make(workspace_id: UUID, **plans: str | None) -> dict[str, int]:
    """Ids of people by name, each on a plan or on none."""
    ids = await factories.make_people(
        workspace_id,
        *(Person(external_id=name, traits={"plan": plan} if plan else {}) for name, plan in plans.items()),
    )
    return dict(zip(plans, ids, strict=True))


async def populate(segment: Segment, mode: PopulateMode, *, now: datetime, definition: object = None) -> PopulateReport:
    return await populating.populate(
        segment.workspace_id,
        segment.id,
        conditions.parse(definition or PREMIUM),
        mode=mode,
        sources=SOURCES,
        now=now,
    )


async def test_a_query_adds_removes_and_replaces_members(segment: Segment, now: datetime) -> None:
    """S3x-07."""
    w = segment.workspace_id
    ids = await make(w, ann="premium", bob="premium", cyd="free", dee="free")
    await static.add_members(w, segment.id, external_ids=["bob", "cyd"], now=now)
    assert await populate(segment, PopulateMode.ADD, now=now) == PopulateReport(found=2, added=1, removed=0, size=3)
    assert await factories.members_of(segment) == {ids["ann"], ids["bob"], ids["cyd"]}
    later = now + timedelta(seconds=1)
    assert await populate(segment, PopulateMode.REMOVE, now=later) == PopulateReport(2, 0, 2, 1)
    assert await factories.members_of(segment) == {ids["cyd"]}
    assert await populate(segment, PopulateMode.REPLACE, now=later + timedelta(seconds=1)) == PopulateReport(2, 2, 1, 2)
    assert await factories.members_of(segment) == {ids["ann"], ids["bob"]}
    assert await factories.intervals_of(segment) == [
        (ids["ann"], False, "populated", "depopulated"),
        (ids["bob"], False, "added", "depopulated"),
        (ids["cyd"], False, "added", "populated"),
        (ids["ann"], True, "populated", None),
        (ids["bob"], True, "populated", None),
    ]
    assert await membership.verify(w) == []
    again = await populate(segment, PopulateMode.REPLACE, now=later + timedelta(seconds=2))
    assert again == PopulateReport(2, 0, 0, 2)


async def test_members_stay_whatever_becomes_true_of_them_later(segment: Segment, now: datetime) -> None:
    """S1-12."""
    ids = await make(segment.workspace_id, ann="premium")
    await populate(segment, PopulateMode.ADD, now=now)
    async with transaction(segment.workspace_id) as connection:
        await connection.execute("UPDATE profile SET traits = '{}'")
    await factories.run_all(segment.workspace_id, now=now + factories.DAY)
    assert await factories.members_of(segment) == {ids["ann"]}


async def test_a_query_finds_people_of_the_segments_brand(workspace: UUID, now: datetime) -> None:
    ids = await make(workspace, ann="premium", bob="premium")
    brand = await factories.make_brand(workspace, "shoes", ids["ann"])
    wanted = SegmentInput(name="shoes", type=SegmentType.STATIC, brand_id=brand)
    segment = await lifecycle.create(workspace, wanted, now=now)
    assert await populate(segment, PopulateMode.ADD, now=now) == PopulateReport(1, 1, 0, 1)


async def test_who_dies_while_the_query_runs_does_not_enter(
    segment: Segment, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await make(segment.workspace_id, ann="premium", bob="premium")

    async def erased_meanwhile(*args: Any, **kwargs: Any) -> Found:
        found = await find_now(*args, **kwargs)
        await factories.erase(segment.workspace_id, ids["ann"])
        return found

    monkeypatch.setattr(populating, "find_now", erased_meanwhile)
    assert await populate(segment, PopulateMode.ADD, now=now) == PopulateReport(2, 1, 0, 1)
    assert await factories.members_of(segment) == {ids["bob"]}


async def test_another_segment_is_subtracted(segment: Segment, now: datetime) -> None:
    """S3x-08."""
    w = segment.workspace_id
    ids = await make(w, ann="premium", bob="free", cyd="free")
    await static.add_members(w, segment.id, external_ids=["ann", "bob"], now=now)
    other = await factories.make_dynamic(w, now=now)
    with pytest.raises(SegmentError) as refusal:
        await populating.subtract(w, segment.id, other_id=other.id, now=now)
    assert (refusal.value.code, refusal.value.field) == ("SEGMENT_NOT_EVALUATED", ("other_id",))
    await factories.evaluate(other, now=now)
    report = await populating.subtract(w, segment.id, other_id=other.id, now=now)
    assert report == PopulateReport(found=1, added=0, removed=1, size=1)
    assert await factories.members_of(segment) == {ids["bob"]}
    assert await factories.members_of(other) == {ids["ann"]}
    async with transaction(w) as connection:
        everybody = await everyone.segment_id(connection)
    assert (await populating.subtract(w, segment.id, other_id=everybody, now=now)).size == 0
    assert await membership.verify(w) == []


async def test_live_segments_that_name_it_follow_every_change_by_hand(segment: Segment, now: datetime) -> None:
    """Their people are told to the pulse."""
    w = segment.workspace_id
    ids = await make(w, ann="premium", bob="free")
    named = await factories.make_dynamic(w, {"inSegment": str(segment.id)}, now=now)
    await lifecycle.update(w, named.id, lifecycle.SegmentChanges(live=True), now=now)
    await factories.run_all(w, now=now)

    async def told() -> set[int]:
        async with transaction(w) as connection:
            rows = await connection.fetch("DELETE FROM profile_change RETURNING profile_ids")
        return {profile_id for row in rows for profile_id in row["profile_ids"]}

    await told()
    await static.add_members(w, segment.id, external_ids=["bob"], now=now)
    assert await told() == {ids["bob"]}
    await populate(segment, PopulateMode.REPLACE, now=now)
    assert await told() == {ids["ann"], ids["bob"]}
    await static.remove_members(w, segment.id, external_ids=["ann", "bob"], now=now)
    assert await told() == {ids["ann"]}
    await static.import_members(w, segment.id, text="external_id\nann\n", now=now + factories.DAY)
    assert await told() == {ids["ann"]}
    async with transaction(w) as connection:
        everybody = await everyone.segment_id(connection)
    await populating.subtract(w, segment.id, other_id=everybody, now=now + factories.DAY)
    assert await told() == {ids["ann"]}


async def test_only_static_segments_that_are_in_use_are_changed(workspace: UUID, now: datetime) -> None:
    dynamic, archived, other = (
        await factories.make_dynamic(workspace, now=now),
        await factories.make_static(workspace, now=now),
        await factories.make_static(workspace, now=now, name="other"),
    )
    await lifecycle.archive(workspace, archived.id, now=now)
    for id, code in ((dynamic.id, "SEGMENT_NOT_STATIC"), (archived.id, "ILLEGAL_MOVE"), (uuid4(), "NOT_FOUND")):
        for refused in (
            populating.populate(
                workspace, id, conditions.parse(PREMIUM), mode=PopulateMode.ADD, sources=SOURCES, now=now
            ),
            populating.subtract(workspace, id, other_id=other.id, now=now),
        ):
            with pytest.raises(SegmentError) as refusal:
                await refused
            assert (refusal.value.code, refusal.value.field) == (code, ("id",))
    with pytest.raises(SegmentError) as refusal:
        await populating.subtract(workspace, other.id, other_id=other.id, now=now)
    assert (refusal.value.code, refusal.value.field) == ("SAME_SEGMENT", ("other_id",))


@pytest.mark.parametrize("few", [0, 100])
async def test_the_living_of_a_brand_are_found_among_few_and_many(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(static, "FEW", few)
    ids = await make(workspace, ann=None, bob=None, cyd=None, dee=None)
    brand = await factories.make_brand(workspace, "shoes", ids["ann"], ids["bob"])
    await factories.erase(workspace, ids["bob"])
    wanted = SegmentInput(name="shoes", type=SegmentType.STATIC, brand_id=brand)
    segment = await lifecycle.create(workspace, wanted, now=now)
    async with transaction(workspace) as connection:
        assert set(await static.living(connection, segment, BitMap(ids.values()))) == {ids["ann"]}
        assert set(await static.living(connection, segment, BitMap())) == set()
