"""The intent: right before messages leave, one commit says that they do, and looks once more whether they may.

What is asked differs between mail (here) and push notifications (push_intents.py): a `LastLook` each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from campaigns import claims
from campaigns.gates import EXCLUSION, excluded, gated, gates
from campaigns.ledger import WAITING
from campaigns.models import DeliveryState
from db.transactions import Connection


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class Intent:
    """A message that is ready to leave."""

    profile_id: int
    device_id: int
    fence: int
    """As the row was read."""
    first_attempt_at: datetime
    address_hash: bytes | None
    """Of the mail address it is made out to (one who moved meanwhile is read again), or of the device's token."""


@dataclass(frozen=True, slots=True)
class Intended:
    """What became of the messages of a group, by profile and device."""

    leaving: frozenset[tuple[int, int]]
    """Committed as sending: these may leave."""
    waiting: frozenset[tuple[int, int]]
    """Not now, and not settled either: somebody moved, the campaign is paused, or another worker has it."""


@dataclass(frozen=True, slots=True)
class LastLook:
    """The statements of a channel: a short one for the ordinary message, which is nearly every one, and a long one that
    decides about whatever the short one left alone.

    Every condition of the short one must hold for the long one to say the same. It names rows by key, and takes no lock
    of its own: an UPDATE that waits for a row looks at its conditions again. Parameters of both: workspace, dispatch,
    claim; arrays of profiles, devices and fences; whether consent matters, whether it is a test, which no state of the
    campaign holds up; arrays of first attempts and address hashes; states that wait; campaign.
    """

    ordinary: str
    rest: str
    by_mailbox: bool = False
    """Whether two may come to have the same."""


async def intend(
    connection: Connection,
    look: LastLook,
    *,
    workspace_id: UUID,
    campaign_id: UUID,
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
            [one.address_hash for one in some],
            WAITING,
            campaign_id,
        )

    rows = await connection.fetch(look.ordinary, *arguments(ready))
    leaving = {(row["profile_id"], row["device_id"]) for row in rows}
    rest = [one for one in ready if (one.profile_id, one.device_id) not in leaving]
    if not rest:
        return Intended(frozenset(leaving), frozenset())
    if look.by_mailbox:
        await connection.execute(LOCK_MOVED, dispatch_id)
        await make_way(connection, workspace_id=workspace_id, dispatch_id=dispatch_id, ready=rest)
    waiting = {(one.profile_id, one.device_id) for one in rest}
    for row in await connection.fetch(look.rest, *arguments(rest)):
        key = (row["profile_id"], row["device_id"])
        waiting.remove(key)
        if row["state"] == DeliveryState.SENDING:
            leaving.add(key)
    return Intended(frozenset(leaving), frozenset(waiting))


# --- mail ---------------------------------------------------------------------------------------------------------

# All that is asked of a group is asked once, by arrays: the planner expects ten and takes an index. So are its rows of
# the ledger, by their key, and then compared with the group by hashes. A plan is kept, and may have been made while the
# ledger was small; this one stays right, since the dispatch alone would read no less (test_ledger_plans.py).
# generate_subscripts, of which the planner expects a thousand, makes all else dear: going through all pairs, or one
# look-up a message, which cost a third more. In a CASE, or the planner would join what is asked.

# KEY SHARE on the claim keeps the sweeper from taking it away underneath. Somebody who neither moved nor was merged,
# nor won a merge, and whom no gate stops.
INTEND = (
    """
WITH run AS MATERIALIZED (
  SELECT c.topic FROM claim JOIN campaign c ON c.workspace_id = $1 AND c.id = $12
  WHERE claim.workspace_id = $1 AND claim.id = $3 AND claim.lease_until > now()
    AND ($8 OR (c.status = 'SENDING' AND (c.expires_at IS NULL OR c.expires_at > now())))
  FOR KEY SHARE OF claim),
living AS MATERIALIZED (
  SELECT p.id, p.email_hash FROM profile p
  WHERE p.workspace_id = $1 AND p.id = ANY($4) AND p.merged_into IS NULL AND p.erased_at IS NULL),
winner AS MATERIALIZED (
  SELECT lost.merged_into FROM profile lost WHERE lost.workspace_id = $1 AND lost.merged_into = ANY($4))"""
    + gated(hashes="$10", people="$4", matters="$7", topic="(SELECT topic FROM run)")
    + """
UPDATE delivery d SET state = 'sending', claim_id = $3, fence = d.fence + 1, attempt = d.attempt + 1, not_before = NULL,
  first_attempt_at = person.first_attempt_at, updated_at = now()
FROM (
  SELECT $4[n] AS id, ($5::bigint[])[n] AS device_id, ($6::int[])[n] AS fence, $10[n] AS email_hash,
    ($9::timestamptz[])[n] AS first_attempt_at
  FROM generate_subscripts($4, 1) AS n OFFSET 0) AS person
WHERE d.dispatch_id = $2 AND d.profile_id = ANY($4) AND d.profile_id = person.id AND d.device_id = person.device_id
  AND d.fence = person.fence AND d.state = ANY($11::text[]) AND d.address_hash IS NOT DISTINCT FROM person.email_hash
  AND EXISTS (SELECT FROM run)
  AND CASE WHEN (person.id, person.email_hash) IN (SELECT id, email_hash FROM living)
    AND person.id NOT IN (SELECT merged_into FROM winner)
  THEN CASE"""
    + gates(person="person", matters="$7")
    + """
  END IS NULL ELSE false END
RETURNING d.profile_id, d.device_id
"""
)
# One group of a dispatch at a time decides about people who moved or were merged: two who moved to one mailbox, in two
# groups, would else both find it free. In a statement of its own, so that the next one sees what the other has written.
LOCK_MOVED = "SELECT pg_advisory_xact_lock(hashtextextended('moved ' || $1::uuid::text, 0))"
# Who was written for these mailboxes and had nothing there. Mailbox by mailbox: a kept plan would else read the ledger.
WRITTEN_FOR = """
SELECT d.profile_id, u.address_hash FROM unnest($2::bytea[]) AS u (address_hash) CROSS JOIN LATERAL (
  SELECT o.profile_id FROM delivery o
  WHERE o.dispatch_id = $1 AND o.address_hash = u.address_hash AND o.state = ANY($3::text[]) OFFSET 0) AS d
"""
GIVE_UP = """
UPDATE delivery d SET address_hash = NULL
WHERE d.dispatch_id = $1 AND d.profile_id = ANY($2::int[]) AND d.address_hash = ANY($3::bytea[])
  AND d.state = ANY($4::text[])
"""
HAD_NOTHING = (*WAITING, DeliveryState.SKIPPED, DeliveryState.FAILED)


