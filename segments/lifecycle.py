"""Segments as their owners handle them: create, change, publish, put aside, delete.

DRAFT -> ACTIVE <-> PAUSED; all but EVERYONE -> ARCHIVED; unpublish leads back to DRAFT from anywhere. Whatever
changes a segment locks its row first.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson
from pyroaring import BitMap

from db.transactions import Connection, transaction
from db.unset import UNSET, Unset
from profiles.text import check_storable, clean_text, clean_time_zone
from segments import conditions, evaluation, everyone, membership, schedule
from segments.errors import IllegalMove, SegmentError, SegmentNotFound, clean
from segments.models import Cadence, EvaluationCause, Segment, SegmentStatus, SegmentType

MOST = 100
MOST_NAME_CHARACTERS = 200
MOST_DESCRIPTION_CHARACTERS = 2000

S = SegmentStatus
MOVES: dict[SegmentStatus, frozenset[SegmentStatus]] = {
    S.DRAFT: frozenset({S.ACTIVE, S.ARCHIVED}),
    S.ACTIVE: frozenset({S.PAUSED, S.DRAFT, S.ARCHIVED}),
    S.PAUSED: frozenset({S.ACTIVE, S.DRAFT, S.ARCHIVED}),
    S.ARCHIVED: frozenset({S.DRAFT}),
}
"""Where a segment can go from each status."""

# EVERYONE stands for the workspace's list of segments: one creator at a time, so that the limit holds.
LOCK_LIST = "SELECT id FROM segment WHERE workspace_id = $1 AND type = 'EVERYONE' FOR NO KEY UPDATE"
COUNT = "SELECT count(*) FROM segment WHERE workspace_id = $1 AND type <> 'EVERYONE' AND status <> 'ARCHIVED'"
INSERT = """
INSERT INTO segment (workspace_id, brand_id, name, description, type, status, definition, cadence, cron, time_zone,
  created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, 'DRAFT', $6, $7, $8, $9, $10, $10) RETURNING id
"""
UPDATE = """
UPDATE segment SET brand_id = $3, name = $4, description = $5, definition = $6, definition_version = $7, cadence = $8,
  cron = $9, time_zone = $10, next_run_at = $11, updated_at = $12
