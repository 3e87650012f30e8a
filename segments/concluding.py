"""What a full evaluation found becomes the members, or is held back, or is not wanted any more.

The pulse may have changed members of live segments while leaves were asked. Before a result is applied, whoever a
pulse evaluated since the result's snapshot is evaluated again, under the lock that keeps the next pulse out: so
neither takes back what the other did. In segments that are not live it moves members who were merged or erased, and
nobody else: those are evaluated again, with their winners.
"""

import logging
from array import array
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pyroaring import BitMap

from db.idsets import to_parameter
from db.transactions import Connection, transaction
from segments import following, guard, leases, membership, ranks
from segments.engines.base import Ranks
from segments.leases import Claimed, Instant
from segments.membership import Change
from segments.models import SegmentStatus
from segments.nodes import Ranking

logger = logging.getLogger(__name__)

LOCK_SEGMENT = """
SELECT status, definition_version FROM segment WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE
"""
LOCK_MINE = """
SELECT id FROM evaluation WHERE workspace_id = $1 AND id = $2 AND status = 'RUNNING' AND fence = $3 FOR UPDATE
"""
# Pulses that committed after a snapshot. The bound on `at` only saves reading old rows: no evaluation takes so long.
EVALUATED_SINCE = """
SELECT evaluated FROM pulse
WHERE workspace_id = $1 AND at > now() - interval '30 minutes'
  AND NOT pg_visible_in_snapshot(xact_id, $2::text::pg_snapshot)
"""
# Of those who were asked about by a pulse, whom the members of segments that stand still are to follow.
NO_MORE = """
SELECT id, merged_into FROM profile
WHERE workspace_id = $1 AND id = ANY($2::int[]) AND (merged_into IS NOT NULL OR erased_at IS NOT NULL)
"""
# Like leases.INSTANT: not before what was followed.
NOW = "SELECT greatest(clock_timestamp(), (SELECT through FROM pulse_clock WHERE workspace_id = $1))"
# What was held before is settled by this one.
SUCCEED = """
WITH superseded AS (
  UPDATE evaluation SET status = 'FAILED', error_code = 'SUPERSEDED',
    error = 'A later evaluation of the segment was applied; nothing is left to approve.'
  WHERE workspace_id = $1 AND segment_id = $3 AND status = 'HELD')
UPDATE evaluation SET status = 'SUCCEEDED', finished_at = clock_timestamp(), lease_until = NULL,
  duration_ms = extract(epoch FROM clock_timestamp() - started_at) * 1000,
  size = $4, added = $5, removed = $6, nodes = $7
WHERE workspace_id = $1 AND id = $2
"""
HOLD = """
WITH superseded AS (
  UPDATE evaluation SET status = 'FAILED', error_code = 'SUPERSEDED',
    error = 'A later evaluation of the segment is held in its place.'
  WHERE workspace_id = $1 AND segment_id = $3 AND status = 'HELD')
UPDATE evaluation SET status = 'HELD', finished_at = clock_timestamp(), lease_until = NULL,
  duration_ms = extract(epoch FROM clock_timestamp() - started_at) * 1000,
  size = $5, added = $6, removed = $7, nodes = $8, error_code = 'CHANGE_GUARD', error = $9
WHERE workspace_id = $1 AND id = $2 AND status = 'RUNNING' AND fence = $4
"""


@dataclass(frozen=True, slots=True)
class Result:
    """Who matches a segment, the sizes of its condition's parts, and the values that rank it, as of an instant."""

    matched: BitMap
    nodes: list[dict[str, Any]]
    ranks: Ranks | None
    instant: Instant


Again = Callable[[BitMap, Instant], Awaitable[Result]]
"""Evaluates some people once more, at another instant."""


class Held(Exception):
    """The change guard holds a result back."""

    def __init__(self, change: Change, before: int) -> None:
        super().__init__()
        self.change = change
        self.before = before


async def conclude(
    workspace_id: UUID, claimed: Claimed, result: Result, *, order: Ranking | None, again: Again
) -> bool | None:
    """Apply what was found and finish the evaluation, in one transaction; whether it was applied.

    False: it is held, or the segment changed meanwhile, and the evaluation says so. None: it is not this worker's any
    more. Raises what `again` raises.
    """
    try:
        async with transaction(workspace_id) as connection:
            return await apply(connection, workspace_id, claimed, result, order=order, again=again)
    except Held as held:
        await hold_back(workspace_id, claimed, result, held)
        return False


