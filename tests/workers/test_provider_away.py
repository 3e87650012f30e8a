"""A mail server or push service that is away shows in a worker's numbers."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx2

from app import metrics
from campaigns import sending
from channels.base import Outcome, OutcomeKind, OutcomeScope
from profiles.addresses import AddressHasher
from profiles.devices import Platform, Provider
from tests.app.test_api_metrics import samples
from tests.blast.running import until
from tests.campaigns.factories import make_people
from tests.campaigns.push_factories import (
    ACCEPTED,
    ScriptedProvider,
    deliver,
    make_device,
    make_push_campaign,
    push_carrier,
    set_credential,
)
from tests.campaigns.test_push_sending import APNS, IPHONE
from tests.conftest import Database
from tests.servers import ScriptedSmtp
from tests.workers.running import make_due, worker
from tests.workers.test_readiness import HOST


def away(text: str) -> dict[str, float]:
    """muster_provider_away by channel."""
    return {
        name.split('"')[1]: value for name, value in samples(text).items() if name.startswith("muster_provider_away{")
    }


async def test_a_mail_server_that_is_away_shows_until_it_is_back(
    workspace: UUID, database: Database, hasher: AddressHasher, tmp_path: Path
) -> None:
    await make_people(workspace, [f"p{n:03}" for n in range(100)], hasher=hasher, now=datetime.now(UTC))
    await make_due(workspace)
    async with (
        ScriptedSmtp({"banner": ["421 4.3.2 closing"] * 10_000}) as mails,
        worker(database, database.redis_url, mails.port, tmp_path) as running,
    ):

        async def told(value: float) -> None:
            async def ask() -> bool:
                assert running.process.poll() is None
                numbers = await asyncio.to_thread(httpx2.get, f"http://{HOST}:{running.port}/metrics")
                return away(numbers.text) == {"email": value, "fcm": 0, "apns": 0}

            await until(f"email to be {value}", ask)

        await running.lacks([])
        await told(1)
        mails.script["banner"].clear()

        async def some_arrived() -> bool:
            return bool(mails.received)

        await until("the first mail", some_arrived)
        await told(0)


async def test_a_push_service_that_is_away_shows_and_the_others_do_not(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    await make_people(workspace, ["ann", "cleo"], hasher=hasher, now=now)
    await make_device(workspace, "ann", now=now)
    await make_device(workspace, "cleo", now=now, token=IPHONE, provider=Provider.APNS, platform=Platform.IOS)
    await set_credential(workspace, now=now)
    await set_credential(workspace, APNS, now=now)
    busy = Outcome(
        OutcomeKind.DEFERRED, "TRY_LATER", "ANSWER", scope=OutcomeScope.HOST, retry_after=timedelta(minutes=2)
    )
    provider = ScriptedProvider(lambda message: ACCEPTED if message.token == IPHONE else busy)
    campaign = await make_push_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    carrier = push_carrier(provider, hasher)
    await deliver(workspace, campaign.id, carrier, now=now)
    metrics.note_away(carrier)
    assert away(metrics.text().decode()) == {"email": 0, "fcm": 1, "apns": 0}
    metrics.note_away(push_carrier(provider, hasher))
    assert away(metrics.text().decode()) == {"email": 0, "fcm": 0, "apns": 0}
