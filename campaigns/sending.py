"""Sends campaigns: `start` says yes or no at once, `deliver` does the work in bounded turns until it is done."""

import asyncio
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

from pyroaring import BitMap

from campaigns import (
    approval,
    audience,
    content,
    ending,
    lifecycle,
    placements,
    planning,
    push_planning,
    push_sizing,
    refreshing,
    runs,
    senders,
    sizing,
    tallies,
)
from campaigns.approval import ApprovalMissing
from campaigns.audience import TargetedSegments
from campaigns.banner_content import BannerContent
from campaigns.breaker import Pause
from campaigns.carrier import Carrier, EmailRun, PushRun, Run
from campaigns.errors import CampaignError, IllegalMove
from campaigns.mime import header_address
from campaigns.models import Campaign, CampaignChannel, CampaignStatus, Dispatch, DispatchKind
from campaigns.push_content import PushContent, repeats_on
from campaigns.reasons import PauseReason, SkipReason
from campaigns.senders import Origin
from campaigns.transmission import transmit
from db.transactions import Connection, transaction
from profiles.keys import Actor

S = CampaignStatus

STARTABLE = (S.DRAFT, S.SCHEDULED, S.PENDING_APPROVAL)
"""A paused campaign is resumed, a cancelled banner reactivated: never started a second time."""

# With the month of the dispatch's own id (a UUIDv7), so that its ledger rows have a partition at any hour of the year.
INSERT_DISPATCH = """
WITH made AS (
  INSERT INTO dispatch (workspace_id, campaign_id, kind, content, content_version, audience, audience_size,
    message_domain, repeats_on)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id)
SELECT id, ensure_month('delivery', uuid_extract_timestamp(id)) FROM made
"""
# Dispatches of a campaign with work left; tests are small and somebody waits for them, so they come first.
UNFINISHED = """
SELECT d.id, d.kind FROM dispatch d
WHERE d.workspace_id = $1 AND d.campaign_id = $2 AND d.finished_at IS NULL ORDER BY d.kind = 'SEND', d.id
"""
PREPARING = """
SELECT d.id FROM dispatch d JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id
WHERE d.workspace_id = $1 AND d.campaign_id = $2 AND d.kind = 'SEND' AND c.status = 'PREPARING'
"""
AUDIENCE = "SELECT audience FROM dispatch WHERE workspace_id = $1 AND id = $2"
# A sign of life, unless there was none for so long ($3) that a person has to say that it goes on. Whoever has the
# dispatch locked is one, and is not waited for: to find the twins of a ledger takes seconds.
SHOW_LIFE = """
WITH free AS (
  SELECT id FROM dispatch WHERE workspace_id = $1 AND id = $2 AND heartbeat_at > now() - $3::interval
  FOR NO KEY UPDATE SKIP LOCKED),
alive AS (UPDATE dispatch d SET heartbeat_at = now() FROM free WHERE d.workspace_id = $1 AND d.id = free.id)
SELECT EXISTS (SELECT 1 FROM dispatch WHERE workspace_id = $1 AND id = $2 AND heartbeat_at > now() - $3::interval)
"""


# --- starting -----------------------------------------------------------------------------------------------------


async def start(workspace_id: UUID, campaign_id: UUID, *, now: datetime, by: Actor | None = None) -> Campaign:
    """Begin to send, or to show when it is a banner; from here on content and audience are frozen.

    Answers at once for any audience: the ledger is written by the workers, and it is they who ask the mail server what
    it takes. `by` is who wants it. Raises CampaignNotFound, IllegalMove, TargetError (a segment cannot be used now),
    ApprovalMissing, and CampaignError (something is missing or too late).
    """
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        approval.note(campaign, by=by, now=now)
        return await start_locked(connection, campaign, now=now)


async def start_locked(connection: Connection, campaign: Campaign, *, now: datetime) -> Campaign:
    """`start` for a campaign this transaction has locked."""
    to = S.ACTIVE if campaign.channel is CampaignChannel.BANNER else S.PREPARING
    if campaign.status not in STARTABLE:
        raise IllegalMove(campaign, to, sorted(lifecycle.moves(campaign.channel).get(campaign.status, frozenset())))
    targeted = await require_complete(connection, campaign, now=now)
    if campaign.channel is CampaignChannel.BANNER:
        return await lifecycle.move(connection, campaign, S.ACTIVE, now=now)
    campaign = await lifecycle.move(connection, campaign, S.PREPARING, now=now)
    if not await freeze(connection, campaign, targeted, now=now):
        # As many as they are now, and again when they are frozen.
        await approval.require(connection, campaign, targeted=targeted)
    return campaign


