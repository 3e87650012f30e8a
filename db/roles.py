"""The four roles of the database, and how they come to be.

One login (DATABASE_URL) owns nothing and inherits nothing; inside a transaction it takes the role of the work at
hand. Outside of one it may call `CALLED_BY_LOGIN` and nothing else. Only `muster migrate` uses the owner's login
(DATABASE_OWNER_URL). docs/adr/0003 says why.
"""

from enum import StrEnum

import asyncpg


class Role(StrEnum):
    """Which rights a transaction has."""

    OWNER = "muster_owner"
    """Owns the tables and migrates them."""
    APP = "muster_app"
    """Reads and writes the rows of one workspace."""
    LEAF = "muster_leaf"
    """Reads people and events for segment leaves, past row level security: the compiler binds the workspace."""
    QUERY = "muster_query"
    """Runs saved SQL."""


CALLED_BY_LOGIN = ("members_among(uuid, uuid[], text[], integer)",)
"""Functions that take a role of the login by themselves. Nobody else may call them: saved SQL runs in a session that
could take the same role."""
FUNCTION_EXISTS = "SELECT to_regprocedure($1) IS NOT NULL"
LOGIN_EXISTS = "SELECT 1 FROM pg_roles WHERE rolname = $1"


async def ensure_roles(owner: asyncpg.Connection, *, login: str, password: str | None) -> None:
    """Make the four roles and the login, and let the login take every role but the owner's.

    `owner` is a superuser or has CREATEROLE and owns the database. Safe to run again and by two at once (callers
    hold the migration lock). A login that exists keeps its password.
    """
    for role in Role:
        if not await owner.fetchval(LOGIN_EXISTS, role.value):
            await owner.execute(f"CREATE ROLE {role.value} NOLOGIN NOINHERIT NOSUPERUSER NOBYPASSRLS")
    if not await owner.fetchval(LOGIN_EXISTS, login):
        secret = f"PASSWORD {await owner.fetchval('SELECT quote_literal($1)', password)}" if password else ""
        await owner.execute(f"CREATE ROLE {await quoted(owner, login)} LOGIN NOINHERIT NOSUPERUSER {secret}")
    for role in (Role.APP, Role.LEAF, Role.QUERY):
        await owner.execute(f"GRANT {role.value} TO {await quoted(owner, login)} WITH INHERIT FALSE, SET TRUE")
    me = await owner.fetchval("SELECT current_user")
    await owner.execute(f"GRANT {Role.OWNER.value} TO {await quoted(owner, me)} WITH INHERIT TRUE, SET TRUE")
    database = await owner.fetchval("SELECT current_database()")
    await owner.execute(f"GRANT CONNECT ON DATABASE {await quoted(owner, database)} TO {await quoted(owner, login)}")
    await owner.execute(f"GRANT ALL ON SCHEMA public TO {Role.OWNER.value}")
    await owner.execute(f"GRANT USAGE ON SCHEMA public TO {Role.APP.value}, {Role.LEAF.value}, {Role.QUERY.value}")


async def let_call(owner: asyncpg.Connection, *, login: str) -> None:
    """Let the login call `CALLED_BY_LOGIN`, as far as the schema has these functions; `owner` as in `ensure_roles`."""
    for function in CALLED_BY_LOGIN:
        if await owner.fetchval(FUNCTION_EXISTS, function):
            await owner.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {await quoted(owner, login)}")


async def quoted(connection: asyncpg.Connection, name: str) -> str:
    """`name` as an SQL identifier."""
    text: str = await connection.fetchval("SELECT quote_ident($1)", name)
    return text
