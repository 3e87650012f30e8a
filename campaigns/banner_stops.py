"""For whom a banner, or everything in a placement, has stopped: what boards learn from tracking.

A stop is a row that is written once and never changed. What it means is decided by the rules of the moment: whoever
clicked is stopped while the rules say so, whoever reached a limit of 3 while the limit is 3 or less. Only profiles are
here; strangers are stopped by their own device.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from uuid import UUID

from pyroaring import BitMap

from campaigns.banner_rules import Limits
from db.idsets import unpack
from db.transactions import Connection, transaction

FOREVER = datetime.max.replace(tzinfo=UTC)
KEPT_AFTER = timedelta(days=1)
BATCH = 20_000

# Taken last, just before the commit: rows of a workspace become visible in the order of their seq, so that a reader who
# has seen one misses none before it. Without it the lower of two numbers may be committed later.
IN_ORDER = "SELECT pg_advisory_xact_lock(hashtextextended('banner_stop ' || $1::uuid::text, 0))"
# Who was merged since the token was made is stopped as who they are now. The join names the merged: a plan that is kept
# from when there were few people may read all whom it can find, and everybody would be too many.
WRITE = """
INSERT INTO banner_stop (workspace_id, subject_id, profile_id, reason, reached, until)
SELECT $1, u.subject_id, coalesce(p.merged_into, u.profile_id), u.reason, u.reached, coalesce(u.until, 'infinity')
FROM unnest($2::uuid[], $3::int[], $4::text[], $5::int[], $6::timestamptz[])
  AS u (subject_id, profile_id, reason, reached, until)
LEFT JOIN profile p ON p.workspace_id = $1 AND p.id = u.profile_id AND p.merged_into IS NOT NULL
ON CONFLICT DO NOTHING
"""
READ = """
SELECT s.subject_id, s.reason, s.reached, nullif(s.until, 'infinity') AS until, max(s.seq) AS last,
  string_agg(int4send(s.profile_id), ''::bytea) AS ids
FROM unnest($2::uuid[], $3::bigint[]) AS known (subject_id, after)
JOIN banner_stop s ON s.workspace_id = $1 AND s.subject_id = known.subject_id AND s.seq > known.after AND s.until > $4
GROUP BY s.subject_id, s.reason, s.reached, s.until
"""
INHERIT = """
INSERT INTO banner_stop (workspace_id, subject_id, profile_id, reason, reached, until)
SELECT $1, s.subject_id, $2, s.reason, s.reached, s.until FROM banner_stop s
WHERE s.workspace_id = $1 AND s.profile_id IN (SELECT id FROM profile WHERE workspace_id = $1 AND merged_into = $2)
ON CONFLICT DO NOTHING
"""
# Viewers whose uuid is a profile's id as a number are a range of the key.
RESTATE_LIFETIME = """
INSERT INTO banner_stop (workspace_id, subject_id, profile_id, reason, reached)
SELECT $1, $2, ('x' || right(t.viewer::text, 8))::bit(32)::int, 'LIFETIME', $3 FROM banner_tally t
WHERE t.workspace_id = $1 AND t.subject_id = $2 AND t.viewer < '00000000-0000-0000-0000-000080000000'
  AND t.impressions >= $3
ON CONFLICT DO NOTHING
"""
RESTATE_PER_DAY = """
INSERT INTO banner_stop (workspace_id, subject_id, profile_id, reason, reached, until)
SELECT $1, $2, ('x' || right(t.viewer::text, 8))::bit(32)::int, 'PER_DAY', $3, $4 FROM banner_tally t
WHERE t.workspace_id = $1 AND t.subject_id = $2 AND t.viewer < '00000000-0000-0000-0000-000080000000'
  AND t.on_last_day >= $3 AND t.last_day = $5
ON CONFLICT DO NOTHING
"""
FORGET = """
DELETE FROM banner_stop WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM banner_stop WHERE workspace_id = $1 AND until < $2 ORDER BY until LIMIT $3))
  AND workspace_id = $1
