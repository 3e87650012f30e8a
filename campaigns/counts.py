"""How far campaigns are: counts of the ledger, always a GROUP BY, never increments (R6)."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from campaigns.models import DeliveryState
from db.transactions import Connection, transaction

# Stored counts of what is finished, a GROUP BY of what is not. Naming the dispatches keeps the GROUP BY to their
# partitions.
DISPATCHES = """
SELECT id, campaign_id, audience_size, planned_at, no_address, finished_at,
  CASE WHEN NOT dirty THEN counts END AS counts
FROM dispatch WHERE workspace_id = $1 AND campaign_id = ANY($2) AND kind = $3
"""
LIVE = """
SELECT dispatch_id, state, count(*) AS deliveries FROM delivery
WHERE workspace_id = $1 AND dispatch_id = ANY($2) GROUP BY dispatch_id, state
"""
# Locked, so that evidence which comes in between waits and marks the dispatch again.
DIRTY = """
SELECT id FROM dispatch WHERE workspace_id = $1 AND campaign_id = $2 AND dirty AND finished_at IS NOT NULL
ORDER BY id FOR NO KEY UPDATE
"""
STORE = "UPDATE dispatch SET counts = $3, dirty = false WHERE workspace_id = $1 AND id = $2"
STORED = """
SELECT id, counts FROM dispatch
WHERE workspace_id = $1 AND finished_at IS NOT NULL AND counts IS NOT NULL AND NOT dirty
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the messages of a dispatch are. `audience` = `no_address` + all states, once it is planned."""

    audience: int
    planned_at: datetime | None
    """When the ledger was fully written; until then the counts still grow, and nothing is sent."""
    no_address: int
    pending: int
    """Waiting, or claimed by a worker and not begun."""
    sending: int
    deferred: int
    sent: int
    delivered: int
    bounced: int
    complained: int
    skipped: int
    failed: int
    in_doubt: int
    finished_at: datetime | None


def progress(row: asyncpg.Record, states: dict[str, int]) -> Progress:
    """`states` are rows by state; absent ones are 0."""
    s = DeliveryState
    return Progress(
        audience=row["audience_size"],
        planned_at=row["planned_at"],
        no_address=row["no_address"],
        pending=states.get(s.PENDING, 0) + states.get(s.CLAIMED, 0),
        sending=states.get(s.SENDING, 0),
        deferred=states.get(s.DEFERRED, 0),
        sent=states.get(s.SENT, 0),
        delivered=states.get(s.DELIVERED, 0),
        bounced=states.get(s.BOUNCED, 0),
        complained=states.get(s.COMPLAINED, 0),
        skipped=states.get(s.SKIPPED, 0),
        failed=states.get(s.FAILED, 0),
        in_doubt=states.get(s.IN_DOUBT, 0),
        finished_at=row["finished_at"],
    )


async def of_campaigns(workspace_id: UUID, campaign_ids: list[UUID]) -> dict[UUID, Progress]:
    """Progress of the real sends by campaign id; campaigns never started are left out. Tests never count."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(DISPATCHES, workspace_id, campaign_ids, "SEND")
        states = await states_of(connection, workspace_id, [r["id"] for r in rows if r["counts"] is None])
    return {r["campaign_id"]: progress(r, r["counts"] or states.get(r["id"], {})) for r in rows}


async def of_tests(workspace_id: UUID, campaign_id: UUID) -> dict[UUID, Progress]:
    """Progress of a campaign's test sends by dispatch id."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(DISPATCHES, workspace_id, [campaign_id], "TEST")
        states = await states_of(connection, workspace_id, [r["id"] for r in rows if r["counts"] is None])
    return {r["id"]: progress(r, r["counts"] or states.get(r["id"], {})) for r in rows}


async def states_of(connection: Connection, workspace_id: UUID, dispatch_ids: list[UUID]) -> dict[UUID, dict[str, int]]:
    """Rows by state of each dispatch, from the ledger itself."""
    states: dict[UUID, dict[str, int]] = {}
    for row in await connection.fetch(LIVE, workspace_id, dispatch_ids) if dispatch_ids else []:
        states.setdefault(row["dispatch_id"], {})[row["state"]] = row["deliveries"]
    return states


async def recount(workspace_id: UUID, campaign_id: UUID) -> None:
    """Count finished dispatches again whose ledger changed afterwards: an outcome that came late."""
    async with transaction(workspace_id) as connection:
        dirty = [row["id"] for row in await connection.fetch(DIRTY, workspace_id, campaign_id)]
        states = await states_of(connection, workspace_id, dirty)
        for dispatch_id in dirty:
            await connection.execute(STORE, workspace_id, dispatch_id, states.get(dispatch_id, {}))


async def verify(workspace_id: UUID) -> list[str]:
    """Sentences about finished dispatches whose stored counts differ from their ledger; empty when all agree."""
    wrong: list[str] = []
    async with transaction(workspace_id) as connection:
        stored = {row["id"]: row["counts"] for row in await connection.fetch(STORED, workspace_id)}
        ledger = await states_of(connection, workspace_id, list(stored))
    for dispatch_id, counts in stored.items():
        if counts != ledger.get(dispatch_id, {}):
            wrong.append(f"dispatch {dispatch_id}: stored {counts}, ledger {ledger.get(dispatch_id, {})}")
    return wrong


OPEN_ROWS = """
SELECT count(*) FROM (
  SELECT 1 FROM delivery d WHERE d.workspace_id = $1 AND d.state = 'pending' AND d.dispatch_id IN (
    SELECT id FROM dispatch WHERE workspace_id = $1 AND campaign_id = $2 AND finished_at IS NULL)
  LIMIT $3) AS waiting
"""


async def open_rows(workspace_id: UUID, campaign_id: UUID, *, limit: int) -> int:
    """Messages of a campaign that wait to be claimed, counted up to `limit`."""
    async with transaction(workspace_id) as connection:
        rows: int = await connection.fetchval(OPEN_ROWS, workspace_id, campaign_id, limit)
    return rows
