"""Whom an email campaign comes from."""

from dataclasses import dataclass
from uuid import UUID

from campaigns.errors import CampaignError
from campaigns.mime import SenderInfo
from campaigns.models import Campaign, Sender
from campaigns.tracking import Tracking
from db.rows import to_model
from db.transactions import Connection, transaction
from profiles.addresses import clean_email
from profiles.errors import ProfileError

INSERT = """
INSERT INTO sender (workspace_id, brand_id, from_name, from_address, reply_to, postal_address)
VALUES ($1, $2, $3, $4, $5, $6) RETURNING *
"""
BRAND_EXISTS = "SELECT EXISTS (SELECT 1 FROM brand WHERE workspace_id = $1 AND id = $2)"
# A workspace's settings and a campaign's sender, which it may not have.
ORIGIN = """
SELECT w.approval_above, w.track_opens, w.track_clicks, s.id AS sender_id, s.from_name, s.from_address, s.reply_to,
  s.postal_address
FROM workspace w LEFT JOIN sender s ON s.workspace_id = w.id AND s.id = $2 WHERE w.id = $1
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a dispatch depends on beside its campaign and whom it goes to."""

    sender: SenderInfo | None
    """None: the campaign has none."""
    tracking: Tracking
    approval_above: int | None
    """To how many people it may go without a second person's approval; None: any number."""


@dataclass(frozen=True, slots=True)
class SenderInput:
    from_name: str
    from_address: str
    postal_address: str
    reply_to: str | None = None
    brand_id: UUID | None = None


async def create(workspace_id: UUID, wanted: SenderInput) -> Sender:
    """A new sender. Raises CampaignError with the field when an address is none or a text is empty."""
    from_name, postal = wanted.from_name.strip(), wanted.postal_address.strip()
    if not from_name or len(from_name) > 200 or any(ord(letter) < 32 for letter in from_name):
        raise CampaignError("INVALID_NAME", "Give a name of 1 to 200 characters on one line.", field=("from_name",))
    if not postal or len(postal) > 500:
        message = "Give the postal address that mails must show, at most 500 characters."
        raise CampaignError("POSTAL_ADDRESS_MISSING", message, field=("postal_address",))
    from_address = address("from_address", wanted.from_address)
    reply_to = address("reply_to", wanted.reply_to) if wanted.reply_to else None
    async with transaction(workspace_id) as connection:
        if wanted.brand_id and not await connection.fetchval(BRAND_EXISTS, workspace_id, wanted.brand_id):
            raise CampaignError("NOT_FOUND", "There is no such brand in this workspace.", field=("brand_id",))
        row = await connection.fetchrow(
            INSERT, workspace_id, wanted.brand_id, from_name, from_address, reply_to, postal
        )
        return to_model(Sender, row)


def address(field: str, text: str) -> str:
    """A clean email address; raises CampaignError naming `field`."""
    try:
        return clean_email(text)
    except ProfileError as refusal:
        raise CampaignError(refusal.code, refusal.message, field=(field,)) from refusal


async def origin_of(connection: Connection, campaign: Campaign) -> Origin:
    """What a dispatch of this campaign depends on, as it is now."""
    row = await connection.fetchrow(ORIGIN, campaign.workspace_id, campaign.sender_id)
    sender = None
    if row["sender_id"] is not None:
        sender = SenderInfo(row["from_name"], row["from_address"], row["reply_to"], row["postal_address"])
    return Origin(sender, Tracking(row["track_opens"], row["track_clicks"]), row["approval_above"])


async def list_senders(workspace_id: UUID) -> list[Sender]:
    """The workspace's senders, newest first, at most 100."""
    async with transaction(workspace_id):
        return await Sender.filter(workspace_id=workspace_id).order_by("-id").limit(100)


async def load(workspace_id: UUID, ids: list[UUID]) -> dict[UUID, Sender]:
    """Senders by id; unknown ids are left out. At most 100 ids."""
    async with transaction(workspace_id):
        return {s.id: s for s in await Sender.filter(workspace_id=workspace_id, id__in=ids[:100])}
