"""What placements allow, the rules of banners, and what viewers did with them."""

from orjson import loads
from tortoise import fields, migrations
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.fields.data import JSON_DUMPS
from tortoise.migrations import operations as ops

from db import banner_engine, ddl
from db.operations import FieldOfTable


class Migration(migrations.Migration):
    dependencies = [("muster", "0006_quick_checks")]
    initial = False

    operations = [
        ops.RunSQL(
            [
                banner_engine.PLACEMENTS,
                banner_engine.CAMPAIGNS,
                banner_engine.STOPS,
                banner_engine.TRACKING,
                banner_engine.PEOPLE,
                banner_engine.MONTHS,
                ddl.isolation(banner_engine.TENANT_TABLES, ()),
            ],
            reverse_sql=banner_engine.DOWN,
        ),
        FieldOfTable("Placement", "content_fields", ArrayField(element_type="TEXT", null=True)),
        FieldOfTable("Placement", "link_schemes", ArrayField(element_type="TEXT")),
        FieldOfTable("Placement", "slots", fields.IntField()),
        FieldOfTable("Placement", "limits", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
        FieldOfTable("Campaign", "rules", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
        FieldOfTable("Campaign", "test_segment_id", fields.UUIDField(null=True)),
    ]
