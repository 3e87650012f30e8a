"""Who must not be written to: consent by person, channel and topic, and suppression by address.

A row of consent is what the person said; without one the workspace's default holds. The topic `*` is everything: who
unsubscribed from it is unsubscribed whatever they said of single topics. Suppression is by keyed hash of the address,
holds for every profile that has it and every class of message, and outlives the erasure of the person.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg

from db.transactions import Connection, transaction
from profiles.addresses import Channel
from profiles.errors import ProfileError, ProfileNotFound
from profiles.identities import hold_living
from profiles.text import clean_choice, clean_text

EVERY_TOPIC = "*"
MOST_PAGE = 1000


class ConsentStatus(StrEnum):
    SUBSCRIBED = "SUBSCRIBED"
    UNSUBSCRIBED = "UNSUBSCRIBED"


class SuppressionReason(StrEnum):
    """Why an address is not written to."""

    HARD_BOUNCE = "HARD_BOUNCE"
    COMPLAINT = "COMPLAINT"
    UNSUBSCRIBE = "UNSUBSCRIBE"
    MANUAL = "MANUAL"
    ERASED = "ERASED"


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person last said about one topic of one channel, and through what (`source`)."""

    profile_id: int
    channel: Channel
    topic: str
    status: ConsentStatus
    source: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Suppression:
    channel: Channel
    address_hash: bytes
    reason: SuppressionReason
    created_at: datetime


SET_CONSENT = """
INSERT INTO consent (workspace_id, profile_id, channel, topic, status, source, changed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (workspace_id, profile_id, channel, topic)
DO UPDATE SET status = excluded.status, source = excluded.source, changed_at = excluded.changed_at
RETURNING profile_id, channel, topic, status, source, changed_at
"""
OF_PROFILES = """
SELECT c.* FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT profile_id, channel, topic, status, source, changed_at FROM consent
  WHERE workspace_id = $1 AND profile_id = u.id ORDER BY channel, topic OFFSET 0) AS c
"""
# The first reason stays: it says why the address was lost.
SUPPRESS = """
INSERT INTO suppression (workspace_id, channel, address_hash, reason, created_at)
VALUES ($1, $2, $3, $4, coalesce($5, now()))
ON CONFLICT (workspace_id, channel, address_hash) DO NOTHING
"""
SUPPRESS_PROFILES = """
INSERT INTO suppression (workspace_id, channel, address_hash, reason)
SELECT $1, 'EMAIL', p.email_hash, $3 FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT email_hash FROM profile WHERE workspace_id = $1 AND id = u.id LIMIT 1) AS p
WHERE p.email_hash IS NOT NULL ORDER BY p.email_hash
ON CONFLICT (workspace_id, channel, address_hash) DO NOTHING
"""
SUPPRESS_ADDRESSES = """
INSERT INTO suppression (workspace_id, channel, address_hash, reason)
SELECT $1, 'EMAIL', u.address_hash, $3 FROM unnest($2::bytea[]) AS u (address_hash)
ON CONFLICT (workspace_id, channel, address_hash) DO NOTHING
"""
UNSUPPRESS = "DELETE FROM suppression WHERE workspace_id = $1 AND channel = $2 AND address_hash = $3"
LIST_SUPPRESSIONS = """
SELECT channel, address_hash, reason, created_at FROM suppression
WHERE workspace_id = $1 AND channel = $2 AND address_hash > $3 ORDER BY address_hash LIMIT $4
"""


async def set_consent(
    workspace_id: UUID,
    *,
    profile_id: int,
    channel: Channel,
    topic: str,
    status: ConsentStatus,
    source: str,
    now: datetime,
) -> Consent:
    """What now holds for this person, channel and topic (`*`: every topic); the last word wins.

    A merged profile's consent goes to its winner. Raises ProfileNotFound, or ProfileError for a topic or source that
    cannot be kept.
    """
    topic = clean_text(topic, what="Topic", most=100, field=("topic",))
    source = clean_text(source, what="Source", most=200, field=("source",))
    channel = clean_choice(Channel, channel, field=("channel",))
    status = clean_choice(ConsentStatus, status, field=("status",))
    async with transaction(workspace_id) as connection:
        # Locked, so that what a person said never lands on a tombstone.
        living = await hold_living(connection, workspace_id, profile_id)
        if living is None:
            raise ProfileNotFound(field=("profile_id",))
        row = await connection.fetchrow(
            SET_CONSENT, workspace_id, living, channel.value, topic, status.value, source, now
        )
    return consent_of(row)


