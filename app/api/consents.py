"""Whom not to write to: consent by topic, and suppressed addresses; and the devices that can be reached."""

from datetime import datetime

from strawberry import ID

from app.api import ids
from app.api.declare import about, input_type, mutation, output
from app.api.enums import Channel, ConsentStatus, DisabledReason, Platform, Provider
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.payloads import Payload
from app.context import Info
from profiles import consent, devices
from profiles.addresses import clean_address
from profiles.consent import SuppressionReason
from profiles.keys import Scope


@output
class Consent:
    """What a person last said about one topic of one channel."""

    channel: Channel = about("The channel.")
    topic: str = about("The topic; `*` is every topic.")
    status: ConsentStatus = about("Yes or no.")
    source: str = about("Through what it was said.")
    changed_at: datetime = about("When.")

    @classmethod
    def of(cls, row: consent.Consent) -> "Consent":
        return cls(
            channel=row.channel, topic=row.topic, status=row.status, source=row.source, changed_at=row.changed_at
        )


@output
class Device(Node):
    """A phone or browser that push notifications can reach."""

    provider: Provider = about("Who hands notifications to it.")
    platform: Platform = about("What it runs.")
    app_version: str | None = about("Version of your app on it.")
    locale: str | None = about("Its language tag.")
    app: str = about("Your app that it runs, by the name of its push credentials.")
    registered_at: datetime = about("When it was last registered.")
    disabled_at: datetime | None = about("Since when nothing is sent to it; null: it is sent to.")
    disabled_reason: DisabledReason | None = about("Why nothing is sent to it.")

    @classmethod
    def of(cls, row: devices.Device) -> "Device":
        return cls(
            id=ids.encode(Kind.DEVICE, row.id),
            provider=Provider(row.provider),
            platform=Platform(row.platform),
            app_version=row.app_version,
            locale=row.locale,
            app=row.app,
            registered_at=row.registered_at,
            disabled_at=row.disabled_at,
            disabled_reason=None if row.disabled_reason is None else DisabledReason(row.disabled_reason),
        )


@input_type
class ConsentUpdateInput:
    """What a person said."""

    profile_id: ID = about("Who.")
    channel: Channel = about("About which channel.")
    topic: str = about("About which topic, such as `newsletter`; `*` is every topic.")
    status: ConsentStatus = about("Yes or no.")
    source: str = about("Through what, such as `preference page`.", default="api")


@output
class ConsentUpdatePayload(Payload):
    """What now holds."""

    consent: Consent | None = about("What now holds; null when it was refused.", default=None)


@input_type
class SuppressionAddInput:
    """An address that must not be written to."""

    channel: Channel = about("What kind of address.")
    address: str = about("The email address or device token. Only a keyed hash of it is kept.")


@output
class SuppressionAddPayload(Payload):
    """Whether it is new."""

    added: bool = about("False when it was suppressed already, or refused.", default=False)


@input_type
class SuppressionRemoveInput:
    """An address that may be written to again."""

    channel: Channel = about("What kind of address.")
    address: str = about("The email address or device token.")


@output
class SuppressionRemovePayload(Payload):
    """Whether it was there."""

    removed: bool = about("False when it was not suppressed, or refused.", default=False)


@output
class ConsentMutations:
    @mutation(needs=Scope.INGEST)
    async def consent_update(self, info: Info, input: ConsentUpdateInput) -> ConsentUpdatePayload:
        """Record what a person said about a topic; the last word wins."""
        row = await consent.set_consent(
            info.context.workspace_id,
            profile_id=ids.profile_id(input.profile_id, field="profile_id"),
            channel=input.channel,
            topic=input.topic,
            status=input.status,
            source=input.source,
            now=info.context.now,
        )
        return ConsentUpdatePayload(consent=Consent.of(row))

    @mutation(needs=Scope.ADMIN)
    async def suppression_add(self, info: Info, input: SuppressionAddInput) -> SuppressionAddPayload:
        """Never write to an address again, whoever has it and whatever the message."""
        added = await consent.suppress(
            info.context.workspace_id,
            channel=input.channel,
            address_hash=hash_of(info, input.channel, input.address),
            reason=SuppressionReason.MANUAL,
            now=info.context.now,
        )
        return SuppressionAddPayload(added=added)

    @mutation(needs=Scope.ADMIN)
    async def suppression_remove(self, info: Info, input: SuppressionRemoveInput) -> SuppressionRemovePayload:
        """Allow an address again."""
        removed = await consent.unsuppress(
            info.context.workspace_id,
            channel=input.channel,
            address_hash=hash_of(info, input.channel, input.address),
        )
        return SuppressionRemovePayload(removed=removed)


def hash_of(info: Info, channel: Channel, address: str) -> bytes:
    """The keyed hash of an address; raises ProfileError when it is none."""
    return info.context.resources.hasher.hash(channel, clean_address(channel, address, field=("address",)))
