"""Segments that name segments: refused in circles, evaluated in order, and not deleted under each other."""

import asyncio
from datetime import datetime
from uuid import UUID, uuid4

import pytest

from db.transactions import transaction
from profiles.patches import ProfileInput
from segments import cycles, evaluation, everyone, lifecycle, references
from segments.errors import SegmentError
from segments.lifecycle import SegmentChanges, SegmentInput
from segments.models import Cadence, EvaluationCause, EvaluationStatus, Segment, SegmentType
from segments.sources import Sources
from tests.segments import factories
from tests.segments.beats import PickyEngine, asking, drain, upsert
from tests.segments.factories import ON_PREMIUM, PREMIUM, SOURCES, Person, run_all
from tests.segments.interrupted import AnsweringEngine, half_way, newest, request

GOLD = {"trait": {"key": "plan", "operator": "EQUALS", "value": "gold"}}
POISON = {"trait": {"key": "poison", "operator": "EXISTS"}}
SAVE_QUERY = "INSERT INTO saved_query (workspace_id, name, sql) VALUES ($1, 'mine', 'SELECT 1') RETURNING id"


def within(*segments: Segment, **more: object) -> dict[str, object]:
    """Members of all of these."""
    return {"all": [*({"inSegment": str(one.id)} for one in segments), *({name: one} for name, one in more.items())]}


async def draft(workspace: UUID, name: str, definition: object = PREMIUM, *, now: datetime, **more: object) -> Segment:
    wanted = SegmentInput(name=name, type=SegmentType.DYNAMIC, definition=definition, **more)  # type: ignore[arg-type]
    return await lifecycle.create(workspace, wanted, now=now)


async def redefine(segment: Segment, definition: object, *, now: datetime) -> Segment:
    changes = SegmentChanges(definition=definition)
    return await lifecycle.update(segment.workspace_id, segment.id, changes, now=now)


async def refusal(refused: object) -> SegmentError:
    with pytest.raises(SegmentError) as found:
        await refused  # type: ignore[misc]
    return found.value


async def status_of(segment: Segment) -> tuple[EvaluationStatus, str | None]:
    found = await newest(segment)
    return found.status, found.error_code


# --- what may be named --------------------------------------------------------------------------------------------


async def test_what_a_segment_names_is_kept_and_follows_its_definition(workspace: UUID, now: datetime) -> None:
    first, second = [await draft(workspace, name, now=now) for name in ("first", "second")]
    one = await draft(workspace, "one", within(first, second), now=now)
    assert await factories.uses(workspace, one.id, first.id) == {one.id: [first.id, second.id]}
    beside = await references.neighbours(workspace, [first.id, second.id])
    assert {asked: [each.id for each in found.used_by] for asked, found in beside.items()} == {
        first.id: [one.id],
        second.id: [one.id],
    }
    await redefine(one, {"not": within(second)}, now=now)
    assert await factories.uses(workspace, one.id) == {one.id: [second.id]}
    await redefine(one, PREMIUM, now=now)
    assert await factories.uses(workspace, one.id) == {}
    assert await references.names(workspace, [one.id, first.id]) == {one.id: "one", first.id: "first"}


