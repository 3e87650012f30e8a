"""Look-ups gathered over one request: a page of a hundred items costs one query a kind, not a hundred."""

from collections.abc import Awaitable, Callable, Hashable, Mapping
from datetime import datetime
from functools import partial
from typing import TypeVar
from uuid import UUID

from strawberry.dataloader import DataLoader

from campaigns import banner_counts, counts, deliveries, placements, responses, senders, statuses
from campaigns import listing as campaign_listing
from campaigns.models import Campaign
from profiles import brands, consent, devices, keys, profiles
from segments import evaluation, members, references, saved_queries
from segments import listing as segment_listing

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_AT_ONCE = 100


def gathered(load: Callable[[UUID, list[K]], Awaitable[Mapping[K, V]]], workspace_id: UUID) -> DataLoader[K, V | None]:
    """A loader of what `load` finds; None for what it does not."""

    async def batch(keys: list[K]) -> list[V | None]:
        found = await load(workspace_id, keys)
        return [found.get(key) for key in keys]

    return DataLoader(load_fn=batch, max_batch_size=MOST_AT_ONCE)


class Loaders:
    """The loaders of one request; all of one workspace, and as of `now`."""

    def __init__(self, workspace_id: UUID, *, now: datetime) -> None:
        self.api_keys = gathered(keys.load, workspace_id)
        self.brands = gathered(brands.load, workspace_id)
        self.profiles = gathered(profiles.load, workspace_id)
        self.profile_brands = gathered(brands.of_profiles, workspace_id)
        self.devices = gathered(devices.of_profiles, workspace_id)
        self.all_devices = gathered(devices.all_of_profiles, workspace_id)
        self.consents = gathered(consent.of_profiles, workspace_id)
        self.segments = gathered(segment_listing.load, workspace_id)
        self.segment_sizes = gathered(segment_listing.sizes, workspace_id)
        self.segment_neighbours = gathered(references.neighbours, workspace_id)
        self.condition_names = gathered(campaign_listing.load_names, workspace_id)
        self.saved_queries = gathered(saved_queries.load, workspace_id)
        self.evaluations = gathered(evaluation.load, workspace_id)
        self.latest_evaluations = gathered(evaluation.latest, workspace_id)
        self.memberships = gathered(members.segments_of_profiles, workspace_id)
        self.senders = gathered(senders.load, workspace_id)
        self.placements = gathered(placements.load, workspace_id)
        self.rotations = gathered(partial(placements.rotations, now=now), workspace_id)
        self.campaigns = DataLoader(load_fn=partial(self.load_campaigns, workspace_id), max_batch_size=MOST_AT_ONCE)
        self.standings = gathered(statuses.of_campaigns, workspace_id)
        self.targets = gathered(campaign_listing.load_targets, workspace_id)
        self.runs = gathered(counts.runs, workspace_id)
        self.responses = gathered(responses.of_campaigns, workspace_id)
        self.banner_counts = gathered(banner_counts.of_campaigns, workspace_id)
        self.links = gathered(responses.of_links, workspace_id)
        self.message_events = gathered(responses.of_messages, workspace_id)
        self.deliveries = gathered(deliveries.load, workspace_id)
        self.dispatches = gathered(campaign_listing.load_dispatches, workspace_id)

    async def load_campaigns(self, workspace_id: UUID, keys: list[UUID]) -> list[Campaign | None]:
        """Campaigns, whose senders are known from then on."""
        found = await campaign_listing.load_with_senders(workspace_id, keys)
        self.senders.prime_many({sender.id: sender for _, sender in found.values() if sender is not None})
        return [found[key][0] if key in found else None for key in keys]
