"""The pulse: who enters and leaves live segments, and when."""

from datetime import datetime
from uuid import UUID

from db.transactions import transaction
from profiles import brands
from profiles.profiles import ProfileInput
from segments import lifecycle
from segments.lifecycle import SegmentChanges, SegmentInput
from segments.models import Segment, SegmentType
from segments.pulse import Beat
from tests.segments.beats import (
    BOUGHT,
    DAY,
    HOUR,
    MINUTE,
    NEVER_BOUGHT,
    ON_PREMIUM,
    SECOND,
    beat,
    clock,
    drain,
    erase,
    evaluated,
    event,
    in_segment,
    merge,
    named,
    rows,
    settled,
    static_with,
    status_of_newest,
    track,
    trait,
    upsert,
    waiting,
)
from tests.segments.factories import PREMIUM, intervals_of, make_dynamic, members_of, run_all

# --- what moves people --------------------------------------------------------------------------------------------


async def test_an_event_lets_its_person_into_one_segment_and_out_of_another(workspace: UUID, now: datetime) -> None:
    [ann, bob] = await named(workspace, "ann", "bob", now=now)
    buyers = await make_dynamic(workspace, BOUGHT, now=now, name="buyers")
    others = await make_dynamic(workspace, NEVER_BOUGHT, now=now, name="others")
    await settled(workspace, now=now)
    await track(workspace, "purchase", "ann", at=now + SECOND)
    done = await beat(workspace, now=now + 2 * SECOND)
    assert done == Beat(evaluated=1, entered=1, exited=1, reranked=0, more=False)
    assert (await members_of(buyers), await members_of(others)) == ({ann}, {bob})
    assert await intervals_of(buyers) == [(ann, True, "pulse", None)]
    assert await intervals_of(others) == [(ann, False, "evaluation", "pulse"), (bob, True, "evaluation", None)]
    assert await waiting(workspace) == []


async def test_people_leave_and_enter_when_a_window_moves_over_their_event(workspace: UUID, now: datetime) -> None:
    """An event ages out, and in, with no new event."""
    [ann, bob] = await named(workspace, "ann", "bob", now=now)
    await track(workspace, "purchase", "ann", at=now - 30 * DAY + 10 * MINUTE, now=now)
    await track(workspace, "purchase", "bob", at=now - 30 * DAY + 20 * MINUTE, now=now)
    within = await make_dynamic(workspace, BOUGHT, now=now, name="within")
    before = await make_dynamic(workspace, event(before={"days": 30}), now=now, name="before")
    await settled(workspace, now=now)
    assert (await members_of(within), await members_of(before)) == ({ann, bob}, set())
    assert await beat(workspace, now=now + 9 * MINUTE) == Beat()
    assert await beat(workspace, now=now + 11 * MINUTE) == Beat(evaluated=1, entered=1, exited=1)
    assert (await members_of(within), await members_of(before)) == ({bob}, {ann})
    assert await beat(workspace, now=now + 21 * MINUTE) == Beat(evaluated=1, entered=1, exited=1)
    assert (await members_of(within), await members_of(before)) == (set(), {ann, bob})


async def test_an_event_ahead_of_the_clock_counts_when_its_time_comes(workspace: UUID, now: datetime) -> None:
    [ann] = await named(workspace, "ann", now=now)
    buyers = await make_dynamic(workspace, BOUGHT, now=now)
    await settled(workspace, now=now)
    await track(workspace, "purchase", "ann", at=now + 10 * MINUTE, now=now + SECOND)
    assert await beat(workspace, now=now + MINUTE) == Beat(evaluated=1)
    assert await members_of(buyers) == set()
    assert await beat(workspace, now=now + 11 * MINUTE) == Beat(evaluated=1, entered=1)
    assert await members_of(buyers) == {ann}


