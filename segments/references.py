"""What definitions name: other segments and saved queries. Kept in rows, so that nothing named can vanish, no circle
closes, and it is known what to evaluate first.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from asyncpg import Record
from pyroaring import BitMap

from db.rows import to_model
from db.transactions import Connection, transaction
from segments import membership
from segments.errors import SegmentError
from segments.models import Segment
from segments.nodes import All, AnyOf, Condition, Engagement, InSegment, Leaf, Not, SavedSql, leaves

MOST_NAMED = 5

CampaignsAmong: TypeAlias = Callable[[Connection, UUID, Collection[UUID]], Awaitable[set[UUID]]]
"""Which of these ids are campaigns of a workspace: a package above knows."""

# EVERYONE stands for the workspace's list of segments: whoever adds to it, takes from it, or lets one segment name
# another, does it alone. Else two could close a circle together, each seeing his half.
LOCK_LIST = "SELECT id FROM segment WHERE workspace_id = $1 AND type = 'EVERYONE' FOR NO KEY UPDATE"
SEGMENTS = "SELECT id, name, brand_id FROM segment WHERE workspace_id = $1 AND id = ANY($2)"
# Locked, so that none is deleted before the row that names it is there.
QUERIES = "SELECT id FROM saved_query WHERE workspace_id = $1 AND id = ANY($2) FOR KEY SHARE"
EDGES = """
SELECT r.segment_id, s.name, r.uses_id FROM segment_reference r
JOIN segment s ON s.workspace_id = r.workspace_id AND s.id = r.segment_id
WHERE r.workspace_id = $1
"""
# Each row is either forgotten or kept: which comes first does not matter.
REMEMBER = """
WITH other_segments AS (
  DELETE FROM segment_reference WHERE workspace_id = $1 AND segment_id = $2 AND uses_id <> ALL($3::uuid[])),
other_queries AS (
  DELETE FROM segment_query WHERE workspace_id = $1 AND segment_id = $2 AND query_id <> ALL($4::uuid[])),
queries AS (
  INSERT INTO segment_query (workspace_id, segment_id, query_id) SELECT $1, $2, unnest($4::uuid[])
  ON CONFLICT DO NOTHING)
INSERT INTO segment_reference (workspace_id, segment_id, uses_id) SELECT $1, $2, unnest($3::uuid[])
ON CONFLICT DO NOTHING
"""
NEIGHBOURS = """
SELECT r.segment_id AS asked_id, true AS is_used, s.* FROM segment_reference r
JOIN segment s ON s.workspace_id = $1 AND s.id = r.uses_id
WHERE r.workspace_id = $1 AND r.segment_id = ANY($2)
UNION ALL
SELECT r.uses_id, false, s.* FROM segment_reference r
JOIN segment s ON s.workspace_id = $1 AND s.id = r.segment_id
WHERE r.workspace_id = $1 AND r.uses_id = ANY($2)
ORDER BY asked_id, id
"""
NAMES_OF_USERS = """
SELECT s.name, s.brand_id FROM segment_reference r
JOIN segment s ON s.workspace_id = r.workspace_id AND s.id = r.segment_id
WHERE r.workspace_id = $1 AND r.uses_id = $2 ORDER BY s.name
"""
NAMES = """
SELECT id, name FROM segment WHERE workspace_id = $1 AND id = ANY($2)
UNION ALL SELECT id, name FROM saved_query WHERE workspace_id = $1 AND id = ANY($2)
"""
EVERYONE_AMONG = "SELECT id FROM segment WHERE workspace_id = $1 AND id = ANY($2) AND type = 'EVERYONE'"


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What the conditions of one segment name, and whose conditions name it; the oldest first."""

    uses: list[Segment]
    used_by: list[Segment]


# --- keeping ------------------------------------------------------------------------------------------------------


async def lock_list(connection: Connection, workspace_id: UUID) -> None:
    """Until the transaction ends nobody else makes or deletes a segment, or lets one name another."""
    await connection.fetchval(LOCK_LIST, workspace_id)


