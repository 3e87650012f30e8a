"""Whom time alone may move in or out: those with something on the way of a moving edge.

While now goes from `since` to `until`, the edge of "within 7 days" goes from since - 7 days to until - 7 days, and only
what happened in between changes sides. Both ends are looked at as if they belonged to it: nothing on an edge is missed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from segments.engines.queries import earlier
from segments.nodes import EngineLeaf, Event, Operator, Seen, Sessions, Side, Span, Time, Trait, Window

NOW = timedelta()

# One index range for each edge, whatever the statistics say of a young workspace: OFFSET 0 keeps each look-up apart.
# Events of any name: event_by_name is read by skip scan (PostgreSQL 18), name by name; `name >= ''` is true of all, and
# not in event_by_profile, whose people are too many to skip from one to the next. `last_seen_at` is the time of an
# event, or when it came in if its clock was ahead: event_ahead has those.
CROSSED = """
SELECT string_agg(int4send(found.profile_id), ''::bytea) FROM (
  SELECT e.profile_id FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) AS edge (name, since, until)
  CROSS JOIN LATERAL (
    SELECT profile_id FROM event
    WHERE workspace_id = $1::uuid AND name = edge.name AND occurred_at BETWEEN edge.since AND edge.until OFFSET 0) AS e
  UNION ALL
  SELECT e.profile_id FROM unnest($5::timestamptz[], $6::timestamptz[]) AS edge (since, until)
  CROSS JOIN LATERAL (
    SELECT profile_id FROM event
    WHERE workspace_id = $1::uuid AND name >= '' AND occurred_at BETWEEN edge.since AND edge.until OFFSET 0) AS e
  UNION ALL
  SELECT e.profile_id FROM unnest($7::timestamptz[], $8::timestamptz[]) AS edge (since, until)
  CROSS JOIN LATERAL (
    SELECT profile_id FROM event
    WHERE workspace_id = $1::uuid AND received_at BETWEEN edge.since AND edge.until
      AND occurred_at > received_at AND occurred_at >= edge.since OFFSET 0) AS e
  UNION ALL
  SELECT d.profile_id FROM unnest($9::text[], $10::timestamptz[], $11::timestamptz[]) AS edge (key, since, until)
  CROSS JOIN LATERAL (
    SELECT profile_id FROM profile_date
    WHERE workspace_id = $1::uuid AND key = edge.key AND at BETWEEN edge.since AND edge.until OFFSET 0) AS d
) AS found
"""


@dataclass(slots=True)
class Edges:
    """How far behind now edges move, each once: over events of a name, over events of any name, over sights of
    profiles, over dates under a key."""

    events: set[tuple[str, timedelta]] = field(default_factory=set)
    any_events: set[timedelta] = field(default_factory=set)
    sights: set[timedelta] = field(default_factory=set)
    dates: set[tuple[str, timedelta]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.events or self.any_events or self.sights or self.dates)

    def arguments(self, workspace_id: UUID, *, since: datetime, until: datetime) -> list[object]:
        """The arguments of `CROSSED`."""
        return [
            workspace_id,
            *named_ranges(self.events, since, until),
            *ranges(self.any_events | self.sights, since, until),
            *ranges(self.sights, since, until),
            *named_ranges(self.dates, since, until),
        ]


Range = tuple[list[datetime], list[datetime]]


def ranges(edges: Iterable[timedelta], since: datetime, until: datetime) -> Range:
    """Where each edge was at `since` and at `until`, in the order given."""
    found = [(earlier(since, edge), earlier(until, edge)) for edge in edges]
    return [first for first, _ in found], [last for _, last in found]


def named_ranges(
    edges: Iterable[tuple[str, timedelta]], since: datetime, until: datetime
) -> tuple[list[str], list[datetime], list[datetime]]:
    ordered = sorted(edges)
    return ([name for name, _ in ordered], *ranges([edge for _, edge in ordered], since, until))


def edges_of(leaves: Sequence[EngineLeaf]) -> Edges:
    """All moving edges of `leaves`."""
    edges = Edges()
    for leaf in leaves:
        match leaf:
            case Event(name):
                times = (leaf.window, leaf.first, leaf.last)
                edges.events.update((name, edge) for time in times for edge in moving(time))
            case Sessions():
                edges.any_events.update(moving(leaf.window))
            case Seen():
                edges.sights.update(moving(leaf.window))
            case Trait(key, Operator.WITHIN_LAST, Span() as span):
                edges.dates.update({(key, span.duration), (key, NOW)})
            case Trait(key, Operator.MORE_THAN_AGO, Span() as span):
                edges.dates.add((key, span.duration))
            case _:
                pass
    return edges


def moving(time: Time | None) -> Iterator[timedelta]:
    """How far behind now the edges of `time` are; none of them moves in a period.

    Now itself is one of a window `within`: events that are ahead of it come in.
    """
    if isinstance(time, Window):
        yield time.duration
        if time.side is Side.WITHIN:
            yield NOW