async def make_way(connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, ready: Sequence[Intent]) -> None:
    """Have whoever left a mailbox that one of these goes to, and had nothing there, give it up: else two who swap would
    each wait for the other's message.

    From then on the long statement decides about them too, wherever they live by then. Waits for an intent that is
    being committed for one of them. Two groups that so wait for each other are a deadlock, which the turn that loses it
    takes as an absence of PostgreSQL.
    """
    going: dict[bytes | None, set[int]] = {}
    for one in ready:
        going.setdefault(one.address_hash, set()).add(one.profile_id)
    mailboxes = list(going)
    rows = await connection.fetch(WRITTEN_FOR, dispatch_id, mailboxes, HAD_NOTHING)
    others = [(id, hash) for id, hash in rows if going[hash] - {id}]
    if not others:
        return
    people = await claims.read_people(connection, workspace_id, (id for id, _ in others))
    gone = [id for id, hash in others if id not in people or people[id][claims.EMAIL_HASH] != hash]
    if gone:
        await connection.execute(GIVE_UP, dispatch_id, gone, mailboxes, HAD_NOTHING)


# The last look, in full: each row goes to sending, to skipped with its reason, or stays as it is when the campaign is
# paused or the address has changed since it was read (HELD). Whoever moved since the freeze, or was merged, may have
# come to a mailbox, or be a person, that another row of the dispatch is for: of those that moved the lowest profile id
# keeps it. Who was merged into somebody whom the campaign excludes, or did when its audience was frozen, is spared too.
# A row that somebody else has locked is theirs.
INTEND_REST = (
    """
WITH ready AS (
  SELECT r.* FROM unnest($4::int[], $5::bigint[], $6::int[], $9::timestamptz[], $10::bytea[])
    AS r (profile_id, device_id, fence, first_attempt_at, email_hash)),
held AS MATERIALIZED (
  SELECT id FROM claim WHERE workspace_id = $1 AND id = $3 AND lease_until > now() FOR KEY SHARE),
run AS MATERIALIZED (
  SELECT c.status, c.topic, c.expires_at IS NOT NULL AND c.expires_at <= now() AS expired
  FROM campaign c WHERE c.workspace_id = $1 AND c.id = $12),
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
  FROM named CROSS JOIN run JOIN profile p ON p.workspace_id = $1 AND p.id = named.person_id)"""
    + gated(
        hashes="(SELECT array_agg(email_hash) FROM person)",
        people="(SELECT array_agg(id) FROM person)",
        matters="$7",
        topic="(SELECT topic FROM run)",
    )
    + """,
self AS MATERIALIZED (
  SELECT s.id, s.merged_into AS person_id FROM profile s
  WHERE s.workspace_id = $1 AND s.merged_into = ANY((SELECT array_agg(id) FROM person)::int[])
  UNION ALL SELECT DISTINCT id, id FROM person),"""
    + excluded(people="(SELECT array_agg(id) FROM person WHERE merged_into IS NOT NULL)")
    + """,
decided AS MATERIALIZED (
  SELECT person.*, CASE
    WHEN NOT $8 AND expired THEN 'EXPIRED'
    WHEN NOT $8 AND status = 'CANCELLED' THEN 'CANCELLED'
    WHEN NOT $8 AND status <> 'SENDING' THEN 'HELD'
    WHEN erased_at IS NOT NULL THEN 'ERASED'"""
    + EXCLUSION
    + """
    WHEN email_hash IS NULL THEN 'NO_ADDRESS'"""
    + gates(person="person", matters="$7")
    + """
    WHEN outdated THEN 'HELD'
    WHEN moved AND (place_in_mailbox > 1 OR EXISTS (SELECT 1 FROM delivery o WHERE o.dispatch_id = $2
      AND o.address_hash = person.email_hash AND o.profile_id <> person.profile_id)) THEN 'DUPLICATE_ADDRESS'
    WHEN EXISTS (SELECT 1 FROM self s JOIN delivery o ON o.dispatch_id = $2 AND o.profile_id = s.id
      WHERE o.profile_id = ANY((SELECT array_agg(id) FROM self)::int[])
        AND s.person_id = person.id AND o.profile_id <> person.profile_id
        AND (o.state IN ('sending', 'sent', 'in_doubt')
          OR (person.merged_into IS NOT NULL AND o.profile_id < person.profile_id))) THEN 'DUPLICATE_ADDRESS'
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
MAIL = LastLook(INTEND, INTEND_REST, by_mailbox=True)
