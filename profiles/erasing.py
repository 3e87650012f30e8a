"""Somebody wants to be forgotten: all that is known of them goes, and what must not come back is refused.

The row stays as a tombstone with the id that bitmaps and ledgers know and the external id by which your systems go on
naming the person; only so is what they still send refused (docs/people.md). The address is kept as its keyed hash on
the suppression list, so that nobody mails it again after an import. Visitors' ids and tokens are forgotten: a browser
that is not signed in begins anew.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.transactions import Connection
from profiles import consent
from profiles.consent import SuppressionReason
from profiles.contention import contended
from profiles.merging import MOST_ROUNDS, find_living, lock

FORGET = """
WITH person AS (
  UPDATE profile SET erased_at = $3, traits = '{}', email = NULL, email_hash = NULL, phone = NULL, phone_hash = NULL,
    time_zone = NULL, locale = NULL, country = NULL, city = NULL, first_seen_at = NULL, last_seen_at = NULL,
    seen_device_type = NULL, seen_browser = NULL, seen_country = NULL, seen_city = NULL, updated_at = $3
  WHERE workspace_id = $1 AND id = $2),
events AS (DELETE FROM event WHERE workspace_id = $1 AND profile_id = $2),
devices AS (DELETE FROM device WHERE workspace_id = $1 AND profile_id = $2),
aliases AS (DELETE FROM profile_alias WHERE workspace_id = $1 AND profile_id = $2),
brands AS (DELETE FROM profile_brand WHERE workspace_id = $1 AND profile_id = $2),
consents AS (DELETE FROM consent WHERE workspace_id = $1 AND profile_id = $2),
dates AS (DELETE FROM profile_date WHERE workspace_id = $1 AND profile_id = $2)
INSERT INTO profile_change (workspace_id, profile_id, kind, changed_at) VALUES ($1, $2, 'erased', $3)
"""
LOSERS = "SELECT id FROM profile WHERE workspace_id = $1 AND merged_into = $2 ORDER BY id"


@dataclass(frozen=True, slots=True)
class Erased:
    """Who was erased."""

    profile_id: int
    merged_ids: tuple[int, ...]
    """Profiles that had been merged into that one: packages above may have rows about them."""
    erased_at: datetime
    """Earlier than now when it had been done before."""


async def erase(connection: Connection, *, workspace_id: UUID, profile_id: int, now: datetime) -> Erased:
    """Forget a person, also by the id of a profile that was merged into theirs; inside a transaction of the caller's.

    Waits for whoever is writing about them. Doing it again changes nothing. Raises ProfileNotFound.
    """
    for _ in range(MOST_ROUNDS):
        (living,) = await find_living(connection, workspace_id, profile_id=profile_id)
        row = (await lock(connection, workspace_id, [living]))[living]
        if row["merged_into"] is None:
            merged_ids = tuple(one["id"] for one in await connection.fetch(LOSERS, workspace_id, living))
            if row["erased_at"] is None:
                await forget(connection, workspace_id=workspace_id, profile_id=living, now=now)
            return Erased(living, merged_ids, row["erased_at"] or now)
    raise contended()


async def forget(connection: Connection, *, workspace_id: UUID, profile_id: int, now: datetime) -> None:
    """Make a tombstone of a living profile that is locked."""
    await consent.suppress_profiles(
        connection, workspace_id=workspace_id, profile_ids=[profile_id], reason=SuppressionReason.ERASED
    )
    await connection.execute(FORGET, workspace_id, profile_id, now)
