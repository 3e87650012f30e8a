"""Segments in the state a test needs, and the people of people.py."""

from datetime import datetime, timedelta
from uuid import UUID

from db.transactions import transaction
from segments import cycles, evaluation, lifecycle, membership, references
from segments.engines.base import Engine
from segments.engines.postgres import PostgresEngine
from segments.lifecycle import SegmentInput
from segments.models import Evaluation, EvaluationCause, Segment, SegmentType
from segments.sources import Sources
from tests.segments.people import Happened, Person, bought, erase, make_brand, make_people, merge

__all__ = [
    "DAY", "ON_PREMIUM", "PREMIUM", "SOURCES", "Happened", "Person", "bought", "erase", "evaluate", "intervals_of",
    "make_brand", "make_dynamic", "make_people", "make_static", "members_of", "merge", "run_all",
]  # fmt: skip

INTERVALS = """
SELECT profile_id, exited_at IS NULL AS open, reason, exit_reason FROM membership WHERE segment_id = $1
ORDER BY entered_at, profile_id
"""
SOURCES = Sources(PostgresEngine())

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
    """The segment's evaluation, asked for and run, with whatever else waits."""
    asked = await evaluation.request(segment.workspace_id, segment.id, cause=EvaluationCause.REQUEST, now=now)
    await run_all(segment.workspace_id, now=now, engine=engine)
    done = await evaluation.find(segment.workspace_id, asked.id)
    assert done is not None
    return done


async def run_all(workspace_id: UUID, *, now: datetime, engine: Engine | None = None) -> list[UUID]:
    """Cycle after cycle, as a worker does; the segments whose evaluation ended."""
    ended: list[UUID] = []
    while (some := await cycles.run(workspace_id, sources=Sources(engine) if engine else SOURCES, now=now)) is not None:
        ended += some
    return ended


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


async def uses(workspace_id: UUID, *segment_ids: UUID) -> dict[UUID, list[UUID]]:
    """The segments that each of these names; those that name none are left out."""
    found = await references.neighbours(workspace_id, segment_ids)
    return {asked: [one.id for one in beside.uses] for asked, beside in found.items() if beside.uses}
