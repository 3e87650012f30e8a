"""Segments as their owners handle them."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pyroaring import BitMap

from campaigns.listing import names_using
from db.transactions import transaction
from segments import evaluation, everyone, lifecycle, listing, membership
from segments.errors import SegmentError, SegmentNotFound
from segments.lifecycle import SegmentChanges, SegmentInput, SimpleConditions
from segments.limits import Limits
from segments.models import BuilderMode, Cadence, EvaluationCause, Segment, SegmentStatus, SegmentType
from segments.nodes import MatchMode
from tests.segments import factories
from tests.segments.factories import DAY, ON_PREMIUM, PREMIUM, Person

ANY_PREMIUM = SimpleConditions(MatchMode.ANY, [PREMIUM])
BY_VALUE = {"by": {"trait": "ltv"}, "direction": "DESC", "top": 10}
GOLD = {"trait": {"key": "plan", "operator": "EQUALS", "value": "gold"}}


def dynamic(**parts: Any) -> SegmentInput:
    return SegmentInput(**({"name": "premium", "type": SegmentType.DYNAMIC, "definition": PREMIUM} | parts))


def static(**parts: Any) -> SegmentInput:
    return SegmentInput(**({"name": "curated", "type": SegmentType.STATIC} | parts))


async def count(workspace_id: UUID) -> int:
    async with transaction(workspace_id):
        return await Segment.filter(workspace_id=workspace_id).count()


async def open_cause(segment: Segment) -> EvaluationCause | None:
    waiting = await evaluation.find_open(segment.workspace_id, segment.id)
    return waiting.cause if waiting else None


async def test_a_new_segment_is_a_draft_that_nothing_evaluates(workspace: UUID, now: datetime) -> None:
    """S1-01, S0-24."""
    made = await lifecycle.create(
        workspace, dynamic(name="  Premium  ", description=" who pays ", cadence=Cadence.DAILY, time_zone="Asia/Tokyo"),
        now=now,
    )  # fmt: skip
    assert (made.name, made.description, made.type, made.status) == (
        "Premium", "who pays", SegmentType.DYNAMIC, SegmentStatus.DRAFT,
    )  # fmt: skip
    assert (made.definition, made.definition_version) == (PREMIUM, 1)
    assert (made.cadence, made.cron, made.time_zone, made.next_run_at) == (Cadence.DAILY, None, "Asia/Tokyo", None)
    assert (made.created_at, made.updated_at) == (now, now)
    assert await open_cause(made) is None
    assert await factories.members_of(made) is None


async def test_a_static_segment_has_its_size_from_the_start(workspace: UUID, now: datetime) -> None:
    """S3-01, S2-25."""
    made = await lifecycle.create(workspace, static(), now=now)
    assert await factories.members_of(made) == set()
    assert (await listing.sizes(workspace, [made.id]))[made.id].size == 0
    assert await membership.verify(workspace) == []


@pytest.mark.parametrize(
    ("wanted", "code", "field"),
    [
        (dynamic(name=" "), "BLANK", ("name",)),
        (dynamic(name="n" * 201), "TOO_LONG", ("name",)),
        (dynamic(name="a\0b"), "UNSTORABLE_TEXT", ("name",)),
        (dynamic(description="d" * 2001), "TOO_LONG", ("description",)),
        (dynamic(description="\ud800"), "UNSTORABLE_TEXT", ("description",)),
        (dynamic(type=SegmentType.EVERYONE), "SEGMENT_IS_BUILT_IN", ("type",)),
        (dynamic(definition=None), "DEFINITION_REQUIRED", ("definition",)),
        (dynamic(definition={"all": []}), "INVALID_VALUE", ("definition", "all")),
        (static(definition=PREMIUM), "DEFINITION_NOT_ALLOWED", ("definition",)),
        (static(cadence=Cadence.DAILY), "CADENCE_NOT_ALLOWED", ("cadence",)),
        (static(live=True), "LIVE_NOT_ALLOWED", ("live",)),
        (static(ranking=BY_VALUE), "RANKING_NOT_ALLOWED", ("ranking",)),
        (static(conditions=ANY_PREMIUM), "DEFINITION_NOT_ALLOWED", ("conditions",)),
        (dynamic(conditions=ANY_PREMIUM), "CONDITIONS_TWICE", ("conditions",)),
        (
            dynamic(definition=None, conditions=SimpleConditions(MatchMode.ALL, [PREMIUM] * 11)),
            "TOO_MANY_CONDITIONS",
            ("conditions", "conditions", "10"),
        ),
        (dynamic(ranking={"by": {"trait": ""}}), "INVALID_VALUE", ("ranking", "by", "trait")),
        (dynamic(change_guard=0), "INVALID_VALUE", ("change_guard",)),
        (dynamic(change_guard=101), "INVALID_VALUE", ("change_guard",)),
        (dynamic(cadence=Cadence.CRON), "CRON_REQUIRED", ("cron",)),
        (dynamic(cadence=Cadence.CRON, cron="61 * * * *"), "INVALID_CRON", ("cron",)),
        (dynamic(cadence=Cadence.DAILY, cron="0 0 * * *"), "CRON_NOT_ALLOWED", ("cron",)),
        (dynamic(time_zone="Mars/Olympus"), "UNKNOWN_TIME_ZONE", ("time_zone",)),
        (dynamic(time_zone="../etc/passwd"), "UNKNOWN_TIME_ZONE", ("time_zone",)),
        (dynamic(brand_id=uuid4()), "NOT_FOUND", ("brand_id",)),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_written(
    workspace: UUID, now: datetime, wanted: SegmentInput, code: str, field: tuple[str, ...]
) -> None:
    with pytest.raises(SegmentError) as refusal:
        await lifecycle.create(workspace, wanted, now=now)
    assert (refusal.value.code, refusal.value.field) == (code, field)
    assert await count(workspace) == 1  # EVERYONE


async def test_another_tenants_brand_is_no_brand(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    foreign = await factories.make_brand(other_workspace, "theirs")
    with pytest.raises(SegmentError) as refusal:
        await lifecycle.create(workspace, dynamic(brand_id=foreign), now=now)
    assert refusal.value.code == "NOT_FOUND"


async def test_the_limit_holds_for_many_creators_at_once(workspace: UUID, now: datetime) -> None:
    """S2-22."""
    results = await asyncio.gather(
        *(lifecycle.create(workspace, static(name=str(n)), now=now, most=3) for n in range(6)), return_exceptions=True
    )
    refused = [one.code for one in results if isinstance(one, SegmentError)]
    assert refused == ["TOO_MANY_SEGMENTS"] * 3
    made = [one for one in results if isinstance(one, Segment)]
    await lifecycle.archive(workspace, made[0].id, now=now)
    await lifecycle.create(workspace, static(name="in its place"), now=now, most=3)
    with pytest.raises(SegmentError) as refusal:
        await lifecycle.unpublish(workspace, made[0].id, now=now, most=3)
    assert refusal.value.code == "TOO_MANY_SEGMENTS"


async def test_the_hundred_and_first_segment_is_refused(workspace: UUID, now: datetime) -> None:
    """S2-22."""
    async with transaction(workspace) as connection:
        await connection.execute(
            "INSERT INTO segment (workspace_id, name, type, status)"
            " SELECT $1, n::text, 'STATIC', 'DRAFT' FROM generate_series(1, 99) AS n",
            workspace,
        )
    await lifecycle.create(workspace, static(name="the hundredth"), now=now)
    with pytest.raises(SegmentError) as refusal:
        await lifecycle.create(workspace, static(), now=now)
    assert refusal.value.code == "TOO_MANY_SEGMENTS"


async def test_activating_schedules_and_evaluates(workspace: UUID, now: datetime) -> None:
    """S2-26, S0-22."""
    made = await lifecycle.create(workspace, dynamic(cadence=Cadence.DAILY), now=now)
    active = await lifecycle.activate(workspace, made.id, now=now)
    assert active.status is SegmentStatus.ACTIVE
    assert active.next_run_at is not None
    assert now < active.next_run_at <= now + DAY + timedelta(hours=1)
    assert await open_cause(made) is EvaluationCause.ACTIVATION


async def test_activating_a_static_segment_evaluates_nothing(workspace: UUID, now: datetime) -> None:
    made = await lifecycle.create(workspace, static(), now=now)
    active = await lifecycle.activate(workspace, made.id, now=now)
    assert (active.status, active.next_run_at) == (SegmentStatus.ACTIVE, None)
    assert await open_cause(made) is None


async def test_pausing_keeps_the_members_and_ends_what_waits(workspace: UUID, now: datetime) -> None:
    """S0-23, S2-26, S2-27."""
    ids = await factories.make_people(workspace, ON_PREMIUM)
    segment = await factories.make_dynamic(workspace, now=now)
    await factories.evaluate(segment, now=now)
    await evaluation.request(workspace, segment.id, cause=EvaluationCause.REQUEST, now=now)
    paused = await lifecycle.pause(workspace, segment.id, now=now)
    assert (paused.status, paused.definition, paused.next_run_at) == (SegmentStatus.PAUSED, PREMIUM, None)
    assert await open_cause(segment) is None
    assert await factories.members_of(segment) == set(ids)
    assert (await lifecycle.activate(workspace, segment.id, now=now)).status is SegmentStatus.ACTIVE


async def test_moves_that_are_not_legal_are_refused_and_the_others_are_not(workspace: UUID, now: datetime) -> None:
    """S0-25, S3x-10."""
    verbs = {
        SegmentStatus.ACTIVE: lifecycle.activate,
        SegmentStatus.PAUSED: lifecycle.pause,
        SegmentStatus.DRAFT: lifecycle.unpublish,
        SegmentStatus.ARCHIVED: lifecycle.archive,
    }
    segment = await lifecycle.create(workspace, dynamic(), now=now)
    for status in SegmentStatus:
        for to, verb in verbs.items():
            async with transaction(workspace) as connection:
                await connection.execute("UPDATE segment SET status = $2 WHERE id = $1", segment.id, status.value)
            if to in lifecycle.MOVES[status]:
                assert (await verb(workspace, segment.id, now=now)).status is to
            else:
                with pytest.raises(SegmentError) as refusal:
                    await verb(workspace, segment.id, now=now)
                assert refusal.value.code == "ILLEGAL_MOVE"
                assert (await listing.get(workspace, segment.id)).status is status


async def test_a_change_leaves_what_was_not_given(workspace: UUID, now: datetime) -> None:
    """S2-24."""
    before = await lifecycle.create(
        workspace, dynamic(description="old", cadence=Cadence.CRON, cron="0 6 * * *"), now=now
    )
    after = await lifecycle.update(workspace, before.id, SegmentChanges(name="new"), now=now + DAY)
    assert (after.name, after.description, after.definition_version) == ("new", "old", 1)
    assert (after.cadence, after.cron, after.updated_at) == (Cadence.CRON, "0 6 * * *", now + DAY)
    with pytest.raises(SegmentError) as refusal:
        await lifecycle.update(workspace, before.id, SegmentChanges(definition=None), now=now)
    assert refusal.value.code == "DEFINITION_REQUIRED"


async def test_a_new_cadence_moves_the_next_run(workspace: UUID, now: datetime) -> None:
    """S1-09."""
    segment = await factories.make_dynamic(workspace, now=now)

    async def next_run_after(**changes: Any) -> datetime | None:
        changed = await lifecycle.update(workspace, segment.id, SegmentChanges(**changes), now=now)
        return changed.next_run_at

    hourly = await next_run_after(cadence=Cadence.HOURLY)
    yearly = await next_run_after(cadence=Cadence.YEARLY)
    assert hourly is not None
    assert yearly is not None
    assert hourly <= now + timedelta(hours=2)
    assert yearly.year == now.year + 1
    cron = await next_run_after(cadence=Cadence.CRON, cron=f"{now.minute} {now.hour} * * *")
    assert cron is not None
    assert cron > now
    assert await next_run_after(cadence=Cadence.NEVER) is None
    assert (await listing.get(workspace, segment.id)).cron is None
    assert (await listing.get(workspace, segment.id)).definition_version == 1


async def test_new_conditions_are_a_new_version_and_evaluated_when_active(workspace: UUID, now: datetime) -> None:
    draft = await lifecycle.create(workspace, dynamic(), now=now)
    changed = await lifecycle.update(workspace, draft.id, SegmentChanges(definition=GOLD), now=now)
    assert (changed.definition, changed.definition_version) == (GOLD, 2)
    assert await open_cause(draft) is None

    active = await factories.make_dynamic(workspace, now=now)
    await factories.evaluate(active, now=now)
    same = await lifecycle.update(workspace, active.id, SegmentChanges(definition=PREMIUM), now=now)
    assert same.definition_version == 1
    assert await open_cause(active) is None
    await lifecycle.update(workspace, active.id, SegmentChanges(definition=GOLD), now=now)
    assert await open_cause(active) is EvaluationCause.DEFINITION


async def test_true_instead_of_one_is_a_new_condition(workspace: UUID, now: datetime) -> None:
    one, true = ({"trait": {"key": "vip", "operator": "EQUALS", "value": value}} for value in (1, True))
    draft = await lifecycle.create(workspace, dynamic(definition=one), now=now)
    changed = await lifecycle.update(workspace, draft.id, SegmentChanges(definition=true), now=now)
    assert changed.definition_version == 2


async def test_another_brand_is_another_audience(workspace: UUID, now: datetime) -> None:
    """S1-02."""
    inside, outside = await factories.make_people(
        workspace, Person(external_id="inside"), Person(external_id="outside")
    )
    brand = await factories.make_brand(workspace, "shoes", inside)
    for_brand = SegmentChanges(brand_id=brand)
    segment = await factories.make_dynamic(workspace, now=now)
    await factories.evaluate(segment, now=now)
    assert (await lifecycle.update(workspace, segment.id, for_brand, now=now)).definition_version == 2
    assert await open_cause(segment) is EvaluationCause.DEFINITION

    curated = await factories.make_static(workspace, now=now)
    async with transaction(workspace) as connection:
        await membership.apply(
            connection,
            workspace_id=workspace,
            segment_id=curated.id,
            members=BitMap([inside, outside]),
            reason="test",
            now=now,
        )
    await lifecycle.update(workspace, curated.id, for_brand, now=now)
    assert await factories.members_of(curated) == {inside}
    assert (await lifecycle.update(workspace, curated.id, SegmentChanges(brand_id=None), now=now)).brand_id is None


async def test_a_dynamic_segment_is_live_and_evaluated_daily_unless_somebody_wants_otherwise(
    workspace: UUID, now: datetime
) -> None:
    """S1-03: NEVER means once."""
    made = [
        await lifecycle.create(workspace, wanted, now=now)
        for wanted in (
            dynamic(),
            dynamic(live=False),
            dynamic(cadence=Cadence.NEVER),
            dynamic(cadence=Cadence.NEVER, live=True),
            static(),
        )
    ]
    assert [(one.live, one.cadence) for one in made] == [
        (True, Cadence.DAILY),
        (False, Cadence.DAILY),
        (False, Cadence.NEVER),
        (True, Cadence.NEVER),
        (False, Cadence.NEVER),
    ]
    assert {one.change_guard for one in made} == {50}


async def test_live_goes_with_a_cadence_that_becomes_never_unless_it_is_said(workspace: UUID, now: datetime) -> None:
    one = await lifecycle.create(workspace, dynamic(), now=now)

    async def live_after(**changes: Any) -> bool:
        return (await lifecycle.update(workspace, one.id, SegmentChanges(**changes), now=now)).live

    assert not await live_after(cadence=Cadence.NEVER)
    assert await live_after(cadence=Cadence.HOURLY)
    assert not await live_after(live=False)
    assert not await live_after(cadence=Cadence.WEEKLY)
    assert await live_after(live=None)
    assert await live_after(cadence=Cadence.NEVER, live=True)


async def test_a_segment_that_becomes_live_is_evaluated_at_once(workspace: UUID, now: datetime) -> None:
    """Nobody followed what happened before."""
    segment = await factories.make_dynamic(workspace, now=now)
    await lifecycle.update(workspace, segment.id, SegmentChanges(live=False), now=now)
    await factories.evaluate(segment, now=now)
    assert await open_cause(segment) is None
    changed = await lifecycle.update(workspace, segment.id, SegmentChanges(live=True), now=now)
    assert (changed.definition_version, await open_cause(segment)) == (1, EvaluationCause.DEFINITION)


async def test_the_simple_builder_and_the_nested_one_write_the_same(workspace: UUID, now: datetime) -> None:
    simple = dynamic(definition=None, conditions=SimpleConditions(MatchMode.ALL, [PREMIUM, {"not": GOLD}]))
    made = await lifecycle.create(workspace, simple, now=now)
    assert (made.mode, made.definition) == (BuilderMode.SIMPLE, {"all": [PREMIUM, {"not": GOLD}]})
    renamed = await lifecycle.update(workspace, made.id, SegmentChanges(name="other"), now=now)
    assert (renamed.mode, renamed.definition_version) == (BuilderMode.SIMPLE, 1)
    nested = await lifecycle.update(workspace, made.id, SegmentChanges(definition=GOLD), now=now)
    assert (nested.mode, nested.definition, nested.definition_version) == (BuilderMode.NESTED, GOLD, 2)
    again = await lifecycle.update(workspace, made.id, SegmentChanges(conditions=ANY_PREMIUM), now=now)
    assert (again.mode, again.definition) == (BuilderMode.SIMPLE, {"any": [PREMIUM]})


async def test_conditions_of_before_are_kept_when_limits_become_narrower(workspace: UUID, now: datetime) -> None:
    deep = {"all": [{"any": [PREMIUM, GOLD]}]}
    narrow = Limits(depth=2, leaves=2)
    made = await lifecycle.create(workspace, dynamic(definition=deep), now=now)
    renamed = await lifecycle.update(workspace, made.id, SegmentChanges(name="other"), now=now, limits=narrow)
    assert renamed.definition == deep
    for refused in (
        lifecycle.create(workspace, dynamic(definition=deep), now=now, limits=narrow),
        lifecycle.update(workspace, made.id, SegmentChanges(definition=deep), now=now, limits=narrow),
    ):
        with pytest.raises(SegmentError) as refusal:
            await refused
        assert refusal.value.code == "TOO_DEEP"


async def test_another_order_is_another_definition(workspace: UUID, now: datetime) -> None:
    low, high = await factories.make_people(
        workspace, *(Person(traits={"plan": "premium", "ltv": value}) for value in (1, 9))
    )
    segment = await factories.make_dynamic(workspace, now=now)
    await factories.evaluate(segment, now=now)

    async def with_ranking(ranking: object) -> Segment:
        changed = await lifecycle.update(workspace, segment.id, SegmentChanges(ranking=ranking), now=now)
        assert await open_cause(segment) is EvaluationCause.DEFINITION
        await factories.run_all(workspace, now=now)
        return changed

    first = {"by": {"trait": "ltv"}, "top": 1}
    assert (await with_ranking(first)).definition_version == 2
    assert await factories.members_of(segment) == {high}
    assert (await with_ranking(first | {"direction": "ASC"})).definition_version == 3
    assert await factories.members_of(segment) == {low}
    plain = await with_ranking(None)
    assert (plain.definition_version, plain.ranking) == (4, None)
    assert await factories.members_of(segment) == {low, high}
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT count(*) FROM segment_rank") == 0
    assert await membership.verify(workspace) == []


async def test_a_draft_can_be_paused_and_is_not_evaluated_for_it(workspace: UUID, now: datetime) -> None:
    """S0-25: any of draft, live and paused can become any other."""
    made = await lifecycle.create(workspace, dynamic(), now=now)
    paused = await lifecycle.pause(workspace, made.id, now=now)
    assert (paused.status, paused.next_run_at) == (SegmentStatus.PAUSED, None)
    assert await open_cause(made) is None
    assert (await lifecycle.activate(workspace, made.id, now=now)).status is SegmentStatus.ACTIVE


async def test_an_archived_segment_is_not_changed(workspace: UUID, now: datetime) -> None:
    segment = await lifecycle.create(workspace, dynamic(), now=now)
    await lifecycle.archive(workspace, segment.id, now=now)
    with pytest.raises(SegmentError) as refusal:
        await lifecycle.update(workspace, segment.id, SegmentChanges(name="new"), now=now)
    assert refusal.value.code == "ILLEGAL_MOVE"


async def test_a_duplicate_is_a_draft_with_the_same_members_or_conditions(workspace: UUID, now: datetime) -> None:
    (id,) = await factories.make_people(workspace, ON_PREMIUM)
    named = await lifecycle.create(workspace, dynamic(name="named"), now=now)
    wanted = dynamic(
        definition=None,
        conditions=SimpleConditions(MatchMode.ALL, [PREMIUM, {"inSegment": str(named.id)}]),
        cadence=Cadence.CRON,
        cron="0 6 * * *",
        time_zone="Asia/Tokyo",
        live=False,
        change_guard=None,
        ranking=BY_VALUE,
    )
    original = await lifecycle.create(workspace, wanted, now=now)
    await lifecycle.activate(workspace, original.id, now=now)
    copy = await lifecycle.duplicate(workspace, original.id, now=now)
    assert (copy.name, copy.status, copy.definition) == ("Copy of premium", SegmentStatus.DRAFT, original.definition)
    assert (copy.cadence, copy.cron, copy.time_zone, copy.next_run_at) == (
        Cadence.CRON,
        "0 6 * * *",
        "Asia/Tokyo",
        None,
    )
    assert (copy.mode, copy.live, copy.change_guard, copy.ranking) == (BuilderMode.SIMPLE, False, None, BY_VALUE)
    assert await factories.uses(workspace, copy.id) == {copy.id: [named.id]}

    curated = await factories.make_static(workspace, now=now, name="n" * 200)
    async with transaction(workspace) as connection:
        await membership.alter(
            connection,
            workspace_id=workspace,
            segment_id=curated.id,
            enter=BitMap([id]),
            reason="test",
            now=now,
        )
    twin = await lifecycle.duplicate(workspace, curated.id, now=now)
    assert (len(twin.name), await factories.members_of(twin)) == (200, {id})
    assert await membership.verify(workspace) == []


async def test_deleting_leaves_nothing_behind(workspace: UUID, now: datetime) -> None:
    await factories.make_people(workspace, Person(traits={"plan": "premium", "ltv": 1}))
    segment = await factories.make_dynamic(workspace, now=now)
    await lifecycle.update(workspace, segment.id, SegmentChanges(ranking={"by": {"trait": "ltv"}, "top": 1}), now=now)
    await factories.evaluate(segment, now=now)
    tables = ("evaluation", "segment_membership", "membership", "membership_change", "segment_rank")

    async def filled() -> set[str]:
        async with transaction(workspace) as connection:
            return {one for one in tables if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {one})")}

    assert await filled() == set(tables)
    await lifecycle.delete(workspace, segment.id)
    assert await filled() == set()
    with pytest.raises(SegmentNotFound):
        await lifecycle.delete(workspace, segment.id)


async def test_a_segment_that_a_campaign_names_is_not_deleted(workspace: UUID, now: datetime) -> None:
    """S3-04."""
    (id,) = await factories.make_people(workspace, ON_PREMIUM)
    segment = await factories.make_dynamic(workspace, now=now)
    await factories.evaluate(segment, now=now)
    async with transaction(workspace) as connection:
        campaign_id = await connection.fetchval(
            "INSERT INTO campaign (workspace_id, name, channel, status, content)"
            " VALUES ($1, 'spring', 'EMAIL', 'DRAFT', '{}') RETURNING id",
            workspace,
        )
        await connection.execute(
            "INSERT INTO campaign_segment (workspace_id, campaign_id, segment_id, excluded) VALUES ($1, $2, $3, true)",
            workspace,
            campaign_id,
            segment.id,
        )
    with pytest.raises(SegmentError) as refusal:
        await lifecycle.delete(workspace, segment.id, used_by=names_using)
    assert (refusal.value.code, refusal.value.field) == ("SEGMENT_IN_USE", ("id",))
    assert "'spring'" in refusal.value.message
    with pytest.raises(SegmentError) as refusal:
        await lifecycle.delete(workspace, segment.id)  # nobody asked: the foreign key speaks
    assert (refusal.value.code, refusal.value.field) == ("SEGMENT_IN_USE", ("id",))
    assert await factories.members_of(segment) == {id}
    assert await membership.verify(workspace) == []


async def test_everyone_is_neither_changed_nor_deleted(workspace: UUID, now: datetime) -> None:
    """S3-03."""
    async with transaction(workspace) as connection:
        id = await everyone.segment_id(connection)
    for refused in (
        lifecycle.update(workspace, id, SegmentChanges(name="mine"), now=now),
        lifecycle.pause(workspace, id, now=now),
        lifecycle.archive(workspace, id, now=now),
        lifecycle.duplicate(workspace, id, now=now),
        lifecycle.delete(workspace, id),
    ):
        with pytest.raises(SegmentError) as refusal:
            await refused
        assert refusal.value.code == "SEGMENT_IS_BUILT_IN"


async def test_another_tenants_segment_is_not_there(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    segment = await factories.make_dynamic(workspace, now=now)
    for refused in (
        lifecycle.update(other_workspace, segment.id, SegmentChanges(name="mine"), now=now),
        lifecycle.pause(other_workspace, segment.id, now=now),
        lifecycle.duplicate(other_workspace, segment.id, now=now),
        lifecycle.delete(other_workspace, segment.id),
        listing.get(other_workspace, segment.id),
    ):
        with pytest.raises(SegmentNotFound):
            await refused
