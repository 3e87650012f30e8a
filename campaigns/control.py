"""What people and the clock do to a campaign: schedule, pause, resume, cancel, reactivate, and the due moves."""

from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from campaigns import approval, lifecycle, sending
from campaigns.approval import ApprovalMissing
from campaigns.errors import CampaignError
from campaigns.models import Campaign, CampaignChannel, CampaignStatus, Dispatch, DispatchKind, MissedPolicy
from campaigns.push_guard import FOREIGN
from campaigns.reasons import PauseReason
from campaigns.wanted import check_time_zone
from db.transactions import Connection, transaction
from profiles.keys import Actor

S = CampaignStatus

# Since now what goes wrong counts anew, and the silence while it was paused is none.
RESUMED = """
UPDATE dispatch SET resumed_at = now(), heartbeat_at = now()
WHERE workspace_id = $1 AND campaign_id = $2 AND kind = 'SEND' RETURNING planned_at
"""
# Whoever resumes says that the credential is mended: what was refused for it is tried once more, to devices that are
# still there. Once, or tokens that are foreign indeed would stop the campaign at every resume.
TRY_FOREIGN_AGAIN = """
UPDATE delivery d SET state = 'deferred', not_before = now(), updated_at = now()
FROM dispatch r, device v
WHERE r.workspace_id = $1 AND r.campaign_id = $2 AND r.kind = 'SEND' AND d.workspace_id = $1 AND d.dispatch_id = r.id
  AND d.state = 'failed' AND d.reason = ANY($3) AND d.attempt = 1
  AND v.workspace_id = $1 AND v.id = d.device_id AND v.disabled_at IS NULL
"""
LIVE = (S.SCHEDULED, S.PREPARING, S.SENDING, S.PAUSED, S.ACTIVE)
"""What can expire."""
LONGEST_LATENESS = timedelta(days=30)


async def schedule(
    workspace_id: UUID,
    campaign_id: UUID,
    *,
    at: datetime | None = None,
    wall_time: str | None = None,
    now: datetime,
    time_zone: str | None = None,
    missed_policy: MissedPolicy | None = None,
    maximum_lateness: timedelta | None = None,
    by: Actor | None = None,
) -> Campaign:
    """Send (or show) at a future instant; a campaign that is scheduled already gets the new time.

    Either `at` is that instant, or `wall_time` what clocks in the campaign's time zone show then (2026-12-24T09:00).
    What sending needs of us is checked now, so that nobody finds out at night. `by` is who wants it. Raises
    CampaignError, naming the field, IllegalMove, and ApprovalMissing.
    """
    zone = check_time_zone(time_zone) if time_zone else None
    if maximum_lateness is not None and not timedelta(0) <= maximum_lateness <= LONGEST_LATENESS:
        message = "The maximum lateness is between 0 seconds and 30 days."
        raise CampaignError("OUT_OF_RANGE", message, field=("maximum_lateness_seconds",))
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        at = instant_of(at, wall_time, zone or campaign.time_zone)
        if at <= now:
            message = f"{at.isoformat()} is in the past; choose a later time, or send now with campaignSend."
            raise CampaignError("IN_THE_PAST", message, field=("at",) if wall_time is None else ("wall_time",))
        if campaign.expires_at and campaign.expires_at <= at:
            message = f"The campaign expires at {campaign.expires_at.isoformat()}, before it would start."
            raise CampaignError("EXPIRES_BEFORE_START", message, field=("at",))
        targeted = await sending.require_complete(connection, campaign, now=now)
        approval.note(campaign, by=by, now=now)
        await approval.require(connection, campaign, targeted=targeted)
        campaign.scheduled_at, campaign.time_zone = at, zone or campaign.time_zone
        campaign.missed_policy = missed_policy or campaign.missed_policy
        if maximum_lateness is not None:
            campaign.maximum_lateness_s = int(maximum_lateness.total_seconds())
        if campaign.status is not S.SCHEDULED:
            return await lifecycle.move(connection, campaign, S.SCHEDULED, now=now)
        await lifecycle.write(connection, campaign, now=now)
        return campaign


