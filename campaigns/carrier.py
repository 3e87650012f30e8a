"""What a process sends with, and what it keeps of the dispatches that it sends."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar
from uuid import UUID

from campaigns.breaker import Breaker
from campaigns.emails import CompiledEmail
from campaigns.links import TrackedLink
from campaigns.push_channels import PushChannels
from campaigns.push_rendering import CompiledPush
from campaigns.retrying import HostGate
from channels.base import Channel, EmailMessage

V = TypeVar("V")

MOST_KEPT = 32
SILENT_AFTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Run:
    """What is sent: one dispatch."""

    workspace_id: UUID
    campaign_id: UUID
    dispatch_id: UUID
    consent_matters: bool
    test: bool


@dataclass(frozen=True, slots=True)
class EmailRun(Run):
    """A dispatch of mails, with its content compiled."""

    content: CompiledEmail
    envelope_sender: str
    message_id_domain: str
    links: tuple[TrackedLink, ...] = ()
    """What `content` has addresses for in each mail."""


@dataclass(frozen=True, slots=True)
class PushRun(Run):
    """A dispatch of push notifications, with its content compiled."""

    content: CompiledPush


class Slots:
    """How many messages of this process may be under way; shared by all its turns."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self.listeners: set[asyncio.Event] = set()
        self.waiting: set[asyncio.Event] = set()
        """Those of turns that have no slot at all and could use one."""

    def take(self, slots: int) -> None:
        """Take so many, no more than are free."""
        assert slots <= self.free
        self.free -= slots

    def give_back(self, slots: int) -> None:
        """Never waits, so that nothing can come between and lose a slot."""
        self.free += slots
        if slots:
            self.stir()

    @contextmanager
    def heard_by(self, listener: asyncio.Event) -> Iterator[None]:
        """`listener` is set, for the length of the block, whenever slots are given back."""
        self.listeners.add(listener)
        try:
            yield
        finally:
            self.stop_waiting(listener)
            self.listeners.discard(listener)

    def wait_for_one(self, listener: asyncio.Event) -> None:
        """The next slots are this turn's: one that hands its own on from message to message would keep them all."""
        self.waiting.add(listener)

    def stop_waiting(self, listener: asyncio.Event) -> None:
        """It has some, or needs none any more; the others may go on."""
        if listener in self.waiting:
            self.waiting.discard(listener)
            self.stir()

    def are_owed_to_others(self, listener: asyncio.Event) -> bool:
        """Whether somebody waits for a first slot while this turn does not."""
        return bool(self.waiting) and listener not in self.waiting

    def stir(self) -> None:
        """Have everybody look again."""
        for listener in self.listeners:
            listener.set()


class Kept(Generic[V]):
    """Something of each dispatch that this process worked on lately; the longest untouched is forgotten first."""

    def __init__(self) -> None:
        self.values: OrderedDict[UUID, V] = OrderedDict()

    def find(self, dispatch_id: UUID) -> V | None:
        """What was kept last of a dispatch; None when nothing is."""
        value = self.values.get(dispatch_id)
        if value is not None:
            self.values.move_to_end(dispatch_id)
        return value

    def keep(self, dispatch_id: UUID, value: V) -> V:
        """`value` itself, which `find` answers from now on."""
        self.values[dispatch_id] = value
        self.values.move_to_end(dispatch_id)
        while len(self.values) > MOST_KEPT:
            self.values.popitem(last=False)
        return value


@dataclass(frozen=True, slots=True)
class PushCarrier:
    """What a process sends push notifications with, beside what its carrier has for all."""

    channels: PushChannels
    slots: Slots
    token_hash: Callable[[str], bytes]
    """A device's token -> what the suppression list has of it."""
    rate: int | None = None
    """Notifications a second that all workers together may send; None sets no limit."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """What a process sends with; one for its whole life."""

    channel: Channel[EmailMessage]
    owner: UUID
    """The process's boot id."""
    lease: timedelta
    slots: Slots
    unsubscribe_url: Callable[[UUID, int, UUID], str]
    """(workspace, profile, campaign) -> the link of one person's mail."""
    tracked_urls: Callable[[Sequence[TrackedLink], int], list[bytes]]
    """(links, profile) -> the tracked addresses in one person's mail, encoded as HTML."""
    channel_rate: int | None = None
    """Messages a second that all workers together may give to the channel; None sets no limit."""
    push: PushCarrier | None = None
    """None: this process sends mail only."""
    silent_after: timedelta = SILENT_AFTER
    """After so long without a sign of life nothing of a dispatch is sent until a person resumes it (R11)."""
    gate: HostGate = field(default_factory=HostGate)
    """Keeps all turns from a host that is away."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set on SIGTERM: nothing more is taken, what is under way ends."""
    runs: Kept[Run] = field(default_factory=Kept)
    """Content is compiled once a dispatch and process, not once a turn."""
    breakers: Kept[Breaker] = field(default_factory=Kept)
    """What this process saw go wrong, over all its turns."""
