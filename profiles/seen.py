"""When people were first and last seen, and with what and where last: moved along as their events come in."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from db.transactions import Connection
from profiles.contention import Overtaken
from profiles.packing import pack, pack_numbers, pick

K = TypeVar("K", int, str)


class Sightings(NamedTuple, Generic[K]):
    """What events tell of their people, as columns of one length."""

    who: Sequence[K]
    """Profile ids or names."""
    instants: Sequence[float]
    """Seconds since 1970, none past now."""
    device_types: Sequence[str | None]
    browsers: Sequence[str | None]
    countries: Sequence[str | None]
    cities: Sequence[str | None]

    def take(self, places: Sequence[int]) -> "Sightings[K]":
        """Those at `places`."""
        columns: Iterable[Sequence[Any]] = (pick(column, places) for column in self)
        return Sightings(*columns)


SEEN_TO = timedelta(minutes=1)
"""So much later than a person's last time an event must be to move it, when it tells nothing else: a page view every
few seconds rewrites a profile once a minute."""

COLUMNS = ("device_type", "browser", "country", "city")


def moved(earliest: str, latest: str, told: str) -> str:
    """What an update of profile p sets, of SQL for the first and the last time of its sightings and of what begins
    the names of the columns they told."""
    texts = (
        f"seen_{name} = CASE WHEN p.last_seen_at > {latest} THEN coalesce(p.seen_{name}, {told}{name})"
        f" ELSE coalesce({told}{name}, p.seen_{name}) END"
        for name in COLUMNS
    )
    times = f"first_seen_at = least(p.first_seen_at, {earliest}), last_seen_at = greatest(p.last_seen_at, {latest})"
    return ", ".join((times, *texts))


# In the list of columns and not in FROM, where the rows would be kept apart first: a quarter of reading them.
TOLD = """
SELECT unnest({who}) AS who, unnest($3::text::float8[]) AS earliest, unnest($4::text::float8[]) AS latest,
  unnest(string_to_array($5, $1, '')) AS device_type, unnest(string_to_array($6, $1, '')) AS browser,
  unnest(string_to_array($7, $1, '')) AS country, unnest(string_to_array($8, $1, '')) AS city
"""
# Looked up and moved in one go: two statements took 38 microseconds of CPU a person among a million, this takes 26, and
# spelled as below 33. What keeps it from ever reading the workspace: a limit that is not known beforehand stands for
# one row, and the condition on the workspace is the policy's alone, for with a second one the planner takes 40,000
# people for one. `num_nulls`, so that no index of the living alone is taken for the key's.
MOVED = moved("to_timestamp(u.earliest)", "to_timestamp(u.latest)", "u.")
NAMED = "(" + TOLD.format(who="string_to_array($2, $1)") + "LIMIT (SELECT 1000000)) AS u"
MEET_BY_EXTERNAL_ID = f"""
UPDATE profile p SET {MOVED} FROM {NAMED}
WHERE p.external_id = u.who AND num_nulls(p.merged_into, p.erased_at) = 2
RETURNING u.who, p.id
"""
# Of several names of a person one is answered.
MEET_BY_ANONYMOUS_ID = f"""
UPDATE profile p SET {MOVED} FROM {NAMED}, profile_alias a
WHERE a.anonymous_id = u.who AND p.id = a.profile_id AND num_nulls(p.merged_into, p.erased_at) = 2
RETURNING u.who, p.id
"""
# An update, though it is spelled as an insert: all of them exist. So it looks each row up by its key, in the order
# given. Every row is locked, those too that stay as they are (PostgreSQL manual, INSERT, ON CONFLICT DO UPDATE), and
# answered if nobody lives there, or nobody ever did: then it is an insert after all, and is rolled back.
WRITE_SEEN = f"""
WITH written AS (
  INSERT INTO profile AS p (workspace_id, id, first_seen_at, last_seen_at, seen_device_type, seen_browser, seen_country,
    seen_city)
  SELECT $9, u.who, to_timestamp(u.earliest), to_timestamp(u.latest), u.device_type, u.browser, u.country, u.city
  FROM ({TOLD.format(who="string_to_array($2, $1)::int[]")}) AS u
  ON CONFLICT (workspace_id, id) DO UPDATE SET
    {moved("excluded.first_seen_at", "excluded.last_seen_at", "excluded.seen_")}
  WHERE p.first_seen_at IS NULL OR p.first_seen_at > excluded.first_seen_at
    OR p.last_seen_at <= excluded.last_seen_at - interval '{SEEN_TO.total_seconds()} s'
    OR p.merged_into IS NOT NULL OR p.erased_at IS NOT NULL
    OR (p.last_seen_at <= excluded.last_seen_at AND (p.seen_device_type <> excluded.seen_device_type
      OR p.seen_browser <> excluded.seen_browser OR p.seen_country <> excluded.seen_country
      OR p.seen_city <> excluded.seen_city))
    OR (p.seen_device_type IS NULL AND excluded.seen_device_type IS NOT NULL)
    OR (p.seen_browser IS NULL AND excluded.seen_browser IS NOT NULL)
    OR (p.seen_country IS NULL AND excluded.seen_country IS NOT NULL)
    OR (p.seen_city IS NULL AND excluded.seen_city IS NOT NULL)
  RETURNING old.id AS was, merged_into, erased_at)
