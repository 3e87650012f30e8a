"""Writes the ledger of a dispatch out of its frozen audience, chunk by chunk (R1), or only counts what it would be."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from pyroaring import BitMap

from campaigns import push_planning
from campaigns.gates import gated, gates
from campaigns.ledger import LOCK_WALK
from campaigns.models import CampaignChannel
from db.transactions import Connection

CHUNK = 16_384
"""Profile ids of one planning transaction: a quarter of a second of work, so that progress shows, nothing waits long,
and a backend whose worker was killed soon comes to its end."""
AHEAD = 8
"""Chunks that may be written at the same time."""

# Everyone of $2 who has an address, with the reason why they get nothing, if there is one. $3: the topic, $4: consent
# matters. Whoever was merged since the freeze stands for who they are now, under the id that was frozen: that one may
# not be of the audience. All are read once, by their ids: a join that finds the merged among them begins with everybody
# of the workspace where the planner knows nothing of the table (9 s for 16,384 of 48,000 people beside 12,000 who were
# merged; 0.5 s so, measured 2026-11-23). In the order of ids, so that neighbours in the ledger are neighbours in its
# pages. OFFSET 0: the reason is worked out once, and not kept in between.
GATED = (
    """
WITH frozen AS MATERIALIZED (
  SELECT p.id, p.merged_into, p.erased_at, p.email_hash FROM profile p
  WHERE p.workspace_id = $1 AND p.id = ANY($2::int[])),
person AS MATERIALIZED (
  SELECT id AS profile_id, id, email_hash FROM frozen
  WHERE merged_into IS NULL AND erased_at IS NULL AND email_hash IS NOT NULL
  UNION ALL
  SELECT frozen.id, winner.id, winner.email_hash FROM frozen CROSS JOIN LATERAL (
    SELECT p.id, p.email_hash FROM profile p
    WHERE p.workspace_id = $1 AND p.id = frozen.merged_into AND p.merged_into IS NULL AND p.erased_at IS NULL
      AND p.email_hash IS NOT NULL LIMIT 1) AS winner
  WHERE frozen.merged_into IS NOT NULL
  ORDER BY 1)"""
    + gated(
        hashes="(SELECT array_agg(email_hash) FROM person)",
        people="(SELECT array_agg(id) FROM person)",
        matters="$4",
        topic="$3",
    )
    + """,
gated AS (
  SELECT profile_id, email_hash, CASE"""
    + gates(person="person", matters="$4")
    + """
  END AS reason
  FROM person OFFSET 0)
"""
)
# Nothing can be in the way: rows and progress are one transaction, under the lock of the chunk.
PLAN = (
    GATED
    + """
INSERT INTO delivery (workspace_id, dispatch_id, profile_id, state, reason, address_hash)
SELECT $1, $5, profile_id, CASE WHEN reason IS NULL THEN 'pending' ELSE 'skipped' END, reason, email_hash FROM gated
"""
)
# The lowest profile id of a mailbox gets the mail. Once for the whole ledger, and by the addresses that it was written
# with: one look a person among a million addresses cost four times as much, and somebody who moves between two chunks
# would be missed.
SPARE_TWINS = """
WITH shared AS MATERIALIZED (
  SELECT address_hash, min(profile_id) AS keeper FROM delivery WHERE dispatch_id = $1
  GROUP BY address_hash HAVING count(*) > 1)
UPDATE delivery d SET state = 'skipped', reason = 'DUPLICATE_ADDRESS' FROM shared
WHERE d.dispatch_id = $1 AND d.address_hash = shared.address_hash AND d.profile_id > shared.keeper
  AND d.state = 'pending'
"""
# By hashes, in memory. A planner without statistics of these rows takes the ledger for one row and goes through all
# pairs: rows times twins, without end for a million.
BY_HASHES = """
SET LOCAL work_mem = '64MB'; SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off;
SET LOCAL enable_sort = off
"""
COUNT_GATED = (
    GATED
    + """,
placed AS (SELECT reason, row_number() OVER (PARTITION BY email_hash ORDER BY profile_id) AS place FROM gated)
SELECT CASE WHEN reason IS NULL AND place > 1 THEN 'DUPLICATE_ADDRESS' ELSE reason END AS reason, count(*) AS people
FROM placed GROUP BY 1
"""
)

# The lock keeps the dispatch from being finished, and nobody else from writing another chunk. That it is not finished
# is looked at again when this had to wait; the campaign's state is not.
PLAN_STATE = """
SELECT d.audience, d.planned_through, d.planned_at, d.kind, c.topic, c.class, c.status, c.channel
FROM dispatch d JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id
WHERE d.workspace_id = $1 AND d.id = $2 AND d.finished_at IS NULL FOR KEY SHARE OF d
"""
# A chunk is named by how many of the audience come before it. The first of $2 that nobody is writing.
TAKE_CHUNK = """
SELECT place FROM unnest($2::int[]) AS place
WHERE pg_try_advisory_xact_lock(hashtextextended('chunk ' || $1::uuid::text, place)) LIMIT 1
"""
WAIT_FOR_CHUNK = "SELECT pg_advisory_xact_lock(hashtextextended('chunk ' || $1::uuid::text, $2::int))"
THROUGH = "SELECT planned_through FROM dispatch WHERE workspace_id = $1 AND id = $2"
PLANNED = """
UPDATE dispatch SET planned_through = $3, no_address = no_address + $4, heartbeat_at = now(),
  planned_at = CASE WHEN $5 THEN now() END