async def require_complete(connection: Connection, campaign: Campaign, *, now: datetime) -> TargetedSegments:
    """The segments that this campaign goes to; raises what stands in the way of sending it: expiry, content, sender,
    segments."""
    if campaign.expires_at and campaign.expires_at <= now:
        message = f"The campaign expired at {campaign.expires_at.isoformat()}; move expiresAt into the future first."
        raise CampaignError("EXPIRED", message, field=("expires_at",))
    content.require_sendable(campaign.content, channel=campaign.channel, class_=campaign.class_)
    if campaign.channel is CampaignChannel.EMAIL and campaign.sender_id is None:
        message = "An email campaign needs a sender; make one with senderCreate and set senderId."
        raise CampaignError("SENDER_MISSING", message, field=("sender_id",))
    if campaign.channel is CampaignChannel.PUSH:
        await push_planning.require_credentials(connection, workspace_id=campaign.workspace_id)
    if campaign.channel is CampaignChannel.BANNER:
        assert campaign.placement_id is not None
        banner = BannerContent.from_json(campaign.content)
        await placements.require_shows(connection, campaign.workspace_id, campaign.placement_id, banner)
    return await audience.usable(connection, campaign)


async def freeze(connection: Connection, campaign: Campaign, targeted: TargetedSegments, *, now: datetime) -> bool:
    """Store the audience of a campaign in PREPARING as one bitmap (R1); False while evaluations are awaited.

    Raises TargetError when a segment was never evaluated or its evaluation failed, ApprovalMissing.
    """
    if not await refreshing.is_fresh(connection, campaign, targeted, now=now):
        return False
    ids = await audience.resolve(connection, targeted, workspace_id=campaign.workspace_id, brand_id=campaign.brand_id)
    origin = await senders.origin_of(connection, campaign)
    await approval.require_for(connection, campaign, len(ids), above=origin.approval_above)
    if campaign.channel is CampaignChannel.PUSH:
        await push_planning.require_credentials_for(connection, workspace_id=campaign.workspace_id, audience=ids)
    await insert_dispatch(connection, campaign, origin, kind=DispatchKind.SEND, ids=ids)
    return True


async def insert_dispatch(
    connection: Connection, campaign: Campaign, origin: Origin, *, kind: DispatchKind, ids: BitMap
) -> UUID:
    """A new dispatch with everything frozen that its messages are made of."""
    repeats: list[str] = []
    if campaign.channel is CampaignChannel.PUSH:
        frozen = {"push": campaign.content, "campaign_name": campaign.name}
        domain, repeats = "", repeats_on(PushContent.from_json(campaign.content))
    else:
        assert origin.sender is not None
        frozen = {
            "email": campaign.content,
            "sender": origin.sender.to_json(),
            "campaign_name": campaign.name,
            "tracking": origin.tracking.to_json(),
        }
        domain = header_address(origin.sender.from_address).rpartition("@")[2]
    dispatch_id: UUID = await connection.fetchval(
        INSERT_DISPATCH,
        campaign.workspace_id,
        campaign.id,
        kind.value,
        frozen,
        campaign.content_version,
        ids.serialize(),
        len(ids),
        domain,
        repeats,
    )
    return dispatch_id


# --- delivering ---------------------------------------------------------------------------------------------------


async def deliver(workspace_id: UUID, campaign_id: UUID, *, carrier: Carrier, now: datetime, until: float) -> bool:
    """Work on everything a campaign has to send until done or `until` (monotonic seconds); True when work is left.

    Any number of workers may do this at once, and any of them may die at any point.
    """
    await ensure_frozen(workspace_id, campaign_id, now=now)
    await tallies.recount(workspace_id, campaign_id)
    async with transaction(workspace_id) as connection:
        unfinished = await connection.fetch(UNFINISHED, workspace_id, campaign_id)
    for row in unfinished:
        work = work_on_test if row["kind"] == DispatchKind.TEST else work_on
        if not await work(workspace_id, campaign_id, row["id"], carrier=carrier, now=now, until=until):
            return True
    return False


