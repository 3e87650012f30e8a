"""The oracle as an engine: reads whole tables and asks it person by person. What any engine must answer alike."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import assert_never
from uuid import UUID

from pyroaring import BitMap

from db.transactions import transaction
from segments.engines.base import Look, Ranks
from segments.nodes import (
    Aggregate,
    Attribute,
    ByEvents,
    BySeen,
    ByTrait,
    EngineLeaf,
    Event,
    Identified,
    Json,
    Measure,
    RandomBucket,
    RankBy,
    Seen,
    Sessions,
    Sight,
    Trait,
)
from segments.tree import bucket
from tests.segments import oracle
from tests.segments.people import COLUMNS, CONTEXT, Happened, Person

PEOPLE = "SELECT * FROM profile WHERE workspace_id = $1 ORDER BY id"
EVENTS = "SELECT * FROM event WHERE workspace_id = $1"
OF_BRAND = "SELECT profile_id FROM profile_brand WHERE workspace_id = $1 AND brand_id = $2"

LARGEST = Fraction(10) ** 308


@dataclass(frozen=True)
class Population:
    """Everybody of a workspace, the dead as well."""

    people: Mapping[int, Person]
    dead: frozenset[int]


async def read_population(workspace_id: UUID) -> Population:
    """Everybody that the tables have."""
    events: dict[int, list[Happened]] = {}
    async with transaction(workspace_id) as connection:
        for row in await connection.fetch(EVENTS, workspace_id):
            beside = {column: row[column] for column in CONTEXT}
            one = Happened(row["name"], row["occurred_at"], row["properties"], **beside)
            events.setdefault(row["profile_id"], []).append(one)
        rows = await connection.fetch(PEOPLE, workspace_id)
    people = {
        row["id"]: Person(
            traits=row["traits"],
            events=events.get(row["id"], ()),
            external_id=row["external_id"],
            **{column: row[column] for column in COLUMNS},
        )
        for row in rows
    }
    return Population(people, frozenset(row["id"] for row in rows if row["merged_into"] or row["erased_at"]))


class OracleEngine:
    """See segments/engines/base.py."""

    name = "oracle"

    async def as_of(self, *, workspace_id: UUID) -> datetime | None:
        return None

    async def ids(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], now: datetime, only: BitMap | None = None
    ) -> list[BitMap]:
        population = await read_population(workspace_id)
        return [meeting(leaf, population.people, now, only) for leaf in leaves]

    async def universe(self, *, workspace_id: UUID, brand_id: UUID | None = None, only: BitMap | None = None) -> BitMap:
        population = await read_population(workspace_id)
        living = BitMap(population.people.keys() - population.dead)
        if brand_id is not None:
            async with transaction(workspace_id) as connection:
                rows = await connection.fetch(OF_BRAND, workspace_id, brand_id)
            living &= BitMap(row["profile_id"] for row in rows)
        return living if only is None else living & only

    async def gone(self, *, workspace_id: UUID) -> BitMap:
        return BitMap((await read_population(workspace_id)).dead)

    async def profiles(self, *, workspace_id: UUID, since: float) -> int:
        return len((await read_population(workspace_id)).people)

    async def crossed(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], since: datetime, until: datetime
    ) -> BitMap:
        population = await read_population(workspace_id)
        return differing(leaves, population.people, since, until)

    async def ranks(self, *, workspace_id: UUID, by: RankBy, now: datetime, only: BitMap | None = None) -> Ranks:
        population = await read_population(workspace_id)
        people = {id: one for id, one in sorted(population.people.items()) if only is None or id in only}
        known = ranking(by, people, now)
        return Ranks(array("I", known), array("d", known.values()))

    async def looks(
        self, *, workspace_id: UUID, leaves: Sequence[EngineLeaf], now: datetime, profile_id: int
    ) -> list[Look]:
        population = await read_population(workspace_id)
        person = population.people[profile_id]
        return [look(leaf, profile_id, person, now) for leaf in leaves]


def meeting(leaf: EngineLeaf, people: Mapping[int, Person], now: datetime, only: BitMap | None = None) -> BitMap:
    """Who of `people`, or of `only`, meets `leaf`."""
    return BitMap(
        id for id, person in people.items() if (only is None or id in only) and oracle.meets(leaf, id, person, now)
    )


def differing(leaves: Sequence[EngineLeaf], people: Mapping[int, Person], since: datetime, until: datetime) -> BitMap:
    """Whose answer to one of `leaves` is another at `until` than at `since`."""
    found = BitMap()
    for leaf in leaves:
        found |= meeting(leaf, people, since) ^ meeting(leaf, people, until)
    return found


def ranking(by: RankBy, people: Mapping[int, Person], now: datetime) -> dict[int, float]:
    """The value of everybody who has one."""
    return {id: value for id, person in people.items() if (value := rank(by, person, now)) is not None}


def rank(by: RankBy, person: Person, now: datetime) -> float | None:
    match by:
        case ByTrait(key):
            exact = oracle.number(person.traits.get(key))
        case BySeen(sight):
            at = person.first_seen_at if sight is Sight.FIRST else person.last_seen_at
            exact = None if at is None else Fraction(str(at.timestamp()))
        case ByEvents(name, measure, key, window):
            found = oracle.matching(Event(name, window=window), person.events, now)
            exact = aggregate(measure, found, key)
        case _:
            assert_never(by)
    return None if exact is None else float(min(max(exact, -LARGEST), LARGEST))


def aggregate(measure: Measure | Aggregate, found: Sequence[Happened], key: str | None) -> Fraction | None:
    if measure is Measure.COUNT:
        return Fraction(len(found)) if found else None
    numbers = oracle.numbers(found, key or "")
    if not numbers:
        return None
    match measure.upper():
        case "SUM":
            return sum(numbers, Fraction())
        case "AVG":
            return sum(numbers, Fraction()) / len(numbers)
        case "MIN":
            return min(numbers)
        case _:
            return max(numbers)


def look(leaf: EngineLeaf, profile_id: int, person: Person, now: datetime) -> Look:
    return Look(oracle.meets(leaf, profile_id, person, now), value(leaf, profile_id, person, now))


def value(leaf: EngineLeaf, profile_id: int, person: Person, now: datetime) -> Json:
    match leaf:
        case Trait(key):
            found: Json = person.traits.get(key)  # type: ignore[assignment]
            return found
        case Attribute(name):
            return oracle.attribute(person, name)
        case Seen(sight):
            return written(person.first_seen_at if sight is Sight.FIRST else person.last_seen_at)
        case Identified():
            return person.identified
        case RandomBucket(salt):
            return bucket(profile_id, salt)
        case Sessions(window=window):
            return {"count": len(oracle.sessions(person.events, window, now))}
        case Event():
            matching = oracle.matching(leaf, person.events, now)
            of: dict[str, Json] = {"count": len(matching)}
            for total in leaf.totals:
                exact = aggregate(total.aggregate, matching, total.property)
                of[total.aggregate.value] = None if exact is None else float(exact)
            times = sorted(one.at for one in matching)
            if leaf.first is not None:
                of["first"] = written(times[0] if times else None)
            if leaf.last is not None:
                of["last"] = written(times[-1] if times else None)
            return of
        case _:
            assert_never(leaf)


def written(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()