WHERE workspace_id = $1 AND id = $2
"""
MOVE = """
UPDATE segment SET status = $3, next_run_at = $4, updated_at = $5 WHERE workspace_id = $1 AND id = $2
"""
DELETE = "DELETE FROM segment WHERE workspace_id = $1 AND id = $2"
BRAND_EXISTS = "SELECT EXISTS (SELECT FROM brand WHERE workspace_id = $1 AND id = $2)"


@dataclass(frozen=True, slots=True)
class SegmentInput:
    """A segment as somebody wants it."""

    name: str
    type: SegmentType
    description: str = ""
    brand_id: UUID | None = None
    """None: for all brands."""
    definition: object = None
    """The JSON of conditions.py, for dynamic segments."""
    cadence: Cadence = Cadence.NEVER
    cron: str | None = None
    time_zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class SegmentChanges:
    """What to change; UNSET leaves a field as it is, None clears one that may be empty."""

    name: str | Unset = UNSET
    description: str | Unset = UNSET
    brand_id: UUID | Unset | None = UNSET
    definition: object = UNSET
    cadence: Cadence | Unset = UNSET
    cron: str | Unset | None = UNSET
    time_zone: str | Unset = UNSET


# --- making and changing ------------------------------------------------------------------------------------------


async def create(workspace_id: UUID, wanted: SegmentInput, *, now: datetime, most: int = MOST) -> Segment:
    """A new draft; a static one has its size, 0, from the start.

    Raises SegmentError naming the field; TOO_MANY_SEGMENTS when the workspace has `most` that are not archived.
    """
    wanted = checked(wanted)
    async with transaction(workspace_id) as connection:
        await make_room(connection, workspace_id, most=most)
        await require_brand(connection, workspace_id, wanted.brand_id)
        segment_id: UUID = await connection.fetchval(
            INSERT,
            workspace_id,
            wanted.brand_id,
            wanted.name,
            wanted.description,
            wanted.type.value,
            wanted.definition,
            wanted.cadence.value,
            wanted.cron,
            wanted.time_zone,
            now,
        )
        if wanted.type is SegmentType.STATIC:
            await membership.apply(
                connection,
                workspace_id=workspace_id,
                segment_id=segment_id,
                members=BitMap(),
                reason="created",
                now=now,
            )
        return await Segment.get(workspace_id=workspace_id, id=segment_id)


async def update(workspace_id: UUID, segment_id: UUID, changes: SegmentChanges, *, now: datetime) -> Segment:
    """The segment, changed. Other conditions, or another brand, are a new definition version.

    An active dynamic segment with a new definition is evaluated anew (`evaluation.find_open` finds what was asked
    for); what was being evaluated comes to nothing. A static segment loses the members that are not of its new brand.
    Raises SegmentNotFound, SegmentError naming the field.
    """
    async with transaction(workspace_id) as connection:
        segment = await locked(workspace_id, segment_id)
        if segment.status is S.ARCHIVED:
            raise IllegalMove("An archived segment is not changed; unpublish it first, or duplicate it.")
        wanted = checked(merged(segment, changes))
        await require_brand(connection, workspace_id, wanted.brand_id)
        redefined = not same(wanted.definition, segment.definition) or wanted.brand_id != segment.brand_id
        next_run_at = next_run(segment, wanted, now=now) if segment.status is S.ACTIVE else None
        await connection.execute(
            UPDATE,
            workspace_id,
            segment_id,
            wanted.brand_id,
            wanted.name,
            wanted.description,
            wanted.definition,
            segment.definition_version + redefined,
            wanted.cadence.value,
            wanted.cron,
            wanted.time_zone,
            next_run_at,
            now,
        )
        if redefined and wanted.type is SegmentType.DYNAMIC:
            message = "The conditions were changed while they were evaluated; they are evaluated anew."
            await evaluation.close_open(connection, segment, code="DEFINITION_CHANGED", message=message)
            if segment.status is S.ACTIVE:
                await evaluation.request(workspace_id, segment_id, cause=EvaluationCause.DEFINITION, now=now)
        elif redefined and wanted.brand_id is not None:
            await drop_foreign(connection, segment, brand_id=wanted.brand_id, now=now)
        return await Segment.get(workspace_id=workspace_id, id=segment_id)


async def duplicate(
    workspace_id: UUID, segment_id: UUID, *, name: str | None = None, now: datetime, most: int = MOST
) -> Segment:
    """A new draft with the same definition, cadence and, when static, members; named "Copy of ..." by default.

    Raises what `create` raises, SegmentNotFound, SEGMENT_IS_BUILT_IN.
    """
    async with transaction(workspace_id) as connection:
        original = await locked(workspace_id, segment_id)
        wanted = merged(original, SegmentChanges())
        copied = replace(wanted, name=name or f"Copy of {original.name}"[:MOST_NAME_CHARACTERS])
        copy = await create(workspace_id, copied, now=now, most=most)
        if original.type is SegmentType.STATIC:
            members = await membership.load(connection, segment_id)
            await membership.apply(
                connection,
                workspace_id=workspace_id,
                segment_id=copy.id,
                members=members or BitMap(),
                reason="duplicated",
                now=now,
            )
        return copy


async def delete(workspace_id: UUID, segment_id: UUID) -> None:
    """Delete a segment and all it ever held.

    Raises SegmentNotFound, SEGMENT_IS_BUILT_IN, and SEGMENT_IN_USE while a campaign, sent or not, names it.
    """
    try:
        async with transaction(workspace_id) as connection:
            await locked(workspace_id, segment_id)
            await connection.execute(DELETE, workspace_id, segment_id)
            await membership.forget(connection, workspace_id=workspace_id, segment_id=segment_id)
    except asyncpg.ForeignKeyViolationError as e:
        # Who uses it lives in packages above; their foreign keys speak for them.
        message = "Campaigns name this segment; take it out of them, or archive it instead."
        raise SegmentError("SEGMENT_IN_USE", message, field=("id",)) from e


# --- status -------------------------------------------------------------------------------------------------------


async def activate(workspace_id: UUID, segment_id: UUID, *, now: datetime) -> Segment:
    """DRAFT or PAUSED -> ACTIVE; a dynamic segment is scheduled by its cadence and evaluated (`evaluation.find_open`).

    Raises SegmentNotFound, IllegalMove, SEGMENT_IS_BUILT_IN; so do the other moves.
    """
    async with transaction(workspace_id) as connection:
        segment = await locked(workspace_id, segment_id)
        scheduled = next_run(segment, merged(segment, SegmentChanges()), now=now)
        moved = await move(connection, segment, S.ACTIVE, next_run_at=scheduled, now=now)
        if segment.type is SegmentType.DYNAMIC:
            await evaluation.request(workspace_id, segment_id, cause=EvaluationCause.ACTIVATION, now=now)
        return moved


async def pause(workspace_id: UUID, segment_id: UUID, *, now: datetime) -> Segment:
    """ACTIVE -> PAUSED: it keeps its members and stands still."""
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
    if to not in MOVES[segment.status]:
        allowed = ", ".join(sorted(MOVES[segment.status]))
        raise IllegalMove(f"A segment that is {segment.status} can become {allowed}; not {to}.")
    await connection.execute(MOVE, segment.workspace_id, segment.id, to.value, next_run_at, now)
    if segment.status is S.ACTIVE:
        message = f"The segment became {to} before it was evaluated; activate it to evaluate it."
        await evaluation.close_open(connection, segment, code="SEGMENT_NOT_ACTIVE", message=message)
    return await Segment.get(workspace_id=segment.workspace_id, id=segment.id)


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


def merged(segment: Segment, changes: SegmentChanges) -> SegmentInput:
    """What is wanted of the segment after `changes`; leaving CRON drops its expression."""
    before = SegmentInput(
        name=segment.name,
        type=segment.type,
        description=segment.description,
        brand_id=segment.brand_id,
        definition=segment.definition,
        cadence=segment.cadence,
        cron=segment.cron,
        time_zone=segment.time_zone,
    )
    given = {name: getattr(changes, name) for name in changes.__slots__}
    given = {name: value for name, value in given.items() if value is not UNSET}
    after = replace(before, **given)
    if after.cadence is not Cadence.CRON and changes.cron is UNSET:
        after = replace(after, cron=None)
    return after


def checked(wanted: SegmentInput) -> SegmentInput:
    """The input as it is kept: texts trimmed, conditions canonical. Raises SegmentError naming the field."""
    definition: object = None
    match wanted.type:
        case SegmentType.EVERYONE:
            message = "Every workspace has its EVERYONE already; make a STATIC or a DYNAMIC segment."
            raise SegmentError("SEGMENT_IS_BUILT_IN", message, field=("type",))
        case SegmentType.DYNAMIC:
            if wanted.definition is None:
                message = "A dynamic segment needs conditions; give its definition."
                raise SegmentError("DEFINITION_REQUIRED", message, field=("definition",))
            definition = conditions.to_json(conditions.parse(wanted.definition, field=("definition",)))
        case SegmentType.STATIC:
            if wanted.definition is not None:
                message = "A static segment has members and no conditions; leave them out, or make it DYNAMIC."
                raise SegmentError("DEFINITION_NOT_ALLOWED", message, field=("definition",))
            if wanted.cadence is not Cadence.NEVER:
                message = "A static segment is never evaluated; its cadence is NEVER."
                raise SegmentError("CADENCE_NOT_ALLOWED", message, field=("cadence",))
    name = clean(clean_text, wanted.name, field=("name",), what="Segment name", most=MOST_NAME_CHARACTERS)
    return replace(
        wanted,
        name=name,
        description=checked_description(wanted.description),
        definition=definition,
        cron=checked_cron(wanted),
        time_zone=clean(clean_time_zone, wanted.time_zone, field=("time_zone",)),
    )


def checked_description(description: str) -> str:
    text = description.strip()
    if len(text) > MOST_DESCRIPTION_CHARACTERS:
        message = f"Has {len(text)} characters; shorten it to at most {MOST_DESCRIPTION_CHARACTERS}."
        raise SegmentError("TOO_LONG", message, field=("description",))
    clean(check_storable, text, field=("description",))
    return text


def checked_cron(wanted: SegmentInput) -> str | None:
    if wanted.cadence is Cadence.CRON:
        if wanted.cron is None:
            message = "The cadence CRON needs an expression; give cron."
            raise SegmentError("CRON_REQUIRED", message, field=("cron",))
        return schedule.clean_cron(wanted.cron)
    if wanted.cron is not None:
        message = f"The cadence {wanted.cadence} takes no expression; leave cron out, or set the cadence to CRON."
        raise SegmentError("CRON_NOT_ALLOWED", message, field=("cron",))
    return None


def same(one: object, other: object) -> bool:
    """Whether two definitions are the same; == would take true for 1."""
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


def next_run(segment: Segment, wanted: SegmentInput, *, now: datetime) -> datetime | None:
    return schedule.next_run(
        wanted.cadence, cron=wanted.cron, time_zone=wanted.time_zone, segment_id=segment.id, after=now
    )


async def make_room(connection: Connection, workspace_id: UUID, *, most: int) -> None:
    """Raises TOO_MANY_SEGMENTS unless one more may be made; until the transaction ends nobody else makes one."""
    await connection.fetchval(LOCK_LIST, workspace_id)
    if await connection.fetchval(COUNT, workspace_id) >= most:
        message = f"A workspace has at most {most} segments; archive or delete one first."
        raise SegmentError("TOO_MANY_SEGMENTS", message)


async def require_brand(connection: Connection, workspace_id: UUID, brand_id: UUID | None) -> None:
    if brand_id is not None and not await connection.fetchval(BRAND_EXISTS, workspace_id, brand_id):
        message = "No such brand in this workspace; check the id, or create the brand first."
        raise SegmentError("NOT_FOUND", message, field=("brand_id",))


async def drop_foreign(connection: Connection, segment: Segment, *, brand_id: UUID, now: datetime) -> None:
    """Let the members of a static segment leave who are not of the brand it now belongs to."""
    members = await membership.load(connection, segment.id) or BitMap()
    await membership.alter(
        connection,
        workspace_id=segment.workspace_id,
        segment_id=segment.id,
        leave=members - await everyone.members(connection, brand_id),
        reason="brand",
        now=now,
    )
