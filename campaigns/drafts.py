"""Campaigns before they are sent: create, update, duplicate, delete."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, assert_never
from uuid import UUID

from campaigns import approval, audience, banner_stops, content, lifecycle, placements, sending
from campaigns.audience import Targets
from campaigns.banner_content import BannerContent
from campaigns.banner_rules import PLAIN, BannerRules
from campaigns.content import Content
from campaigns.emails import EmailContent
from campaigns.errors import CampaignError
from campaigns.models import (
    Campaign,
    CampaignChannel,
    CampaignClass,
    CampaignStatus,
    Dispatch,
    MissedPolicy,
    Sender,
)
from campaigns.proofs import Proofs
from campaigns.push_content import PushContent
from db.transactions import Connection, transaction
from db.unset import UNSET, Unset
from profiles.errors import ProfileError
from profiles.keys import Actor
from profiles.text import clean_text, clean_time_zone
from segments.models import Segment, SegmentType

LONGEST_NAME = 200
LONGEST_TOPIC = 64
FASTEST = 100_000
"""Messages a second that a rate may allow."""
DEFAULT_THRESHOLD = 5

INSERT = """
WITH made AS (
  INSERT INTO campaign (workspace_id, brand_id, name, channel, status, topic, class, content, sender_id, placement_id,
    weight, expires_at, time_zone, missed_policy, refresh_before, rate_per_s, error_threshold, rules, test_segment_id)
  VALUES ($1, $2, $3, $4, 'DRAFT', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) RETURNING id)
SELECT id FROM made
"""
UPDATE = """
UPDATE campaign SET brand_id = $3, name = $4, topic = $5, class = $6, content = $7, content_version = $8,
  sender_id = $9, placement_id = $10, weight = $11, expires_at = $12, time_zone = $13, missed_policy = $14,
  refresh_before = $15, updated_at = $16, rate_per_s = $17, error_threshold = $18, rules = $19, test_segment_id = $20
WHERE workspace_id = $1 AND id = $2
"""
BRAND_EXISTS = "SELECT EXISTS (SELECT 1 FROM brand WHERE workspace_id = $1 AND id = $2)"


@dataclass(frozen=True, slots=True)
class CampaignInput:
    """A campaign as somebody wants it; its channel follows from its content."""

    name: str
    content: Content
    segment_ids: tuple[UUID, ...] = ()
    excluded_segment_ids: tuple[UUID, ...] = ()
    brand_id: UUID | None = None
    sender_id: UUID | None = None
    placement_id: UUID | None = None
    weight: int | None = None
    rules: BannerRules = PLAIN
    test_segment_id: UUID | None = None
    """Whose members see a banner before it goes live."""
    topic: str = "marketing"
    class_: CampaignClass = CampaignClass.MARKETING
    expires_at: datetime | None = None
    time_zone: str = "UTC"
    missed_policy: MissedPolicy = MissedPolicy.SEND
    refresh_before: bool = True
    rate_per_s: int | None = None
    """Messages a second at most; None: as fast as the channel takes them."""
    error_threshold: int | None = DEFAULT_THRESHOLD
    """Per cent of messages that may be refused before it pauses by itself; None: it never does."""


@dataclass(frozen=True, slots=True)
class CampaignChanges:
    """What to change; UNSET leaves a field as it is, None clears one that may be empty."""

    name: str | Unset = UNSET
    content: Content | Unset = UNSET
    segment_ids: tuple[UUID, ...] | Unset = UNSET
    excluded_segment_ids: tuple[UUID, ...] | Unset = UNSET
    brand_id: UUID | Unset | None = UNSET
    sender_id: UUID | Unset | None = UNSET
    placement_id: UUID | Unset = UNSET
    weight: int | Unset = UNSET
    rules: BannerRules | Unset = UNSET
    test_segment_id: UUID | Unset | None = UNSET
    topic: str | Unset = UNSET
    class_: CampaignClass | Unset = UNSET
    expires_at: datetime | Unset | None = UNSET
    time_zone: str | Unset = UNSET
    missed_policy: MissedPolicy | Unset = UNSET
    refresh_before: bool | Unset = UNSET
    rate_per_s: int | Unset | None = UNSET
    error_threshold: int | Unset | None = UNSET

    def given(self) -> dict[str, Any]:
        """The fields that are to change."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if not isinstance(value, Unset)}


