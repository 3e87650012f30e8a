"""What the owner of the database sees, whoever holds up the application; asks again while PostgreSQL is away."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from killtest.waiting import until

SAFETY = """
SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
  current_setting('synchronous_commit') AS synchronous_commit, split_part(version(), ' ', 2) AS postgres
"""
STANDING = """
SELECT c.status, c.started_at, d.id AS dispatch_id, d.planned_at, d.finished_at, d.created_at,
  (SELECT coalesce(jsonb_object_agg(state, rows), '{}') FROM (
    SELECT state, count(*) AS rows FROM delivery WHERE dispatch_id = d.id GROUP BY state) AS by_state)::text AS states
FROM campaign c LEFT JOIN dispatch d ON d.workspace_id = c.workspace_id AND d.campaign_id = c.id AND d.kind = 'SEND'
WHERE c.workspace_id = $1 AND c.id = $2
"""
LEDGER = """
SELECT d.profile_id, d.state, d.reason, CASE WHEN d.first_attempt_at IS NOT NULL THEN
  format('<%s.%s.%s@%s>', replace(r.id::text, '-', ''), d.profile_id, d.device_id, r.message_domain) END AS message_id
FROM dispatch r JOIN delivery d ON d.dispatch_id = r.id WHERE r.id = $1
"""
SENDING = """
SELECT d.profile_id FROM delivery d JOIN claim c ON c.id = d.claim_id
WHERE d.dispatch_id = $1 AND c.owner = $2 AND d.state = 'sending'
"""
# Read by workers of this owner, alone at work, and not begun.
READ = """
SELECT d.profile_id FROM dispatch r JOIN delivery d ON d.dispatch_id = r.id AND d.profile_id <= r.walked_through
WHERE r.id = $1 AND d.state = 'pending' AND EXISTS (
  SELECT 1 FROM claim c WHERE c.dispatch_id = r.id AND c.owner = $2 AND c.walked_from <= d.profile_id)
"""
STARTS = "SELECT id, created_at FROM dispatch WHERE workspace_id = $1 AND campaign_id = $2 AND kind = 'SEND'"
OWNERS = "SELECT DISTINCT owner FROM claim"
CLAIMS_OF = "SELECT count(*) FROM claim WHERE owner = $1"
ALIVE = "SELECT boot_id FROM worker_process WHERE seen_at > now() - interval '30 seconds'"
# The dead announce no end. Nobody works when this is run.
FORGET_DEAD = "DELETE FROM worker_process"
NOW = "SELECT clock_timestamp()"
# The sweep is due at once when there is something for it: a lease that has ended, or a campaign that nobody sends.
HURRY = """
UPDATE turn SET taken_at = '-infinity' WHERE name = 'sweep' AND (
  EXISTS (SELECT 1 FROM claim WHERE lease_until < now())
  OR EXISTS (SELECT 1 FROM campaign WHERE status IN ('PREPARING', 'SENDING', 'CANCELLED') AND NOT EXISTS (
    SELECT 1 FROM claim)))
"""
HOLD_PLANNING = "LOCK TABLE delivery IN SHARE MODE"
WHO_PLANS = """
SELECT a.client_port FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.relation = 'delivery'::regclass AND l.mode = 'RowExclusiveLock' AND NOT l.granted AND a.client_port > 0
"""
OLDER_TRANSACTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start <= $1
"""
IN_TRANSACTION = """
SELECT client_port FROM pg_stat_activity WHERE application_name = 'muster' AND state LIKE 'idle in transaction%'
"""
ADDRESSES = "SELECT id, email FROM profile WHERE workspace_id = $1 AND email IS NOT NULL"
LAST_TICK = "SELECT taken_at FROM turn WHERE name = 'tick'"

AWAY = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a campaign is doing."""

    status: str
    started_at: datetime | None
    dispatch_id: UUID | None
    planned: bool
    finished: bool
    states: dict[str, int]

    @property
    def settled(self) -> int:
        """Messages that need nothing more."""
        return sum(self.states.get(state, 0) for state in ("sent", "failed", "skipped", "in_doubt"))


class Witness:
    """One connection as the owner, made again when it is lost."""

    def __init__(self, owner_url: str, *, hurried: bool) -> None:
        self._url = owner_url
        self._hurried = hurried
        self._connection: asyncpg.Connection | None = None

    async def rows(self, query: str, *arguments: object) -> Sequence[Any]:
        """Rows of a question that may be asked twice."""

        async def once() -> tuple[Sequence[Any]] | None:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(self._url)
                return (await self._connection.fetch(query, *arguments),)
            except (
                OSError,
                asyncpg.InterfaceError,
                asyncpg.PostgresConnectionError,
                asyncpg.OperatorInterventionError,
            ):
                await self.close()
                return None

        return (await until("PostgreSQL", once))[0]

    async def value(self, query: str, *arguments: object) -> Any:
        """The first column of the only row."""
        return (await self.rows(query, *arguments))[0][0]

    async def standing(self, workspace_id: UUID, campaign_id: UUID) -> Standing:
        """How the campaign is doing now; in a hurried yard this also makes the sweep due when it has work."""
        if self._hurried:
            await self.rows(HURRY)
        (row,) = await self.rows(STANDING, workspace_id, campaign_id)
        return Standing(
            status=row["status"],
            started_at=row["started_at"],
            dispatch_id=row["dispatch_id"],
            planned=row["planned_at"] is not None,
            finished=row["finished_at"] is not None,
            states=json.loads(row["states"]) if row["dispatch_id"] else {},
        )

    @asynccontextmanager
    async def planning_held(self) -> AsyncIterator[None]:
        """While inside, no row can be added to the ledger: who wants to waits, in the middle of PREPARING."""
        connection = await asyncpg.connect(self._url)
        try:
            async with connection.transaction():
                await connection.execute(HOLD_PLANNING)
                yield
        finally:
            await connection.close()

    async def older_transactions_ended(self, since: datetime) -> None:
        """Come back when no transaction is open that began before `since`."""

        async def none_is_older() -> bool:
            older: int = await self.value(OLDER_TRANSACTIONS, since)
            return older == 0

        await until("the end of older transactions", none_is_older)

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
