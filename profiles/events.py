"""What people do: events taken in, checked one by one and written together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from db.transactions import transaction
from profiles.contention import retried
from profiles.errors import ProfileError
from profiles.identities import clean_anonymous_id, clean_external_id
from profiles.ingestion import CleanEvent, ensure_months, ingest
from profiles.text import clean_country, clean_text
from profiles.traits import clean_properties

MOST_EVENTS = 1000
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
    errors: tuple[tuple[int, ProfileError], ...]


async def track(workspace_id: UUID, events: Sequence[EventInput], *, now: datetime) -> TrackReport:
    """Write a batch of events; a refused one does not hold up the others.

    Sending a batch again adds nothing for 35 days, whether or not its answer was ever seen. Unknown external ids
    become profiles, unknown anonymous ids anonymous ones. Raises ProfileError TOO_MANY_ITEMS above 1,000 events.
    """
    if len(events) > MOST_EVENTS:
        raise ProfileError("TOO_MANY_ITEMS", f"{len(events)} events at once: send at most {MOST_EVENTS}.")
    checked: list[CleanEvent] = []
    errors: list[tuple[int, ProfileError]] = []
    for index, event in enumerate(events):
        try:
            checked.append(clean(event, now=now))
        except ProfileError as refusal:
            errors.append((index, refusal))
    accepted = await write(workspace_id, checked, now=now)
    return TrackReport(accepted, len(checked) - accepted, tuple(errors))


async def write(workspace_id: UUID, events: Sequence[CleanEvent], *, now: datetime) -> int:
    """How many of these events were new and are now written, in one transaction, after making their months."""
    if not events:
        return 0
    await ensure_months(event.occurred_at for event in events)

    async def once() -> int:
        async with transaction(workspace_id) as connection:
            return await ingest(connection, workspace_id=workspace_id, events=events, now=now)

    return await retried(once)


def clean(event: EventInput, *, now: datetime) -> CleanEvent:
    """The event as it is kept; raises ProfileError with the field's path."""
    external_id, anonymous_id = event.external_id, event.anonymous_id
    if (external_id is None) == (anonymous_id is None):
        raise ProfileError("ONE_IDENTITY", "Give an external id or an anonymous id, and not both.")
    return CleanEvent(
        message_id=clean_message_id(event.message_id),
        external_id=None if external_id is None else clean_external_id(external_id),
        anonymous_id=None if anonymous_id is None else clean_anonymous_id(anonymous_id),
        name=clean_name(event.name),
        occurred_at=now if event.occurred_at is None else clean_time(event.occurred_at, now=now),
        properties=clean_properties(event.properties),
        page_path=context_or_none("page_path", event.page_path),
        device_type=context_or_none("device_type", event.device_type),
        browser=context_or_none("browser", event.browser),
        country=None if event.country is None else clean_country(event.country, field=("country",)),
        city=context_or_none("city", event.city),
        session_id=context_or_none("session_id", event.session_id),
    )


def clean_message_id(value: object) -> str:
    return clean_text(value, what="Message id", most=200, field=("message_id",))


def clean_name(value: object) -> str:
    return clean_text(value, what="Event name", most=200, field=("name",))


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


def context_or_none(column: str, value: str | None) -> str | None:
    """Like `clean_context`; a blank is nothing, as SDKs send it for what they do not know."""
    return None if value is None or value == "" else clean_context(column, value)
