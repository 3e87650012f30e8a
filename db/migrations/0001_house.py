"""The house: every table, policy, grant and function, and the models' state."""

from uuid import uuid4

from orjson import loads
from tortoise import fields, migrations
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.fields.data import JSON_DUMPS
from tortoise.migrations import operations as ops

from db import ddl
from db.fields import TextEnumField
from db.operations import ModelOfTable


class Migration(migrations.Migration):
    initial = True

    operations = [
        ops.RunSQL(
            [
                ddl.WORKSPACES,
                ddl.PROFILES,
                ddl.EVENTS,
                ddl.SEGMENTS,
                ddl.CAMPAIGNS,
                ddl.UUID_FLOOR,
                ddl.FUNCTIONS,
                ddl.isolation(("workspace", *ddl.TENANT_TABLES), ddl.LEAF_TABLES),
            ],
            reverse_sql=ddl.DOWN,
        ),
        ModelOfTable(
            name="ApiKey",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("workspace_id", fields.UUIDField()),
                ("name", fields.TextField(unique=False)),
                ("kind", TextEnumField()),
                ("prefix", fields.TextField(unique=False)),
                ("scopes", ArrayField(element_type="TEXT")),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("expires_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("revoked_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("last_used_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={"table": "api_key", "app": "muster", "pk_attr": "id"},
            bases=["Model"],
        ),
        ModelOfTable(
            name="Brand",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("workspace_id", fields.UUIDField()),
                ("name", fields.TextField(unique=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={"table": "brand", "app": "muster", "pk_attr": "id"},
            bases=["Model"],
        ),
        ModelOfTable(
            name="Campaign",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("workspace_id", fields.UUIDField()),
                ("brand_id", fields.UUIDField(null=True)),
                ("name", fields.TextField(unique=False)),
                ("channel", TextEnumField()),
                ("status", TextEnumField()),
                ("status_reason", fields.TextField(null=True, unique=False)),
                ("status_detail", fields.TextField(null=True, unique=False)),
                ("topic", fields.TextField(unique=False)),
                ("class_", TextEnumField(source_field="class")),
                ("content", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("content_version", fields.IntField()),
                ("sender_id", fields.UUIDField(null=True)),
                ("placement_id", fields.UUIDField(null=True)),
                ("weight", fields.IntField(null=True)),
                ("scheduled_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("time_zone", fields.TextField(unique=False)),
                ("expires_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("missed_policy", TextEnumField()),
                ("maximum_lateness_s", fields.IntField()),
                ("refresh_before", fields.BooleanField()),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("started_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("finished_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={"table": "campaign", "app": "muster", "pk_attr": "id"},
            bases=["Model"],
        ),
        ModelOfTable(
            name="Dispatch",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("workspace_id", fields.UUIDField()),
                ("campaign_id", fields.UUIDField()),
                ("kind", TextEnumField()),
                ("content", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("content_version", fields.IntField()),
                ("audience_size", fields.IntField()),
                ("planned_through", fields.IntField()),
                ("planned_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("no_address", fields.IntField()),
                ("counts", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
                ("dirty", fields.BooleanField()),
                ("heartbeat_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("finished_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={"table": "dispatch", "app": "muster", "pk_attr": "id"},
            bases=["Model"],
        ),
        ModelOfTable(
            name="Evaluation",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("workspace_id", fields.UUIDField()),
                ("segment_id", fields.UUIDField()),
                ("definition_version", fields.IntField()),
                ("status", TextEnumField()),
                ("cause", TextEnumField()),
                ("engine", fields.TextField(null=True, unique=False)),
                ("queued_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("started_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("lease_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("fence", fields.IntField()),
                ("finished_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("duration_ms", fields.IntField(null=True)),
                ("size", fields.IntField(null=True)),
                ("added", fields.IntField(null=True)),
                ("removed", fields.IntField(null=True)),
                ("nodes", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
                ("error_code", fields.TextField(null=True, unique=False)),
                ("error", fields.TextField(null=True, unique=False)),
            ],
            options={"table": "evaluation", "app": "muster", "pk_attr": "id"},
            bases=["Model"],
        ),
        ModelOfTable(
            name="Placement",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("workspace_id", fields.UUIDField()),
                ("key", fields.TextField(unique=False)),
                ("name", fields.TextField(unique=False)),
                ("description", fields.TextField(unique=False)),
                ("rotation_window_s", fields.IntField()),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={"table": "placement", "app": "muster", "pk_attr": "id"},
            bases=["Model"],
        ),
        ModelOfTable(
            name="Segment",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("workspace_id", fields.UUIDField()),
                ("brand_id", fields.UUIDField(null=True)),
                ("name", fields.TextField(unique=False)),
                ("description", fields.TextField(unique=False)),
                ("type", TextEnumField()),
                ("status", TextEnumField()),
                ("definition", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
                ("definition_version", fields.IntField()),
                ("cadence", TextEnumField()),
                ("cron", fields.TextField(null=True, unique=False)),
                ("time_zone", fields.TextField(unique=False)),
                ("next_run_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={"table": "segment", "app": "muster", "pk_attr": "id"},
            bases=["Model"],
        ),
        ModelOfTable(
            name="Sender",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("workspace_id", fields.UUIDField()),
                ("brand_id", fields.UUIDField(null=True)),
                ("from_name", fields.TextField(unique=False)),
                ("from_address", fields.TextField(unique=False)),
                ("reply_to", fields.TextField(null=True, unique=False)),
                ("postal_address", fields.TextField(unique=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={"table": "sender", "app": "muster", "pk_attr": "id"},
            bases=["Model"],
        ),
        ModelOfTable(
            name="Workspace",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("name", fields.TextField(unique=False)),
                ("time_zone", fields.TextField(unique=False)),
                ("consent_default", TextEnumField()),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={"table": "workspace", "app": "muster", "pk_attr": "id"},
            bases=["Model"],
        ),
    ]
