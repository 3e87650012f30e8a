"""Merging profiles, with what campaigns know of them: for whom a banner had stopped, it stays so."""

from datetime import datetime
from uuid import UUID

from campaigns import banner_stops
from db.transactions import transaction
from profiles import merging
from profiles.merging import Merged


async def merge(workspace_id: UUID, *, loser_id: int, winner_id: int, now: datetime) -> Merged:
    """See `profiles.merging.merge`."""
    async with transaction(workspace_id) as connection:
        done = await merging.merge(workspace_id, loser_id=loser_id, winner_id=winner_id, now=now)
        if done.merged:
            await banner_stops.inherit(connection, workspace_id, done.profile_id)
    return done


async def identify(workspace_id: UUID, *, anonymous_id: str, external_id: str, now: datetime) -> Merged:
    """See `profiles.merging.identify`."""
    async with transaction(workspace_id) as connection:
        done = await merging.identify(workspace_id, anonymous_id=anonymous_id, external_id=external_id, now=now)
        if done.merged:
            await banner_stops.inherit(connection, workspace_id, done.profile_id)
    return done
