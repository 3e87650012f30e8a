"""Tables of workspaces, brands and keys as models. Profiles and events are read and written by SQL, in sets."""

from enum import StrEnum
from typing import cast

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.fields.base import Field
from tortoise.models import Model

from db.fields import text_enum


class ConsentDefault(StrEnum):
    """What holds for a person who never said yes or no."""

    OPT_IN = "OPT_IN"
    """Silence is no."""
    OPT_OUT = "OPT_OUT"
    """Silence is yes."""


class KeyKind(StrEnum):
    SECRET = "SECRET"
    """For servers and people; its scopes say what it may do."""
    PUBLISHABLE = "PUBLISHABLE"
    """Ships inside apps and pages: acts on anonymous profiles only."""


# A tenant.
class Workspace(Model):
    id = fields.UUIDField(primary_key=True)
    name = fields.TextField()
    time_zone = fields.TextField()
    consent_default = text_enum(ConsentDefault)
    track_opens = fields.BooleanField()
    track_clicks = fields.BooleanField()
    approval_above = cast("Field[int | None]", fields.IntField(null=True))
    created_at = fields.DatetimeField()

    class Meta(Model.Meta):
        table = "workspace"


class Brand(Model):
    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    name = fields.TextField()
    created_at = fields.DatetimeField()

    class Meta(Model.Meta):
        table = "brand"


# A key; of the secret itself only the SHA-256 is kept.
class ApiKey(Model):
    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    name = fields.TextField()
    kind = text_enum(KeyKind)
    prefix = fields.TextField()
    scopes = cast("Field[list[str]]", ArrayField("text"))
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)
    last_used_at = fields.DatetimeField(null=True)
    replaced_by = fields.UUIDField(null=True)
    family_id = fields.UUIDField(null=True)

    class Meta(Model.Meta):
        table = "api_key"