async def apply(
    connection: Connection,
    workspace_id: UUID,
    claimed: Claimed,
    result: Result,
    *,
    order: Ranking | None,
    again: Again,
) -> bool | None:
    """See `conclude`; raises Held, which undoes what was written of ranks."""
    segment = await connection.fetchrow(LOCK_SEGMENT, workspace_id, claimed.segment_id)
    if await connection.fetchval(LOCK_MINE, workspace_id, claimed.id, claimed.fence) is None:
        # Somebody else runs it, or closed it, and recorded why.
        logger.info("segment evaluation lost its lease", extra={"evaluation_id": claimed.id})
        return None
    refused = unwanted(segment["status"], segment["definition_version"], claimed)
    if refused is not None:
        await connection.execute(leases.FAIL, workspace_id, claimed.id, claimed.fence, *refused)
        return False
    stored = await membership.lock(connection, workspace_id=workspace_id, segment_id=claimed.segment_id)
    result = await corrected(connection, workspace_id, result, again, live=claimed.live)
    members, reranked = result.matched, BitMap()
    if order is not None and result.ranks is not None:
        ranked = await ranks.replace(
            connection,
            workspace_id=workspace_id,
            segment_id=claimed.segment_id,
            matched=result.matched,
            ranks=result.ranks,
            ranking=order,
        )
        members, reranked = ranked.members, ranked.reranked
    if stored is not None and not claimed.approved:
        require_guarded(claimed.change_guard, before=stored.members, after=members)
    change = await membership.apply(
        connection,
        workspace_id=workspace_id,
        segment_id=claimed.segment_id,
        members=members,
        reranked=reranked,
        reason="evaluation",
        now=result.instant.now,
        stored=stored,
    )
    sizes = (change.size, len(change.added), len(change.removed))
    await connection.execute(SUCCEED, workspace_id, claimed.id, claimed.segment_id, *sizes, result.nodes)
    if changed := change.added | change.removed:
        await following.follow(
            connection,
            workspace_id=workspace_id,
            segment_id=claimed.segment_id,
            changed=changed,
            now=result.instant.now,
        )
    return True


async def corrected(connection: Connection, workspace_id: UUID, result: Result, again: Again, *, live: bool) -> Result:
    """The result with whoever a pulse evaluated meanwhile, or moved, evaluated again, now that no pulse can follow."""
    late = await evaluated_since(connection, workspace_id, result.instant)
    if late and not live:
        late = await no_more(connection, workspace_id, late)
    if not late:
        return result
    now: datetime = await connection.fetchval(NOW, workspace_id)
    instant = replace(result.instant, now=max(now, result.instant.now))
    return amended(result, await again(late, instant), late)


async def hold_back(workspace_id: UUID, claimed: Claimed, result: Result, held: Held) -> None:
    """Record what was found and not applied."""
    assert claimed.change_guard is not None
    removed = len(held.change.removed)
    message = guard.sentence(claimed.change_guard, before=held.before, removed=removed)
    found = (held.change.size, len(held.change.added), removed, result.nodes, message)
    async with transaction(workspace_id) as connection:
        await connection.fetchrow(LOCK_SEGMENT, workspace_id, claimed.segment_id)
        await connection.execute(HOLD, workspace_id, claimed.id, claimed.segment_id, claimed.fence, *found)


# --- rules --------------------------------------------------------------------------------------------------------


def unwanted(status: str, definition_version: int, claimed: Claimed) -> tuple[str, str] | None:
    """Why a result is not applied, as code and sentence; None when it is."""
    if status != SegmentStatus.ACTIVE:
        return "SEGMENT_NOT_ACTIVE", f"The segment became {status} while it was evaluated."
    if definition_version != claimed.definition_version:
        return "DEFINITION_CHANGED", "The conditions were changed while they were evaluated; evaluate again."
    return None


def require_guarded(per_cent: int | None, *, before: BitMap, after: BitMap) -> None:
    """Raise Held when the change is more than the guard lets through."""
    removed = before - after
    if guard.holds(per_cent, before=len(before), removed=len(removed)):
        raise Held(Change(size=len(after), added=after - before, removed=removed), len(before))


async def evaluated_since(connection: Connection, workspace_id: UUID, instant: Instant) -> BitMap:
    """Whom pulses evaluated that committed after `instant`."""
    rows = await connection.fetch(EVALUATED_SINCE, workspace_id, instant.snapshot)
    return BitMap.union(*(BitMap.deserialize(row["evaluated"]) for row in rows)) if rows else BitMap()


async def no_more(connection: Connection, workspace_id: UUID, ids: BitMap) -> BitMap:
    """Those of `ids` who were merged or erased, and whom they were merged into."""
    rows = await connection.fetch(NO_MORE, workspace_id, to_parameter(ids))
    return BitMap([id for row in rows for id in row if id is not None])


def amended(result: Result, again: Result, late: BitMap) -> Result:
    """`result` with the verdict of `again` for `late`. The sizes of the parts stay as they were found."""
    return Result(
        (result.matched - late) | (again.matched & late),
        result.nodes,
        amended_ranks(result.ranks, again.ranks, late),
        again.instant,
    )


def amended_ranks(before: Ranks | None, again: Ranks | None, late: BitMap) -> Ranks | None:
    if before is None or again is None:
        return before
    values = {id: value for id, value in zip(before.ids, before.values, strict=True) if id not in late}
    values |= dict(zip(again.ids, again.values, strict=True))
    ids = sorted(values)
    return Ranks(array("I", ids), array("d", [values[id] for id in ids]))