async def test_people_move_when_time_comes_over_a_date_of_theirs(workspace: UUID, now: datetime) -> None:
    """A trait that is a date, in both directions; a renewal that is still to come as well as a trial that began."""
    began = (now - 14 * DAY + 10 * MINUTE).isoformat()
    due = (now + 10 * MINUTE).isoformat()
    [ann] = await upsert(workspace, ProfileInput("ann", traits={"trial": began, "renewal": due}), now=now)
    fresh = await make_dynamic(workspace, trait("trial", "WITHIN_LAST", {"days": 14}), now=now, name="fresh")
    old = await make_dynamic(workspace, trait("trial", "MORE_THAN_AGO", {"days": 14}), now=now, name="old")
    renewed = await make_dynamic(workspace, trait("renewal", "WITHIN_LAST", {"days": 1}), now=now, name="renewed")
    await settled(workspace, now=now)
    segments = (fresh, old, renewed)
    assert [await members_of(one) for one in segments] == [{ann}, set(), set()]
    assert await beat(workspace, now=now + 9 * MINUTE) == Beat()
    assert await beat(workspace, now=now + 11 * MINUTE) == Beat(evaluated=1, entered=2, exited=1)
    assert [await members_of(one) for one in segments] == [set(), {ann}, {ann}]


async def test_people_move_when_they_were_last_seen_too_long_ago(workspace: UUID, now: datetime) -> None:
    [ann] = await named(workspace, "ann", now=now)
    await track(workspace, "login", "ann", at=now - 7 * DAY + 10 * MINUTE, now=now)
    active = await make_dynamic(workspace, {"lastSeen": {"within": {"days": 7}}}, now=now, name="active")
    lapsed = await make_dynamic(workspace, {"lastSeen": {"before": {"days": 7}}}, now=now, name="lapsed")
    await settled(workspace, now=now)
    assert (await members_of(active), await members_of(lapsed)) == ({ann}, set())
    assert await beat(workspace, now=now + 11 * MINUTE) == Beat(evaluated=1, entered=1, exited=1)
    assert (await members_of(active), await members_of(lapsed)) == (set(), {ann})
    await track(workspace, "login", "ann", at=now + 12 * MINUTE)
    assert await beat(workspace, now=now + 13 * MINUTE) == Beat(evaluated=1, entered=1, exited=1)
    assert (await members_of(active), await members_of(lapsed)) == ({ann}, set())


async def test_a_changed_trait_moves_its_person(workspace: UUID, now: datetime) -> None:
    [ann, bob] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), ProfileInput("bob"), now=now)
    premium = await make_dynamic(workspace, PREMIUM, now=now)
    await settled(workspace, now=now)
    assert await members_of(premium) == {ann}
    basic, upgraded = ProfileInput("ann", traits={"plan": "basic"}), ProfileInput("bob", traits=ON_PREMIUM)
    await upsert(workspace, basic, upgraded, now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=2, entered=1, exited=1)
    assert await members_of(premium) == {bob}


async def test_somebody_who_comes_to_a_brand_enters_its_segments(workspace: UUID, now: datetime) -> None:
    brand = await brands.create(workspace, "North")
    [_, bob] = await upsert(
        workspace, ProfileInput("ann", traits=ON_PREMIUM), ProfileInput("bob", traits=ON_PREMIUM), now=now
    )
    northern = await make_dynamic(workspace, PREMIUM, now=now, brand_id=brand.id)
    await settled(workspace, now=now)
    assert await members_of(northern) == set()
    await upsert(workspace, ProfileInput("bob", brand_ids=[brand.id]), now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=1, entered=1)
    assert await members_of(northern) == {bob}


async def test_a_new_anonymous_visitor_enters_at_once(workspace: UUID, now: datetime) -> None:
    unknown = await make_dynamic(workspace, {"identified": True}, now=now)
    await settled(workspace, now=now)
    [ann] = await named(workspace, "ann", now=now + SECOND)
    await beat(workspace, now=now + 2 * SECOND)
    assert await members_of(unknown) == {ann}


# --- who is left alone --------------------------------------------------------------------------------------------


