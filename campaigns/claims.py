"""What a worker takes of a ledger, for how long, and what becomes of it when the worker is gone.

Workers read a ledger ahead, in the order of profiles: `dispatch.walked_through` says how far, and moves on under the
dispatch's lock. Reading changes no row. What was read and not sent when a claim ends is read again, for the walk goes
back to the first such row; what waits for its next attempt is found by its time. So no two workers read the same rows
but around such ends, and where they do, the fence lets only one of them send (intents.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from db.transactions import Connection


@dataclass(slots=True)  # one a message: to make a frozen one takes seven times as long
class Taken:
    """One message that a worker has read to send it, with the person it goes to as they are now."""

    profile_id: int
    device_id: int
    fence: int
    """As it was read; the intent raises it by one, and is refused when somebody else's has."""
    attempt: int
    """Attempts made before this one."""
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


# All of these name their rows by key and run with generic plans and without bitmap scans: a ledger that was written a
# second ago has no statistics yet, and a planner that guesses 15 rows reads the whole dispatch for each group.

OPEN_CLAIM = """
WITH made AS (
  INSERT INTO claim (workspace_id, dispatch_id, owner, lease_until) VALUES ($1, $2, $3, now() + $4) RETURNING id)
SELECT id FROM made
"""
# Only a claim whose lease still runs can be extended; a late worker finds out here. The sign of life can wait for the
# next time: whoever has the dispatch locked reads ahead or writes the ledger, and a lease is not to end behind them.
HEARTBEAT = """
WITH alive AS (
  UPDATE claim SET lease_until = now() + $3 WHERE workspace_id = $1 AND id = $2 AND lease_until > now()
  RETURNING dispatch_id),
free AS (
  SELECT d.id FROM dispatch d WHERE d.workspace_id = $1 AND d.id = (SELECT dispatch_id FROM alive)
  FOR NO KEY UPDATE SKIP LOCKED),
seen AS (UPDATE dispatch d SET heartbeat_at = now() FROM free WHERE d.workspace_id = $1 AND d.id = free.id)
SELECT count(*) = 1 FROM alive
"""
# Where the walk stands, with claim and dispatch locked, in this order everywhere. In a statement of its own, so that
# the next one sees what others have committed meanwhile. No row: the lease is over, or the campaign paused, cancelled
# or expired, else its rows would be read and left in a circle. A pause that commits later is seen by the intent.
LOOK = """
WITH held AS MATERIALIZED (
  SELECT id FROM claim WHERE workspace_id = $1 AND id = $3 AND lease_until > now() FOR NO KEY UPDATE)
SELECT r.walked_through FROM dispatch r JOIN campaign c ON c.workspace_id = r.workspace_id AND c.id = r.campaign_id
WHERE r.workspace_id = $1 AND r.id = $2 AND EXISTS (SELECT 1 FROM held)
  AND (r.kind = 'TEST' OR (c.status = 'SENDING' AND (c.expires_at IS NULL OR c.expires_at > now())))
FOR NO KEY UPDATE OF r
"""
# The people of what was taken, by their ids and apart from it: a join would need one look-up for each, or a plan that
# reads all people from the first one on. After the first column they are Taken's fields, in their order, as are those
# of TAKE_DUE and TAKE_NEXT: by name it takes 5 us a message more.
PEOPLE = """
SELECT p.merged_into, p.id, p.erased_at IS NOT NULL, p.external_id, p.email, p.email_hash, p.traits, p.locale,
  p.time_zone, p.country, p.city
FROM profile p WHERE p.workspace_id = $1 AND p.id = ANY($2::int[])
"""
EMAIL_HASH = 4
"""Its place among the fields that `read_people` answers."""
# Deferred messages whose time has come, those due first, but for those that were deferred under this very claim: a turn
# tries nobody twice. They stay deferred, and are due again when the lease would be over ($4): whoever took them may be
# gone by then.
TAKE_DUE = """
WITH due AS (
  SELECT d.ctid AS place FROM delivery d
  WHERE d.workspace_id = $1 AND d.dispatch_id = $2 AND d.not_before <= now() AND d.state = 'deferred'
    AND d.claim_id IS DISTINCT FROM $5
  ORDER BY d.not_before LIMIT $3 FOR UPDATE SKIP LOCKED),
taken AS (
  UPDATE delivery d SET not_before = now() + $4 FROM due WHERE d.dispatch_id = $2 AND d.ctid = due.place
  RETURNING d.profile_id, d.device_id, d.fence, d.attempt, d.first_attempt_at)
SELECT * FROM taken
"""
# The next pending ones after $4. All devices of a profile are taken together, so that the walk is told by profile. At
# the end of the ledger it rests at $6.
TAKE_NEXT = """
WITH taken AS MATERIALIZED (
  SELECT d.profile_id, d.device_id, d.fence, d.attempt, d.first_attempt_at FROM delivery d
  WHERE d.dispatch_id = $2 AND d.profile_id > $4 AND d.state = 'pending'
  ORDER BY d.profile_id FETCH FIRST ($5) ROWS WITH TIES),
walked AS (
  UPDATE dispatch r SET walked_through = coalesce((SELECT max(profile_id) FROM taken), $6)
  WHERE r.workspace_id = $1 AND r.id = $2),
begun AS (
  UPDATE claim c SET walked_from = $4 + 1
  WHERE c.workspace_id = $1 AND c.id = $3 AND (c.walked_from IS NULL OR c.walked_from > $4 + 1))
SELECT * FROM taken
"""
# First of all, as the sweeper does: a taking or an intent that is being committed, its answer unheard, holds the claim.
LOCK_CLAIM = "SELECT walked_from FROM claim WHERE workspace_id = $1 AND id = $2 FOR UPDATE"
# Back to the first message from $3 on that still waits. Nothing but `resolving` makes a message pending again, and it
# moves the walk itself: so a look that is a moment old finds too much at worst, never too little.
GO_BACK = """
WITH waiting AS MATERIALIZED (
  SELECT d.profile_id FROM delivery d WHERE d.dispatch_id = $2 AND d.profile_id >= $3 AND d.state = 'pending'
  ORDER BY d.profile_id LIMIT 1)
UPDATE dispatch r SET walked_through = waiting.profile_id - 1 FROM waiting
WHERE r.workspace_id = $1 AND r.id = $2 AND r.walked_through >= waiting.profile_id
"""
FORGET_CLAIM = "DELETE FROM claim WHERE workspace_id = $1 AND id = $2"
LOCK_EXPIRED_CLAIM = """
SELECT c.dispatch_id, c.walked_from,
  (SELECT r.repeats_on <> '{}' FROM dispatch r WHERE r.workspace_id = $1 AND r.id = c.dispatch_id) AS repeats
FROM claim c WHERE c.workspace_id = $1 AND c.id = $2 AND c.lease_until < now() FOR UPDATE OF c SKIP LOCKED
"""
# Reads the dispatch from end to end, for a worker that died; an index of claims would cost every message more.
PARK = """
UPDATE delivery SET state = 'in_doubt', reason = 'WORKER_LOST', updated_at = now(),
  detail = 'The worker ended while this message was leaving; it may have arrived.'
WHERE workspace_id = $1 AND dispatch_id = $2 AND claim_id = $3 AND state = 'sending'
"""
# Before that: what the platform shows once, however often it comes, is tried again (R10; dispatch.repeats_on).
REPEAT = """
UPDATE delivery d SET state = 'deferred', not_before = now(), reason = 'WORKER_LOST', updated_at = now()
FROM dispatch r, device v
WHERE d.workspace_id = $1 AND d.dispatch_id = $2 AND d.claim_id = $3 AND d.state = 'sending'
  AND r.workspace_id = $1 AND r.id = $2 AND v.workspace_id = $1 AND v.id = d.device_id
  AND v.platform = ANY(r.repeats_on)
"""
END_OF_WALK = 2**31 - 1


