"""What a message costs the ledger: its row changes twice, each time within its page (docs/adr/0015)."""

from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID, uuid4

from campaigns import claims, ledger, sending
from campaigns.ledger import Intent, Result
from campaigns.models import DeliveryState
from db.transactions import Connection, transaction
from profiles.addresses import AddressHasher
from tests.campaigns.factories import ScriptedChannel, carrier, make_campaign, make_people

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
        intended = await ledger.intend(
            connection, **ids, claim_id=claim_id, ready=ready, consent_matters=True, test=False
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
