"""A membership check of one person in one segment by three look-ups."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from db import quicker_checks


class Migration(migrations.Migration):
    dependencies = [("muster", "0011_standing")]
    initial = False

    operations = [ops.RunSQL([quicker_checks.FUNCTIONS], reverse_sql=quicker_checks.DOWN)]