SELECT EXISTS (SELECT FROM written WHERE was IS NULL OR merged_into IS NOT NULL OR erased_at IS NOT NULL)
"""


async def meet(connection: Connection, statement: str, sightings: Sightings[str]) -> dict[str, int]:
    """Profile ids by name, of those people who are known by these names and live; their times are moved as by
    `write_seen`, only that each is moved.

    `statement` says what kind of name it is. Of two names of one person perhaps only one is answered. Locks the people
    until the transaction ends.
    """
    if not sightings.who:
        return {}
    return dict(await connection.fetch(statement, *packed(sightings)))


async def write_seen(connection: Connection, workspace_id: UUID, sightings: Sightings[int]) -> None:
    """Move each person's first and last time apart as far as these reach, the last one if that is `SEEN_TO` or more,
    and take over with what and where they were seen last.

    Of what and where, the value of a batch counts as later than the one before if the batch reaches as far as anything
    before. Locks the people until the transaction ends. Raises Overtaken if one of them is merged, erased or nobody.
    """
    if not sightings.who:
        return
    if await connection.fetchval(WRITE_SEEN, *packed(sightings), workspace_id):
        raise Overtaken


def packed(sightings: Sightings[K]) -> list[str]:
    """$1 to $8 of the statements above: whom these are about, each once, and what they tell of each.

    In one order: a second batch about the same people waits for the first, never each for the other.
    """
    everybody, instants = sightings.who, sightings.instants
    columns: tuple[Sequence[str | None], ...] = sightings[2:]
    if len(set(everybody)) == len(everybody):
        order = sorted(range(len(everybody)), key=everybody.__getitem__)
        separator, who, *texts = pack(*(pick(column, order) for column in (list(map(str, everybody)), *columns)))
        times = pack_numbers(pick(instants, order))
        return [separator, who, times, times, *texts]
    # In the order of time, so that what comes later stands.
    order = sorted(range(len(everybody)), key=instants.__getitem__)
    people = pick(everybody, order)
    last = dict(zip(people, order, strict=True))
    first = dict(zip(reversed(people), reversed(order), strict=True))
    each = sorted(last)
    lasts = [last[one] for one in each]
    earliest, latest = pick(instants, [first[one] for one in each]), pick(instants, lasts)
    separator, who, *texts = pack(
        list(map(str, each)), *(told_last(column, each, lasts, people, order) for column in columns)
    )
    return [separator, who, pack_numbers(earliest), pack_numbers(latest), *texts]


def told_last(
    column: Sequence[str | None], each: Sequence[K], lasts: Sequence[int], people: Sequence[K], order: Sequence[int]
) -> Sequence[str | None]:
    """The last text of each person's, where there is one. `lasts` is where each was seen last, `order` the places in
    the order of time and `people` who is there."""
    texts = pick(column, lasts)
    if None not in texts:
        return texts
    pairs = zip(people, pick(column, order), strict=True)
    return list(map({one: text for one, text in pairs if text is not None}.get, each))
