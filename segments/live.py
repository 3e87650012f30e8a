"""The live segments of a workspace, as a pulse evaluates them: read from their rows, parsed once a process."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from asyncpg import Record

from db.transactions import Connection
from segments import conditions, ranking
from segments.canonical import key
from segments.errors import SegmentError
from segments.finding import Wanted
from segments.nodes import ByEvents, Event, InSegment, Leaf, Ranking

RETRIED_AFTER = timedelta(minutes=10)
"""So long a segment that no engine answered stands still before it is tried again."""
MOST_PARSED = 5_000
"""Definitions kept by a process."""

# One after the other in id order, as everybody does who locks several. A redefinition waits for this, and this for it.
LOCK = """
SELECT id FROM segment WHERE workspace_id = $1 AND live AND status = 'ACTIVE' AND type = 'DYNAMIC'
ORDER BY id FOR SHARE
"""
# One that has no members yet, or is being made with those of another, shows them to nobody but gets them under this.
# Not EVERYONE, which has none and whose lock is that of the list of segments.
LOCK_ALL = "SELECT id FROM segment WHERE workspace_id = $1 AND type <> 'EVERYONE' ORDER BY id FOR SHARE"
# A held evaluation anywhere in the history stops its segment: newer ones may have failed since. `ranked`: whether the
# ranks are those of this definition; before its first evaluation there are none, and a cut would leave nobody.
LIVE = """
SELECT s.id, s.definition_version, s.change_guard,
  EXISTS (SELECT FROM evaluation e WHERE e.workspace_id = $1 AND e.segment_id = s.id AND e.status = 'HELD') AS held,
  EXISTS (SELECT FROM evaluation e
    WHERE e.workspace_id = $1 AND e.segment_id = s.id AND e.status IN ('QUEUED', 'RUNNING')) AS open,
  s.ranking IS NULL OR EXISTS (SELECT FROM evaluation e WHERE e.workspace_id = $1 AND e.segment_id = s.id
    AND e.status = 'SUCCEEDED' AND e.definition_version = s.definition_version) AS ranked,
  newest.status AS newest_status, newest.cause AS newest_cause, newest.finished_at
FROM segment s LEFT JOIN LATERAL (
  SELECT e.status, e.cause, e.finished_at FROM evaluation e
  WHERE e.workspace_id = $1 AND e.segment_id = s.id ORDER BY e.id DESC LIMIT 1) AS newest ON true
WHERE s.workspace_id = $1 AND s.live AND s.status = 'ACTIVE' AND s.type = 'DYNAMIC' ORDER BY s.id
"""
# Apart, for once a process has read a version it need not read it again: with 100 segments a beat that finds nothing to
# do took 10 ms of the process's time when it read them all, and takes 6 (2026-11-22).
DEFINITIONS = """
SELECT id, definition_version, brand_id, definition, ranking FROM segment WHERE workspace_id = $1 AND id = ANY($2)
"""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A definition, and what follows from it alone."""

    wanted: Wanted
    ranking: Ranking | None
    moving: Mapping[str, Leaf]
    """Leaves to be watched for people who come over an edge of time, by `canonical.key`."""


@dataclass(frozen=True, slots=True)
class LiveSegment:
    """A live segment."""

    id: UUID
    parsed: Parsed
    change_guard: int | None

    @property
    def wanted(self) -> Wanted:
        return self.parsed.wanted

    @property
    def uses(self) -> frozenset[UUID]:
        """The segments it names."""
        return self.parsed.wanted.plan.uses


@dataclass(frozen=True, slots=True)
class LiveSegments:
    """The live segments of a workspace, in id order."""

    beating: dict[UUID, LiveSegment] = field(default_factory=dict)
    """Those that the pulse keeps true."""
    standing: dict[UUID, LiveSegment] = field(default_factory=dict)
    """Those that wait for a person or for an evaluation; people who concern them still count."""
    broken: set[UUID] = field(default_factory=set)
    """Those whose conditions no engine answers."""
    to_retry: set[UUID] = field(default_factory=set)
    """Broken ones whose next try is due, and others whose evaluation failed, which beat on meanwhile."""

    def __bool__(self) -> bool:
        return bool(self.beating or self.standing or self.broken or self.to_retry)