WHERE workspace_id = $1 AND id = $2
"""
WRITTEN = "INSERT 0 "
"""Before the number of rows, in PostgreSQL's answer."""


async def plan_chunk(connection: Connection, *, workspace_id: UUID, dispatch_id: UUID) -> bool:
    """Write the ledger rows of the next chunk of the audience; False when all are written, or are not to be.

    Resumable after a crash at any point: rows and progress are one transaction. Many workers at once write a chunk
    each, and commit in their order, so that progress is one number, and no row is committed behind the walk of a
    dispatch that is being closed. Whoever finds that the one before was lost writes that one too.
    """
    row = await connection.fetchrow(PLAN_STATE, workspace_id, dispatch_id)
    if row is None or row["planned_at"] is not None:
        return False
    if row["kind"] == "SEND" and row["status"] != "PREPARING":
        return False
    audience = BitMap.deserialize(row["audience"])
    begun = rank(audience, row["planned_through"])
    places = range(begun, max(len(audience), begun + 1), CHUNK)[:AHEAD]
    place = await connection.fetchval(TAKE_CHUNK, dispatch_id, list(places))
    if place is None:
        await connection.execute(WAIT_FOR_CHUNK, dispatch_id, begun)
        return True
    # Each look is a statement of its own after a lock, so that it sees what its last holder has committed.
    begun = rank(audience, await connection.fetchval(THROUGH, workspace_id, dispatch_id))
    if begun > place:
        return True
    write = partial(plan, connection, row, workspace_id=workspace_id, dispatch_id=dispatch_id)
    first, with_address = place, await write(audience[place : place + CHUNK])
    while begun < first:
        await connection.execute(WAIT_FOR_CHUNK, dispatch_id, first - CHUNK)
        begun = rank(audience, await connection.fetchval(THROUGH, workspace_id, dispatch_id))
        if begun < first:
            first -= CHUNK
            with_address += await write(audience[first : first + CHUNK])
    end = min(place + CHUNK, len(audience))
    done = end == len(audience)
    if done:
        # With the walk locked: nobody else settles rows meanwhile, in another order.
        await connection.execute(LOCK_WALK, workspace_id, dispatch_id)
        await connection.execute(BY_HASHES)
        is_push = row["channel"] == CampaignChannel.PUSH
        await connection.execute(push_planning.SPARE_TWINS if is_push else SPARE_TWINS, dispatch_id)
    through = audience[end - 1] if end else row["planned_through"]
    await connection.execute(PLANNED, workspace_id, dispatch_id, through, end - first - with_address, done)
    return not done


def rank(audience: BitMap, through: int) -> int:
    """How many of the audience have ids up to `through`; -1 for none."""
    return audience.rank(through) if through >= 0 else 0


async def plan(
    connection: Connection, state: Mapping[str, Any], profile_ids: BitMap, *, workspace_id: UUID, dispatch_id: UUID
) -> int:
    """Write the rows of these people, by a row of PLAN_STATE; answers how many people have any."""
    if not profile_ids:
        return 0
    consent_matters = state["class"] == "MARKETING" and state["kind"] == "SEND"
    if state["channel"] == CampaignChannel.PUSH:
        return await push_planning.plan(
            connection,
            workspace_id=workspace_id,
            dispatch_id=dispatch_id,
            profile_ids=list(profile_ids),
            topic=state["topic"],
            consent_matters=consent_matters,
        )
    written: str = await connection.execute(
        PLAN, workspace_id, list(profile_ids), state["topic"], consent_matters, dispatch_id
    )
    return int(written.removeprefix(WRITTEN))


async def count_gated(
    connection: Connection, *, workspace_id: UUID, audience: BitMap, topic: str, consent_matters: bool
) -> dict[str | None, int]:
    """How many of `audience` a send now would skip, by reason; under None those it would reach. Writes nothing."""
    rows = await connection.fetch(COUNT_GATED, workspace_id, list(audience), topic, consent_matters)
    return {row["reason"]: row["people"] for row in rows}
