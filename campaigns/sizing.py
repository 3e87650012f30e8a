"""Whether the mail server takes messages of the size that a campaign's will have, asked before the first one leaves.

The server says its limit in its greeting (RFC 1870); found out message by message, each would cost a recipient.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pyroaring import BitMap

from campaigns.carrier import Carrier, EmailRun
from campaigns.emails import Recipient
from campaigns.errors import CampaignError, RenderError
from campaigns.links import TrackedLink
from db.transactions import Connection

LOOKED_AT = 1_000
"""Profiles of the audience, spread over it, of which the largest are taken."""
MADE = 5
"""Messages that are really made, of those with most to say: 5 of 10 KB take a millisecond."""
HEAVIEST = """
SELECT p.id, p.external_id, p.email, p.traits, p.locale, p.time_zone, p.country, p.city FROM profile p
WHERE p.workspace_id = $1 AND p.id = ANY($2::int[]) AND p.email IS NOT NULL
ORDER BY pg_column_size(p.traits) DESC, p.id LIMIT $3
"""
ANY_LINK_ID = 1
"""Of links that have no row yet: their tokens are equally long, whatever they name."""


async def require_fits(
    connection: Connection, run: EmailRun, audience: BitMap, *, carrier: Carrier, largest: int, now: datetime
) -> None:
    """Raise CampaignError MESSAGE_TOO_LARGE with both numbers when a message of the audience would be refused.

    `largest`: bytes of a finished message that the mail server takes.
    """
    step = max(1, len(audience) // LOOKED_AT)
    people = await connection.fetch(HEAVIEST, run.workspace_id, list(audience[::step]), MADE)
    size, profile_id = await asyncio.to_thread(largest_of, run, people, carrier, now)
    if size > largest:
        message = (
            f"The message to profile {profile_id} has {size:,} bytes, and the mail server takes {largest:,};"
            " raise the server's limit and resume, or cancel and send a copy that is shorter."
        )
        raise CampaignError("MESSAGE_TOO_LARGE", message, field=("content",))


def largest_of(run: EmailRun, people: Sequence[Any], carrier: Carrier, now: datetime) -> tuple[int, int]:
    """Bytes of the largest message to one of `people` (rows of HEAVIEST), and whose it is; 0 without anybody."""
    links = run.links or tuple(TrackedLink(ANY_LINK_ID, url is None) for url in run.content.tracked_urls)
    sizes = [(0, 0)]
    for one in people:
        person = dict(one)
        profile_id: int = person.pop("id")
        name = f"{run.dispatch_id.hex}.{profile_id}.0"
        try:
            data = run.content.render(
                Recipient(**person),
                message_id=f"<{name}@{run.message_id_domain}>",
                sent_at=now.replace(microsecond=0),
                unsubscribe_url=carrier.unsubscribe_url(run.workspace_id, profile_id, run.campaign_id),
                delivery_key=name,
                links=carrier.tracked_urls(links, profile_id),
                test=run.test,
            )
        except RenderError:
            continue  # fails alone when its turn comes
        sizes.append((len(data), profile_id))
    return max(sizes)
