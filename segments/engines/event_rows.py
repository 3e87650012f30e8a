"""What leaves PostgreSQL of the events that leaves ask about: packed columns, an entry for each event, ungrouped.

Grouping a million people is what cost most: it takes one process longer than reading, and each condition in FILTER is
looked at again for each row. folding.py does it with the columns, which are read by parallel workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from segments.engines.comparisons import Member
from segments.engines.event_leaves import CONTEXT, filters
from segments.engines.queries import Given, Query, Statement, all_of, half, hull, in_time, joined, packed
from segments.nodes import Event, Time

MOST_FLAG = 1 << 62
"""The last bit of a bigint that is not its sign."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one leaf takes of the rows: those with this flag, or all of them where it is 0; of these, the ones in the
    leaf's window."""

    event: Event
    flag: int = 0


@dataclass(frozen=True, slots=True)
class Values:
    """The column of a property's values: of events in the `queries.hull` of `times`; of all events where that is
    empty."""

    property: str
    times: tuple[Time, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """A statement of one row of columns: ids; times where they are of use; flags where there are any; the values of
    each property. NULL where there is no event."""

    statement: Statement
    shares: tuple[Share, ...]
    timed: bool
    values: tuple[Values, ...]

    @property
    def flagged(self) -> bool:
        return any(share.flag for share in self.shares)


Kind: TypeAlias = tuple[str, str | None]
"""The name of events, and what is demanded of them beside their time."""
Kinds: TypeAlias = dict[Kind, list[Event]]


def of_events(leaves: Sequence[Event], *, some: bool, timed: bool = False) -> Reading:
    """For leaves on events: of everybody and then of one name, or of some people. `timed`: with times in any case."""
    query = Query()
    names = tuple(dict.fromkeys(leaf.name for leaf in leaves))
    tests = [all_of(filters(query, leaf)) for leaf in leaves]
    kinds: Kinds = {}
    for leaf, test in zip(leaves, tests, strict=True):
        kinds.setdefault((leaf.name, test), []).append(leaf)
    windows = {repr(leaf.window): leaf.window for leaf in leaves}
    demands = in_windows(query, leaves)
    if not some:
        since, until = (query.bind(end, "timestamptz") for end in (Given.SINCE, Given.UNTIL))
        demands.append(f"occurred_at >= {since} AND occurred_at < {until}")
    if len(names) == 1:
        demands.insert(0, f"name = {query.bind(names[0], 'text')}")
        if all(tests):
            demands.append(half(" OR ".join(test for _, test in kinds if test)))
    flags: dict[Kind, int] = {}
    if len(kinds) > 1:
        flags = {kind: 1 << at for at, kind in enumerate(kind for kind in kinds if len(names) > 1 or kind[1])}
    timed = timed or len(windows) > 1 or any(leaf.first or leaf.last for leaf in leaves)
    properties = dict.fromkeys(total.property for leaf in leaves for total in leaf.totals)
    values = tuple(Values(key, times_of(key, leaves) if len(names) == 1 else ()) for key in properties)
    columns = [packed("profile_id")]
    if timed:
        columns.append(joined("timestamptz_send(occurred_at)"))
    if flags:
        columns.append(joined(f"int8send(({flags_of(query, names, kinds, flags)})::bigint)"))
    columns += [values_of(query, names, one, leaves) for one in values]
    rows = query.rows_of("event", *demands, only="profile_id" if some else None)
    if len(names) > 1:
        rows = numbered(query, names, rows, leaves)
    shares = tuple(Share(leaf, flags.get((leaf.name, test), 0)) for leaf, test in zip(leaves, tests, strict=True))
    return Reading(query.made(f"SELECT {', '.join(columns)} {rows}"), shares, timed, values)


def numbered(query: Query, names: tuple[str, ...], rows: str, leaves: Sequence[Event]) -> str:
    """FROM and WHERE of those rows that have one of `names`, as a number from 1 on.

    Texts are compared once a row: doing so for each leaf took as long as reading it. OFFSET 0 keeps it so.
    """
    used = ["properties"] if any(leaf.where or leaf.totals for leaf in leaves) else []
    used += dict.fromkeys(CONTEXT[test.field] for leaf in leaves for test in leaf.context)
    number = f"array_position({query.bind(names, 'text[]')}, name) AS named"
    columns = ", ".join(("profile_id", "occurred_at", *used, number))
    return f"FROM (SELECT {columns} {rows} OFFSET 0) AS rows WHERE named IS NOT NULL"


def in_windows(query: Query, leaves: Sequence[Event]) -> list[str]:
    """What holds of an event in the window of any of the leaves; all of it where they have one in common."""
    windows = list({repr(leaf.window): leaf.window for leaf in leaves}.values())
    if len(windows) == 1 and windows[0] is not None:
        return [in_time(query, "occurred_at", windows[0])]
    return hull(query, windows)


# What takes its time is to look into properties, a microsecond each: both below do so only for events of the names and
# in the windows of the leaves that want it.


def flags_of(query: Query, names: Sequence[str], kinds: Kinds, flags: dict[Kind, int]) -> str:
    """The flags of a row, added up."""
    sums: dict[str, list[str]] = {}
    for (name, test), flag in flags.items():
        demands = [*in_windows(query, kinds[name, test]), test] if test else []
        flagged = f"CASE WHEN {' AND '.join(demands)} THEN {flag} ELSE 0 END" if demands else str(flag)
        sums.setdefault(name, []).append(flagged)
    return of_name(names, {name: " + ".join(parts) for name, parts in sums.items()})


def values_of(query: Query, names: Sequence[str], values: Values, leaves: Sequence[Event]) -> str:
    """The values of a property as json_numbers.py reads them, JSON's null where it is missing."""
    value = Member(query, "properties", values.property).value
    if len(names) > 1:
        # Of rows of all names, null where it is not wanted: which name a row has is not sent.
        wanting: dict[str, list[Event]] = {}
        for leaf in wanted_by(values.property, leaves):
            wanting.setdefault(leaf.name, []).append(leaf)
        wanted = {name: all_of(in_windows(query, some)) or "true" for name, some in wanting.items()}
        value = f"CASE WHEN {of_name(names, wanted)} THEN {value} END"
    column = joined(f"jsonb_send(coalesce({value}, 'null'::jsonb))")
    # Not even a null of the others: of 1.1 million page views of half a year, with the values of the last month, 1,740
    # ms of one core where all had a value or a null 2,060, and as many texts fewer are read here.
    within = all_of(hull(query, values.times)) if values.times else None
    return column if within is None else f"{column} FILTER (WHERE {within})"


def times_of(key: str, leaves: Sequence[Event]) -> tuple[Time, ...]:
    """The windows in which the values of a property are wanted, when these are not those of all leaves; else none."""
    windows = {repr(leaf.window): leaf.window for leaf in wanted_by(key, leaves)}
    if len(windows) == len({repr(leaf.window) for leaf in leaves}):
        return ()
    times = tuple(window for window in windows.values() if window is not None)
    return times if len(times) == len(windows) else ()


def wanted_by(key: str, leaves: Sequence[Event]) -> list[Event]:
    return [leaf for leaf in leaves if any(total.property == key for total in leaf.totals)]


def of_name(names: Sequence[str], pieces: dict[str, str]) -> str:
    """The piece of SQL that is for the name of a row; see `numbered`."""
    if len(names) == 1:
        return pieces[names[0]]
    cases = " ".join(f"WHEN {names.index(name) + 1} THEN {piece}" for name, piece in pieces.items())
    return f"CASE named {cases} END"
