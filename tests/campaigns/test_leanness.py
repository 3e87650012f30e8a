"""What a message costs the ledger: its row changes twice, each time within its page (docs/adr/0015)."""

from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID, uuid4

import asyncpg
import pytest

from campaigns import claims, intents, ledger, planning, runs, sending
from campaigns.carrier import EmailRun
from campaigns.intents import Intent
from campaigns.ledger import Result
from campaigns.models import Campaign, DeliveryState, Dispatch
from db.transactions import Connection, transaction
from profiles.addresses import AddressHasher
from tests.campaigns.factories import TRY_LATER, ScriptedChannel, carrier, make_campaign, make_people
from tests.conftest import Database

NAMES = [f"p{place:02}" for place in range(20)]
LEASE = timedelta(minutes=1)
# Of this connection: rows changed, and those of them that stayed in their page without an entry in any index.
CHANGED = """
SELECT pg_stat_get_xact_tuples_updated(t.place), pg_stat_get_xact_tuples_hot_updated(t.place)
FROM (SELECT DISTINCT tableoid AS place FROM delivery) AS t
"""
ENTRIES = """
SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
WHERE i.indrelid = 'delivery'::regclass AND pg_get_indexdef(i.indexrelid) !~ ' USING brin '
"""


async def changed(connection: Connection, *, since: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """By this connection since then; PostgreSQL counts on over transactions for up to a second."""
    rows, within_page = await connection.fetchrow(CHANGED)
    return rows - since[0], within_page - since[1]


async def test_content_is_compiled_once_a_process_however_many_turns_it_is_sent_in(
    workspace: UUID, now: datetime, hasher: AddressHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled_email, compiled = runs.compiled_email, list[UUID]()

    def noted(campaign: Campaign, dispatch: Dispatch) -> EmailRun:
        compiled.append(dispatch.id)
        return compiled_email(campaign, dispatch)

    monkeypatch.setattr(runs, "compiled_email", noted)
    await make_people(workspace, NAMES, hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = ScriptedChannel(lambda message: TRY_LATER)
    worker = carrier(channel)
    for _ in range(2):
        await sending.deliver(workspace, campaign.id, carrier=worker, now=now, until=monotonic() + 60)
        async with transaction(workspace) as connection:
            await connection.execute("UPDATE delivery SET not_before = now()")
    assert (len(channel.received), len(compiled)) == (2 * len(NAMES), 1)


async def test_an_ordinary_message_changes_its_row_twice_and_no_index(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, NAMES, hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await sending.prepare(workspace, campaign.id, carrier=carrier(ScriptedChannel()), now=now, until=monotonic() + 60)
    async with transaction(workspace, generic_plans=True) as connection:
        dispatch_id = await connection.fetchval("SELECT id FROM dispatch")
        ids = {"workspace_id": workspace, "dispatch_id": dispatch_id}
        claim_id = await claims.open_claim(connection, **ids, owner=uuid4(), lease=LEASE)
        before = await changed(connection)
        taken = await claims.take(connection, **ids, claim_id=claim_id, lease=LEASE, limit=100) or []
        assert await changed(connection, since=before) == (0, 0)
    ready = [Intent(one.profile_id, 0, one.fence, now, one.email_hash) for one in taken]
    async with transaction(workspace, generic_plans=True) as connection:
        before = await changed(connection)
        intended = await intents.intend(
            connection,
            intents.MAIL,
            **ids,
            campaign_id=campaign.id,
            claim_id=claim_id,
            ready=ready,
            consent_matters=True,
            test=False,
        )
        assert len(intended.leaving) == 20
        assert await changed(connection, since=before) == (20, 20)
    results = [Result(one.profile_id, 0, one.fence + 1, DeliveryState.SENT, provider_id="2.0.0 Ok") for one in taken]
    async with transaction(workspace, generic_plans=True) as connection:
        before = await changed(connection)
        assert await ledger.record(connection, **ids, claim_id=claim_id, results=results) == 20
        assert await changed(connection, since=before) == (20, 20)


async def test_no_index_of_the_ledger_names_what_changes_on_the_way_of_a_message(workspace: UUID) -> None:
    """One that did would cost each message an entry in all of them, twice."""
    async with transaction(workspace) as connection:
        found = await connection.fetch(ENTRIES)
    assert len(found) == 5
    for name, definition in found:
        for column in ("state", "claim_id", "fence", "attempt", "first_attempt_at", "sent_at", "updated_at"):
            assert column not in definition.partition(" USING ")[2], name


async def test_twins_are_found_without_going_through_all_pairs_of_rows(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """The planner knows nothing of rows that were written a moment ago, and would."""
    await make_people(workspace, NAMES, hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    async with transaction(workspace) as connection:
        dispatch_id = await connection.fetchval("SELECT id FROM dispatch")
        await planning.plan_chunk(connection, workspace_id=workspace, dispatch_id=dispatch_id)
        await connection.execute(planning.BY_HASHES)
        plan = [row[0] for row in await connection.fetch("EXPLAIN " + planning.SPARE_TWINS, dispatch_id)]
    assert any("Hash Join" in line for line in plan)
    assert not any("Nested Loop" in line or "Sort" in line for line in plan)


async def test_a_lease_is_prolonged_while_somebody_else_reads_ahead_or_writes_the_ledger(
    workspace: UUID, now: datetime, database: Database, hasher: AddressHasher
) -> None:
    """They hold the dispatch, some of them for a second; a lease could end behind one that stands still."""
    await make_people(workspace, NAMES, hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    async with transaction(workspace) as connection:
        dispatch_id = await connection.fetchval("SELECT id FROM dispatch")
        claim_id = await claims.open_claim(
            connection, workspace_id=workspace, dispatch_id=dispatch_id, owner=uuid4(), lease=LEASE
        )
    other = await asyncpg.connect(database.owner_url)
    try:
        async with other.transaction():
            await other.execute("SELECT 1 FROM dispatch WHERE id = $1 FOR NO KEY UPDATE", dispatch_id)
            async with transaction(workspace) as connection:
                await connection.execute("SET LOCAL lock_timeout = '1s'")
                assert await claims.extend_claim(connection, workspace_id=workspace, claim_id=claim_id, lease=LEASE)
                assert await connection.fetchval(sending.SHOW_LIFE, workspace, dispatch_id, timedelta(minutes=15))
    finally:
        await other.close()
