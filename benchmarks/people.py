"""The made-up people of the benchmarks: profiles with traits, and what they did in the year before a fixed instant.

Everything follows from the number of profiles and the reference instant by hash arithmetic in SQL, so that the same
data come out at every run and no random state is carried. Per profile 20 events:

- who acts is zipf-distributed with exponent 1/2 (rank = N * u^2: of a million people the most active one acts 55 times
  a day, half of them at most 14 times a year), and ranks are scattered over the ids;
- what is done is zipf-distributed with exponent 1 over eight names, page views first (37 %), support last (5 %);
- when is spread evenly over 365 days, in the order of arrival, as a table is that filled day by day;
- device, browser and country are a person's own, and every event carries them.
"""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from time import perf_counter
from uuid import UUID

import asyncpg

DATA_VERSION = 2
"""Part of the stamp: raise it when what is generated changes."""
YEAR = timedelta(days=365)
EVENTS_A_PROFILE = 20
CHUNK = 1_000_000

EVENT_NAMES = (
    "page_view", "product_viewed", "search", "add_to_cart", "login", "purchase", "review_written", "support_contacted",
)  # fmt: skip

MONTHS = """
SELECT ensure_month('event', month) FROM generate_series(
  date_trunc('month', $1::timestamptz - interval '365 days', 'UTC'), $1::timestamptz + interval '2 months', '1 month'
) AS month
"""
# Made again as they were, whatever the migrations say they are; loading with them in place takes about twice as long.
INDEXES = """
SELECT c.relname, replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ') AS definition
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = 'event'::regclass ORDER BY 1
"""
# OFFSET 0 keeps each hash from being computed again wherever it is used. `person` is the profile id, `own` a hash that
# is the person's; the events of one person and day are one session.
EVENTS = """
WITH drawn AS (
  SELECT i,
    floor($4 * pow((hashint8extended(i, 1) & 9007199254740991) / 9007199254740992.0::float8, 2))::bigint AS rank,
    hashint8extended(i, 2) AS a, hashint8extended(i, 3) & 9223372036854775807 AS b
  FROM generate_series($1::bigint, $2::bigint - 1) AS i OFFSET 0),
people AS (
  SELECT i, a, b, person, hashint8extended(person, 7) & 9223372036854775807 AS own,
    (ARRAY['page_view', 'product_viewed', 'search', 'add_to_cart', 'login', 'purchase', 'review_written',
      'support_contacted'])[1 + width_bucket((a & 1048575) / 1048576.0::float8,
      ARRAY[0.36794, 0.55191, 0.67456, 0.76654, 0.84013, 0.90145, 0.95401]::float8[])] AS name,
    $5::timestamptz + (i + (a >> 20 & 1023) / 1024.0::float8) * $6::interval AS at
  FROM drawn CROSS JOIN LATERAL (SELECT (1 + rank * 611953 % $4::bigint)::int AS person) AS p OFFSET 0)
INSERT INTO event (workspace_id, profile_id, name, occurred_at, received_at, message_id, properties, page_path,
  device_type, browser, country, city, session_id)
SELECT $3::uuid, person, name, at,
  CASE WHEN b % 1000 = 0 THEN at - interval '2 minutes' ELSE at + interval '1 second' END,
  'e' || i,
  jsonb_build_object('value', round((pow((b >> 10 & 65535) / 65536.0::float8, 3) * 300)::numeric, 2),
    'category', (ARRAY['books', 'books', 'books', 'books', 'music', 'music', 'garden', 'sport', 'sport', 'toys',
      'food', 'travel'])[1 + (b >> 26) % 12],
    'channel', (ARRAY['web', 'web', 'web', 'app', 'app', 'store'])[1 + (b >> 34) % 6],
    'quantity', 1 + (b >> 40) % 5),
  CASE name WHEN 'page_view' THEN (ARRAY['/', '/pricing', '/docs/install', '/blog/' || (b >> 44) % 40,
    '/products/' || (b >> 44) % 200, '/products/' || (b >> 44) % 200])[1 + (b >> 52) % 6] END,
  (ARRAY['mobile', 'mobile', 'mobile', 'desktop', 'desktop', 'tablet'])[1 + own % 6],
  (ARRAY['Chrome', 'Chrome', 'Chrome', 'Safari', 'Safari', 'Firefox', 'Edge'])[1 + (own >> 8) % 7],
  (ARRAY['DE', 'DE', 'DE', 'US', 'US', 'FR', 'GB', 'ES', 'IT', 'PL', 'NL', 'JP'])[1 + (own >> 16) % 12],
  (ARRAY['Berlin', 'Hamburg', 'Boston', 'Lyon', 'Leeds', 'Madrid', 'Rome'])[1 + (own >> 24) % 7],
  person || '-' || extract(doy FROM at)
FROM people
"""
# As ingestion leaves them: first and last seen, and where with what, are what their events say.
PROFILES = """
INSERT INTO profile (id, workspace_id, external_id, email, traits, locale, country, city, identified, first_seen_at,
  last_seen_at, seen_device_type, seen_browser, seen_country, seen_city)
SELECT person, $1, CASE WHEN known THEN 'c' || person END, CASE WHEN known THEN 'c' || person || '@example.com' END,
  CASE WHEN known THEN jsonb_build_object(
    'plan', (ARRAY['free', 'free', 'free', 'free', 'free', 'free', 'pro', 'pro', 'premium', 'enterprise'])[1 + h % 10],
    'lead_score', (h >> 8) % 101, 'icp_code', (ARRAY['A', 'B', 'C', 'D'])[1 + (h >> 16) % 4],
    'icp_score', (h >> 20) % 101, 'persona_code', (ARRAY['P1', 'P2', 'P3', 'P4', 'P5', 'P6'])[1 + (h >> 28) % 6],
    'persona_score', (h >> 32) % 101, 'newsletter', (h >> 40) % 3 = 0,
    'signup_date', ($3::timestamptz - (h >> 42) % 1000 * interval '1 day')::date::text) ELSE '{}' END,
  (ARRAY['de-DE', 'en-US', 'fr-FR', 'en-GB'])[1 + (own >> 16) % 4],
  CASE WHEN known THEN (ARRAY['DE', 'DE', 'DE', 'US', 'US', 'FR', 'GB', 'ES', 'IT', 'PL', 'NL', 'JP'])
    [1 + (own >> 16) % 12] END,
  CASE WHEN known THEN (ARRAY['Berlin', 'Hamburg', 'Boston', 'Lyon', 'Leeds', 'Madrid', 'Rome'])
    [1 + (own >> 24) % 7] END,
  known, e.first_at, e.last_at,
  CASE WHEN e.profile_id IS NOT NULL THEN (ARRAY['mobile', 'mobile', 'mobile', 'desktop', 'desktop', 'tablet'])
    [1 + own % 6] END,
  CASE WHEN e.profile_id IS NOT NULL THEN (ARRAY['Chrome', 'Chrome', 'Chrome', 'Safari', 'Safari', 'Firefox', 'Edge'])
    [1 + (own >> 8) % 7] END,
  CASE WHEN e.profile_id IS NOT NULL THEN (ARRAY['DE', 'DE', 'DE', 'US', 'US', 'FR', 'GB', 'ES', 'IT', 'PL', 'NL',
    'JP'])[1 + (own >> 16) % 12] END,
  CASE WHEN e.profile_id IS NOT NULL THEN (ARRAY['Berlin', 'Hamburg', 'Boston', 'Lyon', 'Leeds', 'Madrid', 'Rome'])
    [1 + (own >> 24) % 7] END
FROM generate_series(1, $2::int) AS person
CROSS JOIN LATERAL (SELECT hashint8extended(person, 7) & 9223372036854775807 AS own,
  hashint8extended(person, 8) & 9223372036854775807 AS h) AS hashes
CROSS JOIN LATERAL (SELECT hashint8extended(person, 9) % 10 <> 0 AS known) AS who
LEFT JOIN (SELECT profile_id, min(occurred_at) AS first_at, max(occurred_at) AS last_at FROM event
  WHERE workspace_id = $1 GROUP BY profile_id) AS e ON e.profile_id = person
ORDER BY person
"""
AFTER_PROFILES = (
    """
INSERT INTO profile_date (workspace_id, key, at, profile_id)
SELECT workspace_id, 'signup_date', (traits ->> 'signup_date')::timestamptz, id FROM profile
WHERE workspace_id = $1 AND traits ? 'signup_date' ORDER BY 3
""",
    """
INSERT INTO profile_alias (workspace_id, anonymous_id, profile_id)
SELECT workspace_id, 'a' || id, id FROM profile WHERE workspace_id = $1 AND NOT identified
""",
    # As many as there are after a year in service: keys are kept 35 days.
    """
INSERT INTO event_key (workspace_id, message_id, received_at)
SELECT workspace_id, message_id, received_at FROM event
WHERE workspace_id = $1 AND occurred_at > (SELECT max(occurred_at) FROM event) - interval '35 days'
""",
)
NEXT_PROFILE = "SELECT setval('profile_id_seq', $1)"
# Frozen and mapped as visible, as a table that has been in service is: else no index-only scan would be one.
SETTLE = "VACUUM (FREEZE, ANALYZE) {}"
SETTLED = ("event", "profile", "profile_date", "profile_alias", "event_key")


