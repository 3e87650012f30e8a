"""The engine of workers: PostgreSQL, and what it read of everybody before.

What a pack says of whoever did not change since it was made is true still; the others are asked about as a pulse asks
about some people. Where there is no pack, or too many changed, everybody is read, and kept for the next time.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
from pyroaring import BitMap

from segments import packs
from segments.engines import folding, packed_events, packed_traits
from segments.engines.base import EngineError, Look, Ranks
from segments.engines.folding import Tally
from segments.engines.packed_events import Reach
from segments.engines.postgres import (
    COUNTED_FOR_S,
    MOST_LOOKED_UP,
    READ_IN_ORDER,
    PostgresEngine,
    only_row,
    side_by_side,
)
from segments.engines.profile_leaves import is_dated
from segments.nodes import EngineLeaf, Event, RankBy, Trait
from segments.packs import Kind, Made, Moment, Name, Pack, Part

logger = logging.getLogger(__name__)

MOST_CHANGED = 40
"""One in so many may have changed since a pack was made: to ask about them takes as long then as to read everybody."""
FEW = 1_000
"""So many may have changed however few there are."""
LEFT_FOR_S = 3600
"""So long what is no good as a pack, or went wrong, is not tried again."""

AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
"""What goes wrong with packs is no reason for an evaluation to fail."""


@dataclass(frozen=True, slots=True)
class Question:
    """Who meets these leaves, which packs may answer."""

    workspace_id: UUID
    leaves: Sequence[EngineLeaf]
    now: datetime
    profiles: int
    """About how many people the workspace has."""
    places: Mapping[Name, Sequence[int]]
    """By pack, the places of the leaves that it may answer."""

    def of(self, name: Name) -> list[Any]:
        """The leaves that a pack may answer."""
        return [self.leaves[place] for place in self.places[name]]

    def reach(self, name: Name) -> Reach:
        """What a pack of events must have."""
        return packed_events.wanted(self.of(name), self.now)


@dataclass(slots=True)
class Answer:
    """What packs say: who meets each leaf that they know of, by its place, and whom they know nothing of."""

    found: dict[int, BitMap] = field(default_factory=dict)
    changed: BitMap = field(default_factory=BitMap)
    everybody: BitMap = field(default_factory=BitMap)
    missing: dict[Name, Pack | None] = field(default_factory=dict)
    """Packs that would be of use, with what there is in their place."""
    snapshot: str = ""
    erased: int = 0
    """Of its moment."""

    def add(self, more: "Answer") -> None:
        """Take in what other packs say, of another moment."""
        self.found |= more.found
        self.changed |= more.changed


class PackedEngine:
    """See engines/base.py: of `inner`, but for who meets conditions among all people of a workspace of `fewest` or
    more."""

    def __init__(self, inner: PostgresEngine, *, fewest: int = MOST_LOOKED_UP) -> None:
        self.inner = inner
        self.fewest = fewest
        self.name = inner.name
        self.left: dict[tuple[UUID, Name], float] = {}
        """What turned out to be no good as a pack, or went wrong, and when, by time.monotonic()."""

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        """See engines/base.py."""
        answer = Answer()
        if only is None and (places := self.places(workspace_id, leaves)):
            profiles = await self.inner.profiles(workspace_id=workspace_id, since=monotonic() - COUNTED_FOR_S)
            if profiles >= self.fewest:
                answer = await self.packed(Question(workspace_id, leaves, now, profiles, places))
        rest = [place for place in range(len(leaves)) if place not in answer.found]
        found = dict(answer.found)
        if rest:
            asked = [leaves[place] for place in rest]
            answers = await self.inner.ids(workspace_id=workspace_id, leaves=asked, now=now, only=only)
            found |= zip(rest, answers, strict=True)
        if answer.found and answer.changed:
            asked = [leaves[place] for place in answer.found]
            again = await self.inner.ids(workspace_id=workspace_id, leaves=asked, now=now, only=answer.changed)
            for place, of_changed in zip(answer.found, again, strict=True):
                found[place] = (found[place] - answer.changed) | of_changed
        return [found[place] for place in range(len(leaves))]

    def places(self, workspace_id: UUID, leaves: Sequence[EngineLeaf]) -> dict[Name, list[int]]:
        """By pack that may answer some of `leaves`, their places."""
        places: dict[Name, list[int]] = {}
        for place, leaf in enumerate(leaves):
            match leaf:
                case Trait(key) if not is_dated(leaf):
                    places.setdefault(Name(Kind.TRAIT, key), []).append(place)
                case Event(name):
                    places.setdefault(Name(Kind.EVENT, name), []).append(place)
                case _:
                    pass
        until = monotonic() - LEFT_FOR_S
        return {name: mine for name, mine in places.items() if self.left.get((workspace_id, name), until) <= until}

    async def packed(self, question: Question) -> Answer:
        """What packs say, which are made where there are none."""
        try:
            answer = await self.answered(question, list(question.places))
            if answer.missing:
                await self.make(question, answer)
            return answer
        except AWAY as e:
            logger.warning("packs not used", extra={"workspace_id": question.workspace_id}, exc_info=e)
            # Else each evaluation would read everybody twice for as long as nothing can be kept.
            self.left |= dict.fromkeys(((question.workspace_id, name) for name in question.places), monotonic())
            return Answer()

    async def answered(self, question: Question, names: Sequence[Name]) -> Answer:
        """What those of these packs say that are there, all of one moment."""
        answer = Answer()
        at = monotonic()
        async with packs.moment(question.workspace_id, names) as moment:
            answer.snapshot, answer.erased = moment.snapshot, moment.erased
            serving = {name: pack for name, pack in moment.packs.items() if serves(question, name, pack)}
            answer.missing = {name: moment.packs.get(name) for name in names if name not in serving}
            for name, pack in serving.items():
                found = await (of_trait if name.kind is Kind.TRAIT else of_events)(question, moment, name, answer)
                answer.found |= zip(question.places[name], found, strict=True)
                answer.changed |= pack.changed
        if answer.everybody:
            # No row of theirs ever goes, and whoever came since is among those who changed.
            self.inner.counted[question.workspace_id] = len(answer.everybody | answer.changed), at
        return answer

    async def make(self, question: Question, answer: Answer) -> None:
        """Read what is missing, keep it, and add what it says to `answer`. All of it is read after the moment of
        `answer`, whose snapshot it gets: whoever changes while it is read has changed since."""

        async def keep(some: Sequence[Made]) -> None:
            await packs.keep(question.workspace_id, some, snapshot=answer.snapshot, erased=answer.erased)

        async def traits(began: asyncio.Event) -> None:
            began.set()
            made = await self.made_of_traits(question, [name for name in answer.missing if name.kind is Kind.TRAIT])
            if made:
                await keep(made)
                answer.add(await self.answered(question, [one.name for one in made]))

        async def events(began: asyncio.Event) -> None:
            began.set()
            # One after the other, for the sake of memory.
            for name in [name for name in answer.missing if name.kind is Kind.EVENT]:
                if (made := await self.made_of_events(question, name, answer.missing[name])) is not None:
                    one, found = made
                    await keep([one])
                    answer.found |= zip(question.places[name], found, strict=True)

        # While the one waits for PostgreSQL, the other one packs.
        await side_by_side(traits, events)

    async def made_of_traits(self, question: Question, names: Sequence[Name]) -> list[Made]:
        """Packs of these traits, of those that have few values; all are read at once."""
        if not names:
            return []
        workspace_id = question.workspace_id
        try:
            async with self.inner.reading(workspace_id, planning=self.inner.planning(workspace_id, None)) as connection:
                values: dict[str, list[str | None]] = {}
                for name in names:
                    statement = packed_traits.values_of(name.name)
                    rows = await connection.fetch(statement.sql, *statement.values(workspace_id))
                    if len(rows) <= packed_traits.MOST_VALUES:
                        values[name.name] = [row["value"] for row in rows]
                made: list[Made] = []
                if values:
                    await connection.execute(READ_IN_ORDER, question.profiles)
                    statement = packed_traits.of_traits(values)
                    columns = await only_row(connection, statement, statement.values(workspace_id))
                    made = await asyncio.to_thread(packed_traits.packs_of, values, columns)
        except EngineError as e:
            require_answering(e)
            logger.warning("traits not packed", extra={"workspace_id": workspace_id, "code": e.code}, exc_info=e)
            made = []
        for name in set(names) - {one.name for one in made}:
            self.left[workspace_id, name] = monotonic()
        return made

    async def made_of_events(
        self, question: Question, name: Name, before: Pack | None
    ) -> tuple[Made, list[BitMap]] | None:
        """A pack of these events, which can answer what the one before could as well, and who meets the leaves that it
        may answer; None where the events are too many."""
        workspace_id, reach = question.workspace_id, question.reach(name)
        known = None if before is None else packed_events.reach_again(name.name, before.facts, question.now)
        if known is not None:
            reach = reach.with_(known)
        reading = packed_events.reading(reach)
        times = packed_events.times(reach, profiles=question.profiles, now=question.now)
        shares = packed_events.shares(reach, packed_events.facts(reach, times, question.now), question.of(name))
        events, parts, tallies = 0, list[Part](), list[Tally]()
        try:
            for time in times if not reach.is_too_much else ():
                values = reading.statement.values(workspace_id, now=question.now, part=time)
                async with self.inner.reading(
                    workspace_id, planning=self.inner.planning(workspace_id, None)
                ) as connection:
                    columns = await only_row(connection, reading.statement, values)
                rows = await asyncio.to_thread(packed_events.in_order, reading, columns)
                del columns
                packed = b"" if rows is None else await asyncio.to_thread(packed_events.content, reach, rows)
                events += 0 if rows is None else len(rows.place)
                if packed is None or events > packed_events.MOST_EVENTS:
                    break
                parts.append(Part(packed))
                tallies = await asyncio.to_thread(packed_events.tallied, shares, rows, tallies, question.now)
                del rows  # 33 bytes an event, columns 26: the next ones come in while both would still be there
        except EngineError as e:
            require_answering(e)
            logger.warning("events not packed", extra={"workspace_id": workspace_id, "code": e.code}, exc_info=e)
        if len(parts) < len(times):
            self.left[workspace_id, name] = monotonic()
            return None
        found = await asyncio.to_thread(folding.who_meets, shares, tallies, question.now)
        # Two years are taken for all time, and most names have events of a part of it: nothing is no part.
        kept = [(time, part) for time, part in zip(times, parts, strict=True) if part.content]
        facts = packed_events.facts(reach, [time for time, _ in kept], question.now)
        return Made(name, facts, [part for _, part in kept], BitMap()), found

    # --- what `inner` answers alone -------------------------------------------------------------------------------

    async def as_of(self, *, workspace_id: UUID) -> datetime | None:
        """See engines/base.py."""
        return await self.inner.as_of(workspace_id=workspace_id)

    async def universe(self, *, workspace_id: UUID, brand_id: UUID | None = None, only: BitMap | None = None) -> BitMap:
        """See engines/base.py."""
        return await self.inner.universe(workspace_id=workspace_id, brand_id=brand_id, only=only)

    async def gone(self, *, workspace_id: UUID) -> BitMap:
        """See engines/base.py."""
        return await self.inner.gone(workspace_id=workspace_id)

    async def profiles(self, *, workspace_id: UUID, since: float) -> int:
        """See engines/base.py."""
        return await self.inner.profiles(workspace_id=workspace_id, since=since)

    async def crossed(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], since: datetime, until: datetime
    ) -> BitMap:
        """See engines/base.py."""
        return await self.inner.crossed(workspace_id=workspace_id, leaves=leaves, since=since, until=until)

    async def ranks(self, *, workspace_id: UUID, by: RankBy, now: datetime, only: BitMap | None = None) -> Ranks:
        """See engines/base.py."""
        return await self.inner.ranks(workspace_id=workspace_id, by=by, now=now, only=only)

    async def looks(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], now: datetime, profile_id: int
    ) -> list[Look]:
        """See engines/base.py."""
        return await self.inner.looks(workspace_id=workspace_id, leaves=leaves, now=now, profile_id=profile_id)


def require_answering(error: EngineError) -> None:
    """Raise it again when there is nothing wrong with what was asked."""
    if error.code == "ENGINE_UNAVAILABLE":
        raise error


def serves(question: Question, name: Name, pack: Pack) -> bool:
    """Whether a pack is good for the question, and not too many changed since."""
    # Of more people than are looked up, `inner` reads everybody.
    if len(pack.changed) > min(max(question.profiles // MOST_CHANGED, FEW), MOST_LOOKED_UP):
        return False
    if name.kind is Kind.TRAIT:
        return True
    reach = packed_events.reach_of(name.name, pack.facts)
    return reach is not None and reach.has(question.reach(name))


async def of_trait(question: Question, moment: Moment, name: Name, answer: Answer) -> list[BitMap]:
    """Who meets the leaves on a trait; `answer` gets to know everybody."""
    statement = packed_traits.asked(question.of(name), moment.packs[name].id)
    rows = await moment.connection.fetch(statement.sql, *statement.values(question.workspace_id))
    found, answer.everybody = packed_traits.answered(len(question.of(name)), rows)
    return found


async def of_events(question: Question, moment: Moment, name: Name, _: Answer) -> list[BitMap]:
    """Who meets the leaves on events of one name: read part by part, one folded while the next is read."""
    pack, now = moment.packs[name], question.now
    reach = packed_events.reach_of(name.name, pack.facts)
    assert reach is not None
    shares = packed_events.shares(reach, pack.facts, question.of(name))

    def fold(content: bytes, tallies: list[Tally]) -> list[Tally]:
        return packed_events.tallied(shares, packed_events.rows(reach, content), tallies, now)

    tallies: list[Tally] = []
    for place in packed_events.places(pack.facts, question.reach(name).since):
        content = await packs.part(moment, question.workspace_id, pack, place)
        tallies = await asyncio.to_thread(fold, content, tallies)
    return await asyncio.to_thread(folding.who_meets, shares, tallies, now)
