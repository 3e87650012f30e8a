"""The ledger: one row a message, and the only statements that change one.

    pending -claim-> claimed -intend-> sending -record-> sent | deferred | failed | in_doubt
       ^ lease ended or given back |        \\-> skipped (unsubscribed, suppressed, expired, cancelled)

Nothing is sent before its row is committed as `sending`; nothing that may have left is ever pending again by
itself (reference: the two generals; RFC 1047 for SMTP). The fence of a row grows with each claim, and an outcome is
written under the fence of its claim only. docs/states.md draws it, docs/adr/0005 says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from campaigns.models import DeliveryState
from campaigns.reasons import SkipReason
from db.transactions import Connection


@dataclass(frozen=True, slots=True)
class Claimed:
    """One message this worker holds, with the person it goes to as they are now."""

    profile_id: int
    device_id: int
    fence: int
    attempt: int
    """Attempts made before this one."""
    message_id: str | None
    first_attempt_at: datetime | None
    person_id: int
    """The profile it goes to: another one than `profile_id` when that was merged since the audience was frozen."""
    erased: bool
    external_id: str | None
    email: str | None
    email_hash: bytes | None
    traits: dict[str, Any]
    locale: str | None
    time_zone: str | None
    country: str | None
    city: str | None


@dataclass(frozen=True, slots=True)
class Intent:
    """A message that is ready to leave."""

    profile_id: int
    device_id: int
    fence: int
    message_id: str
    first_attempt_at: datetime
    email_hash: bytes | None
    """Of the address it is made out to: one who moved meanwhile is claimed again."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a message, to be written under its fence."""

    profile_id: int
    device_id: int
    fence: int
    state: DeliveryState
    reason: str | None = None
    detail: str | None = None
    provider_id: str | None = None
    retry_in: timedelta | None = None
    """With state deferred: how long to wait, by the database's clock."""
    counts: bool = True
    """Whether it was an attempt at this recipient; else the host was away, or nothing was begun."""


# The statements of the send path name their rows by key (= ANY) or by the place just read (ctid; a row that moved
# meanwhile is left out, which is safe before the intent), and run with generic plans and without bitmap scans: a ledger
# that was written a second ago has no statistics yet, and a planner that guesses 15 rows reads the whole dispatch for
# each group (measured with 5,000 rows and groups of 32: 7 ms to plan, 7 ms to run; now below 1 ms). States come as
# parameters where a constant would let it take the partial index of claims and walk through its dead entries, and what
# several columns are made of is MATERIALIZED: PostgreSQL otherwise works it out once a column (456 us a message, now
# 180; beside other work). So is the id of whom somebody was merged into: under row level security nothing that
# coalesce() has made is looked up in an index.

# --- claims -----------------------------------------------------------------------------------------------------

