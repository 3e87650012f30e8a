"""What PostgreSQL says when it cannot answer, as errors of the port."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from segments.engines.base import EngineError

# The server's or the connection's, whatever was asked: the next one may well be answered.
AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    OSError,
)


@contextmanager
def as_engine_errors(*, too_slow: str) -> Iterator[None]:
    """What goes wrong inside is an EngineError; `too_slow` is the sentence for a query that took too long."""
    try:
        yield
    except asyncpg.QueryCanceledError as e:
        raise EngineError("CONDITION_TOO_SLOW", too_slow) from e
    except AWAY as e:
        raise EngineError("ENGINE_UNAVAILABLE", "PostgreSQL could not be reached; try again.") from e
    except asyncpg.PostgresError as e:
        message = f"PostgreSQL could not answer a condition (SQLSTATE {e.sqlstate}); its log says why."
        raise EngineError("ENGINE_REFUSED", message) from e
