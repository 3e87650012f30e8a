"""How many people conditions would find, before anything is saved."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from profiles import profiles
from profiles.addresses import AddressHasher, Channel
from profiles.patches import ProfileInput
from segments import conditions, estimate
from segments.errors import SegmentError
from segments.estimate import Estimate
from segments.nodes import Condition
from tests.conftest import Database
from tests.segments import factories
from tests.segments.factories import DAY, PREMIUM, SOURCES, Person, bought

# Queries of this test's database that wait for a lock.
UNDER_WAY = """
SELECT query FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active' AND wait_event_type = 'Lock'
"""


async def count(
    workspace_id: UUID,
    definition: object,
    *,
    hasher: AddressHasher,
    now: datetime,
    brand_id: UUID | None = None,
    topic: str = "marketing",
    limit: timedelta = timedelta(seconds=60),
) -> Estimate:
    condition: Condition = conditions.parse(definition, field=("definition",))
    return await estimate.estimate(
        workspace_id,
        condition,
        brand_id=brand_id,
        topic=topic,
        sources=SOURCES,
        hasher=hasher,
        now=now,
        limit=limit,
    )


BOUGHT = {"event": {"name": "purchase", "within": {"days": 7}}}


async def test_every_node_of_the_tree_has_its_size(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    await factories.make_people(
        workspace,
        Person(traits={"plan": "premium"}, events=[bought(now - DAY)]),
        Person(traits={"plan": "premium"}),
        Person(traits={"plan": "free"}, events=[bought(now - DAY)]),
        Person(traits={"plan": "free"}),
        Person(traits={"plan": "premium"}, erased_at=now),
    )
    definition = {"all": [PREMIUM, {"not": {"any": [BOUGHT, {"identified": False}]}}]}
    found = await count(workspace, definition, hasher=hasher, now=now)
    assert (found.size, found.evaluated_at) == (1, now)
    assert [(node.path, node.size) for node in found.nodes] == [
        ((), 1),
        (("all", "0"), 2),
        (("all", "1"), 2),
        (("all", "1", "not"), 2),
        (("all", "1", "not", "any", "0"), 2),
        (("all", "1", "not", "any", "1"), 0),
    ]
    assert [conditions.to_json(node.condition) for node in found.nodes[1:3]] == [
        PREMIUM,
        {"not": {"any": [BOUGHT, {"identified": False}]}},
    ]


async def test_those_who_can_be_written_to_are_counted_by_channel(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    await profiles.upsert(
        workspace,
        [
            ProfileInput(external_id="ada", email="ada@example.com", traits={"plan": "premium"}),
            ProfileInput(external_id="bob", email="bob@example.com", traits={"plan": "free"}),
            ProfileInput(external_id="cyd", traits={"plan": "premium"}),
        ],
        hasher=hasher,
        now=now,
    )
    found = await count(workspace, PREMIUM, hasher=hasher, now=now)
    assert (found.size, found.reachable) == (2, {Channel.EMAIL: 1, Channel.PUSH: 0})


async def test_an_estimate_is_of_a_brand_when_one_is_given(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    ids = await factories.make_people(workspace, *(Person(traits={"plan": "premium"}) for _ in range(3)))
    brand = await factories.make_brand(workspace, "shoes", ids[0])
    assert (await count(workspace, PREMIUM, hasher=hasher, now=now, brand_id=brand)).size == 1
    with pytest.raises(SegmentError) as refusal:
        await count(workspace, PREMIUM, hasher=hasher, now=now, brand_id=uuid4())
    assert (refusal.value.code, refusal.value.field) == ("NOT_FOUND", ("brand_id",))


async def test_segments_that_are_named_are_taken_as_they_are_now(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    await factories.make_people(workspace, Person(traits={"plan": "premium"}), Person())
    segment = await factories.make_dynamic(workspace, now=now, name="Premium")
    definition = {"not": {"inSegment": str(segment.id)}}
    with pytest.raises(SegmentError) as refusal:
        await count(workspace, definition, hasher=hasher, now=now)
    assert (refusal.value.code, refusal.value.field) == ("SEGMENT_NOT_EVALUATED", ("definition", "not"))
    assert "'Premium' was never evaluated" in refusal.value.message
    await factories.evaluate(segment, now=now)
    assert (await count(workspace, definition, hasher=hasher, now=now)).size == 1
    with pytest.raises(SegmentError) as refusal:
        await count(workspace, {"inSegment": str(uuid4())}, hasher=hasher, now=now)
    assert (refusal.value.code, refusal.value.field) == ("NOT_FOUND", ("definition",))


async def test_an_estimate_that_takes_too_long_is_stopped_in_the_database_too(
    database: Database, workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    holder, watcher = [await asyncpg.connect(database.owner_url) for _ in range(2)]
    try:
        async with holder.transaction():
            # Whoever reads events waits for this, and would for ever.
            await holder.execute("LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
            asked = asyncio.create_task(count(workspace, BOUGHT, hasher=hasher, now=now, limit=timedelta(seconds=2)))
            seen: list[asyncpg.Record] = []
            while not seen and not asked.done():
                seen = await watcher.fetch(UNDER_WAY)
            with pytest.raises(SegmentError) as refusal:
                await asked
            assert seen != []
            assert await watcher.fetch(UNDER_WAY) == []
    finally:
        await holder.close()
        await watcher.close()
    assert refusal.value.code == "ESTIMATE_TOO_SLOW"
    assert "longer than 2 s" in refusal.value.message


async def test_what_is_no_topic_is_refused(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    with pytest.raises(SegmentError) as refusal:
        await count(workspace, PREMIUM, hasher=hasher, now=now, topic=" ")
    assert (refusal.value.code, refusal.value.field) == ("BLANK", ("topic",))
