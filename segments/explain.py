"""Why a person is in a segment, or is not: every node of its tree for this one profile, with the values looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import assert_never
from uuid import UUID

import asyncpg
from pyroaring import BitMap

from db.rows import to_model
from db.transactions import transaction
from profiles import profiles
from profiles.profiles import Profile
from segments import conditions, references, tree
from segments.asking import never_evaluated, within
from segments.canonical import key
from segments.engines.base import EngineError
from segments.errors import SegmentError, SegmentNotFound
from segments.estimate import at
from segments.json_values import Path
from segments.models import Segment, SegmentStatus, SegmentType
from segments.nodes import All, AnyOf, Condition, InSegment, Json, Leaf, Not, Score, Trait, leaves
from segments.sources import Sources
from segments.tree import positive

LIMIT = timedelta(seconds=10)
WAYS_IN = {
    "added": "was added by hand",
    "imported": "was imported from a file",
    "duplicated": "came with the segment this one is a copy of",
    "populated": "was added by a query",
    "merged": "came in with a profile that was merged into this one",
    "evaluation": "met the conditions when the segment was evaluated",
    "pulse": "met the conditions after something about it changed",
}
WAYS_OUT = {
    "removed": "was taken out by hand",
    "depopulated": "was taken out by a query",
    "populated": "was not found by the query that replaced the members",
    "subtracted": "was in a segment that was subtracted",
    "brand": "was not of the brand that the segment was given",
    "merged": "was merged into another profile",
    "erased": "was erased",
    "evaluation": "did not meet the conditions any more when the segment was evaluated",
    "pulse": "did not meet the conditions any more after something about it changed",
}
"""Sentences for the reasons of intervals; one that is not here is told as it stands."""

# The segment and those that its conditions name, and nothing of others in a workspace of thousands (LIMIT keeps it so),
# each with the person's latest interval, by the primary key. Of one person the open intervals say what the bitmaps do
# (`membership.verify`), without reading the bitmaps of a million.
SEGMENTS = """
SELECT s.*, m.entered_at, m.exited_at, m.reason, m.exit_reason,
  s.type = 'EVERYONE' OR EXISTS (
    SELECT FROM segment_membership e WHERE e.workspace_id = $1 AND e.segment_id = s.id) AS is_evaluated,
  s.brand_id IS NULL OR EXISTS (
    SELECT FROM profile_brand b
    WHERE b.workspace_id = $1 AND b.brand_id = s.brand_id AND b.profile_id = $3) AS is_of_brand
FROM (
  SELECT $2::uuid AS id UNION ALL SELECT uses_id FROM segment_reference WHERE workspace_id = $1 AND segment_id = $2
) AS wanted
CROSS JOIN LATERAL (SELECT * FROM segment WHERE workspace_id = $1 AND id = wanted.id LIMIT 1) AS s
LEFT JOIN LATERAL (
  SELECT entered_at, exited_at, reason, exit_reason FROM membership
  WHERE workspace_id = $1 AND segment_id = s.id AND profile_id = $3 ORDER BY entered_at DESC LIMIT 1) AS m ON true
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A node of the tree, for one profile."""

    path: Path
    """From the root, as in the JSON form."""
    condition: Condition
    matches: bool
    value: Json
    """What a leaf looked at: a trait's value, a count, an instant; null for a group, and for what is not there."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A segment and a person."""

    segment: Segment
    profile: Profile
    """Of a profile that was merged the one it was merged into."""
    is_member: bool
    entered_at: datetime | None
    """Since when, of a member of anything but EVERYONE."""
    would_match: bool | None
    """Whether the conditions hold now, and the profile is of the segment's brand; None for segments without conditions.
    Of a ranked segment the first so many of those are members."""
    nodes: list[Verdict]
    """Parents before their children; none for segments without conditions, and for an erased profile."""
    reason: str
    """In one English sentence."""
    evaluated_at: datetime
    """The instant that windows end at."""