FROZEN_FIELDS = frozenset(
    {"content", "segment_ids", "excluded_segment_ids", "brand_id", "sender_id", "topic", "class_", "refresh_before"}
)
"""Fixed once sending has begun; a banner may be edited while it is shown."""


def channel_of(made: Content) -> CampaignChannel:
    match made:
        case EmailContent():
            return CampaignChannel.EMAIL
        case PushContent():
            return CampaignChannel.PUSH
        case BannerContent():
            return CampaignChannel.BANNER
        case _:
            assert_never(made)


def check_time_zone(name: str) -> str:
    """The IANA name; raises CampaignError when there is none like it."""
    return clean(clean_time_zone, name, field="time_zone")


def clean(cleaner: Callable[..., str], value: str, *, field: str, **limits: Any) -> str:
    """A text as `cleaner` of profiles.text keeps it, refused as a CampaignError."""
    try:
        return cleaner(value, field=(field,), **limits)
    except ProfileError as refusal:
        raise CampaignError(refusal.code, refusal.message, field=refusal.field) from refusal


async def create(workspace_id: UUID, wanted: CampaignInput, *, proofs: Proofs, now: datetime) -> Campaign:
    """A new draft. It may lack segments and sender until it is sent; what it has must be right.

    Raises CampaignError naming the field.
    """
    proved = await content.proved(wanted.content, proofs, workspace_id=workspace_id)
    return await insert(workspace_id, wanted, proved, now=now)


