"""The ledger: one row a message, and the statements that change one on its way.

    pending | deferred -intend-> sending -record-> sent | deferred | failed | in_doubt
                       \\-> skipped (unsubscribed, suppressed, expired, cancelled) | failed (cannot be made)

Nothing is sent before its row is committed as `sending`; nothing that may have left is ever pending again by
itself (reference: the two generals; RFC 1047 for SMTP). The fence of a row grows with each intent, and an outcome is
written under the claim and the fence of its intent only (intents.py). Who reads which rows to send them is claims.py;
docs/states.md draws it, docs/adr/0005 and 0015 say why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from campaigns.models import DeliveryState
from campaigns.reasons import SkipReason
from db.transactions import Connection


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class Result:
    """What came of a message."""

    profile_id: int
    device_id: int
    fence: int
    """Of the row as it must be found."""
    state: DeliveryState
    reason: str | None = None
    detail: str | None = None
    provider_id: str | None = None
    retry_in: timedelta | None = None
    """With state deferred: how long to wait, by the database's clock."""
    counts: bool = True
    """Whether it was an attempt at this recipient; else the host was away, or nothing was begun."""


# --- outcomes ---------------------------------------------------------------------------------------------------

# Short and long, as intents are, and by the same kind of plan (intents.py). A message that was accepted while its row
# is `sending`. Such a row keeps its dispatch from being finished, so nothing of the dispatch need be known.
RECORD_SENT = """
UPDATE delivery d SET state = 'sent', sent_at = now(), provider_id = result.provider_id, reason = NULL, detail = NULL,
  updated_at = now()
FROM (
  SELECT ($3::int[])[n] AS profile_id, ($4::bigint[])[n] AS device_id, ($5::int[])[n] AS fence,
    ($6::text[])[n] AS provider_id
  FROM generate_subscripts($3::int[], 1) AS n OFFSET 0) AS result
WHERE d.dispatch_id = $1 AND d.profile_id = ANY($3) AND d.profile_id = result.profile_id
  AND d.device_id = result.device_id AND d.fence = result.fence AND d.claim_id = $2 AND d.state = ANY($7::text[])
RETURNING d.profile_id, d.device_id
"""
# Ordered by id before they are locked, so that two groups cannot wait for each other. Found by key: when the sweeper
# parks a row while this waits for its lock, the row has moved, and a known outcome would be lost. `late`: the dispatch
# was finished already (KEY SHARE waits for one that is being finished), so its counts are counted again; nobody would
# try then what is deferred, so it stays in doubt, with the answer, for a person or a record to settle.
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
  WHERE d.workspace_id = $1 AND d.profile_id = ANY($3) AND d.fence = result.fence AND d.claim_id = $14
    AND d.state = ANY($11::text[])
  ORDER BY d.profile_id FOR UPDATE OF d),
