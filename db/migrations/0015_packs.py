"""Packs: copies of what a scan of everybody answers."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from db import ddl, packs


class Migration(migrations.Migration):
    dependencies = [("muster", "0014_banner_months")]
    initial = False

    operations = [
        ops.RunSQL([packs.PACKS, ddl.isolation(packs.TENANT_TABLES, ())], reverse_sql=packs.DOWN),
    ]
