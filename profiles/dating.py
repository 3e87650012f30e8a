"""The table of those traits that are dates, kept in step with the traits of the rows it is about."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from db.transactions import Connection

DateOf = tuple[int, str, datetime | None]
"""Profile id, key, and the trait's date; None: the trait is gone or no date."""

# By ctid: found one by one through the index of the profile, as in identities.py, which says why.
WRITE_DATES = """
WITH said AS (SELECT * FROM unnest($2::int[], $3::text[], $4::timestamptz[]) AS u (profile_id, key, at)),
gone AS (
  DELETE FROM profile_date WHERE workspace_id = $1 AND ctid = ANY(ARRAY(
    SELECT d.place FROM said AS s CROSS JOIN LATERAL (
      SELECT ctid AS place FROM profile_date
      WHERE workspace_id = $1 AND profile_id = s.profile_id AND key = s.key AND at IS DISTINCT FROM s.at OFFSET 0) AS d
  )))
INSERT INTO profile_date (workspace_id, key, at, profile_id)
SELECT $1, s.key, s.at, s.profile_id FROM said AS s WHERE s.at IS NOT NULL ON CONFLICT DO NOTHING
"""
DATED_KEYS = """
SELECT u.key FROM unnest($2::text[]) AS u (key)
WHERE EXISTS (SELECT FROM profile_date WHERE workspace_id = $1 AND key = u.key)
"""


async def write_dates(connection: Connection, workspace_id: UUID, dates: Sequence[DateOf]) -> None:
    """Make these the dates of these people's traits. The rows of the people are locked by the same transaction."""
    if dates:
        ids, keys, instants = zip(*dates, strict=True)
        await connection.execute(WRITE_DATES, workspace_id, ids, keys, instants)


async def find_dated_keys(connection: Connection, workspace_id: UUID, keys: Sequence[str]) -> set[str]:
    """Those of `keys` under which anybody of the workspace has a date."""
    return {row["key"] for row in await connection.fetch(DATED_KEYS, workspace_id, keys)} if keys else set()