"""


class StopReason(StrEnum):
    """Why."""

    CLICKED = "CLICKED"
    DISMISSED = "DISMISSED"
    PER_DAY = "PER_DAY"
    LIFETIME = "LIFETIME"


@dataclass(frozen=True, slots=True)
class Stop:
    """What one kind of stop means for one banner or placement."""

    subject_id: UUID
    """A campaign's or a placement's."""
    reason: StopReason
    reached: int = 0
    """The limit it was written for, of PER_DAY and LIFETIME."""
    until: datetime = FOREVER
    """The end of the day, of PER_DAY."""

    def holds(self, limits: Limits, *, now: datetime) -> bool:
        """Whether it keeps a banner with these limits away from somebody at `now`."""
        match self.reason:
            case StopReason.CLICKED:
                return limits.stop_after_click
            case StopReason.DISMISSED:
                return limits.stop_after_dismissal
            case StopReason.LIFETIME:
                return limits.lifetime is not None and self.reached >= limits.lifetime
            case StopReason.PER_DAY:
                return limits.per_day is not None and self.reached >= limits.per_day and now < self.until


def day_of(instant: datetime) -> datetime:
    """Midnight at which its day of UTC began."""
    return datetime.combine(instant.astimezone(UTC).date(), time(), UTC)


async def write(connection: Connection, workspace_id: UUID, stops: Collection[tuple[Stop, int]]) -> None:
    """Stop each of these for a profile id, as the last statement of a transaction: it holds up others who do so."""
    if not stops:
        return
    await connection.execute(IN_ORDER, workspace_id)
    await connection.execute(
        WRITE,
        workspace_id,
        [stop.subject_id for stop, _ in stops],
        [profile_id for _, profile_id in stops],
        [stop.reason.value for stop, _ in stops],
        [stop.reached for stop, _ in stops],
        [None if stop.until == FOREVER else stop.until for stop, _ in stops],
    )


async def read(
    connection: Connection, workspace_id: UUID, after: Mapping[UUID, int], *, now: datetime
) -> tuple[dict[Stop, BitMap], int]:
    """Whom the stops of some campaigns and placements stop that may hold at `now`, of each those that were written
    after a seq (0: all); and the seq after which to go on with all of them."""
    people: dict[Stop, BitMap] = {}
    last = max(after.values(), default=0)
    for row in await connection.fetch(READ, workspace_id, list(after), list(after.values()), now):
        stop = Stop(row["subject_id"], StopReason(row["reason"]), row["reached"], row["until"] or FOREVER)
        people[stop] = unpack(row["ids"])
        last = max(last, row["last"])
    return people, last


async def inherit(connection: Connection, workspace_id: UUID, winner_id: int) -> None:
    """What stopped for those who were merged into a profile stops for it; the last statement of a transaction."""
    await connection.execute(IN_ORDER, workspace_id)
    await connection.execute(INHERIT, workspace_id, winner_id)


async def restate(
    connection: Connection, workspace_id: UUID, subject_id: UUID, limits: Limits, *, now: datetime
) -> None:
    """Stop those who have reached limits that were just set or lowered; the last statement of a transaction."""
    await connection.execute(IN_ORDER, workspace_id)
    if limits.lifetime is not None:
        await connection.execute(RESTATE_LIFETIME, workspace_id, subject_id, limits.lifetime)
    if limits.per_day is not None:
        today = day_of(now)
        until = today + timedelta(days=1)
        await connection.execute(RESTATE_PER_DAY, workspace_id, subject_id, limits.per_day, until, today.date())


async def forget(workspace_id: UUID, *, now: datetime) -> int:
    """Delete stops of days that are over, a batch at most; how many there were."""
    async with transaction(workspace_id) as connection:
        status: str = await connection.execute(FORGET, workspace_id, now - KEPT_AFTER, BATCH)
    return int(status.split()[-1])