async def save(
    connection: Connection,
    segment: Segment,
    condition: Condition,
    *,
    field: tuple[str, ...],
    campaigns: CampaignsAmong | None = None,
    new: bool = False,
) -> None:
    """Keep what the segment's condition names; `segment` is as it is to be, and locked. `field`: where it stands.
    `new`: this transaction has made it, and locked the list for that; nobody names it yet.

    Raises SegmentError NOT_FOUND for what is not of this workspace (campaigns too, where `campaigns` can tell),
    OTHER_BRAND, CONDITION_CYCLE.
    """
    workspace_id = segment.workspace_id
    segments = {leaf.segment_id: path for path, leaf in placed(condition, field) if isinstance(leaf, InSegment)}
    queries = {leaf.query_id: path for path, leaf in placed(condition, field) if isinstance(leaf, SavedSql)}
    known: dict[UUID, Record] = {}
    if segments:
        if not new:
            await lock_list(connection, workspace_id)
        known = {row["id"]: row for row in await connection.fetch(SEGMENTS, workspace_id, list(segments))}
    for id, path in segments.items():
        if id not in known:
            message = "There is no such segment in this workspace; check the id."
            raise SegmentError("NOT_FOUND", message, field=path)
        require_same_brand(segment, known[id]["brand_id"], known[id]["name"], field=path)
    if not new:
        await require_no_circle(connection, segment, segments)
    found = {row["id"] for row in await connection.fetch(QUERIES, workspace_id, list(queries))} if queries else set()
    for id, path in queries.items():
        if id not in found:
            message = "There is no such saved query in this workspace; check the id."
            raise SegmentError("NOT_FOUND", message, field=path)
    if campaigns is not None:
        await require_campaigns(connection, segment.workspace_id, condition, campaigns, field=field)
    await connection.execute(REMEMBER, workspace_id, segment.id, list(segments), list(queries))


async def require_campaigns(
    connection: Connection,
    workspace_id: UUID,
    condition: Condition,
    campaigns: CampaignsAmong,
    *,
    field: tuple[str, ...],
) -> None:
    """Raise NOT_FOUND for a campaign that is not of this workspace: nobody would ever have received it."""
    named = {
        id: path for path, leaf in placed(condition, field) if isinstance(leaf, Engagement) and (id := leaf.campaign_id)
    }
    if not named:
        return
    known = await campaigns(connection, workspace_id, list(named))
    for id, path in named.items():
        if id not in known:
            message = "There is no such campaign in this workspace; check the id."
            raise SegmentError("NOT_FOUND", message, field=(*path, "campaign", "campaignId"))


def placed(condition: Condition, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Leaf]]:
    """Every leaf with where it stands in the JSON form."""
    match condition:
        case All(items):
            for place, item in enumerate(items):
                yield from placed(item, (*path, "all", str(place)))
        case AnyOf(items):
            for place, item in enumerate(items):
                yield from placed(item, (*path, "any", str(place)))
        case Not(item):
            yield from placed(item, (*path, "not"))
        case leaf:
            yield path, leaf


def named(condition: Condition) -> set[UUID]:
    """Ids of the segments, saved queries and campaigns that a condition names."""
    ids: set[UUID] = set()
    for leaf in leaves(condition):
        match leaf:
            case InSegment(id) | SavedSql(id):
                ids.add(id)
            case Engagement(campaign_id=UUID() as id):
                ids.add(id)
    return ids


def require_same_brand(segment: Segment, brand_id: UUID | None, name: str, *, field: tuple[str, ...]) -> None:
    """People of two brands have nobody in common by accident only: such a condition is a mistake."""
    if segment.brand_id is not None and brand_id is not None and brand_id != segment.brand_id:
        message = f"The segment {name!r} is of another brand; name one of the same brand, or one for all."
        raise SegmentError("OTHER_BRAND", message, field=field)


