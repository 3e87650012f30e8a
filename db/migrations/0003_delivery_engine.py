"""Paces, thresholds, tracked links, and how far a dispatch is."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from db import ddl, delivery_engine
from db.operations import FieldOfTable


class Migration(migrations.Migration):
    dependencies = [("muster", "0002_live_segments")]
    initial = False

    operations = [
        ops.RunSQL(
            [
                delivery_engine.CAMPAIGNS,
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
        FieldOfTable("Dispatch", "progressed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
    ]
