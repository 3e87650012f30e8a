"""Campaigns before they are sent: create, update, duplicate, delete."""

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from campaigns import approval, audience, banner_stops, content, lifecycle, sending
from campaigns.banner_content import BannerContent
from campaigns.banner_rules import BannerRules
from campaigns.errors import CampaignError
from campaigns.models import Campaign, CampaignChannel, CampaignStatus, Dispatch
from campaigns.proofs import Proofs
from campaigns.wanted import FROZEN_FIELDS, LONGEST_NAME, CampaignChanges, CampaignInput, channel_of, check, is_edited
from db.rows import to_model
from db.transactions import Connection, transaction
from profiles.keys import Actor

INSERT = """
WITH made AS (
  INSERT INTO campaign (workspace_id, brand_id, name, channel, status, topic, class, content, sender_id, placement_id,
    weight, expires_at, time_zone, missed_policy, refresh_before, rate_per_s, error_threshold, rules, test_segment_id)
  VALUES ($1, $2, $3, $4, 'DRAFT', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) RETURNING *),
targets AS (
  INSERT INTO campaign_segment (workspace_id, campaign_id, segment_id, excluded)
  SELECT $1, made.id, t.id, t.excluded FROM made, unnest($19::uuid[], $20::boolean[]) AS t (id, excluded))
SELECT * FROM made
"""
UPDATE = """
UPDATE campaign SET brand_id = $3, name = $4, topic = $5, class = $6, content = $7, content_version = $8,
  sender_id = $9, placement_id = $10, weight = $11, expires_at = $12, time_zone = $13, missed_policy = $14,
  refresh_before = $15, updated_at = $16, rate_per_s = $17, error_threshold = $18, rules = $19, test_segment_id = $20
WHERE workspace_id = $1 AND id = $2 RETURNING *
"""


async def create(workspace_id: UUID, wanted: CampaignInput, *, proofs: Proofs, now: datetime) -> Campaign:
    """A new draft. It may lack segments and sender until it is sent; what it has must be right.

    Raises CampaignError naming the field.
    """
    proved = await content.proved(wanted.content, proofs, workspace_id=workspace_id)
    return await insert(workspace_id, wanted, proved, now=now)


async def insert(workspace_id: UUID, wanted: CampaignInput, kept: dict[str, Any], *, now: datetime) -> Campaign:
    """`create` with a content that was proved."""
    async with transaction(workspace_id) as connection:
        await check(connection, workspace_id, wanted, kept, now=now)
        await audience.require_targets(connection, workspace_id, wanted.targets, brand_id=wanted.brand_id)
        return await write(connection, workspace_id, wanted, kept)


async def write(connection: Connection, workspace_id: UUID, wanted: CampaignInput, kept: dict[str, Any]) -> Campaign:
    """A new campaign of an input that was looked at."""
    row = await connection.fetchrow(
        INSERT,
        workspace_id,
        wanted.brand_id,
        wanted.name.strip(),
        channel_of(wanted.content).value,
        wanted.topic,
        wanted.class_.value,
        kept,
        wanted.sender_id,
        wanted.placement_id,
        wanted.weight,
        wanted.expires_at,
        wanted.time_zone,
        wanted.missed_policy.value,
        wanted.refresh_before,
        wanted.rate_per_s,
        wanted.error_threshold,
        kept_rules(wanted),
        wanted.test_segment_id,
        *wanted.targets.flagged(),
    )
    return to_model(Campaign, row)


