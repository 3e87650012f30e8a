"""Look-ups gathered over one request: a page of a hundred items costs one query a kind, not a hundred."""

from asyncio import CancelledError, Future
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, TypeVar
from uuid import UUID

from strawberry.dataloader import DataLoader, get_current_batch

from campaigns import banner_counts, counts, deliveries, placements, responses, senders, statuses
from campaigns import listing as campaign_listing
from campaigns.models import Campaign
from campaigns.placements import Share, rotations
from profiles import brands, consent, devices, keys, profiles
from segments import evaluation, members, references, saved_queries
from segments import listing as segment_listing
from segments.models import Segment

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_AT_ONCE = 100


class Shared(Future[V]):
    """What any number of fields wait for: that one of them is given up is no reason to take it from the others."""

    def cancel(self, msg: Any = None) -> bool:
        return False


class Loader(DataLoader[K, V]):
    """A loader whose answers outlast a field that ends its object: graphql-core then cancels whatever the object's
    other fields wait for, which may be what other objects wait for too."""

    def __init__(self, load: Callable[[list[K]], Awaitable[Sequence[V]]]) -> None:
        async def to_the_end(keys: list[K]) -> Sequence[V]:
            try:
                return await load(keys)
            except CancelledError as end:
                # The process ends. Those who wait are told: none of them can leave before.
                raise ConnectionAbortedError("cancelled") from end

        super().__init__(load_fn=to_the_end, max_batch_size=MOST_AT_ONCE)

    def load(self, key: K) -> Future[V]:
        """Of a key, once however often it is asked for."""
        future = self.cache_map.get(key)
        if future is None:
            future = Shared(loop=self.loop)
            self.cache_map.set(key, future)
            get_current_batch(self).add_task(key, future)
        return future


class Gathered(Generic[K, V]):
    """A loader of what `load` finds, None for what it does not; made when it is first asked for."""

    def __init__(self, load: Callable[[UUID, list[K]], Awaitable[Mapping[K, V]]]) -> None:
        self.load = load

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, loaders: "Loaders", owner: type) -> Loader[K, V | None]:
        async def batch(keys: list[K]) -> list[V | None]:
            found = await self.load(loaders.workspace_id, keys)
            return [found.get(key) for key in keys]

        # From now on it is found there.
        made = vars(loaders)[self.name] = Loader(batch)
        return made


class Loaders:
    """The loaders of one request; all of one workspace, and as of `now`."""

    # A name is the module's until it is the loader's: what is of the same module stands before that.
    api_keys = Gathered(keys.load)
    profile_brands = Gathered(brands.of_profiles)
    brands = Gathered(brands.load)
    profiles = Gathered(profiles.load)
    all_devices = Gathered(devices.all_of_profiles)
    devices = Gathered(devices.of_profiles)
    consents = Gathered(consent.of_profiles)
    segment_sizes = Gathered(segment_listing.sizes)
    segment_neighbours = Gathered(references.neighbours)
    condition_names = Gathered(campaign_listing.load_names)
    saved_queries = Gathered(saved_queries.load)
    evaluations = Gathered(evaluation.load)
    latest_evaluations = Gathered(evaluation.latest)
    memberships = Gathered(members.segments_of_profiles)
    senders = Gathered(senders.load)
    placements = Gathered(placements.load)
    awaiting = Gathered(statuses.awaiting)
    targets = Gathered(campaign_listing.load_targets)
    runs = Gathered(counts.runs)
    links = Gathered(responses.of_links)
    message_events = Gathered(responses.of_messages)
    responses = Gathered(responses.of_campaigns)
    banner_counts = Gathered(banner_counts.of_campaigns)
    deliveries = Gathered(deliveries.load)
    dispatches = Gathered(campaign_listing.load_dispatches)

    def __init__(self, workspace_id: UUID, *, now: datetime) -> None:
        self.workspace_id, self.now = workspace_id, now

    @cached_property
    def campaigns(self) -> Loader[UUID, Campaign | None]:
        return Loader(self.load_campaigns)

    @cached_property
    def segments(self) -> Loader[UUID, Segment | None]:
        return Loader(self.load_segments)

    @cached_property
    def rotations(self) -> Loader[UUID, list[Share] | None]:
        return Loader(self.load_rotations)

    async def load_campaigns(self, keys: list[UUID]) -> list[Campaign | None]:
        """Campaigns, whose senders are known from then on."""
        found = await campaign_listing.load_with_senders(self.workspace_id, keys)
        self.senders.prime_many({sender.id: sender for _, sender in found.values() if sender is not None})
        return [found[key][0] if key in found else None for key in keys]

    async def load_segments(self, keys: list[UUID]) -> list[Segment | None]:
        """Segments, whose sizes are known from then on, where they are kept."""
        found = await segment_listing.load_with_sizes(self.workspace_id, keys)
        self.segment_sizes.prime_many({key: size for key, (_, size) in found.items() if size is not None})
        return [found[key][0] if key in found else None for key in keys]

    async def load_rotations(self, keys: list[UUID]) -> list[list[Share] | None]:
        """Which banners are live in placements, as of the request."""
        found = await rotations(self.workspace_id, keys, now=self.now)
        return [found.get(key) for key in keys]
