"""What a resolver is given: who asks, when, and the process's wiring."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from graphql import GraphQLError
from strawberry.types import Info as StrawberryInfo

from app.api.loaders import Loaders
from app.auth import Authenticator, Caller, unauthenticated
from app.banner_writer import BannerWriter
from app.boards import Boards, Clock
from app.followed import Feeds
from app.operations import Operations
from app.rates import OperationRates
from app.reading import Prepared, Reader
from app.resources import Resources
from app.settings import Settings
from app.shares import Shares
from app.targets import Targets
from app.viewers import ViewerTokens
from campaigns.banner_tokens import ImpressionTokens
from campaigns.links import Tracker


def read_clock() -> datetime:
    """The time now, which only the edge reads."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    """What the API's process has beside the resources it shares with workers."""

    settings: Settings
    resources: Resources
    authenticator: Authenticator
    boards: Boards
    viewer_tokens: ViewerTokens
    impression_tokens: ImpressionTokens
    banner_writer: BannerWriter
    tracker: Tracker
    targets: Targets
    feeds: Feeds
    shares: Shares
    operations: Operations
    rates: OperationRates
    reader: Reader
    clock: Clock = field(default=read_clock)


@dataclass(slots=True)
class Context:
    """One request. `now` is read once, so that everything in it agrees on the time."""

    services: Services
    caller: Caller | None
    viewer_token: str | None = None
    """Header X-Muster-Viewer."""
    accept_language: str | None = None
    """Header Accept-Language."""
    user_agent: str = ""
    """Header User-Agent."""
    read: "Prepared | GraphQLError | None" = None
    """The document, if it was read before it is executed, or why it could not be."""
    idempotency_key: str | None = None
    """Header Idempotency-Key, as it was sent."""
    resources_meanwhile: Resources | None = None
    """What stands in for the process's own, as long as a mutation is done once (app/once.py)."""
    proved: "dict[str, Any] | None" = None
    """The content of a mutation, as it is kept, once a child has read it."""
    previewed: bool = False
    """Whether this request tried a query of its own: one may take seconds of PostgreSQL, thirty aliases all of it."""
    now: datetime = field(init=False)
    made_loaders: Loaders | None = None

    def __post_init__(self) -> None:
        self.now = self.services.clock()

    @property
    def resources(self) -> Resources:
        return self.resources_meanwhile or self.services.resources

    @property
    def known_caller(self) -> Caller:
        """The caller; root fields have made sure that there is one."""
        if self.caller is None:
            raise unauthenticated()
        return self.caller

    @property
    def workspace_id(self) -> UUID:
        return self.known_caller.workspace_id

    @property
    def loaders(self) -> Loaders:
        """Batch look-ups of this request; what one resolver has read, the next finds here."""
        if self.made_loaders is None:
            self.made_loaders = Loaders(self.workspace_id, now=self.now)
        return self.made_loaders

    def forget_reads(self) -> None:
        """Read everything anew from here on, because something is about to change."""
        self.made_loaders = None


Info = StrawberryInfo[Context, None]
