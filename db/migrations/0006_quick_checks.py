"""A membership check in one round trip."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from db import quick_checks


class Migration(migrations.Migration):
    dependencies = [("muster", "0005_leaner_ledger")]
    initial = False

    operations = [ops.RunSQL([quick_checks.FUNCTIONS], reverse_sql=quick_checks.DOWN)]
