"""Migration operations of ours."""

from typing import Any

from tortoise.migrations import operations as ops


class ModelOfTable(ops.CreateModel):
    """Records a model in the migration state and leaves the database alone: db/ddl.py made its table.

    Tortoise's own CreateModel would drop Meta.constraints and knows neither partitions nor policies.
    """

    async def database_forward(self, *args: Any, **kwargs: Any) -> None:
        return None

    async def database_backward(self, *args: Any, **kwargs: Any) -> None:
        return None


class FieldOfTable(ops.AddField):
    """Records a column in the migration state and leaves the database alone: the migration's SQL added it."""

    async def database_forward(self, *args: Any, **kwargs: Any) -> None:
        return None

    async def database_backward(self, *args: Any, **kwargs: Any) -> None:
        return None
