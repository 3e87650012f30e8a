"""What the ledger of a dispatch adds up to: always a GROUP BY of its rows, never increments (R6).

A dispatch under way is counted for whoever looks, and the result kept on its row for everybody: a million rows take
half a second. A finished one keeps its counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg

from campaigns.deliveries import DeliveryKey
from campaigns.models import DeliveryState
from campaigns.reasons import explain
from db.transactions import Connection, transaction

S = DeliveryState

LATELY = timedelta(seconds=30)
"""How far back what was sent says how fast a dispatch is."""

# A lock of its own, not the row's: heartbeats, paces and plans must not wait for half a second of counting.
WAIT_TO_COUNT = "SELECT pg_advisory_xact_lock(hashtextextended('count ' || $1::uuid::text, 0))"
# The dispatches that nobody else is counting, all of them with $4, and since when what was sent says how fast they are:
# what was sent before a pause says nothing of the speed after it. What is counted next comes in a few rows, where the
# planner expects ten thousands, too dear for parallel workers to send: 300,000 messages would take twice as long. And
# how much it is differs each time.
OURS = """
WITH ours AS MATERIALIZED (
  SELECT u.id FROM unnest($2::uuid[]) AS u (id)
  WHERE $4 OR pg_try_advisory_xact_lock(hashtextextended('count ' || u.id::text, 0)))
SELECT r.id, greatest(now() - $3::interval, r.resumed_at) AS since, set_config('parallel_tuple_cost', '0', true),
  set_config('plan_cache_mode', 'force_custom_plan', true)
FROM ours JOIN dispatch r ON r.workspace_id = $1 AND r.id = ours.id
"""
# All that is to be known of them, in one look. `newest` is an example for each reason. No join: one dispatch after the
# other would be read by one process. Without the break before array_position sqlglot, which reads it in
# tests/db/test_layers.py, takes what stands between two $ of a line for a quotation.
COUNT = """
SELECT d.dispatch_id, d.state, d.reason, count(*) AS messages, max(d.updated_at) AS changed_at,
  count(*) FILTER (WHERE d.sent_at > ($3::timestamptz[])[
    array_position($2, d.dispatch_id)]) AS lately,
  min(d.not_before) AS next_at,
  max((d.updated_at, d.profile_id, d.device_id)) FILTER (WHERE d.reason IS NOT NULL) AS newest
FROM delivery d WHERE d.workspace_id = $1 AND d.dispatch_id = ANY($2::uuid[])
GROUP BY d.dispatch_id, d.state, d.reason
"""
# A count that began before its dispatch was finished comes too late to be kept, unless there is none: it was finished
# before counts were kept. What is answered is when that was, which is now.
KEEP = """
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at), kept AS (
  UPDATE dispatch d SET tally = u.tally, counted_at = clock.at, count_took = u.took,
    counts = CASE WHEN $5 THEN u.counts ELSE d.counts END, dirty = d.dirty AND NOT $5
  FROM unnest($2::uuid[], $3::jsonb[], $4::interval[], $6::jsonb[]) AS u (id, tally, took, counts), clock
  WHERE d.workspace_id = $1 AND d.id = u.id AND ($5 OR d.finished_at IS NULL OR d.dirty OR d.tally IS NULL))
SELECT at FROM clock
"""
# Locked, so that evidence which comes in between waits and marks the dispatch again.
DIRTY = """
SELECT id FROM dispatch WHERE workspace_id = $1 AND campaign_id = $2 AND dirty AND finished_at IS NOT NULL
ORDER BY id FOR NO KEY UPDATE
"""
STORED = """
SELECT id, counts FROM dispatch
WHERE workspace_id = $1 AND finished_at IS NOT NULL AND counts IS NOT NULL AND NOT dirty
"""
STATES = """
SELECT dispatch_id, state, count(*) AS deliveries FROM delivery
WHERE workspace_id = $1 AND dispatch_id = ANY($2) GROUP BY dispatch_id, state
"""


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """Messages of one state and reason."""

    state: DeliveryState
    reason: str
    explanation: str
    messages: int
    last_at: datetime
    """When the newest of them came to it."""
    example: DeliveryKey
    """The newest of them."""


@dataclass(frozen=True, slots=True)
class Tally:
    """A dispatch's ledger at one moment, added up."""

    states: Mapping[str, int]
    """Rows by state; absent ones are left out."""
    reasons: Sequence[ReasonCount]
    sent_lately: int
    """Sent within `LATELY` before, and since it last went on."""
    changed_at: datetime | None
    """When a row last changed at all."""
    settled_at: datetime | None
    """When a message was last tried, skipped or given up."""
    next_at: datetime | None
    """When the first of the deferred ones is tried again."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "Tally":
        """Out of the rows of COUNT."""
        states: dict[str, int] = {}
        for row in rows:
            states[row["state"]] = states.get(row["state"], 0) + row["messages"]
        reasons = [
            ReasonCount(
                state=DeliveryState(row["state"]),
                reason=row["reason"],
                explanation=explain(row["reason"]),
                messages=row["messages"],
                last_at=row["newest"][0],
                example=DeliveryKey(row["dispatch_id"], row["newest"][1], row["newest"][2]),
            )
            for row in rows
            if row["reason"] is not None
        ]
        settled = [row["changed_at"] for row in rows if row["state"] != S.PENDING]
        return cls(
            states=states,
            reasons=sorted(reasons, key=lambda one: (-one.messages, one.state, one.reason)),
            sent_lately=sum(row["lately"] for row in rows),
            changed_at=max((row["changed_at"] for row in rows), default=None),
            settled_at=max(settled, default=None),
            next_at=min((row["next_at"] for row in rows if row["next_at"]), default=None),
        )

    def to_json(self) -> dict[str, Any]:
        """What the dispatch keeps."""
        instants = {"changed_at": self.changed_at, "settled_at": self.settled_at, "next_at": self.next_at}
        return {
            "states": dict(self.states),
            "reasons": [
                [one.state, one.reason, one.messages, one.last_at.isoformat(), one.example.profile_id,
                 one.example.device_id]
                for one in self.reasons
            ],
            "sent_lately": self.sent_lately,
            **{name: at and at.isoformat() for name, at in instants.items()},
        }  # fmt: skip

    @classmethod
    def from_json(cls, dispatch_id: UUID, kept: Mapping[str, Any]) -> "Tally":
        """What `to_json` made."""
        return cls(
            states=kept["states"],
            reasons=[
                ReasonCount(
                    DeliveryState(state),
                    reason,
                    explain(reason),
                    messages,
                    datetime.fromisoformat(last_at),
                    DeliveryKey(dispatch_id, profile_id, device_id),
                )
                for state, reason, messages, last_at, profile_id, device_id in kept["reasons"]
            ],
            sent_lately=kept["sent_lately"],
            **{
                name: datetime.fromisoformat(kept[name]) if kept[name] else None
                for name in ("changed_at", "settled_at", "next_at")
            },
        )


Counted = tuple[Tally, datetime]
"""A dispatch's tally, and when it was so."""


