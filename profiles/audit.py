"""Who did what, and when. An entry is written before the work and its end after it: what a crash leaves without an
outcome may or may not have been done, and nothing is done without an entry.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.keysets import ALWAYS, Span
from db.transactions import transaction

BEGIN = """
INSERT INTO audit_entry (workspace_id, at, key_id, subject, action, object) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING id
"""
END = "UPDATE audit_entry SET outcome = $3, object = coalesce(object, $4) WHERE workspace_id = $1 AND id = $2"
NEWEST = UUID(int=2**128 - 1)
OLDEST = UUID(int=0)
APART_MS = 3_600_000
"""Between our clock and the database's, and between what was asked for and its entry, at most."""
# Without an OR around the id, so that it is found by the index from there on, however the statement was planned.
PAGE = """
SELECT e.id, e.at, e.key_id, e.subject, e.action, e.object, e.outcome, k.name AS key_name, k.prefix
FROM audit_entry e LEFT JOIN api_key k ON k.workspace_id = e.workspace_id AND k.id = e.key_id
WHERE e.workspace_id = $1 AND e.id < $2 AND e.id >= $3 AND ($4::text[] IS NULL OR e.action = ANY($4))
  AND ($5::text IS NULL OR e.object = $5) AND ($6::text[] IS NULL OR e.outcome = ANY($6))
  AND ($7::timestamptz IS NULL OR e.at >= $7) AND ($8::timestamptz IS NULL OR e.at < $8)
ORDER BY e.id DESC LIMIT $9
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One mutation."""

    id: UUID
    at: datetime
    key_id: UUID | None
    """None: a person without one, named by `subject`."""
    subject: str | None
    action: str
    object: str | None
    """The id of what it was done to, or of what it made."""
    outcome: str | None
    """DONE, or the code of the refusal; None: nobody knows."""
    key_name: str | None
    prefix: str | None


async def begin(
    workspace_id: UUID, *, at: datetime, key_id: UUID | None, subject: str | None, action: str, object: str | None
) -> UUID:
    """The id of a new entry that has no outcome yet; who did it is either a key or a person."""
    async with transaction(workspace_id) as connection:
        id: UUID = await connection.fetchval(BEGIN, workspace_id, at, key_id, subject, action, object)
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
    actions: Collection[str] | None = None,
    object: str | None = None,
    outcomes: Collection[str] | None = None,
    span: Span = ALWAYS,
) -> list[Entry]:
    """At most `limit` entries before `after`, newest first; of these actions, outcomes and this span of time only."""
    newest = min(after or NEWEST, NEWEST if span.end is None else id_at(span.end, APART_MS))
    oldest = OLDEST if span.start is None else id_at(span.start, -APART_MS)
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(
            PAGE,
            workspace_id,
            newest,
            oldest,
            None if actions is None else list(actions),
            object,
            None if outcomes is None else list(outcomes),
            span.start,
            span.end,
            limit,
        )
    return [Entry(**row) for row in rows]


def id_at(instant: datetime, apart_ms: int) -> UUID:
    """A UUIDv7 of so many milliseconds after an instant: entries of a span of time have ids of one as well, so that a
    month of long ago is found without reading the rest."""
    milliseconds = int(instant.timestamp() * 1000) + apart_ms
    return UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)