async def test_segments_that_are_not_live_paused_drafts_or_held_are_left_alone(workspace: UUID, now: datetime) -> None:
    still = await make_dynamic(workspace, PREMIUM, now=now, name="not live")
    paused = await make_dynamic(workspace, PREMIUM, now=now, name="paused")
    held = await make_dynamic(workspace, PREMIUM, now=now, name="held")
    live = await make_dynamic(workspace, PREMIUM, now=now, name="live")
    await lifecycle.update(workspace, still.id, SegmentChanges(live=False), now=now)
    await run_all(workspace, now=now)
    await lifecycle.pause(workspace, paused.id, now=now)
    await status_of_newest(held, "HELD")
    draft = await lifecycle.unpublish(workspace, (await make_dynamic(workspace, now=now, name="draft")).id, now=now)
    await drain(workspace, now=now)
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=1, entered=1)
    assert await members_of(live) == {ann}
    assert [await members_of(one) for one in (still, paused, held, draft)] == [set(), set(), set(), None]


async def test_a_segment_that_was_never_evaluated_waits_for_its_evaluation(workspace: UUID, now: datetime) -> None:
    """Its people still count as evaluated, so that an evaluation under way asks for them again."""
    first = await make_dynamic(workspace, PREMIUM, now=now)
    await drain(workspace, now=now)
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=1)
    assert (await members_of(first), await evaluated(workspace)) == (None, [{ann}])


async def test_changes_of_a_workspace_without_live_segments_wait(workspace: UUID, now: datetime) -> None:
    """They are forgotten after a while, unless a segment becomes live before."""
    [ann] = await named(workspace, "ann", now=now)
    assert await beat(workspace, now=now) == Beat()
    assert await waiting(workspace) == [("touched", ann)]


async def test_a_beat_with_nothing_to_do_moves_the_clock_alone(workspace: UUID, now: datetime) -> None:
    await make_dynamic(workspace, BOUGHT, now=now)
    await settled(workspace, now=now)
    assert await beat(workspace, now=now + SECOND) == Beat()
    assert (await clock(workspace), await evaluated(workspace)) == (now + SECOND, [])


async def test_a_clock_that_is_set_back_follows_no_time_twice(workspace: UUID, now: datetime) -> None:
    await make_dynamic(workspace, BOUGHT, now=now)
    await settled(workspace, now=now)
    assert await beat(workspace, now=now - HOUR) == Beat()
    assert await clock(workspace) == now


# --- segments that name others ------------------------------------------------------------------------------------


async def test_segments_that_name_others_follow_in_the_same_beat(workspace: UUID, now: datetime) -> None:
    premium = await make_dynamic(workspace, PREMIUM, now=now, name="premium")
    rest = await make_dynamic(workspace, {"not": in_segment(premium)}, now=now, name="rest")
    of_rest = await make_dynamic(workspace, {"all": [in_segment(rest), {"identified": True}]}, now=now, name="again")
    [ann] = await named(workspace, "ann", now=now)
    await settled(workspace, now=now)
    assert [await members_of(one) for one in (premium, rest, of_rest)] == [set(), {ann}, {ann}]
    await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=1, entered=1, exited=2)
    assert [await members_of(one) for one in (premium, rest, of_rest)] == [{ann}, set(), set()]


async def test_everyone_and_segments_that_stand_still_are_named_by_their_members(
    workspace: UUID, now: datetime
) -> None:
    [ann, _] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), ProfileInput("bob"), now=now)
    paused = await make_dynamic(workspace, PREMIUM, now=now, name="paused")
    await run_all(workspace, now=now)
    await lifecycle.pause(workspace, paused.id, now=now)
    [(everyone,)] = await rows(workspace, "SELECT id FROM segment WHERE workspace_id = $1 AND type = 'EVERYONE'")
    named_by = {"all": [{"inSegment": str(everyone)}, in_segment(paused), trait("vip", "EQUALS", True)]}
    vips = await make_dynamic(workspace, named_by, now=now, name="vips")
    await settled(workspace, now=now)
    vip = {"vip": True}
    await upsert(workspace, ProfileInput("ann", traits=vip), ProfileInput("bob", traits=vip), now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=2, entered=1)
    assert await members_of(vips) == {ann}


# --- merged and erased --------------------------------------------------------------------------------------------


