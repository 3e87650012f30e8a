"""Rows of statements of our own as models: a statement that joins answers in one what the ORM asks in several."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from tortoise.fields import DatetimeField, JSONField
from tortoise.models import Model

M = TypeVar("M", bound=Model)


def to_model(model: type[M], row: Mapping[str, Any]) -> M:
    """The `model` that a row of asyncpg has all columns of, as if the ORM had read it; others are passed over."""
    made = model.__new__(model)
    values = vars(made)
    # What the ORM notes of a row that it has read whole.
    values |= {"_partial": False, "_saved_in_db": True, "_custom_generated_pk": is_ours(model), "_await_when_save": {}}
    for column, name, convert in columns_of(model):
        value = row[column]
        values[name] = value if convert is None or value is None else convert(value)
    return made


@cache
def is_ours(model: type[Model]) -> bool:
    """Whether keys are made by us and not by the database."""
    return model._meta.db_pk_column not in model._meta.generated_db_fields


@cache
def columns_of(model: type[Model]) -> tuple[tuple[str, str, Callable[[Any], Any] | None], ...]:
    """Each column with its field and what makes a value of ours; None where asyncpg has: of instants, which it gives in
    UTC as the ORM does, and of jsonb, which our codec reads (db/transactions.py)."""
    return tuple(
        (column, name, None if isinstance(field, DatetimeField | JSONField) else field.to_python_value)
        for column, name, field in (
            (column, name, model._meta.fields_map[name]) for name, column in model._meta.fields_db_projection.items()
        )
    )
