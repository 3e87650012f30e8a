"""The ledger as clients see it: counts, and one row a message."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry import ID

from app.api import ids, paging
from app.api.declare import about, argument, enum, looked_up, output, resolved
from app.api.enums import DispatchKind
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.paging import Connection, Edge
from app.api.profiles import Profile
from app.api.responses import DeliveryEvent
from app.context import Info
from campaigns import counts, deliveries, tallies
from campaigns.counts import Progress, Run
from campaigns.deliveries import Delivery as DeliveryRow
from campaigns.deliveries import DeliveryKey
from campaigns.models import DeliveryState
from campaigns.models import Dispatch as DispatchRow
from campaigns.reasons import explain


class DeliveryStatus(StrEnum):
    """A message's state."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    DEFERRED = "DEFERRED"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    BOUNCED = "BOUNCED"
    COMPLAINED = "COMPLAINED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    IN_DOUBT = "IN_DOUBT"


enum(
    DeliveryStatus,
    "What became of one message.",
    PENDING="Waits.",
    SENDING="Leaves now.",
    DEFERRED="The server asked to try again later.",
    SENT="The server took it.",
    DELIVERED="It arrived.",
    BOUNCED="It came back.",
    COMPLAINED="The recipient reported it as spam.",
    SKIPPED="Deliberately not sent; `reason` says why.",
    FAILED="Could not be sent; `reason` says why.",
    IN_DOUBT="May have left when a worker or connection broke; never sent again by itself.",
)

STATUSES: dict[DeliveryState, DeliveryStatus] = {
    DeliveryState.PENDING: DeliveryStatus.PENDING,
    DeliveryState.SENDING: DeliveryStatus.SENDING,
    DeliveryState.DEFERRED: DeliveryStatus.DEFERRED,
    DeliveryState.SENT: DeliveryStatus.SENT,
    DeliveryState.DELIVERED: DeliveryStatus.DELIVERED,
    DeliveryState.BOUNCED: DeliveryStatus.BOUNCED,
    DeliveryState.COMPLAINED: DeliveryStatus.COMPLAINED,
    DeliveryState.SKIPPED: DeliveryStatus.SKIPPED,
    DeliveryState.FAILED: DeliveryStatus.FAILED,
    DeliveryState.IN_DOUBT: DeliveryStatus.IN_DOUBT,
}


@output
class ReasonCount:
    """Messages of one status that have the same reason."""

    key: strawberry.Private[DeliveryKey]
    status: DeliveryStatus = about("What became of them.")
    reason: str = about("The reason, for programs.")
    explanation: str = about("What the reason means.")
    messages: int = about("How many.")
    last_at: datetime = about("When the newest of them came to it.")

    @classmethod
    def of(cls, row: tallies.ReasonCount) -> "ReasonCount":
        return cls(
            key=row.example,
            status=STATUSES[row.state],
            reason=row.reason,
            explanation=row.explanation,
            messages=row.messages,
            last_at=row.last_at,
        )

    @looked_up
    async def example(self, info: Info) -> "Delivery | None":
        """The newest of them when they were counted; its `detail` has the words of the mail server."""
        row = await info.context.loaders.deliveries.load(self.key)
        return Delivery.of(row) if row else None


@output
class CampaignProgress:
    """Where the messages are, as counted at most about a second ago, or longer for more than some 200,000 messages.

    `audience` is `noAddress` and all states together, once `plannedAt` is set.
    """

    audience: int = about("Profiles the audience was frozen with.")
    planned_at: datetime | None = about(
        "When every message was listed and sending could begin; until then the counts still grow."
    )
    no_address: int = about("Profiles without an address for the channel.")
    pending: int = about("Messages that wait.")
    sending: int = about("Messages that leave now.")
    deferred: int = about("Messages the server asked to try again later.")
    sent: int = about("Messages the server took, of which nothing more is known.")
    delivered: int = about("Messages that arrived.")
    bounced: int = about("Messages that came back.")
    complained: int = about("Messages reported as spam.")
    skipped: int = about("Messages deliberately not sent.")
    failed: int = about("Messages that could not be sent.")
    in_doubt: int = about("Messages of which nobody knows whether they left.")
    finished_at: datetime | None = about("When the last message was settled; null while some are open.")
    counted_at: datetime = about("When all this was so.")
    messages_per_second: float = about("How many left in a second, over the last half minute or since it went on.")
    ends_at: datetime | None = about("When the last will have left, at that speed; null while nobody can tell.")
    stalled_since: datetime | None = about("Since when nothing moves though something should; null when all is well.")
    next_attempt_at: datetime | None = about("When the first deferred message is tried again.")
    reasons: list[ReasonCount] = about("Messages that have a reason, by status and reason, the most frequent first.")
    last_errors: list[ReasonCount] = about("What failed, was deferred or is in doubt, the latest first; at most 10.")

    @classmethod
    def of(cls, row: Progress) -> "CampaignProgress":
        return cls(
            audience=row.audience,
            planned_at=row.planned_at,
            no_address=row.no_address,
            pending=row.pending,
            sending=row.sending,
            deferred=row.deferred,
            sent=row.sent,
            delivered=row.delivered,
            bounced=row.bounced,
            complained=row.complained,
            skipped=row.skipped,
            failed=row.failed,
            in_doubt=row.in_doubt,
            finished_at=row.finished_at,
            counted_at=row.counted_at,
            messages_per_second=row.per_second,
            ends_at=row.ends_at,
            stalled_since=row.stalled_since,
            next_attempt_at=row.next_attempt_at,
            reasons=[ReasonCount.of(one) for one in row.reasons],
            last_errors=[ReasonCount.of(one) for one in row.last_errors],
        )


