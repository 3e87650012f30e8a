"""What the packages above have yet to act on: rows of profile_change, deleted in the transaction of who acts."""

from dataclasses import dataclass
from uuid import UUID

from pyroaring import BitMap

from db.idsets import unpack
from db.transactions import Connection

# `moved` by an index of its own, so that one merge is found behind a million people who were touched.
WAITING = """
SELECT (SELECT count(*) FROM (SELECT FROM profile_change WHERE workspace_id = $1 AND kind = 'touched' LIMIT $2) AS t)
    AS touched,
  EXISTS (SELECT FROM profile_change WHERE workspace_id = $1 AND kind <> 'touched') AS moved
"""
# By a list of keys, so that a batch is a batch. Whoever else deletes (retention) holds nothing up.
TAKE_TOUCHED = """
WITH taken AS (DELETE FROM profile_change WHERE workspace_id = $1 AND seq = ANY(ARRAY(
  SELECT seq FROM profile_change WHERE workspace_id = $1 AND kind = 'touched' ORDER BY seq LIMIT $2
  FOR UPDATE SKIP LOCKED)) RETURNING profile_id)
SELECT count(*) AS taken, string_agg(int4send(profile_id), ''::bytea) AS ids FROM taken
"""
TAKE_MOVED = """
WITH taken AS (DELETE FROM profile_change WHERE workspace_id = $1 AND seq = ANY(ARRAY(
  SELECT seq FROM profile_change WHERE workspace_id = $1 AND kind <> 'touched' ORDER BY seq LIMIT $2
  FOR UPDATE SKIP LOCKED)) RETURNING seq, profile_id, other_id)
SELECT profile_id, other_id FROM taken ORDER BY seq
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What nobody has acted on yet."""

    touched: int
    """Rows, not people; no more than were counted."""
    moved: bool
    """Whether a merge or an erasure is among them."""


@dataclass(frozen=True, slots=True)
class Touched:
    """People who changed, of so many rows that are deleted now."""

    rows: int
    profile_ids: BitMap


@dataclass(frozen=True, slots=True)
class Moved:
    """A profile that is no more: merged into another, or erased."""

    profile_id: int
    winner_id: int | None
    """None: erased."""


async def waiting(connection: Connection, workspace_id: UUID, *, most: int) -> Waiting:
    """What waits, counted up to `most` rows."""
    row = await connection.fetchrow(WAITING, workspace_id, most)
    return Waiting(touched=row["touched"], moved=row["moved"])


async def take_touched(connection: Connection, workspace_id: UUID, *, most: int) -> Touched:
    """Delete up to `most` rows of people who changed, oldest first; back again when the transaction fails."""
    row = await connection.fetchrow(TAKE_TOUCHED, workspace_id, most)
    return Touched(rows=row["taken"], profile_ids=unpack(row["ids"]))


async def take_moved(connection: Connection, workspace_id: UUID, *, most: int) -> list[Moved]:
    """Delete up to `most` rows of merges and erasures, in the order in which they happened."""
    return [Moved(*row) for row in await connection.fetch(TAKE_MOVED, workspace_id, most)]
