"""How many people a definition would find, node by node, and how many of them could be written to."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from db.transactions import transaction
from profiles import reach
from profiles.addresses import AddressHasher, Channel
from profiles.text import clean_text
from segments import lifecycle
from segments.asking import find_now, within
from segments.errors import clean
from segments.json_values import Path
from segments.nodes import All, AnyOf, Condition, Not
from segments.sources import Sources

LIMIT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Counted:
    """A node of a tree, and how many people meet it, of the workspace or brand that was asked about."""

    path: Path
    """From the root, as in the JSON form."""
    condition: Condition
    size: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a definition would find."""

    size: int
    nodes: list[Counted]
    """Parents before their children; the first is the root."""
    reachable: Mapping[Channel, int]
    """How many of them could be sent marketing about the topic, by channel; every channel is there."""
    evaluated_at: datetime
    """The instant that windows end at."""


async def estimate(
    workspace_id: UUID,
    condition: Condition,
    *,
    brand_id: UUID | None = None,
    topic: str = reach.DEFAULT_TOPIC,
    sources: Sources,
    hasher: AddressHasher,
    now: datetime,
    limit: timedelta = LIMIT,
    field: Path = ("definition",),
) -> Estimate:
    """Count who meets `condition` now. Nothing is written, and nothing goes on when it is given up.

    `field` is where the condition stands in the input. Raises SegmentError: ESTIMATE_TOO_SLOW after `limit`,
    NOT_FOUND for a brand or segment that is not there, SEGMENT_NOT_EVALUATED for a segment that it names, what the
    engine or the topic is refused for.
    """
    topic = clean(clean_text, topic, field=("topic",), what="Topic", most=reach.MOST_TOPIC_CHARACTERS)
    async with within(
        limit,
        code="ESTIMATE_TOO_SLOW",
        mend="narrow the windows, use fewer conditions, or save the segment and let a worker evaluate it",
    ):
        async with transaction(workspace_id) as connection:
            await lifecycle.require_brand(connection, workspace_id, brand_id)
        found = await find_now(workspace_id, condition, brand_id=brand_id, sources=sources, now=now, field=field)
        async with transaction(workspace_id) as connection:
            reachable = await reach.reachable(
                connection, workspace_id=workspace_id, people=found.members, topic=topic, hasher=hasher
            )
    return Estimate(
        size=len(found.members),
        nodes=[Counted(node.path, at(condition, node.path), node.size) for node in found.nodes],
        reachable={channel: len(people) for channel, people in reachable.items()},
        evaluated_at=now,
    )


def at(condition: Condition, path: Path) -> Condition:
    """The node of a tree that `path` leads to."""
    match condition, path:
        case _, ():
            return condition
        case ((All(items) | AnyOf(items)), (_, place, *rest)):
            return at(items[int(place)], tuple(rest))
        case Not(item), (_, *rest):
            return at(item, tuple(rest))
        case _:
            raise ValueError(f"no node at {path}")
