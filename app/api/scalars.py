"""The scalars of the schema beside GraphQL's own."""

import math
from datetime import UTC, datetime
from typing import Any, NewType

import strawberry
from graphql import GraphQLError, ValueNode, value_from_ast_untyped

Json = NewType("Json", object)
"""Any JSON value."""
ConditionValue = NewType("ConditionValue", object)
"""What conditions compare with: text, a number, a boolean, a list of those, or a duration such as {"days": 3}."""

DEEPEST = 20
LARGEST_INTEGER = 2**63 - 1


def check_json(value: Any, depth: int = 0) -> Any:
    """`value` itself, when PostgreSQL's jsonb can hold it; raises GraphQLError saying what it cannot.

    At most 20 levels deep; integers of 64 bits; no NaN or infinity; no NUL and no lone surrogate in texts.
    """
    if depth > DEEPEST:
        raise GraphQLError(f"JSON may be nested at most {DEEPEST} levels deep.")
    match value:
        case None | bool():
            pass
        case str():
            check_text(value)
        case int():
            if abs(value) > LARGEST_INTEGER:
                raise GraphQLError("Integers are at most 64 bits wide; give larger ones as text.")
        case float():
            if not math.isfinite(value):
                raise GraphQLError("Numbers must be finite.")
        case list():
            for item in value:
                check_json(item, depth + 1)
        case dict():
            for key, item in value.items():
                check_text(key)
                check_json(item, depth + 1)
        case _:
            raise GraphQLError(f"{type(value).__name__} is no JSON value.")
    return value


def check_text(text: str) -> None:
    """Raises GraphQLError for a text that PostgreSQL or UTF-8 cannot hold."""
    if "\x00" in text:
        raise GraphQLError("Texts must not hold the character U+0000; remove it.")
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise GraphQLError("Texts must not hold half a surrogate pair; send valid Unicode.") from fault


def check_condition_value(value: Any) -> Any:
    """`value` itself; raises GraphQLError when it is null, or a list or object of anything but plain values."""
    check_json(value)
    items = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    if any(isinstance(item, list | dict) or item is None for item in items):
        raise GraphQLError('Give a text, a number, a boolean, a list of those, or a duration such as {"days": 3}.')
    return value


def read_instant(value: Any) -> datetime:
    """An aware UTC datetime from ISO 8601 text; raises GraphQLError when it has no offset."""
    if not isinstance(value, str):
        raise GraphQLError("A DateTime is a text such as 2026-03-01T09:30:00Z.")
    try:
        instant = datetime.fromisoformat(value)
        if instant.tzinfo is None:
            raise GraphQLError("A DateTime needs an offset: 2026-03-01T09:30:00Z or 2026-03-01T10:30:00+01:00.")
        return instant.astimezone(UTC)
    except (ValueError, OverflowError) as fault:
        raise GraphQLError("This is no DateTime; write it like 2026-03-01T09:30:00Z.") from fault


def write_instant(value: datetime) -> str:
    """ISO 8601 in UTC with a Z."""
    # As all instants come from the database.
    if value.tzinfo is UTC:
        return f"{value.isoformat()[:-6]}Z"
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def json_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    """A JSON value written into the query itself."""
    return check_json(value_from_ast_untyped(node, variables))


def condition_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    """A condition's value written into the query itself."""
    return check_condition_value(value_from_ast_untyped(node, variables))


SCALARS: dict[object, Any] = {
    Json: strawberry.scalar(
        name="JSON",
        description="Any JSON value, at most 20 levels deep.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
        parse_value=check_json,
        parse_literal=json_literal,
    ),
    ConditionValue: strawberry.scalar(
        name="ConditionValue",
        description='A text, a number, a boolean, a list of those, or a duration such as {"days": 3}. Dates are texts'
        " such as 2026-01-31 and 2026-01-31T09:30:00Z.",
        parse_value=check_condition_value,
        parse_literal=condition_literal,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="An instant: ISO 8601 with an offset, such as 2026-03-01T09:30:00Z. Answers are in UTC.",
        serialize=write_instant,
        parse_value=read_instant,
    ),
}
