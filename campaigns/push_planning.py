"""Writes the ledger of a push dispatch: a row for each device of each person; and only counts what it would be."""

from collections.abc import Sequence
from uuid import UUID

from pyroaring import BitMap

from campaigns.errors import CampaignError
from campaigns.gates import push_gated, push_gates
from db.transactions import Connection

# Everyone of $2 with each device that can be reached (device 0: there is none), and the reason why nothing is sent, if
# there is one. $3: the topic, $4: consent matters. Whoever was merged since the freeze is as in planning.py: devices go
# along with a merge. In the order of ids, so that neighbours in the ledger are neighbours in its pages. The devices of
# one person are one look-up, whatever the planner knows of the table.
GATED = (
    """
WITH frozen AS MATERIALIZED (
  SELECT p.id, p.merged_into, p.erased_at FROM profile p WHERE p.workspace_id = $1 AND p.id = ANY($2::int[])),
person AS MATERIALIZED (
  SELECT id AS profile_id, id FROM frozen WHERE merged_into IS NULL AND erased_at IS NULL
  UNION ALL
  SELECT frozen.id, winner.id FROM frozen CROSS JOIN LATERAL (
    SELECT p.id FROM profile p
    WHERE p.workspace_id = $1 AND p.id = frozen.merged_into AND p.merged_into IS NULL AND p.erased_at IS NULL
    LIMIT 1) AS winner
  WHERE frozen.merged_into IS NOT NULL
  ORDER BY 1),
reached AS MATERIALIZED (
  SELECT person.profile_id, person.id, coalesce(v.id, 0) AS device_id
  FROM person LEFT JOIN LATERAL (
    SELECT o.id FROM device o WHERE o.workspace_id = $1 AND o.profile_id = person.id AND o.disabled_at IS NULL
    ORDER BY o.id OFFSET 0) AS v ON true)"""
    + push_gated(people="(SELECT array_agg(id) FROM person)", matters="$4", topic="$3")
    + """,
gated AS MATERIALIZED (
  SELECT profile_id, device_id, CASE
    WHEN device_id = 0 THEN 'NO_DEVICE'"""
    + push_gates(person="reached", matters="$4")
    + """
  END AS reason
  FROM reached)
"""
)
PLAN = (
    GATED
    + """,
written AS (
  INSERT INTO delivery (workspace_id, dispatch_id, profile_id, device_id, state, reason)
  SELECT $1, $5, profile_id, device_id, CASE WHEN reason IS NULL THEN 'pending' ELSE 'skipped' END, reason FROM gated)
SELECT count(DISTINCT profile_id) FROM gated
"""
)
# A device that went from one person of the audience to another while the ledger was written, also by a merge, stands in
# it twice. It gets one message: whoever was written last has it, or had it last.
SPARE_TWINS = """
WITH shared AS MATERIALIZED (
  SELECT device_id, max(profile_id) AS keeper FROM delivery WHERE dispatch_id = $1 AND device_id <> 0
  GROUP BY device_id HAVING count(*) > 1)
UPDATE delivery d SET state = 'skipped', reason = 'DEVICE_MOVED' FROM shared
WHERE d.dispatch_id = $1 AND d.device_id = shared.device_id AND d.profile_id < shared.keeper AND d.state = 'pending'
"""
COUNT_GATED = GATED + "SELECT reason, count(*) AS messages FROM gated GROUP BY 1"

HAS_CREDENTIAL = "SELECT EXISTS (SELECT 1 FROM push_credential WHERE workspace_id = $1)"
LOOKED_AT = 1_000
"""Profiles of the audience, spread over it, whose devices say which credentials are needed."""
# What the devices of some people would be reached by, and whether there is such a credential.
NEEDED = """
SELECT DISTINCT v.app, v.provider, EXISTS (
  SELECT 1 FROM push_credential c WHERE c.workspace_id = $1 AND c.app = v.app AND c.provider = v.provider) AS is_there
FROM unnest($2::int[]) AS u (id) CROSS JOIN LATERAL (
  SELECT o.app, o.provider FROM device o
  WHERE o.workspace_id = $1 AND o.profile_id = u.id AND o.disabled_at IS NULL OFFSET 0) AS v
ORDER BY 1, 2
"""


async def plan(
    connection: Connection,
    *,
    workspace_id: UUID,
    dispatch_id: UUID,
    profile_ids: Sequence[int],
    topic: str,
    consent_matters: bool,
) -> int:
    """Write the rows of these people: one for each device, for those without one that is skipped. Answers how many
    people there were: who was erased meanwhile has none."""
    people: int = await connection.fetchval(PLAN, workspace_id, profile_ids, topic, consent_matters, dispatch_id)
    return people


async def count_gated(
    connection: Connection, *, workspace_id: UUID, audience: BitMap, topic: str, consent_matters: bool
) -> dict[str | None, int]:
    """How many devices a send now would skip, by reason; under None those it would reach, under NO_DEVICE people."""
    rows = await connection.fetch(COUNT_GATED, workspace_id, list(audience), topic, consent_matters)
    return {row["reason"]: row["messages"] for row in rows}


async def require_credentials(connection: Connection, *, workspace_id: UUID) -> None:
    """Raise CampaignError PUSH_CREDENTIAL_MISSING when the workspace can reach no device at all."""
    if not await connection.fetchval(HAS_CREDENTIAL, workspace_id):
        message = "No app has a push credential; set one with pushCredentialSet, and try it with pushCredentialTest."
        raise CampaignError("PUSH_CREDENTIAL_MISSING", message, field=("id",))


async def require_credentials_for(connection: Connection, *, workspace_id: UUID, audience: BitMap) -> None:
    """Raise CampaignError PUSH_CREDENTIAL_MISSING when the devices of the audience are none that could be reached.

    Looks at devices of some people, spread over the audience. Where some can be reached the others are skipped one by
    one, as NO_CREDENTIAL.
    """
    step = max(1, len(audience) // LOOKED_AT)
    needed = await connection.fetch(NEEDED, workspace_id, list(audience[::step]))
    if needed and not any(row["is_there"] for row in needed):
        names = ", ".join(f"{row['provider']} for the app {row['app']!r}" for row in needed)
        message = f"The devices of this audience need credentials that are not there: {names}. Use pushCredentialSet."
        raise CampaignError("PUSH_CREDENTIAL_MISSING", message, field=("id",))