OPEN_CLAIM = """
WITH made AS (
  INSERT INTO claim (workspace_id, dispatch_id, owner, lease_until) VALUES ($1, $2, $3, now() + $4) RETURNING id)
SELECT id FROM made
"""
# Only a claim whose lease still runs can be extended; a late worker finds out here.
HEARTBEAT = """
WITH alive AS (
  UPDATE claim SET lease_until = now() + $3 WHERE workspace_id = $1 AND id = $2 AND lease_until > now()
  RETURNING dispatch_id),
seen AS (UPDATE dispatch d SET heartbeat_at = now() FROM alive WHERE d.workspace_id = $1 AND d.id = alive.dispatch_id)
SELECT count(*) = 1 FROM alive
"""
# KEY SHARE on the claim keeps the sweeper from taking it away underneath. The campaign's state is read, not locked: a
# pause that commits meanwhile is seen by the intent. Nothing is claimed of a campaign that is paused, cancelled or
# expired, else its rows would be claimed and given back in a circle. A profile that was merged since the freeze stands
# as its winner.
CLAIM = """
WITH held AS (SELECT id FROM claim WHERE workspace_id = $1 AND id = $3 AND lease_until > now() FOR KEY SHARE),
picked AS (
  SELECT d.ctid AS place FROM delivery d
  WHERE d.dispatch_id = $2 AND d.state = 'pending' AND EXISTS (SELECT 1 FROM held) AND EXISTS (
    SELECT 1 FROM dispatch r JOIN campaign c ON c.workspace_id = r.workspace_id AND c.id = r.campaign_id
    WHERE r.workspace_id = $1 AND r.id = $2
      AND (r.kind = 'TEST' OR (c.status = 'SENDING' AND (c.expires_at IS NULL OR c.expires_at > now()))))
  ORDER BY d.profile_id LIMIT $4 FOR UPDATE SKIP LOCKED),
taken AS (
  UPDATE delivery d SET state = 'claimed', fence = d.fence + 1, claim_id = $3, updated_at = now()
  FROM picked WHERE d.dispatch_id = $2 AND d.ctid = picked.place
  RETURNING d.profile_id, d.device_id, d.fence, d.attempt, d.message_id, d.first_attempt_at),
named AS MATERIALIZED (
  SELECT taken.*, coalesce(own.merged_into, own.id) AS person_id
  FROM taken JOIN profile own ON own.workspace_id = $1 AND own.id = taken.profile_id)
SELECT named.*, p.erased_at IS NOT NULL AS erased, p.external_id, p.email, p.email_hash, p.traits, p.locale,
  p.time_zone, p.country, p.city
FROM named JOIN profile p ON p.workspace_id = $1 AND p.id = named.person_id ORDER BY named.profile_id
"""
# First of all, as the sweeper does: a claiming that is being committed, its answer unheard, holds the claim. Its rows
# would else stay claimed for ever under a claim that is gone.
LOCK_CLAIM = "SELECT id FROM claim WHERE workspace_id = $1 AND id = $2 FOR UPDATE"
GIVE_BACK = """
UPDATE delivery SET state = 'pending', claim_id = NULL, updated_at = now()
WHERE workspace_id = $1 AND dispatch_id = $2 AND claim_id = $3 AND state = 'claimed'
"""
# A claim whose worker still waits for outcomes stays, and the sweeper ends it: those rows may have left.
CLOSE_CLAIM = """
DELETE FROM claim c WHERE c.workspace_id = $1 AND c.id = $2 AND NOT EXISTS (
  SELECT 1 FROM delivery d WHERE d.dispatch_id = c.dispatch_id AND d.claim_id = c.id AND d.state = 'sending')
"""


async def open_claim(
    connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, owner: UUID, lease: timedelta
) -> int:
    """A new lease by the database's clock; `owner` is the process's boot id."""
    claim: int = await connection.fetchval(OPEN_CLAIM, workspace_id, dispatch_id, owner, lease)
    return claim


async def extend_claim(connection: Connection, *, workspace_id: UUID, claim_id: int, lease: timedelta) -> bool:
    """Prolong a lease; False when it ended already, and then nothing claimed under it may be sent."""
    alive: bool = await connection.fetchval(HEARTBEAT, workspace_id, claim_id, lease)
    return alive


async def claim(
    connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, claim_id: int, limit: int
) -> list[Claimed]:
    """Take up to `limit` pending deliveries, lowest profile id first, with addresses as they are now.

    Empty means nothing left to claim now, not that the dispatch is finished. Many workers may call this at once
    (SKIP LOCKED; PostgreSQL manual, SELECT, locking clause).
    """
    rows = await connection.fetch(CLAIM, workspace_id, dispatch_id, claim_id, limit)
    return [Claimed(**row) for row in rows]


async def close_claim(connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, claim_id: int) -> None:
    """Return what was claimed and not begun, and end the lease."""
    await connection.execute(LOCK_CLAIM, workspace_id, claim_id)
    await connection.execute(GIVE_BACK, workspace_id, dispatch_id, claim_id)
    await connection.execute(CLOSE_CLAIM, workspace_id, claim_id)


# --- intents and outcomes ---------------------------------------------------------------------------------------