async def prepare(workspace_id: UUID, campaign_id: UUID, *, carrier: Carrier, now: datetime, until: float) -> bool:
    """Write the ledger of a campaign in PREPARING and begin to send it; True when this call has and others may help.

    Else `deliver` does what is left, and says what stands in the way.
    """
    async with transaction(workspace_id) as connection:
        dispatch_id = await connection.fetchval(PREPARING, workspace_id, campaign_id)
    expected = dispatch_id is not None and await is_expected(
        workspace_id, campaign_id, dispatch_id, silent_after=carrier.silent_after, now=now
    )
    if not expected:
        return False
    ahead = asyncio.create_task(runs.make_ready(workspace_id, dispatch_id, carrier=carrier))
    try:
        planned = await plan(workspace_id, dispatch_id, carrier=carrier, until=until)
    except BaseException:
        ahead.cancel()
        raise
    finally:
        await asyncio.gather(ahead, return_exceptions=True)
    if not planned:
        return False
    try:
        run = await runs.prepare(workspace_id, dispatch_id, carrier=carrier)
        return await begin_sending(workspace_id, campaign_id, run, carrier=carrier, now=now)
    except CampaignError:
        return False


async def ensure_frozen(workspace_id: UUID, campaign_id: UUID, *, now: datetime) -> None:
    """Freeze the audience of a campaign that waited for its segments, unless it still waits; what stands in the way is
    written on it."""
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.find_locked(workspace_id, campaign_id)
        if campaign is None or campaign.status is not S.PREPARING:
            return
        if await Dispatch.filter(workspace_id=workspace_id, campaign_id=campaign_id, kind=DispatchKind.SEND).exists():
            return
        try:
            async with transaction(workspace_id):  # a savepoint: a refusal leaves no dispatch behind
                targeted = await require_complete(connection, campaign, now=now)
                await freeze(connection, campaign, targeted, now=now)
        except ApprovalMissing as refusal:
            await lifecycle.move(connection, campaign, S.PAUSED, now=now, reason=refusal.code, detail=refusal.held)
        except CampaignError as refusal:
            await lifecycle.move(connection, campaign, S.FAILED, now=now, reason=refusal.code, detail=refusal.message)


async def work_on(
    workspace_id: UUID, campaign_id: UUID, dispatch_id: UUID, *, carrier: Carrier, now: datetime, until: float
) -> bool:
    """Plan, send and finish the campaign's dispatch; True when it is finished or must wait for something else than
    this job."""
    if not await is_expected(workspace_id, campaign_id, dispatch_id, silent_after=carrier.silent_after, now=now):
        return True
    if not await plan(workspace_id, dispatch_id, carrier=carrier, until=until):
        return False
    try:
        run = await runs.prepare(workspace_id, dispatch_id, carrier=carrier)
        lane = await runs.open_lane(run, carrier=carrier)
        await begin_sending(workspace_id, campaign_id, run, carrier=carrier, now=now)
    except CampaignError as refusal:
        # Frozen content that this version refuses to compile, or the mail server to take: a person has to look, nobody
        # has failed. One that was cancelled or has expired ends all the same.
        await ending.close_rest(workspace_id, campaign_id, dispatch_id, now=now, until=until)
        if not await ending.finish(workspace_id, campaign_id, dispatch_id):
            await hold(workspace_id, campaign_id, Pause(refusal.code, refusal.message), now=now)
        return True
    async with transaction(workspace_id) as connection:
        breaker = await runs.watch(connection, run, carrier=carrier)
        campaign = await Campaign.get(workspace_id=workspace_id, id=campaign_id)
    # While the host is away a turn could only wait, in one of the few places that a process has for jobs; the sweeper
    # rings again.
    if campaign.status is S.SENDING and not lane.gate.is_shut():
        sent = await transmit(lane, carrier, breaker=breaker, error_threshold=campaign.error_threshold, until=until)
        if sent.pause:
            await hold(workspace_id, campaign_id, sent.pause, seen=(dispatch_id, breaker.since), now=now)
        elif monotonic() >= until or carrier.stopping.is_set():
            return False
    await ending.close_rest(workspace_id, campaign_id, dispatch_id, now=now, until=until)
    await ending.finish(workspace_id, campaign_id, dispatch_id)
    return True


