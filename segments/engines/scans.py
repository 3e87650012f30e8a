"""Which statements answer which leaves: those that read the same rows share one scan.

Rows are then read once and tested for each leaf. Not so when leaves want different rows: a week of events is not looked
for in ten years of them, what the index answers does not go through the table because another leaf asks about
properties, and a look-up by a unique key is not made a scan.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, assert_never

from segments.engines import statements
from segments.engines.event_leaves import reads_index_only
from segments.engines.event_rows import MOST_FLAG, Reading, of_events
from segments.engines.profile_leaves import is_dated, is_looked_up
from segments.engines.queries import Statement
from segments.nodes import (
    Attribute,
    EngineLeaf,
    Event,
    Identified,
    Period,
    RandomBucket,
    Seen,
    Sessions,
    Side,
    Trait,
    Window,
)


@dataclass(frozen=True, slots=True)
class Scan:
    """A statement of one row, and the places of the leaves it answers, in the order of its columns."""

    statement: Statement
    places: tuple[int, ...]
    of_all_profiles: bool = False
    """Whether it reads every profile of the workspace; its last column is how many these are."""
    reading: Reading | None = None
    """What its columns are, when these are of events and not the ids of each leaf."""


LONGEST_SQL = 14_000
"""asyncpg keeps no prepared statement above 15 kB (max_cacheable_statement_size): it would be planned every time."""

Placed = tuple[int, Any]
"""A leaf with its place."""
Make = Callable[[Sequence[Any]], Statement]


def of_everybody(leaves: Sequence[EngineLeaf]) -> list[Scan]:
    """Statements that together answer all of `leaves`, for everybody."""
    kinds = Kinds(leaves)
    looked_up = [[one] for one in kinds.rows if is_looked_up(one[1])]
    others = [one for one in kinds.rows if not is_looked_up(one[1])]
    return [
        *scans(looked_up, lambda leaves: statements.of_profiles(leaves, some=False)),
        *scans([[one] for one in kinds.dates], lambda leaves: statements.of_dates(leaves, some=False)),
        *scans(alike(kinds.buckets, salt), lambda leaves: statements.of_buckets(leaves, some=False)),
        *scans(alike(kinds.sessions, time), lambda leaves: statements.of_sessions(leaves, some=False)),
        *(scan for group in alike(kinds.events, name) for scan in event_scans(group)),
        *(replace(scan, of_all_profiles=True) for scan in scans([others], statements.of_all_profiles)),
    ]


def of_some(leaves: Sequence[EngineLeaf]) -> list[Scan]:
    """Statements that together answer all of `leaves`, for the profiles given when they run."""
    kinds = Kinds(leaves)
    return [
        *scans([kinds.rows], lambda leaves: statements.of_profiles(leaves, some=True)),
        *scans([kinds.dates], lambda leaves: statements.of_dates(leaves, some=True)),
        *scans(alike(kinds.buckets, salt), lambda leaves: statements.of_buckets(leaves, some=True)),
        *scans(alike(kinds.sessions, time), lambda leaves: statements.of_sessions(leaves, some=True)),
        *readings(kinds.events, some=True),
    ]


class Kinds:
    """Leaves apart by where their rows are, each with its place."""

    def __init__(self, leaves: Sequence[EngineLeaf]) -> None:
        self.rows: list[Placed] = []
        self.dates: list[Placed] = []
        self.buckets: list[Placed] = []
        self.sessions: list[Placed] = []
        self.events: list[Placed] = []
        for place, leaf in enumerate(leaves):
            self.of(leaf).append((place, leaf))

    def of(self, leaf: EngineLeaf) -> list[Placed]:
        match leaf:
            case Trait():
                return self.dates if is_dated(leaf) else self.rows
            case Attribute() | Seen() | Identified():
                return self.rows
            case RandomBucket():
                return self.buckets
            case Sessions():
                return self.sessions
            case Event():
                return self.events
            case _:
                assert_never(leaf)


def alike(leaves: Iterable[Placed], trait: Callable[[Any], object]) -> list[list[Placed]]:
    """The leaves in groups that have `trait` in common."""
    groups: dict[object, list[Placed]] = {}
    for place, leaf in leaves:
        groups.setdefault(trait(leaf), []).append((place, leaf))
    return list(groups.values())


def salt(leaf: RandomBucket) -> str:
    return leaf.salt


def time(leaf: Sessions) -> str:
    return repr(leaf.window)


def name(leaf: Event) -> str:
    return leaf.name


def event_scans(leaves: Sequence[Placed]) -> Iterable[Scan]:
    """For leaves on events of one name, about everybody."""
    for group in near(leaves):
        yield from readings(group, some=False)


def readings(leaves: Sequence[Placed], *, some: bool) -> list[Scan]:
    """A statement for these leaves, several where it would be too long or have too many flags."""
    if not leaves:
        return []
    reading = of_events([leaf for _, leaf in leaves], some=some)
    too_much = len(reading.statement.sql) > LONGEST_SQL or max(one.flag for one in reading.shares) > MOST_FLAG
    if too_much and len(leaves) > 1:
        middle = len(leaves) // 2
        return [*readings(leaves[:middle], some=some), *readings(leaves[middle:], some=some)]
    return [Scan(reading.statement, tuple(place for place, _ in leaves), reading=reading)]


def near(leaves: Sequence[Placed]) -> list[list[Placed]]:
    """Groups that read the same rows, or some a part of those of others.

    What the index answers alone is told along with what goes through the table where that reaches as far back and not
    much further: to read a row costs a third less from the index alone, to look at its time little.
    """
    reaching = [one for one in leaves if reach(one[1]) is not None]
    groups = by_reach([one for one in reaching if not reads_index_only(one[1])])
    alone: list[Placed] = []
    for one in (one for one in reaching if reads_index_only(one[1])):
        fitting = [group for group in groups if 1 <= ratio(group[0], one) <= MUCH_FURTHER]
        (fitting[-1] if fitting else alone).append(one)
    rest = [one for one in leaves if reach(one[1]) is None]
    return [*groups, *by_reach(alone), *alike(rest, extent)]


def by_reach(leaves: Sequence[Placed]) -> list[list[Placed]]:
    """Groups of leaves that go back from now, each with the one that goes furthest first."""
    groups: list[list[Placed]] = []
    for one in sorted(leaves, key=lambda one: reach(one[1]) or timedelta(), reverse=True):
        if groups and ratio(groups[-1][0], one) <= FURTHEST:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def ratio(one: Placed, other: Placed) -> float:
    """How many times as far back the one goes as the other; both go back from now."""
    first, second = reach(one[1]), reach(other[1])
    assert first is not None
    assert second is not None
    return first / second


FURTHEST = 6
"""How many times as far back a scan goes at most as any of its leaves: beside page views of 30 days (600,000 of a
million people: 274 ms), those of 4 days took 42 ms in the same scan and 36 in one of their own, those of 1 day 25 and
9; CPU of one core."""
MUCH_FURTHER = 2
"""The same for leaves that the index answers alone, in a scan that goes through the table: what it costs is to send the
times of all rows, a quarter of reading them."""


def reach(leaf: Event) -> timedelta | None:
    """How far back from now the events of `leaf` go; None where now has no say."""
    window = leaf.window
    return window.duration if isinstance(window, Window) and window.side is Side.WITHIN else None


def extent(leaf: Event) -> object:
    """What times have in common that do not go back from now: a period is alone, all others go back to the first event;
    and what the index answers alone is apart."""
    return repr(leaf.window) if isinstance(leaf.window, Period) else "", reads_index_only(leaf)


def scans(groups: Iterable[Sequence[Placed]], make: Make) -> list[Scan]:
    """A statement for each group that is not empty; several where it would be too long to be kept."""
    found: list[Scan] = []
    for group in groups:
        if group:
            statement = make([leaf for _, leaf in group])
            if len(statement.sql) > LONGEST_SQL and len(group) > 1:
                middle = len(group) // 2
                found += scans([group[:middle], group[middle:]], make)
            else:
                found.append(Scan(statement, tuple(place for place, _ in group)))
    return found