async def open_claim(
    connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, owner: UUID, lease: timedelta
) -> int:
    """A new lease by the database's clock; `owner` is the process's boot id."""
    claim: int = await connection.fetchval(OPEN_CLAIM, workspace_id, dispatch_id, owner, lease)
    return claim


async def extend_claim(connection: Connection, *, workspace_id: UUID, claim_id: int, lease: timedelta) -> bool:
    """Prolong a lease; False when it ended already, and then nothing taken under it may be sent."""
    alive: bool = await connection.fetchval(HEARTBEAT, workspace_id, claim_id, lease)
    return alive


async def take(
    connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, claim_id: int, lease: timedelta, limit: int
) -> list[Taken] | None:
    """About `limit` messages to send, with addresses as they are now: first those due again, then the next pending.

    Empty means that nothing is left to take now, not that the dispatch is finished. None: nothing may be taken, for the
    lease is over, or the campaign is not being sent. Many workers may call this at once.
    """
    walked_through = await connection.fetchval(LOOK, workspace_id, dispatch_id, claim_id)
    if walked_through is None:
        return None
    rows = await connection.fetch(TAKE_DUE, workspace_id, dispatch_id, limit, lease, claim_id)
    if len(rows) < limit and walked_through < END_OF_WALK:
        rest = limit - len(rows)
        ids = (workspace_id, dispatch_id, claim_id)
        rows += await connection.fetch(TAKE_NEXT, *ids, walked_through, rest, END_OF_WALK)
    people = await read_people(connection, workspace_id, (row["profile_id"] for row in rows))
    return [Taken(*row, *people[row["profile_id"]]) for row in rows if row["profile_id"] in people]