async def lock(connection: Connection, workspace_id: UUID, *, all_segments: bool = False) -> set[UUID]:
    """The segments that are live now, or all. Until the transaction ends nobody redefines or pauses them, or applies
    an evaluation to them."""
    return {row["id"] for row in await connection.fetch(LOCK_ALL if all_segments else LOCK, workspace_id)}


async def read(connection: Connection, workspace_id: UUID, *, now: datetime) -> LiveSegments:
    """The active live segments as they stand."""
    found = LiveSegments()
    rows = await connection.fetch(LIVE, workspace_id)
    await PARSED.learn(connection, workspace_id, rows)
    for row in rows:
        failed = row["newest_status"] == "FAILED" and not row["open"]
        is_broken = failed and row["newest_cause"] == "BACKLOG"
        # A person who looks at a held one is not given another to look at.
        is_due = failed and now - row["finished_at"] >= RETRIED_AFTER and (is_broken or not row["held"])
        parsed = PARSED.find(row)
        if is_due or (parsed is None and not failed):
            # Whatever was asked for while it was open was left to the one that failed: a backlog, a large change.
            found.to_retry.add(row["id"])
        elif is_broken or parsed is None:
            found.broken.add(row["id"])
        if parsed is not None and not is_broken:
            one = LiveSegment(row["id"], parsed, row["change_guard"])
            (found.standing if row["held"] or not row["ranked"] else found.beating)[one.id] = one
    return found


def moving_leaves(segments: Iterable[LiveSegment]) -> list[Leaf]:
    """The leaves to watch for all of `segments`, equal ones once."""
    together: dict[str, Leaf] = {}
    for one in segments:
        together |= one.parsed.moving
    return list(together.values())


class ParsedDefinitions:
    """Definitions by segment and version; the longest unused goes first."""

    def __init__(self, most: int = MOST_PARSED) -> None:
        self.most = most
        self.kept: OrderedDict[tuple[UUID, int], Parsed | None] = OrderedDict()

    def find(self, row: Record) -> Parsed | None:
        """The definition of a segment's row; None for one that cannot be read: its evaluation says why."""
        return self.kept.get((row["id"], row["definition_version"]))

    async def learn(self, connection: Connection, workspace_id: UUID, rows: Sequence[Record]) -> None:
        """Read and keep the definitions of `rows` that are not known yet."""
        places = {(row["id"], row["definition_version"]): row["id"] for row in rows}
        for known in places.keys() & self.kept.keys():
            self.kept.move_to_end(known)
        if unknown := [id for place, id in places.items() if place not in self.kept]:
            for row in await connection.fetch(DEFINITIONS, workspace_id, unknown):
                self.kept[row["id"], row["definition_version"]] = parse(row)
        while len(self.kept) > self.most:
            self.kept.popitem(last=False)


PARSED = ParsedDefinitions()
"""Of this process. A cache and no state: a version of a definition never changes."""


def parse(row: Record) -> Parsed | None:
    """The definition and ranking of a row of DEFINITIONS; None for one that cannot be read, of another release say."""
    try:
        wanted = Wanted(conditions.read(row["definition"]), row["brand_id"])
        order = None if row["ranking"] is None else ranking.parse(row["ranking"])
    except SegmentError:
        return None
    moving = {at: leaf for at, leaf in wanted.plan.questions.items() if not isinstance(leaf, InSegment)}
    if order is not None and isinstance(order.by, ByEvents) and order.by.window is not None:
        # Ranks change as events leave the window.
        counted = Event(order.by.name, window=order.by.window)
        moving[key(counted)] = counted
    return Parsed(wanted, order, moving)