async def require_no_circle(connection: Connection, segment: Segment, segments: Mapping[UUID, tuple[str, ...]]) -> None:
    """Raise CONDITION_CYCLE, saying the way round, when one of `segments` names `segment`, directly or not."""
    if not segments:
        return
    edges: dict[UUID, list[UUID]] = {}
    names = {segment.id: segment.name}
    for row in await connection.fetch(EDGES, segment.workspace_id):
        edges.setdefault(row["segment_id"], []).append(row["uses_id"])
        names.setdefault(row["segment_id"], row["name"])
    for start, path in segments.items():
        way = way_to(segment.id, start, edges)
        if way is not None:
            circle = " -> ".join(f"{names[id]!r}" for id in (segment.id, *way))
            message = f"The segments would name each other in a circle: {circle}; take one of these conditions out."
            raise SegmentError("CONDITION_CYCLE", message, field=path)


def way_to(goal: UUID, start: UUID, edges: Mapping[UUID, Collection[UUID]]) -> list[UUID] | None:
    """The segments from `start` to `goal`, both with it, each named by the one before; None when no way leads there."""
    before: dict[UUID, UUID | None] = {start: None}
    to_visit = [start]
    while to_visit:
        here = to_visit.pop()
        if here == goal:
            way = [here]
            while (previous := before[way[-1]]) is not None:
                way.append(previous)
            return way[::-1]
        for following in edges.get(here, ()):
            if following not in before:
                before[following] = here
                to_visit.append(following)
    return None


async def require_unused(connection: Connection, segment: Segment) -> None:
    """Raise SEGMENT_IN_USE, naming them, when other segments name this one."""
    users = [row["name"] for row in await connection.fetch(NAMES_OF_USERS, segment.workspace_id, segment.id)]
    if users:
        message = f"The conditions of {listed(users)} name this segment; take it out of them, or archive it instead."
        raise SegmentError("SEGMENT_IN_USE", message, field=("id",))


async def require_brand_of_users(connection: Connection, segment: Segment, brand_id: UUID | None) -> None:
    """Raise OTHER_BRAND when a segment of another brand than `brand_id` names this one."""
    if brand_id is None:
        return
    await lock_list(connection, segment.workspace_id)
    for row in await connection.fetch(NAMES_OF_USERS, segment.workspace_id, segment.id):
        if row["brand_id"] not in (None, brand_id):
            message = f"The segment {row['name']!r}, of another brand, names this one; take it out of its conditions."
            raise SegmentError("OTHER_BRAND", message, field=("brand_id",))


def listed(names: list[str]) -> str:
    """Names for a sentence, at most five of them."""
    quoted = [repr(name) for name in names[:MOST_NAMED]]
    if len(names) > MOST_NAMED:
        quoted.append(f"{len(names) - MOST_NAMED} more")
    last = quoted.pop()
    return f"{', '.join(quoted)} and {last}" if quoted else last


# --- reading ------------------------------------------------------------------------------------------------------


async def members(
    connection: Connection, workspace_id: UUID, segment_ids: Collection[UUID]
) -> dict[UUID, BitMap | None]:
    """Current members by segment id, None for EVERYONE; those that were never evaluated are left out."""
    ids = list(segment_ids)
    if not ids:
        return {}
    found: dict[UUID, BitMap | None] = {**await membership.load_many(connection, ids)}
    # EVERYONE has no members of its own.
    others = [id for id in ids if id not in found]
    if not others:
        return found
    return found | {row["id"]: None for row in await connection.fetch(EVERYONE_AMONG, workspace_id, others)}


async def neighbours(workspace_id: UUID, segment_ids: Collection[UUID]) -> dict[UUID, Neighbours]:
    """What is next to each of `segment_ids`, by id; those with nothing next to them are left out."""
    found: dict[UUID, Neighbours] = {}
    async with transaction(workspace_id) as connection:
        for row in await connection.fetch(NEIGHBOURS, workspace_id, list(segment_ids)):
            beside = found.setdefault(row["asked_id"], Neighbours([], []))
            (beside.uses if row["is_used"] else beside.used_by).append(to_model(Segment, row))
    return found


async def names(workspace_id: UUID, ids: Collection[UUID]) -> dict[UUID, str]:
    """Names of segments and saved queries, for the sentence that says a condition; unknown ids are left out."""
    async with transaction(workspace_id) as connection:
        return {row["id"]: row["name"] for row in await connection.fetch(NAMES, workspace_id, list(ids))}