# The last look before a message leaves, for the whole group about to leave: each row goes to sending, to skipped
# with its reason, or back to pending when the campaign is paused or the address has changed since the claim. Whoever
# moved since the freeze, or was merged, may have come to a mailbox, or be a person, that another row of the dispatch is
# for: of those that moved the lowest profile id keeps it. $8: consent matters, $9: a test, which no state of the
# campaign holds up.
INTEND = """
WITH ready AS (
  SELECT r.* FROM unnest($4::int[], $5::bigint[], $6::int[], $7::text[], $10::timestamptz[], $11::bytea[])
    AS r (profile_id, device_id, fence, message_id, first_attempt_at, email_hash)),
held AS MATERIALIZED (
  SELECT id FROM claim WHERE workspace_id = $1 AND id = $3 AND lease_until > now() FOR KEY SHARE),
run AS MATERIALIZED (
  SELECT c.status, c.topic, c.expires_at IS NOT NULL AND c.expires_at <= now() AS expired, w.consent_default
  FROM dispatch d JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id
  JOIN workspace w ON w.id = d.workspace_id WHERE d.workspace_id = $1 AND d.id = $2),
mine AS MATERIALIZED (
  SELECT d.ctid AS place, d.profile_id, d.address_hash, ready.message_id, ready.first_attempt_at, ready.email_hash
  FROM ready
  JOIN delivery d ON d.dispatch_id = $2 AND d.profile_id = ready.profile_id AND d.device_id = ready.device_id
  WHERE d.profile_id = ANY($4) AND d.state = ANY($12::text[]) AND d.fence = ready.fence AND EXISTS (SELECT 1 FROM held)
  ORDER BY d.profile_id FOR UPDATE OF d),
named AS MATERIALIZED (
  SELECT mine.*, own.merged_into, coalesce(own.merged_into, own.id) AS person_id
  FROM mine JOIN profile own ON own.workspace_id = $1 AND own.id = mine.profile_id),
person AS MATERIALIZED (
  SELECT named.*, run.*, p.email_hash AS email_hash_now, p.erased_at,
    p.email_hash IS DISTINCT FROM named.address_hash AS moved,
    row_number() OVER (PARTITION BY p.email_hash ORDER BY named.profile_id) AS place_in_mailbox,
    EXISTS (SELECT 1 FROM suppression s
      WHERE s.workspace_id = $1 AND s.channel = 'EMAIL' AND s.address_hash = p.email_hash) AS suppressed,
    (SELECT k.status FROM consent k WHERE k.workspace_id = $1 AND k.profile_id = p.id AND k.channel = 'EMAIL'
      AND k.topic = run.topic) AS topic_status,
    (SELECT k.status FROM consent k WHERE k.workspace_id = $1 AND k.profile_id = p.id AND k.channel = 'EMAIL'
      AND k.topic = '*') AS every_status
  FROM named CROSS JOIN run JOIN profile p ON p.workspace_id = $1 AND p.id = named.person_id),
decided AS MATERIALIZED (
  SELECT person.*, CASE
    WHEN NOT $9 AND expired THEN 'EXPIRED'
    WHEN NOT $9 AND status = 'CANCELLED' THEN 'CANCELLED'
    WHEN NOT $9 AND status <> 'SENDING' THEN 'HELD'
    WHEN erased_at IS NOT NULL THEN 'ERASED'
    WHEN email_hash_now IS NULL THEN 'NO_ADDRESS'
    WHEN suppressed THEN 'SUPPRESSED'
    WHEN $8 AND 'UNSUBSCRIBED' IN (topic_status, every_status) THEN 'UNSUBSCRIBED'
    WHEN $8 AND consent_default = 'OPT_IN' AND topic_status IS NULL AND every_status IS NULL THEN 'NO_CONSENT'
    WHEN moved AND (place_in_mailbox > 1 OR EXISTS (SELECT 1 FROM delivery o WHERE o.dispatch_id = $2
      AND o.address_hash = person.email_hash_now AND o.profile_id <> person.profile_id)) THEN 'DUPLICATE_ADDRESS'
    WHEN EXISTS (SELECT 1 FROM profile s JOIN delivery o ON o.dispatch_id = $2 AND o.profile_id = s.id
      WHERE s.workspace_id = $1 AND s.merged_into = person.person_id AND o.profile_id <> person.profile_id
        AND (o.state IN ('sending', 'sent', 'in_doubt')
          OR (person.merged_into IS NOT NULL AND o.profile_id < person.profile_id))) THEN 'DUPLICATE_ADDRESS'
    WHEN email_hash_now IS DISTINCT FROM email_hash THEN 'HELD'
  END AS reason
  FROM person)
UPDATE delivery d SET updated_at = now(),
  state = CASE WHEN decided.reason IS NULL THEN 'sending' WHEN decided.reason = 'HELD' THEN 'pending'
    ELSE 'skipped' END,
  reason = CASE WHEN decided.reason <> 'HELD' THEN decided.reason END,
  claim_id = CASE WHEN decided.reason IS NULL THEN d.claim_id END,
  address_hash = CASE WHEN decided.reason IS NULL THEN decided.email_hash_now ELSE d.address_hash END,
  attempt = CASE WHEN decided.reason IS NULL THEN d.attempt + 1 ELSE d.attempt END,
  message_id = CASE WHEN decided.reason IS NULL THEN decided.message_id ELSE d.message_id END,
  first_attempt_at = CASE WHEN decided.reason IS NULL THEN decided.first_attempt_at ELSE d.first_attempt_at END
FROM decided
WHERE d.dispatch_id = $2 AND d.ctid = decided.place
RETURNING d.profile_id, d.device_id, d.state
"""
# Ordered by id before they are locked, so that two groups cannot wait for each other. Found by key, not by ctid: when
# the sweeper parks a row while this waits for its lock, the row has moved, and a known outcome would be lost. `late`:
# the dispatch was finished already (KEY SHARE waits for one that is being finished), so its counts are counted again;
# nobody would try then what is deferred, so it stays in doubt, with the answer, for a person or a record to settle.
RECORD = """
WITH run AS MATERIALIZED (SELECT finished_at FROM dispatch WHERE workspace_id = $1 AND id = $2 FOR KEY SHARE),
result AS (
  SELECT r.* FROM unnest($3::int[], $4::bigint[], $5::int[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::interval[], $13::bool[])
    AS r (profile_id, device_id, fence, state, reason, detail, provider_id, retry_in, counts)),
mine AS MATERIALIZED (
  SELECT result.*, result.state = 'deferred' AND run.finished_at IS NOT NULL AS too_late,
    result.state = 'deferred' AND d.first_attempt_at + $12 < now() + result.retry_in AS given_up
  FROM run CROSS JOIN result
  JOIN delivery d ON d.dispatch_id = $2 AND d.profile_id = result.profile_id AND d.device_id = result.device_id
  WHERE d.workspace_id = $1 AND d.profile_id = ANY($3) AND d.fence = result.fence AND d.state = ANY($11::text[])
  ORDER BY d.profile_id FOR UPDATE OF d),
done AS (
  UPDATE delivery d SET reason = mine.reason, detail = mine.detail, provider_id = mine.provider_id, claim_id = NULL,
    state = CASE WHEN mine.too_late THEN 'in_doubt' WHEN mine.given_up THEN 'failed' ELSE mine.state END,
    not_before = CASE WHEN NOT (mine.too_late OR mine.given_up) THEN now() + mine.retry_in END, updated_at = now(),
    sent_at = CASE WHEN mine.state = 'sent' THEN now() END,
    attempt = CASE WHEN mine.counts THEN d.attempt ELSE d.attempt - 1 END
  FROM mine WHERE d.dispatch_id = $2 AND d.profile_id = ANY($3) AND d.profile_id = mine.profile_id
    AND d.device_id = mine.device_id
  RETURNING 1),
late AS (
  UPDATE dispatch r SET dirty = true FROM run WHERE r.workspace_id = $1 AND r.id = $2 AND run.finished_at IS NOT NULL)
SELECT count(*) FROM done
"""


