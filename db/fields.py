"""Column types of ours for Tortoise models."""

from enum import StrEnum
from typing import Any, TypeVar, cast

from tortoise import fields
from tortoise.fields.base import Field

E = TypeVar("E", bound=StrEnum)


class TextEnumField(fields.TextField):
    """A StrEnum kept in a text column; the CHECK of the table lists its values.

    Text, because a PostgreSQL enum's equality is not leakproof and loses indexes under row level security. A
    migration records the column without its Python type, so that migrations never import the packages above.
    """

    def __init__(self, enum_type: type[StrEnum] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.enum_type = enum_type

    def to_python_value(self, value: Any) -> Any:
        if value is None or self.enum_type is None:
            return value
        return self.enum_type(value)

    def to_db_value(self, value: Any, instance: Any) -> Any:
        return None if value is None else str(value)

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        path, args, kwargs = super().deconstruct()
        kwargs.pop("enum_type", None)
        return path, args, kwargs


def text_enum(enum_type: type[E], **kwargs: Any) -> Field[E]:
    """A column of `enum_type`, typed as such for models."""
    return cast("Field[E]", TextEnumField(enum_type, **kwargs))


def optional_text() -> "Field[str | None]":
    """A text column that may be null; Tortoise types TextField(null=True) as text that never is."""
    return cast("Field[str | None]", fields.TextField(null=True))
