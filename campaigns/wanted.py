"""A campaign as somebody wants it, and what is wrong with that."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never
from uuid import UUID

from campaigns import content, placements
from campaigns.audience import Targets
from campaigns.banner_content import BannerContent
from campaigns.banner_rules import PLAIN, BannerRules
from campaigns.content import Content
from campaigns.emails import EmailContent
from campaigns.errors import CampaignError
from campaigns.models import CampaignChannel, CampaignClass, MissedPolicy, Sender
from campaigns.push_content import PushContent
from db.transactions import Connection
from db.unset import UNSET, Unset
from profiles.errors import ProfileError
from profiles.text import clean_text, clean_time_zone
from segments.models import Segment, SegmentType

LONGEST_NAME = 200
LONGEST_TOPIC = 64
FASTEST = 100_000
"""Messages a second that a rate may allow."""
DEFAULT_THRESHOLD = 5

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

    @property
    def targets(self) -> Targets:
        """Whom it goes to, and whom it spares."""
        return Targets(self.segment_ids, self.excluded_segment_ids)


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


def is_edited(wanted: CampaignInput, before: CampaignInput) -> bool:
    """Whether it would say something else, or go to others: in which order segments are named does not matter."""

    def value(one: CampaignInput, name: str) -> Any:
        found = getattr(one, name)
        return set(found) if isinstance(found, tuple) else found

    return any(value(wanted, name) != value(before, name) for name in FROZEN_FIELDS)


async def check(
    connection: Connection,
    workspace_id: UUID,
    wanted: CampaignInput,
    kept: dict[str, Any],
    *,
    now: datetime,
    before: CampaignInput | None = None,
) -> None:
    """Raise CampaignError for the first thing that is wrong with an input, naming its field; `kept` is its content as
    it was proved. `before` is what was looked at before: of expiry, brand and sender what stays as it was is not looked
    at again."""
    clean(clean_text, wanted.name, field="name", what="Name", most=LONGEST_NAME)
    if clean(clean_text, wanted.topic, field="topic", what="Topic", most=LONGEST_TOPIC) == "*":
        message = "'*' is kept for all topics; name one, such as newsletter."
        raise CampaignError("INVALID_TOPIC", message, field=("topic",))
    check_time_zone(wanted.time_zone)
    expiry_changed = before is None or wanted.expires_at != before.expires_at
    if expiry_changed and wanted.expires_at and wanted.expires_at <= now:
        message = f"{wanted.expires_at.isoformat()} is in the past; choose a later end, or leave it out."
        raise CampaignError("IN_THE_PAST", message, field=("expires_at",))
    if wanted.error_threshold is not None and not 1 <= wanted.error_threshold <= 100:
        message = "An error threshold is 1 to 100 per cent; null sets none."
        raise CampaignError("OUT_OF_RANGE", message, field=("error_threshold",))
    content.require_sendable(kept, channel=channel_of(wanted.content), class_=wanted.class_)
    brand_changed = before is None or wanted.brand_id != before.brand_id
    if wanted.brand_id and brand_changed and not await connection.fetchval(BRAND_EXISTS, workspace_id, wanted.brand_id):
        raise CampaignError("NOT_FOUND", "There is no such brand in this workspace.", field=("brand_id",))
    if isinstance(wanted.content, BannerContent):
        await check_banner(connection, workspace_id, wanted, wanted.content)
        return
    check_message(wanted)
    if isinstance(wanted.content, EmailContent):
        if brand_changed or before is None or wanted.sender_id != before.sender_id:
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
