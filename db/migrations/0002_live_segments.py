"""Segments that stay true by themselves: the pulse, the feed, ranking, references, saved SQL, dated traits."""

from uuid import uuid4

from orjson import loads
from tortoise import fields, migrations
from tortoise.fields.data import JSON_DUMPS
from tortoise.migrations import operations as ops

from db import ddl, live_segments
from db.fields import TextEnumField
from db.operations import FieldOfTable, ModelOfTable


class Migration(migrations.Migration):
    dependencies = [("muster", "0001_house")]
    initial = False

    operations = [
        ops.RunSQL(
            [
                live_segments.PEOPLE,
                live_segments.SEGMENTS,
                live_segments.ENGAGEMENT,
                ddl.isolation(live_segments.TENANT_TABLES, live_segments.LEAF_TABLES),
                live_segments.POLICIES,
                live_segments.FUNCTIONS,
                live_segments.BACKFILL_DATES,
            ],
            reverse_sql=live_segments.DOWN,
        ),
        FieldOfTable("Segment", "live", fields.BooleanField()),
        FieldOfTable("Segment", "mode", TextEnumField()),
        FieldOfTable("Segment", "ranking", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
        FieldOfTable("Segment", "change_guard", fields.IntField(null=True)),
        FieldOfTable("Evaluation", "approved_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
        ModelOfTable(
            name="SavedQuery",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("workspace_id", fields.UUIDField()),
                ("name", fields.TextField(unique=False)),
                ("description", fields.TextField(unique=False)),
                ("sql", fields.TextField(unique=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={"table": "saved_query", "app": "muster", "pk_attr": "id"},
            bases=["Model"],
        ),
    ]
