"""A dispatch made ready to be sent: its frozen content compiled, its links written, once a process."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from campaigns import emails, links, push_rendering
from campaigns.breaker import Breaker
from campaigns.carrier import Carrier, EmailRun, PushRun, Run
from campaigns.emails import EmailContent
from campaigns.errors import CampaignError
from campaigns.lanes import EmailLane, Lane
from campaigns.mime import SenderInfo
from campaigns.models import Campaign, CampaignChannel, CampaignClass, Dispatch, DispatchKind
from campaigns.push_content import PushContent
from campaigns.push_lane import PushLane
from campaigns.tracking import Tracking
from db.transactions import Connection, transaction

RESUMED_AT = "SELECT resumed_at FROM dispatch WHERE workspace_id = $1 AND id = $2"


async def prepare(workspace_id: UUID, dispatch_id: UUID, *, carrier: Carrier) -> Run:
    """A dispatch ready to send; its content never changes, so it is compiled once and kept. Raises CampaignError."""
    if kept := carrier.runs.find(dispatch_id):
        return kept
    async with transaction(workspace_id):
        dispatch = await Dispatch.get(workspace_id=workspace_id, id=dispatch_id)
        campaign = await Campaign.get(workspace_id=workspace_id, id=dispatch.campaign_id)
    # In a thread: a large mail takes some 100 ms, in which heartbeats and answers come between.
    if campaign.channel is CampaignChannel.PUSH:
        return carrier.runs.keep(dispatch_id, await asyncio.to_thread(compiled_push, campaign, dispatch))
    run = await asyncio.to_thread(compiled_email, campaign, dispatch)
    async with transaction(workspace_id) as connection:
        made = await links.write_links(
            connection,
            workspace_id=workspace_id,
            campaign_id=campaign.id,
            dispatch_id=dispatch_id,
            urls=run.content.tracked_urls,
        )
    return carrier.runs.keep(dispatch_id, replace(run, links=made))


def compiled_email(campaign: Campaign, dispatch: Dispatch) -> EmailRun:
    """The frozen content of a dispatch of mails, parsed and pre-encoded. Raises CampaignError."""
    frozen: dict[str, Any] = dispatch.content
    sender = SenderInfo.from_json(frozen["sender"])
    return EmailRun(
        **what_runs(campaign, dispatch),
        content=emails.compile_email(
            EmailContent.from_json(frozen["email"]),
            sender=sender,
            list_unsubscribe=campaign.class_ is CampaignClass.MARKETING,
            campaign_id=campaign.id,
            campaign_name=frozen["campaign_name"],
            tracking=Tracking.from_json(frozen.get("tracking")),
        ),
        envelope_sender=sender.from_address,
        message_id_domain=dispatch.message_domain,
    )


def compiled_push(campaign: Campaign, dispatch: Dispatch) -> PushRun:
    """The frozen content of a dispatch of push notifications. Raises CampaignError."""
    frozen: dict[str, Any] = dispatch.content
    return PushRun(
        **what_runs(campaign, dispatch),
        content=push_rendering.compile_push(
            PushContent.from_json(frozen["push"]),
            campaign_name=frozen["campaign_name"],
            dispatch_id=dispatch.id,
            test=dispatch.kind is DispatchKind.TEST,
        ),
    )


def what_runs(campaign: Campaign, dispatch: Dispatch) -> dict[str, Any]:
    """The fields of every Run."""
    test = dispatch.kind is DispatchKind.TEST
    return {
        "workspace_id": dispatch.workspace_id,
        "campaign_id": dispatch.campaign_id,
        "dispatch_id": dispatch.id,
        "consent_matters": campaign.class_ is CampaignClass.MARKETING and not test,
        "test": test,
    }


async def open_lane(run: Run, *, carrier: Carrier) -> Lane:
    """The way out for a dispatch, for one turn. Raises CampaignError when there is none now."""
    if isinstance(run, EmailRun):
        return EmailLane(run, carrier)
    assert isinstance(run, PushRun)
    if carrier.push is None:
        raise CampaignError("NOT_SET_UP", "This worker sends no push notifications: it has no MUSTER_SECRET_KEYS.")
    routes = await carrier.push.channels.of_workspace(run.workspace_id)
    if not routes:
        message = "No app has a push credential any more; set one with pushCredentialSet, then resume."
        raise CampaignError("PUSH_CREDENTIAL_MISSING", message)
    return PushLane(run, carrier.push, routes)


async def make_ready(workspace_id: UUID, dispatch_id: UUID, *, carrier: Carrier) -> None:
    """Do ahead what takes a process long when it sends of a dispatch for the first time: content is compiled, channels
    are made. What stands in the way of it is told when it is to be sent."""
    with suppress(CampaignError):
        await open_lane(await prepare(workspace_id, dispatch_id, carrier=carrier), carrier=carrier)


async def watch(connection: Connection, run: Run, *, carrier: Carrier) -> Breaker:
    """What this process saw of the dispatch since it was started or last resumed."""
    since = await connection.fetchval(RESUMED_AT, run.workspace_id, run.dispatch_id)
    kept = carrier.breakers.find(run.dispatch_id)
    return kept if kept and kept.since == since else carrier.breakers.keep(run.dispatch_id, Breaker(since))
