"""Tables of campaigns as models, with their states. Deliveries are read and written in sets: see ledger.py."""

from enum import StrEnum
from typing import Any, cast

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.fields.base import Field
from tortoise.models import Model

from db.fields import optional_text, text_enum


class CampaignChannel(StrEnum):
    EMAIL = "EMAIL"
    PUSH = "PUSH"
    BANNER = "BANNER"


class CampaignStatus(StrEnum):
    """docs/states.md draws the legal moves; campaigns/lifecycle.py holds them."""

    DRAFT = "DRAFT"
    PENDING_APPROVAL = "PENDING_APPROVAL"
    SCHEDULED = "SCHEDULED"
    PREPARING = "PREPARING"
    SENDING = "SENDING"
    PAUSED = "PAUSED"
    SENT = "SENT"
    ACTIVE = "ACTIVE"
    ENDED = "ENDED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class CampaignClass(StrEnum):
    MARKETING = "MARKETING"
    TRANSACTIONAL = "TRANSACTIONAL"
    """Ignores consent, never suppression."""


class MissedPolicy(StrEnum):
    """What happens to a schedule that is found later than its maximum lateness."""

    SEND = "SEND"
    SKIP = "SKIP"
    HOLD = "HOLD"


class DispatchKind(StrEnum):
    SEND = "SEND"
    TEST = "TEST"


class DeliveryState(StrEnum):
    """One message's state in the ledger (docs/states.md)."""

    PENDING = "pending"
    SENDING = "sending"
    DEFERRED = "deferred"
    SENT = "sent"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    SKIPPED = "skipped"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"


class DeliveryEventKind(StrEnum):
    """What happened to a message after it was sent: `delivery_event.kind`.

    `detail` has {"machine": true} when a program did it, such as a mail server that loads every image and follows every
    link: kept, and counted nowhere.
    """

    OPEN = "open"
    CLICK = "click"


# Whom an email campaign comes from.
class Sender(Model):
    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    brand_id = fields.UUIDField(null=True)
    from_name = fields.TextField()
    from_address = fields.TextField()
    reply_to = optional_text()
    postal_address = fields.TextField()
    created_at = fields.DatetimeField()

    class Meta(Model.Meta):
        table = "sender"


# A named place in an app where banners appear.
class Placement(Model):
    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    key = fields.TextField()
    name = fields.TextField()
    description = fields.TextField()
    rotation_window_s = fields.IntField()
    content_fields = cast("Field[list[str] | None]", ArrayField("text", null=True))
    link_schemes = cast("Field[list[str]]", ArrayField("text"))
    slots = fields.IntField()
    limits: fields.JSONField[dict[str, Any]] = fields.JSONField()
    created_at = fields.DatetimeField()

    class Meta(Model.Meta):
        table = "placement"


class Campaign(Model):
    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    brand_id = fields.UUIDField(null=True)
    name = fields.TextField()
    channel = text_enum(CampaignChannel)
    status = text_enum(CampaignStatus)
    status_reason = optional_text()
    status_detail = optional_text()
    topic = fields.TextField()
    class_ = text_enum(CampaignClass, source_field="class")
    content: fields.JSONField[dict[str, Any]] = fields.JSONField()
    content_version = fields.IntField()
    sender_id = fields.UUIDField(null=True)
    placement_id = fields.UUIDField(null=True)
    weight = fields.IntField(null=True)
    rules: fields.JSONField[dict[str, Any]] = fields.JSONField()
    test_segment_id = fields.UUIDField(null=True)
    scheduled_at = fields.DatetimeField(null=True)
    time_zone = fields.TextField()
    expires_at = fields.DatetimeField(null=True)
    missed_policy = text_enum(MissedPolicy)
    maximum_lateness_s = fields.IntField()
    refresh_before = fields.BooleanField()
    rate_per_s = fields.IntField(null=True)
    error_threshold = fields.IntField(null=True)
    approval: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()
    started_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)

    class Meta(Model.Meta):
        table = "campaign"


# One run of a campaign. The frozen audience is a bitmap column of its own, read by ledger.py only.
class Dispatch(Model):
    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    campaign_id = fields.UUIDField()
    kind = text_enum(DispatchKind)
    content: fields.JSONField[dict[str, Any]] = fields.JSONField()
    content_version = fields.IntField()
    audience_size = fields.IntField()
    planned_through = fields.IntField()
    planned_at = fields.DatetimeField(null=True)
    walked_through = fields.IntField()
    message_domain = fields.TextField()
    no_address = fields.IntField()
    counts: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    dirty = fields.BooleanField()
    heartbeat_at = fields.DatetimeField()
    created_at = fields.DatetimeField()
    finished_at = fields.DatetimeField(null=True)
    next_send_at = fields.DatetimeField(null=True)
    resumed_at = fields.DatetimeField(null=True)
    tally: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    counted_at = fields.DatetimeField(null=True)

    class Meta(Model.Meta):
        table = "dispatch"
