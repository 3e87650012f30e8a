"""Profiles, campaigns and a scripted channel, with only what a test needs to say."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from pyroaring import BitMap

from campaigns import drafts, push_proofs, senders
from campaigns.carrier import Carrier, Slots
from campaigns.emails import EmailContent
from campaigns.links import Tracker
from campaigns.models import Campaign
from campaigns.proofs import Preview, Proof, Trial, preview, prove
from campaigns.push_content import PushContent
from campaigns.push_proofs import PushPreview, PushTrial
from campaigns.senders import SenderInput
from campaigns.tokens import Signer
from campaigns.wanted import CampaignInput
from channels.base import Channel, EmailMessage, Outcome, OutcomeKind
from db.transactions import across_workspaces, transaction
from profiles import profiles
from profiles.addresses import AddressHasher
from profiles.patches import ProfileInput
from segments import everyone

ACCEPTED = Outcome(OutcomeKind.ACCEPTED, "OK", "end")
CONTENT = EmailContent(
    subject="Hello {{ profile.external_id }}",
    text="Hi {{ profile.external_id }}\n{{ sender.postal_address }}\n{{ unsubscribe_url }}",
)
TRACKER = Tracker(Signer(b"a token key of the tests, at least 32 bytes"), "https://muster.example")
"""As the API of the tests has it: tests/app/conftest.py."""


class ReadHere:
    """The port campaigns.proofs.Proofs for texts of the tests' own, in this process: a child takes 0.3 s to start."""

    def prepare(self) -> None:
        return None

    async def prove(self, content: EmailContent | PushContent, *, workspace_id: UUID) -> Proof:
        return push_proofs.prove(content) if isinstance(content, PushContent) else prove(content)

    async def preview(self, trial: Trial, *, workspace_id: UUID) -> Preview:
        return preview(trial)

    async def preview_push(self, trial: PushTrial, *, workspace_id: UUID) -> PushPreview:
        return push_proofs.preview(trial)


TRY_LATER = Outcome(OutcomeKind.DEFERRED, "TRY_LATER", "RCPT", "451 later", retry_after=timedelta(hours=1))
"""A wait that is not drawn, and outlasts a test."""


class ScriptedChannel:
    """Remembers what it was given and answers as told; `hold` makes it wait until `go` is set."""

    def __init__(self, answer: Callable[[EmailMessage], Outcome] = lambda message: ACCEPTED) -> None:
        self.answer = answer
        self.received: list[EmailMessage] = []
        self.go = asyncio.Event()
        self.go.set()
        self.largest: int | None = None
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

    async def largest_message(self) -> int | None:
        return self.largest

    async def close(self) -> None:
        return None


def carrier(
    channel: Channel[EmailMessage], *, concurrency: int = 8, lease: timedelta = timedelta(seconds=30), **more: Any
) -> Carrier:
    """What a worker sends with; `more` are further fields."""
    return Carrier(
        channel=channel,
        owner=uuid4(),
        lease=lease,
        slots=Slots(concurrency),
        unsubscribe_url=lambda workspace_id, profile_id, campaign_id: f"https://muster.example/u/{profile_id}",
        tracked_urls=TRACKER.urls,
        **more,
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
    return await drafts.create(workspace_id, CampaignInput(**(given | wanted)), proofs=ReadHere(), now=now)


ENSURE_MONTH = "SELECT ensure_month($1, $2)"
MAKE_DISPATCH = """
INSERT INTO dispatch (workspace_id, campaign_id, kind, content, content_version, audience, audience_size, finished_at)
VALUES ($1, $2, $3, $4, 1, $5, $6, $7) RETURNING id
"""
MAKE_DELIVERIES = """
INSERT INTO delivery (workspace_id, dispatch_id, profile_id, state, sent_at)
SELECT $1, $2, d.* FROM unnest($3::int[], $4::text[], $5::timestamptz[]) AS d
"""
MAKE_EVENT = """
INSERT INTO delivery_event (workspace_id, dispatch_id, campaign_id, profile_id, kind, occurred_at, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""


@dataclass(frozen=True)
class Sent:
    """What became of one message."""

    state: str
    at: datetime | None


@dataclass(frozen=True)
class Run:
    """A dispatch and its campaign."""

    campaign_id: UUID
    dispatch_id: UUID


async def make_delivered(
    workspace_id: UUID, deliveries: Mapping[int, Sent], *, now: datetime, kind: str = "SEND", name: str = "News"
) -> Run:
    """A new campaign that was sent, with these messages by profile id, as the ledger would have them."""
    campaign = await make_campaign(workspace_id, now=now, name=name)
    async with across_workspaces() as connection:
        await connection.execute(ENSURE_MONTH, "delivery", now)
    async with transaction(workspace_id) as connection:
        dispatch_id: UUID = await connection.fetchval(
            MAKE_DISPATCH, workspace_id, campaign.id, kind, {}, BitMap(deliveries).serialize(), len(deliveries), now
        )
        rows = [(id, one.state, one.at) for id, one in deliveries.items()]
        await connection.execute(MAKE_DELIVERIES, workspace_id, dispatch_id, *map(list, zip(*rows, strict=True)))
    return Run(campaign.id, dispatch_id)


async def make_event(
    workspace_id: UUID, run: Run, profile_id: int, kind: str, *, at: datetime, detail: Mapping[str, Any] | None = None
) -> None:
    """A row of delivery_event."""
    async with across_workspaces() as connection:
        await connection.execute(ENSURE_MONTH, "delivery_event", at)
    async with transaction(workspace_id) as connection:
        await connection.execute(
            MAKE_EVENT, workspace_id, run.dispatch_id, run.campaign_id, profile_id, kind, at, detail
        )
