"""Which of many people can be written to, channel by channel: they have an address, did not say no, are not suppressed.

Sets, not rows: each question is one query that answers with packed ids, and the rest is set algebra.
"""

from array import array
from uuid import UUID

from pyroaring import BitMap

from db.idsets import to_parameter, unpack
from db.transactions import Connection
from profiles.addresses import AddressHasher, Channel
from profiles.models import ConsentDefault
from profiles.text import clean_text

DEFAULT_TOPIC = "marketing"
MOST_TOPIC_CHARACTERS = 100
TOKENS_AT_ONCE = 10_000
FEW = 20_000
"""People up to whom each is looked up by id."""

# For few the ids are passed and looked up in indexes. For many everybody is answered, and the rest is set algebra:
# planning `= ANY` of a million constants alone took seconds. $2 null means everybody; the condition then falls away,
# since the plan is made for the values at hand.
CUSTOM_PLANS = "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('work_mem', '64MB', true)"
CONSENT_DEFAULT = "SELECT consent_default FROM workspace WHERE id = $1"
# Looked up one by one, as in identities.py, which says why; both for the few and for the suppressed addresses, of which
# there are few beside the people.
MAILBOXES_OF_FEW = """
SELECT string_agg(int4send(p.id), ''::bytea) FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT id, email_hash FROM profile WHERE workspace_id = $1 AND id = u.id LIMIT 1) AS p
WHERE p.email_hash IS NOT NULL AND (SELECT s.reason FROM suppression s
  WHERE s.workspace_id = $1 AND s.channel = 'EMAIL' AND s.address_hash = p.email_hash) IS NULL
"""
# Out of the index alone. Merged and erased profiles have no address.
MAILBOXES = """
SELECT string_agg(int4send(id), ''::bytea) FROM profile WHERE workspace_id = $1 AND email_hash IS NOT NULL
"""
SUPPRESSED_MAILBOXES = """
SELECT string_agg(int4send(p.id), ''::bytea) FROM suppression s CROSS JOIN LATERAL (
  SELECT id FROM profile WHERE workspace_id = $1 AND email_hash = s.address_hash OFFSET 0) AS p
WHERE s.workspace_id = $1 AND s.channel = 'EMAIL'
"""
DEVICES = """
SELECT string_agg(int4send(profile_id), ''::bytea) FROM device
WHERE workspace_id = $1 AND ($2::int[] IS NULL OR profile_id = ANY($2)) AND disabled_at IS NULL
"""
HAS_SUPPRESSED_TOKENS = "SELECT EXISTS (SELECT FROM suppression WHERE workspace_id = $1 AND channel = 'PUSH')"
TOKENS = """
SELECT profile_id, token FROM device
WHERE workspace_id = $1 AND ($2::int[] IS NULL OR profile_id = ANY($2)) AND disabled_at IS NULL
"""
SUPPRESSED_TOKENS = """
SELECT u.place FROM unnest($2::bytea[]) WITH ORDINALITY AS u (address_hash, place) WHERE EXISTS (
  SELECT FROM suppression s WHERE s.workspace_id = $1 AND s.channel = 'PUSH' AND s.address_hash = u.address_hash)
"""
SAID = """
SELECT channel, status, string_agg(int4send(profile_id), ''::bytea) AS ids FROM consent
WHERE workspace_id = $1 AND ($2::int[] IS NULL OR profile_id = ANY($2)) AND topic IN ($3, '*') GROUP BY channel, status
"""


async def reachable(
    connection: Connection, *, workspace_id: UUID, people: BitMap, topic: str, hasher: AddressHasher
) -> dict[Channel, BitMap]:
    """Those of `people`, all of them living, who can be sent marketing about `topic` now; every channel is there.

    By email: with an address that is not suppressed. By push: with a device that is not disabled and whose
    token is not suppressed. Either way a no to the topic or to `*` counts, and without an answer the workspace's
    default. Two people of one mailbox count twice; a campaign writes to the first of them only. `connection` is inside
    transaction(workspace_id). Raises ProfileError for what is no topic.
    """
    topic = clean_text(topic, what="Topic", most=MOST_TOPIC_CHARACTERS, field=("topic",))
    await connection.fetchrow(CUSTOM_PLANS)
    default = await connection.fetchval(CONSENT_DEFAULT, workspace_id)
    ids = to_parameter(people) if len(people) <= FEW else None
    said = {
        (row["channel"], row["status"]): unpack(row["ids"])
        for row in await connection.fetch(SAID, workspace_id, ids, topic)
    }
    addressable = {
        Channel.EMAIL: await with_mailboxes(connection, workspace_id=workspace_id, ids=ids),
        Channel.PUSH: await with_devices(connection, workspace_id=workspace_id, ids=ids, hasher=hasher),
    }
    found = {}
    for channel, addressed in addressable.items():
        willing = (addressed & people) - said.get((channel, "UNSUBSCRIBED"), BitMap())
        if default == ConsentDefault.OPT_IN:
            willing &= said.get((channel, "SUBSCRIBED"), BitMap())
        found[channel] = willing
    return found


async def with_mailboxes(connection: Connection, *, workspace_id: UUID, ids: "array[int] | None") -> BitMap:
    """Those of `ids`, or of all, with an email address that is not suppressed."""
    if ids is not None:
        return await found_by(connection, MAILBOXES_OF_FEW, workspace_id, ids)
    addressed = await found_by(connection, MAILBOXES, workspace_id)
    return addressed - await found_by(connection, SUPPRESSED_MAILBOXES, workspace_id)


async def with_devices(
    connection: Connection, *, workspace_id: UUID, ids: "array[int] | None", hasher: AddressHasher
) -> BitMap:
    """Those of `ids`, or of all, with at least one device that can be reached."""
    if not await connection.fetchval(HAS_SUPPRESSED_TOKENS, workspace_id):
        return await found_by(connection, DEVICES, workspace_id, ids)
    # Tokens are kept as they are and suppressed by keyed hash, so that nobody but us can compare them.
    found = BitMap()
    devices = await connection.fetch(TOKENS, workspace_id, ids)
    for start in range(0, len(devices), TOKENS_AT_ONCE):
        some = devices[start : start + TOKENS_AT_ONCE]
        hashes = [hasher.hash(Channel.PUSH, row["token"]) for row in some]
        places = {row["place"] for row in await connection.fetch(SUPPRESSED_TOKENS, workspace_id, hashes)}
        found |= BitMap(row["profile_id"] for place, row in enumerate(some, start=1) if place not in places)
    return found


async def found_by(connection: Connection, text: str, *arguments: object) -> BitMap:
    """The ids that a query answers as one value; by fetch, since asking for one row only keeps parallel workers out."""
    (row,) = await connection.fetch(text, *arguments)
    return unpack(row[0])
