"""Keys that take over from others, people in the audit log, and approval by a second person."""

from orjson import loads
from tortoise import fields, migrations
from tortoise.fields.data import JSON_DUMPS
from tortoise.migrations import operations as ops

from db import access
from db.operations import FieldOfTable


class Migration(migrations.Migration):
    dependencies = [("muster", "0012_quicker_checks")]
    initial = False

    operations = [
        ops.RunSQL([access.TABLES, access.FUNCTIONS], reverse_sql=access.DOWN),
        FieldOfTable("Workspace", "approval_above", fields.IntField(null=True)),
        FieldOfTable("ApiKey", "replaced_by", fields.UUIDField(null=True)),
        FieldOfTable("ApiKey", "family_id", fields.UUIDField(null=True)),
        FieldOfTable("Campaign", "approval", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
    ]
