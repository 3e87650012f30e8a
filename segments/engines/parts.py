"""Long windows are read in parts of time, so that what is in memory at once is bounded: asyncpg holds an answer three
times while it comes in, and 180 days of a million people's page views are 100 MB."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from segments.engines.queries import ALWAYS, Part, earlier
from segments.nodes import Event, Period, Side, Window

LONGEST = timedelta(days=45) * 1_000_000
"""Of a part, for one person: so much less for so many people. A half more is not worth another part."""
ALL_TIME = timedelta(days=730)
"""What is taken for the time since the first event; the first part has everything before it too."""


def parts(leaves: Iterable[Event], *, profiles: int, now: datetime) -> list[Part]:
    """The time in which events of `leaves`, of a workspace of so many profiles, are; the last part first."""
    spans = [span(leaf, now) for leaf in leaves]
    first, last = min(since for since, _ in spans), max(until for _, until in spans)
    number = max(round((last - first) / (LONGEST / max(profiles, 1))), 1)
    edges = [last - (last - first) * at / number for at in range(1, number)]
    return [Part(since, until) for since, until in zip([*edges, ALWAYS.since], [ALWAYS.until, *edges], strict=True)]


def span(leaf: Event, now: datetime) -> tuple[datetime, datetime]:
    """About when its events are."""
    match leaf.window:
        case Window(Side.WITHIN) as window:
            return earlier(now, window.duration), now
        case Period(since, until):
            last = until or max(now, since or now)
            return since or earlier(last, ALL_TIME), last
        case _:
            return earlier(now, ALL_TIME), now
