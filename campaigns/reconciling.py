"""Messages in doubt, looked up in what the provider has recorded of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from campaigns import lifecycle, reasons, resolving
from campaigns.deliveries import MESSAGE_ID
from campaigns.resolving import Doubt, Resolution
from channels.base import Evidence, Reconciler
from db.transactions import transaction

BATCH = 500
AT_ONCE = 16
"""Questions to the provider's record at the same time."""

# Rows in doubt of the real send, by key. `at_rest`: nothing of theirs can be under way any more.
DOUBTS = f"""
SELECT d.profile_id, d.device_id, d.fence, {MESSAGE_ID} AS message_id, d.updated_at <= now() - $6::interval AS at_rest
FROM dispatch r JOIN delivery d ON d.dispatch_id = r.id
WHERE r.workspace_id = $1 AND r.campaign_id = $2 AND r.kind = 'SEND' AND d.workspace_id = $1 AND d.doubtful
  AND (d.profile_id, d.device_id) > ($3, $4) ORDER BY d.profile_id, d.device_id LIMIT $5
"""
BY = "the mail server's record"


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Messages that were in doubt, by what the record says of them."""

    sent: int
    not_sent: int
    """Pending again."""
    unknown: int
    """In doubt as before: the record does not know, or it is too early to say that it lacks the message."""


async def reconcile(
    workspace_id: UUID, campaign_id: UUID, *, reconciler: Reconciler, under_way: timedelta, now: datetime
) -> Reconciled:
    """Settle the messages of a campaign that are in doubt by the provider's record, some hundred at a time.

    What the record lacks is sent again, unless the campaign was cancelled or has expired: then it is skipped. But not
    before it has been in doubt for `under_way`, as long as a message may be on its way (MUSTER_SEND_TIMEOUT_S): a
    worker whose lease has ended may be alive, and the message that it began before that may arrive yet. Each
    batch is a transaction; one that a worker settles meanwhile is left alone. Raises what `reconciler` raises, with
    what was settled before kept.
    """
    sent = not_sent = unknown = 0
    after = (0, -1)
    while True:
        async with transaction(workspace_id) as connection:
            rows = await connection.fetch(DOUBTS, workspace_id, campaign_id, *after, BATCH, under_way)
        if not rows:
            return Reconciled(sent, not_sent, unknown)
        after = (rows[-1]["profile_id"], rows[-1]["device_id"])
        found = await look_up(reconciler, [row["message_id"] for row in rows])
        said: dict[Evidence, list[Doubt]] = {evidence: [] for evidence in Evidence}
        for row, evidence in zip(rows, found, strict=True):
            believed = evidence if evidence is not Evidence.NOT_SENT or row["at_rest"] else Evidence.UNKNOWN
            said[believed].append(Doubt(row["profile_id"], row["device_id"], row["fence"]))
        sent += await settle(workspace_id, campaign_id, Resolution.SENT, said[Evidence.SENT], now=now)
        not_sent += await settle(workspace_id, campaign_id, Resolution.RETRY, said[Evidence.NOT_SENT], now=now)
        unknown += len(said[Evidence.UNKNOWN])


async def look_up(reconciler: Reconciler, message_ids: Sequence[str]) -> list[Evidence]:
    """What the record says, in the order asked."""
    free = asyncio.Semaphore(AT_ONCE)

    async def find(message_id: str) -> Evidence:
        async with free:
            return await reconciler.find(message_id)

    return await asyncio.gather(*(find(one) for one in message_ids))


async def settle(
    workspace_id: UUID, campaign_id: UUID, resolved_as: Resolution, doubts: Sequence[Doubt], *, now: datetime
) -> int:
    """Settle these; answers how many were in doubt still."""
    if not doubts:
        return 0
    async with transaction(workspace_id) as connection:
        campaign = await lifecycle.get_locked(workspace_id, campaign_id)
        messages = await resolving.settle(
            connection, campaign, resolved_as=resolved_as, reason=reasons.RECONCILED, now=now, meant=doubts
        )
        if messages:
            await resolving.note(connection, campaign, resolved_as, messages, resolved_by=BY, now=now)
    return messages
