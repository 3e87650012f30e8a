"""The ledger: one row a message, and the statements that change one on its way.

    pending | deferred -intend-> sending -record-> sent | deferred | failed | in_doubt
                       \\-> skipped (unsubscribed, suppressed, expired, cancelled) | failed (cannot be made)

Nothing is sent before its row is committed as `sending`; nothing that may have left is ever pending again by
itself (reference: the two generals; RFC 1047 for SMTP). The fence of a row grows with each intent, and an outcome is
written under the claim and the fence of its intent only. Who reads which rows to send them is claims.py;
docs/states.md draws it, docs/adr/0005 and 0015 say why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from campaigns.gates import gates
from campaigns.models import DeliveryState
from campaigns.reasons import SkipReason
from db.transactions import Connection


@dataclass(frozen=True, slots=True)
class Intent:
    """A message that is ready to leave."""

    profile_id: int
    device_id: int
    fence: int
    """As the row was read."""
    first_attempt_at: datetime
    email_hash: bytes | None
    """Of the address it is made out to: one who moved meanwhile is read again."""


@dataclass(frozen=True, slots=True)
class Intended:
    """What became of the messages of a group, by profile and device."""

    leaving: frozenset[tuple[int, int]]
    """Committed as sending: these may leave."""
    waiting: frozenset[tuple[int, int]]
    """Not now, and not settled either: somebody moved, the campaign is paused, or another worker has it."""


@dataclass(frozen=True, slots=True)
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


# Each of the two steps has a short statement for the ordinary message, which is nearly every one, and a long one that
# decides about whatever the short one left alone. Every condition of the short one must hold for the long one to say
# the same. The short ones name rows by key with generic plans, as those of claims.py, and take no lock of their own: an
# UPDATE that waits for a row looks at its conditions again.

# --- intents ----------------------------------------------------------------------------------------------------

# KEY SHARE on the claim keeps the sweeper from taking it away underneath. Somebody who neither moved nor was merged,
# nor won a merge, and whom no gate stops. Two conditions are written so that no other index than the one meant can be
# taken for them: the address (IS NOT DISTINCT FROM), and who was lost to whom (BETWEEN). $7: consent matters, $8: a
# test, which no state of the campaign holds up.
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
  AS ready (profile_id, device_id, fence, first_attempt_at, email_hash)
CROSS JOIN LATERAL (
  SELECT person.id, person.email_hash FROM profile person
  WHERE person.workspace_id = $1 AND person.id = ready.profile_id AND person.merged_into IS NULL
    AND person.erased_at IS NULL LIMIT 1) AS p
WHERE d.dispatch_id = $2 AND d.profile_id = ready.profile_id AND d.device_id = ready.device_id
  AND d.fence = ready.fence AND d.state = ANY($11::text[])
  AND p.email_hash = ready.email_hash AND d.address_hash IS NOT DISTINCT FROM ready.email_hash
  AND (SELECT lost.merged_into FROM profile lost WHERE lost.workspace_id = $1
    AND lost.merged_into BETWEEN p.id AND p.id ORDER BY lost.merged_into LIMIT 1) IS NULL
  AND CASE"""
    + gates(person="p", matters="$7", topic="run.topic")
    + """
  END IS NULL
RETURNING d.profile_id, d.device_id
"""
)
# One group of a dispatch at a time decides about people who moved or were merged: two who moved to one mailbox, in two
# groups, would else both find it free. In a statement of its own, so that the next one sees what the other has written.
LOCK_MOVED = "SELECT pg_advisory_xact_lock(hashtextextended('moved ' || $1::uuid::text, 0))"
# The last look, in full: each row goes to sending, to skipped with its reason, or stays as it is when the campaign is
# paused or the address has changed since it was read (HELD). Whoever moved since the freeze, or was merged, may have
# come to a mailbox, or be a person, that another row of the dispatch is for: of those that moved the lowest profile id
# keeps it. A row that somebody else has locked is theirs.
INTEND_REST = (
    """
WITH ready AS (
  SELECT r.* FROM unnest($4::int[], $5::bigint[], $6::int[], $9::timestamptz[], $10::bytea[])
    AS r (profile_id, device_id, fence, first_attempt_at, email_hash)),
held AS MATERIALIZED (
  SELECT id FROM claim WHERE workspace_id = $1 AND id = $3 AND lease_until > now() FOR KEY SHARE),
run AS MATERIALIZED (
  SELECT c.status, c.topic, c.expires_at IS NOT NULL AND c.expires_at <= now() AS expired
  FROM dispatch d JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id
  WHERE d.workspace_id = $1 AND d.id = $2),
mine AS MATERIALIZED (
  SELECT d.profile_id, d.device_id, d.address_hash, ready.first_attempt_at, ready.email_hash
  FROM ready
  JOIN delivery d ON d.dispatch_id = $2 AND d.profile_id = ready.profile_id AND d.device_id = ready.device_id
  WHERE d.profile_id = ANY($4) AND d.state = ANY($11::text[]) AND d.fence = ready.fence AND EXISTS (SELECT 1 FROM held)
  ORDER BY d.profile_id FOR UPDATE OF d SKIP LOCKED),
named AS MATERIALIZED (
  SELECT mine.*, own.merged_into, coalesce(own.merged_into, own.id) AS person_id
  FROM mine JOIN profile own ON own.workspace_id = $1 AND own.id = mine.profile_id),
person AS MATERIALIZED (
  SELECT named.profile_id, named.device_id, named.first_attempt_at, named.merged_into, run.*, p.id, p.email_hash,
    p.erased_at, p.email_hash IS DISTINCT FROM named.address_hash AS moved,
    p.email_hash IS DISTINCT FROM named.email_hash AS outdated,
    row_number() OVER (PARTITION BY p.email_hash ORDER BY named.profile_id) AS place_in_mailbox
  FROM named CROSS JOIN run JOIN profile p ON p.workspace_id = $1 AND p.id = named.person_id),
decided AS MATERIALIZED (
  SELECT person.*, CASE
    WHEN NOT $8 AND expired THEN 'EXPIRED'
    WHEN NOT $8 AND status = 'CANCELLED' THEN 'CANCELLED'
    WHEN NOT $8 AND status <> 'SENDING' THEN 'HELD'
    WHEN erased_at IS NOT NULL THEN 'ERASED'
    WHEN email_hash IS NULL THEN 'NO_ADDRESS'"""
    + gates(person="person", matters="$7", topic="person.topic")
    + """
    WHEN moved AND (place_in_mailbox > 1 OR EXISTS (SELECT 1 FROM delivery o WHERE o.dispatch_id = $2
      AND o.address_hash = person.email_hash AND o.profile_id <> person.profile_id)) THEN 'DUPLICATE_ADDRESS'
    WHEN EXISTS (SELECT 1 FROM profile s JOIN delivery o ON o.dispatch_id = $2 AND o.profile_id = s.id
      WHERE s.workspace_id = $1 AND s.merged_into = person.id AND o.profile_id <> person.profile_id
        AND (o.state IN ('sending', 'sent', 'in_doubt')
          OR (person.merged_into IS NOT NULL AND o.profile_id < person.profile_id))) THEN 'DUPLICATE_ADDRESS'
    WHEN outdated THEN 'HELD'
  END AS reason
  FROM person)
UPDATE delivery d SET updated_at = now(), not_before = NULL, reason = decided.reason,
  state = CASE WHEN decided.reason IS NULL THEN 'sending' ELSE 'skipped' END,
  claim_id = CASE WHEN decided.reason IS NULL THEN $3 ELSE d.claim_id END,
  fence = CASE WHEN decided.reason IS NULL THEN d.fence + 1 ELSE d.fence END,
  attempt = CASE WHEN decided.reason IS NULL THEN d.attempt + 1 ELSE d.attempt END,
  address_hash = CASE WHEN decided.reason IS NULL THEN decided.email_hash ELSE d.address_hash END,
  first_attempt_at = CASE WHEN decided.reason IS NULL THEN decided.first_attempt_at ELSE d.first_attempt_at END
FROM decided
WHERE d.dispatch_id = $2 AND d.profile_id = ANY($4) AND d.profile_id = decided.profile_id
  AND d.device_id = decided.device_id AND decided.reason IS DISTINCT FROM 'HELD'
RETURNING d.profile_id, d.device_id, d.state
"""
)
WAITING = (DeliveryState.PENDING, DeliveryState.DEFERRED)
"""What an intent may begin with."""


