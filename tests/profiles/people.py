"""People in the state a test needs, and what the tables say of them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from db.transactions import transaction
from profiles import profiles
from profiles.addresses import AddressHasher
from profiles.profiles import Profile, ProfileInput, UpsertOutcome

MERGE = "UPDATE profile SET merged_into = $2 WHERE id = $1"
ERASE = "UPDATE profile SET erased_at = now() WHERE id = $1"
TOUCHED = "SELECT unnest(profile_ids) FROM profile_change WHERE kind = 'touched' ORDER BY seq"

Refusal = tuple[str, tuple[str, ...]]
"""Code and field."""


async def put(workspace_id: UUID, *wanted: ProfileInput, hasher: AddressHasher, now: datetime) -> list[int]:
    """The ids of these people, all of whom were accepted."""
    outcomes = await profiles.upsert(workspace_id, wanted, hasher=hasher, now=now)
    assert refusals(outcomes) == [None] * len(wanted)
    return [outcome.profile_id for outcome in outcomes if outcome.profile_id is not None]


async def put_named(workspace_id: UUID, *names: str, hasher: AddressHasher, now: datetime) -> list[int]:
    return await put(workspace_id, *(ProfileInput(name) for name in names), hasher=hasher, now=now)


async def find(workspace_id: UUID, external_id: str) -> Profile:
    """The living profile; there is one."""
    found = await profiles.find_by_external_id(workspace_id, external_id)
    assert found is not None
    return found


def refusals(outcomes: list[UpsertOutcome]) -> list[Refusal | None]:
    errors = [outcome.error for outcome in outcomes]
    return [None if error is None else (error.code, error.field) for error in errors]


async def merge(workspace_id: UUID, *, loser: int, winner: int) -> None:
    async with transaction(workspace_id) as connection:
        await connection.execute(MERGE, loser, winner)


async def erase(workspace_id: UUID, profile_id: int) -> None:
    async with transaction(workspace_id) as connection:
        await connection.execute(ERASE, profile_id)


async def rows(workspace_id: UUID, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    """What `query` answers inside the workspace."""
    async with transaction(workspace_id) as connection:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]


async def touched(workspace_id: UUID) -> list[int]:
    """Whose changes the packages above were told of, in that order."""
    return [row[0] for row in await rows(workspace_id, TOUCHED)]