async def update(
    workspace_id: UUID,
    campaign_id: UUID,
    changes: CampaignChanges,
    *,
    proofs: Proofs,
    now: datetime,
    by: Actor | None = None,
) -> Campaign:
    """The campaign with `changes`; from PREPARING on only name, expiry, missed policy, rate and threshold can change.

    A change of what it says or to whom takes back its approval: it is a draft again. One that stays scheduled must be
    complete after it, as when it was scheduled. `by` is who wants it. Raises CampaignNotFound, CampaignError naming the
    field.
    """
    given = changes.given()
    # Before the transaction: a child may read in it for two seconds, and the campaign is not locked meanwhile.
    fresh = None
    if "content" in given:
        fresh = await content.proved(given["content"], proofs, workspace_id=workspace_id)
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        if campaign.channel is not CampaignChannel.BANNER and campaign.status in lifecycle.FROZEN:
            for name in sorted(given.keys() & FROZEN_FIELDS):
                message = f"The campaign is {campaign.status}; its {name.rstrip('_')} is frozen. Duplicate it instead."
                raise CampaignError("FROZEN", message, field=(name.rstrip("_"),))
        before = await as_input(connection, campaign)
        wanted = replace(before, **given)
        if channel_of(wanted.content) is not campaign.channel:
            message = f"This is a campaign of channel {campaign.channel}; make a new one for another channel."
            raise CampaignError("CHANNEL_FIXED", message, field=("content",))
        kept = fresh or campaign.content
        await check(connection, workspace_id, wanted, kept, now=now, before=before)
        if campaign.scheduled_at and wanted.expires_at and wanted.expires_at <= campaign.scheduled_at:
            message = f"The campaign starts at {campaign.scheduled_at.isoformat()}; it must expire after that."
            raise CampaignError("EXPIRES_BEFORE_START", message, field=("expires_at",))
        row = await connection.fetchrow(
            UPDATE,
            workspace_id,
            campaign_id,
            wanted.brand_id,
            wanted.name.strip(),
            wanted.topic,
            wanted.class_.value,
            kept,
            campaign.content_version + (wanted.content != before.content),
            wanted.sender_id,
            wanted.placement_id,
            wanted.weight,
            wanted.expires_at,
            wanted.time_zone,
            wanted.missed_policy.value,
            wanted.refresh_before,
            now,
            wanted.rate_per_s,
            wanted.error_threshold,
            kept_rules(wanted),
            wanted.test_segment_id,
        )
        changed = to_model(Campaign, row)
        if given.keys() & {"segment_ids", "excluded_segment_ids", "brand_id"}:
            await audience.require_targets(connection, workspace_id, wanted.targets, brand_id=wanted.brand_id)
            await audience.replace_targets(
                connection, workspace_id=workspace_id, campaign_id=campaign_id, wanted=wanted.targets
            )
        if wanted.rules.limits != before.rules.limits:
            await banner_stops.restate(connection, workspace_id, campaign_id, wanted.rules.limits, now=now)
        edited = is_edited(wanted, before)
        if edited:
            await approval.withdraw(connection, changed, by=by, now=now)
        if edited and changed.status is CampaignStatus.SCHEDULED:
            await sending.require_complete(connection, changed, now=now)
        return changed


async def duplicate(workspace_id: UUID, campaign_id: UUID, *, now: datetime) -> Campaign:
    """A draft with the same content and targets, named "Copy of ..."; an expiry in the past is left out."""
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        wanted = await as_input(connection, campaign)
        if wanted.expires_at and wanted.expires_at <= now:
            wanted = replace(wanted, expires_at=None)
        copy = replace(wanted, name=f"Copy of {wanted.name}"[:LONGEST_NAME])
        # Its targets are those of the other, which is locked: they are there, and cannot be deleted. One that came to
        # another brand since is copied too, for here nobody could mend it; a start refuses it.
        await check(connection, workspace_id, copy, campaign.content, now=now, before=wanted)
        return await write(connection, workspace_id, copy, campaign.content)


async def delete(workspace_id: UUID, campaign_id: UUID) -> None:
    """Delete a draft. Raises CampaignError for one that was sent, even as a test: its ledger is kept."""
    async with transaction(workspace_id):
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        used = await Dispatch.filter(workspace_id=workspace_id, campaign_id=campaign_id).exists()
        if campaign.status is not CampaignStatus.DRAFT or used:
            message = f"Only a draft that was never sent can be deleted; this one is {campaign.status}."
            raise CampaignError("NOT_DELETABLE", message, field=("id",))
        await Campaign.filter(workspace_id=workspace_id, id=campaign_id).delete()


async def as_input(connection: Connection, campaign: Campaign) -> CampaignInput:
    """A campaign as the input that would make it."""
    targets = await audience.targets(connection, workspace_id=campaign.workspace_id, campaign_id=campaign.id)
    return CampaignInput(
        name=campaign.name,
        content=content.content_from_json(campaign.channel, campaign.content),
        segment_ids=targets.included,
        excluded_segment_ids=targets.excluded,
        brand_id=campaign.brand_id,
        sender_id=campaign.sender_id,
        placement_id=campaign.placement_id,
        weight=campaign.weight,
        rules=BannerRules.from_json(campaign.rules),
        test_segment_id=campaign.test_segment_id,
        topic=campaign.topic,
        class_=campaign.class_,
        expires_at=campaign.expires_at,
        time_zone=campaign.time_zone,
        missed_policy=campaign.missed_policy,
        refresh_before=campaign.refresh_before,
        rate_per_s=campaign.rate_per_s,
        error_threshold=campaign.error_threshold,
    )


def kept_rules(wanted: CampaignInput) -> dict[str, Any]:
    """What a campaign's row keeps of its rules; only banners have some."""
    return wanted.rules.to_json() if isinstance(wanted.content, BannerContent) else {}
