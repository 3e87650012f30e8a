"""How far campaigns are: always a GROUP BY of the ledger, never increments (R6).

A dispatch under way is counted for whoever looks, once a second at most and for a tenth of the time at most (a million
rows take half a second), and the result kept on its row for everybody. A finished one keeps its counts.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from campaigns.deliveries import DeliveryKey
from campaigns.models import CampaignStatus, DeliveryState, DispatchKind
from campaigns.reasons import explain
from db.transactions import Connection, transaction

S = DeliveryState

MAX_AGE = timedelta(seconds=1)
REST = 10
"""Between two counts of a dispatch lie at least so many times what the last one took."""
LATELY = timedelta(seconds=30)
STALLED_AFTER = timedelta(seconds=60)
MOST_ERRORS = 10
MOST_RUNS = 100

RunsKey: TypeAlias = tuple[UUID, DispatchKind]
"""Of which campaign, and what for."""

DISPATCHES = """
SELECT d.id, d.campaign_id, d.kind, d.content_version, d.audience_size, d.planned_at, d.no_address, d.finished_at,
  d.created_at, d.resumed_at, d.tally, d.counted_at, c.status, d.tally IS NOT NULL AND (
    (d.finished_at IS NOT NULL AND NOT d.dirty)
    OR d.counted_at > clock_timestamp() - greatest($4::interval, d.count_took * $5::int)) AS fresh
FROM unnest($2::uuid[], $3::text[]) AS asked (campaign_id, kind)
CROSS JOIN LATERAL (
  SELECT id FROM dispatch WHERE workspace_id = $1 AND campaign_id = asked.campaign_id AND kind = asked.kind
    AND ($6::uuid IS NULL OR id = $6)
  ORDER BY id DESC LIMIT $7) AS newest
JOIN dispatch d ON d.workspace_id = $1 AND d.id = newest.id
JOIN campaign c ON c.workspace_id = $1 AND c.id = d.campaign_id ORDER BY d.id DESC
"""
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


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the messages of a dispatch are. `audience` = `no_address` + all states, once it is planned."""

    audience: int
    planned_at: datetime | None
    """When the ledger was fully written; until then the counts still grow, and nothing is sent."""
    no_address: int
    pending: int
    """Waiting, or read by a worker and not begun."""
    sending: int
    deferred: int
    sent: int
    delivered: int
    bounced: int
    complained: int
    skipped: int
    failed: int
    in_doubt: int
    finished_at: datetime | None
    counted_at: datetime
    per_second: float
    """Messages sent in a second, over the last half minute or since it went on; 0 when nothing leaves."""
    ends_at: datetime | None
    """When the last message will have left, at this speed; None when nobody can tell."""
    stalled_since: datetime | None
    """Since when nothing moves though something should; None when all is well."""
    next_attempt_at: datetime | None
    """When the first deferred message is tried again."""
    reasons: Sequence[ReasonCount]
    """All messages that have a reason, the most frequent first."""

    @property
    def last_errors(self) -> list[ReasonCount]:
        """What went wrong, the latest first, at most 10 kinds."""
        wrong = [one for one in self.reasons if one.state in (S.FAILED, S.DEFERRED, S.IN_DOUBT)]
        return sorted(wrong, key=lambda one: one.last_at, reverse=True)[:MOST_ERRORS]


@dataclass(frozen=True, slots=True)
class Run:
    """A dispatch, and where its messages are."""

    id: UUID
    campaign_id: UUID
    kind: DispatchKind
    content_version: int
    created_at: datetime
    finished_at: datetime | None
    progress: Progress


def progress(row: Mapping[str, Any], tally: Tally, counted_at: datetime) -> Progress:
    """What a row of DISPATCHES and its ledger, as it was at `counted_at`, say together."""
    states = tally.states
    finished = row["finished_at"] is not None
    # Over the time since it began or went on, when that is shorter.
    began = max([counted_at - LATELY, *(at for at in (row["planned_at"], row["resumed_at"]) if at is not None)])
    seconds = max((counted_at - began).total_seconds(), 1.0)
    per_second = 0.0 if finished else tally.sent_lately / seconds
    waiting = states.get(S.PENDING, 0) + states.get(S.SENDING, 0)
    moving = not finished and (row["kind"] == "TEST" or row["status"] in (CampaignStatus.PREPARING, "SENDING"))
    ends_at = None
    if moving and per_second and row["planned_at"] is not None:
        left = timedelta(seconds=(waiting + states.get(S.DEFERRED, 0)) / per_second)
        ends_at = max(counted_at + left, tally.next_at or counted_at)
    planned = row["planned_at"] is not None
    signs = (row["created_at"], row["resumed_at"], row["planned_at"], tally.settled_at if planned else tally.changed_at)
    last_sign = max(at for at in signs if at is not None)
    # What only waits for its next attempt stands still as it should, until that is due.
    if not waiting and planned and states.get(S.DEFERRED) and tally.next_at is not None:
        last_sign = max(last_sign, tally.next_at)
    open_ = waiting > 0 or states.get(S.DEFERRED, 0) > 0 or not planned
    stalled = moving and open_ and counted_at - last_sign > STALLED_AFTER
    return Progress(
        audience=row["audience_size"],
        planned_at=row["planned_at"],
        no_address=row["no_address"],
        pending=states.get(S.PENDING, 0),
        sending=states.get(S.SENDING, 0),
        deferred=states.get(S.DEFERRED, 0),
        sent=states.get(S.SENT, 0),
        delivered=states.get(S.DELIVERED, 0),
        bounced=states.get(S.BOUNCED, 0),
        complained=states.get(S.COMPLAINED, 0),
        skipped=states.get(S.SKIPPED, 0),
        failed=states.get(S.FAILED, 0),
        in_doubt=states.get(S.IN_DOUBT, 0),
        finished_at=row["finished_at"],
        counted_at=counted_at,
        per_second=round(per_second, 2),
        ends_at=ends_at,
        stalled_since=last_sign if stalled else None,
        next_attempt_at=tally.next_at,
        reasons=tally.reasons,
    )


