"""Look-ups that several fields of one answer share."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID, uuid4

import strawberry
from strawberry.types import Info

from app.api.loaders import Gathered, Loader, Loaders
from app.execution import Execution


async def found(workspace_id: UUID, keys: list[str]) -> Mapping[str, str]:
    """Not before all else that can go on has done so."""
    for _ in range(50):
        await asyncio.sleep(0)
    return {key: key.upper() for key in keys}


class SomeLoaders(Loaders):
    names = Gathered(found)


@strawberry.type
class Thing:
    @strawberry.field
    async def name(self, info: Info[Any, Any], of: str) -> str | None:
        """Looked up, by way of graphql-core: it has an argument."""
        name: str | None = await info.context.names.load(of)
        return name

    @strawberry.field
    async def refused(self, info: Info[Any, Any]) -> str:
        """Ends its object, while the names of all are on their way."""
        raise ValueError("refused")


@strawberry.type
class Query:
    @strawberry.field
    def thing(self) -> Thing | None:
        return Thing()


async def test_what_one_object_does_not_wait_for_any_more_others_get() -> None:
    """graphql-core cancels what the siblings of a field that ended its object wait for."""
    schema = strawberry.Schema(query=Query, execution_context_class=Execution)
    answer = await schema.execute(
        '{ one: thing { name(of: "a") refused } other: thing { name(of: "a") } again: thing { name(of: "b") } }',
        context_value=SomeLoaders(uuid4(), now=datetime(2026, 3, 1, tzinfo=UTC)),
    )
    assert answer.data == {"one": None, "other": {"name": "A"}, "again": {"name": "B"}}
    assert [error.path for error in answer.errors or ()] == [["one", "refused"]]


def test_every_look_up_is_such_a_loader() -> None:
    loaders = Loaders(uuid4(), now=datetime(2026, 3, 1, tzinfo=UTC))
    names = [name for name, one in vars(Loaders).items() if isinstance(one, Gathered | cached_property)]
    assert {type(getattr(loaders, name)) for name in names} == {Loader}