GIVE_UP_AFTER = timedelta(days=4)
"""A message deferred for this long since its first attempt has failed (RFC 5321 4.5.4.1: 4 to 5 days)."""
AFTER_INTENT = (DeliveryState.SENDING, DeliveryState.IN_DOUBT)
"""An outcome may still settle a row the sweeper parked, as long as the fence is its own (R4)."""
BEFORE_INTENT = (DeliveryState.CLAIMED,)


async def intend(
    connection: Connection,
    *,
    workspace_id: UUID,
    dispatch_id: UUID,
    claim_id: int,
    ready: Sequence[Intent],
    consent_matters: bool,
    test: bool,
) -> set[tuple[int, int]]:
    """Commit the intent to send and say which (profile, device) may leave now; the others are settled in the ledger.

    A row whose lease ended or whose fence moved on is left out: somebody else has it.
    """
    rows = await connection.fetch(
        INTEND,
        workspace_id,
        dispatch_id,
        claim_id,
        [one.profile_id for one in ready],
        [one.device_id for one in ready],
        [one.fence for one in ready],
        [one.message_id for one in ready],
        consent_matters,
        test,
        [one.first_attempt_at for one in ready],
        [one.email_hash for one in ready],
        BEFORE_INTENT,
    )
    return {(row["profile_id"], row["device_id"]) for row in rows if row["state"] == DeliveryState.SENDING}


async def record(
    connection: Connection,
    *,
    workspace_id: UUID,
    dispatch_id: UUID,
    results: Sequence[Result],
    found_in: tuple[DeliveryState, ...] = AFTER_INTENT,
) -> int:
    """Write outcomes where the fence is still ours; answers how many were written."""
    written: int = await connection.fetchval(
        RECORD,
        workspace_id,
        dispatch_id,
        [one.profile_id for one in results],
        [one.device_id for one in results],
        [one.fence for one in results],
        [one.state.value for one in results],
        [one.reason for one in results],
        [one.detail for one in results],
        [one.provider_id for one in results],
        [one.retry_in for one in results],
        [state.value for state in found_in],
        GIVE_UP_AFTER,
        [one.counts for one in results],
    )
    return written


