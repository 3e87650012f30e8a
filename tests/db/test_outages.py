"""Which errors of PostgreSQL are worth another attempt, so that nothing known is lost (R4)."""

import asyncpg
import pytest

from db.outages import is_passing


@pytest.mark.parametrize(
    ("trouble", "passes"),
    [
        (asyncpg.ReadOnlySQLTransactionError("demoted"), True),
        (asyncpg.IdleInTransactionSessionTimeoutError("stood still"), True),
        (asyncpg.DeadlockDetectedError("chosen"), True),
        (asyncpg.ObjectNotInPrerequisiteStateError("lets nobody in"), True),
        (ConnectionResetError(), True),
        (asyncpg.CheckViolationError("ours"), False),
        (ValueError("ours"), False),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_another_server_or_moment_would_take_is_tried_again(trouble: BaseException, passes: bool) -> None:
    assert is_passing(trouble) is passes
