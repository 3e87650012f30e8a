"""A ledger whose rows change less on their way."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from db import leaner_ledger
from db.operations import FieldOfTable


class Migration(migrations.Migration):
    dependencies = [("muster", "0004_counted_people")]
    initial = False

    operations = [
        ops.RunSQL(
            [leaner_ledger.STATES, leaner_ledger.COLUMNS, leaner_ledger.INDEXES, leaner_ledger.MONTHS],
            reverse_sql=leaner_ledger.DOWN,
        ),
        FieldOfTable("Dispatch", "walked_through", fields.IntField()),
        FieldOfTable("Dispatch", "message_domain", fields.TextField()),
    ]
