"""Push campaigns, devices and scripted providers, with only what a test needs to say."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

from campaigns import push_credentials, sending
from campaigns.carrier import Carrier, PushCarrier, Slots
from campaigns.drafts import create
from campaigns.models import Campaign
from campaigns.push_channels import PushChannels
from campaigns.push_content import PushContent
from campaigns.push_credentials import FcmSecret, Secret
from campaigns.sealing import Sealer
from campaigns.wanted import CampaignInput
from channels.base import Outcome, OutcomeKind, PushMessage
from db.transactions import transaction
from profiles import devices
from profiles.addresses import AddressHasher, Channel
from profiles.devices import Device, DeviceInput, Platform, Provider
from tests.campaigns.factories import ReadHere, ScriptedChannel, carrier, everyone_id

SEALER = Sealer({"1": "a secret key of the tests, 32 characters or more"})
CONTENT = PushContent(title="Hello", body="There are new records")
ACCEPTED = Outcome(OutcomeKind.ACCEPTED, "ACCEPTED", "ANSWER", provider_id="of-the-provider")
GONE = Outcome(OutcomeKind.REFUSED, "UNREGISTERED", "ANSWER", "404 UNREGISTERED", bad_address=True)


class KnownProviders:
    """The port campaigns.push_credentials.PushProviders for secrets that are only names."""

    def facts(self, secret: Secret) -> dict[str, Any]:
        return {}

    async def check(self, secret: Secret) -> Outcome:
        return ACCEPTED


class ScriptedProvider:
    """Remembers what it was given and answers as told; `hold` makes it wait until `go` is set."""

    def __init__(self, answer: Callable[[PushMessage], Outcome] = lambda message: ACCEPTED) -> None:
        self.answer = answer
        self.received: list[PushMessage] = []
        self.go = asyncio.Event()
        self.go.set()
        self.arrived = asyncio.Condition()
        self.opened: list[Secret] = []
        self.closed: list[Secret] = []

    @property
    def tokens(self) -> list[str]:
        return sorted(message.token for message in self.received)

    async def until_received(self, messages: int) -> None:
        """Wait until so many messages have come."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= messages)

    def connect(self, secret: Secret) -> "ScriptedConnection":
        self.opened.append(secret)
        return ScriptedConnection(self, secret)


@dataclass
class ScriptedConnection:
    """A channel with one credential."""

    provider: ScriptedProvider
    secret: Secret

    @property
    def concurrency(self) -> int:
        return 64

    async def send(self, message: PushMessage) -> Outcome:
        self.provider.received.append(message)
        async with self.provider.arrived:
            self.provider.arrived.notify_all()
        await self.provider.go.wait()
        return self.provider.answer(message)

    async def largest_message(self) -> int | None:
        return None

    async def close(self) -> None:
        self.provider.closed.append(self.secret)


def push_carrier(provider: ScriptedProvider, hasher: AddressHasher, *, concurrency: int = 8, **more: Any) -> Carrier:
    """What a worker sends push notifications with; `more` are further fields of a carrier."""
    return carrier(
        ScriptedChannel(),
        push=PushCarrier(
            PushChannels(provider.connect, SEALER),
            Slots(concurrency),
            token_hash=lambda token: hasher.hash(Channel.PUSH, token),
        ),
        **more,
    )


async def set_credential(
    workspace_id: UUID, secret: Secret | None = None, *, app: str = "default", now: datetime
) -> None:
    """A credential, of FCM unless told otherwise."""
    await push_credentials.set_credential(
        workspace_id, secret or FcmSecret("an account"), app=app, sealer=SEALER, providers=KnownProviders(), now=now
    )


async def make_device(
    workspace_id: UUID,
    owner: str,
    *,
    now: datetime,
    token: str | None = None,
    provider: Provider = Provider.FCM,
    platform: Platform = Platform.ANDROID,
    app: str = "default",
) -> Device:
    """A device of the profile with this external id, registered an hour ago."""
    device = DeviceInput(provider, token or f"token-{uuid4().hex}", platform, external_id=owner, app=app)
    return await devices.register(workspace_id, device, now=now - timedelta(hours=1))


async def make_devices(workspace_id: UUID, owners: Sequence[str], *, now: datetime) -> dict[str, Device]:
    """An Android phone for each of these people, whose token is "token-" and their name; by name."""
    return {name: await make_device(workspace_id, name, now=now, token=f"token-{name}") for name in owners}


async def make_push_campaign(workspace_id: UUID, *, now: datetime, **wanted: Any) -> Campaign:
    """A draft push campaign to EVERYONE, unless told otherwise."""
    given: dict[str, Any] = {
        "name": "News",
        "content": CONTENT,
        "segment_ids": (await everyone_id(workspace_id),),
    }
    return await create(workspace_id, CampaignInput(**(given | wanted)), proofs=ReadHere(), now=now)


async def disabled(workspace: UUID) -> list[str]:
    """Tokens of devices that were disabled."""
    async with transaction(workspace) as connection:
        return [row[0] for row in await connection.fetch("SELECT token FROM device WHERE disabled_at IS NOT NULL")]


async def deliver(workspace: UUID, campaign_id: UUID, carrier: Carrier, *, now: datetime) -> None:
    """Work until nothing is left that could leave now."""
    while await sending.deliver(workspace, campaign_id, carrier=carrier, now=now, until=monotonic() + 60):
        pass


async def send(
    workspace: UUID, provider: ScriptedProvider, hasher: AddressHasher, now: datetime, **wanted: Any
) -> UUID:
    """A campaign to everyone, as far as it comes at once; its id."""
    campaign = await make_push_campaign(workspace, now=now, **wanted)
    await sending.start(workspace, campaign.id, now=now)
    await deliver(workspace, campaign.id, push_carrier(provider, hasher), now=now)
    return campaign.id
