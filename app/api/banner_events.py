"""What viewers did with banners: told by apps, and counted."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from app.api.declare import about, input_type, mutation, output
from app.api.enums import BannerEventKind
from app.api.payloads import Payload
from app.context import Context, Info
from app.problems import ApiError, user_error
from campaigns import banner_events
from campaigns.banner_events import MOST_EVENTS, BannerEvent, Span
from campaigns.banner_tracking import Became
from campaigns.errors import CampaignError
from campaigns.machines import is_crawler
from db.errors import MusterError
from profiles.keys import Scope

T = TypeVar("T")


@input_type
class BannerEventInput:
    """One thing that a viewer did with a banner."""

    id: str = about("Your own id of this event: sent again, it adds nothing.")
    kind: BannerEventKind = about("What happened.")
    token: str = about("The `impressionToken` that came with the banner; of HIDDEN, one of `hidden`.")
    session_id: str | None = about(
        "Your own id of the session, needed for IMPRESSION and HIDDEN: a token counts once in it.", default=None
    )
    occurred_at: datetime = about("When, by the device's clock; the same when the event is sent again.")


@input_type
class BannerEventsTrackInput:
    """A batch of banner events."""

    events: list[BannerEventInput] = about(f"At most {MOST_EVENTS}.")


@output
class BannerEventsTrackPayload(Payload):
    """What became of the batch. A refused event is named in `userErrors`; the others were written all the same."""

    accepted: int = about("Events that were new.", default=0)
    duplicates: int = about("Events that were known already.", default=0)


@dataclass(frozen=True, slots=True)
class BannerReport:
    """What became of a batch; the three add up to its length. `errors` are (index in the batch, refusal), ascending."""

    accepted: int
    duplicates: int
    errors: tuple[tuple[int, MusterError], ...]


async def take(
    context: Context, items: Sequence[T], read: Callable[[T, Callable[..., BannerEvent]], BannerEvent]
) -> BannerReport:
    """Write a batch; a refused event does not hold up the others.

    `read(item, clean)` makes an event of an item by `clean(token=, kind=, id=, session_id=, occurred_at=)`, and raises
    MusterError. Raises ApiError TOO_MANY_ITEMS and BUSY, and what the database raises.
    """
    if len(items) > MOST_EVENTS:
        message = f"{len(items)} events at once; send at most {MOST_EVENTS}."
        raise ApiError("TOO_MANY_ITEMS", message, field=("events",))
    services, workspace_id, now = context.services, context.workspace_id, context.now
    span = Span.of(now, late=services.settings.banner_late)
    told = services.impression_tokens
    # What servers tell of was done by somebody else than their own HTTP client.
    is_by_machine = not context.known_caller.is_server and is_crawler(context.user_agent)

    def clean(*, token: object, kind: str, id: object, session_id: object, occurred_at: datetime) -> BannerEvent:
        return banner_events.clean(
            told.read(workspace_id, token) if isinstance(token, str) else None,
            kind=kind,
            id=id,
            session_id=session_id,
            occurred_at=occurred_at,
            is_by_machine=is_by_machine,
            span=span,
        )

    events: dict[int, BannerEvent] = {}
    errors: dict[int, MusterError] = {}
    for place, item in enumerate(items):
        try:
            events[place] = read(item, clean)
        except MusterError as refusal:
            errors[place] = refusal
    became = await services.banner_writer.record(workspace_id, list(events.values()), now=now)
    for place, one in zip(events, became, strict=True):
        if one is Became.UNKNOWN:
            errors[place] = CampaignError("NOT_FOUND", "This banner was deleted: leave it out.", field=("token",))
    counted = Counter(became)
    return BannerReport(counted[Became.ACCEPTED], counted[Became.DUPLICATE], tuple(sorted(errors.items())))


def read_event(wanted: BannerEventInput, clean: Callable[..., BannerEvent]) -> BannerEvent:
    """The event, checked; raises MusterError."""
    return clean(
        token=wanted.token,
        kind=wanted.kind,
        id=wanted.id,
        session_id=wanted.session_id,
        occurred_at=wanted.occurred_at,
    )


@output
class BannerEventMutations:
    @mutation(needs=Scope.INGEST, from_apps=True)
    async def banner_events_track(self, info: Info, input: BannerEventsTrackInput) -> BannerEventsTrackPayload:
        """Report what viewers did with banners, up to 1,000 events at once; sending a batch again adds nothing."""
        report = await take(info.context, input.events, read_event)
        return BannerEventsTrackPayload(
            accepted=report.accepted,
            duplicates=report.duplicates,
            user_errors=[user_error(error, "input", "events", str(place)) for place, error in report.errors],
        )