async def work_on_test(
    workspace_id: UUID, campaign_id: UUID, dispatch_id: UUID, *, carrier: Carrier, now: datetime, until: float
) -> bool:
    """Like `work_on` for a test send, which has its own end: the campaign's state is neither asked nor changed."""
    async with transaction(workspace_id) as connection:
        expected: bool = await connection.fetchval(SHOW_LIFE, workspace_id, dispatch_id, carrier.silent_after)
    if not await plan(workspace_id, dispatch_id, carrier=carrier, until=until):
        return False
    if not expected:
        return await ending.give_up(workspace_id, campaign_id, dispatch_id, reason=SkipReason.SILENT)
    try:
        run = await runs.prepare(workspace_id, dispatch_id, carrier=carrier)
    except CampaignError:
        return await ending.give_up(workspace_id, campaign_id, dispatch_id, reason=SkipReason.CONTENT_REFUSED)
    try:
        lane = await runs.open_lane(run, carrier=carrier)
    except CampaignError:
        return await ending.give_up(workspace_id, campaign_id, dispatch_id, reason=SkipReason.NO_CREDENTIAL)
    async with transaction(workspace_id) as connection:
        breaker = await runs.watch(connection, run, carrier=carrier)
    if not lane.gate.is_shut():
        await transmit(lane, carrier, breaker=breaker, error_threshold=None, until=until)
        if monotonic() >= until or carrier.stopping.is_set():
            return False
    await ending.finish(workspace_id, campaign_id, dispatch_id)
    return True


async def plan(workspace_id: UUID, dispatch_id: UUID, *, carrier: Carrier, until: float) -> bool:
    """Write what is left of a ledger, chunk by chunk; False when the time was up first."""
    while monotonic() < until and not carrier.stopping.is_set():
        async with transaction(workspace_id, generic_plans=True) as connection:
            if not await planning.plan_chunk(connection, workspace_id=workspace_id, dispatch_id=dispatch_id):
                return True
    return False


async def is_expected(
    workspace_id: UUID, campaign_id: UUID, dispatch_id: UUID, *, silent_after: timedelta, now: datetime
) -> bool:
    """Show a sign of life of a dispatch; False, and its campaign paused, when there was none for `silent_after`.

    A database put back from a backup would else mail everybody again who got theirs since (R11). Workers show life
    every few seconds while anything is open, also when nothing is due.
    """
    async with transaction(workspace_id) as connection:
        if await connection.fetchval(SHOW_LIFE, workspace_id, dispatch_id, silent_after):
            return True
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        dispatch = await Dispatch.get(workspace_id=workspace_id, id=dispatch_id)
        if campaign.status not in (S.PREPARING, S.SENDING):
            return True
        # Read again under the lock: another worker, or a person, may have been first.
        if await connection.fetchval(SHOW_LIFE, workspace_id, dispatch_id, silent_after):
            return True
        message = (
            f"No worker was at it from {dispatch.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC until now. If the database was put"
            " back from a backup, messages may have left meanwhile: resume only if they have not."
        )
        await lifecycle.move(connection, campaign, S.PAUSED, now=now, reason=PauseReason.SILENT, detail=message)
        return False


async def begin_sending(workspace_id: UUID, campaign_id: UUID, run: Run, *, carrier: Carrier, now: datetime) -> bool:
    """PREPARING -> SENDING once the ledger is fully written: the first claim follows the last chunk. True if it moved.

    Raises CampaignError when the mail server, or a push service, takes no messages of this size.
    """
    async with transaction(workspace_id):
        campaign = await Campaign.get(workspace_id=workspace_id, id=campaign_id)
    if campaign.status is not S.PREPARING:
        return False
    largest = await carrier.channel.largest_message() if isinstance(run, EmailRun) else None
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        dispatch = await Dispatch.get(workspace_id=workspace_id, id=run.dispatch_id)
        if dispatch.planned_at is None or campaign.status is not S.PREPARING:
            return False
        people = BitMap.deserialize(await connection.fetchval(AUDIENCE, workspace_id, run.dispatch_id))
        if isinstance(run, PushRun):
            await push_sizing.require_push_fits(
                connection, run.content, people, workspace_id=workspace_id, dispatch_id=run.dispatch_id, now=now
            )
        elif isinstance(run, EmailRun) and largest is not None:
            await sizing.require_fits(connection, run, people, carrier=carrier, largest=largest, now=now)
        await lifecycle.move(connection, campaign, S.SENDING, now=now)
        return True


async def hold(
    workspace_id: UUID,
    campaign_id: UUID,
    why: Pause,
    *,
    seen: tuple[UUID, datetime | None] | None = None,
    now: datetime,
) -> None:
    """Pause a campaign of which nothing can leave, or too much is refused, with the reason.

    `seen`: of which dispatch, and since which resume. When it was resumed again meanwhile a person has looked already.
    """
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.find_locked(workspace_id, campaign_id)
        if campaign is None or campaign.status not in (S.PREPARING, S.SENDING):
            return
        if seen and await connection.fetchval(runs.RESUMED_AT, workspace_id, seen[0]) != seen[1]:
            return
        await lifecycle.move(connection, campaign, S.PAUSED, now=now, reason=why.reason, detail=why.detail)
