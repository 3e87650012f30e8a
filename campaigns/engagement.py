"""Who received, opened or clicked campaigns: what conditions on engagement ask.

RECEIVED is a message that a provider accepted and that did not bounce (states sent, delivered, complained), at its
`sent_at`; OPENED and CLICKED are rows of delivery_event at their `occurred_at`, those of machines left out. Test sends
count for nothing. What was written to a profile that was merged later counts for its winner.

Whoever writes such rows (`campaigns.responses`, `campaigns.resolving`) says so, or live segments learn of them no
sooner than at their next full evaluation: `profiles.identities.write_touched` for the profiles, in the transaction that
writes an open, a click, or the state of a message that was sent before (bounced, complained, no more in doubt). A
message that is sent needs no such row, of which a campaign would write a million: `crossed` finds it by its time.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never
from uuid import UUID

import asyncpg
from pyroaring import BitMap

from campaigns.audience import merged
from campaigns.models import DeliveryEventKind, DeliveryState
from db.idsets import to_parameter, unpack
from db.roles import Role
from db.transactions import Connection, transaction_apart
from segments.engines.base import Look
from segments.engines.refusals import as_engine_errors
from segments.nodes import Did, Engagement, Period, Side, Time, Window

RECEIVED = (DeliveryState.SENT.value, DeliveryState.DELIVERED.value, DeliveryState.COMPLAINED.value)
KINDS = {Did.OPENED: DeliveryEventKind.OPEN, Did.CLICKED: DeliveryEventKind.CLICK}
LATE = timedelta(seconds=30)
"""How much later than its `sent_at` a message may be committed and still be found by `crossed`. It is the beginning of
the transaction that writes it, a statement or two, and every beat asks again about all of so long."""
TICK = timedelta(microseconds=1)

# What is not asked is null and falls away when the plan is made, which is for these values (`SETTINGS`): one text
# serves one campaign and all of them, any window, many people and few. A row a dispatch: one value of all could pass
# the gigabyte that a value may have, and people twice in it cost less in a bitmap than in a DISTINCT.
DELIVERED = """
SELECT string_agg(int4send(d.profile_id), ''::bytea) AS ids FROM delivery d
WHERE d.workspace_id = $1 AND d.state = ANY($2::text[]) AND d.sent_at IS NOT NULL
  AND ($3::uuid[] IS NULL OR d.dispatch_id = ANY($3)) AND ($4::uuid[] IS NULL OR d.dispatch_id <> ALL($4))
  AND ($5::timestamptz IS NULL OR d.sent_at >= $5) AND ($6::timestamptz IS NULL OR d.sent_at < $6)
  AND ($7::int[] IS NULL OR d.profile_id = ANY($7))
GROUP BY d.dispatch_id
"""
HAPPENED = """
SELECT string_agg(int4send(e.profile_id), ''::bytea) AS ids FROM delivery_event e
WHERE e.workspace_id = $1 AND e.kind = $2
  AND ($3::uuid IS NULL OR e.campaign_id = $3) AND ($4::uuid[] IS NULL OR e.dispatch_id <> ALL($4))
  AND ($5::timestamptz IS NULL OR e.occurred_at >= $5) AND ($6::timestamptz IS NULL OR e.occurred_at < $6)
  AND ($7::int[] IS NULL OR e.profile_id = ANY($7))
  AND (e.detail ->> 'machine') IS DISTINCT FROM 'true'
GROUP BY e.dispatch_id
"""
# Of one person, for several leaves: a row a leaf, whose kind is null for RECEIVED. Messages by dispatch and profile,
# their primary key, in one partition after the other (OFFSET 0 keeps it so); opens and clicks by profile.
LOOKS = """
WITH known AS MATERIALIZED (
  SELECT ARRAY(
      SELECT $2::int UNION ALL SELECT id FROM profile WHERE workspace_id = $1 AND merged_into = $2::int) AS people,
    ARRAY(SELECT id FROM dispatch WHERE workspace_id = $1 AND kind = 'TEST') AS tests)
