"""What people do: events taken in, checked one by one and written together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import TypeVar
from uuid import UUID

from db.errors import MusterError
from profiles.errors import ProfileErased, ProfileError
from profiles.identities import clean_anonymous_id, clean_external_id
from profiles.ingestion import Batch, CleanEvent, write
from profiles.text import clean_country, clean_text, is_plain
from profiles.traits import properties_text

T = TypeVar("T")

MOST_EVENTS = 1000
MOST_CHARACTERS = 200
"""Of a message id and of an event's name."""
OLDEST = timedelta(days=3653)
"""10 years."""
MOST_AHEAD = timedelta(days=1)
"""Clocks of phones are wrong; by more than a day they are not believed."""

CONTEXT = {"page_path": 2000, "device_type": 50, "browser": 100, "city": 200, "session_id": 200}
"""The columns of an event's context that are plain text, and their most characters."""


@dataclass(frozen=True, slots=True)
class EventInput:
    """One thing that somebody did, known by exactly one of `external_id` and `anonymous_id`.

    `message_id` makes a repeat harmless. `occurred_at` is an aware time; None is now.
    """

    message_id: str
    name: str
    external_id: str | None = None
    anonymous_id: str | None = None
    occurred_at: datetime | None = None
    properties: Mapping[str, object] = field(default_factory=dict)
    page_path: str | None = None
    device_type: str | None = None
    browser: str | None = None
    country: str | None = None
    city: str | None = None
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class TrackReport:
    """What became of a batch; the three add up to its length.

    `duplicates` were known already, or came twice in the batch. `errors` are (index in the batch, refusal), ascending.
    """

    accepted: int
    duplicates: int
    errors: tuple[tuple[int, MusterError], ...]


async def track(workspace_id: UUID, events: Sequence[EventInput], *, now: datetime) -> TrackReport:
    """Write a batch of events; a refused one does not hold up the others.

    Sending a batch again adds nothing for 35 days, whether or not its answer was ever seen. Unknown external ids
    become profiles, unknown anonymous ids anonymous ones. Events of people who were erased are refused. Raises
    ProfileError TOO_MANY_ITEMS above 1,000 events.
    """
    return await take(workspace_id, events, partial(clean, now=now), now=now)


async def take(
    workspace_id: UUID,
    items: Sequence[T],
    read: Callable[[T], CleanEvent],
    *,
    read_all: Callable[[Sequence[T]], Batch | None] = lambda items: None,
    now: datetime,
) -> TrackReport:
    """Like `track`, for events as they come in: `read` makes a clean event of one, or raises MusterError.

    `read_all` is asked first: what `read` would make of each, or None if it cannot say.
    """
    if len(items) > MOST_EVENTS:
        raise ProfileError("TOO_MANY_ITEMS", f"{len(items)} events at once: send at most {MOST_EVENTS}.")
    places: Sequence[int] = range(len(items))
    errors: list[tuple[int, MusterError]] = []
    batch = read_all(items)
    if batch is None:
        checked, places, errors = read_each(items, read)
        batch = Batch.of(checked)
    written = await write(workspace_id, batch, now=now)
    if written.erased:
        first = {message_id: at for at, message_id in reversed(list(enumerate(batch.message_ids)))}
        for at in (first[message_id] for message_id in written.erased):
            name = "anonymous_id" if batch.external_ids[at] is None else "external_id"
            errors.append((places[at], ProfileErased(field=(name,))))
    errors.sort(key=itemgetter(0))
    duplicates = len(batch.message_ids) - written.accepted - len(written.erased)
    return TrackReport(written.accepted, duplicates, tuple(errors))


def read_each(
    items: Sequence[T], read: Callable[[T], CleanEvent]
) -> tuple[list[CleanEvent], list[int], list[tuple[int, MusterError]]]:
    """The events that could be read, their places among `items`, and the refusals of the others with theirs."""
    checked: list[CleanEvent] = []
    places: list[int] = []
    errors: list[tuple[int, MusterError]] = []
    for place, item in enumerate(items):
        try:
            checked.append(read(item))
        except MusterError as refusal:
            errors.append((place, refusal))
        else:
            places.append(place)
    return checked, places, errors


def clean(event: EventInput, *, now: datetime) -> CleanEvent:
    """The event as it is kept; raises ProfileError with the field's path."""
    return clean_fields(
        event.message_id,
        event.name,
        event.external_id,
        event.anonymous_id,
        event.occurred_at,
        event.properties,
        event.page_path,
        event.device_type,
        event.browser,
        event.country,
        event.city,
        event.session_id,
        now=now,
    )


def clean_fields(
    message_id: object,
    name: object,
    external_id: object,
    anonymous_id: object,
    occurred_at: object,
    properties: object,
    page_path: object,
    device_type: object,
    browser: object,
    country: object,
    city: object,
    session_id: object,
    *,
    now: datetime,
) -> CleanEvent:
    """Like `clean`, of the fields of EventInput, which may hold anything.

    Nothing is made on the way: of 20,000 events a second, each microsecond is a fiftieth of a processor.
    """
    if (external_id is None) == (anonymous_id is None):
        raise ProfileError("ONE_IDENTITY", "Give an external id or an anonymous id, and not both.")
    return CleanEvent(
        message_id if is_plain(message_id, MOST_CHARACTERS) else clean_message_id(message_id),
        None if external_id is None else clean_external_id(external_id),
        None if anonymous_id is None else clean_anonymous_id(anonymous_id),
        name if is_plain(name, MOST_CHARACTERS) else clean_name(name),
        now if occurred_at is None else clean_time(occurred_at, now=now),
        properties_text(properties),
        context_or_none("page_path", page_path),
        context_or_none("device_type", device_type),
        context_or_none("browser", browser),
        None if country is None else clean_country(country, field=("country",)),
        context_or_none("city", city),
        context_or_none("session_id", session_id),
    )


def clean_message_id(value: object) -> str:
    return clean_text(value, what="Message id", most=MOST_CHARACTERS, field=("message_id",))


def clean_name(value: object) -> str:
    return clean_text(value, what="Event name", most=MOST_CHARACTERS, field=("name",))


def clean_time(value: object, *, now: datetime) -> datetime:
    """An aware time in UTC, at most 10 years back and a day ahead; raises ProfileError NAIVE_TIME, TOO_OLD or
    IN_THE_FUTURE."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ProfileError("NAIVE_TIME", "Give the time with its offset from UTC.", field=("occurred_at",))
    if now - value > OLDEST:
        raise ProfileError(
            "TOO_OLD", f"{value.isoformat()} is more than 10 years back: leave the event out.", field=("occurred_at",)
        )
    if value - now > MOST_AHEAD:
        raise ProfileError(
            "IN_THE_FUTURE",
            f"{value.isoformat()} is more than a day ahead: check the sender's clock.",
            field=("occurred_at",),
        )
    return value if value.tzinfo is UTC else value.astimezone(UTC)


def clean_context(column: str, value: object) -> str:
    """A text of the event's context; raises ProfileError."""
    return clean_text(value, what=column.replace("_", " ").capitalize(), most=CONTEXT[column], field=(column,))


def context_or_none(column: str, value: object) -> str | None:
    """Like `clean_context`; a blank is nothing, as SDKs send it for what they do not know."""
    if value is None or value == "":
        return None
    return value if is_plain(value, CONTEXT[column]) else clean_context(column, value)
