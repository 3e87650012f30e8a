"""How far campaigns are, for whoever looks.

A dispatch under way is counted (tallies.py) once a second at most, and for a tenth of the time at most; in between
everybody is told what was found last.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from campaigns import tallies
from campaigns.models import CampaignStatus, DeliveryState, DispatchKind
from campaigns.tallies import LATELY, ReasonCount, Tally
from db.transactions import transaction

S = DeliveryState

MAX_AGE = timedelta(seconds=1)
REST = 10
"""Between two counts of a dispatch lie at least so many times what the last one took."""
STALLED_AFTER = timedelta(seconds=60)
MOST_ERRORS = 10
MOST_RUNS = 100

RunsKey: TypeAlias = tuple[UUID, DispatchKind]
"""Of which campaign, and what for."""

DISPATCHES = """
SELECT d.id, d.campaign_id, d.kind, d.content_version, d.audience_size, d.planned_at, d.no_address, d.finished_at,
  d.created_at, d.resumed_at, d.tally, d.counted_at, c.status, d.tally IS NOT NULL AND (
    (d.finished_at IS NOT NULL AND NOT d.dirty)
    OR d.counted_at > clock_timestamp() - greatest($4::interval, d.count_took * $5::int)) AS fresh,
  CASE WHEN d.planned_at IS NULL AND d.planned_through < 0 THEN clock_timestamp() END AS empty_at
FROM unnest($2::uuid[], $3::text[]) AS asked (campaign_id, kind)
CROSS JOIN LATERAL (
  SELECT id FROM dispatch WHERE workspace_id = $1 AND campaign_id = asked.campaign_id AND kind = asked.kind
    AND ($6::uuid IS NULL OR id = $6)
  ORDER BY id DESC LIMIT $7) AS newest
JOIN dispatch d ON d.workspace_id = $1 AND d.id = newest.id
JOIN campaign c ON c.workspace_id = $1 AND c.id = d.campaign_id ORDER BY d.id DESC
"""
# Messages that no worker has read yet (before all are written, everybody), no more than are worth all workers. Found by
# their key: the planner does not know the limit, and would expect a tenth of all there are.
OPEN_ROWS = """
WITH workers AS MATERIALIZED (SELECT workers_alive($3) AS alive),
waiting AS (
  SELECT FROM dispatch r JOIN delivery d ON d.dispatch_id = r.id AND d.profile_id > r.walked_through
  WHERE r.workspace_id = $1 AND r.campaign_id = $2 AND r.finished_at IS NULL LIMIT (SELECT alive * $4 FROM workers))
SELECT (SELECT alive FROM workers) AS alive, (SELECT count(*) FROM waiting) + coalesce((
  SELECT sum(audience_size) FROM dispatch
  WHERE workspace_id = $1 AND campaign_id = $2 AND finished_at IS NULL AND planned_at IS NULL), 0) AS open_rows
"""


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
    # Before the first chunk of its ledger is written there is nothing to count.
    known |= {row["id"]: (Tally.of([]), row["empty_at"]) for row in rows if row["empty_at"] is not None}
    stale = [row["id"] for row in rows if row["empty_at"] is None and (row["id"] not in known or not row["fresh"])]
    if stale:
        known |= await tallies.counted(workspace_id, stale, known)
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


async def workers_wanted(
    workspace_id: UUID, campaign_id: UUID, *, alive_within: timedelta, messages_a_worker: int
) -> int:
    """For how many workers a campaign has work: one for each so many messages that wait to be taken or to be written,
    at most as many as are alive, and at least one."""
    async with transaction(workspace_id, generic_plans=True) as connection:
        alive, rows = await connection.fetchrow(OPEN_ROWS, workspace_id, campaign_id, alive_within, messages_a_worker)
    wanted: int = min(alive, int(rows) // messages_a_worker)
    return max(1, wanted)