async def explain(
    workspace_id: UUID,
    segment_id: UUID,
    *,
    profile: Profile,
    sources: Sources,
    now: datetime,
    limit: timedelta = LIMIT,
) -> Explanation:
    """Why `profile`, or the one it was merged into, is in the segment or is not. Writes nothing.

    Three statements, however many leaves there are: segments and memberships, what the engine is asked, what engagement
    is; more only for saved queries, one each and one for their texts.

    Raises SegmentNotFound, and SegmentError: EXPLAIN_TOO_SLOW after `limit`, what `asking.find_now` raises.
    """
    async with within(limit, code="EXPLAIN_TOO_SLOW", mend="try again when the database is less busy"):
        async with transaction(workspace_id) as connection:
            person = await profiles.living(connection, workspace_id, profile)
            rows = await connection.fetch(SEGMENTS, workspace_id, segment_id, person.id)
        known = {row["id"]: row for row in rows}
        if segment_id not in known:
            raise SegmentNotFound(field=("segment_id",))
        row = known[segment_id]
        segment = to_model(Segment, row)
        interval = None if row["entered_at"] is None else row
        entered_at = row["entered_at"] if is_inside(row) else None
        nodes: list[Verdict] = []
        would_match = None
        if segment.definition is not None:
            would_match = False
            if person.erased_at is None:
                condition = conditions.read(segment.definition)
                inside = within_those(condition, known)
                nodes = await verdicts(workspace_id, condition, person.id, inside=inside, sources=sources, now=now)
                would_match = nodes[0].matches and row["is_of_brand"]
    is_member = entered_at is not None
    if segment.type is SegmentType.EVERYONE:
        is_member = person.erased_at is None
    return Explanation(
        segment=segment,
        profile=person,
        is_member=is_member,
        entered_at=entered_at,
        would_match=would_match,
        nodes=nodes,
        reason=reason(segment, person, would_match, bool(nodes) and nodes[0].matches, interval),
        evaluated_at=now,
    )


def is_inside(row: asyncpg.Record) -> bool:
    """Whether the person of SEGMENTS is in the segment of a row of it now, which is not EVERYONE."""
    return row["entered_at"] is not None and row["exited_at"] is None


def within_those(condition: Condition, known: Mapping[UUID, asyncpg.Record]) -> dict[UUID, bool]:
    """Whether the person is in each segment that the condition names; `known` are the rows of SEGMENTS.

    Raises what `asking.current_members` raises.
    """
    inside = {}
    for path, leaf in references.placed(condition, ("definition",)):
        if isinstance(leaf, InSegment):
            row = known.get(leaf.segment_id)
            if row is None:
                raise SegmentNotFound(field=path)
            if not row["is_evaluated"]:
                raise never_evaluated(row["name"], field=path)
            inside[leaf.segment_id] = row["type"] == SegmentType.EVERYONE or is_inside(row)
    return inside


async def verdicts(
    workspace_id: UUID,
    condition: Condition,
    profile_id: int,
    *,
    inside: Mapping[UUID, bool],
    sources: Sources,
    now: datetime,
) -> list[Verdict]:
    """Every node of the tree for this profile, which is alive, with what each leaf looked at; whatever its brand, so
    that what holds for somebody who is of another one is shown as holding.

    `inside`: whether it is in each segment that is named.
    """
    plan = tree.plan(condition)
    asked = {name: leaf for name, leaf in plan.questions.items() if not isinstance(leaf, InSegment)}
    try:
        answers = await sources.looks(
            workspace_id=workspace_id, leaves=list(asked.values()), now=now, profile_id=profile_id
        )
    except EngineError as e:
        raise SegmentError(e.code, e.message, field=("definition",)) from e
    looks = dict(zip(asked, answers, strict=True))
    met = {name: look.matches for name, look in looks.items()}
    met |= {name: inside[leaf.segment_id] for name, leaf in plan.questions.items() if isinstance(leaf, InSegment)}
    person = BitMap([profile_id])
    _, sizes = plan.combine({name: person if matches else BitMap() for name, matches in met.items()}, person)
    drawn = [(node, at(condition, node.path)) for node in sizes]
    return [
        Verdict(
            node.path, part, node.size > 0, value_of(part, [(leaf, looks[key(leaf)].value) for leaf in questions(part)])
        )
        for node, part in drawn
    ]


