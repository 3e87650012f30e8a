"""Writes the ledger of a dispatch out of its frozen audience, chunk by chunk (R1), or only counts what it would be."""

from uuid import UUID

from pyroaring import BitMap

from campaigns import push_planning
from campaigns.gates import gates
from campaigns.models import CampaignChannel
from db.transactions import Connection

CHUNK = 65_536
"""Profile ids of one planning transaction: about a second of work, so that progress shows and nothing waits long."""

# Everyone of $2 who has an address, with the reason why they get nothing, if there is one. $3: the topic, $4: consent
# matters. In the order of ids, so that neighbours in the ledger are neighbours in its pages.
GATED = (
    """
WITH person AS MATERIALIZED (
  SELECT p.id, p.email_hash FROM profile p
  WHERE p.workspace_id = $1 AND p.id = ANY($2::int[]) AND p.email_hash IS NOT NULL
    AND p.merged_into IS NULL AND p.erased_at IS NULL
  ORDER BY p.id),
gated AS MATERIALIZED (
  SELECT id, email_hash, CASE"""
    + gates(person="person", matters="$4", topic="$3")
    + """
  END AS reason
  FROM person)
"""
)
# Nothing can be in the way: rows and progress are one transaction, under the lock of the dispatch.
PLAN = (
    GATED
    + """
INSERT INTO delivery (workspace_id, dispatch_id, profile_id, state, reason, address_hash)
SELECT $1, $5, id, CASE WHEN reason IS NULL THEN 'pending' ELSE 'skipped' END, reason, email_hash FROM gated
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
placed AS (SELECT reason, row_number() OVER (PARTITION BY email_hash ORDER BY id) AS place FROM gated)
SELECT CASE WHEN reason IS NULL AND place > 1 THEN 'DUPLICATE_ADDRESS' ELSE reason END AS reason, count(*) AS people
FROM placed GROUP BY 1
"""
)

PLAN_STATE = """
SELECT d.audience, d.audience_size, d.planned_through, d.planned_at, d.kind, c.topic, c.class, c.status, c.channel
FROM dispatch d JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id
WHERE d.workspace_id = $1 AND d.id = $2 FOR NO KEY UPDATE OF d
"""
PLANNED = """
UPDATE dispatch SET planned_through = $3, no_address = no_address + $4, heartbeat_at = now(),
  planned_at = CASE WHEN $5 THEN now() END
WHERE workspace_id = $1 AND id = $2
"""
WRITTEN = "INSERT 0 "
"""Before the number of rows, in PostgreSQL's answer."""


async def plan_chunk(connection: Connection, *, workspace_id: UUID, dispatch_id: UUID) -> bool:
    """Write the ledger rows of the next chunk of the audience; False when all are written.

    Resumable after a crash at any point: rows and progress are one transaction. Two workers at once: the second
    waits for the first's chunk, then takes the next.
    """
    row = await connection.fetchrow(PLAN_STATE, workspace_id, dispatch_id)
    if row is None or row["planned_at"] is not None:
        return False
    if row["kind"] == "SEND" and row["status"] != "PREPARING":
        return False
    audience = BitMap.deserialize(row["audience"])
    # Audience ids above the last one planned, CHUNK of them at most.
    start = audience.rank(row["planned_through"]) if row["planned_through"] >= 0 else 0
    ids = list(audience[start : start + CHUNK])
    done = start + len(ids) >= len(audience)
    with_address = 0
    is_push = row["channel"] == CampaignChannel.PUSH
    consent_matters = row["class"] == "MARKETING" and row["kind"] == "SEND"
    if ids and is_push:
        with_address = await push_planning.plan(
            connection,
            workspace_id=workspace_id,
            dispatch_id=dispatch_id,
            profile_ids=ids,
            topic=row["topic"],
            consent_matters=consent_matters,
        )
    elif ids:
        written = await connection.execute(PLAN, workspace_id, ids, row["topic"], consent_matters, dispatch_id)
        with_address = int(written.removeprefix(WRITTEN))
    if done:
        await connection.execute(BY_HASHES)
        await connection.execute(push_planning.SPARE_TWINS if is_push else SPARE_TWINS, dispatch_id)
    through = ids[-1] if ids else row["planned_through"]
    await connection.execute(PLANNED, workspace_id, dispatch_id, through, len(ids) - with_address, done)
    return not done


async def count_gated(
    connection: Connection, *, workspace_id: UUID, audience: BitMap, topic: str, consent_matters: bool
) -> dict[str | None, int]:
    """How many of `audience` a send now would skip, by reason; under None those it would reach. Writes nothing."""
    rows = await connection.fetch(COUNT_GATED, workspace_id, list(audience), topic, consent_matters)
    return {row["reason"]: row["people"] for row in rows}