done AS (
  UPDATE delivery d SET reason = mine.reason, detail = mine.detail, provider_id = mine.provider_id,
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
# Settled without having been sent, such as one that cannot be made.
SETTLE_UNSENT = """
UPDATE delivery d SET state = result.state, reason = result.reason, detail = result.detail, not_before = NULL,
  updated_at = now()
FROM unnest($2::int[], $3::bigint[], $4::int[], $5::text[], $6::text[], $7::text[])
  AS result (profile_id, device_id, fence, state, reason, detail)
WHERE d.dispatch_id = $1 AND d.profile_id = ANY($2) AND d.profile_id = result.profile_id
  AND d.device_id = result.device_id AND d.fence = result.fence AND d.state = ANY($8::text[])
"""

GIVE_UP_AFTER = timedelta(days=4)
"""A message deferred for this long since its first attempt has failed (RFC 5321 4.5.4.1: 4 to 5 days)."""
WAITING = (DeliveryState.PENDING, DeliveryState.DEFERRED)
"""What an intent may begin with."""
AFTER_INTENT = (DeliveryState.SENDING, DeliveryState.IN_DOUBT)
"""An outcome may still settle a row the sweeper parked, as long as claim and fence are its own (R4)."""


async def record(
    connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, claim_id: int, results: Sequence[Result]
) -> int:
    """Write outcomes where claim and fence are still ours; answers how many were written."""
    ordered = sorted(results, key=lambda one: (one.profile_id, one.device_id))
    sent = [one for one in ordered if one.state is DeliveryState.SENT]
    done: set[tuple[int, int]] = set()
    if sent:
        rows = await connection.fetch(
            RECORD_SENT,
            dispatch_id,
            claim_id,
            [one.profile_id for one in sent],
            [one.device_id for one in sent],
            [one.fence for one in sent],
            [one.provider_id for one in sent],
            [DeliveryState.SENDING],
        )
        done = {(row["profile_id"], row["device_id"]) for row in rows}
    rest = [one for one in ordered if (one.profile_id, one.device_id) not in done]
    if not rest:
        return len(done)
    written: int = await connection.fetchval(
        RECORD,
        workspace_id,
        dispatch_id,
        [one.profile_id for one in rest],
        [one.device_id for one in rest],
        [one.fence for one in rest],
        [one.state.value for one in rest],
        [one.reason for one in rest],
        [one.detail for one in rest],
        [one.provider_id for one in rest],
        [one.retry_in for one in rest],
        AFTER_INTENT,
        GIVE_UP_AFTER,
        [one.counts for one in rest],
        claim_id,
    )
    return len(done) + written


async def settle_unsent(connection: Connection, *, dispatch_id: UUID, results: Sequence[Result]) -> None:
    """Write what became of messages that will not be sent, unless somebody has sent them or settled them since."""
    await connection.execute(
        SETTLE_UNSENT,
        dispatch_id,
        [one.profile_id for one in results],
        [one.device_id for one in results],
        [one.fence for one in results],
        [one.state.value for one in results],
        [one.reason for one in results],
        [one.detail for one in results],
        WAITING,
    )


# --- the end ----------------------------------------------------------------------------------------------------

LOCK_WALK = "SELECT walked_through FROM dispatch WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE"
# Skipping the rest of a cancelled or expired dispatch, some at a time: a million at once would be a long transaction.
# The walk goes on where the workers have left it; what they have read is skipped by their intents, or read again. The
# state is looked at again when the row is changed: a worker that read it too may have committed its intent meanwhile.
CLOSE_NEXT = """
WITH waiting AS MATERIALIZED (
  SELECT d.ctid AS place, d.profile_id FROM delivery d
  WHERE d.dispatch_id = $2 AND d.profile_id > $3 AND d.state = 'pending'
  ORDER BY d.profile_id FETCH FIRST ($4) ROWS WITH TIES),
walked AS (
  UPDATE dispatch r SET walked_through = coalesce((SELECT max(profile_id) FROM waiting), $3)
  WHERE r.workspace_id = $1 AND r.id = $2),
closed AS (
  UPDATE delivery d SET state = 'skipped', reason = $5, updated_at = now()
  FROM waiting WHERE d.workspace_id = $1 AND d.dispatch_id = $2 AND d.ctid = waiting.place AND d.state = 'pending'
  RETURNING 1)
SELECT count(*) FROM closed
"""
CLOSE_DEFERRED = """
WITH waiting AS (
  SELECT d.ctid AS place FROM delivery d
  WHERE d.dispatch_id = $2 AND d.not_before IS NOT NULL AND d.state = 'deferred' LIMIT $4 FOR UPDATE SKIP LOCKED),
closed AS (
  UPDATE delivery d SET state = 'failed', reason = $3, not_before = NULL, updated_at = now()
  FROM waiting WHERE d.workspace_id = $1 AND d.dispatch_id = $2 AND d.ctid = waiting.place
  RETURNING 1)
SELECT count(*) FROM closed
"""
# Two short looks first: somebody is at it, or something is deferred. To be sure that nothing is left all is read, as it
# is when it is counted at the end.
HAS_OPEN = """
SELECT EXISTS (SELECT 1 FROM claim WHERE workspace_id = $1 AND dispatch_id = $2)
  OR EXISTS (SELECT 1 FROM delivery WHERE dispatch_id = $2 AND not_before IS NOT NULL AND state = 'deferred')
  OR EXISTS (SELECT 1 FROM delivery WHERE dispatch_id = $2 AND state = ANY($3::text[]))
"""
OPEN = (*WAITING, DeliveryState.SENDING)


async def close_pending(
    connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, reason: SkipReason, limit: int
) -> int:
    """Settle messages that will not be tried (any more), up to `limit` of each state; answers how many.

    None: what is left is in workers' hands.
    """
    walked_through = await connection.fetchval(LOCK_WALK, workspace_id, dispatch_id)
    closed: int = await connection.fetchval(CLOSE_NEXT, workspace_id, dispatch_id, walked_through, limit, reason.value)
    closed += await connection.fetchval(CLOSE_DEFERRED, workspace_id, dispatch_id, reason.value, limit)
    return closed


async def has_open(connection: Connection, *, workspace_id: UUID, dispatch_id: UUID) -> bool:
    """Whether a message of the dispatch still waits, is on its way, or will be tried again; also while a worker holds a
    claim on it."""
    found: bool = await connection.fetchval(HAS_OPEN, workspace_id, dispatch_id, OPEN)
    return found
