"""Everything held of one person: who they are, which segments they were in, and here what was sent and shown to them.

What is left out tells nothing more: bitmaps and dates made of the same rows, changes that wait to be acted on for
seconds, and who did what with a key, which names a person by an id at most.
"""

from binascii import Error
from collections.abc import AsyncIterator
from uuid import UUID

from campaigns.banners import Viewer
from campaigns.deliveries import MESSAGE_ID
from profiles import disclosure as of_profiles
from profiles.disclosure import BEGINNING_OF_TIME, Person, Rows, Section, pages
from segments import disclosure as of_segments

# Dispatch by dispatch: the messages of one person are found by the primary key (db/leaner_ledger.py).
DELIVERIES = f"""
SELECT r.id AS k, d.profile_id AS k2, d.device_id AS k3, r.id AS dispatch_id, r.kind, c.id AS campaign_id,
  c.name AS campaign_name, c.channel, d.device_id, upper(d.state) AS status, d.reason, d.detail, d.attempt AS attempts,
  d.not_before, {MESSAGE_ID} AS message_id, d.first_attempt_at, d.sent_at, d.provider_id, d.updated_at
FROM dispatch r JOIN campaign c ON c.workspace_id = $1 AND c.id = r.campaign_id
CROSS JOIN LATERAL (
  SELECT * FROM delivery
  WHERE workspace_id = $1 AND dispatch_id = r.id AND profile_id = ANY($2::int[]) OFFSET 0) AS d
WHERE r.workspace_id = $1 AND r.id >= $4 AND (r.id, d.profile_id, d.device_id) > ($4, $5, $6)
ORDER BY r.id, d.profile_id, d.device_id LIMIT $3
"""
RESPONSES = """
SELECT e.profile_id AS k, e.occurred_at AS k2, e.id AS k3, upper(e.kind) AS kind, e.occurred_at, l.url,
  (e.detail ->> 'machine') IS NOT DISTINCT FROM 'true' AS by_machine, e.campaign_id, e.dispatch_id, e.device_id
FROM delivery_event e LEFT JOIN link l ON l.workspace_id = $1 AND l.id = e.link_id
WHERE e.workspace_id = $1 AND e.profile_id = ANY($2::int[]) AND (e.profile_id, e.occurred_at, e.id) > ($4, $5, $6)
ORDER BY e.profile_id, e.occurred_at, e.id LIMIT $3
"""
BANNER_EVENTS = """
SELECT e.viewer AS k, e.event_key AS k2, e.token_month AS k3, e.kind, e.occurred_at, e.received_at, e.campaign_id,
  c.name AS campaign_name, e.placement_id, p.key AS placement_key, e.content_version, e.machine AS by_machine
FROM banner_event e
LEFT JOIN campaign c ON c.workspace_id = $1 AND c.id = e.campaign_id
LEFT JOIN placement p ON p.workspace_id = $1 AND p.id = e.placement_id
WHERE e.workspace_id = $1 AND e.viewer = ANY($2::uuid[]) AND (e.viewer, e.event_key, e.token_month) > ($4, $5, $6)
ORDER BY e.viewer, e.event_key, e.token_month LIMIT $3
"""
BANNER_COUNTS = """
SELECT s.id AS k, t.viewer AS k2, s.campaign_id, s.placement_id, t.impressions, t.last_day,
  t.on_last_day AS impressions_on_last_day
FROM (
  SELECT id, id AS campaign_id, NULL::uuid AS placement_id FROM campaign
  WHERE workspace_id = $1 AND channel = 'BANNER' AND id >= $4
  UNION ALL
  SELECT id, NULL, id FROM placement WHERE workspace_id = $1 AND id >= $4) AS s
CROSS JOIN LATERAL (
  SELECT viewer, impressions, last_day, on_last_day FROM banner_tally
  WHERE workspace_id = $1 AND subject_id = s.id AND viewer = ANY($2::uuid[]) OFFSET 0) AS t
WHERE (s.id, t.viewer) > ($4, $5) ORDER BY s.id, t.viewer LIMIT $3
"""
BANNER_STOPS = """
SELECT b.seq AS k, b.reason, c.id AS campaign_id, p.id AS placement_id, nullif(b.until, 'infinity') AS until
FROM banner_stop b
LEFT JOIN campaign c ON c.workspace_id = $1 AND c.id = b.subject_id
LEFT JOIN placement p ON p.workspace_id = $1 AND p.id = b.subject_id
WHERE b.workspace_id = $1 AND b.profile_id = ANY($2::int[]) AND b.seq > $4 ORDER BY b.seq LIMIT $3
"""
OF_PROFILES = (
    Section("deliveries", DELIVERIES, (UUID(int=0), 0, -1)),
    Section("responses", RESPONSES, (0, BEGINNING_OF_TIME, 0)),
    Section("bannerStops", BANNER_STOPS, (0,)),
)
OF_VIEWERS = (
    Section("bannerEvents", BANNER_EVENTS, (UUID(int=0), UUID(int=0), BEGINNING_OF_TIME)),
    Section("bannerCounts", BANNER_COUNTS, (UUID(int=0), UUID(int=0))),
)


def viewers_of(person: Person) -> list[UUID]:
    """What counts of banners know a person by: as a profile, as a visitor, and before there was a profile."""
    keys = [f"p{id}" for id in person.profile_ids] + [f"e{name}" for name in person.external_ids]
    found = {UUID(bytes=Viewer(key, None).id) for key in keys}
    for name in person.anonymous_ids:
        # Ids that we gave visitors; servers make up others, which no banner knows.
        if name.startswith("a") and len(name) == 23:
            try:
                found.add(UUID(bytes=Viewer(name, None).id))
            except (Error, ValueError):
                continue
    return sorted(found)


async def disclose(workspace_id: UUID, person: Person) -> AsyncIterator[tuple[str, Rows]]:
    """Everything that is held of a person, in pages of at most 1,000 rows, each with its section's name.

    The sections come one after the other, and each at least once. Nothing is open between two pages.
    """
    async for page in of_profiles.disclose(workspace_id, person):
        yield page
    async for page in of_segments.disclose(workspace_id, person):
        yield page
    viewers = viewers_of(person)
    for sections, whose in ((OF_PROFILES, person.profile_ids), (OF_VIEWERS, viewers)):
        for section in sections:
            yield section.name, ()
            async for rows in pages(workspace_id, section, whose):
                yield section.name, rows
