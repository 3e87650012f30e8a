"""What a builder of conditions can choose from: traits, attributes, event names, their properties, pages.

Bounded work, however much there is: the newest people and the newest events of a name are sampled, names are found by
steps along an index. Numbers of samples are called so. Values that look like an email address or a phone number are
left out: a catalogue is read by more people than a profile is.

All of it runs under row level security: conditions on workspace, id, name and time keep their indexes there, and only
those narrow anything down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import asyncpg

from db.transactions import Connection, transaction
from segments.asking import within
from segments.errors import SegmentError
from segments.nodes import PAGE_VIEW, AttributeName, Json

LIMIT = timedelta(seconds=10)
PEOPLE_SAMPLED = 10_000
EVENTS_SAMPLED = 1_000
"""Of each name."""
PAGES_SAMPLED = 5_000
COUNTED_AT_MOST = 10_000
"""Events of a name that are counted one by one; from there on their number is worked out from their density."""
COUNTED_BACK = timedelta(days=30)
MOST_KEYS = 200
MOST_NAMES = 200
MOST_DESCRIBED = 20
"""Event names whose properties are told at once."""
MOST_VALUES = 10
MOST_PAGES = 20

# Their ids out of the index, then one by one: taken for few, since a tenant's people have no statistics, they would all
# be read and sorted (8 s of a million).
NEWEST_PEOPLE = """
SELECT p.* FROM (
  SELECT id FROM profile WHERE workspace_id = $1 AND merged_into IS NULL AND erased_at IS NULL
  ORDER BY id DESC LIMIT $2) AS newest
CROSS JOIN LATERAL (
  SELECT traits, email, phone, external_id, country, city, locale, time_zone, seen_country, seen_city, seen_device_type,
    seen_browser
  FROM profile WHERE workspace_id = $1 AND id = newest.id LIMIT 1) AS p
