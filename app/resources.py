"""Everything a process holds open, made in one place and closed in reverse."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID, uuid4

from app.installation import check_address_key
from app.proofs import Proofreaders
from app.pushing import Providers, PushHosts
from app.settings import Settings
from app.tables import MODEL_MODULES
from app.traces import TRACES, trace_to
from app.wakeups import Wakeups
from campaigns.carrier import Carrier, PushCarrier, Slots
from campaigns.engagement import EngagementSource
from campaigns.links import Tracker
from campaigns.proofs import Proofs
from campaigns.push_channels import PushChannels
from campaigns.push_credentials import Secret
from campaigns.sealing import Sealer
from campaigns.tokens import Signer, unsubscribe_token
from channels.base import Channel as PushChannel
from channels.base import PushMessage
from channels.smtp import SmtpChannel, SmtpSettings
from db.transactions import across_workspaces, close_database, open_database
from profiles.addresses import AddressHasher, Channel
from segments.engines.postgres import PostgresEngine
from segments.nodes import Engagement, SavedSql
from segments.saved_queries import SavedSqlSource
from segments.sources import LeafSource, Sources

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """Wiring of one process: the API or a worker."""

    settings: Settings
    wakeups: Wakeups
    hasher: AddressHasher
    signer: Signer
    sources: Sources
    carrier: Carrier
    proofs: Proofs
    sealer: Sealer
    push_providers: Providers


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Open the pool, check the address key, make channels. Raises WrongAddressKey, OSError, asyncpg.PostgresError."""
    async with AsyncExitStack() as stack:
        if settings.otlp_url:
            trace_to(settings.otlp_url)
        await open_database(
            settings.database_url,
            model_modules=MODEL_MODULES,
            connections=settings.database_connections,
        )
        stack.push_async_callback(close_database)
        hasher = AddressHasher(settings.address_key.get_secret_value().encode())
        async with across_workspaces() as connection:
            await check_address_key(connection, hasher)
        wakeups = Wakeups(settings.redis_url)
        stack.push_async_callback(wakeups.close)
        signer = Signer(settings.token_key.get_secret_value().encode())
        # As many connections as slots: a message whose intent is committed never waits for a connection (R3).
        smtp = SmtpSettings.parse(
            settings.smtp_url, connections=settings.send_concurrency, timeout=settings.send_timeout
        )
        channel = TRACES.of_channel(SmtpChannel(smtp), "smtp")
        stack.push_async_callback(channel.close)

        def unsubscribe_url(workspace_id: UUID, profile_id: int, campaign_id: UUID) -> str:
            token = unsubscribe_token(signer, workspace_id=workspace_id, profile_id=profile_id, campaign_id=campaign_id)
            return f"{settings.public_url}/u/{token}"

        sealer = sealer_of(settings)
        providers = Providers(push_hosts(settings))

        def push_channel(secret: Secret) -> PushChannel[PushMessage]:
            return TRACES.of_channel(providers.channel(secret, timeout=settings.send_timeout), "push")

        push_channels = PushChannels(push_channel, sealer)
        stack.push_async_callback(push_channels.close)
        proofs = Proofreaders()
        stack.push_async_callback(proofs.close)
        yield Resources(
            settings=settings,
            proofs=proofs,
            sealer=sealer,
            push_providers=providers,
            wakeups=wakeups,
            hasher=hasher,
            signer=signer,
            sources=segment_sources(),
            carrier=Carrier(
                channel=channel,
                owner=uuid4(),
                lease=settings.lease,
                slots=Slots(settings.send_concurrency),
                unsubscribe_url=unsubscribe_url,
                tracked_urls=Tracker(signer, settings.public_url).urls,
                channel_rate=settings.smtp_rate or None,
                silent_after=settings.silent_after,
                push=PushCarrier(
                    channels=push_channels,
                    slots=Slots(settings.push_concurrency),
                    token_hash=partial(hasher.hash, Channel.PUSH),
                    rate=settings.push_rate or None,
                ),
            ),
        )


def sealer_of(settings: Settings) -> Sealer:
    """What seals the secrets of this installation, and opens them."""
    return Sealer({key_id: key.get_secret_value() for key_id, key in settings.secret_keys.items()})


def push_hosts(settings: Settings) -> PushHosts:
    """Where FCM and APNs are: where they always are, or what the settings put in their place."""
    hosts = PushHosts()
    if settings.fcm_url is not None:
        hosts = replace(hosts, fcm=settings.fcm_url, fcm_tokens=f"{settings.fcm_url}/token")
    if settings.apns_url is not None:
        hosts = replace(hosts, apns=settings.apns_url, apns_sandbox=settings.apns_url)
    return hosts


def segment_sources(*, packed: bool = False) -> Sources:
    """Who answers the conditions of segments: the engine, and the packages above segments for what they know. `packed`:
    with an engine that keeps what it read of everybody, as workers have it."""
    others: dict[type, LeafSource] = {Engagement: EngagementSource(), SavedSql: SavedSqlSource()}
    if not packed:
        return Sources(PostgresEngine(), others)
    # Not at the top: the API has no use for it, and for numpy with it.
    from segments.engines.packed import PackedEngine

    return Sources(PackedEngine(PostgresEngine()), others)
