"""Conditions asked for a person who waits: whom a definition would find now, within a time limit, writing nothing."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from pyroaring import BitMap

from db.transactions import Connection, transaction
from segments import finding, references
from segments.engines.base import EngineError
from segments.errors import SegmentError, SegmentNotFound
from segments.finding import Found, Wanted
from segments.json_values import Path
from segments.nodes import Condition, InSegment
from segments.sources import Sources

NAMES = "SELECT id, name FROM segment WHERE workspace_id = $1 AND id = ANY($2)"


async def find_now(
    workspace_id: UUID,
    condition: Condition,
    *,
    brand_id: UUID | None,
    sources: Sources,
    now: datetime,
    only: BitMap | None = None,
    field: Path = ("definition",),
) -> Found:
    """Who meets `condition` now, of the workspace or of a brand; with `only`, of those.

    Segments that it names are taken with their current members. Raises SegmentError: NOT_FOUND or
    SEGMENT_NOT_EVALUATED for one that it names, below `field`, and what the engine refused, by the engine's code.
    """
    named = {leaf.segment_id: path for path, leaf in references.placed(condition, field) if isinstance(leaf, InSegment)}
    async with transaction(workspace_id) as connection:
        members = await current_members(connection, workspace_id, named)
    one = uuid4()
    try:
        found = await finding.find(
            {one: Wanted(condition, brand_id)},
            sources=sources,
            workspace_id=workspace_id,
            now=now,
            members=members,
            only=only,
        )
    except EngineError as e:
        raise SegmentError(e.code, e.message, field=field) from e
    return found[one]


async def current_members(
    connection: Connection, workspace_id: UUID, named: Mapping[UUID, Path]
) -> dict[UUID, BitMap | None]:
    """The members of segments by id, None for EVERYONE; `named` says where in the input each one stands.

    Raises SegmentNotFound, and SegmentError SEGMENT_NOT_EVALUATED, for the first that has none.
    """
    members = await references.members(connection, workspace_id, named.keys())
    if missing := [id for id in named if id not in members]:
        names = await names_of(connection, workspace_id, missing)
        for id in missing:
            if id not in names:
                raise SegmentNotFound(field=named[id])
            raise never_evaluated(names[id], field=named[id])
    return members


def never_evaluated(name: str, *, field: Path) -> SegmentError:
    """The refusal of a segment that conditions name and that has no members to be asked about."""
    message = f"The segment {name!r} was never evaluated; activate it, or evaluate it first."
    return SegmentError("SEGMENT_NOT_EVALUATED", message, field=field)


async def names_of(connection: Connection, workspace_id: UUID, segment_ids: Collection[UUID]) -> dict[UUID, str]:
    """Names of segments by id; unknown ids are left out."""
    return dict(await connection.fetch(NAMES, workspace_id, list(segment_ids)))


@asynccontextmanager
async def within(limit: timedelta, *, code: str, mend: str) -> AsyncIterator[None]:
    """Stop what runs inside after `limit`, the query under way in PostgreSQL too, and raise SegmentError `code`."""
    try:
        async with asyncio.timeout(limit.total_seconds()) as deadline:
            yield
    except TimeoutError as e:
        if not deadline.expired():
            raise
        message = f"It took longer than {limit.total_seconds():g} s and was stopped; {mend}."
        raise SegmentError(code, message) from e
