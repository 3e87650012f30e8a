"""A batch of events checked at once, column by column: what well-formed batches cost is a third of event by event.

It knows no rule of its own and refuses nothing. A batch in which anything looks odd is left to `events.clean_fields`,
event by event, which says what is wrong with which.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from profiles.errors import ProfileError
from profiles.events import CONTEXT, MOST_AHEAD, MOST_CHARACTERS, OLDEST
from profiles.identities import MOST_ID_CHARACTERS
from profiles.ingestion import Batch
from profiles.text import countries
from profiles.traits import properties_texts

Column = Sequence[Any]


def clean_columns(columns: Sequence[Column], *, now: datetime) -> Batch | None:
    """The events that `columns`, in the order of CleanEvent's fields, hold; None when they have to be looked at one by
    one. Times are datetimes; None is now. Other columns may hold anything."""
    message_ids, external_ids, anonymous_ids, names, times, properties, page_paths, *others = columns
    device_types, browsers, lands, cities, session_ids = others
    context = {
        "page_path": page_paths, "device_type": device_types, "browser": browsers, "city": cities,
        "session_id": session_ids,
    }  # fmt: skip
    try:
        if (
            are_plain(message_ids, MOST_CHARACTERS)
            and are_plain(set(names), MOST_CHARACTERS)
            and [one is None for one in external_ids] == [one is not None for one in anonymous_ids]
            and are_plain([one for one in external_ids if one is not None], MOST_ID_CHARACTERS)
            and are_plain([one for one in anonymous_ids if one is not None], MOST_ID_CHARACTERS)
            and all(are_plain(set(context[name]) - {None}, CONTEXT[name]) for name in context)
            and set(lands) - {None} <= countries()
        ):
            instants = [now if at is None else at if at.tzinfo is UTC else in_utc(at) for at in times]
            if now - OLDEST <= min(instants, default=now) and max(instants, default=now) <= now + MOST_AHEAD:
                texts = properties_texts(properties)
                return Batch(message_ids, external_ids, anonymous_ids, names, instants, texts, page_paths, *others)
    except (TypeError, ValueError, AttributeError, OverflowError, ProfileError):
        # Something is of another type, cannot be hashed or compared, or is refused.
        return None
    return None


def in_utc(at: datetime) -> datetime:
    """The same instant; raises ValueError for a time without an offset."""
    if at.tzinfo is None:
        raise ValueError("a time without an offset")
    return at.astimezone(UTC)


def are_plain(texts: Collection[Any], most: int) -> bool:
    """Whether `text.is_plain` holds for each; also False for some that are. Raises TypeError where one is no text."""
    if not texts:
        return True
    # One look at all of them, between bars: nothing empty, no blank at either end.
    joined = f"|{'|'.join(texts)}|"
    return (
        joined.isprintable()
        and "||" not in joined
        and "| " not in joined
        and " |" not in joined
        and max(map(len, texts)) <= most
    )