# --- sweeping ---------------------------------------------------------------------------------------------------

LOCK_EXPIRED_CLAIM = """
SELECT dispatch_id FROM claim WHERE workspace_id = $1 AND id = $2 AND lease_until < now() FOR UPDATE SKIP LOCKED
"""
RELEASE = """
UPDATE delivery SET claim_id = NULL, updated_at = now(),
  state = CASE WHEN state = 'claimed' THEN 'pending' ELSE 'in_doubt' END,
  reason = CASE WHEN state = 'sending' THEN 'WORKER_LOST' END,
  detail = CASE WHEN state = 'sending' THEN 'The worker ended while this message was leaving; it may have arrived.' END
WHERE workspace_id = $1 AND dispatch_id = $2 AND claim_id = $3 AND state IN ('claimed', 'sending')
"""
FORGET_CLAIM = "DELETE FROM claim WHERE workspace_id = $1 AND id = $2"
WAKE_DEFERRED = """
WITH due AS (
  SELECT ctid AS place FROM delivery WHERE dispatch_id = $2 AND state = 'deferred' AND not_before <= now()
  ORDER BY not_before LIMIT $3 FOR UPDATE SKIP LOCKED)
UPDATE delivery d SET state = 'pending', not_before = NULL, updated_at = now()
FROM due WHERE d.workspace_id = $1 AND d.dispatch_id = $2 AND d.ctid = due.place
"""
# Skipping the rest of a cancelled or expired dispatch, some at a time: a million at once would be a long transaction.
CLOSE_PENDING = """
WITH waiting AS (
  SELECT ctid AS place FROM delivery WHERE dispatch_id = $2 AND state = 'pending' LIMIT $4 FOR UPDATE SKIP LOCKED),
deferred AS (
  SELECT ctid AS place FROM delivery WHERE dispatch_id = $2 AND state = 'deferred' LIMIT $4 FOR UPDATE SKIP LOCKED),
picked AS (SELECT place FROM waiting UNION ALL SELECT place FROM deferred),
closed AS (
  UPDATE delivery d SET reason = $3, not_before = NULL, updated_at = now(),
    state = CASE WHEN d.state = 'deferred' THEN 'failed' ELSE 'skipped' END
  FROM picked WHERE d.workspace_id = $1 AND d.dispatch_id = $2 AND d.ctid = picked.place
  RETURNING 1)
SELECT count(*) FROM closed
"""
# Three looks at partial indexes; counting everything is for the end.
HAS_OPEN = """
SELECT EXISTS (SELECT 1 FROM delivery WHERE dispatch_id = $1 AND state = 'pending')
  OR EXISTS (SELECT 1 FROM delivery WHERE dispatch_id = $1 AND state = 'deferred')
  OR EXISTS (SELECT 1 FROM delivery WHERE dispatch_id = $1 AND state IN ('claimed', 'sending'))
"""


async def release_expired(connection: Connection, *, workspace_id: UUID, claim_id: int) -> bool:
    """Take back the rows of a claim whose lease ended: claimed ones are pending again (provably unsent), sending
    ones are in doubt. False when the claim is gone, alive or in another sweeper's hands."""
    dispatch_id = await connection.fetchval(LOCK_EXPIRED_CLAIM, workspace_id, claim_id)
    if dispatch_id is None:
        return False
    await connection.execute(RELEASE, workspace_id, dispatch_id, claim_id)
    await connection.execute(FORGET_CLAIM, workspace_id, claim_id)
    return True


async def wake_deferred(connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, limit: int) -> None:
    """Up to `limit` deferred deliveries whose time has come are pending again, those due first."""
    await connection.execute(WAKE_DEFERRED, workspace_id, dispatch_id, limit)


async def close_pending(
    connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, reason: SkipReason, limit: int
) -> int:
    """Settle messages that will not be tried (any more), up to `limit` of each state; answers how many."""
    closed: int = await connection.fetchval(CLOSE_PENDING, workspace_id, dispatch_id, reason.value, limit)
    return closed


async def has_open(connection: Connection, dispatch_id: UUID) -> bool:
    """Whether a message of the dispatch still waits, is on its way, or will be tried again."""
    found: bool = await connection.fetchval(HAS_OPEN, dispatch_id)
    return found
