"""Rows of statements of our own as models: a statement that joins answers in one what the ORM asks in several."""

from collections.abc import Mapping
from typing import Any, TypeVar

from tortoise.models import Model

M = TypeVar("M", bound=Model)


def to_model(model: type[M], row: Mapping[str, Any]) -> M:
    """The `model` that a row has all columns of, as if the ORM had read it; other columns are passed over."""
    return model._init_from_db(**row)
