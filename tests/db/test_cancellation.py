"""A transaction that is interrupted ends, wherever the interruption meets it."""

import asyncio
from contextlib import AsyncExitStack, suppress
from uuid import UUID

import pytest
from tortoise import connections

from db import transactions
from db.roles import Role
from db.transactions import transaction, transaction_apart

RENAME = "UPDATE workspace SET name = $1"
NAME = "SELECT name FROM workspace"
PROCESS = "SELECT pg_backend_pid()"


def connections_in_use() -> int:
    pool = connections.get("default")._pool
    return int(pool.get_size() - pool.get_idle_size())


async def rename(workspace_id: UUID, name: str) -> None:
    async with transaction(workspace_id) as connection:
        await connection.execute(RENAME, name)


async def name_of(workspace_id: UUID) -> str:
    async with transaction(workspace_id) as connection:
        name: str = await connection.fetchval(NAME)
    return name


@pytest.mark.parametrize("while_it", ["begins", "works"])
async def test_what_a_task_does_after_an_interrupted_transaction_is_kept(
    workspace: UUID, monkeypatch: pytest.MonkeyPatch, while_it: str
) -> None:
    begin, hangs = transactions.Client.begin, asyncio.Event()

    async def hang() -> None:
        hangs.set()
        await asyncio.Event().wait()

    async def begin_and_hang(self: transactions.Client) -> None:
        await begin(self)
        await hang()

    async def rename_and_hang() -> None:
        async with transaction(workspace) as connection:
            await connection.execute(RENAME, "interrupted")
            await hang()

    async def interrupted() -> None:
        # Caught in the same task: what it does next must not be in the transaction that was given up.
        with suppress(asyncio.CancelledError):
            await rename_and_hang()
        monkeypatch.undo()
        assert connections_in_use() == 0
        await rename(workspace, "afterwards")

    if while_it == "begins":
        monkeypatch.setattr(transactions.Client, "begin", begin_and_hang)
    task = asyncio.create_task(interrupted())
    await hangs.wait()
    task.cancel()
    await task
    assert await asyncio.create_task(name_of(workspace)) == "afterwards"
    assert connections_in_use() == 0


async def test_a_transaction_apart_is_none_of_the_one_around_it(workspace: UUID) -> None:
    """Its role, its settings and its rollback are its own, and it sees what is committed."""
    async with transaction(workspace) as outer:
        await outer.execute(RENAME, "half done")
        settings = {"statement_timeout": "5s", "transaction_read_only": "on"}
        with suppress(ZeroDivisionError):
            async with transaction_apart(workspace, role=Role.APP, settings=settings) as inner:
                assert await inner.fetchval(PROCESS) != await outer.fetchval(PROCESS)
                assert await inner.fetchval("SHOW statement_timeout") == "5s"
                assert await inner.fetchval(NAME) != "half done"
                raise ZeroDivisionError
        assert await outer.fetchval("SHOW statement_timeout") == "0"
        assert await outer.fetchval("SHOW transaction_read_only") == "off"
        assert await outer.fetchval("SELECT current_user") == Role.APP
        # Also afterwards a nested one is a savepoint of the outer.
        async with transaction(workspace) as nested:
            assert nested is outer
    assert await name_of(workspace) == "half done"
    assert connections_in_use() == 0


async def test_nobody_waits_for_a_second_connection_for_ever(workspace: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncExitStack() as held:
        for _ in range(connections.get("default").pool_maxsize):
            await held.enter_async_context(transaction_apart(workspace, role=Role.APP, settings={}))
        monkeypatch.setattr(transactions, "LONGEST_WAIT_S", 0.0)
        with pytest.raises(TimeoutError):
            async with transaction_apart(workspace, role=Role.APP, settings={}):
                pass
    assert await name_of(workspace)
    assert connections_in_use() == 0


async def test_only_a_transaction_of_the_send_path_is_ended_when_it_stands_still(workspace: UUID) -> None:
    """T-6: the locks of a worker that was stopped in the middle of one would hold up its rows for ever.

    Others may wait for an engine meanwhile, which can take longer.
    """
    async with transaction(workspace, generic_plans=True) as connection:
        sending = await connection.fetchval("SHOW idle_in_transaction_session_timeout")
    async with transaction(workspace) as connection:
        others = await connection.fetchval("SHOW idle_in_transaction_session_timeout")
    assert (sending, others) == ("10s", "0")
