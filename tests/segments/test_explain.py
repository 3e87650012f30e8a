"""Why a person is in a segment, or is not."""

from datetime import datetime
from uuid import UUID, uuid4

import pytest

from db.transactions import transaction
from profiles import profiles
from segments import conditions, everyone, explain, lifecycle, static
from segments.errors import SegmentError, SegmentNotFound
from segments.explain import Explanation
from segments.models import Segment
from tests.segments import factories
from tests.segments.factories import DAY, PREMIUM, SOURCES, Person, bought


async def explained(segment: Segment | UUID, workspace_id: UUID, profile_id: int, *, now: datetime) -> Explanation:
    return await explain.explain(
        workspace_id,
        segment if isinstance(segment, UUID) else segment.id,
        profile=await profiles.get(workspace_id, profile_id),
        sources=SOURCES,
        now=now,
    )


TREE = {
    "all": [
        PREMIUM,
        {"not": {"event": {"name": "purchase", "count": {"operator": "LESS_THAN", "value": 2}, "within": {"days": 9}}}},
        {"any": [{"score": {"of": "ICP", "codes": ["A"], "atLeast": 60}}, {"identified": False}]},
    ]
}


async def test_every_node_is_told_with_the_value_it_looked_at(workspace: UUID, now: datetime) -> None:
    (ann,) = await factories.make_people(
        workspace,
        Person(
            traits={"plan": "premium", "icp_code": "A", "icp_score": 55},
            events=[bought(now - DAY), bought(now - 2 * DAY), bought(now - 30 * DAY)],
        ),
    )
    segment = await factories.make_dynamic(workspace, TREE, now=now)
    found = await explained(segment, workspace, ann, now=now)
    assert [(node.path, node.matches, node.value) for node in found.nodes] == [
        ((), False, None),
        (("all", "0"), True, "premium"),
        (("all", "1"), True, None),
        (("all", "1", "not"), False, {"count": 2}),
        (("all", "2"), False, None),
        (("all", "2", "any", "0"), False, {"icp_code": "A", "icp_score": 55}),
        (("all", "2", "any", "1"), False, True),
    ]
    assert conditions.to_json(found.nodes[0].condition) == TREE
    assert (found.is_member, found.entered_at, found.would_match, found.evaluated_at) == (False, None, False, now)
    assert found.reason == "The profile does not meet the conditions."


async def test_what_membership_says_is_told_beside_what_the_conditions_say(workspace: UUID, now: datetime) -> None:
    ann, bob = await factories.make_people(workspace, Person(traits={"plan": "premium"}), Person())
    segment = await factories.make_dynamic(workspace, now=now)
    waiting = await explained(segment, workspace, ann, now=now)
    assert (waiting.is_member, waiting.would_match) == (False, True)
    assert waiting.reason == "The profile meets the conditions, and enters when the segment is evaluated next."
    await factories.evaluate(segment, now=now)
    member = await explained(segment, workspace, ann, now=now)
    assert (member.is_member, member.entered_at, member.would_match) == (True, now, True)
    assert member.reason == (
        "The profile meets the conditions. It met the conditions when the segment was evaluated at "
        f"{now:%Y-%m-%d %H:%M} UTC."
    )
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE profile SET traits = '{}' WHERE id = $1", ann)
    leaving = await explained(segment, workspace, ann, now=now)
    assert (leaving.is_member, leaving.would_match) == (True, False)
    assert leaving.reason.endswith(
        "It does not meet the conditions now, and leaves when the segment is evaluated next."
    )
    await lifecycle.pause(workspace, segment.id, now=now)
    assert (await explained(segment, workspace, ann, now=now)).reason.endswith("stays while the segment is PAUSED.")
    await lifecycle.activate(workspace, segment.id, now=now)
    await factories.evaluate(segment, now=now + DAY)
    gone = await explained(segment, workspace, ann, now=now)
    assert (gone.is_member, gone.entered_at, gone.would_match) == (False, None, False)
    assert gone.reason == (
        "The profile does not meet the conditions. It did not meet the conditions any more when the segment was "
        f"evaluated at {now + DAY:%Y-%m-%d %H:%M} UTC, and left."
    )
    assert (await explained(segment, workspace, bob, now=now)).reason == "The profile does not meet the conditions."


