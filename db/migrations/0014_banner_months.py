"""Months of banner events can be dropped; a function that nobody calls goes."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from db import banner_months


class Migration(migrations.Migration):
    dependencies = [("muster", "0013_access")]
    initial = False

    operations = [ops.RunSQL([banner_months.FUNCTIONS, banner_months.UNUSED], reverse_sql=banner_months.DOWN)]
