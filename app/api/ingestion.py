"""What apps and servers report: events, and devices that can be reached.

Called with a publishable key too, which everybody has: app/visitors.py says whom such a caller may name.
"""

from datetime import datetime
from functools import partial

from strawberry import ID

from app.api import ids
from app.api.declare import about, input_type, mutation, output
from app.api.enums import Platform, Provider
from app.api.ids import Kind
from app.api.payloads import Payload
from app.api.scalars import Json
from app.auth import Caller
from app.context import Info
from app.problems import user_error
from app.visitors import person, with_visitor
from profiles import devices, events
from profiles.devices import DEFAULT_APP, DeviceInput
from profiles.ingestion import CleanEvent
from profiles.keys import Scope

ANONYMOUS_ID = "A visitor's id: of apps, `viewer` of a fetch of banners, proven by the header X-Muster-Viewer."


@input_type
class EventTrackInput:
    """One thing that somebody did, known by either `externalId` or `anonymousId`."""

    message_id: str = about("Your own id of this event: sent again within 35 days, it adds nothing.")
    name: str = about("What was done, such as purchase.")
    external_id: str | None = about("Your own id of the person; apps leave it out.", default=None)
    anonymous_id: str | None = about(ANONYMOUS_ID, default=None)
    occurred_at: datetime | None = about("When; left out: now.", default=None)
    properties: Json | None = about("What else is to say: an object.", default=None)
    page_path: str | None = about("Path of the page.", default=None)
    device_type: str | None = about("Such as mobile.", default=None)
    browser: str | None = about("Such as Firefox.", default=None)
    country: str | None = about("ISO 3166 alpha-2 code.", default=None)
    city: str | None = about("City.", default=None)
    session_id: str | None = about("Your own id of the session.", default=None)


@input_type
class EventsTrackInput:
    """A batch of events."""

    events: list[EventTrackInput] = about(f"At most {events.MOST_EVENTS}.")


@output
class EventsTrackPayload(Payload):
    """What became of the batch. A refused event is named in `userErrors`; the others were written all the same."""

    accepted: int = about("Events that were new.", default=0)
    duplicates: int = about("Events that were known already.", default=0)


@input_type
class DeviceRegisterInput:
    """A device, and whose it is: either `externalId` or `anonymousId`."""

    provider: Provider = about("Who hands notifications to it.")
    token: str = about("What the provider calls it.")
    platform: Platform = about("What it runs.")
    external_id: str | None = about("Your own id of the person; apps leave it out.", default=None)
    anonymous_id: str | None = about(ANONYMOUS_ID, default=None)
    app_version: str | None = about("Version of your app on it.", default=None)
    locale: str | None = about("Its language tag.", default=None)
    app: str = about("Your app that it runs, by the name of its push credentials.", default=DEFAULT_APP)


@output
class DeviceRegisterPayload(Payload):
    """The device."""

    device_id: ID | None = about("The device's id; null when it was refused.", default=None)


@input_type
class DeviceUnregisterInput:
    """A device that must not be reached any more."""

    provider: Provider = about("Who hands notifications to it.")
    token: str = about("What the provider calls it.")


@output
class DeviceUnregisterPayload(Payload):
    """Whether it was there."""

    removed: bool = about("False when there was no such device, or it was refused.", default=False)


def read_event(wanted: EventTrackInput, *, caller: Caller, now: datetime) -> CleanEvent:
    """The event, checked. Raises ApiError when the caller may not act as that person, ProfileError for the rest."""
    external_id, anonymous_id = person(caller, wanted.external_id, wanted.anonymous_id)
    return events.clean_fields(
        wanted.message_id,
        wanted.name,
        external_id,
        anonymous_id,
        wanted.occurred_at,
        {} if wanted.properties is None else wanted.properties,
        wanted.page_path,
        wanted.device_type,
        wanted.browser,
        wanted.country,
        wanted.city,
        wanted.session_id,
        now=now,
    )


async def track(info: Info, wanted: list[EventTrackInput]) -> EventsTrackPayload:
    """Write the events that are allowed, and name those that are not."""
    now = info.context.now
    read = partial(read_event, caller=await with_visitor(info.context), now=now)
    report = await events.take(info.context.workspace_id, wanted, read, now=now)
    return EventsTrackPayload(
        accepted=report.accepted,
        duplicates=report.duplicates,
        user_errors=[user_error(error, "input", "events", str(place)) for place, error in report.errors],
    )


@output
class IngestionMutations:
    @mutation(needs=Scope.INGEST, from_apps=True)
    async def events_track(self, info: Info, input: EventsTrackInput) -> EventsTrackPayload:
        """Report what people did, up to 1,000 events at once; sending a batch again adds nothing."""
        return await track(info, input.events)

    @mutation(needs=Scope.INGEST, from_apps=True)
    async def device_register(self, info: Info, input: DeviceRegisterInput) -> DeviceRegisterPayload:
        """Let push notifications reach a device; registering again renews it."""
        caller = await with_visitor(info.context)
        external_id, anonymous_id = person(caller, input.external_id, input.anonymous_id)
        device = await devices.register(
            info.context.workspace_id,
            DeviceInput(
                provider=input.provider,
                token=input.token,
                platform=input.platform,
                external_id=external_id,
                anonymous_id=anonymous_id,
                app_version=input.app_version,
                locale=input.locale,
                app=input.app,
            ),
            now=info.context.now,
        )
        return DeviceRegisterPayload(device_id=ids.encode(Kind.DEVICE, device.id))

    @mutation(needs=Scope.INGEST, from_apps=True)
    async def device_unregister(self, info: Info, input: DeviceUnregisterInput) -> DeviceUnregisterPayload:
        """Reach a device no more, when somebody signs out or says no."""
        removed = await devices.unregister(info.context.workspace_id, input.provider, input.token, now=info.context.now)
        return DeviceUnregisterPayload(removed=removed)
