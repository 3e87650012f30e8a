"""An index of those who were erased."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from db import counted_people


class Migration(migrations.Migration):
    dependencies = [("muster", "0003_delivery_engine")]
    initial = False

    operations = [ops.RunSQL([counted_people.PEOPLE], reverse_sql=counted_people.DOWN)]
