"""Reading campaigns: one, many by id, and pages in the order that is asked for."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from campaigns.audience import TargetedSegments, segments_targeted
from campaigns.errors import CampaignNotFound
from campaigns.models import Campaign, CampaignChannel, CampaignStatus, Dispatch, Sender
from db.keysets import ALWAYS, Direction, Key, KeyType, Listed, Order, Place, Span, statements
from db.rows import to_model
from db.transactions import Connection, transaction

USING = """
SELECT c.name FROM campaign c WHERE c.workspace_id = $1 AND c.id IN (
  SELECT t.campaign_id FROM campaign_segment t WHERE t.workspace_id = $1 AND t.segment_id = $2
  UNION SELECT b.id FROM campaign b WHERE b.workspace_id = $1 AND b.test_segment_id = $2)
ORDER BY c.id DESC LIMIT 100
"""

# A sender's own columns are told from the campaign's by how they begin.
SENDERS = "s."
WITH_SENDERS = """
SELECT c.*, s.workspace_id AS "s.workspace_id", s.brand_id AS "s.brand_id", s.from_name AS "s.from_name",
  s.from_address AS "s.from_address", s.reply_to AS "s.reply_to", s.postal_address AS "s.postal_address",
  s.created_at AS "s.created_at"
FROM campaign c LEFT JOIN sender s ON s.workspace_id = c.workspace_id AND s.id = c.sender_id
WHERE c.workspace_id = $1 AND c.id = ANY($2)
"""
AMONG = "SELECT id FROM campaign WHERE workspace_id = $1 AND id = ANY($2)"

# As in segments/listing.py, which says why: what is left is sorted, and the first of them read whole.
PAGE = """
SELECT page.key AS "page.key", c.* FROM (
SELECT c.id, ({key})::text AS key FROM campaign c
WHERE c.workspace_id = $1 AND ($2::text[] IS NULL OR c.status = ANY($2))
  AND ($3::text[] IS NULL OR c.channel = ANY($3))
  AND ($4::text IS NULL OR position(lower($4) IN lower(c.name)) > 0) AND ($5::uuid IS NULL OR c.brand_id = $5)
  AND ($6::timestamptz IS NULL OR c.created_at >= $6) AND ($7::timestamptz IS NULL OR c.created_at < $7)
  AND ($8::timestamptz IS NULL OR c.updated_at >= $8) AND ($9::timestamptz IS NULL OR c.updated_at < $9)
  AND ($10::timestamptz IS NULL OR c.scheduled_at >= $10) AND ($11::timestamptz IS NULL OR c.scheduled_at < $11)
  AND ($12::text IS NULL OR ({key}, c.id) {beyond} ($12::text::{type}, $13::uuid))
ORDER BY {key} {direction}, c.id {direction} LIMIT $14) AS page
JOIN campaign c ON c.workspace_id = $1 AND c.id = page.id
ORDER BY {key} {direction}, c.id {direction}
"""

NAMES = """
SELECT id, name FROM campaign WHERE workspace_id = $1 AND id = ANY($2)
UNION ALL SELECT id, name FROM segment WHERE workspace_id = $1 AND id = ANY($2)
UNION ALL SELECT id, name FROM saved_query WHERE workspace_id = $1 AND id = ANY($2)
"""

MOST = 100
"""Ids of one look-up, and a page; one more row tells whether there is a next page."""


async def get(workspace_id: UUID, campaign_id: UUID) -> Campaign:
    """Raises CampaignNotFound."""
    async with transaction(workspace_id):
        campaign = await Campaign.filter(workspace_id=workspace_id, id=campaign_id).first()
    if campaign is None:
        raise CampaignNotFound()
    return campaign


async def load(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, Campaign]:
    """Campaigns by id; unknown ids are left out. At most 100 ids."""
    async with transaction(workspace_id):
        return {c.id: c for c in await Campaign.filter(workspace_id=workspace_id, id__in=ids[:MOST])}


async def names_using(connection: Connection, workspace_id: UUID, segment_id: UUID) -> list[str]:
    """Names of at most 100 campaigns that include or exclude a segment, or are tested by it, the newest first."""
    return [row["name"] for row in await connection.fetch(USING, workspace_id, segment_id)]


async def among(connection: Connection, workspace_id: UUID, ids: Collection[UUID]) -> set[UUID]:
    """Those of `ids`, however many, that are campaigns of this workspace."""
    return {row["id"] for row in await connection.fetch(AMONG, workspace_id, list(ids))}


async def load_names(workspace_id: UUID, ids: Collection[UUID]) -> dict[UUID, str]:
    """Names of campaigns, segments and saved queries, for the sentence that says a condition; unknown ids are left
    out."""
    async with transaction(workspace_id) as connection:
        return {row["id"]: row["name"] for row in await connection.fetch(NAMES, workspace_id, list(ids))}


async def load_with_senders(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, tuple[Campaign, Sender | None]]:
    """Campaigns by id with whom they come from, if that is known; unknown ids are left out. At most 100 ids."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(WITH_SENDERS, workspace_id, ids[:MOST])
    found: dict[UUID, tuple[Campaign, Sender | None]] = {}
    for row in rows:
        of_sender = {name.removeprefix(SENDERS): value for name, value in row.items() if name.startswith(SENDERS)}
        sender = None if row["s.created_at"] is None else to_model(Sender, of_sender | {"id": row["sender_id"]})
        found[row["id"]] = (to_model(Campaign, row), sender)
    return found