async def insert(
    workspace_id: UUID, wanted: CampaignInput, kept: dict[str, Any], *, now: datetime, copied: bool = False
) -> Campaign:
    """`create` with a content that was proved; `copied` as in `audience.save_targets`."""
    async with transaction(workspace_id) as connection:
        await check(connection, workspace_id, wanted, kept, now=now)
        campaign_id: UUID = await connection.fetchval(
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
        )
        await audience.save_targets(
            connection,
            workspace_id=workspace_id,
            campaign_id=campaign_id,
            brand_id=wanted.brand_id,
            wanted=Targets(wanted.segment_ids, wanted.excluded_segment_ids),
            copied=copied,
        )
        return await Campaign.get(workspace_id=workspace_id, id=campaign_id)


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
        expiry_changed = wanted.expires_at != before.expires_at
        await check(connection, workspace_id, wanted, kept, now=now, expiry_changed=expiry_changed)
        if campaign.scheduled_at and wanted.expires_at and wanted.expires_at <= campaign.scheduled_at:
            message = f"The campaign starts at {campaign.scheduled_at.isoformat()}; it must expire after that."
            raise CampaignError("EXPIRES_BEFORE_START", message, field=("expires_at",))
        await connection.execute(
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
        if given.keys() & {"segment_ids", "excluded_segment_ids", "brand_id"}:
            await audience.save_targets(
                connection,
                workspace_id=workspace_id,
                campaign_id=campaign_id,
                brand_id=wanted.brand_id,
                wanted=Targets(wanted.segment_ids, wanted.excluded_segment_ids),
            )
        if wanted.rules.limits != before.rules.limits:
            await banner_stops.restate(connection, workspace_id, campaign_id, wanted.rules.limits, now=now)
        edited = any(getattr(wanted, name) != getattr(before, name) for name in FROZEN_FIELDS)
        if edited:
            await approval.withdraw(connection, campaign, by=by, now=now)
        changed = await Campaign.get(workspace_id=workspace_id, id=campaign_id)
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
    return await insert(workspace_id, copy, campaign.content, now=now, copied=True)


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


async def check(
    connection: Connection,
    workspace_id: UUID,
    wanted: CampaignInput,
    kept: dict[str, Any],
    *,
    now: datetime,
    expiry_changed: bool = True,
) -> None:
    """Raise CampaignError for the first thing that is wrong with an input, naming its field; `kept` is its content as
    it was proved."""
    clean(clean_text, wanted.name, field="name", what="Name", most=LONGEST_NAME)
    if clean(clean_text, wanted.topic, field="topic", what="Topic", most=LONGEST_TOPIC) == "*":
        message = "'*' is kept for all topics; name one, such as newsletter."
        raise CampaignError("INVALID_TOPIC", message, field=("topic",))
    check_time_zone(wanted.time_zone)
    if expiry_changed and wanted.expires_at and wanted.expires_at <= now:
        message = f"{wanted.expires_at.isoformat()} is in the past; choose a later end, or leave it out."
        raise CampaignError("IN_THE_PAST", message, field=("expires_at",))
    if wanted.error_threshold is not None and not 1 <= wanted.error_threshold <= 100:
        message = "An error threshold is 1 to 100 per cent; null sets none."
        raise CampaignError("OUT_OF_RANGE", message, field=("error_threshold",))
    content.require_sendable(kept, channel=channel_of(wanted.content), class_=wanted.class_)
    if wanted.brand_id and not await connection.fetchval(BRAND_EXISTS, workspace_id, wanted.brand_id):
        raise CampaignError("NOT_FOUND", "There is no such brand in this workspace.", field=("brand_id",))
    if isinstance(wanted.content, BannerContent):
        await check_banner(connection, workspace_id, wanted, wanted.content)
        return
    check_message(wanted)
    if isinstance(wanted.content, EmailContent):
        await check_sender(workspace_id, wanted)
    elif wanted.sender_id:
        message = "A sender belongs to email campaigns; notifications come from the app."
        raise CampaignError("NOT_FOR_THIS_CHANNEL", message, field=("sender_id",))


def check_message(wanted: CampaignInput) -> None:
    """Nothing that belongs to banners; a rate that means something."""
    of_banners = {
        "placement_id": wanted.placement_id,
        "weight": wanted.weight,
        "rules": None if wanted.rules == PLAIN else wanted.rules,
        "test_segment_id": wanted.test_segment_id,
    }
    for name, value in of_banners.items():
        if value is not None:
            message = "Placement, weight, rules and a segment of testers belong to banners."
            raise CampaignError("NOT_FOR_THIS_CHANNEL", message, field=(name,))
    if wanted.rate_per_s is not None and not 1 <= wanted.rate_per_s <= FASTEST:
        message = f"A rate is 1 to {FASTEST:,} messages a second; null sets none."
        raise CampaignError("OUT_OF_RANGE", message, field=("rate_per_second",))


async def check_sender(workspace_id: UUID, wanted: CampaignInput) -> None:
    """An email campaign's sender, if it has one, is of its brand or of all."""
    if wanted.sender_id is None:
        return
    sender = await Sender.filter(workspace_id=workspace_id, id=wanted.sender_id).first()
    if sender is None:
        raise CampaignError("NOT_FOUND", "There is no such sender in this workspace.", field=("sender_id",))
    if wanted.brand_id and sender.brand_id not in (None, wanted.brand_id):
        message = "This sender is of another brand than the campaign; take one of its brand, or of all."
        raise CampaignError("OTHER_BRAND", message, field=("sender_id",))


async def check_banner(
    connection: Connection, workspace_id: UUID, wanted: CampaignInput, banner: BannerContent
) -> None:
    """A placement that allows what the banner says, a weight, rules that mean something, and testers who are some."""
    if wanted.rate_per_s is not None:
        raise CampaignError("NOT_FOR_THIS_CHANNEL", "A rate belongs to messages.", field=("rate_per_second",))
    if wanted.sender_id:
        raise CampaignError("NOT_FOR_THIS_CHANNEL", "A sender belongs to email campaigns.", field=("sender_id",))
    if wanted.placement_id is None:
        message = "A banner needs a placement; make one with placementCreate and set placementId."
        raise CampaignError("PLACEMENT_MISSING", message, field=("placement_id",))
    if wanted.weight is None or not 0 <= wanted.weight <= 100:
        message = "A banner needs a weight from 0 (never shown) to 100."
        raise CampaignError("OUT_OF_RANGE", message, field=("weight",))
    wanted.rules.check()
    if wanted.test_segment_id is not None:
        testers = await Segment.filter(workspace_id=workspace_id, id=wanted.test_segment_id).first()
        if testers is None:
            raise CampaignError("NOT_FOUND", "There is no such segment in this workspace.", field=("test_segment_id",))
        if testers.type is SegmentType.EVERYONE:
            message = "EVERYONE would see it before it goes live; name a segment of those who test."
            raise CampaignError("TESTERS_ARE_EVERYONE", message, field=("test_segment_id",))
    await placements.require_shows(connection, workspace_id, wanted.placement_id, banner)


def kept_rules(wanted: CampaignInput) -> dict[str, Any]:
    """What a campaign's row keeps of its rules; only banners have some."""
    return wanted.rules.to_json() if isinstance(wanted.content, BannerContent) else {}
