"""When a segment is evaluated next, and asking for what is due."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from db.transactions import transaction
from segments import evaluation
from segments.errors import SegmentError
from segments.models import Cadence, Evaluation, EvaluationCause

CRON = {
    Cadence.HOURLY: "0 * * * *",
    Cadence.DAILY: "0 0 * * *",
    Cadence.WEEKLY: "0 0 * * MON",
    Cadence.MONTHLY: "0 0 1 * *",
    Cadence.QUARTERLY: "0 0 1 1,4,7,10 *",
    Cadence.YEARLY: "0 0 1 1 *",
}
"""The cadences that have a calendar of their own, in the segment's time zone."""

MOST_CRON_CHARACTERS = 200
MOST_SET_BACK = timedelta(hours=3)
"""No clock is set back by more."""

LOCK_DUE = """
SELECT cadence, cron, time_zone FROM segment
WHERE workspace_id = $1 AND id = $2 AND next_run_at <= $3 AND status = 'ACTIVE' AND type = 'DYNAMIC'
FOR NO KEY UPDATE SKIP LOCKED
"""
SET_NEXT = "UPDATE segment SET next_run_at = $3 WHERE workspace_id = $1 AND id = $2"


def next_run(
    cadence: Cadence, *, cron: str | None, time_zone: str, segment_id: UUID, after: datetime
) -> datetime | None:
    """The first run later than `after`, in UTC; None when the cadence has none.

    Calendar cadences run at the start of the hour, day, week (Monday), month, quarter or year of `time_zone`, and
    CRON when its expression says; each segment a fixed while later, so that they do not all run at once. Where clocks
    go forward a skipped local time runs right after the gap, where they go back a repeated one runs once (HOURLY and
    other expressions of every hour run on in real time).
    """
    if cadence is Cadence.NEVER:
        return None
    expression = cron if cadence is Cadence.CRON else CRON[cadence]
    late = jitter(segment_id, cadence)
    found = first_after(expression or "", after - late, ZoneInfo(time_zone))
    return None if found is None else found + late


def first_after(expression: str, after: datetime, zone: ZoneInfo) -> datetime | None:
    """The first instant later than `after` at which a clock of `zone` shows a time of a cron expression, in UTC.

    The calendar is walked without a zone, and each of its times then looked up in the zone: CronSim, given a zone,
    leaves out 6:00 of "0 */6 * * *" on the days when Lord Howe changes its clocks (2.8, seen 2026-11).
    """
    shown = after.astimezone(zone).replace(tzinfo=None)
    if (after - MOST_SET_BACK).astimezone(zone).utcoffset() != (after + MOST_SET_BACK).astimezone(zone).utcoffset():
        shown -= MOST_SET_BACK  # what was shown already may be shown again
    every_hour = expression.split()[1] == "*"
    best: datetime | None = None
    for local in runs(expression, shown):
        first, *again = instants(local, zone, twice=every_hour)
        best = min((one for one in (best, first, *again) if one is not None and one > after), default=None)
        if first > after:
            break  # what the calendar has later comes later; before this one came only second times
    return best


def instants(local: datetime, zone: ZoneInfo, *, twice: bool) -> list[datetime]:
    """When a clock of `zone` shows `local`, in UTC; both times if it does so twice and `twice` is wanted.

    A time that it skips counts as shown when it skips it.
    """
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(zone).replace(tzinfo=None) != local:
        return [clock_change(second, first, zone)]
    return [first, second] if twice and second != first else [first]


def clock_change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The instant, to the second, at which the clocks of `zone` are changed between two others."""
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


def jitter(segment_id: UUID, cadence: Cadence) -> timedelta:
    """How much later than its calendar says a segment runs: always the same for one segment and cadence.

    Below a minute for CRON, whose writer named a minute; 10 minutes for HOURLY; an hour for the others.
    """
    match cadence:
        case Cadence.NEVER | Cadence.CRON:
            width = 60
        case Cadence.HOURLY:
            width = 600
        case Cadence.DAILY | Cadence.WEEKLY | Cadence.MONTHLY | Cadence.QUARTERLY | Cadence.YEARLY:
            width = 3600
    # The id's last bits are random; its first are a time, and alike for segments made together.
    return timedelta(seconds=segment_id.int % width)


def runs(expression: str, after: datetime) -> Iterator[datetime]:
    """Times later than `after` that match a cron expression; of a calendar without a zone when `after` has none."""
    return CronSim(expression, after)


def clean_cron(expression: str, *, field: tuple[str, ...] = ("cron",)) -> str:
    """The expression with single blanks; raises SegmentError INVALID_CRON unless it has five fields and ever runs."""
    fields = expression.split()
    try:
        if (
            len(fields) != 5
            or len(expression) > MOST_CRON_CHARACTERS
            or next(runs(" ".join(fields), datetime(2024, 1, 1, tzinfo=UTC)), None) is None
        ):
            raise CronSimError
    except CronSimError as e:
        message = (
            "This is no cron expression that ever runs; give five fields (minute, hour, day of month, month, day of"
            ' week), such as "30 6 * * MON-FRI".'
        )
        raise SegmentError("INVALID_CRON", message, field=field) from e
    return " ".join(fields)


async def request_due(workspace_id: UUID, segment_id: UUID, *, now: datetime) -> Evaluation | None:
    """The evaluation of a segment whose time has come, with its next run set; None when it has not, or not any more.

    Runs missed in the meantime are made up for by this one. Two callers at once: one of them gets None.
    """
    async with transaction(workspace_id) as connection:
        row = await connection.fetchrow(LOCK_DUE, workspace_id, segment_id, now)
        if row is None:
            return None
        following = next_run(
            Cadence(row["cadence"]), cron=row["cron"], time_zone=row["time_zone"], segment_id=segment_id, after=now
        )
        await connection.execute(SET_NEXT, workspace_id, segment_id, following)
        return await evaluation.request(workspace_id, segment_id, cause=EvaluationCause.CADENCE, now=now)
