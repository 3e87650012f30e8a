"""Segments as their owners handle them: create, change, publish, put aside, delete.

DRAFT, ACTIVE and PAUSED lead to each other; all but EVERYONE -> ARCHIVED, and from there back to DRAFT. Whatever
changes a segment locks its row first.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg
from pyroaring import BitMap

from db.rows import to_model
from db.transactions import Connection, transaction
from db.unset import UNSET
from segments import evaluation, everyone, following, membership, ranks, references, schedule
from segments.errors import IllegalMove, SegmentError, SegmentNotFound
from segments.limits import WIDEST, Limits
from segments.models import EvaluationCause, Segment, SegmentStatus, SegmentType
from segments.references import CampaignsAmong
from segments.wanted import (
    MOST_NAME_CHARACTERS,
    Checked,
    SegmentChanges,
    SegmentInput,
    SimpleConditions,
    checked,
    merged,
    same,
)

__all__ = [
    "MOST", "MOVES", "SegmentChanges", "SegmentInput", "SimpleConditions", "activate", "archive", "create", "delete",
    "duplicate", "locked", "pause", "unpublish", "update",
]  # fmt: skip

MOST = 100

UsedBy: TypeAlias = Callable[[Connection, UUID, UUID], Awaitable[list[str]]]
"""Names of what uses a segment in the packages above: (connection, workspace id, segment id)."""

S = SegmentStatus
MOVES: dict[SegmentStatus, frozenset[SegmentStatus]] = {
    S.DRAFT: frozenset({S.ACTIVE, S.PAUSED, S.ARCHIVED}),
    S.ACTIVE: frozenset({S.PAUSED, S.DRAFT, S.ARCHIVED}),
    S.PAUSED: frozenset({S.ACTIVE, S.DRAFT, S.ARCHIVED}),
    S.ARCHIVED: frozenset({S.DRAFT}),
}
"""Where a segment can go from each status."""

COUNT = "SELECT count(*) FROM segment WHERE workspace_id = $1 AND type <> 'EVERYONE' AND status <> 'ARCHIVED'"
# None when the workspace has $15 already.
INSERT = f"""
INSERT INTO segment (workspace_id, brand_id, name, description, type, status, definition, mode, ranking, live,
  change_guard, cadence, cron, time_zone, created_at, updated_at)
SELECT $1, $2, $3, $4, $5, 'DRAFT', $6, $7, $8, $9, $10, $11, $12, $13, $14, $14 WHERE ({COUNT}) < $15 RETURNING *
"""
UPDATE = """
UPDATE segment SET brand_id = $3, name = $4, description = $5, definition = $6, mode = $7, ranking = $8, live = $9,
  change_guard = $10, cadence = $11, cron = $12, time_zone = $13, definition_version = $14, next_run_at = $15,
  updated_at = $16
