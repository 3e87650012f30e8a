"""How the schema is declared: types and fields whose docstrings are the descriptions that clients read.

A root field names the right it needs (`needs=`), so that none can be open by mistake, and a mutation turns refusals
into `userErrors`. `tests/contract` proves that every type, field and argument has a description.
"""

import dataclasses
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import EnumMeta
from functools import wraps
from typing import Any, TypeVar, dataclass_transform

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.types import Info
from strawberry.types.field import StrawberryField

from app.auth import require
from app.once import Audited, Beforehand, Once
from app.problems import AsUserErrors
from profiles.keys import Scope

T = TypeVar("T")

ARGUMENTS = {
    "first": "How many to answer: 1 to 100.",
    "after": "The cursor after which to go on: `pageInfo.endCursor` of the page before.",
    "input": "What is wanted.",
    "id": "The id, as the API gave it.",
    "ids": "At most 100 ids, as the API gave them.",
}
"""Descriptions of arguments that mean the same everywhere."""


def about(
    description: str,
    *,
    name: str | None = None,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
) -> Any:
    """An attribute of an output or input type, with its description."""
    return strawberry.field(description=description, name=name, default=default, default_factory=default_factory)


def argument(description: str) -> Any:
    """The description of an argument: `key: Annotated[str, argument("...")]`."""
    return strawberry.argument(description=description)


@dataclass_transform(kw_only_default=True, field_specifiers=(about, strawberry.field))
def output(cls: type[T]) -> type[T]:
    """An object type; its docstring is its description."""
    return described(strawberry.type(cls))


@dataclass_transform(kw_only_default=True, field_specifiers=(about, strawberry.field))
def interface(cls: type[T]) -> type[T]:
    """An interface; its docstring is its description."""
    return described(strawberry.interface(cls))


@dataclass_transform(kw_only_default=True, field_specifiers=(about, strawberry.field))
def input_type(cls: type[T]) -> type[T]:
    """An input object; its docstring is its description."""
    return described(strawberry.input(cls))


@dataclass_transform(kw_only_default=True, field_specifiers=(about, strawberry.field))
def one_of(cls: type[T]) -> type[T]:
    """An input object of which exactly one field is given; its docstring is its description."""
    return described(strawberry.input(cls, one_of=True))


def described(cls: type[T]) -> type[T]:
    """Give a type and its resolvers their docstrings as descriptions."""
    definition: Any = cls.__strawberry_definition__  # type: ignore[attr-defined]
    if "__doc__" in vars(cls):
        definition.description = inspect.getdoc(cls)
    for field in definition.fields:
        if field.base_resolver is not None and not field.description:
            field.description = inspect.getdoc(field.base_resolver.wrapped_func)
        for argument_ in field.arguments:
            argument_.description = argument_.description or ARGUMENTS.get(argument_.python_name)
    return cls


def enum(cls: EnumMeta, description: str, *, name: str | None = None, **values: str) -> None:
    """Publish a StrEnum of ours, under its own name unless `name` is given; `values` describes its members."""
    strawberry.enum(cls, name=name, description=description)
    definition: Any = cls.__strawberry_definition__  # type: ignore[attr-defined]
    for value in definition.values:
        value.description = values.get(value.name)


class Requires(FieldExtension):
    """Refuses callers without a right, before anything else happens."""

    def __init__(self, scope: Scope, *, from_apps: bool) -> None:
        self.scope = scope
        self.from_apps = from_apps

    async def resolve_async(self, next_: Any, source: Any, info: Info[Any, Any], **kwargs: Any) -> Any:
        require(info.context.caller, self.scope, from_apps=self.from_apps)
        return await next_(source, info, **kwargs)


class TellsBoards(FieldExtension):
    """What it changed may change which banners are shown: boards look at once, and not within a second."""

    async def resolve_async(self, next_: Any, source: Any, info: Info[Any, Any], **kwargs: Any) -> Any:
        answer = await next_(source, info, **kwargs)
        info.context.resources.wakeups.tell_boards_soon(info.context.workspace_id)
        return answer


ON_BOARDS = (Scope.CAMPAIGNS, Scope.SEND, Scope.SEGMENTS)
"""Whoever changes something with these rights may change what banners are shown."""


def query(*, needs: Scope, from_apps: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """A field that reads. `from_apps`: publishable keys and client tokens may ask too."""

    def declare(resolver: Callable[..., Any]) -> Any:
        return strawberry.field(resolver, extensions=[Requires(needs, from_apps=from_apps)])

    return declare


def mutation(
    *,
    needs: Scope,
    from_apps: bool = False,
    once: bool = False,
    beforehand: Callable[[Any, Any], Awaitable[None]] | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """A field that changes something and answers a payload, whose `userErrors` say why it did not.

    `once`: sent again with the same Idempotency-Key it answers again and does nothing. All that sends or makes
    something is so, unless its input itself says whether it came before; its resolver runs in one transaction, and
    `beforehand` is given info and input before that, for what has no place in one. What is told of people (`ingest`)
    is not audited: it is data, and too much.
    """

    def declare(resolver: Callable[..., Any]) -> Any:
        # The last is the outermost: a caller without the right is told so before its input is looked at.
        tells = [TellsBoards()] if needs in ON_BOARDS else []
        requires = Requires(needs, from_apps=from_apps)
        audited = [] if needs is Scope.INGEST else [Audited()]
        first = [Once()] if once else []
        steps = [] if beforehand is None else [Beforehand(beforehand)]
        return strawberry.mutation(resolver, extensions=[*first, *steps, AsUserErrors(), *tells, *audited, requires])

    return declare


def subscription(*, needs: Scope) -> Callable[[Callable[..., Any]], Any]:
    """A field that tells how something goes on; its resolver is an asynchronous generator."""

    def declare(resolver: Callable[..., Any]) -> Any:
        @wraps(resolver)
        async def required(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            # Extensions of fields see no generators.
            info = kwargs["info"]
            require(info.context.caller, needs)
            async for told in resolver(*args, **kwargs):
                yield told

        return strawberry.subscription(required)

    return declare


def resolved(resolver: Callable[..., Any]) -> Any:
    """A field of an object that has to be looked up; its object was already granted to the caller."""
    return strawberry.field(resolver)


LOADERS_ONLY = "awaits_loaders_only"


def looked_up(resolver: Callable[..., Any]) -> Any:
    """Like `resolved`, of a resolver that takes nothing but `info` and awaits nothing but loaders: it is begun for all
    objects of a list before any is waited for, in one task, which a transaction of its own would not bear."""
    vars(resolver)[LOADERS_ONLY] = True
    return strawberry.field(resolver)


def is_looked_up(field: StrawberryField) -> bool:
    """Whether a field was declared so."""
    return field.base_resolver is not None and LOADERS_ONLY in vars(field.base_resolver.wrapped_func)
