"""What the login may call outside of any transaction keeps to one workspace, and leaves nothing behind."""

from uuid import UUID

import asyncpg
import pytest

from db.roles import CALLED_BY_LOGIN, Role
from db.transactions import outside, transaction
from tests.conftest import Database

CALL = "SELECT segment_id, members FROM members_among($1, $2, $3, 20)"
PERSON = "INSERT INTO profile (workspace_id, external_id) VALUES ($1, $2)"
EVERYONE = "SELECT id FROM segment WHERE type = 'EVERYONE'"
STATE = "SELECT current_user::text, coalesce(current_setting('muster.workspace_id', true), '')"
INVOKERS = """
SELECT count(*) FROM pg_proc WHERE oid = ANY($1::text[]::regprocedure[]) AND NOT prosecdef
  AND NOT has_function_privilege('public', oid, 'EXECUTE')
"""


async def with_person(workspace_id: UUID, name: str) -> UUID:
    """The workspace's EVERYONE, with this person."""
    async with transaction(workspace_id) as connection:
        await connection.execute(PERSON, workspace_id, name)
        found: UUID = await connection.fetchval(EVERYONE)
    return found


async def test_a_check_sees_people_and_segments_of_its_workspace_only(workspace: UUID, other_workspace: UUID) -> None:
    """T-25."""
    mine, theirs = await with_person(workspace, "ann"), await with_person(other_workspace, "eve")
    async with outside() as connection:
        found = await connection.fetch(CALL, workspace, [mine, theirs], ["eve", "ann"])
    assert [tuple(row) for row in found] == [(mine, [2])]


async def test_a_check_reads_under_row_level_security(
    database: Database, workspace: UUID, other_workspace: UUID
) -> None:
    """Whatever its own conditions say: with them the policies are asked, here one that hides everybody."""
    mine = await with_person(workspace, "ann")
    owner = await asyncpg.connect(database.owner_url)
    try:
        await owner.execute("ALTER POLICY tenant ON profile USING (workspace_id <> workspace_id)")
    finally:
        await owner.close()
    async with outside() as connection:
        assert [tuple(row) for row in await connection.fetch(CALL, workspace, [mine], ["ann"])] == [(mine, [])]


async def test_a_check_leaves_neither_role_nor_workspace_behind(workspace: UUID) -> None:
    mine = await with_person(workspace, "ann")
    async with outside() as connection:
        before = tuple(await connection.fetchrow(STATE))
        await connection.fetch(CALL, workspace, [mine], ["ann"])
        assert tuple(await connection.fetchrow(STATE)) == before == ("muster", "")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT id FROM profile")


async def test_a_check_does_not_touch_the_transaction_around_it(workspace: UUID, other_workspace: UUID) -> None:
    theirs = await with_person(other_workspace, "eve")
    async with transaction(workspace) as connection:
        async with outside() as apart:
            assert await apart.fetch(CALL, other_workspace, [theirs], ["eve"])
        assert tuple(await connection.fetchrow(STATE)) == (Role.APP.value, str(workspace))


@pytest.mark.parametrize("role", [Role.APP, Role.LEAF, Role.QUERY])
async def test_nobody_else_may_call_it(workspace: UUID, role: Role) -> None:
    """Saved SQL runs in a session that could take the role of the application."""
    async with transaction(workspace, role=role) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(CALL, workspace, [], [])


async def test_no_such_function_runs_as_its_owner(database: Database) -> None:
    owner = await asyncpg.connect(database.owner_url)
    try:
        assert await owner.fetchval(INVOKERS, list(CALLED_BY_LOGIN)) == len(CALLED_BY_LOGIN)
    finally:
        await owner.close()
