"""When a banner is held back from somebody it is for: priorities, holdouts and limits. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from campaigns.errors import CampaignError
from campaigns.rotation import draw

HIGHEST_PRIORITY = 100
MOST_TIMES = 10_000
HOLDOUT = "holdout"
"""Stands where a placement's key would. A placement of that name does no harm: its window 0 was in 1970."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How often one viewer sees a banner, or those of a placement; None: however often. Days are those of UTC."""

    per_session: int | None = None
    """Sessions are the app's, and so is keeping to this."""
    per_day: int | None = None
    lifetime: int | None = None
    stop_after_click: bool = False
    stop_after_dismissal: bool = False

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """What `to_json` made; what is left out has its default."""
        return cls(**{one.name: kept[one.name] for one in fields(cls) if one.name in kept})

    def to_json(self) -> dict[str, Any]:
        """What a row keeps of them."""
        return asdict(self)

    def check(self, *, field: tuple[str, ...]) -> None:
        """Raises CampaignError OUT_OF_RANGE, naming the limit below `field`."""
        for name in ("per_session", "per_day", "lifetime"):
            times = getattr(self, name)
            if times is not None and not 1 <= times <= MOST_TIMES:
                message = f"A limit is 1 to {MOST_TIMES:,} times; leave it out for none."
                raise CampaignError("OUT_OF_RANGE", message, field=(*field, name))


UNLIMITED = Limits()
UNTIL_DISMISSED = Limits(stop_after_dismissal=True)
"""Of a banner that nobody thought about: nobody likes to wave the same one away twice."""


@dataclass(frozen=True, slots=True)
class BannerRules:
    """What decides beside weight and audience."""

    priority: int = 0
    """0 to 100. Where several banners could be shown, those of lower priority are not."""
    holdout_percent: int = 0
    """Of 100 viewers, so many never see it, to compare them with the others."""
    limits: Limits = UNTIL_DISMISSED

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """What `to_json` made; what is left out has its default."""
        limits = kept.get("limits")
        return cls(
            priority=kept.get("priority", 0),
            holdout_percent=kept.get("holdout_percent", 0),
            limits=UNTIL_DISMISSED if limits is None else Limits.from_json(limits),
        )

    def to_json(self) -> dict[str, Any]:
        """What a campaign's row keeps of them."""
        return asdict(self)

    def check(self) -> None:
        """Raises CampaignError OUT_OF_RANGE, naming the field below `rules`."""
        if not 0 <= self.priority <= HIGHEST_PRIORITY:
            message = f"A priority is 0 to {HIGHEST_PRIORITY}."
            raise CampaignError("OUT_OF_RANGE", message, field=("rules", "priority"))
        if not 0 <= self.holdout_percent <= 100:
            message = "A holdout is 0 to 100 per cent of the viewers."
            raise CampaignError("OUT_OF_RANGE", message, field=("rules", "holdout_percent"))
        self.limits.check(field=("rules", "limits"))


PLAIN = BannerRules()
"""Of a banner that nobody gave any."""


def is_held_out(rules: BannerRules, *, viewer: str, campaign_id: str) -> bool:
    """Whether a viewer is among those who never see this campaign's banner; always the same answer.

    The draw of docs/rotation.md with "holdout" for the placement and window 0, so that an app without network knows as
    well. A larger percentage holds out those of a smaller one and more.
    """
    if not rules.holdout_percent:
        return False
    return draw(viewer=viewer, placement=HOLDOUT, window=0, id=campaign_id) * 100 < rules.holdout_percent