"""
# From `pairs (owner, key, value)`: for each owner and key how many values of each type, and the most frequent plain
# values; the items of a list count as values, since CONTAINS asks for them. A text is a date when PostgreSQL can read
# it as one, which is how traits are kept as dates too. Equal values are put together before they are looked at: with
# three patterns for each of 72,000 values it took 2.6 s, so 0.9 s (1,000,000 profiles, a busy machine, 2026-11-22).
DESCRIBE = r"""
known AS (SELECT owner, key, value, count(*)::int AS seen FROM pairs WHERE value <> 'null' GROUP BY 1, 2, 3),
typed AS (
  SELECT owner, key, value, seen, CASE
    WHEN jsonb_typeof(value) = 'string' AND value #>> '{}' ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?$'
      AND pg_input_is_valid(value #>> '{}', 'timestamptz') THEN 'date'
    ELSE jsonb_typeof(value) END AS type
  FROM known),
types AS (
  SELECT owner, key, sum(seen)::int AS seen, jsonb_object_agg(type, seen) AS types
  FROM (SELECT owner, key, type, sum(seen) AS seen FROM typed GROUP BY 1, 2, 3) AS summed GROUP BY 1, 2),
single AS (
  SELECT owner, key, value, type, seen FROM typed WHERE type NOT IN ('array', 'object')
  UNION ALL
  SELECT owner, key, item, jsonb_typeof(item), seen FROM typed CROSS JOIN LATERAL jsonb_array_elements(value) AS item
  WHERE type = 'array' AND jsonb_typeof(item) IN ('string', 'number', 'boolean')),
summed AS (
  SELECT owner, key, value, sum(seen)::int AS seen, bool_and(type = 'date') AS is_date FROM single
  WHERE length(value #>> '{}') <= 200 GROUP BY 1, 2, 3),
counted AS (
  SELECT owner, key, value, seen, NOT is_date AND (
    value #>> '{}' ~ '[^[:space:]@]@[^[:space:]@]+\.[^[:space:]@]'
    OR (value #>> '{}' ~ '^\+?[0-9 ().\-/]+$' AND length(regexp_replace(value #>> '{}', '[^0-9]', '', 'g')) >= 7)
  ) AS personal
  FROM summed),
ranked AS (
  SELECT owner, key, value, seen, row_number() OVER (PARTITION BY owner, key ORDER BY seen DESC, value) AS place
  FROM counted WHERE NOT personal),
best AS (
  SELECT owner, key, jsonb_agg(jsonb_build_array(value, seen) ORDER BY place) AS values FROM ranked WHERE place <= $3
  GROUP BY 1, 2)
SELECT t.owner, t.key, t.seen, t.types, coalesce(b.values, '[]') AS values,
  EXISTS (SELECT FROM counted c WHERE c.owner = t.owner AND c.key = t.key AND c.personal) AS personal
FROM types t LEFT JOIN best b USING (owner, key) ORDER BY t.owner, t.seen DESC, t.key
"""
# Attributes come before traits, and are nine: the LIMIT cuts traits only.
PEOPLE = (
    """
WITH sample AS MATERIALIZED ("""
    + NEWEST_PEOPLE
    + """),
pairs AS (
  SELECT 'trait' AS owner, t.key, t.value FROM sample CROSS JOIN LATERAL jsonb_each(sample.traits) AS t
  UNION ALL
  SELECT 'attribute', a.key, to_jsonb(a.value) FROM sample CROSS JOIN LATERAL (VALUES
    ('COUNTRY', coalesce(country, seen_country)), ('CITY', coalesce(city, seen_city)),
    ('DEVICE_TYPE', seen_device_type), ('BROWSER', seen_browser), ('LOCALE', locale), ('TIME_ZONE', time_zone),
    -- Only that there is one.
    ('EMAIL', CASE WHEN email IS NOT NULL THEN '' END), ('PHONE', CASE WHEN phone IS NOT NULL THEN '' END),
    ('EXTERNAL_ID', CASE WHEN external_id IS NOT NULL THEN '' END)) AS a (key, value)
  WHERE a.value IS NOT NULL),"""
    + DESCRIBE
    + "LIMIT $4"
)
SAMPLED = """
SELECT count(*) FROM (SELECT id FROM profile WHERE workspace_id = $1 AND merged_into IS NULL AND erased_at IS NULL
  ORDER BY id DESC LIMIT $2) AS newest
"""
# A step a name along the index, however many events each has; LIMIT ends it. Then the latest of each.
FREQUENCIES = """
WITH RECURSIVE names (name) AS (
  (SELECT name FROM event WHERE workspace_id = $1 ORDER BY name LIMIT 1)
  UNION ALL
  SELECT (SELECT e.name FROM event e WHERE e.workspace_id = $1 AND e.name > n.name ORDER BY e.name LIMIT 1)
  FROM names n WHERE n.name IS NOT NULL)
SELECT n.name, latest.occurred_at AS latest, recent.seen, recent.earliest
FROM (SELECT name FROM names WHERE name IS NOT NULL LIMIT $2) AS n
CROSS JOIN LATERAL (
  SELECT e.occurred_at FROM event e WHERE e.workspace_id = $1 AND e.name = n.name
  ORDER BY e.occurred_at DESC LIMIT 1) AS latest
CROSS JOIN LATERAL (
  SELECT count(*)::int AS seen, min(newest.occurred_at) AS earliest FROM (
    SELECT e.occurred_at FROM event e
    WHERE e.workspace_id = $1 AND e.name = n.name AND e.occurred_at > $3 AND e.occurred_at <= $4
    ORDER BY e.occurred_at DESC LIMIT $5) AS newest) AS recent
ORDER BY n.name
"""
PROPERTIES = (
    """
WITH pairs AS (
  SELECT n.name AS owner, p.key, p.value FROM unnest($2::text[]) AS n (name)
  CROSS JOIN LATERAL (
    SELECT e.properties FROM event e WHERE e.workspace_id = $1 AND e.name = n.name
    ORDER BY e.occurred_at DESC LIMIT $4) AS sample
  CROSS JOIN LATERAL jsonb_each(sample.properties) AS p),"""
    + DESCRIBE
)
PAGES = (
    """
WITH pairs AS (
  SELECT '' AS owner, '' AS key, to_jsonb(sample.page_path) AS value FROM (
    SELECT e.page_path FROM event e WHERE e.workspace_id = $1 AND e.name = $2 AND e.page_path IS NOT NULL
    ORDER BY e.occurred_at DESC LIMIT $4) AS sample),"""
    + DESCRIBE
)
READ_ONLY = "SELECT set_config('transaction_read_only', 'on', true), set_config('work_mem', '32MB', true)"


class ValueType(StrEnum):
    """Of what type values are."""

    TEXT = "TEXT"
    NUMBER = "NUMBER"
    BOOLEAN = "BOOLEAN"
    DATE = "DATE"
    """A text that is an ISO 8601 date."""
    LIST = "LIST"
    OBJECT = "OBJECT"
    """No condition can compare it."""


TYPES = {
    "string": ValueType.TEXT,
    "number": ValueType.NUMBER,
    "boolean": ValueType.BOOLEAN,
    "date": ValueType.DATE,
    "array": ValueType.LIST,
    "object": ValueType.OBJECT,
}


@dataclass(frozen=True, slots=True)
class SeenValue:
    """A value, or the item of a list, and how many of the sample had it."""

    value: Json
    seen: int


@dataclass(frozen=True, slots=True)
class Described:
    """What a sample says of one trait, attribute or property."""

    name: str
    seen: int
    """How many of the sample had it."""
    types: dict[ValueType, int]
    """How many of those were of each type, most frequent first."""
    values: list[SeenValue]
    """The most frequent plain values, at most 10; those that look like addresses or phone numbers left out."""
    left_out: bool
    """Whether any were left out for that."""


@dataclass(frozen=True, slots=True)
class EventName:
    """Events of one name."""

    name: str
    latest_at: datetime
    recent: int
    """How many occurred in the last 30 days."""
    is_recent_exact: bool
    """False above 10,000: worked out from how close together the latest 10,000 were."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What there is to choose from."""

    people_sampled: int
    traits: list[Described]
    """Most frequent first, at most 200."""
    attributes: list[Described]
    """By `AttributeName`; of addresses and external ids only how many have one."""
    events: list[EventName]
    """Most frequent first."""
    is_complete: bool
    """Whether these are all the event names; False: there are more than 200."""
    properties: dict[str, list[Described]]
    """By event name: of those asked for, or of the 20 most frequent; most frequent property first."""
    pages: list[SeenValue]
    """The most frequent paths among the newest 5,000 page views."""


async def catalogue(
    workspace_id: UUID, *, event_names: Sequence[str] | None = None, now: datetime, limit: timedelta = LIMIT
) -> Catalogue:
    """What conditions could be about, as the newest people and events show it.

    `event_names`: whose properties are wanted, at most 20; None means the most frequent. Raises SegmentError
    TOO_MANY_ITEMS, and CATALOGUE_TOO_SLOW after `limit`.
    """
    if event_names is not None and len(event_names) > MOST_DESCRIBED:
        message = f"{len(event_names)} event names; ask for at most {MOST_DESCRIBED} at once."
        raise SegmentError("TOO_MANY_ITEMS", message, field=("event_names",))
    async with (
        within(limit, code="CATALOGUE_TOO_SLOW", mend="ask again, for fewer event names"),
        transaction(workspace_id) as connection,
    ):
        await connection.fetchrow(READ_ONLY)
        keys = len(AttributeName) + MOST_KEYS
        people = await connection.fetch(PEOPLE, workspace_id, PEOPLE_SAMPLED, MOST_VALUES, keys)
        sampled = await connection.fetchval(SAMPLED, workspace_id, PEOPLE_SAMPLED)
        events, is_complete = await frequencies(connection, workspace_id, now=now)
        wanted = [one.name for one in events[:MOST_DESCRIBED]] if event_names is None else list(event_names)
        properties = await connection.fetch(PROPERTIES, workspace_id, wanted, MOST_VALUES, EVENTS_SAMPLED)
        pages = await connection.fetch(PAGES, workspace_id, PAGE_VIEW, MOST_PAGES, PAGES_SAMPLED)
    return Catalogue(
        people_sampled=sampled,
        traits=[described(row) for row in people if row["owner"] == "trait"][:MOST_KEYS],
        attributes=[without_values(described(row)) for row in people if row["owner"] == "attribute"],
        events=events,
        is_complete=is_complete,
        properties={name: [described(row) for row in properties if row["owner"] == name] for name in wanted},
        pages=[value for row in pages for value in described(row).values],
    )


async def frequencies(connection: Connection, workspace_id: UUID, *, now: datetime) -> tuple[list[EventName], bool]:
    """How often and how lately events of each name occurred, most frequent first; and whether that is every name."""
    since = now - COUNTED_BACK
    rows = await connection.fetch(FREQUENCIES, workspace_id, MOST_NAMES + 1, since, now, COUNTED_AT_MOST)
    found = []
    for row in rows[:MOST_NAMES]:
        exact = row["seen"] < COUNTED_AT_MOST
        recent = row["seen"] if exact else round(row["seen"] * (COUNTED_BACK / max(now - row["earliest"], SHORTEST)))
        found.append(EventName(row["name"], row["latest"], recent, exact))
    return sorted(found, key=lambda one: (-one.recent, one.name)), len(rows) <= MOST_NAMES


SHORTEST = timedelta(seconds=1)
"""In which the latest 10,000 events of a name may have come: a batch of one instant says nothing of a month."""

WITHOUT_VALUES = frozenset({AttributeName.EMAIL, AttributeName.PHONE, AttributeName.EXTERNAL_ID})


def described(row: asyncpg.Record) -> Described:
    """A row of DESCRIBE."""
    types = sorted(row["types"].items(), key=lambda one: -one[1])
    return Described(
        name=row["key"],
        seen=row["seen"],
        types={TYPES[name]: seen for name, seen in types},
        values=[SeenValue(value, seen) for value, seen in row["values"]],
        left_out=row["personal"],
    )


def without_values(attribute: Described) -> Described:
    """An attribute as it may be told: of addresses and external ids no value at all."""
    if attribute.name not in WITHOUT_VALUES:
        return attribute
    return Described(attribute.name, attribute.seen, attribute.types, [], left_out=True)
