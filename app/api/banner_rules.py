"""When a banner is held back from somebody it is for: priorities, holdouts and limits."""

from app.api.declare import about, input_type, output
from campaigns import banner_rules
from campaigns.banner_rules import UNTIL_DISMISSED

PER_SESSION = "Times that one viewer sees it in a session of the app, which keeps to this; null: however often."
PER_DAY = "Times that one viewer sees it on a day of UTC; null: however often."
LIFETIME = "Times that one viewer sees it at all; null: however often."
PRIORITY = "0 to 100. Where several banners could be shown to a viewer, those of lower priority are not."
HOLDOUT = "Per cent of the viewers, always the same ones, who never see it, to compare them with the others."


@output
class BannerLimits:
    """How often one viewer sees a banner, or banners of a placement."""

    per_session: int | None = about(PER_SESSION)
    per_day: int | None = about(PER_DAY)
    lifetime: int | None = about(LIFETIME)
    stop_after_click: bool = about("Whether a viewer who clicked it sees it no more.")
    stop_after_dismissal: bool = about("Whether a viewer who dismissed it sees it no more.")

    @classmethod
    def of(cls, row: banner_rules.Limits) -> "BannerLimits":
        return cls(
            per_session=row.per_session,
            per_day=row.per_day,
            lifetime=row.lifetime,
            stop_after_click=row.stop_after_click,
            stop_after_dismissal=row.stop_after_dismissal,
        )


@output
class BannerRules:
    """What decides who sees a banner, beside its weight and its segments."""

    priority: int = about(PRIORITY)
    holdout_percent: int = about(HOLDOUT)
    limits: BannerLimits = about("How often one viewer sees it.")

    @classmethod
    def of(cls, row: banner_rules.BannerRules) -> "BannerRules":
        return cls(priority=row.priority, holdout_percent=row.holdout_percent, limits=BannerLimits.of(row.limits))


@input_type
class BannerLimitsInput:
    """How often one viewer sees a banner, or banners of a placement: 1 to 10,000 times."""

    per_session: int | None = about(PER_SESSION, default=None)
    per_day: int | None = about(PER_DAY, default=None)
    lifetime: int | None = about(LIFETIME, default=None)
    stop_after_click: bool = about("Whether a viewer who clicked it sees it no more.", default=False)
    stop_after_dismissal: bool | None = about(
        "Whether a viewer who dismissed it sees it no more; left out: yes for a banner, no for a whole placement.",
        default=None,
    )


@input_type
class BannerRulesInput:
    """What decides who sees a banner, beside its weight and its segments."""

    priority: int = about(PRIORITY, default=0)
    holdout_percent: int = about(HOLDOUT, default=0)
    limits: BannerLimitsInput | None = about(
        "How often one viewer sees it; left out: until it is dismissed.", default=None
    )


def to_limits(wanted: BannerLimitsInput, *, stop_after_dismissal: bool) -> banner_rules.Limits:
    """The use case's limits; `stop_after_dismissal` is what holds when nobody says."""
    return banner_rules.Limits(
        per_session=wanted.per_session,
        per_day=wanted.per_day,
        lifetime=wanted.lifetime,
        stop_after_click=wanted.stop_after_click,
        stop_after_dismissal=(
            stop_after_dismissal if wanted.stop_after_dismissal is None else wanted.stop_after_dismissal
        ),
    )


def to_rules(wanted: BannerRulesInput) -> banner_rules.BannerRules:
    """The use case's rules. Nothing is checked here: the domain does."""
    return banner_rules.BannerRules(
        priority=wanted.priority,
        holdout_percent=wanted.holdout_percent,
        limits=(UNTIL_DISMISSED if wanted.limits is None else to_limits(wanted.limits, stop_after_dismissal=True)),
    )
