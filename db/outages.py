"""Which errors of PostgreSQL pass by themselves."""

import asyncpg


def is_passing(trouble: BaseException) -> bool:
    """Whether the same statement may succeed later: the server is away, restarts, is full, or chose us in a deadlock
    (SQLSTATE classes 08, 40, 53 and 57; PostgreSQL manual, appendix A), or ended a transaction of ours that stood still
    for too long (25P03), or is not the primary any more, whose place another server takes (25006), or lets nobody into
    the database for now (55000)."""
    if isinstance(trouble, asyncpg.PostgresError):
        state = str(trouble.sqlstate)
        return state[:2] in ("08", "40", "53", "57") or state in ("25P03", "25006", "55000")
    # asyncpg's InterfaceError of a value that it cannot send is a ValueError too.
    return isinstance(trouble, OSError | asyncpg.InterfaceError) and not isinstance(trouble, ValueError)