async def of_campaigns(
    workspace_id: UUID, campaign_ids: list[UUID], *, max_age: timedelta = MAX_AGE
) -> dict[UUID, Progress]:
    """Progress of the real sends by campaign id; campaigns never started are left out. Tests never count."""
    asked = [(campaign_id, DispatchKind.SEND) for campaign_id in campaign_ids]
    found = await of_dispatches(workspace_id, asked, max_age=max_age)
    return {run.campaign_id: run.progress for run in found}


async def runs(workspace_id: UUID, asked: Collection[RunsKey]) -> dict[RunsKey, list[Run]]:
    """The newest 100 dispatches of each campaign and kind, the newest first; those that have none are left out."""
    found: dict[RunsKey, list[Run]] = {}
    for run in await of_dispatches(workspace_id, asked, max_age=MAX_AGE):
        found.setdefault((run.campaign_id, run.kind), []).append(run)
    return found


async def of_test(workspace_id: UUID, campaign_id: UUID, dispatch_id: UUID) -> Progress | None:
    """Progress of one test send; None when the campaign has none of this id."""
    asked = [(campaign_id, DispatchKind.TEST)]
    found = await of_dispatches(workspace_id, asked, max_age=MAX_AGE, dispatch_id=dispatch_id)
    return found[0].progress if found else None


async def of_dispatches(
    workspace_id: UUID,
    asked: Collection[RunsKey],
    *,
    max_age: timedelta,
    dispatch_id: UUID | None = None,
) -> list[Run]:
    """Dispatches of these campaigns and kinds with their progress, as it was at most `max_age` ago or as it was last
    counted; newest first, only `dispatch_id` when it is given, and at most 100 of each."""
    ids, kinds = [campaign_id for campaign_id, _ in asked], [kind.value for _, kind in asked]
    rest = REST if max_age else 0
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(DISPATCHES, workspace_id, ids, kinds, max_age, rest, dispatch_id, MOST_RUNS)
    # One that was reopened has a tally of before, and no time it was so.
    known = {
        row["id"]: (Tally.from_json(row["id"], row["tally"]), row["counted_at"])
        for row in rows
        if row["tally"] is not None and row["counted_at"] is not None
    }
    stale = [row["id"] for row in rows if row["id"] not in known or not row["fresh"]]
    if stale:
        known |= await counted(workspace_id, stale, known)
    return [
        Run(
            id=row["id"],
            campaign_id=row["campaign_id"],
            kind=DispatchKind(row["kind"]),
            content_version=row["content_version"],
            created_at=row["created_at"],
            finished_at=row["finished_at"],
            progress=progress(row, *known[row["id"]]),
        )
        for row in rows
    ]


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


# Those that no worker has read yet; before all are written, everybody.
OPEN_ROWS = """
SELECT count(*) + coalesce((
  SELECT sum(audience_size) FROM dispatch
  WHERE workspace_id = $1 AND campaign_id = $2 AND finished_at IS NULL AND planned_at IS NULL), 0)
FROM (
  SELECT 1 FROM dispatch r JOIN delivery d ON d.dispatch_id = r.id AND d.profile_id > r.walked_through
  WHERE r.workspace_id = $1 AND r.campaign_id = $2 AND r.finished_at IS NULL LIMIT $3) AS waiting
"""


async def open_rows(workspace_id: UUID, campaign_id: UUID, *, limit: int) -> int:
    """Messages of a campaign that wait to be taken, or to be written, counted up to `limit`."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetchval(OPEN_ROWS, workspace_id, campaign_id, limit)
    return min(int(rows), limit)
