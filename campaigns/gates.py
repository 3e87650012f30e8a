"""Why somebody gets no message: suppression and consent, the same for planning a ledger and for each last look."""

# Conditions of a CASE about `person` (id, email_hash); `matters` is true where consent counts, and `topic` the
# campaign's. Subqueries that answer one value, never joins and never EXISTS: each stays one look-up by its whole key,
# whatever the planner knows of the tables, and an outer condition that is false asks none.
GATES = """
    WHEN (SELECT true FROM suppression s WHERE s.workspace_id = $1 AND s.channel = 'EMAIL'
      AND s.address_hash = {person}.email_hash LIMIT 1) THEN 'SUPPRESSED'
    WHEN {matters} AND (SELECT true FROM consent k WHERE k.workspace_id = $1 AND k.profile_id = {person}.id
      AND k.channel = 'EMAIL' AND k.topic IN ({topic}, '*') AND k.status = 'UNSUBSCRIBED' LIMIT 1) THEN 'UNSUBSCRIBED'
    WHEN {matters} AND (SELECT w.consent_default = 'OPT_IN' FROM workspace w WHERE w.id = $1)
      AND (SELECT true FROM consent k WHERE k.workspace_id = $1 AND k.profile_id = {person}.id AND k.channel = 'EMAIL'
        AND k.topic IN ({topic}, '*') LIMIT 1) IS NULL THEN 'NO_CONSENT'"""


def gates(*, person: str, matters: str, topic: str) -> str:
    """The WHENs of a CASE that is the reason why `person`, a name in the statement, gets nothing."""
    return GATES.format(person=person, matters=matters, topic=topic)
