"""How things stand, for metrics and readiness."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from db import standing


class Migration(migrations.Migration):
    dependencies = [("muster", "0010_api_records")]
    initial = False

    operations = [ops.RunSQL(standing.FUNCTIONS, reverse_sql=standing.DOWN)]
