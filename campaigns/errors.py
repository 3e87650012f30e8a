"""What campaigns refuse, and why."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from db.errors import MusterError

if TYPE_CHECKING:  # at run time templates do without a database, so that app/proofreader.py starts fast
    from campaigns.models import Campaign, CampaignStatus


class CampaignError(MusterError):
    """Base of this package's refusals."""


class CampaignNotFound(CampaignError):
    def __init__(self) -> None:
        super().__init__("NOT_FOUND", "There is no such campaign in this workspace.", field=("id",))


class IllegalMove(CampaignError):
    """The campaign's state does not allow it."""

    def __init__(self, campaign: "Campaign", to: "CampaignStatus", allowed: "Sequence[CampaignStatus]") -> None:
        where = (
            f"A campaign that is {campaign.status} can go to {', '.join(allowed)}"
            if allowed
            else (f"A campaign that is {campaign.status} stays so; duplicate it to start anew")
        )
        super().__init__("ILLEGAL_MOVE", f"{where}; not to {to}.", field=("id",))


class TargetError(CampaignError):
    """A segment cannot be sent to, or spared, as it stands."""


class RenderError(CampaignError):
    """One recipient's message could not be made; the others are not affected."""