SELECT count(found.at) AS times, max(found.at) AS latest
FROM unnest($3::int[], $4::text[], $5::uuid[], $6::timestamptz[], $7::timestamptz[])
  AS a (place, kind, campaign_id, since, until)
CROSS JOIN known k LEFT JOIN LATERAL (
  SELECT sent.at FROM dispatch s CROSS JOIN LATERAL (
    SELECT d.sent_at AS at FROM delivery d
    WHERE d.workspace_id = $1 AND d.dispatch_id = s.id AND d.profile_id = ANY(k.people) AND d.state = ANY($8::text[])
    OFFSET 0) AS sent
  WHERE a.kind IS NULL AND s.workspace_id = $1 AND s.kind = 'SEND'
    AND (a.campaign_id IS NULL OR s.campaign_id = a.campaign_id)
  UNION ALL
  SELECT e.occurred_at FROM delivery_event e
  WHERE e.workspace_id = $1 AND e.profile_id = ANY(k.people) AND e.kind = a.kind
    AND (a.campaign_id IS NULL OR e.campaign_id = a.campaign_id) AND e.dispatch_id <> ALL(k.tests)
    AND (e.detail ->> 'machine') IS DISTINCT FROM 'true') AS found
ON (a.since IS NULL OR found.at >= a.since) AND (a.until IS NULL OR found.at < a.until)
GROUP BY a.place ORDER BY a.place
"""
DISPATCHES = "SELECT id FROM dispatch WHERE workspace_id = $1 AND campaign_id = $2 AND kind = 'SEND'"
TESTS = "SELECT id FROM dispatch WHERE workspace_id = $1 AND kind = 'TEST'"
WINNERS = "SELECT id, merged_into FROM profile WHERE workspace_id = $1 AND merged_into IS NOT NULL"
WINNERS_OF_LOSERS = """
SELECT id, merged_into FROM profile WHERE workspace_id = $1 AND merged_into = ANY($2::int[])
"""
SETTINGS = {"transaction_read_only": "on", "work_mem": "64MB", "plan_cache_mode": "force_custom_plan"}


@dataclass(frozen=True, slots=True)
class Between:
    """[since, until), either of them open."""

    since: datetime | None = None
    until: datetime | None = None


class EngagementSource:
    """Answers `nodes.Engagement`: a LeafSource of segments over deliveries. `statement_timeout` bounds each query."""

    def __init__(self, *, statement_timeout: timedelta = timedelta(seconds=30)) -> None:
        self.statement_timeout = statement_timeout

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[Engagement], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        """See segments/sources.py. One query a leaf, one after the other."""
        async with self.reading(workspace_id) as connection:
            winners = await winners_of(connection, workspace_id, only)
            asked = None if only is None else only | BitMap(winners)
            people = None if asked is None else to_parameter(asked)
            tests = await tests_of(connection, workspace_id)
            answers = []
            for leaf in leaves:
                text, arguments = await question(connection, workspace_id, leaf, between(leaf.window, now), tests)
                answers.append(merged(union(await connection.fetch(text, *arguments, people)), winners))
        return answers if only is None else [answer & only for answer in answers]

    async def crossed(
        self, *, workspace_id: UUID, leaves: Sequence[Engagement], since: datetime, until: datetime
    ) -> BitMap:
        """See segments/sources.py; what was sent meanwhile is among them, windows or not."""
        found = BitMap()
        async with self.reading(workspace_id) as connection:
            for leaf in leaves:
                for moved in edges(leaf, since, until):
                    text, arguments = await question(connection, workspace_id, leaf, moved, None)
                    found |= union(await connection.fetch(text, *arguments, None))
            return merged(found, await winners_of(connection, workspace_id, None)) if found else found

    async def looks(
        self, *, workspace_id: UUID, leaves: Sequence[Engagement], now: datetime, profile_id: int
    ) -> list[Look]:
        """See segments/sources.py: {"count": 2, "last": "2026-03-01T09:30:00Z"} of the leaf's campaign and window. One
        query."""
        times = [between(leaf.window, now) for leaf in leaves]
        async with self.reading(workspace_id) as connection:
            rows = await connection.fetch(
                LOOKS,
                workspace_id,
                profile_id,
                list(range(len(leaves))),
                [None if leaf.did is Did.RECEIVED else KINDS[leaf.did].value for leaf in leaves],
                [leaf.campaign_id for leaf in leaves],
                [time.since for time in times],
                [time.until for time in times],
                RECEIVED,
            )
        return [look(row["times"], row["latest"]) for row in rows]

    @asynccontextmanager
    async def reading(self, workspace_id: UUID) -> AsyncIterator[Connection]:
        """A read-only transaction with this source's limits; what goes wrong in it is an EngineError."""
        timeout = {"statement_timeout": f"{self.statement_timeout / timedelta(milliseconds=1):.0f}ms"}
        seconds = f"{self.statement_timeout.total_seconds():g}"
        too_slow = f"A condition on campaigns took longer than {seconds} s; name one campaign, or narrow its window."
        with as_engine_errors(too_slow=too_slow):
            async with transaction_apart(workspace_id, role=Role.APP, settings=SETTINGS | timeout) as connection:
                yield connection


