"""Which traits are dates: texts in ISO 8601, as the instants that conditions ask about."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from profiles.traits import TraitValue

# The same text must mean the same instant here and in BACKFILL_DATES (db/live_segments.py): hence ASCII digits only, no
# 24:00 and no second 60, which PostgreSQL takes and Python does not, and offsets below 16 hours.
FORM = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?(Z|[+-](0[0-9]|1[0-5]):[0-5][0-9])?)?"
)
FEWEST_CHARACTERS, MOST_CHARACTERS = 10, 32


def read_date(value: object) -> datetime | None:
    """The instant that a trait's value stands for, in UTC; None when it is no date.

    A date is a text like 2026-01-31, 2026-01-31 12:00, 2026-01-31T12:00:00.5Z or 2026-01-31T12:00+01:00. A date alone
    is its midnight in UTC, a time without an offset is in UTC. Days that do not exist, and instants that in UTC are
    before the year 1 or after 9999, are none.
    """
    if not isinstance(value, str) or not FEWEST_CHARACTERS <= len(value) <= MOST_CHARACTERS or value[4] != "-":
        return None
    if not FORM.fullmatch(value):
        return None
    try:
        at = datetime.fromisoformat(value)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def dates_of(traits: Mapping[str, TraitValue]) -> dict[str, datetime]:
    """Those of `traits` that are dates, as instants."""
    return {key: at for key, value in traits.items() if (at := read_date(value)) is not None}


def moved_dates(
    before: Mapping[str, TraitValue], after: Mapping[str, TraitValue]
) -> Iterator[tuple[str, datetime | None]]:
    """The keys whose date is another than before, each with its date now; None: it has none any more."""
    for key in before.keys() | after.keys():
        one, other = before.get(key), after.get(key)
        if one != other and (at := read_date(other)) != read_date(one):
            yield key, at
