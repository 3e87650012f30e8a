"""What push notifications are sent with, and which app a device runs."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from db import ddl, push_engine


class Migration(migrations.Migration):
    dependencies = [("muster", "0007_banner_engine")]
    initial = False

    operations = [
        ops.RunSQL(
            [push_engine.DEVICES, push_engine.CREDENTIALS, ddl.isolation(push_engine.TENANT_TABLES, ())],
            reverse_sql=push_engine.DOWN,
        ),
    ]