async def test_what_is_not_there_is_not_named(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    foreign = await draft(other_workspace, "theirs", now=now)
    for id in (foreign.id, uuid4()):
        definition = {"any": [PREMIUM, {"not": {"inSegment": str(id)}}]}
        error = await refusal(draft(workspace, "mine", definition, now=now))
        assert (error.code, error.field) == ("NOT_FOUND", ("definition", "any", "1", "not"))
    error = await refusal(draft(workspace, "mine", {"savedQuery": str(uuid4())}, now=now))
    assert (error.code, error.field) == ("NOT_FOUND", ("definition",))
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT count(*) FROM segment WHERE type = 'DYNAMIC'") == 0


async def test_a_saved_query_that_is_named_is_remembered_and_makes_the_segment_not_live(
    workspace: UUID, now: datetime
) -> None:
    async with transaction(workspace) as connection:
        query_id = await connection.fetchval(SAVE_QUERY, workspace)
    definition = {"savedQuery": str(query_id)}
    made = await draft(workspace, "queried", definition, now=now)
    assert (made.live, made.cadence) == (False, Cadence.DAILY)
    async with transaction(workspace) as connection:
        assert [tuple(row) for row in await connection.fetch("SELECT segment_id, query_id FROM segment_query")] == [
            (made.id, query_id)
        ]
    error = await refusal(draft(workspace, "live", definition, now=now, live=True))
    assert (error.code, error.field) == ("LIVE_NOT_ALLOWED", ("live",))
    plain = await draft(workspace, "plain", now=now)
    assert plain.live
    assert not (await redefine(plain, definition, now=now)).live


async def test_brands_do_not_name_each_other(workspace: UUID, now: datetime) -> None:
    shoes, hats = [await factories.make_brand(workspace, name) for name in ("shoes", "hats")]
    of_shoes = await draft(workspace, "of shoes", now=now, brand_id=shoes)
    for_all = await draft(workspace, "for all", within(of_shoes), now=now)
    error = await refusal(draft(workspace, "of hats", within(of_shoes), now=now, brand_id=hats))
    assert (error.code, error.field) == ("OTHER_BRAND", ("definition", "all", "0"))
    await draft(workspace, "twin", within(of_shoes, for_all), now=now, brand_id=shoes)
    error = await refusal(lifecycle.update(workspace, of_shoes.id, SegmentChanges(brand_id=hats), now=now))
    assert (error.code, error.field) == ("OTHER_BRAND", ("brand_id",))


async def test_a_circle_is_refused_and_named(workspace: UUID, now: datetime) -> None:
    first = await draft(workspace, "A", now=now)
    second = await draft(workspace, "B", within(first), now=now)
    third = await draft(workspace, "C", within(second), now=now)
    error = await refusal(redefine(first, {"any": [PREMIUM, {"inSegment": str(third.id)}]}, now=now))
    assert (error.code, error.field) == ("CONDITION_CYCLE", ("definition", "any", "1"))
    assert "'A' -> 'C' -> 'B' -> 'A'" in error.message
    error = await refusal(redefine(first, within(first), now=now))
    assert "'A' -> 'A'" in error.message
    assert await factories.uses(workspace, first.id) == {}
    assert (await redefine(third, within(first, second), now=now)).definition_version == 2


async def test_two_changes_at_once_do_not_close_a_circle_together(workspace: UUID, now: datetime) -> None:
    for number in range(5):
        one, other = [await draft(workspace, f"{name}{number}", now=now) for name in "ab"]
        results = await asyncio.gather(
            redefine(one, within(other), now=now), redefine(other, within(one), now=now), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, BaseException)]
        assert [getattr(result, "code", result) for result in refused] == ["CONDITION_CYCLE"]


async def test_a_segment_that_is_named_is_not_deleted(workspace: UUID, now: datetime) -> None:
    first = await draft(workspace, "first", now=now)
    user = await draft(workspace, "user", within(first), now=now)
    error = await refusal(lifecycle.delete(workspace, first.id))
    assert (error.code, error.field) == ("SEGMENT_IN_USE", ("id",))
    assert "'user'" in error.message
    await lifecycle.delete(workspace, user.id)
    await lifecycle.delete(workspace, first.id)


async def test_deleting_and_naming_at_once_leaves_nothing_that_names_nobody(workspace: UUID, now: datetime) -> None:
    for number in range(5):
        one = await draft(workspace, f"one{number}", now=now)
        deleted, made = await asyncio.gather(
            lifecycle.delete(workspace, one.id),
            draft(workspace, f"user{number}", within(one), now=now),
            return_exceptions=True,
        )
        assert isinstance(deleted, SegmentError) != isinstance(made, SegmentError)


# --- in which order -----------------------------------------------------------------------------------------------


