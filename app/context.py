"""What a resolver is given: who asks, when, and the process's wiring."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from strawberry.types import Info as StrawberryInfo

from app.api.loaders import Loaders
from app.auth import Authenticator, Caller, unauthenticated
from app.boards import Boards
from app.resources import Resources
from app.settings import Settings
from app.targets import Targets
from campaigns.links import Tracker


@dataclass(frozen=True, slots=True)
class Services:
    """What the API's process has beside the resources it shares with workers."""

    settings: Settings
    resources: Resources
    authenticator: Authenticator
    boards: Boards
    tracker: Tracker
    targets: Targets


@dataclass(slots=True)
class Context:
    """One request. `now` is read once, so that everything in it agrees on the time."""

    services: Services
    caller: Caller | None
    viewer_token: str | None = None
    """Header X-Muster-Viewer."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    made_loaders: Loaders | None = None

    @property
    def resources(self) -> Resources:
        return self.services.resources

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
            self.made_loaders = Loaders(self.workspace_id)
        return self.made_loaders

    def forget_reads(self) -> None:
        """Read everything anew from here on, because something is about to change."""
        self.made_loaders = None


Info = StrawberryInfo[Context, None]
