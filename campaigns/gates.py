"""Why somebody gets no message: suppression and consent, the same for planning a ledger and for each last look.

A statement asks in two parts: first, as CTEs, what is said of all of its people together; then, in a CASE, what that
means for each. One look into an index for neighbours in it, in place of one a person: a third of an intent's time.
"""

# `hashes` and `people` are arrays, which the planner must not know the length of (parameters of a generic plan, or
# subqueries): it expects ten, and takes an index. `matters` is true where consent counts, `topic` is the campaign's.
SUPPRESSED = """,
suppressed AS MATERIALIZED (
  SELECT s.address_hash FROM suppression s
  WHERE s.workspace_id = $1 AND s.channel = '{channel}' AND s.address_hash = ANY({hashes}::bytea[]))"""
SAID = """,
said AS MATERIALIZED (
  SELECT k.profile_id, k.status FROM consent k
  WHERE {matters} AND k.workspace_id = $1 AND k.profile_id = ANY({people}::int[]) AND k.channel = '{channel}'
    AND k.topic IN ({topic}, '*'))"""

# Of people to whom another's message would go since a merge: who is in a segment that the campaign ($12) excludes, or
# was at any time since the audience of the dispatch ($2) was frozen; also as one of those merged into them, whose
# memberships stay theirs.
EXCLUDED = """
same AS MATERIALIZED (
  SELECT s.id, s.merged_into AS person_id FROM profile s
  WHERE s.workspace_id = $1 AND s.merged_into = ANY({people}::int[])
  UNION ALL SELECT u.id, u.id FROM unnest({people}::int[]) AS u (id)),
excluded AS MATERIALIZED (
  SELECT person_id FROM same WHERE id IN (
    SELECT i.profile_id FROM membership i
    WHERE i.workspace_id = $1 AND i.profile_id = ANY((SELECT array_agg(id) FROM same)::int[])
      AND i.segment_id IN (
        SELECT t.segment_id FROM campaign_segment t
        WHERE t.workspace_id = $1 AND t.campaign_id = $12 AND t.excluded)
      AND (i.exited_at IS NULL
        OR i.exited_at >= (SELECT r.created_at FROM dispatch r WHERE r.workspace_id = $1 AND r.id = $2))))"""
EXCLUSION = """
    WHEN NOT $8 AND person.merged_into IS NOT NULL AND person.id IN (SELECT person_id FROM excluded) THEN 'EXCLUDED'"""

# IN, never a join and never EXISTS: a hash of what was found, whatever the planner thinks of its size.
IS_SUPPRESSED = """
    WHEN {address_hash} IN (SELECT address_hash FROM suppressed) THEN 'SUPPRESSED'"""
CONSENT = """
    WHEN {matters} AND {person}.id IN (SELECT profile_id FROM said WHERE status = 'UNSUBSCRIBED') THEN 'UNSUBSCRIBED'
    WHEN {matters} AND (SELECT w.consent_default = 'OPT_IN' FROM workspace w WHERE w.id = $1)
      AND {person}.id NOT IN (SELECT profile_id FROM said) THEN 'NO_CONSENT'"""


def excluded(*, people: str) -> str:
    """CTEs of which of these people the campaign excludes; what EXCLUSION asks. A last look's: it names parameters of
    a `LastLook`, and in EXCLUSION its `person`."""
    return EXCLUDED.format(people=people)


def gated(*, hashes: str, people: str, matters: str, topic: str) -> str:
    """CTEs, after others, of what is said of these people and their mailboxes; what `gates` asks."""
    suppressed = SUPPRESSED.format(channel="EMAIL", hashes=hashes)
    return suppressed + SAID.format(channel="EMAIL", people=people, matters=matters, topic=topic)


def gates(*, person: str, matters: str) -> str:
    """The WHENs of a CASE that is the reason why `person` (a name in the statement, with id and email_hash) gets no
    mail."""
    return IS_SUPPRESSED.format(address_hash=f"{person}.email_hash") + CONSENT.format(person=person, matters=matters)


def push_gated(*, people: str, matters: str, topic: str) -> str:
    """As `gated`, for push notifications; what `push_gates` asks."""
    return SAID.format(channel="PUSH", people=people, matters=matters, topic=topic)


def push_gates(*, person: str, matters: str) -> str:
    """The WHENs of a CASE that is the reason why `person` wants no push notification, on whatever device."""
    return CONSENT.format(person=person, matters=matters)


def token_gated(*, hashes: str) -> str:
    """A CTE of which tokens are suppressed; what `token_gate` asks. Tokens are hashed by us, not by the database: this
    is asked at the last look only."""
    return SUPPRESSED.format(channel="PUSH", hashes=hashes)


def token_gate(*, token_hash: str) -> str:
    """The WHEN that says whether a device's token is suppressed."""
    return IS_SUPPRESSED.format(address_hash=token_hash)