async def test_a_merge_moves_memberships(workspace: UUID, now: datetime) -> None:
    """Conditions are asked about the winner again; in a static segment the winner takes the loser's place."""
    [loser, winner] = await upsert(
        workspace, ProfileInput("loser", traits=ON_PREMIUM), ProfileInput("winner", traits={"plan": "basic"}), now=now
    )
    await track(workspace, "purchase", "loser", at=now)
    buyers = await make_dynamic(workspace, BOUGHT, now=now, name="buyers")
    premium = await make_dynamic(workspace, PREMIUM, now=now, name="premium")
    curated = await static_with(workspace, loser, now=now)
    in_curated = await make_dynamic(workspace, in_segment(curated), now=now, name="in curated")
    await settled(workspace, now=now)
    segments = (buyers, premium, curated, in_curated)
    assert [await members_of(one) for one in segments] == [{loser}, {loser}, {loser}, {loser}]
    await merge(workspace, loser=loser, winner=winner, now=now + SECOND)
    await beat(workspace, now=now + 2 * SECOND)
    assert [await members_of(one) for one in segments] == [{winner}, set(), {winner}, {winner}]
    assert await intervals_of(curated) == [(loser, False, "added", "merged"), (winner, True, "merged", None)]
    assert await waiting(workspace) == []


async def test_members_follow_merges_and_erasures_without_any_live_segment(workspace: UUID, now: datetime) -> None:
    [loser, winner, gone] = await named(workspace, "loser", "winner", "gone", now=now)
    curated = await static_with(workspace, loser, gone, now=now)
    both = await static_with(workspace, loser, winner, now=now, name="both")
    await merge(workspace, loser=loser, winner=winner, now=now + SECOND)
    await erase(workspace, gone, now=now + SECOND)
    async with transaction(workspace) as connection:
        assert await connection.fetch("SELECT * FROM live_workspaces()") == [(workspace,)]
    done = await beat(workspace, now=now + 2 * SECOND)
    assert (done.entered, done.exited, done.more) == (1, 3, False)
    assert (await members_of(curated), await members_of(both)) == ({winner}, {winner})
    assert [kind for kind, _ in await waiting(workspace)] == ["touched"] * 4
    async with transaction(workspace) as connection:
        assert await connection.fetch("SELECT * FROM live_workspaces()") == []


async def test_somebody_who_is_erased_leaves_every_segment(workspace: UUID, now: datetime) -> None:
    [ann] = await upsert(workspace, ProfileInput("ann", traits=ON_PREMIUM), now=now)
    live = await make_dynamic(workspace, PREMIUM, now=now, name="live")
    paused = await make_dynamic(workspace, PREMIUM, now=now, name="paused")
    curated = await static_with(workspace, ann, now=now)
    await settled(workspace, now=now)
    await lifecycle.pause(workspace, paused.id, now=now)
    await erase(workspace, ann, now=now + SECOND)
    await beat(workspace, now=now + 2 * SECOND)
    assert [await members_of(one) for one in (live, paused, curated)] == [set(), set(), set()]


async def test_the_winner_of_a_merge_keeps_the_losers_place_in_a_ranked_segment_that_stands_still(
    workspace: UUID, now: datetime
) -> None:
    [loser, winner] = await upsert(
        workspace, ProfileInput("loser", traits={"value": 7}), ProfileInput("winner"), now=now
    )
    ranked = await make_ranked(workspace, now=now, top=10)
    await settled(workspace, now=now)
    await lifecycle.pause(workspace, ranked.id, now=now)
    await merge(workspace, loser=loser, winner=winner, now=now + SECOND)
    await beat(workspace, now=now + 2 * SECOND)
    assert await members_of(ranked) == {winner}
    assert await ranks_in(ranked) == {winner: 7.0}


# --- ranking ------------------------------------------------------------------------------------------------------


async def make_ranked(workspace: UUID, *, now: datetime, top: int | None, name: str = "ranked") -> Segment:
    """Whoever has a value, the highest first."""
    wanted = SegmentInput(
        name=name,
        type=SegmentType.DYNAMIC,
        definition=trait("value", "EXISTS"),
        ranking={"by": {"trait": "value"}, **({} if top is None else {"top": top})},
    )
    segment = await lifecycle.create(workspace, wanted, now=now)
    return await lifecycle.activate(workspace, segment.id, now=now)


