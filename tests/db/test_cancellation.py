"""A transaction that is interrupted ends, wherever the interruption meets it."""

import asyncio
from uuid import UUID

import pytest
from tortoise import connections
from tortoise.backends.asyncpg.client import TransactionWrapper

from db.transactions import transaction

RENAME = "UPDATE workspace SET name = $1"
NAME = "SELECT name FROM workspace"


def connections_in_use() -> int:
    pool = connections.get("default")._pool
    return int(pool.get_size() - pool.get_idle_size())


async def rename(workspace_id: UUID, name: str, *, seconds: float) -> None:
    async with transaction(workspace_id) as connection:
        await connection.execute(RENAME, name)
        await connection.execute("SELECT pg_sleep($1)", seconds)


async def name_of(workspace_id: UUID) -> str:
    async with transaction(workspace_id) as connection:
        name: str = await connection.fetchval(NAME)
    return name


@pytest.mark.parametrize("while_it", ["begins", "works"])
async def test_what_a_task_does_after_an_interrupted_transaction_is_kept(
    workspace: UUID, monkeypatch: pytest.MonkeyPatch, while_it: str
) -> None:
    begin = TransactionWrapper.begin

    async def begin_and_hang(self: TransactionWrapper) -> None:
        await begin(self)
        await asyncio.Event().wait()

    if while_it == "begins":
        monkeypatch.setattr(TransactionWrapper, "begin", begin_and_hang)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await rename(workspace, "interrupted", seconds=60)
    monkeypatch.undo()

    assert connections_in_use() == 0
    await rename(workspace, "afterwards", seconds=0)
    assert await asyncio.create_task(name_of(workspace)) == "afterwards"
    assert connections_in_use() == 0
