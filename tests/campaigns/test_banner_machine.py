"""Banners against their model (tests/campaigns/banner_machine.py).

MUSTER_BANNER_EXAMPLES says how many sequences.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from profiles.addresses import AddressHasher
from segments import everyone, lifecycle
from segments.models import SegmentType
from segments.wanted import SegmentInput
from tests.campaigns.banner_machine import BannerMachine, Stage
from tests.campaigns.factories import make_people
from tests.campaigns.ledger_world import World, open_world
from tests.conftest import Servers

EXAMPLES = int(os.environ.get("MUSTER_BANNER_EXAMPLES", "30"))
ALL = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    deadline=None,
    phases=set(Phase) - {Phase.explain},  # hundreds of runs more of what failed
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.fixture
def world(servers: Servers) -> Iterator[World]:
    with open_world(servers) as made:
        yield made


async def set_stage(world: World, hasher: AddressHasher) -> Stage:
    now = datetime.now(UTC)
    home = world.workspace_id
    people = await make_people(home, ("ada", "bob"), hasher=hasher, now=now)
    team = await lifecycle.create(home, SegmentInput(name="Team", type=SegmentType.STATIC), now=now)
    await lifecycle.activate(home, team.id, now=now)
    foreign: UUID = await everyone.create_workspace("theirs", time_zone="UTC", consent_default="OPT_OUT")
    return Stage(world, people, team.id, foreign)


def test_nobody_ever_sees_a_banner_that_is_over_paused_foreign_or_has_stopped_for_them(
    world: World, hasher: AddressHasher
) -> None:
    """S3-12, S3-13, S3-14, S3x-15, S3-24, S3-25, S3-29: and everybody sees what they should."""
    stage = world.run(set_stage(world, hasher))

    class Here(BannerMachine):
        def __init__(self) -> None:
            super().__init__(world, stage)

    run_state_machine_as_test(Here, settings=ALL)