async def read_people(connection: Connection, workspace_id: UUID, ids: Iterable[int]) -> dict[int, tuple[Any, ...]]:
    """The fields of `Taken` that are a person's, by profile id; who was merged since the freeze stands as their winner.

    Unknown ids are left out. Winners are looked up until none leads on: one who is merged between two looks would else
    be taken for somebody without an address.
    """
    found: dict[int, Any] = {}
    asked = wanted = set(ids)
    while wanted:
        rows = {row["id"]: row for row in await connection.fetch(PEOPLE, workspace_id, list(wanted))}
        found |= rows
        wanted = {row["merged_into"] for row in rows.values()} - found.keys() - {None}
    people = {}
    for one in asked & found.keys():
        row = found[one]
        while row is not None and row["merged_into"] is not None:
            row = found.get(row["merged_into"])
        if row is not None:
            people[one] = row[1:]
    return people


async def go_back(connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, profile_id: int) -> None:
    """Have the walk begin again at the first message from `profile_id` on that still waits, if it is beyond that."""
    await connection.execute(GO_BACK, workspace_id, dispatch_id, profile_id)


async def wait_for_intents(connection: Connection, *, workspace_id: UUID, claim_id: int) -> None:
    """Come back when no intent or taking of the claim is being committed; none begins before this transaction ends."""
    await connection.execute(LOCK_CLAIM, workspace_id, claim_id)


async def close_claim(
    connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, claim_id: int, settled: bool
) -> None:
    """Leave what was taken and not begun to others, and end the lease.

    `settled`: every message that began to leave under the claim has its outcome written. Else the claim stays until the
    sweeper finds it: those messages may have left.
    """
    walked_from = await connection.fetchval(LOCK_CLAIM, workspace_id, claim_id)
    if walked_from is not None:
        await go_back(connection, workspace_id=workspace_id, dispatch_id=dispatch_id, profile_id=walked_from)
    if settled:
        await connection.execute(FORGET_CLAIM, workspace_id, claim_id)


async def release_expired(connection: Connection, *, workspace_id: UUID, claim_id: int) -> bool:
    """End a claim whose lease is over: what it had not begun is read again, what was leaving is in doubt, or goes again
    where a second copy would take the place of the first.

    False when the claim is gone, alive or in another sweeper's hands.
    """
    claim = await connection.fetchrow(LOCK_EXPIRED_CLAIM, workspace_id, claim_id)
    if claim is None:
        return False
    dispatch_id = claim["dispatch_id"]
    if claim["repeats"]:
        await connection.execute(REPEAT, workspace_id, dispatch_id, claim_id)
    await connection.execute(PARK, workspace_id, dispatch_id, claim_id)
    if claim["walked_from"] is not None:
        await go_back(connection, workspace_id=workspace_id, dispatch_id=dispatch_id, profile_id=claim["walked_from"])
    await connection.execute(FORGET_CLAIM, workspace_id, claim_id)
    return True
