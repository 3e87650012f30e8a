"""What a change of members brings with it: live segments that name the changed one follow, and members who were merged
or erased are moved.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from itertools import groupby
from uuid import UUID

from pyroaring import BitMap

from db.idsets import to_parameter
from db.transactions import Connection
from profiles.changes import Moved
from profiles.identities import write_touched
from segments import evaluation, membership, ranks
from segments.bases import Stored
from segments.membership import Change
from segments.models import EvaluationCause

MOST_FOLLOWED = 10_000
"""People whose change is followed one by one; above that the segments that depend on it are evaluated as a whole."""

# Those that are not live follow at their own cadence.
LIVE_DEPENDENTS = """
SELECT s.id FROM segment_reference r JOIN segment s ON s.workspace_id = r.workspace_id AND s.id = r.segment_id
WHERE r.workspace_id = $1 AND r.uses_id = $2 AND s.live AND s.status = 'ACTIVE' AND s.type = 'DYNAMIC'
"""
# Whoever runs one of these began before the change. He waits for us here before he concludes, and then finds in `pulse`
# whom to ask about again. One that is queued is begun after us: begun now, it could end before we are seen.
HOLD_OPEN = """
SELECT id FROM evaluation WHERE workspace_id = $1 AND segment_id = ANY($2) AND status IN ('QUEUED', 'RUNNING')
ORDER BY id FOR SHARE
"""
TELL_RUNNING = "INSERT INTO pulse (workspace_id, at, evaluated) VALUES ($1, $2, $3)"
WITH_MEMBERS = "SELECT segment_id FROM segment_membership WHERE workspace_id = $1"


async def follow(
    connection: Connection, *, workspace_id: UUID, segment_id: UUID, changed: BitMap, now: datetime
) -> None:
    """Let the live segments that name this one follow a change of its members; call it in the change's transaction.

    Up to 10,000 people are left to the next pulse, more to full evaluations. Nothing happens when no live segment
    names it. The pulse's own changes need no call.
    """
    if not changed:
        return
    dependents = [row["id"] for row in await connection.fetch(LIVE_DEPENDENTS, workspace_id, segment_id)]
    if not dependents:
        return
    if len(changed) <= MOST_FOLLOWED:
        await write_touched(connection, workspace_id=workspace_id, profile_ids=to_parameter(changed))
        return
    await connection.fetch(HOLD_OPEN, workspace_id, dependents)
    await connection.execute(TELL_RUNNING, workspace_id, now, changed.serialize())
    await evaluation.request_many(connection, workspace_id, dependents, cause=EvaluationCause.DEPENDENCY, now=now)


async def segments_with_members(connection: Connection, workspace_id: UUID) -> list[UUID]:
    """Every segment that has members or had them, archived ones included."""
    return [row["segment_id"] for row in await connection.fetch(WITH_MEMBERS, workspace_id)]


async def move_members(
    connection: Connection, *, workspace_id: UUID, segment_ids: Collection[UUID], moved: Iterable[Moved], now: datetime
) -> list[Change]:
    """Take people who were merged or erased out of these segments; the winner of a merge enters where the loser was.

    For segments that nobody evaluates now: the person stays in until somebody does. `moved` in the order in which it
    happened. Returns what changed.
    """
    changes: list[Change] = []
    for merged, some in groupby(moved, key=lambda one: one.winner_id is not None):
        together = list(some)
        stored = await membership.locked(connection, workspace_id=workspace_id, segment_ids=segment_ids)
        wanted = {id: change for id, one in stored.items() if (change := replaced(one, together))}
        await membership.shift(
            connection, workspace_id, stored, wanted, reason="merged" if merged else "erased", now=now
        )
        await ranks.move(connection, workspace_id=workspace_id, segment_ids=list(stored), moved=together)
        changes += wanted.values()
    return changes


def concerned(moved: Iterable[Moved]) -> BitMap:
    """Whom merges and erasures are about, winners included."""
    ids = BitMap()
    for one in moved:
        ids.add(one.profile_id)
        if one.winner_id is not None:
            ids.add(one.winner_id)
    return ids


def replaced(stored: Stored, moved: Iterable[Moved]) -> Change:
    """What becomes of the members when each of `moved` in turn gives his place to the winner, if there is one."""
    together = list(moved)
    before = stored.among(concerned(together))
    after = before.copy()
    for one in together:
        if one.profile_id in after:
            after.remove(one.profile_id)
            if one.winner_id is not None:
                after.add(one.winner_id)
    added, removed = after - before, before - after
    return Change(stored.size + len(added) - len(removed), added, removed)
