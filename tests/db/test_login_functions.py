"""What the login may call outside of any transaction keeps to one workspace, and leaves nothing behind."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from db.roles import CALLED_BY_LOGIN, Role
from db.transactions import outside, transaction
from tests.conftest import Database

CALL = "SELECT segment_id, members FROM members_among($1, $2, $3, 20)"
PERSON = "INSERT INTO profile (workspace_id, external_id) VALUES ($1, $2)"
EVERYONE = "SELECT id FROM segment WHERE type = 'EVERYONE'"
BOBS = "INSERT INTO segment (workspace_id, name, type, status) VALUES ($1, 'bobs', 'STATIC', 'ACTIVE') RETURNING id"
IN = """
INSERT INTO membership (workspace_id, segment_id, profile_id, entered_at, reason)
SELECT $1, $2, id, now(), 'test' FROM profile WHERE external_id IN ('bob', 'erased')
"""
MERGE = """
UPDATE profile SET merged_into = CASE external_id WHEN 'circle' THEN id
  ELSE (SELECT id FROM profile WHERE external_id = 'bob') END WHERE external_id IN ('merged', 'circle')
"""
ERASE = "UPDATE profile SET erased_at = now() WHERE external_id = 'erased'"
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


async def test_a_check_of_one_answers_what_a_check_of_many_does(workspace: UUID) -> None:
    names = ["ann", "bob", "merged", "circle", "erased", "nobody", "b,ob"]
    async with transaction(workspace) as connection:
        for name in names[:5]:
            everyone = await with_person(workspace, name)
        bobs = await connection.fetchval(BOBS, workspace)
        await connection.execute(IN, workspace, bobs)
        await connection.execute(MERGE)
        await connection.execute(ERASE)
    async with outside() as connection:
        for segment, members in ((everyone, [1, 2, 3]), (bobs, [2, 3]), (uuid4(), None)):
            many = [row["members"] for row in await connection.fetch(CALL, workspace, [segment], names)]
            one = [await connection.fetch(CALL, workspace, [segment], [name]) for name in names]
            assert many == ([] if members is None else [members])
            assert [place for place, rows in enumerate(one, start=1) if rows and rows[0]["members"] == [1]] == (
                members or []
            )
            assert {len(rows) for rows in one} == {len(many)}


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