WHERE workspace_id = $1 AND id = $2 RETURNING *
"""
MOVE = """
UPDATE segment SET status = $3, next_run_at = $4, updated_at = $5 WHERE workspace_id = $1 AND id = $2 RETURNING *
"""
DELETE = "DELETE FROM segment WHERE workspace_id = $1 AND id = $2"
BRAND_EXISTS = "SELECT EXISTS (SELECT FROM brand WHERE workspace_id = $1 AND id = $2)"


# --- making and changing ------------------------------------------------------------------------------------------


async def create(
    workspace_id: UUID,
    wanted: SegmentInput,
    *,
    now: datetime,
    most: int = MOST,
    limits: Limits | None = None,
    campaigns: CampaignsAmong | None = None,
) -> Segment:
    """A new draft; a static one has its size, 0, from the start. `limits` are those of its conditions; campaigns that
    they name are looked up with `campaigns`.

    Raises SegmentError naming the field; TOO_MANY_SEGMENTS when the workspace has `most` that are not archived.
    """
    kept = checked(wanted, limits=limits)
    async with transaction(workspace_id) as connection:
        await references.lock_list(connection, workspace_id)
        await require_brand(connection, workspace_id, kept.brand_id)
        row = await connection.fetchrow(
            INSERT,
            workspace_id,
            kept.brand_id,
            kept.name,
            kept.description,
            kept.type.value,
            kept.definition,
            kept.mode.value,
            kept.ranking,
            kept.live,
            kept.change_guard,
            kept.cadence.value,
            kept.cron,
            kept.time_zone,
            now,
            most,
        )
        if row is None:
            raise too_many(most)
        segment = to_model(Segment, row)
        if kept.condition is None:
            await start(connection, segment, now=now)
        elif references.named(kept.condition):
            await references.save(connection, segment, kept.condition, field=kept.field, campaigns=campaigns, new=True)
        return segment


async def update(
    workspace_id: UUID,
    segment_id: UUID,
    changes: SegmentChanges,
    *,
    now: datetime,
    limits: Limits | None = None,
    campaigns: CampaignsAmong | None = None,
) -> Segment:
    """The segment, changed. Other conditions, another order or another brand are a new definition version.

    An active dynamic segment with a new definition, or that becomes live, is evaluated anew (`evaluation.find_open`
    finds what was asked for); what was being evaluated comes to nothing. A static segment loses the members that are
    not of its new brand. `limits` and `campaigns` are for new conditions, as in `create`. Raises SegmentNotFound,
    SegmentError naming the field.
    """
    async with transaction(workspace_id) as connection:
        segment = await locked(workspace_id, segment_id)
        if segment.status is S.ARCHIVED:
            raise IllegalMove("An archived segment is not changed; unpublish it first, or duplicate it.")
        as_before = changes.definition is UNSET and changes.conditions is UNSET
        kept = checked(
            merged(segment, changes),
            limits=WIDEST if as_before else limits,
            live_is_given=changes.live is not UNSET,
        )
        moved = kept.brand_id != segment.brand_id
        if moved:
            await require_brand(connection, workspace_id, kept.brand_id)
            await references.require_brand_of_users(connection, segment, kept.brand_id)
        redefined = moved or not (same(kept.definition, segment.definition) and same(kept.ranking, segment.ranking))
        row = await connection.fetchrow(
            UPDATE,
            workspace_id,
            segment_id,
            kept.brand_id,
            kept.name,
            kept.description,
            kept.definition,
            kept.mode.value,
            kept.ranking,
            kept.live,
            kept.change_guard,
            kept.cadence.value,
            kept.cron,
            kept.time_zone,
            segment.definition_version + redefined,
            next_run(segment, kept, now=now) if segment.status is S.ACTIVE else None,
            now,
        )
        changed = to_model(Segment, row)
        if kept.condition is None:
            if moved and kept.brand_id is not None:
                await drop_foreign(connection, segment, brand_id=kept.brand_id, now=now)
        elif redefined or (kept.live and not segment.live):
            await redefine(connection, segment, changed, kept, now=now, campaigns=None if as_before else campaigns)
        return changed


async def redefine(
    connection: Connection,
    before: Segment,
    segment: Segment,
    kept: Checked,
    *,
    now: datetime,
    campaigns: CampaignsAmong | None,
) -> None:
    """Have a dynamic segment evaluated by what it now says."""
    assert kept.condition is not None
    await references.save(connection, segment, kept.condition, field=kept.field, campaigns=campaigns)
    if before.ranking is not None and kept.ranking is None:
        await ranks.clear(connection, workspace_id=segment.workspace_id, segment_id=segment.id)
    message = "The conditions were changed while they were evaluated; they are evaluated anew."
    await evaluation.close_open(
        connection, segment.workspace_id, [segment.id], code="DEFINITION_CHANGED", message=message
    )
    if segment.status is S.ACTIVE:
        await evaluation.request_for(connection, segment, cause=EvaluationCause.DEFINITION, now=now)


async def duplicate(
    workspace_id: UUID, segment_id: UUID, *, name: str | None = None, now: datetime, most: int = MOST
) -> Segment:
    """A new draft like the original in all but status and history, with its members when static.

    Named "Copy of ..." by default. Raises what `create` raises, SegmentNotFound, SEGMENT_IS_BUILT_IN.
    """
    async with transaction(workspace_id) as connection:
        original = await locked(workspace_id, segment_id)
        wanted = merged(original, SegmentChanges())
        copied = replace(wanted, name=name or f"Copy of {original.name}"[:MOST_NAME_CHARACTERS])
        copy = await create(workspace_id, copied, now=now, most=most, limits=WIDEST)
        if original.type is SegmentType.STATIC:
            members = await membership.load(connection, segment_id)
            await fill(connection, copy, members or BitMap(), reason="duplicated", now=now)
        return copy


async def nobody(connection: Connection, workspace_id: UUID, segment_id: UUID) -> list[str]:
    """Used where no package above is there to ask."""
    return []


async def delete(workspace_id: UUID, segment_id: UUID, *, used_by: UsedBy = nobody) -> None:
    """Delete a segment and all it ever held. `used_by` names the campaigns that use it.

    Raises SegmentNotFound, SEGMENT_IS_BUILT_IN, and SEGMENT_IN_USE while another segment, or a campaign, sent or not,
    names it.
    """
    try:
        async with transaction(workspace_id) as connection:
            segment = await locked(workspace_id, segment_id)
            await references.lock_list(connection, workspace_id)
            await references.require_unused(connection, segment)
            if campaigns := await used_by(connection, workspace_id, segment_id):
                named = references.listed(campaigns)
                message = f"Campaigns name this segment: {named}; take it out of them, or archive it instead."
                raise SegmentError("SEGMENT_IN_USE", message, field=("id",))
            await connection.execute(DELETE, workspace_id, segment_id)
            await membership.forget(connection, workspace_id=workspace_id, segment_id=segment_id)
    except asyncpg.ForeignKeyViolationError as e:
        # Somebody named it between the question and the answer; the foreign keys are the last wall.
        message = "It is in use since a moment ago; try again to hear by what."
        raise SegmentError("SEGMENT_IN_USE", message, field=("id",)) from e


# --- status -------------------------------------------------------------------------------------------------------


async def activate(workspace_id: UUID, segment_id: UUID, *, now: datetime) -> Segment:
    """DRAFT or PAUSED -> ACTIVE; a dynamic segment is scheduled by its cadence and evaluated (`evaluation.find_open`).

    Raises SegmentNotFound, IllegalMove, SEGMENT_IS_BUILT_IN; so do the other moves.
    """
    async with transaction(workspace_id) as connection:
        segment = await locked(workspace_id, segment_id)
        scheduled = next_run(segment, segment, now=now)
        moved = await move(connection, segment, S.ACTIVE, next_run_at=scheduled, now=now)
        if segment.type is SegmentType.DYNAMIC:
            await evaluation.request_for(connection, moved, cause=EvaluationCause.ACTIVATION, now=now)
        return moved


async def pause(workspace_id: UUID, segment_id: UUID, *, now: datetime) -> Segment:
    """ACTIVE or DRAFT -> PAUSED: it keeps the members that it has and stands still."""
    async with transaction(workspace_id) as connection:
        segment = await locked(workspace_id, segment_id)
        return await move(connection, segment, S.PAUSED, next_run_at=None, now=now)


async def unpublish(workspace_id: UUID, segment_id: UUID, *, now: datetime, most: int = MOST) -> Segment:
    """ACTIVE, PAUSED or ARCHIVED -> DRAFT; also raises TOO_MANY_SEGMENTS, for an archived one did not count."""
    async with transaction(workspace_id) as connection:
        segment = await locked(workspace_id, segment_id)
        if segment.status is S.ARCHIVED:
            await make_room(connection, workspace_id, most=most)
        return await move(connection, segment, S.DRAFT, next_run_at=None, now=now)


async def archive(workspace_id: UUID, segment_id: UUID, *, now: datetime) -> Segment:
    """Any other status -> ARCHIVED: out of the way, members and history kept."""
    async with transaction(workspace_id) as connection:
        segment = await locked(workspace_id, segment_id)
        return await move(connection, segment, S.ARCHIVED, next_run_at=None, now=now)


async def move(
    connection: Connection, segment: Segment, to: SegmentStatus, *, next_run_at: datetime | None, now: datetime
) -> Segment:
    """Change the status of a locked segment; leaving ACTIVE ends its open evaluation. Raises IllegalMove."""
    if segment.status is to:
        raise IllegalMove(f"The segment is {to} already; nothing is left to do.")
    if to not in MOVES[segment.status]:
        raise IllegalMove(f"A segment that is {segment.status} cannot become {to}; unpublish it first.")
    row = await connection.fetchrow(MOVE, segment.workspace_id, segment.id, to.value, next_run_at, now)
    if segment.status is S.ACTIVE:
        message = f"The segment became {to} before it was evaluated; activate it to evaluate it."
        await evaluation.close_open(
            connection, segment.workspace_id, [segment.id], code="SEGMENT_NOT_ACTIVE", message=message
        )
    return to_model(Segment, row)


# --- rules --------------------------------------------------------------------------------------------------------


async def locked(workspace_id: UUID, segment_id: UUID) -> Segment:
    """The segment, locked for change; raises SegmentNotFound, SEGMENT_IS_BUILT_IN."""
    found = Segment.filter(workspace_id=workspace_id, id=segment_id).select_for_update(no_key=True)
    segment = await found.first()
    if segment is None:
        raise SegmentNotFound
    if segment.type is SegmentType.EVERYONE:
        message = "EVERYONE is built in: it is neither changed nor deleted; make a segment of your own."
        raise SegmentError("SEGMENT_IS_BUILT_IN", message, field=("id",))
    return segment


def next_run(segment: Segment, wanted: Checked | Segment, *, now: datetime) -> datetime | None:
    return schedule.next_run(
        wanted.cadence, cron=wanted.cron, time_zone=wanted.time_zone, segment_id=segment.id, after=now
    )


async def make_room(connection: Connection, workspace_id: UUID, *, most: int) -> None:
    """Raises TOO_MANY_SEGMENTS unless one more may be made; until the transaction ends nobody else makes one."""
    await references.lock_list(connection, workspace_id)
    if await connection.fetchval(COUNT, workspace_id) >= most:
        raise too_many(most)


def too_many(most: int) -> SegmentError:
    return SegmentError("TOO_MANY_SEGMENTS", f"A workspace has at most {most} segments; archive or delete one first.")


async def require_brand(connection: Connection, workspace_id: UUID, brand_id: UUID | None) -> None:
    if brand_id is not None and not await connection.fetchval(BRAND_EXISTS, workspace_id, brand_id):
        message = "No such brand in this workspace; check the id, or create the brand first."
        raise SegmentError("NOT_FOUND", message, field=("brand_id",))


async def start(connection: Connection, segment: Segment, *, now: datetime) -> None:
    """Give a static segment that this transaction has made its size, 0: nobody else can have."""
    await membership.apply(
        connection,
        workspace_id=segment.workspace_id,
        segment_id=segment.id,
        members=BitMap(),
        reason="created",
        now=now,
        stored=None,
    )


async def fill(connection: Connection, segment: Segment, members: BitMap, *, reason: str, now: datetime) -> None:
    """Give a static segment that is new its members."""
    await membership.apply(
        connection,
        workspace_id=segment.workspace_id,
        segment_id=segment.id,
        members=members,
        reason=reason,
        now=now,
    )


async def drop_foreign(connection: Connection, segment: Segment, *, brand_id: UUID, now: datetime) -> None:
    """Let the members of a static segment leave who are not of the brand it now belongs to."""
    members = await membership.load(connection, segment.id) or BitMap()
    change = await membership.alter(
        connection,
        workspace_id=segment.workspace_id,
        segment_id=segment.id,
        leave=members - await everyone.members(connection, brand_id),
        reason="brand",
        now=now,
    )
    await following.follow(
        connection,
        workspace_id=segment.workspace_id,
        segment_id=segment.id,
        changed=change.removed,
        now=now,
    )