async def test_a_segment_is_evaluated_after_those_it_names(workspace: UUID, now: datetime) -> None:
    ada, bob, eve = await factories.make_people(
        workspace,
        Person(traits={"plan": "premium", "city": "Bern"}),
        Person(traits={"plan": "premium"}),
        Person(traits={"city": "Bern"}),
    )
    in_bern = {"trait": {"key": "city", "operator": "EQUALS", "value": "Bern"}}
    premium = await draft(workspace, "premium", now=now)
    async with transaction(workspace) as connection:
        everybody = await Segment.get(id=await everyone.segment_id(connection))
    both = await factories.make_dynamic(workspace, {"all": [in_bern, within(premium)]}, now=now, name="both")
    rest = await factories.make_dynamic(
        workspace, {"all": [within(everybody), {"not": within(both)}]}, now=now, name="rest"
    )
    await lifecycle.activate(workspace, premium.id, now=now)
    engine = AnsweringEngine()
    ended = await cycles.run(workspace, sources=Sources(engine), now=now)
    assert ended == [premium.id, both.id, rest.id]
    assert [len(leaves) for leaves in engine.questions] == [2]
    found = [await factories.members_of(one) for one in (premium, both, rest)]
    assert found == [{ada, bob}, {ada}, {bob, eve}]


async def test_one_that_was_never_evaluated_is_asked_for_first(workspace: UUID, now: datetime) -> None:
    (ada,) = await factories.make_people(workspace, ON_PREMIUM)
    first = await factories.make_dynamic(workspace, now=now, name="first")
    second = await factories.make_dynamic(workspace, within(first), now=now, name="second")
    third = await factories.make_dynamic(workspace, within(second), now=now, name="third")
    async with transaction(workspace) as connection:
        await connection.execute("DELETE FROM evaluation WHERE segment_id <> $1", third.id)
    assert set(await run_all(workspace, now=now)) == {first.id, second.id, third.id}
    assert (await newest(first)).cause is EvaluationCause.DEPENDENCY
    assert await factories.members_of(third) == {ada}


async def test_one_that_names_a_draft_fails_and_says_so(workspace: UUID, now: datetime) -> None:
    first = await draft(workspace, "first", now=now)
    second = await factories.make_dynamic(workspace, within(first), now=now, name="second")
    assert await run_all(workspace, now=now) == [second.id]
    failed = await newest(second)
    assert (failed.status, failed.error_code) == (EvaluationStatus.FAILED, "REFERENCE_NOT_EVALUATED")
    assert "'first'" in (failed.error or "")
    assert await factories.members_of(second) is None


async def test_one_whose_reference_cannot_be_evaluated_fails_and_does_not_ask_for_ever(
    workspace: UUID, now: datetime
) -> None:
    guilty = await factories.make_dynamic(workspace, POISON, now=now, name="guilty")
    second = await factories.make_dynamic(workspace, within(guilty), now=now, name="second")
    await run_all(workspace, now=now, engine=PickyEngine())
    assert await status_of(guilty) == (EvaluationStatus.FAILED, "ENGINE_REFUSED")
    assert await status_of(second) == (EvaluationStatus.FAILED, "REFERENCE_NOT_EVALUATED")
    await request(second, now)
    assert await run_all(workspace, now=now, engine=PickyEngine()) == [guilty.id, second.id]
    assert await status_of(second) == (EvaluationStatus.FAILED, "REFERENCE_NOT_EVALUATED")


async def test_one_that_fails_while_it_has_members_is_used_as_it_is(workspace: UUID, now: datetime) -> None:
    (ada,) = await factories.make_people(workspace, ON_PREMIUM)
    guilty = await factories.make_dynamic(workspace, {"any": [PREMIUM, POISON]}, now=now, name="guilty")
    await run_all(workspace, now=now)
    second = await factories.make_dynamic(workspace, within(guilty), now=now, name="second")
    await request(guilty, now)
    await cycles.run(workspace, sources=asking(PickyEngine()), now=now)
    assert await status_of(guilty) == (EvaluationStatus.FAILED, "ENGINE_REFUSED")
    assert await status_of(second) == (EvaluationStatus.SUCCEEDED, None)
    assert await factories.members_of(second) == {ada}