async def load_targets(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, TargetedSegments]:
    """Segments that each campaign asked includes and spares."""
    async with transaction(workspace_id) as connection:
        return await segments_targeted(connection, workspace_id=workspace_id, campaign_ids=ids[:MOST])


async def load_dispatches(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, Dispatch]:
    """Dispatches by id; unknown ids are left out. At most 100 ids."""
    async with transaction(workspace_id):
        return {d.id: d for d in await Dispatch.filter(workspace_id=workspace_id, id__in=ids[:MOST])}


class CampaignField(StrEnum):
    """What campaigns can be ordered by."""

    NAME = "NAME"
    CREATED_AT = "CREATED_AT"
    UPDATED_AT = "UPDATED_AT"
    SCHEDULED_AT = "SCHEDULED_AT"
    STARTED_AT = "STARTED_AT"


KEYS = {
    CampaignField.NAME: Key("lower(c.name)", KeyType.TEXT),
    # Ids are UUIDv7 and so in order of time.
    CampaignField.CREATED_AT: Key("c.id", KeyType.ID),
    CampaignField.UPDATED_AT: Key("c.updated_at", KeyType.TIME),
    CampaignField.SCHEDULED_AT: Key("coalesce(c.scheduled_at, '{last}')", KeyType.TIME),
    CampaignField.STARTED_AT: Key("coalesce(c.started_at, '{last}')", KeyType.TIME),
}
PAGES = statements(PAGE, KEYS)
NEWEST_FIRST = Order(CampaignField.CREATED_AT, Direction.DESC)


@dataclass(frozen=True, slots=True)
class CampaignFilter:
    """Which campaigns are listed; None is all of them."""

    statuses: tuple[CampaignStatus, ...] | None = None
    channels: tuple[CampaignChannel, ...] | None = None
    name: str | None = None
    """Has this in it, letter case aside."""
    brand_id: UUID | None = None
    created: Span = ALWAYS
    updated: Span = ALWAYS
    scheduled: Span = ALWAYS


ALL = CampaignFilter()


async def page(
    workspace_id: UUID,
    *,
    limit: int,
    after: Place | None = None,
    order: Order[CampaignField] = NEWEST_FIRST,
    only: CampaignFilter = ALL,
) -> list[Listed[Campaign]]:
    """Up to `limit` (101 at most) campaigns that follow `after` in an order, the newest first unless another is asked
    for; those that were never scheduled, or started, come last in an order of that."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(
            PAGES[order],
            workspace_id,
            only.statuses,
            only.channels,
            only.name,
            only.brand_id,
            only.created.start,
            only.created.end,
            only.updated.start,
            only.updated.end,
            only.scheduled.start,
            only.scheduled.end,
            after and after.key,
            after and after.id,
            min(limit, MOST + 1),
        )
    return [Listed(to_model(Campaign, row), Place(row["page.key"], row["id"])) for row in rows]
