"""Requests that may come twice, and who did what."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from db import api_records, ddl


class Migration(migrations.Migration):
    dependencies = [("muster", "0009_push_sending")]
    initial = False

    operations = [
        ops.RunSQL(
            [api_records.REQUESTS, api_records.AUDIT, ddl.isolation(api_records.TENANT_TABLES, ())],
            reverse_sql=api_records.DOWN,
        ),
    ]
