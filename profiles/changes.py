"""What the packages above have yet to act on: rows of profile_change, deleted in the transaction of who acts."""

from dataclasses import dataclass
from uuid import UUID

from pyroaring import BitMap

from db.idsets import unpack
from db.transactions import Connection

# `moved` by an index of its own, so that one merge is found behind a million people who were touched.
WAITING = """
SELECT (SELECT coalesce(sum(t.people), 0) FROM (
    SELECT people FROM profile_change WHERE workspace_id = $1 AND kind = 'touched' LIMIT $2) AS t) AS touched,
  EXISTS (SELECT FROM profile_change WHERE workspace_id = $1 AND kind <> 'touched') AS moved
"""
# By a list of keys, so that a batch is a batch: rows as long as those before hold fewer people. Whoever else deletes
# (retention) holds nothing up.
TAKE_TOUCHED = """
WITH waiting AS (
  SELECT seq, people FROM profile_change WHERE workspace_id = $1 AND kind = 'touched' ORDER BY seq LIMIT $2),
first AS (
  SELECT seq FROM (SELECT seq, sum(people) OVER (ORDER BY seq) - people AS before FROM waiting) AS one
  WHERE before < $2),
taken AS (DELETE FROM profile_change WHERE workspace_id = $1 AND seq = ANY(ARRAY(
  SELECT seq FROM profile_change WHERE workspace_id = $1 AND seq = ANY(ARRAY(SELECT seq FROM first))
  FOR UPDATE SKIP LOCKED)) RETURNING profile_ids)
SELECT count(*) AS counted, string_agg(int4send(u.id), ''::bytea) AS ids
FROM taken CROSS JOIN LATERAL unnest(taken.profile_ids) AS u (id)
"""
PEOPLE = """
SELECT string_agg(int4send(u.id), ''::bytea) FROM profile_change CROSS JOIN LATERAL unnest(profile_ids) AS u (id)
WHERE workspace_id = $1 AND kind = 'touched'
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
    """People, counted again in each batch that touched them; about as many as were asked for, if there are more."""
    moved: bool
    """Whether a merge or an erasure is among them."""


@dataclass(frozen=True, slots=True)
class Touched:
    """People who changed, of rows that are deleted now."""

    counted: int
    """A person again in each batch that touched them."""
    profile_ids: BitMap


@dataclass(frozen=True, slots=True)
class Moved:
    """A profile that is no more: merged into another, or erased."""

    profile_id: int
    winner_id: int | None
    """None: erased."""


async def waiting(connection: Connection, workspace_id: UUID, *, most: int) -> Waiting:
    """What waits; people who changed are counted until there are `most` or a few more."""
    row = await connection.fetchrow(WAITING, workspace_id, most)
    return Waiting(touched=row["touched"], moved=row["moved"])


async def take_touched(connection: Connection, workspace_id: UUID, *, most: int) -> Touched:
    """Delete the word of `most` people who changed, oldest first; back again when the transaction fails.

    Whole rows: of the last one more may come, at most a thousand. Fewer counted than `most`: nothing is left.
    """
    row = await connection.fetchrow(TAKE_TOUCHED, workspace_id, most)
    return Touched(counted=row["counted"], profile_ids=unpack(row["ids"]))


async def people_waiting(connection: Connection, workspace_id: UUID) -> BitMap:
    """Everybody who changed and is still to be acted on."""
    return unpack(await connection.fetchval(PEOPLE, workspace_id))


async def take_moved(connection: Connection, workspace_id: UUID, *, most: int) -> list[Moved]:
    """Delete up to `most` rows of merges and erasures, in the order in which they happened."""
    return [Moved(*row) for row in await connection.fetch(TAKE_MOVED, workspace_id, most)]
