"""Paces, thresholds, tracked links, and how far a dispatch is."""

from orjson import loads
from tortoise import fields, migrations
from tortoise.fields.data import JSON_DUMPS
from tortoise.migrations import operations as ops

from db import ddl, delivery_engine
from db.operations import FieldOfTable


class Migration(migrations.Migration):
    dependencies = [("muster", "0002_live_segments")]
    initial = False

    operations = [
        ops.RunSQL(
            [
                delivery_engine.PEOPLE,
                delivery_engine.CAMPAIGNS,
                delivery_engine.DOUBTS,
                delivery_engine.LINKS,
                delivery_engine.PACE,
                ddl.isolation(delivery_engine.TENANT_TABLES, ()),
                delivery_engine.FUNCTIONS,
            ],
            reverse_sql=delivery_engine.DOWN,
        ),
        FieldOfTable("Workspace", "track_opens", fields.BooleanField()),
        FieldOfTable("Workspace", "track_clicks", fields.BooleanField()),
        FieldOfTable("Campaign", "rate_per_s", fields.IntField(null=True)),
        FieldOfTable("Campaign", "error_threshold", fields.IntField(null=True)),
        FieldOfTable("Dispatch", "next_send_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
        FieldOfTable("Dispatch", "resumed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
        FieldOfTable("Dispatch", "tally", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
        FieldOfTable("Dispatch", "counted_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
    ]
