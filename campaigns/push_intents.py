"""The last look before a push notification leaves, as intents.py has it for mail: who it goes to, and whether.

A device's token never changes (another token is another device), so that all there is to see is whether the device is
still there, and still the same person's.
"""

from campaigns.gates import EXCLUSION, excluded, push_gated, push_gates, token_gate, token_gated
from campaigns.intents import LastLook

# As for mail. A device that belongs to the very profile of its row is nobody's who was merged or erased: merging moves
# devices, erasing deletes them.
INTEND = (
    """
WITH run AS MATERIALIZED (
  SELECT c.topic FROM claim JOIN campaign c ON c.workspace_id = $1 AND c.id = $12
  WHERE claim.workspace_id = $1 AND claim.id = $3 AND claim.lease_until > now()
    AND ($8 OR (c.status = 'SENDING' AND (c.expires_at IS NULL OR c.expires_at > now())))
  FOR KEY SHARE OF claim),
there AS MATERIALIZED (
  SELECT v.id, v.profile_id FROM device v WHERE v.workspace_id = $1 AND v.id = ANY($5) AND v.disabled_at IS NULL)"""
    + token_gated(hashes="$10")
    + push_gated(people="$4", matters="$7", topic="(SELECT topic FROM run)")
    + """
UPDATE delivery d SET state = 'sending', claim_id = $3, fence = d.fence + 1, attempt = d.attempt + 1, not_before = NULL,
  first_attempt_at = person.first_attempt_at, updated_at = now()
FROM (
  SELECT $4[n] AS id, $5[n] AS device_id, ($6::int[])[n] AS fence, ($9::timestamptz[])[n] AS first_attempt_at,
    $10[n] AS token_hash
  FROM generate_subscripts($4, 1) AS n OFFSET 0) AS person
WHERE d.dispatch_id = $2 AND d.profile_id = ANY($4) AND d.profile_id = person.id AND d.device_id = person.device_id
  AND d.fence = person.fence AND d.state = ANY($11::text[]) AND EXISTS (SELECT FROM run)
  AND CASE WHEN (person.device_id, person.id) IN (SELECT id, profile_id FROM there) THEN CASE"""
    + token_gate(token_hash="person.token_hash")
    + push_gates(person="person", matters="$7")
    + """
  END IS NULL ELSE false END
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
  FROM campaign c WHERE c.workspace_id = $1 AND c.id = $12),
mine AS MATERIALIZED (
  SELECT d.profile_id, d.device_id, ready.first_attempt_at, ready.token_hash
  FROM ready
  JOIN delivery d ON d.dispatch_id = $2 AND d.profile_id = ready.profile_id AND d.device_id = ready.device_id
  WHERE d.profile_id = ANY($4) AND d.state = ANY($11::text[]) AND d.fence = ready.fence AND EXISTS (SELECT 1 FROM held)
  ORDER BY d.profile_id, d.device_id FOR UPDATE OF d SKIP LOCKED),
named AS MATERIALIZED (
  SELECT mine.*, own.merged_into, coalesce(own.merged_into, own.id) AS id
  FROM mine CROSS JOIN LATERAL (
    SELECT o.id, o.merged_into FROM profile o WHERE o.workspace_id = $1 AND o.id = mine.profile_id LIMIT 1) AS own),
person AS MATERIALIZED (
  SELECT named.*, run.*, v.profile_id AS owner_id, v.disabled_at
  FROM named CROSS JOIN run LEFT JOIN LATERAL (
    SELECT o.profile_id, o.disabled_at FROM device o WHERE o.workspace_id = $1 AND o.id = named.device_id LIMIT 1) AS v
    ON true)"""
    + token_gated(hashes="$10")
    + push_gated(people="(SELECT array_agg(id) FROM named)", matters="$7", topic="(SELECT topic FROM run)")
    + ","
    + excluded(people="(SELECT array_agg(id) FROM named WHERE merged_into IS NOT NULL)")
    + """,
decided AS MATERIALIZED (
  SELECT person.*, CASE
    WHEN NOT $8 AND expired THEN 'EXPIRED'
    WHEN NOT $8 AND status = 'CANCELLED' THEN 'CANCELLED'
    WHEN NOT $8 AND status <> 'SENDING' THEN 'HELD'
    WHEN owner_id IS NULL OR disabled_at IS NOT NULL THEN 'DEVICE_GONE'
    WHEN owner_id <> person.id THEN 'DEVICE_MOVED'"""
    + EXCLUSION
    + token_gate(token_hash="person.token_hash")
    + push_gates(person="person", matters="$7")
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
PUSH = LastLook(INTEND, INTEND_REST)
