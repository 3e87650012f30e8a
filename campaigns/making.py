"""Makes the mails of a dispatch: for each recipient who was taken one that may leave, or why there is none."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from campaigns.answers import EmailReady, unsent
from campaigns.carrier import Carrier, EmailRun
from campaigns.claims import Taken
from campaigns.emails import Recipient
from campaigns.errors import RenderError
from campaigns.intents import Intent
from campaigns.ledger import Result
from campaigns.models import DeliveryState
from campaigns.reasons import SkipReason
from channels.base import EmailMessage

AT_ONCE = 50
"""Messages made without a break, about 3 ms; heartbeats and answers come between."""


@dataclass(slots=True)
class Unmade:
    """Those of whom there is no message."""

    settled: list[Result] = field(default_factory=list)
    """What the ledger is to say of them."""
    refusals: list[tuple[int, RenderError]] = field(default_factory=list)
    """By profile, why it could not be made."""


async def make(
    run: EmailRun, carrier: Carrier, taken: Sequence[Taken], *, now: datetime, keep: Callable[[EmailReady], None]
) -> Unmade:
    """Give each message to `keep` as soon as it is made; answers whose could not be, each settled alone."""
    unmade = Unmade()
    for place, one in enumerate(taken, 1):
        if place % AT_ONCE == 0:
            await asyncio.sleep(0)
        if one.email is None:
            reason = SkipReason.ERASED if one.erased else SkipReason.NO_ADDRESS
            unmade.settled.append(unsent(one, DeliveryState.SKIPPED, reason))
            continue
        sent_at = one.first_attempt_at or now.replace(microsecond=0)
        key = key_of(run.dispatch_id, one)
        try:
            data = run.content.render(
                Recipient.of(one),
                message_id=f"<{key}@{run.message_id_domain}>",
                sent_at=sent_at,
                unsubscribe_url=carrier.unsubscribe_url(run.workspace_id, one.person_id, run.campaign_id),
                delivery_key=key,
                links=carrier.tracked_urls(run.links, one.profile_id),
                test=run.test,
            )
        except RenderError as refusal:
            unmade.settled.append(unsent(one, DeliveryState.FAILED, refusal.code, refusal.message))
            unmade.refusals.append((one.profile_id, refusal))
            continue
        intent = Intent(one.profile_id, one.device_id, one.fence, sent_at, one.email_hash)
        keep(EmailReady(one, intent, EmailMessage(run.envelope_sender, one.email, data, key)))
    return unmade


def key_of(dispatch_id: UUID, one: Taken) -> str:
    """What names a message everywhere: dispatch, profile, device."""
    return f"{dispatch_id.hex}.{one.profile_id}.{one.device_id}"
