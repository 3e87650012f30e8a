"""Who answers which leaf: the engine most of them, saved SQL and the packages above their own.

A `LeafSource` answers leaves with sets of profile ids; an engine is one that knows the universe and ranks besides.
Leaves that live higher up (whom a campaign reached) come through this port: `app` passes their sources in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from pyroaring import BitMap

from segments.engines.base import Engine, Look
from segments.nodes import InSegment, Leaf


class LeafSource(Protocol):
    """Answers the leaves of one kind."""

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[Any], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        """The profiles that meet each leaf, in the order of `leaves`; with `only`, those of them.

        Ids of merged and erased profiles may be among them. Raises EngineError.
        """

    async def crossed(self, *, workspace_id: UUID, leaves: Sequence[Any], since: datetime, until: datetime) -> BitMap:
        """Profiles whose answer to one of `leaves` may have changed by time alone, in (since, until].

        More than those is allowed, fewer is not. Raises EngineError.
        """

    async def looks(self, *, workspace_id: UUID, leaves: Sequence[Any], now: datetime, profile_id: int) -> list[Look]:
        """What each leaf makes of this profile, in the order of `leaves`; it matches exactly where `ids` has it.

        Raises EngineError.
        """


@dataclass(frozen=True, slots=True)
class Sources:
    """The engine, and who answers the leaf classes that it does not."""

    engine: Engine
    others: Mapping[type, LeafSource] = field(default_factory=dict)

    def of(self, leaf: Leaf) -> LeafSource:
        """Who answers `leaf`; InSegment is nobody's here, for members are known to whoever asks."""
        assert not isinstance(leaf, InSegment)
        return self.others.get(type(leaf), self.engine)

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[Leaf], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        """See LeafSource; each source is asked once."""
        answers: list[BitMap] = [BitMap()] * len(leaves)
        for source, places in self.by_source(leaves):
            asked = [leaves[place] for place in places]
            found = await source.ids(workspace_id=workspace_id, leaves=asked, now=now, only=only)
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    async def crossed(self, *, workspace_id: UUID, leaves: Sequence[Leaf], since: datetime, until: datetime) -> BitMap:
        """See LeafSource."""
        found = BitMap()
        for source, places in self.by_source(leaves):
            asked = [leaves[place] for place in places]
            found |= await source.crossed(workspace_id=workspace_id, leaves=asked, since=since, until=until)
        return found

    async def looks(self, *, workspace_id: UUID, leaves: Sequence[Leaf], now: datetime, profile_id: int) -> list[Look]:
        """See LeafSource; each source is asked once."""
        answers: dict[int, Look] = {}
        for source, places in self.by_source(leaves):
            asked = [leaves[place] for place in places]
            found = await source.looks(workspace_id=workspace_id, leaves=asked, now=now, profile_id=profile_id)
            answers |= zip(places, found, strict=True)
        return [answers[place] for place in range(len(leaves))]

    def by_source(self, leaves: Sequence[Leaf]) -> list[tuple[LeafSource, list[int]]]:
        """The places of `leaves` that each source answers."""
        places: dict[int, tuple[LeafSource, list[int]]] = {}
        for place, leaf in enumerate(leaves):
            source = self.of(leaf)
            places.setdefault(id(source), (source, []))[1].append(place)
        return list(places.values())
