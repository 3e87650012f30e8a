"""Writes the ledger of a dispatch out of its frozen audience, chunk by chunk (R1), or only counts what it would be."""

from uuid import UUID

from pyroaring import BitMap

from db.transactions import Connection

CHUNK = 65_536
"""Profile ids of one planning transaction: about a second of work, so that progress shows and nothing waits long."""

# Everyone of $2 who has an address, with the reason why they get nothing, if there is one. $3: the topic, $4: consent
# matters, $5: the dispatch whose rows count for DUPLICATE_ADDRESS. The lowest profile id of a mailbox gets the mail:
# chunks are planned in ascending order, and within one row_number() decides. Suppression and consent are subqueries,
# not joins: each is then one look-up by its whole key, whatever the planner knows of the tables.
GATED = """
WITH settings AS (SELECT consent_default FROM workspace WHERE id = $1),
person AS (
  SELECT p.id, p.email_hash, row_number() OVER (PARTITION BY p.email_hash ORDER BY p.id) AS place
  FROM profile p
  WHERE p.workspace_id = $1 AND p.id = ANY($2::int[]) AND p.email_hash IS NOT NULL
    AND p.merged_into IS NULL AND p.erased_at IS NULL),
asked AS (
  SELECT person.*, settings.consent_default,
    EXISTS (SELECT 1 FROM suppression s
      WHERE s.workspace_id = $1 AND s.channel = 'EMAIL' AND s.address_hash = person.email_hash) AS suppressed,
    (SELECT k.status FROM consent k WHERE k.workspace_id = $1 AND k.profile_id = person.id AND k.channel = 'EMAIL'
      AND k.topic = $3) AS topic_status,
    (SELECT k.status FROM consent k WHERE k.workspace_id = $1 AND k.profile_id = person.id AND k.channel = 'EMAIL'
      AND k.topic = '*') AS every_status
  FROM person CROSS JOIN settings),
gated AS (
  SELECT id, email_hash, CASE
    WHEN suppressed THEN 'SUPPRESSED'
    WHEN $4 AND 'UNSUBSCRIBED' IN (topic_status, every_status) THEN 'UNSUBSCRIBED'
    WHEN $4 AND consent_default = 'OPT_IN' AND topic_status IS NULL AND every_status IS NULL THEN 'NO_CONSENT'
    WHEN place > 1 OR EXISTS (SELECT 1 FROM delivery d
      WHERE d.dispatch_id = $5 AND d.address_hash = asked.email_hash) THEN 'DUPLICATE_ADDRESS'
  END AS reason
  FROM asked)
"""
PLAN = (
    GATED
    + """,
written AS (
  INSERT INTO delivery (workspace_id, dispatch_id, profile_id, state, reason, address_hash)
  SELECT $1, $5, id, CASE WHEN reason IS NULL THEN 'pending' ELSE 'skipped' END, reason, email_hash FROM gated
  ON CONFLICT DO NOTHING)
SELECT count(*) FROM gated
"""
)
COUNT_GATED = GATED + "SELECT reason, count(*) AS people FROM gated GROUP BY reason"

PLAN_STATE = """
SELECT d.audience, d.audience_size, d.planned_through, d.planned_at, d.kind, c.topic, c.class, c.status
FROM dispatch d JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id
WHERE d.workspace_id = $1 AND d.id = $2 FOR NO KEY UPDATE OF d
"""
PLANNED = """
UPDATE dispatch SET planned_through = $3, no_address = no_address + $4, heartbeat_at = now(),
  planned_at = CASE WHEN $5 THEN now() END
WHERE workspace_id = $1 AND id = $2
"""
NO_DISPATCH = UUID(int=0)


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
    if ids:
        consent_matters = row["class"] == "MARKETING" and row["kind"] == "SEND"
        with_address = await connection.fetchval(PLAN, workspace_id, ids, row["topic"], consent_matters, dispatch_id)
    through = ids[-1] if ids else row["planned_through"]
    await connection.execute(PLANNED, workspace_id, dispatch_id, through, len(ids) - with_address, done)
    return not done


async def count_gated(
    connection: Connection, *, workspace_id: UUID, audience: BitMap, topic: str, consent_matters: bool
) -> dict[str | None, int]:
    """How many of `audience` a send now would skip, by reason; under None those it would reach. Writes nothing."""
    rows = await connection.fetch(COUNT_GATED, workspace_id, list(audience), topic, consent_matters, NO_DISPATCH)
    return {row["reason"]: row["people"] for row in rows}
