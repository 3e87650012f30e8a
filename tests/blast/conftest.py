"""The yard of the kill tests: everything as processes, PostgreSQL durable, leases short."""

from collections.abc import Iterator

import pytest

from killtest.yard import Settings, Yard


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """Servers, API and mail sink, started once a process of the suite."""
    with Yard(tmp_path_factory.mktemp("yard"), Settings(lease_s=5), hurried=True) as running:
        yield running
