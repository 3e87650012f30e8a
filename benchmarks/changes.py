"""What happens to the benchmarks' people between two measurements, and taking it all back before the first."""

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from benchmarks.databases import Bench
from benchmarks.people import EVENT_NAMES, who_acts
from segments import lifecycle
from segments.models import SegmentType
from segments.wanted import SegmentInput

MOST = 300
"""Segments of the workspace: more than the 100 of production, so that those of all figures can stand together."""

# Whatever came after the data were made occurred after them.
FORGET_EVENTS = (
    "DELETE FROM event WHERE workspace_id = $1 AND occurred_at >= $2",
    "DELETE FROM event_key WHERE workspace_id = $1 AND received_at >= $2",
    """
UPDATE profile p SET last_seen_at = last.occurred_at, seen_device_type = last.device_type,
  seen_browser = last.browser, seen_country = last.country, seen_city = last.city
FROM profile touched LEFT JOIN LATERAL (SELECT * FROM event e WHERE e.workspace_id = $1 AND e.profile_id = touched.id
  ORDER BY e.occurred_at DESC LIMIT 1) AS last ON true
WHERE touched.workspace_id = $1 AND touched.last_seen_at >= $2 AND p.workspace_id = $1 AND p.id = touched.id
""",
    "UPDATE profile SET first_seen_at = NULL WHERE workspace_id = $1 AND first_seen_at >= $2",
)
FORGET_PEOPLE = (
    "DELETE FROM profile_alias WHERE workspace_id = $1 AND profile_id > $2",
    "DELETE FROM profile_date WHERE workspace_id = $1 AND profile_id > $2",
    "DELETE FROM profile WHERE workspace_id = $1 AND id > $2",
)
FORGET_CHANGES = "DELETE FROM profile_change WHERE workspace_id = $1"
FORGET_PACKS = "DELETE FROM pack WHERE workspace_id = $1"
RETURN_ALL = "UPDATE profile SET {} WHERE workspace_id = $1 AND traits ? 'was'"
FORGET_SEGMENTS = (
    "TRUNCATE membership, membership_change, segment_rank, pulse, pulse_clock, evaluation, segment_membership",
    "DELETE FROM segment_reference",
    "DELETE FROM segment_query",
    "DELETE FROM segment WHERE type <> 'EVERYONE'",
)
SETTLED = ("event", "event_key", "profile", "profile_change", "segment")

SUSPEND = """
UPDATE profile SET traits = traits || jsonb_build_object('plan', 'suspended', 'was', traits -> 'plan')
WHERE workspace_id = $1 AND id = ANY ($2::int[])
"""
RETURNED = "traits = traits - 'was' || jsonb_build_object('plan', traits -> 'was')"
RETURN = f"UPDATE profile SET {RETURNED} WHERE workspace_id = $1 AND id = ANY ($2::int[])"

# One event each, of the eight names in turn, worth something, as ingestion writes them and tells of them.
ACT = """
INSERT INTO event (workspace_id, profile_id, name, occurred_at, received_at, message_id, properties)
SELECT $1, u.id, ($3::text[])[1 + u.place % 8], $4, $4, 'touch-' || gen_random_uuid(),
  jsonb_build_object('value', 20 * (u.place % 15), 'category', (ARRAY['books', 'music', 'sport'])[1 + u.place % 3],
    'channel', (ARRAY['web', 'app', 'store'])[1 + u.place % 3])
FROM unnest($2::int[]) WITH ORDINALITY AS u (id, place)
"""
TELL = "INSERT INTO profile_change (workspace_id, profile_ids, kind) VALUES ($1, $2::int[], 'touched')"
SET_CLOCK = """
INSERT INTO pulse_clock (workspace_id, through) VALUES ($1, $2)
ON CONFLICT (workspace_id) DO UPDATE SET through = excluded.through
"""


async def take_back(owner: asyncpg.Connection, bench: Bench) -> None:
    """Make the database what it was after its people were made, whatever a run before, finished or not, did to it."""
    for statement in FORGET_EVENTS:
        await owner.execute(statement, bench.workspace_id, bench.now)
    for statement in FORGET_PEOPLE:
        await owner.execute(statement, bench.workspace_id, bench.profiles)
    await owner.execute(FORGET_CHANGES, bench.workspace_id)
    await forget_packs(owner, bench)
    await owner.execute(RETURN_ALL.format(RETURNED), bench.workspace_id)
    for statement in FORGET_SEGMENTS:
        await owner.execute(statement)
    for table in SETTLED:
        await owner.execute(f"VACUUM {table}")


async def add_segments(
    bench: Bench, definitions: Iterable[tuple[str, object]], *, live: bool = True, now: datetime | None = None
) -> list[UUID]:
    """Make segments and activate them, by default at the instant the data end at; their first evaluations wait."""
    ids = []
    at = now or bench.now
    for name, definition in definitions:
        wanted = SegmentInput(name, SegmentType.DYNAMIC, definition=definition, live=live)
        segment = await lifecycle.create(bench.workspace_id, wanted, now=at, most=MOST)
        await lifecycle.activate(bench.workspace_id, segment.id, now=at)
        ids.append(segment.id)
    return ids


async def forget_packs(owner: asyncpg.Connection, bench: Bench) -> None:
    """Let the next evaluation read everything."""
    await owner.execute(FORGET_PACKS, bench.workspace_id)


async def suspend(owner: asyncpg.Connection, bench: Bench, ids: Sequence[int]) -> None:
    """Give these people another plan than they had."""
    await change(owner, bench, SUSPEND, ids)


async def let_return(owner: asyncpg.Connection, bench: Bench, ids: Sequence[int]) -> None:
    """Give these people the plan back that they had."""
    await change(owner, bench, RETURN, ids)


async def change(owner: asyncpg.Connection, bench: Bench, statement: str, ids: Sequence[int]) -> None:
    """Change these people and tell of it, as whoever writes them does."""
    async with owner.transaction():
        await owner.execute(statement, bench.workspace_id, ids)
        await owner.execute(TELL, bench.workspace_id, ids)


def active_people(draw: random.Random, bench: Bench, number: int) -> list[int]:
    """So many different people, drawn as those who act are: the most active are in most draws."""
    found: set[int] = set()
    while len(found) < number:
        found.add(who_acts(draw, bench.profiles))
    return sorted(found)


async def act(owner: asyncpg.Connection, bench: Bench, ids: Sequence[int], *, at: datetime) -> None:
    """Each of these people does something at `at`, and it is told of."""
    async with owner.transaction():
        await owner.execute(TELL, bench.workspace_id, ids)
        await owner.execute(ACT, bench.workspace_id, ids, list(EVENT_NAMES), at)


async def act_and_tell(owner: asyncpg.Connection, bench: Bench, ids: Sequence[int], *, at: datetime) -> None:
    """Each of these people does something half a second before `at`, and a pulse at `at` is to hear of it that has
    followed time up to a second before."""
    async with owner.transaction():
        await act(owner, bench, ids, at=at - timedelta(seconds=0.5))
        await owner.execute(SET_CLOCK, bench.workspace_id, at - timedelta(seconds=1))
