"""Who meets which conditions now: many trees at once, each leaf asked once, segments that name others after these.

Full evaluations, the pulse (with `only`) and estimates all come through here.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from graphlib import TopologicalSorter
from time import monotonic
from uuid import UUID

from pyroaring import BitMap

from segments import tree
from segments.nodes import Condition, InSegment, Leaf, leaves
from segments.sources import Sources
from segments.tree import Census, NodeSize, Plan, Universe


@dataclass(frozen=True)
class Wanted:
    """What is to be found: who meets `condition`, of the workspace or of a brand.

    No slots, for the plan is kept in it.
    """

    condition: Condition
    brand_id: UUID | None = None

    @cached_property
    def plan(self) -> Plan:
        return tree.plan(self.condition)


@dataclass(frozen=True, slots=True)
class Found:
    """Who meets a condition, and how many meet each of its parts; none of these where sizes were not wanted."""

    members: BitMap
    nodes: list[NodeSize]


def uses(condition: Condition) -> set[UUID]:
    """The segments that a condition names."""
    return {leaf.segment_id for leaf in leaves(condition) if isinstance(leaf, InSegment)}


async def find(
    wanted: Mapping[UUID, Wanted],
    *,
    sources: Sources,
    workspace_id: UUID,
    now: datetime,
    members: Mapping[UUID, BitMap | None],
    only: BitMap | None = None,
    sized: bool = True,
) -> dict[UUID, Found]:
    """Who meets each of `wanted` (by segment id, or any id of the caller's) now; with `only`, of those.

    `sized`: whether the sizes of parts are wanted; of a hundred segments they take a third of the time of their trees.

    A segment named by another is taken as found here when it is itself wanted, else from `members`: its current
    members, None standing for everybody alive (EVERYONE). Every id that a condition names is in one of the two, and
    there are no circles (references.py refuses them). Raises EngineError.
    """
    began = monotonic()
    questions: dict[str, Leaf] = {}
    for one in wanted.values():
        questions |= one.plan.questions
    asked = {key: leaf for key, leaf in questions.items() if not isinstance(leaf, InSegment)}
    answers = await sources.ids(workspace_id=workspace_id, leaves=list(asked.values()), now=now, only=only)
    known = dict(zip(asked, answers, strict=True))
    # After the leaves: who was merged or erased while they ran is not let in by them.
    universes = await universes_of(
        wanted.values(), sources=sources, workspace_id=workspace_id, members=members, only=only, since=began
    )
    found: dict[UUID, Found] = {}
    for id in in_order(wanted):
        one = wanted[id]
        if one.plan.uses:
            for key, leaf in one.plan.questions.items():
                if isinstance(leaf, InSegment):
                    known[key] = referenced(leaf.segment_id, found, members, universes)
        found[id] = Found(*one.plan.combine(known, universes[one.brand_id], sized=sized))
    return found


async def universes_of(
    wanted: Collection[Wanted],
    *,
    sources: Sources,
    workspace_id: UUID,
    members: Mapping[UUID, BitMap | None],
    only: BitMap | None,
    since: float,
) -> dict[UUID | None, Universe]:
    """Whom the answers are cut to: the living of the workspace under None, those of each brand under its id. A count of
    `since` or later will do.

    Of the workspace they are counted, and the ids of all listed only where that does not do: reading a million takes as
    long as many a condition.
    """
    engine = sources.engine
    brands = {one.brand_id for one in wanted}
    everybody_named = any(id in members and members[id] is None for one in wanted for id in one.plan.uses)
    universes: dict[UUID | None, Universe] = {}
    for brand_id in brands | ({None} if everybody_named else set()):
        plans = [one.plan for one in wanted if one.brand_id == brand_id]
        counted = brand_id is None and only is None and not everybody_named
        if counted and all(may_be_counted(plan, sources) for plan in plans):
            gone = await engine.gone(workspace_id=workspace_id)
            profiles = 0
            if any(plan.counts_everybody for plan in plans):
                profiles = await engine.profiles(workspace_id=workspace_id, since=since)
            universes[brand_id] = Census(gone, profiles - len(gone))
        else:
            universes[brand_id] = await engine.universe(workspace_id=workspace_id, brand_id=brand_id, only=only)
    return universes


def may_be_counted(plan: Plan, sources: Sources) -> bool:
    """Whether a census will do. Only an engine names nobody but people: a saved query may select any number."""
    asked = (leaf for leaf in plan.questions.values() if not isinstance(leaf, InSegment))
    return not plan.lists_everybody and all(sources.of(leaf) is sources.engine for leaf in asked)


def in_order(wanted: Mapping[UUID, Wanted]) -> Iterable[UUID]:
    """The ids so that each comes after those its condition names."""
    graph = {id: one.plan.uses & wanted.keys() for id, one in wanted.items()}
    return TopologicalSorter(graph).static_order()


def referenced(
    segment_id: UUID,
    found: Mapping[UUID, Found],
    members: Mapping[UUID, BitMap | None],
    universes: Mapping[UUID | None, Universe],
) -> BitMap:
    """The members of a segment that another one names; `Plan.combine` cuts them to who is asked about."""
    if segment_id in found:
        return found[segment_id].members
    current = members[segment_id]
    if current is not None:
        return current
    everybody = universes[None]
    assert not isinstance(everybody, Census)
    return everybody
