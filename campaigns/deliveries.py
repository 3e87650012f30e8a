"""Reading the ledger one recipient at a time: what became of each message, and why."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from campaigns.models import DeliveryState, DispatchKind
from db.transactions import transaction

MOST = 100
"""A page for people; one more row tells whether there is a next page."""

# The id of a message `d` of the dispatch `r`, as making.py writes it; null until it was tried.
MESSAGE_ID = """
  CASE WHEN d.first_attempt_at IS NOT NULL THEN
    format('<%s.%s.%s@%s>', replace(r.id::text, '-', ''), d.profile_id, d.device_id, r.message_domain) END"""
COLUMNS = f"""
SELECT d.dispatch_id, d.profile_id, d.device_id, d.state, d.reason, d.detail, d.attempt, d.not_before,
  {MESSAGE_ID} AS message_id, d.first_attempt_at, d.sent_at, d.provider_id, d.updated_at, r.kind, r.campaign_id
"""
BY_KEY = (
    COLUMNS
    + """
FROM unnest($2::uuid[], $3::int[], $4::bigint[]) AS k (dispatch_id, profile_id, device_id)
JOIN delivery d ON d.dispatch_id = k.dispatch_id AND d.profile_id = k.profile_id AND d.device_id = k.device_id
JOIN dispatch r ON r.workspace_id = $1 AND r.id = d.dispatch_id WHERE d.workspace_id = $1
"""
)
# A page by (dispatch, profile, device), which is the primary key, within the dispatches of one campaign.
PAGE = (
    COLUMNS
    + """
FROM dispatch r JOIN delivery d ON d.dispatch_id = r.id
WHERE r.workspace_id = $1 AND r.campaign_id = $2 AND d.workspace_id = $1 AND r.kind = $3
  AND (d.dispatch_id, d.profile_id, d.device_id) > ($4, $5, $6) AND ($7::text[] IS NULL OR d.state = ANY($7))
  AND ($9::text[] IS NULL OR d.reason = ANY($9)) AND ($7::text[] IS DISTINCT FROM ARRAY['in_doubt'] OR d.doubtful)
  AND ($10::int IS NULL OR d.profile_id = $10)
ORDER BY d.dispatch_id, d.profile_id, d.device_id LIMIT $8
"""
)


@dataclass(frozen=True, slots=True)
class DeliveryKey:
    """What names one message: its dispatch, profile and device (0 for email)."""

    dispatch_id: UUID
    profile_id: int
    device_id: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row of the ledger."""

    dispatch_id: UUID
    profile_id: int
    device_id: int
    state: DeliveryState
    reason: str | None
    detail: str | None
    attempt: int
    not_before: datetime | None
    message_id: str | None
    first_attempt_at: datetime | None
    sent_at: datetime | None
    provider_id: str | None
    updated_at: datetime
    kind: DispatchKind
    campaign_id: UUID

    @property
    def key(self) -> DeliveryKey:
        return DeliveryKey(self.dispatch_id, self.profile_id, self.device_id)


START = DeliveryKey(UUID(int=0), 0, -1)


async def page(
    workspace_id: UUID,
    campaign_id: UUID,
    *,
    limit: int,
    after: DeliveryKey = START,
    states: tuple[DeliveryState, ...] | None = None,
    reasons: Collection[str] | None = None,
    profile_id: int | None = None,
    kind: DispatchKind = DispatchKind.SEND,
) -> list[Delivery]:
    """Up to `limit` (101 at most) messages of a campaign after `after`, in order of profile; only those in one of
    `states`, with one of `reasons`, or to `profile_id`, where they are given."""
    wanted = [state.value for state in states] if states is not None else None
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(
            PAGE,
            workspace_id,
            campaign_id,
            kind.value,
            after.dispatch_id,
            after.profile_id,
            after.device_id,
            wanted,
            min(limit, MOST + 1),
            None if reasons is None else list(reasons),
            profile_id,
        )
    return [to_delivery(row) for row in rows]


async def load(workspace_id: UUID, keys: list[DeliveryKey]) -> dict[DeliveryKey, Delivery]:
    """Messages by key; unknown ones are left out. At most 100 keys."""
    some = keys[:MOST]
    async with transaction(workspace_id) as connection:
        rows = await connection.fetch(
            BY_KEY,
            workspace_id,
            [key.dispatch_id for key in some],
            [key.profile_id for key in some],
            [key.device_id for key in some],
        )
    return {one.key: one for one in map(to_delivery, rows)}


def to_delivery(row: Mapping[str, Any]) -> Delivery:
    return Delivery(**{**row, "state": DeliveryState(row["state"]), "kind": DispatchKind(row["kind"])})
