"""Who did what, and when. An entry is written before the work and its end after it: what a crash leaves without an
outcome may or may not have been done, and nothing is done without an entry.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.transactions import transaction

BEGIN = """
INSERT INTO audit_entry (workspace_id, at, key_id, action, object) VALUES ($1, $2, $3, $4, $5) RETURNING id
"""
END = "UPDATE audit_entry SET outcome = $3, object = coalesce(object, $4) WHERE workspace_id = $1 AND id = $2"
NEWEST = UUID(int=2**128 - 1)
# Without an OR around the id, so that it is found by the index from there on, however the statement was planned.
PAGE = """
SELECT e.id, e.at, e.key_id, e.action, e.object, e.outcome, k.name AS key_name, k.prefix
FROM audit_entry e JOIN api_key k ON k.workspace_id = e.workspace_id AND k.id = e.key_id
WHERE e.workspace_id = $1 AND e.id < $2 AND ($3::text IS NULL OR e.action = $3)
  AND ($4::text IS NULL OR e.object = $4) AND ($5::timestamptz IS NULL OR e.at >= $5)
ORDER BY e.id DESC LIMIT $6
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One mutation."""

    id: UUID
    at: datetime
    key_id: UUID
    action: str
    object: str | None
    """The id of what it was done to, or of what it made."""
    outcome: str | None
    """DONE, or the code of the refusal; None: nobody knows."""
    key_name: str
    prefix: str


async def begin(workspace_id: UUID, *, at: datetime, key_id: UUID, action: str, object: str | None) -> UUID:
    """The id of a new entry that has no outcome yet."""
    async with transaction(workspace_id) as connection:
        id: UUID = await connection.fetchval(BEGIN, workspace_id, at, key_id, action, object)
    return id


async def end(workspace_id: UUID, entry_id: UUID, *, outcome: str, object: str | None) -> None:
    """Say how it ended, and on what when that was not known before."""
    async with transaction(workspace_id) as connection:
        await connection.execute(END, workspace_id, entry_id, outcome, object)


async def page(
    workspace_id: UUID,
    *,
    after: UUID | None,
    limit: int,
    action: str | None = None,
    object: str | None = None,
    since: datetime | None = None,
) -> list[Entry]:
    """At most `limit` entries before `after`, newest first."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(PAGE, workspace_id, after or NEWEST, action, object, since, limit)
    return [Entry(**row) for row in rows]
