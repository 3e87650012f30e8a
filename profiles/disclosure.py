"""What is held of one person, for whoever must tell them (GDPR, articles 15 and 20): read page by page.

Each page is a transaction of its own, so that nothing stays open while somebody reads slowly, and nobody's million
events are held at once. What is written meanwhile is told or not; nothing is told twice.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID

from db.transactions import transaction
from profiles.addresses import AddressHasher, Channel
from profiles.errors import ProfileError, ProfileNotFound
from profiles.merging import find_living

PAGE = 1000
BEGINNING_OF_TIME = datetime(1, 1, 1, tzinfo=UTC)

Rows: TypeAlias = Sequence[Mapping[str, Any]]
"""As the columns are called. Nobody reckons with them: they are data to be handed out."""

# A living profile and those that were merged into it.
NAMES = """
SELECT p.id, p.external_id, p.email_hash, p.erased_at,
  ARRAY(SELECT anonymous_id FROM profile_alias WHERE workspace_id = $1 AND profile_id = p.id) AS anonymous_ids,
  ARRAY(SELECT token FROM device WHERE workspace_id = $1 AND profile_id = p.id) AS tokens
FROM (
  SELECT id FROM profile WHERE workspace_id = $1 AND id = $2
  UNION ALL SELECT id FROM profile WHERE workspace_id = $1 AND merged_into = $2) AS theirs
JOIN profile p ON p.workspace_id = $1 AND p.id = theirs.id ORDER BY p.id
"""
# Of every section: $1 workspace, $2 whose, $3 the page's size, from $4 on the key of the row before, which comes first.
PROFILES = """
SELECT id AS k, id AS profile_id, external_id, email, phone, traits, time_zone, locale, country, city, identified,
  first_seen_at, last_seen_at, seen_device_type, seen_browser, seen_country, seen_city,
  merged_into AS merged_into_profile_id, created_at, updated_at
FROM profile WHERE workspace_id = $1 AND id = ANY($2::int[]) AND id > $4 ORDER BY id LIMIT $3
"""
ALIASES = """
SELECT anonymous_id AS k, anonymous_id, profile_id, created_at FROM profile_alias
WHERE workspace_id = $1 AND profile_id = ANY($2::int[]) AND anonymous_id > $4 ORDER BY anonymous_id LIMIT $3
"""
BRANDS = """
SELECT b.id AS k, b.id AS brand_id, b.name FROM brand b
WHERE b.workspace_id = $1 AND b.id > $4 AND EXISTS (
  SELECT FROM profile_brand r WHERE r.workspace_id = $1 AND r.brand_id = b.id AND r.profile_id = ANY($2::int[]))
ORDER BY b.id LIMIT $3
"""
CONSENTS = """
SELECT profile_id AS k, channel AS k2, topic AS k3, channel, topic, status, source, changed_at FROM consent
WHERE workspace_id = $1 AND profile_id = ANY($2::int[]) AND (profile_id, channel, topic) > ($4, $5, $6)
ORDER BY profile_id, channel, topic LIMIT $3
"""
SUPPRESSIONS = """
SELECT address_hash AS k, channel, reason, created_at FROM suppression
WHERE workspace_id = $1 AND address_hash = ANY($2::bytea[]) AND address_hash > $4 ORDER BY address_hash LIMIT $3
"""
DEVICES = """
SELECT id AS k, id AS device_id, provider, token, platform, app_version, locale, registered_at, disabled_at,
  disabled_reason
FROM device WHERE workspace_id = $1 AND profile_id = ANY($2::int[]) AND id > $4 ORDER BY id LIMIT $3
"""
EVENTS = """
SELECT profile_id AS k, occurred_at AS k2, id AS k3, name, occurred_at, received_at, message_id, properties, page_path,
  device_type, browser, country, city, session_id
FROM event WHERE workspace_id = $1 AND profile_id = ANY($2::int[]) AND (profile_id, occurred_at, id) > ($4, $5, $6)
ORDER BY profile_id, occurred_at, id LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, by all that rows name them by."""

    profile_id: int
    """Of the living profile."""
    profile_ids: tuple[int, ...]
    """That one, and all that were merged into it: what was sent to them names them still."""
    external_ids: tuple[str, ...]
    anonymous_ids: tuple[str, ...]
    address_hashes: tuple[bytes, ...]
    """What the suppression list would have of the mailbox and the devices."""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of what is held."""

    name: str
    statement: str
    start: tuple[object, ...]
    """A key before that of any row."""


OF_PROFILES = (
    Section("profiles", PROFILES, (0,)),
    Section("aliases", ALIASES, ("",)),
    Section("brands", BRANDS, (UUID(int=0),)),
    Section("consents", CONSENTS, (0, "", "")),
    Section("devices", DEVICES, (0,)),
    Section("events", EVENTS, (0, BEGINNING_OF_TIME, 0)),
)
OF_ADDRESSES = Section("suppressions", SUPPRESSIONS, (b"",))


async def find_person(workspace_id: UUID, profile_id: int, *, hasher: AddressHasher) -> Person:
    """Who this is, also by the id of a profile that was merged into theirs.

    Raises ProfileNotFound, and ProfileError ERASED: of somebody who was erased nothing is held.
    """
    async with transaction(workspace_id) as connection:
        (living,) = await find_living(connection, workspace_id, profile_id=profile_id)
        rows = await connection.fetch(NAMES, workspace_id, living)
    if not rows:
        raise ProfileNotFound(field=("profile_id",))
    if any(row["erased_at"] for row in rows):
        message = "This person was erased: nothing is held of them but what keeps them erased."
        raise ProfileError("ERASED", message, field=("profile_id",))
    hashes = [row["email_hash"] for row in rows if row["email_hash"] is not None]
    tokens = [token for row in rows for token in row["tokens"]]
    return Person(
        profile_id=living,
        profile_ids=(living, *(row["id"] for row in rows if row["id"] != living)),
        external_ids=tuple(row["external_id"] for row in rows if row["external_id"] is not None),
        anonymous_ids=tuple(one for row in rows for one in row["anonymous_ids"]),
        address_hashes=(*hashes, *(hasher.hash(Channel.PUSH, token) for token in tokens)),
    )


async def pages(workspace_id: UUID, section: Section, whose: Sequence[object]) -> AsyncIterator[Rows]:
    """The rows of a section, at most 1,000 at a time, in the order of their keys; no empty pages."""
    after = section.start
    keys = len(after)
    while True:
        async with transaction(workspace_id) as connection:
            found = await connection.fetch(section.statement, workspace_id, list(whose), PAGE, *after)
        if found:
            yield [dict(list(row.items())[keys:]) for row in found]
        if len(found) < PAGE:
            return
        after = tuple(found[-1].values())[:keys]


async def disclose(workspace_id: UUID, person: Person) -> AsyncIterator[tuple[str, Rows]]:
    """Pages of what this package holds of a person, each with its section's name; the sections one after the other,
    each at least once."""
    for section in OF_PROFILES:
        yield section.name, ()
        async for rows in pages(workspace_id, section, person.profile_ids):
            yield section.name, rows
    yield OF_ADDRESSES.name, ()
    async for rows in pages(workspace_id, OF_ADDRESSES, person.address_hashes):
        yield OF_ADDRESSES.name, rows