async def test_somebody_of_another_brand_meets_the_conditions_and_is_no_member(workspace: UUID, now: datetime) -> None:
    ann, bob = await factories.make_people(workspace, *(Person(traits={"plan": "premium"}) for _ in range(2)))
    brand = await factories.make_brand(workspace, "shoes", bob)
    segment = await factories.make_dynamic(workspace, now=now, brand_id=brand)
    found = await explained(segment, workspace, ann, now=now)
    assert (found.would_match, found.nodes[0].matches) == (False, True)
    assert found.reason == "The profile meets the conditions, but is not of the segment's brand."
    assert (await explained(segment, workspace, bob, now=now)).would_match is True


async def test_of_a_list_it_is_told_how_somebody_came_and_went(workspace: UUID, now: datetime) -> None:
    (ann,) = await factories.make_people(workspace, Person(external_id="ann"))
    segment = await factories.make_static(workspace, now=now)
    never = await explained(segment, workspace, ann, now=now)
    assert (never.is_member, never.would_match, never.nodes) == (False, None, [])
    assert never.reason == "The profile was never put into this list."
    await static.add_members(workspace, segment.id, external_ids=["ann"], now=now)
    member = await explained(segment, workspace, ann, now=now)
    assert (member.is_member, member.entered_at) == (True, now)
    assert member.reason == f"It was added by hand at {now:%Y-%m-%d %H:%M} UTC."
    await static.remove_members(workspace, segment.id, external_ids=["ann"], now=now + DAY)
    assert (await explained(segment, workspace, ann, now=now)).reason == (
        f"It was taken out by hand at {now + DAY:%Y-%m-%d %H:%M} UTC, and left."
    )


async def test_everyone_has_everybody(workspace: UUID, now: datetime) -> None:
    (ann,) = await factories.make_people(workspace, Person(identified=False))
    async with transaction(workspace) as connection:
        everybody = await everyone.segment_id(connection)
    found = await explained(everybody, workspace, ann, now=now)
    assert (found.is_member, found.entered_at, found.would_match) == (True, None, None)
    assert found.reason == "Everybody is in it, anonymous visitors too."


async def test_a_merged_profile_stands_for_its_winner_and_an_erased_one_for_nobody(
    workspace: UUID, now: datetime
) -> None:
    loser, winner, gone = await factories.make_people(
        workspace, Person(), Person(traits={"plan": "premium"}), Person(traits={"plan": "premium"})
    )
    segment = await factories.make_dynamic(workspace, now=now)
    await factories.merge(workspace, loser=loser, winner=winner)
    await factories.erase(workspace, gone)
    found = await explained(segment, workspace, loser, now=now)
    assert (found.profile.id, found.would_match) == (winner, True)
    erased = await explained(segment, workspace, gone, now=now)
    assert (erased.profile.id, erased.is_member, erased.would_match, erased.nodes) == (gone, False, False, [])
    assert erased.reason == "The profile was erased, and is in no segment."


async def test_a_segment_it_names_is_shown_with_whether_the_person_is_in_it(workspace: UUID, now: datetime) -> None:
    (ann,) = await factories.make_people(workspace, Person(external_id="ann"))
    listed = await factories.make_static(workspace, now=now)
    segment = await factories.make_dynamic(workspace, {"not": {"inSegment": str(listed.id)}}, now=now)
    assert [(n.matches, n.value) for n in (await explained(segment, workspace, ann, now=now)).nodes] == [
        (True, None),
        (False, None),
    ]
    await static.add_members(workspace, listed.id, external_ids=["ann"], now=now)
    assert [n.matches for n in (await explained(segment, workspace, ann, now=now)).nodes] == [False, True]


async def test_what_cannot_be_explained_is_refused(workspace: UUID, now: datetime) -> None:
    (ann,) = await factories.make_people(workspace, Person())
    with pytest.raises(SegmentNotFound):
        await explained(uuid4(), workspace, ann, now=now)
    premium = await factories.make_dynamic(workspace, now=now, name="Premium")
    segment = await factories.make_dynamic(workspace, {"inSegment": str(premium.id)}, now=now)
    with pytest.raises(SegmentError) as refusal:
        await explained(segment, workspace, ann, now=now)
    assert refusal.value.code == "SEGMENT_NOT_EVALUATED"
    assert "'Premium'" in refusal.value.message