async def unsubscribe(
    workspace_id: UUID, *, profile_id: int, channel: Channel, topic: str, source: str, now: datetime
) -> Consent:
    """Like `set_consent` with UNSUBSCRIBED; doing it again changes nothing but the time."""
    return await set_consent(
        workspace_id,
        profile_id=profile_id,
        channel=channel,
        topic=topic,
        status=ConsentStatus.UNSUBSCRIBED,
        source=source,
        now=now,
    )


async def of_profiles(workspace_id: UUID, profile_ids: Collection[int]) -> dict[int, list[Consent]]:
    """What each of these people said, by channel and topic; those who said nothing are left out."""
    said: dict[int, list[Consent]] = {}
    async with transaction(workspace_id) as connection:
        for row in await connection.fetch(OF_PROFILES, workspace_id, list(profile_ids)):
            said.setdefault(row["profile_id"], []).append(consent_of(row))
    return said


async def suppress(
    workspace_id: UUID, *, channel: Channel, address_hash: bytes, reason: SuppressionReason, now: datetime
) -> bool:
    """Whether the address was not suppressed before; an earlier reason stays."""
    check_hash(address_hash)
    async with transaction(workspace_id) as connection:
        status: str = await connection.execute(SUPPRESS, workspace_id, channel.value, address_hash, reason.value, now)
    return status != "INSERT 0 0"


async def suppress_profiles(
    connection: Connection, *, workspace_id: UUID, profile_ids: Collection[int], reason: SuppressionReason
) -> None:
    """Suppress the email addresses that these people have now; inside a transaction of the caller's."""
    await connection.execute(SUPPRESS_PROFILES, workspace_id, list(profile_ids), reason.value)


async def suppress_addresses(
    connection: Connection, *, workspace_id: UUID, address_hashes: Collection[bytes], reason: SuppressionReason
) -> None:
    """Suppress these email addresses, whoever has them; inside a transaction of the caller's."""
    await connection.execute(SUPPRESS_ADDRESSES, workspace_id, sorted(set(address_hashes)), reason.value)


async def unsuppress(workspace_id: UUID, *, channel: Channel, address_hash: bytes) -> bool:
    """Whether the address was suppressed; it is not any more."""
    check_hash(address_hash)
    async with transaction(workspace_id) as connection:
        status: str = await connection.execute(UNSUPPRESS, workspace_id, channel.value, address_hash)
    return status != "DELETE 0"


async def list_suppressions(
    workspace_id: UUID, *, channel: Channel, after: bytes | None, limit: int
) -> list[Suppression]:
    """At most `limit` (1 to 1,000) suppressed addresses with a hash above `after`, by hash."""
    if not 1 <= limit <= MOST_PAGE:
        raise ProfileError("INVALID_LIMIT", f"Ask for 1 to {MOST_PAGE} suppressions at a time.", field=("limit",))
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(LIST_SUPPRESSIONS, workspace_id, channel.value, after or b"", limit)
    return [
        Suppression(Channel(row["channel"]), row["address_hash"], SuppressionReason(row["reason"]), row["created_at"])
        for row in rows
    ]


def consent_of(row: asyncpg.Record) -> Consent:
    """A Consent of a row of SET_CONSENT or OF_PROFILES."""
    return Consent(
        row["profile_id"],
        Channel(row["channel"]),
        row["topic"],
        ConsentStatus(row["status"]),
        row["source"],
        row["changed_at"],
    )


def check_hash(address_hash: bytes) -> None:
    if len(address_hash) != 32:
        raise ProfileError("INVALID_HASH", "An address hash has 32 bytes: use AddressHasher.", field=("address_hash",))
