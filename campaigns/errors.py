"""What campaigns refuse, and why."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from db.errors import MusterError

if TYPE_CHECKING:  # at run time templates do without a database, so that app/proofreader.py starts fast
    from campaigns.models import Campaign, CampaignStatus


class CampaignError(MusterError):
    """Base of this package's refusals."""


WAYS = {
    "PENDING_APPROVAL": "submit it for approval",
    "SCHEDULED": "schedule it",
    "PREPARING": "send it",
    "ACTIVE": "send it",
    "DRAFT": "unschedule it",
    "PAUSED": "pause it",
    "CANCELLED": "cancel it",
}
"""What people call a move to a status; moves to others are made by the workers."""
WAYS_FROM = {
    "PENDING_APPROVAL": {"SCHEDULED": "approve it", "DRAFT": "reject it"},
    "SCHEDULED": {way: WAYS[way] for way in ("PREPARING", "ACTIVE", "DRAFT", "CANCELLED")},
    "PAUSED": {"PREPARING": "resume it", "ACTIVE": "resume it", "CANCELLED": "cancel it"},
    "CANCELLED": {"ACTIVE": "reactivate it"},
}
"""Where a move is called otherwise, or fewer are made by people."""


class CampaignNotFound(CampaignError):
    def __init__(self, *, field: str = "id") -> None:
        super().__init__("NOT_FOUND", "There is no such campaign in this workspace.", field=(field,))


class IllegalMove(CampaignError):
    """The campaign's state does not allow it; the message names what people can do with it instead."""

    def __init__(self, campaign: "Campaign", to: "CampaignStatus", allowed: "Sequence[CampaignStatus]") -> None:
        where, ways = campaign.status, WAYS_FROM.get(campaign.status, WAYS)
        *others, last = [way for status, way in ways.items() if status in allowed] or ["duplicate it to start anew"]
        state = f"The campaign is {where} already" if where is to else f"A campaign that is {where} cannot become {to}"
        instead = f"{', '.join(others)} or {last}" if others else last
        super().__init__("ILLEGAL_MOVE", f"{state}; you can {instead}.", field=("id",))


class TargetError(CampaignError):
    """A segment cannot be sent to, or spared, as it stands."""


class RenderError(CampaignError):
    """One recipient's message could not be made; the others are not affected."""