def who_acts(draw: random.Random, profiles: int) -> int:
    """A profile id, drawn as the data are: the most active more often than others."""
    return 1 + int(profiles * draw.random() ** 2) * 611953 % profiles


async def load(server: asyncpg.Connection, *, workspace_id: UUID, profiles: int, now: datetime) -> None:
    """Fill an empty, migrated database; `server` is a superuser's connection to it, and windows end at `now`.

    Takes about 10 s for 100,000 profiles; uses one core but for the indexes.
    """
    events = profiles * EVENTS_A_PROFILE
    # RLS is for muster's roles; a superuser writes past it. These hold for this session only.
    await server.execute("SET maintenance_work_mem = '1GB'; SET work_mem = '512MB'; SET synchronous_commit = off")
    await server.execute(MONTHS, now)
    indexes = await server.fetch(INDEXES)
    for index in indexes:
        await server.execute(f"DROP INDEX {index['relname']}")
    with stage(f"{events:,} events"):
        for first in range(0, events, CHUNK):
            last = min(first + CHUNK, events)
            await server.execute(EVENTS, first, last, workspace_id, profiles, now - YEAR, YEAR / events)
    with stage(f"{profiles:,} profiles"):
        await server.execute(PROFILES, workspace_id, profiles, now)
        await server.fetchval(NEXT_PROFILE, profiles)
        for statement in AFTER_PROFILES:
            await server.execute(statement, workspace_id)
    with stage("indexes"):
        for index in indexes:
            await server.execute(index["definition"])
    with stage("vacuum"):
        for table in SETTLED:
            await server.execute(SETTLE.format(table))
        await server.execute("CHECKPOINT")


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Says on standard error what is being made and how long it took."""
    began = perf_counter()
    print(f"making {what} ...", end=" ", file=sys.stderr, flush=True)
    yield
    print(f"{perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
