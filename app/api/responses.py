"""Opens and clicks as clients see them: of a campaign, its links and each message. Machines are marked, not counted."""

from datetime import datetime

from app.api.declare import about, output
from app.api.enums import DeliveryEventKind
from campaigns.responses import DeliveryEvent as EventRow
from campaigns.responses import LinkClicks, Responses


@output
class CampaignResponses:
    """What people did with the mails of a campaign. Machines, such as filters that follow every link, are left out."""

    opens: int = about("How often mails were opened, as far as mail programs tell.")
    unique_opens: int = about("People who opened theirs at least once.")
    clicks: int = about("How often links were followed.")
    unique_clicks: int = about("People who followed at least one.")

    @classmethod
    def of(cls, counted: Responses) -> "CampaignResponses":
        return cls(
            opens=counted.opens,
            unique_opens=counted.unique_opens,
            clicks=counted.clicks,
            unique_clicks=counted.unique_clicks,
        )


@output
class CampaignLink:
    """One tracked link of a campaign's mails."""

    url: str = about("Where it leads.")
    clicks: int = about("How often people followed it.")
    unique_clicks: int = about("People who followed it at least once.")

    @classmethod
    def of(cls, counted: LinkClicks) -> "CampaignLink":
        return cls(url=counted.url, clicks=counted.clicks, unique_clicks=counted.unique_clicks)


@output
class DeliveryEvent:
    """Something that happened to a message after it was sent."""

    kind: DeliveryEventKind = about("What happened.")
    occurred_at: datetime = about("When.")
    url: str | None = about("Of a click: where the link led.")
    by_machine: bool = about("Whether a program seems to have done it; such events count nowhere.")

    @classmethod
    def of(cls, row: EventRow) -> "DeliveryEvent":
        return cls(kind=row.kind, occurred_at=row.occurred_at, url=row.url, by_machine=row.is_by_machine)
