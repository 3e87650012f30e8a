"""Why somebody gets no message: suppression and consent, the same for planning a ledger and for each last look."""

# Conditions of a CASE about `person` (id, and for mail email_hash); `matters` is true where consent counts, and `topic`
# the campaign's. Subqueries that answer one value, never joins and never EXISTS: each stays one look-up by its whole
# key, whatever the planner knows of the tables, and an outer condition that is false asks none.
SUPPRESSED = """
    WHEN (SELECT true FROM suppression s WHERE s.workspace_id = $1 AND s.channel = '{channel}'
      AND s.address_hash = {address_hash} LIMIT 1) THEN 'SUPPRESSED'"""
CONSENT = """
    WHEN {matters} AND (SELECT true FROM consent k WHERE k.workspace_id = $1 AND k.profile_id = {person}.id
      AND k.channel = '{channel}' AND k.topic IN ({topic}, '*') AND k.status = 'UNSUBSCRIBED' LIMIT 1)
      THEN 'UNSUBSCRIBED'
    WHEN {matters} AND (SELECT w.consent_default = 'OPT_IN' FROM workspace w WHERE w.id = $1)
      AND (SELECT true FROM consent k WHERE k.workspace_id = $1 AND k.profile_id = {person}.id
        AND k.channel = '{channel}' AND k.topic IN ({topic}, '*') LIMIT 1) IS NULL THEN 'NO_CONSENT'"""


def gates(*, person: str, matters: str, topic: str) -> str:
    """The WHENs of a CASE that is the reason why `person`, a name in the statement, gets no mail."""
    suppressed = SUPPRESSED.format(channel="EMAIL", address_hash=f"{person}.email_hash")
    return suppressed + CONSENT.format(channel="EMAIL", person=person, matters=matters, topic=topic)


def push_gates(*, person: str, matters: str, topic: str) -> str:
    """The WHENs of a CASE that is the reason why `person` wants no push notification, on whatever device."""
    return CONSENT.format(channel="PUSH", person=person, matters=matters, topic=topic)


def token_gate(*, token_hash: str) -> str:
    """The WHEN that says whether a device's token is suppressed. Tokens are hashed by us, not by the database: this is
    asked at the last look only."""
    return SUPPRESSED.format(channel="PUSH", address_hash=token_hash)
