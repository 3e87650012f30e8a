"""The last look before a push notification leaves, as `ledger.intend` has it for mail: who it goes to, and whether.

A device's token never changes (another token is another device), so that all there is to see is whether the device is
still there, and still the same person's.
"""

from collections.abc import Sequence
from uuid import UUID

from campaigns.answers import PushReady
from campaigns.gates import push_gates, token_gate
from campaigns.ledger import WAITING, Intended
from campaigns.models import DeliveryState
from db.transactions import Connection

# As ledger.INTEND: the ordinary message, named by key. A device that belongs to the very profile of its row is nobody's
# who was merged or erased: merging moves devices, erasing deletes them. $7: consent matters, $8: a test.
INTEND = (
    """
WITH held AS MATERIALIZED (
  SELECT id FROM claim WHERE workspace_id = $1 AND id = $3 AND lease_until > now() FOR KEY SHARE),
run AS MATERIALIZED (
  SELECT c.topic FROM dispatch r JOIN campaign c ON c.workspace_id = r.workspace_id AND c.id = r.campaign_id
  WHERE r.workspace_id = $1 AND r.id = $2 AND EXISTS (SELECT 1 FROM held)
    AND ($8 OR (c.status = 'SENDING' AND (c.expires_at IS NULL OR c.expires_at > now()))))
UPDATE delivery d SET state = 'sending', claim_id = $3, fence = d.fence + 1, attempt = d.attempt + 1, not_before = NULL,
  first_attempt_at = ready.first_attempt_at, updated_at = now()
FROM run, unnest($4::int[], $5::bigint[], $6::int[], $9::timestamptz[], $10::bytea[])
  AS ready (profile_id, device_id, fence, first_attempt_at, token_hash)
CROSS JOIN LATERAL (
  SELECT v.profile_id AS id FROM device v
  WHERE v.workspace_id = $1 AND v.id = ready.device_id AND v.profile_id = ready.profile_id AND v.disabled_at IS NULL
  LIMIT 1) AS person
WHERE d.dispatch_id = $2 AND d.profile_id = ready.profile_id AND d.device_id = ready.device_id
  AND d.fence = ready.fence AND d.state = ANY($11::text[])
  AND CASE"""
    + token_gate(token_hash="ready.token_hash")
    + push_gates(person="person", matters="$7", topic="run.topic")
    + """
  END IS NULL
RETURNING d.profile_id, d.device_id
"""
)
# The others: to skipped with the reason, to sending for the devices of somebody who was merged since the freeze, or as
# they are when the campaign is paused (HELD). A row that somebody else has locked is theirs.
INTEND_REST = (
    """
WITH ready AS (
  SELECT r.* FROM unnest($4::int[], $5::bigint[], $6::int[], $9::timestamptz[], $10::bytea[])
    AS r (profile_id, device_id, fence, first_attempt_at, token_hash)),
held AS MATERIALIZED (
  SELECT id FROM claim WHERE workspace_id = $1 AND id = $3 AND lease_until > now() FOR KEY SHARE),
run AS MATERIALIZED (
  SELECT c.status, c.topic, c.expires_at IS NOT NULL AND c.expires_at <= now() AS expired
  FROM dispatch d JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id
  WHERE d.workspace_id = $1 AND d.id = $2),
mine AS MATERIALIZED (
  SELECT d.profile_id, d.device_id, ready.first_attempt_at, ready.token_hash
  FROM ready
  JOIN delivery d ON d.dispatch_id = $2 AND d.profile_id = ready.profile_id AND d.device_id = ready.device_id
  WHERE d.profile_id = ANY($4) AND d.state = ANY($11::text[]) AND d.fence = ready.fence AND EXISTS (SELECT 1 FROM held)
  ORDER BY d.profile_id, d.device_id FOR UPDATE OF d SKIP LOCKED),
named AS MATERIALIZED (
  SELECT mine.*, coalesce(own.merged_into, own.id) AS id
  FROM mine CROSS JOIN LATERAL (
    SELECT o.id, o.merged_into FROM profile o WHERE o.workspace_id = $1 AND o.id = mine.profile_id LIMIT 1) AS own),
person AS MATERIALIZED (
  SELECT named.*, run.*, v.profile_id AS owner_id, v.disabled_at
  FROM named CROSS JOIN run LEFT JOIN LATERAL (
    SELECT o.profile_id, o.disabled_at FROM device o WHERE o.workspace_id = $1 AND o.id = named.device_id LIMIT 1) AS v
    ON true),
decided AS MATERIALIZED (
  SELECT person.*, CASE
    WHEN NOT $8 AND expired THEN 'EXPIRED'
    WHEN NOT $8 AND status = 'CANCELLED' THEN 'CANCELLED'
    WHEN NOT $8 AND status <> 'SENDING' THEN 'HELD'
    WHEN owner_id IS NULL OR disabled_at IS NOT NULL THEN 'DEVICE_GONE'
    WHEN owner_id <> person.id THEN 'DEVICE_MOVED'"""
    + token_gate(token_hash="person.token_hash")
    + push_gates(person="person", matters="$7", topic="person.topic")
    + """
  END AS reason
  FROM person)
UPDATE delivery d SET updated_at = now(), not_before = NULL, reason = decided.reason,
  state = CASE WHEN decided.reason IS NULL THEN 'sending' ELSE 'skipped' END,
  claim_id = CASE WHEN decided.reason IS NULL THEN $3 ELSE d.claim_id END,
  fence = CASE WHEN decided.reason IS NULL THEN d.fence + 1 ELSE d.fence END,
  attempt = CASE WHEN decided.reason IS NULL THEN d.attempt + 1 ELSE d.attempt END,
  first_attempt_at = CASE WHEN decided.reason IS NULL THEN decided.first_attempt_at ELSE d.first_attempt_at END
FROM decided
WHERE d.dispatch_id = $2 AND d.profile_id = ANY($4) AND d.profile_id = decided.profile_id
  AND d.device_id = decided.device_id AND decided.reason IS DISTINCT FROM 'HELD'
RETURNING d.profile_id, d.device_id, d.state
"""
)


async def intend(
    connection: Connection,
    *,
    workspace_id: UUID,
    dispatch_id: UUID,
    claim_id: int,
    ready: Sequence[PushReady],
    consent_matters: bool,
    test: bool,
) -> Intended:
    """Commit the intent to send and say which may leave now; what the last look stops is settled in the ledger.

    A row whose fence moved on is somebody else's, and so are all when the lease has ended.
    """

    def arguments(some: Sequence[PushReady]) -> tuple[object, ...]:
        return (
            workspace_id,
            dispatch_id,
            claim_id,
            [one.intent.profile_id for one in some],
            [one.intent.device_id for one in some],
            [one.intent.fence for one in some],
            consent_matters,
            test,
            [one.intent.first_attempt_at for one in some],
            [one.token_hash for one in some],
            WAITING,
        )

    rows = await connection.fetch(INTEND, *arguments(ready))
    leaving = {(row["profile_id"], row["device_id"]) for row in rows}
    rest = [one for one in ready if (one.intent.profile_id, one.intent.device_id) not in leaving]
    if not rest:
        return Intended(frozenset(leaving), frozenset())
    waiting = {(one.intent.profile_id, one.intent.device_id) for one in rest}
    for row in await connection.fetch(INTEND_REST, *arguments(rest)):
        key = (row["profile_id"], row["device_id"])
        waiting.remove(key)
        if row["state"] == DeliveryState.SENDING:
            leaving.add(key)
    return Intended(frozenset(leaving), frozenset(waiting))