def instant_of(at: datetime | None, wall_time: str | None, zone: str) -> datetime:
    """The instant that one of both names; of a wall time that comes twice in autumn the first.

    Raises CampaignError when both or none are given, for what is no time, and for one that clocks leap over in spring.
    """
    if (at is None) == (wall_time is None):
        message = "Give either an instant (at) or a wall time (wallTime) in the campaign's time zone."
        raise CampaignError("ONE_TIME", message, field=("at",))
    if at is not None:
        return at
    try:
        wanted = datetime.fromisoformat(wall_time or "")
        if wanted.tzinfo is not None:
            raise ValueError("has an offset")
        instant = wanted.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        shown = instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    except (ValueError, OverflowError) as error:
        message = "Write a wall time like 2026-12-24T09:00, without an offset."
        raise CampaignError("NOT_A_TIME", message, field=("wall_time",)) from error
    if shown != wanted:
        message = f"Clocks in {zone} leap over {wanted:%H:%M} on that day; {shown:%H:%M} is the same instant."
        raise CampaignError("NO_SUCH_TIME", message, field=("wall_time",))
    return instant


async def unschedule(workspace_id: UUID, campaign_id: UUID, *, now: datetime) -> Campaign:
    """Back to DRAFT, to be edited; what waited for approval does so no more, what has it keeps it. Raises
    CampaignNotFound, IllegalMove."""
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        if campaign.status is S.PENDING_APPROVAL:
            campaign.approval = None
        campaign.scheduled_at = None
        return await lifecycle.move(connection, campaign, S.DRAFT, now=now)


async def cancel(workspace_id: UUID, campaign_id: UUID, *, now: datetime) -> Campaign:
    """Stop for good. Messages on their way end; everything else is skipped as CANCELLED by the workers."""
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        return await lifecycle.move(connection, campaign, S.CANCELLED, now=now)


async def pause(workspace_id: UUID, campaign_id: UUID, *, now: datetime, reason: str | None = None) -> Campaign:
    """Hold a campaign that is being sent or shown; effective before the next intent."""
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        if campaign.status is S.SCHEDULED:
            raise CampaignError(
                "ILLEGAL_MOVE", "A scheduled campaign is taken back with campaignUnschedule.", field=("id",)
            )
        return await lifecycle.move(connection, campaign, S.PAUSED, now=now, reason=PauseReason.BY_HAND, detail=reason)


async def resume(workspace_id: UUID, campaign_id: UUID, *, now: datetime) -> Campaign:
    """Go on where it stopped. Raises CampaignNotFound, and CampaignError unless it is paused and, where it needs
    approval, has it."""
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        if campaign.status is not S.PAUSED:
            message = f"Only a paused campaign can be resumed; this one is {campaign.status}."
            if campaign.status is S.CANCELLED and campaign.channel is CampaignChannel.BANNER:
                message += " campaignReactivate shows it again."
            raise CampaignError("ILLEGAL_MOVE", message, field=("id",))
        if campaign.status_reason == PauseReason.APPROVAL_MISSING:
            try:
                await approval.require(connection, campaign)
            except ApprovalMissing as refusal:
                raise CampaignError(refusal.code, refusal.held, field=("id",)) from refusal
        return await go_on(connection, campaign, now=now)


async def go_on(connection: Connection, campaign: Campaign, *, now: datetime) -> Campaign:
    """Out of PAUSED to where the work stands: to PREPARING while the dispatch is not fully written."""
    if campaign.channel is CampaignChannel.BANNER:
        return await lifecycle.move(connection, campaign, S.ACTIVE, now=now)
    planned_at = await connection.fetchval(RESUMED, campaign.workspace_id, campaign.id)
    if campaign.status_reason == PauseReason.TOKENS_GONE:
        await connection.execute(TRY_FOREIGN_AGAIN, campaign.workspace_id, campaign.id, sorted(FOREIGN))
    return await lifecycle.move(connection, campaign, S.SENDING if planned_at else S.PREPARING, now=now)


