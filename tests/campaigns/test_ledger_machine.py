"""T-10: the ledger against its model (tests/campaigns/ledger_machine.py), with crashes at every commit.

MUSTER_LEDGER_EXAMPLES says how many sequences (`make test-long`: 10,000).
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from campaigns import planning
from tests.campaigns.ledger_machine import LedgerMachine
from tests.campaigns.ledger_world import World, open_world
from tests.conftest import Servers

EXAMPLES = int(os.environ.get("MUSTER_LEDGER_EXAMPLES", "500"))
PARTS = 2
"""Tests that share the sequences, so that two processes can."""
ALL = settings(
    max_examples=EXAMPLES // PARTS,
    stateful_step_count=20,
    deadline=None,
    phases=set(Phase) - {Phase.explain},  # hundreds of runs more of what failed
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.fixture
def world(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Chunks of two people, so that a dispatch of three is written in several commits."""
    monkeypatch.setattr(planning, "CHUNK", 2)
    with open_world(servers) as made:
        yield made


@pytest.mark.parametrize("part", range(PARTS))
def test_no_crash_at_any_commit_loses_a_message_or_sends_one_twice(world: World, part: int) -> None:
    """T-10: R1 to R7, two workers."""

    class Here(LedgerMachine):
        def __init__(self) -> None:
            super().__init__(world)

    run_state_machine_as_test(Here, settings=ALL)
