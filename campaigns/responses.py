"""Opens and clicks: recorded when they happen, counted and listed afterwards.

Counts are a GROUP BY of what is kept, never increments, and leave machines out. Test sends count for nothing: their
links lead where they should, and nothing is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from campaigns.deliveries import DeliveryKey
from campaigns.machines import MOST_RESPONSES, Response, Visit, judge
from campaigns.models import DeliveryEventKind, DispatchKind
from db.transactions import across_workspaces, transaction
from profiles.identities import hold_living, write_touched

WORKSPACE_OF = "SELECT link_workspace($1)"
FIND_TARGET = """
SELECT l.id AS link_id, l.workspace_id, l.campaign_id, l.dispatch_id, l.url, d.kind
FROM link l JOIN dispatch d ON d.workspace_id = l.workspace_id AND d.id = l.dispatch_id
WHERE l.workspace_id = $1 AND l.id = $2
"""
# One response to a message at a time: of two links followed at the same instant the second must see the first. The
# month may be one that nobody has written to yet.
BEGIN_RESPONSE = """
SELECT pg_advisory_xact_lock(hashtextextended('response ' || $1::uuid::text, $2::bigint)),
  ensure_month('delivery_event', $3)
"""
# Of a message in doubt, or tried again after it was, nobody knows that it left: whoever opens it does, and it left when
# its row was written last. So it is with one that a server refused and delivered all the same.
SENT_AT = """
SELECT coalesce(sent_at, CASE WHEN state <> 'sending' THEN updated_at END) FROM delivery
WHERE workspace_id = $1 AND dispatch_id = $2 AND profile_id = $3 AND device_id = 0
"""
# Nothing happens to a message before its dispatch is made, which leaves the partitions of older months alone; a day for
# clocks that differ.
EARLIER = """
SELECT e.id, e.link_id, e.occurred_at AS at, (e.detail ->> 'machine') IS NOT DISTINCT FROM 'true' AS is_by_machine
FROM delivery_event e
WHERE e.workspace_id = $1 AND e.campaign_id = $2 AND e.kind = $3 AND e.profile_id = $4 AND e.dispatch_id = $5
  AND e.occurred_at >= uuid_extract_timestamp($5) - interval '1 day'
