"""What is forgotten by itself, and when."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from db.transactions import transaction

EVENT_KEYS_KEPT = timedelta(days=35)
"""So long a repeated event is recognised."""
CHANGES_KEPT = timedelta(days=1)
"""So long the word that somebody changed waits for who acts on it. The pulse deletes what it acts on; this is for
workspaces without live segments, and bounds how long workers may be away before live segments need a full evaluation.
Merges and erasures wait for ever: the pulse follows them everywhere, and no evaluation makes up for a static segment's.
"""

BATCH = 20_000
MOST_BATCHES = 50

# By a bounded list of keys: one transaction never deletes, locks and logs more than a batch.
FORGET_EVENT_KEYS = """
DELETE FROM event_key WHERE workspace_id = $1 AND message_id = ANY(ARRAY(
  SELECT message_id FROM event_key WHERE workspace_id = $1 AND received_at < $2 ORDER BY received_at LIMIT $3))
  AND received_at < $2
"""
# The first of a walk along the key are the oldest, near enough: where those are young, nothing else is looked at.
FORGET_CHANGES = """
DELETE FROM profile_change WHERE seq = ANY(ARRAY(
  SELECT first.seq FROM (
    SELECT seq, changed_at FROM profile_change
    WHERE workspace_id = $1 AND kind = 'touched' ORDER BY seq LIMIT $3) AS first
  WHERE first.changed_at < $2))
  AND workspace_id = $1
"""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Rows deleted."""

    event_keys: int
    profile_changes: int


async def forget(workspace_id: UUID, *, now: datetime) -> Forgotten:
    """Delete event keys older than 35 days, and word of changed profiles older than 1 day.

    A transaction a batch of 20,000, at most a million rows of each a call: what is left is for the next one.
    """
    return Forgotten(
        event_keys=await forget_rows(FORGET_EVENT_KEYS, workspace_id, now - EVENT_KEYS_KEPT),
        profile_changes=await forget_rows(FORGET_CHANGES, workspace_id, now - CHANGES_KEPT),
    )


async def forget_rows(statement: str, workspace_id: UUID, before: datetime) -> int:
    """Rows deleted by running `statement` until a batch is not full."""
    forgotten = 0
    for _ in range(MOST_BATCHES):
        async with transaction(workspace_id) as connection:
            status: str = await connection.execute(statement, workspace_id, before, BATCH)
        deleted = int(status.removeprefix("DELETE "))
        forgotten += deleted
        if deleted < BATCH:
            break
    return forgotten