async def ranks_in(segment: Segment) -> dict[int, float]:
    query = "SELECT profile_id, order_value FROM segment_rank WHERE workspace_id = $1 AND segment_id = $2"
    return dict(await rows(segment.workspace_id, query, segment.id))


def worth(external_id: str, value: int) -> ProfileInput:
    return ProfileInput(external_id, traits={"value": value})


async def test_a_changed_value_cuts_a_ranked_segment_anew(workspace: UUID, now: datetime) -> None:
    """Who comes up enters, and who is pushed out leaves, though nothing happened to him."""
    [ann, bob, cas] = await upsert(workspace, worth("ann", 30), worth("bob", 20), worth("cas", 10), now=now)
    best = await make_ranked(workspace, now=now, top=2)
    await settled(workspace, now=now)
    assert await members_of(best) == {ann, bob}
    await upsert(workspace, worth("cas", 25), now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=2, entered=1, exited=1)
    assert await members_of(best) == {ann, cas}
    await upsert(workspace, worth("cas", 40), now=now + 3 * SECOND)
    assert await beat(workspace, now=now + 4 * SECOND) == Beat(evaluated=1, reranked=1)
    await upsert(workspace, ProfileInput("cas", traits={"value": None}), now=now + 5 * SECOND)
    await beat(workspace, now=now + 6 * SECOND)
    assert await members_of(best) == {ann, bob}
    assert await ranks_in(best) == {ann: 30.0, bob: 20.0}


async def test_segments_that_name_a_capped_one_follow_its_cut_in_the_same_beat(workspace: UUID, now: datetime) -> None:
    [ann, bob] = await upsert(workspace, worth("ann", 30), worth("bob", 20), now=now)
    best = await make_ranked(workspace, now=now, top=1)
    await run_all(workspace, now=now)
    rest = await make_dynamic(workspace, {"not": in_segment(best)}, now=now, name="rest")
    await settled(workspace, now=now)
    assert (await members_of(best), await members_of(rest)) == ({ann}, {bob})
    await upsert(workspace, worth("bob", 40), now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=2, entered=2, exited=2)
    assert (await members_of(best), await members_of(rest)) == ({bob}, {ann})


async def test_values_of_events_that_age_out_are_ranked_anew(workspace: UUID, now: datetime) -> None:
    [ann, bob] = await named(workspace, "ann", "bob", now=now)
    await track(workspace, "purchase", "ann", "ann", at=now - DAY + 10 * MINUTE, now=now)
    await track(workspace, "purchase", "bob", at=now)
    wanted = SegmentInput(
        name="busiest",
        type=SegmentType.DYNAMIC,
        definition={"identified": True},
        ranking={"by": {"events": {"name": "purchase", "measure": "COUNT", "within": {"days": 1}}}, "top": 1},
    )
    busiest = await lifecycle.create(workspace, wanted, now=now)
    await lifecycle.activate(workspace, busiest.id, now=now)
    await settled(workspace, now=now)
    assert await members_of(busiest) == {ann}
    await beat(workspace, now=now + 11 * MINUTE)
    assert await members_of(busiest) == {bob}


async def test_a_new_ranking_waits_for_its_evaluation(workspace: UUID, now: datetime) -> None:
    """Before that nobody has a rank, and a cut would leave nobody."""
    [ann] = await upsert(workspace, worth("ann", 30), now=now)
    segment = await make_ranked(workspace, now=now, top=None)
    await settled(workspace, now=now)
    order = {"by": {"lastSeen": True}, "top": 1}
    await lifecycle.update(workspace, segment.id, SegmentChanges(ranking=order), now=now)
    await upsert(workspace, worth("bob", 20), now=now + SECOND)
    assert await beat(workspace, now=now + 2 * SECOND) == Beat(evaluated=1)
    assert await members_of(segment) == {ann}
