"""Profiles, campaigns and a scripted channel, with only what a test needs to say."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from campaigns import drafts, senders
from campaigns.content import EmailContent
from campaigns.drafts import CampaignInput
from campaigns.models import Campaign
from campaigns.senders import SenderInput
from campaigns.transmission import Carrier, Slots
from channels.base import EmailMessage, Outcome, OutcomeKind
from db.transactions import transaction
from profiles import profiles
from profiles.addresses import AddressHasher
from profiles.patches import ProfileInput
from segments import everyone

ACCEPTED = Outcome(OutcomeKind.ACCEPTED, "OK", "end")
CONTENT = EmailContent(
    subject="Hello {{ profile.external_id }}",
    text="Hi {{ profile.external_id }}\n{{ sender.postal_address }}\n{{ unsubscribe_url }}",
)


class ScriptedChannel:
    """Remembers what it was given and answers as told; `hold` makes it wait until `go` is set."""

    def __init__(self, answer: Callable[[EmailMessage], Outcome] = lambda message: ACCEPTED) -> None:
        self.answer = answer
        self.received: list[EmailMessage] = []
        self.go = asyncio.Event()
        self.go.set()
        self.waiting = 0
        self.arrived = asyncio.Condition()

    @property
    def concurrency(self) -> int:
        return 64

    @property
    def recipients(self) -> list[str]:
        return sorted(message.recipient for message in self.received)

    async def send(self, message: EmailMessage) -> Outcome:
        self.received.append(message)
        async with self.arrived:
            self.arrived.notify_all()
        await self.go.wait()
        return self.answer(message)

    async def until_received(self, messages: int) -> None:
        """Wait until so many messages have come."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= messages)

    async def close(self) -> None:
        return None


def carrier(channel: ScriptedChannel, *, concurrency: int = 8, lease: timedelta = timedelta(seconds=30)) -> Carrier:
    return Carrier(
        channel=channel,
        owner=uuid4(),
        lease=lease,
        slots=Slots(concurrency),
        unsubscribe_url=lambda workspace_id, profile_id, campaign_id: f"https://muster.example/u/{profile_id}",
    )


async def make_people(
    workspace_id: UUID, names: Iterable[str], *, hasher: AddressHasher, now: datetime, domain: str = "example.com"
) -> dict[str, int]:
    """Profiles named `names`, each with an address of its name; ids by name."""
    made = await profiles.upsert(
        workspace_id,
        [ProfileInput(external_id=name, email=f"{name}@{domain}") for name in names],
        hasher=hasher,
        now=now,
    )
    assert all(one.error is None for one in made)
    return {name: one.profile_id for name, one in zip(names, made, strict=True) if one.profile_id is not None}


async def everyone_id(workspace_id: UUID) -> UUID:
    async with transaction(workspace_id) as connection:
        return await everyone.segment_id(connection)


async def make_campaign(workspace_id: UUID, *, now: datetime, **wanted: Any) -> Campaign:
    """A draft email campaign to EVERYONE, unless told otherwise."""
    sender = await senders.create(
        workspace_id, SenderInput(from_name="Muster", from_address="news@muster.example", postal_address="1 Main St")
    )
    given: dict[str, Any] = {
        "name": "News",
        "content": CONTENT,
        "sender_id": sender.id,
        "segment_ids": (await everyone_id(workspace_id),),
    }
    return await drafts.create(workspace_id, CampaignInput(**(given | wanted)), now=now)
