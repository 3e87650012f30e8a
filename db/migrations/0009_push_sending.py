"""Which of a dispatch's push notifications may be sent again when in doubt."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from db import push_sending


class Migration(migrations.Migration):
    dependencies = [("muster", "0008_push_engine")]
    initial = False

    operations = [ops.RunSQL([push_sending.COLUMNS, push_sending.DEVICES], reverse_sql=push_sending.DOWN)]
