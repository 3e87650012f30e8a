"""What segments hold of one person: when they were in which, and where they rank."""

from collections.abc import AsyncIterator
from uuid import UUID

from profiles.disclosure import BEGINNING_OF_TIME, Person, Rows, Section, pages

# Segment by segment, of which there are few, as in members.py.
MEMBERSHIPS = """
SELECT s.id AS k, m.profile_id AS k2, m.entered_at AS k3, s.id AS segment_id, s.name AS segment_name, m.entered_at,
  m.reason, m.exited_at, m.exit_reason
FROM segment s CROSS JOIN LATERAL (
  SELECT profile_id, entered_at, reason, exited_at, exit_reason FROM membership
  WHERE workspace_id = $1 AND segment_id = s.id AND profile_id = ANY($2::int[]) OFFSET 0) AS m
WHERE s.workspace_id = $1 AND s.id >= $4 AND (s.id, m.profile_id, m.entered_at) > ($4, $5, $6)
ORDER BY s.id, m.profile_id, m.entered_at LIMIT $3
"""
RANKS = """
SELECT s.id AS k, r.profile_id AS k2, s.id AS segment_id, s.name AS segment_name, r.order_value
FROM segment s CROSS JOIN LATERAL (
  SELECT profile_id, order_value FROM segment_rank
  WHERE workspace_id = $1 AND segment_id = s.id AND profile_id = ANY($2::int[]) OFFSET 0) AS r
WHERE s.workspace_id = $1 AND s.id >= $4 AND (s.id, r.profile_id) > ($4, $5) ORDER BY s.id, r.profile_id LIMIT $3
"""
SECTIONS = (
    Section("memberships", MEMBERSHIPS, (UUID(int=0), 0, BEGINNING_OF_TIME)),
    Section("ranks", RANKS, (UUID(int=0), 0)),
)


async def disclose(workspace_id: UUID, person: Person) -> AsyncIterator[tuple[str, Rows]]:
    """See `profiles.disclosure.disclose`."""
    for section in SECTIONS:
        yield section.name, ()
        async for rows in pages(workspace_id, section, person.profile_ids):
            yield section.name, rows
