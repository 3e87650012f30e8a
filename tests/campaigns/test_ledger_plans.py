"""Plans that are made once and kept: the messages of a group are looked up by their keys and compared by hashes,
however small the ledger was when the plan was made (docs/adr/0015)."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from campaigns import claims, intents, ledger, planning, push_intents, push_planning, sending
from campaigns.intents import Intent, LastLook
from campaigns.ledger import Result
from campaigns.models import DeliveryState
from db.transactions import transaction
from profiles.addresses import AddressHasher
from tests.campaigns.factories import ScriptedChannel, carrier, make_campaign, make_people
from tests.campaigns.push_factories import (
    ScriptedProvider,
    make_devices,
    make_push_campaign,
    push_carrier,
    set_credential,
)
from tests.conftest import Database

T = TypeVar("T")

FILL = """
INSERT INTO delivery (workspace_id, dispatch_id, profile_id, device_id, state)
SELECT $1, $2, n, n, 'pending' FROM generate_series($3::int, $4::int) AS n
"""
INTEND_TAKES = "uuid, uuid, bigint, int[], bigint[], int[], bool, bool, timestamptz[], bytea[], text[], uuid"
STATEMENTS = {
    "recording": (ledger.RECORD_SENT, "uuid, bigint, int[], bigint[], int[], text[], text[]"),
    "intending_mail": (intents.INTEND, INTEND_TAKES),
    "intending_pushes": (push_intents.INTEND, INTEND_TAKES),
}
BY_KEY = re.compile(r"\(\(dispatch_id = \$\d+\) AND \(profile_id = ANY \(\$\d+\)\)\)")


async def test_messages_are_looked_up_by_key_by_plans_that_were_made_for_a_small_ledger(
    workspace: UUID, now: datetime, database: Database
) -> None:
    """Read by the dispatch alone, a million messages would be compared with each group: 4.5 s for 450 of 8,000."""
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    async with transaction(workspace) as connection:
        dispatch_id = await connection.fetchval("SELECT id FROM dispatch")
    written = 0
    for rows in (0, 100, 8_000):
        async with transaction(workspace) as connection:
            await connection.execute(FILL, workspace, dispatch_id, written + 1, rows)
        written = rows
        await assert_plans_are_by_key(workspace)
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute("ANALYZE delivery, profile")
    await owner.close()
    await assert_plans_are_by_key(workspace)


async def assert_plans_are_by_key(workspace: UUID) -> None:
    """One look into the ledger by dispatch and the group's profiles, and no loop around it or in it."""
    async with transaction(workspace, generic_plans=True) as connection:
        for name, (statement, takes) in STATEMENTS.items():
            await connection.execute(f"PREPARE {name} ({takes}) AS {statement}")
            nulls = ", ".join(["NULL"] * len(takes.split(", ")))
            explained = await connection.fetchval(f"EXPLAIN (COSTS OFF, FORMAT JSON) EXECUTE {name} ({nulls})")
            await connection.execute(f"DEALLOCATE {name}")
            [one] = orjson.loads(explained)
            changing = one["Plan"]
            by_hash = next(below for below in changing["Plans"] if below.get("Parent Relationship") == "Outer")
            while by_hash["Node Type"] in ("Result", "Subquery Scan"):
                by_hash = next(below for below in by_hash["Plans"] if below["Parent Relationship"] == "Outer")
            assert by_hash["Node Type"] == "Hash Join", (name, changing)
            found = [
                (node["Node Type"], BY_KEY.fullmatch(node.get("Index Cond", "")) is not None)
                for node in nodes_of(by_hash)
                if node.get("Relation Name", "").startswith("delivery_")
            ]
            assert found == [("Index Scan", True)], (name, changing)


MAKE_PEOPLE = """
INSERT INTO profile (workspace_id, email_hash, merged_into)
SELECT $1, int4send(n), CASE WHEN n % 5 = 0 THEN n - 1 END FROM generate_series(1, 30000) AS n
"""


async def test_people_of_a_chunk_are_looked_up_by_id_by_plans_that_were_made_without_statistics(
    workspace: UUID, database: Database
) -> None:
    """A plan that looked for the merged among everybody of the workspace took 9 s a chunk, not 0.5."""
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute(MAKE_PEOPLE, workspace)
    await owner.close()
    async with transaction(workspace, generic_plans=True) as connection:
        for channel, statement in {"mail": planning.PLAN, "push": push_planning.PLAN}.items():
            await connection.execute(f"PREPARE {channel} (uuid, int[], text, bool, uuid) AS {statement}")
            nulls = ", ".join(["NULL"] * 5)
            explained = await connection.fetchval(f"EXPLAIN (COSTS OFF, FORMAT JSON) EXECUTE {channel} ({nulls})")
            [one] = orjson.loads(explained)
            found = [node["Index Cond"] for node in nodes_of(one["Plan"]) if node.get("Relation Name") == "profile"]
            by_id = [condition.partition(" AND ")[2] for condition in found]
            assert by_id == ["(id = ANY ($2)))", "(id = frozen_1.merged_into))"], (channel, found)


def nodes_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan's nodes, itself first."""
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes_of(part))]


WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE '%update delivery%'"
LEAVES = "UPDATE delivery SET state = 'sending', claim_id = $2, fence = 1 WHERE dispatch_id = $1"
STATES = "SELECT state, provider_id FROM delivery ORDER BY profile_id"


@asynccontextmanager
async def waited_for(
    database: Database, change: str, work: Callable[[], Awaitable[T]]
) -> AsyncIterator[asyncio.Task[T]]:
    """`work` under way, which has found a row that `change` changes meanwhile, and waits until that is committed."""
    owner = await asyncpg.connect(database.owner_url)
    watcher = await asyncpg.connect(database.owner_url)
    try:
        async with owner.transaction():
            await owner.execute(change)
            working = asyncio.ensure_future(work())
            async with asyncio.timeout(60):
                while not await watcher.fetchval(WAITS):
                    pass
        yield working
    finally:
        await owner.close()
        await watcher.close()


async def test_an_outcome_is_written_though_its_row_moves_while_it_waits_for_it(
    workspace: UUID, now: datetime, database: Database
) -> None:
    """The sweeper parks the row, or an erasure changes it, after the outcome has found its place."""
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    async with transaction(workspace) as connection:
        dispatch_id = await connection.fetchval("SELECT id FROM dispatch")
        ids = {"workspace_id": workspace, "dispatch_id": dispatch_id}
        await connection.execute(FILL, workspace, dispatch_id, 1, 2)
        claim_id = await claims.open_claim(connection, **ids, owner=uuid4(), lease=timedelta(minutes=1))
        await connection.execute(LEAVES, dispatch_id, claim_id)
    results = [Result(n, n, 1, DeliveryState.SENT, provider_id=f"m{n}") for n in (1, 2)]

    async def record() -> int:
        async with transaction(workspace, generic_plans=True) as connection:
            return await ledger.record(connection, **ids, claim_id=claim_id, results=results)

    parked = "UPDATE delivery SET state = 'in_doubt', updated_at = now() WHERE profile_id = 1"
    async with waited_for(database, parked, record) as recording:
        assert await recording == 2
    async with transaction(workspace) as connection:
        assert [tuple(row) for row in await connection.fetch(STATES)] == [("sent", "m1"), ("sent", "m2")]


MOVES = "UPDATE delivery SET updated_at = now() WHERE profile_id = (SELECT min(profile_id) FROM delivery)"
ANOTHER_HAS_IT = """
UPDATE delivery SET state = 'sending', fence = fence + 1 WHERE profile_id = (SELECT min(profile_id) FROM delivery)
"""
AFTERWARDS = "SELECT state, fence, attempt FROM delivery ORDER BY profile_id"


@pytest.mark.parametrize("look", [intents.MAIL, push_intents.PUSH], ids=["mail", "push"])
@pytest.mark.parametrize(("change", "first"), [(MOVES, ("sending", 1, 1)), (ANOTHER_HAS_IT, ("sending", 1, 0))])
async def test_a_message_whose_row_moves_while_its_intent_waits_leaves_once(
    workspace: UUID,
    now: datetime,
    hasher: AddressHasher,
    database: Database,
    look: LastLook,
    change: str,
    first: tuple[str, int, int],
) -> None:
    """The intent has found its place already. What another worker intends meanwhile is that worker's alone."""
    await make_people(workspace, ["ada", "bob"], hasher=hasher, now=now)
    if look is push_intents.PUSH:
        await make_devices(workspace, ["ada", "bob"], now=now)
        await set_credential(workspace, now=now)
        campaign = await make_push_campaign(workspace, now=now)
        using = push_carrier(ScriptedProvider(), hasher)
    else:
        campaign = await make_campaign(workspace, now=now)
        using = carrier(ScriptedChannel())
    await sending.start(workspace, campaign.id, now=now)
    assert await sending.prepare(workspace, campaign.id, carrier=using, now=now, until=monotonic() + 60)
    lease = timedelta(minutes=1)
    async with transaction(workspace) as connection:
        ids = {"workspace_id": workspace, "dispatch_id": await connection.fetchval("SELECT id FROM dispatch")}
        claim_id = await claims.open_claim(connection, **ids, owner=uuid4(), lease=lease)
        taken = await claims.take(connection, **ids, claim_id=claim_id, lease=lease, limit=9) or []
    ready = [Intent(one.profile_id, one.device_id, one.fence, now, one.email_hash) for one in taken]
    keys = [(one.profile_id, one.device_id) for one in taken]

    async def intend() -> intents.Intended:
        async with transaction(workspace, generic_plans=True) as connection:
            return await intents.intend(
                connection,
                look,
                **ids,
                campaign_id=campaign.id,
                claim_id=claim_id,
                ready=ready,
                consent_matters=True,
                test=False,
            )

    async with waited_for(database, change, intend) as intending:
        intended = await intending
    ours = keys if change == MOVES else keys[1:]
    assert (intended.leaving, intended.waiting) == (frozenset(ours), frozenset(keys) - frozenset(ours))
    async with transaction(workspace) as connection:
        assert [tuple(row) for row in await connection.fetch(AFTERWARDS)] == [first, ("sending", 1, 1)]
