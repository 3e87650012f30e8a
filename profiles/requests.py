"""Requests that may come twice: a mutation with a key is done once, and answered again from what it answered with.

draft-ietf-httpapi-idempotency-key-header: the same key with another input is a mistake of the client, the same key
while the first is under way a conflict.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from db.transactions import Connection, transaction
from profiles.errors import ProfileError

KEPT = timedelta(hours=24)
"""Then profiles/retention.py drops them."""

# Waits for nobody: a client that sends again too early is told so. The lock ends with the transaction.
LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))"
FIND = """
SELECT fingerprint, answer FROM request
WHERE workspace_id = $1 AND actor = $2 AND key = $3 AND place = $4 AND done_at > $5
"""
# One that is kept longer than its time, because nobody has forgotten it yet, gives way.
KEEP = """
INSERT INTO request (workspace_id, actor, key, place, fingerprint, answer, done_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (workspace_id, actor, key, place)
DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer, done_at = excluded.done_at
"""

Ids = Mapping[str, str]


async def once(
    workspace_id: UUID,
    *,
    actor: str,
    key: str,
    place: str,
    fingerprint: bytes,
    now: datetime,
    work: Callable[[], Awaitable[Ids]],
) -> Ids | None:
    """None when `work` was done now; else what it gave when it was done, and it is not done again.

    `work` runs in one transaction with the note of it: a crash in between leaves neither. What it raises goes through,
    and leaves nothing. `place` tells apart what one request asks for. Raises ProfileError IDEMPOTENCY_KEY_REUSED for
    another `fingerprint`, IDEMPOTENCY_KEY_BUSY while the same is under way.
    """
    async with transaction(workspace_id) as connection:
        if not await connection.fetchval(LOCK, f"request {workspace_id} {actor} {key} {place}"):
            message = "A request with this Idempotency-Key is under way; ask again when it has ended."
            raise ProfileError("IDEMPOTENCY_KEY_BUSY", message)
        row = await connection.fetchrow(FIND, workspace_id, actor, key, place, now - KEPT)
        if row is not None and row["fingerprint"] != fingerprint:
            message = "This Idempotency-Key was used for something else within a day; give each request its own."
            raise ProfileError("IDEMPOTENCY_KEY_REUSED", message)
        if row is not None:
            found: Ids = row["answer"]
            return found
        answer = await work()
        await note(connection, workspace_id, actor, key, place, fingerprint, answer, now)
        return None


async def note(
    connection: Connection,
    workspace_id: UUID,
    actor: str,
    key: str,
    place: str,
    fingerprint: bytes,
    answer: Ids,
    now: datetime,
) -> None:
    await connection.execute(KEEP, workspace_id, actor, key, place, fingerprint, dict(answer), now)