async def counted(workspace_id: UUID, dispatch_ids: list[UUID], known: Mapping[UUID, Counted]) -> dict[UUID, Counted]:
    """Tallies that are counted and kept now; those of `known` that somebody else is counting are left out."""
    async with transaction(workspace_id) as connection:
        found = await count(connection, workspace_id, dispatch_ids)
    missing = sorted(set(dispatch_ids) - found.keys() - known.keys())
    if not missing:
        return found
    # Nothing else is held meanwhile, and in one order: two who wait do so in one direction only.
    async with transaction(workspace_id) as connection:
        for dispatch_id in missing:
            await connection.fetchval(WAIT_TO_COUNT, dispatch_id)
        return found | await count(connection, workspace_id, missing)


async def count(
    connection: Connection, workspace_id: UUID, dispatch_ids: Sequence[UUID], *, final: bool = False
) -> dict[UUID, Counted]:
    """Count dispatches and keep the results, as their final counts too with `final`. Without, those that somebody else
    is counting are left out."""
    began = monotonic()
    ours = await connection.fetch(OURS, workspace_id, list(dispatch_ids), LATELY, final)
    if not ours:
        return {}
    rows: dict[UUID, list[asyncpg.Record]] = {row["id"]: [] for row in ours}
    for row in await connection.fetch(COUNT, workspace_id, list(rows), [row["since"] for row in ours]):
        rows[row["dispatch_id"]].append(row)
    took = monotonic() - began
    tallies = {dispatch_id: Tally.of(found) for dispatch_id, found in rows.items()}
    sizes = [sum(tally.states.values()) for tally in tallies.values()]
    at: datetime = await connection.fetchval(
        KEEP,
        workspace_id,
        list(tallies),
        [tally.to_json() for tally in tallies.values()],
        # Each took as much of it as it has of the messages.
        [timedelta(seconds=took * size / max(sum(sizes), 1)) for size in sizes],
        final,
        [dict(tally.states) for tally in tallies.values()],
    )
    return {dispatch_id: (tally, at) for dispatch_id, tally in tallies.items()}


async def recount(workspace_id: UUID, campaign_id: UUID) -> None:
    """Count finished dispatches again whose ledger changed afterwards: an outcome that came late."""
    async with transaction(workspace_id) as connection:
        found = await connection.fetch(DIRTY, workspace_id, campaign_id)
        if found:
            await count(connection, workspace_id, [row["id"] for row in found], final=True)


async def verify(workspace_id: UUID) -> list[str]:
    """Sentences about finished dispatches whose stored counts differ from their ledger; empty when all agree."""
    wrong: list[str] = []
    async with transaction(workspace_id) as connection:
        stored = {row["id"]: row["counts"] for row in await connection.fetch(STORED, workspace_id)}
        ledger: dict[UUID, dict[str, int]] = {}
        for row in await connection.fetch(STATES, workspace_id, list(stored)) if stored else []:
            ledger.setdefault(row["dispatch_id"], {})[row["state"]] = row["deliveries"]
    for dispatch_id, counts in stored.items():
        if counts != ledger.get(dispatch_id, {}):
            wrong.append(f"dispatch {dispatch_id}: stored {counts}, ledger {ledger.get(dispatch_id, {})}")
    return wrong
