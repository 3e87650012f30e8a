"""Approval by a second person: when a campaign needs one, who asked, who gave it, and whether it still holds.

A workspace may say that messages to more than so many people need it (`approvalAbove`). How many they are is the
audience of the dry run: everybody in the segments, with or without an address. Banners are no sends.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from campaigns import audience, lifecycle
from campaigns.audience import TargetedSegments
from campaigns.errors import CampaignError, TargetError
from campaigns.models import Campaign, CampaignChannel, CampaignStatus
from campaigns.reasons import PauseReason
from db.transactions import Connection
from profiles.keys import Actor

S = CampaignStatus
EDITED = "EDITED"
"""`statusReason` of a draft that was submitted, and then edited."""
MOST_GROWTH = 1.1
"""Of what was approved: segments move by the hour, and nobody is to be asked again for that; but one that was
redefined afterwards is another audience, however large."""

ABOVE = "SELECT approval_above FROM workspace WHERE id = $1"
# How its segments are defined, those among it that they refer to: another text after each change of one.
DEFINITIONS = """
WITH RECURSIVE used AS (
  SELECT segment_id AS id FROM campaign_segment WHERE workspace_id = $1 AND campaign_id = $2
  UNION
  SELECT r.uses_id FROM used JOIN segment_reference r ON r.workspace_id = $1 AND r.segment_id = used.id)
SELECT md5(string_agg(s.id || ' ' || s.definition_version, ',' ORDER BY s.id))
FROM used JOIN segment s ON s.workspace_id = $1 AND s.id = used.id
"""


class ApprovalMissing(CampaignError):
    """It goes to more people than may be without a second person's approval."""

    def __init__(self, facts: str) -> None:
        mend = (
            "Submit it with campaignSubmitForApproval (a scheduled one after campaignUnschedule), and have somebody"
            " else approve it (campaignApprove)."
        )
        super().__init__(PauseReason.APPROVAL_MISSING, f"{facts} {mend}", field=("id",))
        self.held = f"{facts} Have somebody else approve it (campaignApprove), then resume it."
        """What to say of a campaign that was started by the clock, and waits."""


@dataclass(frozen=True, slots=True)
class Word:
    """What somebody said: that they want a campaign sent, or that it may be."""

    by: Actor
    at: datetime
    audience: int | None
    """To how many people, then; None: segments were not evaluated yet."""
    definitions: str | None = None
    """How its segments were defined when it was approved (`definitions`)."""

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.by.id,
            "label": self.by.label,
            "at": self.at.isoformat(),
            "audience": self.audience,
            "definitions": self.definitions,
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Word":
        actor, at = Actor(kept["id"], kept["label"]), datetime.fromisoformat(kept["at"])
        return cls(actor, at, kept["audience"], kept["definitions"])


@dataclass(frozen=True, slots=True)
class Approval:
    """What is known of a campaign's approval."""

    submitted: Word | None
    """Who asked for it, or who sent or scheduled the campaign while it needed none, or edited it after that; None:
    nobody knows."""
    approved: Word | None = None

    @classmethod
    def of(cls, campaign: Campaign) -> "Approval | None":
        """A campaign's; None when nobody asked, or it was edited since."""
        kept = campaign.approval
        if kept is None:
            return None
        submitted, approved = (Word.from_json(one) if one else None for one in (kept["submitted"], kept["approved"]))
        return cls(submitted, approved)

    def to_json(self) -> dict[str, Any]:
        """As a campaign's row keeps it."""
        return {
            "submitted": self.submitted and self.submitted.to_json(),
            "approved": self.approved and self.approved.to_json(),
        }

    @property
    def revision(self) -> str:
        """Another text after each submission and edit, so that nobody approves something else than they read."""
        word = self.submitted
        return sha256(f"{word.by.id} {word.at.isoformat()}".encode() if word else b"").hexdigest()[:16]

    def covers(self, people: int) -> bool:
        """Whether it was approved for so many."""
        approved = self.approved.audience if self.approved else None
        return approved is not None and people <= approved * MOST_GROWTH


def note(campaign: Campaign, *, by: Actor | None, now: datetime) -> None:
    """Say who sends or schedules a campaign without approval: should it turn out to need one, that must come from
    somebody else. It is written with what is done (`lifecycle.write`)."""
    given = Approval.of(campaign)
    if by is not None and campaign.channel is not CampaignChannel.BANNER and not (given and given.approved):
        campaign.approval = Approval(Word(by, now, None)).to_json()


async def withdraw(connection: Connection, campaign: Campaign, *, by: Actor | None, now: datetime) -> None:
    """Take back what was submitted or approved, since `by` edited the locked campaign: it is a draft again. One that
    was scheduled without needing approval stays so, and is looked at when it starts: from then on it is what the editor
    wants sent, and they cannot approve it."""
    given = Approval.of(campaign)
    if campaign.status is S.SCHEDULED and not (given and given.approved):
        note(campaign, by=by, now=now)
        await lifecycle.write(connection, campaign, now=now)
        return
    if given is None:
        return
    campaign.approval = campaign.scheduled_at = None
    if campaign.status is S.DRAFT:
        await lifecycle.write(connection, campaign, now=now)
        return
    detail = "It was edited after it had been submitted or approved; submit it again."
    await lifecycle.move(connection, campaign, S.DRAFT, now=now, reason=EDITED, detail=detail)


async def people_now(connection: Connection, campaign: Campaign, targeted: TargetedSegments) -> int | None:
    """To how many people in its usable segments it would go now, as the dry run says; None while segments that are
    evaluated before a start never were. Raises TargetError."""
    try:
        ids = await audience.resolve(
            connection, targeted, workspace_id=campaign.workspace_id, brand_id=campaign.brand_id
        )
    except TargetError as refusal:
        if refusal.code == "SEGMENT_NOT_EVALUATED" and campaign.refresh_before:
            return None
        raise
    return len(ids)


async def definitions(connection: Connection, campaign: Campaign) -> str:
    """How its segments are defined now: another text after a change of one, or of one that they refer to."""
    return str(await connection.fetchval(DEFINITIONS, campaign.workspace_id, campaign.id))


async def require(connection: Connection, campaign: Campaign, *, targeted: TargetedSegments | None = None) -> None:
    """Like `require_for` the people to whom it would go now; `targeted` are its usable segments, where they are known
    already. Raises TargetError too."""
    if campaign.channel is CampaignChannel.BANNER:
        return
    above: int | None = await connection.fetchval(ABOVE, campaign.workspace_id)
    if above is None:
        return
    targeted = targeted or await audience.usable(connection, campaign)
    people = await people_now(connection, campaign, targeted)
    # Where nobody knows yet it is looked at again when the audience is frozen.
    if people is not None:
        await require_for(connection, campaign, people, above=above)


async def require_for(connection: Connection, campaign: Campaign, people: int, *, above: int | None) -> None:
    """Raise ApprovalMissing when it goes to more people than may be without approval (None: any number), and has none
    for so many, or for segments that were redefined since."""
    if above is None or people <= above:
        return
    given = Approval.of(campaign)
    facts = f"It goes to {people:,} people, and above {above:,} a second person has to approve."
    if given is not None and given.approved is not None:
        redefined = given.approved.definitions != await definitions(connection, campaign)
        if not redefined and given.covers(people):
            return
        if redefined:
            facts += " One of its segments was redefined since it was approved."
        facts += f" It was approved for {given.approved.audience:,}."
    raise ApprovalMissing(facts)
