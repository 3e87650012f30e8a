"""Tables of segments as models, with their states. Members are bitmaps and intervals: see membership.py."""

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from db.fields import optional_text, text_enum


class SegmentType(StrEnum):
    STATIC = "STATIC"
    """Curated by hand; never changes by itself."""
    DYNAMIC = "DYNAMIC"
    """Whoever meets its conditions."""
    EVERYONE = "EVERYONE"
    """Built in, one a workspace, no member rows; includes anonymous visitors."""


class SegmentStatus(StrEnum):
    DRAFT = "DRAFT"
    """Never evaluated, cannot be targeted."""
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    """Keeps its members and stands still, cannot be targeted."""
    ARCHIVED = "ARCHIVED"


class Cadence(StrEnum):
    """How often a full evaluation is scheduled; NEVER means once, on activation."""

    NEVER = "NEVER"
    HOURLY = "HOURLY"
    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    QUARTERLY = "QUARTERLY"
    YEARLY = "YEARLY"
    CRON = "CRON"


class EvaluationStatus(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    HELD = "HELD"
    FAILED = "FAILED"


class EvaluationCause(StrEnum):
    """Who asked for an evaluation."""

    REQUEST = "REQUEST"
    CADENCE = "CADENCE"
    ACTIVATION = "ACTIVATION"
    DEFINITION = "DEFINITION"
    CAMPAIGN = "CAMPAIGN"
    DEPENDENCY = "DEPENDENCY"
    """A segment that names this one is to be evaluated, or one that this one names has changed much."""
    BACKLOG = "BACKLOG"
    """More people changed at once than the pulse follows one by one."""
    GUARD = "GUARD"
    """The pulse would have removed more at once than the segment's guard allows."""


class BuilderMode(StrEnum):
    """How the conditions were built."""

    SIMPLE = "SIMPLE"
    """A few conditions under one ALL or ANY."""
    NESTED = "NESTED"


class Segment(Model):
    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    brand_id = fields.UUIDField(null=True)
    name = fields.TextField()
    description = fields.TextField()
    type = text_enum(SegmentType)
    status = text_enum(SegmentStatus)
    definition: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    definition_version = fields.IntField()
    mode = text_enum(BuilderMode)
    live = fields.BooleanField()
    ranking: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    change_guard = fields.IntField(null=True)
    cadence = text_enum(Cadence)
    cron = optional_text()
    time_zone = fields.TextField()
    next_run_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta(Model.Meta):
        table = "segment"


# One full evaluation of a segment: when, by what, and what came of it.
class Evaluation(Model):
    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    segment_id = fields.UUIDField()
    definition_version = fields.IntField()
    status = text_enum(EvaluationStatus)
    cause = text_enum(EvaluationCause)
    engine = optional_text()
    queued_at = fields.DatetimeField()
    started_at = fields.DatetimeField(null=True)
    lease_until = fields.DatetimeField(null=True)
    fence = fields.IntField()
    finished_at = fields.DatetimeField(null=True)
    duration_ms = fields.IntField(null=True)
    size = fields.IntField(null=True)
    added = fields.IntField(null=True)
    removed = fields.IntField(null=True)
    nodes: fields.JSONField[list[dict[str, Any]] | None] = fields.JSONField(null=True)
    error_code = optional_text()
    error = optional_text()
    approved_at = fields.DatetimeField(null=True)

    class Meta(Model.Meta):
        table = "evaluation"


# SQL that people wrote; it answers the column profile_id.
class SavedQuery(Model):
    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    name = fields.TextField()
    description = fields.TextField()
    sql = fields.TextField()
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta(Model.Meta):
        table = "saved_query"
