"""What runs as processes for several modules: the yard of the kill tests, and everything as `muster up` starts it."""

import os
from collections.abc import Iterator

import pytest

from app.stack import Stack
from killtest.yard import Settings, Yard

CONCURRENCY = 16


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """Servers, API and mail sink, started once a process of the suite. PostgreSQL is durable, leases are short, and
    what is in doubt soon comes to rest."""
    with Yard(tmp_path_factory.mktemp("yard"), Settings(lease_s=5, send_timeout_s=10), hurried=True) as running:
        yield running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers, API, worker and mailbox, with short leases so that a death is noticed soon. It is started
    once (tests/conftest.py: TOGETHER)."""
    environ = {
        **{
            name: value for name, value in os.environ.items() if not name.startswith(("MUSTER_", "DATABASE_", "REDIS_"))
        },
        "MUSTER_LEASE_S": "5",
        "MUSTER_SEND_CONCURRENCY": str(CONCURRENCY),
    }
    with Stack(tmp_path_factory.mktemp("stack"), environ=environ, durable=False) as running:
        yield running
