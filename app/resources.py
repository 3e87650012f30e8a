"""Everything a process holds open, made in one place and closed in reverse."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

from app.proofs import Proofreaders
from app.settings import Settings
from app.tables import MODEL_MODULES
from app.wakeups import Wakeups
from campaigns.carrier import Carrier, Slots
from campaigns.engagement import EngagementSource
from campaigns.links import Tracker
from campaigns.proofs import Proofs
from campaigns.tokens import Signer, unsubscribe_token
from channels.smtp import SmtpChannel, SmtpSettings
from db.errors import MusterError
from db.transactions import close_database, open_database
from profiles import workspaces
from profiles.addresses import AddressHasher
from segments.engines.postgres import PostgresEngine
from segments.nodes import Engagement, SavedSql
from segments.saved_queries import SavedSqlSource
from segments.sources import Sources

logger = logging.getLogger(__name__)


class WrongAddressKey(MusterError):
    """The installation was started with another address key before."""


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


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Open the pool, check the address key, make channels. Raises WrongAddressKey, OSError, asyncpg.PostgresError."""
    async with AsyncExitStack() as stack:
        await open_database(
            settings.database_url,
            model_modules=MODEL_MODULES,
            connections=settings.database_connections,
        )
        stack.push_async_callback(close_database)
        hasher = AddressHasher(settings.address_key.get_secret_value().encode())
        await check_address_key(hasher)
        wakeups = Wakeups(settings.redis_url)
        stack.push_async_callback(wakeups.close)
        signer = Signer(settings.token_key.get_secret_value().encode())
        # As many connections as slots: a message whose intent is committed never waits for a connection (R3).
        smtp = SmtpSettings.parse(
            settings.smtp_url, connections=settings.send_concurrency, timeout=settings.send_timeout
        )
        channel = SmtpChannel(smtp)
        stack.push_async_callback(channel.close)

        def unsubscribe_url(workspace_id: UUID, profile_id: int, campaign_id: UUID) -> str:
            token = unsubscribe_token(signer, workspace_id=workspace_id, profile_id=profile_id, campaign_id=campaign_id)
            return f"{settings.public_url}/u/{token}"

        proofs = Proofreaders()
        stack.push_async_callback(proofs.close)
        yield Resources(
            settings=settings,
            proofs=proofs,
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
            ),
        )


def segment_sources() -> Sources:
    """Who answers the conditions of segments: the engine, and the packages above segments for what they know."""
    return Sources(PostgresEngine(), {Engagement: EngagementSource(), SavedSql: SavedSqlSource()})


async def check_address_key(hasher: AddressHasher) -> None:
    """Refuse to run with another address key than before: the whole suppression list would match nobody."""
    if not await workspaces.check_address_key(hasher.fingerprint()):
        raise WrongAddressKey(
            "WRONG_ADDRESS_KEY",
            "MUSTER_ADDRESS_KEY is not the key this database was first started with. Suppressed addresses are kept"
            " under that key and would be mailed again; put the old key back.",
        )