async def progress_of(info: Info, campaign_key: UUID) -> Progress | None:
    """Where the messages of a campaign are; None before its audience is frozen, and for banners."""
    runs = await info.context.loaders.runs.load((campaign_key, DispatchKind.SEND))
    return runs[0].progress if runs else None


@output
class Dispatch(Node):
    """One run of a campaign: content and audience frozen, and a ledger of its messages."""

    key: strawberry.Private[UUID]
    campaign_key: strawberry.Private[UUID]
    counted: strawberry.Private[Progress | None] = None
    kind: DispatchKind = about("What it was for.")
    content_version: int = about("Which version of the content it sends.")
    created_at: datetime = about("When it was made.")
    finished_at: datetime | None = about("When its last message was settled.")

    @classmethod
    def of(cls, row: DispatchRow | Run) -> "Dispatch":
        return cls(
            id=ids.encode(Kind.DISPATCH, row.id),
            key=row.id,
            campaign_key=row.campaign_id,
            counted=row.progress if isinstance(row, Run) else None,
            kind=row.kind,
            content_version=row.content_version,
            created_at=row.created_at,
            finished_at=row.finished_at,
        )

    @resolved
    async def progress(self, info: Info) -> CampaignProgress | None:
        """Where its messages are."""
        if self.counted is not None:
            return CampaignProgress.of(self.counted)
        if self.kind is DispatchKind.SEND:
            row = await progress_of(info, self.campaign_key)
        else:
            row = await counts.of_test(info.context.workspace_id, self.campaign_key, self.key)
        return CampaignProgress.of(row) if row else None


@output
class Delivery:
    """One message to one recipient."""

    key: strawberry.Private[DeliveryKey]
    status: DeliveryStatus = about("What became of it.")
    reason: str | None = about("Why it was skipped, failed, deferred or is in doubt, for programs.")
    explanation: str | None = about("What the reason means; null without one.")
    detail: str | None = about("What the mail server said, or why in words.")
    attempts: int = about("How often it was tried.")
    not_before: datetime | None = about("Of a deferred one: when it is tried again.")
    message_id: str | None = about("Its Message-ID, once it was tried.")
    provider_id: str | None = about("What the server calls it.")
    first_attempt_at: datetime | None = about("When it was first tried.")
    sent_at: datetime | None = about("When the server took it.")
    updated_at: datetime = about("When this row last changed.")

    @classmethod
    def of(cls, row: DeliveryRow) -> "Delivery":
        return cls(
            key=row.key,
            status=STATUSES[row.state],
            reason=row.reason,
            explanation=None if row.reason is None else explain(row.reason),
            detail=row.detail,
            attempts=row.attempt,
            not_before=row.not_before,
            message_id=row.message_id,
            provider_id=row.provider_id,
            first_attempt_at=row.first_attempt_at,
            sent_at=row.sent_at,
            updated_at=row.updated_at,
        )

    @looked_up
    async def profile(self, info: Info) -> Profile | None:
        """The recipient; null when the profile was removed."""
        from app.api.profiles import Profile

        row = await info.context.loaders.profiles.load(self.key.profile_id)
        return Profile.of(row) if row else None

    @looked_up
    async def events(self, info: Info) -> list[DeliveryEvent]:
        """Opens and clicks, newest first; the newest 100 at most. None of a test send's messages."""
        return [DeliveryEvent.of(row) for row in await info.context.loaders.message_events.load(self.key) or ()]


DeliveryStatuses = Annotated[list[DeliveryStatus] | None, argument("Only messages of one of these statuses.")]
Reasons = Annotated[list[str] | None, argument("Only messages with one of these reasons, such as SUPPRESSED.")]
Recipient = Annotated[ID | None, argument("Only messages to this profile.")]


async def delivery_page(
    info: Info,
    campaign_id: UUID,
    *,
    first: int,
    after: str | None,
    status: list[DeliveryStatus] | None,
    reason: list[str] | None,
    profile_id: ID | None,
) -> Connection[Delivery]:
    """A page of a campaign's messages."""
    states = None if status is None else tuple(state for state, shown in STATUSES.items() if shown in status)
    rows = await deliveries.page(
        info.context.workspace_id,
        campaign_id,
        limit=paging.page_size(first) + 1,
        after=deliveries.START if after is None else delivery_key(after),
        states=states,
        reasons=reason,
        profile_id=None if profile_id is None else ids.profile_id(profile_id, field="profile_id"),
    )
    edges = [
        Edge(node=Delivery.of(row), cursor=paging.cursor(row.dispatch_id, row.profile_id, row.device_id))
        for row in rows[:first]
    ]
    info_ = paging.page_info(rows, first=first, after=after, cursors=[edge.cursor for edge in edges])
    return Connection(edges=edges, page_info=info_)


def delivery_key(after: str) -> DeliveryKey:
    """The key in a cursor of `delivery_page`; raises ApiError when it is none."""
    dispatch, *numbers = paging.cursor_keys(after, 3)
    try:
        profile_id, device_id = (int(number) for number in numbers)
        key = DeliveryKey(UUID(hex=dispatch), profile_id, device_id)
    except ValueError as fault:
        raise paging.bad_cursor() from fault
    if not (0 <= profile_id <= ids.LARGEST_PROFILE_ID and 0 <= device_id <= ids.LARGEST_DEVICE_ID):
        raise paging.bad_cursor()
    return key
