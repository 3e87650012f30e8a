"""Static segments: who is put in, taken out, and read from a file."""

from datetime import datetime
from uuid import UUID, uuid4

import pytest

from segments import lifecycle, memberfile, membership, static
from segments.errors import SegmentError, SegmentNotFound
from segments.lifecycle import SegmentInput
from segments.memberfile import Reject
from segments.models import Segment, SegmentType
from segments.static import ImportReport, MembersReport
from tests.segments import factories
from tests.segments.factories import Person


@pytest.fixture
async def segment(workspace: UUID, now: datetime) -> Segment:
    return await factories.make_static(workspace, now=now)


async def named(workspace_id: UUID, *names: str) -> dict[str, int]:
    ids = await factories.make_people(workspace_id, *(Person(external_id=name) for name in names))
    return dict(zip(names, ids, strict=True))


async def import_text(segment: Segment, text: str, *, now: datetime) -> ImportReport:
    return await static.import_members(segment.workspace_id, segment.id, text=text, now=now)


async def test_people_are_put_in_and_taken_out_by_external_id(segment: Segment, now: datetime) -> None:
    """S3-01, S4-05."""
    ids = await named(segment.workspace_id, "ann", "bob", "cyd")
    w, s = segment.workspace_id, segment.id
    put_in = await static.add_members(w, s, external_ids=["ann", "bob", "nobody", "ann"], now=now)
    assert put_in == MembersReport(changed=2, unchanged=1, unknown=["nobody"], size=2)
    again = await static.add_members(w, s, external_ids=["bob", "cyd"], now=now)
    assert again == MembersReport(changed=1, unchanged=1, unknown=[], size=3)
    out = await static.remove_members(w, s, external_ids=["ann", "cyd", "nobody", "cyd"], now=now)
    assert out == MembersReport(changed=2, unchanged=1, unknown=["nobody"], size=1)
    assert await static.remove_members(w, s, external_ids=["ann"], now=now) == MembersReport(0, 1, [], 1)
    assert await factories.members_of(segment) == {ids["bob"]}
    assert await factories.intervals_of(segment) == [
        (ids["ann"], False, "added", "removed"),
        (ids["bob"], True, "added", None),
        (ids["cyd"], False, "added", "removed"),
    ]
    assert await membership.verify(w) == []


async def test_the_dead_and_foreign_are_unknown_and_the_merged_stand_for_their_winner(
    segment: Segment, other_workspace: UUID, now: datetime
) -> None:
    ids = await named(segment.workspace_id, "winner", "loser", "erased")
    await named(other_workspace, "foreign")
    await factories.merge(segment.workspace_id, loser=ids["loser"], winner=ids["winner"])
    await factories.erase(segment.workspace_id, ids["erased"])
    report = await static.add_members(
        segment.workspace_id, segment.id, external_ids=["loser", "erased", "foreign", "a\0b", ""], now=now
    )
    assert report == MembersReport(changed=1, unchanged=0, unknown=["erased", "foreign", "a\0b", ""], size=1)
    assert await factories.members_of(segment) == {ids["winner"]}


async def test_a_brands_segment_takes_that_brands_people(workspace: UUID, now: datetime) -> None:
    """S1-02."""
    ids = await named(workspace, "customer", "stranger")
    brand = await factories.make_brand(workspace, "shoes", ids["customer"])
    wanted = SegmentInput(name="shoes", type=SegmentType.STATIC, brand_id=brand)
    segment = await lifecycle.create(workspace, wanted, now=now)
    report = await static.add_members(workspace, segment.id, external_ids=["customer", "stranger"], now=now)
    assert (report.changed, report.unknown) == (1, ["stranger"])


async def test_only_static_segments_that_are_in_use_take_members(workspace: UUID, now: datetime) -> None:
    dynamic, archived = (
        await factories.make_dynamic(workspace, now=now),
        await factories.make_static(workspace, now=now),
    )
    await lifecycle.archive(workspace, archived.id, now=now)
    for id, code in ((dynamic.id, "SEGMENT_NOT_STATIC"), (archived.id, "ILLEGAL_MOVE"), (uuid4(), "NOT_FOUND")):
        for refused in (
            static.add_members(workspace, id, external_ids=["x"], now=now),
            static.remove_members(workspace, id, external_ids=["x"], now=now),
            static.import_members(workspace, id, text="external_id\nx\n", now=now),
        ):
            with pytest.raises(SegmentError) as refusal:
                await refused
            assert refusal.value.code == code


async def test_too_many_at_once_are_refused(segment: Segment, now: datetime) -> None:
    many = [str(n) for n in range(static.MOST_IDS + 1)]
    with pytest.raises(SegmentError) as refusal:
        await static.add_members(segment.workspace_id, segment.id, external_ids=many, now=now)
    assert (refusal.value.code, refusal.value.field) == ("TOO_MANY_ITEMS", ("external_ids",))


async def test_a_file_lets_in_whom_it_names_and_rejects_the_rest_by_line(segment: Segment, now: datetime) -> None:
    """S1-12, S4-11."""
    ids = await named(segment.workspace_id, "ann", "bob", "cyd,jr")
    text = (
        "\ufeffname, external_id \r\nAnn,ann\r\n\r\nNobody,nobody\r\nBob,\r\nBob\r\n"
        '"two\r\nlines",bob\r\nAnn,ann\r\nCyd,"cyd,jr"\r\n'
    )
    unknown = "Nobody has this external id, or nobody of the segment's brand; upsert the profile first."
    assert await import_text(segment, text, now=now) == ImportReport(
        rows=7,
        added=3,
        unchanged=1,
        rejects=[
            Reject(4, "nobody", "UNKNOWN_PROFILE", unknown),
            Reject(5, "", "EMPTY", "Has no external id; fill it in."),
            Reject(6, "", "TOO_FEW_COLUMNS", "Has 1 columns; the external id is in column 2."),
        ],
        size=3,
    )
    again = await import_text(segment, text, now=now)
    assert (again.added, again.unchanged, again.size) == (0, 4, 3)
    assert await factories.members_of(segment) == set(ids.values())
    assert await membership.verify(segment.workspace_id) == []


@pytest.mark.parametrize(
    "text", ["", "\n", "name,email\nann,a@b.c\n", 'external_id\nann\n"bob\n', 'external_id\n"ann"x\n', "\0\n"]
)
async def test_a_file_that_is_no_csv_lets_nobody_in(segment: Segment, now: datetime, text: str) -> None:
    await named(segment.workspace_id, "ann", "bob")
    with pytest.raises(SegmentError) as refusal:
        await import_text(segment, text, now=now)
    assert (refusal.value.code, refusal.value.field) == ("INVALID_CSV", ("text",))
    assert await factories.members_of(segment) == set()


async def test_values_that_no_database_can_hold_are_rejects(segment: Segment, now: datetime) -> None:
    report = await import_text(segment, "external_id\na\0b\n\ud800\n", now=now)
    assert [one.code for one in report.rejects] == ["UNKNOWN_PROFILE", "UNKNOWN_PROFILE"]


async def test_a_file_that_is_too_long_is_refused(
    segment: Segment, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memberfile, "MOST_ROWS", 2)
    with pytest.raises(SegmentError) as refusal:
        await import_text(segment, "external_id\na\nb\nc\n", now=now)
    assert refusal.value.code == "TOO_MANY_ITEMS"


async def test_a_segment_that_is_not_there_is_told(workspace: UUID, now: datetime) -> None:
    with pytest.raises(SegmentNotFound):
        await static.add_members(workspace, uuid4(), external_ids=[], now=now)