ORDER BY e.occurred_at DESC LIMIT $6
"""
MARK_AS_MACHINE = """
UPDATE delivery_event SET detail = coalesce(detail, '{}') || '{"machine": true}'
WHERE workspace_id = $1 AND campaign_id = $2 AND kind = $3 AND profile_id = $4 AND id = ANY($5::bigint[])
"""
INSERT_RESPONSE = """
INSERT INTO delivery_event (workspace_id, dispatch_id, campaign_id, profile_id, kind, occurred_at, link_id, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
COUNTS = """
SELECT e.campaign_id, e.kind, count(*) AS responses, count(DISTINCT e.profile_id) AS people FROM delivery_event e
WHERE e.workspace_id = $1 AND e.campaign_id = ANY($2::uuid[]) AND e.kind = ANY($3::text[])
  AND e.dispatch_id IN (
    SELECT id FROM dispatch WHERE workspace_id = $1 AND campaign_id = ANY($2::uuid[]) AND kind = 'SEND')
  AND (e.detail ->> 'machine') IS DISTINCT FROM 'true'
GROUP BY e.campaign_id, e.kind
"""
LINKS = """
SELECT l.campaign_id, l.url, coalesce(c.clicks, 0) AS clicks, coalesce(c.people, 0) AS people
FROM link l JOIN dispatch d ON d.workspace_id = $1 AND d.id = l.dispatch_id AND d.kind = 'SEND'
LEFT JOIN (
  SELECT e.link_id, count(*) AS clicks, count(DISTINCT e.profile_id) AS people FROM delivery_event e
  WHERE e.workspace_id = $1 AND e.campaign_id = ANY($2::uuid[]) AND e.kind = 'click'
    AND (e.detail ->> 'machine') IS DISTINCT FROM 'true'
  GROUP BY e.link_id) AS c ON c.link_id = l.id
WHERE l.workspace_id = $1 AND d.campaign_id = ANY($2::uuid[]) AND l.url IS NOT NULL
ORDER BY l.campaign_id, l.place
"""
OF_MESSAGES = """
SELECT m.dispatch_id, m.profile_id, m.device_id, e.kind, e.occurred_at, e.is_by_machine, l.url
FROM unnest($2::uuid[], $3::int[], $4::bigint[]) AS m (dispatch_id, profile_id, device_id)
JOIN dispatch d ON d.workspace_id = $1 AND d.id = m.dispatch_id
CROSS JOIN LATERAL (
  SELECT v.kind, v.occurred_at, v.link_id, (v.detail ->> 'machine') IS NOT DISTINCT FROM 'true' AS is_by_machine
  FROM delivery_event v
  WHERE v.workspace_id = $1 AND v.campaign_id = d.campaign_id AND v.profile_id = m.profile_id
    AND v.dispatch_id = m.dispatch_id AND v.device_id = m.device_id AND v.kind IN ('open', 'click')
    AND v.occurred_at >= uuid_extract_timestamp(m.dispatch_id) - interval '1 day'
  ORDER BY v.occurred_at DESC, v.id DESC LIMIT $5) AS e
LEFT JOIN link l ON l.workspace_id = $1 AND l.id = e.link_id
ORDER BY e.occurred_at DESC
"""
MOST_SHOWN = 100
"""Events shown of one message."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a link of a dispatch's mails is. It never changes."""

    link_id: int
    workspace_id: UUID
    campaign_id: UUID
    dispatch_id: UUID
    kind: DispatchKind
    url: str | None
    """Where it leads; None is the image that tells of opens."""


async def find_target(link_id: int) -> Target | None:
    """What a link of any workspace is; None when there is none. The token that named it is its whole right."""
    async with across_workspaces() as connection:
        workspace_id: UUID | None = await connection.fetchval(WORKSPACE_OF, link_id)
    if workspace_id is None:
        return None
    async with transaction(workspace_id) as connection:
        row = await connection.fetchrow(FIND_TARGET, workspace_id, link_id)
    return Target(**{**row, "kind": DispatchKind(row["kind"])}) if row else None


async def record(target: Target, *, profile_id: int, visit: Visit, now: datetime) -> None:
    """Keep an open (of an image) or a click (on a link) by the person a mail was for, or by a machine.

    Nothing is kept of tests, of people who were erased, and of what was there a moment ago. Live segments learn of
    it: see `campaigns.engagement`.
    """
    if target.kind is DispatchKind.TEST:
        return
    kind = DeliveryEventKind.OPEN if target.url is None else DeliveryEventKind.CLICK
    where = (target.workspace_id, target.campaign_id, kind.value, profile_id)
    async with transaction(target.workspace_id) as connection:
        await connection.execute(BEGIN_RESPONSE, target.dispatch_id, profile_id, now)
        person = await hold_living(connection, target.workspace_id, profile_id)
        if person is None:
            return
        sent_at = await connection.fetchval(SENT_AT, target.workspace_id, target.dispatch_id, profile_id)
        rows = await connection.fetch(EARLIER, *where, target.dispatch_id, 2 * MOST_RESPONSES)
        verdict = judge(
            visit,
            link_id=target.link_id,
            at=now,
            sent_at=sent_at,
            earlier=[Response(**row) for row in rows],
        )
        if verdict.also_by_machine:
            await connection.execute(MARK_AS_MACHINE, *where, verdict.also_by_machine)
        if verdict.is_new:
            await connection.execute(
                INSERT_RESPONSE,
                target.workspace_id,
                target.dispatch_id,
                target.campaign_id,
                profile_id,
                kind.value,
                now,
                target.link_id,
                {"machine": True} if verdict.is_by_machine else None,
            )
        if verdict.also_by_machine or (verdict.is_new and not verdict.is_by_machine):
            await write_touched(connection, workspace_id=target.workspace_id, profile_ids=[person])


@dataclass(frozen=True, slots=True)
class Responses:
    """What people did with a campaign's mails."""

    opens: int = 0
    unique_opens: int = 0
    """People who opened at least once."""
    clicks: int = 0
    unique_clicks: int = 0


async def of_campaigns(workspace_id: UUID, campaign_ids: list[UUID]) -> dict[UUID, Responses]:
    """Opens and clicks of the real sends by campaign id, every one of `campaign_ids`."""
    kinds = [DeliveryEventKind.OPEN.value, DeliveryEventKind.CLICK.value]
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(COUNTS, workspace_id, campaign_ids, kinds)
    found = {(row["campaign_id"], row["kind"]): (row["responses"], row["people"]) for row in rows}
    none = (0, 0)
    return {
        id: Responses(
            *found.get((id, DeliveryEventKind.OPEN), none),
            *found.get((id, DeliveryEventKind.CLICK), none),
        )
        for id in campaign_ids
    }


@dataclass(frozen=True, slots=True)
class LinkClicks:
    """What people did with one link of a campaign's mails."""

    url: str
    clicks: int
    unique_clicks: int


async def of_links(workspace_id: UUID, campaign_ids: list[UUID]) -> dict[UUID, list[LinkClicks]]:
    """The tracked links of the real sends by campaign id, in the order of the mail; not sent ones are left out."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(LINKS, workspace_id, campaign_ids)
    links: dict[UUID, list[LinkClicks]] = {}
    for row in rows:
        links.setdefault(row["campaign_id"], []).append(LinkClicks(row["url"], row["clicks"], row["people"]))
    return links


@dataclass(frozen=True, slots=True)
class DeliveryEvent:
    """One open or click."""

    kind: DeliveryEventKind
    occurred_at: datetime
    url: str | None
    """Where the link led; None of an open."""
    is_by_machine: bool


async def of_messages(workspace_id: UUID, messages: Sequence[DeliveryKey]) -> dict[DeliveryKey, list[DeliveryEvent]]:
    """The newest 100 opens and clicks of each message, newest first; messages without any are left out."""
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(
            OF_MESSAGES,
            workspace_id,
            [one.dispatch_id for one in messages],
            [one.profile_id for one in messages],
            [one.device_id for one in messages],
            MOST_SHOWN,
        )
    events: dict[DeliveryKey, list[DeliveryEvent]] = {}
    for row in rows:
        key = DeliveryKey(row["dispatch_id"], row["profile_id"], row["device_id"])
        event = DeliveryEvent(DeliveryEventKind(row["kind"]), row["occurred_at"], row["url"], row["is_by_machine"])
        events.setdefault(key, []).append(event)
    return events