def look(times: int, latest: datetime | None) -> Look:
    last = None if latest is None else latest.isoformat().replace("+00:00", "Z")
    return Look(times > 0, {"count": times, "last": last})


async def question(
    connection: Connection, workspace_id: UUID, leaf: Engagement, time: Between, tests: list[UUID] | None
) -> tuple[str, tuple[object, ...]]:
    """The text for `leaf`, one of two, and its arguments but for the people."""
    if leaf.did is Did.RECEIVED:
        dispatches = None
        if leaf.campaign_id is not None:
            # Named, they keep the query to their partitions.
            dispatches = [row["id"] for row in await connection.fetch(DISPATCHES, workspace_id, leaf.campaign_id)]
        return DELIVERED, (workspace_id, RECEIVED, dispatches, tests, time.since, time.until)
    return HAPPENED, (workspace_id, KINDS[leaf.did].value, leaf.campaign_id, tests, time.since, time.until)


def union(rows: Iterable[asyncpg.Record]) -> BitMap:
    """The people of DELIVERED or HAPPENED."""
    found = BitMap()
    for row in rows:
        found |= unpack(row["ids"])
    return found


def between(time: Time | None, now: datetime) -> Between:
    """When a leaf's events were, seen from `now`."""
    match time:
        case None:
            return Between()
        case Period(since, until):
            return Between(since, until)
        case Window():
            edge = now - time.duration
            match time.side:
                case Side.WITHIN:
                    return Between(edge, now + TICK)
                case Side.BEFORE:
                    return Between(None, edge)
                case _:
                    assert_never(time.side)
        case _:
            assert_never(time)


def edges(leaf: Engagement, since: datetime, until: datetime) -> list[Between]:
    """Where in time the rows are whose part in `leaf` changed while now went from `since` to `until`."""
    found = []
    if isinstance(leaf.window, Window):
        moved = leaf.window.duration
        found.append(Between(since - moved, until - moved + TICK))
    if leaf.did is Did.RECEIVED:
        found.append(Between(since - LATE, until + TICK))
    return found


async def tests_of(connection: Connection, workspace_id: UUID) -> list[UUID]:
    """The dispatches that were tests."""
    return [row["id"] for row in await connection.fetch(TESTS, workspace_id)]


async def winners_of(connection: Connection, workspace_id: UUID, of: BitMap | None) -> dict[int, int]:
    """The profile that each merged one went into; with `of`, those that went into one of these.

    One step: merging leaves no chains (profiles/merging.py).
    """
    if of is None:
        return dict(await connection.fetch(WINNERS, workspace_id))
    return dict(await connection.fetch(WINNERS_OF_LOSERS, workspace_id, to_parameter(of)))
