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
# Addresses are looked up one by one, as in identities.py, which says why; both for the few and for the suppressed ones,
# of which there are few beside the people. Merged and erased profiles have none. Devices are not answered where tokens
# are suppressed: then each of them is to be looked at.
DEVICES = """
(SELECT EXISTS (SELECT FROM suppression WHERE workspace_id = $1 AND channel = 'PUSH')) AS has_suppressed_tokens,
(SELECT string_agg(int4send(profile_id), ''::bytea) FROM device
  WHERE workspace_id = $1 AND ($2::int[] IS NULL OR profile_id = ANY($2)) AND disabled_at IS NULL
    AND NOT (SELECT EXISTS (SELECT FROM suppression WHERE workspace_id = $1 AND channel = 'PUSH'))) AS devices
"""
ADDRESSES_OF_FEW = (
    """
SELECT
(SELECT string_agg(int4send(p.id), ''::bytea) FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
    SELECT id, email_hash FROM profile WHERE workspace_id = $1 AND id = u.id LIMIT 1) AS p
  WHERE p.email_hash IS NOT NULL AND (SELECT s.reason FROM suppression s
    WHERE s.workspace_id = $1 AND s.channel = 'EMAIL' AND s.address_hash = p.email_hash) IS NULL) AS mailboxes,
NULL::bytea AS suppressed_mailboxes,"""
    + DEVICES
)
# Mailboxes come out of the index alone.
ADDRESSES = (
    """
SELECT
(SELECT string_agg(int4send(id), ''::bytea) FROM profile
  WHERE workspace_id = $1 AND email_hash IS NOT NULL) AS mailboxes,
(SELECT string_agg(int4send(p.id), ''::bytea) FROM suppression s CROSS JOIN LATERAL (
    SELECT id FROM profile WHERE workspace_id = $1 AND email_hash = s.address_hash OFFSET 0) AS p
  WHERE s.workspace_id = $1 AND s.channel = 'EMAIL') AS suppressed_mailboxes,"""
    + DEVICES
)
TOKENS = """
SELECT profile_id, token FROM device
WHERE workspace_id = $1 AND ($2::int[] IS NULL OR profile_id = ANY($2)) AND disabled_at IS NULL
"""
SUPPRESSED_TOKENS = """
SELECT u.place FROM unnest($2::bytea[]) WITH ORDINALITY AS u (address_hash, place) WHERE EXISTS (
  SELECT FROM suppression s WHERE s.workspace_id = $1 AND s.channel = 'PUSH' AND s.address_hash = u.address_hash)
"""
# A row at least: what holds where nothing was said.
SAID = """
SELECT w.consent_default, said.channel, said.status, said.ids FROM workspace w LEFT JOIN (
  SELECT channel, status, string_agg(int4send(profile_id), ''::bytea) AS ids FROM consent
  WHERE workspace_id = $1 AND ($2::int[] IS NULL OR profile_id = ANY($2)) AND topic IN ($3, '*')
  GROUP BY channel, status) AS said ON true
WHERE w.id = $1
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
    ids = to_parameter(people) if len(people) <= FEW else None
    answers = await connection.fetch(SAID, workspace_id, ids, topic)
    default = answers[0]["consent_default"]
    said = {(row["channel"], row["status"]): unpack(row["ids"]) for row in answers}
    # By fetch, since asking for one row only keeps parallel workers out.
    (known,) = await connection.fetch(ADDRESSES if ids is None else ADDRESSES_OF_FEW, workspace_id, ids)
    devices = unpack(known["devices"])
    if known["has_suppressed_tokens"]:
        devices = await with_devices(connection, workspace_id=workspace_id, ids=ids, hasher=hasher)
    addressable = {
        Channel.EMAIL: unpack(known["mailboxes"]) - unpack(known["suppressed_mailboxes"]),
        Channel.PUSH: devices,
    }
    found = {}
    for channel, addressed in addressable.items():
        willing = (addressed & people) - said.get((channel, "UNSUBSCRIBED"), BitMap())
        if default == ConsentDefault.OPT_IN:
            willing &= said.get((channel, "SUBSCRIBED"), BitMap())
        found[channel] = willing
    return found


async def with_devices(
    connection: Connection, *, workspace_id: UUID, ids: "array[int] | None", hasher: AddressHasher
) -> BitMap:
    """Those of `ids`, or of all, with at least one device whose token is not suppressed."""
    # Tokens are kept as they are and suppressed by keyed hash, so that nobody but us can compare them.
    found = BitMap()
    devices = await connection.fetch(TOKENS, workspace_id, ids)
    for start in range(0, len(devices), TOKENS_AT_ONCE):
        some = devices[start : start + TOKENS_AT_ONCE]
        hashes = [hasher.hash(Channel.PUSH, row["token"]) for row in some]
        places = {row["place"] for row in await connection.fetch(SUPPRESSED_TOKENS, workspace_id, hashes)}
        found |= BitMap(row["profile_id"] for place, row in enumerate(some, start=1) if place not in places)
    return found
