"""People and their events, put into the tables as they stand; segments in the state a test needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from db.transactions import across_workspaces, transaction
from segments import evaluation, lifecycle, membership
from segments.engines.base import Engine
from segments.engines.postgres import PostgresEngine
from segments.lifecycle import SegmentInput
from segments.models import Evaluation, EvaluationCause, Segment, SegmentType

INSERT_PEOPLE = """
INSERT INTO profile (workspace_id, external_id, traits, identified, first_seen_at, last_seen_at, erased_at)
SELECT $1, t.external_id, t.traits, t.identified, t.first_seen_at, t.last_seen_at, t.erased_at
FROM unnest($2::text[], $3::jsonb[], $4::boolean[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[])
  WITH ORDINALITY AS t (external_id, traits, identified, first_seen_at, last_seen_at, erased_at, place)
ORDER BY t.place RETURNING id
"""
INSERT_EVENTS = """
INSERT INTO event (workspace_id, profile_id, name, occurred_at, properties, message_id)
SELECT $1, t.profile_id, t.name, t.occurred_at, t.properties, t.message_id
FROM unnest($2::int[], $3::text[], $4::timestamptz[], $5::jsonb[], $6::text[])
  AS t (profile_id, name, occurred_at, properties, message_id)
"""
MERGE = "UPDATE profile SET merged_into = $2 WHERE id = $1"
ERASE = "UPDATE profile SET erased_at = now() WHERE id = $1"
OF_BRAND = "INSERT INTO profile_brand (workspace_id, brand_id, profile_id) SELECT $1, $2, unnest($3::int[])"
MAKE_BRAND = "INSERT INTO brand (workspace_id, name) VALUES ($1, $2) RETURNING id"
INTERVALS = """
SELECT profile_id, exited_at IS NULL AS open, reason, exit_reason FROM membership WHERE segment_id = $1 ORDER BY id
"""
ENSURE_MONTH = "SELECT ensure_month('event', $1)"

Json = Mapping[str, object]


@dataclass(frozen=True)
class Happened:
    """An event of somebody."""

    name: str
    at: datetime
    properties: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Person:
    """Somebody, with all that conditions can ask about."""

    traits: Json = field(default_factory=dict)
    identified: bool = True
    first_seen_at: datetime | None = None
    last_seen_at: datetime | None = None
    events: Sequence[Happened] = ()
    external_id: str | None = None
    erased_at: datetime | None = None


async def make_people(workspace_id: UUID, *people: Person) -> list[int]:
    """The ids of new profiles, in the order of `people`."""
    events = [(place, event) for place, person in enumerate(people) for event in person.events]
    for month in {event.at.replace(day=1, hour=12) for _, event in events}:
        async with across_workspaces() as connection:
            await connection.execute(ENSURE_MONTH, month)
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(
            INSERT_PEOPLE,
            workspace_id,
            [one.external_id or uuid4().hex for one in people],
            [dict(one.traits) for one in people],
            [one.identified for one in people],
            [one.first_seen_at for one in people],
            [one.last_seen_at for one in people],
            [one.erased_at for one in people],
        )
        ids = [row["id"] for row in rows]
        await connection.execute(
            INSERT_EVENTS,
            workspace_id,
            [ids[place] for place, _ in events],
            [event.name for _, event in events],
            [event.at for _, event in events],
            [dict(event.properties) for _, event in events],
            [uuid4().hex for _ in events],
        )
    return ids


async def make_brand(workspace_id: UUID, name: str, *profile_ids: int) -> UUID:
    """A brand that these profiles are of."""
    async with transaction(workspace_id) as connection:
        brand_id: UUID = await connection.fetchval(MAKE_BRAND, workspace_id, name)
        await connection.execute(OF_BRAND, workspace_id, brand_id, list(profile_ids))
    return brand_id


async def merge(workspace_id: UUID, *, loser: int, winner: int) -> None:
    async with transaction(workspace_id) as connection:
        await connection.execute(MERGE, loser, winner)


async def erase(workspace_id: UUID, profile_id: int) -> None:
    async with transaction(workspace_id) as connection:
        await connection.execute(ERASE, profile_id)


def bought(at: datetime, value: object = 10) -> Happened:
    return Happened("purchase", at, {"value": value})


PREMIUM: dict[str, object] = {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}}
ON_PREMIUM = Person(traits={"plan": "premium"})


async def make_static(workspace_id: UUID, *, now: datetime, name: str = "curated") -> Segment:
    return await lifecycle.create(workspace_id, SegmentInput(name=name, type=SegmentType.STATIC), now=now)


async def make_dynamic(
    workspace_id: UUID, definition: object = None, *, now: datetime, name: str = "dynamic", brand_id: UUID | None = None
) -> Segment:
    """An active one, whose first evaluation waits."""
    wanted = SegmentInput(name=name, type=SegmentType.DYNAMIC, definition=definition or PREMIUM, brand_id=brand_id)
    segment = await lifecycle.create(workspace_id, wanted, now=now)
    return await lifecycle.activate(workspace_id, segment.id, now=now)


async def evaluate(segment: Segment, *, now: datetime, engine: Engine | None = None) -> Evaluation:
    """The segment's evaluation, asked for and run."""
    asked = await evaluation.request(segment.workspace_id, segment.id, cause=EvaluationCause.REQUEST, now=now)
    return await evaluation.run(segment.workspace_id, asked.id, engine=engine or PostgresEngine(), now=now)


async def members_of(segment: Segment) -> set[int] | None:
    """The bitmap's ids; None when it was never evaluated."""
    async with transaction(segment.workspace_id) as connection:
        members = await membership.load(connection, segment.id)
    return None if members is None else set(members)


async def intervals_of(segment: Segment) -> list[tuple[int, bool, str, str | None]]:
    """(profile id, open, reason, exit reason) of the segment's history, oldest first."""
    async with transaction(segment.workspace_id) as connection:
        return [tuple(row) for row in await connection.fetch(INTERVALS, segment.id)]


DAY = timedelta(days=1)