async def intend(
    connection: Connection,
    *,
    workspace_id: UUID,
    dispatch_id: UUID,
    claim_id: int,
    ready: Sequence[Intent],
    consent_matters: bool,
    test: bool,
) -> Intended:
    """Commit the intent to send and say who may leave now; whom the last look stops is settled in the ledger.

    A row whose fence moved on is somebody else's, and so are all when the lease has ended.
    """

    def arguments(some: Sequence[Intent]) -> tuple[object, ...]:
        return (
            workspace_id,
            dispatch_id,
            claim_id,
            [one.profile_id for one in some],
            [one.device_id for one in some],
            [one.fence for one in some],
            consent_matters,
            test,
            [one.first_attempt_at for one in some],
            [one.email_hash for one in some],
            WAITING,
        )

    rows = await connection.fetch(INTEND, *arguments(ready))
    leaving = {(row["profile_id"], row["device_id"]) for row in rows}
    rest = [one for one in ready if (one.profile_id, one.device_id) not in leaving]
    if not rest:
        return Intended(frozenset(leaving), frozenset())
    await connection.execute(LOCK_MOVED, dispatch_id)
    waiting = {(one.profile_id, one.device_id) for one in rest}
    for row in await connection.fetch(INTEND_REST, *arguments(rest)):
        key = (row["profile_id"], row["device_id"])
        waiting.remove(key)
        if row["state"] == DeliveryState.SENDING:
            leaving.add(key)
    return Intended(frozenset(leaving), frozenset(waiting))


# --- outcomes ---------------------------------------------------------------------------------------------------

# A message that was accepted while its row is `sending`. Such a row keeps its dispatch from being finished, so nothing
# of the dispatch need be known.
RECORD_SENT = """
UPDATE delivery d SET state = 'sent', sent_at = now(), provider_id = result.provider_id, reason = NULL, detail = NULL,
  updated_at = now()
FROM unnest($3::int[], $4::bigint[], $5::int[], $6::text[]) AS result (profile_id, device_id, fence, provider_id)
WHERE d.dispatch_id = $1 AND d.profile_id = result.profile_id AND d.device_id = result.device_id
  AND d.fence = result.fence AND d.claim_id = $2 AND d.state = ANY($7::text[])
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
WHERE d.dispatch_id = $1 AND d.profile_id = result.profile_id AND d.device_id = result.device_id
  AND d.fence = result.fence AND d.state = ANY($8::text[])
"""

GIVE_UP_AFTER = timedelta(days=4)
"""A message deferred for this long since its first attempt has failed (RFC 5321 4.5.4.1: 4 to 5 days)."""
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