async def test_one_waits_while_another_worker_evaluates_what_it_names(workspace: UUID, now: datetime) -> None:
    (ada,) = await factories.make_people(workspace, ON_PREMIUM)
    first = await factories.make_dynamic(workspace, now=now, name="first")
    async with half_way(workspace):
        second = await factories.make_dynamic(workspace, within(first), now=now, name="second")
        assert await cycles.run(workspace, sources=SOURCES, now=now) is None
        assert await status_of(second) == (EvaluationStatus.QUEUED, None)
    assert await run_all(workspace, now=now) == [second.id]
    assert await factories.members_of(second) == {ada}


async def test_what_was_found_with_members_that_were_not_applied_is_found_anew(workspace: UUID, now: datetime) -> None:
    """The one that is named is redefined while both are asked: its dependent must not keep what it said before."""
    ada, gold = await factories.make_people(workspace, ON_PREMIUM, Person(traits={"plan": "gold"}))
    first = await factories.make_dynamic(workspace, now=now, name="first")
    second = await factories.make_dynamic(workspace, within(first), now=now, name="second")
    async with half_way(workspace) as half:
        await redefine(first, GOLD, now=now)
    assert await half.running == []
    assert await status_of(second) == (EvaluationStatus.QUEUED, None)
    assert await run_all(workspace, now=now) == [first.id, second.id]
    assert await factories.members_of(second) == {gold}
    assert ada not in (await factories.members_of(second) or ())


async def test_those_who_name_a_ranked_one_are_found_with_its_first_ones_only(workspace: UUID, now: datetime) -> None:
    low, high = await factories.make_people(
        workspace, Person(traits={"plan": "premium", "ltv": 1}), Person(traits={"plan": "premium", "ltv": 9})
    )
    ranking = {"by": {"trait": "ltv"}, "top": 1}
    best = await draft(workspace, "best", now=now, ranking=ranking)
    others = await draft(workspace, "others", {"all": [PREMIUM, {"not": within(best)}]}, now=now)
    for one in (best, others):
        await lifecycle.activate(workspace, one.id, now=now)
    assert set(await run_all(workspace, now=now)) == {best.id, others.id}
    assert await factories.members_of(best) == {high}
    assert await factories.members_of(others) == {low}


async def test_live_dependents_follow_a_full_evaluation(workspace: UUID, now: datetime) -> None:
    """The one that is named is not live: its members change by an evaluation, and who names it follows in the pulse."""
    (ada,) = await upsert(workspace, ProfileInput("ada", traits={"plan": "premium"}), now=now)
    first = await draft(workspace, "first", now=now, cadence=Cadence.NEVER)
    await lifecycle.activate(workspace, first.id, now=now)
    second = await factories.make_dynamic(workspace, {"not": within(first)}, now=now, name="second")
    await run_all(workspace, now=now)
    await drain(workspace, now=now)
    assert (first.live, second.live) == (False, True)
    assert await factories.members_of(second) == set()
    await upsert(workspace, ProfileInput("ada", traits={"plan": "free"}), now=now)
    await drain(workspace, now=now)
    assert await factories.members_of(first) == {ada}
    await request(first, now)
    await run_all(workspace, now=now)
    await drain(workspace, now=now)
    assert await factories.members_of(first) == set()
    assert await factories.members_of(second) == {ada}


async def test_asking_for_one_leaves_those_that_it_names_alone(workspace: UUID, now: datetime) -> None:
    """They have members; that is what counts."""
    first = await factories.make_dynamic(workspace, now=now, name="first")
    second = await factories.make_dynamic(workspace, within(first), now=now, name="second")
    await run_all(workspace, now=now)
    await request(second, now)
    assert await run_all(workspace, now=now) == [second.id]
    assert len(await evaluation.history(workspace, first.id, after=None, limit=9)) == 1