def questions(part: Condition) -> list[Leaf]:
    """What has to be asked to show what a node looked at: of groups and of segments nothing."""
    match part:
        case All() | AnyOf() | Not() | InSegment():
            return []
        case leaf:
            return list(leaves(positive(leaf)))


def value_of(part: Condition, answers: list[tuple[Leaf, Json]]) -> Json:
    """What a leaf looked at, out of the answers to its questions."""
    if isinstance(part, Score):
        return {asked.key: value for asked, value in answers if isinstance(asked, Trait)}
    match [value for _, value in answers]:
        case []:
            return None
        case [value]:
            return value
        case values:
            # One event asked in parts: each part looked at a measure of the same rows.
            return {name: value for one in values if isinstance(one, dict) for name, value in one.items()}


# --- sentences ----------------------------------------------------------------------------------------------------


def reason(
    segment: Segment, person: Profile, would_match: bool | None, meets: bool, interval: asyncpg.Record | None
) -> str:
    """Why the profile is in the segment or is not; `meets`: the conditions hold, whatever its brand."""
    if person.erased_at is not None:
        return "The profile was erased, and is in no segment."
    match segment.type:
        case SegmentType.EVERYONE:
            return "Everybody is in it, anonymous visitors too."
        case SegmentType.STATIC:
            return "The profile was never put into this list." if interval is None else history(interval)
        case SegmentType.DYNAMIC:
            return now_and_then(segment, would_match is True, meets, interval)
        case _:
            assert_never(segment.type)


def now_and_then(segment: Segment, would_match: bool, meets: bool, interval: asyncpg.Record | None) -> str:
    """What the conditions say of the profile now, and what membership says."""
    if interval is not None and interval["exited_at"] is None:
        if would_match:
            return f"The profile meets the conditions. {history(interval)}"
        return f"{history(interval)} It does not meet the conditions now, and {leaves_when(segment)}."
    before = "" if interval is None else f" {history(interval)}"
    if not meets:
        return f"The profile does not meet the conditions.{before}"
    if not would_match:
        return f"The profile meets the conditions, but is not of the segment's brand.{before}"
    top = (segment.ranking or {}).get("top")
    if top is not None:
        return f"The profile meets the conditions; only the first {top} of those who do are members.{before}"
    return f"The profile meets the conditions, and {enters_when(segment)}.{before}"


def history(interval: asyncpg.Record) -> str:
    """How the latest interval of membership began, or ended."""
    if interval["exited_at"] is None:
        way = WAYS_IN.get(interval["reason"], f"entered ({interval['reason']})")
        return f"It {way} at {said(interval['entered_at'])}."
    way = WAYS_OUT.get(interval["exit_reason"], f"left ({interval['exit_reason']})")
    return f"It {way} at {said(interval['exited_at'])}, and left."


def enters_when(segment: Segment) -> str:
    return {
        SegmentStatus.DRAFT: "would enter if the segment were not a draft, which is never evaluated",
        SegmentStatus.PAUSED: "enters when the segment, which is paused, is activated again",
        SegmentStatus.ARCHIVED: "would enter if the segment were not archived",
        SegmentStatus.ACTIVE: "enters when the segment is evaluated next",
    }[segment.status]


def leaves_when(segment: Segment) -> str:
    if segment.status is SegmentStatus.ACTIVE:
        return "leaves when the segment is evaluated next"
    return f"stays while the segment is {segment.status}"


def said(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