async def reactivate(workspace_id: UUID, campaign_id: UUID, *, now: datetime) -> Campaign:
    """Show a cancelled banner again (S3x-15); raises CampaignError unless it is complete and not expired."""
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        if campaign.status is not S.CANCELLED or campaign.channel is not CampaignChannel.BANNER:
            instead = "resume it" if campaign.status is S.PAUSED else "duplicate the campaign"
            message = f"Only a cancelled banner can be reactivated; this one is {campaign.status}: {instead} instead."
            raise CampaignError("ILLEGAL_MOVE", message, field=("id",))
        await sending.require_complete(connection, campaign, now=now)
        return await lifecycle.move(connection, campaign, S.ACTIVE, now=now)


async def act_on_time(workspace_id: UUID, campaign_id: UUID, *, now: datetime) -> Campaign | None:
    """Do what the clock asks of a campaign: start it, find it late, or let it expire; None when nothing was due.

    Every process may call it for the same campaign at once: the row is locked and read again.
    """
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.find_locked(workspace_id, campaign_id)
        if campaign is None:
            return None
        if campaign.expires_at and campaign.expires_at <= now:
            return await expire(connection, campaign, now=now)
        if campaign.status is not S.SCHEDULED or campaign.scheduled_at is None or campaign.scheduled_at > now:
            return None
        late = now - campaign.scheduled_at > timedelta(seconds=campaign.maximum_lateness_s)
        if late and campaign.missed_policy is not MissedPolicy.SEND:
            to = S.CANCELLED if campaign.missed_policy is MissedPolicy.SKIP else S.PAUSED
            detail = f"Due at {campaign.scheduled_at.isoformat()}, found at {now.isoformat()}."
            return await lifecycle.move(connection, campaign, to, now=now, reason="MISSED", detail=detail)
        return await start_due(connection, campaign, now=now)


async def start_due(connection: Connection, campaign: Campaign, *, now: datetime) -> Campaign:
    """Start a locked campaign whose time has come; what stands in the way is written on it as FAILED, with why, and as
    PAUSED when it is a second person's approval."""
    try:
        async with transaction(campaign.workspace_id):  # a savepoint: a refusal leaves nothing of the start behind
            return await sending.start_locked(connection, campaign, now=now)
    except ApprovalMissing as refusal:
        campaign = await lifecycle.get_locked(campaign.workspace_id, campaign.id)
        return await lifecycle.move(connection, campaign, S.PAUSED, now=now, reason=refusal.code, detail=refusal.held)
    except CampaignError as refusal:
        campaign = await lifecycle.get_locked(campaign.workspace_id, campaign.id)
        return await lifecycle.move(
            connection, campaign, S.FAILED, now=now, reason=refusal.code, detail=refusal.message
        )


async def expire(connection: Connection, campaign: Campaign, *, now: datetime) -> Campaign | None:
    """The end of a campaign's time: a banner ends, one not begun has failed, one being sent skips what is left."""
    if campaign.status not in LIVE:
        return None  # another process was first, or a person
    detail = f"It expired at {campaign.expires_at.isoformat()}." if campaign.expires_at else None
    if campaign.channel is CampaignChannel.BANNER:
        to = S.ENDED if campaign.status in (S.ACTIVE, S.PAUSED) else S.FAILED
        return await lifecycle.move(connection, campaign, to, now=now, reason="EXPIRED", detail=detail)
    begun = await Dispatch.filter(
        workspace_id=campaign.workspace_id, campaign_id=campaign.id, kind=DispatchKind.SEND
    ).exists()
    if not begun:
        return await lifecycle.move(connection, campaign, S.FAILED, now=now, reason="EXPIRED", detail=detail)
    if campaign.status is S.PAUSED:
        # Nothing leaves an expired campaign: the workers skip what is open, and it ends as SENT.
        return await go_on(connection, campaign, now=now)
    return None  # being prepared or sent: nothing leaves any more, and the workers close it
