"""People and their events, put into the tables as they stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from db.transactions import Connection, across_workspaces, transaction
from profiles.dates import read_date
from profiles.identities import write_touched

Json = Mapping[str, object]


@dataclass(frozen=True)
class Happened:
    """An event of somebody."""

    name: str
    at: datetime
    properties: Json = field(default_factory=dict)
    page_path: str | None = None
    device_type: str | None = None
    browser: str | None = None
    country: str | None = None
    city: str | None = None
    session_id: str | None = None
    received_at: datetime | None = None
    """None: as soon as it occurred, by a clock that was right."""


@dataclass(frozen=True)
class Person:
    """Somebody, with all that conditions can ask about."""

    traits: Json = field(default_factory=dict)
    identified: bool = True
    first_seen_at: datetime | None = None
    last_seen_at: datetime | None = None
    events: Sequence[Happened] = ()
    external_id: str | None = None
    erased_at: datetime | None = None
    email: str | None = None
    phone: str | None = None
    locale: str | None = None
    time_zone: str | None = None
    country: str | None = None
    city: str | None = None
    seen_device_type: str | None = None
    seen_browser: str | None = None
    seen_country: str | None = None
    seen_city: str | None = None


INSERT_PEOPLE = """
INSERT INTO profile (workspace_id, external_id, traits, identified, first_seen_at, last_seen_at, erased_at, email,
  phone, locale, time_zone, country, city, seen_device_type, seen_browser, seen_country, seen_city)
SELECT $1, t.external_id, t.traits, t.identified, t.first_seen_at, t.last_seen_at, t.erased_at, t.email, t.phone,
  t.locale, t.time_zone, t.country, t.city, t.seen_device_type, t.seen_browser, t.seen_country, t.seen_city
FROM unnest($2::text[], $3::jsonb[], $4::boolean[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[], $8::text[],
  $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[])
  WITH ORDINALITY AS t (external_id, traits, identified, first_seen_at, last_seen_at, erased_at, email, phone, locale,
    time_zone, country, city, seen_device_type, seen_browser, seen_country, seen_city, place)
ORDER BY t.place RETURNING id
"""
INSERT_DATE = "INSERT INTO profile_date (workspace_id, profile_id, key, at) VALUES ($1, $2, $3, $4)"
INSERT_EVENTS = """
INSERT INTO event (workspace_id, profile_id, message_id, received_at, name, occurred_at, properties, page_path,
  device_type, browser, country, city, session_id)
SELECT $1, t.profile_id, t.message_id, t.received_at, t.name, t.occurred_at, t.properties, t.page_path, t.device_type,
  t.browser, t.country, t.city, t.session_id
FROM unnest($2::int[], $3::text[], $4::timestamptz[], $5::text[], $6::timestamptz[], $7::jsonb[], $8::text[],
  $9::text[], $10::text[], $11::text[], $12::text[], $13::text[]) AS t (profile_id, message_id, received_at, name,
  occurred_at, properties, page_path, device_type, browser, country, city, session_id)
"""
NO_DATES = "DELETE FROM profile_date WHERE workspace_id = $1 AND profile_id = ANY($2::int[])"
CHANGE = "UPDATE profile SET traits = $2 WHERE id = $1"
MERGE = "UPDATE profile SET merged_into = $2 WHERE id = $1"
ERASE = "UPDATE profile SET erased_at = now() WHERE id = $1"
OF_BRAND = "INSERT INTO profile_brand (workspace_id, brand_id, profile_id) SELECT $1, $2, unnest($3::int[])"
MAKE_BRAND = "INSERT INTO brand (workspace_id, name) VALUES ($1, $2) RETURNING id"
ENSURE_MONTHS = "SELECT ensure_month('event', u.at) FROM unnest($1::timestamptz[]) AS u (at)"

COLUMNS = (
    "identified", "first_seen_at", "last_seen_at", "erased_at", "email", "phone", "locale", "time_zone", "country",
    "city", "seen_device_type", "seen_browser", "seen_country", "seen_city",
)  # fmt: skip
CONTEXT = ("page_path", "device_type", "browser", "country", "city", "session_id")


async def make_people(workspace_id: UUID, *people: Person) -> list[int]:
    """The ids of new profiles, in the order of `people`."""
    await make_months(*people)
    async with transaction(workspace_id) as connection:
        columns: list[list[Any]] = [
            [one.external_id or uuid4().hex for one in people],
            [dict(one.traits) for one in people],
            *([getattr(one, column) for one in people] for column in COLUMNS),
        ]
        ids = [row["id"] for row in await connection.fetch(INSERT_PEOPLE, workspace_id, *columns)]
        dates = [(id, key, at) for id, one in zip(ids, people, strict=True) for key, at in dated(one.traits)]
        await connection.executemany(INSERT_DATE, [(workspace_id, *date) for date in dates])
        await add_events(connection, workspace_id, ids, people)
    return ids


async def change_people(workspace_id: UUID, people: Mapping[int, Person]) -> None:
    """Give these people other traits, without dates, and events besides those that they have; told as changes are."""
    await make_months(*people.values())
    async with transaction(workspace_id) as connection:
        await connection.execute(NO_DATES, workspace_id, list(people))
        await connection.executemany(CHANGE, [(id, dict(one.traits)) for id, one in people.items()])
        await add_events(connection, workspace_id, list(people), list(people.values()))
        await write_touched(connection, workspace_id=workspace_id, profile_ids=people.keys())


async def make_months(*people: Person) -> None:
    async with across_workspaces() as connection:
        months = {event.at.replace(day=1, hour=12) for person in people for event in person.events}
        await connection.execute(ENSURE_MONTHS, list(months))


async def add_events(connection: Connection, workspace_id: UUID, ids: Sequence[int], people: Sequence[Person]) -> None:
    events = [(place, event) for place, person in enumerate(people) for event in person.events]
    columns = [
        [ids[place] for place, _ in events],
        [uuid4().hex for _ in events],
        [event.received_at or event.at for _, event in events],
        [event.name for _, event in events],
        [event.at for _, event in events],
        [dict(event.properties) for _, event in events],
        *([getattr(event, column) for _, event in events] for column in CONTEXT),
    ]
    await connection.execute(INSERT_EVENTS, workspace_id, *columns)


def dated(traits: Json) -> list[tuple[str, datetime]]:
    """Those of `traits` that are dates."""
    return [(key, at) for key, value in traits.items() if (at := read_date(value)) is not None]


async def make_brand(workspace_id: UUID, name: str, *profile_ids: int) -> UUID:
    """A brand that these profiles are of."""
    async with transaction(workspace_id) as connection:
        brand_id: UUID = await connection.fetchval(MAKE_BRAND, workspace_id, name)
        await connection.execute(OF_BRAND, workspace_id, brand_id, list(profile_ids))
    return brand_id


async def merge(workspace_id: UUID, *, loser: int, winner: int) -> None:
    async with transaction(workspace_id) as connection:
        await connection.execute(MERGE, loser, winner)


async def erase(workspace_id: UUID, profile_id: int) -> None:
    async with transaction(workspace_id) as connection:
        await connection.execute(ERASE, profile_id)


def bought(at: datetime, value: object = 10) -> Happened:
    return Happened("purchase", at, {"value": value})
