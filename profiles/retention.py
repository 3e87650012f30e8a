"""What is forgotten by itself, and when."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from db.transactions import transaction
from profiles.requests import KEPT as REQUESTS_KEPT

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
FORGET_REQUESTS = """
DELETE FROM request r USING (
  SELECT actor, key, place FROM request WHERE workspace_id = $1 AND done_at <= $2 ORDER BY done_at LIMIT $3) AS old
WHERE r.workspace_id = $1 AND r.actor = old.actor AND r.key = old.key AND r.place = old.place AND r.done_at <= $2
"""
# Along the key, whose ids grow with time: again only the first are looked at.
FORGET_AUDIT = """
DELETE FROM audit_entry WHERE workspace_id = $1 AND id = ANY(ARRAY(
  SELECT first.id FROM (SELECT id, at FROM audit_entry WHERE workspace_id = $1 ORDER BY id LIMIT $3) AS first
  WHERE first.at < $2))
"""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Rows deleted."""

    event_keys: int
    profile_changes: int
    requests: int = 0
    audit_entries: int = 0


async def forget(workspace_id: UUID, *, now: datetime, audit_kept: timedelta) -> Forgotten:
    """Delete event keys older than 35 days, word of changed profiles and remembered requests older than 1 day, and
    entries of the audit log older than `audit_kept`.

    A transaction a batch of 20,000, at most a million rows of each a call: what is left is for the next one.
    """
    return Forgotten(
        event_keys=await forget_rows(FORGET_EVENT_KEYS, workspace_id, now - EVENT_KEYS_KEPT),
        profile_changes=await forget_rows(FORGET_CHANGES, workspace_id, now - CHANGES_KEPT),
        requests=await forget_rows(FORGET_REQUESTS, workspace_id, now - REQUESTS_KEPT),
        audit_entries=await forget_rows(FORGET_AUDIT, workspace_id, now - audit_kept),
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
