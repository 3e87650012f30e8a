"""When people were first and last seen, and with what and where last: moved along as their events come in."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from uuid import UUID

from db.transactions import Connection
from profiles.contention import Overtaken
from profiles.packing import pack, pack_numbers, pack_times

# An update, though it is spelled as an insert: all of them exist. So it looks each row up by its key, in the order
# given; UPDATE ... FROM would cost a fifth less, and reads the whole workspace when the statistics are old. Every row
# is locked, those too that stay as they are (PostgreSQL manual, INSERT, ON CONFLICT DO UPDATE), and answered if nobody
# lives there, or nobody ever did: then it is an insert after all, and is rolled back.
WRITE_SEEN = """
WITH written AS (
  INSERT INTO profile (workspace_id, id, first_seen_at, last_seen_at, seen_device_type, seen_browser, seen_country,
    seen_city)
  SELECT $1, u.id, to_timestamp(u.earliest), to_timestamp(u.latest), u.device_type, u.browser, u.country, u.city
  FROM unnest($2::text::int[], $3::text::float8[], $4::text::float8[], string_to_array($6, $5, ''),
    string_to_array($7, $5, ''), string_to_array($8, $5, ''), string_to_array($9, $5, ''))
    AS u (id, earliest, latest, device_type, browser, country, city)
  ON CONFLICT (workspace_id, id) DO UPDATE SET
    first_seen_at = least(profile.first_seen_at, excluded.first_seen_at),
    last_seen_at = greatest(profile.last_seen_at, excluded.last_seen_at),
    seen_device_type = CASE WHEN profile.last_seen_at > excluded.last_seen_at
      THEN coalesce(profile.seen_device_type, excluded.seen_device_type)
      ELSE coalesce(excluded.seen_device_type, profile.seen_device_type) END,
    seen_browser = CASE WHEN profile.last_seen_at > excluded.last_seen_at
      THEN coalesce(profile.seen_browser, excluded.seen_browser)
      ELSE coalesce(excluded.seen_browser, profile.seen_browser) END,
    seen_country = CASE WHEN profile.last_seen_at > excluded.last_seen_at
      THEN coalesce(profile.seen_country, excluded.seen_country)
      ELSE coalesce(excluded.seen_country, profile.seen_country) END,
    seen_city = CASE WHEN profile.last_seen_at > excluded.last_seen_at
      THEN coalesce(profile.seen_city, excluded.seen_city)
      ELSE coalesce(excluded.seen_city, profile.seen_city) END
  WHERE profile.first_seen_at IS NULL OR profile.first_seen_at > excluded.first_seen_at
    OR profile.last_seen_at <= excluded.last_seen_at
    OR profile.merged_into IS NOT NULL OR profile.erased_at IS NOT NULL
    OR (profile.seen_device_type IS NULL AND excluded.seen_device_type IS NOT NULL)
    OR (profile.seen_browser IS NULL AND excluded.seen_browser IS NOT NULL)
    OR (profile.seen_country IS NULL AND excluded.seen_country IS NOT NULL)
    OR (profile.seen_city IS NULL AND excluded.seen_city IS NOT NULL)
  RETURNING old.id AS was, merged_into, erased_at)
SELECT EXISTS (SELECT FROM written WHERE was IS NULL OR merged_into IS NOT NULL OR erased_at IS NOT NULL)
"""

Sighting = tuple[int, datetime, str | None, str | None, str | None, str | None]
"""What one event tells of its person: profile id, time, device type, browser, country, city."""


async def write_seen(connection: Connection, workspace_id: UUID, sightings: Iterable[Sighting], now: datetime) -> None:
    """Move each person's first and last time apart as far as these reach, but not past `now`, and take over with what
    and where they were seen last.

    Of what and where, the value of a batch counts as later than the one before if the batch reaches as far as anything
    before. Locks the people until the transaction ends. Raises Overtaken if one of them is merged, erased or nobody.
    """
    # In the order of time, so that what comes later stands.
    in_order = sorted(sightings, key=itemgetter(1))
    if not in_order:
        return
    people, times, *columns = zip(*in_order, strict=True)
    latest = dict(zip(people, times, strict=True))
    earliest = dict(zip(reversed(people), reversed(times), strict=True))
    # In one order: a second batch about the same people waits for the first, never each for the other.
    ids = sorted(latest)
    gone = await connection.fetchval(
        WRITE_SEEN,
        workspace_id,
        pack_numbers(ids),
        pack_times([at if (at := earliest[id]) < now else now for id in ids]),
        pack_times([at if (at := latest[id]) < now else now for id in ids]),
        *pack(*(list(map(last(people, column).get, ids)) for column in columns)),
    )
    if gone:
        raise Overtaken


def last(people: Sequence[int], column: Sequence[str | None]) -> dict[int, str | None]:
    """The last text of each person's, where there is one."""
    pairs = zip(people, column, strict=True)
    return {id: text for id, text in pairs if text is not None} if None in column else dict(pairs)
